//! Signals: glibc's ways to handle them, and code that no handler may interrupt.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

/// What a signal is handled by: a function, or one of glibc's small numbers.
pub(crate) type Handler = usize;
/// What `fork` calls.
pub(crate) type ForkHandler = Option<unsafe extern "C" fn()>;

mod glibc {
    use super::{ForkHandler, Handler, c_int, c_void};

    unsafe extern "C" {
        pub(super) fn __sysv_signal(signal: c_int, handler: Handler) -> Handler;
        pub(super) fn sigset(signal: c_int, handler: Handler) -> Handler;
        pub(super) fn __register_atfork(
            prepare: ForkHandler,
            parent: ForkHandler,
            child: ForkHandler,
            handle: *mut c_void,
        ) -> c_int;
    }
}

/// glibc's `signal`.
///
/// # Safety
/// `handler` may be called when that signal comes. So for all of them.
pub(crate) unsafe fn signal(signal: c_int, handler: Handler) -> Handler {
    // SAFETY: the caller's promise.
    unsafe { libc::signal(signal, handler) }
}

/// glibc's `__sysv_signal`.
///
/// # Safety
/// As above.
pub(crate) unsafe fn sysv_signal(signal: c_int, handler: Handler) -> Handler {
    // SAFETY: the caller's promise.
    unsafe { glibc::__sysv_signal(signal, handler) }
}

/// glibc's `sigset`.
///
/// # Safety
/// As above.
pub(crate) unsafe fn sigset(signal: c_int, handler: Handler) -> Handler {
    // SAFETY: the caller's promise.
    unsafe { glibc::sigset(signal, handler) }
}

/// glibc's `sigaction`.
///
/// # Safety
/// As above; the pointers are null or good.
pub(crate) unsafe fn sigaction(
    signal: c_int,
    action: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::sigaction(signal, action, old) }
}

/// What `pthread_atfork` calls, which is a part of every program and library.
///
/// # Safety
/// `fork` may call them until `handle` is finalized.
pub(crate) unsafe fn register_atfork(handlers: [ForkHandler; 3], handle: *mut c_void) -> c_int {
    let [prepare, parent, child] = handlers;
    // SAFETY: the caller's promise.
    unsafe { glibc::__register_atfork(prepare, parent, child, handle) }
}

/// Every signal is blocked in the calling thread while this lives, and in what it starts meanwhile.
pub(super) struct SignalMask {
    before: libc::sigset_t,
}

impl SignalMask {
    pub(super) fn block_all() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset and pthread_sigmask fill the sets they are given; with these arguments they cannot fail.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self { before: before.assume_init() }
        }
    }
}

impl Drop for SignalMask {
    fn drop(&mut self) {
        // SAFETY: the set is the one the system gave.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// Runs `run` with every signal of this thread put off until it is done: it may take locks that a handler would wait for.
pub(crate) fn uninterrupted<T>(run: impl FnOnce() -> T) -> T {
    let _mask = SignalMask::block_all();
    run()
}

/// Runs `run` without a trace in the caller's `errno`.
pub(crate) fn keeping_errno<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: the calling thread's own word.
    let before = unsafe { *libc::__errno_location() };
    let result = run();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = before };
    result
}
