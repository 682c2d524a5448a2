//! A file that several processes append to, a record at a time.
//!
//! Every record is one `write` to a descriptor with `O_APPEND`: file systems of this machine hold the inode's lock from finding
//! the end to the last byte, so records of two processes stand behind each other, whatever their length. (A file system of
//! the network that makes this up in the client does not promise it.)
//!
//! The file is open only as long as that takes: the program may close every descriptor from 3 up, and may expect the lowest
//! that is free. It does not wait for anybody, either: of a pipe that nobody reads or that is full, it says so.

use std::ffi::{CString, OsStr, c_int, c_long};
use std::fs::OpenOptions;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

/// Such a file. The first failure ends it.
#[derive(Debug)]
pub struct AppendFile {
    path: CString,
    /// What went wrong, until somebody has asked; then [`TOLD`].
    failure: AtomicI32,
}

const NONE: c_int = 0;
const TOLD: c_int = -1;

/// What a write that would exceed limits, or that nobody will read, has the thread sent.
const SIGNALS: [c_int; 2] = [libc::SIGXFSZ, libc::SIGPIPE];

impl AppendFile {
    /// The file at `path`, which is made if there is none. Wherever the working directory will be, it is this one.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn new(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
        let file = Self { path, failure: AtomicI32::new(NONE) };
        match file.open() {
            Ok(descriptor) => close(descriptor),
            Err(error) => return Err(io::Error::from_raw_os_error(error)),
        }
        if is_cut_off(Path::new(OsStr::from_bytes(file.path.as_bytes()))).unwrap_or(false) {
            file.append(b"\n");
        }
        Ok(file)
    }

    /// Appends a record, unless something went wrong before. Fit for signal handlers, in which nothing may be waited for; all
    /// signals must be blocked.
    pub(crate) fn append(&self, record: &[u8]) {
        if self.failure.load(Ordering::Relaxed) != NONE || record.is_empty() {
            return;
        }
        if let Err(error) = self.try_append(record) {
            let _ = self.failure.compare_exchange(NONE, error, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// What went wrong, the first time that somebody asks.
    pub fn take_failure(&self) -> Option<io::Error> {
        let failure = self.failure.load(Ordering::Relaxed);
        let mine = || self.failure.compare_exchange(failure, TOLD, Ordering::Relaxed, Ordering::Relaxed);
        (failure > NONE && mine().is_ok()).then(|| io::Error::from_raw_os_error(failure))
    }

    fn try_append(&self, record: &[u8]) -> Result<(), c_int> {
        let descriptor = self.open()?;
        let written = write_all(descriptor, record);
        close(descriptor);
        written
    }

    /// Not by glibc's function, in which a thread may be cancelled.
    fn open(&self) -> Result<c_int, c_int> {
        const FLAGS: c_int = libc::O_WRONLY
            | libc::O_APPEND
            | libc::O_CREAT
            | libc::O_CLOEXEC
            | libc::O_NOCTTY
            | libc::O_NONBLOCK;
        const MODE: c_int = 0o666;
        loop {
            // SAFETY: the path ends with a zero and lives through the call.
            let opened = outcome(unsafe {
                libc::syscall(libc::SYS_openat, libc::AT_FDCWD, self.path.as_ptr(), FLAGS, MODE)
            });
            match opened {
                Err(libc::EINTR) => {}
                Ok(descriptor) => return Ok(descriptor as c_int),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a file's last line has no end: somebody could write only a part of his record, which must not spoil the next.
fn is_cut_off(path: &Path) -> io::Result<bool> {
    // A pipe would be waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let status = file.metadata()?;
    let mut last = [b'\n'];
    if status.is_file() && status.len() > 0 {
        file.read_exact_at(&mut last, status.len() - 1)?;
    }
    Ok(last != [b'\n'])
}

/// What comes after a part that was written is behind whatever others have appended meanwhile; it is as good as lost.
fn write_all(descriptor: c_int, mut bytes: &[u8]) -> Result<(), c_int> {
    while !bytes.is_empty() {
        // SAFETY: the bytes are readable through the call.
        let written =
            outcome(unsafe { libc::syscall(libc::SYS_write, descriptor, bytes.as_ptr(), bytes.len()) });
        match written {
            Ok(0) => return Err(libc::ENOSPC),
            Ok(count) => bytes = bytes.get(count as usize..).unwrap_or_default(),
            Err(libc::EINTR) => {}
            Err(error) => {
                if matches!(error, libc::EFBIG | libc::EPIPE) {
                    take_signals();
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Takes what a failed write has this thread sent, which is nothing that the program has done.
fn take_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    /// Bytes of the kernel's set of signals.
    const SIZE: usize = 8;
    // SAFETY: the set is filled first, and read by the call as far as the kernel's goes.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        SIGNALS.iter().for_each(|&signal| {
            libc::sigaddset(set.as_mut_ptr(), signal);
        });
        libc::syscall(libc::SYS_rt_sigtimedwait, set.as_ptr(), 0_usize, &raw const at_once, SIZE);
    }
}

fn close(descriptor: c_int) {
    // SAFETY: the caller has opened it, and nobody else knows of it.
    unsafe { libc::syscall(libc::SYS_close, descriptor) };
}

/// What a system call came to, or its error.
fn outcome(result: c_long) -> Result<c_long, c_int> {
    // SAFETY: the calling thread's own word.
    if result < 0 { Err(unsafe { *libc::__errno_location() }) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn records_stand_behind_what_is_there() {
        let folder = Folder::new();
        let path = folder.path().join("file");
        std::fs::write(&path, "before\n").unwrap();
        let files = [AppendFile::new(&path).unwrap(), AppendFile::new(&path).unwrap()];
        files[0].append(b"one\n");
        files[1].append(b"two\n");
        files[0].append(b"");
        files[0].append(b"three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\none\ntwo\nthree\n");
        assert!(files[0].take_failure().is_none());
        // A line that was cut off stays one of its own.
        std::fs::write(&path, "one\ntw").unwrap();
        AppendFile::new(&path).unwrap().append(b"three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntw\nthree\n");
    }

    #[test]
    fn what_cannot_be_opened_is_an_error() {
        let folder = Folder::new();
        let missing = AppendFile::new(&folder.path().join("no/file")).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(AppendFile::new(folder.path()).unwrap_err().raw_os_error(), Some(libc::EISDIR));
        // Nobody reads it; opening it must not wait for somebody who does.
        let pipe = folder.path().join("pipe");
        let name = CString::new(pipe.as_os_str().as_bytes()).unwrap();
        // SAFETY: a zero-terminated path.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert_eq!(AppendFile::new(&pipe).unwrap_err().raw_os_error(), Some(libc::ENXIO));
    }

    #[test]
    fn a_failure_is_told_once_and_ends_it() {
        let file = AppendFile::new(Path::new("/dev/full")).unwrap();
        file.append(b"record\n");
        file.append(b"record\n");
        assert_eq!(file.take_failure().unwrap().raw_os_error(), Some(libc::ENOSPC));
        assert!(file.take_failure().is_none());
        file.append(b"record\n");
        assert!(file.take_failure().is_none());
    }
}
