//! Changes to files of the store that depend on what is in them already: manifests, to which several may add at once, and lists of
//! siblings. They come one after the other, so that none undoes another one.
//!
//! Who changes a file has `<store>/changing/<name of the file>` locked meanwhile, and takes it away before it is unlocked. Locks are
//! taken in one order, so nobody waits in a circle: that of a list of siblings, that of the store (see `collect`), that of a manifest.
//! Who waits does so for as long as writing a small file takes. Where nothing can be locked, or somebody was stopped in the middle,
//! the file is changed all the same: what may be lost then is compiled once more. Who only reads takes no lock.

use super::manifest::{Entry, Manifest};
use super::{Building, Store, in_folder_of};
use crate::sys::files;
use crate::sys::locks::{self, Manner};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const FOLDER: &str = "changing";

/// How long who changes a file is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

impl Store {
    /// Keeps others from changing the file at `path` as long as this is there; nothing if that cannot be had within `limit`.
    fn changing(&self, path: &Path, limit: Duration) -> Option<Building> {
        // Nothing is locked, nor made for that, where nothing is written.
        let name = path.file_name()?.to_str().filter(|_| self.is_written_to())?;
        let (path, end) = (self.named(FOLDER, name, ""), Instant::now() + limit);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let hold = || locks::hold(&path, Manner::Alone, left, &mut || {});
            let lock = in_folder_of(&path, hold).ok().flatten()?;
            // Who had it before has taken it away.
            if files::has_name(lock.file().as_fd()) {
                return Some(Building::new(lock, path));
            }
        }
    }

    /// Does something that reads and writes the file at `path`, as nobody else does meanwhile.
    pub(super) fn change<T>(&self, path: &Path, act: impl FnOnce() -> T) -> T {
        let _alone = self.changing(path, PATIENCE);
        act()
    }

    /// Changes the manifest at `path`, an empty one if there is none that can be read; it stays as it is if `change` says no.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn change_manifest(
        &self,
        path: &Path,
        change: impl FnOnce(&mut Manifest) -> bool,
    ) -> io::Result<bool> {
        self.change(path, || {
            let mut manifest = self.manifest(path).unwrap_or_default();
            let changed = change(&mut manifest);
            if changed {
                self.write(path, &manifest.encode(), true)?;
            }
            Ok(changed)
        })
    }

    /// Writes down what has been found out about files of entries of the manifest at `path`. A start does not wait for that: without it
    /// the next one hashes again.
    pub(super) fn remember(&self, path: &Path, entries: &[Entry]) {
        let Some(_alone) = self.changing(path, Duration::ZERO) else { return };
        let Ok(mut manifest) = self.manifest(path) else { return };
        manifest.remember(entries);
        let _ = self.write(path, &manifest.encode(), false);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::tests::{Scratch, filled, find, image, key};
    use super::*;
    use crate::boundary::{Dependency, LevelSigns};
    use crate::sys::files::Stamp;

    fn locks_left(store: &Store) -> usize {
        std::fs::read_dir(store.root().join(FOLDER)).map_or(0, Iterator::count)
    }

    #[test]
    fn who_writes_one_manifest_at_the_same_time_loses_nothing() {
        const WRITERS: usize = 6;
        let scratch = Scratch::new("changing");
        let store = scratch.store();
        // One request in several directories: what it is made from is not the same there.
        let folders: Vec<_> = (0..WRITERS).map(|number| format!("in{number}")).collect();
        for folder in &folders {
            scratch.write(&format!("{folder}/a.c"), folder);
        }
        std::thread::scope(|scope| {
            for folder in &folders {
                let (store, directory) = (&store, scratch.path(folder));
                scope.spawn(move || {
                    let (made, read) = (image(folder), [Dependency::File("a.c".into())]);
                    let began = Stamp::now();
                    store
                        .insert(&key("-O1"), &directory, &read, LevelSigns::NONE, began, made.as_fd())
                        .unwrap();
                    // Memos are written beside.
                    store.find(&key("-O1"), &directory).unwrap();
                });
            }
        });
        for folder in &folders {
            assert!(store.find(&key("-O1"), &scratch.path(folder)).is_ok(), "{folder}");
        }
        assert_eq!(locks_left(&store), 0);
    }

    #[test]
    fn what_is_remembered_does_not_undo_what_was_added() {
        let (scratch, store) = filled("changing-memos");
        let path = store.manifest_path(&key("-O1"));
        let read = store.manifest(&path).unwrap();
        let other = scratch.path("inc1");
        scratch.write("inc1/a.c", "other");
        let dependencies = [Dependency::File("a.c".into())];
        let (key, began) = (key("-O1"), Stamp::now());
        store.insert(&key, &other, &dependencies, LevelSigns::NONE, began, image("other").as_fd()).unwrap();
        store.remember(&path, &read.entries);
        assert!(store.find(&key, &other).is_ok());
        assert!(find(&store, &scratch).is_ok());
    }

    #[test]
    fn a_start_waits_for_nobody_and_who_adds_not_for_long() {
        let (scratch, store) = filled("changing-stopped");
        let path = store.manifest_path(&key("-O1"));
        let stopped = store.changing(&path, Duration::ZERO).unwrap();
        assert!(store.changing(&path, Duration::ZERO).is_none());
        assert!(find(&store, &scratch).is_ok());
        let (key, began) = (key("-O1"), Stamp::now());
        let added = store.insert(&key, Path::new("/"), &[], LevelSigns::NONE, began, image("x").as_fd());
        assert!(added.is_ok());
        drop(stopped);
        assert_eq!(locks_left(&store), 0);
    }
}
