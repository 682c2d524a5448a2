//! Where images come from: the store, or else the back end, whose image the store then keeps.

use super::Runtime;
use crate::error::Error;
use crate::lazy::Origin;
use crate::provenance::Provenance;
use crate::report::Report;
use hotbed_loader::boundary::{Content, Reply, Request};
use hotbed_loader::store::{Hit, Key};
use hotbed_loader::sys::files::{self, Stamp};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// So long a start waits for what the run before it has compiled: about as long as compiling some of it once more takes.
const PATIENCE: Duration = Duration::from_millis(150);

/// An image that was found or made, and how.
pub(super) struct Made {
    pub(super) report: Report,
    pub(super) provenance: Provenance,
    pub(super) image: OwnedFd,
    /// Its file in the store.
    pub(super) path: Option<PathBuf>,
    /// Its checksum there.
    checksum: Option<[u8; 32]>,
}

impl Made {
    fn of_store(report: Report, directory: &Path, hit: Hit) -> Self {
        let Hit { path, file: image, checksum, record } = hit;
        let provenance = Provenance::Recorded { record, directory: directory.to_owned() };
        Self { report, provenance, image, path: Some(path), checksum: Some(checksum) }
    }

    /// The image's bytes; none if they cannot be read, which mapping it will say.
    pub(super) fn contents(&self) -> Vec<u8> {
        files::contents(self.image.as_fd()).unwrap_or_default()
    }
}

impl Runtime {
    /// Notes where a lazy image comes from: what is compiled of it may be kept.
    pub(super) fn note_origin(&self, request: &Arc<Request>, made: &Made) {
        if let (Some(functions), Some(path), Some(checksum)) =
            (&self.inner.functions, &made.path, made.checksum)
        {
            functions.note_origin(path.clone(), Origin { request: Arc::clone(request), checksum });
        }
    }

    /// Has what was compiled at first calls kept in the store, so that the next start need not compile it: by a process
    /// of its own, which outlives this one, and which nobody waits for. False when there is nothing to be kept.
    ///
    /// # Errors
    /// When there is no back end or no process for it.
    pub fn keep_compiled(&self) -> Result<bool, Error> {
        let inner = &*self.inner;
        let Some(store) = inner.cache.store(&*inner.observer) else { return Ok(false) };
        let images = inner.functions.as_ref().map(|functions| functions.grown()).unwrap_or_default();
        let Some(first) = images.first() else { return Ok(false) };
        let unit = first.request.unit.clone();
        inner.back_ends.start_keeper(store, images).map_err(|reason| Error::Worker { unit, reason })
    }

    /// The image for `request`, if the store has it.
    pub(super) fn stored(&self, request: &Request, key: &Key) -> Option<Made> {
        let hit = self.inner.cache.store(&*self.inner.observer)?.find(key, &request.directory).ok()?;
        Some(Made::of_store(Report { from_store: true, ..Report::default() }, &request.directory, hit))
    }

    /// Finds the image for `request` in the store, or has it made and stores it.
    pub(super) fn make(&self, request: &Arc<Request>, key: &Key) -> Result<Made, Error> {
        let observer = &*self.inner.observer;
        let unit = &request.unit;
        let store = self.inner.cache.store(observer);
        let mut report = Report::default();
        if let Some(store) = store {
            let mut found = store.find(key, &request.directory);
            // A run that has just ended may be about to have everything in its image that this one will call.
            if let Ok(hit) = &found
                && request.lazy
                && store.wait_for_replacement(&hit.checksum, PATIENCE)
            {
                found = store.find(key, &request.directory);
            }
            match found {
                Ok(hit) => {
                    tracing::debug!(image = %hit.path.display(), "from the store");
                    observer.note(&format!("{unit}: from the store, {}", hit.path.display()));
                    report.from_store = true;
                    return Ok(Made::of_store(report, &request.directory, hit));
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
                    Ok(hit) => return Ok(Made::of_store(report, &request.directory, hit)),
                    Err(error) => self.inner.cache.complain(&error, unit, observer),
                }
            }
        }
        let provenance = Provenance::Since { dependencies, directory: request.directory.clone(), started };
        Ok(Made { report, provenance, image, path: None, checksum: None })
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
