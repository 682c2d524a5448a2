//! A lock that whoever forks takes before and gives back after, so that no child finds it taken by a thread that it does
//! not have.
//!
//! Who waits for it in the parent is nobody in the child (`sync`), which gives it back all the same.

use super::sync::{Mutex, MutexGuard};
use std::cell::UnsafeCell;

/// The lock.
pub(crate) struct ForkLock<T: 'static> {
    lock: Mutex<T>,
    /// The guard of a thread that forks.
    held: UnsafeCell<Option<MutexGuard<'static, T>>>,
}

// SAFETY: `held` is only touched by the thread that has the lock, between `hold` and `let_go`.
unsafe impl<T: Send> Sync for ForkLock<T> {}

impl<T> ForkLock<T> {
    /// A lock that nobody has.
    pub(crate) const fn new(value: T) -> Self {
        Self { lock: Mutex::new(value), held: UnsafeCell::new(None) }
    }

    /// Takes it.
    pub(crate) fn lock(&'static self) -> MutexGuard<'static, T> {
        self.lock.lock()
    }

    /// Takes it before a fork, after `change` has had its way.
    pub(crate) fn hold(&'static self, change: impl FnOnce(&mut T)) {
        let mut guard = self.lock();
        change(&mut guard);
        // SAFETY: this thread has the lock.
        unsafe { *self.held.get() = Some(guard) };
    }

    /// Gives it back.
    ///
    /// # Safety
    /// The thread, or the one it is a copy of, has called [`ForkLock::hold`] and not this since.
    pub(crate) unsafe fn let_go(&'static self) {
        // SAFETY: this thread has the lock, as the caller says.
        drop(unsafe { (*self.held.get()).take() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::threads::{at_fork, in_child};
    use std::sync::atomic::{AtomicBool, Ordering};

    static COUNT: ForkLock<u8> = ForkLock::new(0);

    #[test]
    fn a_child_takes_it_whoever_waits_for_it_in_the_parent() {
        extern "C" fn before() {
            COUNT.hold(|_| {});
        }
        extern "C" fn after() {
            // SAFETY: `before` was called in this thread.
            unsafe { COUNT.let_go() };
        }
        at_fork(before, after, after);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let mut count = COUNT.lock();
                        *count = count.wrapping_add(1);
                    }
                });
            }
            for _ in 0..300 {
                let child = in_child(|| {
                    *COUNT.lock() = 7;
                    *COUNT.lock()
                });
                assert_eq!(child, Some(7));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
