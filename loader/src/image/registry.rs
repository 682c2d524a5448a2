//! Which image is at an address: asked by the unwinder for every frame, and by whoever wants to name an address.
//!
//! A tree over the pages of the address space ([`tree`]) leads to a [`Record`], or to a [`Crowd`] where one page may
//! belong to many small images, or to an area of fresh code, which has a table of its own. A look-up is a few loads, takes no lock and allocates nothing, so that it may happen in a
//! signal handler that walks the stack. Nodes and records are never given back, but used again: a reader that comes
//! too late reads something stale and not something freed. What it does with an address whose image goes meanwhile is
//! as undefined as for any library.
//!
//! State of the process, as the unwinder is: it knows nothing of loaders.

mod tree;

use super::Image;
use crate::boundary::FreshArea;
use crate::sys::fork_lock::ForkLock;
use crate::sys::sync::Mutex;
use crate::sys::threads::at_fork;
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, Once, Weak};

/// Set in an owner that is a crowd.
const CROWD: usize = 1;
/// Set in an owner that is an area of fresh code.
const FRESH: usize = 4;

/// Who has a page.
enum Owner {
    Image(&'static Record),
    Crowd(&'static Crowd),
    Fresh(&'static Fresh),
}

impl Owner {
    /// What a number in the tree stands for; it is not zero.
    fn of(number: usize) -> Self {
        // SAFETY: what is entered are addresses of records, crowds and areas with their marks, and these are never freed.
        unsafe {
            match number & (CROWD | FRESH) {
                0 => Self::Image(&*(number as *const Record)),
                CROWD => Self::Crowd(&*((number & !CROWD) as *const Crowd)),
                _ => Self::Fresh(&*((number & !FRESH) as *const Fresh)),
            }
        }
    }
}

/// Guards changes.
static UNUSED: ForkLock<Unused> =
    ForkLock::new(Unused { records: Vec::new(), crowds: Vec::new(), areas: Vec::new() });

/// What can be used again.
struct Unused {
    records: Vec<&'static Record>,
    crowds: Vec<&'static Crowd>,
    areas: Vec<&'static Fresh>,
}

/// Takes the lock. Whoever forks takes it before and gives it back after, so that a child never finds it taken by a
/// thread it does not have.
fn unused() -> MutexGuard<'static, Unused> {
    extern "C" fn before() {
        UNUSED.hold(|_| {});
    }
    extern "C" fn after() {
        // SAFETY: `before` was called in this thread.
        unsafe { UNUSED.let_go() };
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| at_fork(before, after, after));
    UNUSED.lock()
}
/// How many images there ever were, and how many of them are gone.
static KNOWN: AtomicU64 = AtomicU64::new(0);
static GONE: AtomicU64 = AtomicU64::new(0);

/// An image as it is known by its addresses.
#[derive(Default)]
struct Record {
    start: AtomicUsize,
    end: AtomicUsize,
    /// Address of the index of its unwind tables, or 0.
    unwind: AtomicUsize,
    /// How many were known before.
    number: AtomicU64,
    image: Mutex<Weak<Image>>,
}

/// What the unwinder wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwindable {
    /// First address of the image.
    pub(crate) start: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// The index of its unwind tables, as in its `PT_GNU_EH_FRAME` segment.
    pub(crate) index: usize,
}

/// Address space that many images share. Two regions of the same length lie one behind the other, and an image has the
/// same offsets in both.
#[derive(Debug)]
pub(crate) struct Crowd {
    start: AtomicUsize,
    region: usize,
    /// One for each [`GRANULE`] of a region.
    members: Box<[AtomicPtr<Record>]>,
}

/// Images in a crowd begin and end at multiples of this many bytes.
pub(crate) const GRANULE: usize = 256;

/// Dropped, the image is not known by its addresses any more.
pub(crate) struct Entry {
    record: &'static Record,
    place: Within,
}

enum Within {
    /// Pages of its own.
    Pages(Range<usize>),
    /// A range of offsets in a crowd.
    Crowd(&'static Crowd, Range<usize>),
}

impl Entry {
    /// Makes an image known that has the pages of `range` for itself.
    pub(crate) fn of_pages(range: Range<usize>, unwind: Option<usize>, image: Weak<Image>) -> Self {
        let record = record(range.clone(), unwind, image);
        tree::enter(&range, std::ptr::from_ref(record) as usize, &unused());
        Self { record, place: Within::Pages(range) }
    }

    /// Makes an image known that has the offsets of `within` in a crowd. `range` is what it occupies.
    pub(crate) fn in_crowd(
        crowd: &'static Crowd,
        within: Range<usize>,
        range: Range<usize>,
        unwind: Option<usize>,
        image: Weak<Image>,
    ) -> Self {
        let record = record(range, unwind, image);
        for member in crowd.members_of(&within) {
            member.store(std::ptr::from_ref(record).cast_mut(), Ordering::Release);
        }
        Self { record, place: Within::Crowd(crowd, within) }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match &self.place {
            Within::Pages(range) => {
                tree::take_out(range, std::ptr::from_ref(self.record) as usize, &unused());
            }
            Within::Crowd(crowd, within) => {
                for member in crowd.members_of(within) {
                    member.store(std::ptr::null_mut(), Ordering::Release);
                }
            }
        }
        for word in [&self.record.start, &self.record.end, &self.record.unwind] {
            word.store(0, Ordering::Relaxed);
        }
        *self.record.image.lock() = Weak::new();
        unused().records.push(self.record);
        GONE.fetch_add(1, Ordering::Relaxed);
    }
}

impl Crowd {
    /// Makes `2 * region` bytes from `start` a crowd.
    pub(crate) fn new(start: usize, region: usize) -> &'static Self {
        let mut unused = unused();
        let known = unused.crowds.iter().position(|crowd| crowd.region == region);
        let known = known.map(|at| unused.crowds.swap_remove(at));
        let crowd = known.unwrap_or_else(|| {
            let mut members = Vec::new();
            members.resize_with(region / GRANULE, AtomicPtr::default);
            Box::leak(Box::new(Self { start: AtomicUsize::new(0), region, members: members.into() }))
        });
        crowd.start.store(start, Ordering::Release);
        tree::enter(&(start..start + 2 * region), crowd.owner(), &unused);
        crowd
    }

    /// Its address space is given back; no image is in it any more.
    pub(crate) fn leave(&'static self) {
        let start = self.start.load(Ordering::Relaxed);
        let mut unused = unused();
        tree::take_out(&(start..start + 2 * self.region), self.owner(), &unused);
        unused.crowds.push(self);
    }

    fn owner(&'static self) -> usize {
        std::ptr::from_ref(self) as usize | CROWD
    }

    fn members_of(&self, within: &Range<usize>) -> &[AtomicPtr<Record>] {
        let range = within.start / GRANULE..within.end.div_ceil(GRANULE);
        self.members.get(range).unwrap_or_default()
    }

    fn find(&self, address: usize) -> Option<&'static Record> {
        let offset = address.wrapping_sub(self.start.load(Ordering::Acquire));
        if offset >= 2 * self.region {
            return None;
        }
        let record = self.members.get(offset % self.region / GRANULE)?.load(Ordering::Acquire);
        // SAFETY: a record is never freed.
        unsafe { record.as_ref() }
    }
}

/// An area of fresh code as it is known by its addresses. The fields are those of [`FreshArea`].
#[derive(Debug)]
#[repr(align(8))]
pub(crate) struct Fresh {
    base: AtomicUsize,
    code: AtomicUsize,
    end: AtomicUsize,
    table: AtomicUsize,
}

impl Fresh {
    /// Makes an area known.
    ///
    /// # Safety
    /// It is as its fields say until it has left.
    pub(crate) unsafe fn new(area: &FreshArea) -> &'static Self {
        let mut unused = unused();
        let fresh = unused.areas.pop().unwrap_or_else(|| Box::leak(Box::new(Self::nowhere())));
        fresh.set(area);
        tree::enter(&(area.code..area.end), fresh.owner(), &unused);
        fresh
    }

    /// Nobody is at its addresses any more.
    pub(crate) fn leave(&'static self) {
        let area = self.area();
        let mut unused = unused();
        tree::take_out(&(area.code..area.end), self.owner(), &unused);
        self.set(&FreshArea { base: 0, code: 0, end: 0, table: 0 });
        unused.areas.push(self);
    }

    fn nowhere() -> Self {
        let [base, code, end, table] = [const { AtomicUsize::new(0) }; 4];
        Self { base, code, end, table }
    }

    fn set(&self, area: &FreshArea) {
        let fields = [(&self.base, area.base), (&self.code, area.code), (&self.table, area.table)];
        for (field, value) in fields {
            field.store(value, Ordering::Relaxed);
        }
        // Without an end nothing is found.
        self.end.store(area.end, Ordering::Release);
    }

    fn area(&self) -> FreshArea {
        let end = self.end.load(Ordering::Acquire);
        let [base, code, table] = [&self.base, &self.code, &self.table].map(|f| f.load(Ordering::Relaxed));
        FreshArea { base, code, end, table }
    }

    fn owner(&'static self) -> usize {
        std::ptr::from_ref(self) as usize | FRESH
    }
}

/// What unwinding needs at an address of code of an image, or of fresh code.
pub(crate) fn unwindable(address: usize) -> Option<Unwindable> {
    let record = match Owner::of(tree::owner(address)?) {
        Owner::Image(record) => record,
        Owner::Crowd(crowd) => crowd.find(address)?,
        Owner::Fresh(fresh) => {
            // SAFETY: whoever made it known has promised that it is as it says.
            let (code, index) = unsafe { fresh.area().find(address) }?;
            return Some(Unwindable { start: code.start, end: code.end, index });
        }
    };
    let start = record.start.load(Ordering::Relaxed);
    let end = record.end.load(Ordering::Relaxed);
    let index = record.unwind.load(Ordering::Relaxed);
    (index != 0 && (start..end).contains(&address)).then_some(Unwindable { start, end, index })
}

/// How many images there ever were, and how many of them are gone.
pub(crate) fn counts() -> (u64, u64) {
    (KNOWN.load(Ordering::Relaxed), GONE.load(Ordering::Relaxed))
}

/// Calls `visit` with every image that is not ending, in the order in which they became known.
pub(crate) fn for_each(mut visit: impl FnMut(Arc<Image>)) {
    let mut records: Vec<(u64, &'static Record)> = Vec::new();
    let mut add = |record: &'static Record| {
        let number = record.number.load(Ordering::Relaxed);
        // A record stands at every page of its image.
        if records.last().is_none_or(|(last, _)| *last != number) {
            records.push((number, record));
        }
    };
    tree::for_each(|owner| match Owner::of(owner) {
        Owner::Image(record) => add(record),
        Owner::Crowd(crowd) => {
            for member in &crowd.members {
                // SAFETY: a record is never freed.
                if let Some(record) = unsafe { member.load(Ordering::Acquire).as_ref() } {
                    add(record);
                }
            }
        }
        Owner::Fresh(_) => {}
    });
    records.sort_unstable_by_key(|(number, _)| *number);
    records.dedup_by_key(|(number, _)| *number);
    for (_, record) in records {
        let image = record.image.lock().upgrade();
        if let Some(image) = image {
            visit(image);
        }
    }
}

/// The code that was linked together with that at an address, if it is fresh code.
pub(crate) fn fresh_link(address: usize) -> Option<Range<usize>> {
    match Owner::of(tree::owner(address)?) {
        // SAFETY: whoever made it known has promised that it is as it says.
        Owner::Fresh(fresh) => unsafe { fresh.area().find(address) }.map(|(linked, _)| linked),
        Owner::Image(_) | Owner::Crowd(_) => None,
    }
}

/// The image at an address, unless it is ending.
pub(crate) fn image_at(address: usize) -> Option<Arc<Image>> {
    let image = find(address)?.image.lock().upgrade()?;
    // The record may have been used again meanwhile.
    image.range().contains(&address).then_some(image)
}

fn record(range: Range<usize>, unwind: Option<usize>, image: Weak<Image>) -> &'static Record {
    let record = unused().records.pop().unwrap_or_else(|| Box::leak(Box::default()));
    record.start.store(range.start, Ordering::Relaxed);
    record.end.store(range.end, Ordering::Relaxed);
    record.unwind.store(unwind.unwrap_or(0), Ordering::Relaxed);
    record.number.store(KNOWN.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    *record.image.lock() = image;
    record
}

/// The record that an address leads to; whether the address is in its range is for the caller to see.
fn find(address: usize) -> Option<&'static Record> {
    match Owner::of(tree::owner(address)?) {
        Owner::Image(record) => Some(record),
        Owner::Crowd(crowd) => crowd.find(address),
        Owner::Fresh(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::PAGE;

    // High up where nothing is mapped by anybody.
    const SOMEWHERE: usize = 0x3000_0000_0000;

    #[test]
    fn addresses_lead_to_their_image_until_it_goes() {
        // Over the border of two leaves.
        let start = SOMEWHERE + (1 << 21) - 2 * PAGE;
        let range = start..start + 5 * PAGE;
        let expected = Some(Unwindable { start, end: range.end, index: 77 });
        let entry = Entry::of_pages(range.clone(), Some(77), Weak::new());
        for address in [start, start + 1, start + 2 * PAGE, range.end - 1] {
            assert_eq!(unwindable(address), expected);
        }
        assert_eq!(unwindable(start - 1), None);
        assert_eq!(unwindable(range.end), None);
        assert_eq!(unwindable(usize::MAX), None);
        drop(entry);
        assert_eq!(unwindable(start), None);
    }

    #[test]
    fn neighbours_are_told_apart() {
        let start = SOMEWHERE + (1 << 41);
        let range = |number: usize| start + number * 4 * PAGE..start + (number * 4 + 3) * PAGE;
        let entries: Vec<_> =
            (0..200).map(|number| Entry::of_pages(range(number), Some(number + 1), Weak::new())).collect();
        let found = |address| unwindable(address).map(|found| found.index);
        for number in 0..200 {
            assert_eq!(found(range(number).start), Some(number + 1));
            assert_eq!(found(range(number).end - 1), Some(number + 1));
            assert_eq!(found(range(number).end), None);
        }
        for (number, entry) in entries.into_iter().enumerate() {
            drop(entry);
            assert_eq!(found(range(number).start), None);
            assert_eq!(found(range(number + 1).start), (number < 199).then_some(number + 2));
        }
    }

    #[test]
    fn a_page_may_have_many_images() {
        let start = SOMEWHERE + (1 << 40);
        let region = 1 << 20;
        let crowd = Crowd::new(start, region);
        let entries: Vec<_> = (0..8)
            .map(|number| {
                let within = number * 512..number * 512 + 300;
                let range = start + within.start..start + region + within.end;
                Entry::in_crowd(crowd, within, range, Some(number + 1), Weak::new())
            })
            .collect();
        for number in 0..8 {
            let at = start + number * 512;
            for address in [at, at + 299, at + region + 299] {
                assert_eq!(unwindable(address).map(|found| found.index), Some(number + 1));
            }
        }
        drop(entries);
        assert_eq!(unwindable(start), None);
        crowd.leave();
    }

    #[test]
    fn fresh_code_is_found_by_its_own_table() {
        use crate::sys::memory::{Access, Mapping};
        let access = Access { read: true, write: true, execute: false };
        // A page for the table, one for an entry, and code that nobody looks at.
        let memory = Mapping::of_zeros(6 * PAGE, access).unwrap();
        let base = memory.start();
        let code = base + 2 * PAGE;
        let area = FreshArea { base, code, end: base + 6 * PAGE, table: base };
        let entry = base + PAGE;
        // SAFETY: all of it lies in the mapping, and the table has a word for each granule of four pages.
        let fresh = unsafe {
            (entry as *mut [u32; 2]).write([2 * PAGE as u32, 50]);
            Fresh::new(&area)
        };
        assert_eq!(unwindable(code), None);
        // SAFETY: as above.
        unsafe { area.enter(code..code + 50, entry) };
        assert_eq!(unwindable(code + 49), Some(Unwindable { start: code, end: code + 50, index: entry + 8 }));
        assert_eq!(unwindable(code + 50), None);
        assert!(image_at(code).is_none(), "it is no image");
        for_each(|image| assert!(!image.range().contains(&code)));
        fresh.leave();
        assert_eq!(unwindable(code), None);
        // SAFETY: as above.
        let again = unsafe { Fresh::new(&area) };
        assert!(std::ptr::eq(fresh, again), "areas are used again");
        again.leave();
    }
}
