//! Images: the format, and mapping, binding, initialising and ending one.
//!
//! The way of an image through this folder: `map` makes memory of a file, reading `headers` and the `dynamic`
//! section; `bind` resolves what it needs through the layers and relocates it; `lifecycle` calls its
//! constructors. An [`Image`] is what comes out of that, held by an `Arc`: as long as it is held, by the host or by
//! another image that is bound to it, its code may be called.

mod arena;
pub(crate) mod bind;
pub(crate) mod check;
mod contents;
mod cycle;
mod decisions;
mod definition;
mod description;
pub(crate) mod dynamic;
pub(crate) mod elf;
mod error;
pub(crate) mod file;
mod fresh;
pub(crate) mod headers;
mod identity;
mod interface;
pub(crate) mod lazy;
mod lifecycle;
pub(crate) mod map;
mod metadata;
pub(crate) mod needle;
pub mod note;
pub(crate) mod place;
mod ready;
pub(crate) mod registers;
pub(crate) mod registry;
mod sever;
pub(crate) mod slots;
pub(crate) mod symbols;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod trap;
mod unload;
pub(crate) mod unwind;
mod variants;
mod version_number;
pub(crate) mod versions;

pub(crate) use contents::needed;
pub(crate) use cycle::Cycle;
pub use definition::{Definition, Export, Import, SymbolKind};
pub(crate) use definition::{address_of, call_resolver, own_value};
pub use description::{
    ExportDescription, FunctionDescription, ImageDescription, ImportDescription, SectionDescription,
    VariantDescription,
};
pub use error::{ImageError, ProcessorLacks};
pub use fresh::FreshCode;
pub use identity::{IDENTITIES_SECTION, Identities, Identity};
#[cfg(test)]
pub(crate) use interface::sample as sample_interface;
pub use interface::{
    ImageDependency, ImageInterface, Interface, InterfaceKind, InterfaceSymbol, InterfaceVersion, soname,
};
pub use map::ImageSource;
pub use metadata::{Metadata, unit_names};
pub use unload::{Obstacles, wait_for_change};
pub use variants::{Variant, choose, intact_variants, join, variants};

use crate::debug::{LoadedCode, Told};
use crate::facade::{Facade, OfferedTo};
use crate::layers::{Exports, Space, Value};
use crate::loader::{Library, Loader};
use crate::slots::{Origin, Slots, connect};
use crate::stand_ins::Shown;
use crate::sys::arguments::ProgramArguments;
use crate::sys::sync::Mutex;
use crate::sys::unwind::Registration;
use bind::{Applied, Plan, Slot};
pub(crate) use decisions::Decisions;
pub(crate) use lifecycle::Beginning;
use lifecycle::End;
use map::{Mapped, Memory};
use ready::Ready;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use symbols::Symbols;
use tls::Reference;
use tls::ends::Pending;
use trap::Traps;

/// How long the parts of loading took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadTimes {
    /// Opening, mapping and reading the tables.
    pub map: Duration,
    /// Opening libraries, resolving, relocating, protecting, registering unwind tables.
    pub bind: Duration,
    /// Constructors.
    pub init: Duration,
}

/// A mapped, bound and initialised image.
///
/// Any thread may use it. When the last `Arc` goes, in whichever thread that is, its destructors run, then it is
/// unmapped; if another thread still has destructors of its thread-local variables to call, it stays for good instead
/// ([`Image::retire`] says so before).
pub struct Image {
    name: Box<str>,
    times: Mutex<Option<(Steps, Instant)>>,
    shared: Arc<Decisions>,
    ready: Ready,
    space: Arc<Space>,
    loader: Loader,
    shown: OnceLock<Box<Shown>>,
    offered_to: OfferedTo,
    /// Its place in the load order.
    sequence: u64,
    this: Weak<Image>,
    /// What it has in the table of its namespace.
    in_table: OnceLock<Exports>,
    /// How many images are bound to this one.
    binders: AtomicUsize,
    /// The others that it needs and that need it.
    cycle: Mutex<Option<Arc<Cycle>>>,
    body: ManuallyDrop<Body>,
}

/// What goes with the memory, in the order in which it must go.
struct Body {
    /// What shows its exports to every library, if it is for them.
    exported: Mutex<Option<Facade>>,
    /// Whether its constructors were called, or some of them.
    started: AtomicBool,
    /// Whether it is unloaded by force: then nothing keeps it.
    forced: AtomicBool,
    end: Mutex<Option<End>>,
    unwind: Mutex<Option<(registry::Entry, Option<Registration>)>>,
    pending: Option<Pending>,
    /// What tools have been told goes after the last destructor and before the memory.
    told: Told,
    module: Option<tls::Module>,
    /// Pointed to by TLS descriptors.
    _references: Vec<Arc<Reference>>,
    mapped: Box<Mapped>,
    /// Where it is led instead of to images that were unloaded by force.
    traps: Mutex<Vec<Traps>>,
    /// Its functions that are compiled when they are first called.
    slots: OnceLock<Arc<Slots>>,
    /// What its symbols were resolved to, kept until those functions are made of it.
    resolved: Mutex<Vec<Slot>>,
    /// Without those of the same circle.
    images: Arc<Mutex<Vec<Arc<Image>>>>,
    libraries: Vec<Arc<Library>>,
}

/// What an image is made of.
pub(crate) struct Parts {
    pub(crate) name: Box<str>,
    pub(crate) mapped: Box<Mapped>,
    pub(crate) module: Option<tls::Module>,
    pub(crate) images: Vec<Arc<Image>>,
    pub(crate) libraries: Vec<Arc<Library>>,
    pub(crate) space: Arc<Space>,
    pub(crate) loader: Loader,
    pub(crate) sequence: u64,
    pub(crate) cycle: Option<Arc<Cycle>>,
}

/// When the steps of loading were done.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) began: Instant,
    pub(crate) mapped: Instant,
    pub(crate) bound: Instant,
    /// When its constructors began: after those of others that were bound with it.
    pub(crate) begun: Instant,
}

impl Image {
    /// An image that is relocated but for what was put off, and not initialised. Takes from `plan` what is kept.
    pub(crate) fn new(parts: Parts, plan: &mut Plan) -> Arc<Self> {
        let Parts { name, mapped, module, images, libraries, space, loader, sequence, cycle } = parts;
        for used in &images {
            used.binders.fetch_add(1, Ordering::Relaxed);
        }
        let applied = &mut plan.applied;
        applied.unwinds = plan.unwinds;
        applied.used.clone_from(&images);
        let resolved = if mapped.lazy.is_some() { std::mem::take(&mut plan.slots) } else { Vec::new() };
        let (own, elsewhere) = (std::mem::take(&mut plan.own), std::mem::take(&mut plan.elsewhere));
        Arc::new_cyclic(|this| {
            if let Some(cycle) = &cycle {
                cycle.join(this.clone());
            }
            Self {
                binders: AtomicUsize::new(0),
                name,
                times: Mutex::default(),
                shared: Arc::new(Decisions::new(own, elsewhere)),
                ready: Ready::new(),
                space,
                loader,
                shown: OnceLock::new(),
                offered_to: OfferedTo::default(),
                sequence,
                this: this.clone(),
                in_table: OnceLock::new(),
                cycle: Mutex::new(cycle),
                body: ManuallyDrop::new(Body {
                    exported: Mutex::new(None),
                    started: AtomicBool::new(false),
                    forced: AtomicBool::new(false),
                    end: Mutex::new(None),
                    unwind: Mutex::new(None),
                    pending: plan.thread_ends.then(|| Pending::new(mapped.handle)),
                    told: Told::default(),
                    module,
                    _references: std::mem::take(&mut applied.references),
                    mapped,
                    traps: Mutex::default(),
                    slots: OnceLock::new(),
                    resolved: Mutex::new(resolved),
                    images: Arc::new(Mutex::new(images)),
                    libraries,
                }),
            }
        })
    }

    /// Completes the image: what needs its code to run, protection, unwind tables, destructors.
    ///
    /// # Errors
    /// When it is damaged or the system refuses something, or when an image that it is bound to could not be started.
    pub(crate) fn finish(self: &Arc<Self>, applied: &mut Applied) -> Result<Beginning, StartError> {
        let body = &self.body;
        // An image that another thread has published but not yet initialised.
        if !applied.used.iter().all(|image| image.ready.wait()) {
            return Err(StartError::Other);
        }
        if applied.unwinds {
            unwind::bring_in();
        }
        // SAFETY: nobody calls into the image yet, and whatever it is bound to is complete. It stays mapped as long as
        // what is registered here: that is the order of `Body`.
        unsafe {
            if applied.later {
                lazy::connect(&body.mapped, Arc::as_ptr(self));
            }
            if body.mapped.lazy.is_some() {
                self.connect_slots()?;
            }
            applied.finish();
            let (beginning, end) = lifecycle::find(&body.mapped)?;
            map::protect(&body.mapped)?;
            let known = self.make_known()?;
            *body.unwind.lock() = Some((known, unwind::register(&body.mapped)?));
            *body.end.lock() = Some(end);
            Ok(beginning)
        }
    }

    /// Runs the constructors, and gives the time when they have. What is started earlier ends later, all of it, at the end of
    /// the process too.
    ///
    /// # Errors
    /// What the system says; then nothing has run.
    pub(crate) fn start(
        &self,
        beginning: Beginning,
        arguments: &ProgramArguments,
        steps: Steps,
    ) -> Result<Instant, StartError> {
        let failed = self.ready.fail_unless_told();
        // SAFETY: the image stays as long as what is registered here.
        unsafe { beginning.register() }.map_err(StartError::System)?;
        self.body.started.store(true, Ordering::Release);
        // SAFETY: bound; loading an image means calling its constructors.
        unsafe { beginning.run(arguments) };
        let done = Instant::now();
        *self.times.lock() = Some((steps, done));
        failed.told();
        Ok(done)
    }

    /// Has first calls of its functions lead to who compiles them, if it has any that are not compiled.
    ///
    /// # Safety
    /// Nobody calls into the image yet.
    #[inline(never)]
    unsafe fn connect_slots(&self) -> Result<(), ImageError> {
        let body = &self.body;
        let (Some(lazy), Some(materializer)) = (&body.mapped.lazy, self.loader.materializer()) else {
            return Ok(());
        };
        let origin = Origin {
            name: &self.name,
            mapped: &body.mapped,
            tables: lazy.tables,
            materializer: Arc::clone(materializer),
            first_calls: self.loader.first_calls().cloned(),
            module: body.module.as_ref().map(tls::Module::number),
            image: Weak::clone(&self.this),
            sequence: self.sequence,
            loader: self.loader.clone(),
            space: Arc::clone(&self.space),
            shared: Arc::clone(&self.shared),
            images: Arc::clone(&body.images),
            libraries: body.libraries.clone(),
            resolved: std::mem::take(&mut *body.resolved.lock()),
        };
        // SAFETY: `Body::release` closes them before the memory goes, and they live as long; the rest is the caller's promise.
        unsafe { connect(body.slots.get_or_init(|| Slots::new(origin))) }
    }

    /// Its functions that are compiled when they are first called, if there are any and the host has a back end.
    pub fn slots(&self) -> Option<&Arc<Slots>> {
        self.body.slots.get()
    }

    /// Adds it to what somebody is bound to. To be called with the lock held under which images are bound.
    pub(crate) fn count_binder(self: &Arc<Self>, images: &mut Vec<Arc<Self>>) {
        if !images.iter().any(|known| Arc::ptr_eq(known, self)) {
            self.binders.fetch_add(1, Ordering::Relaxed);
            images.push(Arc::clone(self));
        }
    }

    /// Makes it known by its addresses.
    fn make_known(&self) -> Result<registry::Entry, ImageError> {
        let index = unwind::index(&self.body.mapped)?;
        let this = Weak::clone(&self.this);
        Ok(match &self.body.mapped.memory {
            Memory::Own { .. } => registry::Entry::of_pages(self.range(), index, this),
            Memory::Arena(lease) => {
                let (crowd, within) = lease.in_crowd();
                registry::Entry::in_crowd(crowd, within, self.range(), index, this)
            }
        })
    }

    /// Name of the unit.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file it was mapped from, if it was one.
    pub fn path(&self) -> Option<&Path> {
        self.body.mapped.path.as_deref()
    }

    /// The addresses that it occupies, from the first to the last. Small images share address space, and others may
    /// have addresses in between.
    pub fn range(&self) -> Range<usize> {
        self.body.mapped.memory.range()
    }

    /// What has been added to the addresses in its file.
    pub fn bias(&self) -> usize {
        self.body.mapped.place.base
    }

    /// Whether it has mappings of its own, rather than a place in an arena.
    pub(crate) fn has_mappings(&self) -> bool {
        matches!(self.body.mapped.memory, Memory::Own { .. })
    }

    /// It, as debuggers and profilers take it.
    pub fn code(&self) -> &Arc<LoadedCode> {
        self.body.told.code(self)
    }

    pub(crate) fn told(&self) -> &Told {
        &self.body.told
    }

    /// How long loading it took; zeros as long as its constructors run.
    pub fn times(&self) -> LoadTimes {
        self.times.lock().map_or_else(LoadTimes::default, |(steps, done)| LoadTimes {
            map: steps.mapped - steps.began,
            bind: steps.bound - steps.mapped,
            init: done - steps.begun,
        })
    }

    /// The images that it is bound to.
    pub fn bound_to(&self) -> Vec<Arc<Self>> {
        let mut images = self.body.images.lock().clone();
        images.extend(self.partners());
        images
    }

    /// Its place in the load order.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Something that holds it, unless it is ending.
    pub(crate) fn upgrade(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// Keeps what it has in the table of its namespace; to be called once.
    pub(crate) fn keep_exports(&self, exports: Exports) -> &Exports {
        self.in_table.get_or_init(|| exports)
    }

    /// What it has in the table of its namespace, if that is where its names are found.
    pub(crate) fn exports_in_table(&self) -> Option<&Exports> {
        self.in_table.get()
    }

    /// The libraries that it holds open.
    pub(crate) fn libraries(&self) -> &[Arc<Library>] {
        &self.body.libraries
    }

    /// Whether it holds `library` open.
    pub fn is_bound_to_library(&self, library: &Arc<Library>) -> bool {
        self.libraries().iter().any(|known| Arc::ptr_eq(known, library))
    }

    /// Names of the libraries that are bound to it: it stays as long as any of them is open.
    pub fn libraries_bound(&self) -> Vec<String> {
        self.offered_to.names()
    }

    pub(crate) fn offered_to(&self) -> &OfferedTo {
        &self.offered_to
    }

    /// Whose it is.
    pub(crate) fn loader(&self) -> &Loader {
        &self.loader
    }

    /// As C programs are shown it.
    pub(crate) fn shown(&self) -> &Shown {
        self.shown.get_or_init(|| Box::new(Shown::new(&self.name, &self.body.mapped)))
    }

    /// The number of its thread-local module, and where the calling thread's block is, if it has one yet; zeros for what
    /// there is not.
    pub(crate) fn thread_block(&self) -> (usize, usize) {
        let module = self.body.module.as_ref();
        module.map_or((0, 0), |module| (module.number(), tls::block(module.number())))
    }

    /// Whether what it exports is for every library of the process.
    pub(crate) fn exports_everything(&self) -> bool {
        self.body.mapped.layout.exports
    }

    /// Keeps what shows its exports to every library.
    pub(crate) fn set_exported(&self, facade: Facade) {
        *self.body.exported.lock() = Some(facade);
    }

    /// Its namespace.
    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Its memory.
    pub(crate) fn mapped(&self) -> &Mapped {
        &self.body.mapped
    }

    pub(crate) fn symbols(&self) -> &Symbols {
        &self.body.mapped.symbols
    }

    pub(crate) fn shared(&self) -> &Decisions {
        &self.shared
    }

    /// What a definition of this image stands for.
    pub(crate) fn value_of(&self, symbol: &elf::Symbol) -> (Value, SymbolKind) {
        let module = self.body.module.as_ref().map(tls::Module::number);
        let value = own_value(&self.body.mapped.place, module, symbol);
        // Damage that nobody has stumbled over until now: an address that is certain to fault.
        (value.unwrap_or(Value::Address(0)), SymbolKind::of(symbol))
    }

    /// Says to whoever waits that it will not be started.
    pub(crate) fn give_up(&self) {
        drop(self.ready.fail_unless_told());
    }

    /// The same, unless it is started.
    pub(crate) fn give_up_unless_started(&self) {
        if !self.body.started.load(Ordering::Acquire) {
            self.give_up();
        }
    }

    /// Waits until its constructors have run, if another thread is at that; false if they never will.
    pub(crate) fn wait(&self) -> bool {
        self.ready.wait()
    }
}

/// Why an image could not be started.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The image itself.
    Image(ImageError),
    /// The system.
    System(std::io::Error),
    /// An image that it is bound to could not be started.
    Other,
}

impl From<ImageError> for StartError {
    #[cold]
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl Body {
    /// Runs what is to be run at the end of the image; false if it must stay mapped.
    fn finish(&self) -> bool {
        let forced = self.forced.load(Ordering::Acquire);
        let stays = || !forced && self.pending.as_ref().is_some_and(|pending| pending.threads() > 0);
        // As `dlclose` has it: an image that another thread will call at its end stays as a whole, with its destructors
        // left to the end of the process. Whoever unloads it in order has looked before.
        if stays() {
            return false;
        }
        // As at the end of the process: what is thread-local goes first, and whatever destructors make of it again.
        // SAFETY: still mapped; the last owner is gone, so its code ends here.
        let run_own = || self.pending.iter().for_each(|pending| unsafe { pending.run_own() });
        run_own();
        if let Some(end) = self.end.lock().take() {
            if !self.started.load(Ordering::Acquire) {
                end.cancel();
            }
            // SAFETY: as above.
            unsafe { end.finish() };
        }
        run_own();
        // Somebody who is never unloaded may be bound to what it shows.
        let shown = self.exported.lock().take();
        let shut = shown.is_none_or(Facade::close);
        forced || (!stays() && shut)
    }

    /// Lets go of the memory and of everything else.
    fn release(mut self) {
        if let Some(slots) = self.slots.take() {
            slots.close();
        }
        if *self.forced.get_mut() {
            self.mapped.memory.keep_addresses();
        }
        // Whoever compiles may still have the list.
        let images = std::mem::take(&mut *self.images.lock());
        for used in &images {
            used.binders.fetch_sub(1, Ordering::Relaxed);
        }
        drop(self);
        drop(images);
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.space.remove(self);
        // SAFETY: done once, here, and nothing of the body is used afterwards but by who gets it.
        let body = unsafe { ManuallyDrop::take(&mut self.body) };
        match self.cycle.get_mut().take() {
            Some(cycle) => cycle.end(self.sequence, body),
            None if body.finish() => body.release(),
            None => std::mem::forget(body),
        }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("name", &self.name)
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}
