//! Loaded code as every tool takes it: a name, a place, and where its ELF file is.

use super::error::DebugError;
use super::lines::Lines;
use crate::image::note;
use crate::sys::files;
use crate::sys::sync::Mutex;
use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the ELF file is that code was loaded from.
#[derive(Debug, Clone)]
pub enum CodeFile {
    /// On disk.
    Path {
        /// Its path.
        path: PathBuf,
        /// The checksum in its note, by which it is known to be the same file still; unchecked if there is none.
        checksum: Option<[u8; 32]>,
        /// The system knows that the code is from this file, so that whoever looks into `/proc/PID/maps` finds it.
        mapped: bool,
    },
    /// In memory.
    Bytes(Arc<[u8]>),
    /// It was not kept.
    Nowhere,
}

/// Code in memory that came from one ELF file.
#[derive(Debug)]
pub struct LoadedCode {
    name: Box<str>,
    bias: usize,
    range: Range<usize>,
    file: CodeFile,
    /// What was parsed of it, when it has been asked for; nothing when there was nothing to be had.
    lines: Mutex<Option<Arc<Lines>>>,
}

impl LoadedCode {
    /// Code of the unit `name` at `range`, where `bias` has been added to the addresses in `file`.
    pub fn new(name: &str, bias: usize, range: Range<usize>, file: CodeFile) -> Self {
        Self { name: name.into(), bias, range, file, lines: Mutex::new(None) }
    }

    /// Name of the unit.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What has been added to the addresses in the file.
    pub fn bias(&self) -> usize {
        self.bias
    }

    /// The addresses that it occupies.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Where its file is.
    pub fn file(&self) -> &CodeFile {
        &self.file
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// When it was not kept, is gone, or is not what was loaded any more.
    pub fn contents(&self) -> Result<Cow<'_, [u8]>, DebugError> {
        match &self.file {
            CodeFile::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            CodeFile::Nowhere => Err(DebugError::Nowhere),
            CodeFile::Path { path, checksum, .. } => {
                let read = |source| DebugError::Read { path: path.clone(), source };
                let (file, status) = files::open_regular(path).map_err(read)?;
                let bytes = files::contents_of(&file, status.identity.size).map_err(read)?;
                match checksum {
                    Some(checksum) if note::recorded_checksum(&*bytes).ok() != Some(*checksum) => {
                        Err(DebugError::Changed(path.clone()))
                    }
                    _ => Ok(Cow::Owned(bytes)),
                }
            }
        }
    }

    /// Its functions and lines, parsed at the first call and kept as long as this.
    ///
    /// # Errors
    /// When the file cannot be had or read; it is tried again at the next call.
    pub(super) fn lines(&self) -> Result<Arc<Lines>, DebugError> {
        let mut lines = self.lines.lock();
        if let Some(lines) = &*lines {
            return Ok(Arc::clone(lines));
        }
        let parsed = Arc::new(Lines::parse(&self.contents()?)?);
        *lines = Some(Arc::clone(&parsed));
        Ok(parsed)
    }
}
