//! Whether an image's constructors have run: others that find it meanwhile must wait.

use crate::sys::sync::{Condvar, Mutex};
use crate::sys::threads;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The state of an image and those who wait for it.
#[derive(Debug)]
pub(crate) struct Ready {
    state: Mutex<State>,
    changed: Condvar,
    /// How many wait: telling nobody is a call to the system as well. Changed with the state locked.
    waiting: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// By the thread of this token.
    Starting(usize),
    Ready,
    Failed,
}

/// Says that it has failed when it is dropped before it was told otherwise.
pub(crate) struct Outcome<'a>(&'a Ready);

impl Ready {
    /// Being started by the calling thread.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::Starting(threads::token())),
            changed: Condvar::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits until another thread is done with starting the image; false if that has failed. The thread that starts
    /// it does not wait for itself: its constructors may load what uses it.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            match *state {
                State::Ready => return true,
                State::Failed => return false,
                State::Starting(thread) if thread == threads::token() => return true,
                State::Starting(_) => {
                    self.waiting.fetch_add(1, Ordering::Relaxed);
                    state = self.changed.wait(state);
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// To be called by the thread that starts the image.
    pub(crate) fn fail_unless_told(&self) -> Outcome<'_> {
        Outcome(self)
    }

    fn set(&self, state: State) {
        let mut now = self.state.lock();
        *now = state;
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
    }
}

impl Outcome<'_> {
    /// The image is ready.
    pub(crate) fn told(self) {
        self.0.set(State::Ready);
        std::mem::forget(self);
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        self.0.set(State::Failed);
    }
}
