//! What shared definitions of an object are, whatever object and image they are in (`image/identity.rs` of the loader says what that is
//! for): found out before the link, where what refers to a name still says so.
//!
//! An identity is a hash over *pieces*: first the one that has the definition, then the rest of its section group (jump tables, what
//! exceptions need), then everything local that these refer to, in the order in which it is met. So the order of what a
//! compiler has put into an object, and what else it has put there, plays no part. A piece is a section of a group, what
//! a symbol with a size covers, a string or constant of a section that the linker merges, or what lies between two places that are
//! referred to. Of each it is hashed what kind of memory it is in, its bytes with the places that are relocated taken out, and for these
//! how they are, and the name or the number of the piece that they refer to.
//!
//! Two copies of a function may refer to variables that are each their own unit's: then they are not the same, and the unit's
//! name becomes part of the identity.

use super::check::width;
use hotbed_loader::image::Identity;
use hotbed_loader::image::note::DSO_HANDLE;
use object::elf::{self, FileHeader64, Rela64, Sym64};
use object::read::elf::{SectionHeader, SectionTable, SymbolTable};
use object::{LittleEndian as LE, SectionIndex, SymbolIndex};
use std::collections::HashMap;
use std::ops::Range;

/// The section of stubs of functions that are compiled later: they are not what they stand for.
pub(crate) const STUBS_SECTION: &str = ".text.hotbed.stubs";

/// How many pieces one definition may consist of; what has more is known by nothing.
const MOST_PIECES: usize = 4096;
/// All definitions of an object together may take so many times its bytes to be looked through.
const MOST_WORK: usize = 64;
/// A piece takes as much as so many bytes, whatever it has; finding one as much as this part of it.
const PIECE_WORK: usize = 64;
const FINDING_WORK: usize = 16;

type Header = FileHeader64<LE>;

/// A definition of an object that others may have too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedDefinition {
    /// Its name.
    pub(crate) name: Vec<u8>,
    hash: blake3::Hash,
    /// It refers to what only its unit has.
    own: bool,
}

impl SharedDefinition {
    /// Its identity, in the unit of that name.
    pub(super) fn identity(&self, unit: &str) -> Identity {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.hash.as_bytes());
        if self.own {
            hasher.update(unit.as_bytes());
        }
        let hash = hasher.finalize();
        Identity(std::array::from_fn(|at| hash.as_bytes()[at]))
    }
}

/// The shared definitions of an object that was checked.
pub(super) fn shared_definitions(
    sections: &SectionTable<'_, Header>,
    symbols: &SymbolTable<'_, Header>,
    bytes: &[u8],
) -> Vec<SharedDefinition> {
    let is_shared = |symbol: &&Sym64<LE>| {
        [elf::STB_WEAK, elf::STB_GNU_UNIQUE].contains(&symbol.st_bind())
            && ![elf::SHN_UNDEF, elf::SHN_ABS, elf::SHN_COMMON].contains(&symbol.st_shndx.get(LE))
            && ![elf::STV_HIDDEN, elf::STV_INTERNAL].contains(&symbol.st_visibility())
    };
    if !symbols.iter().any(|symbol| is_shared(&symbol)) {
        return Vec::new();
    }
    let object = SharedObject::new(sections, symbols, bytes);
    let mut room = bytes.len().saturating_mul(MOST_WORK);
    let all = symbols.enumerate().filter(|(_, symbol)| is_shared(symbol));
    all.filter_map(|(index, symbol)| {
        let name = symbols.symbol_name(LE, symbol).ok()?.to_vec();
        let (hash, own) = object.hash(index, symbol, &mut room)?;
        Some(SharedDefinition { name, hash, own })
    })
    .collect()
}

/// An object, with what is looked up in it.
struct SharedObject<'a> {
    sections: &'a SectionTable<'a, Header>,
    symbols: &'a SymbolTable<'a, Header>,
    bytes: &'a [u8],
    /// Of each section its relocations, in the order of their places.
    relocations: HashMap<usize, Vec<&'a Rela64<LE>>>,
    /// Of each section the symbols with a size, in the order of their places: where they begin and end, and their index.
    covered: HashMap<usize, Vec<(u64, u64, usize)>>,
    /// Of each section the places that something refers to, in their order.
    labels: HashMap<usize, Vec<u64>>,
    /// The sections of each group.
    groups: Vec<Vec<usize>>,
    /// Which group a section is in.
    group_of: HashMap<usize, usize>,
}

/// A part of a section.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Piece {
    section: usize,
    range: Range<u64>,
    /// It ends where something else begins, and what fills the room before that is none of it.
    padded: bool,
}

/// What a place refers to.
enum Referent<'a> {
    /// A name, and whether it means something else in another unit.
    Name { name: &'a [u8], own: bool },
    /// Something local, that far behind the beginning of a piece.
    Local(Piece, i64),
    /// A variable that only this unit has.
    Variable(&'a [u8]),
    /// No memory.
    Value(u64),
}

impl<'a> SharedObject<'a> {
    fn new(
        sections: &'a SectionTable<'a, Header>,
        symbols: &'a SymbolTable<'a, Header>,
        bytes: &'a [u8],
    ) -> Self {
        let mut object = Self {
            sections,
            symbols,
            bytes,
            relocations: HashMap::new(),
            covered: HashMap::new(),
            labels: HashMap::new(),
            groups: Vec::new(),
            group_of: HashMap::new(),
        };
        for section in sections.iter() {
            match section.sh_type.get(LE) {
                elf::SHT_GROUP => {
                    let words = section.data(LE, bytes).unwrap_or_default().as_chunks::<4>().0;
                    let members = words.iter().skip(1).map(|word| u32::from_le_bytes(*word) as usize);
                    let members: Vec<usize> = members.filter(|member| object.belongs(*member)).collect();
                    object.group_of.extend(members.iter().map(|member| (*member, object.groups.len())));
                    object.groups.push(members);
                }
                elf::SHT_RELA if object.is_in_memory(section.sh_info.get(LE) as usize) => {
                    let Ok(Some((relocations, _))) = section.rela(LE, bytes) else { continue };
                    let of_section = object.relocations.entry(section.sh_info.get(LE) as usize).or_default();
                    of_section.extend(relocations);
                }
                _ => {}
            }
        }
        for relocations in object.relocations.values_mut() {
            relocations.sort_by_key(|relocation| relocation.r_offset.get(LE));
        }
        for (index, symbol) in symbols.enumerate() {
            let Some(section) = object.section_of(index, symbol) else { continue };
            let (start, size) = (symbol.st_value.get(LE), symbol.st_size.get(LE));
            if size > 0 && symbol.st_type() != elf::STT_SECTION {
                let covered = object.covered.entry(section).or_default();
                covered.push((start, start.saturating_add(size), index.0));
            }
            if symbol.st_type() != elf::STT_SECTION {
                object.labels.entry(section).or_default().push(start);
            }
        }
        for (from, relocations) in &object.relocations {
            for relocation in relocations {
                if let Some((section, place, _)) = object.target(*from, relocation) {
                    object.labels.entry(section).or_default().push(place);
                }
            }
        }
        object.covered.values_mut().for_each(|all| all.sort_unstable());
        for labels in object.labels.values_mut() {
            labels.sort_unstable();
            labels.dedup();
        }
        object
    }

    /// Whether a section of a group is part of what the group defines: unwind tables and debug information are not.
    fn belongs(&self, section: usize) -> bool {
        let Ok(header) = self.sections.section(SectionIndex(section)) else { return false };
        let kinds = [elf::SHT_PROGBITS, elf::SHT_NOBITS];
        let is_frames = self.sections.section_name(LE, header).is_ok_and(|name| name == b".eh_frame");
        self.is_in_memory(section) && kinds.contains(&header.sh_type.get(LE)) && !is_frames
    }

    fn flags(&self, section: usize) -> u64 {
        self.sections.section(SectionIndex(section)).map_or(0, |header| header.sh_flags.get(LE).0)
    }

    fn is_in_memory(&self, section: usize) -> bool {
        self.flags(section) & elf::SHF_ALLOC.0 != 0
    }

    /// Whether what is there can change once the image is relocated.
    fn is_variable(&self, section: usize) -> bool {
        let Ok(header) = self.sections.section(SectionIndex(section)) else { return false };
        let name = self.sections.section_name(LE, header).unwrap_or_default();
        self.flags(section) & elf::SHF_WRITE.0 != 0 && !name.starts_with(b".data.rel.ro")
    }

    /// The section that a symbol is in, if it is memory.
    fn section_of(&self, index: SymbolIndex, symbol: &Sym64<LE>) -> Option<usize> {
        let SectionIndex(section) = self.symbols.symbol_section(LE, symbol, index).ok()??;
        self.is_in_memory(section).then_some(section)
    }

    /// Section and place of what a relocation of a section refers to, if that is local, and how far behind that it leads.
    fn target(&self, from: usize, relocation: &Rela64<LE>) -> Option<(usize, u64, i64)> {
        let index = SymbolIndex(relocation.r_sym(LE, false) as usize);
        let symbol = self.symbols.symbol(index).ok().filter(|symbol| symbol.st_bind() == elf::STB_LOCAL)?;
        let section = self.section_of(index, symbol)?;
        let (start, addend) = (symbol.st_value.get(LE), relocation.r_addend.get(LE));
        if symbol.st_type() != elf::STT_SECTION {
            return Some((section, start, addend));
        }
        // The addend says which part of the section. Code counts from the end of the field, or of the instruction, which may be
        // a little further on.
        let is_code = self.flags(from) & elf::SHF_EXECINSTR.0 != 0;
        let end = match relocation.r_type(LE, false) {
            elf::R_X86_64_PC32
            | elf::R_X86_64_PLT32
            | elf::R_X86_64_GOTPCREL
            | elf::R_X86_64_GOTPCRELX
            | elf::R_X86_64_REX_GOTPCRELX
                if is_code =>
            {
                4
            }
            _ => 0,
        };
        Some((section, start.wrapping_add_signed(addend.wrapping_add(end)), -end))
    }

    /// The symbol with a size that covers a place.
    fn covering(&self, section: usize, place: u64) -> Option<(Range<u64>, usize)> {
        let covered = self.covered.get(&section)?;
        let after = covered.partition_point(|(start, ..)| *start <= place);
        let (start, end, index) = *covered[..after].last()?;
        (place < end).then_some((start..end, index))
    }

    /// The piece that has a place.
    fn piece_at(&self, section: usize, place: u64) -> Option<Piece> {
        let header = self.sections.section(SectionIndex(section)).ok()?;
        let (size, entry) = (header.sh_size.get(LE), header.sh_entsize.get(LE).max(1));
        let piece = |range, padded| Some(Piece { section, range, padded });
        if self.group_of.contains_key(&section) {
            return piece(0..size, false);
        }
        let flags = self.flags(section);
        if flags & elf::SHF_MERGE.0 != 0 && flags & elf::SHF_STRINGS.0 == 0 {
            let start = place.min(size) / entry * entry;
            return piece(start..(start + entry).min(size), false);
        }
        if flags & elf::SHF_MERGE.0 != 0 {
            let start = place.min(size);
            let text = header.data(LE, self.bytes).ok()?.get(start as usize..)?;
            let letters = text.chunks(entry as usize);
            let length = letters.take_while(|letter| letter.iter().any(|byte| *byte != 0)).count() as u64;
            return piece(start..(start + (length + 1) * entry).min(size), false);
        }
        if let Some((range, _)) = self.covering(section, place) {
            return piece(range.start..range.end.min(size), false);
        }
        let labels = self.labels.get(&section).map_or(&[][..], Vec::as_slice);
        let after = labels.partition_point(|label| *label <= place);
        let start = after.checked_sub(1).map_or(0, |before| labels[before]);
        let end = labels.get(after).copied().unwrap_or(size);
        piece(start.min(size)..end.min(size), true)
    }

    /// What a relocation of a section refers to.
    fn referent(&self, from: usize, relocation: &Rela64<LE>) -> Option<Referent<'a>> {
        let index = SymbolIndex(relocation.r_sym(LE, false) as usize);
        let symbol = self.symbols.symbol(index).ok()?;
        if symbol.st_bind() != elf::STB_LOCAL {
            let name = self.symbols.symbol_name(LE, symbol).ok()?;
            let hidden = [elf::STV_HIDDEN, elf::STV_INTERNAL].contains(&symbol.st_visibility());
            // Every image has a handle, and it means the same in each.
            let own = hidden && symbol.st_bind() == elf::STB_GLOBAL && name != DSO_HANDLE.as_bytes();
            return Some(Referent::Name { name, own });
        }
        let Some((section, place, behind)) = self.target(from, relocation) else {
            let value = symbol.st_value.get(LE).wrapping_add_signed(relocation.r_addend.get(LE));
            return Some(Referent::Value(value));
        };
        let covering = self.covering(section, place);
        let is_code = self.flags(from) & elf::SHF_EXECINSTR.0 != 0;
        // What a compiler makes up beside variables has no symbol, and code has no need of it.
        if self.is_variable(section)
            && !self.group_of.contains_key(&section)
            && (covering.is_some() || is_code)
        {
            let symbol = covering.and_then(|(_, index)| self.symbols.symbol(SymbolIndex(index)).ok());
            let name = symbol.and_then(|symbol| self.symbols.symbol_name(LE, symbol).ok());
            return Some(Referent::Variable(name.unwrap_or_default()));
        }
        let piece = self.piece_at(section, place)?;
        let inside = place.wrapping_sub(piece.range.start).cast_signed();
        Some(Referent::Local(piece, inside.wrapping_add(behind)))
    }

    /// The hash of a definition, and whether it refers to what only its unit has. Nothing where that cannot be known, or
    /// takes more than there is room for.
    fn hash(&self, index: SymbolIndex, symbol: &Sym64<LE>, room: &mut usize) -> Option<(blake3::Hash, bool)> {
        let section = self.section_of(index, symbol)?;
        let header = self.sections.section(SectionIndex(section)).ok()?;
        if self.sections.section_name(LE, header).ok()? == STUBS_SECTION.as_bytes() {
            return None;
        }
        let (start, size) = (symbol.st_value.get(LE), symbol.st_size.get(LE));
        let group = self.group_of.get(&section).map(|group| &self.groups[*group]);
        let first = match group {
            Some(_) => self.piece_at(section, start)?,
            None => Piece { section, range: start..start.checked_add(size)?, padded: false },
        };
        let inside = start.checked_sub(first.range.start)?;
        let mut pieces = vec![first];
        let rest = group.into_iter().flatten().filter(|member| **member != section);
        pieces.extend(rest.filter_map(|member| self.piece_at(*member, 0)));
        *room = room.checked_sub(pieces.len() * PIECE_WORK)?;
        let mut numbers: HashMap<Piece, usize> = pieces.iter().cloned().zip(0..).collect();
        let (mut hasher, mut own, mut at) = (blake3::Hasher::new(), false, 0);
        hasher.update(&[symbol.st_type().0]);
        hasher.update(&inside.to_le_bytes());
        hasher.update(&size.to_le_bytes());
        while let Some(piece) = pieces.get(at).cloned() {
            at += 1;
            let relocations = self.hash_contents(&piece, &mut hasher, room)?;
            for relocation in relocations {
                let place = relocation.r_offset.get(LE) - piece.range.start;
                hasher.update(&place.to_le_bytes());
                hasher.update(&relocation.r_type(LE, false).0.to_le_bytes());
                let (kind, value, name): (u8, i64, &[u8]) = match self.referent(piece.section, relocation)? {
                    Referent::Name { name, own: differs } => {
                        own |= differs;
                        (0, relocation.r_addend.get(LE), name)
                    }
                    Referent::Local(piece, inside) => {
                        let length = (piece.range.end - piece.range.start) as usize;
                        *room = room.checked_sub(length / FINDING_WORK)?;
                        let next = pieces.len();
                        let number = *numbers.entry(piece).or_insert_with_key(|piece| {
                            pieces.push(piece.clone());
                            next
                        });
                        hasher.update(&(number as u64).to_le_bytes());
                        (1, inside, &[])
                    }
                    Referent::Variable(name) => {
                        own = true;
                        (2, 0, name)
                    }
                    Referent::Value(value) => (3, value.cast_signed(), &[]),
                };
                hasher.update(&[kind]);
                hasher.update(&value.to_le_bytes());
                hasher.update(&(name.len() as u64).to_le_bytes());
                hasher.update(name);
            }
            if pieces.len() > MOST_PIECES {
                return None;
            }
        }
        Some((hasher.finalize(), own))
    }

    /// Hashes what kind of memory a piece is in and its bytes, but for those that are relocated; gives the relocations.
    fn hash_contents(
        &self,
        piece: &Piece,
        hasher: &mut blake3::Hasher,
        room: &mut usize,
    ) -> Option<&[&'a Rela64<LE>]> {
        let Piece { section, range, padded } = piece;
        let header = self.sections.section(SectionIndex(*section)).ok()?;
        let kind = self.flags(*section) & (elf::SHF_WRITE | elf::SHF_EXECINSTR | elf::SHF_TLS).0;
        let is_zeros = header.sh_type.get(LE) == elf::SHT_NOBITS;
        let relocations = self.relocations.get(section).map_or(&[][..], Vec::as_slice);
        let place = |relocation: &&Rela64<LE>| relocation.r_offset.get(LE);
        let first = relocations.partition_point(|relocation| place(relocation) < range.start);
        let last = relocations.partition_point(|relocation| place(relocation) < range.end);
        let relocations = relocations.get(first..last)?;
        *room = room.checked_sub(PIECE_WORK + relocations.len())?;
        hasher.update(&kind.to_le_bytes());
        hasher.update(&[u8::from(is_zeros)]);
        hasher.update(&(relocations.len() as u64).to_le_bytes());
        if is_zeros {
            hasher.update(&(range.end - range.start).to_le_bytes());
            return Some(relocations);
        }
        let data = header.data(LE, self.bytes).ok()?;
        let mut contents = data.get(range.start as usize..range.end as usize)?.to_vec();
        *room = room.checked_sub(contents.len())?;
        for relocation in relocations {
            let start = (place(relocation) - range.start) as usize;
            let end = (start + width(relocation.r_type(LE, false)) as usize).min(contents.len());
            contents[start..end].fill(0);
        }
        if *padded {
            let end = contents.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            contents.truncate(end);
        }
        hasher.update(&(contents.len() as u64).to_le_bytes());
        hasher.update(&contents);
        Some(relocations)
    }
}

/// The identities of what an image that is linked from these has, in the order of the linker's line: definitions of objects, and of
/// members of archives, each with whether it is one of those. The linker takes the first of several; which members it takes is not
/// known before, so where one could be first and differs there is no identity.
pub(super) fn identities<'a>(
    all: impl Iterator<Item = (&'a SharedDefinition, bool)>,
    unit: &str,
) -> Vec<(&'a [u8], Identity)> {
    struct Known {
        identity: Option<Identity>,
        settled: bool,
    }
    let mut known: HashMap<&[u8], Known> = HashMap::new();
    for (definition, archived) in all {
        let identity = Some(definition.identity(unit));
        let first = known.entry(&definition.name).or_insert(Known { identity, settled: false });
        if !first.settled {
            first.identity = first.identity.filter(|known| Some(*known) == identity);
            first.settled = !archived;
        }
    }
    known.into_iter().filter_map(|(name, one)| Some((name, one.identity?))).collect()
}

#[cfg(test)]
mod tests;
