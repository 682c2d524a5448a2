//! The runtime's use of the store: opened when it is needed first, and whatever is wrong with it is said once and then
//! done without.

use crate::observer::Observer;
use hotbed_loader::image::{ImageError, note};
use hotbed_loader::store::{Store, StoreError};
use hotbed_loader::sys::files::{self, FileIdentity, FileStatus, Stamp};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// How much of an image is read to find its note, which the linker puts in front.
const HEAD: usize = 4096;

/// A store, or none.
pub(crate) struct Cache {
    directory: Option<PathBuf>,
    store: OnceLock<Option<Store>>,
    complained: AtomicBool,
    /// Image files that were verified by this runtime.
    verified: Mutex<HashSet<FileIdentity>>,
}

impl Cache {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self {
            directory,
            store: OnceLock::new(),
            complained: AtomicBool::new(false),
            verified: Mutex::new(HashSet::new()),
        }
    }

    /// The store, if there is one that can be used.
    pub(crate) fn store(&self, observer: &dyn Observer) -> Option<&Store> {
        self.store
            .get_or_init(|| match Store::open(self.directory.as_deref()?) {
                Ok(store) => Some(store),
                Err(error) => {
                    self.warn(&error, observer);
                    None
                }
            })
            .as_ref()
    }

    /// An image was not stored.
    pub(crate) fn complain(&self, error: &StoreError, unit: &str, observer: &dyn Observer) {
        match error {
            StoreError::Unstable { .. } | StoreError::Image(_) => observer.note(&format!("{unit}: {error}")),
            _ => self.warn(error, observer),
        }
    }

    /// The checksum of an image file, whose contents are verified unless this very state of the file was before.
    pub(crate) fn verify(
        &self,
        file: &File,
        status: &FileStatus,
        observer: &dyn Observer,
    ) -> io::Result<Result<[u8; 32], ImageError>> {
        let identity = &status.identity;
        let store = self.store(observer);
        let known = self.verified.lock().contains(identity) || store.is_some_and(|s| s.is_verified(identity));
        if known {
            let mut head = vec![0; HEAD];
            let count = file.read_at(&mut head, 0)?;
            if let Ok(checksum) = note::recorded_checksum(&head[..count]) {
                return Ok(Ok(checksum));
            }
        }
        let now = Stamp::now();
        let checksum = note::verify(&files::contents_of(file, identity.size)?);
        if checksum.is_ok() && identity.is_settled(now) {
            self.verified.lock().insert(*identity);
            if let Some(store) = store {
                // Only a memo.
                let _ = store.remember_verified(identity);
            }
        }
        Ok(checksum)
    }

    fn warn(&self, error: &StoreError, observer: &dyn Observer) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            observer.warning(&format!("{error}; running without it"));
        }
    }
}
