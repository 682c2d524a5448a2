//! The runtime: units by name, and how each of them comes to be.

mod explain;
mod group;
mod loading;
mod make;
mod misses;

pub(crate) use misses::Misses;

use crate::autoload::Autoload;
use crate::back_end::BackEnds;
use crate::builder::RuntimeBuilder;
use crate::cache::Cache;
use crate::error::Error;
use crate::host_fn::HostFunction;
use crate::input::{Kind, Load};
use crate::lazy::{FunctionTimes, Functions};
use crate::namespace::{Namespace, WeakNamespace};
use crate::observer::Observer;
use crate::output;
use crate::report::Report;
use crate::unit::Unit;
use crate::unload::{self, Unload};
use hotbed_loader::Loader;
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::store::Key;
use hotbed_loader::sys::sync::{Condvar, Mutex, ReentrantLock};
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

/// Loads units into this process. Two runtimes know nothing of each other. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

pub(crate) type WeakRuntime = Weak<Inner>;

pub(crate) struct Inner {
    loader: Loader,
    back_ends: Arc<BackEnds>,
    functions: Option<Arc<Functions>>,
    cache: Cache,
    autoload: Option<Autoload>,
    color: bool,
    observer: Arc<dyn Observer>,
    /// The namespace of who asks for none.
    namespace: Namespace,
    units: Mutex<HashMap<UnitKey, Unit>>,
    /// Names that some thread is loading a unit for.
    loading: Mutex<HashSet<UnitKey>>,
    loaded: Condvar,
    sequence: AtomicU64,
    /// All others.
    namespaces: Mutex<Vec<WeakNamespace>>,
    /// The right to load what is pending, of one thread at a time: nobody must take the same.
    pulling: ReentrantLock,
}

/// A namespace by its number, and a name in it.
type UnitKey = (u64, String);

impl Runtime {
    /// A builder with the usual settings.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    pub(crate) fn assemble(
        (loader, misses): (Loader, &Misses),
        (back_ends, functions): (Arc<BackEnds>, Option<Arc<Functions>>),
        cache: Option<PathBuf>,
        autoload: bool,
        color: bool,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let inner = |this: &WeakRuntime| Inner {
            namespace: Namespace::default_of(&loader, Weak::clone(this)),
            namespaces: Mutex::default(),
            pulling: ReentrantLock::default(),
            loader,
            back_ends,
            functions,
            cache: Cache::new(cache),
            autoload: autoload.then(Autoload::default),
            color,
            observer,
            units: Mutex::new(HashMap::new()),
            loading: Mutex::new(HashSet::new()),
            loaded: Condvar::new(),
            sequence: AtomicU64::new(0),
        };
        let runtime = Self { inner: Arc::new_cyclic(inner) };
        misses.connect(runtime.downgrade());
        runtime
    }

    /// Defines a symbol of the host, which every unit that is loaded later finds before other units' and the process's.
    ///
    /// # Errors
    /// When the name is defined already, with another address.
    pub fn define(&self, name: &str, function: impl Into<HostFunction>) -> Result<(), Error> {
        self.inner
            .loader
            .define(name, function.into().address())
            .map_err(|source| Error::Define { symbol: name.to_owned(), source: Box::new(source) })
    }

    /// Unloads several units together, which may be bound to each other: those that were loaded last end first. Only who
    /// is bound from outside stands in the way.
    ///
    /// # Errors
    /// As for [`Unit::unload`]; then none is unloaded. A unit of another runtime is one as well.
    pub fn unload(&self, units: &[Unit]) -> Result<(), Error> {
        self.unload_with(units, Unload::refusing())
    }

    /// The same, with what stands in the way treated as `how` says.
    ///
    /// # Errors
    /// As for [`Unit::unload_with`]; then none is unloaded.
    pub fn unload_with(&self, units: &[Unit], how: Unload) -> Result<(), Error> {
        if let Some(unit) =
            units.iter().find(|unit| !std::ptr::eq(unit.runtime().as_ptr(), Arc::as_ptr(&self.inner)))
        {
            let reason = "it is of another runtime".to_owned();
            return Err(Error::Unload { unit: unit.name().to_owned(), reason });
        }
        unload::together(units, how)
    }

    /// Compiles and links without loading, and writes the image to the file `path`. What is there is replaced as a whole.
    ///
    /// # Errors
    /// What is wrong with the input; that it is no input for a compiler; that the file cannot be written.
    pub fn build_image(&self, what: impl Into<Load>, path: impl AsRef<Path>) -> Result<Report, Error> {
        let Load { name, kind, .. } = what.into();
        let compilation = match kind {
            Kind::Compile(compilation) => Some(compilation),
            Kind::Archive(archive) => Some(archive.whole()),
            Kind::Lazy(compilation, _) => Some(compilation),
            Kind::Image(_) | Kind::Library(_) => None,
        };
        let Some(compilation) = compilation else {
            let message = format!("cannot build an image of {name}: it is linked already");
            return Err(Error::of_failure(&name, Failure::new(FailureKind::Usage, message)));
        };
        let path = path.as_ref();
        let mut request = compilation.request(&name, self.inner.color)?;
        // What is linked against the image will look for it by the name of its file.
        request.soname = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let request = Arc::new(request);
        let made = self.make(&request, &Key::of(&request))?;
        output::write_image(made.image.as_fd(), path)?;
        Ok(made.report)
    }

    pub(crate) fn loader(&self) -> &Loader {
        &self.inner.loader
    }

    pub(crate) fn downgrade(&self) -> WeakRuntime {
        Arc::downgrade(&self.inner)
    }

    /// The runtime, unless it is gone.
    pub(crate) fn upgrade(weak: &WeakRuntime) -> Option<Self> {
        Some(Self { inner: weak.upgrade()? })
    }

    /// The namespace of units that are loaded into none in particular.
    pub fn default_namespace(&self) -> &Namespace {
        &self.inner.namespace
    }

    /// Notes a new namespace.
    pub(crate) fn remember(&self, namespace: &Namespace) {
        let mut namespaces = self.inner.namespaces.lock();
        namespaces.retain(|other| other.upgrade().is_some());
        namespaces.push(namespace.downgrade());
    }

    /// The namespace that the loader knows as `namespace`.
    fn namespace_with(&self, namespace: &hotbed_loader::Namespace) -> Option<Namespace> {
        let default = &self.inner.namespace;
        if default.loader() == namespace {
            return Some(default.clone());
        }
        let all: Vec<Namespace> =
            self.inner.namespaces.lock().iter().filter_map(WeakNamespace::upgrade).collect();
        all.into_iter().find(|other| other.loader() == namespace)
    }

    /// Whether a unit of that name is loaded in the default namespace.
    pub fn is_loaded(&self, name: &str) -> bool {
        self.unit(name).is_some()
    }

    /// The unit of that name in the default namespace.
    pub fn unit(&self, name: &str) -> Option<Unit> {
        self.unit_in(&self.inner.namespace, name)
    }

    /// The unit of that name in a namespace.
    pub fn unit_in(&self, namespace: &Namespace, name: &str) -> Option<Unit> {
        self.inner.units.lock().get(&(namespace.number(), name.to_owned())).cloned()
    }

    /// All units, in the order in which they were loaded.
    pub fn units(&self) -> Vec<Unit> {
        units(&self.inner)
    }

    /// Ends all workers that wait for work, so that no process and no descriptor of theirs is left. The next compilation
    /// starts a new one.
    pub fn shut_down_workers(&self) {
        self.inner.back_ends.shut_down_workers();
    }

    /// How many functions were compiled because somebody called them ([`Source::lazy`](crate::Source::lazy)).
    pub fn functions_compiled(&self) -> u32 {
        self.inner.functions.as_ref().map_or(0, |functions| functions.compiled())
    }

    /// Whether a back end was used for that.
    pub fn functions_took_back_end(&self) -> bool {
        self.inner.functions.as_ref().is_some_and(|functions| functions.back_end_used())
    }

    /// What functions that are compiled when they are first called have taken, in this process: a child of a fork counts
    /// anew.
    ///
    /// The same is told as it happens, at tracing's level `DEBUG`: a span `function` for every function that is asked for, with
    /// the fields `unit` (its name), `slot`, `deep` (whether all that it calls is compiled too), `source`, `function` (as linkers
    /// see it) and `outcome` (`compiled`, or why it cannot be); in it an event `compiled a function` for every one that was,
    /// with `unit`, `source`, `function` and `ms`.
    pub fn function_times(&self) -> FunctionTimes {
        self.inner.functions.as_ref().map(|functions| functions.times()).unwrap_or_default()
    }

    /// Warns the observer if a trace ([`RuntimeBuilder::trace`]) could not be written, unless that was said before: for a process that
    /// is about to end without dropping the runtime.
    pub fn check_trace(&self) {
        if let Some(functions) = &self.inner.functions {
            functions.check_trace();
        }
    }

    /// Waits until nobody else loads a unit of one of these names of a namespace.
    fn turns(&self, namespace: u64, names: &[&str]) -> Turns<'_> {
        let keys: Vec<UnitKey> = names.iter().map(|name| (namespace, (*name).to_owned())).collect();
        let mut loading = self.inner.loading.lock();
        // All at once, so that nobody waits who has a part of them.
        while keys.iter().any(|key| loading.contains(key)) {
            loading = self.inner.loaded.wait(loading);
        }
        loading.extend(keys.iter().cloned());
        Turns { inner: &self.inner, keys }
    }
}

/// The right to load units of these names.
struct Turns<'a> {
    inner: &'a Inner,
    keys: Vec<UnitKey>,
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        let mut loading = self.inner.loading.lock();
        self.keys.iter().for_each(|key| {
            loading.remove(key);
        });
        drop(loading);
        self.inner.loaded.notify_all();
    }
}

/// All units in load order.
pub(crate) fn units(runtime: &Inner) -> Vec<Unit> {
    let mut units: Vec<Unit> = runtime.units.lock().values().cloned().collect();
    units.sort_by_key(Unit::sequence);
    units
}

/// Strikes an unloaded unit off the list.
pub(crate) fn forget(runtime: &Inner, unit: &Unit) {
    let key = (unit.namespace().number(), unit.name().to_owned());
    let mut units = runtime.units.lock();
    if units.get(&key).is_some_and(|listed| listed.is(unit)) {
        let removed = units.remove(&key);
        drop(units);
        drop(removed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Destructors in the reverse order of constructors.
        let mut units: Vec<Unit> = std::mem::take(self.units.get_mut()).into_values().collect();
        units.sort_by_key(|unit| std::cmp::Reverse(unit.sequence()));
        units.into_iter().for_each(drop);
        // Threads that compile may keep the functions a while.
        if let Some(functions) = &self.functions {
            functions.check_trace();
        }
    }
}

#[cfg(test)]
mod tests;
