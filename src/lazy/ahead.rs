//! Functions that are likely to be called soon, which a thread with nothing else to do compiles before that happens.
//!
//! What a function calls by name is likely, what comes first most of all; so is what those call in turn, a few calls deep.
//! Half of it is never called, so there is a limit: so many functions for each that was.

use super::crew::Opened;
use hotbed_loader::{FunctionRequest, Slots};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// How many functions are compiled ahead for each that was called before it was compiled.
const FOR_EACH_CALL: u32 = 2;

/// Nothing is saved up beyond this.
const MOST_SAVED: u32 = 32;

/// How many calls behind one that happened a function may be.
const DEEPEST: u32 = 4;

/// Most functions that are remembered; the oldest are forgotten.
const MOST: usize = 1024;

/// The function that is asked for.
fn of(request: &FunctionRequest) -> (usize, u32) {
    (Arc::as_ptr(request.slots()) as usize, request.slot())
}

/// A function that is likely to be called.
pub(super) struct Likely {
    image: Arc<Opened>,
    slot: u32,
    depth: u32,
}

/// What there is to compile ahead; the one to be compiled next is the last one.
#[derive(Default)]
pub(super) struct Ahead {
    likely: VecDeque<Likely>,
    allowed: u32,
    /// What threads are compiling ahead now, an address and a slot each.
    running: Vec<(usize, u32)>,
    /// What was called meanwhile; the threads that have it answer.
    called: Vec<(FunctionRequest, Instant)>,
}

impl Likely {
    /// What a function of an image calls that was called itself.
    pub(super) fn after(image: &Arc<Opened>, calls: &[u32]) -> Vec<Self> {
        calls.iter().map(|&slot| Self { image: Arc::clone(image), slot, depth: 1 }).collect()
    }

    /// What this one calls.
    pub(super) fn then(&self, calls: &[u32]) -> Vec<Self> {
        let next = |&slot: &u32| Self { image: Arc::clone(&self.image), slot, depth: self.depth + 1 };
        if self.depth < DEEPEST { calls.iter().map(next).collect() } else { Vec::new() }
    }

    /// Its slot.
    pub(super) fn slot(&self) -> u32 {
        self.slot
    }

    /// Its image, if that is still there and it has no body.
    pub(super) fn there(&self) -> Option<(&Opened, Arc<Slots>)> {
        let slots = self.image.slots().filter(|slots| !slots.is_compiled(self.slot))?;
        Some((&self.image, slots))
    }
}

impl Ahead {
    /// Notes what a function calls that was called.
    pub(super) fn expect(&mut self, likely: Vec<Likely>) {
        self.allowed = (self.allowed + FOR_EACH_CALL).min(MOST_SAVED);
        self.note(likely);
    }

    fn note(&mut self, likely: Vec<Likely>) {
        self.likely.extend(likely.into_iter().rev());
        let surplus = self.likely.len().saturating_sub(MOST);
        self.likely.drain(..surplus);
    }

    /// Whether one of `most` threads may compile something; one is left for what is called.
    pub(super) fn has_work(&self, most: usize) -> bool {
        let free = most.saturating_sub(usize::from(self.called.is_empty()));
        self.allowed > 0 && self.running.len() < free && !self.likely.is_empty()
    }

    /// What a thread is to compile now, one of `most`; [`Ahead::end`] follows.
    pub(super) fn begin(&mut self, most: usize) -> Option<Likely> {
        while self.has_work(most) {
            let next = self.likely.pop_back()?;
            if let Some((_, slots)) = next.there() {
                self.allowed -= 1;
                self.running.push((Arc::as_ptr(&slots) as usize, next.slot));
                return Some(next);
            }
        }
        None
    }

    /// It is compiled, and calls these. Whoever has called it meanwhile is to be answered.
    pub(super) fn end(&mut self, done: &Likely, next: Vec<Likely>) -> Vec<(FunctionRequest, Instant)> {
        let done = (done.image.address(), done.slot);
        self.running.retain(|running| *running != done);
        self.note(next);
        self.called.extract_if(.., |(request, _)| of(request) == done).collect()
    }

    /// Keeps a request for the thread that compiles the function already, if one does.
    pub(super) fn keep(&mut self, request: FunctionRequest, asked: Instant) -> Option<FunctionRequest> {
        if request.is_deep() || !self.running.contains(&of(&request)) {
            return Some(request);
        }
        self.called.push((request, asked));
        None
    }

    /// An image is gone.
    pub(super) fn forget(&mut self, image: &Arc<Opened>) {
        self.likely.retain(|likely| !Arc::ptr_eq(&likely.image, image));
    }
}
