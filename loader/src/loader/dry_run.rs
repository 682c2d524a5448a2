//! Loading without running anything: for tests and fuzzers that give the loader damaged images.

use super::Loader;
use crate::error::LoadError;
use crate::image::{Image, ImageSource};
use std::sync::Arc;

impl Loader {
    /// Maps, resolves and relocates an image and makes it visible to others, and calls none of its code, neither then
    /// nor when it is dropped.
    ///
    /// # Errors
    /// As for [`Loader::load_image`].
    pub(crate) fn bind_only(&self, name: &str, source: ImageSource<'_>) -> Result<Arc<Image>, LoadError> {
        let (prepared, _) = self.prepare(None, &[(name, source)], false)?;
        let mut images = prepared.into_iter().map(|one| one.image);
        images.next().ok_or_else(|| LoadError::Uninitialised { unit: name.to_owned() })
    }
}
