//! What went wrong last in this thread: `dlerror`, for failures of stand-ins as for glibc's.

use crate::sys::linker;
use std::cell::RefCell;
use std::ffi::{CString, c_char};

#[derive(Default)]
struct State {
    /// To be told next.
    pending: Option<CString>,
    /// Told last: the caller may look at it until he asks again.
    told: Option<CString>,
}

thread_local! {
    static STATE: RefCell<State> = const { RefCell::new(State { pending: None, told: None }) };
}

/// Records the failure of a stand-in: it is the last one now.
pub(super) fn fail(text: &str) {
    // glibc's own, if there is one, is older.
    linker::error();
    let text: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    // A thread that is ending has no errors.
    let _ = STATE.try_with(|state| state.borrow_mut().pending = CString::new(text).ok());
}

/// To be called when glibc has failed: what was recorded before is older than that.
pub(super) fn glibc_failed() {
    let _ = STATE.try_with(|state| state.borrow_mut().pending = None);
}

/// What units get for `dlerror`.
pub(super) extern "C" fn dlerror() -> *mut c_char {
    let ours = STATE.try_with(|state| {
        let mut state = state.borrow_mut();
        let text = state.pending.take()?;
        // The one before stays until now, for those who look at it too late.
        Some(state.told.insert(text).as_ptr().cast_mut())
    });
    ours.ok().flatten().unwrap_or_else(linker::error)
}
