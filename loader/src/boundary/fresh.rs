//! Where the unwind tables of fresh code are: what a back end writes and the loader reads.
//!
//! A back end links code into an area of its own, all the time. It tells the loader about the area once; from then on a
//! table in memory says which unwind tables belong to an address. So a link costs a few words, nothing is registered or
//! sorted, and whoever walks the stack, in a signal handler maybe, needs a few loads and no lock.
//!
//! The table has a word for each [`GRANULE`] bytes of code: the distance from the area's base to an *entry*, or zero. An
//! entry is two words, the distance from the base to where the linked code begins and how long it is, and then an index as
//! ELF files have it in `.eh_frame_hdr`.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Code of one link begins and ends at multiples of this many bytes from the area's code.
pub const GRANULE: usize = 32;

/// Bytes of an entry before its index.
pub const ENTRY_HEAD: usize = 8;

/// An area for fresh code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FreshArea {
    /// What distances are counted from; everything lies in the 4 GiB above.
    pub base: usize,
    /// First address of the code.
    pub code: usize,
    /// Where the code ends.
    pub end: usize,
    /// Address of the table.
    pub table: usize,
}

impl FreshArea {
    /// The code that was linked together with that at `address`, and the index of its unwind tables.
    ///
    /// # Safety
    /// The area is as its fields say, and the table was changed by [`FreshArea::enter`] and [`FreshArea::leave`] only.
    pub unsafe fn find(&self, address: usize) -> Option<(Range<usize>, usize)> {
        let offset = address.checked_sub(self.code).filter(|_| address < self.end)?;
        // SAFETY: the address lies in the code, and the table has a word for all of it.
        let distance = unsafe { self.word(offset / GRANULE) }.load(Ordering::Acquire);
        if distance == 0 {
            return None;
        }
        let entry = (self.base + distance as usize) as *const u32;
        // SAFETY: a word that is not zero leads to an entry, which is complete before the word is there.
        let [start, length] = unsafe { [*entry, *entry.add(1)] };
        let start = self.base + start as usize;
        let linked = start..start + length as usize;
        linked.contains(&address).then_some((linked, entry as usize + ENTRY_HEAD))
    }

    /// Makes it known that the tables of `linked` are at `entry`.
    ///
    /// # Safety
    /// The area is as its fields say. `linked` lies in its code, at multiples of [`GRANULE`] from its start, and has no
    /// entry yet. A complete entry is at `entry`, in the area, at a multiple of four.
    pub unsafe fn enter(&self, linked: Range<usize>, entry: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.set(linked, (entry - self.base) as u32) };
    }

    /// Takes the tables of `linked` out.
    ///
    /// # Safety
    /// The area is as its fields say, and `linked` was entered.
    pub unsafe fn leave(&self, linked: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe { self.set(linked, 0) };
    }

    unsafe fn set(&self, linked: Range<usize>, distance: u32) {
        for granule in (linked.start - self.code) / GRANULE..(linked.end - self.code).div_ceil(GRANULE) {
            // SAFETY: the caller says that this is code of the area.
            unsafe { self.word(granule) }.store(distance, Ordering::Release);
        }
    }

    unsafe fn word(&self, granule: usize) -> &AtomicU32 {
        // SAFETY: the caller says that the granule is one of the area, which has a table.
        unsafe { &*(self.table as *const AtomicU32).add(granule) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_the_tables_of_its_link() {
        // Entries and table in one piece of memory; nobody looks at the code itself.
        let memory = vec![0u32; 64].leak();
        let base = memory.as_ptr() as usize;
        let code = base + 0x1000;
        let area = FreshArea { base, code, end: code + 40 * GRANULE, table: base + 16 * 4 };
        memory[2] = 0x1000 + GRANULE as u32;
        memory[3] = 70;
        let linked = code + GRANULE..code + GRANULE + 70;
        // SAFETY: the area is the memory above.
        let find = |address| unsafe { area.find(address) };
        assert_eq!(find(linked.start), None);
        // SAFETY: as above; the entry is complete.
        unsafe { area.enter(linked.clone(), base + 8) };
        let expected = Some((linked.clone(), base + 16));
        assert_eq!([find(linked.start), find(linked.end - 1)], [expected.clone(), expected]);
        for outside in [code - 1, code, linked.end, area.end, usize::MAX, 0] {
            assert_eq!(find(outside), None);
        }
        // SAFETY: as above.
        unsafe { area.leave(linked.clone()) };
        assert_eq!(find(linked.start), None);
    }
}
