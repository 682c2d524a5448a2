//! Locks between processes: files that the kernel locks, and unlocks when who has locked them is gone, however that came.
//!
//! Two kinds. A lock from [`lock`] may be handed to another process: it is there as long as anybody holds the file open who got
//! it from who has locked it. A [`Held`] one is of one process: it goes with the value, whoever else was forked meanwhile and
//! has the descriptor too. Threads of one process lock each other out like processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The file at `path`, made if there is none, locked; nothing if somebody else has it locked. The lock goes with the last
/// descriptor of it, in whichever process that is.
///
/// # Errors
/// What the system says.
pub fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = open(path)?;
    Ok(try_lock(&file, Manner::Alone)?.then_some(file))
}

/// How a file is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Beside others who share it.
    Shared,
    /// By one alone.
    Alone,
}

/// A file that this process has locked, until this goes.
#[derive(Debug)]
pub struct Held {
    file: File,
    process: u32,
}

impl Held {
    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether this process has locked it: a child of a fork that has a copy of this value has not.
    pub fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing would leave it locked while a child that was forked meanwhile lives; in that child it is not to be unlocked.
        if self.is_ours() {
            let _ = self.file.unlock();
        }
    }
}

/// Locks the file at `path`, which is made if there is none, as soon as that can be done, but not after `limit`: then there is
/// nothing. `waiting` is called once if it takes any time. The file may have lost its name meanwhile.
///
/// # Errors
/// What the system says.
pub fn hold(
    path: &Path,
    manner: Manner,
    limit: Duration,
    waiting: &mut dyn FnMut(),
) -> io::Result<Option<Held>> {
    let file = open(path)?;
    let process = std::process::id();
    Ok(lock_within(&file, manner, limit, waiting)?.then_some(Held { file, process }))
}

/// Waits until nobody has the file at `path` locked, but not longer than `limit`. False if there is no such file or it took too
/// long.
///
/// # Errors
/// What the system says.
pub fn wait(path: &Path, limit: Duration) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path);
    match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        file => {
            let file = file?;
            let free = lock_within(&file, Manner::Alone, limit, &mut || {})?;
            if free {
                // Closing is not enough, as with one that is held.
                file.unlock()?;
            }
            Ok(free)
        }
    }
}

/// Locks an open file as soon as that can be done, but not after `limit`. The kernel would wait without a limit only, so this looks
/// again and again: what is noticed late by an eighth has not taken much longer.
fn lock_within(file: &File, manner: Manner, limit: Duration, waiting: &mut dyn FnMut()) -> io::Result<bool> {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(20);
    let started = Instant::now();
    let mut said = false;
    loop {
        if try_lock(file, manner)? {
            return Ok(true);
        }
        let waited = started.elapsed();
        if waited >= limit {
            return Ok(false);
        }
        if !said {
            waiting();
            said = true;
        }
        std::thread::sleep((waited / 8).clamp(SHORTEST, LONGEST));
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)
}

/// Locks an open file, if that can be done at once.
///
/// # Errors
/// What the system says.
pub fn try_lock(file: &File, manner: Manner) -> io::Result<bool> {
    let locked = match manner {
        Manner::Shared => file.try_lock_shared(),
        Manner::Alone => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    #[test]
    fn a_lock_is_held_until_the_last_copy_goes() {
        let folder = crate::testing::Folder::new();
        let path = folder.path().join("lock");
        assert!(!wait(&path, Duration::from_secs(5)).unwrap());
        let first = lock(&path).unwrap().unwrap();
        let copy = first.try_clone().unwrap();
        drop(first);
        assert!(lock(&path).unwrap().is_none());
        assert!(!wait(&path, Duration::from_millis(5)).unwrap());
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || wait(&path, Duration::from_secs(20)).unwrap()
        });
        drop(copy);
        assert!(waiting.join().unwrap());
        assert!(lock(&path).unwrap().is_some());
    }

    #[test]
    fn who_shares_keeps_out_who_wants_it_alone() {
        let folder = crate::testing::Folder::new();
        let path = folder.path().join("lock");
        let now = |manner| hold(&path, manner, Duration::ZERO, &mut || unreachable!()).unwrap();
        let (one, other) = (now(Manner::Shared).unwrap(), now(Manner::Shared).unwrap());
        assert!(now(Manner::Alone).is_none());
        let mut waited = false;
        assert!(
            hold(&path, Manner::Alone, Duration::from_millis(3), &mut || waited = true).unwrap().is_none()
        );
        assert!(waited);
        drop((one, other));
        let alone = now(Manner::Alone).unwrap();
        assert!(now(Manner::Shared).is_none());
        drop(alone);
        assert!(now(Manner::Shared).is_some());
    }

    #[test]
    fn a_child_of_a_fork_neither_has_nor_keeps_a_lock() {
        let folder = crate::testing::Folder::new();
        let path = folder.path().join("lock");
        let held = hold(&path, Manner::Alone, Duration::ZERO, &mut || {}).unwrap().unwrap();
        let in_parent = std::cell::Cell::new(Some(held));
        let child = crate::sys::threads::in_child(|| {
            let theirs = in_parent.take().unwrap();
            let ours = theirs.is_ours();
            drop(theirs);
            u8::from(ours) | u8::from(lock(&path).unwrap().is_some()) << 1
        });
        assert_eq!(child, Some(0));
        let held = in_parent.take().unwrap();
        assert!(held.is_ours() && lock(&path).unwrap().is_none());
        // As in a child that lives on.
        let copy = held.file().try_clone().unwrap();
        drop(held);
        assert!(lock(&path).unwrap().is_some());
        drop(copy);
    }
}
