//! Symbol versions: the numbers beside the symbols, and the names that they stand for.

use super::place::{Place, Strings};
use super::version_number::needed;
use std::num::NonZeroU32;

/// A version that a symbol must have or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// Its name, `GLIBC_2.14` say.
    pub(crate) name: &'static [u8],
    /// ELF hash of the name.
    pub(crate) hash: u32,
    /// `SONAME` of the library that it is needed from; empty for a version that is defined.
    pub(crate) file: &'static [u8],
    /// What tells it from all others that are needed; nothing for one that is defined.
    pub(crate) number: Option<NonZeroU32>,
}

impl Version {
    /// What tells it from all others that are needed, and from none; those that have no number are alike.
    #[inline]
    pub(crate) fn key(&self) -> u32 {
        self.number.map_or(Self::UNNUMBERED, NonZeroU32::get)
    }

    /// The key of those.
    pub(crate) const UNNUMBERED: u32 = u32::MAX;
}

/// Names of the versions by their number, less [`FIRST`]; `None` for numbers that have no name.
#[derive(Debug, Default)]
pub(crate) struct Versions(Vec<Option<Version>>);

/// The lowest number that a name can have; those below say that a symbol is local, or has no version.
const FIRST: usize = 2;

/// The bit that says: only who asks for this version gets it.
pub(crate) const HIDDEN: u16 = 0x8000;

/// A library, in the table of needed versions.
struct Need {
    count: u16,
    file: u32,
    first: u32,
    next: u32,
}

/// A version that is needed from it.
struct NeedEntry {
    hash: u32,
    number: u16,
    name: u32,
    next: u32,
}

/// A version that is defined; the entry of its name is not read but for the first word.
struct Definition {
    flags: u16,
    number: u16,
    count: u16,
    hash: u32,
    first: u32,
    next: u32,
}

impl Need {
    #[inline(always)]
    fn at(table: &[u8], at: u64) -> Option<Self> {
        let bytes: &[u8; 16] = part(table, at)?;
        Some(Self {
            count: half(bytes, 2),
            file: word(bytes, 4),
            first: word(bytes, 8),
            next: word(bytes, 12),
        })
    }
}

impl NeedEntry {
    #[inline(always)]
    fn at(table: &[u8], at: u64) -> Option<Self> {
        let bytes: &[u8; 16] = part(table, at)?;
        Some(Self {
            hash: word(bytes, 0),
            number: half(bytes, 6),
            name: word(bytes, 8),
            next: word(bytes, 12),
        })
    }
}

impl Definition {
    fn at(table: &[u8], at: u64) -> Option<Self> {
        let bytes: &[u8; 20] = part(table, at)?;
        let [flags, number, count] = [2, 4, 6].map(|at| half(bytes, at));
        Some(Self {
            flags,
            number,
            count,
            hash: word(bytes, 8),
            first: word(bytes, 12),
            next: word(bytes, 16),
        })
    }
}

#[inline(always)]
fn part<const N: usize>(table: &[u8], at: u64) -> Option<&[u8; N]> {
    table.get(usize::try_from(at).ok()?..)?.first_chunk()
}

#[inline(always)]
fn half<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Flag of the definition that stands for the file itself.
const BASE: u16 = 1;
/// More versions than any library has.
const MOST: usize = 0x4000;

impl Versions {
    /// The version with that number.
    #[inline(always)]
    pub(crate) fn get(&self, number: u16) -> Option<&Version> {
        self.0.get(usize::from(number & !HIDDEN).checked_sub(FIRST)?)?.as_ref()
    }

    /// All that have a name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Version> + Clone {
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
        address: u64,
        count: u64,
    ) -> Option<()> {
        // SAFETY: the caller's promise.
        let table = unsafe { place.tail::<u8>(address) }?;
        let (mut library, mut seen) = (0u64, 0);
        for _ in 0..count.min(MOST as u64) {
            let need = Need::at(table, library)?;
            // Numbers follow each other.
            self.0.reserve(need.count.min(16).into());
            let mut at = library.checked_add(need.first.into())?;
            for _ in 0..need.count {
                let entry = NeedEntry::at(table, at)?;
                self.set(entry.number, needed(strings, entry.hash, entry.name, need.file)?);
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
            library = library.checked_add(need.next.into())?;
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
        address: u64,
        count: u64,
    ) -> Option<()> {
        // SAFETY: the caller's promise.
        let table = unsafe { place.tail::<u8>(address) }?;
        let mut at = 0u64;
        for _ in 0..count.min(MOST as u64) {
            let definition = Definition::at(table, at)?;
            if definition.flags & BASE == 0 && definition.count > 0 {
                // The entry is the offset of the name and that of the next entry.
                let entry: &[u8; 4] = part(table, at.checked_add(definition.first.into())?)?;
                let name = strings.get(u32::from_le_bytes(*entry).into())?;
                let hash = definition.hash;
                self.set(definition.number, Version { name, hash, file: b"", number: None });
            }
            if definition.next == 0 {
                break;
            }
            at = at.checked_add(definition.next.into())?;
        }
        Some(())
    }
}
