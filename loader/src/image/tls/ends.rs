//! Destructors of thread-local variables, counted per image: code that a thread will call when it ends must stay.

use super::state;
use crate::sys::exit::{EndFunction, at_thread_exit};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An image's count of live destructors; dropped, nothing is counted for it any more.
#[derive(Debug)]
pub(crate) struct Pending {
    handle: usize,
    count: Arc<AtomicUsize>,
}

impl Pending {
    /// Starts counting for the image with that handle.
    pub(crate) fn new(handle: usize) -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        state().ends.get_or_insert_with(HashMap::new).insert(handle, Arc::clone(&count));
        Self { handle, count }
    }

    /// Whether any thread still has destructors to call.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) != 0
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(ends) = &mut state().ends {
            ends.remove(&self.handle);
        }
    }
}

/// One destructor to call.
struct End {
    function: EndFunction,
    object: *mut c_void,
    count: Arc<AtomicUsize>,
}

/// What images get for `__cxa_thread_atexit` and `__cxa_thread_atexit_impl`.
///
/// # Safety
/// `function` may be called with `object` when the calling thread ends.
pub(crate) unsafe extern "C" fn thread_atexit(
    function: EndFunction,
    object: *mut c_void,
    handle: *mut c_void,
) -> c_int {
    let count = state().ends.as_ref().and_then(|ends| ends.get(&(handle as usize)).cloned());
    let Some(count) = count else {
        // SAFETY: the caller's promise; the handle is of somebody that glibc knows better than we.
        return unsafe { at_thread_exit(function, object, handle as usize) };
    };
    count.fetch_add(1, Ordering::Relaxed);
    let end = Box::into_raw(Box::new(End { function, object, count }));
    // glibc counts for the library that the address is in, which is the one with `run`.
    // SAFETY: `run` takes the box back, once.
    let result = unsafe { at_thread_exit(run, end.cast(), run as EndFunction as usize) };
    if result != 0 {
        // SAFETY: it was not registered, so the box is still ours.
        let end = unsafe { Box::from_raw(end) };
        end.count.fetch_sub(1, Ordering::Relaxed);
    }
    result
}

unsafe extern "C" fn run(end: *mut c_void) {
    // SAFETY: made by `thread_atexit` and called once.
    let End { function, object, count } = *unsafe { Box::from_raw(end.cast::<End>()) };
    // SAFETY: promised when it was registered; the image stays as long as it is counted.
    unsafe { function(object) };
    count.fetch_sub(1, Ordering::Release);
}
