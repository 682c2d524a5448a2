//! First calls, where a host wants to know of each: they are written to a file as they happen.
//!
//! Then slots lead to their lazy entries until their functions are called, whether there are bodies or not; what an image
//! brings along is of no use, for it was compiled in groups, in which calls do not come by here. A body waits beside its slot,
//! with the record to be written. So a handler of signals is ready when it is called, and is not called before it is: what the
//! first call does then takes no lock that somebody could hold, allocates nothing, and is three system calls.
//!
//! The record is written before the call goes on, and before anybody else's does: so callers stand before callees, in every
//! thread. Who writes has all signals blocked, and others wait for that on a futex; in a child of a fork nobody writes who
//! began in the parent, so it is begun again.

use super::book;
use crate::sys::append::AppendFile;
use crate::sys::futex;
use crate::sys::signals::uninterrupted;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// The first calls of an image's functions.
pub(super) struct FirstCalls {
    file: Arc<AppendFile>,
    functions: Box<[Function]>,
}

#[derive(Default)]
struct Function {
    /// Its body, once there is one. Freed with the image's slots.
    ready: AtomicPtr<Ready>,
    /// Zero, [`WRITTEN`], or else the generation of processes in which somebody writes, counted from one.
    state: AtomicU32,
}

struct Ready {
    body: AtomicUsize,
    record: Box<[u8]>,
}

const WRITTEN: u32 = u32::MAX;

impl FirstCalls {
    pub(super) fn new(file: Arc<AppendFile>, count: u32) -> Self {
        Self { file, functions: (0..count).map(|_| Function::default()).collect() }
    }

    /// The body that a function has, called or not.
    pub(super) fn body(&self, slot: u32) -> Option<usize> {
        Some(self.ready(slot)?.body.load(Ordering::SeqCst))
    }

    /// Gives a function its body unless it has one, and the record of its first call, empty if there shall be none. Gives the
    /// body that it has then.
    pub(super) fn set_ready(&self, slot: u32, body: usize, record: &[u8]) -> Option<usize> {
        let function = self.functions.get(slot as usize)?;
        let new = Box::into_raw(Box::new(Ready { body: AtomicUsize::new(body), record: record.into() }));
        let before =
            function.ready.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        if before.is_err() {
            // SAFETY: made above, and nobody has seen it.
            drop(unsafe { Box::from_raw(new) });
        }
        self.body(slot)
    }

    /// Leads calls of a function elsewhere; `place` is its slot, in which `entry` stands as long as it was not called.
    pub(super) fn set_body(&self, slot: u32, body: usize, place: &AtomicUsize, entry: usize) {
        self.set_ready(slot, body, &[]);
        let Some(ready) = self.ready(slot) else { return };
        ready.body.store(body, Ordering::SeqCst);
        // Whoever fills the slot just now looks whether the body is still that.
        if place.load(Ordering::SeqCst) != entry {
            place.store(body, Ordering::SeqCst);
        }
    }

    /// A call of a function that has a body comes by: gives the body, when the record is written. Nothing if there is no body yet.
    pub(super) fn call(&self, slot: u32, place: &AtomicUsize, entry: usize) -> Option<usize> {
        let ready = self.ready(slot)?;
        let state = &self.functions.get(slot as usize)?.state;
        let mine = book::generation().wrapping_add(1);
        while place.load(Ordering::SeqCst) == entry {
            let now = state.load(Ordering::Acquire);
            if now == mine {
                futex::wait(state, now);
                continue;
            }
            uninterrupted(|| {
                if state.compare_exchange(now, mine, Ordering::AcqRel, Ordering::Acquire).is_err() {
                    return;
                }
                if now != WRITTEN {
                    self.file.append(&ready.record);
                }
                loop {
                    let body = ready.body.load(Ordering::SeqCst);
                    place.store(body, Ordering::SeqCst);
                    if body == ready.body.load(Ordering::SeqCst) {
                        break;
                    }
                }
                state.store(WRITTEN, Ordering::Release);
                futex::wake_all(state);
            });
        }
        Some(ready.body.load(Ordering::SeqCst))
    }

    fn ready(&self, slot: u32) -> Option<&Ready> {
        let ready = self.functions.get(slot as usize)?.ready.load(Ordering::Acquire);
        // SAFETY: made by `set_ready`, and freed with `self` only.
        unsafe { ready.as_ref() }
    }
}

impl Drop for FirstCalls {
    fn drop(&mut self) {
        for function in &mut self.functions {
            let ready = *function.ready.get_mut();
            if !ready.is_null() {
                // SAFETY: made by `set_ready`, and nobody has it any more.
                drop(unsafe { Box::from_raw(ready) });
            }
        }
    }
}
