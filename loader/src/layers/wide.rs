//! Images with many names, which are asked one by one.
//!
//! Entering names into a table takes some nanoseconds each, which is more than loading an image of many names should pay.
//! The image's own filter says as quickly whether it may have a name; but asking the filters of all such images takes longer
//! with every image. So there is one more filter, with a bit for every name that any of the images has, but for the latest few:
//! most questions end there.
//!
//! A list does not change: who adds or removes an image makes a new one. The common filter is shared by the lists that
//! follow each other; bits are only ever set in it, before a list says that they count. Bits of images that are gone lead
//! to needless questions, so after some of these it is made anew.

use crate::image::Image;
use crate::image::symbols::{Filter, PartialHash};
use crate::layers::chains::Key;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many images are not in the common filter before they are entered.
const LATEST: usize = 2;
/// So many images that are gone may be in the common filter.
const GONE: usize = 16;
/// Words of the common filter: bits for some thousands of names.
const WORDS: usize = 512;

/// An image and its filter.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    filter: Filter,
    /// The image; valid as long as it is in the list of its namespace.
    pub(super) image: *const Image,
}

/// See the module's description.
#[derive(Clone, Default)]
pub(super) struct Wide {
    /// In load order.
    asked: Vec<Asked>,
    /// So many of them are in the common filter.
    common: usize,
    filter: Option<Arc<[AtomicU64]>>,
    /// So many others are.
    gone: usize,
}

impl Wide {
    /// How many images are in it.
    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }

    /// The list with one more image.
    ///
    /// # Safety
    /// The images of the list, and this one, are there.
    pub(super) unsafe fn with(&self, image: &Image) -> Self {
        let mut asked = Vec::with_capacity(self.asked.len() + 1);
        asked.extend_from_slice(&self.asked);
        asked.push(Asked { filter: image.symbols().filter(), image });
        let mut list = Self { asked, common: self.common, filter: self.filter.clone(), gone: self.gone };
        if list.asked.len() - list.common > LATEST {
            // SAFETY: the caller's promise.
            unsafe { list.gather() };
        }
        list
    }

    /// Enters all images in the common filter.
    ///
    /// # Safety
    /// They are there.
    #[inline(never)]
    unsafe fn gather(&mut self) {
        let filter = self.filter.get_or_insert_with(|| (0..WORDS).map(|_| AtomicU64::new(0)).collect());
        for asked in &self.asked[self.common..] {
            // SAFETY: the caller's promise.
            for (_, key) in unsafe { &*asked.image }.symbols().findable() {
                let (word, bit) = place(key);
                filter[word].fetch_or(bit, Ordering::Relaxed);
            }
        }
        self.common = self.asked.len();
    }

    /// The list without an image; `None` when none is left.
    pub(super) fn without(&self, image: &Image) -> Option<Self> {
        let mut list = self.clone();
        if let Some(at) = list.asked.iter().position(|asked| std::ptr::eq(asked.image, image)) {
            list.asked.remove(at);
            if at < list.common {
                list.common -= 1;
                list.gone += 1;
            }
        }
        if list.gone > GONE {
            (list.common, list.gone, list.filter) = (0, 0, None);
        }
        (!list.asked.is_empty()).then_some(list)
    }

    /// The images that may have a name of that hash.
    #[inline]
    pub(super) fn candidates(&self, key: Key) -> &[Asked] {
        let passes = self.filter.as_ref().is_none_or(|filter| {
            let (word, bit) = place(key);
            filter[word].load(Ordering::Relaxed) & bit != 0
        });
        if passes { &self.asked } else { &self.asked[self.common..] }
    }

    /// Whether any may have a name of which only a part of the hash is known.
    #[inline]
    pub(super) fn may_have(&self, hash: PartialHash) -> bool {
        self.candidates(hash.key()).iter().any(|asked| asked.filter.passes_partly(hash))
    }
}

/// Where the bit of a hash is.
#[inline]
fn place(key: Key) -> (usize, u64) {
    // Neighbouring hashes are of similar names: they are spread by the golden ratio.
    let bit = key.wrapping_mul(0x9e37_79b1) as usize >> 16;
    (bit / 64 % WORDS, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use crate::testing::{Folder, load, loader};

    /// A unit with more names than go into the table.
    fn unit(number: usize) -> String {
        let own =
            (0..80).map(|at| format!("int own{number}_{at}(void) {{ return {}; }}\n", number * 100 + at));
        own.chain([format!("int common(void) {{ return {number}; }}\n")]).collect()
    }

    #[test]
    fn images_with_many_names_are_found_in_load_order_and_forgotten() {
        const COUNT: usize = 30;
        let (folder, loader) = (Folder::new(), loader());
        let load_one = |number: usize| {
            let name = format!("unit{number}.c");
            load(&loader, &folder.image(&name, &unit(number), &["-O0"])).unwrap()
        };
        let mut images: Vec<_> = (0..COUNT).map(|number| Some(load_one(number))).collect();
        let called = |name: &str| {
            let found = loader.resolve(name)?;
            // SAFETY: all functions of the units have this type.
            let function = unsafe { std::mem::transmute::<usize, extern "C" fn() -> usize>(found.address) };
            Some(function() & 0xffff)
        };
        let all_as_expected = |images: &[Option<_>]| {
            for (number, image) in images.iter().enumerate() {
                for at in [0, 41, 79] {
                    let expected = image.is_some().then_some(number * 100 + at);
                    assert_eq!(called(&format!("own{number}_{at}")), expected, "{number} {at}");
                }
            }
            assert_eq!(called("common"), images.iter().position(Option::is_some));
            assert_eq!(called("own0_80"), None);
        };
        all_as_expected(&images);
        // First some of those in the common filter, then nearly all, so that it is made anew.
        for gone in [0..5, 5..COUNT - 2] {
            images[gone].iter_mut().for_each(|image| *image = None);
            all_as_expected(&images);
        }
        for (number, image) in images.iter_mut().enumerate().skip(3).take(9) {
            *image = Some(load_one(number));
        }
        for number in (3..12).chain(COUNT - 2..COUNT) {
            assert_eq!(called(&format!("own{number}_7")), Some(number * 100 + 7));
        }
        // Those that have stayed came first.
        assert_eq!(called("common"), Some(COUNT - 2));
    }
}
