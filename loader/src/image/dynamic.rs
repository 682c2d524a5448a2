//! The dynamic section: where the tables are that a run-time linker needs.

use super::ImageError;
use super::headers::Range;
use super::place::Place;
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
    pub(crate) needed: Vec<u64>,
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
            .ok_or(ImageError::Truncated("the dynamic section"))?;
        let writable = place.segment(range.address, 0).is_some_and(|segment| segment.access.write);
        let mut dynamic = Self { needed: Vec::with_capacity(2), ..Self::default() };
        let mut tables = SymbolTables::default();
        let (mut strings, mut symbols_size) = ((None, 0), 24);
        let mut relocations = (None, 0);
        let mut jumps = (None, 0);
        let mut relative = (None, 0);
        let mut preinit_array = (None, 0);
        let mut init_array = (None, 0);
        let mut fini_array = (None, 0);
        let (mut needed_versions, mut defined_versions) = ((None, 0), (None, 0));
        for [tag, value] in words.as_chunks::<2>().0 {
            let value = *value;
            let address = if place.settled && relocated(place, *tag, value, writable) {
                value.wrapping_sub(place.base as u64)
            } else {
                value
            };
            match *tag {
                0 => break,
                1 => dynamic.needed.push(value),
                2 => jumps.1 = value,
                4 => tables.hash = Some(address),
                5 => strings.0 = Some(address),
                6 => tables.symbols = Some(address),
                7 => relocations.0 = Some(address),
                8 => relocations.1 = value,
                9 if value != 24 => return Err(ImageError::Damaged("the size of its relocations")),
                10 => strings.1 = value,
                11 => symbols_size = value,
                12 => dynamic.init = Some(address),
                13 => dynamic.fini = Some(address),
                14 => dynamic.soname = Some(value),
                15 => dynamic.rpath = Some(value),
                17 => dynamic.plain_relocations = true,
                20 if value != 7 => dynamic.plain_relocations = true,
                22 => dynamic.text_relocations = true,
                23 => jumps.0 = Some(address),
                25 => init_array.0 = Some(address),
                26 => fini_array.0 = Some(address),
                27 => init_array.1 = value,
                28 => fini_array.1 = value,
                29 => dynamic.runpath = Some(value),
                3 => dynamic.slots = Some(address),
                24 => dynamic.bind_now = true,
                30 => {
                    dynamic.text_relocations |= value & DT_FLAGS_TEXTREL != 0;
                    dynamic.bind_now |= value & DT_FLAGS_BIND_NOW != 0;
                }
                32 => preinit_array.0 = Some(address),
                33 => preinit_array.1 = value,
                35 => relative.1 = value,
                36 => relative.0 = Some(address),
                37 if value != 8 => return Err(ImageError::Damaged("the size of its relative relocations")),
                0x6fff_fffb => dynamic.bind_now |= value & DT_FLAGS_1_NOW != 0,
                0x6fff_fef5 => tables.gnu_hash = Some(address),
                0x6fff_fff0 => tables.symbol_versions = Some(address),
                0x6fff_fffc => defined_versions.0 = Some(address),
                0x6fff_fffd => defined_versions.1 = value,
                0x6fff_fffe => needed_versions.0 = Some(address),
                0x6fff_ffff => needed_versions.1 = value,
                _ => {}
            }
        }
        if symbols_size != 24 {
            return Err(ImageError::Damaged("the size of its symbols"));
        }
        let range = |(address, size): (Option<u64>, u64)| address.map(|address| Range { address, size });
        // A linker that is told where an array goes names one that has nothing, too, and no address.
        let array = |of: (Option<u64>, u64)| range(of).filter(|range| range.size > 0);
        tables.strings = range(strings);
        dynamic.relocations = range(relocations);
        dynamic.jump_relocations = range(jumps);
        dynamic.relative = range(relative);
        dynamic.preinit_array = array(preinit_array);
        dynamic.init_array = array(init_array);
        dynamic.fini_array = array(fini_array);
        tables.needed_versions = needed_versions.0.map(|address| (address, needed_versions.1));
        tables.defined_versions = defined_versions.0.map(|address| (address, defined_versions.1));
        Ok((dynamic, tables))
    }
}

/// Whether glibc has relocated an address in the dynamic section of something it has loaded. It does not relocate all
/// of them, and a file may be linked at any address; so what says it is that the file has nothing there. Something
/// loaded at an address below its own size (as valgrind loads programs) may have something at both: then it is the
/// tags that count, those of the tables that glibc itself reads all the time.
fn relocated(place: &Place, tag: u64, value: u64, writable: bool) -> bool {
    const DT_HASH: u64 = 4;
    const DT_VERSYM: u64 = 0x6fff_fff0;
    const DT_GNU_HASH: u64 = 0x6fff_fef5;
    // `DT_PLTGOT`, `DT_STRTAB`, `DT_SYMTAB`, `DT_RELA`, `DT_JMPREL`.
    const OTHERS: [u64; 5] = [3, 5, 6, 7, 23];
    let within = |address| place.segment(address, 0).is_some();
    if !within(value) {
        return true;
    }
    let by_tag = matches!(tag, DT_HASH | DT_VERSYM | DT_GNU_HASH) || OTHERS.contains(&tag);
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
