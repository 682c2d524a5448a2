//! What units ask of their loader while they run: names, and libraries that are opened.

use super::{Loader, Namespace};
use crate::facade::Offered;
use crate::facade::offer::{Source, choose};
use crate::facade::wanted::closure;
use crate::image::symbols::Name;
use crate::image::{Image, address_of};
use crate::layers::{Layer, Query, Space};
use crate::stand_ins::Special;
use crate::sys::libraries;
use std::path::Path;
use std::sync::Arc;

impl Loader {
    /// The address of the definition of `name` that units have, for a unit that asks by a special handle.
    pub(crate) fn symbol_of_units(&self, asker: &Image, name: &str, special: Special) -> Option<usize> {
        match special {
            Special::Default => match asker.get(name) {
                Some(own) if !own.weak => Some(own.address),
                own => self.in_units(asker, name).or(own.map(|own| own.address)),
            },
            Special::Program => self.in_units(asker, name),
            Special::Next => {
                let images = seen_by(asker.space());
                let behind = images.iter().filter(|image| image.sequence() > asker.sequence());
                behind
                    .filter(|image| image.wait())
                    .find_map(|image| image.get(name))
                    .map(|found| found.address)
            }
        }
    }

    fn in_units(&self, asker: &Image, name: &str) -> Option<usize> {
        let namespace = Namespace(Arc::clone(asker.space()));
        let found = self.resolve_in(Some(&namespace), name)?;
        (found.layer != Layer::Process).then_some(found.address)
    }

    /// The address of `name` in the program, its libraries, and those that this loader has opened.
    pub(crate) fn symbol_of_process(&self, name: &str) -> Option<usize> {
        let view = self.0.common.process.view();
        let query = Query { name: Name::new(name.as_bytes()), version: None, shared: None };
        view.find(&query).map(|found| address_of(found.value))
    }

    /// Offers what units define to the library at `path`, which a unit is about to open, if it wants anything of that.
    ///
    /// # Errors
    /// When it refers to what cannot be offered.
    pub(crate) fn offer_to_library(
        &self,
        space: &Space,
        path: &Path,
    ) -> Result<Option<Arc<Offered>>, String> {
        let images = seen_by(space);
        let images: Vec<_> = images.iter().filter(|image| image.wait()).collect();
        if images.is_empty() || libraries::is_named(path) {
            return Ok(None);
        }
        let files = closure(path, |name| self.has_library(name));
        let sources: Vec<_> = images.into_iter().map(Source::Loaded).collect();
        let process = &self.0.common.process;
        let own = |_| self.0.options.global_libraries;
        let chosen = choose(&files, &sources, own, |name| process.defines_from_start(name))?;
        Offered::open(chosen, &path.to_string_lossy()).map(|offered| offered.map(Arc::new))
    }

    /// Whether a library that others need by this name is loaded.
    pub(crate) fn has_library(&self, name: &[u8]) -> bool {
        let text = String::from_utf8_lossy(name);
        let process = &self.0.common.process;
        process.has_from_start(&text)
            || process.opened(|library| library.is_called(&text)).is_some()
            || libraries::is_named(Path::new(&*text))
    }
}

/// The images of a namespace and of those it sees, in the order of search.
pub(crate) fn seen_by(space: &Space) -> Vec<Arc<Image>> {
    space.scope().flat_map(Space::live).collect()
}
