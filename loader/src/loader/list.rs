//! The images of a loader, in load order. The list does not keep them: an image ends when nobody else holds it.

use crate::image::Image;
use parking_lot::{Mutex, MutexGuard};
use std::sync::{Arc, Weak};

/// A list that images take themselves out of. A clone is the same list.
#[derive(Clone, Default)]
pub(crate) struct List(Arc<Mutex<Vec<Weak<Image>>>>);

/// The list while it is locked: whoever binds an image holds it so, from the first look-up to the moment when the
/// image is in the list. No `Arc` of an image may be dropped meanwhile.
pub(crate) struct Locked<'a>(MutexGuard<'a, Vec<Weak<Image>>>);

impl List {
    /// Locks the list.
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked(self.0.lock())
    }

    /// Takes an image out that is about to end.
    pub(crate) fn remove(&self, image: &Image) {
        self.lock().remove(image);
    }
}

impl Locked<'_> {
    /// The images that are alive.
    pub(crate) fn live(&self) -> Vec<Arc<Image>> {
        self.0.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes an image out.
    pub(crate) fn remove(&mut self, image: &Image) {
        self.0.retain(|other| !std::ptr::eq(other.as_ptr(), image));
    }

    /// Adds an image at the end.
    pub(crate) fn add(&mut self, image: &Arc<Image>) {
        self.0.push(Arc::downgrade(image));
    }
}
