//! What a host can ask a runtime to load.
//!
//! There is one type for each kind of thing, so that only what makes sense for it can be said; all of them turn into a
//! [`Load`]. What is compiled or linked is a list of flags and inputs in the order of a command line; everything in it
//! becomes one unit.

use crate::archive::{Archive, Archived};
use crate::error::Error;
use crate::namespace::Namespace;
use crate::trace::Trace;
use hotbed_loader::boundary::{Argument, Content, Failure, FailureKind, Input, Lang, Request};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Something to load, of whatever kind.
#[derive(Debug, Clone)]
pub struct Load {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The namespace; that of who asks for none if nothing is said.
    pub(crate) namespace: Option<Namespace>,
}

/// The kinds of thing.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Through a back end.
    Compile(Compilation),
    /// An image the host names.
    Image(Place),
    /// A shared library.
    Library(LibraryName),
    /// An archive whose members are loaded when they are needed.
    Archive(Archived),
    /// Through a back end when it is needed, for the symbols of a list if there is one.
    Lazy(Compilation, Option<BTreeSet<String>>),
}

/// Where bytes are.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// How a shared library is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LibraryName {
    Path(PathBuf),
    Name(String),
}

/// A piece of a command line.
#[derive(Debug, Clone)]
enum Piece {
    Flag(String),
    /// Without a language the suffix tells it.
    Input(Option<Lang>, Content),
}

/// Flags and inputs of one unit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Compilation {
    pieces: Vec<Piece>,
    entry: Option<String>,
    /// Whether archives are taken whole; by default when there is nothing in the unit that could refer to them.
    whole_archives: Option<bool>,
    functions: Functions,
}

/// When functions are compiled, and where they lie.
#[derive(Debug, Clone, Default)]
struct Functions {
    /// When they are first called.
    lazy: bool,
    /// Those that are known to be called are compiled at once, and lie together.
    trace: Option<Trace>,
}

impl Compilation {
    /// The request for `unit`, with what surrounds it.
    pub(crate) fn request(self, unit: &str, color: bool) -> Result<Request, Error> {
        let fail = |kind, message| Error::of_failure(unit, Failure::new(kind, message));
        let Self { pieces, entry, whole_archives, functions: Functions { lazy, trace } } = self;
        let mut arguments = Vec::with_capacity(pieces.len());
        for piece in pieces {
            arguments.push(match piece {
                Piece::Flag(flag) => Argument::Flag(flag),
                Piece::Input(lang, content) => {
                    let Some(lang) = lang.or_else(|| language_of(&content)) else {
                        let name = content.name();
                        let message = format!(
                            "cannot load {name}: its suffix does not tell what it is; say the language"
                        );
                        return Err(fail(FailureKind::Usage, message));
                    };
                    Argument::Input(Input { lang, content })
                }
            });
        }
        let directory = std::env::current_dir().map_err(|e| Error::read(unit, Path::new("."), &e))?;
        let environment = Request::ENVIRONMENT
            .iter()
            .filter_map(|name| {
                Some(((*name).to_owned(), std::env::var_os(name)?.to_string_lossy().into_owned()))
            })
            .collect();
        let mut request = Request {
            unit: unit.to_owned(),
            arguments,
            directory,
            environment,
            entry,
            soname: None,
            images: Vec::new(),
            whole_archives: false,
            lazy,
            trace: trace.map(Trace::into_request),
            color,
            stock: None,
        };
        if request.inputs().next().is_none() {
            return Err(fail(FailureKind::Usage, format!("cannot load {unit}: no input")));
        }
        request.whole_archives = whole_archives.unwrap_or_else(|| {
            request.entry.is_none() && request.inputs().all(|input| input.lang == Lang::Archive)
        });
        Ok(request)
    }

    /// Puts another one behind it.
    pub(crate) fn append(&mut self, other: Self) {
        let Self { pieces, entry, whole_archives, functions: Functions { lazy, trace } } = other;
        self.pieces.extend(pieces);
        self.entry = self.entry.take().or(entry);
        self.whole_archives = self.whole_archives.or(whole_archives);
        let functions = &mut self.functions;
        functions.lazy |= lazy;
        functions.trace = match (functions.trace.take(), trace) {
            (Some(known), Some(more)) => Some(known.and(&more)),
            (known, more) => known.or(more),
        };
    }

    pub(crate) fn set_entry(&mut self, symbol: String) {
        self.entry = Some(symbol);
    }

    fn input(&mut self, lang: Option<Lang>, content: Content) {
        self.pieces.push(Piece::Input(lang, content));
    }

    fn flag(&mut self, flag: impl Into<String>) {
        self.pieces.push(Piece::Flag(flag.into()));
    }

    /// The name of the first input.
    fn name(&self) -> String {
        self.pieces
            .iter()
            .find_map(|piece| match piece {
                Piece::Input(_, content) => Some(content.name().into_owned()),
                Piece::Flag(_) => None,
            })
            .unwrap_or_default()
    }
}

impl Compilation {
    /// With all members of the archives in it.
    pub(crate) fn whole(self) -> Self {
        Self { whole_archives: Some(true), ..self }
    }

    /// Several inputs of known kinds, and flags after them.
    pub(crate) fn of_all(inputs: impl IntoIterator<Item = (Lang, Content)>, flags: &[String]) -> Self {
        let mut compilation = Self::default();
        inputs.into_iter().for_each(|(lang, content)| compilation.input(Some(lang), content));
        flags.iter().for_each(|flag| compilation.flag(flag));
        compilation
    }
}

fn language_of(content: &Content) -> Option<Lang> {
    let name = match content {
        Content::File(path) => path.as_path(),
        Content::Bytes { name, .. } => Path::new(name),
    };
    Lang::of_suffix(name.extension()?.to_str()?)
}

pub(crate) fn file(path: impl AsRef<Path>) -> Content {
    Content::File(path.as_ref().to_owned())
}

pub(crate) fn bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Content {
    Content::Bytes { name: name.into(), bytes: bytes.into() }
}

/// Gives a type of input the choice of a namespace.
macro_rules! in_namespace {
    ($($name:ident),*) => {$(
        impl $name {
            /// The namespace that the unit is loaded into; the runtime's default one if nothing is said.
            pub fn namespace(mut self, namespace: &Namespace) -> Self {
                self.namespace = Some(namespace.clone());
                self
            }
        }
    )*};
}

in_namespace!(Source, Ir, Bitcode, Object, Archive, Program, Image, SharedLibrary);

/// Gives a type of input the choice of when its functions are compiled.
macro_rules! maybe_lazy {
    ($($name:ident),*) => {$(
        impl $name {
            /// Has each function compiled when it is first called, with what belongs to it; what cannot be taken to
            /// pieces is compiled whole all the same.
            pub fn lazy(mut self) -> Self {
                self.functions.lazy = true;
                self
            }

            /// What is known of calls: the functions that were called lie together, in that order, apart from all others. If
            /// functions are [lazy](Self::lazy), these are compiled at once all the same, each for itself; the names of
            /// the others are for the unit alone then, and what is called of them is compiled anew in every process.
            pub fn trace(mut self, trace: Trace) -> Self {
                self.functions.trace = Some(trace);
                self
            }
        }
    )*};
}

maybe_lazy!(Source, Ir, Bitcode, Program);

/// C or C++ source. The unit's name is that of the first file, unless it is given another.
#[derive(Debug, Clone)]
#[must_use]
pub struct Source {
    name: Option<String>,
    lang: Option<Lang>,
    contents: Vec<Content>,
    flags: Vec<String>,
    entry: Option<String>,
    namespace: Option<Namespace>,
    functions: Functions,
}

impl Source {
    /// A source file.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::files([path])
    }

    /// Several source files that become one unit.
    pub fn files(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        Self::of(paths.into_iter().map(file).collect())
    }

    /// Source text; `name` stands for it in messages and `__FILE__`, and its suffix tells the language.
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::of(vec![bytes(name, text.into())])
    }

    fn of(contents: Vec<Content>) -> Self {
        let (flags, functions) = (Vec::new(), Functions::default());
        Self { name: None, lang: None, contents, flags, entry: None, namespace: None, functions }
    }

    /// The language, whatever the suffixes say.
    pub fn lang(mut self, lang: Lang) -> Self {
        self.lang = Some(lang);
        self
    }
}

/// Gives a type of one kind of input its constructors.
macro_rules! compiled {
    ($(#[$doc:meta])* $name:ident, $lang:expr, $file:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        #[must_use]
        pub struct $name {
            name: Option<String>,
            content: Content,
            flags: Vec<String>,
            entry: Option<String>,
            namespace: Option<Namespace>,
            functions: Functions,
        }

        impl $name {
            #[doc = $file]
            pub fn file(path: impl AsRef<Path>) -> Self {
                Self::of(file(path))
            }

            /// The same from memory; `name` stands for it in messages and is the unit's name.
            pub fn bytes(name: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
                Self::of(bytes(name, contents))
            }

            fn of(content: Content) -> Self {
                let (flags, functions) = (Vec::new(), Functions::default());
                Self { name: None, content, flags, entry: None, namespace: None, functions }
            }
        }

        impl From<$name> for Load {
            fn from(value: $name) -> Self {
                let (entry, functions) = (value.entry, value.functions);
                let mut compilation = Compilation { entry, functions, ..Compilation::default() };
                compilation.input(Some($lang), value.content);
                value.flags.into_iter().for_each(|flag| compilation.flag(flag));
                let name = value.name.unwrap_or_else(|| compilation.name());
                Self { name, kind: Kind::Compile(compilation), namespace: value.namespace }
            }
        }

        compiled!(@ $name);
    };
    (@ $name:ident) => {
        impl $name {
            /// Another name for the unit.
            pub fn named(mut self, name: impl Into<String>) -> Self {
                self.name = Some(name.into());
                self
            }

            /// More flags, as clang's driver takes them; those for the linker (`-lm`, `-Wl,...`) come after the input.
            pub fn flags(mut self, flags: impl IntoIterator<Item = impl Into<String>>) -> Self {
                self.flags.extend(flags.into_iter().map(Into::into));
                self
            }

            /// A symbol that has to be there even if it must be taken out of an archive.
            pub fn entry(mut self, symbol: impl Into<String>) -> Self {
                self.entry = Some(symbol.into());
                self
            }
        }
    };
}

compiled!(@ Source);
compiled!(
    /// LLVM IR as text.
    Ir, Lang::Ir, "A file of IR."
);
compiled!(
    /// LLVM bitcode.
    Bitcode, Lang::Bitcode, "A file of bitcode."
);
compiled!(
    /// A relocatable object, compiled with `-fPIC`.
    Object, Lang::Object, "An object file."
);

impl Ir {
    /// IR text; `name` stands for it in messages and is the unit's name.
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::bytes(name, text.into())
    }
}

impl From<Source> for Load {
    fn from(source: Source) -> Self {
        let (entry, functions) = (source.entry, source.functions);
        let mut compilation = Compilation { entry, functions, ..Compilation::default() };
        for content in source.contents {
            compilation.input(source.lang, content);
        }
        source.flags.into_iter().for_each(|flag| compilation.flag(flag));
        let name = source.name.unwrap_or_else(|| compilation.name());
        Self { name, kind: Kind::Compile(compilation), namespace: source.namespace }
    }
}

/// A unit of flags and inputs of several kinds, in the order of a command line.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Program {
    name: Option<String>,
    compilation: Compilation,
    namespace: Option<Namespace>,
    functions: Functions,
}

impl Program {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a flag as clang's driver takes it, but not `-x`, `-c`, `-o` and the like, which the runtime decides.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.compilation.flag(flag);
        self
    }

    /// Adds flags.
    pub fn flags(mut self, flags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        flags.into_iter().for_each(|flag| self.compilation.flag(flag));
        self
    }

    /// Adds a file whose suffix tells what it is.
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.compilation.input(None, file(path));
        self
    }

    /// Adds a file of the given kind.
    pub fn file_as(mut self, path: impl AsRef<Path>, lang: Lang) -> Self {
        self.compilation.input(Some(lang), file(path));
        self
    }

    /// Adds an input from memory; `name` stands for it in messages.
    pub fn bytes(mut self, name: impl Into<String>, lang: Lang, contents: impl Into<Vec<u8>>) -> Self {
        self.compilation.input(Some(lang), bytes(name, contents));
        self
    }

    /// Adds source text whose name tells the language.
    pub(crate) fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.compilation.input(None, bytes(name, text.into()));
        self
    }

    pub(crate) fn into_compilation(self) -> Compilation {
        Compilation { functions: self.functions, ..self.compilation }
    }

    /// Another name for the unit than that of the first input.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A symbol that has to be there even if it must be taken out of an archive.
    pub fn entry(mut self, symbol: impl Into<String>) -> Self {
        self.compilation.entry = Some(symbol.into());
        self
    }

    /// Whether all members of archives are taken. Otherwise only those are that something refers to, unless the unit is
    /// nothing but archives and has no entry.
    pub fn whole_archives(mut self, whole: bool) -> Self {
        self.compilation.whole_archives = Some(whole);
        self
    }
}

impl From<Program> for Load {
    fn from(program: Program) -> Self {
        let (name, namespace) = (program.name.clone(), program.namespace.clone());
        let compilation = program.into_compilation();
        let name = name.unwrap_or_else(|| compilation.name());
        Self { name, kind: Kind::Compile(compilation), namespace }
    }
}

/// An image that was built before.
#[derive(Debug, Clone)]
#[must_use]
pub struct Image {
    pub(crate) name: String,
    pub(crate) place: Place,
    namespace: Option<Namespace>,
}

impl Image {
    /// An image file.
    pub fn file(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let name = path.to_string_lossy().into_owned();
        Self { name, place: Place::File(path.to_owned()), namespace: None }
    }

    /// The same from memory; `name` is the unit's name.
    pub fn bytes(name: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), place: Place::Bytes(contents.into()), namespace: None }
    }

    /// Another name for the unit.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

impl From<Image> for Load {
    fn from(image: Image) -> Self {
        Self { name: image.name, kind: Kind::Image(image.place), namespace: image.namespace }
    }
}

/// An ordinary shared library, opened with `dlopen`.
#[derive(Debug, Clone)]
#[must_use]
pub struct SharedLibrary {
    name: String,
    library: LibraryName,
    namespace: Option<Namespace>,
}

impl SharedLibrary {
    /// The library in a file.
    pub fn path(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let name = path.to_string_lossy().into_owned();
        Self { name, library: LibraryName::Path(path.to_owned()), namespace: None }
    }

    /// A library of the system, as after `-l`: `z` stands for `libz.so` or `libz.so.N`.
    pub fn name(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { name: name.clone(), library: LibraryName::Name(name), namespace: None }
    }

    /// Another name for the unit.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

impl From<SharedLibrary> for Load {
    fn from(library: SharedLibrary) -> Self {
        Self { name: library.name, kind: Kind::Library(library.library), namespace: library.namespace }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]
    use super::*;

    fn request(load: impl Into<Load>) -> Result<Request, Error> {
        let load = load.into();
        match load.kind {
            Kind::Compile(compilation) => compilation.request(&load.name, false),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_source_is_known_by_its_suffix() {
        let request = request(Source::files(["a.cpp", "b.c"]).flags(["-O2", "-lm"])).unwrap();
        assert_eq!(request.unit, "a.cpp");
        assert_eq!(request.inputs().map(|i| i.lang).collect::<Vec<_>>(), [Lang::Cpp, Lang::C]);
        assert_eq!(request.arguments[3], Argument::Flag("-lm".into()));
        assert!(request.directory.is_absolute());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let unknown = request(Source::text("what", "int x;")).unwrap_err();
        assert!(unknown.is_usage() && unknown.to_string().contains("what"), "{unknown}");
        assert!(request(Program::new().flag("-O1").named("empty")).unwrap_err().is_usage());
        request(Source::text("what", "int x;").lang(Lang::C)).unwrap();
    }

    #[test]
    fn archives_are_taken_whole_when_nothing_refers_to_them() {
        let whole = |load: Load| request(load).unwrap().whole_archives;
        assert!(whole(Archive::file("a.a").whole().into()));
        assert!(whole(Program::new().file("a.a").into()));
        assert!(!whole(Program::new().file("a.a").entry("main").into()));
        assert!(!whole(Program::new().file("a.c").file("a.a").into()));
        assert!(whole(Program::new().file("a.c").file("a.a").whole_archives(true).into()));
    }

    #[test]
    fn programs_keep_their_order() {
        let program =
            Program::new().flag("-Wl,-z,now").file("b.o").flags(["-lm"]).bytes("s", Lang::C, "int x;");
        let request = request(program.named("p").entry("main")).unwrap();
        assert_eq!(request.unit, "p");
        assert_eq!(request.entry.as_deref(), Some("main"));
        assert_eq!(request.arguments[0], Argument::Flag("-Wl,-z,now".into()));
        assert_eq!(request.arguments[2], Argument::Flag("-lm".into()));
        assert_eq!(request.inputs().count(), 2);
    }
}
