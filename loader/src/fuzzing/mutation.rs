//! Mutations of ELF files and archives that know what they change: mostly fields of headers and tables, which get values that are
//! likely to matter; now and then bytes, bits, whole entries, parts of other files, or the end of the file.
//!
//! What is where follows from the section table of the sound file, so nothing here depends on the linker's layout.

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian as LE, elf::SectionType};

/// A small generator, so that a number stands for a mutation.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of that number.
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.number();
        random
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, or zero.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }
}

/// Entries of one kind, one behind the other.
#[derive(Debug)]
struct Table {
    start: usize,
    end: usize,
    /// Widths in bytes of the fields of an entry.
    fields: &'static [usize],
    /// Whether numbers are decimal digits with spaces behind them.
    text: bool,
}

impl Table {
    fn entry(&self) -> usize {
        self.fields.iter().sum()
    }

    fn count(&self) -> usize {
        (self.end - self.start) / self.entry()
    }
}

const FILE_HEADER: &[usize] = &[16, 2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2];
const PROGRAM_HEADER: &[usize] = &[4, 4, 8, 8, 8, 8, 8, 8];
/// Name, date, owner, group, mode, size and end of the header of a member.
const MEMBER_HEADER: &[usize] = &[16, 12, 6, 6, 8, 10, 2];
const SECTION_HEADER: &[usize] = &[4, 4, 8, 8, 8, 8, 4, 4, 8, 8];

/// The fields of what is in a section, if it is anything that is read.
fn fields(kind: SectionType, name: &[u8]) -> Option<&'static [usize]> {
    Some(match kind {
        elf::SHT_DYNSYM | elf::SHT_SYMTAB => &[4, 1, 1, 2, 8, 8],
        elf::SHT_DYNAMIC => &[8, 8],
        elf::SHT_RELA => &[8, 4, 4, 8],
        elf::SHT_RELR | elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY => &[8],
        elf::SHT_GNU_HASH | elf::SHT_HASH | elf::SHT_NOTE | elf::SHT_GROUP | elf::SHT_SYMTAB_SHNDX => &[4],
        elf::SHT_GNU_VERSYM => &[2],
        elf::SHT_GNU_VERNEED => &[2, 2, 4, 4, 4],
        elf::SHT_GNU_VERDEF => &[2, 2, 2, 2, 4, 4, 4],
        elf::SHT_STRTAB => &[1],
        _ => match name {
            b".eh_frame_hdr" | b".eh_frame" | b".note.hotbed.hashes" | b".hotbed" | b".hotbed.functions" => {
                &[4]
            }
            b".hotbed.slots" => &[8],
            _ => return None,
        },
    })
}

/// A sound file and where what is in it.
#[derive(Debug)]
pub struct Subject {
    /// The file.
    pub bytes: Vec<u8>,
    tables: Vec<Table>,
    /// Addresses and sizes that are something in the file.
    values: Vec<u64>,
}

impl Subject {
    /// Anything: four bytes are a field.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        let table = |start: usize, fields| Table { start, end: bytes.len().max(start), fields, text: false };
        let tables = vec![table(0, &[1]), table(0, &[4]), table(1, &[4]), table(2, &[4]), table(3, &[4])];
        Self { tables, values: vec![bytes.len() as u64], bytes }
    }

    /// An ELF file; `None` when it is not sound.
    pub fn of_elf(bytes: Vec<u8>) -> Option<Self> {
        let header = FileHeader64::<LE>::parse(&*bytes).ok()?;
        let mut tables = vec![Table { start: 0, end: 64, fields: FILE_HEADER, text: false }];
        let mut values = vec![bytes.len() as u64];
        let segments = header.program_headers(LE, &*bytes).ok()?;
        let at = header.e_phoff.get(LE) as usize;
        let entries = |start, count, fields: &'static [usize]| {
            let end = start + count * fields.iter().sum::<usize>();
            Table { start, end, fields, text: false }
        };
        // Twice as likely as other tables: it decides where everything is.
        for _ in 0..2 {
            tables.push(entries(at, segments.len(), PROGRAM_HEADER));
        }
        for segment in segments {
            let (address, size) = (segment.p_vaddr(LE), segment.p_memsz(LE));
            values.extend([address, address + size, size, segment.p_offset(LE), segment.p_filesz(LE)]);
        }
        let sections = header.sections(LE, &*bytes).ok()?;
        tables.push(entries(header.e_shoff.get(LE) as usize, sections.len(), SECTION_HEADER));
        for section in sections.iter() {
            let name = sections.section_name(LE, section).ok()?;
            let Some((offset, size)) = section.file_range(LE) else { continue };
            let (start, end) = (offset as usize, (offset + size) as usize);
            values.extend([section.sh_addr.get(LE), size]);
            if size > 0
                && let Some(fields) = fields(section.sh_type.get(LE), name)
            {
                tables.push(Table { start, end, fields, text: false });
            }
        }
        tables.retain(|table| table.count() > 0);
        Some(Self { bytes, tables, values })
    }

    /// An archive, with the members in it that are ELF files; `None` when it is not sound.
    pub fn of_archive(bytes: Vec<u8>) -> Option<Self> {
        let mut tables = Vec::new();
        let mut values = vec![bytes.len() as u64];
        let mut at = 8;
        while let Some(header) = bytes.get(at..at + 60) {
            let size: usize = std::str::from_utf8(&header[48..58]).ok()?.trim().parse().ok()?;
            let (start, end) = (at + 60, at + 60 + size);
            values.extend([at as u64, size as u64]);
            // Those of the members of a thin archive follow at once.
            let contents =
                bytes.get(start..end).filter(|_| !bytes.starts_with(b"!<thin>\n") || header[0] == b'/');
            tables.push(Table { start: at, end: start, fields: MEMBER_HEADER, text: true });
            at = if contents.is_some() { end.next_multiple_of(2) } else { start };
            let Some(contents) = contents.filter(|contents| !contents.is_empty()) else { continue };
            match Self::of_elf(contents.to_vec()) {
                Some(inner) => {
                    let inside =
                        |table: Table| Table { start: start + table.start, end: start + table.end, ..table };
                    tables.extend(inner.tables.into_iter().map(inside));
                    values.extend(inner.values);
                }
                None => tables.push(Table { start, end, fields: &[4], text: false }),
            }
        }
        tables.retain(|table| table.count() > 0);
        (!tables.is_empty()).then_some(Self { bytes, tables, values })
    }

    /// A mutation of it; `others` are what parts are taken from.
    pub fn mutated(&self, random: &mut Random, others: &[Self]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for _ in 0..=random.below(3) {
            match random.below(20) {
                0..=13 => self.change_field(&mut bytes, random),
                14 => self.exchange_entries(&mut bytes, random),
                15 => {
                    for _ in 0..=random.below(6) {
                        let at = random.below(bytes.len());
                        bytes[at] = random.number() as u8;
                    }
                }
                16 => {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
                17 => {
                    let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
                    let length = random.below(256).min(bytes.len() - from.max(to));
                    bytes.copy_within(from..from + length, to);
                }
                18 => {
                    let other = &others[random.below(others.len())].bytes;
                    let (from, to) = (random.below(other.len()), random.below(bytes.len()));
                    let from = if random.below(2) == 0 { to.min(other.len()) } else { from };
                    let length = random.below(2048).min(bytes.len() - to).min(other.len() - from);
                    bytes[to..to + length].copy_from_slice(&other[from..from + length]);
                }
                // Rarely, as little is left to be looked at.
                _ if random.below(3) == 0 => {
                    bytes.truncate(random.below(bytes.len()));
                    bytes.resize(bytes.len().max(64), 0);
                }
                _ => self.fill_table(&mut bytes, random),
            }
        }
        bytes
    }

    fn table(&self, random: &mut Random) -> &Table {
        &self.tables[random.below(self.tables.len())]
    }

    fn change_field(&self, bytes: &mut [u8], random: &mut Random) {
        let table = self.table(random);
        let mut at = table.start + random.below(table.count()) * table.entry();
        let field = random.below(table.fields.len());
        at += table.fields[..field].iter().sum::<usize>();
        if table.text {
            let width = table.fields[field];
            let Some(place) = bytes.get_mut(at..at + width) else { return };
            let now = std::str::from_utf8(place).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            let value = self.value(now, random);
            // A name may be a number behind a slash.
            let text = match random.below(4) {
                0 => format!("/{value:<width$}"),
                1 => format!("{:<width$}", value.cast_signed()),
                _ => format!("{value:<width$}"),
            };
            place.copy_from_slice(&text.as_bytes()[..width]);
            return;
        }
        // The identification at the beginning of the file is as good as bytes.
        let width = table.fields[field].min(8);
        let Some(place) = bytes.get_mut(at..at + width) else { return };
        let mut word = [0; 8];
        word[..width].copy_from_slice(place);
        let value = self.value(u64::from_le_bytes(word), random);
        place.copy_from_slice(&value.to_le_bytes()[..width]);
    }

    fn value(&self, now: u64, random: &mut Random) -> u64 {
        let near = [0, 1, 2, 4, 7, 8, 16, 24, 56, 64, 4095, 4096][random.below(12)];
        match random.below(12) {
            0 => near,
            1 => 0u64.wrapping_sub(near),
            2 => now.wrapping_add(near),
            3 => now.wrapping_sub(near),
            4 => 1 << random.below(64),
            5 => (1 << random.below(64)) - 1,
            6 => now ^ 1 << random.below(64),
            7 => random.number(),
            8 => random.number() >> random.below(64),
            _ => {
                let value = self.values[random.below(self.values.len())];
                if random.below(2) == 0 { value.wrapping_add(near) } else { value.wrapping_sub(near) }
            }
        }
    }

    /// One entry of a table over another.
    fn exchange_entries(&self, bytes: &mut [u8], random: &mut Random) {
        let table = self.table(random);
        let entry = table.entry();
        let mut place = || table.start + random.below(table.count()) * entry;
        let (from, to) = (place(), place());
        if from.max(to) + entry <= bytes.len() {
            bytes.copy_within(from..from + entry, to);
        }
    }

    /// All or the rest of a table: the same byte everywhere.
    fn fill_table(&self, bytes: &mut [u8], random: &mut Random) {
        let table = self.table(random);
        let start = table.start + random.below(table.count()) * table.entry();
        let fill = [0, 0xff, 1, 0x41, random.number() as u8][random.below(5)];
        if let Some(place) = bytes.get_mut(start..table.end) {
            place.fill(fill);
        }
    }
}
