//! The store: images kept on disk, found again by what they were made from.
//!
//! A request has a [`Key`]: flags, kinds and names of inputs, environment, the build of Hotbed; not the contents of
//! files, nor the level of optimisation. Under the key lies a manifest with the newest few results; each names an image, its
//! level, and every file, place and folder it depends on, with hashes of their contents. An entry serves when its level does
//! (see `level`) and all of them are still the same.
//!
//! ```text
//! <store>/manifests/<key>          see `manifest`
//! <store>/images/<checksum>.hbi    an image; its name is the checksum in its note
//! <store>/named/<hash>             which image is the copy of a file that the user named, see `named`
//! <store>/used/<checksum>          when the image was used, see `uses`
//! <store>/building/<hash>          locked by who makes what is missing, see `building`
//! <store>/changing/<name>          locked by who changes a manifest or a list of siblings, see `changing`
//! <store>/stocks/<hash>            what may make compiling something again shorter, see `stock`
//! <store>/siblings/<hash>          what else was made of the same inputs, see `siblings` and `variants`
//! <store>/keeping/<checksum>       locked by who makes an image with what was compiled of that one
//! <store>/lock                     locked by who adds and who removes, see `collect`
//! <store>/tmp-...                  being written, and locked by who writes it
//! ```
//!
//! The directory belongs to this user and nobody else may write to it. Files are written under a temporary name,
//! synced and renamed, so that a reader sees all of a file or nothing; they are never changed afterwards, so a descriptor
//! that was verified stays what it was. Whatever is wrong with an entry is a [`Miss`] with a name, never an error.
//!
//! A warm start is a handful of system calls: one to check the directory, four for the manifest, one status call for
//! each dependency, two for the image, one to know that its use has been noted.

mod building;
mod changing;
mod collect;
mod contents;
mod flags;
mod key;
mod layer;
mod level;
mod manifest;
mod named;
mod reasons;
mod record;
mod settings;
mod siblings;
mod stock;
mod uses;
mod variants;
mod why;

pub use building::{Building, Turn};
pub use collect::Collected;
pub use contents::StoreStat;
pub use key::Key;
pub use layer::Layer;
pub use named::NamedImage;
pub use reasons::{Difference, Miss, StoreError};
pub use record::Record;
pub use siblings::Fate;
pub use why::{Considered, Why};

use crate::boundary::{Dependency, LevelSigns, Request};
use crate::cpu::CpuFeatures;
use crate::image::{choose, note};
use crate::sys::files::{self, FileIdentity, FileKind, FileStatus, Stamp};
use crate::sys::locks::{self, Manner};
use layer::Verified;
use level::Level;
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
const TEMPORARY: &str = "tmp-";

/// How large a store gets, in bytes, if nothing else is said: as much as ccache takes, too.
pub const BUDGET: u64 = 5 << 30;

/// Makes temporary names of one process differ.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A directory of images. Any number of threads and processes may use one at the same time.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// How large it gets, in bytes.
    budget: u64,
    /// What was verified in this process, of a store that is looked into only.
    verified: Option<Verified>,
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
    /// Its level of optimisation, if that is not the one that was asked for.
    other_level: Option<Level>,
}

/// An image that was put where images are.
struct TakenIn {
    /// The checksum in its note.
    checksum: [u8; 32],
    /// Its file, if that has been left alone for long enough.
    memo: Option<FileIdentity>,
    /// What its code needs of the processor.
    requires: CpuFeatures,
}

impl Hit {
    /// The request that it was made of, if that is not `request`, for which it was found: one of another level.
    pub fn other_request(&self, request: &Request) -> Option<Request> {
        self.other_level.map(|level| flags::with_level(request, level))
    }
}

impl Store {
    /// The store in `root`, which is made when it does not exist.
    ///
    /// # Errors
    /// When it cannot be made, is no directory, belongs to another user or may be written to by others.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = absolute(root)?;
        let ours = |owner| owner == files::effective_user();
        match trusted_folder(&root, ours) {
            Err(StoreError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                files::create_private_folders(&root).map_err(|source| StoreError::System {
                    operation: "make",
                    path: root.clone(),
                    source,
                })?;
                trusted_folder(&root, ours)?;
            }
            other => other?,
        }
        Ok(Self { root, budget: BUDGET, verified: None })
    }

    /// The store in `root`, if there is something: nothing is made.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open_existing(root: &Path) -> Result<Option<Self>, StoreError> {
        match FileStatus::of_link(root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Self::open(root).map(Some),
        }
    }

    /// The same store, which shall not get much larger than `bytes` ([`BUDGET`], if nothing is said).
    pub fn with_budget(self, bytes: u64) -> Self {
        Self { budget: bytes, ..self }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How large it gets, in bytes.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// The image for `key`, when everything it depends on is what it was. Relative dependencies are looked for in
    /// `directory`.
    ///
    /// # Errors
    /// The reason why no entry serves: that of the newest entry whose level would do, when there are several.
    pub fn find(&self, key: &Key, directory: &Path) -> Result<Hit, Miss> {
        let path = self.manifest_path(key);
        let mut manifest = self.manifest(&path)?;
        let mut checker = Checker::new(directory);
        let mut reason: Option<Miss> = None;
        for at in 0..manifest.entries.len() {
            match self.open_entry(key, &mut manifest.entries[at], &mut checker) {
                Ok((file, memos_changed)) => {
                    if memos_changed {
                        self.remember(&path, &manifest.entries[..=at]);
                    }
                    let Entry { checksum, level, record, .. } = manifest.entries.swap_remove(at);
                    let other_level = level.filter(|_| level != key.level);
                    return Ok(Hit { path: self.image_path(&checksum), file, checksum, record, other_level });
                }
                Err(miss) if reason.as_ref().is_none_or(|r| r.is_of_settings() && !miss.is_of_settings()) => {
                    reason = Some(miss);
                }
                Err(_) => {}
            }
        }
        Err(reason.unwrap_or(Miss::NoEntry))
    }

    /// The image of an entry, if that serves, by what is cheap to find out first. Says beside it whether a memo has changed.
    fn open_entry(
        &self,
        key: &Key,
        entry: &mut Entry,
        checker: &mut Checker<'_>,
    ) -> Result<(OwnedFd, bool), Miss> {
        let Entry { checksum, memo, level, seen, requires, record } = entry;
        // Where levels have no rank, they have none for all entries of the manifest.
        if let (Some(level), Some(asked)) = (*level, key.level) {
            level.serves(asked, *seen, || record.reads_configuration())?;
        }
        // What every processor has is not looked for.
        if !requires.is_empty() {
            choose(&[*requires], CpuFeatures::host())?;
        }
        let changed = checker.check(record)?;
        let (file, image_changed) = self.open_image(checksum, memo)?;
        Ok((file, changed || image_changed))
    }

    /// Takes an image in: the result for `key` in `directory`, made from `dependencies` by a compilation that began at
    /// `started`, of sources that looked at the signs `seen` of a level.
    ///
    /// # Errors
    /// [`StoreError::Unstable`] when a dependency may have changed since `started`; otherwise what is wrong with the
    /// directory or the image. Nothing is left behind.
    pub fn insert(
        &self,
        key: &Key,
        directory: &Path,
        dependencies: &[Dependency],
        seen: LevelSigns,
        started: Stamp,
        image: BorrowedFd<'_>,
    ) -> Result<Hit, StoreError> {
        let record = Record::take(directory, dependencies, started)?;
        let system =
            |operation, path: &Path, source| StoreError::System { operation, path: path.into(), source };
        let adding = self.adding();
        let TakenIn { checksum, memo, requires } = self.take_in(image)?;
        let path = self.image_path(&checksum);
        let (file, status) = files::open_no_follow(&path).map_err(|e| system("read", &path, e))?;

        let manifest_path = self.manifest_path(key);
        let entry = Entry { checksum, memo, level: key.level, seen, requires, record: record.clone() };
        let add = |manifest: &mut Manifest| {
            manifest.add(entry);
            true
        };
        self.change_manifest(&manifest_path, add).map_err(|e| system("write to", &manifest_path, e))?;
        drop(adding);
        self.tend_after(&checksum, status.identity.size);
        Ok(Hit { path, file: file.into(), checksum, record, other_level: None })
    }

    /// Locks the right to replace the image with this checksum; nothing if somebody else has it. It goes with the last
    /// descriptor of the file, which may be another process's.
    ///
    /// # Errors
    /// What is wrong with the directory.
    pub fn begin_to_replace(&self, checksum: &[u8; 32]) -> io::Result<Option<File>> {
        let path = self.keeping_path(checksum);
        in_folder_of(&path, || locks::lock(&path))
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
        let _adding = self.adding();
        let is_used = |manifest: &Manifest| manifest.entries.iter().any(|entry| entry.checksum == *old);
        if !self.manifest(&path).is_ok_and(|manifest| is_used(&manifest)) {
            return Ok(false);
        }
        let TakenIn { checksum, memo, requires } = self.take_in(image)?;
        let put = |manifest: &mut Manifest| {
            let entry = manifest.entries.iter_mut().find(|entry| entry.checksum == *old);
            let renewed = |entry: &mut Entry| {
                (entry.checksum, entry.memo, entry.requires) = (checksum, memo, requires);
            };
            entry.map(renewed).is_some()
        };
        self.change_manifest(&path, put).map_err(|e| system("write to", &path, e))
    }

    /// Puts an image where images are.
    fn take_in(&self, image: BorrowedFd<'_>) -> Result<TakenIn, StoreError> {
        let system =
            |operation, path: &Path, source| StoreError::System { operation, path: path.into(), source };
        let bytes = files::contents(image).map_err(|e| system("read the image for", &self.root, e))?;
        let checksum = note::verify(&bytes)?;
        let path = self.image_path(&checksum);
        if !self.holds_image(&path, &checksum) {
            self.write(&path, &bytes, true).map_err(|e| system("write to", &path, e))?;
        }
        let (_, status) = files::open_no_follow(&path).map_err(|e| system("read", &path, e))?;
        let memo = status.identity.is_settled(Stamp::now()).then_some(status.identity);
        Ok(TakenIn { checksum, memo, requires: note::layout(&bytes)?.requires })
    }

    /// The manifest at `path`.
    fn manifest(&self, path: &Path) -> Result<Manifest, Miss> {
        let bytes = files::open_no_follow(path)
            .and_then(|(file, status)| files::contents_of(&file, status.identity.size))
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => Miss::NoEntry,
                kind => Miss::ManifestUnreadable(kind),
            })?;
        Manifest::decode(&bytes)
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
        let known = |verified: &Verified| verified.has(expected, &status.identity);
        if *memo == Some(status.identity) || self.verified.as_ref().is_some_and(known) {
            return Ok((file.into(), false));
        }
        let now = Stamp::now();
        let verified = note::verify_file(&file, status.identity.size);
        let checksum = verified.map_err(|e| Miss::ImageDamaged(e.to_string()))??;
        if checksum != *expected {
            return Err(Miss::ImageDamaged("it is another image".into()));
        }
        let settled = status.identity.is_settled(now);
        if settled {
            *memo = Some(status.identity);
            self.verified.iter().for_each(|verified| verified.add(expected, status.identity));
        }
        Ok((file.into(), settled))
    }

    fn holds_image(&self, path: &Path, checksum: &[u8; 32]) -> bool {
        files::open_no_follow(path)
            .and_then(|(file, status)| note::verify_file(&file, status.identity.size))
            .is_ok_and(|verified| verified.as_ref() == Ok(checksum))
    }

    /// Whether it is the user's own, and not looked into only.
    fn is_written_to(&self) -> bool {
        self.verified.is_none()
    }

    /// Writes a file as a whole: under a temporary name, then renamed.
    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        if !self.is_written_to() {
            return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        }
        let (temporary, mut file) = self.temporary()?;
        let written = file
            .write_all(bytes)
            .and_then(|()| if sync { file.sync_all() } else { Ok(()) })
            .and_then(|()| in_folder_of(path, || std::fs::rename(&temporary, path)));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    /// A new file, locked so that nobody takes it for one that was left behind.
    fn temporary(&self) -> io::Result<(PathBuf, File)> {
        let process = std::process::id();
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(format!("{TEMPORARY}{process}-{count}"));
            match files::create_private(&path) {
                // Left behind by a process that had the same number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
                Ok(file) => match locks::try_lock(&file, Manner::Alone) {
                    // Taken for such a one before it was locked.
                    Ok(locked) if !locked || !files::has_name(file.as_fd()) => continue,
                    // Where nothing can be locked, nothing is collected either.
                    Ok(_) | Err(_) => return Ok((path, file)),
                },
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

/// `path`, whatever the working directory is when it is used.
fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|source| StoreError::System {
        operation: "find",
        path: path.into(),
        source,
    })
}

/// Makes sure that `path` is a folder that belongs to somebody who is `trusted`, and that nobody else may write to it.
fn trusted_folder(path: &Path, trusted: impl Fn(u32) -> bool) -> Result<(), StoreError> {
    let unusable = |reason: &str| Err(StoreError::Unusable { path: path.into(), reason: reason.into() });
    let status = FileStatus::of_link(path).map_err(|source| StoreError::System {
        operation: "look at",
        path: path.into(),
        source,
    })?;
    match status.kind {
        FileKind::Folder if !trusted(status.owner) => unusable("it belongs to another user"),
        FileKind::Folder if status.mode & 0o022 != 0 => unusable("other users may write to it"),
        FileKind::Folder => Ok(()),
        FileKind::Link => unusable("it is a symbolic link"),
        _ => unusable("it is not a directory"),
    }
}

/// Does something to `path`, and once more when its folder is missing, which is made then.
fn in_folder_of<T>(path: &Path, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match act() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), files::create_private_folders)?;
            act()
        }
        other => other,
    }
}

/// Reads manifests, memos and siblings, whose checksum is made to match: contents of such files without it.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub fn fuzz(contents: &[u8]) -> crate::fuzzing::Outcome {
    let mut bytes = contents.to_vec();
    bytes.extend_from_slice(blake3::hash(contents).as_bytes());
    if let Ok(manifest) = Manifest::decode(&bytes) {
        assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
    }
    let siblings = siblings::decode(&bytes);
    if let Ok(siblings) = &siblings {
        assert_eq!(siblings::decode(&siblings::encode(siblings)).as_ref(), Ok(siblings));
        for settings in siblings.iter().filter_map(siblings::Sibling::settings) {
            assert_eq!(settings::Settings::decode(&settings.encode()).as_ref(), Ok(&settings));
        }
    }
    let memo = named::Memo::decode(&bytes);
    if let Ok(memo) = &memo {
        assert_eq!(named::Memo::decode(&memo.encode()).as_ref(), Ok(memo));
    }
    match (memo.is_ok(), siblings.is_ok()) {
        (true, _) => memo.into(),
        (_, true) => siblings.into(),
        _ => Manifest::decode(&bytes).into(),
    }
}

/// Manifests, memos and siblings, without their checksums.
#[cfg(test)]
pub(crate) fn sample_contents() -> Vec<Vec<u8>> {
    let mut larger = manifest::sample();
    larger.entries.extend(manifest::sample().entries);
    let siblings = siblings::encode(&siblings::sample());
    [manifest::sample().encode(), larger.encode(), named::sample().encode(), siblings]
        .map(|bytes| bytes[..bytes.len() - 32].to_vec())
        .to_vec()
}

#[cfg(test)]
mod tests;
