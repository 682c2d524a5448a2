//! The store for whoever looks after it: what is in it, and making room.

use crate::byte_size::ByteSize;
use crate::cache::{sized, usual_directory, usual_size};
use crate::error::Error;
use hotbed_loader::store::{self, Collected, StoreError, StoreStat};
use std::path::{Path, PathBuf};

/// The directory in which images are kept ([`RuntimeBuilder::cache_dir`](crate::RuntimeBuilder::cache_dir)), apart from any runtime.
///
/// Other processes may use it at the same time; so may runtimes of this one. Nothing is opened before it is asked, and where there is
/// no directory none is made: it is empty.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    size: Option<ByteSize>,
}

impl Store {
    /// The store in the directory `path`, of the size that the environment says
    /// ([`RuntimeBuilder::cache_size`](crate::RuntimeBuilder::cache_size)).
    ///
    /// # Errors
    /// When what the environment says makes no sense.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self { directory: path.as_ref().to_owned(), size: usual_size()? })
    }

    /// The user's: in `$XDG_CACHE_HOME/hotbed` or `~/.cache/hotbed`. Nothing if the user has no home.
    ///
    /// # Errors
    /// As for [`Store::at`].
    pub fn of_user() -> Result<Option<Self>, Error> {
        usual_directory().map(Self::at).transpose()
    }

    /// The same store, of another size.
    #[must_use]
    pub fn with_size(self, size: ByteSize) -> Self {
        Self { size: Some(size), ..self }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// How large it gets.
    pub fn size(&self) -> ByteSize {
        self.size.unwrap_or(ByteSize(store::BUDGET))
    }

    /// What is in it, in figures.
    ///
    /// # Errors
    /// When it cannot be used: it is no directory, belongs to another user, or may be written to by others.
    pub fn stat(&self) -> Result<StoreStat, Error> {
        Ok(self.open()?.map(|store| store.stat()).unwrap_or_default())
    }

    /// Removes what nobody needs, and images if it is larger than it should be: what was never used again first, then
    /// what was not used for longest; not what some process has mapped. Programs that run are not disturbed. Nothing comes back if
    /// somebody else removes something at that time.
    ///
    /// # Errors
    /// When it cannot be used, or nothing can be removed.
    pub fn collect(&self) -> Result<Option<Collected>, Error> {
        self.change(store::Store::collect)
    }

    /// Removes everything that is the store's, and nothing else that is in the directory. Programs that run are not disturbed.
    /// Nothing comes back if somebody else removes something at that time.
    ///
    /// # Errors
    /// When it cannot be used, or nothing can be removed.
    pub fn clear(&self) -> Result<Option<Collected>, Error> {
        self.change(store::Store::clear)
    }

    fn change(
        &self,
        change: impl FnOnce(&store::Store) -> Result<Option<Collected>, StoreError>,
    ) -> Result<Option<Collected>, Error> {
        match self.open()? {
            Some(store) => change(&store).map_err(|source| Error::Store { source }),
            None => Ok(Some(Collected::default())),
        }
    }

    fn open(&self) -> Result<Option<store::Store>, Error> {
        let store = store::Store::open_existing(&self.directory);
        let store = store.map_err(|source| Error::Store { source })?;
        Ok(store.map(|store| sized(store, self.size)))
    }
}
