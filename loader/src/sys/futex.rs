//! Waiting for a word of memory to change, without a lock: a thread that waits may be interrupted by a signal, and leave its
//! wait by `longjmp`.

use std::ptr;
use std::sync::atomic::AtomicU32;

/// Sleeps as long as the word is `value`. Comes back at a wake, after a signal, and now and then for no reason.
pub(crate) fn wait(word: &AtomicU32, value: u32) {
    let none: *const libc::timespec = ptr::null();
    // SAFETY: the word lives as long as the call; nothing is written.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            value,
            none,
        );
    }
}

/// Wakes all who wait for the word.
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: the system only uses the address to find who waits.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX);
    }
}
