//! Symbol versions: the numbers beside the symbols, and the names that they stand for.

use super::elf::Plain;
use super::place::{Place, Strings};

/// A version that a symbol must have or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// Its name, `GLIBC_2.14` say.
    pub(crate) name: &'static [u8],
    /// ELF hash of the name.
    pub(crate) hash: u32,
    /// `SONAME` of the library that it is needed from; empty for a version that is defined.
    pub(crate) file: &'static [u8],
}

/// Names of the versions by their number, less [`FIRST`]; `None` for numbers that have no name.
#[derive(Debug, Default)]
pub(crate) struct Versions(Vec<Option<Version>>);

/// The lowest number that a name can have; those below say that a symbol is local, or has no version.
const FIRST: usize = 2;

/// The bit that says: only who asks for this version gets it.
pub(crate) const HIDDEN: u16 = 0x8000;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Need {
    version: u16,
    count: u16,
    file: u32,
    first: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct NeedEntry {
    hash: u32,
    flags: u16,
    number: u16,
    name: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Definition {
    version: u16,
    flags: u16,
    number: u16,
    count: u16,
    hash: u32,
    first: u32,
    next: u32,
}

// SAFETY: integers only, laid out without gaps.
unsafe impl Plain for Need {}
// SAFETY: integers only, laid out without gaps.
unsafe impl Plain for NeedEntry {}
// SAFETY: integers only, laid out without gaps.
unsafe impl Plain for Definition {}

/// Flag of the definition that stands for the file itself.
const BASE: u16 = 1;
/// More versions than any library has.
const MOST: usize = 0x4000;

impl Versions {
    /// The version with that number.
    pub(crate) fn get(&self, number: u16) -> Option<&Version> {
        self.0.get(usize::from(number & !HIDDEN).checked_sub(FIRST)?)?.as_ref()
    }

    /// All that have a name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Version> {
        self.0.iter().flatten()
    }

    /// Enters a version, unless its number is one that has no name.
    fn set(&mut self, number: u16, version: Version) {
        let Some(at) = usize::from(number & !HIDDEN).checked_sub(FIRST) else { return };
        if at >= self.0.len() {
            self.0.resize(at + 1, None);
        }
        self.0[at] = Some(version);
    }

    /// Adds the versions that the table at `address` needs from `count` files. `None` when the table is damaged.
    ///
    /// # Safety
    /// As for [`Place::table`].
    pub(crate) unsafe fn add_needed(
        &mut self,
        place: &Place,
        strings: Strings,
        mut address: u64,
        count: u64,
    ) -> Option<()> {
        let mut seen = 0;
        for _ in 0..count.min(MOST as u64) {
            // SAFETY: the caller's promise, here and below.
            let need = unsafe { place.table::<Need>(address, 1) }?[0];
            let file = strings.get(need.file.into())?;
            // Numbers follow each other.
            self.0.reserve(need.count.min(16).into());
            let mut at = address.checked_add(need.first.into())?;
            for _ in 0..need.count {
                // SAFETY: as above.
                let entry = unsafe { place.table::<NeedEntry>(at, 1) }?[0];
                let name = strings.get(entry.name.into())?;
                self.set(entry.number, Version { name, hash: entry.hash, file });
                seen += 1;
                if seen > MOST {
                    return None;
                }
                if entry.next == 0 {
                    break;
                }
                at = at.checked_add(entry.next.into())?;
            }
            if need.next == 0 {
                break;
            }
            address = address.checked_add(need.next.into())?;
        }
        Some(())
    }

    /// Adds the `count` versions that the table at `address` defines. `None` when the table is damaged.
    ///
    /// # Safety
    /// As for [`Place::table`].
    pub(crate) unsafe fn add_defined(
        &mut self,
        place: &Place,
        strings: Strings,
        mut address: u64,
        count: u64,
    ) -> Option<()> {
        for _ in 0..count.min(MOST as u64) {
            // SAFETY: the caller's promise, here and below.
            let definition = unsafe { place.table::<Definition>(address, 1) }?[0];
            if definition.flags & BASE == 0 && definition.count > 0 {
                let at = address.checked_add(definition.first.into())?;
                // SAFETY: as above. The entry is the offset of the name and that of the next entry.
                let name = unsafe { place.table::<u32>(at, 1) }?[0];
                let name = strings.get(name.into())?;
                self.set(definition.number, Version { name, hash: definition.hash, file: b"" });
            }
            if definition.next == 0 {
                break;
            }
            address = address.checked_add(definition.next.into())?;
        }
        Some(())
    }
}
