//! The runtime: units by name, and how each of them comes to be.

mod dependencies;
mod explain;
mod group;
mod loading;
mod make;
mod misses;
mod why;

pub(crate) use misses::Misses;

use crate::autoload::Autoload;
use crate::back_end::BackEnds;
use crate::builder::RuntimeBuilder;
use crate::cache::{Cache, CacheOptions};
use crate::cpu::compile_for;
use crate::error::Error;
use crate::host_fn::HostFunction;
use crate::input::Compilation;
use crate::lazy::{FunctionTimes, Functions};
use crate::namespace::{Namespace, WeakNamespace};
use crate::observer::Observer;
use crate::unit::Unit;
use crate::unload::{self, Unload};
use hotbed_loader::boundary::Request;
use hotbed_loader::cpu::{CpuFeatures, CpuLevel};
use hotbed_loader::sys::sync::{Condvar, Mutex, ReentrantLock};
use hotbed_loader::{Duplicates, Loader};
use std::collections::{HashMap, HashSet};
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
    /// The processor that code is for, if one was chosen.
    cpu: Option<CpuLevel>,
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
        cache: CacheOptions,
        autoload: bool,
        (color, cpu): (bool, Option<CpuLevel>),
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
            cpu,
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

    /// What is asked of a back end for an image of which all code is for processors of `level`; if nothing is said, for the runtime's.
    pub(crate) fn image_request(
        &self,
        compilation: Compilation,
        name: &str,
        level: Option<CpuLevel>,
    ) -> Result<Request, Error> {
        let mut request = compilation.request(name, self.inner.color)?;
        if let Some(level) = level.or(self.inner.cpu) {
            compile_for(&mut request, level)?;
        }
        Ok(request)
    }

    /// What there is of the processor for code to use.
    pub(crate) fn cpu(&self) -> CpuFeatures {
        self.inner.cpu.map_or_else(CpuFeatures::host, CpuLevel::features)
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

    /// What is loaded more than once: instances of templates, inline functions and variables of which several units have a copy,
    /// and all use the first. The symbols of all units are looked through, and files of images read, so this takes a
    /// moment.
    ///
    /// ```
    /// use hotbed::{Sameness, Source};
    ///
    /// # fn main() -> Result<(), hotbed::Error> {
    /// # let folder = std::env::temp_dir().join(format!("hotbed-doc-duplicates-{}", std::process::id()));
    /// # // The plugin is not beside this example but where cargo puts libraries.
    /// # let plugin = std::path::Path::new(env!("OUT_DIR")).ancestors().map(|path| path.join("libhotbed_jit.so"));
    /// # let plugin = plugin.filter(|path| path.exists()).next().expect("cargo build --workspace");
    /// let runtime = hotbed::Runtime::builder()
    /// #   .back_end(plugin)
    ///     .cache_dir(&folder)
    ///     .build()?;
    /// let text = "inline int twice(int x) { return 2 * x; } int USE(int x) { return twice(x); }";
    /// runtime.load(Source::text("one.cpp", text).flags(["-DUSE=one"]))?;
    /// runtime.load(Source::text("other.cpp", text).flags(["-DUSE=other"]))?;
    ///
    /// let duplicates = runtime.duplicates();
    /// let [twice] = duplicates.all() else { panic!("{duplicates:?}") };
    /// assert_eq!((twice.unit.as_str(), twice.used.as_deref()), ("other.cpp", Some("one.cpp")));
    /// assert_eq!(twice.sameness, Sameness::Equal);
    /// assert_eq!(duplicates.bytes(Sameness::Equal), twice.bytes);
    /// # let _ = std::fs::remove_dir_all(folder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn duplicates(&self) -> Duplicates {
        self.loader().duplicates()
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
