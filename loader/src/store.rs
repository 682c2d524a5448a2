//! The store: images kept on disk, found again by what they were made from.
//!
//! A request has a [`Key`]: flags, kinds and names of inputs, environment, the build of Hotbed; not the contents of
//! files. Under the key lies a manifest with the newest few results; each names an image and every file, place and
//! folder it depends on, with hashes of their contents. An entry serves when all of them are still the same.
//!
//! ```text
//! <store>/manifests/<key>          see `manifest`
//! <store>/images/<checksum>.hbi    an image; its name is the checksum in its note
//! <store>/named/<hash>             which image is the copy of a file that the user named, see `named`
//! <store>/keeping/<checksum>       locked by who makes an image with what was compiled of that one
//! <store>/tmp-...                  being written
//! ```
//!
//! The directory belongs to this user and nobody else may write to it. Files are written under a temporary name,
//! synced and renamed, so that a reader sees all of a file or nothing; they are never changed afterwards, so a descriptor
//! that was verified stays what it was. Whatever is wrong with an entry is a [`Miss`] with a name, never an error.
//!
//! A warm start is a handful of system calls: one to check the directory, four for the manifest, one status call for
//! each dependency, two for the image.

mod key;
mod manifest;
mod named;
mod reasons;
mod record;

pub use key::Key;
pub use named::NamedImage;
pub use reasons::{Miss, StoreError};
pub use record::Record;

use crate::boundary::Dependency;
use crate::image::note;
use crate::sys::files::{self, FileIdentity, FileKind, FileStatus, Stamp};
use crate::sys::locks;
use manifest::{Entry, Manifest};
use record::Checker;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const MANIFESTS: &str = "manifests";
const IMAGES: &str = "images";
const KEEPING: &str = "keeping";

/// Makes temporary names of one process differ.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A directory of images. Any number of threads and processes may use one at the same time.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// An image that the store has.
#[derive(Debug)]
pub struct Hit {
    /// Where it is.
    pub path: PathBuf,
    /// The image itself, open for reading, verified.
    pub file: OwnedFd,
    /// The checksum in its note.
    pub checksum: [u8; 32],
    /// What it was made from.
    pub record: Record,
}

impl Store {
    /// The store in `root`, which is made when it does not exist.
    ///
    /// # Errors
    /// When it cannot be made, is no directory, belongs to another user or may be written to by others.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let unusable = |reason: &str| StoreError::Unusable { path: root.into(), reason: reason.into() };
        let status = match FileStatus::of_link(root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => files::create_private_folders(root)
                .and_then(|()| FileStatus::of_link(root))
                .map_err(|e| StoreError::System { operation: "make", path: root.into(), source: e })?,
            other => other.map_err(|e| StoreError::System {
                operation: "look at",
                path: root.into(),
                source: e,
            })?,
        };
        match status.kind {
            FileKind::Folder => {}
            FileKind::Link => return Err(unusable("it is a symbolic link")),
            _ => return Err(unusable("it is not a directory")),
        }
        if status.owner != files::effective_user() {
            return Err(unusable("it belongs to another user"));
        }
        if status.mode & 0o022 != 0 {
            return Err(unusable("other users may write to it"));
        }
        Ok(Self { root: root.into() })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image for `key`, when everything it depends on is what it was. Relative dependencies are looked for in
    /// `directory`.
    ///
    /// # Errors
    /// The reason why no entry serves: that of the newest entry, when there are several.
    pub fn find(&self, key: &Key, directory: &Path) -> Result<Hit, Miss> {
        let path = self.manifest_path(key);
        let bytes = match files::open_no_follow(&path) {
            Ok((file, status)) => files::contents_of(&file, status.identity.size),
            Err(e) => Err(e),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Miss::NoEntry),
            Err(e) => return Err(Miss::ManifestUnreadable(e.kind())),
        };
        let mut manifest = Manifest::decode(&bytes).map_err(|e| Miss::ManifestDamaged(e.0))?;
        let mut checker = Checker::new(directory);
        let mut first = None;
        for at in 0..manifest.entries.len() {
            let Entry { checksum, memo, record } = &mut manifest.entries[at];
            let found = checker.check(record).and_then(|changed| {
                let (file, image_changed) = self.open_image(checksum, memo)?;
                Ok((file, changed || image_changed))
            });
            match found {
                Ok((file, memos_changed)) => {
                    if memos_changed {
                        // Best effort: without it the next start hashes again.
                        let _ = self.write(&path, &manifest.encode(), false);
                    }
                    let Entry { checksum, record, .. } = manifest.entries.swap_remove(at);
                    return Ok(Hit { path: self.image_path(&checksum), file, checksum, record });
                }
                Err(miss) => {
                    first.get_or_insert(miss);
                }
            }
        }
        Err(first.unwrap_or(Miss::NoEntry))
    }

    /// Takes an image in: the result for `key` in `directory`, made from `dependencies` by a compilation that began at
    /// `started`.
    ///
    /// # Errors
    /// [`StoreError::Unstable`] when a dependency may have changed since `started`; otherwise what is wrong with the
    /// directory or the image. Nothing is left behind.
    pub fn insert(
        &self,
        key: &Key,
        directory: &Path,
        dependencies: &[Dependency],
        started: Stamp,
        image: BorrowedFd<'_>,
    ) -> Result<Hit, StoreError> {
        let record = Record::take(directory, dependencies, started)?;
        let system =
            |operation, path: &Path, source| StoreError::System { operation, path: path.into(), source };
        let (checksum, memo) = self.take_in(image)?;
        let path = self.image_path(&checksum);
        let (file, _) = files::open_no_follow(&path).map_err(|e| system("read", &path, e))?;

        let manifest_path = self.manifest_path(key);
        let mut manifest = self.manifest(&manifest_path).unwrap_or_default();
        manifest.add(Entry { checksum, memo, record: record.clone() });
        self.write(&manifest_path, &manifest.encode(), true)
            .map_err(|e| system("write to", &manifest_path, e))?;
        Ok(Hit { path, file: file.into(), checksum, record })
    }

    /// Locks the right to replace the image with this checksum; nothing if somebody else has it. It goes with the last
    /// descriptor of the file, which may be another process's.
    ///
    /// # Errors
    /// What is wrong with the directory.
    pub fn begin_to_replace(&self, checksum: &[u8; 32]) -> io::Result<Option<File>> {
        let path = self.keeping_path(checksum);
        match locks::lock(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                path.parent().map_or(Ok(()), files::create_private_folders)?;
                locks::lock(&path)
            }
            other => other,
        }
    }

    /// Waits for who replaces the image with this checksum, but not longer than `limit`. False if nobody does, or not by then.
    pub fn wait_for_replacement(&self, checksum: &[u8; 32], limit: Duration) -> bool {
        // What cannot be waited for is not waited for.
        locks::wait(&self.keeping_path(checksum), limit).unwrap_or(false)
    }

    /// The image with this checksum has been replaced, or will not be.
    pub fn end_to_replace(&self, checksum: &[u8; 32]) {
        // Left behind, it is locked by nobody.
        let _ = std::fs::remove_file(self.keeping_path(checksum));
    }

    fn keeping_path(&self, checksum: &[u8; 32]) -> PathBuf {
        self.named(KEEPING, &blake3::Hash::from_bytes(*checksum).to_hex(), "")
    }

    /// The contents of the image with this checksum, verified.
    ///
    /// # Errors
    /// Why it is not there.
    pub fn image(&self, checksum: &[u8; 32]) -> Result<Vec<u8>, Miss> {
        let (file, _) = self.open_image(checksum, &mut None)?;
        files::contents(file.as_fd()).map_err(|e| Miss::ImageDamaged(e.to_string()))
    }

    /// Takes an image in that is to be used instead of the one with the checksum `old`, of the same key and made of the same
    /// things; false if that one is not used any more.
    ///
    /// # Errors
    /// What is wrong with the directory or the image.
    pub fn replace(&self, key: &Key, old: &[u8; 32], image: BorrowedFd<'_>) -> Result<bool, StoreError> {
        let system =
            |operation, path: &Path, source| StoreError::System { operation, path: path.into(), source };
        let path = self.manifest_path(key);
        let Some(mut manifest) = self.manifest(&path) else { return Ok(false) };
        let Some(entry) = manifest.entries.iter_mut().find(|entry| entry.checksum == *old) else {
            return Ok(false);
        };
        (entry.checksum, entry.memo) = self.take_in(image)?;
        self.write(&path, &manifest.encode(), true).map_err(|e| system("write to", &path, e))?;
        Ok(true)
    }

    /// Puts an image where images are, and gives its checksum and its memo.
    fn take_in(&self, image: BorrowedFd<'_>) -> Result<([u8; 32], Option<FileIdentity>), StoreError> {
        let system =
            |operation, path: &Path, source| StoreError::System { operation, path: path.into(), source };
        let bytes = files::contents(image).map_err(|e| system("read the image for", &self.root, e))?;
        let checksum = note::verify(&bytes)?;
        let path = self.image_path(&checksum);
        if !self.holds_image(&path, &checksum) {
            self.write(&path, &bytes, true).map_err(|e| system("write to", &path, e))?;
        }
        let (_, status) = files::open_no_follow(&path).map_err(|e| system("read", &path, e))?;
        Ok((checksum, status.identity.is_settled(Stamp::now()).then_some(status.identity)))
    }

    /// The manifest at `path`, if there is one that can be read.
    fn manifest(&self, path: &Path) -> Option<Manifest> {
        let (file, status) = files::open_no_follow(path).ok()?;
        Manifest::decode(&files::contents_of(&file, status.identity.size).ok()?).ok()
    }

    /// Opens the image with this checksum and makes sure of its contents, unless its file is still the one in `memo`. Says
    /// beside it whether the memo has changed.
    fn open_image(
        &self,
        expected: &[u8; 32],
        memo: &mut Option<FileIdentity>,
    ) -> Result<(OwnedFd, bool), Miss> {
        let path = self.image_path(expected);
        let (file, status) = files::open_no_follow(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Miss::ImageMissing,
            _ => Miss::ImageDamaged(e.to_string()),
        })?;
        if *memo == Some(status.identity) {
            return Ok((file.into(), false));
        }
        let now = Stamp::now();
        let bytes =
            files::contents_of(&file, status.identity.size).map_err(|e| Miss::ImageDamaged(e.to_string()))?;
        let checksum = note::verify(&bytes).map_err(|e| Miss::ImageDamaged(e.to_string()))?;
        if checksum != *expected {
            return Err(Miss::ImageDamaged("it is another image".into()));
        }
        let settled = status.identity.is_settled(now);
        if settled {
            *memo = Some(status.identity);
        }
        Ok((file.into(), settled))
    }

    fn holds_image(&self, path: &Path, checksum: &[u8; 32]) -> bool {
        files::open_no_follow(path)
            .and_then(|(file, status)| files::contents_of(&file, status.identity.size))
            .is_ok_and(|bytes| note::verify(&bytes).as_ref() == Ok(checksum))
    }

    /// Writes a file as a whole: under a temporary name, then renamed.
    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        let (temporary, mut file) = self.temporary()?;
        let written = file
            .write_all(bytes)
            .and_then(|()| if sync { file.sync_all() } else { Ok(()) })
            .and_then(|()| match std::fs::rename(&temporary, path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    path.parent().map_or(Ok(()), files::create_private_folders)?;
                    std::fs::rename(&temporary, path)
                }
                other => other,
            });
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    fn temporary(&self) -> io::Result<(PathBuf, File)> {
        let process = std::process::id();
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(format!("tmp-{process}-{count}"));
            match files::create_private(&path) {
                // Left behind by a process that had the same number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
                Ok(file) => return Ok((path, file)),
            }
        }
    }

    fn manifest_path(&self, key: &Key) -> PathBuf {
        self.named(MANIFESTS, &key.hex(), "")
    }

    fn image_path(&self, checksum: &[u8; 32]) -> PathBuf {
        self.named(IMAGES, &blake3::Hash::from_bytes(*checksum).to_hex(), ".hbi")
    }

    fn named(&self, folder: &str, name: &str, suffix: &str) -> PathBuf {
        self.root.join(format!("{folder}/{name}{suffix}"))
    }
}

/// Reads manifests and memos, whose checksum is made to match: contents of such files without it.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub fn fuzz(contents: &[u8]) -> crate::fuzzing::Outcome {
    let mut bytes = contents.to_vec();
    bytes.extend_from_slice(blake3::hash(contents).as_bytes());
    if let Ok(manifest) = Manifest::decode(&bytes) {
        assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
    }
    let memo = named::Memo::decode(&bytes);
    if let Ok(memo) = &memo {
        assert_eq!(named::Memo::decode(&memo.encode()).as_ref(), Ok(memo));
    }
    if memo.is_ok() { memo.into() } else { Manifest::decode(&bytes).into() }
}

/// Manifests and memos, without their checksums.
#[cfg(test)]
pub(crate) fn sample_contents() -> Vec<Vec<u8>> {
    let mut larger = manifest::sample();
    larger.entries.extend(manifest::sample().entries);
    [manifest::sample().encode(), larger.encode(), named::sample().encode()]
        .map(|bytes| bytes[..bytes.len() - 32].to_vec())
        .to_vec()
}

#[cfg(test)]
mod tests;
