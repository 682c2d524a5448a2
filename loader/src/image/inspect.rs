//! Everything that is done with a bound image but running its code: for tests and fuzzers that give the loader
//! damaged ones.

use super::{Image, ImageError, StartError, lifecycle, map, unwind};
use crate::image::symbols::Name;
use std::sync::Arc;

impl Image {
    /// Looks at whatever starting the image or asking it for its symbols would look at.
    ///
    /// # Errors
    /// What starting it would have said.
    pub(crate) fn inspect(self: &Arc<Self>) -> Result<(), ImageError> {
        let symbols = self.symbols();
        for (index, symbol, name) in symbols.iter() {
            let name = Name::new(name);
            let version = symbols.needed_version(index);
            let found = symbols.find(name, version).or_else(|| symbols.find(name, None));
            if let Some((_, found)) = found {
                let _ = self.value_of(found);
            }
            let _ = (symbols.find_stand_in(name), symbols.partial_hash(index), symbols.hash_of(index));
            let _ = (symbols.filter().passes(name.hash), self.value_of(symbol));
        }
        let _ = (self.exports().count(), self.imports().len(), self.needed().len());
        let mapped = &self.body.mapped;
        if let Some(tables) = &mapped.lazy {
            let place = &mapped.place;
            for number in (0..tables.count()).take(100).chain([tables.count(), u32::MAX]) {
                // SAFETY: the image is mapped.
                unsafe {
                    let _ = (tables.body(number), tables.identity(number), tables.name(place, number));
                    let _ = tables.of_stub(place, tables.entry(number));
                }
                let _ = tables.of_return(tables.entry(number));
            }
            for (_, symbol, _) in symbols.iter() {
                // SAFETY: as above.
                let _ = unsafe { tables.of_stub(place, place.at(symbol.value)) };
            }
        }
        let system = |error: StartError| match error {
            StartError::Image(error) => error,
            StartError::System(error) => ImageError::Unsupported(error.to_string()),
            StartError::Other => ImageError::Unsupported("another image".into()),
        };
        // SAFETY: no code of the image runs, so nobody writes to it, now or later.
        unsafe {
            lifecycle::find(mapped)?;
            map::protect(mapped).map_err(system)?;
        }
        unwind::section(mapped)?;
        drop(self.make_known()?);
        Ok(())
    }
}
