//! Threads of ours, the end of any thread, and forks.

use super::signals::{SignalMask, uninterrupted};
use std::ffi::{c_uint, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle, available_parallelism};

/// Starts a thread with `stack_bytes` of stack that never receives a signal of the process: every signal is blocked
/// in it from its first instruction on, so that a signal the host waits for reaches the host.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn_quiet<T: Send + 'static>(
    name: &str,
    stack_bytes: usize,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let builder = Builder::new().name(name.to_owned()).stack_size(stack_bytes);
    // A new thread inherits the mask of the one that makes it.
    let _mask = SignalMask::block_all();
    builder.spawn(run)
}

/// How many threads can run at once, at least one; as it was when it was asked first, because the answer is read from
/// files.
pub fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| available_parallelism().map_or(1, usize::from))
}

/// Runs `run` as a thread of ours would: no signal of the process comes to this thread until it is done.
pub fn quietly<T>(run: impl FnOnce() -> T) -> T {
    uninterrupted(run)
}

/// How many bytes of stack the calling thread has left; none when the system does not say.
pub fn stack_left() -> usize {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: asks for the calling thread's own attributes, which it fills if it gives zero.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return 0;
    }
    let (mut lowest, mut size) = (ptr::null_mut(), 0);
    // SAFETY: filled above; both places are good, and the attributes are destroyed once.
    let known = unsafe {
        let known = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        known
    };
    let here = (&raw const attributes) as usize;
    if known { here.saturating_sub(lowest as usize) } else { 0 }
}

/// A value of every thread whose `end` is called when a thread that has one ends: after the destructors of C++ and
/// Rust thread-locals, and in the last of the rounds that glibc makes over such values, so that values of others
/// that end earlier can still use what hangs on this one.
#[derive(Debug)]
pub(crate) struct ThreadEnd {
    key: OnceLock<c_uint>,
}

impl ThreadEnd {
    /// Nothing is reserved before the first use.
    pub(crate) const fn new() -> Self {
        Self { key: OnceLock::new() }
    }

    /// Arranges for `end(value)` at the end of the calling thread. `end` may be called up to four times; when it
    /// wants to be called in the next round, it calls this again. Every call must pass the same `end`.
    ///
    /// # Errors
    /// When the process has no more room for such values.
    pub(crate) fn set(&self, value: *mut c_void, end: unsafe extern "C" fn(*mut c_void)) -> io::Result<()> {
        let key = match self.key.get() {
            Some(key) => *key,
            None => {
                let mut key = 0;
                // SAFETY: `key` is a place for the result.
                let result = unsafe { libc::pthread_key_create(&mut key, Some(end)) };
                if result != 0 {
                    return Err(io::Error::from_raw_os_error(result));
                }
                if self.key.set(key).is_err() {
                    // SAFETY: another thread was first; this one has no values yet.
                    unsafe { libc::pthread_key_delete(key) };
                }
                *self.key.get().unwrap_or(&key)
            }
        };
        // SAFETY: the key is valid for the rest of the process.
        match unsafe { libc::pthread_setspecific(key, value) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// What tells the calling thread from all others that run: cheaper than its number. One that comes after its end may have the
/// same.
pub(crate) fn token() -> usize {
    thread_local! {
        static PLACE: u8 = const { 0 };
    }
    PLACE.with(|place| std::ptr::from_ref(place) as usize)
}

/// The kernel's id of this thread.
pub fn kernel_id() -> i32 {
    // SAFETY: `gettid` has no preconditions.
    unsafe { libc::gettid() }
}

/// Rounds that glibc makes over the values of a thread that ends.
pub(crate) const END_ROUNDS: u32 = 4;

/// Has `before` called before every `fork` in the thread that forks, then `parent` in that thread, and `child` in the only
/// thread of the child. When there is no memory for that, forking goes on as if this had not been asked for.
pub fn at_fork(before: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    // SAFETY: plain functions that live as long as this code, which stays loaded once it has been used.
    unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
}

/// Runs `run` in a child process, and gives its exit status, or nothing if it ended otherwise or took long.
#[cfg(test)]
pub(crate) fn in_child(run: impl FnOnce() -> u8) -> Option<u8> {
    // SAFETY: the child runs what the test gives, and ends without anything of the parent's being run.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(20);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            libc::_exit(result.map_or(255, i32::from));
        }
        let mut status = 0;
        let ended = libc::waitpid(child, &raw mut status, 0);
        (ended == child && libc::WIFEXITED(status)).then(|| libc::WEXITSTATUS(status) as u8)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    #[test]
    fn a_quiet_thread_blocks_every_signal_and_its_maker_does_not() {
        let blocked = || {
            let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
            // SAFETY: asks for the mask only.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), mask.as_mut_ptr());
                libc::sigismember(mask.as_ptr(), libc::SIGTERM) == 1
            }
        };
        assert!(spawn_quiet("quiet", 1 << 16, blocked).unwrap().join().unwrap());
        assert!(!blocked());
        assert!(quietly(blocked));
        assert!(!blocked());
    }

    #[test]
    fn the_stack_that_is_left_becomes_less() {
        fn deeper() -> usize {
            let space = std::hint::black_box([0u8; 1 << 16]);
            stack_left() + usize::from(space[0])
        }
        let left = spawn_quiet("deep", 8 << 20, || (stack_left(), deeper())).unwrap().join().unwrap();
        assert!((7 << 20..9 << 20).contains(&left.0), "{left:?}");
        assert!(left.1 + (1 << 16) <= left.0, "{left:?}");
    }
}
