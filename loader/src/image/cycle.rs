//! Images that need each other in a circle end together: none may go before the last of them.

use super::{Body, Image};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// What images of one circle hold on to each other by. They do not hold each other, as then none would ever end; the
/// memory of one that nobody holds any more stays here until nobody holds any of them.
pub(crate) struct Cycle {
    /// Bodies of those that nobody holds, in the order of their places in the load order.
    ended: Mutex<Vec<(u64, Body)>>,
    images: Mutex<Vec<Weak<Image>>>,
}

impl Cycle {
    /// A circle to which images can be added.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { ended: Mutex::default(), images: Mutex::default() })
    }

    /// Adds an image.
    pub(super) fn join(&self, image: Weak<Image>) {
        self.images.lock().push(image);
    }

    /// Takes over the body of an image that nobody holds any more.
    pub(super) fn end(&self, sequence: u64, body: Body) {
        let mut ended = self.ended.lock();
        let at = ended.partition_point(|(other, _)| *other < sequence);
        ended.insert(at, (sequence, body));
    }
}

impl Drop for Cycle {
    fn drop(&mut self) {
        let bodies: Vec<Body> = self.ended.get_mut().drain(..).rev().map(|(_, body)| body).collect();
        // All destructors before any memory goes; and all memory stays if a thread will still call into some of it.
        let mut all = true;
        for body in &bodies {
            all &= body.finish();
        }
        if all {
            bodies.into_iter().for_each(Body::release);
        } else {
            bodies.into_iter().for_each(std::mem::forget);
        }
    }
}

impl Image {
    /// The other images that it needs and that need it, but for those that are ending.
    pub(super) fn partners(&self) -> Vec<Arc<Self>> {
        let Some(cycle) = &self.cycle else { return Vec::new() };
        let images: Vec<Arc<Self>> = cycle.images.lock().iter().filter_map(Weak::upgrade).collect();
        images.into_iter().filter(|image| !std::ptr::eq(&raw const **image, self)).collect()
    }

    /// Whether it is in that circle.
    pub(crate) fn is_in(&self, cycle: Option<&Arc<Cycle>>) -> bool {
        match (&self.cycle, cycle) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}
