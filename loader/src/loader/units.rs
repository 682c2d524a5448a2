//! What units ask of their loader while they run: where names are.

use super::{Loader, Namespace};
use crate::image::symbols::Name;
use crate::image::{Image, address_of};
use crate::layers::{Layer, Query, Space};
use crate::stand_ins::Special;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Has more to give than what is loaded, for a host that knows of code which nobody has needed yet.
pub trait Provider: Send + Sync + fmt::Debug {
    /// The unit `unit` of `namespace` looks `symbol` up while it runs, and nobody has it. Loads what has it, on the thread that asks, which
    /// holds no lock. Whether it may be there now.
    ///
    /// # Errors
    /// Why that cannot be loaded; `dlerror` tells the unit.
    fn provide(&self, namespace: &Namespace, unit: &str, symbol: &str) -> Result<bool, String>;
}

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

    /// Has the host load what has `name`, which nobody has. Whether it may be there now.
    ///
    /// # Errors
    /// Why that cannot be loaded.
    pub(crate) fn provide(&self, asker: &Image, name: &str) -> Result<bool, String> {
        let Some(provider) = &self.0.options.provider else { return Ok(false) };
        let namespace = Namespace(Arc::clone(asker.space()));
        let provide = AssertUnwindSafe(|| provider.provide(&namespace, asker.name(), name));
        catch_unwind(provide).unwrap_or_else(|thrown| {
            // It may throw again when it is dropped.
            std::mem::forget(thrown);
            Err("the host panicked".into())
        })
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
}

/// The images of a namespace and of those it sees, in the order of search.
pub(crate) fn seen_by(space: &Space) -> Vec<Arc<Image>> {
    space.scope().flat_map(Space::live).collect()
}
