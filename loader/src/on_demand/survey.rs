//! What libraries there are: the folders in which the run-time linker finds libraries, and the files in them, each once by its
//! canonical path, however many names lead to it (`libz.so`, `libz.so.1`, `libz.so.1.2.13`).

use super::index::Seen;
use crate::libraries::{Cache, SearchPath};
use crate::sys::files::{FileIdentity, FileKind, FileStatus, Stamp};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The folders and files as they are.
pub(super) struct Survey {
    /// The run-time linker's cache and the folders, as they were before they were read.
    pub(super) seen: Vec<Seen>,
    /// The libraries.
    pub(super) files: Vec<File>,
}

/// A file that is a library by its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Its canonical path.
    pub(super) path: PathBuf,
    /// What is there.
    pub(super) identity: FileIdentity,
    /// Place of the first folder that has a name for it.
    pub(super) folder: u32,
    /// Whether one of its names is one that linkers look for.
    pub(super) has_linker_name: bool,
}

/// Looks at all places in which libraries are found without the object's help.
pub(super) fn survey(path: &SearchPath) -> Survey {
    // What may change is looked at before it is read.
    let mut seen: Vec<Seen> = path.cache().map(see).into_iter().collect();
    let mut files = Files::default();
    for (number, folder) in (0..).zip(folders(path)) {
        seen.push(see(&folder));
        files.read(&folder, number);
    }
    Survey { seen, files: files.all }
}

/// The folders of `LD_LIBRARY_PATH`, those that the cache leads to (in the order of their names, but the default folders
/// last), the default folders; each once.
pub(super) fn folders(path: &SearchPath) -> Vec<PathBuf> {
    let defaults: Vec<PathBuf> = path.defaults().iter().map(|folder| canonical(folder)).collect();
    let mut from_cache = BTreeSet::new();
    if let Some(cache) = path.cache().and_then(Cache::read) {
        let parents: BTreeSet<&Path> = cache.entries().filter_map(|entry| entry.path.parent()).collect();
        from_cache.extend(parents.into_iter().map(canonical).filter(|folder| !defaults.contains(folder)));
    }
    let environment = path.environment().iter().map(|folder| canonical(folder));
    let mut folders = Vec::new();
    for folder in environment.chain(from_cache).chain(defaults) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Whether everything is as it was.
pub(super) fn is_unchanged(seen: &[Seen]) -> bool {
    seen.iter().all(|seen| seen.settled && FileIdentity::of_path(&seen.path).ok() == seen.identity)
}

fn see(path: &Path) -> Seen {
    let now = Stamp::now();
    let identity = FileIdentity::of_path(path).ok();
    let settled = identity.is_none_or(|identity| identity.is_settled(now));
    Seen { path: path.to_owned(), identity, settled }
}

/// The folder by the one path that it has; what does not exist may come to exist.
fn canonical(folder: &Path) -> PathBuf {
    folder.canonicalize().or_else(|_| std::path::absolute(folder)).unwrap_or_else(|_| folder.to_owned())
}

/// Files found so far.
#[derive(Default)]
struct Files {
    all: Vec<File>,
    /// Places in `all` by device and inode.
    places: HashMap<(u64, u64), usize>,
}

impl Files {
    /// Adds the libraries of a folder.
    fn read(&mut self, folder: &Path, number: u32) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok().filter(|name| is_library(name))?;
                Some((entry.file_type().is_ok_and(|kind| kind.is_symlink()), name))
            })
            .collect();
        // Files before links to them, and in an order that does not depend on the file system.
        names.sort_unstable();
        for (is_link, name) in names {
            let path = folder.join(&name);
            let Ok(status) = FileStatus::of_path(&path) else { continue };
            if status.kind != FileKind::Regular {
                continue;
            }
            let place =
                *self.places.entry((status.identity.device, status.identity.inode)).or_insert_with(|| {
                    let path = if is_link { path.canonicalize().unwrap_or(path) } else { path };
                    self.all.push(File {
                        path,
                        identity: status.identity,
                        folder: number,
                        has_linker_name: false,
                    });
                    self.all.len() - 1
                });
            self.all[place].has_linker_name |= name.ends_with(".so");
        }
    }
}

/// Whether a file of that name is a library for everybody, `libNAME.so` or `libNAME.so.1.2`; others are for those who
/// know them.
fn is_library(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("lib") else { return false };
    let numbers =
        |text: &str| text.split('.').all(|one| !one.is_empty() && one.bytes().all(|b| b.is_ascii_digit()));
    match rest.rfind(".so") {
        None | Some(0) => false,
        Some(at) => {
            let rest = &rest[at + 3..];
            rest.is_empty() || rest.strip_prefix('.').is_some_and(numbers)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::testing::Folder;
    use std::os::unix::fs::symlink;

    #[test]
    fn libraries_are_told_by_their_names() {
        for name in ["libz.so", "libz.so.1", "libz.so.1.2.13", "libstdc++.so.6", "liba.so.b.so"] {
            assert!(is_library(name), "{name}");
        }
        for name in ["z.so", "lib.so", "libz.so.", "libz.so.1-gdb.py", "libz.sox", "libz.a", "libz.so.1..2"] {
            assert!(!is_library(name), "{name}");
        }
    }

    #[test]
    fn many_names_are_one_file() {
        let folder = Folder::new();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::create_dir(at("aside")).unwrap();
        std::fs::write(at("real/libz.so.1.2"), "z").unwrap();
        symlink("libz.so.1.2", at("real/libz.so.1")).unwrap();
        symlink("libz.so.1", at("real/libz.so")).unwrap();
        symlink("nowhere", at("real/libdangling.so")).unwrap();
        std::fs::write(at("aside/liba.so.3"), "a").unwrap();
        symlink("../aside/liba.so.3", at("real/liba.so.3")).unwrap();
        symlink("real", at("link")).unwrap();
        std::fs::create_dir(at("real/libfolder.so")).unwrap();
        let search = SearchPath::new(at("link").as_os_str(), None, &[at("real"), at("missing")]);
        let survey = survey(&search);
        let real = at("real").canonicalize().unwrap();
        let seen: Vec<_> =
            survey.seen.iter().map(|seen| (seen.path.clone(), seen.identity.is_some())).collect();
        assert_eq!(seen, [(real.clone(), true), (at("missing"), false)]);
        let files: Vec<_> =
            survey.files.iter().map(|file| (file.path.clone(), file.folder, file.has_linker_name)).collect();
        let aside = at("aside").canonicalize().unwrap();
        assert_eq!(files, [(real.join("libz.so.1.2"), 0, true), (aside.join("liba.so.3"), 0, false)]);
    }

    #[test]
    fn a_young_folder_may_change_unseen() {
        let folder = Folder::new();
        let path = SearchPath::new(folder.path().as_os_str(), None, &[] as &[&str]);
        assert!(!is_unchanged(&survey(&path).seen));
        let mut seen = survey(&path).seen;
        seen[0].settled = true;
        assert!(is_unchanged(&seen));
        std::fs::write(folder.path().join("new"), "").unwrap();
        assert!(!is_unchanged(&seen));
    }
}
