//! What is being compiled in this process, and who waits for it.
//!
//! A child of `fork` begins with an empty book: those of its parent's threads that compile, or are in the middle of an
//! entry, do not exist there, so nothing of it is looked at again. That way nobody has to be waited for before a fork, which
//! may be made in a signal handler.

use super::{Asked, Slots};
use crate::image::map::Mapped;
use crate::sys::futex;
use crate::sys::signals::uninterrupted;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::threads::at_fork;
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Once, OnceLock};

/// The book of this process, once something was entered.
static BOOK: AtomicPtr<Book> = AtomicPtr::new(ptr::null_mut());
/// How often this process and those it comes from have been forked off.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Has forks noticed. To be called before anything is asked for.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    extern "C" fn nothing() {}
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        BOOK.store(ptr::null_mut(), Ordering::Release);
    }
    ONCE.call_once(|| at_fork(nothing, nothing, in_child));
}

/// How often this process and those it comes from have been forked off.
pub(super) fn generation() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// The function of a slot, and whether all that it reaches is wanted.
type Wanted = (u32, bool);

/// The book.
#[derive(Default)]
pub(super) struct Book {
    state: Mutex<State>,
    /// Somebody is not inside of an image any more.
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// By the address of the slots.
    under_way: HashMap<(usize, Wanted), Arc<Wait>>,
    /// How many look into the memory of an image, where any do.
    inside: HashMap<usize, usize>,
}

impl Book {
    /// That of this process.
    pub(super) fn of_process() -> &'static Self {
        let mut book = BOOK.load(Ordering::Acquire);
        if book.is_null() {
            let new = Box::into_raw(Box::default());
            match BOOK.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => book = new,
                Err(other) => {
                    book = other;
                    // SAFETY: made above, and nobody has seen it.
                    drop(unsafe { Box::from_raw(new) });
                }
            }
        }
        // SAFETY: made above, and never freed.
        unsafe { &*book }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Enters that a function is wanted, unless it is there; true if nobody has asked before. Signals are blocked.
    pub(super) fn ask(&self, slots: &Slots, slot: u32, deep: bool) -> (Asked, bool) {
        let mut state = self.lock();
        if slots.closed.load(Ordering::Relaxed) || slot >= slots.count() {
            return (Asked::Gone, false);
        }
        // SAFETY: not closed, and it is not while the book is locked.
        if let Some(body) = unsafe { slots.known_body(slot) }
            && (!deep || slots.is_deep(slot))
        {
            return (Asked::There(body), false);
        }
        let key = (ptr::from_ref(slots) as usize, (slot, deep));
        let mut new = false;
        let wait = state.under_way.entry(key).or_insert_with(|| {
            new = true;
            Arc::new(Wait::new())
        });
        (Asked::UnderWay(Arc::clone(wait)), new)
    }

    /// Strikes out what was under way, and puts the body into its slot unless there is one. Gives what those who wait are to be told.
    pub(super) fn answer(
        &self,
        slots: &Slots,
        wanted: Wanted,
        wait: &Arc<Wait>,
        outcome: Result<usize, String>,
    ) -> Result<usize, String> {
        let mut state = self.lock();
        let key = (ptr::from_ref(slots) as usize, wanted);
        // After a fork it may be somebody else's by now.
        if state.under_way.get(&key).is_some_and(|known| Arc::ptr_eq(known, wait)) {
            state.under_way.remove(&key);
        }
        let body = outcome?;
        let (slot, deep) = wanted;
        if slots.closed.load(Ordering::Relaxed) {
            return Err("its unit was unloaded".into());
        }
        // SAFETY: not closed, and it is not while the book is locked.
        let Some(place) = (unsafe { slots.tables.slot(slot) }) else { return Ok(body) };
        let body = match &slots.calls {
            // The slot is filled by the first call.
            Some(calls) => calls.set_ready(slot, body, &[]).unwrap_or(body),
            None => {
                let empty = slots.tables.entry(slot);
                let before = place.compare_exchange(empty, body, Ordering::AcqRel, Ordering::Acquire);
                before.err().unwrap_or(body)
            }
        };
        if deep && let Some(word) = slots.deep.get(slot as usize / 64) {
            word.fetch_or(1 << (slot % 64), Ordering::AcqRel);
        }
        Ok(body)
    }

    /// Enters that somebody looks into the memory of an image, unless that is going.
    pub(super) fn enter<'a>(&'static self, slots: &'a Slots) -> Option<Inside<'a>> {
        uninterrupted(|| {
            let mut state = self.lock();
            if slots.closed.load(Ordering::Relaxed) {
                return None;
            }
            *state.inside.entry(ptr::from_ref(slots) as usize).or_default() += 1;
            Some(Inside { book: self, slots })
        })
    }

    /// Waits until nobody looks into the memory of an image, and lets nobody do so again.
    pub(super) fn close(&self, slots: &Slots) {
        uninterrupted(|| {
            let mut state = self.lock();
            slots.closed.store(true, Ordering::Relaxed);
            let key = ptr::from_ref(slots) as usize;
            while state.inside.contains_key(&key) {
                state = self.left.wait(state);
            }
        });
    }
}

/// Keeps the memory of an image from going.
pub(super) struct Inside<'a> {
    book: &'static Book,
    slots: &'a Slots,
}

impl<'a> Inside<'a> {
    /// The image.
    pub(super) fn mapped(&self) -> &'a Mapped {
        // SAFETY: not closed, and it is not as long as this is in the book.
        unsafe { &*self.slots.mapped }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        uninterrupted(|| {
            let key = ptr::from_ref(self.slots) as usize;
            let mut state = self.book.lock();
            if let Some(count) = state.inside.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    state.inside.remove(&key);
                    self.book.left.notify_all();
                }
            }
        });
    }
}

/// What those have in common who wait for a function.
#[derive(Debug)]
pub(super) struct Wait {
    /// One when there is an outcome.
    told: AtomicU32,
    outcome: OnceLock<Result<usize, String>>,
    /// The process that it is of.
    forks: u32,
}

impl Wait {
    fn new() -> Self {
        Self { told: AtomicU32::new(0), outcome: OnceLock::new(), forks: FORKS.load(Ordering::Relaxed) }
    }

    /// Waits for the outcome; `None` in a process that does not get one.
    pub(super) fn wait(&self) -> Option<&Result<usize, String>> {
        while self.told.load(Ordering::Acquire) == 0 {
            if self.forks != FORKS.load(Ordering::Relaxed) {
                return None;
            }
            futex::wait(&self.told, 0);
        }
        self.outcome.get()
    }

    /// Tells it.
    pub(super) fn tell(&self, outcome: Result<usize, String>) {
        if self.outcome.set(outcome).is_ok() {
            self.told.store(1, Ordering::Release);
            futex::wake_all(&self.told);
        }
    }
}
