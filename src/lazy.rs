//! Functions that are compiled when they are first called: the loader asks, threads of ours, or of the host's, have the back
//! end answer.
//!
//! What is under way belongs to one process ([`Crew`]). A child of a fork has none of its parent's threads, and finds locks
//! as they were; so it begins with a crew of its own, which opens images anew.

mod crew;
mod keep;

pub(crate) use keep::{Grown, Order, Origin};

use crate::back_end::{BackEnds, executable};
use crate::executor::Executor;
use crew::Crew;
use hotbed_loader::sys::start::process_id;
use hotbed_loader::sys::sync::Mutex;
use hotbed_loader::{FunctionFailure, FunctionRequest, Materializer, Slots};
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// What a host does about that.
pub(crate) type OnFailure = Arc<dyn Fn(&FunctionFailure<'_>) -> Option<usize> + Send + Sync>;

/// Compiles functions of a runtime's images.
pub(crate) struct Functions {
    this: Weak<Self>,
    back_ends: Arc<BackEnds>,
    on_failure: Option<OnFailure>,
    /// The host's threads, and the process that has them.
    executor: Option<(i32, Arc<dyn Executor>)>,
    crew: AtomicPtr<Crew>,
    compiled: AtomicU32,
    back_end_used: AtomicBool,
    /// Where images of the store come from, by their paths there.
    origins: Mutex<HashMap<PathBuf, Origin>>,
}

impl Functions {
    pub(crate) fn new(
        back_ends: Arc<BackEnds>,
        on_failure: Option<OnFailure>,
        executor: Option<Arc<dyn Executor>>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            back_ends,
            on_failure,
            executor: executor.map(|executor| (process_id(), executor)),
            crew: AtomicPtr::default(),
            compiled: AtomicU32::new(0),
            back_end_used: AtomicBool::new(false),
            origins: Mutex::default(),
        })
    }

    /// How many functions were compiled in this process and those it was forked from.
    pub(crate) fn compiled(&self) -> u32 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Whether that took a back end.
    pub(crate) fn back_end_used(&self) -> bool {
        self.back_end_used.load(Ordering::Relaxed)
    }

    /// Notes where the image at `path` comes from.
    pub(crate) fn note_origin(&self, path: PathBuf, origin: Origin) {
        // Back end and keeper are found by it.
        executable();
        self.origins.lock().insert(path, origin);
    }

    /// The images of the store of which this process has compiled something.
    pub(crate) fn grown(&self) -> Vec<Grown> {
        let Some(crew) = self.crew() else { return Vec::new() };
        let mut all = Vec::new();
        crew.for_each_compiled(|path, bodies| {
            let Some(Origin { request, checksum }) = self.origins.lock().get(path).cloned() else { return };
            all.push(Grown { request: (*request).clone(), checksum, bodies: bodies.kept() });
        });
        all
    }

    /// The crew of this process.
    fn crew(&self) -> Option<&Crew> {
        // SAFETY: crews are freed with `self`, those of other processes never.
        unsafe { self.crew.load(Ordering::Acquire).as_ref() }.filter(|crew| crew.process == process_id())
    }

    /// The same, made if there is none.
    fn make_crew(&self) -> &Crew {
        loop {
            if let Some(crew) = self.crew() {
                return crew;
            }
            let old = self.crew.load(Ordering::Acquire);
            let fresh = Box::into_raw(Box::new(Crew::new()));
            // What a parent has left is not looked at any more: its locks may be taken, by nobody.
            if self.crew.compare_exchange(old, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: made above, and nobody has seen it.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }

    /// The host's threads, if this process has them: a child of a fork has not.
    fn executor(&self) -> Option<&Arc<dyn Executor>> {
        let (process, executor) = self.executor.as_ref()?;
        (*process == process_id()).then_some(executor)
    }

    /// Compiles what a request asks for, and answers it.
    pub(crate) fn serve(&self, request: FunctionRequest) {
        let slots = Arc::clone(request.slots());
        let compile = AssertUnwindSafe(|| self.compile(&slots, request.slot(), request.is_deep()));
        let outcome = catch_unwind(compile).unwrap_or_else(|thrown| {
            // It may throw again when it is dropped.
            std::mem::forget(thrown);
            Err("the back end panicked".into())
        });
        request.done(outcome);
    }

    fn compile(&self, slots: &Arc<Slots>, slot: u32, deep: bool) -> Result<usize, String> {
        let _span = tracing::debug_span!("function", image = slots.name(), slot).entered();
        self.back_end_used.store(true, Ordering::Relaxed);
        let image = self.make_crew().image(slots);
        let bodies = image.bodies(&self.back_ends)?;
        let bodies = bodies.compile(slot, deep).map_err(|failure| failure.message)?;
        let mut address = None;
        for body in bodies {
            if body.slot == slot {
                address = Some(body.address);
            }
            if !slots.is_compiled(body.slot) {
                self.compiled.fetch_add(1, Ordering::Relaxed);
                // Calls of the one that was asked for are let go by the answer.
                if body.slot != slot {
                    slots.set_body(body.slot, body.address);
                }
            }
        }
        address.ok_or_else(|| "the back end gave other functions".to_owned())
    }
}

impl Materializer for Functions {
    fn materialize(&self, request: FunctionRequest) {
        // Without a runtime there is no image, and nobody asks.
        if let Some(this) = self.this.upgrade() {
            self.make_crew().take(this, request);
        }
    }

    fn failed(&self, failure: &FunctionFailure<'_>) -> Option<usize> {
        self.on_failure.as_ref().and_then(|on_failure| on_failure(failure))
    }

    fn ended(&self, image: &Slots) {
        if let Some(crew) = self.crew() {
            crew.forget(image);
        }
    }
}

impl Drop for Functions {
    fn drop(&mut self) {
        let crew = *self.crew.get_mut();
        if self.crew().is_some() {
            // SAFETY: made by `make_crew` in this process; its threads hold `self`, so there are none.
            drop(unsafe { Box::from_raw(crew) });
        }
        self.crew = AtomicPtr::new(ptr::null_mut());
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions").field("compiled", &self.compiled()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
