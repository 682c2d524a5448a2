//! A file in memory that is changed in place, by writing to memory.

use super::memory::{page_up, size_of};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd};

/// All the bytes of a file in memory: what is written here is in the file.
#[derive(Debug)]
pub struct FileInPlace<'a> {
    start: *mut u8,
    size: usize,
    file: PhantomData<&'a mut File>,
}

impl<'a> FileInPlace<'a> {
    /// Maps a file that [`super::files::memory_file`] has made and that is not empty. It has no name, so that nobody comes by
    /// it but through its descriptor, which is borrowed as long.
    ///
    /// # Errors
    /// What the system says; that it is no such file.
    pub fn new(file: &'a mut File) -> io::Result<Self> {
        // SAFETY: gives an integer; what is not in memory has no seals.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let large = || io::Error::from(io::ErrorKind::FileTooLarge);
        let size = usize::try_from(size_of(file.as_fd())?).map_err(|_| large())?;
        page_up(size).filter(|size| isize::try_from(*size).is_ok()).ok_or_else(large)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), size, file: PhantomData })
    }
}

impl Deref for FileInPlace<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, that long, and written to through a unique reference to this only.
        unsafe { std::slice::from_raw_parts(self.start, self.size) }
    }
}

impl DerefMut for FileInPlace<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.size) }
    }
}

impl Drop for FileInPlace<'_> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference to it outlives this.
        unsafe { libc::munmap(self.start.cast(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::sys::files::{contents, memory_copy, memory_file};
    use crate::testing::Folder;

    #[test]
    fn what_is_written_is_in_the_file() {
        let mut file = File::from(memory_copy("in place", b"0123456789").unwrap());
        let mut bytes = FileInPlace::new(&mut file).unwrap();
        assert_eq!(&bytes[..], b"0123456789");
        bytes[3..5].copy_from_slice(b"ab");
        drop(bytes);
        assert_eq!(contents(file.as_fd()).unwrap(), b"012ab56789");
    }

    #[test]
    fn a_file_on_disk_or_without_bytes_is_an_error() {
        let folder = Folder::new();
        std::fs::write(folder.path().join("file"), b"bytes").unwrap();
        let open = std::fs::OpenOptions::new().read(true).write(true).open(folder.path().join("file"));
        assert!(FileInPlace::new(&mut open.unwrap()).is_err());
        assert!(FileInPlace::new(&mut File::from(memory_file("empty").unwrap())).is_err());
    }
}
