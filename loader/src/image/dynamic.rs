//! The dynamic section: where the tables are that a run-time linker needs.

use super::ImageError;
use super::elf::*;
use super::headers::Range;
use super::place::Place;
use smallvec::SmallVec;
use std::borrow::Cow;

/// Where a file's symbols are, as its dynamic section says; addresses are before relocation.
#[derive(Debug, Default)]
pub(crate) struct SymbolTables {
    /// The strings.
    pub(crate) strings: Option<Range>,
    /// The symbols.
    pub(crate) symbols: Option<u64>,
    /// The hash table of GNU's kind.
    pub(crate) gnu_hash: Option<u64>,
    /// The hash table of the old kind.
    pub(crate) hash: Option<u64>,
    /// Version number of each symbol.
    pub(crate) symbol_versions: Option<u64>,
    /// Versions it needs, and of how many files.
    pub(crate) needed_versions: Option<(u64, u64)>,
    /// Versions it defines, and how many.
    pub(crate) defined_versions: Option<(u64, u64)>,
}

/// What else the dynamic section says; addresses are before relocation.
#[derive(Debug, Default)]
pub(crate) struct Dynamic {
    /// Names of libraries it needs, as offsets into the strings.
    pub(crate) needed: SmallVec<[u64; 2]>,
    /// Its own name, as an offset into the strings.
    pub(crate) soname: Option<u64>,
    /// `DT_RPATH`, where its libraries are looked for, as an offset into the strings.
    pub(crate) rpath: Option<u64>,
    /// `DT_RUNPATH`, the same with less weight.
    pub(crate) runpath: Option<u64>,
    /// Relocations with addends.
    pub(crate) relocations: Option<Range>,
    /// Relocations of the procedure linkage table.
    pub(crate) jump_relocations: Option<Range>,
    /// Packed relative relocations.
    pub(crate) relative: Option<Range>,
    /// The oldest kind of constructor and destructor.
    pub(crate) init: Option<u64>,
    /// See [`Dynamic::init`].
    pub(crate) fini: Option<u64>,
    /// Array of constructors that come before all others. A linker writes it into a shared object, too, though only
    /// those of programs mean something to the system.
    pub(crate) preinit_array: Option<Range>,
    /// Array of constructors.
    pub(crate) init_array: Option<Range>,
    /// Array of destructors.
    pub(crate) fini_array: Option<Range>,
    /// The table of import slots of functions, with three words in front that are the run-time linker's.
    pub(crate) slots: Option<u64>,
    /// It wants to be bound completely before it runs.
    pub(crate) bind_now: bool,
    /// It wants its code changed.
    pub(crate) text_relocations: bool,
    /// It has something that x86-64 does not have: relocations without addends.
    pub(crate) plain_relocations: bool,
}

const DT_FLAGS_TEXTREL: u64 = 4;
const DT_FLAGS_BIND_NOW: u64 = 8;
const DT_FLAGS_1_NOW: u64 = 1;

/// The last value of each tag that means something here. They are put in their places first and looked at afterwards: to
/// branch on every tag is to be led astray by most of them.
struct Entries {
    values: [u64; 64],
    present: u64,
}

impl Entries {
    /// The place of a tag: small ones have their own, those from `DT_VERSYM` on follow, and `DT_GNU_HASH` has the last.
    #[inline(always)]
    const fn place(tag: u64) -> Option<usize> {
        match tag {
            1..=DT_RELRENT => Some(tag as usize),
            DT_VERSYM..=DT_VERNEEDNUM => Some((tag - DT_VERSYM + DT_RELRENT + 1) as usize),
            DT_GNU_HASH => Some(63),
            _ => None,
        }
    }

    #[inline(always)]
    fn get(&self, tag: u64) -> Option<u64> {
        let place = Self::place(tag).filter(|place| self.present >> place & 1 != 0)?;
        Some(self.values[place])
    }

    /// A table: its address and its size in bytes.
    #[inline(always)]
    fn range(&self, address: u64, size: u64) -> Option<Range> {
        Some(Range { address: self.get(address)?, size: self.get(size).unwrap_or(0) })
    }
}

impl Dynamic {
    /// Reads the section at `range`. Works for what glibc has loaded as well, which relocates the addresses in the
    /// section of most libraries.
    ///
    /// # Safety
    /// The file is mapped as the segments of `place` say.
    pub(crate) unsafe fn read(place: &Place, range: Range) -> Result<(Self, SymbolTables), ImageError> {
        let count = (range.size / 8) as usize;
        // SAFETY: the caller's promise; nobody writes to the section once it is loaded.
        let copied = || unsafe { place.copy::<u64>(range.address, count) };
        // SAFETY: as above.
        let words = unsafe { place.table::<u64>(range.address, count) }
            .map_or_else(|| copied().map(Cow::Owned), |words| Some(Cow::Borrowed(words)))
            .ok_or_else(|| ImageError::truncated("the dynamic section"))?;
        let mut entries = Entries { values: [0; 64], present: 0 };
        let mut needed = SmallVec::new();
        for [tag, value] in words.as_chunks::<2>().0 {
            if *tag == 0 {
                break;
            }
            if let Some(place) = Entries::place(*tag) {
                entries.values[place] = *value;
                entries.present |= 1 << place;
                if *tag == DT_NEEDED {
                    needed.push(*value);
                }
            }
        }
        if place.settled {
            let writable = place.segment(range.address, 0).is_some_and(|segment| segment.access.write);
            for tag in ADDRESSES {
                if let Some(at) = Entries::place(tag)
                    && relocated(place, tag, entries.values[at], writable)
                {
                    entries.values[at] = entries.values[at].wrapping_sub(place.base as u64);
                }
            }
        }
        let get = |tag| entries.get(tag);
        let damaged = |what| Err(ImageError::damaged(what));
        if get(DT_RELAENT).is_some_and(|size| size != 24) {
            return damaged("the size of its relocations");
        }
        if get(DT_RELRENT).is_some_and(|size| size != 8) {
            return damaged("the size of its relative relocations");
        }
        if get(DT_SYMENT).is_some_and(|size| size != 24) {
            return damaged("the size of its symbols");
        }
        let flags = get(DT_FLAGS).unwrap_or(0);
        // A linker that is told where an array goes names one that has nothing, too, and no address.
        let array = |address, size| entries.range(address, size).filter(|range| range.size > 0);
        let dynamic = Self {
            needed,
            soname: get(DT_SONAME),
            rpath: get(DT_RPATH),
            runpath: get(DT_RUNPATH),
            relocations: entries.range(DT_RELA, DT_RELASZ),
            jump_relocations: entries.range(DT_JMPREL, DT_PLTRELSZ),
            relative: entries.range(DT_RELR, DT_RELRSZ),
            init: get(DT_INIT),
            fini: get(DT_FINI),
            preinit_array: array(DT_PREINIT_ARRAY, DT_PREINIT_ARRAYSZ),
            init_array: array(DT_INIT_ARRAY, DT_INIT_ARRAYSZ),
            fini_array: array(DT_FINI_ARRAY, DT_FINI_ARRAYSZ),
            slots: get(DT_PLTGOT),
            bind_now: get(DT_BIND_NOW).is_some()
                || flags & DT_FLAGS_BIND_NOW != 0
                || get(DT_FLAGS_1).is_some_and(|flags| flags & DT_FLAGS_1_NOW != 0),
            text_relocations: get(DT_TEXTREL).is_some() || flags & DT_FLAGS_TEXTREL != 0,
            plain_relocations: get(DT_REL).is_some() || get(DT_PLTREL).is_some_and(|kind| kind != DT_RELA),
        };
        let versions = |address, count| Some((get(address)?, get(count).unwrap_or(0)));
        let tables = SymbolTables {
            strings: entries.range(DT_STRTAB, DT_STRSZ),
            symbols: get(DT_SYMTAB),
            gnu_hash: get(DT_GNU_HASH),
            hash: get(DT_HASH),
            symbol_versions: get(DT_VERSYM),
            needed_versions: versions(DT_VERNEED, DT_VERNEEDNUM),
            defined_versions: versions(DT_VERDEF, DT_VERDEFNUM),
        };
        Ok((dynamic, tables))
    }
}

/// The tags whose values are addresses.
const ADDRESSES: [u64; 16] = [
    DT_PLTGOT,
    DT_HASH,
    DT_STRTAB,
    DT_SYMTAB,
    DT_RELA,
    DT_INIT,
    DT_FINI,
    DT_JMPREL,
    DT_INIT_ARRAY,
    DT_FINI_ARRAY,
    DT_PREINIT_ARRAY,
    DT_RELR,
    DT_GNU_HASH,
    DT_VERSYM,
    DT_VERDEF,
    DT_VERNEED,
];

/// Whether glibc has relocated an address in the dynamic section of something it has loaded. It does not relocate all
/// of them, and a file may be linked at any address; so what says it is that the file has nothing there. Something
/// loaded at an address below its own size (as valgrind loads programs) may have something at both: then it is the
/// tags that count, those of the tables that glibc itself reads all the time.
fn relocated(place: &Place, tag: u64, value: u64, writable: bool) -> bool {
    let within = |address| place.segment(address, 0).is_some();
    if !within(value) {
        return true;
    }
    let by_tag = matches!(
        tag,
        DT_HASH | DT_VERSYM | DT_GNU_HASH | DT_PLTGOT | DT_STRTAB | DT_SYMTAB | DT_RELA | DT_JMPREL
    );
    by_tag && writable && place.base != 0 && within(value.wrapping_sub(place.base as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::image::place::Segment;
    use crate::sys::memory::Access;

    /// A file of 64 KiB that glibc has loaded at an address within its own size, with a dynamic section of these words
    /// at its beginning.
    fn read(words: &'static [u64], base: u64, write: bool) -> (Dynamic, SymbolTables) {
        let memory = words.as_ptr() as u64;
        let access = Access { read: true, write, execute: false };
        let segment = |address, size| Segment { address, size, offset: 0, file_size: size, access };
        let bytes = size_of_val(words) as u64;
        // The segment with the section lies where the words are.
        let segments = vec![segment(0x1000, 0x10000), segment(memory.wrapping_sub(base), bytes)];
        let place = Place { base: base as usize, segments, settled: true };
        // SAFETY: the second segment is the words, and nothing is read from the first.
        unsafe { Dynamic::read(&place, Range { address: memory.wrapping_sub(base), size: bytes }) }.unwrap()
    }

    #[test]
    fn addresses_that_could_be_either_go_by_their_tags() {
        static WORDS: [u64; 12] = [6, 0x9000, 0x6fff_fef5, 0xa000, 12, 0x9000, 25, 0x3000, 27, 8, 0, 0];
        let (dynamic, tables) = read(&WORDS, 0x8000, true);
        assert_eq!((tables.symbols, tables.gnu_hash), (Some(0x1000), Some(0x2000)));
        assert_eq!((dynamic.init, dynamic.init_array.unwrap().address), (Some(0x9000), 0x3000));
        // Nobody writes to a read-only section.
        let (_, tables) = read(&WORDS, 0x8000, false);
        assert_eq!((tables.symbols, tables.gnu_hash), (Some(0x9000), Some(0xa000)));
        // What has nothing at the address as it stands was relocated.
        static FAR: [u64; 6] = [6, 0x7_0000_9000, 12, 0x7_0000_3000, 0, 0];
        let (dynamic, tables) = read(&FAR, 0x7_0000_0000, true);
        assert_eq!((tables.symbols, dynamic.init), (Some(0x9000), Some(0x3000)));
    }
}
