//! How many variants of one package are kept: what was made of the same inputs in different ways, with other flags, at other levels,
//! for other processors. Trying a row of flags out shall not push everything else out of the store.
//!
//! The list of siblings has them all (see `siblings`). Who adds one too many takes away those that are worth least, as when the
//! store is too large (see `collect`): never used again before used long ago. What some process has mapped stays.

use super::collect::worth;
use super::contents::Contents;
use super::siblings::{Fate, Sibling};
use super::{Key, Store};
use crate::sys::files::Stamp;
use crate::sys::mapped_names::mapped_names;
use std::cmp::Reverse;
use std::collections::HashSet;

/// How many variants of the same inputs are kept, and remembered.
pub(super) const VARIANTS: usize = 32;

impl Store {
    /// Takes those of `siblings`, the newest first, out that are too many, and their images out of the store. The newest stays.
    pub(super) fn limit_variants(&self, siblings: &mut Vec<Sibling>) {
        if siblings.len() <= VARIANTS {
            return;
        }
        // Whatever stands in the way: then they are left to the budget.
        let _ = self.remove(u64::MAX, |contents, _| {
            let (mapped, now) = (mapped_names(), Stamp::now());
            let is_mapped = |checksum: &[u8; 32]| {
                let name = contents.images.get(checksum).and_then(|image| image.path.file_name());
                name.is_some_and(|name| mapped.contains(name))
            };
            let mut others: Vec<_> = siblings
                .drain(1..)
                .enumerate()
                .map(|(age, sibling)| {
                    let images = self.images_of(&sibling, contents);
                    let rate =
                        |checksum| Some((is_mapped(checksum), worth(contents.images.get(checksum)?, now)));
                    // What has no image is of use to nobody; among equals the older ones go.
                    let worth = images.iter().filter_map(rate).max();
                    (worth, Reverse(age), sibling, images)
                })
                .collect();
            others.sort_by_key(|(worth, age, ..)| Reverse((*worth, *age)));
            let gone = others.split_off(VARIANTS - 1);
            others.sort_by_key(|(_, age, ..)| Reverse(*age));
            let kept: HashSet<[u8; 32]> = others.iter().flat_map(|(.., images)| images).copied().collect();
            siblings.extend(others.into_iter().map(|(_, _, sibling, _)| sibling));
            let images = gone.into_iter().flat_map(|(.., images)| images);
            images.filter(|checksum| !kept.contains(checksum) && !is_mapped(checksum)).collect()
        });
        siblings.truncate(VARIANTS);
    }

    /// The images that were made as a sibling was, for several states of the inputs.
    fn images_of(&self, sibling: &Sibling, contents: &Contents) -> HashSet<[u8; 32]> {
        let settings = sibling.settings().filter(|_| sibling.fate == Fate::Kept);
        let Some(settings) = settings else { return HashSet::new() };
        let manifest = self.manifest(&self.manifest_path(&Key::of_settings(&settings))).unwrap_or_default();
        let entries = manifest.entries.into_iter().filter(|entry| entry.level == settings.level);
        entries.map(|entry| entry.checksum).filter(|one| contents.images.contains_key(one)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::tests::{Scratch, image, request};
    use super::super::{Hit, Miss};
    use super::*;
    use crate::boundary::{Argument, Content, Input, Lang, LevelSigns, Request};
    use crate::sys::mapped_file::MappedFile;
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    const HERE: &str = "/";

    fn of(number: usize) -> Request {
        let input = Argument::Input(Input { lang: Lang::C, content: Content::File("a.c".into()) });
        request(vec![Argument::Flag(format!("-DN={number}")), input])
    }

    fn put(store: &Store, request: &Request, contents: &str) -> Hit {
        let image = image(contents);
        let none = LevelSigns::NONE;
        let key = Key::of(request);
        let hit = store.insert(&key, Path::new(HERE), &[], none, Stamp::now(), image.as_fd()).unwrap();
        store.note(request, Fate::Kept);
        hit
    }

    fn found(store: &Store, number: usize) -> Result<(), Miss> {
        store.find(&Key::of(&of(number)), Path::new(HERE)).map(drop)
    }

    #[test]
    fn the_variants_that_were_used_least_go() {
        let scratch = Scratch::new("variants");
        let store = scratch.store();
        let hits: Vec<Hit> =
            (0..VARIANTS).map(|number| put(&store, &of(number), &format!("code {number}"))).collect();
        assert!((0..VARIANTS).all(|number| found(&store, number).is_ok()));
        // Made days ago; the first was used since, somebody has the second mapped.
        for hit in &hits {
            let file = std::fs::File::options().write(true).open(&hit.path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60)).unwrap();
        }
        store.note_use(&hits[0].checksum);
        let mapped = std::fs::File::open(&hits[1].path).unwrap();
        let _mapped = MappedFile::new(&mapped, 100).unwrap();
        for (number, gone) in [(VARIANTS, 2), (VARIANTS + 1, 3)] {
            put(&store, &of(number), &format!("code {number}"));
            assert_eq!(found(&store, gone), Err(Miss::NoEntry), "{number}");
        }
        let left = (0..VARIANTS + 2).filter(|number| found(&store, *number).is_ok()).count();
        assert_eq!(left, VARIANTS);
        assert!([0, 1, VARIANTS, VARIANTS + 1].iter().all(|number| found(&store, *number).is_ok()));
        assert!(!hits[2].path.exists());
        // It is not known any more why there is none.
        assert_eq!(store.siblings(&super::super::settings::Settings::of(&of(2))).unwrap().len(), VARIANTS);
    }

    #[test]
    fn an_image_that_another_variant_has_too_stays() {
        let scratch = Scratch::new("variants-equal");
        let store = scratch.store();
        for number in 0..VARIANTS + 5 {
            put(&store, &of(number), "the same");
        }
        assert!((5..VARIANTS + 5).all(|number| found(&store, number).is_ok()));
    }
}
