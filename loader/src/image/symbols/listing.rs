//! Who has a name, with every version of it: not what a look-up gives, but all that it could have given.

use super::{HIDDEN, Name, Symbols, Version};
use crate::image::SymbolKind;
use crate::image::elf::Symbol;
use std::cell::RefCell;

/// One definition of a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holding {
    /// Its place in the table.
    pub(crate) index: u32,
    /// What it is.
    pub(crate) kind: SymbolKind,
    /// Whether it is weak or otherwise shared.
    pub(crate) shared: bool,
    /// Its version.
    pub(crate) version: Option<&'static [u8]>,
    /// Whether only who asks for that version gets it.
    pub(crate) hidden: bool,
    /// Whether it is what [`Symbols::find`] gives to somebody who asks for the version that was asked for.
    pub(crate) answers: bool,
}

impl Symbols {
    /// All definitions of `name`, in the order of the table; `version` is what somebody asks for.
    pub(crate) fn all(&self, name: Name<'_>, version: Option<&Version>) -> Vec<Holding> {
        let found = RefCell::new(Vec::new());
        self.find_where(name, |index, symbol| {
            if symbol.is_exported() {
                found.borrow_mut().push((index, SymbolKind::of(symbol), symbol.is_shared()));
            }
            false
        });
        let answer = self.find(name, version).map(|(index, _)| index);
        let mut found = found.into_inner();
        found.sort_unstable_by_key(|(index, ..)| *index);
        let holding = |(index, kind, shared)| {
            let number = self.numbers.and_then(|numbers| numbers.get(index as usize)).copied().unwrap_or(0);
            Holding {
                index,
                kind,
                shared,
                version: self.defined.get(number).map(|version| version.name),
                hidden: number & HIDDEN != 0,
                answers: answer == Some(index),
            }
        };
        found.into_iter().map(holding).collect()
    }

    /// The symbol `name` of which this file has no definition: its index, and the version that it must have.
    pub(crate) fn import(&self, name: &[u8]) -> Option<(u32, Option<&Version>)> {
        let (index, ..) = self.iter().find(|(_, symbol, text)| !symbol.is_defined() && *text == name)?;
        Some((index, self.needed_version(index)))
    }

    /// The names that it exports.
    pub(crate) fn exported(&self) -> impl Iterator<Item = &'static [u8]> {
        self.iter().filter(|(_, symbol, _)| Symbol::is_exported(symbol)).map(|(_, _, name)| name)
    }
}
