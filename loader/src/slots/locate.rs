//! Whose code an address is in: a body, wherever it lies, belongs to the function whose slot leads to it.

use super::Slots;
use crate::image::{Image, registry};
use std::sync::Arc;

/// A place in the body of a function that has a slot.
pub(crate) struct Located {
    /// The function's image.
    pub(crate) image: Arc<Image>,
    /// The function's own address.
    pub(crate) function: usize,
    /// Where its body begins.
    pub(crate) body: usize,
    /// Its name as linkers see it.
    pub(crate) name: String,
}

/// The image that code at an address is of: its own, or what was compiled for it.
pub(crate) fn image_of(address: usize) -> Option<Arc<Image>> {
    registry::image_at(address).or_else(|| Some(locate(address)?.image))
}

/// The function with the body that `address` is in, if it is in one.
pub(crate) fn locate(address: usize) -> Option<Located> {
    if let Some(image) = registry::image_at(address) {
        return in_image(image, address, |body, image| image.range().contains(&body));
    }
    let linked = registry::fresh_link(address)?;
    let mut found = None;
    registry::for_each(|image| {
        if found.is_none() {
            found = in_image(image, address, |body, _| linked.contains(&body));
        }
    });
    found
}

/// Of the bodies that begin before the address and are `near`, the last.
fn in_image(image: Arc<Image>, address: usize, near: impl Fn(usize, &Image) -> bool) -> Option<Located> {
    let slots: &Arc<Slots> = image.slots()?;
    let inside = slots.enter()?;
    let place = &inside.mapped().place;
    // SAFETY: the image is there as long as `inside`.
    let bodies = (0..slots.count()).filter_map(|slot| Some((unsafe { slots.known_body(slot) }?, slot)));
    let (body, slot) = bodies.filter(|(body, _)| *body <= address && near(*body, &image)).max()?;
    let function = slots.tables.stub(place, slot)?;
    // SAFETY: as above.
    let name = unsafe { slots.tables.name(place, slot) }.unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    drop(inside);
    Some(Located { image, function, body, name })
}
