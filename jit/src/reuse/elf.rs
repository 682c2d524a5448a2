//! Relocatable objects as clang makes them, taken apart and put together again.
//!
//! Only what is known to come to the same in another object is read: an object with anything else, sections that belong to others in
//! ways of their own or that tell of code, is none that could be taken from.

use std::borrow::Cow;
use std::collections::HashMap;

pub(super) const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const RELA: u32 = 4;
const NOTE: u32 = 7;
pub(super) const NOBITS: u32 = 8;
const GROUP: u32 = 17;
/// Tables of constructors and destructors.
const ARRAYS: [u32; 3] = [14, 15, 16];
pub(super) const UNWIND: u32 = 0x7000_0001;

pub(super) const ALLOC: u64 = 2;
pub(super) const EXECUTE: u64 = 4;
pub(super) const MERGE: u64 = 0x10;
pub(super) const STRINGS: u64 = 0x20;
const INFO_LINK: u64 = 0x40;
const LINK_ORDER: u64 = 0x80;
const IN_GROUP: u64 = 0x200;
const COMPRESSED: u64 = 0x800;
const EXCLUDE: u64 = 0x8000_0000;

pub(super) const LOCAL: u8 = 0;
pub(super) const FUNCTION: u8 = 2;
const SECTION: u8 = 3;
const FILE: u8 = 4;

const UNDEFINED: u16 = 0;
/// The first of the numbers that are no sections'.
const RESERVED: u16 = 0xff00;
const ABSOLUTE: u16 = 0xfff1;
const COMMON: u16 = 0xfff2;

const HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const RELOCATION_BYTES: usize = 24;
const COMDAT: u32 = 1;
/// Nothing that a compiler makes is aligned to more.
const LARGEST_ALIGNMENT: u64 = 1 << 16;

/// An object. What has an index keeps it: sections that are only there for others are empty places.
pub(super) struct Elf<'a> {
    /// The first bytes of the file, which say what kind of file it is.
    ident: [u8; 16],
    pub(super) sections: Vec<Section<'a>>,
    pub(super) symbols: Vec<Symbol<'a>>,
    pub(super) groups: Vec<Group>,
}

/// A section; of kind 0 if it is none.
#[derive(Clone, Default)]
pub(super) struct Section<'a> {
    pub(super) name: Cow<'a, [u8]>,
    pub(super) kind: u32,
    pub(super) flags: u64,
    pub(super) align: u64,
    pub(super) entry: u64,
    pub(super) size: u64,
    /// Nothing where there are only zeros.
    pub(super) data: Cow<'a, [u8]>,
    /// In the order of their places.
    pub(super) relocations: Vec<Relocation>,
    pub(super) group: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Relocation {
    pub(super) offset: u64,
    pub(super) kind: u32,
    pub(super) symbol: usize,
    pub(super) addend: i64,
}

#[derive(Clone)]
pub(super) struct Symbol<'a> {
    pub(super) name: Cow<'a, [u8]>,
    pub(super) binding: u8,
    pub(super) kind: u8,
    /// Its visibility.
    pub(super) other: u8,
    pub(super) place: Place,
    pub(super) value: u64,
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Undefined,
    Absolute,
    Common,
    Section(usize),
}

/// A section group of which the linker keeps one; the sections know that they are in it.
pub(super) struct Group {
    /// The symbol it is named by.
    pub(super) signature: usize,
}

impl Symbol<'_> {
    /// The symbol of a section.
    pub(super) fn of_section(section: usize) -> Self {
        let place = Place::Section(section);
        Self { name: Cow::Borrowed(b""), binding: LOCAL, kind: SECTION, other: 0, place, value: 0, size: 0 }
    }

    /// Whether it is no name that others could mean: of a section, a file, or the compiler's own.
    pub(super) fn is_anonymous(&self) -> bool {
        self.kind == SECTION
            || self.kind == FILE
            || (self.binding == LOCAL
                && (self.name.is_empty()
                    || self.name.starts_with(b".L")
                    || self.name.starts_with(b"GCC_except_table")))
    }

    pub(super) fn is_of_section(&self) -> bool {
        self.kind == SECTION
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    number(bytes, at).map(u64::from_le_bytes)
}

fn size(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(long(bytes, at)?).ok()
}

fn text(strings: &[u8], at: u32) -> Option<&[u8]> {
    let rest = strings.get(at as usize..)?;
    rest.split(|&byte| byte == 0).next()
}

/// A section's header, in its file.
struct Header {
    kind: u32,
    flags: u64,
    offset: usize,
    size: usize,
    link: usize,
    info: usize,
    align: u64,
    entry: u64,
    name: u32,
}

impl Header {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            name: word(bytes, at)?,
            kind: word(bytes, at + 4)?,
            flags: long(bytes, at + 8)?,
            offset: size(bytes, at + 24)?,
            size: size(bytes, at + 32)?,
            link: word(bytes, at + 40)? as usize,
            info: word(bytes, at + 44)? as usize,
            align: long(bytes, at + 48)?,
            entry: long(bytes, at + 56)?,
        })
    }

    fn data<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.offset..self.offset.checked_add(self.size)?)
    }
}

impl<'a> Elf<'a> {
    /// The object in `bytes`; nothing if there is something in it that is not understood.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let ident: [u8; 16] = number(bytes, 0)?;
        let relocatable = [1, 0, 62, 0];
        if ident[..7] != [0x7f, b'E', b'L', b'F', 2, 1, 1] || number(bytes, 16)? != relocatable {
            return None;
        }
        let table = size(bytes, 40)?;
        let halves = [58, 60, 62].map(|at| number(bytes, at).map(u16::from_le_bytes));
        let [Some(64), Some(count), Some(names)] = halves else { return None };
        // Where there are more, the numbers are elsewhere.
        if count == 0 || count >= RESERVED || names >= count {
            return None;
        }
        let headers = (0..usize::from(count))
            .map(|index| Header::read(bytes, table.checked_add(index * HEADER_BYTES)?))
            .collect::<Option<Vec<_>>>()?;
        let names = headers.get(usize::from(names))?.data(bytes)?;
        let mut sections = Vec::with_capacity(headers.len());
        let mut table = None;
        for (index, header) in headers.iter().enumerate() {
            let unknown = LINK_ORDER | COMPRESSED | EXCLUDE;
            if header.flags & unknown != 0 {
                return None;
            }
            sections.push(match header.kind {
                0 | STRTAB | RELA | GROUP => Section::default(),
                SYMTAB if table.is_none() => {
                    table = Some(index);
                    Section::default()
                }
                PROGBITS | NOTE | NOBITS | UNWIND => Section::read(header, names, bytes)?,
                kind if ARRAYS.contains(&kind) => Section::read(header, names, bytes)?,
                _ => return None,
            });
        }
        let table = table?;
        let symbols = read_symbols(&headers, table, bytes)?;
        let mut elf = Self { ident, sections, symbols, groups: Vec::new() };
        for header in &headers {
            match header.kind {
                RELA if header.link != table => return None,
                RELA => elf.read_relocations(header, bytes)?,
                GROUP => elf.read_group(header, bytes)?,
                _ => {}
            }
        }
        let in_no_group = |s: &Section<'_>| s.kind != 0 && s.flags & IN_GROUP != 0 && s.group.is_none();
        (!elf.sections.iter().any(in_no_group)).then_some(elf)
    }

    fn read_relocations(&mut self, header: &Header, bytes: &[u8]) -> Option<()> {
        let count = self.symbols.len();
        let section = self.sections.get_mut(header.info).filter(|section| section.kind != 0)?;
        // Something that tells of code.
        if section.flags & ALLOC == 0 || !section.relocations.is_empty() {
            return None;
        }
        let data = header.data(bytes)?;
        section.relocations.reserve(data.len() / RELOCATION_BYTES);
        for raw in data.chunks_exact(RELOCATION_BYTES) {
            let [symbol, kind] = [word(raw, 12)?, word(raw, 8)?];
            let offset = long(raw, 0)?;
            if symbol as usize >= count || offset >= section.size {
                return None;
            }
            let addend = number(raw, 16).map(i64::from_le_bytes)?;
            section.relocations.push(Relocation { offset, kind, symbol: symbol as usize, addend });
        }
        // Some come in pairs for one place, whose order counts.
        section.relocations.sort_by_key(|relocation| relocation.offset);
        Some(())
    }

    fn read_group(&mut self, header: &Header, bytes: &[u8]) -> Option<()> {
        let data = header.data(bytes)?;
        if word(data, 0)? != COMDAT || header.info >= self.symbols.len() {
            return None;
        }
        for at in (4..data.len()).step_by(4) {
            let member = self.sections.get_mut(word(data, at)? as usize)?;
            if member.group.replace(self.groups.len()).is_some() {
                return None;
            }
        }
        self.groups.push(Group { signature: header.info });
        Some(())
    }

    /// The name of the group of a section.
    pub(super) fn group_name(&self, section: &Section<'_>) -> Option<&[u8]> {
        Some(&self.symbols[self.groups.get(section.group?)?.signature].name)
    }

    /// The object as a file; nothing if it has too much of something.
    pub(super) fn write(&self) -> Option<Vec<u8>> {
        Writing::new(self)?.finish()
    }
}

impl<'a> Section<'a> {
    fn read(header: &Header, names: &'a [u8], bytes: &'a [u8]) -> Option<Self> {
        if header.align > LARGEST_ALIGNMENT || (header.align > 0 && !header.align.is_power_of_two()) {
            return None;
        }
        let data: &[u8] = if header.kind == NOBITS { b"" } else { header.data(bytes)? };
        Some(Self {
            name: Cow::Borrowed(text(names, header.name)?),
            kind: header.kind,
            flags: header.flags & !INFO_LINK,
            align: header.align,
            entry: header.entry,
            size: header.size as u64,
            data: Cow::Borrowed(data),
            relocations: Vec::new(),
            group: None,
        })
    }
}

fn read_symbols<'a>(headers: &[Header], table: usize, bytes: &'a [u8]) -> Option<Vec<Symbol<'a>>> {
    let table = &headers[table];
    let strings = headers.get(table.link)?.data(bytes)?;
    let data = table.data(bytes)?;
    let read = |raw: &[u8]| {
        let section = number(raw, 6).map(u16::from_le_bytes)?;
        let place = match section {
            UNDEFINED => Place::Undefined,
            ABSOLUTE => Place::Absolute,
            COMMON => Place::Common,
            RESERVED.. => return None,
            index if usize::from(index) < headers.len() => Place::Section(usize::from(index)),
            _ => return None,
        };
        Some(Symbol {
            name: Cow::Borrowed(text(strings, word(raw, 0)?)?),
            binding: raw[4] >> 4,
            kind: raw[4] & 15,
            other: raw[5],
            place,
            value: long(raw, 8)?,
            size: long(raw, 16)?,
        })
    };
    data.chunks_exact(SYMBOL_BYTES).map(read).collect()
}

/// A file that is being written.
struct Writing<'e, 'a> {
    elf: &'e Elf<'a>,
    /// The new numbers of sections and symbols.
    sections: Vec<u16>,
    symbols: Vec<u32>,
    /// Symbols in the order in which they come.
    order: Vec<usize>,
    first_global: u32,
    strings: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
    bytes: Vec<u8>,
    headers: Vec<[u64; 10]>,
}

impl<'e, 'a> Writing<'e, 'a> {
    fn new(elf: &'e Elf<'a>) -> Option<Self> {
        let groups = elf.groups.len();
        // Groups come in front of what is in them.
        let mut next = 1 + groups;
        let mut sections = vec![0; elf.sections.len()];
        for (index, section) in elf.sections.iter().enumerate().filter(|(_, section)| section.kind != 0) {
            sections[index] = u16::try_from(next).ok()?;
            next += 1 + usize::from(!section.relocations.is_empty());
        }
        if next + 2 >= usize::from(RESERVED) {
            return None;
        }
        let (local, global): (Vec<usize>, Vec<usize>) =
            (1..elf.symbols.len()).partition(|&index| elf.symbols[index].binding == LOCAL);
        let first_global = u32::try_from(local.len() + 1).ok()?;
        let order: Vec<usize> = local.into_iter().chain(global).collect();
        let mut symbols = vec![0; elf.symbols.len()];
        for (place, &index) in (1..).zip(&order) {
            symbols[index] = place;
        }
        let (strings, known) = (vec![0], HashMap::from([(Vec::new(), 0)]));
        let bytes = Vec::with_capacity(elf.sections.iter().map(|section| section.data.len() + 64).sum());
        let headers = vec![[0; 10]];
        Some(Self { elf, sections, symbols, order, first_global, strings, known, bytes, headers })
    }

    fn name(&mut self, name: &[u8]) -> u64 {
        if let Some(&at) = self.known.get(name) {
            return u64::from(at);
        }
        let at = u32::try_from(self.strings.len()).unwrap_or(0);
        self.strings.extend_from_slice(name);
        self.strings.push(0);
        self.known.insert(name.to_vec(), at);
        u64::from(at)
    }

    /// Adds contents, aligned, and says where they are.
    fn put(&mut self, data: &[u8], align: u64) -> u64 {
        let align = usize::try_from(align.clamp(1, 4096)).unwrap_or(1);
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(data);
        at
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        self.bytes.extend_from_slice(&[0; HEADER_BYTES]);
        let elf = self.elf;
        let count =
            elf.sections.iter().filter(|s| s.kind != 0).map(|s| 1 + usize::from(!s.relocations.is_empty()));
        let table = 1 + elf.groups.len() + count.sum::<usize>();
        let mut members: Vec<Vec<u8>> = vec![COMDAT.to_le_bytes().to_vec(); elf.groups.len()];
        for (index, section) in elf.sections.iter().enumerate() {
            let Some(group) = section.group.filter(|_| section.kind != 0) else { continue };
            let number = u32::from(self.sections[index]);
            members.get_mut(group)?.extend_from_slice(&number.to_le_bytes());
            if !section.relocations.is_empty() {
                members.get_mut(group)?.extend_from_slice(&(number + 1).to_le_bytes());
            }
        }
        for (group, words) in elf.groups.iter().zip(members) {
            let name = self.name(b".group");
            let (at, signature) = (self.put(&words, 4), u64::from(self.symbols[group.signature]));
            let header =
                [name, u64::from(GROUP), 0, 0, at, words.len() as u64, table as u64, signature, 4, 4];
            self.headers.push(header);
        }
        for (index, section) in elf.sections.iter().enumerate().filter(|(_, section)| section.kind != 0) {
            self.write_section(index, section, table)?;
        }
        let mut symbols = vec![0; SYMBOL_BYTES];
        for index in std::mem::take(&mut self.order) {
            let symbol = &elf.symbols[index];
            let section = match symbol.place {
                Place::Undefined => UNDEFINED,
                Place::Absolute => ABSOLUTE,
                Place::Common => COMMON,
                Place::Section(section) => *self.sections.get(section).filter(|&&section| section != 0)?,
            };
            let name = u32::try_from(self.name(&symbol.name)).ok()?;
            symbols.extend_from_slice(&name.to_le_bytes());
            symbols.extend_from_slice(&[symbol.binding << 4 | symbol.kind, symbol.other]);
            symbols.extend_from_slice(&section.to_le_bytes());
            symbols.extend_from_slice(&symbol.value.to_le_bytes());
            symbols.extend_from_slice(&symbol.size.to_le_bytes());
        }
        let names = [self.name(b".symtab"), self.name(b".strtab")];
        let at = self.put(&symbols, 8);
        let first_global = u64::from(self.first_global);
        let size = symbols.len() as u64;
        let kinds = [u64::from(SYMTAB), u64::from(STRTAB)];
        self.headers.push([names[0], kinds[0], 0, 0, at, size, table as u64 + 1, first_global, 8, 24]);
        let strings = std::mem::take(&mut self.strings);
        let at = self.put(&strings, 1);
        u32::try_from(strings.len()).ok()?;
        self.headers.push([names[1], kinds[1], 0, 0, at, strings.len() as u64, 0, 0, 1, 0]);
        self.write_headers(table)
    }

    fn write_section(&mut self, index: usize, section: &Section<'_>, table: usize) -> Option<()> {
        let name = self.name(&section.name);
        let at = self.put(&section.data, section.align);
        let size = if section.kind == NOBITS { section.size } else { section.data.len() as u64 };
        let grouped = if section.group.is_some() { IN_GROUP } else { 0 };
        let flags = section.flags & !IN_GROUP | grouped;
        self.headers.push([
            name,
            u64::from(section.kind),
            flags,
            0,
            at,
            size,
            0,
            0,
            section.align,
            section.entry,
        ]);
        if section.relocations.is_empty() {
            return Some(());
        }
        let mut raw = Vec::with_capacity(section.relocations.len() * RELOCATION_BYTES);
        for relocation in &section.relocations {
            raw.extend_from_slice(&relocation.offset.to_le_bytes());
            raw.extend_from_slice(&relocation.kind.to_le_bytes());
            raw.extend_from_slice(&self.symbols.get(relocation.symbol)?.to_le_bytes());
            raw.extend_from_slice(&relocation.addend.to_le_bytes());
        }
        let name = self.name(&[b".rela", &*section.name].concat());
        let at = self.put(&raw, 8);
        let (of, length) = (u64::from(self.sections[index]), raw.len() as u64);
        let flags = INFO_LINK | grouped;
        self.headers.push([name, u64::from(RELA), flags, 0, at, length, table as u64, of, 8, 24]);
        Some(())
    }

    fn write_headers(mut self, table: usize) -> Option<Vec<u8>> {
        let at = self.put(&[], 8);
        for [name, kind, flags, address, offset, size, link, info, align, entry] in &self.headers {
            for half in [name, kind] {
                self.bytes.extend_from_slice(&u32::try_from(*half).ok()?.to_le_bytes());
            }
            for whole in [flags, address, offset, size] {
                self.bytes.extend_from_slice(&whole.to_le_bytes());
            }
            for half in [link, info] {
                self.bytes.extend_from_slice(&u32::try_from(*half).ok()?.to_le_bytes());
            }
            for whole in [align, entry] {
                self.bytes.extend_from_slice(&whole.to_le_bytes());
            }
        }
        let mut header = self.elf.ident.to_vec();
        header.extend_from_slice(&[1, 0, 62, 0, 1, 0, 0, 0]);
        header.extend_from_slice(&[0; 16]);
        header.extend_from_slice(&at.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        let (count, names) = (u16::try_from(self.headers.len()).ok()?, u16::try_from(table + 1).ok()?);
        for half in [64, 0, 0, 64, count, names] {
            header.extend_from_slice(&half.to_le_bytes());
        }
        self.bytes[..HEADER_BYTES].copy_from_slice(&header);
        Some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_not_read() {
        for bytes in [&b""[..], b"BC\xc0\xde", &[0x7f, b'E', b'L', b'F', 2, 1, 1, 0], &[0; 200]] {
            assert!(Elf::read(bytes).is_none());
        }
    }
}
