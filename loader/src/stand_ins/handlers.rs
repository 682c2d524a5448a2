//! Functions that are called in the middle of something else: handlers of signals and of `fork`.
//!
//! A handler may have interrupted whoever it would have to wait for: `malloc`, say, whose lock a compiler needs. So what is compiled at
//! its first call is compiled before it becomes a handler, with what it reaches by direct calls.

use crate::slots::make_ready;
use crate::sys::signals::{self, ForkHandler, Handler};
use std::ffi::{c_int, c_void};

/// What units get for `signal`, `bsd_signal` and `ssignal`.
///
/// # Safety
/// As for glibc's; so for all of them.
pub(super) unsafe extern "C" fn signal(number: c_int, handler: Handler) -> Handler {
    make_ready(handler);
    // SAFETY: the caller's promise.
    unsafe { signals::signal(number, handler) }
}

/// What units get for `__sysv_signal`, which is `signal` for strict programs.
///
/// # Safety
/// As above.
pub(super) unsafe extern "C" fn sysv_signal(number: c_int, handler: Handler) -> Handler {
    make_ready(handler);
    // SAFETY: the caller's promise.
    unsafe { signals::sysv_signal(number, handler) }
}

/// What units get for `sigset`.
///
/// # Safety
/// As above.
pub(super) unsafe extern "C" fn sigset(number: c_int, handler: Handler) -> Handler {
    make_ready(handler);
    // SAFETY: the caller's promise.
    unsafe { signals::sigset(number, handler) }
}

/// What units get for `sigaction`.
///
/// # Safety
/// As above.
pub(super) unsafe extern "C" fn sigaction(
    number: c_int,
    action: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: the caller's promise, here and below.
    if let Some(action) = unsafe { action.as_ref() } {
        make_ready(action.sa_sigaction);
    }
    // SAFETY: as above.
    unsafe { signals::sigaction(number, action, old) }
}

/// What units get for what `pthread_atfork` calls, which is a part of each of them.
///
/// # Safety
/// As above.
pub(super) unsafe extern "C" fn register_atfork(
    prepare: ForkHandler,
    parent: ForkHandler,
    child: ForkHandler,
    handle: *mut c_void,
) -> c_int {
    let handlers = [prepare, parent, child];
    handlers.into_iter().flatten().for_each(|handler| make_ready(handler as usize));
    // SAFETY: as above.
    unsafe { signals::register_atfork(handlers, handle) }
}
