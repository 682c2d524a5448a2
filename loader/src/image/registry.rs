//! Which image is at an address: asked by the unwinder for every frame, and by whoever wants to name an address.
//!
//! A radix tree over the pages of the lower half of the address space: 8 and three times 9 bits choose a node's entry, so
//! that a node is a page. An entry of a leaf is a [`Record`], or a [`Crowd`] where one page may belong to many small
//! images. A look-up is four loads, takes no lock and allocates nothing, so that it may happen in a signal handler that walks the stack.
//! Nodes and records are never given back, but used again: a reader that comes too late reads something stale and
//! not something freed. What it does with an address whose image goes meanwhile is as undefined as for any library.
//!
//! State of the process, as the unwinder is: it knows nothing of loaders.

use super::Image;
use crate::sys::memory::PAGE;
use crate::sys::threads::at_fork;
use parking_lot::{Mutex, MutexGuard};
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Once, Weak};

const BITS: u32 = 9;
const ROOT_BITS: u32 = 8;
const PAGE_BITS: u32 = PAGE.trailing_zeros();
/// Set in an entry of a leaf that is a crowd.
const CROWD: usize = 1;

type Leaf = [AtomicUsize; 1 << BITS];
type Middle = [AtomicPtr<Leaf>; 1 << BITS];
type Upper = [AtomicPtr<Middle>; 1 << BITS];

static ROOT: [AtomicPtr<Upper>; 1 << ROOT_BITS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; 1 << ROOT_BITS];
/// Guards changes.
static UNUSED: Mutex<Unused> = Mutex::new(Unused { records: Vec::new(), crowds: Vec::new() });

/// What can be used again.
struct Unused {
    records: Vec<&'static Record>,
    crowds: Vec<&'static Crowd>,
}

/// Takes the lock. Whoever forks takes it before and gives it back after, so that a child never finds it taken by a
/// thread it does not have.
fn unused() -> MutexGuard<'static, Unused> {
    extern "C" fn before() {
        std::mem::forget(UNUSED.lock());
    }
    extern "C" fn after() {
        // SAFETY: locked by `before` in this thread, and its guard is forgotten.
        unsafe { UNUSED.force_unlock() };
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
        set(&range, std::ptr::from_ref(record) as usize);
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
            Within::Pages(range) => set(range, 0),
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
        let unused = {
            let crowds = &mut unused().crowds;
            crowds.iter().position(|crowd| crowd.region == region).map(|at| crowds.swap_remove(at))
        };
        let crowd = unused.unwrap_or_else(|| {
            let mut members = Vec::new();
            members.resize_with(region / GRANULE, AtomicPtr::default);
            Box::leak(Box::new(Self { start: AtomicUsize::new(0), region, members: members.into() }))
        });
        crowd.start.store(start, Ordering::Release);
        set(&(start..start + 2 * region), std::ptr::from_ref(crowd) as usize | CROWD);
        crowd
    }

    /// Its address space is given back; no image is in it any more.
    pub(crate) fn leave(&'static self) {
        let start = self.start.load(Ordering::Relaxed);
        set(&(start..start + 2 * self.region), 0);
        unused().crowds.push(self);
    }

    fn members_of(&self, within: &Range<usize>) -> &[AtomicPtr<Record>] {
        let range = within.start / GRANULE..within.end.div_ceil(GRANULE);
        self.members.get(range).unwrap_or_default()
    }

    fn find(&self, address: usize) -> Option<&'static Record> {
        let offset = address.wrapping_sub(self.start.load(Ordering::Acquire)) % self.region;
        let record = self.members.get(offset / GRANULE)?.load(Ordering::Acquire);
        // SAFETY: a record is never freed.
        unsafe { record.as_ref() }
    }
}

/// What unwinding needs at an address of code of an image.
pub(crate) fn unwindable(address: usize) -> Option<Unwindable> {
    let record = find(address)?;
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
    let uppers = ROOT.iter().filter_map(below);
    for leaf in uppers.flatten().filter_map(below).flatten().filter_map(below) {
        let mut crowd = 0;
        for entry in leaf {
            let entry = entry.load(Ordering::Acquire);
            if entry & CROWD == 0 {
                // SAFETY: such entries are null or point to records, which are never freed.
                if let Some(record) = unsafe { (entry as *const Record).as_ref() } {
                    add(record);
                }
            } else if entry != crowd {
                crowd = entry;
                // SAFETY: entries with this mark point to crowds, which are never freed.
                let members = unsafe { &(*((entry & !CROWD) as *const Crowd)).members };
                for member in members {
                    // SAFETY: a record is never freed.
                    if let Some(record) = unsafe { member.load(Ordering::Acquire).as_ref() } {
                        add(record);
                    }
                }
            }
        }
    }
    records.sort_unstable_by_key(|(number, _)| *number);
    records.dedup_by_key(|(number, _)| *number);
    for (_, record) in records {
        let image = record.image.lock().upgrade();
        if let Some(image) = image {
            visit(image);
        }
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

/// The entry of a node for a page; `level` is 0 for a leaf.
#[inline]
fn entry_of<T>(node: &[T; 1 << BITS], page: usize, level: u32) -> &T {
    &node[(page >> (level * BITS)) % node.len()]
}

fn find(address: usize) -> Option<&'static Record> {
    let page = address >> PAGE_BITS;
    let root = ROOT.get(page >> (3 * BITS))?;
    // SAFETY: nodes are never freed, here and below.
    let upper = unsafe { root.load(Ordering::Acquire).as_ref() }?;
    // SAFETY: as above.
    let middle = unsafe { entry_of(upper, page, 2).load(Ordering::Acquire).as_ref() }?;
    // SAFETY: as above.
    let leaf = unsafe { entry_of(middle, page, 1).load(Ordering::Acquire).as_ref() }?;
    let entry = entry_of(leaf, page, 0).load(Ordering::Acquire);
    if entry & CROWD != 0 {
        // SAFETY: entries with this mark point to crowds, which are never freed.
        return unsafe { &*((entry & !CROWD) as *const Crowd) }.find(address);
    }
    // SAFETY: other entries are null or point to records, which are never freed.
    unsafe { (entry as *const Record).as_ref() }
}

/// The node that `parent` points to, if there is one.
fn below<T>(parent: &AtomicPtr<T>) -> Option<&'static T> {
    // SAFETY: nodes are never freed.
    unsafe { parent.load(Ordering::Acquire).as_ref() }
}

/// Enters `entry` for all pages of `range`.
fn set(range: &Range<usize>, entry: usize) {
    let last = range.end.div_ceil(PAGE);
    let mut page = range.start >> PAGE_BITS;
    while page < last {
        let Some(root) = ROOT.get(page >> (3 * BITS)) else { return };
        let leaf = child(entry_of(child(entry_of(child(root), page, 2)), page, 1));
        let from = page % leaf.len();
        let to = leaf.len().min(from + (last - page));
        for place in &leaf[from..to] {
            place.store(entry, Ordering::Release);
        }
        page += to - from;
    }
}

/// The node that `parent` points to, made if there is none.
fn child<T>(parent: &AtomicPtr<T>) -> &'static T {
    let known = parent.load(Ordering::Acquire);
    let node = if known.is_null() {
        let layout = std::alloc::Layout::new::<T>();
        // SAFETY: the layout is not empty.
        let fresh = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<T>();
        if fresh.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        match parent.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: allocated above, and nobody has seen it.
                unsafe { std::alloc::dealloc(fresh.cast(), layout) };
                other
            }
        }
    } else {
        known
    };
    // SAFETY: nodes are arrays of null pointers and zeros at first, for which all-zero bytes are valid, and are never
    // freed.
    unsafe { &*node }
}

#[cfg(test)]
mod tests {
    use super::*;

    // High up where nothing is mapped by anybody.
    const SOMEWHERE: usize = 0x3000_0000_0000;

    #[test]
    fn addresses_lead_to_their_image_until_it_goes() {
        // Over the border of two leaves.
        let start = SOMEWHERE + (1 << (PAGE_BITS + BITS)) - 2 * PAGE;
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
}
