//! A table from hashes of names to everything of that hash, read without a lock.
//!
//! Open addressing over a power of two of slots, at most two thirds of them in use. A slot has a hash and a chain of
//! [`Link`]s, which belong to whoever put them in: one allocation for all names of an image. A chain is in the order of
//! entering, which is the order of loading. Nearly all have a link or two; the ends of long ones are remembered. Readers
//! are in a [`Section`]; who takes links out, or makes the table larger, waits for them before anything is freed.
//!
//! The hash is that of GNU's symbol tables without its lowest bit, which those tables do not have: so an image's names
//! are entered without being read.

use super::readers::{Section, wait_for_readers};
use crate::sys::sync::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// A hash as the tables have it.
pub(crate) type Key = u32;

/// Something with a hash, to be entered.
pub(crate) struct Link<T> {
    next: AtomicPtr<Link<T>>,
    key: Key,
    /// What it is.
    pub(crate) value: T,
}

impl<T> Link<T> {
    /// Something that is in no table yet.
    pub(crate) fn new(key: Key, value: T) -> Self {
        Self { next: AtomicPtr::default(), key, value }
    }
}

/// See the module's description.
pub(crate) struct Chains<T> {
    slots: AtomicPtr<Slots<T>>,
    writer: Mutex<Writer<T>>,
}

type Slots<T> = Vec<Slot<T>>;

/// What only those know that change the table.
struct Writer<T> {
    /// How many slots are not empty.
    used: usize,
    /// How many of those have a chain.
    live: usize,
    /// The last links of chains that have been [`LONG`].
    ends: HashMap<Key, *mut Link<T>>,
}

struct Slot<T> {
    /// [`EMPTY`], or a hash with [`USED`] set.
    key: AtomicU32,
    first: AtomicPtr<Link<T>>,
}

const EMPTY: u32 = 0;
const USED: u32 = 1 << 31;
const FEWEST: usize = 64;
/// Chains with so many links are not walked along to their ends.
const LONG: usize = 8;

// SAFETY: what is shared between threads are references to `T`; changes are made under the lock.
unsafe impl<T: Send + Sync> Send for Chains<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Chains<T> {}

impl<T> Slot<T> {
    fn empty() -> Self {
        Self { key: AtomicU32::new(EMPTY), first: AtomicPtr::default() }
    }
}

impl<T> Default for Chains<T> {
    fn default() -> Self {
        let writer = Writer { used: 0, live: 0, ends: HashMap::new() };
        Self { slots: AtomicPtr::default(), writer: Mutex::new(writer) }
    }
}

impl<T> Chains<T> {
    /// Everything of that hash, in the order of entering.
    #[inline(always)]
    pub(crate) fn of<'s>(&self, key: Key, _section: &'s Section) -> Chain<'s, T> {
        // SAFETY: the slots are freed after the section only.
        let slots = unsafe { self.slots.load(Ordering::Acquire).as_ref() };
        let first = slots.and_then(|slots| find(slots, key)).map(|slot| slot.first.load(Ordering::Acquire));
        // SAFETY: links are freed after the section only.
        Chain(first.and_then(|first| unsafe { first.as_ref() }))
    }

    /// Whether there is anything of that hash.
    #[inline]
    pub(crate) fn has(&self, key: Key, section: &Section) -> bool {
        self.of(key, section).0.is_some()
    }

    /// Whether there never was anything.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.load(Ordering::Relaxed).is_null()
    }

    /// Enters links.
    ///
    /// # Safety
    /// They stay where they are until they are taken out again or the table is dropped, whichever is first.
    pub(crate) unsafe fn enter(&self, links: &[Link<T>]) {
        let mut writer = self.writer.lock();
        self.make_room(&mut writer, links.len());
        // SAFETY: slots are freed by who has the lock only.
        let Some(slots) = (unsafe { self.slots.load(Ordering::Relaxed).as_ref() }) else { return };
        for link in links {
            let slot = place(slots, link.key, &mut writer);
            let entered = std::ptr::from_ref(link).cast_mut();
            // SAFETY: the links of a chain are in the table, so they are there.
            match unsafe { slot.first.load(Ordering::Relaxed).as_ref() } {
                Some(first) => {
                    // SAFETY: as above.
                    let end = unsafe { writer.end(link.key, first, entered) };
                    end.next.store(entered, Ordering::Release);
                }
                None => {
                    slot.first.store(entered, Ordering::Release);
                    writer.live += 1;
                }
            }
        }
    }

    /// Takes links out. Afterwards no reader has them any more.
    pub(crate) fn take_out(&self, links: &[Link<T>]) {
        if links.is_empty() {
            return;
        }
        let mut writer = self.writer.lock();
        // SAFETY: slots are freed by who has the lock only.
        let Some(slots) = (unsafe { self.slots.load(Ordering::Relaxed).as_ref() }) else { return };
        for link in links {
            let Some(slot) = find(slots, link.key) else { continue };
            let wanted = std::ptr::from_ref(link).cast_mut();
            let mut before: *mut Link<T> = std::ptr::null_mut();
            let mut current = slot.first.load(Ordering::Relaxed);
            while current != wanted {
                // SAFETY: a link of the chain.
                let Some(one) = (unsafe { current.as_ref() }) else { break };
                before = current;
                current = one.next.load(Ordering::Relaxed);
            }
            if current != wanted {
                continue;
            }
            let next = link.next.load(Ordering::Relaxed);
            // SAFETY: as above.
            match unsafe { before.as_ref() } {
                Some(before) => before.next.store(next, Ordering::Release),
                None => slot.first.store(next, Ordering::Release),
            }
            if next.is_null() {
                if before.is_null() {
                    writer.live -= 1;
                    writer.ends.remove(&link.key);
                } else if let Some(end) = writer.ends.get_mut(&link.key) {
                    *end = before;
                }
            }
        }
        drop(writer);
        wait_for_readers();
    }

    /// Sees to it that `more` hashes find a place.
    fn make_room(&self, writer: &mut Writer<T>, more: usize) {
        let old = self.slots.load(Ordering::Relaxed);
        // SAFETY: slots are freed by who has the lock only.
        let slots = unsafe { old.as_ref() }.map_or(&[][..], Vec::as_slice);
        if (writer.used + more) * 3 <= slots.len() * 2 && !slots.is_empty() {
            return;
        }
        let length = ((writer.live + more) * 2).next_power_of_two().max(FEWEST);
        let mut fresh = Vec::with_capacity(length);
        fresh.resize_with(length, Slot::empty);
        (writer.used, writer.live) = (0, 0);
        for slot in slots {
            let first = slot.first.load(Ordering::Relaxed);
            if !first.is_null() {
                let place = place(&fresh, slot.key.load(Ordering::Relaxed) & !USED, writer);
                place.first.store(first, Ordering::Relaxed);
                writer.live += 1;
            }
        }
        self.slots.store(Box::into_raw(Box::new(fresh)), Ordering::Release);
        if !old.is_null() {
            wait_for_readers();
            // SAFETY: replaced, and every reader that had it is gone.
            drop(unsafe { Box::from_raw(old) });
        }
    }
}

impl<T> Writer<T> {
    /// The last link of the chain that begins with `first`, behind which `next` comes.
    ///
    /// # Safety
    /// The links of the chain are there.
    unsafe fn end<'a>(&mut self, key: Key, first: &'a Link<T>, next: *mut Link<T>) -> &'a Link<T> {
        if let Some(end) = self.ends.get_mut(&key) {
            let before = std::mem::replace(end, next);
            // SAFETY: a link of the chain.
            return unsafe { &*before };
        }
        let (mut end, mut length) = (first, 1);
        // SAFETY: as above.
        while let Some(further) = unsafe { end.next.load(Ordering::Relaxed).as_ref() } {
            (end, length) = (further, length + 1);
        }
        if length >= LONG {
            self.ends.insert(key, next);
        }
        end
    }
}

impl<T> Drop for Chains<T> {
    fn drop(&mut self) {
        let slots = *self.slots.get_mut();
        if !slots.is_null() {
            // SAFETY: nobody reads a table that is dropped.
            drop(unsafe { Box::from_raw(slots) });
        }
    }
}

/// The slot of that hash. There are empty slots, so this ends.
#[inline(always)]
fn find<T>(slots: &[Slot<T>], key: Key) -> Option<&Slot<T>> {
    let mask = slots.len() - 1;
    let mut at = spread(key) & mask;
    loop {
        match slots[at].key.load(Ordering::Acquire) {
            EMPTY => return None,
            found if found == key | USED => return Some(&slots[at]),
            _ => at = (at + 1) & mask,
        }
    }
}

/// The slot of that hash, an empty one made its own if there is none.
fn place<'a, T>(slots: &'a [Slot<T>], key: Key, writer: &mut Writer<T>) -> &'a Slot<T> {
    if let Some(slot) = find(slots, key) {
        return slot;
    }
    let mask = slots.len() - 1;
    let mut at = spread(key) & mask;
    // A slot whose chain is empty is as good as an empty one: who looks for its old hash finds nothing either way.
    while slots[at].key.load(Ordering::Relaxed) != EMPTY && !slots[at].first.load(Ordering::Relaxed).is_null()
    {
        at = (at + 1) & mask;
    }
    let slot = &slots[at];
    if slot.key.swap(key | USED, Ordering::Release) == EMPTY {
        writer.used += 1;
    }
    slot
}

/// Names of one family have hashes that follow each other.
#[inline]
fn spread(key: Key) -> usize {
    (u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

/// The links of one hash.
pub(crate) struct Chain<'s, T>(Option<&'s Link<T>>);

impl<'s, T> Iterator for Chain<'s, T> {
    type Item = &'s T;

    #[inline]
    fn next(&mut self) -> Option<&'s T> {
        let link = self.0?;
        // SAFETY: links are freed after the section only, which outlives this.
        self.0 = unsafe { link.next.load(Ordering::Acquire).as_ref() };
        Some(&link.value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    fn links(keys: impl Iterator<Item = Key>, mark: u32) -> Box<[Link<(Key, u32)>]> {
        keys.map(|key| Link::new(key, (key, mark))).collect()
    }

    fn marks(chains: &Chains<(Key, u32)>, key: Key) -> Vec<u32> {
        let section = Section::enter();
        chains.of(key, &section).inspect(|value| assert_eq!(value.0, key)).map(|value| value.1).collect()
    }

    #[test]
    fn a_chain_is_in_the_order_of_entering() {
        let chains = Chains::default();
        assert!(chains.is_empty() && !chains.has(0, &Section::enter()));
        let batches: Vec<_> = (0..5).map(|mark| links(0..1000, mark)).collect();
        // SAFETY: the batches outlive the table's use of them.
        batches.iter().for_each(|batch| unsafe { chains.enter(batch) });
        assert_eq!(marks(&chains, 0), [0, 1, 2, 3, 4]);
        assert_eq!(marks(&chains, 999), [0, 1, 2, 3, 4]);
        assert_eq!(marks(&chains, 1000), []);
        chains.take_out(&batches[0]);
        chains.take_out(&batches[2]);
        chains.take_out(&batches[4]);
        assert_eq!(marks(&chains, 500), [1, 3]);
        let last = links(400..600, 9);
        // SAFETY: as above.
        unsafe { chains.enter(&last) };
        assert_eq!(marks(&chains, 500), [1, 3, 9]);
        chains.take_out(&batches[1]);
        chains.take_out(&batches[3]);
        assert_eq!((marks(&chains, 500), marks(&chains, 300)), (vec![9], vec![]));
    }

    #[test]
    fn long_chains_lose_and_gain_links_at_their_ends() {
        let chains = Chains::default();
        let mut batches: Vec<_> = (0..3 * LONG as u32).map(|mark| links(0..1, mark)).collect();
        // SAFETY: the batches outlive the table's use of them.
        batches.iter().for_each(|batch| unsafe { chains.enter(batch) });
        for round in 0..4 * LONG as u32 {
            // The end, one from the middle, and in the end all.
            let gone = [batches.pop(), (batches.len() > 2).then(|| batches.remove(1))];
            gone.iter().flatten().for_each(|batch| chains.take_out(batch));
            batches.push(links(0..1, 100 + round));
            // SAFETY: as above.
            unsafe { chains.enter(&batches[batches.len() - 1]) };
            let expected: Vec<_> = batches.iter().map(|batch| batch[0].value.1).collect();
            assert_eq!(marks(&chains, 0), expected);
        }
        batches.iter().for_each(|batch| chains.take_out(batch));
        assert!(!chains.has(0, &Section::enter()) && chains.writer.lock().ends.is_empty());
    }

    #[test]
    fn coming_and_going_does_not_make_it_grow() {
        let chains = Chains::default();
        for round in 0..2000 {
            let batch = links(round * 7..round * 7 + 20, round);
            // SAFETY: taken out below.
            unsafe { chains.enter(&batch) };
            assert_eq!(marks(&chains, round * 7), [round]);
            chains.take_out(&batch);
        }
        // SAFETY: nobody else uses the table.
        assert_eq!(unsafe { &*chains.slots.load(Ordering::Relaxed) }.len(), FEWEST);
    }

    #[test]
    fn readers_see_what_stays_while_others_come_and_go() {
        let chains = Arc::new(Chains::default());
        let stays = links(0..100, 1);
        // SAFETY: the batch outlives the table's use of it.
        unsafe { chains.enter(&stays) };
        let end = Arc::new(AtomicBool::new(false));
        let reader = {
            let (chains, end) = (Arc::clone(&chains), Arc::clone(&end));
            std::thread::spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    for key in 0..100 {
                        assert_eq!(marks(&chains, key)[0], 1);
                    }
                }
            })
        };
        for round in 0..300 {
            let batch = links(0..50 + round, 2);
            // SAFETY: taken out below.
            unsafe { chains.enter(&batch) };
            chains.take_out(&batch);
        }
        end.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    }
}
