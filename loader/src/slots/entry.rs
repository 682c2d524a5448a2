//! Where the first call of a function comes to.

use super::{FunctionFailure, LazyFunction, Slots};
use crate::image::ImageError;
use crate::image::registers::{self, STATE_BYTES, first_call};
use crate::sys::exit::die;
use crate::sys::signals::keeping_errno;
use std::arch::naked_asm;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Has first calls of the image's functions come here.
///
/// # Errors
/// When this processor cannot do it.
///
/// # Safety
/// Nobody uses the image yet, and `slots` live as long as its code may run.
pub(crate) unsafe fn connect(slots: &Arc<Slots>) -> Result<(), ImageError> {
    if !registers::prepare() {
        let reason = "it has functions to be compiled later, which need a processor with XSAVE";
        return Err(ImageError::Unsupported(reason.into()));
    }
    let head = slots.tables.head();
    // SAFETY: writable and aligned, as was checked; the rest is the caller's promise.
    unsafe {
        head.write(Arc::as_ptr(slots) as usize);
        head.add(1).write(entry as *const () as usize);
    }
    Ok(())
}

/// Where `__hotbed_lazy_head` jumps to. On the stack are the slots, the address that the lazy entry's call returns to, and
/// the address that the function will return to.
#[unsafe(naked)]
unsafe extern "C" fn entry() {
    naked_asm!(first_call!(), state_bytes = sym STATE_BYTES, find = sym find)
}

/// The body of the function that a lazy entry is of.
unsafe extern "C" fn find(slots: *const Slots, entry_end: usize) -> usize {
    keeping_errno(|| {
        // SAFETY: `connect` has put it there; code of the image runs, so it is held.
        let slots = unsafe {
            Arc::increment_strong_count(slots);
            Arc::from_raw(slots)
        };
        let Some(slot) = slots.tables.of_return(entry_end) else {
            die(&[b"hotbed: ", slots.name().as_bytes(), b": its code for first calls is damaged"])
        };
        // A handler of signals that was compiled before must not get any further than here.
        // SAFETY: code of the image runs, so it is there.
        if let Some(body) = unsafe { slots.call_ready(slot) } {
            return body;
        }
        match slots.compile(slot, false) {
            // SAFETY: as above.
            Ok(body) => unsafe { slots.call_ready(slot) }.unwrap_or(body),
            Err(reason) => instead(&slots, slot, &reason),
        }
    })
}

/// What is called instead of a function that cannot be compiled.
#[cold]
#[inline(never)]
fn instead(slots: &Slots, slot: u32, reason: &str) -> usize {
    let unnamed = LazyFunction { slot, unit: 0, number: 0, name: String::new() };
    let function = slots.function(slot).unwrap_or(unnamed);
    let failure = FunctionFailure { image: slots.name(), function: &function, reason };
    let host = AssertUnwindSafe(|| slots.materializer.failed(&failure));
    let instead = catch_unwind(host).unwrap_or_else(|thrown| {
        std::mem::forget(thrown);
        None
    });
    instead.unwrap_or_else(|| {
        die(&[
            b"hotbed: ",
            slots.name().as_bytes(),
            b": cannot compile ",
            function.name.as_bytes(),
            b", which it calls: ",
            reason.as_bytes(),
        ])
    })
}
