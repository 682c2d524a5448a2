//! Locks between processes: a file that is locked as long as anybody holds it open who got it from who has locked it.

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
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)?;
    Ok(try_lock(&file)?.then_some(file))
}

/// Waits until nobody has the file at `path` locked, but not longer than `limit`. False if there is no such file or it took too
/// long.
///
/// # Errors
/// What the system says.
pub fn wait(path: &Path, limit: Duration) -> io::Result<bool> {
    const STEP: Duration = Duration::from_millis(1);
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path);
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let end = Instant::now() + limit;
    loop {
        if try_lock(&file)? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(STEP);
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
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
}
