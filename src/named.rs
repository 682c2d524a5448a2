//! An image file that the user named: what is mapped is a copy of it.
//!
//! The file is the user's, who may write over it, cut it short or delete it while the unit runs; a mapping of it would
//! show that. So it is copied once into the store, which finds the copy by the file's identity from then on and spares
//! reading either; without a store the copy is a file in memory. Of an image with variants the one for this processor is copied.

use crate::cache::Cache;
use crate::cpu::Chosen;
use crate::error::Error;
use crate::observer::Observer;
use hotbed_loader::cpu::CpuFeatures;
use hotbed_loader::image;
use hotbed_loader::sys::files::{self, FileIdentity, FileKind, FileStatus, Stamp};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A named image whose contents are known to be sound.
pub(crate) struct NamedImage {
    /// The checksum in its note.
    pub(crate) checksum: [u8; 32],
    contents: Contents,
}

enum Contents {
    /// The store's copy.
    Stored(OwnedFd),
    /// What was read from the file, which had that identity at that moment, and the place of the variant that serves.
    Read { identity: FileIdentity, moment: Stamp, bytes: Vec<u8>, at: usize },
}

impl NamedImage {
    /// Finds out which image the file at `path` is for a processor that has what `cpu` says: from the store's memo, or by reading it.
    ///
    /// # Errors
    /// When it cannot be read, is no intact image, or is for other processors.
    pub(crate) fn find(
        cache: &Cache,
        unit: &str,
        path: &Path,
        cpu: impl Fn() -> CpuFeatures,
        observer: &dyn Observer,
    ) -> Result<Self, Error> {
        if let Some(store) = cache.store(observer)
            && let Ok(status) = FileStatus::of_path(path)
            && status.kind == FileKind::Regular
            && let Some(known) = store.find_named(&status.identity, &cpu)
        {
            store.note_use(&known.checksum);
            return Ok(Self { checksum: known.checksum, contents: Contents::Stored(known.file) });
        }
        let unreadable = |e: io::Error| Error::read(unit, path, &e);
        let moment = Stamp::now();
        let (file, status) = files::open_regular(path).map_err(unreadable)?;
        let bytes = files::contents_of(&file, status.identity.size).map_err(unreadable)?;
        let Chosen { checksum, at, .. } = Chosen::of(&path.display().to_string(), &bytes, cpu)?;
        Ok(Self { checksum, contents: Contents::Read { identity: status.identity, moment, bytes, at } })
    }

    /// A descriptor of a copy that nobody changes: the store's, or one in memory.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn into_copy(
        self,
        cache: &Cache,
        unit: &str,
        path: &Path,
        observer: &dyn Observer,
    ) -> Result<OwnedFd, Error> {
        let (identity, moment, bytes, at) = match self.contents {
            Contents::Stored(file) => return Ok(file),
            Contents::Read { identity, moment, bytes, at } => (identity, moment, bytes, at),
        };
        let variants = image::variants(&bytes)
            .map_err(|source| Error::Image { unit: path.display().to_string(), source })?;
        if let Some(store) = cache.store(observer) {
            match store.insert_named(&identity, moment, &variants, at) {
                Ok(copy) => return Ok(copy.file),
                Err(error) => cache.complain(&error, unit, observer),
            }
        }
        files::memory_copy(unit, variants[at].bytes).map_err(|e| Error::read(unit, path, &e))
    }
}
