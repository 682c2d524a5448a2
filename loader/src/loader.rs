//! The loader: what is defined, opened and loaded for one host, and how an image gets in.

mod library;
mod list;
#[cfg(test)]
mod tests;

pub use library::{Library, LibraryRequest};
pub(crate) use list::List;

use crate::error::{LoadError, Unresolved};
use crate::image::bind;
use crate::image::map::{MapError, Mapped, map};
use crate::image::symbols::Name;
use crate::image::{self, Image, ImageError, ImageSource, Parts, StartError, tls};
use crate::layers::{DEFAULT_ORDER, Host, Layer, Layers, Party, Process, Query, Resolution};
use crate::sys::arguments::ProgramArguments;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a loader shall behave.
#[derive(Debug, Clone, Default)]
pub struct LoaderOptions {
    /// Open shared libraries for everybody in the process (`RTLD_GLOBAL`), as if the program had been linked with
    /// them.
    pub global_libraries: bool,
    /// What constructors are called with; the arguments of the process if nothing is given.
    pub program: Option<ProgramArguments>,
}

/// Loads images into the process and resolves symbols among them, the host and the process.
///
/// A clone is the same loader. Any thread may use it, and two loaders are independent of each other.
#[derive(Clone)]
pub struct Loader(Arc<Inner>);

struct Inner {
    options: LoaderOptions,
    order: Vec<Layer>,
    host: Host,
    images: List,
    process: Process,
}

/// An image that is bound and not started.
pub(crate) struct Prepared {
    image: Arc<Image>,
    applied: bind::Applied,
    map: Duration,
    mapped_at: Instant,
}

impl Loader {
    /// A loader that has nothing loaded.
    pub fn new(options: LoaderOptions) -> Self {
        Self(Arc::new(Inner {
            options,
            order: DEFAULT_ORDER.to_vec(),
            host: Host::default(),
            images: List::default(),
            process: Process::default(),
        }))
    }

    /// Defines `name` for every image that is loaded later. The definition is never taken back.
    ///
    /// # Errors
    /// When there is a definition of that name with another address.
    pub fn define(&self, name: &str, address: usize) -> Result<(), LoadError> {
        if self.0.host.define(name, address) {
            Ok(())
        } else {
            Err(LoadError::Redefined { name: name.to_owned() })
        }
    }

    /// Maps an image, opens the libraries it needs, binds everything it imports and runs its constructors, in the
    /// calling thread.
    ///
    /// The contents are trusted as far as code is concerned: whether the checksum holds is for the caller to see to
    /// ([`image::note::verify`]). Headers and tables are checked here, whatever the checksum says.
    ///
    /// # Errors
    /// When the source cannot be read, is no image, or needs what nobody has. Nothing of it has run then.
    pub fn load_image(&self, name: &str, source: ImageSource<'_>) -> Result<Arc<Image>, LoadError> {
        let Prepared { image, applied, map, mapped_at } = self.prepare(name, source)?;
        let arguments = self.0.options.program.unwrap_or_else(ProgramArguments::of_process);
        image.start(applied, &arguments, map, mapped_at).map_err(|error| match error {
            StartError::Image(source) => LoadError::Image { unit: name.to_owned(), source },
            StartError::System(source) => LoadError::Map { unit: name.to_owned(), source },
            StartError::Other => LoadError::Uninitialised { unit: name.to_owned() },
        })?;
        Ok(image)
    }

    /// Everything up to the point where code of the image would run.
    pub(crate) fn prepare(&self, name: &str, source: ImageSource<'_>) -> Result<Prepared, LoadError> {
        let start = Instant::now();
        let mapped = map(name, source).map_err(|error| match error {
            MapError::Read(error) => LoadError::Read {
                path: source.path().map_or_else(|| name.into(), std::path::Path::to_owned),
                source: error,
            },
            MapError::Map(source) => LoadError::Map { unit: name.to_owned(), source },
            MapError::Image(source) => LoadError::Image { unit: name.to_owned(), source },
        })?;
        let mapped_at = Instant::now();
        let libraries = self.needed(name, &mapped)?;
        let (image, applied) = self.bind(name, mapped, libraries)?;
        Ok(Prepared { image, applied, map: mapped_at - start, mapped_at })
    }

    /// Opens the libraries that an image needs and that were not there from the start.
    fn needed(&self, unit: &str, mapped: &Mapped) -> Result<Vec<Arc<Library>>, LoadError> {
        let process = &self.0.process;
        let mut libraries = Vec::new();
        for name in image::needed(mapped) {
            if process.has_from_start(&name) {
                continue;
            }
            let library = match process.opened(|library| library.is_called(&name)) {
                Some(library) => library,
                None => {
                    let library = Library::needed(&name, mapped, self.0.options.global_libraries).map_err(
                        |reason| LoadError::Library {
                            name: name.clone().into_owned(),
                            needed_by: Some(unit.to_owned()),
                            reason,
                        },
                    )?;
                    process.add(&library);
                    library
                }
            };
            libraries.push(library);
        }
        Ok(libraries)
    }

    /// Resolves and relocates, and makes the image visible to others.
    fn bind(
        &self,
        name: &str,
        mapped: Mapped,
        mut libraries: Vec<Arc<Library>>,
    ) -> Result<(Arc<Image>, bind::Applied), LoadError> {
        let damaged = |source: ImageError| LoadError::Image { unit: name.to_owned(), source };
        let module = match &mapped.headers.tls {
            // SAFETY: `map` has checked that the initial contents are there, and the image keeps module and memory
            // together.
            Some(segment) => Some(
                unsafe { tls::Module::new(segment, mapped.place.at(segment.address)) }
                    .ok_or_else(|| damaged(ImageError::Damaged("the size of its thread-local segment")))?,
            ),
            None => None,
        };
        let number = module.as_ref().map(tls::Module::number);
        let mut view = self.0.process.view();
        let mut asked = false;
        loop {
            // Images must not end while the list is locked, so they are dropped after it is unlocked.
            let images;
            let mut list = self.0.images.lock();
            images = list.live();
            let host = self.0.host.read();
            let layers = Layers { order: &self.0.order, host: &host, images: &images, process: &view };
            let plan = bind::resolve(&mapped, number, &layers).map_err(damaged)?;
            if !asked && view.may_know_more() {
                asked = true;
                let unknown = plan.missing.iter().chain(&plan.absent);
                let names: Vec<_> = unknown.filter_map(|index| wanted(&mapped, *index)).collect();
                if !names.is_empty() {
                    // `dlsym` must not be called under a lock, so everything is resolved once more.
                    drop(list);
                    view.ask(names);
                    continue;
                }
            }
            if !plan.missing.is_empty() {
                drop(list);
                return Err(self.unresolved(name, &mapped, &plan.missing));
            }
            // SAFETY: mapped just now, nobody else has seen it, and this is done once: every way on from here leaves
            // the loop.
            let mut applied = unsafe { bind::apply(&mapped, number, &plan) }.map_err(damaged)?;
            for at in &plan.libraries {
                if let Some(library) = view.owner(*at)
                    && !libraries.iter().any(|known| Arc::ptr_eq(known, library))
                {
                    libraries.push(Arc::clone(library));
                }
            }
            let parts = Parts {
                name: name.into(),
                mapped,
                module,
                images: plan.images.iter().map(|at| Arc::clone(&images[*at])).collect(),
                libraries,
                list: self.0.images.clone(),
            };
            let image = Arc::new(Image::new(parts, plan, &mut applied));
            list.add(&image);
            drop(list);
            return Ok((image, applied));
        }
    }

    fn unresolved(&self, unit: &str, mapped: &Mapped, missing: &[u32]) -> LoadError {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let symbols = missing.iter().filter_map(|index| {
            let symbol = mapped.symbols.get(*index)?;
            let name = text(mapped.symbols.text(symbol.name.into())?);
            let version = mapped.symbols.needed_version(*index).map(|version| text(version.name));
            Some(Unresolved::new(&name, version.as_deref()))
        });
        LoadError::Unresolved {
            unit: unit.to_owned(),
            symbols: symbols.collect(),
            asked: self.0.order.iter().copied().filter(|layer| layer.is_searched()).collect(),
        }
    }

    /// Opens a shared library with `dlopen`, everything in it bound at once. What it exports is part of the process
    /// layer as long as anybody holds it.
    ///
    /// # Errors
    /// `dlerror`'s words.
    pub fn open_library(&self, request: LibraryRequest<'_>) -> Result<Arc<Library>, LoadError> {
        let library = Library::open(request, self.0.options.global_libraries)
            .map_err(|reason| LoadError::Library { name: request.to_string(), needed_by: None, reason })?;
        let dynamic = library.dynamic();
        if let Some(known) = self.0.process.opened(|known| known.dynamic() == dynamic) {
            return Ok(known);
        }
        let library = Arc::new(library);
        self.0.process.add(&library);
        Ok(library)
    }

    /// Who has `symbol`, asking as somebody who has none himself. What was found stays valid as long as the unit or
    /// library that has it is held.
    pub fn resolve(&self, symbol: &str) -> Option<Resolution> {
        let query = Query { name: Name::new(symbol.as_bytes()), version: None, shared: None };
        let mut view = self.0.process.view();
        for round in 0..2 {
            let images;
            let found = {
                let list = self.0.images.lock();
                images = list.live();
                let host = self.0.host.read();
                Layers { order: &self.0.order, host: &host, images: &images, process: &view }
                    .find(query, None)
            };
            if let Some(found) = found {
                let unit = match found.party {
                    Party::Image(at) => {
                        images[at].wait();
                        images[at].name().to_owned()
                    }
                    Party::Process(at) => view.path(at).to_owned(),
                    Party::Host => "host".to_owned(),
                    Party::Unit | Party::Unknown | Party::Runtime => String::new(),
                };
                let address = image::address_of(found.value);
                return Some(Resolution { address, layer: found.layer, unit, kind: found.kind });
            }
            if round > 0 || !view.ask(vec![(symbol.as_bytes().to_vec(), None)]) {
                break;
            }
        }
        None
    }

    /// The live images, in load order.
    pub fn images(&self) -> Vec<Arc<Image>> {
        self.0.images.lock().live()
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// Name and version of a symbol that was not found, unless it is one that the compiler's own start-up files refer to
/// on the chance that somebody has it: of these, nobody has any who is not in the tables.
fn wanted(mapped: &Mapped, index: u32) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    const START_UP: [&[u8]; 3] =
        [b"__gmon_start__", b"_ITM_deregisterTMCloneTable", b"_ITM_registerTMCloneTable"];
    let name = mapped.symbols.text(mapped.symbols.get(index)?.name.into())?;
    if START_UP.contains(&name) {
        return None;
    }
    let version = mapped.symbols.needed_version(index).map(|version| version.name.to_vec());
    Some((name.to_vec(), version))
}
