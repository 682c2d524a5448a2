//! What the system knows about files: identities, owners, in-memory files, clocks that file times come from.
//!
//! The store trusts a hash it has computed before as long as the file it belongs to is the same *by identity*:
//! device, inode, size, and the times of the last change of contents and of the inode. A program cannot set the
//! latter, so an equal identity means equal contents, unless the file was changed twice within one tick of the clock that
//! stamps files. Hence [`FileIdentity::is_settled`]: only identities of files that were quiet for two seconds
//! are remembered.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A system's error in the system's words, without the number that Rust appends.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// A moment on the clock that stamps files, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(i64);

/// How long a file must have been left alone before its identity stands for its contents.
pub const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// A tick takes 10 ms at most, but those of a virtual machine come late when its host is busy.
const LONGEST_TICK: Duration = Duration::from_millis(500);

/// What tells one state of one file from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// Number of the device.
    pub device: u64,
    /// Number of the inode on it.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the contents, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of the inode, in nanoseconds since 1970.
    pub ctime_ns: i64,
}

/// What kind of thing a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// An ordinary file.
    Regular,
    /// A folder.
    Folder,
    /// A symbolic link (only when links are not followed).
    Link,
    /// A device, socket or pipe.
    Other,
}

/// What the system says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStatus {
    /// Which file in which state.
    pub identity: FileIdentity,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// User it belongs to.
    pub owner: u32,
}

impl Stamp {
    /// Now, as a file that is written now would be stamped or earlier.
    pub fn now() -> Self {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: clock_gettime fills the struct when it returns 0.
        let time = unsafe {
            if libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, time.as_mut_ptr()) != 0 {
                return Self::from_system(SystemTime::now());
            }
            time.assume_init()
        };
        Self(nanoseconds(time.tv_sec, time.tv_nsec))
    }

    /// In nanoseconds since 1970.
    pub fn nanoseconds(self) -> i64 {
        self.0
    }

    /// The moment `time`.
    pub fn from_system(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl FileIdentity {
    /// The identity of the file that `path` leads to.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Ok(FileStatus::of_path(path)?.identity)
    }

    /// The identity of an open file.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_descriptor(file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(FileStatus::of_descriptor(file)?.identity)
    }

    /// Whether the file had been left alone for two seconds at `now`, so that any later change of it shows in its identity.
    pub fn is_settled(&self, now: Stamp) -> bool {
        self.mtime_ns.max(self.ctime_ns).saturating_add(SETTLED_AFTER.as_nanos() as i64) <= now.0
    }

    /// Whether the file may have been changed at `moment` or after it.
    pub fn changed_since(&self, moment: Stamp) -> bool {
        self.mtime_ns.max(self.ctime_ns) >= moment.0
    }

    /// The identity as bytes, the same for the same identity.
    pub fn to_bytes(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        let fields = [
            self.device.to_le_bytes(),
            self.inode.to_le_bytes(),
            self.size.to_le_bytes(),
            self.mtime_ns.to_le_bytes(),
            self.ctime_ns.to_le_bytes(),
        ];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field);
        }
        bytes
    }
}

impl FileStatus {
    /// Of the file that `path` leads to.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Ok(Self::from_metadata(&std::fs::metadata(path)?))
    }

    /// Of what is at `path` itself, even when it is a symbolic link.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_link(path: &Path) -> io::Result<Self> {
        Ok(Self::from_metadata(&std::fs::symlink_metadata(path)?))
    }

    /// Of an open file.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_descriptor(file: BorrowedFd<'_>) -> io::Result<Self> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the descriptor is open for the length of the borrow; fstat fills the struct when it returns 0.
        let status = unsafe {
            if libc::fstat(file.as_raw_fd(), status.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            status.assume_init()
        };
        Ok(Self {
            identity: FileIdentity {
                device: status.st_dev,
                inode: status.st_ino,
                size: status.st_size.cast_unsigned(),
                mtime_ns: nanoseconds(status.st_mtime, status.st_mtime_nsec),
                ctime_ns: nanoseconds(status.st_ctime, status.st_ctime_nsec),
            },
            kind: FileKind::from_mode(status.st_mode),
            mode: status.st_mode & 0o7777,
            owner: status.st_uid,
        })
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        Self {
            identity: FileIdentity {
                device: metadata.dev(),
                inode: metadata.ino(),
                size: metadata.size(),
                mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
                ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            },
            kind: FileKind::from_mode(metadata.mode()),
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
        }
    }
}

impl FileKind {
    fn from_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFREG => Self::Regular,
            libc::S_IFDIR => Self::Folder,
            libc::S_IFLNK => Self::Link,
            _ => Self::Other,
        }
    }
}

/// An empty file without a name, closed on exec. `name` shows in `/proc`; it need not be unique, and what cannot
/// stand in it is replaced.
///
/// # Errors
/// What the system says.
pub fn memory_file(name: &str) -> io::Result<OwnedFd> {
    // The system takes 249 bytes without zeros.
    let mut bytes: Vec<u8> = name.bytes().take(200).map(|b| if b == 0 { b'?' } else { b }).collect();
    bytes.push(0);
    // SAFETY: `bytes` is zero-terminated and lives through the call.
    let fd = unsafe { libc::memfd_create(bytes.as_ptr().cast(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A file in memory with these contents; see [`memory_file`].
///
/// # Errors
/// What the system says.
pub fn memory_copy(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memory_file(name)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// Like [`memory_file`], but everything that is written goes to its end, whoever writes.
///
/// # Errors
/// What the system says.
pub fn memory_log(name: &str) -> io::Result<OwnedFd> {
    let file = memory_file(name)?;
    // SAFETY: F_SETFL takes an integer; the descriptor is ours.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_APPEND) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Throws away all that is in a file.
///
/// # Errors
/// What the system says.
pub fn clear(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the borrow.
    if unsafe { libc::ftruncate(file.as_raw_fd(), 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Opens the regular file at `path` for reading; a symbolic link in its last place is not followed, and a pipe is
/// not waited for.
///
/// # Errors
/// What the system says, or that it is no regular file.
pub fn open_no_follow(path: &Path) -> io::Result<(File, FileStatus)> {
    checked(OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?)
}

/// Opens the regular file that `path` leads to for reading; a pipe is not waited for.
///
/// # Errors
/// What the system says, or that it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<(File, FileStatus)> {
    checked(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?)
}

/// Opens the file that `path` leads to, which is to be read from its start, and gives its size in bytes; a pipe is not waited
/// for. It costs half of what [`open_regular`] asks of the system. What has no contents to be mapped is refused here, or when it is read.
///
/// # Errors
/// What the system says, or that it is no regular file.
pub fn open_sized(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // SAFETY: it moves the position in a file that nobody else has.
    match u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_END) }) {
        Ok(size) => Ok((file, size)),
        Err(_) => checked(file).map(|(file, status)| (file, status.identity.size)),
    }
}

fn checked(file: File) -> io::Result<(File, FileStatus)> {
    let status = FileStatus::of_descriptor(file.as_fd())?;
    match status.kind {
        FileKind::Regular => Ok((file, status)),
        FileKind::Folder => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Makes a new file at `path` that only this user may read and write.
///
/// # Errors
/// What the system says, also when there is something at `path` already.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Makes a folder and those above it that are missing, for this user alone.
///
/// # Errors
/// What the system says.
pub fn create_private_folders(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether an open file has a name in some folder, as files in memory and deleted ones have not. One that cannot be asked
/// about has.
pub fn has_name(file: BorrowedFd<'_>) -> bool {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the descriptor is open for the length of the borrow, and there is room for the result, which is read only
    // when it has been written.
    unsafe {
        libc::fstat(file.as_raw_fd(), status.as_mut_ptr()) != 0 || status.assume_init_ref().st_nlink != 0
    }
}

/// All the bytes of an open file, from its start; the position in it is neither used nor moved.
///
/// # Errors
/// What the system says.
pub fn contents(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let size = FileIdentity::of_descriptor(file)?.size;
    let file = File::from(file.try_clone_to_owned()?);
    contents_of(&file, size)
}

/// Gives `take` the bytes of an open file, from its start, in pieces of this many bytes, the last one with fewer; `take` may change
/// them. The position in the file is neither used nor moved.
///
/// # Errors
/// What the system says.
pub(crate) fn in_pieces(file: &File, size: usize, mut take: impl FnMut(&mut [u8])) -> io::Result<()> {
    let mut bytes = vec![0; size];
    let mut offset = 0;
    loop {
        let mut filled = 0;
        while filled < size {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        take(&mut bytes[..filled]);
        if filled < size {
            return Ok(());
        }
        offset += size as u64;
    }
}

/// All the bytes of an open file of about `size` bytes, from its start; the position in it is neither used nor moved.
///
/// # Errors
/// What the system says.
pub fn contents_of(file: &File, size: u64) -> io::Result<Vec<u8>> {
    let size = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = Vec::new();
    // One byte more than it has, so that the end of the file is seen without another round.
    bytes
        .try_reserve_exact(size.saturating_add(1))
        .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    bytes.resize(size + 1, 0);
    let mut filled = 0;
    loop {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        // There was room for more, so a file has ended.
        if filled == size {
            break;
        }
        if filled == bytes.len() {
            bytes.resize(filled * 2, 0);
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Reads the start of an open file, as much as there is room for; gives the number of bytes.
///
/// # Errors
/// What the system says.
pub fn read_start(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The effective user of this process.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether a descriptor is a terminal.
pub fn is_terminal(file: BorrowedFd<'_>) -> bool {
    // SAFETY: the descriptor is open for the length of the borrow.
    unsafe { libc::isatty(file.as_raw_fd()) == 1 }
}

/// Waits until a file that is changed from now on is stamped later than `path` is now: a tick of the system's clock, and only
/// when the file has just been written. Then a change during a compilation that starts after this can be told from one before
/// it.
pub fn outlive_tick(path: &Path) {
    let Ok(identity) = FileIdentity::of_path(path) else { return };
    let end = Instant::now() + LONGEST_TICK;
    // A file stamped in the future is not waited for.
    let is_past = || !identity.changed_since(Stamp::from_system(SystemTime::now()));
    while identity.changed_since(Stamp::now()) && is_past() && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    #[test]
    fn a_memory_file_holds_bytes() {
        let mut file = File::from(memory_file("na\0me").unwrap());
        file.write_all(b"hello").unwrap();
        assert_eq!(contents(file.as_fd()).unwrap(), b"hello");
        assert_eq!(contents_of(&file, 0).unwrap(), b"hello", "a wrong size is only a hint");
        assert!(!is_terminal(file.as_fd()));
        assert!(!has_name(file.as_fd()));
        let (program, _) = open_regular(&std::env::current_exe().unwrap()).unwrap();
        assert!(has_name(program.as_fd()));
    }

    #[test]
    fn a_log_is_written_at_its_end() {
        let log = memory_log("log").unwrap();
        let mut one = File::from(log.try_clone().unwrap());
        one.write_all(b"first").unwrap();
        clear(log.as_fd()).unwrap();
        one.write_all(b"second").unwrap();
        assert_eq!(contents(log.as_fd()).unwrap(), b"second");
    }

    #[test]
    fn path_and_descriptor_agree() {
        let path = std::env::current_exe().unwrap();
        let (file, status) = open_regular(&path).unwrap();
        assert_eq!(FileStatus::of_path(&path).unwrap(), status);
        assert_eq!(FileIdentity::of_descriptor(file.as_fd()).unwrap(), status.identity);
        assert!(open_regular(Path::new("/")).is_err());
        assert!(open_regular(Path::new("/dev/null")).is_err());
        assert!(open_no_follow(Path::new("/proc/self/exe")).is_err());
    }

    #[test]
    fn young_files_are_not_settled() {
        let file = File::from(memory_file("young").unwrap());
        let identity = FileIdentity::of_descriptor(file.as_fd()).unwrap();
        assert!(!identity.is_settled(Stamp::now()));
        let later = SystemTime::now() + Duration::from_secs(3);
        assert!(identity.is_settled(Stamp::from_system(later)));
        assert!(identity.changed_since(Stamp(0)));
        assert!(!identity.changed_since(Stamp::from_system(later)));
    }
}
