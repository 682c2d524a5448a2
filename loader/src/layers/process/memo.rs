//! Answers remembered: what was loaded when the program started never changes, so neither does what it has.

use super::tables::Tables;
use crate::image::SymbolKind;
use crate::image::needle::Needle;
use crate::image::symbols::{Import, Name, Symbols};
use crate::image::versions::Version;
use crate::layers::Value;
use crate::layers::chains::{Chains, Link};
use crate::layers::readers::Section;
use crate::sys::sync::Mutex;
use std::num::NonZeroU32;

/// An answer: what the symbol stands for, and the place of the table that has it.
pub(super) type Answer = (Value, SymbolKind, usize);

/// Answers by name and version, read without a lock. Only names that were found are in it, so it has an end.
#[derive(Default)]
pub(super) struct Memo {
    names: Chains<Known>,
    /// What the table is made of.
    owned: Mutex<Vec<Box<[Link<Known>]>>>,
}

struct Known {
    name: Needle,
    /// See [`Version::key`]; nought for none in particular.
    version: u32,
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
        let version = version.map_or(0, Version::key);
        let mut of_hash = self.names.of(name.key(), section);
        of_hash.find(|known| known.version == version && known.name.is(name.bytes)).map(|known| known.answer)
    }

    /// What was remembered for an import.
    #[inline(always)]
    pub(super) fn find_for<'s>(
        &self,
        symbols: &Symbols,
        import: Import,
        section: &'s Section,
    ) -> Option<&'s Answer> {
        for known in self.names.of(import.hash >> 1, section) {
            if known.version == import.version && symbols.is_called(import, &known.name) {
                return Some(&known.answer);
            }
        }
        None
    }

    /// Remembers an answer, unless it is for a version without a number.
    pub(super) fn add(&self, name: Name<'_>, version: Option<&Version>, answer: Answer) {
        let key = name.key();
        let version = version.map_or(0, Version::key);
        if version == Version::UNNUMBERED {
            return;
        }
        let mut owned = self.owned.lock();
        owned.push(Box::new([Link::new(key, Known { name: Needle::new(name.bytes), version, answer })]));
        if let Some(links) = owned.last() {
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

/// Versions that some tables are known to define, by their numbers.
#[derive(Default)]
pub(super) struct KnownVersions(Mutex<Vec<NonZeroU32>>);

impl KnownVersions {
    /// Whether a version was found to be defined before.
    pub(super) fn knows(&self, version: &Version) -> bool {
        version.number.is_some_and(|number| self.0.lock().contains(&number))
    }

    /// Whether all of them were.
    pub(super) fn know_all<'v>(&self, mut versions: impl Iterator<Item = &'v Version>) -> bool {
        let known = self.0.lock();
        versions.all(|version| version.number.is_some_and(|number| known.contains(&number)))
    }

    /// Whether the library of `tables` that `version` is needed from defines it. They must be the same every time.
    pub(super) fn defined_by(&self, tables: &[Tables], version: &Version) -> bool {
        let defined = tables.iter().any(|table| table.is_called(version.file) && table.defines(version));
        if let Some(number) = version.number.filter(|_| defined) {
            let mut known = self.0.lock();
            if !known.contains(&number) {
                known.push(number);
            }
        }
        defined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let memo = Memo::default();
        let version = |name: &'static str, number| Version {
            name: name.as_bytes(),
            hash: 0,
            file: b"",
            number: NonZeroU32::new(number),
        };
        assert_eq!(memo.find(Name::new(b"f"), None), None);
        let names: Vec<_> = (0..1000).map(|number| format!("name{number}")).collect();
        for (at, name) in names.iter().enumerate() {
            let name = Name::new(name.as_bytes());
            memo.add(name, None, (Value::Address(at), SymbolKind::Function, 0));
            memo.add(name, Some(&version("V1", 1)), (Value::Address(at + 5000), SymbolKind::Function, 1));
        }
        for (at, name) in names.iter().enumerate() {
            let name = Name::new(name.as_bytes());
            assert_eq!(memo.find(name, None), Some((Value::Address(at), SymbolKind::Function, 0)));
            let first = memo.find(name, Some(&version("V1", 1)));
            assert_eq!(first, Some((Value::Address(at + 5000), SymbolKind::Function, 1)));
            assert_eq!(memo.find(name, Some(&version("V2", 2))), None);
            // One without a number is not remembered.
            memo.add(name, Some(&version("V3", 0)), (Value::Address(at), SymbolKind::Function, 0));
            assert_eq!(memo.find(name, Some(&version("V3", 0))), None);
        }
    }
}
