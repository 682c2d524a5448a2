//! Destructors of thread-local variables: which threads have which of an image's to call, so that its code stays as long
//! as one of them has, and those of the thread that unloads it can be called earlier.
//!
//! glibc calls what a thread has registered when the thread ends, latest first, and nothing can be taken out of its list.
//! So what it gets is a *ticket*: the number of the image. A ticket calls the latest destructor of that image which the
//! thread still has; one that has been called by then, because the image was unloaded, leaves its ticket with nothing to do.
//!
//! State of the process, as the rest of thread-local storage is.

use super::state;
use crate::sys::exit::{EndFunction, at_thread_exit};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr::without_provenance_mut;
use std::sync::Condvar;
use std::time::Duration;

/// Told whenever a thread has no destructors of some image any more.
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// How many destructors the thread has, at least; its address is the thread's identity.
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

/// One destructor to call.
struct End {
    function: EndFunction,
    object: usize,
}

/// What one thread has of one image.
#[derive(Default)]
struct Queue {
    /// In the order of registration.
    ends: Vec<End>,
    /// How many are being called at the moment.
    running: usize,
}

/// What all threads have of all images.
#[derive(Default)]
pub(super) struct Ends {
    /// Numbers of images by their handles. Numbers are never used twice, unlike handles: tickets may come late.
    numbers: HashMap<usize, usize>,
    /// By the image's number, then by thread.
    images: HashMap<usize, HashMap<usize, Queue>>,
    next: usize,
}

/// An image's destructors; dropped, none of them is called any more.
#[derive(Debug)]
pub(crate) struct Pending {
    handle: usize,
    number: usize,
}

fn this_thread() -> usize {
    LIVE.with(|live| std::ptr::from_ref(live) as usize)
}

impl Ends {
    fn queue(&mut self, number: usize, thread: usize) -> Option<&mut Queue> {
        self.images.get_mut(&number)?.get_mut(&thread)
    }

    /// Forgets what other threads than the calling one have.
    pub(super) fn keep_own(&mut self) {
        let own = this_thread();
        self.images.values_mut().for_each(|threads| threads.retain(|thread, _| *thread == own));
    }

    /// Forgets what the calling thread has, which is past the point where it would call it.
    pub(super) fn forget_own(&mut self) {
        if LIVE.replace(0) > 0 {
            let own = this_thread();
            self.images.values_mut().for_each(|threads| drop(threads.remove(&own)));
            CHANGED.notify_all();
        }
    }
}

impl Pending {
    /// Keeps the destructors of the image with that handle from now on.
    pub(crate) fn new(handle: usize) -> Self {
        let mut state = state();
        let ends = state.ends.get_or_insert_with(Ends::default);
        let number = ends.next;
        ends.next += 1;
        ends.numbers.insert(handle, number);
        ends.images.insert(number, HashMap::new());
        Self { handle, number }
    }

    /// How many threads have destructors to call and cannot be helped: all but the calling one, and that one as well
    /// while it is in one of them.
    pub(crate) fn threads(&self) -> usize {
        let state = state();
        let Some(threads) = state.ends.as_ref().and_then(|ends| ends.images.get(&self.number)) else {
            return 0;
        };
        let own = this_thread();
        threads.iter().filter(|(thread, queue)| **thread != own || queue.running > 0).count()
    }

    /// Calls the destructors of the calling thread, latest first, those too that are registered meanwhile.
    ///
    /// # Safety
    /// The image is still mapped, and calling its code is what the user wants.
    pub(crate) unsafe fn run_own(&self) {
        // SAFETY: the caller's promise.
        while unsafe { run_latest(self.number) } {}
    }

    /// Forgets the destructors of all other threads.
    pub(crate) fn abandon_others(&self) {
        let own = this_thread();
        let mut state = state();
        if let Some(threads) = state.ends.as_mut().and_then(|ends| ends.images.get_mut(&self.number)) {
            threads.retain(|thread, _| *thread == own);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(ends) = &mut state().ends {
            ends.images.remove(&self.number);
            // Its successor may lie at the same address and be known already.
            if ends.numbers.get(&self.handle) == Some(&self.number) {
                ends.numbers.remove(&self.handle);
            }
        }
    }
}

/// Waits until some thread has no destructors of some image any more, or until the time is over.
pub(crate) fn wait_for_change(limit: Duration) {
    drop(CHANGED.wait_timeout(state(), limit));
}

/// What images get for `__cxa_thread_atexit` and `__cxa_thread_atexit_impl`.
///
/// # Safety
/// `function` may be called with `object` when the calling thread ends, or when it unloads the image.
pub(crate) unsafe extern "C" fn thread_atexit(
    function: EndFunction,
    object: *mut c_void,
    handle: *mut c_void,
) -> c_int {
    let thread = this_thread();
    let number = {
        let mut state = state();
        state.ends.as_mut().and_then(|ends| {
            let number = *ends.numbers.get(&(handle as usize))?;
            let queue = ends.images.get_mut(&number)?.entry(thread).or_default();
            queue.ends.push(End { function, object: object as usize });
            Some(number)
        })
    };
    let Some(number) = number else {
        // SAFETY: the caller's promise; the handle is of somebody that glibc knows better than we.
        return unsafe { at_thread_exit(function, object, handle as usize) };
    };
    LIVE.set(LIVE.get() + 1);
    // glibc counts for the library that the address is in, which is the one with `run`.
    // SAFETY: a ticket may be run at any time.
    let result = unsafe { at_thread_exit(run, without_provenance_mut(number), run as EndFunction as usize) };
    if result != 0 {
        take_latest(number);
        finished(number);
    }
    result
}

/// Runs a ticket.
unsafe extern "C" fn run(ticket: *mut c_void) {
    // SAFETY: promised when the destructor was registered; the image stays as long as a thread has one.
    unsafe { run_latest(ticket as usize) };
}

/// Calls the latest destructor that the calling thread has of an image; false if there is none.
///
/// # Safety
/// It may be called now.
unsafe fn run_latest(number: usize) -> bool {
    let Some(End { function, object }) = take_latest(number) else { return false };
    // SAFETY: the caller's promise.
    unsafe { function(object as *mut c_void) };
    finished(number);
    true
}

/// Takes the latest destructor out; the thread has it all the same until [`finished`] is called.
fn take_latest(number: usize) -> Option<End> {
    let mut state = state();
    let queue = state.ends.as_mut()?.queue(number, this_thread())?;
    let end = queue.ends.pop()?;
    queue.running += 1;
    LIVE.set(LIVE.get().saturating_sub(1));
    Some(end)
}

fn finished(number: usize) {
    let thread = this_thread();
    let mut state = state();
    let Some(ends) = &mut state.ends else { return };
    let Some(queue) = ends.queue(number, thread) else { return };
    queue.running = queue.running.saturating_sub(1);
    if queue.running == 0 && queue.ends.is_empty() {
        ends.images.get_mut(&number).map(|threads| threads.remove(&thread));
        CHANGED.notify_all();
    }
}
