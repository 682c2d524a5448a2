//! Lazy libraries: source that is registered, and compiled and loaded when something needs it.

use crate::error::Error;
use crate::input::{Kind, Load, Program};
use crate::namespace::Namespace;
use crate::runtime::Runtime;
use crate::unit::Unit;
use hotbed_loader::boundary::Lang;
use std::collections::BTreeSet;
use std::path::Path;

/// What a lazy library is made of; from [`Runtime::library`], registered by [`LibraryBuilder::lazy`].
#[must_use]
pub struct LibraryBuilder<'a> {
    runtime: &'a Runtime,
    name: String,
    program: Program,
    declared: Option<BTreeSet<String>>,
    namespace: Option<Namespace>,
}

impl Runtime {
    /// A library called `name`, which is loaded when something needs it.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), hotbed::Error> {
    /// let runtime = hotbed::Runtime::builder().build()?;
    /// let flecs = runtime.library("flecs").source("flecs.c").flags(["-O2"]).lazy()?;
    /// assert!(flecs.is_waiting());
    /// runtime.load(hotbed::Source::file("game.c"))?;    // calls ecs_init, so flecs.c is compiled and loaded with it
    /// assert!(!flecs.is_waiting());
    /// # Ok(())
    /// # }
    /// ```
    pub fn library(&self, name: impl Into<String>) -> LibraryBuilder<'_> {
        let (name, program) = (name.into(), Program::new().lazy());
        LibraryBuilder { runtime: self, name, program, declared: None, namespace: None }
    }
}

impl LibraryBuilder<'_> {
    /// Adds a file whose suffix tells what it is: C or C++ source, IR, bitcode, an object, an archive.
    pub fn source(mut self, path: impl AsRef<Path>) -> Self {
        self.program = self.program.file(path);
        self
    }

    /// Adds source text; `name` stands for it in messages and `__FILE__`, and its suffix tells the language.
    pub fn source_text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.program = self.program.text(name, text);
        self
    }

    /// Adds a file of the given kind.
    pub fn file_as(mut self, path: impl AsRef<Path>, lang: Lang) -> Self {
        self.program = self.program.file_as(path, lang);
        self
    }

    /// Adds an input of the given kind from memory; `name` stands for it in messages.
    pub fn bytes(mut self, name: impl Into<String>, lang: Lang, contents: impl Into<Vec<u8>>) -> Self {
        self.program = self.program.bytes(name, lang, contents);
        self
    }

    /// Adds a flag as clang's driver takes it; those for the linker (`-lm`) come after the inputs.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.program = self.program.flag(flag);
        self
    }

    /// Adds flags.
    pub fn flags(mut self, flags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.program = self.program.flags(flags);
        self
    }

    /// The namespace that it belongs to; the runtime's default one if nothing is said.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Symbols that it has and is loaded for; for no others, while they are not loaded. C++ names are mangled. One that it does
    /// not define after all is a warning, and looked for elsewhere.
    pub fn declares(mut self, symbols: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.declared.get_or_insert_default().extend(symbols.into_iter().map(Into::into));
        self
    }

    /// Registers it. Nothing is read yet and nothing compiled. It is loaded
    /// - when a unit that is loaded later, in its namespace or one that sees it, refers to a symbol of it that nobody else has: host,
    ///   units, the process; a weak reference does without;
    /// - when a unit looks such a symbol up with `dlsym`;
    /// - when [`Unit::get`] asks its unit for a symbol.
    ///
    /// It is loaded together with who needs it, is bound to what there is then, and may need others that wait, in any order
    /// and in circles. Its functions are compiled when they are first called, as with [`Source::lazy`](crate::Source::lazy).
    ///
    /// What it has is known from what the store has of it, or else from what it [declares](LibraryBuilder::declares). A library of which neither is there
    /// is compiled when a symbol is missing that nobody else has: only that tells. It is not loaded if it does not have the
    /// symbol, no code of it runs, and it is not compiled for that again. So where libraries are many, or symbols often missing, declare. Libraries and
    /// archives are asked in load order, but those whose own text or list mentions the symbol first; when another
    /// library is known to have it too, the observer is warned.
    ///
    /// When it cannot be compiled, loading a unit that needs it is an [`Error::Needed`]; so it is when it only may have what
    /// nobody else has. Files are as they are when it is loaded; their paths, relative to the directory that is current now.
    ///
    /// The unit stays registered until [`Unit::unload`] or the runtime's end; its handle may be dropped.
    ///
    /// # Errors
    /// When it has no inputs, one of unknown kind, or a file is not there; when the name is taken.
    pub fn lazy(self) -> Result<Unit, Error> {
        let Self { runtime, name, program, declared, namespace } = self;
        let kind = Kind::Lazy(program.into_compilation(), declared);
        runtime.load(Load { name, kind, namespace })
    }
}
