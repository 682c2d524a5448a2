//! The loader: what is defined, opened and loaded for one host.

mod circles;
mod dependencies;
mod dry_run;
mod duplicates;
mod explain;
mod library;
mod load;
mod namespace;
mod needed;
#[cfg(test)]
mod tests;
mod units;

pub use duplicates::{Duplicate, Duplicates, Sameness};
pub use explain::{Answer, Asked, Explanation, Reason, Verdict, near_misses};
pub(crate) use library::search_of;
pub use library::{Library, LibraryRequest};
pub(crate) use load::Member;
pub use namespace::{Namespace, NamespaceOptions};
pub use units::Provider;
pub(crate) use units::seen_by;

use crate::cpu::CpuFeatures;
use crate::debug::{self, DebugOptions, Frame, Tools};
use crate::error::LoadError;
use crate::image::symbols::{Name, PartialHash};
use crate::image::{self, Image, ImageSource, registry};
use crate::layers::readers::Section;
use crate::layers::{Common, DEFAULT_ORDER, Held, Host, Layer, Layers, Party, Query, Resolution, Space};
use crate::slots::{Materializer, locate};
use crate::sys::append::AppendFile;
use crate::sys::arguments::ProgramArguments;
use crate::sys::sync::Mutex;
use std::fmt;
use std::sync::{Arc, Weak};

/// How a loader shall behave.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Open shared libraries for everybody in the process (`RTLD_GLOBAL`), as if the program had been linked with
    /// them.
    pub global_libraries: bool,
    /// What constructors are called with; the arguments of the process if nothing is given.
    pub program: Option<ProgramArguments>,
    /// Which tools are told about images.
    pub debug: DebugOptions,
    /// Map an image at the addresses it was linked for where these are free: then there is less to relocate. Such
    /// addresses can be guessed from the image's contents; without this the system chooses them.
    pub preferred_addresses: bool,
    /// Look functions of the process up when they are called for the first time, where it is certain that they are
    /// there. What is missing is an error when the image is loaded either way.
    pub lazy_imports: bool,
    /// Compiles functions that images have as bitcode only, when they are called for the first time. Without one, such images
    /// are refused.
    pub materializer: Option<Arc<dyn Materializer>>,
    /// Have records of functions ([`Slots::set_ready`](crate::Slots::set_ready)) appended to this file when they are called
    /// first, in that order. Bodies that images have are not used then.
    pub first_calls: Option<Arc<AppendFile>>,
    /// Do not refuse them: calling such a function ends the process with a message, as wherever such an image is
    /// mapped by somebody else.
    pub uncompiled_functions: bool,
    /// What there is of the processor for code to use; what this one has, if nothing is said. An image that needs more is refused.
    pub cpu: Option<CpuFeatures>,
    /// Loads what units look up while they run and nobody has.
    pub provider: Option<Arc<dyn Provider>>,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            global_libraries: false,
            program: None,
            debug: DebugOptions::default(),
            preferred_addresses: true,
            lazy_imports: true,
            materializer: None,
            first_calls: None,
            uncompiled_functions: false,
            cpu: None,
            provider: None,
        }
    }
}

/// Loads images into the process and resolves symbols among them, the host and the process.
///
/// A clone is the same loader. Any thread may use it, and two loaders are independent of each other.
#[derive(Clone)]
pub struct Loader(Arc<Inner>);

struct Inner {
    options: LoaderOptions,
    tools: Arc<Tools>,
    host: Host,
    common: Arc<Common>,
    /// The namespace of who asks for none.
    space: Arc<Space>,
    /// All others.
    spaces: Mutex<Vec<Weak<Space>>>,
}

impl Loader {
    /// A loader that has nothing loaded.
    pub fn new(options: LoaderOptions) -> Self {
        let common = Common::new();
        let space = Space::new("", DEFAULT_ORDER.to_vec(), Vec::new(), Arc::clone(&common));
        let tools = Tools::new(&options.debug);
        Self(Arc::new(Inner {
            options,
            tools,
            host: Host::default(),
            common,
            space,
            spaces: Mutex::default(),
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

    /// Loads one image into the namespace of who asks for none; see [`Loader::load_images`].
    ///
    /// # Errors
    /// As there.
    pub fn load_image(&self, name: &str, source: ImageSource<'_>) -> Result<Arc<Image>, LoadError> {
        let started = self.load(None, &[(name, source)])?.pop();
        started.map(|one| one.image).ok_or_else(|| LoadError::Uninitialised { unit: name.to_owned() })
    }

    /// Who has `symbol`, asking as somebody in the namespace of who asks for none who has no such symbol himself. What
    /// was found stays valid as long as the unit or library that has it is held.
    pub fn resolve(&self, symbol: &str) -> Option<Resolution> {
        self.resolve_in(None, symbol)
    }

    /// The same in a namespace.
    pub fn resolve_in(&self, namespace: Option<&Namespace>, symbol: &str) -> Option<Resolution> {
        let space = self.space(namespace);
        let name = Name::new(symbol.as_bytes());
        if let Some(found) = self.quickly(space, name) {
            return Some(found);
        }
        if self.nobody_has(space, name) {
            return None;
        }
        let query = Query { name, version: None, shared: None };
        let mut view = self.0.common.process.view();
        for round in 0..2 {
            let held = Held::default();
            let found = {
                let binding = self.0.common.binding.lock();
                let layers =
                    Layers::new(space, &self.0.host, &view, (&[], 0), &held, Section::under(&binding));
                layers.find(&query, None)
            };
            if let Some(found) = found {
                let unit = match found.party {
                    Party::Image(at) => held.get(at).map_or_else(String::new, |image| {
                        image.wait();
                        image.name().to_owned()
                    }),
                    Party::Process(at) => view.path(at).to_owned(),
                    Party::Host => "host".to_owned(),
                    Party::Unit | Party::Member(_) | Party::Unknown | Party::Runtime => String::new(),
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

    /// What can be answered without a lock: definitions of the host, and those of images that count for certain.
    fn quickly(&self, space: &Space, name: Name<'_>) -> Option<Resolution> {
        for layer in &space.order {
            match layer {
                Layer::Unit | Layer::Fresh | Layer::Runtime => {}
                Layer::Host => {
                    if let Some(found) = self.0.host.find(name) {
                        let address = image::address_of(found.value);
                        let unit = "host".to_owned();
                        return Some(Resolution { address, layer: found.layer, unit, kind: found.kind });
                    }
                }
                Layer::Images => {
                    let section = Section::enter();
                    let found = space.scope().find_map(|space| {
                        space.find(name, None, &section, |image, index, symbol| {
                            if symbol.is_shared() {
                                match image.shared().counts(index) {
                                    Some(true) => {}
                                    Some(false) => return None,
                                    // The end of the search: whether it counts is found out under the lock.
                                    None => return Some(None),
                                }
                            }
                            Some(image.upgrade().map(|image| (image, symbol)))
                        })
                    });
                    drop(section);
                    let (image, symbol) = found??;
                    image.wait();
                    let (value, kind) = image.value_of(symbol);
                    let (address, unit) = (image::address_of(value), image.name().to_owned());
                    return Some(Resolution { address, layer: Layer::Images, unit, kind });
                }
                Layer::Process | Layer::Archives | Layer::OnDemand => return None,
            }
        }
        None
    }

    /// A quick no, without a lock.
    fn nobody_has(&self, space: &Space, name: Name<'_>) -> bool {
        let hash = PartialHash::of(name.hash);
        let section = Section::enter();
        let by_units =
            self.0.host.may_have(hash) || space.scope().any(|space| space.may_have(hash, &section));
        drop(section);
        !by_units && self.0.common.process.lacks(name)
    }

    /// What is behind an address of code: the calls at it, innermost first, more than one where the compiler has inlined;
    /// empty for an address that no image has and nothing that glibc has loaded. An address that a call returns to belongs
    /// to what comes after the call: ask about the one before it.
    ///
    /// Images tell by their debug information, or else by their symbols; it is read at the first question. The process's own
    /// libraries tell by their exported symbols. Images of other loaders tell too.
    pub fn symbolize(&self, address: usize) -> Vec<Frame> {
        match registry::image_at(address) {
            Some(image) => debug::in_image(&image, address),
            None => match locate(address) {
                Some(located) => vec![debug::in_body(&located, address)],
                None => debug::in_process(address).into_iter().collect(),
            },
        }
    }

    /// The live images of all namespaces, in load order.
    pub fn images(&self) -> Vec<Arc<Image>> {
        let mut images = self.0.space.live();
        for space in self.0.spaces.lock().iter().filter_map(Weak::upgrade) {
            images.extend(space.live());
        }
        images.sort_by_key(|image| image.sequence());
        images
    }

    /// Where first calls are written down.
    pub(crate) fn first_calls(&self) -> Option<&Arc<AppendFile>> {
        self.0.options.first_calls.as_ref()
    }

    /// Who compiles functions when they are first called.
    pub(crate) fn materializer(&self) -> Option<&Arc<dyn Materializer>> {
        self.0.options.materializer.as_ref()
    }

    /// What the host defined.
    pub(crate) fn host(&self) -> &Host {
        &self.0.host
    }

    fn space<'a>(&'a self, namespace: Option<&'a Namespace>) -> &'a Arc<Space> {
        namespace.map_or(&self.0.space, |namespace| &namespace.0)
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("options", &self.0.options).finish_non_exhaustive()
    }
}
