//! Answers remembered: what was loaded when the program started never changes, so neither does what it has.

use crate::image::SymbolKind;
use crate::image::symbols::Name;
use crate::image::versions::Version;
use crate::layers::Value;
use parking_lot::Mutex;

/// An answer: what the symbol stands for, and the place of the table that has it.
pub(super) type Answer = (Value, SymbolKind, usize);

/// Answers by name and version, in a table with open addressing that is at most half full. Only names that were
/// found are in it, so it has an end.
#[derive(Default)]
pub(super) struct Memo(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// A power of two of them, or none.
    slots: Vec<Option<Slot>>,
    used: usize,
}

struct Slot {
    hash: u32,
    name: Box<[u8]>,
    version: Option<Box<[u8]>>,
    answer: Answer,
}

impl Memo {
    /// What was remembered.
    pub(super) fn find(&self, name: Name<'_>, version: Option<&Version>) -> Option<Answer> {
        let table = self.0.lock();
        let mask = table.slots.len().checked_sub(1)?;
        let mut at = name.hash as usize & mask;
        // Half of the slots are empty: this ends.
        while let Some(slot) = &table.slots[at] {
            if slot.hash == name.hash
                && *slot.name == *name.bytes
                && slot.version.as_deref() == version.map(|version| version.name)
            {
                return Some(slot.answer);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// Remembers an answer.
    pub(super) fn add(&self, name: Name<'_>, version: Option<&Version>, answer: Answer) {
        let mut table = self.0.lock();
        if table.used * 2 >= table.slots.len() {
            table.grow();
        }
        table.insert(Slot {
            hash: name.hash,
            name: name.bytes.into(),
            version: version.map(|version| version.name.into()),
            answer,
        });
    }
}

impl Table {
    fn insert(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.hash as usize & mask;
        while self.slots[at].is_some() {
            at = (at + 1) & mask;
        }
        self.slots[at] = Some(slot);
        self.used += 1;
    }

    fn grow(&mut self) {
        let length = (self.slots.len() * 2).max(256);
        let old = std::mem::take(self);
        self.slots.resize_with(length, || None);
        for slot in old.slots.into_iter().flatten() {
            self.insert(slot);
        }
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
