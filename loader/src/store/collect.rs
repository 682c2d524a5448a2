//! Making room: what nobody needs goes, and of the rest what is missed least, until the store is as small as it should be.
//!
//! Stocks go first, which only save time (see `stock`), the oldest first.
//! Images that were made more than a day ago and never used again go first, oldest first; then the ones not used for longest. What some
//! process has mapped stays, since it is probably started again; so does what was just added, which is about to be mapped. A file
//! that goes all the same stays valid for who has it open or mapped.
//!
//! Who adds to a store shares the file `<store>/lock`, who removes from it has that alone: so nothing goes between an image and the
//! manifest that leads to it. Who only looks things up takes no lock, and finds at worst that an image is gone. Nobody waits long
//! for it: whatever is lost then is compiled once more.
//!
//! Nobody waits for all this who has nothing to compile: it happens now and then after something was added, and by the
//! process that keeps what was compiled. When it was done last is the time of modification of `<store>/lock`.

use super::contents::{Contents, Stored};
use super::{IMAGES, MANIFESTS, Store, StoreError, siblings, stock, uses};
use crate::sys::files::{FileStatus, Stamp};
use crate::sys::locks::{self, Held, Manner};
use crate::sys::mapped_names::mapped_names;
use std::collections::HashSet;
use std::fs::remove_file;
use std::path::Path;
use std::time::{Duration, SystemTime};

const LOCK: &str = "lock";

/// How long who removes, or adds, is waited for; both take a moment, unless they are stopped.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Images that went because there was too much.
    pub evicted: u64,
    /// Files that nobody needed.
    pub orphans: u64,
    /// Size of all that in bytes.
    pub bytes: u64,
}

impl Collected {
    /// Removes a file, and counts it if it is gone.
    pub(super) fn remove(&mut self, path: &Path, bytes: u64) -> bool {
        let removed = remove_file(path).is_ok();
        if removed {
            self.bytes += bytes;
        }
        removed
    }
}

impl Store {
    /// Removes what nobody needs and, if what is left is larger than the budget, images until a tenth of the budget is
    /// free. Nothing if somebody else is at that.
    ///
    /// # Errors
    /// When nothing can be removed.
    pub fn collect(&self) -> Result<Option<Collected>, StoreError> {
        self.collect_all_but(None)
    }

    fn collect_all_but(&self, added: Option<&[u8; 32]>) -> Result<Option<Collected>, StoreError> {
        self.remove(self.budget, |contents, bytes| {
            let mut chosen = HashSet::new();
            if bytes > self.budget {
                chosen = superfluous(contents, bytes, self.budget, added);
            }
            chosen
        })
    }

    /// Removes everything that is the store's, but for what others are at. Programs that run have what they need. Nothing if
    /// somebody else removes something.
    ///
    /// # Errors
    /// When nothing can be removed.
    pub fn clear(&self) -> Result<Option<Collected>, StoreError> {
        self.remove(0, |contents, _| contents.images.keys().copied().collect())
    }

    /// Removes what nobody needs, then stocks as long as there is more than `room`, and of the rest, which has so many bytes then,
    /// the images that `choose` says.
    pub(super) fn remove(
        &self,
        room: u64,
        choose: impl FnOnce(&Contents, u64) -> HashSet<[u8; 32]>,
    ) -> Result<Option<Collected>, StoreError> {
        let path = self.root.join(LOCK);
        let alone = locks::hold(&path, Manner::Alone, PATIENCE, &mut || {});
        let Some(alone) = alone.map_err(|source| StoreError::System { operation: "lock", path, source })?
        else {
            return Ok(None);
        };
        let contents = Contents::of(self);
        let mut collected = Collected::default();
        for (path, bytes, _lock) in contents.orphans() {
            collected.orphans += u64::from(collected.remove(path, bytes));
        }
        let bytes = contents.bytes.saturating_sub(collected.bytes);
        if bytes > room {
            stock::make_room(&contents, bytes, room - room / 10, &mut collected);
        }
        let chosen = choose(&contents, contents.bytes.saturating_sub(collected.bytes));
        self.forget(&contents, &chosen, &mut collected);
        for (checksum, image) in contents.images.iter().filter(|(checksum, _)| chosen.contains(*checksum)) {
            // Orphans are gone already.
            collected.evicted += u64::from(collected.remove(&image.path, image.bytes));
            let _ = remove_file(self.use_path(checksum));
        }
        // Where no times are kept, it is looked through more often.
        let _ = alone.file().set_modified(SystemTime::now());
        Ok(Some(collected))
    }

    /// Collects if there is more than the budget, or nobody has looked for a day.
    pub fn tend(&self) {
        self.tend_all_but(None);
    }

    fn tend_all_but(&self, added: Option<&[u8; 32]>) {
        let looked = FileStatus::of_link(&self.root.join(LOCK));
        let looked = looked.is_ok_and(|status| uses::is_of_today(status.identity.mtime_ns, Stamp::now()));
        if !looked || self.bytes() > self.budget {
            // Whatever stands in the way, there will be another time.
            let _ = self.collect_all_but(added);
        }
    }

    /// The same, now and then: after the image with this checksum, of `bytes`, was added. The checksum is as good as a die: one in sixteen
    /// looks, and each that is large.
    pub(super) fn tend_after(&self, checksum: &[u8; 32], bytes: u64) {
        if checksum[0].is_multiple_of(16) || bytes > self.budget / 64 {
            self.tend_all_but(Some(checksum));
        }
    }

    /// Keeps others from removing anything as long as this is there. Where nothing can be locked, or not soon, there is nothing.
    pub(super) fn adding(&self) -> Option<Held> {
        locks::hold(&self.root.join(LOCK), Manner::Shared, PATIENCE, &mut || {}).ok().flatten()
    }

    /// Size in bytes of all images and of what leads to them or tells of them, of which there may be as much.
    fn bytes(&self) -> u64 {
        let files = [IMAGES, MANIFESTS, siblings::FOLDER, stock::FOLDER]
            .map(|folder| std::fs::read_dir(self.root.join(folder)));
        let files = files.into_iter().flatten().flatten().flatten();
        files
            .filter_map(|file| FileStatus::of_link(&file.path()).ok())
            .map(|status| status.identity.size)
            .sum()
    }

    /// Takes out of manifests what leads to images that are, or will be, gone; manifests and memos that lead to nothing else go.
    fn forget(&self, contents: &Contents, gone: &HashSet<[u8; 32]>, collected: &mut Collected) {
        let there = |checksum: &[u8; 32]| contents.images.contains_key(checksum) && !gone.contains(checksum);
        for (path, bytes, manifest) in &contents.manifests {
            let entries = manifest.iter().flat_map(|manifest| &manifest.entries);
            let (mut all, mut kept) = (0, 0);
            for entry in entries {
                all += 1;
                kept += usize::from(there(&entry.checksum));
            }
            if kept == 0 {
                collected.remove(path, *bytes);
            } else if kept < all {
                // Written to since, it may have more.
                let _ = self.change_manifest(path, |manifest| {
                    manifest.entries.retain(|entry| there(&entry.checksum));
                    !manifest.entries.is_empty()
                });
            }
        }
        for (path, bytes, checksum) in &contents.memos {
            if !checksum.is_some_and(|checksum| there(&checksum)) {
                collected.remove(path, *bytes);
            }
        }
        // Siblings are written behind every image that they tell of: none of those is left of what was written before any
        // image that stays.
        let left =
            contents.images.iter().filter(|(checksum, _)| there(checksum)).map(|(_, image)| image.made);
        let oldest = left.min().unwrap_or(i64::MAX);
        for (path, bytes, _) in contents.siblings.iter().filter(|(.., written)| *written < oldest) {
            collected.remove(path, *bytes);
        }
    }
}

/// Which images have to go, if everything together has `bytes`, for a tenth of the budget to be free.
fn superfluous(contents: &Contents, bytes: u64, budget: u64, added: Option<&[u8; 32]>) -> HashSet<[u8; 32]> {
    let (now, goal) = (Stamp::now(), budget - budget / 10);
    let mapped = mapped_names();
    let stays = |checksum: &[u8; 32], image: &Stored| {
        !image.found
            || added == Some(checksum)
            || image.path.file_name().is_some_and(|name| mapped.contains(name))
    };
    let mut images: Vec<(&[u8; 32], &Stored)> =
        contents.images.iter().filter(|(checksum, image)| !stays(checksum, image)).collect();
    images.sort_by_key(|(checksum, image)| (worth(image, now), **checksum));
    let mut left = bytes;
    let chosen = images.into_iter().take_while(|(_, image)| {
        let too_much = left > goal;
        left = left.saturating_sub(image.bytes + image.share);
        too_much
    });
    chosen.map(|(checksum, _)| *checksum).collect()
}

/// What is worth less goes before what is worth more: whether it was ever used, or may still be, and when it was last.
pub(super) fn worth(image: &Stored, now: Stamp) -> (bool, i64) {
    let last = image.used.unwrap_or(image.made);
    let used = image.used.is_some() || uses::is_of_today(image.made, now);
    (used, if uses::is_wrong(last, now) { i64::MIN } else { last })
}

#[cfg(test)]
mod tests;
