//! A loaded unit.

use crate::error::Error;
use crate::namespace::Namespace;
use crate::pending::Pending;
use crate::provenance::{Identity, Provenance};
use crate::report::Report;
use crate::runtime::{Runtime, WeakRuntime};
use crate::symbol::Symbol;
use crate::unload::{self, Unload};
use hotbed_loader::boundary::Dependency;
use hotbed_loader::sys::sync::{Mutex, RwLock};
use hotbed_loader::{Image, Library};
use std::fmt;
use std::mem::size_of;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// One thing that a host asked to load. It stays loaded until [`Unit::unload`], or until the runtime and every handle of
/// the unit are gone. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct Unit {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    name: String,
    namespace: Namespace,
    /// Place in the order of loading.
    sequence: u64,
    identity: Identity,
    /// Nothing as long as it is a lazy library that waits.
    making: Arc<OnceLock<Making>>,
    /// Nothing once it is unloaded.
    body: RwLock<Option<Body>>,
    /// How many symbols of it are held.
    held: AtomicUsize,
    runtime: WeakRuntime,
}

/// What is loaded.
pub(crate) enum Body {
    Image(Arc<Image>),
    Library(Arc<Library>),
    /// An archive or a lazy library.
    Pending(Arc<Pending>),
}

/// How a unit was made.
pub(crate) struct Making {
    report: Report,
    provenance: Mutex<Provenance>,
}

/// Everything that makes a unit.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) sequence: u64,
    pub(crate) identity: Identity,
    pub(crate) making: Arc<OnceLock<Making>>,
    pub(crate) body: Body,
    pub(crate) runtime: WeakRuntime,
}

/// Keeps a unit from being unloaded otherwise than by force.
pub(crate) struct Hold {
    unit: Arc<Inner>,
}

impl Unit {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { name, namespace, sequence, identity, making, body, runtime } = parts;
        Self {
            inner: Arc::new(Inner {
                name,
                namespace,
                sequence,
                identity,
                making,
                body: RwLock::new(Some(body)),
                held: AtomicUsize::new(0),
                runtime,
            }),
        }
    }

    /// Its name, which is its identity in its namespace.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The namespace that it is loaded in.
    pub fn namespace(&self) -> &Namespace {
        &self.inner.namespace
    }

    /// Whether nothing of it is loaded yet: of an archive no member, of a lazy library nothing at all, as nobody has needed any.
    pub fn is_waiting(&self) -> bool {
        self.pending().is_some_and(|pending| pending.is_waiting())
    }

    /// The names of the members of an archive that are loaded up to now, in load order; none for a unit of another kind.
    pub fn members(&self) -> Vec<String> {
        self.pending().map_or_else(Vec::new, |pending| pending.loaded())
    }

    /// Whether it is a shared library.
    pub fn is_library(&self) -> bool {
        matches!(self.inner.body.read().as_ref(), Some(Body::Library(_)))
    }

    /// What loading it came to; nothing as long as it is a lazy library that waits.
    pub fn report(&self) -> &Report {
        static NOTHING: OnceLock<Report> = OnceLock::new();
        match self.inner.making.get() {
            Some(making) => &making.report,
            None => NOTHING.get_or_init(Report::default),
        }
    }

    /// Whether it is still loaded.
    pub fn is_loaded(&self) -> bool {
        self.inner.body.read().is_some()
    }

    /// The file that it was loaded from, if there is one. An image that the host named runs from a copy, so that this file
    /// may have been changed or deleted since.
    pub fn path(&self) -> Option<PathBuf> {
        match self.inner.body.read().as_ref()? {
            Body::Image(image) => image.path().map(Into::into),
            Body::Library(library) => Some(library.path().into()),
            Body::Pending(pending) => pending.path().map(Into::into),
        }
    }

    /// Every file that was read to make it, and every place where one was looked for in vain. Relative paths are relative to
    /// the directory that was current when it was loaded.
    pub fn dependencies(&self) -> Vec<Dependency> {
        self.inner.making.get().map_or_else(Vec::new, |making| making.provenance.lock().dependencies())
    }

    /// The names it exports, for an archive those of all its members, for a lazy library that waits what is known of it; none for
    /// a shared library, whose symbols only the system knows.
    pub fn exports(&self) -> Vec<String> {
        match self.inner.body.read().as_ref() {
            Some(Body::Image(image)) => image.exports().map(|export| export.name.to_owned()).collect(),
            Some(Body::Pending(pending)) => pending.names(),
            Some(Body::Library(_)) | None => Vec::new(),
        }
    }

    /// The symbol `name` of this very unit, whatever other units call theirs. C++ names are mangled.
    ///
    /// `T` is a function pointer type, or a pointer to the type of a variable. A `thread_local` variable is that of
    /// the calling thread. The member of an archive that defines it, or a lazy library, is loaded if it is not yet.
    ///
    /// # Safety
    /// The symbol is a function of type `T`, or `T` is a pointer to what the symbol is.
    ///
    /// # Errors
    /// When the unit does not define it, or is unloaded; when the member of an archive, or a lazy library, cannot be loaded.
    pub unsafe fn get<T: Copy>(&self, name: &str) -> Result<Symbol<T>, Error> {
        const { assert!(size_of::<T>() == size_of::<usize>(), "a symbol is as large as a pointer") };
        let (address, hold) = self.find(name)?;
        // SAFETY: the sizes are equal, and the caller says that an address is what `T` is made of.
        let value = unsafe { std::mem::transmute_copy::<usize, T>(&address) };
        Ok(Symbol::new(value, hold))
    }

    /// The address of the symbol `name` of this very unit; nothing keeps the unit loaded for it.
    pub fn address_of(&self, name: &str) -> Option<usize> {
        self.find(name).ok().map(|(address, _)| address)
    }

    /// Unloads it: its destructors run on this thread, those of the `thread_local` objects of this thread first, then its
    /// memory is given back. Other handles of it stay valid but have no symbols any more.
    ///
    /// # Errors
    /// When a [`Symbol`] of it is held, another unit or an open library is bound to it, or another thread has destructors
    /// of its `thread_local` objects to call; then nothing changes.
    pub fn unload(&self) -> Result<(), Error> {
        self.unload_with(Unload::refusing())
    }

    /// The same, with what stands in the way treated as `how` says.
    ///
    /// # Errors
    /// When something stands in the way all the same, or when it is unloaded already; then nothing changes.
    pub fn unload_with(&self, how: Unload) -> Result<(), Error> {
        unload::together(std::slice::from_ref(self), how)
    }

    /// Whether both are handles of the same unit.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.inner.sequence
    }

    /// Makes sure that asking for `identity` would give this unit again.
    ///
    /// # Errors
    /// What differs, in words.
    pub(crate) fn same_as(&self, identity: &Identity) -> Result<(), String> {
        if self.inner.identity != *identity {
            return Err("from other content".into());
        }
        let Some(making) = self.inner.making.get() else { return Ok(()) };
        making.provenance.lock().check().map_err(|changed| format!("and {changed} since then"))
    }

    /// The lock of what is loaded.
    pub(crate) fn body(&self) -> &RwLock<Option<Body>> {
        &self.inner.body
    }

    /// How many symbols of it are held.
    pub(crate) fn held(&self) -> usize {
        self.inner.held.load(Ordering::Acquire)
    }

    pub(crate) fn runtime(&self) -> &WeakRuntime {
        &self.inner.runtime
    }

    pub(crate) fn images(&self) -> Vec<Arc<Image>> {
        match self.inner.body.read().as_ref() {
            Some(Body::Image(image)) => vec![Arc::clone(image)],
            Some(Body::Pending(pending)) => pending.images(),
            Some(Body::Library(_)) | None => Vec::new(),
        }
    }

    pub(crate) fn pending(&self) -> Option<Arc<Pending>> {
        match self.inner.body.read().as_ref()? {
            Body::Pending(pending) => Some(Arc::clone(pending)),
            Body::Image(_) | Body::Library(_) => None,
        }
    }

    fn find(&self, symbol: &str) -> Result<(usize, Hold), Error> {
        if let (Err(_), Some(pending)) = (self.find_loaded(symbol), self.pending())
            && let Some(runtime) = Runtime::upgrade(&self.inner.runtime)
        {
            runtime.pull(&pending, symbol)?;
        }
        self.find_loaded(symbol)
    }

    fn find_loaded(&self, symbol: &str) -> Result<(usize, Hold), Error> {
        let fail = |reason: &str| Error::Get {
            unit: self.inner.name.clone(),
            symbol: symbol.to_owned(),
            reason: reason.to_owned(),
        };
        let body = self.inner.body.read();
        let in_image = |image: &Arc<Image>| image.get(symbol).map(|definition| definition.address);
        let address = match body.as_ref() {
            None => return Err(fail("the unit is unloaded")),
            Some(Body::Image(image)) => in_image(image),
            Some(Body::Library(library)) => library.get(symbol),
            Some(Body::Pending(pending)) => pending.images().iter().find_map(in_image),
        };
        let address = address.ok_or_else(|| fail("the unit does not define it"))?;
        // Under the lock, so that nobody unloads it in between.
        Ok((address, Hold::new(&self.inner)))
    }
}

impl Making {
    pub(crate) fn new(report: Report, provenance: Provenance) -> Self {
        Self { report, provenance: Mutex::new(provenance) }
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit").field("name", &self.inner.name).field("loaded", &self.is_loaded()).finish()
    }
}

impl Hold {
    fn new(unit: &Arc<Inner>) -> Self {
        unit.held.fetch_add(1, Ordering::AcqRel);
        Self { unit: Arc::clone(unit) }
    }

    pub(crate) fn unit(&self) -> &str {
        &self.unit.name
    }

    /// Whether the unit is still loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        self.unit.body.read().is_some()
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        Self::new(&self.unit)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.unit.held.fetch_sub(1, Ordering::AcqRel);
    }
}
