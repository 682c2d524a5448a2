//! A shared library reduced to what one link asks of it.
//!
//! lld enters every symbol of every shared library on its line into its tables: three thousand for the C library alone,
//! which is most of the time that the link of a small unit takes. A library with the same name, the same versions and
//! only the symbols that the inputs leave undefined gives the same image.
//!
//! The stub is an ELF file with the sections that a linker reads: `.dynstr`, `.dynsym`, `.gnu.version`,
//! `.gnu.version_d` and `.dynamic` (with `DT_SONAME`). It has no contents and no segments.

use super::exports::{Export, Exports};
use object::elf;

/// The stub of a library with its definitions of `wanted`.
pub(crate) fn stub<'a>(exports: &Exports, wanted: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut strings = Strings::default();
    let mut symbols = vec![0; 24];
    let mut versions = vec![0, 0];
    let mut used = vec![false; exports.versions.len()];
    for name in wanted {
        for export in exports.definitions.get(name).into_iter().flatten() {
            let place = strings.add(name);
            push_symbol(&mut symbols, place, export);
            versions.extend(export.version.to_le_bytes());
            if let Some(used) = used.get_mut(usize::from(export.version & 0x7fff)) {
                *used = true;
            }
        }
    }
    let soname = strings.add(&exports.soname);
    let (definitions, count) = version_definitions(exports, &used, soname, &mut strings);
    let dynamic = [elf::DT_SONAME.0 as u64, u64::from(soname), elf::DT_NULL.0 as u64, 0];
    let dynamic: Vec<u8> = dynamic.iter().flat_map(|word| word.to_le_bytes()).collect();
    let names = b"\0.dynstr\0.dynsym\0.gnu.version\0.gnu.version_d\0.dynamic\0.shstrtab\0";
    let name_of = |wanted: &str| {
        let found = names
            .windows(wanted.len() + 1)
            .position(|w| &w[..wanted.len()] == wanted.as_bytes() && w[wanted.len()] == 0);
        found.unwrap_or(0) as u32
    };
    let section = |name, kind: elf::SectionType, contents, link, info, entry| Section {
        name: name_of(name),
        kind: kind.0,
        contents,
        link,
        info,
        entry,
    };
    file(&[
        section(".dynstr", elf::SHT_STRTAB, strings.bytes, 0, 0, 0),
        section(".dynsym", elf::SHT_DYNSYM, symbols, 1, 1, 24),
        section(".gnu.version", elf::SHT_GNU_VERSYM, versions, 2, 0, 2),
        section(".gnu.version_d", elf::SHT_GNU_VERDEF, definitions, 1, count, 0),
        section(".dynamic", elf::SHT_DYNAMIC, dynamic, 1, 0, 16),
        section(".shstrtab", elf::SHT_STRTAB, names.to_vec(), 0, 0, 0),
    ])
}

#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
}

impl Strings {
    fn add(&mut self, text: &[u8]) -> u32 {
        if self.bytes.is_empty() {
            self.bytes.push(0);
        }
        let place = self.bytes.len() as u32;
        self.bytes.extend(text);
        self.bytes.push(0);
        place
    }
}

fn push_symbol(symbols: &mut Vec<u8>, name: u32, export: &Export) {
    symbols.extend(name.to_le_bytes());
    symbols.extend([export.info, 0]);
    // Any section will do: what counts is that it is defined.
    symbols.extend(1u16.to_le_bytes());
    symbols.extend(0u64.to_le_bytes());
    symbols.extend(export.size.to_le_bytes());
}

/// The version definitions that are used, behind that of the file itself, and how many they are.
fn version_definitions(
    exports: &Exports,
    used: &[bool],
    soname: u32,
    strings: &mut Strings,
) -> (Vec<u8>, u32) {
    let mut list = vec![(1u16, elf::VER_FLG_BASE, soname, exports.soname.as_slice())];
    for (index, name) in exports.versions.iter().enumerate() {
        if used.get(index) == Some(&true) && index > 1 {
            list.push((index as u16, elf::VersionFlags(0), strings.add(name), name));
        }
    }
    let mut bytes = Vec::with_capacity(list.len() * 28);
    for (position, (index, flags, place, name)) in list.iter().enumerate() {
        let next: u32 = if position + 1 == list.len() { 0 } else { 28 };
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(flags.0.to_le_bytes());
        bytes.extend(index.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(elf::hash(name).to_le_bytes());
        bytes.extend(20u32.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        bytes.extend(place.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
    }
    (bytes, list.len() as u32)
}

struct Section {
    name: u32,
    kind: u32,
    contents: Vec<u8>,
    link: u32,
    info: u32,
    entry: u64,
}

/// An ELF file of these sections; the last one has their names.
fn file(sections: &[Section]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let mut table = vec![0; 64];
    for section in sections {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        for word in [section.name, section.kind] {
            table.extend(word.to_le_bytes());
        }
        for word in [u64::from(elf::SHF_ALLOC.0 as u32), 0, bytes.len() as u64, section.contents.len() as u64]
        {
            table.extend(word.to_le_bytes());
        }
        for word in [section.link, section.info] {
            table.extend(word.to_le_bytes());
        }
        for word in [8, section.entry] {
            table.extend(word.to_le_bytes());
        }
        bytes.extend(&section.contents);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let place = bytes.len() as u64;
    bytes.extend(table);
    let mut header = Vec::with_capacity(64);
    header.extend(elf::ELFMAG);
    header.extend([elf::ELFCLASS64.0, elf::ELFDATA2LSB.0, elf::EV_CURRENT.0]);
    header.resize(16, 0);
    header.extend(elf::ET_DYN.0.to_le_bytes());
    header.extend(elf::EM_X86_64.0.to_le_bytes());
    header.extend(1u32.to_le_bytes());
    for word in [0, 0, place] {
        header.extend(word.to_le_bytes());
    }
    header.extend(0u32.to_le_bytes());
    let count = sections.len() as u16;
    for half in [64, 0, 0, 64, count + 1, count] {
        header.extend(half.to_le_bytes());
    }
    bytes[..64].copy_from_slice(&header);
    bytes
}
