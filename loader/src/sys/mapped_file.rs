//! A file that is mapped to be looked into here and there, for as long as it is wanted, with no descriptor open.

use super::memory::{Access, Mapping, page_up};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// A file's bytes in memory.
///
/// For files that are never written to once they have their name, only replaced: one that another program cuts off
/// while it is mapped ends whoever looks at what is gone.
#[derive(Debug)]
pub(crate) struct MappedFile {
    mapping: Mapping,
    size: usize,
}

impl MappedFile {
    /// Maps the first `size` bytes of `file`, which has as many and at least one.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(file: &File, size: u64) -> io::Result<Self> {
        let large = || io::Error::from(io::ErrorKind::FileTooLarge);
        let size = usize::try_from(size).map_err(|_| large())?;
        let length = page_up(size).ok_or_else(large)?;
        let access = Access { read: true, ..Access::default() };
        Ok(Self { mapping: Mapping::of_file(file.as_fd(), 0, length, access)?, size })
    }

    /// How many bytes there are.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Copies the bytes from `at` on into `buffer`; false when there are not as many.
    pub(crate) fn copy(&self, at: usize, buffer: &mut [u8]) -> bool {
        if at.checked_add(buffer.len()).is_none_or(|end| end > self.size) {
            return false;
        }
        let from = (self.mapping.start() + at) as *const u8;
        // SAFETY: the range lies inside the mapping, which lives as long as `self` and which nobody in this process
        // writes to; the buffer is elsewhere. Whoever copies checks the copy, so it does not matter what is in it.
        unsafe { std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), buffer.len()) };
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn only_what_is_there_is_copied() {
        let folder = Folder::new();
        let path = folder.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let mapped = MappedFile::new(&File::open(&path).unwrap(), 10).unwrap();
        // Replacing the file does not touch what is mapped.
        std::fs::remove_file(&path).unwrap();
        let mut buffer = [0; 4];
        assert!(mapped.copy(6, &mut buffer));
        assert_eq!((&buffer, mapped.size()), (b"6789", 10));
        assert!(!mapped.copy(7, &mut buffer));
        assert!(!mapped.copy(usize::MAX, &mut buffer));
        assert!(mapped.copy(10, &mut []));
    }
}
