//! Functions that are compiled when they are first called: who asks, who compiles, and who waits meanwhile.
//!
//! A call of such a function comes to its lazy entry (`image/slots.rs`), and from there to `entry`, with every argument
//! register kept. That asks the host's [`Materializer`], waits, and goes on at the body, which the slot holds from then on. Nothing is
//! compiled on the caller's stack: what happens there takes the state of the registers (2.7 KB with AVX-512, 0.8 KB with
//! AVX) and less than 2 KB more, with a materializer that starts a thread for every request.
//!
//! However many threads want a function, it is asked for once. Who waits holds no lock, may be interrupted by signals, and
//! may never come back. What is under way is in `book`, which a forked process has none of: nobody there would end it, so
//! it is asked for again.

mod book;
mod calls;
mod entry;
mod locate;
mod names;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use entry::connect;
pub(crate) use locate::{Located, image_of, locate};

use crate::image::bind::Slot;
use crate::image::map::Mapped;
use crate::image::registry;
use crate::image::slots::Tables;
use crate::image::{Decisions, Image};
use crate::layers::Space;
use crate::loader::{Library, Loader};
use crate::sys::append::AppendFile;
use crate::sys::signals::{keeping_errno, uninterrupted};
use crate::sys::sync::Mutex;
use book::{Book, Inside, Wait};
use calls::FirstCalls;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Compiles functions of images, for a host that has a back end.
pub trait Materializer: Send + Sync + fmt::Debug {
    /// Starts to compile what is asked for, and returns soon: this is called on the thread that called the function, which
    /// may have little stack, with all signals blocked. Any thread answers with [`FunctionRequest::done`]; a request that is dropped has failed.
    fn materialize(&self, request: FunctionRequest);

    /// A function could not be compiled. This is called where it was called, and may end the thread or the process in its
    /// own way. Otherwise the call goes on at the address that this gives, with its arguments, or ends the process with a message.
    /// The next call asks again.
    fn failed(&self, failure: &FunctionFailure<'_>) -> Option<usize> {
        let _ = failure;
        None
    }

    /// The image is gone, its destructors have run: nothing that was compiled for it will be called again, and what is under
    /// way is of no use. Whoever keeps `image` longer keeps libraries open.
    fn ended(&self, image: &Slots) {
        let _ = image;
    }
}

/// Why a call of a function cannot go on.
#[derive(Debug, Clone, Copy)]
pub struct FunctionFailure<'a> {
    /// Name of the unit that was loaded.
    pub image: &'a str,
    /// The function.
    pub function: &'a LazyFunction,
    /// What the materializer said.
    pub reason: &'a str,
}

/// A function that has a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LazyFunction {
    /// Number of its slot.
    pub slot: u32,
    /// Place of its unit in the image's list of units.
    pub unit: u32,
    /// Its number in that unit.
    pub number: u32,
    /// Its name as linkers see it; empty where the image does not say.
    pub name: String,
}

/// The functions of an image that have slots.
pub struct Slots {
    name: Box<str>,
    path: Option<PathBuf>,
    tables: Tables,
    /// Whether the memory of the image is going; changed under the book's lock.
    closed: AtomicBool,
    /// Those that were compiled with all that they reach, a bit each.
    deep: Box<[AtomicU64]>,
    /// Where first calls are written down.
    calls: Option<FirstCalls>,
    materializer: Arc<dyn Materializer>,
    /// Valid as long as it is not closed.
    mapped: *const Mapped,
    module: Option<usize>,
    image: Weak<Image>,
    sequence: u64,
    loader: Loader,
    space: Arc<Space>,
    shared: Arc<Decisions>,
    /// What the image is bound to, and fresh code with it.
    images: Arc<Mutex<Vec<Arc<Image>>>>,
    libraries: Vec<Arc<Library>>,
    /// What only fresh code is bound to.
    later_libraries: Mutex<Vec<Arc<Library>>>,
    /// What the image's own references have got.
    resolved: Vec<Slot>,
}

// SAFETY: the image behind the pointer is only read, and its slots are atomic.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

/// What [`Slots`] are made of.
pub(crate) struct Origin<'a> {
    pub(crate) name: &'a str,
    pub(crate) mapped: &'a Mapped,
    pub(crate) tables: Tables,
    pub(crate) materializer: Arc<dyn Materializer>,
    pub(crate) first_calls: Option<Arc<AppendFile>>,
    pub(crate) module: Option<usize>,
    pub(crate) image: Weak<Image>,
    pub(crate) sequence: u64,
    pub(crate) loader: Loader,
    pub(crate) space: Arc<Space>,
    pub(crate) shared: Arc<Decisions>,
    pub(crate) images: Arc<Mutex<Vec<Arc<Image>>>>,
    pub(crate) libraries: Vec<Arc<Library>>,
    pub(crate) resolved: Vec<Slot>,
}

/// How many images with slots there are.
static LIVE: AtomicUsize = AtomicUsize::new(0);

impl Slots {
    /// # Safety
    /// What is mapped stays so until [`Slots::close`] was called; nobody calls into it yet.
    pub(crate) unsafe fn new(origin: Origin<'_>) -> Arc<Self> {
        let Origin { name, mapped, tables, materializer, module, image, sequence, .. } = origin;
        let Origin { first_calls, loader, space, shared, images, libraries, resolved, .. } = origin;
        LIVE.fetch_add(1, Ordering::Relaxed);
        book::prepare();
        names::prepare();
        let calls = first_calls.map(|file| FirstCalls::new(file, tables.count()));
        if calls.is_some() {
            for slot in 0..tables.count() {
                // SAFETY: it is mapped, as the caller says.
                let place = unsafe { tables.slot(slot) };
                place.inspect(|place| place.store(tables.entry(slot), Ordering::Relaxed));
            }
        }
        Arc::new(Self {
            name: name.into(),
            path: mapped.path.clone(),
            tables,
            closed: AtomicBool::new(false),
            deep: (0..tables.count().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            calls,
            materializer,
            mapped,
            module,
            image,
            sequence,
            loader,
            space,
            shared,
            images,
            libraries,
            later_libraries: Mutex::default(),
            resolved,
        })
    }

    /// Name of the unit that was loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that the image was mapped from, if it was one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What has been added to the addresses in its file; nothing when the image is gone.
    pub fn bias(&self) -> Option<usize> {
        let inside = self.enter()?;
        Some(inside.mapped().place.base)
    }

    /// Has the contents of the image's file read, in which is what functions are compiled from; nothing when the image is gone.
    /// It waits with its end meanwhile.
    pub fn read_file<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let inside = self.enter()?;
        inside.mapped().contents().map(read)
    }

    /// How many functions have slots.
    pub fn count(&self) -> u32 {
        self.tables.count()
    }

    /// The function of that number.
    pub fn function(&self, slot: u32) -> Option<LazyFunction> {
        let inside = self.enter()?;
        let (unit, number) = self.tables.identity(slot)?;
        // SAFETY: the image is there as long as `inside`.
        let name = unsafe { self.tables.name(&inside.mapped().place, slot) }.unwrap_or_default();
        Some(LazyFunction { slot, unit, number, name: String::from_utf8_lossy(name).into_owned() })
    }

    /// The slot of the function whose address that is.
    pub fn slot_of(&self, address: usize) -> Option<u32> {
        let inside = self.enter()?;
        // SAFETY: the image is there as long as `inside`.
        unsafe { self.tables.of_stub(&inside.mapped().place, address) }
    }

    /// Where calls of a function lead, if it is compiled.
    pub fn body(&self, slot: u32) -> Option<usize> {
        let _inside = self.enter()?;
        // SAFETY: the image is there as long as `_inside`.
        unsafe { self.known_body(slot) }
    }

    /// The same, where it is certain that the image is there.
    ///
    /// # Safety
    /// It is.
    unsafe fn known_body(&self, slot: u32) -> Option<usize> {
        match &self.calls {
            Some(calls) => calls.body(slot),
            // SAFETY: the caller's promise.
            None => unsafe { self.tables.body(slot) },
        }
    }

    /// Where a call goes on, the first one of a function that has a body; only where first calls are written down.
    ///
    /// # Safety
    /// The image is there.
    unsafe fn call_ready(&self, slot: u32) -> Option<usize> {
        let calls = self.calls.as_ref()?;
        // SAFETY: the caller's promise.
        calls.call(slot, unsafe { self.tables.slot(slot) }?, self.tables.entry(slot))
    }

    /// Whether a function has a body.
    pub fn is_compiled(&self, slot: u32) -> bool {
        self.body(slot).is_some()
    }

    /// Leads calls of a function to `address` from now on, which must be a function of its type; whether it was compiled
    /// before or not. False when there is no such function any more.
    pub fn set_body(&self, slot: u32, address: usize) -> bool {
        let Some(_inside) = self.enter() else { return false };
        // SAFETY: the image is there as long as `_inside`.
        let Some(place) = (unsafe { self.tables.slot(slot) }) else { return false };
        match &self.calls {
            Some(calls) => calls.set_body(slot, address, place, self.tables.entry(slot)),
            None => place.store(address, Ordering::Release),
        }
        true
    }

    /// Gives a function its body unless it has one, and says what is to be written when it is called first
    /// ([`LoaderOptions::first_calls`](crate::LoaderOptions::first_calls)): one record with its line end, or nothing. For who answers a request,
    /// before he does. False where first calls are not written down.
    pub fn set_ready(&self, slot: u32, address: usize, record: &[u8]) -> bool {
        self.calls.as_ref().is_some_and(|calls| calls.set_ready(slot, address, record).is_some())
    }

    /// Has a function compiled without calling it, and does not wait for that; what it reaches by direct calls too, if it shall be `deep`.
    pub fn request(self: &Arc<Self>, slot: u32, deep: bool) {
        self.ask(slot, deep);
    }

    /// The same, and waits.
    ///
    /// # Errors
    /// What the materializer says.
    pub fn compile(self: &Arc<Self>, slot: u32, deep: bool) -> Result<usize, String> {
        loop {
            let wait = match self.ask(slot, deep) {
                Asked::There(body) => return Ok(body),
                Asked::Gone => return Err("there is no such function any more".into()),
                Asked::UnderWay(wait) => wait,
            };
            // In a child that was forked meanwhile nobody would answer.
            if let Some(outcome) = wait.wait() {
                return outcome.clone();
            }
        }
    }

    /// Asks for a function unless it is there or somebody has asked.
    fn ask(self: &Arc<Self>, slot: u32, deep: bool) -> Asked {
        uninterrupted(|| {
            let (asked, new) = Book::of_process().ask(self, slot, deep);
            if let (true, Asked::UnderWay(wait)) = (new, &asked) {
                let request =
                    FunctionRequest { slots: Arc::clone(self), slot, deep, wait: Some(Arc::clone(wait)) };
                let ask = AssertUnwindSafe(|| self.materializer.materialize(request));
                // A panic has dropped the request, which is an answer. What was thrown may do so again when it is dropped.
                catch_unwind(ask).unwrap_or_else(std::mem::forget);
            }
            asked
        })
    }

    /// Whether a function is compiled with all that it reaches, as far as that was asked for.
    fn is_deep(&self, slot: u32) -> bool {
        let word = self.deep.get(slot as usize / 64);
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (slot % 64) & 1 != 0)
    }

    /// Holds off the end of the image's memory; nothing if that has come.
    fn enter(&self) -> Option<Inside<'_>> {
        Book::of_process().enter(self)
    }

    /// The memory of the image goes: what is under way is of no use from now on.
    pub(crate) fn close(&self) {
        Book::of_process().close(self);
        LIVE.fetch_sub(1, Ordering::Relaxed);
        let end = AssertUnwindSafe(|| self.materializer.ended(self));
        catch_unwind(end).unwrap_or_else(std::mem::forget);
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("name", &self.name)
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

/// What became of a question.
enum Asked {
    /// It has a body.
    There(usize),
    /// It is being compiled.
    UnderWay(Arc<Wait>),
    /// There is no such function, or none any more.
    Gone,
}

/// A function that is to be compiled.
#[derive(Debug)]
pub struct FunctionRequest {
    slots: Arc<Slots>,
    slot: u32,
    deep: bool,
    /// Whoever waits, as long as there is no answer.
    wait: Option<Arc<Wait>>,
}

impl FunctionRequest {
    /// The image's functions.
    pub fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// Number of its slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The function; nothing when its image is gone.
    pub fn function(&self) -> Option<LazyFunction> {
        self.slots.function(self.slot)
    }

    /// Whether everything that it reaches by direct calls shall be compiled as well before it is done: it may be called where
    /// nothing can be waited for. It may be compiled itself already.
    pub fn is_deep(&self) -> bool {
        self.deep
    }

    /// The answer: where the function is, or why it is nowhere. False if nobody has any use for it: the image is gone, or
    /// the function has got another body meanwhile.
    pub fn done(mut self, outcome: Result<usize, String>) -> bool {
        self.answer(outcome)
    }

    fn answer(&mut self, outcome: Result<usize, String>) -> bool {
        let Some(wait) = self.wait.take() else { return false };
        uninterrupted(|| {
            let wanted = outcome.as_ref().ok().copied();
            let outcome = Book::of_process().answer(&self.slots, (self.slot, self.deep), &wait, outcome);
            let taken = wanted.is_some() && wanted == outcome.as_ref().ok().copied();
            wait.tell(outcome);
            taken
        })
    }
}

impl Drop for FunctionRequest {
    fn drop(&mut self) {
        self.answer(Err("nobody has compiled it".into()));
    }
}

/// Has what is at `address` compiled with all that it reaches by direct calls, if it is a function that has a slot: it will be called where
/// nothing can be waited for.
pub(crate) fn make_ready(address: usize) {
    if LIVE.load(Ordering::Relaxed) == 0 {
        return;
    }
    keeping_errno(|| {
        let slots = || uninterrupted(|| registry::image_at(address).and_then(|image| image.slots().cloned()));
        let Some(slots) = slots() else { return };
        if let Some(slot) = slots.slot_of(address) {
            // What cannot be compiled is said when it is called.
            let _ = slots.compile(slot, true);
        }
    });
}
