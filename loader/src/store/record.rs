//! What an image depends on, and whether that is still the same.
//!
//! Three kinds of thing are recorded: files with a hash of their contents; folders with names that were looked for
//! in them and not found; folders whose list of names was read, with a hash of the list. Each has a memo (see
//! [`super::manifest`]) that spares reading it again: for a folder too, since a name cannot appear in it without
//! changing its times.

use super::reasons::{Miss, StoreError};
use crate::boundary::Dependency;
use crate::sys::files::{self, FileIdentity, FileKind, FileStatus, Stamp};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Everything one image depends on, and the state it was in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub(super) files: Vec<FileRecord>,
    pub(super) folders: Vec<FolderRecord>,
    pub(super) listings: Vec<ListingRecord>,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileRecord {
    pub(super) path: PathBuf,
    pub(super) hash: [u8; 32],
    pub(super) memo: Option<FileIdentity>,
}

/// A folder and the names that were not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FolderRecord {
    /// Empty for the working directory.
    pub(super) path: PathBuf,
    pub(super) missing: Vec<PathBuf>,
    pub(super) memo: Option<FileIdentity>,
}

/// A folder whose list of names was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListingRecord {
    pub(super) path: PathBuf,
    pub(super) hash: [u8; 32],
    pub(super) memo: Option<FileIdentity>,
}

/// Contents that were hashed and the memo that may be kept.
#[derive(Debug, Clone, Copy)]
struct Hashed {
    hash: [u8; 32],
    identity: FileIdentity,
    memo: Option<FileIdentity>,
}

impl Record {
    /// Records the state of `dependencies`, which a compilation that began at `started` has read. Relative paths are
    /// relative to `directory`.
    ///
    /// # Errors
    /// When one of them may have changed meanwhile.
    pub fn take(directory: &Path, dependencies: &[Dependency], started: Stamp) -> Result<Self, StoreError> {
        let unstable =
            |path: &Path, reason: &str| StoreError::Unstable { path: path.into(), reason: reason.into() };
        let unreadable = |path: &Path, e: io::Error| unstable(path, &format!("cannot be read any more: {e}"));
        let unique: BTreeSet<&Dependency> = dependencies.iter().collect();
        let mut record = Self::default();
        let mut missing: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
        for dependency in unique {
            match dependency {
                Dependency::File(path) => {
                    let hashed = hash_file(&resolve(directory, path)).map_err(|e| unreadable(path, e))?;
                    if hashed.identity.changed_since(started) {
                        return Err(unstable(path, "was changed while it was being compiled"));
                    }
                    record.files.push(FileRecord {
                        path: path.clone(),
                        hash: hashed.hash,
                        memo: hashed.memo,
                    });
                }
                Dependency::Listing(path) => {
                    let hashed = hash_listing(&resolve(directory, path)).map_err(|e| unreadable(path, e))?;
                    if hashed.identity.changed_since(started) {
                        return Err(unstable(path, "was changed while it was being read"));
                    }
                    record.listings.push(ListingRecord {
                        path: path.clone(),
                        hash: hashed.hash,
                        memo: hashed.memo,
                    });
                }
                Dependency::Missing(path) => match (path.parent(), path.file_name()) {
                    (Some(folder), Some(name)) => missing.entry(folder.into()).or_default().push(name.into()),
                    _ => return Err(unstable(path, "is no place for a file")),
                },
            }
        }
        for (path, missing) in missing {
            let mut folder = FolderRecord { path, missing, memo: None };
            folder.check(directory).map_err(|miss| unstable(&folder.path, &format!("changed: {miss}")))?;
            record.folders.push(folder);
        }
        Ok(record)
    }

    /// Whether both stand for the same files in the same state, memos aside.
    pub(super) fn same_state(&self, other: &Self) -> bool {
        self.files.len() == other.files.len()
            && self.folders.len() == other.folders.len()
            && self.listings.len() == other.listings.len()
            && self.files.iter().zip(&other.files).all(|(a, b)| a.hash == b.hash && a.path == b.path)
            && self
                .folders
                .iter()
                .zip(&other.folders)
                .all(|(a, b)| a.path == b.path && a.missing == b.missing)
            && self.listings.iter().zip(&other.listings).all(|(a, b)| a.hash == b.hash && a.path == b.path)
    }

    /// Whether clang's driver read flags from a configuration file.
    pub(super) fn reads_configuration(&self) -> bool {
        self.files.iter().any(|file| file.path.extension().is_some_and(|extension| extension == "cfg"))
    }

    /// Makes sure that everything is still as it was.
    ///
    /// # Errors
    /// What has changed.
    pub fn check(&mut self, directory: &Path) -> Result<(), Miss> {
        Checker::new(directory).check(self).map(|_| ())
    }

    /// The dependencies as the back end named them.
    pub fn dependencies(&self) -> Vec<Dependency> {
        let files = self.files.iter().map(|file| Dependency::File(file.path.clone()));
        let missing = self
            .folders
            .iter()
            .flat_map(|folder| folder.missing.iter().map(|name| Dependency::Missing(folder.path.join(name))));
        let listings = self.listings.iter().map(|listing| Dependency::Listing(listing.path.clone()));
        files.chain(missing).chain(listings).collect()
    }
}

/// Checks records, remembering what was hashed: entries of one manifest have most of their dependencies in common.
pub(super) struct Checker<'a> {
    directory: &'a Path,
    hashed: HashMap<PathBuf, Hashed>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(directory: &'a Path) -> Self {
        Self { directory, hashed: HashMap::new() }
    }

    /// Whether everything is as recorded; if so, brings the memos up to date and says whether any has changed.
    pub(super) fn check(&mut self, record: &mut Record) -> Result<bool, Miss> {
        let mut changed = false;
        for file in &mut record.files {
            let path = resolve(self.directory, &file.path);
            let gone = |e: &io::Error| Miss::DependencyGone(file.path.clone(), e.kind());
            if let Some(memo) = file.memo
                && FileIdentity::of_path(&path).map_err(|e| gone(&e))? == memo
            {
                continue;
            }
            let hashed = match self.hashed.get(&file.path) {
                Some(hashed) => *hashed,
                None => {
                    let hashed = hash_file(&path).map_err(|e| gone(&e))?;
                    self.hashed.insert(file.path.clone(), hashed);
                    hashed
                }
            };
            if hashed.hash != file.hash {
                return Err(Miss::DependencyChanged(file.path.clone()));
            }
            changed |= renew(&mut file.memo, hashed.memo);
        }
        for folder in &mut record.folders {
            changed |= folder.check(self.directory)?;
        }
        for listing in &mut record.listings {
            let path = resolve(self.directory, &listing.path);
            let gone = |e: &io::Error| Miss::DependencyGone(listing.path.clone(), e.kind());
            if let Some(memo) = listing.memo
                && FileIdentity::of_path(&path).map_err(|e| gone(&e))? == memo
            {
                continue;
            }
            let hashed = hash_listing(&path).map_err(|e| gone(&e))?;
            if hashed.hash != listing.hash {
                return Err(Miss::ListingChanged(listing.path.clone()));
            }
            changed |= renew(&mut listing.memo, hashed.memo);
        }
        Ok(changed)
    }
}

impl FolderRecord {
    /// Whether none of the names has appeared; says whether the memo has changed.
    fn check(&mut self, directory: &Path) -> Result<bool, Miss> {
        let path = resolve(directory, &self.path);
        // A folder that is not there, or cannot be entered, has nothing in it for a compiler.
        let Ok(identity) = FileIdentity::of_path(&path) else { return Ok(false) };
        if self.memo == Some(identity) {
            return Ok(false);
        }
        let now = Stamp::now();
        let mut quite_absent = true;
        for name in &self.missing {
            let place = path.join(name);
            let Ok(status) = FileStatus::of_link(&place) else { continue };
            // Folders, and links that lead to one or nowhere, are no files; but what a link leads to can change without
            // the folder that it is in.
            quite_absent = false;
            let kind = match status.kind {
                FileKind::Link => FileStatus::of_path(&place).map_or(FileKind::Folder, |status| status.kind),
                kind => kind,
            };
            if kind != FileKind::Folder {
                return Err(Miss::DependencyAppeared(self.path.join(name)));
            }
        }
        let memo = (quite_absent && identity.is_settled(now)).then_some(identity);
        Ok(renew(&mut self.memo, memo))
    }
}

/// Keeps a new memo, if there is one.
fn renew(memo: &mut Option<FileIdentity>, new: Option<FileIdentity>) -> bool {
    if new.is_some() && *memo != new {
        *memo = new;
        true
    } else {
        false
    }
}

fn resolve<'a>(directory: &Path, path: &'a Path) -> Cow<'a, Path> {
    if path.is_absolute() { Cow::Borrowed(path) } else { Cow::Owned(directory.join(path)) }
}

/// Hashes a file. The identity is taken before the contents, so that a change while it is read shows in it later.
fn hash_file(path: &Path) -> io::Result<Hashed> {
    let now = Stamp::now();
    let (file, status) = files::open_regular(path)?;
    let hash = *blake3::hash(&files::contents_of(&file, status.identity.size)?).as_bytes();
    Ok(Hashed {
        hash,
        identity: status.identity,
        memo: status.identity.is_settled(now).then_some(status.identity),
    })
}

fn hash_listing(path: &Path) -> io::Result<Hashed> {
    let now = Stamp::now();
    let identity = FileIdentity::of_path(path)?;
    let mut names = std::fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().into_vec()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for name in &names {
        // A name has no zero in it.
        hasher.update(name).update(&[0]);
    }
    let hash = *hasher.finalize().as_bytes();
    Ok(Hashed { hash, identity, memo: identity.is_settled(now).then_some(identity) })
}
