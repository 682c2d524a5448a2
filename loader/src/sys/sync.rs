//! Locks of this process and of those that are forked from it: the standard library's, which nothing poisons here.
//!
//! What they know of those who wait is a number, which a child may well have from its parent. parking_lot has a queue of them
//! instead, for all locks together, in memory of the waiting threads; a child does not have these, soon has something else
//! in that memory, and then follows the queue into it.

use std::marker::PhantomData;
use std::sync::{self, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

pub use sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// One thread at a time.
#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// One that nobody has.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Waits for it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it guards, which nobody else can reach.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it guards.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of what a [`Mutex`] guards, to be waited for.
#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    /// One that nobody waits for.
    pub const fn new() -> Self {
        Self(sync::Condvar::new())
    }

    /// Waits until there was one, or nobody knows why.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, and not longer than `time`; whether it was that long.
    pub fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, time: Duration) -> (MutexGuard<'a, T>, bool) {
        let (guard, late) = self.0.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner);
        (guard, late.timed_out())
    }

    /// Lets one go that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Lets all go.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Many who look, or one who changes.
#[derive(Debug, Default)]
pub struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    /// One that nobody has.
    pub const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    /// Waits until nobody changes it.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else has it.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread at a time, as many times as it likes.
#[derive(Debug, Default)]
pub struct ReentrantLock {
    /// Who has it, how many times.
    owner: Mutex<Option<(ThreadId, usize)>>,
    free: Condvar,
}

/// Once what a thread has of a [`ReentrantLock`].
#[derive(Debug)]
#[must_use]
pub struct ReentrantGuard<'a> {
    lock: &'a ReentrantLock,
    /// It stays with its thread.
    thread: PhantomData<*const ()>,
}

impl ReentrantLock {
    /// Waits until no other thread has it.
    pub fn lock(&self) -> ReentrantGuard<'_> {
        let this = thread::current().id();
        let mut owner = self.owner.lock();
        loop {
            match &mut *owner {
                Some((thread, times)) if *thread == this => *times += 1,
                Some(_) => {
                    owner = self.free.wait(owner);
                    continue;
                }
                None => *owner = Some((this, 1)),
            }
            return ReentrantGuard { lock: self, thread: PhantomData };
        }
    }
}

impl Drop for ReentrantGuard<'_> {
    fn drop(&mut self) {
        let mut owner = self.lock.owner.lock();
        *owner = owner.and_then(|(thread, times)| (times > 1).then(|| (thread, times - 1)));
        if owner.is_none() {
            self.lock.free.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::threads::in_child;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_thread_has_it_as_many_times_as_it_likes() {
        let lock = ReentrantLock::default();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let outer = lock.lock();
                        let inner = lock.lock();
                        drop(outer);
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(inner);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
        assert!(lock.owner.lock().is_none());
    }

    #[test]
    fn a_child_uses_what_threads_of_its_parent_wait_for() {
        static COUNT: Mutex<u8> = Mutex::new(0);
        static CHANGED: Condvar = Condvar::new();
        const THREADS: u8 = 4;
        const END: u8 = 100;
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut count = COUNT.lock();
                    *count += 1;
                    while *count < END {
                        count = CHANGED.wait(count);
                    }
                });
            }
            // Who has counted has let go of the lock by waiting.
            while *COUNT.lock() < THREADS {
                thread::yield_now();
            }
            let child = in_child(|| {
                // The memory of those who wait is that of these now.
                thread::scope(|scope| {
                    for _ in 0..2 * THREADS {
                        scope.spawn(|| {
                            *COUNT.lock() += 1;
                            CHANGED.notify_one();
                            drop(CHANGED.wait_for(COUNT.lock(), Duration::from_millis(1)));
                        });
                    }
                });
                CHANGED.notify_all();
                *COUNT.lock()
            });
            *COUNT.lock() = END;
            CHANGED.notify_all();
            assert_eq!(child, Some(3 * THREADS));
        });
    }
}
