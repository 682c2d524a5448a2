//! Archives as a layer: what is in them gets loaded when something needs it.

mod index;
mod members;

pub(crate) use index::Definition;
pub(crate) use members::Members;

use crate::input::{self, Compilation, Kind, Load};
use crate::namespace::Namespace;
use hotbed_loader::boundary::{Content, Lang};
use std::path::Path;

/// An `ar` archive of objects and bitcode. Loading it loads no code yet: a member is when a unit of the namespace that is
/// loaded later refers to a symbol that nobody else has, or when [`Unit::get`](crate::Unit::get) asks the archive's unit for
/// one; then with all members that it needs itself, and each at most once. [`Archive::whole`] takes all of them at once.
///
/// What a member is found by are the symbols in its own table, or for bitcode those in the archive's index. Members that share
/// symbols of hidden visibility are loaded together.
#[derive(Debug, Clone)]
#[must_use]
pub struct Archive {
    name: Option<String>,
    content: Content,
    flags: Vec<String>,
    whole: bool,
    pub(crate) namespace: Option<Namespace>,
}

/// An archive that is a layer, and the flags that its members are compiled and linked with.
#[derive(Debug, Clone)]
pub(crate) struct Archived {
    pub(crate) content: Content,
    pub(crate) flags: Vec<String>,
}

impl Archive {
    /// An archive file.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::of(input::file(path))
    }

    /// The same from memory; `name` stands for it in messages and is the unit's name.
    pub fn bytes(name: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        Self::of(input::bytes(name, contents))
    }

    fn of(content: Content) -> Self {
        Self { name: None, content, flags: Vec::new(), whole: false, namespace: None }
    }

    /// Another name for the unit.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Flags for whatever is linked of it, as clang's driver takes them: the libraries that members need (`-lm`), and how
    /// bitcode is compiled.
    pub fn flags(mut self, flags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// All of its members become one unit at once, needed or not, as after the linker's `--whole-archive`.
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }
}

impl Archived {
    /// It as an input of the linker.
    pub(crate) fn linked(self) -> Compilation {
        Compilation::of_all([(Lang::Archive, self.content)], &self.flags)
    }

    /// All of its members as one unit.
    pub(crate) fn whole(self) -> Compilation {
        self.linked().whole()
    }
}

impl From<Archive> for Load {
    fn from(archive: Archive) -> Self {
        let Archive { name, content, flags, whole, namespace } = archive;
        let name = name.unwrap_or_else(|| content.name().into_owned());
        let archived = Archived { content, flags };
        let kind = if whole { Kind::Compile(archived.whole()) } else { Kind::Archive(archived) };
        Self { name, kind, namespace }
    }
}
