//! The runtime's use of the store: opened when it is needed first, and whatever is wrong with it is said once and then
//! done without.

use crate::observer::Observer;
use hotbed_loader::store::{Store, StoreError};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store, or none.
pub(crate) struct Cache {
    directory: Option<PathBuf>,
    store: OnceLock<Option<Store>>,
    complained: AtomicBool,
}

impl Cache {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, store: OnceLock::new(), complained: AtomicBool::new(false) }
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

    fn warn(&self, error: &StoreError, observer: &dyn Observer) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            observer.warning(&format!("{error}; running without it"));
        }
    }
}
