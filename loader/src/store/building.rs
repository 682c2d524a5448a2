//! One at a time makes what the store lacks, in whichever process or thread; the others wait for it and look again.
//!
//! Who makes something has the file `<store>/building/<hash>` locked, the hash being that of the key and of the directory. The kernel
//! unlocks it when its process ends, however that comes; who is waiting then goes on in its place. Who comes to an
//! end takes the file away before it is unlocked: by that those who wait know that there is nothing to go on with. What they
//! look for is in the store by then, or it cannot be made, or not be kept (a source that does not compile, one that uses
//! the time of day); then all of them go on by themselves at once, and do not queue for the same failure.
//!
//! Nobody who has such a lock waits for another one, so nobody waits in a circle. Who has waited for long enough goes on alone.

use super::{Key, Store};
use crate::sys::files;
use crate::sys::locks::{self, Held, Manner};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const FOLDER: &str = "building";

/// Who makes it.
#[derive(Debug)]
pub enum Turn {
    /// Who asked, until this goes. Somebody else may have been quicker, so the store is to be asked once more.
    Ours(Building),
    /// Somebody else did, and has ended: the store is to be asked once more.
    Theirs,
    /// Somebody else does, and is not done after all that time.
    Late,
    /// Everybody for themselves: nothing can be locked there.
    Unlocked,
}

/// The right to make something, or to change it; its file goes with it.
#[derive(Debug)]
pub struct Building {
    lock: Held,
    path: PathBuf,
}

impl Store {
    /// Waits until nobody else makes the image for `key` in `directory`, or for `limit`; `waiting` is called if somebody does.
    pub fn turn(&self, key: &Key, directory: &Path, limit: Duration, waiting: &mut dyn FnMut()) -> Turn {
        let path = self.building_path(key, directory);
        let lock = super::in_folder_of(&path, || locks::hold(&path, Manner::Alone, limit, waiting));
        match lock {
            Ok(Some(lock)) if files::has_name(lock.file().as_fd()) => Turn::Ours(Building::new(lock, path)),
            Ok(Some(_)) => Turn::Theirs,
            Ok(None) => {
                // Whoever comes next shall not wait as long. Somebody may have done that before, and somebody else may have the
                // file now; then something is made twice.
                let _ = std::fs::remove_file(&path);
                Turn::Late
            }
            Err(_) => Turn::Unlocked,
        }
    }

    fn building_path(&self, key: &Key, directory: &Path) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(key.hex().as_bytes()).update(directory.as_os_str().as_bytes());
        self.named(FOLDER, &hasher.finalize().to_hex(), "")
    }
}

impl Building {
    /// The right that `lock`, the file at `path`, gives.
    pub(super) fn new(lock: Held, path: PathBuf) -> Self {
        Self { lock, path }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if self.lock.is_ours() {
            // Left behind, it is locked by nobody.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]
    use super::super::tests::{Scratch, key};
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LONG: Duration = Duration::from_secs(60);

    fn ours(turn: Turn) -> Building {
        match turn {
            Turn::Ours(building) => building,
            other => panic!("{other:?}"),
        }
    }

    /// Lets another thread wait for what this one makes, which does `end` to it then; gives what the other one gets.
    fn beside(store: &Store, end: impl FnOnce(Building)) -> Turn {
        let (key, here) = (key("-O1"), Path::new("/here"));
        let first = ours(store.turn(&key, here, Duration::ZERO, &mut || {}));
        let waiting = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                store.turn(&key, here, LONG, &mut || {
                    waiting.fetch_add(1, Ordering::Relaxed);
                })
            });
            while waiting.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            end(first);
            let turn = other.join().unwrap();
            assert_eq!(waiting.load(Ordering::Relaxed), 1);
            turn
        })
    }

    fn locks_left(store: &Store) -> usize {
        std::fs::read_dir(store.root().join(FOLDER)).map_or(0, Iterator::count)
    }

    #[test]
    fn who_waits_learns_whether_there_is_something_to_go_on_with() {
        let scratch = Scratch::new("turns");
        let store = scratch.store();
        assert!(matches!(beside(&store, drop), Turn::Theirs));
        assert_eq!(locks_left(&store), 0);
        // As when its process is killed.
        let died = |building: Building| {
            building.lock.file().unlock().unwrap();
            std::mem::forget(building);
        };
        let next = ours(beside(&store, died));
        assert_eq!(locks_left(&store), 1);
        drop(next);
        assert_eq!(locks_left(&store), 0);
    }

    #[test]
    fn nobody_waits_for_ever_nor_for_something_else() {
        let scratch = Scratch::new("turns-late");
        let store = scratch.store();
        let (one, other) = (key("-O1"), key("-O2"));
        let now = |key, directory| store.turn(key, Path::new(directory), Duration::ZERO, &mut || {});
        let first = ours(now(&one, "/here"));
        let limit = Duration::from_millis(5);
        assert!(matches!(store.turn(&one, Path::new("/here"), limit, &mut || {}), Turn::Late));
        ours(now(&other, "/here"));
        ours(now(&one, "/there"));
        // Nobody else waits for the one that took too long.
        let next = ours(now(&one, "/here"));
        drop((first, next));
        ours(now(&one, "/here"));
    }

    #[test]
    fn where_nothing_can_be_locked_nobody_waits() {
        let scratch = Scratch::new("turns-unlocked");
        let store = scratch.store();
        scratch.write("store/building", "in the way");
        assert!(matches!(store.turn(&key("-O1"), Path::new("/"), LONG, &mut || {}), Turn::Unlocked));
    }
}
