//! A radix tree over the pages of the lower half of the address space, read without a lock.
//!
//! 8 and three times 9 bits of a page's number choose the entries of four levels of nodes, each a page long. Most pages of
//! images lie in stretches of 2 MiB that belong to one owner alone: such a stretch has no leaf, its entry names the
//! owner. So a page may lead to an owner that does not have it, but has others near it.

use super::Unused;
use crate::sys::memory::PAGE;
use std::ops::Range;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

const BITS: u32 = 9;
const ROOT_BITS: u32 = 8;
const PAGE_BITS: u32 = PAGE.trailing_zeros();
/// Set in the entry of a stretch that has one owner; the rest of the entry is that owner. Otherwise it is a leaf.
const ONE: usize = 2;

/// Owners of the pages of a stretch, or zeros.
type Leaf = [AtomicUsize; 1 << BITS];
/// Entries of stretches.
type Middle = [AtomicUsize; 1 << BITS];
type Upper = [AtomicPtr<Middle>; 1 << BITS];

static ROOT: [AtomicPtr<Upper>; 1 << ROOT_BITS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; 1 << ROOT_BITS];

/// Who may have the page of that address.
pub(super) fn owner(address: usize) -> Option<usize> {
    let page = address >> PAGE_BITS;
    let middle = below(entry_of(below(ROOT.get(page >> (3 * BITS))?)?, page, 2))?;
    let entry = entry_of(middle, page, 1).load(Ordering::Acquire);
    let owner = match leaf(entry) {
        Some(leaf) => entry_of(leaf, page, 0).load(Ordering::Acquire),
        None => entry & !ONE,
    };
    (owner != 0).then_some(owner)
}

/// Makes `owner`, a number that is not zero and a multiple of four but for its lowest bit, the one of all pages of
/// `range`.
pub(super) fn enter(range: &Range<usize>, owner: usize, _lock: &MutexGuard<'_, Unused>) {
    for_each_stretch(range, |stretch, pages| {
        let entry = stretch.load(Ordering::Relaxed);
        if entry == 0 {
            stretch.store(owner | ONE, Ordering::Release);
            return;
        }
        let leaf = leaf(entry).unwrap_or_else(|| {
            let leaf: &Leaf = allocate();
            leaf.iter().for_each(|place| place.store(entry & !ONE, Ordering::Relaxed));
            stretch.store(std::ptr::from_ref(leaf) as usize, Ordering::Release);
            leaf
        });
        for place in &leaf[pages] {
            place.store(owner, Ordering::Release);
        }
    });
}

/// Takes `owner` out, which has the pages of `range`.
pub(super) fn take_out(range: &Range<usize>, owner: usize, _lock: &MutexGuard<'_, Unused>) {
    for_each_stretch(range, |stretch, _| {
        let entry = stretch.load(Ordering::Relaxed);
        if entry == owner | ONE {
            stretch.store(0, Ordering::Release);
        } else if let Some(leaf) = leaf(entry) {
            for place in leaf {
                if place.load(Ordering::Relaxed) == owner {
                    place.store(0, Ordering::Release);
                }
            }
        }
    });
}

/// Calls `visit` with every owner, in the order of addresses, some of them more than once.
pub(super) fn for_each(mut visit: impl FnMut(usize)) {
    let mut last = 0;
    let mut once = |owner: usize| {
        if owner != 0 && owner != last {
            last = owner;
            visit(owner);
        }
    };
    for stretch in ROOT.iter().filter_map(below).flatten().filter_map(below).flatten() {
        let entry = stretch.load(Ordering::Acquire);
        match leaf(entry) {
            Some(leaf) => leaf.iter().for_each(|place| once(place.load(Ordering::Acquire))),
            None => once(entry & !ONE),
        }
    }
}

/// Calls `change` with the entry of every stretch of `range` and which of its pages are in the range.
fn for_each_stretch(range: &Range<usize>, mut change: impl FnMut(&'static AtomicUsize, Range<usize>)) {
    let last = range.end.div_ceil(PAGE);
    let mut page = range.start >> PAGE_BITS;
    while page < last {
        let Some(root) = ROOT.get(page >> (3 * BITS)) else { return };
        let middle = child(entry_of(child(root), page, 2));
        let from = page % (1 << BITS);
        let to = (1 << BITS).min(from + (last - page));
        change(entry_of(middle, page, 1), from..to);
        page += to - from;
    }
}

/// The entry of a node for a page; `level` is 0 for a leaf.
#[inline]
fn entry_of<T>(node: &[T; 1 << BITS], page: usize, level: u32) -> &T {
    &node[(page >> (level * BITS)) % node.len()]
}

/// The leaf that the entry of a stretch leads to, if it has one.
#[inline]
fn leaf(entry: usize) -> Option<&'static Leaf> {
    // SAFETY: entries without the mark are null or point to leaves, which are never freed.
    if entry & ONE == 0 { unsafe { (entry as *const Leaf).as_ref() } } else { None }
}

/// The node that `parent` points to, if there is one.
fn below<T>(parent: &AtomicPtr<T>) -> Option<&'static T> {
    // SAFETY: nodes are never freed.
    unsafe { parent.load(Ordering::Acquire).as_ref() }
}

/// The same, made if there is none; under the lock.
fn child<T>(parent: &AtomicPtr<T>) -> &'static T {
    below(parent).unwrap_or_else(|| {
        let fresh = allocate::<T>();
        parent.store(std::ptr::from_ref(fresh).cast_mut(), Ordering::Release);
        fresh
    })
}

/// A node of zeros.
fn allocate<T>() -> &'static T {
    let layout = std::alloc::Layout::new::<T>();
    // SAFETY: the layout is not empty. Nodes are arrays of null pointers and zeros, for which all-zero bytes are valid.
    let fresh = unsafe { std::alloc::alloc_zeroed(layout).cast::<T>().as_ref() };
    fresh.unwrap_or_else(|| std::alloc::handle_alloc_error(layout))
}
