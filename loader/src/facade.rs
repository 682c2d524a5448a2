//! What ordinary libraries see of images: facades.
//!
//! glibc knows nothing of images, so a library that refers to a unit's definition, or that defines a name which the
//! program defines itself (`operator new`), would miss it. A *facade* is an ELF shared object without code that lies in
//! memory and whose dynamic symbols are absolute addresses of such definitions. It is opened for everybody
//! (`RTLD_GLOBAL`) in front of the library, whose references the run-time linker then binds to the units' definitions,
//! as it would bind them to an executable's. `write` makes its bytes, `wanted` finds out what a library wants.

pub(crate) mod offer;
pub(crate) mod wanted;
pub(crate) mod write;

pub(crate) use offer::{KeptFor, Offered, OfferedTo};

#[cfg(test)]
mod tests;

use crate::sys::files::memory_file;
use crate::sys::libraries::{self, Handle};
use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use write::{Offer, write};

/// An open facade; dropped, it is closed. Whatever it offers must stay as long as a library may be bound to it.
#[derive(Debug)]
pub(crate) struct Facade(Option<Handle>);

/// How many facades are loaded: the run-time linker counts them as libraries.
static OPEN: AtomicU64 = AtomicU64::new(0);

impl Facade {
    /// Shows `offers` (no name twice) to every library that is opened from now on, behind the program and the libraries
    /// that were there before. No descriptor stays open.
    ///
    /// # Errors
    /// Why it could not be made or opened.
    pub(crate) fn open(offers: &[Offer]) -> Result<Self, String> {
        // glibc takes a library for one that is open already when it has its name or its path, so neither is used twice.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hotbed-facade-{number}");
        let bytes = write(&name, offers).map_err(|error| error.to_string())?;
        let system = |error: std::io::Error| format!("cannot make a facade for it: {error}");
        let mut file = File::from(memory_file(&name).map_err(system)?);
        file.write_all(&bytes).map_err(system)?;
        let path = CString::new(path_of(number, file.as_raw_fd())).map_err(|error| error.to_string())?;
        let handle = Handle::open(&path, true)?;
        OPEN.fetch_add(1, Ordering::Relaxed);
        Ok(Self(Some(handle)))
    }

    /// Closes it; false when the run-time linker keeps it all the same, because somebody whom nobody closes is bound to
    /// it: then what it offers must stay as well.
    pub(crate) fn close(mut self) -> bool {
        self.shut()
    }

    fn shut(&mut self) -> bool {
        let Some(handle) = self.0.take() else { return true };
        let identity = handle.identity();
        drop(handle);
        let gone = identity.is_some_and(|(dynamic, _)| !libraries::is_loaded(dynamic));
        if gone {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
        gone
    }

    /// How many are open in the process, kept ones included.
    pub(crate) fn count() -> u64 {
        OPEN.load(Ordering::Relaxed)
    }
}

impl Drop for Facade {
    fn drop(&mut self) {
        self.shut();
    }
}

/// A path of the descriptor that no other number has: a slash more or less makes another path of the same place.
fn path_of(number: u32, descriptor: i32) -> String {
    let mut path = String::from("/proc/self/fd/");
    for bit in 0..u32::BITS - number.leading_zeros() {
        path.push_str(if number >> bit & 1 == 1 { ".//" } else { "./" });
    }
    let _ = write!(path, "{descriptor}");
    path
}
