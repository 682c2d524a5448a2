//! Looks at whatever starting an image, asking it for its symbols and ending it would look at, without running its code.

use super::map::{self, Mapped};
use super::{ImageError, StartError, lifecycle, own_value, unwind};

/// Looks at all tables of an image that is relocated, and makes read-only what shall be. `module` is the number of its
/// thread-local module.
///
/// # Errors
/// What starting it would have said, or asking it for a symbol that it exports.
///
/// # Safety
/// No code of the image runs, so nobody writes to it, now or later.
pub(crate) unsafe fn check(mapped: &Mapped, module: Option<usize>) -> Result<(), ImageError> {
    let exported = mapped.symbols.iter().filter(|(_, symbol, _)| symbol.is_exported());
    for (_, symbol, _) in exported {
        own_value(&mapped.place, module, symbol).ok_or(ImageError::Damaged(
            "an exported symbol is a resolver outside of its code, or thread-local and there is no thread-local segment",
        ))?;
    }
    // SAFETY: the caller's promise.
    unsafe {
        lifecycle::find(mapped)?;
        map::protect(mapped).map_err(|error| match error {
            StartError::Image(error) => error,
            StartError::System(error) => ImageError::Unsupported(error.to_string()),
            StartError::Other => ImageError::Unsupported("another image".into()),
        })?;
    }
    unwind::index(mapped)?;
    unwind::section(mapped)?;
    Ok(())
}

#[cfg(any(test, feature = "fuzzing"))]
impl super::Image {
    /// The same for one that is bound, with all questions that anybody may ask of it: for tests and fuzzers that give the
    /// loader damaged images.
    ///
    /// # Errors
    /// As for [`check`], but for symbols that nobody can be given.
    pub(crate) fn inspect(self: &std::sync::Arc<Self>) -> Result<(), ImageError> {
        use super::symbols::Name;
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
        if let Some(lazy) = &mapped.lazy {
            let tables = &lazy.tables;
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
        // SAFETY: no code of the image runs.
        unsafe { check(mapped, self.body.module.as_ref().map(super::tls::Module::number)) }?;
        drop(self.make_known()?);
        Ok(())
    }
}
