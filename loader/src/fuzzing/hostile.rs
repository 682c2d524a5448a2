//! Images that somebody made to do harm, each with one lie: why it is refused, or that it is harmless.

use super::corpus::{SETTLED, make_one};
use crate::image::Image;
use crate::testing::Folder;
use crate::{ImageSource, LoadError, Loader, LoaderOptions};
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};
use object::{LittleEndian as LE, elf::ProgramType};
use std::ops::Range;
use std::sync::Arc;

/// An image to be changed.
struct Victim(Vec<u8>);

const ADDRESS: usize = 16;
const FILE_SIZE: usize = 32;
const SIZE: usize = 40;
const ALIGNMENT: usize = 48;

impl Victim {
    fn new(name: &str) -> Self {
        let folder = Folder::new();
        Self(std::fs::read(make_one(&folder, name)).unwrap())
    }

    fn header(&self) -> &FileHeader64<LE> {
        FileHeader64::parse(&*self.0).unwrap()
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.0[at..].first_chunk().unwrap())
    }

    fn set(&mut self, at: usize, value: u64) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    fn set_half(&mut self, at: usize, value: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Where in the file the program headers of that type are.
    fn segments(&self, kind: ProgramType) -> Vec<usize> {
        let start = self.header().e_phoff.get(LE) as usize;
        let count = usize::from(self.header().e_phnum.get(LE));
        (0..count)
            .map(|index| start + index * 56)
            .filter(|at| u32::from_le_bytes(*self.0[*at..].first_chunk().unwrap()) == kind.0)
            .collect()
    }

    fn section(&self, name: &str) -> Range<usize> {
        let sections = self.header().sections(LE, &*self.0).unwrap();
        let (_, section) = sections.section_by_name(LE, name.as_bytes()).unwrap();
        let (start, size) = section.file_range(LE).unwrap();
        start as usize..(start + size) as usize
    }

    /// Where in the file the value of an entry of the dynamic section is.
    fn dynamic(&self, tag: u64) -> usize {
        let mut entries = self.section(".dynamic").step_by(16);
        entries.find(|at| self.word(*at) == tag).unwrap() + 8
    }

    fn load(&self) -> Result<Arc<Image>, LoadError> {
        let loader = Loader::new(LoaderOptions::default());
        let image = loader.bind_only("hostile", ImageSource::Bytes(&self.0))?;
        image.inspect().map_err(|source| LoadError::Image { unit: "hostile".into(), source })?;
        Ok(image)
    }

    #[track_caller]
    fn refused(&self, reason: &str) {
        let error = self.load().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("hostile") && error.contains(reason), "{error}");
    }

    /// Loads it although it is damaged.
    #[track_caller]
    fn harmless(&self) -> Arc<Image> {
        self.load().unwrap()
    }
}

const DT_SYMTAB: u64 = 6;
const DT_RELASZ: u64 = 8;
const DT_STRSZ: u64 = 10;
const DT_INIT_ARRAYSZ: u64 = 27;
const DT_RELRSZ: u64 = 35;
const DT_DEBUG: u64 = 21;
const DT_VERNEED: u64 = 0x6fff_fffe;
const DT_VERNEEDNUM: u64 = 0x6fff_ffff;

#[test]
fn segments_that_are_far_apart_would_fill_the_registry() {
    let mut victim = Victim::new("plain.c");
    let last = *victim.segments(elf::PT_LOAD).last().unwrap();
    let address = victim.word(last + ADDRESS);
    victim.set(last + ADDRESS, address + (1 << 39)).refused("too far apart");
}

#[test]
fn segments_that_overlap_or_are_out_of_order() {
    let mut victim = Victim::new("plain.c");
    let loads = victim.segments(elf::PT_LOAD);
    let (first, second) = (victim.word(loads[0] + ADDRESS), victim.word(loads[1] + ADDRESS));
    victim.set(loads[1] + ADDRESS, second & 4095 | first & !4095).refused("overlap");
    victim.set(loads[1] + ADDRESS, second).harmless();
    victim.set(loads[0] + ADDRESS, second + (4096 << 8)).refused("damaged");
}

#[test]
fn a_segment_larger_than_memory() {
    let mut victim = Victim::new("plain.c");
    let last = *victim.segments(elf::PT_LOAD).last().unwrap();
    for size in [1u64 << 41, u64::MAX, u64::MAX - 4095] {
        victim.set(last + SIZE, size).refused("the size of a segment");
    }
    // What the system may have room for or not: either is fine, and neither takes the memory.
    victim.set(last + SIZE, 1 << 36);
    let _ = victim.load();
    // A read-only segment has all its contents in the file.
    let mut victim = Victim::new("plain.c");
    let first = victim.segments(elf::PT_LOAD)[0];
    let size = victim.word(first + SIZE);
    victim.set(first + SIZE, size + 1).refused("no contents");
    victim.set(first + FILE_SIZE, 1 << 30).set(first + SIZE, 1 << 30).refused("outside the file");
}

#[test]
fn tables_in_memory_that_is_not_in_the_file() {
    // Room for a dynamic section and for constructors of many gigabytes, all zeros.
    let mut victim = Victim::new("plain.c");
    let last = *victim.segments(elf::PT_LOAD).last().unwrap();
    victim.set(last + SIZE, 1 << 29).harmless();
    let (address, dynamic) = (victim.word(last + ADDRESS), victim.segments(elf::PT_DYNAMIC)[0]);
    let size = victim.word(dynamic + FILE_SIZE);
    victim.set(dynamic + FILE_SIZE, 1 << 28).refused("the dynamic section");
    victim.set(dynamic + FILE_SIZE, size);
    let sound = victim.word(dynamic + ADDRESS);
    victim.set(dynamic + ADDRESS, address + (1 << 20)).refused("the dynamic section");
    victim.set(dynamic + ADDRESS, sound);
    for size in [1 << 28, 1 << 39, u64::MAX] {
        let at = victim.dynamic(DT_INIT_ARRAYSZ);
        victim.set(at, size).refused("constructors");
    }
}

#[test]
fn sizes_of_tables_that_lie() {
    for (tag, reason) in [
        (DT_RELASZ, "a table of relocations"),
        (DT_RELRSZ, "its relative relocations"),
        (DT_STRSZ, "the string table"),
    ] {
        for size in [1 << 20, 1 << 40, u64::MAX - 7, u64::MAX] {
            let mut victim = Victim::new("plain.c");
            let at = victim.dynamic(tag);
            victim.set(at, size).refused(reason);
        }
    }
    // More than any library needs.
    let mut victim = Victim::new("versions.c");
    let at = victim.dynamic(DT_VERNEEDNUM);
    victim.set(at, u64::MAX).harmless();
}

#[test]
fn symbols_that_may_be_written_to() {
    let mut victim = Victim::new("plain.c");
    let last = *victim.segments(elf::PT_LOAD).last().unwrap();
    let (address, at) = (victim.word(last + ADDRESS), victim.dynamic(DT_SYMTAB));
    victim.set(at, address).refused("the symbol table");
}

#[test]
fn hash_tables_that_lie() {
    let mut victim = Victim::new("plain.c");
    let Range { start: table, end } = victim.section(".gnu.hash");
    let sound = victim.0.clone();
    for (at, value) in [(0, 0), (0, u32::MAX), (8, 0), (8, 3), (8, 1 << 31), (12, 32)] {
        victim.set_half(table + at, value).refused("the hash table");
        victim.0.clone_from(&sound);
    }
    // A chain that begins at the last number there is and does not end.
    let [buckets, words] =
        [0, 8].map(|at| u32::from_le_bytes(*victim.0[table + at..].first_chunk().unwrap()));
    let bloom = table + 16;
    victim.set_half(table + 4, u32::MAX);
    victim.0[bloom..bloom + words as usize * 8].fill(0xff);
    let first = bloom + words as usize * 8;
    let chains = first + buckets as usize * 4;
    victim.0[first..chains].fill(0xff);
    victim.0[chains..end].fill(0);
    let image = victim.harmless();
    assert_eq!(image.get("own"), None);
    // Chains that end nowhere, from the beginning.
    victim.0.clone_from(&sound);
    victim.0[chains..end].fill(0);
    victim.harmless();
}

#[test]
fn a_chain_that_leads_to_itself() {
    let mut victim = Victim::new("general.cpp");
    let table = victim.section(".hash").start;
    let [buckets, chains] =
        [0, 4].map(|at| u32::from_le_bytes(*victim.0[table + at..].first_chunk().unwrap()));
    for chain in 0..chains {
        victim.set_half(table + 8 + 4 * (buckets + chain) as usize, chain);
    }
    let image = victim.harmless();
    assert_eq!(image.get("nobody has this"), None);
}

#[test]
fn names_with_no_end_and_names_that_are_elsewhere() {
    let mut victim = Victim::new("plain.c");
    let strings = victim.section(".dynstr");
    victim.0[strings.clone()].fill(b'A');
    victim.refused("a needed version");
    // Nothing is said about versions, then.
    let entry = victim.dynamic(DT_VERNEED) - 8;
    victim.set(entry, DT_DEBUG).refused("the name of a symbol");
    let mut victim = Victim::new("plain.c");
    for symbol in victim.section(".dynsym").step_by(24) {
        victim.set_half(symbol, u32::MAX);
    }
    victim.refused("the name of a symbol");
}

#[test]
fn relocations_outside_of_what_may_be_written_to() {
    let mut victim = Victim::new("versions.c");
    let entry = victim.section(".rela.dyn").start;
    let loads = victim.segments(elf::PT_LOAD);
    let ends = loads.iter().map(|load| victim.word(load + ADDRESS) + victim.word(load + SIZE));
    let mut places: Vec<u64> = ends.flat_map(|end| [end - 7, end - 1, end]).collect();
    // Before everything, in code, and where nothing is.
    places.extend([victim.word(loads[0] + ADDRESS), 0, 1 << 40, u64::MAX - 7, u64::MAX]);
    for place in places {
        victim.set(entry, place).refused("a relocation outside of its writable segments");
    }
    // The last word of the last segment is fine.
    let last = loads[loads.len() - 1];
    let end = victim.word(last + ADDRESS) + victim.word(last + SIZE);
    victim.set(entry, end - 8).harmless();
}

#[test]
fn relocations_of_symbols_that_are_not_there() {
    let mut victim = Victim::new("versions.c");
    let entry = victim.section(".rela.dyn").start;
    for symbol in [0x00ff_ffff, u32::MAX] {
        victim.set_half(entry + 12, symbol).refused("a symbol that is not there");
    }
}

#[test]
fn packed_relocations_that_run_away() {
    let mut victim = Victim::new("plain.c");
    let words = victim.section(".relr.dyn");
    // Bits without an address before them.
    let sound = victim.word(words.start);
    victim.set(words.start, u64::MAX).refused("a relocation outside");
    // As many words as there can be behind the last address.
    let last = *victim.segments(elf::PT_LOAD).last().unwrap();
    let end = victim.word(last + ADDRESS) + victim.word(last + SIZE);
    victim.set(words.start, (end - 8) & !7);
    if words.len() > 8 {
        victim.set(words.start + 8, u64::MAX).refused("a relocation outside");
    }
    victim.set(words.start, u64::MAX - 1).refused("a relocation outside");
    assert_ne!(sound, 0);
}

#[test]
fn thread_local_segments_that_nobody_has_room_for() {
    for (field, value) in [
        (ALIGNMENT, 1 << 40),
        (ALIGNMENT, 1 << 63),
        (ALIGNMENT, 3),
        (SIZE, 1 << 40),
        (SIZE, u64::MAX),
        (SIZE, 1),
    ] {
        let mut victim = Victim::new("general.cpp");
        let segment = victim.segments(elf::PT_TLS)[0];
        victim.set(segment + field, value).refused("its thread-local segment");
    }
    let mut victim = Victim::new("general.cpp");
    let segment = victim.segments(elf::PT_TLS)[0];
    victim.set(segment + ADDRESS, 1 << 38).refused("the thread-local segment");
    // A block that is merely large is made when it is needed.
    let mut victim = Victim::new("general.cpp");
    victim.set(segment + SIZE, 1 << 28).harmless();
}

#[test]
fn what_shall_become_read_only_and_is_nowhere() {
    for (field, value) in [(ADDRESS, u64::MAX), (ADDRESS, 1 << 40), (SIZE, u64::MAX), (SIZE, 1 << 40)] {
        let mut victim = Victim::new("plain.c");
        let segment = victim.segments(elf::PT_GNU_RELRO)[0];
        victim.set(segment + field, value).refused("what shall become read-only");
    }
}

#[test]
fn constants_that_are_not_settled_and_say_so() {
    let victim = || Victim::new(SETTLED);
    let image = victim().harmless();
    let constants = victim().segments(elf::PT_LOAD)[1];
    let first = victim().word(constants + ADDRESS);
    assert_eq!(image.bias(), 0, "mapped where it was linked for");
    drop(image);
    // Somebody else's address goes there.
    let mut changed = victim();
    let entry = changed.section(".rela.dyn").start;
    changed.set(entry, first + 8).refused("a relocation outside of its writable segments");
    // They are more, or less, than the second segment: then they are what others' are.
    for (field, value) in [(SIZE, 0x2000), (SIZE, 8), (ADDRESS, first + 0x1000), (ADDRESS, first - 0x1000)] {
        let mut changed = victim();
        let relro = changed.segments(elf::PT_GNU_RELRO)[0];
        changed.set(relro + field, value);
        match changed.load() {
            Ok(_) => {}
            Err(error) => assert!(error.to_string().contains("what shall become read-only"), "{error}"),
        }
    }
    // The segment is of another kind.
    for flags in [4, 5] {
        victim().set_half(constants + 4, flags).refused("what shall become read-only");
    }
}

#[test]
fn functions_outside_of_the_code() {
    let mut victim = Victim::new("chosen.c");
    let table = victim.section(".rela.dyn");
    let is_indirect = |entry: &usize| victim.word(*entry + 8) == u64::from(elf::R_X86_64_IRELATIVE.0);
    let entry = table.step_by(24).find(is_indirect).unwrap();
    victim.set(entry + 16, 0).refused("an indirect function lies outside of its code");
}
