//! An object with the code of functions that an older object has: those that were compiled anew and all data are the new object's.
//!
//! What has a name is meant by its name: a reference of older code leads to the new object's variables and functions, or to functions
//! that are taken too. What has none, texts, numbers, tables of jumps, comes along with whoever refers to it.

use super::elf::{EXECUTE, Elf, FUNCTION, Group, LOCAL, Place, Relocation, STRINGS, Section, Symbol};
use super::frames::{Frame, SECTION as FRAMES, relocations};
use super::old::{Old, What, is_whole};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// What local functions are called where they are undefined: see `shim/reuse.cpp`.
const REUSED: &[u8] = b".hotbed.reused.";

/// R_X86_64_PC32 and R_X86_64_PLT32: how code refers to functions of its own unit.
const NEAR: [u32; 2] = [2, 4];

/// A function that is taken.
pub(super) struct Taken<'n> {
    pub(super) name: &'n [u8],
    /// Code of its unit refers to it past its symbol.
    pub(super) local_alias: bool,
}

/// The object `new` with the functions `taken` of `old`, which it lacks; nothing if that cannot be.
pub(super) fn splice<'a>(old: &Old<'a>, new: &'a [u8], taken: &[Taken<'_>]) -> Option<Vec<u8>> {
    let mut splice = Splice::new(old, Elf::read(new)?);
    for one in taken {
        splice.add_function(one)?;
    }
    splice.define_what_is_taken()?;
    splice.add_frames(taken)?;
    splice.follow_copied()?;
    splice.group()?;
    splice.result.write()
}

struct Splice<'o, 'a> {
    old: &'o Old<'a>,
    result: Elf<'a>,
    /// Symbols by their names; nothing where several have one.
    names: HashMap<Vec<u8>, Option<usize>>,
    /// The sections that sections of the old object have become, and their symbols.
    sections: HashMap<usize, (usize, usize)>,
    /// Sections that have been copied, and from which, whose relocations are still to be.
    copied: Vec<(usize, usize)>,
    /// Functions that are taken: their symbols, by their names.
    functions: HashMap<Vec<u8>, usize>,
    /// Functions that code refers to past their symbols: the symbols of their sections.
    aliases: HashMap<usize, usize>,
    /// Symbols of sections that have been asked for.
    of_sections: HashMap<usize, usize>,
    /// Sections of pieces, by the old ones' name, flags and entry size, and where in them pieces are.
    pieces: HashMap<(Vec<u8>, u64, u64), usize>,
    places: HashMap<(usize, Vec<u8>), u64>,
    /// Symbols of pieces.
    of_pieces: HashMap<(usize, u64), usize>,
}

impl<'o, 'a> Splice<'o, 'a> {
    fn new(old: &'o Old<'a>, result: Elf<'a>) -> Self {
        let mut names: HashMap<Vec<u8>, Option<usize>> = HashMap::new();
        for (index, symbol) in result.symbols.iter().enumerate().skip(1).filter(|(_, s)| !s.is_anonymous()) {
            let twice = names.insert(symbol.name.to_vec(), Some(index)).is_some();
            if twice {
                names.insert(symbol.name.to_vec(), None);
            }
        }
        Self {
            old,
            result,
            names,
            sections: HashMap::new(),
            copied: Vec::new(),
            functions: HashMap::new(),
            aliases: HashMap::new(),
            of_sections: HashMap::new(),
            pieces: HashMap::new(),
            places: HashMap::new(),
            of_pieces: HashMap::new(),
        }
    }

    /// Copies the code of a function, and gives it its symbol.
    fn add_function(&mut self, taken: &Taken<'_>) -> Option<()> {
        let old = self.old;
        let from = *old.functions.get(taken.name)?;
        let What::Function(symbol) = old.what[from] else { return None };
        let (section, section_symbol) = self.copy(from)?;
        let symbol = Symbol { place: Place::Section(section), ..old.elf.symbols[symbol].clone() };
        let local = symbol.binding == LOCAL;
        self.result.symbols.push(symbol);
        let index = self.result.symbols.len() - 1;
        self.functions.insert(taken.name.to_vec(), index);
        if taken.local_alias && !local {
            self.aliases.insert(index, section_symbol);
        }
        Some(())
    }

    /// Has everything in the new object that refers to a function that is taken refer to it.
    fn define_what_is_taken(&mut self) -> Option<()> {
        let mut instead: HashMap<usize, usize> = HashMap::new();
        for (name, &index) in &self.functions {
            let renamed = self.names.remove(&[REUSED, name].concat());
            let plain = self.names.get(name).copied();
            for found in [renamed, plain].into_iter().flatten() {
                let found = found?;
                // It was to be left out.
                if self.result.symbols[found].place != Place::Undefined {
                    return None;
                }
                instead.insert(found, index);
            }
            self.names.insert(name.clone(), Some(index));
        }
        for section in &mut self.result.sections {
            let code = section.flags & EXECUTE != 0;
            for relocation in &mut section.relocations {
                let Some(&index) = instead.get(&relocation.symbol) else { continue };
                let alias = self.aliases.get(&index).filter(|_| code && NEAR.contains(&relocation.kind));
                relocation.symbol = alias.copied().unwrap_or(index);
            }
        }
        for group in &mut self.result.groups {
            group.signature = instead.get(&group.signature).copied().unwrap_or(group.signature);
        }
        self.leave_out(&instead.into_keys().collect());
        Some(())
    }

    /// Takes symbols out that nothing refers to.
    fn leave_out(&mut self, gone: &HashSet<usize>) {
        let mut next = 0;
        let numbers: Vec<usize> = (0..self.result.symbols.len())
            .map(|index| {
                let number = next;
                next += usize::from(!gone.contains(&index));
                number
            })
            .collect();
        let mut index = 0;
        self.result.symbols.retain(|_| {
            index += 1;
            !gone.contains(&(index - 1))
        });
        for relocation in self.result.sections.iter_mut().flat_map(|section| &mut section.relocations) {
            relocation.symbol = numbers[relocation.symbol];
        }
        self.result.groups.iter_mut().for_each(|group| group.signature = numbers[group.signature]);
        let lists =
            [self.functions.values_mut().collect::<Vec<_>>(), self.of_sections.values_mut().collect()];
        lists.into_iter().flatten().for_each(|symbol| *symbol = numbers[*symbol]);
        self.names.values_mut().flatten().for_each(|symbol| *symbol = numbers[*symbol]);
        self.sections.values_mut().for_each(|(_, symbol)| *symbol = numbers[*symbol]);
        self.aliases.clear();
    }

    /// The section that an old one becomes, copied when it is asked for first, and its symbol. Its relocations follow later.
    fn copy(&mut self, from: usize) -> Option<(usize, usize)> {
        if let Some(&known) = self.sections.get(&from) {
            return Some(known);
        }
        let section = &self.old.elf.sections[from];
        let copy = Section { relocations: Vec::new(), group: None, ..section.clone() };
        self.result.sections.push(copy);
        let index = self.result.sections.len() - 1;
        let symbol = self.symbol_of(index);
        self.sections.insert(from, (index, symbol));
        self.copied.push((index, from));
        Some((index, symbol))
    }

    /// The symbol of a section.
    fn symbol_of(&mut self, section: usize) -> usize {
        if let Some(&symbol) = self.of_sections.get(&section) {
            return symbol;
        }
        self.result.symbols.push(Symbol::of_section(section));
        let symbol = self.result.symbols.len() - 1;
        self.of_sections.insert(section, symbol);
        symbol
    }

    /// Gives what was copied its relocations, which may have more copied.
    fn follow_copied(&mut self) -> Option<()> {
        let old = self.old;
        while let Some((section, from)) = self.copied.pop() {
            let all = &old.elf.sections[from].relocations;
            let followed = all.iter().map(|relocation| self.follow(relocation)).collect::<Option<_>>()?;
            self.result.sections[section].relocations = followed;
        }
        Some(())
    }

    /// A relocation of the old object as it is in the result.
    fn follow(&mut self, relocation: &Relocation) -> Option<Relocation> {
        let old = self.old;
        let symbol = &old.elf.symbols[relocation.symbol];
        let to = |symbol, addend| Some(Relocation { symbol, addend, ..*relocation });
        let section = match symbol.place {
            _ if relocation.symbol == 0 => return to(0, relocation.addend),
            Place::Section(section) => section,
            Place::Absolute => return None,
            Place::Undefined | Place::Common => return to(self.named(relocation.symbol)?, relocation.addend),
        };
        let what = *old.what.get(section)?;
        if let What::Own(own) = what {
            return to(self.own(section, own)?, relocation.addend);
        }
        if !symbol.is_anonymous() {
            return to(self.named(relocation.symbol)?, relocation.addend);
        }
        let addend = relocation.addend.checked_add_unsigned(symbol.value)?;
        match what {
            What::Function(function) => {
                if let Some(&(_, copy)) = self.sections.get(&section) {
                    return to(copy, addend);
                }
                // It was compiled anew: nothing but its beginning is what it was.
                let target = (*self.names.get(&*old.elf.symbols[function].name)?)?;
                let found = &self.result.symbols[target];
                match found.place {
                    Place::Section(section)
                        if found.kind == FUNCTION && found.value == 0 && symbol.value == 0 =>
                    {
                        to(self.symbol_of(section), addend)
                    }
                    _ => None,
                }
            }
            What::Variable(variable) => to(self.named(variable)?, addend),
            What::Content => to(self.copy(section)?.1, addend),
            What::Pieces => self.follow_piece(relocation, symbol, section),
            What::Own(_) | What::Other => None,
        }
    }

    /// The symbol in the result that has the name of an old one.
    fn named(&mut self, index: usize) -> Option<usize> {
        let symbol = &self.old.elf.symbols[index];
        if let Some(known) = self.names.get(&*symbol.name) {
            let known = (*known)?;
            let found = &self.result.symbols[known];
            // Somebody else's in both: as strong in both.
            let same = found.place != Place::Undefined || found.binding == symbol.binding;
            return same.then_some(known);
        }
        // What was defined, and is not any more, is not known to be the same thing.
        if symbol.place != Place::Undefined || symbol.is_anonymous() {
            return None;
        }
        self.result.symbols.push(symbol.clone());
        let new = self.result.symbols.len() - 1;
        self.names.insert(symbol.name.to_vec(), Some(new));
        Some(new)
    }

    /// The symbol of a variable of the compiler's own, which comes along unless the new object has it.
    fn own(&mut self, section: usize, symbol: usize) -> Option<usize> {
        let symbol = &self.old.elf.symbols[symbol];
        if let Some(known) = self.names.get(&*symbol.name) {
            return (*known).filter(|&known| self.result.symbols[known].place != Place::Undefined);
        }
        let (copy, _) = self.copy(section)?;
        self.result.symbols.push(Symbol { place: Place::Section(copy), ..symbol.clone() });
        let new = self.result.symbols.len() - 1;
        self.names.insert(symbol.name.to_vec(), Some(new));
        Some(new)
    }

    /// The same for what lies in a section of pieces.
    fn follow_piece(
        &mut self,
        relocation: &Relocation,
        symbol: &Symbol<'_>,
        from: usize,
    ) -> Option<Relocation> {
        let section = &self.old.elf.sections[from];
        // Of a section's symbol what is added is a place in it.
        let (place, addend) = if symbol.is_of_section() {
            (u64::try_from(relocation.addend).ok().filter(|_| is_whole(relocation.kind))?, 0)
        } else {
            (symbol.value, relocation.addend)
        };
        let piece = piece_at(section, usize::try_from(place).ok()?)?;
        let within = place - piece.start as u64;
        let key = (section.name.to_vec(), section.flags, section.entry);
        let known = self.pieces.get(&key).copied();
        let index = known.unwrap_or_else(|| {
            let empty = Section { data: Cow::Owned(Vec::new()), size: 0, group: None, ..section.clone() };
            self.result.sections.push(empty);
            self.result.sections.len() - 1
        });
        self.pieces.insert(key, index);
        let piece = &section.data[piece];
        let start = match self.places.get(&(index, piece.to_vec())) {
            Some(&start) => start,
            None => {
                let into = &mut self.result.sections[index];
                into.align = into.align.max(section.align);
                // Where the linker merges nothing, pieces are where they are.
                let align = usize::try_from(into.align.max(1)).ok()?;
                let mut start = into.data.len().next_multiple_of(align);
                // Zeros in between are pieces, too.
                while !start.is_multiple_of(usize::try_from(into.entry).ok()?) {
                    start += align;
                }
                into.data.to_mut().resize(start, 0);
                let start = start as u64;
                into.data.to_mut().extend_from_slice(piece);
                into.size = into.data.len() as u64;
                self.places.insert((index, piece.to_vec()), start);
                start
            }
        };
        let value = start + within;
        let symbols = &mut self.result.symbols;
        let symbol = *self.of_pieces.entry((index, value)).or_insert_with(|| {
            let place = Place::Section(index);
            symbols.push(Symbol { name: Cow::Borrowed(b".Lpiece"), place, value, size: 0, ..symbol_like() });
            symbols.len() - 1
        });
        Some(Relocation { symbol, addend, ..*relocation })
    }

    /// Adds the unwind records of the functions that are taken.
    fn add_frames(&mut self, taken: &[Taken<'_>]) -> Option<()> {
        let old = self.old;
        let frames = taken.iter().filter_map(|one| old.frames.get(old.functions.get(one.name)?));
        let frames: Vec<&Frame> = frames.collect();
        let Some(first) = frames.first() else { return Some(()) };
        let model = &old.elf.sections[first.section];
        let mut section = Section { data: Cow::Owned(Vec::new()), group: None, ..model.clone() };
        section.relocations.clear();
        let mut data = Vec::new();
        let mut common: HashMap<(Vec<u8>, Vec<Relocation>), usize> = HashMap::new();
        for frame in frames {
            let bytes = &old.elf.sections[frame.section].data;
            let shared = self.follow_part(frame.section, &frame.common)?;
            let key = (bytes[frame.common.clone()].to_vec(), shared.clone());
            let at = *common.entry(key).or_insert_with(|| {
                let at = data.len();
                data.extend_from_slice(&bytes[frame.common.clone()]);
                section.relocations.extend(shared.iter().map(|r| moved(r, at)));
                at
            });
            let own = self.follow_part(frame.section, &frame.record)?;
            let start = data.len();
            data.extend_from_slice(&bytes[frame.record.clone()]);
            let distance = u32::try_from(start + 4 - at).ok()?;
            data.get_mut(start + 4..start + 8)?.copy_from_slice(&distance.to_le_bytes());
            section.relocations.extend(own.iter().map(|r| moved(r, start)));
        }
        // Records that are shared come in between.
        section.relocations.sort_by_key(|relocation| relocation.offset);
        section.size = data.len() as u64;
        section.data = Cow::Owned(data);
        debug_assert_eq!(*section.name, *FRAMES);
        self.result.sections.push(section);
        Some(())
    }

    /// The relocations of a part of an old section, as they are in the result, with places from the part's start.
    fn follow_part(&mut self, section: usize, part: &Range<usize>) -> Option<Vec<Relocation>> {
        let old = self.old;
        let all = relocations(&old.elf, section, part).iter();
        all.map(|relocation| {
            let followed = self.follow(relocation)?;
            Some(Relocation { offset: relocation.offset - part.start as u64, ..followed })
        })
        .collect()
    }

    /// Puts what was copied into the groups that it was in.
    fn group(&mut self) -> Option<()> {
        let old = self.old;
        let mut groups: HashMap<Vec<u8>, usize> = HashMap::new();
        for (index, group) in self.result.groups.iter().enumerate() {
            groups.insert(self.result.symbols[group.signature].name.to_vec(), index);
        }
        let mut copies: Vec<(usize, usize)> =
            self.sections.iter().map(|(&from, &(to, _))| (from, to)).collect();
        copies.sort_unstable();
        for (from, to) in copies {
            let Some(name) = old.elf.group_name(&old.elf.sections[from]) else { continue };
            let group = match groups.get(name) {
                Some(&group) => group,
                None => {
                    let signature = match self.names.get(name) {
                        Some(&known) => known?,
                        // It has a name only.
                        None => {
                            let of_old = old.elf.groups.get(old.elf.sections[from].group?)?.signature;
                            let symbol = &old.elf.symbols[of_old];
                            if symbol.place != Place::Undefined {
                                return None;
                            }
                            self.result.symbols.push(symbol.clone());
                            self.result.symbols.len() - 1
                        }
                    };
                    self.result.groups.push(Group { signature });
                    groups.insert(name.to_vec(), self.result.groups.len() - 1);
                    self.result.groups.len() - 1
                }
            };
            self.result.sections[to].group = Some(group);
        }
        Some(())
    }
}

/// A relocation of a part that lies at `start` now.
fn moved(relocation: &Relocation, start: usize) -> Relocation {
    Relocation { offset: relocation.offset + start as u64, ..*relocation }
}

/// What symbols of pieces have in common.
fn symbol_like<'a>() -> Symbol<'a> {
    Symbol { kind: 0, ..Symbol::of_section(0) }
}

/// No compiler makes larger units of what the linker merges.
const LARGEST_PIECE: usize = 64;

/// The piece of a section in which a place is.
fn piece_at(section: &Section<'_>, place: usize) -> Option<Range<usize>> {
    let entry = usize::try_from(section.entry).ok().filter(|entry| (1..=LARGEST_PIECE).contains(entry))?;
    let data = &section.data;
    let start = place - place % entry;
    if place >= data.len() {
        return None;
    }
    if section.flags & STRINGS == 0 {
        return (start + entry <= data.len()).then(|| start..start + entry);
    }
    let is_end =
        |at: &usize| data.get(*at..at + entry).is_some_and(|unit| unit.iter().all(|&byte| byte == 0));
    let from = (0..start).step_by(entry).rev().find(is_end).map_or(0, |at| at + entry);
    let to = (start..data.len()).step_by(entry).find(is_end)?;
    Some(from..to + entry)
}
