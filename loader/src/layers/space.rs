//! The images of a namespace and what they export, looked up without a lock.
//!
//! Names are entered into [`Chains`] when an image is added: by their hashes, which stand in its file, so that not one
//! name is read. That takes some nanoseconds a name, which is more than loading an image of many names should pay; the
//! first few of those are asked one by one instead ([`Wide`]).

use super::chains::{Chains, Key, Link};
use super::readers::{Section, wait_for_readers};
use super::wide::Wide;
use super::{Layer, Process};
use crate::image::Image;
use crate::image::elf::Symbol;
use crate::image::symbols::{Name, PartialHash};
use crate::image::versions::Version;
use crate::sys::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// An image with that many exports has many.
const MANY: usize = 64;
/// How many of those are asked one by one.
const MOST_WIDE: usize = 64;

/// One definition in the table. Packed, as there are as many of them as names.
#[repr(C, packed(4))]
pub(crate) struct Export {
    image: *const Image,
    symbol: u32,
}

// SAFETY: the pointer is to an image, which any thread may use, and is looked at as `Space::find` says.
unsafe impl Send for Export {}
// SAFETY: as above.
unsafe impl Sync for Export {}

/// What an image has in the table; kept by the image.
pub(crate) type Exports = Box<[Link<Export>]>;

/// What all namespaces of a loader have in common.
pub(crate) struct Common {
    /// Held by whoever binds, from the first look-up to the moment when the image is added. No image may be let go of
    /// meanwhile.
    pub(crate) binding: Mutex<()>,
    /// How many images there ever were.
    sequence: AtomicU64,
    /// The process.
    pub(crate) process: Process,
}

/// A namespace.
pub(crate) struct Space {
    /// Its name.
    pub(crate) name: String,
    /// The order of search of its images.
    pub(crate) order: Vec<Layer>,
    /// The other namespaces whose images its own see, in the order in which they are asked.
    pub(crate) links: Vec<Arc<Space>>,
    /// See [`Common`].
    pub(crate) common: Arc<Common>,
    names: Chains<Export>,
    /// Images with many names, in load order.
    wide: AtomicPtr<Wide>,
    images: Mutex<BTreeMap<u64, Weak<Image>>>,
}

// SAFETY: the pointers in `wide` are to images, which any thread may use, and are looked at as `Space::find` says.
unsafe impl Send for Space {}
// SAFETY: as above.
unsafe impl Sync for Space {}

impl Common {
    /// For a loader that has nothing loaded.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { binding: Mutex::new(()), sequence: AtomicU64::new(0), process: Process::default() })
    }
}

impl Space {
    /// A namespace without images.
    pub(crate) fn new(
        name: &str,
        order: Vec<Layer>,
        links: Vec<Arc<Self>>,
        common: Arc<Common>,
    ) -> Arc<Self> {
        // Everything that is reached by links, each once, nearer ones first.
        let mut reached: Vec<Arc<Self>> = Vec::new();
        let mut next = links;
        while !next.is_empty() {
            let mut further = Vec::new();
            for space in next {
                if !reached.iter().any(|known| Arc::ptr_eq(known, &space)) {
                    further.extend(space.links.iter().cloned());
                    reached.push(space);
                }
            }
            next = further;
        }
        Arc::new(Self {
            name: name.to_owned(),
            order,
            links: reached,
            common,
            names: Chains::default(),
            wide: AtomicPtr::default(),
            images: Mutex::default(),
        })
    }

    /// The first of the next places in the load order, which are the caller's.
    pub(crate) fn next_places(&self, count: usize) -> u64 {
        self.common.sequence.fetch_add(count as u64, Ordering::Relaxed)
    }

    /// Adds an image. Its exports are in the table, or it is among those that are asked one by one.
    ///
    /// To be called with [`Common::binding`] locked; [`Space::remove`] is called before the image is gone.
    pub(crate) fn add(&self, image: &Arc<Image>) {
        let symbols = image.symbols();
        let wide = self.wide.load(Ordering::Relaxed);
        // SAFETY: the list is replaced with the lock held only.
        let wide = unsafe { wide.as_ref() };
        if symbols.may_have_many(MANY) && wide.is_none_or(|wide| wide.len() < MOST_WIDE) {
            // SAFETY: an image is taken out before it is gone.
            let list = unsafe { wide.unwrap_or(&Wide::default()).with(image) };
            self.set_wide(Some(list));
        } else {
            self.enter_names(image);
        }
        self.images.lock().insert(image.sequence(), Arc::downgrade(image));
    }

    #[inline(never)]
    fn enter_names(&self, image: &Arc<Image>) {
        let pointer = Arc::as_ptr(image);
        let names = image.symbols().findable();
        let links = names.map(|(symbol, key)| Link::new(key, Export { image: pointer, symbol }));
        let links = image.keep_exports(links.collect());
        // SAFETY: the image keeps them until it has called `remove`.
        unsafe { self.names.enter(links) };
    }

    /// Takes an image out, if it is in. Afterwards nobody looks at it any more who was not given an `Arc`.
    pub(crate) fn remove(&self, image: &Image) {
        let known = self.images.lock().contains_key(&image.sequence());
        if known {
            let _binding = self.common.binding.lock();
            self.remove_locked(image);
        }
    }

    /// The same with [`Common::binding`] locked.
    pub(crate) fn remove_locked(&self, image: &Image) {
        if self.images.lock().remove(&image.sequence()).is_none() {
            return;
        }
        match image.exports_in_table() {
            Some(links) => self.names.take_out(links),
            None => {
                // SAFETY: the list is replaced with the lock held only.
                let list = unsafe { self.wide.load(Ordering::Relaxed).as_ref() };
                self.set_wide(list.and_then(|list| list.without(image)));
            }
        }
    }

    fn set_wide(&self, list: Option<Wide>) {
        let fresh = list.map_or(std::ptr::null_mut(), |list| Box::into_raw(Box::new(list)));
        let old = self.wide.swap(fresh, Ordering::AcqRel);
        if !old.is_null() {
            wait_for_readers();
            // SAFETY: replaced, and every reader that had it is gone.
            drop(unsafe { Box::from_raw(old) });
        }
    }

    /// Whether there was never an image in it whose names are in the table, and there is none that is asked by itself.
    #[inline]
    pub(crate) fn is_vacant(&self) -> bool {
        self.names.is_empty() && self.wide.load(Ordering::Relaxed).is_null()
    }

    /// Whether an image may export a name with either of two hashes: a quick no.
    #[inline]
    pub(crate) fn may_have(&self, hash: PartialHash, section: &Section) -> bool {
        self.names.has(hash.key(), section) || self.wide().is_some_and(|wide| wide.may_have(hash))
    }

    /// Gives `accept` every definition that `name` has, in load order, until it gives something. It is called in the
    /// section and must not let go of an image.
    pub(crate) fn find<R>(
        &self,
        name: Name<'_>,
        version: Option<&Version>,
        section: &Section,
        mut accept: impl FnMut(&Image, u32, &'static Symbol) -> Option<R>,
    ) -> Option<R> {
        let mut in_table = self.names.of(name.key(), section).peekable();
        let wide = self.wide().map_or(&[][..], |wide| wide.candidates(name.key()));
        let mut wide = wide.iter().map(|asked| asked.image).peekable();
        // SAFETY: an image is taken out of table and list, and waits for open sections, before it is freed.
        let at = |image: *const Image| unsafe { &*image };
        loop {
            let from_table = match (in_table.peek(), wide.peek()) {
                (None, None) => return None,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(export), Some(image)) => at(export.image).sequence() < at(*image).sequence(),
            };
            let found = if from_table {
                in_table.next().and_then(|export| {
                    let image = at(export.image);
                    Some((image, export.symbol, image.symbols().fits_name(export.symbol, name, version)?))
                })
            } else {
                wide.next().and_then(|image| {
                    let (index, symbol) = at(image).symbols().find(name, version)?;
                    Some((at(image), index, symbol))
                })
            };
            if let Some((image, index, symbol)) = found
                && let Some(result) = accept(image, index, symbol)
            {
                return Some(result);
            }
        }
    }

    /// The list of images that are asked one by one; to be called in a section, and used no longer.
    fn wide(&self) -> Option<&Wide> {
        // SAFETY: freed after the section only.
        unsafe { self.wide.load(Ordering::Acquire).as_ref() }
    }

    /// The live images, in load order.
    pub(crate) fn live(&self) -> Vec<Arc<Image>> {
        self.images.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// This namespace and those it sees.
    pub(crate) fn scope(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.links.iter().map(|space| &**space))
    }

    /// Whether there are no images in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.images.lock().is_empty()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let wide = *self.wide.get_mut();
        if !wide.is_null() {
            // SAFETY: nobody reads it any more.
            drop(unsafe { Box::from_raw(wide) });
        }
    }
}

impl Name<'_> {
    /// Its hash in the table.
    #[inline]
    pub(crate) fn key(&self) -> Key {
        self.hash >> 1
    }
}
