//! The runtime: units by name, and how each of them comes to be.

mod explain;

use crate::autoload::Autoload;
use crate::back_end::BackEnds;
use crate::builder::RuntimeBuilder;
use crate::cache::Cache;
use crate::error::Error;
use crate::host_fn::HostFunction;
use crate::input::{Compilation, Kind, LibraryName, Load, Place};
use crate::named::NamedImage;
use crate::observer::Observer;
use crate::output;
use crate::provenance::{Identity, Provenance};
use crate::report::Report;
use crate::unit::{Body, Parts, Unit};
use crate::unload::{self, Unload};
use hotbed_loader::boundary::{Content, Failure, FailureKind, Reply, Request};
use hotbed_loader::image::ImageSource;
use hotbed_loader::store::Key;
use hotbed_loader::sys::files::{self, Stamp};
use hotbed_loader::{Layer, Library, LibraryRequest, LoadError, Loader};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Loads units into this process. Two runtimes know nothing of each other. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

pub(crate) type WeakRuntime = Weak<Inner>;

pub(crate) struct Inner {
    loader: Loader,
    back_ends: BackEnds,
    cache: Cache,
    autoload: Option<Autoload>,
    color: bool,
    observer: Arc<dyn Observer>,
    units: Mutex<HashMap<String, Unit>>,
    /// Names that some thread is loading a unit for.
    loading: Mutex<HashSet<String>>,
    loaded: Condvar,
    sequence: AtomicU64,
}

/// An image that was found or made, and how.
struct Made {
    report: Report,
    provenance: Provenance,
    image: OwnedFd,
    /// Its file in the store.
    path: Option<PathBuf>,
}

impl Runtime {
    /// A builder with the usual settings.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    pub(crate) fn assemble(
        loader: Loader,
        back_ends: BackEnds,
        cache: Option<PathBuf>,
        autoload: bool,
        color: bool,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let inner = Inner {
            loader,
            back_ends,
            cache: Cache::new(cache),
            autoload: autoload.then(Autoload::default),
            color,
            observer,
            units: Mutex::new(HashMap::new()),
            loading: Mutex::new(HashSet::new()),
            loaded: Condvar::new(),
            sequence: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
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

    /// Loads a unit: finds its image in the store or has it compiled and linked, maps it, binds it, runs its
    /// constructors. When a unit of that name and the same content is loaded, gives that.
    ///
    /// Other threads may load at the same time; those that ask for the same name wait for the first. A constructor of the unit
    /// must not load a unit of the same name.
    ///
    /// # Errors
    /// What is wrong with the input, the compiler's messages with it; what cannot be resolved; that the name is taken. Then
    /// nothing is loaded.
    pub fn load(&self, what: impl Into<Load>) -> Result<Unit, Error> {
        let Load { name, kind } = what.into();
        if name.is_empty() {
            let failure = Failure::new(FailureKind::Usage, "cannot load a unit without a name");
            return Err(Error::of_failure("", failure));
        }
        let _span = tracing::debug_span!("load", unit = %name).entered();
        let _turn = self.turn(&name);
        match kind {
            Kind::Compile(compilation) => self.load_compiled(&name, compilation),
            Kind::Image(place) => self.load_image(&name, &place),
            Kind::Library(library) => self.load_library(&name, library),
        }
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
        let Load { name, kind } = what.into();
        let Kind::Compile(compilation) = kind else {
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

    /// Whether a unit of that name is loaded.
    pub fn is_loaded(&self, name: &str) -> bool {
        self.inner.units.lock().contains_key(name)
    }

    /// The unit of that name.
    pub fn unit(&self, name: &str) -> Option<Unit> {
        self.inner.units.lock().get(name).cloned()
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

    fn load_compiled(&self, name: &str, compilation: Compilation) -> Result<Unit, Error> {
        let request = Arc::new(compilation.request(name, self.inner.color)?);
        let key = Key::of(&request);
        let relative =
            request.inputs().any(|input| matches!(&input.content, Content::File(path) if path.is_relative()));
        let identity = Identity::Compiled(key, relative.then(|| request.directory.clone()));
        if let Some(unit) = self.already(name, &identity)? {
            return Ok(unit);
        }
        let Made { mut report, provenance, image, path } = self.make(&request, &key)?;
        let shown = path.as_deref().unwrap_or_else(|| Path::new(name));
        let image = self.map_copy(name, image, shown)?;
        report.times = image.times();
        Ok(self.add(name, identity, provenance, report, Body::Image(image)))
    }

    fn load_image(&self, name: &str, place: &Place) -> Result<Unit, Error> {
        let damaged = |source| Error::Image { unit: name.to_owned(), source };
        let (checksum, image) = match place {
            Place::Bytes(bytes) => {
                let checksum = hotbed_loader::image::note::verify(bytes).map_err(damaged)?;
                if let Some(unit) = self.already(name, &Identity::Image(checksum))? {
                    return Ok(unit);
                }
                (checksum, self.map(name, ImageSource::Bytes(bytes))?)
            }
            Place::File(path) => {
                let (cache, observer) = (&self.inner.cache, &*self.inner.observer);
                let named = NamedImage::find(cache, name, path, observer)?;
                let checksum = named.checksum;
                if let Some(unit) = self.already(name, &Identity::Image(checksum))? {
                    return Ok(unit);
                }
                let copy = named.into_copy(cache, name, path, observer)?;
                (checksum, self.map_copy(name, copy, path)?)
            }
        };
        let report = Report { times: image.times(), ..Report::default() };
        Ok(self.add(name, Identity::Image(checksum), Provenance::Itself, report, Body::Image(image)))
    }

    fn load_library(&self, name: &str, library: LibraryName) -> Result<Unit, Error> {
        let library = match library {
            // The same file, wherever the working directory is by then.
            LibraryName::Path(path) => LibraryName::Path(std::path::absolute(&path).unwrap_or(path)),
            named => named,
        };
        let identity = Identity::Library(library.clone());
        if let Some(unit) = self.already(name, &identity)? {
            return Ok(unit);
        }
        let request = match &library {
            LibraryName::Path(path) => LibraryRequest::Path(path),
            LibraryName::Name(name) => LibraryRequest::Name(name),
        };
        let opened = self
            .inner
            .loader
            .open_library(request)
            .map_err(|source| Error::Library { unit: name.to_owned(), source: Box::new(source) })?;
        Ok(self.add(name, identity, Provenance::Itself, Report::default(), Body::Library(opened)))
    }

    /// Finds the image for `request` in the store, or has it made and stores it.
    fn make(&self, request: &Arc<Request>, key: &Key) -> Result<Made, Error> {
        let observer = &*self.inner.observer;
        let unit = &request.unit;
        let store = self.inner.cache.store(observer);
        let mut report = Report::default();
        if let Some(store) = store {
            match store.find(key, &request.directory) {
                Ok(hit) => {
                    tracing::debug!(image = %hit.path.display(), "from the store");
                    observer.note(&format!("{unit}: from the store, {}", hit.path.display()));
                    report.from_store = true;
                    let provenance =
                        Provenance::Recorded { record: hit.record, directory: request.directory.clone() };
                    return Ok(Made { report, provenance, image: hit.file, path: Some(hit.path) });
                }
                Err(miss) => {
                    if let Some(path) = miss.path() {
                        files::outlive_tick(&request.directory.join(path));
                    }
                    let miss = miss.to_string();
                    tracing::debug!(%miss, "not in the store");
                    observer.note(&format!("{unit}: not in the store: {miss}"));
                    report.miss = Some(miss);
                }
            }
        }
        for input in request.inputs() {
            if let Content::File(path) = &input.content {
                files::outlive_tick(path);
            }
        }
        let started = Stamp::now();
        let (mut reply, image) = self.compile(request)?;
        report.absorb(&mut reply);
        let Reply { dependencies, reproducible, .. } = reply;
        if let Some(store) = store {
            if !reproducible {
                observer
                    .note(&format!("{unit}: not stored: it uses the date or the time of its compilation, or has the assembler read files"));
            } else {
                match store.insert(key, &request.directory, &dependencies, started, image.as_fd()) {
                    Ok(hit) => {
                        let provenance =
                            Provenance::Recorded { record: hit.record, directory: request.directory.clone() };
                        return Ok(Made { report, provenance, image: hit.file, path: Some(hit.path) });
                    }
                    Err(error) => self.inner.cache.complain(&error, unit, observer),
                }
            }
        }
        let provenance = Provenance::Since { dependencies, directory: request.directory.clone(), started };
        Ok(Made { report, provenance, image, path: None })
    }

    fn compile(&self, request: &Arc<Request>) -> Result<(Reply, OwnedFd), Error> {
        let _span = tracing::debug_span!("compile").entered();
        let observer = &*self.inner.observer;
        observer.compiling(&request.unit);
        let answer = self.inner.back_ends.compile(request);
        observer.compiled();
        let log = match &answer {
            Ok((reply, _)) => &reply.log[..],
            Err(error) => error.log(),
        };
        log.iter().for_each(|line| observer.note(line));
        answer
    }

    /// Maps what nobody changes: a file of the store or in memory, which goes by the name `path`.
    fn map_copy(
        &self,
        name: &str,
        file: OwnedFd,
        path: &Path,
    ) -> Result<Arc<hotbed_loader::image::Image>, Error> {
        match self.map(name, ImageSource::Descriptor { file: file.as_fd(), path }) {
            // The store may be on a file system that nothing can be executed from.
            Err(Error::Bind { source, .. }) if is_refused(&source) => {
                let copy = files::contents(file.as_fd())
                    .and_then(|bytes| files::memory_copy(name, &bytes))
                    .map_err(|e| Error::read(name, path, &e))?;
                self.map(name, ImageSource::Descriptor { file: copy.as_fd(), path })
            }
            other => other,
        }
    }

    fn map(&self, name: &str, source: ImageSource<'_>) -> Result<Arc<hotbed_loader::image::Image>, Error> {
        let _span = tracing::debug_span!("map").entered();
        let image = self
            .map_on_demand(name, source)
            .map_err(|source| Error::Bind { unit: name.to_owned(), source: Box::new(source) })?;
        let replaced = image.replaced_allocator();
        if !replaced.is_empty() {
            self.inner.observer.warning(&format!(
                "{name} replaces {}: too late for the C library and all others that are loaded",
                replaced.join(", ")
            ));
        }
        Ok(image)
    }

    /// Maps an image, with libraries opened on demand for what nobody has, as often as that helps.
    fn map_on_demand(
        &self,
        name: &str,
        source: ImageSource<'_>,
    ) -> Result<Arc<hotbed_loader::image::Image>, LoadError> {
        let Inner { loader, cache, observer, .. } = &*self.inner;
        // Held until the image is bound and holds what it is bound to.
        let mut opened: Vec<Arc<Library>> = Vec::new();
        loop {
            let error = match (loader.load_image(name, source), &self.inner.autoload) {
                (Err(error), Some(autoload)) => (error, autoload),
                (result, _) => return result,
            };
            let (LoadError::Unresolved { unit, symbols, mut asked }, autoload) = error else {
                return Err(error.0);
            };
            let mut new = autoload.open(name, &symbols, loader, cache, &**observer);
            new.retain(|library| !opened.iter().any(|known| Arc::ptr_eq(known, library)));
            if new.is_empty() {
                asked.push(Layer::OnDemand);
                return Err(LoadError::Unresolved { unit, symbols, asked });
            }
            opened.append(&mut new);
        }
    }

    /// The unit of that name, if it is what is asked for.
    fn already(&self, name: &str, identity: &Identity) -> Result<Option<Unit>, Error> {
        let Some(unit) = self.unit(name) else { return Ok(None) };
        match unit.same_as(identity) {
            Ok(()) => Ok(Some(unit)),
            Err(reason) => Err(Error::NameTaken { unit: name.to_owned(), reason }),
        }
    }

    fn add(
        &self,
        name: &str,
        identity: Identity,
        provenance: Provenance,
        report: Report,
        body: Body,
    ) -> Unit {
        let unit = Unit::new(Parts {
            name: name.to_owned(),
            sequence: self.inner.sequence.fetch_add(1, Ordering::Relaxed),
            identity,
            provenance,
            report,
            body,
            runtime: Arc::downgrade(&self.inner),
        });
        self.inner.units.lock().insert(name.to_owned(), unit.clone());
        unit
    }

    /// Waits until nobody else loads a unit of that name.
    fn turn(&self, name: &str) -> Turn<'_> {
        let mut loading = self.inner.loading.lock();
        while loading.contains(name) {
            self.inner.loaded.wait(&mut loading);
        }
        loading.insert(name.to_owned());
        Turn { inner: &self.inner, name: name.to_owned() }
    }
}

/// Whether the system refuses to map a file for execution, wherever its contents come from.
fn is_refused(error: &LoadError) -> bool {
    matches!(error, LoadError::Map { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The right to load a unit of one name.
struct Turn<'a> {
    inner: &'a Inner,
    name: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.inner.loading.lock().remove(&self.name);
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
pub(crate) fn forget(runtime: &Inner, name: &str, unit: &Unit) {
    let mut units = runtime.units.lock();
    if units.get(name).is_some_and(|listed| listed.is(unit)) {
        let removed = units.remove(name);
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
    }
}

#[cfg(test)]
mod tests;
