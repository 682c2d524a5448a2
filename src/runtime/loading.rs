//! Loading: each unit is made first, without any code of it running, then all that were asked for in one call are loaded together.

use super::Runtime;
use super::group::{Group, Piece, Source};
use crate::archive::{Archived, Members};
use crate::cpu::Chosen;
use crate::error::Error;
use crate::input::{Compilation, Kind, LibraryName, Load, Place};
use crate::named::NamedImage;
use crate::namespace::Namespace;
use crate::pending::{self, LazyLibrary, Pending};
use crate::provenance::{Identity, Provenance};
use crate::report::Report;
use crate::unit::{Body, Making, Parts, Unit};
use hotbed_loader::boundary::{Content, Failure, FailureKind, Request};
use hotbed_loader::store::Key;
use hotbed_loader::sys::files::FileStatus;
use hotbed_loader::{Library, LibraryRequest};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// A unit that is made and not loaded.
struct Ready {
    name: String,
    identity: Identity,
    provenance: Provenance,
    report: Report,
    what: What,
}

enum What {
    /// It is loaded already.
    Unit(Unit),
    Image(Piece),
    Library(LibraryName),
    Pending(Arc<Pending>),
}

impl Ready {
    fn new(name: String, identity: Identity, what: What) -> Self {
        Self { name, identity, provenance: Provenance::Itself, report: Report::default(), what }
    }
}

/// Archives and lazy libraries that are in their namespace unless this goes without being emptied.
struct Shelved(Vec<Arc<Pending>>);

impl Drop for Shelved {
    fn drop(&mut self) {
        self.0.iter().for_each(|pending| pending.namespace().remove_pending(pending));
    }
}

impl Runtime {
    /// Loads a unit: finds its image in the store or has it compiled and linked, maps it, binds it, runs its
    /// constructors. When a unit of that name and the same content is loaded in that namespace, gives that.
    ///
    /// Other threads may load at the same time; those that ask for the same name wait for the first. A constructor of the unit
    /// must not load a unit of the same name, nor wait for another thread that loads.
    ///
    /// # Errors
    /// What is wrong with the input, the compiler's messages with it; what cannot be resolved; that the name is taken. Then
    /// nothing is loaded.
    pub fn load(&self, what: impl Into<Load>) -> Result<Unit, Error> {
        let load = what.into();
        let name = load.name.clone();
        let mut units = self.load_all([load])?;
        units.pop().ok_or_else(|| usage(&name, format!("cannot load {name}: nothing came of it")))
    }

    /// Loads several units of any kinds, which may need each other, in any order; all in one namespace. Everything is
    /// compiled first; then everything is mapped, everything bound, and whatever others need is started before
    /// them. The units come in the order in which they were asked for, which is also their place in the search. Images that an image
    /// [depends on](crate::ImageBuilder::dependency) and that are not loaded come along, behind all others, as units by their paths.
    ///
    /// # Errors
    /// As for [`Runtime::load`], and when a name comes twice or the namespaces differ. No unit is loaded then.
    pub fn load_all(&self, all: impl IntoIterator<Item = Load>) -> Result<Vec<Unit>, Error> {
        let mut all: Vec<Load> = all.into_iter().collect();
        let (namespace, asked_for) = (self.namespace_of(&all)?, all.len());
        self.add_dependencies(&namespace, &mut all);
        let names: Vec<&str> = all.iter().map(|load| &*load.name).collect();
        for (at, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(usage("", "cannot load a unit without a name".into()));
            }
            if names[..at].contains(name) {
                return Err(usage(name, format!("cannot load {name}: named twice")));
            }
        }
        let _turns = self.turns(namespace.number(), &names);
        let mut ready = Vec::with_capacity(all.len());
        for Load { name, kind, .. } in all {
            let _span = tracing::debug_span!("load", unit = %name).entered();
            ready.push(match kind {
                Kind::Compile(compilation) => self.ready_compiled(&namespace, name, compilation)?,
                Kind::Image(place) => self.ready_image(&namespace, name, place)?,
                Kind::Library(library) => self.ready_library(&namespace, name, library)?,
                Kind::Archive(archive) => self.ready_archive(&namespace, name, archive)?,
                Kind::Lazy(compilation, declared) => {
                    self.ready_lazy(&namespace, name, compilation, declared)?
                }
            });
        }
        let mut units = self.load_ready(&namespace, ready)?;
        units.truncate(asked_for);
        Ok(units)
    }

    /// The one namespace of all of them.
    fn namespace_of(&self, all: &[Load]) -> Result<Namespace, Error> {
        let mut one: Option<Namespace> = None;
        for load in all {
            let namespace = load.namespace.as_ref().unwrap_or(&self.inner.namespace);
            let name = &load.name;
            if !namespace.belongs_to(&self.downgrade()) {
                return Err(usage(name, format!("cannot load {name}: its namespace is of another runtime")));
            }
            if one.get_or_insert_with(|| namespace.clone()) != namespace {
                return Err(usage(name, format!("cannot load {name} with units of another namespace")));
            }
        }
        Ok(one.unwrap_or_else(|| self.inner.namespace.clone()))
    }

    fn ready_compiled(
        &self,
        namespace: &Namespace,
        name: String,
        compilation: Compilation,
    ) -> Result<Ready, Error> {
        let request = Arc::new(self.request(compilation, &name)?);
        let key = Key::of(&request);
        let relative =
            request.inputs().any(|input| matches!(&input.content, Content::File(path) if path.is_relative()));
        let identity = Identity::Compiled(key, relative.then(|| request.directory.clone()));
        if let Some(unit) = self.already(namespace, &name, &identity)? {
            return Ok(Ready::new(name, identity, What::Unit(unit)));
        }
        let made = self.make(&request, &key)?;
        // What has a trace stays as that says.
        if request.lazy && request.trace.is_none() {
            self.note_origin(&request, &made);
        }
        let path = made.path.unwrap_or_else(|| PathBuf::from(&name));
        let source = Source::Copy { file: made.image, path };
        let piece =
            Piece { name: name.clone(), source, request: Some(request).filter(|request| request.lazy) };
        let (provenance, report) = (made.provenance, made.report);
        Ok(Ready { name, identity, provenance, report, what: What::Image(piece) })
    }

    /// What is asked of a back end for the unit `name` of this process.
    pub(super) fn request(&self, compilation: Compilation, name: &str) -> Result<Request, Error> {
        let request = self.image_request(compilation, name, None)?;
        let traced = self.traces() && request.inputs().any(|input| input.lang.is_compiled());
        // Where nobody compiles functions when they are called, units are compiled whole.
        let lazy = (request.lazy || traced) && self.inner.functions.is_some();
        Ok(Request { lazy, ..request })
    }

    /// Whether first calls are written down, for which functions must be compiled one by one.
    fn traces(&self) -> bool {
        self.inner.functions.as_ref().is_some_and(|functions| functions.traces())
    }

    fn ready_image(&self, namespace: &Namespace, name: String, place: Place) -> Result<Ready, Error> {
        let known = |checksum| {
            let identity = Identity::Image(checksum);
            let unit = self.already(namespace, &name, &identity)?;
            Ok::<_, Error>((identity, unit))
        };
        let (identity, source) = match place {
            Place::Bytes(bytes) => {
                let chosen = Chosen::of(&name, &bytes, || self.cpu())?;
                let part = (chosen.variants.len() > 1).then(|| chosen.bytes().to_vec());
                match known(chosen.checksum)? {
                    (identity, Some(unit)) => return Ok(Ready::new(name, identity, What::Unit(unit))),
                    (identity, None) => (identity, Source::Bytes(part.unwrap_or(bytes))),
                }
            }
            Place::File(path) => {
                let (cache, observer) = (&self.inner.cache, &*self.inner.observer);
                let named = NamedImage::find(cache, &name, &path, || self.cpu(), observer)?;
                match known(named.checksum)? {
                    (identity, Some(unit)) => return Ok(Ready::new(name, identity, What::Unit(unit))),
                    (identity, None) => {
                        let file = named.into_copy(cache, &name, &path, observer)?;
                        (identity, Source::Copy { file, path })
                    }
                }
            }
        };
        let piece = Piece { name: name.clone(), source, request: None };
        Ok(Ready::new(name, identity, What::Image(piece)))
    }

    fn ready_library(
        &self,
        namespace: &Namespace,
        name: String,
        library: LibraryName,
    ) -> Result<Ready, Error> {
        let library = match library {
            // The same file, wherever the working directory is by then.
            LibraryName::Path(path) => LibraryName::Path(std::path::absolute(&path).unwrap_or(path)),
            named => named,
        };
        let identity = Identity::Library(library.clone());
        let what = match self.already(namespace, &name, &identity)? {
            Some(unit) => What::Unit(unit),
            None => What::Library(library),
        };
        Ok(Ready::new(name, identity, what))
    }

    fn ready_archive(&self, namespace: &Namespace, name: String, archive: Archived) -> Result<Ready, Error> {
        let members = Members::read(&name, archive)?;
        let identity = Identity::Archive(members.hash);
        let what = match self.already(namespace, &name, &identity)? {
            Some(unit) => What::Unit(unit),
            None => What::Pending(Pending::new(&name, namespace, pending::What::Archive(members))),
        };
        Ok(Ready::new(name, identity, what))
    }

    /// Nothing of it is read, but that its files are there.
    fn ready_lazy(
        &self,
        namespace: &Namespace,
        name: String,
        compilation: Compilation,
        declared: Option<BTreeSet<String>>,
    ) -> Result<Ready, Error> {
        let request = Arc::new(self.request(compilation, &name)?);
        for input in request.inputs() {
            if let Content::File(path) = &input.content {
                FileStatus::of_path(&request.directory.join(path))
                    .map_err(|e| Error::read(&name, path, &e))?;
            }
        }
        let key = Key::of(&request);
        let identity = Identity::Lazy(key, request.directory.clone(), declared.clone());
        let what = match self.already(namespace, &name, &identity)? {
            Some(unit) => What::Unit(unit),
            None => {
                let library = LazyLibrary::new(request, key, declared);
                What::Pending(Pending::new(&name, namespace, pending::What::Library(library)))
            }
        };
        Ok(Ready::new(name, identity, what))
    }

    /// Loads what was made. No unit is there before all of them are.
    fn load_ready(&self, namespace: &Namespace, mut all: Vec<Ready>) -> Result<Vec<Unit>, Error> {
        let mut group = Group::new(self, namespace);
        let mut shelved = Shelved(Vec::new());
        let mut libraries: Vec<(usize, LibraryName)> = Vec::new();
        let mut bodies: Vec<Option<Body>> = all.iter().map(|_| None).collect();
        let mut places = Vec::new();
        for (at, ready) in all.iter_mut().enumerate() {
            match std::mem::replace(&mut ready.what, What::Library(LibraryName::Name(String::new()))) {
                What::Unit(unit) => ready.what = What::Unit(unit),
                What::Image(piece) => {
                    group.add(piece);
                    places.push(at);
                }
                What::Library(library) => libraries.push((at, library)),
                What::Pending(pending) => {
                    namespace.add_pending(&pending);
                    bodies[at] = Some(Body::Pending(Arc::clone(&pending)));
                    shelved.0.push(pending);
                }
            }
        }
        // The images may be bound to libraries, and libraries to images: what cannot be opened now can be then.
        let images_come = !places.is_empty();
        self.open_libraries(&all, &mut libraries, &mut bodies, images_come)?;
        let mut loaded = group.load()?;
        if let Err(error) = self.open_libraries(&all, &mut libraries, &mut bodies, false) {
            loaded.undo();
            return Err(error);
        }
        for (name, report) in std::mem::take(&mut loaded.remade) {
            if let Some(ready) = all.iter_mut().find(|ready| ready.name == name) {
                ready.report.add(report);
            }
        }
        for (at, image) in places.into_iter().zip(loaded.keep()) {
            all[at].report.times = image.times();
            bodies[at] = Some(Body::Image(image));
        }
        shelved.0.clear();
        let units = all.into_iter().zip(bodies).filter_map(|(ready, body)| match (ready.what, body) {
            (What::Unit(unit), _) => Some(unit),
            (_, Some(body)) => {
                Some(self.add(namespace, ready.name, ready.identity, ready.provenance, ready.report, body))
            }
            _ => None,
        });
        Ok(units.collect())
    }

    /// Opens `libraries`, and leaves those that cannot be if `later` there will be another chance.
    fn open_libraries(
        &self,
        all: &[Ready],
        libraries: &mut Vec<(usize, LibraryName)>,
        bodies: &mut [Option<Body>],
        later: bool,
    ) -> Result<(), Error> {
        loop {
            let before = libraries.len();
            let mut failure = None;
            libraries.retain(|(at, library)| match self.open(&all[*at].name, library) {
                Ok(opened) => {
                    bodies[*at] = Some(Body::Library(opened));
                    false
                }
                Err(error) => {
                    failure.get_or_insert(error);
                    true
                }
            });
            match failure {
                // One may need what another one has without saying so.
                Some(_) if libraries.len() < before => {}
                Some(error) if !later => return Err(error),
                _ => return Ok(()),
            }
        }
    }

    fn open(&self, name: &str, library: &LibraryName) -> Result<Arc<Library>, Error> {
        let request = match library {
            LibraryName::Path(path) => LibraryRequest::Path(path),
            LibraryName::Name(name) => LibraryRequest::Name(name),
        };
        let opened = self.inner.loader.open_library(request);
        opened.map_err(|source| Error::Library { unit: name.to_owned(), source: Box::new(source) })
    }

    /// The unit of that name, if it is what is asked for.
    fn already(&self, namespace: &Namespace, name: &str, identity: &Identity) -> Result<Option<Unit>, Error> {
        let Some(unit) = self.unit_in(namespace, name) else { return Ok(None) };
        match unit.same_as(identity) {
            Ok(()) => Ok(Some(unit)),
            Err(reason) => Err(Error::NameTaken { unit: name.to_owned(), reason }),
        }
    }

    fn add(
        &self,
        namespace: &Namespace,
        name: String,
        identity: Identity,
        provenance: Provenance,
        report: Report,
        body: Body,
    ) -> Unit {
        let making = match &body {
            Body::Pending(pending) if let Some(library) = pending.library() => library.making(),
            _ => Arc::new(OnceLock::from(Making::new(report, provenance))),
        };
        let unit = Unit::new(Parts {
            name: name.clone(),
            namespace: namespace.clone(),
            sequence: self.inner.sequence.fetch_add(1, Ordering::Relaxed),
            identity,
            making,
            body,
            runtime: self.downgrade(),
        });
        self.inner.units.lock().insert((namespace.number(), name), unit.clone());
        unit
    }
}

fn usage(name: &str, message: String) -> Error {
    Error::of_failure(name, Failure::new(FailureKind::Usage, message))
}
