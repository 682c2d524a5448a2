//! Runs of clang's front end, several at once when a unit has several sources.

use super::driver::{Answer, Piece, Place, ask};
use super::headers::{self, RESOURCES};
use super::messages::failure;
use super::target::Target;
use super::{Contents, Prepared};
use crate::parallel::{drop_later, in_parallel};
use crate::reuse::{Functions, Reuse, SourceReuse};
use crate::shim::{File, Files, Job, JobKind, Messages, Object};
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::sys::sync::RwLock;
use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Instant;

/// `-mllvm` sets options of LLVM for the whole process: a compilation with one runs alone.
static LLVM_OPTIONS: RwLock<()> = RwLock::new(());

/// What a run of the front end makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// An ELF object.
    Object,
    /// The module as bitcode, before any pass of LLVM has seen it.
    Bitcode,
}

/// The result of one run of the front end.
pub(crate) struct CompiledObject {
    /// The ELF object, or bitcode.
    pub(crate) object: Object,
    /// The front end's arguments, after `-cc1`.
    pub(crate) arguments: Vec<String>,
    /// What was said on the way.
    pub(crate) messages: Messages,
    /// The object, where functions of an older one were put into it.
    completed: Option<Vec<u8>>,
    /// Its functions, where something of them is to be kept.
    pub(crate) functions: Functions,
}

impl CompiledObject {
    /// The ELF object, or bitcode.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.completed.as_deref().unwrap_or_else(|| self.object.bytes())
    }
}

/// What compiling came to.
pub(crate) struct Compiled {
    /// One object an input, in order.
    pub(crate) objects: Vec<CompiledObject>,
    /// Messages of the driver.
    pub(crate) messages: Messages,
    /// Paths that were read (0), looked for in vain (1), listed (2).
    pub(crate) seen: Vec<(Vec<u8>, u8)>,
    /// Milliseconds for parsing and for code generation, scaled to the time that went by.
    pub(crate) times: (f64, f64),
    /// The processor that code was generated for.
    pub(crate) target: Target,
    /// The front end's lines.
    pub(crate) log: Vec<String>,
}

/// A source that was compiled to bitcode, for any thread.
pub(crate) struct Module<'a> {
    /// The source, as messages know it.
    pub(crate) path: &'a str,
    /// The front end's arguments, after `-cc1`.
    pub(crate) arguments: &'a [String],
    /// The bitcode.
    pub(crate) bitcode: &'a [u8],
    /// Whether it is sound for certain.
    pub(crate) trusted: bool,
}

/// The modules that sources were compiled to, in order.
pub(crate) fn modules<'a>(sources: &'a [Prepared<'_>], compiled: &'a Compiled) -> Vec<Module<'a>> {
    let module = |(source, made): (&'a Prepared<'_>, &'a CompiledObject)| Module {
        path: &source.path,
        arguments: &made.arguments,
        bitcode: made.bytes(),
        trusted: !matches!(source.contents, Some(Contents::Unread(_))),
    };
    sources.iter().zip(&compiled.objects).map(module).collect()
}

/// Compiles sources, in parallel when there are several; with `reuse` functions that have not changed are taken from there.
///
/// # Errors
/// Usage for flags that clang does not take, else what clang says of the first source that does not compile.
pub(crate) fn compile(
    sources: &[Prepared<'_>],
    flags: &[&str],
    place: &Place<'_>,
    form: Form,
    color: bool,
    reuse: Option<&Reuse<'_>>,
) -> Result<Compiled, Failure> {
    let start = Instant::now();
    let paths = distinct_paths(sources);
    let answer = ask_for(sources, &paths, flags, place, color)?;
    let inputs: Vec<File<'_>> = sources
        .iter()
        .zip(&paths)
        .filter_map(|(source, path)| {
            let contents = source.contents.as_ref()?;
            Some(File { path: path.as_ref().into(), contents: contents.bytes().into() })
        })
        .collect();
    let files = Files::new(&place.directory.to_string_lossy(), RESOURCES, headers::files(), &inputs);
    let modules: Vec<Option<&[u8]>> = sources.iter().map(|source| module(source, form)).collect();
    let lines: Vec<&[String]> = answer.jobs.iter().map(|job| &job.arguments[1..]).collect();
    let again = reuse.map(|reuse| Again { reuse, paths: &paths });
    let objects = run(&modules, &files, &lines, form, color, again.as_ref())
        .map_err(|failed| not_compiled(sources, failed))?
        .into_iter()
        .zip(lines)
        .map(|(Outcome { object, messages, completed, functions }, line)| CompiledObject {
            object,
            arguments: line.to_vec(),
            messages,
            completed,
            functions,
        })
        .collect::<Vec<_>>();
    let (frontend, codegen) =
        objects.iter().map(|o| o.object.times()).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    let passed = start.elapsed().as_secs_f64() * 1e3;
    let share = if frontend + codegen > 0.0 { codegen / (frontend + codegen) } else { 0.0 };
    let mut seen = answer.seen;
    seen.extend(files.seen());
    Ok(Compiled {
        objects,
        messages: answer.messages,
        seen,
        times: (passed * (1.0 - share), passed * share),
        target: Target::of(answer.jobs.iter().map(|job| &job.arguments[..])),
        log: answer.jobs.iter().map(|job| format!("clang {}", shown(&job.arguments))).collect(),
    })
}

/// Generates code of the modules that [`compile`] has made of the sources, as it would have itself, but with every function in
/// a section of its own. The objects come in the order of the sources.
///
/// # Errors
/// What the code generator says of the first that it cannot do.
pub(crate) fn generate(
    sources: &[Prepared<'_>],
    modules: &[Module<'_>],
    place: &Place<'_>,
    color: bool,
) -> Result<Vec<(Object, Messages)>, Failure> {
    let paths = distinct_paths(sources);
    let inputs: Vec<File<'_>> = paths
        .iter()
        .zip(modules)
        .map(|(path, module)| File { path: path.as_ref().into(), contents: module.bitcode.into() })
        .collect();
    let files = Files::new(&place.directory.to_string_lossy(), RESOURCES, headers::files(), &inputs);
    let of_module = |module: &Module<'_>| {
        let mut line = module.arguments.to_vec();
        if let Some(at) = line.iter().rposition(|argument| argument == "-x")
            && let Some(language) = line.get_mut(at + 1)
        {
            *language = "ir".to_owned();
        }
        line.push("-ffunction-sections".to_owned());
        line
    };
    let lines: Vec<Vec<String>> = modules.iter().map(of_module).collect();
    let lines: Vec<&[String]> = lines.iter().map(Vec::as_slice).collect();
    let made = run(&vec![None; lines.len()], &files, &lines, Form::Object, color, None);
    let made = made.map_err(|failed| not_compiled(sources, failed))?;
    Ok(made.into_iter().map(|outcome| (outcome.object, outcome.messages)).collect())
}

/// What went wrong with one of the sources.
fn not_compiled(sources: &[Prepared<'_>], (number, messages): (usize, Messages)) -> Failure {
    let path = sources.get(number).map_or("", |source| source.path.as_ref());
    failure(FailureKind::Compile, &format!("compile {path}"), &messages)
}

/// The paths that the compiler knows the sources by: their own, except where one that lies in memory would hide another.
pub(crate) fn distinct_paths<'a>(sources: &'a [Prepared<'_>]) -> Vec<Cow<'a, str>> {
    let on_disk = sources.iter().filter(|source| source.contents.is_none());
    let mut taken: HashSet<String> = on_disk.map(|source| source.path.to_string()).collect();
    let distinct = |source: &'a Prepared<'_>| {
        let mut path = Cow::Borrowed(source.path.as_ref());
        let mut count = 1;
        while source.contents.is_some() && !taken.insert(path.to_string()) {
            count += 1;
            path = Cow::Owned(format!("{}#{count}", source.path));
        }
        path
    };
    sources.iter().map(distinct).collect()
}

/// The driver's answer for all sources, a job each, in order.
///
/// Where a unit has sources in C and in C++, a language standard among the flags is for those it can be for, as in the
/// build systems that keep flags for the two apart.
fn ask_for(
    sources: &[Prepared<'_>],
    paths: &[Cow<'_, str>],
    flags: &[&str],
    place: &Place<'_>,
    color: bool,
) -> Result<Answer, Failure> {
    let mut languages: Vec<&str> = sources.iter().map(|source| source.driver_language).collect();
    languages.sort_unstable();
    languages.dedup();
    let mixed = languages.contains(&"c") && languages.contains(&"c++");
    let mut jobs: Vec<Option<Job>> = sources.iter().map(|_| None).collect();
    let mut seen = Vec::new();
    let messages = Messages::new();
    for language in languages {
        let fits = |flag: &&&str| !mixed || !is_standard_of_other(flag, language);
        let mut line: Vec<Piece<'_>> = flags.iter().filter(fits).map(|flag| Piece::Flag(flag)).collect();
        // Last, so that they hold whatever the flags say: an image is position-independent.
        line.extend([Piece::Flag("-fPIC"), Piece::Flag("-c"), Piece::Flag("-x"), Piece::Flag(language)]);
        let places: Vec<usize> =
            (0..sources.len()).filter(|&i| sources[i].driver_language == language).collect();
        line.extend(places.iter().map(|&i| Piece::Input(&paths[i])));
        let answer = ask(&line, place, color)?;
        if answer.jobs.len() != places.len() || answer.jobs.iter().any(|job| job.kind != JobKind::Compile) {
            return Err(Failure::new(
                FailureKind::Usage,
                "cannot compile with these flags: they ask for more than one object a source (several targets, \
                 -save-temps, -no-integrated-as and the like)",
            ));
        }
        for (place, job) in places.into_iter().zip(answer.jobs) {
            jobs[place] = Some(job);
        }
        seen.extend(answer.seen);
        messages.append(&answer.messages);
    }
    Ok(Answer { jobs: jobs.into_iter().flatten().collect(), seen, messages })
}

/// Whether `flag` chooses a standard of C++ and `language` is C, or the other way round.
fn is_standard_of_other(flag: &str, language: &str) -> bool {
    let standard = flag.strip_prefix("--std=").or_else(|| flag.strip_prefix("-std="));
    standard.is_some_and(|standard| standard.contains("++") != (language == "c++") && language != "ir")
}

/// The module of a source that is one already, if a module is wanted: the front end would only read it and write it once
/// more.
fn module<'a>(source: &'a Prepared<'_>, form: Form) -> Option<&'a [u8]> {
    let contents = source.contents.as_ref().filter(|_| form == Form::Bitcode)?;
    matches!(contents, Contents::Bitcode(_) | Contents::Unread(_)).then(|| contents.bytes())
}

/// An object and what was said of it.
struct Outcome {
    object: Object,
    messages: Messages,
    completed: Option<Vec<u8>>,
    functions: Functions,
}

/// What is known of the sources, which have these paths, from the last time.
struct Again<'a> {
    reuse: &'a Reuse<'a>,
    paths: &'a [Cow<'a, str>],
}

/// Runs the front end with the lines (what is behind `-cc1`) of sources that are no modules, several at once. After an error
/// none is begun any more; then gives the number of the first that failed and what was said of it.
fn run(
    modules: &[Option<&[u8]>],
    files: &Files,
    lines: &[&[String]],
    form: Form,
    color: bool,
    again: Option<&Again<'_>>,
) -> Result<Vec<Outcome>, (usize, Messages)> {
    let alone = lines.iter().any(|line| line.iter().any(|argument| argument == "-mllvm"));
    let _shared = (!alone).then(|| LLVM_OPTIONS.read());
    let _exclusive = alone.then(|| LLVM_OPTIONS.write());
    in_parallel(lines.len(), alone, |number| {
        let line = lines[number];
        let reuse = again.and_then(|again| Some((again.reuse, again.paths.get(number)?)));
        let mut outcome = match (modules[number], reuse) {
            (Some(module), _) => one(Object::of(module), Messages::new())?,
            (None, Some((reuse, path))) => with_reuse(files, line, color, reuse, path)?,
            (None, None) => {
                let messages = Messages::new();
                one(files.compile(line, form == Form::Bitcode, color, &messages, None), messages)?
            }
        };
        if let Some(rest) = outcome.object.take_rest() {
            drop_later(rest);
        }
        Ok(outcome)
    })
}

fn one(object: Option<Object>, messages: Messages) -> Result<Outcome, Messages> {
    match object {
        Some(object) => Ok(Outcome { object, messages, completed: None, functions: Functions::default() }),
        None => Err(messages),
    }
}

/// Compiles the source at `path` to an object, but for the functions that have not changed.
fn with_reuse(
    files: &Files,
    line: &[String],
    color: bool,
    reuse: &Reuse<'_>,
    path: &str,
) -> Result<Outcome, Messages> {
    let mut source = reuse.of_source(path, line);
    let messages = Messages::new();
    let object = files.compile(line, false, color, &messages, Some(&mut |offered| source.choose(offered)));
    if !source.is_used() {
        let functions = source.functions();
        return one(object, messages).map(|outcome| Outcome { functions, ..outcome });
    }
    let completed = object.as_ref().and_then(|object| source.complete(object.bytes()));
    if let (Some(object), Some(completed)) = (object, completed) {
        let functions = source.functions();
        return Ok(Outcome { object, messages, completed: Some(completed), functions });
    }
    // Something is in the way that nobody has thought of: everything is compiled.
    let mut source = SourceReuse::default();
    let messages = Messages::new();
    let object = files.compile(line, false, color, &messages, Some(&mut |offered| source.choose(offered)));
    let functions = source.functions();
    one(object, messages).map(|outcome| Outcome { functions, ..outcome })
}

/// Arguments as a shell would take them.
pub(crate) fn shown(arguments: &[String]) -> String {
    let quote = |argument: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:%@".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}
