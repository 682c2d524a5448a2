//! Files in memory for lld, which takes inputs and outputs by path only.

use hotbed_loader::sys::files::memory_file;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// The files of one link, kept open until it is over, and what messages call them.
#[derive(Debug, Default)]
pub(crate) struct MemoryFiles {
    held: Vec<File>,
    /// Path and name of each.
    pub(crate) names: Vec<(String, String)>,
}

impl MemoryFiles {
    /// A file with these bytes, known to messages as `name`; the path under which lld opens it.
    ///
    /// # Errors
    /// When there is no memory or no descriptor for it.
    pub(crate) fn add(&mut self, bytes: &[u8], name: &str) -> io::Result<String> {
        let mut file = File::from(memory_file("hotbed")?);
        file.write_all(bytes)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        self.held.push(file);
        self.names.push((path.clone(), name.to_owned()));
        Ok(path)
    }

    /// Writes these bytes to the end of the file that was added under `path`.
    ///
    /// # Errors
    /// When there is no memory for them, or no such file.
    pub(crate) fn fill(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let index = self.names.iter().position(|(known, _)| known == path);
        let file = index.and_then(|index| self.held.get_mut(index));
        file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.write_all(bytes)
    }

    /// The file that was added under `path`.
    pub(crate) fn take(&mut self, path: &str) -> Option<File> {
        let index = self.names.iter().position(|(known, _)| known == path)?;
        self.names.remove(index);
        Some(self.held.remove(index))
    }
}
