//! Images that need each other in a circle end together: none may go before the last of them.

use super::{Body, Image};
use crate::sys::sync::Mutex;
use std::collections::HashSet;
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

/// Takes images out of their circles into circles of their own, those of one circle into one, and gives those that they
/// were in. When the last of these is dropped, destructors may run.
pub(super) fn split(images: &[Arc<Image>]) -> Vec<Arc<Cycle>> {
    let mut parts: Vec<(Arc<Cycle>, Arc<Cycle>)> = Vec::new();
    for image in images {
        let mut own = image.cycle.lock();
        let Some(old) = own.take() else { continue };
        let fresh = match parts.iter().find(|(known, _)| Arc::ptr_eq(known, &old)) {
            Some((_, fresh)) => Arc::clone(fresh),
            None => Cycle::new(),
        };
        old.images.lock().retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(image)));
        fresh.join(Arc::downgrade(image));
        *own = Some(Arc::clone(&fresh));
        // Also if it is known: one that is given up here may be the last.
        parts.push((old, fresh));
    }
    parts.into_iter().map(|(old, _)| old).collect()
}

impl Image {
    /// The other images that it needs and that need it, but for those that are ending.
    pub(super) fn partners(&self) -> Vec<Arc<Self>> {
        let Some(cycle) = self.cycle.lock().clone() else { return Vec::new() };
        let images: Vec<Arc<Self>> = cycle.images.lock().iter().filter_map(Weak::upgrade).collect();
        images.into_iter().filter(|image| !std::ptr::eq(&raw const **image, self)).collect()
    }

    /// Whether one of `others` is in its circle.
    pub(super) fn has_partner(&self, others: &HashSet<*const Self>) -> bool {
        let cycle = self.cycle.lock();
        cycle
            .as_ref()
            .is_some_and(|cycle| cycle.images.lock().iter().any(|image| others.contains(&image.as_ptr())))
    }

    /// Whether it and `other` are in the same circle.
    pub(crate) fn is_partner(&self, other: &Self) -> bool {
        let own = self.cycle.lock().clone();
        other.is_in(own.as_ref())
    }

    /// Whether it is in that circle.
    pub(crate) fn is_in(&self, cycle: Option<&Arc<Cycle>>) -> bool {
        match (&*self.cycle.lock(), cycle) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}
