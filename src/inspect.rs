//! Images that are looked at without being loaded.

use crate::error::Error;
use crate::input::{Image, Place};
use hotbed_loader::image::{self, ImageDescription, ImageSource};
use hotbed_loader::sys::files;
use hotbed_loader::{LoadError, Loader};
use std::borrow::Cow;
use std::io;
use std::path::Path;

impl Image {
    /// What the image says about itself. The file is only read: nothing of it is mapped, and no code of it runs.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), hotbed::Error> {
    /// let core = hotbed::Image::file("core.hbi").inspect()?;
    /// println!("{:?} exports {} symbols", core.name, core.exports.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When it cannot be read, is no image, or is damaged.
    pub fn inspect(&self) -> Result<ImageDescription, Error> {
        self.describe(&self.contents()?)
    }

    /// Makes sure that the image can be loaded as far as that depends on itself: it is intact, of this format, and all its
    /// tables are as they must be. It is mapped and relocated for that, and let go of again; no code of it runs, no library
    /// is opened for it, and its imports may be missing; all that goes for each of its variants, whatever processor they are for. Gives its
    /// checksum, that of the first variant.
    ///
    /// # Errors
    /// When it cannot be read, is no image, or is damaged.
    pub fn verify(&self) -> Result<[u8; 32], Error> {
        let bytes = self.contents()?;
        let checksum = self.describe(&bytes)?.checksum;
        let unit = &*self.name;
        let damaged = |source| Error::Image { unit: unit.to_owned(), source };
        for variant in image::variants(&bytes).map_err(damaged)? {
            Loader::dry_run(&[(unit, ImageSource::Bytes(variant.bytes))]).map_err(|error| match error {
                LoadError::Image { unit, source } => Error::Image { unit, source },
                error => Error::Bind { unit: unit.to_owned(), source: Box::new(error) },
            })?;
        }
        Ok(checksum)
    }

    fn describe(&self, bytes: &[u8]) -> Result<ImageDescription, Error> {
        ImageDescription::of(bytes).map_err(|source| Error::Image { unit: self.name.clone(), source })
    }

    /// The bytes of its file.
    pub(crate) fn contents(&self) -> Result<Cow<'_, [u8]>, Error> {
        self.place.contents().map_err(|error| match &self.place {
            Place::File(path) => Error::read(&self.name, path, &error),
            Place::Bytes(_) => Error::read(&self.name, Path::new(&self.name), &error),
        })
    }
}

impl Place {
    /// The bytes that are there.
    pub(crate) fn contents(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => {
                let (file, status) = files::open_regular(path)?;
                files::contents_of(&file, status.identity.size).map(Cow::Owned)
            }
        }
    }
}
