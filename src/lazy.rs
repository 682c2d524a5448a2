//! Functions that are compiled when they are first called: the loader asks, threads of ours, or of the host's, have the back
//! end answer.
//!
//! What is under way belongs to one process ([`Crew`]). A child of a fork has none of its parent's threads, and finds locks
//! as they were; so it begins with a crew of its own, which opens images anew.

mod ahead;
mod crew;
mod keep;
mod times;
mod trace;

pub(crate) use keep::{Grown, Order, Origin};
pub use times::{FunctionTime, FunctionTimes};
pub(crate) use trace::Trace;

use crate::back_end::{BackEnds, executable};
use crate::executor::Executor;
use crate::observer::Observer;
use ahead::Likely;
use crew::{Crew, Opened};
use hotbed_loader::boundary::Body;
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
use std::time::{Duration, Instant};
use tracing::field::Empty;

/// What a host does about that.
pub(crate) type OnFailure = Arc<dyn Fn(&FunctionFailure<'_>) -> Option<usize> + Send + Sync>;

/// Compiles functions of a runtime's images.
pub(crate) struct Functions {
    this: Weak<Self>,
    back_ends: Arc<BackEnds>,
    on_failure: Option<OnFailure>,
    /// The host's threads, and the process that has them.
    executor: Option<(i32, Arc<dyn Executor>)>,
    trace: Option<Trace>,
    observer: Arc<dyn Observer>,
    /// Whether likely callees are compiled before they are called.
    speculates: bool,
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
        trace: Option<Trace>,
        observer: Arc<dyn Observer>,
        speculates: bool,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            back_ends,
            on_failure,
            executor: executor.map(|executor| (process_id(), executor)),
            observer,
            speculates: speculates && trace.is_none(),
            trace,
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

    /// What that has taken in this process.
    pub(crate) fn times(&self) -> FunctionTimes {
        self.crew().map(|crew| crew.times().lock().clone()).unwrap_or_default()
    }

    /// Whether first calls are written down.
    pub(crate) fn traces(&self) -> bool {
        self.trace.is_some()
    }

    /// Warns if they could not be, unless that was said.
    pub(crate) fn check_trace(&self) {
        if let Some(failure) = self.trace.as_ref().and_then(Trace::failure) {
            self.observer.warning(&failure);
        }
    }

    /// Notes where the image at `path` comes from.
    pub(crate) fn note_origin(&self, path: PathBuf, origin: Origin) {
        // Back end and keeper are found by it.
        executable();
        self.origins.lock().insert(path, origin);
    }

    /// The images of the store of which this process has compiled something.
    pub(crate) fn grown(&self) -> Vec<Grown> {
        // What is compiled alone for a trace is not as good.
        if self.traces() {
            return Vec::new();
        }
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

    /// Compiles what a request has asked for at that moment, and answers it.
    pub(crate) fn serve(&self, request: FunctionRequest, asked: Instant) {
        let slots = Arc::clone(request.slots());
        let outcome = caught(|| self.compile(&slots, request.slot(), request.is_deep()));
        // What was called before may not have got into the trace.
        self.check_trace();
        self.make_crew().times().lock().waited += asked.elapsed();
        let (address, likely) = match outcome {
            Ok((address, likely)) => (Ok(address), likely),
            Err(reason) => (Err(reason), Vec::new()),
        };
        request.done(address);
        self.expect(likely);
    }

    /// Says what is likely to be called next, after a function that was.
    fn expect(&self, likely: Vec<Likely>) {
        // What the host's threads are for, the host knows.
        if self.speculates
            && self.executor().is_none()
            && let Some(this) = self.this.upgrade()
        {
            self.make_crew().expect(this, likely);
        }
    }

    /// Compiles what is likely to be called, and gives what is likely then. If it does not compile, perhaps it is never
    /// called.
    fn compile_ahead(&self, likely: &Likely) -> Vec<Likely> {
        let Some((image, slots)) = likely.there() else { return Vec::new() };
        let compile = || self.compile_in(image, &slots, likely.slot(), false);
        caught(compile).map(|(_, calls)| likely.then(&calls)).unwrap_or_default()
    }

    fn compile(&self, slots: &Arc<Slots>, slot: u32, deep: bool) -> Result<(usize, Vec<Likely>), String> {
        let span = tracing::debug_span!(
            "function",
            unit = slots.name(),
            slot,
            deep,
            source = Empty,
            function = Empty,
            outcome = Empty
        );
        let _entered = span.enter();
        self.back_end_used.store(true, Ordering::Relaxed);
        let image = self.make_crew().image(slots);
        if !span.is_disabled() {
            let (source, function) = image.name_of(slot);
            span.record("source", source).record("function", function);
        }
        let compiled = self.compile_in(&image, slots, slot, deep);
        match &compiled {
            Ok(_) => span.record("outcome", "compiled"),
            Err(reason) => span.record("outcome", reason.as_str()),
        };
        compiled.map(|(address, calls)| (address, Likely::after(&image, &calls)))
    }

    /// Where the function is, and what it calls.
    fn compile_in(
        &self,
        image: &Opened,
        slots: &Slots,
        slot: u32,
        deep: bool,
    ) -> Result<(usize, Vec<u32>), String> {
        let bodies = image.bodies(&self.back_ends, self.traces())?;
        let compiled = bodies.compile(slot, deep).map_err(|failure| failure.message)?;
        let mut address = None;
        for body in compiled.bodies {
            if body.slot == slot {
                address = Some(body.address);
            }
            if image.count(body.slot) {
                self.note_compiled(image, slots, &body);
            }
            if let Some(trace) = &self.trace {
                slots.set_ready(body.slot, body.address, trace.line(image, &body).as_bytes());
            // Where somebody waits, the answer does the same.
            } else if !slots.is_compiled(body.slot) {
                slots.set_body(body.slot, body.address);
            }
        }
        let address = address.ok_or("the back end gave other functions")?;
        Ok((address, compiled.calls))
    }

    /// Counts a function that was compiled, and tells whoever listens.
    fn note_compiled(&self, image: &Opened, slots: &Slots, body: &Body) {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let time = Duration::from_nanos(body.nanoseconds);
        let describe = || {
            let (source, function) = image.name_of(body.slot);
            FunctionTime { unit: slots.name().to_owned(), source, function, time }
        };
        if tracing::enabled!(tracing::Level::DEBUG) {
            let FunctionTime { source, function, .. } = describe();
            let ms = time.as_secs_f64() * 1e3;
            tracing::debug!(unit = slots.name(), source, function, ms, "compiled a function");
        }
        self.make_crew().times().lock().add(time, describe);
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
        self.check_trace();
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

/// What `compile` gives; if it panics, the back end has a defect.
fn caught<T>(compile: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|thrown| {
        // It may throw again when it is dropped.
        std::mem::forget(thrown);
        Err("the back end panicked".into())
    })
}

#[cfg(test)]
mod tests;
