//! What glibc does at the end of the process, of a library and of a thread.

use std::ffi::{c_int, c_void};
use std::io;

/// A function that glibc calls with one argument at an end.
pub(crate) type EndFunction = unsafe extern "C" fn(*mut c_void);

unsafe extern "C" {
    fn __cxa_atexit(function: EndFunction, argument: *mut c_void, handle: *mut c_void) -> c_int;
    fn __cxa_finalize(handle: *mut c_void);
    fn __cxa_thread_atexit_impl(function: EndFunction, object: *mut c_void, symbol: *mut c_void) -> c_int;
}

/// Has `function(argument)` called when the process ends or `handle` is finalized, whichever is first; what is
/// registered later is called earlier.
///
/// # Errors
/// When there is no memory.
///
/// # Safety
/// `function` may be called with `argument` by then, from any thread.
pub(crate) unsafe fn at_exit(function: EndFunction, argument: *mut c_void, handle: usize) -> io::Result<()> {
    // SAFETY: the caller's promise.
    match unsafe { __cxa_atexit(function, argument, handle as *mut c_void) } {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
    }
}

/// Calls what is registered under `handle` and was not called yet, latest first, and forgets it.
///
/// # Safety
/// The functions registered there may be called now.
pub(crate) unsafe fn finalize(handle: usize) {
    // SAFETY: the caller's promise.
    unsafe { __cxa_finalize(handle as *mut c_void) }
}

/// Ends the process by `SIGABRT` with these pieces of text as a line on standard error. May be called anywhere.
pub(crate) fn die(pieces: &[&[u8]]) -> ! {
    for piece in pieces.iter().copied().chain([&b"\n"[..]]) {
        // SAFETY: bytes that are there. What cannot be written is lost.
        unsafe { libc::write(2, piece.as_ptr().cast(), piece.len()) };
    }
    std::process::abort()
}

/// Has `function(object)` called when the calling thread ends; what is registered later is called earlier. `symbol`
/// is an address in the library that must stay open until then. Gives zero for success, as glibc does.
///
/// # Safety
/// `function` may be called with `object` then.
pub(crate) unsafe fn at_thread_exit(function: EndFunction, object: *mut c_void, symbol: usize) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { __cxa_thread_atexit_impl(function, object, symbol as *mut c_void) }
}
