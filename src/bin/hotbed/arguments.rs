//! The command line of `hotbed run`, `hotbed explain`, `hotbed image build` and `hotbed cache why`: clang's own flags, our options, files, and after `--` the
//! program's arguments. Parsed by hand, because clang's grammar decides what is a file and what is a flag's value.

use hotbed::{ByteSize, CpuLevel, Lang};
use hotbed_loader::boundary::takes_value;
use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A command line, taken apart. Everything borrows from the process's own arguments.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Arguments {
    /// Flags and files in the order they were given.
    pub(crate) pieces: Vec<Piece>,
    /// Our own options.
    pub(crate) options: Options,
    /// The symbol that is to be explained.
    pub(crate) symbol: Option<&'static str>,
    /// What came after `--`.
    pub(crate) program: Vec<&'static CStr>,
}

/// A flag for clang or a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    /// A flag, or a flag's value.
    Flag(&'static str),
    /// A file.
    File(File),
}

/// A file, or standard input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct File {
    /// As it was given.
    pub(crate) argument: &'static CStr,
    /// What is in it.
    pub(crate) kind: Kind,
}

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Something to compile or link.
    Input(Lang),
    /// An image, `.hbi`.
    Image,
    /// A shared library, `.so` or `.so.N`.
    SharedLibrary,
}

/// Our own options.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// `--entry SYMBOL`.
    pub(crate) entry: Option<&'static str>,
    /// `--no-cache`.
    pub(crate) no_cache: bool,
    /// `--cache-dir DIR`.
    pub(crate) cache_dir: Option<&'static Path>,
    /// `--cache-size SIZE`.
    pub(crate) cache_size: Option<ByteSize>,
    /// `--cache-layer DIR`, as often as it was given.
    pub(crate) cache_layers: Vec<&'static Path>,
    /// `--eager`, if it is the last of it and `--lazy`.
    pub(crate) eager: bool,
    /// `--isolate`.
    pub(crate) isolate: bool,
    /// `--gdb`.
    pub(crate) gdb: bool,
    /// `--jitdump DIR`.
    pub(crate) jitdump: Option<&'static Path>,
    /// `--cpu LEVEL`.
    pub(crate) cpu: Option<CpuLevel>,
    /// The levels of `--cpu`, when an image is built.
    pub(crate) variants: Vec<CpuLevel>,
    /// `--trace FILE`, when something is run.
    pub(crate) trace: Option<&'static Path>,
    /// Every `--trace FILE`, when an image is built.
    pub(crate) traces: Vec<&'static Path>,
    /// `--rest`, when an image is built.
    pub(crate) rest: Option<Rest>,
    /// `--strict`, when an image is built.
    pub(crate) strict: bool,
    /// `--autoload`.
    pub(crate) autoload: bool,
    /// `--verbose`.
    pub(crate) verbose: bool,
    /// `--json`, when something is explained.
    pub(crate) json: bool,
    /// `--timings`, `--timings=json`.
    pub(crate) timings: Option<TimingsFormat>,
    /// `--help`.
    pub(crate) help: bool,
    /// `-o OUT`, when an image is built.
    pub(crate) output: Option<&'static Path>,
}

/// What becomes of functions that no trace names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rest {
    /// They are compiled.
    Compile,
    /// They are compiled when they are called after all.
    Bitcode,
}

/// How `--timings` prints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum TimingsFormat {
    /// For people.
    Table,
    /// One object on one line.
    Json,
}

/// What the command line is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Purpose {
    /// `hotbed run`.
    Run,
    /// `hotbed image build`.
    BuildImage,
    /// `hotbed explain`.
    Explain,
    /// `hotbed cache why`.
    Why,
}

/// Why a command line makes no sense.
#[derive(Debug, PartialEq)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a flag of clang makes no sense here, when it does not.
fn senseless(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "-c" | "--compile" => {
            "compiles without linking; what is given here is compiled, linked and kept anyway"
        }
        "-S" | "--assemble" => "asks for assembly instead of something that can be loaded",
        "-E" | "--preprocess" | "-M" | "-MM" | "--dependencies" | "--user-dependencies" => {
            "asks for the preprocessor alone"
        }
        "-fsyntax-only" | "--analyze" | "-emit-ast" | "--precompile" | "-verify-pch" | "-extract-api" => {
            "asks for something that cannot be loaded"
        }
        "-shared" | "--shared" | "-r" | "-static" | "--static" | "-static-pie" => {
            "decides what the linker makes; here that is always an image"
        }
        "-###" => "asks for the commands instead of their work; --verbose shows what is done",
        "--version" => "asks for a version; that is `hotbed --version`",
        "-dumpmachine" | "-dumpversion" | "-dumpfullversion" | "-dumpspecs" => {
            "asks for something to be printed"
        }
        _ if flag.starts_with("-print-") || flag.starts_with("--print-") => {
            "asks for something to be printed"
        }
        _ => return None,
    })
}

/// What clang's `-x` and our `--lang` take.
fn language(name: &str) -> Option<Kind> {
    Some(Kind::Input(match name {
        "c" => Lang::C,
        "c++" | "cpp" | "cxx" => Lang::Cpp,
        "ir" | "ll" => Lang::Ir,
        "bitcode" | "bc" => Lang::Bitcode,
        "object" | "o" => Lang::Object,
        "archive" | "a" => Lang::Archive,
        "image" | "hbi" => return Some(Kind::Image),
        "shared" | "so" => return Some(Kind::SharedLibrary),
        _ => return None,
    }))
}

/// What the name of a file says about it.
fn kind_of_name(name: &[u8]) -> Option<Kind> {
    let base = name.rsplit(|&byte| byte == b'/').next()?;
    let suffix = base.iter().rposition(|&byte| byte == b'.').map(|dot| &base[dot + 1..])?;
    match suffix {
        b"so" => return Some(Kind::SharedLibrary),
        b"hbi" => return Some(Kind::Image),
        _ => {}
    }
    // libz.so.1.3
    let mut rest = base;
    while let Some(dot) = rest.iter().rposition(|&byte| byte == b'.') {
        if &rest[dot..] == b".so" {
            return Some(Kind::SharedLibrary);
        }
        if rest[dot + 1..].is_empty() || !rest[dot + 1..].iter().all(u8::is_ascii_digit) {
            break;
        }
        rest = &rest[..dot];
    }
    std::str::from_utf8(suffix).ok().and_then(Lang::of_suffix).map(Kind::Input)
}

/// Takes the arguments after `hotbed run` and its like apart.
pub(crate) fn parse(arguments: &[&'static CStr], purpose: Purpose) -> Result<Arguments, UsageError> {
    let mut parsed = Arguments::default();
    let mut rest = arguments.iter().copied();
    let mut explicit: Option<Kind> = None; // -x
    let mut lang: Option<Kind> = None; // --lang
    let mut undecided = Vec::new(); // files that no -x decides about: indices into `pieces`
    while let Some(argument) = rest.next() {
        let bytes = argument.to_bytes();
        if bytes == b"--" {
            parsed.program = rest.collect();
            break;
        }
        if purpose == Purpose::Explain && parsed.symbol.is_none() && !bytes.starts_with(b"-") {
            parsed.symbol = Some(text(argument)?);
            continue;
        }
        if bytes == b"-" || !bytes.starts_with(b"-") {
            if explicit.is_none() {
                undecided.push(parsed.pieces.len());
            }
            parsed
                .pieces
                .push(Piece::File(File { argument, kind: explicit.unwrap_or(Kind::Input(Lang::C)) }));
            continue;
        }
        let flag = text(argument)?;
        let (name, joined) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        let mut value = || match joined {
            Some(value) => Ok(OsStr::new(value)),
            None => match rest.next() {
                Some(value) => Ok(OsStr::from_bytes(value.to_bytes())),
                None => Err(UsageError(format!("{flag} wants a value"))),
            },
        };
        let options = &mut parsed.options;
        match name {
            "--eager" if joined.is_none() => options.eager = true,
            "--lazy" if joined.is_none() => options.eager = false,
            "--no-cache" if joined.is_none() => options.no_cache = true,
            "--isolate" if joined.is_none() => options.isolate = true,
            "--gdb" if joined.is_none() => options.gdb = true,
            "--autoload" if joined.is_none() => options.autoload = true,
            "--verbose" if joined.is_none() => options.verbose = true,
            "--json" if joined.is_none() && matches!(purpose, Purpose::Explain | Purpose::Why) => {
                options.json = true;
            }
            "--help" | "-h" if joined.is_none() => options.help = true,
            "--entry" => options.entry = Some(utf8(value()?)?),
            "--cache-dir" => options.cache_dir = Some(Path::new(value()?)),
            "--cache-size" => {
                let size = utf8(value()?)?;
                let size =
                    size.parse::<ByteSize>().map_err(|e| UsageError(format!("--cache-size {size}: {e}")))?;
                options.cache_size = Some(size);
            }
            "--cache-layer" => options.cache_layers.push(Path::new(value()?)),
            "--jitdump" => options.jitdump = Some(Path::new(value()?)),
            "--trace" if purpose == Purpose::BuildImage => options.traces.push(Path::new(value()?)),
            "--trace" => options.trace = Some(Path::new(value()?)),
            "--cpu" => {
                let levels = utf8(value()?)?;
                let level =
                    |name: &str| name.trim().parse().map_err(|e| UsageError(format!("--cpu {levels}: {e}")));
                if purpose == Purpose::BuildImage {
                    options.variants = levels.split(';').map(level).collect::<Result<_, _>>()?;
                } else {
                    options.cpu = Some(level(levels)?);
                }
            }
            "--rest" if purpose == Purpose::BuildImage => {
                options.rest = Some(match utf8(value()?)? {
                    "compile" => Rest::Compile,
                    "bitcode" => Rest::Bitcode,
                    other => {
                        return Err(UsageError(format!("--rest {other}: known are compile and bitcode")));
                    }
                });
            }
            "--strict" if joined.is_none() && purpose == Purpose::BuildImage => options.strict = true,
            "--timings" => {
                options.timings = Some(match joined {
                    None => TimingsFormat::Table,
                    Some("json") => TimingsFormat::Json,
                    Some(other) => return Err(UsageError(format!("--timings={other}: only --timings=json"))),
                });
            }
            "--lang" => lang = Some(known_language(utf8(value()?)?, "--lang")?),
            "-x" | "--language" => explicit = file_language(utf8(value()?)?)?,
            "--output" => options.output = Some(Path::new(value()?)),
            "-o" if joined.is_none() => options.output = Some(Path::new(value()?)),
            _ if flag.starts_with("-x") => explicit = file_language(&flag[2..])?,
            _ if flag.starts_with("-o") && !flag.starts_with("-obj") => {
                options.output = Some(Path::new(&flag[2..]));
            }
            _ => {
                if let Some(why) = senseless(flag) {
                    return Err(UsageError(format!("{flag} makes no sense here: it {why}")));
                }
                parsed.pieces.push(Piece::Flag(flag));
                if takes_value(flag) {
                    let value =
                        rest.next().ok_or_else(|| UsageError(format!("clang's {flag} wants a value")))?;
                    parsed.pieces.push(Piece::Flag(text(value)?));
                }
            }
        }
    }
    for i in undecided {
        if let Some(Piece::File(file)) = parsed.pieces.get_mut(i) {
            file.kind = decide(file.argument, lang)?;
        }
    }
    check(&parsed, purpose)?;
    Ok(parsed)
}

/// What is in a file that no `-x` decides about. `--lang` decides for sources and for names that say nothing; binary
/// files are what their names say.
fn decide(argument: &CStr, lang: Option<Kind>) -> Result<Kind, UsageError> {
    let named = if argument == c"-" { None } else { kind_of_name(argument.to_bytes()) };
    match (named, lang) {
        (Some(Kind::Input(Lang::C | Lang::Cpp | Lang::Ir)) | None, Some(lang)) => Ok(lang),
        (Some(kind), _) => Ok(kind),
        (None, None) if argument == c"-" => {
            let why =
                "standard input has no name that tells its language: give it with --lang c, c++, ir, ...";
            Err(UsageError(why.to_owned()))
        }
        (None, None) if argument.is_empty() => Err(UsageError("a file's name is empty".to_owned())),
        (None, None) => {
            let name = argument.to_string_lossy();
            Err(UsageError(format!(
                "the name of {name} does not tell what is in it: give its language with --lang"
            )))
        }
    }
}

fn known_language(name: &str, option: &str) -> Result<Kind, UsageError> {
    language(name).ok_or_else(|| {
        UsageError(format!(
            "{option} {name}: known are c, c++, ir, bitcode, object, archive, image and shared"
        ))
    })
}

/// The value of `-x`; `none` gives the decision back to the files' names.
fn file_language(name: &str) -> Result<Option<Kind>, UsageError> {
    if name == "none" { Ok(None) } else { known_language(name, "-x").map(Some) }
}

/// What is wrong with a command line as a whole.
fn check(parsed: &Arguments, purpose: Purpose) -> Result<(), UsageError> {
    let wrong = |text: &str| Err(UsageError(text.to_owned()));
    if parsed.options.help {
        return Ok(());
    }
    if purpose == Purpose::Explain && parsed.symbol.is_none_or(str::is_empty) {
        return wrong("no symbol is given");
    }
    if parsed.files().next().is_none() {
        return wrong("no file is given");
    }
    if let Some(conflict) = trace_conflict(&parsed.options, purpose) {
        return wrong(conflict);
    }
    if parsed.files().filter(|file| file.argument == c"-").count() > 1 {
        return wrong("standard input can be read only once");
    }
    match purpose {
        Purpose::Run if parsed.options.output.is_some() => wrong(
            "-o makes no sense here: a program that is run leaves no file; `hotbed image build` writes one",
        ),
        Purpose::Explain if parsed.options.output.is_some() => {
            wrong("-o makes no sense here: an explanation goes to standard output")
        }
        Purpose::Why if parsed.options.output.is_some() => {
            wrong("-o makes no sense here: a reason goes to standard output")
        }
        Purpose::Explain | Purpose::Why if parsed.options.timings.is_some() => {
            wrong("--timings makes no sense here: nothing is run")
        }
        Purpose::BuildImage if parsed.options.output.is_none() => wrong("-o OUT.hbi is missing"),
        Purpose::BuildImage if parsed.options.traces.is_empty() && parsed.options.rest.is_some() => wrong(
            "--rest is about functions that a trace does not name: there is none; `hotbed run --trace FILE` writes one",
        ),
        Purpose::BuildImage if parsed.options.traces.is_empty() && parsed.options.strict => {
            wrong("--strict is about traces, and there is none")
        }
        Purpose::BuildImage | Purpose::Explain if !parsed.program.is_empty() => {
            wrong("nothing is run, so nothing can follow `--`")
        }
        Purpose::BuildImage if parsed.files().any(|file| file.kind == Kind::SharedLibrary) => wrong(
            "an image is built from sources, IR, bitcode, objects and archives; shared libraries are named with -l",
        ),
        Purpose::BuildImage if parsed.files().all(|file| file.kind == Kind::Image) => {
            wrong("there is nothing to build: an image on the line is one to link against")
        }
        _ => Ok(()),
    }
}

/// Why there can be no trace, if one is wanted.
fn trace_conflict(options: &Options, purpose: Purpose) -> Option<&'static str> {
    options.trace?;
    Some(match purpose {
        Purpose::BuildImage => return None,
        Purpose::Explain | Purpose::Why => "--trace makes no sense here: nothing is run",
        Purpose::Run if options.eager => {
            "--trace and --eager: what is compiled whole calls itself directly, which nobody sees"
        }
        Purpose::Run if options.isolate => {
            "--trace and --isolate: a worker compiles whole units, whose calls nobody sees"
        }
        Purpose::Run if options.gdb => {
            "--trace and --gdb: gdb is told of whole units only, whose calls nobody sees"
        }
        Purpose::Run if options.jitdump.is_some() => {
            "--trace and --jitdump: perf is told of whole units only, whose calls nobody sees"
        }
        Purpose::Run => return None,
    })
}

impl Arguments {
    /// The files, in the order they were given.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::File(file) => Some(file),
            Piece::Flag(_) => None,
        })
    }
}

impl File {
    /// Its path; `-` stands for standard input.
    pub(crate) fn path(&self) -> &'static Path {
        Path::new(OsStr::from_bytes(self.argument.to_bytes()))
    }
}

fn utf8(value: &'static OsStr) -> Result<&'static str, UsageError> {
    value.to_str().ok_or_else(|| UsageError(format!("{}: must be valid UTF-8", value.to_string_lossy())))
}

fn text(argument: &'static CStr) -> Result<&'static str, UsageError> {
    argument
        .to_str()
        .map_err(|_| UsageError(format!("{}: a flag must be valid UTF-8", argument.to_string_lossy())))
}

#[cfg(test)]
mod tests;
