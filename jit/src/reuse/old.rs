//! An older object that functions are taken from: what its sections are, and which functions can be taken as they are.

use super::elf::{
    ALLOC, EXECUTE, Elf, FUNCTION, MERGE, NOBITS, PROGBITS, Place, Relocation, Section, UNWIND,
};
use super::frames::{self, Frame, frames, relocations};
use std::collections::HashMap;

/// What the compiler refers to a personality routine by, a variable of its own that it makes wherever it needs one.
const PERSONALITIES: &[u8] = b"DW.ref.";

/// What a section is to who takes a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// One function, with this symbol.
    Function(usize),
    /// One variable, with this symbol: there is one, wherever it is referred to from.
    Variable(usize),
    /// A variable of the compiler's own, with this symbol: wherever it is, it is the same.
    Own(usize),
    /// Something without a name: only what it says counts.
    Content,
    /// Many of those, which the linker tells apart.
    Pieces,
    /// Something else.
    Other,
}

/// An object with what is known of it.
pub(super) struct Old<'a> {
    pub(super) elf: Elf<'a>,
    pub(super) what: Vec<What>,
    pub(super) frames: HashMap<usize, Frame>,
    /// The sections of functions that can be taken, by the names of these.
    pub(super) functions: HashMap<&'a [u8], usize>,
}

impl<'a> Old<'a> {
    /// The object in `bytes`, if everything in it is understood.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let elf = Elf::read(bytes)?;
        let what = kinds(&elf);
        let frames = frames(&elf)?;
        let mut old = Self { elf, what, frames, functions: HashMap::new() };
        let mut states = vec![State::Unknown; old.what.len()];
        let mut twice = Vec::new();
        for section in 0..old.what.len() {
            let What::Function(symbol) = old.what[section] else { continue };
            if !old.can_be_taken(section, &mut states) {
                continue;
            }
            // Borrowed from the file, not from here.
            let std::borrow::Cow::Borrowed(name) = old.elf.symbols[symbol].name else { continue };
            if old.functions.insert(name, section).is_some() {
                twice.push(name);
            }
        }
        for name in twice {
            old.functions.remove(name);
        }
        Some(old)
    }

    /// Whether everything that a function needs beside what has a name is understood.
    fn can_be_taken(&self, section: usize, states: &mut [State]) -> bool {
        let frame = self.frames.get(&section);
        let (records, commons) = frame.map_or((&[][..], &[][..]), |frame| {
            let of = |part| relocations(&self.elf, frame.section, part);
            (of(&frame.record), of(&frame.common))
        });
        let mut all = self.elf.sections[section].relocations.iter().chain(records).chain(commons);
        all.all(|relocation| self.is_understood(relocation, states))
    }

    fn is_understood(&self, relocation: &Relocation, states: &mut [State]) -> bool {
        let symbol = &self.elf.symbols[relocation.symbol];
        let section = match symbol.place {
            Place::Section(section) => section,
            Place::Undefined | Place::Common => return !symbol.is_anonymous() || relocation.symbol == 0,
            Place::Absolute => return false,
        };
        match self.what.get(section) {
            Some(What::Own(_) | What::Content) => self.is_content_understood(section, states),
            Some(What::Pieces) => !symbol.is_of_section() || is_whole(relocation.kind),
            Some(What::Function(_) | What::Variable(_)) => true,
            // Known by its name, it may be anywhere.
            _ => !symbol.is_anonymous(),
        }
    }

    fn is_content_understood(&self, section: usize, states: &mut [State]) -> bool {
        match states[section] {
            State::Good => return true,
            State::Bad => return false,
            State::Unknown => {}
        }
        // What it leads back to is understood if everything else is.
        states[section] = State::Good;
        let all = &self.elf.sections[section].relocations;
        let good = all.iter().all(|relocation| self.is_understood(relocation, states));
        if !good {
            states[section] = State::Bad;
        }
        good
    }
}

/// Whether a section of content is understood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Good,
    Bad,
}

/// Whether a relocation of this kind takes an address as it is, so that what is added to a section is a place in it.
pub(super) fn is_whole(kind: u32) -> bool {
    // R_X86_64_64, R_X86_64_32, R_X86_64_32S
    [1, 10, 11].contains(&kind)
}

fn kinds(elf: &Elf<'_>) -> Vec<What> {
    /// What is named in a section.
    #[derive(Clone, Copy)]
    struct Named {
        count: usize,
        symbol: usize,
        /// All of them are at its start.
        at_start: bool,
    }
    let mut named = vec![Named { count: 0, symbol: 0, at_start: true }; elf.sections.len()];
    for (index, symbol) in elf.symbols.iter().enumerate() {
        if let Place::Section(section) = symbol.place
            && !symbol.is_anonymous()
            && let Some(named) = named.get_mut(section)
        {
            let at_start = named.at_start && symbol.value == 0;
            *named = Named { count: named.count + 1, symbol: index, at_start };
        }
    }
    let kind = |(section, Named { count, symbol, at_start }): (&Section<'_>, Named)| {
        let one = &elf.symbols[symbol];
        let alone = count == 1 && at_start;
        let in_memory = section.flags & ALLOC != 0 && [PROGBITS, NOBITS].contains(&section.kind);
        match () {
            () if !in_memory || section.kind == UNWIND || *section.name == *frames::SECTION => What::Other,
            () if section.flags & EXECUTE != 0 => {
                // A constructor may have two names; it is not taken, but referred to.
                let whole = count > 0 && at_start && one.kind == FUNCTION && one.size == section.size;
                if whole { What::Function(symbol) } else { What::Other }
            }
            () if section.flags & MERGE != 0 => {
                let entries = section.entry > 0 && section.size % section.entry == 0;
                if entries && section.relocations.is_empty() { What::Pieces } else { What::Other }
            }
            () if count == 0 => What::Content,
            () if alone && one.name.starts_with(PERSONALITIES) => What::Own(symbol),
            () if alone => What::Variable(symbol),
            () => What::Other,
        }
    };
    elf.sections.iter().zip(named).map(kind).collect()
}
