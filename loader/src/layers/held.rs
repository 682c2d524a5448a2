//! The images that answers came from, held until nobody is under a lock any more: an image that ends takes locks.

use crate::image::Image;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Images, each once. Its elements are never dropped before it is.
#[derive(Default)]
pub(crate) struct Held(RefCell<State>);

#[derive(Default)]
struct State {
    images: Vec<Arc<Image>>,
    /// Places by address.
    places: HashMap<usize, usize>,
}

/// That many are looked through one by one.
const FEW: usize = 8;

impl Held {
    /// Holds an image, and gives its place; `None` for one that is ending.
    pub(crate) fn hold(&self, image: &Image) -> Option<usize> {
        let State { images, places } = &mut *self.0.borrow_mut();
        let address = std::ptr::from_ref(image) as usize;
        let known = if images.len() <= FEW {
            images.iter().position(|held| std::ptr::eq(&raw const **held, image))
        } else {
            places.get(&address).copied()
        };
        if known.is_some() {
            return known;
        }
        images.push(image.upgrade()?);
        places.insert(address, images.len() - 1);
        Some(images.len() - 1)
    }

    /// The image at a place.
    pub(crate) fn get(&self, at: usize) -> Option<Arc<Image>> {
        self.0.borrow().images.get(at).cloned()
    }
}
