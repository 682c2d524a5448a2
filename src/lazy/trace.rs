//! Where first calls are written down, for a runtime that was asked to.
//!
//! The loader writes, when a function is called ([`LoaderOptions::first_calls`](hotbed_loader::LoaderOptions::first_calls)); here the records are made,
//! when it is compiled.

use super::crew::Opened;
use crate::error::Error;
use hotbed_loader::boundary::Body;
use hotbed_loader::sys::append::AppendFile;
use hotbed_loader::sys::files::plain;
use hotbed_loader::trace::{Record, source_name};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A trace that is written.
pub(crate) struct Trace {
    file: Arc<AppendFile>,
    path: PathBuf,
    /// The working directory when the runtime was made.
    directory: PathBuf,
}

impl Trace {
    /// The trace in the file `path`, which is made if there is none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::Write { path: path.display().to_string(), reason: plain(&error) };
        let file = Arc::new(AppendFile::new(path).map_err(failed)?);
        // Without one, sources are called as they were given.
        let directory = std::env::current_dir().unwrap_or_default();
        Ok(Self { file, path: path.to_owned(), directory })
    }

    /// Where the loader writes.
    pub(crate) fn file(&self) -> &Arc<AppendFile> {
        &self.file
    }

    /// The line for a function of an image.
    pub(super) fn line(&self, image: &Opened, body: &Body) -> String {
        let (source, function) = image.name_of(body.slot);
        let record = Record {
            source: source_name(&source, &self.directory),
            function,
            content: body.content,
            microseconds: body.nanoseconds / 1000,
            flags: image.flags().to_vec(),
        };
        record.encode()
    }

    /// Why the rest of it is missing, the first time that somebody asks.
    pub(super) fn failure(&self) -> Option<String> {
        let error = self.file.take_failure()?;
        Some(format!("cannot write {}: {}; the trace ends here", self.path.display(), plain(&error)))
    }
}
