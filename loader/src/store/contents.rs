//! What is in a store's directory, looked through as a whole.
//!
//! Only what has a name that the store gives counts, in folders that are folders: whatever else somebody puts there is neither
//! counted nor removed, and no symbolic link is followed.

use super::manifest::Manifest;
use super::{IMAGES, KEEPING, MANIFESTS, Store, TEMPORARY, building, changing, named, siblings, stock, uses};
use crate::sys::files::{self, FileKind, FileStatus};
use crate::sys::locks::{self, Manner};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Everything that a store has.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) images: HashMap<[u8; 32], Stored>,
    /// Manifests with their sizes in bytes; nothing in those that are damaged.
    pub(super) manifests: Vec<(PathBuf, u64, Option<Manifest>)>,
    /// Memos of images that the user named with their sizes, and which images these are; nothing in those that are damaged.
    pub(super) memos: Vec<(PathBuf, u64, Option<[u8; 32]>)>,
    /// What is there for explanations, with sizes in bytes and when it was written, in nanoseconds since 1970.
    pub(super) siblings: Vec<(PathBuf, u64, i64)>,
    /// What may make compiling something again shorter, with sizes in bytes and when it was written, in nanoseconds since 1970.
    pub(super) stocks: Vec<(PathBuf, u64, i64)>,
    /// Files that nobody needs, and their sizes in bytes: left by who did not come to an end, of images that are gone, or no files.
    pub(super) refuse: Vec<(PathBuf, u64)>,
    /// Files, empty or not, that are locked by who needs them: temporary ones and locks.
    pub(super) lockable: Vec<(PathBuf, u64)>,
    /// Size of all that in bytes.
    pub(super) bytes: u64,
}

/// An image's file.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// When it was written, in nanoseconds since 1970.
    pub(super) made: i64,
    /// When it was last used after that, to a day; not known of one that cannot be found.
    pub(super) used: Option<i64>,
    /// Whether a manifest or a memo leads to it.
    pub(super) found: bool,
    /// Its share of those, in bytes.
    pub(super) share: u64,
}

/// What a store has, in figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStat {
    /// Results that can be found: of some request, for some state of the files that it read.
    pub entries: u64,
    /// Files of images.
    pub images: u64,
    /// Images that were used again after they were made.
    pub used: u64,
    /// Size of everything in bytes.
    pub bytes: u64,
    /// When the oldest image was made.
    pub oldest: Option<SystemTime>,
    /// When the newest image was made.
    pub newest: Option<SystemTime>,
    /// Files that nobody needs: images that nothing leads to any more, what was left by processes that ended early.
    pub orphans: u64,
    /// Size of those in bytes.
    pub orphan_bytes: u64,
    /// Files that may make compiling something again shorter.
    pub stocks: u64,
    /// Size of those in bytes.
    pub stock_bytes: u64,
}

impl Contents {
    /// Looks through everything in `store`.
    pub(super) fn of(store: &Store) -> Self {
        let mut all = Self::default();
        let folder = |name| store.root().join(name);
        for (checksum, path, status) in all.files(&folder(IMAGES), |name| number(name.strip_suffix(".hbi")?))
        {
            let (bytes, made) = (status.identity.size, status.identity.mtime_ns);
            all.images.insert(checksum, Stored { path, bytes, made, used: None, found: false, share: 0 });
        }
        for (_, path, status) in all.files(&folder(MANIFESTS), number) {
            let manifest = store.manifest(&path).ok();
            let entries = manifest.as_ref().map_or(&[][..], |manifest| &manifest.entries);
            for entry in entries {
                all.lead_to(&entry.checksum, status.identity.size / entries.len() as u64);
            }
            all.manifests.push((path, status.identity.size, manifest));
        }
        for (_, path, status) in all.files(&folder(named::FOLDER), number) {
            let checksum = named::copy_of(&path);
            checksum.iter().for_each(|checksum| all.lead_to(checksum, status.identity.size));
            all.memos.push((path, status.identity.size, checksum));
        }
        for (checksum, path, status) in all.files(&folder(uses::FOLDER), number) {
            match all.images.get_mut(&checksum).filter(|image| image.found) {
                Some(image) => image.used = Some(status.identity.mtime_ns),
                None => all.refuse.push((path, status.identity.size)),
            }
        }
        for (_, path, status) in all.files(&folder(siblings::FOLDER), number) {
            all.siblings.push((path, status.identity.size, status.identity.mtime_ns));
        }
        for (_, path, status) in all.files(&folder(stock::FOLDER), number) {
            all.stocks.push((path, status.identity.size, status.identity.mtime_ns));
        }
        for name in [building::FOLDER, changing::FOLDER, KEEPING] {
            let locks = all.files(&folder(name), number);
            all.lockable.extend(locks.into_iter().map(|(_, path, status)| (path, status.identity.size)));
        }
        let written = all.files(store.root(), |name| name.strip_prefix(TEMPORARY).map(drop));
        all.lockable.extend(written.into_iter().map(|((), path, status)| (path, status.identity.size)));
        all
    }

    /// What can be removed at no loss: files with their sizes, locked if somebody might need them otherwise.
    pub(super) fn orphans(&self) -> Vec<(&Path, u64, Option<File>)> {
        let refuse = self.refuse.iter().map(|(path, bytes)| (&**path, *bytes, None));
        let lost = self.images.values().filter(|image| !image.found);
        let lost = lost.map(|image| (&*image.path, image.bytes, None));
        let left = self.lockable.iter().filter_map(|(path, bytes)| {
            let (file, _) = files::open_no_follow(path).ok()?;
            let locked = locks::try_lock(&file, Manner::Alone).ok()?;
            locked.then_some((&**path, *bytes, Some(file)))
        });
        refuse.chain(lost).chain(left).collect()
    }

    /// The files in a folder whose names `known` knows. What else has such a name is refuse, but for folders.
    fn files<T>(
        &mut self,
        folder: &Path,
        known: impl Fn(&str) -> Option<T>,
    ) -> Vec<(T, PathBuf, FileStatus)> {
        if !FileStatus::of_link(folder).is_ok_and(|status| status.kind == FileKind::Folder) {
            return Vec::new();
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Some(name) = entry.file_name().to_str().and_then(&known) else { continue };
            let path = entry.path();
            // Meanwhile it may be gone.
            let Ok(status) = FileStatus::of_link(&path) else { continue };
            match status.kind {
                FileKind::Regular => {
                    self.bytes += status.identity.size;
                    files.push((name, path, status));
                }
                FileKind::Folder => {}
                FileKind::Link | FileKind::Other => self.refuse.push((path, 0)),
            }
        }
        files
    }

    /// Notes that something leads to an image, and how many bytes of it do.
    fn lead_to(&mut self, checksum: &[u8; 32], bytes: u64) {
        if let Some(image) = self.images.get_mut(checksum) {
            image.found = true;
            image.share += bytes;
        }
    }
}

impl Store {
    /// What there is, in figures. Nothing is changed.
    pub fn stat(&self) -> StoreStat {
        let all = Contents::of(self);
        let moment = |time: i64| UNIX_EPOCH + Duration::from_nanos(u64::try_from(time).unwrap_or_default());
        let made = || all.images.values().map(|image| image.made);
        let orphans = all.orphans();
        let entries = all.manifests.iter().filter_map(|(.., manifest)| manifest.as_ref());
        let there = |checksum: &[u8; 32]| all.images.contains_key(checksum);
        StoreStat {
            entries: entries.flat_map(|m| &m.entries).filter(|entry| there(&entry.checksum)).count() as u64,
            images: all.images.len() as u64,
            used: all.images.values().filter(|image| image.used.is_some()).count() as u64,
            bytes: all.bytes,
            oldest: made().min().map(moment),
            newest: made().max().map(moment),
            orphans: orphans.len() as u64,
            orphan_bytes: orphans.iter().map(|(_, bytes, _)| bytes).sum(),
            stocks: all.stocks.len() as u64,
            stock_bytes: all.stocks.iter().map(|(_, bytes, _)| bytes).sum(),
        }
    }
}

/// The number in the name of a file.
fn number(name: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(name).ok().map(Into::into)
}
