//! Where images come from: the store, or else the back end, whose image the store then keeps.

use super::Runtime;
use crate::error::Error;
use crate::provenance::Provenance;
use crate::report::Report;
use hotbed_loader::boundary::{Content, Reply, Request};
use hotbed_loader::store::Key;
use hotbed_loader::sys::files::{self, Stamp};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// An image that was found or made, and how.
pub(super) struct Made {
    pub(super) report: Report,
    pub(super) provenance: Provenance,
    pub(super) image: OwnedFd,
    /// Its file in the store.
    pub(super) path: Option<PathBuf>,
}

impl Runtime {
    /// Finds the image for `request` in the store, or has it made and stores it.
    pub(super) fn make(&self, request: &Arc<Request>, key: &Key) -> Result<Made, Error> {
        let observer = &*self.inner.observer;
        let unit = &request.unit;
        let store = self.inner.cache.store(observer);
        let mut report = Report::default();
        if let Some(store) = store {
            match store.find(key, &request.directory) {
                Ok(hit) => {
                    tracing::debug!(image = %hit.path.display(), "from the store");
                    observer.note(&format!("{unit}: from the store, {}", hit.path.display()));
                    report.from_store = true;
                    let provenance =
                        Provenance::Recorded { record: hit.record, directory: request.directory.clone() };
                    return Ok(Made { report, provenance, image: hit.file, path: Some(hit.path) });
                }
                Err(miss) => {
                    if let Some(path) = miss.path() {
                        files::outlive_tick(&request.directory.join(path));
                    }
                    let miss = miss.to_string();
                    tracing::debug!(%miss, "not in the store");
                    observer.note(&format!("{unit}: not in the store: {miss}"));
                    report.miss = Some(miss);
                }
            }
        }
        for input in request.inputs() {
            if let Content::File(path) = &input.content {
                files::outlive_tick(path);
            }
        }
        let started = Stamp::now();
        let (mut reply, image) = self.compile(request)?;
        report.absorb(&mut reply);
        let Reply { dependencies, reproducible, .. } = reply;
        if let Some(store) = store {
            if !reproducible {
                observer
                    .note(&format!("{unit}: not stored: it uses the date or the time of its compilation, or has the assembler read files"));
            } else {
                match store.insert(key, &request.directory, &dependencies, started, image.as_fd()) {
                    Ok(hit) => {
                        let provenance =
                            Provenance::Recorded { record: hit.record, directory: request.directory.clone() };
                        return Ok(Made { report, provenance, image: hit.file, path: Some(hit.path) });
                    }
                    Err(error) => self.inner.cache.complain(&error, unit, observer),
                }
            }
        }
        let provenance = Provenance::Since { dependencies, directory: request.directory.clone(), started };
        Ok(Made { report, provenance, image, path: None })
    }

    fn compile(&self, request: &Arc<Request>) -> Result<(Reply, OwnedFd), Error> {
        let _span = tracing::debug_span!("compile").entered();
        let observer = &*self.inner.observer;
        observer.compiling(&request.unit);
        let answer = self.inner.back_ends.compile(request);
        observer.compiled();
        let log = match &answer {
            Ok((reply, _)) => &reply.log[..],
            Err(error) => error.log(),
        };
        log.iter().for_each(|line| observer.note(line));
        answer
    }
}
