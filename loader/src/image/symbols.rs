//! The dynamic symbol table: what a loaded file defines and what it asks for, found by name and version.

mod listing;

pub(crate) use listing::Holding;

use super::ImageError;
use super::dynamic::SymbolTables;
use super::elf::*;
use super::needle::Needle;
use super::place::{Place, Strings};
use super::versions::{HIDDEN, Version, Versions};

/// The symbols of one loaded file. The slices are of its memory; whoever owns this unmaps that memory later than the
/// last use.
#[derive(Debug)]
pub(crate) struct Symbols {
    symbols: &'static [Symbol],
    strings: Strings,
    hash: Hash,
    numbers: Option<&'static [u16]>,
    needed: Versions,
    defined: Versions,
    /// Of the names of the symbols from 1 on; an image of ours has them.
    hashes: &'static [u32],
}

#[derive(Debug)]
enum Hash {
    /// With a Bloom filter in front; `chains[i]` belongs to symbol `first + i`.
    Gnu { first: u32, filter: Filter, buckets: &'static [u32], chains: &'static [u32] },
    /// The old kind.
    Plain { buckets: &'static [u32], chains: &'static [u32] },
    /// Nothing can be found.
    None,
}

/// An undefined symbol before its name is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Import {
    /// Where its name is among the strings.
    name: u32,
    /// The hash of that: as [`Name::new`] computes it.
    pub(crate) hash: u32,
    /// The version that it must have, see [`Version::key`]; nought for none in particular.
    pub(crate) version: u32,
}

/// The undefined symbols from the first on, and what stands beside them.
#[derive(Clone, Copy)]
pub(crate) struct Imports<'a> {
    symbols: &'static [Symbol],
    /// As many.
    hashes: &'static [u32],
    /// As many, or none.
    numbers: &'static [u16],
    needed: &'a Versions,
}

impl Imports<'_> {
    /// What stands beside the name of symbol `index`, if it is one of them.
    #[inline(always)]
    pub(crate) fn at(&self, index: u32) -> Option<Import> {
        let at = (index as usize).wrapping_sub(1);
        let symbol = self.symbols.get(at).filter(|symbol| !symbol.is_defined())?;
        let hash = *self.hashes.get(at)?;
        let number = self.numbers.get(at).copied().unwrap_or(0);
        let version = self.needed.get(number).map_or(0, Version::key);
        Some(Import { name: symbol.name, hash, version })
    }
}

/// A Bloom filter over the names that a file defines: a quick no.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    /// A power of two of them.
    words: &'static [u64],
    shift: u32,
}

impl Filter {
    /// Lets everything pass.
    pub(crate) const OPEN: Self = Self { words: &[u64::MAX], shift: 0 };

    /// Whether a name of that hash may be defined.
    #[inline]
    pub(crate) fn passes(&self, hash: u32) -> bool {
        let word = self.words[(hash / 64) as usize & (self.words.len() - 1)];
        (word >> (hash % 64)) & (word >> ((hash >> self.shift) % 64)) & 1 != 0
    }

    /// Whether a name with either of the hashes that a part leaves open may be defined.
    #[inline]
    pub(crate) fn passes_partly(&self, hash: PartialHash) -> bool {
        let hash = hash.0;
        let word = self.words[(hash / 64) as usize & (self.words.len() - 1)];
        let second = if self.shift == 0 { 1 } else { word >> ((hash >> self.shift) % 64) };
        (word >> (hash % 64) | word >> (hash % 64 + 1)) & second & 1 != 0
    }
}

/// All but the lowest bit of the hash of a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartialHash(u32);

impl PartialHash {
    /// Forgets a bit.
    #[inline]
    pub(crate) fn of(hash: u32) -> Self {
        Self(hash & !1)
    }

    /// What has this [`PartialHash::key`].
    #[inline]
    pub(crate) fn of_key(key: u32) -> Self {
        Self(key << 1)
    }

    /// The hash without the bit that is not known.
    #[inline]
    pub(crate) fn key(self) -> u32 {
        self.0 >> 1
    }
}

/// A name to look for, and its hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    /// The name itself.
    pub(crate) bytes: &'a [u8],
    /// The hash that GNU's tables use.
    pub(crate) hash: u32,
}

impl<'a> Name<'a> {
    /// Hashes `bytes`.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        // Eight at a time: the multiplications of one step wait for those of the step before.
        const POWERS: [u32; 8] = {
            let mut powers = [1u32; 8];
            let mut at = 7;
            while at > 0 {
                powers[at - 1] = powers[at].wrapping_mul(33);
                at -= 1;
            }
            powers
        };
        let (chunks, rest) = bytes.as_chunks::<8>();
        let (mut hash, mut at) = (5381u32, 0);
        while at < chunks.len() {
            let (chunk, mut sum, mut byte) = (&chunks[at], 0u32, 0);
            while byte < 8 {
                sum = sum.wrapping_add((chunk[byte] as u32).wrapping_mul(POWERS[byte]));
                byte += 1;
            }
            hash = hash.wrapping_mul(POWERS[0].wrapping_mul(33)).wrapping_add(sum);
            at += 1;
        }
        at = 0;
        while at < rest.len() {
            hash = hash.wrapping_mul(33).wrapping_add(rest[at] as u32);
            at += 1;
        }
        Self { bytes, hash }
    }
}

impl Symbols {
    /// The symbols of what is mapped at `place`.
    ///
    /// # Safety
    /// The file is mapped as the segments of `place` say, as long as this value and anything taken from it.
    pub(crate) unsafe fn new(place: &Place, tables: &SymbolTables) -> Result<Self, ImageError> {
        let outside = |what| move || ImageError::truncated(what);
        let strings = match tables.strings {
            // SAFETY: the caller's promise, here and below.
            Some(range) => unsafe { place.table::<u8>(range.address, range.size as usize) }
                .ok_or_else(outside("the string table"))?,
            None => &[],
        };
        let strings = Strings::new(strings);
        let symbols = match tables.symbols {
            // SAFETY: as above.
            Some(address) => unsafe { place.tail(address) }.ok_or_else(outside("the symbol table"))?,
            None => &[],
        };
        // SAFETY: as above.
        let hash = unsafe { Hash::new(place, tables) }.ok_or_else(outside("the hash table"))?;
        let numbers = match tables.symbol_versions {
            // SAFETY: as above.
            Some(address) => Some(unsafe { place.tail(address) }.ok_or_else(outside("the version table"))?),
            None => None,
        };
        let mut needed = Versions::default();
        if let Some((address, count)) = tables.needed_versions {
            // SAFETY: as above.
            unsafe { needed.add_needed(place, strings, address, count) }
                .ok_or_else(outside("a needed version"))?;
        }
        let mut defined = Versions::default();
        if let Some((address, count)) = tables.defined_versions {
            // SAFETY: as above.
            unsafe { defined.add_defined(place, strings, address, count) }
                .ok_or_else(outside("a defined version"))?;
        }
        Ok(Self { symbols, strings, hash, numbers, needed, defined, hashes: &[] })
    }

    /// Takes over the hashes that an image has for its imports' names: their address and how many they are.
    ///
    /// # Errors
    /// When they lie outside of the image.
    ///
    /// # Safety
    /// As for [`Symbols::new`].
    pub(crate) unsafe fn set_hashes(
        &mut self,
        place: &Place,
        (address, count): (u64, u32),
    ) -> Result<(), ImageError> {
        if count > 0 {
            // SAFETY: the caller's promise.
            self.hashes = unsafe { place.table(address, count as usize) }
                .ok_or_else(|| ImageError::truncated("the hashes of its imports"))?;
        }
        Ok(())
    }

    /// The hash of the name of symbol `index`, where the image says it: as [`Name::new`] computes it.
    #[inline(always)]
    pub(crate) fn hash_of(&self, index: u32) -> Option<u32> {
        self.hashes.get(index.checked_sub(1)? as usize).copied()
    }

    /// How many imports' names it says the hashes of, which are those of the first symbols.
    pub(crate) fn hashed(&self) -> usize {
        self.hashes.len()
    }

    /// The undefined symbols whose names' hashes the image says.
    #[inline(always)]
    pub(crate) fn imports(&self) -> Imports<'_> {
        let after_first = |length: usize| length.saturating_sub(1);
        let numbers = self.numbers.unwrap_or(&[]);
        let numbered = if numbers.is_empty() { usize::MAX } else { after_first(numbers.len()) };
        let count = self.hashes.len().min(after_first(self.symbols.len())).min(numbered);
        let numbers = if numbers.is_empty() { numbers } else { &numbers[1..][..count] };
        Imports {
            symbols: &self.symbols[self.symbols.len().min(1)..][..count],
            hashes: &self.hashes[..count],
            numbers,
            needed: &self.needed,
        }
    }

    /// The symbol with that index.
    pub(crate) fn get(&self, index: u32) -> Option<&'static Symbol> {
        self.symbols.get(index as usize)
    }

    /// Whether the name of a symbol begins so.
    pub(crate) fn begins(&self, symbol: &Symbol, prefix: &[u8]) -> bool {
        self.strings.begins(symbol.name.into(), prefix)
    }

    /// The name of what is imported.
    pub(crate) fn name_of(&self, import: Import) -> Option<Name<'static>> {
        Some(Name { bytes: self.text(import.name.into())?, hash: import.hash })
    }

    /// Whether that is the name of what is imported.
    #[inline(always)]
    pub(crate) fn is_called(&self, import: Import, name: &Needle) -> bool {
        self.strings.has(import.name, name)
    }

    /// A text of the string table.
    pub(crate) fn text(&self, offset: u64) -> Option<&'static [u8]> {
        self.strings.get(offset)
    }

    /// The version that the undefined symbol `index` must have.
    #[inline(always)]
    pub(crate) fn needed_version(&self, index: u32) -> Option<&Version> {
        self.needed.get(*self.numbers?.get(index as usize)?)
    }

    /// All versions that undefined symbols must have.
    pub(crate) fn needed_versions(&self) -> impl Iterator<Item = &Version> + Clone {
        self.needed.iter()
    }

    /// What the hash table says about the name of the definition `index`, without looking at that name.
    pub(crate) fn partial_hash(&self, index: u32) -> Option<PartialHash> {
        match &self.hash {
            Hash::Gnu { first, chains, .. } => {
                Some(PartialHash(chains.get(index.checked_sub(*first)? as usize)? & !1))
            }
            Hash::Plain { .. } | Hash::None => None,
        }
    }

    /// Whether there is a name with either of the hashes that a part leaves open. What a filter lets pass wrongly, which are many
    /// where many are asked for, ends here, without a name being read.
    pub(crate) fn may_have(&self, hash: PartialHash) -> bool {
        match &self.hash {
            Hash::Gnu { first, filter, buckets, chains } => {
                filter.passes_partly(hash)
                    && [hash.0, hash.0 | 1].into_iter().any(|one| {
                        let mut index = buckets[one as usize % buckets.len()];
                        while let Some(at) = index.checked_sub(*first)
                            && let Some(chained) = chains.get(at as usize)
                        {
                            if (chained ^ one) >> 1 == 0 {
                                return true;
                            }
                            if chained & 1 == 1 {
                                break;
                            }
                            index = index.saturating_add(1);
                        }
                        false
                    })
            }
            Hash::Plain { .. } => true,
            Hash::None => false,
        }
    }

    /// What the hash table says about the name of a definition, or would say.
    fn key(&self, index: u32) -> Option<u32> {
        match &self.hash {
            Hash::Gnu { .. } => Some(self.partial_hash(index)?.key()),
            Hash::Plain { .. } | Hash::None => {
                Some(Name::new(self.text(self.get(index)?.name.into())?).hash >> 1)
            }
        }
    }

    /// Index and hash without its lowest bit of everything that can be found, exported or not; hardly anything is not.
    pub(crate) fn findable(&self) -> impl ExactSizeIterator<Item = (u32, u32)> {
        let first = match &self.hash {
            Hash::Gnu { first, .. } => *first,
            Hash::Plain { .. } | Hash::None => 1,
        };
        // What is cut off has no hash, and is not found by one either.
        (first..self.count().max(first)).map(|index| (index, self.key(index).unwrap_or(0)))
    }

    /// The symbol with that index, if it is a definition of that name and version that others see.
    pub(crate) fn fits_name(
        &self,
        index: u32,
        name: Name<'_>,
        version: Option<&Version>,
    ) -> Option<&'static Symbol> {
        let symbol = self.get(index)?;
        let fits = self.strings.is(symbol.name.into(), name.bytes);
        (fits && symbol.is_exported() && self.fits(index, version)).then_some(symbol)
    }

    /// The definition of `name` that somebody who asks for `version`, or for none in particular, gets, and its index.
    pub(crate) fn find(&self, name: Name<'_>, version: Option<&Version>) -> Option<(u32, &'static Symbol)> {
        self.find_where(name, |index, symbol| symbol.is_exported() && self.fits(index, version))
    }

    /// Some definition of `name`, whatever its version.
    pub(crate) fn find_any(&self, name: Name<'_>) -> Option<(u32, &'static Symbol)> {
        self.find_where(name, |_, symbol| symbol.is_exported())
    }

    /// The undefined symbol `name` that has an address all the same: the place in a program's procedure linkage
    /// table that stands for the function everywhere, when the program's code is not position-independent.
    pub(crate) fn find_stand_in(&self, name: Name<'_>) -> Option<(u32, &'static Symbol)> {
        self.find_where(name, |_, symbol| {
            !symbol.is_defined() && symbol.value != 0 && symbol.kind() == STT_FUNC
        })
    }

    fn find_where(
        &self,
        name: Name<'_>,
        accept: impl Fn(u32, &Symbol) -> bool,
    ) -> Option<(u32, &'static Symbol)> {
        let candidate = |index: u32| {
            let symbol = self.get(index)?;
            let fits = self.strings.is(symbol.name.into(), name.bytes);
            (fits && accept(index, symbol)).then_some((index, symbol))
        };
        match &self.hash {
            Hash::Gnu { first, filter, buckets, chains } => {
                if !filter.passes(name.hash) {
                    return None;
                }
                let hash = name.hash;
                let mut index = buckets[hash as usize % buckets.len()];
                loop {
                    // An empty bucket holds 0, which is below the first.
                    let chained = *chains.get(index.checked_sub(*first)? as usize)?;
                    if (chained ^ hash) >> 1 == 0
                        && let Some(found) = candidate(index)
                    {
                        return Some(found);
                    }
                    if chained & 1 == 1 {
                        return None;
                    }
                    index = index.checked_add(1)?;
                }
            }
            Hash::Plain { buckets, chains } => {
                let mut index = buckets[plain_hash(name.bytes) as usize % buckets.len()];
                // A damaged chain may have a loop.
                for _ in 0..chains.len() {
                    if index == 0 {
                        return None;
                    }
                    if let Some(found) = candidate(index) {
                        return Some(found);
                    }
                    index = *chains.get(index as usize)?;
                }
                None
            }
            Hash::None => None,
        }
    }

    fn fits(&self, index: u32, version: Option<&Version>) -> bool {
        let Some(number) = self.numbers.and_then(|numbers| numbers.get(index as usize)) else {
            return true;
        };
        match (version, self.defined.get(*number)) {
            (None, _) => number & HIDDEN == 0,
            (Some(version), Some(defined)) => defined.hash == version.hash && defined.name == version.name,
            // A definition without a version serves any.
            (Some(_), None) => number & HIDDEN == 0,
        }
    }

    /// Whether the file defines that version.
    pub(crate) fn defines(&self, version: &Version) -> bool {
        self.defined.iter().any(|defined| defined.hash == version.hash && defined.name == version.name)
    }

    /// The filter in front of the definitions.
    pub(crate) fn filter(&self) -> Filter {
        match &self.hash {
            Hash::Gnu { filter, .. } => *filter,
            Hash::Plain { .. } | Hash::None => Filter::OPEN,
        }
    }

    /// Whether it defines some `count` names, by the size of the table: linkers have a bucket for four.
    pub(crate) fn may_have_many(&self, count: usize) -> bool {
        match &self.hash {
            Hash::Gnu { buckets, .. } => buckets.len() >= count / 4,
            Hash::Plain { .. } | Hash::None => false,
        }
    }

    /// How many symbols there are, found by way of the hash table as nothing else says it.
    pub(crate) fn count(&self) -> u32 {
        let count = match &self.hash {
            Hash::Gnu { first, buckets, chains, .. } => {
                let last = buckets.iter().copied().max().unwrap_or(0);
                if last < *first {
                    *first
                } else {
                    let rest = chains.get((last - first) as usize..).unwrap_or(&[]);
                    let more = rest.iter().position(|chained| chained & 1 == 1).map_or(0, |at| at + 1);
                    last.saturating_add(more as u32)
                }
            }
            Hash::Plain { chains, .. } => chains.len() as u32,
            Hash::None => 0,
        };
        count.min(self.symbols.len() as u32)
    }

    /// All symbols but the first, which means nothing, with index and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &'static Symbol, &'static [u8])> {
        (1..self.count()).filter_map(|index| {
            let symbol = self.get(index)?;
            Some((index, symbol, self.text(symbol.name.into())?))
        })
    }
}

impl Hash {
    /// # Safety
    /// As for [`Symbols::new`].
    unsafe fn new(place: &Place, tables: &SymbolTables) -> Option<Self> {
        if let Some(address) = tables.gnu_hash {
            // SAFETY: the caller's promise, here and below.
            let [buckets, first, words, shift] = *unsafe { place.table::<u32>(address, 4) }? else {
                return None;
            };
            if buckets == 0 || !words.is_power_of_two() || shift >= 32 {
                return None;
            }
            let bloom_at = address + 16;
            let buckets_at = bloom_at + u64::from(words) * 8;
            let chains_at = buckets_at + u64::from(buckets) * 4;
            // SAFETY: as above.
            return unsafe {
                Some(Self::Gnu {
                    first,
                    filter: Filter { words: place.table(bloom_at, words as usize)?, shift },
                    buckets: place.table(buckets_at, buckets as usize)?,
                    chains: place.tail(chains_at)?,
                })
            };
        }
        let Some(address) = tables.hash else { return Some(Self::None) };
        // SAFETY: as above.
        let [buckets, chains] = *unsafe { place.table::<u32>(address, 2) }? else { return None };
        if buckets == 0 {
            return Some(Self::None);
        }
        // SAFETY: as above.
        unsafe {
            Some(Self::Plain {
                buckets: place.table(address + 8, buckets as usize)?,
                chains: place.table(address + 8 + u64::from(buckets) * 4, chains as usize)?,
            })
        }
    }
}

/// The hash of the old tables and of versions.
fn plain_hash(name: &[u8]) -> u32 {
    name.iter().fold(0u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(*byte));
        let top = hash & 0xf000_0000;
        (hash ^ (top >> 24)) & !top
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_hash_is_enough_for_a_quick_no() {
        let words: &'static [u64] = &[0, 1 << 9 | 1 << 40, 0, 0];
        let filter = Filter { words, shift: 6 };
        for hash in 0..1u32 << 14 {
            let name = |hash| filter.passes(hash);
            assert_eq!(filter.passes_partly(PartialHash(hash & !1)), name(hash & !1) || name(hash | 1));
        }
    }

    #[test]
    fn names_are_hashed_as_the_tables_have_it() {
        // From the description of the format.
        for (name, hash) in
            [("", 5381), ("printf", 0x156b_2bb8), ("exit", 0x7c96_7e3f), ("syscall", 0xbac2_12a0)]
        {
            assert_eq!(Name::new(name.as_bytes()).hash, hash, "{name}");
        }
        let long = "flapenguin.me with a longer name than eight";
        let plain = long.bytes().fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(byte.into()));
        assert_eq!(Name::new(long.as_bytes()).hash, plain);
        assert_eq!(plain_hash(b"printf"), 0x077_905a6);
    }
}
