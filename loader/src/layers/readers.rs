//! Readers that take no lock, and how who changes something waits for them.
//!
//! Who reads tables that others change enters a section, which is two additions to a counter. Who takes something out
//! of a table waits, before it frees it, until every section that was open then has been left. Sections are short:
//! nobody blocks, allocates or lets go of an image in one. There are two sets of counters; readers use the current
//! one, and who waits makes the other one current and waits until the first is zero, twice, so that readers who come
//! all the time do not keep it waiting.

use crate::sys::fork_lock::ForkLock;
use crate::sys::sync::MutexGuard;
use crate::sys::threads::at_fork;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counters apart from each other, so that threads on different processors do not meet.
const STRIPES: usize = 16;

#[repr(align(128))]
struct Stripe([AtomicUsize; 2]);

static COUNTS: [Stripe; STRIPES] = [const { Stripe([AtomicUsize::new(0), AtomicUsize::new(0)]) }; STRIPES];
static PHASE: AtomicUsize = AtomicUsize::new(0);
static WAITING: ForkLock<()> = ForkLock::new(());

/// As long as it lives, nothing is freed that was in a table when it was made.
pub(crate) struct Section {
    /// Nothing for who keeps others from changing anything.
    count: Option<&'static AtomicUsize>,
    /// It counts for the thread that made it.
    _thread: PhantomData<*const ()>,
}

impl Section {
    /// Enters a section.
    #[inline]
    pub(crate) fn enter() -> Self {
        thread_local! {
            static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // A thread that ends uses the first.
        let stripe = STRIPE.try_with(|stripe| {
            if stripe.get() == usize::MAX {
                ONCE.call_once(|| at_fork(before_fork, after_fork, in_child));
                stripe.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
            }
            stripe.get()
        });
        let count = &COUNTS[stripe.unwrap_or(0)].0[PHASE.load(Ordering::SeqCst) & 1];
        count.fetch_add(1, Ordering::SeqCst);
        Self { count: Some(count), _thread: PhantomData }
    }

    /// A section for tables that are changed under this lock only; it costs nothing, and must not outlive the lock.
    #[inline]
    pub(crate) fn under(_lock: &MutexGuard<'_, ()>) -> Self {
        Self { count: None, _thread: PhantomData }
    }
}

impl Drop for Section {
    #[inline]
    fn drop(&mut self) {
        if let Some(count) = self.count {
            count.fetch_sub(1, Ordering::Release);
        }
    }
}

static ONCE: Once = Once::new();

extern "C" fn before_fork() {
    WAITING.hold(|()| {});
}

extern "C" fn after_fork() {
    // SAFETY: `before_fork` was called in this thread.
    unsafe { WAITING.let_go() };
}

extern "C" fn in_child() {
    // Sections of threads that the child does not have will never be left. This thread is in none.
    for stripe in &COUNTS {
        stripe.0.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
    after_fork();
}

/// Waits until every section that is open now has been left. Not to be called in one.
pub(crate) fn wait_for_readers() {
    let _one_at_a_time = WAITING.lock();
    for _ in 0..2 {
        let phase = PHASE.fetch_add(1, Ordering::SeqCst) & 1;
        let open = || COUNTS.iter().any(|stripe| stripe.0[phase].load(Ordering::SeqCst) != 0);
        while open() {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicPtr};

    #[test]
    fn what_was_taken_out_is_freed_after_the_last_reader() {
        let place = Arc::new(AtomicPtr::new(Box::into_raw(Box::new(7u64))));
        let end = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (place, end) = (Arc::clone(&place), Arc::clone(&end));
                std::thread::spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        let _section = Section::enter();
                        // SAFETY: not freed while the section is open.
                        assert_eq!(unsafe { place.load(Ordering::Acquire).read_volatile() }, 7);
                    }
                })
            })
            .collect();
        for _ in 0..500 {
            let old = place.swap(Box::into_raw(Box::new(7)), Ordering::AcqRel);
            wait_for_readers();
            // SAFETY: nobody can have it any more.
            unsafe {
                *old = 0;
                drop(Box::from_raw(old));
            }
        }
        end.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        // SAFETY: the last one, and all others have ended.
        drop(unsafe { Box::from_raw(place.load(Ordering::Relaxed)) });
    }
}
