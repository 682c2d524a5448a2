//! The runtime's use of the store, and of the layers below it: opened when they are needed first, and whatever is wrong with
//! them is said once and then done without.

use crate::byte_size::{ByteSize, ByteSizeError};
use crate::error::Error;
use crate::observer::Observer;
use hotbed_loader::store::{Hit, Key, Layer, Miss, Store, StoreError};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The variables of the environment that say how large the store gets, and which layers there are.
const SIZE: &str = "HOTBED_CACHE_SIZE";
const LAYERS: &str = "HOTBED_CACHE_LAYERS";

/// Where images are kept, and looked for.
#[derive(Debug, Default)]
pub(crate) struct CacheOptions {
    /// The user's own store; images are not kept without one.
    pub(crate) directory: Option<PathBuf>,
    /// How large it gets; the store's own idea, if nothing is said.
    pub(crate) size: Option<ByteSize>,
    /// Stores that are looked into after that, in this order, and never written to.
    pub(crate) layers: Vec<PathBuf>,
}

/// A store, or none, and what lies below it.
pub(crate) struct Cache {
    options: CacheOptions,
    store: OnceLock<Option<Store>>,
    layers: OnceLock<Vec<Layer>>,
    complained: AtomicBool,
}

/// An image that was found.
pub(crate) struct Found {
    pub(crate) hit: Hit,
    /// Whether it is in the user's own store.
    pub(crate) own: bool,
}

impl Cache {
    pub(crate) fn new(options: CacheOptions) -> Self {
        Self { options, store: OnceLock::new(), layers: OnceLock::new(), complained: AtomicBool::new(false) }
    }

    /// The store, if there is one that can be used.
    pub(crate) fn store(&self, observer: &dyn Observer) -> Option<&Store> {
        self.store
            .get_or_init(|| match Store::open(self.options.directory.as_deref()?) {
                Ok(store) => Some(sized(store, self.options.size)),
                Err(error) => {
                    self.warn(&error, observer);
                    None
                }
            })
            .as_ref()
    }

    /// The store, if there is one already that can be used; none is made.
    pub(crate) fn existing(&self, observer: &dyn Observer) -> Option<Store> {
        let store = Store::open_existing(self.options.directory.as_deref()?).unwrap_or_else(|error| {
            self.warn(&error, observer);
            None
        })?;
        Some(sized(store, self.options.size))
    }

    /// The image for `key`, from the first that has it, or the reason why there is none: the own store's, unless that knows nothing
    /// and a layer does. Nothing if there is nowhere to look. Relative dependencies are looked for in `directory`.
    pub(crate) fn find(
        &self,
        key: &Key,
        directory: &Path,
        observer: &dyn Observer,
    ) -> Option<Result<Found, Miss>> {
        let mut reason = None;
        if let Some(store) = self.store(observer) {
            match store.find(key, directory) {
                Ok(hit) => {
                    store.note_use(&hit.checksum);
                    return Some(Ok(Found { hit, own: true }));
                }
                Err(miss) => reason = Some(miss),
            }
        }
        for layer in self.layers(observer) {
            match layer.find(key, directory) {
                Ok(hit) => return Some(Ok(Found { hit, own: false })),
                Err(miss) if matches!(reason, None | Some(Miss::NoEntry)) => reason = Some(miss),
                Err(_) => {}
            }
        }
        reason.map(Err)
    }

    fn layers(&self, observer: &dyn Observer) -> &[Layer] {
        self.layers.get_or_init(|| {
            let open = |directory: &PathBuf| match Layer::open(directory) {
                Ok(layer) => Some(layer),
                Err(error) => {
                    observer.warning(&format!("{error}; running without it"));
                    None
                }
            };
            self.options.layers.iter().filter_map(open).collect()
        })
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

/// The store's usual place; nothing when the user has no home.
pub(crate) fn usual_directory() -> Option<PathBuf> {
    place(|name| std::env::var_os(name).map(PathBuf::from))
}

/// How large the store gets if the environment says so.
///
/// # Errors
/// When what it says makes no sense.
pub(crate) fn usual_size() -> Result<Option<ByteSize>, Error> {
    let Some(text) = std::env::var_os(SIZE).filter(|text| !text.is_empty()) else { return Ok(None) };
    let text = text.to_string_lossy();
    let wrong = |e: ByteSizeError| Error::Build { reason: format!("{SIZE}={text}: {e}") };
    text.parse().map(Some).map_err(wrong)
}

/// The layers that the environment names.
pub(crate) fn usual_layers() -> Vec<PathBuf> {
    let all = std::env::var_os(LAYERS).unwrap_or_default();
    std::env::split_paths(&all).filter(|path| !path.as_os_str().is_empty()).collect()
}

/// The store with a size, if there is one.
pub(crate) fn sized(store: Store, size: Option<ByteSize>) -> Store {
    match size {
        Some(ByteSize(bytes)) => store.with_budget(bytes),
        None => store,
    }
}

fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // A relative path is to be ignored, says the XDG specification.
    let absolute = |name| variable(name).filter(|path: &PathBuf| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("hotbed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_has_a_usual_place() {
        let place = |xdg: Option<&str>, home: Option<&str>| {
            place(|name| if name == "HOME" { home } else { xdg }.map(PathBuf::from))
        };
        assert_eq!(place(Some("/x"), Some("/h")), Some("/x/hotbed".into()));
        assert_eq!(place(Some("x"), Some("/h")), Some("/h/.cache/hotbed".into()));
        assert_eq!(place(None, None), None);
    }
}
