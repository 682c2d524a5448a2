//! The settings of a request: everything that decides what comes out, but for the contents of files; and in what two
//! of them differ, in words.
//!
//! A [`Key`](super::Key) is a hash of them without the level of optimisation, which has rules of its own ([`super::level`]):
//! everything else must match exactly. So what differs is never needed to find an image, only to say why there is none.

use super::flags::{self, Aspect, Grammar, Rule};
use super::level::Level;
use super::reasons::{Difference, Miss};
use crate::boundary::{Argument, BUILD, Content, Lang, LevelSigns, Request, Trace, takes_value};
use crate::codec::{CodecError, Reader, Writer};
use crate::cpu::{self, CpuFeatures};
use crate::image::ProcessorLacks;
use crate::trace::{Call, Record};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a request says, or what one said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings<'a> {
    /// The Hotbed that made it.
    pub(super) build: &'a str,
    /// Whether functions are compiled when they are first called.
    pub(super) lazy: bool,
    /// Flags and inputs in order, without those for `level`.
    pub(super) arguments: Vec<Piece<'a>>,
    pub(super) entry: Option<&'a str>,
    pub(super) soname: Option<&'a str>,
    /// Images that it is linked against, and the hashes of their interfaces.
    pub(super) images: Vec<(&'a str, [u8; 32])>,
    pub(super) whole_archives: bool,
    /// A hash of the trace by which it is laid out.
    pub(super) trace: Option<[u8; 32]>,
    pub(super) environment: Vec<(&'a str, &'a str)>,
    /// Where something records it.
    pub(super) directory: Option<&'a Path>,
    /// This machine's where something depends on it.
    pub(super) processor: Option<Processor>,
    /// The level of optimisation, where levels have a rank.
    pub(super) level: Option<Level>,
}

/// What `-march=native` and its like depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Processor {
    /// Family, model and stepping.
    pub(super) signature: u32,
    /// What it has.
    pub(super) features: CpuFeatures,
}

/// A piece of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A flag or its value.
    Flag(&'a str),
    /// Something to compile or link.
    Input {
        lang: Lang,
        name: &'a [u8],
        /// Hash of what is in memory.
        contents: Option<[u8; 32]>,
    },
}

impl<'a> Settings<'a> {
    /// Those of `request`. The unit's name and the colour of messages are not among them; nor is the directory,
    /// unless debug information or coverage data records it: dependencies with relative paths tell directories apart.
    pub(super) fn of(request: &'a Request) -> Self {
        // Taken apart, so that a new field cannot be forgotten here.
        let Request {
            unit: _,
            arguments,
            directory,
            environment,
            entry,
            soname,
            images,
            whole_archives,
            lazy,
            trace,
            color: _,
            stock: _,
        } = request;
        let level = flags::level(request);
        let mut pieces = Vec::with_capacity(arguments.len());
        let mut grammar = Grammar::default();
        let mut records_directory = false;
        let mut native = false;
        for argument in arguments {
            let ranked = |flag| Aspect::of(flag).rule() == Rule::Ranked;
            let is_ranked = grammar.flag(argument).is_some_and(ranked);
            match argument {
                Argument::Flag(_) if is_ranked && level.is_some() => {}
                Argument::Flag(flag) => {
                    records_directory |= flag_records_directory(flag);
                    native |= flag.contains("native");
                    pieces.push(Piece::Flag(flag));
                }
                Argument::Input(input) => {
                    let (name, contents) = match &input.content {
                        Content::File(path) => (path.as_os_str().as_bytes(), None),
                        Content::Bytes { name, bytes } => {
                            (name.as_bytes(), Some(*blake3::hash(bytes).as_bytes()))
                        }
                    };
                    pieces.push(Piece::Input { lang: input.lang, name, contents });
                }
            }
        }
        Self {
            build: BUILD,
            lazy: *lazy,
            arguments: pieces,
            entry: entry.as_deref(),
            soname: soname.as_deref(),
            images: images.iter().map(|image| (image.name.as_str(), image.interface.hash())).collect(),
            whole_archives: *whole_archives,
            trace: trace.as_ref().map(hash_of),
            environment: environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            directory: records_directory.then_some(directory),
            processor: native.then(Processor::here),
            level,
        }
    }

    /// Appends everything that must match exactly: everything but the level.
    pub(super) fn write_exact(&self, w: &mut Writer) {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self {
            build,
            lazy,
            arguments,
            entry,
            soname,
            images,
            whole_archives,
            trace,
            environment,
            directory,
            processor,
            level: _,
        } = self;
        w.text(build);
        w.bool(*lazy);
        w.list(arguments, |w, piece| match piece {
            Piece::Flag(flag) => {
                w.u8(0);
                w.text(flag);
            }
            Piece::Input { lang, name, contents } => {
                w.u8(1);
                w.u8(*lang as u8);
                w.bytes(name);
                w.option(contents.as_ref(), |w, hash| w.raw(hash));
            }
        });
        w.option(entry.as_ref(), |w, entry| w.text(entry));
        w.option(soname.as_ref(), |w, soname| w.text(soname));
        w.list(images, |w, (name, interface)| {
            w.text(name);
            w.raw(interface);
        });
        w.bool(*whole_archives);
        w.option(trace.as_ref(), |w, hash| w.raw(hash));
        w.list(environment, |w, (name, value)| {
            w.text(name);
            w.text(value);
        });
        w.option(directory.as_ref(), |w, directory| w.path(directory));
        w.option(processor.as_ref(), |w, Processor { signature, features }| {
            w.u32(*signature);
            w.raw(&features.to_bytes());
        });
        // Whether levels have a rank decides what is among the arguments.
        w.bool(self.level.is_some());
    }

    /// The settings as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.write_exact(&mut w);
        w.u8(self.level.map_or(0, |level| level as u8));
        w.finish()
    }

    /// Settings from their bytes.
    ///
    /// # Errors
    /// When they are not what [`Settings::encode`] makes.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let path = |bytes: &'a [u8]| Path::new(OsStr::from_bytes(bytes));
        let mut settings = Self {
            build: r.text()?,
            lazy: r.bool()?,
            arguments: r.list(|r| match r.u8()? {
                0 => Ok(Piece::Flag(r.text()?)),
                1 => Ok(Piece::Input {
                    lang: Lang::from_tag(r.u8()?).ok_or(CodecError("an unknown language"))?,
                    name: r.bytes()?,
                    contents: r.option(Reader::array)?,
                }),
                _ => Err(CodecError("an unknown kind of argument")),
            })?,
            entry: r.option(Reader::text)?,
            soname: r.option(Reader::text)?,
            images: r.list(|r| Ok((r.text()?, r.array()?)))?,
            whole_archives: r.bool()?,
            trace: r.option(Reader::array)?,
            environment: r.list(|r| Ok((r.text()?, r.text()?)))?,
            directory: r.option(|r| Ok(path(r.bytes()?)))?,
            processor: r.option(|r| {
                Ok(Processor { signature: r.u32()?, features: CpuFeatures::from_bytes(r.array()?) })
            })?,
            level: None,
        };
        let ranked = r.bool()?;
        let level = Level::from_tag(r.u8()?).ok_or(CodecError("an unknown level"))?;
        settings.level = ranked.then_some(level);
        Ok(settings)
    }

    /// A hash of the inputs' kinds and names, in order.
    pub(super) fn inputs_hash(&self) -> blake3::Hash {
        let mut w = Writer::new();
        for piece in &self.arguments {
            if let Piece::Input { lang, name, contents: _ } = piece {
                w.u8(*lang as u8);
                w.bytes(name);
            }
        }
        blake3::hash(&w.finish())
    }

    /// The flags, that for the level first.
    pub(super) fn flags(&self) -> String {
        let level = self.level.map_or("", Level::flag);
        let flags = self.arguments.iter().filter_map(|piece| match piece {
            Piece::Flag(flag) => Some(*flag),
            Piece::Input { .. } => None,
        });
        let all: Vec<&str> = std::iter::once(level).chain(flags).filter(|flag| !flag.is_empty()).collect();
        all.join(" ")
    }

    /// Why an image made with `has` does not serve who asks for this; the most fundamental reasons first.
    pub(super) fn differences(&self, has: &Settings<'_>) -> Vec<Miss> {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self {
            build,
            lazy,
            arguments,
            entry,
            soname,
            images,
            whole_archives,
            trace,
            environment,
            directory,
            processor,
            level: _,
        } = self;
        let mut reasons = Vec::new();
        if *build != has.build {
            reasons.push(Miss::Build(has.build.to_owned()));
        }
        // Where only one depends on the processor, a flag says so.
        if let (Some(asked), Some(has)) = (processor, &has.processor)
            && asked != has
        {
            let lacks = ProcessorLacks { requires: vec![has.features], has: asked.features };
            reasons.push(Miss::Features(lacks));
        }
        reasons.extend(Aspect::ALL.iter().filter_map(|&aspect| self.difference(has, aspect)));
        if reasons.is_empty() && arguments.iter().map(Piece::form).ne(has.arguments.iter().map(Piece::form)) {
            reasons.push(Miss::Order(Difference { asked: self.flags(), has: has.flags() }));
        }
        if *lazy != has.lazy {
            reasons.push(Miss::Form { asked_lazy: *lazy });
        }
        let linkage = |entry: Option<&str>, soname: Option<&str>, whole| {
            let entry = entry.map(|entry| format!("entry {entry}"));
            let soname = soname.map(|soname| format!("soname {soname}"));
            let whole = if whole { Some("whole archives".to_owned()) } else { None };
            let all: Vec<String> = [entry, soname, whole].into_iter().flatten().collect();
            all.join(", ")
        };
        let asked = linkage(*entry, *soname, *whole_archives);
        let made = linkage(has.entry, has.soname, has.whole_archives);
        if asked != made {
            reasons.push(Miss::Linkage(Difference { asked, has: made }));
        }
        if *trace != has.trace {
            reasons.push(Miss::Trace);
        }
        let other = images.iter().find(|image| !has.images.contains(image));
        let other = other.or_else(|| has.images.iter().find(|image| !images.contains(image)));
        reasons.extend(other.map(|(name, _)| Miss::Interface((*name).to_owned())));
        let of_one = |one: &[(&str, &str)], other: &[(&str, &str)]| {
            one.iter().find(|variable| !other.contains(variable)).map(|(name, _)| (*name).to_owned())
        };
        let variable =
            of_one(environment, &has.environment).or_else(|| of_one(&has.environment, environment));
        reasons.extend(variable.map(Miss::Environment));
        if let (Some(directory), Some(other)) = (directory, has.directory)
            && *directory != other
        {
            reasons.push(Miss::Directory(other.into()));
        }
        let contents = arguments.iter().zip(&has.arguments).find_map(|pair| match pair {
            (Piece::Input { name, contents: one, .. }, Piece::Input { contents: other, .. })
                if one != other =>
            {
                Some(Path::new(OsStr::from_bytes(name)).into())
            }
            _ => None,
        });
        reasons.extend(contents.map(Miss::InputChanged));
        reasons
    }

    /// In what flags of one aspect differ, if `has` cannot serve for it.
    fn difference(&self, has: &Settings<'_>, aspect: Aspect) -> Option<Miss> {
        if aspect.rule() == Rule::Ranked
            && let (Some(asked), Some(has)) = (self.level, has.level)
        {
            // Nobody knows here what the sources looked at.
            return has.serves(asked, LevelSigns::NONE, || false).err();
        }
        let (asked, has) = (self.flags_for(aspect), has.flags_for(aspect));
        if asked == has {
            return None;
        }
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|flag| !those.contains(flag)).cloned().collect()
        };
        let (only_asked, only_has) = (only(&asked, &has), only(&has, &asked));
        // In another order, or a different number of times.
        let same = only_asked.is_empty() && only_has.is_empty();
        let (asked, has) = if same { (asked, has) } else { (only_asked, only_has) };
        let difference = Difference { asked: asked.join(" "), has: has.join(" ") };
        Some(match aspect {
            Aspect::Target => Miss::Target(difference),
            Aspect::Processor => Miss::Processor(difference),
            Aspect::DebugInfo => Miss::DebugInfo(difference),
            Aspect::BoundsChecks => Miss::BoundsChecks(difference),
            Aspect::Inlining => Miss::Inlining(difference),
            Aspect::FloatingPoint => Miss::FloatingPoint(difference),
            Aspect::Level => Miss::Level(difference),
            Aspect::Other => Miss::Flags(difference),
        })
    }

    /// The flags for an aspect with their values, in order.
    fn flags_for(&self, aspect: Aspect) -> Vec<String> {
        let level = self.level.filter(|_| aspect.rule() == Rule::Ranked).map(Level::flag);
        let mut flags: Vec<String> =
            level.filter(|flag| !flag.is_empty()).map(str::to_owned).into_iter().collect();
        let mut pieces = self.arguments.iter().peekable();
        while let Some(piece) = pieces.next() {
            let Piece::Flag(flag) = piece else { continue };
            let value = if takes_value(flag) {
                pieces.next_if(|piece| matches!(piece, Piece::Flag(_)))
            } else {
                None
            };
            if Aspect::of(flag) == aspect {
                flags.push(match value {
                    Some(Piece::Flag(value)) => format!("{flag} {value}"),
                    _ => (*flag).to_owned(),
                });
            }
        }
        flags
    }
}

impl Processor {
    fn here() -> Self {
        Self { signature: cpu::signature(), features: CpuFeatures::host() }
    }
}

impl<'a> Piece<'a> {
    /// A flag, or the name of an input.
    fn form(&self) -> (bool, &'a [u8]) {
        match self {
            Self::Flag(flag) => (true, flag.as_bytes()),
            Self::Input { name, .. } => (false, name),
        }
    }
}

/// Where a call is written, and how long its compilation took, is for people.
fn hash_of(trace: &Trace) -> [u8; 32] {
    let Trace { calls, strict } = trace;
    let mut w = Writer::new();
    w.bool(*strict);
    w.list(calls, |w, Call { record, trace: _, line: _ }| {
        let Record { source, function, content, microseconds: _, flags } = record;
        w.text(source);
        w.text(function);
        w.option(content.as_ref(), |w, content| w.raw(content));
        w.list(flags, |w, flag| w.text(flag));
    });
    *blake3::hash(&w.finish()).as_bytes()
}

fn flag_records_directory(flag: &str) -> bool {
    (flag.starts_with("-g") && flag != "-g0")
        || [
            "-fcoverage",
            "-fprofile",
            "-ftest-coverage",
            "--coverage",
            "-fdebug-compilation-dir",
            "-ffile-compilation-dir",
        ]
        .iter()
        .any(|known| flag.starts_with(known))
}
