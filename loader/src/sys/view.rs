//! Files looked at where they lie in the page cache, for the few bytes of them that matter.

use super::files::open_regular;
use super::memory::{Access, Mapping, page_up};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// The contents of a file, mapped read-only.
#[derive(Debug)]
pub(crate) struct FileView {
    mapping: Mapping,
    length: usize,
}

impl FileView {
    /// Maps the ordinary file at `path`.
    ///
    /// # Errors
    /// What the system says, or that the file is empty or no ordinary one.
    ///
    /// # Safety
    /// The file is one that is about to be loaded into the process as code: whoever cuts it short meanwhile ends the
    /// process, as he would if it were loaded.
    pub(crate) unsafe fn open(path: &Path) -> io::Result<Self> {
        let (file, status) = open_regular(path)?;
        let length = usize::try_from(status.identity.size).map_err(io::Error::other)?;
        let pages = page_up(length).filter(|pages| *pages > 0);
        let pages = pages.ok_or_else(|| io::Error::other("an empty file"))?;
        let access = Access { read: true, ..Access::default() };
        Ok(Self { mapping: Mapping::of_file(file.as_fd(), 0, pages, access)?, length })
    }

    /// Address of the first byte; all of them can be read as long as this value exists.
    pub(crate) fn start(&self) -> usize {
        self.mapping.start()
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped readable for that many bytes as long as `self`; the caller of `open` answers for the file.
        unsafe { std::slice::from_raw_parts(self.start() as *const u8, self.length) }
    }
}
