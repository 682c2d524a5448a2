//! Answers remembered: what was loaded when the program started never changes, so neither does what it has.

use super::tables::Tables;
use crate::image::SymbolKind;
use crate::image::symbols::{Name, Symbols};
use crate::image::versions::Version;
use crate::layers::Value;
use crate::layers::chains::{Chains, Link};
use crate::layers::readers::Section;
use crate::sys::sync::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;

/// An answer: what the symbol stands for, and the place of the table that has it.
pub(super) type Answer = (Value, SymbolKind, usize);

/// Answers by name and version, read without a lock. Only names that were found are in it, so it has an end.
#[derive(Default)]
pub(super) struct Memo {
    names: Chains<Known>,
    owned: Mutex<Owned>,
}

/// What the table is made of.
#[derive(Default)]
struct Owned {
    known: Vec<Box<[Link<Known>]>>,
    /// The versions, each once: many names have the same.
    versions: Vec<Arc<[u8]>>,
}

struct Known {
    /// Beside the rest, which is looked at next.
    name: SmallVec<[u8; 24]>,
    version: Option<Arc<[u8]>>,
    answer: Answer,
}

impl Memo {
    /// What was remembered.
    pub(super) fn find(&self, name: Name<'_>, version: Option<&Version>) -> Option<Answer> {
        self.find_in(name, version, &Section::enter())
    }

    /// The same in a section.
    #[inline]
    pub(super) fn find_in(
        &self,
        name: Name<'_>,
        version: Option<&Version>,
        section: &Section,
    ) -> Option<Answer> {
        let mut of_hash = self.names.of(name.key(), section);
        let known = of_hash.find(|known| {
            *known.name == *name.bytes && known.version.as_deref() == version.map(|version| version.name)
        });
        known.map(|known| known.answer)
    }

    /// What was remembered for the undefined symbol `index`, whose name has that hash.
    #[inline(always)]
    pub(super) fn find_for<'s>(
        &self,
        symbols: &Symbols,
        (index, hash): (u32, u32),
        section: &'s Section,
    ) -> Option<&'s Answer> {
        for known in self.names.of(hash >> 1, section) {
            let version = symbols.needed_version(index).map(|version| version.name);
            if symbols.is_called(index, &known.name) && known.version.as_deref() == version {
                return Some(&known.answer);
            }
        }
        None
    }

    /// Remembers an answer.
    pub(super) fn add(&self, name: Name<'_>, version: Option<&Version>, answer: Answer) {
        let Owned { known, versions } = &mut *self.owned.lock();
        let version = version.map(|version| match versions.iter().find(|known| ***known == *version.name) {
            Some(known) => Arc::clone(known),
            None => {
                versions.push(version.name.into());
                Arc::clone(&versions[versions.len() - 1])
            }
        });
        let link = Link::new(name.key(), Known { name: name.bytes.into(), version, answer });
        known.push(Box::new([link]));
        if let Some(links) = known.last() {
            // SAFETY: the list only grows, and its boxes stay where they are until the table is dropped.
            unsafe { self.names.enter(links) };
        }
    }
}

impl Drop for Memo {
    fn drop(&mut self) {
        // The table goes first: it has pointers to the answers.
        self.names = Chains::default();
    }
}

/// Versions that some tables are known to define.
#[derive(Default)]
pub(super) struct KnownVersions(Mutex<Vec<KnownVersion>>);

struct KnownVersion {
    hash: u32,
    name: Box<[u8]>,
    file: Box<[u8]>,
}

impl KnownVersions {
    /// Whether a version was found to be defined before.
    pub(super) fn knows(&self, version: &Version) -> bool {
        self.0.lock().iter().any(|known| known.is(version))
    }

    /// Those of `versions` that were not found to be defined before.
    pub(super) fn unknown<'v>(
        &self,
        versions: impl Iterator<Item = &'v Version>,
    ) -> SmallVec<[&'v Version; 4]> {
        let all = self.0.lock();
        versions.filter(|version| !all.iter().any(|known| known.is(version))).collect()
    }

    /// Whether the library of `tables` that `version` is needed from defines it. They must be the same every time.
    pub(super) fn defined_by(&self, tables: &[Tables], version: &Version) -> bool {
        let defined = tables.iter().any(|table| table.is_called(version.file) && table.defines(version));
        if defined {
            let (name, file) = (version.name.into(), version.file.into());
            let mut known = self.0.lock();
            if !known.iter().any(|known| known.is(version)) {
                known.push(KnownVersion { hash: version.hash, name, file });
            }
        }
        defined
    }
}

impl KnownVersion {
    #[inline]
    fn is(&self, version: &Version) -> bool {
        self.hash == version.hash && *self.name == *version.name && *self.file == *version.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let memo = Memo::default();
        let version = |name: &'static str| Version { name: name.as_bytes(), hash: 0, file: b"" };
        assert_eq!(memo.find(Name::new(b"f"), None), None);
        let names: Vec<_> = (0..1000).map(|number| format!("name{number}")).collect();
        for (at, name) in names.iter().enumerate() {
            let name = Name::new(name.as_bytes());
            memo.add(name, None, (Value::Address(at), SymbolKind::Function, 0));
            memo.add(name, Some(&version("V1")), (Value::Address(at + 5000), SymbolKind::Function, 1));
        }
        for (at, name) in names.iter().enumerate() {
            let name = Name::new(name.as_bytes());
            assert_eq!(memo.find(name, None), Some((Value::Address(at), SymbolKind::Function, 0)));
            let first = memo.find(name, Some(&version("V1")));
            assert_eq!(first, Some((Value::Address(at + 5000), SymbolKind::Function, 1)));
            assert_eq!(memo.find(name, Some(&version("V2"))), None);
        }
    }
}
