//! Forks: a child gets sessions that nobody is in the middle of using, and the two processes never write what both see.
//!
//! A thread that forks waits until no other thread works in a session, so that no lock in there is held by a thread
//! that the child does not have. Who waits for an answer of the host does not work; but in the child there is nobody who
//! would go on with that link, so its names are never ready there. And it counts: arenas that see another count than before put nothing more where
//! the other process may read it.

use hotbed_loader::sys::threads::at_fork;
use std::cell::Cell;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Set while a thread forks; the rest is how many threads work in sessions.
static STATE: AtomicUsize = AtomicUsize::new(0);
const FORKING: usize = 1 << 63;
/// How often this process and those it comes from have forked.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// A host may, while it is asked, wait for the very thread that forks. Then the child's sessions are of no use; waiting for
/// ever would be worse.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_micros(50);

thread_local! {
    /// How many calls into sessions this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Work in a session; dropped, it is done.
#[must_use]
pub(crate) struct Work(());

/// Begins work in a session, after a fork that is under way. Within other work of the thread nothing is waited for.
pub(crate) fn begin() -> Work {
    notice_forks();
    if DEPTH.get() == 0 {
        let enter = |state: usize| (state & FORKING == 0).then_some(state + 1);
        while STATE.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).is_err() {
            thread::sleep(NAP);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    Work(())
}

/// Begins work that other work waits for, even while a thread waits for all of it to end in order to fork.
pub(super) fn go_on() -> Work {
    if DEPTH.get() == 0 {
        STATE.fetch_add(1, Ordering::Acquire);
    }
    DEPTH.set(DEPTH.get() + 1);
    Work(())
}

impl Drop for Work {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() == 0 {
            STATE.fetch_sub(1, Ordering::Release);
        }
    }
}

/// The number of forks since somebody asked first.
pub(super) fn count() -> u64 {
    notice_forks();
    FORKS.load(Ordering::Relaxed)
}

fn notice_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| at_fork(before, in_parent, in_child));
}

/// How much of the state is the calling thread's.
fn own() -> usize {
    usize::from(DEPTH.get() > 0)
}

extern "C" fn before() {
    let start = Instant::now();
    // One fork at a time: what another one would undo is not done yet.
    while STATE.fetch_or(FORKING, Ordering::Acquire) & FORKING != 0 && start.elapsed() < LONGEST_WAIT {
        thread::sleep(NAP);
    }
    while STATE.load(Ordering::Acquire) & !FORKING > own() && start.elapsed() < LONGEST_WAIT {
        thread::sleep(NAP);
    }
    FORKS.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn in_parent() {
    STATE.fetch_and(!FORKING, Ordering::Release);
}

extern "C" fn in_child() {
    STATE.store(own(), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_within_work_counts_once() {
        let before = STATE.load(Ordering::Relaxed) & FORKING;
        let outer = begin();
        let inner = begin();
        assert_eq!((DEPTH.get(), own(), before), (2, 1, 0));
        drop(inner);
        assert_eq!(own(), 1);
        drop(outer);
        assert_eq!((DEPTH.get(), own()), (0, 0));
        drop(go_on());
        assert_eq!(own(), 0);
    }
}
