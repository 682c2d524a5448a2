//! Where images come from: the store, or else the back end, whose image the store then keeps.

use super::Runtime;
use crate::cache::Found;
use crate::error::Error;
use crate::lazy::Origin;
use crate::provenance::Provenance;
use crate::report::Report;
use hotbed_loader::boundary::{Content, Reply, Request};
use hotbed_loader::store::{Fate, Hit, Key, Miss, Turn};
use hotbed_loader::sys::files::{self, Stamp};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// So long a start waits for what the run before it has compiled: about as long as compiling some of it once more takes.
const KEEPERS_TIME: Duration = Duration::from_millis(150);
/// So long it waits for what somebody else compiles: a whole large library takes less, so who is not done by then has probably
/// been stopped, by a debugger or from a terminal; and at a terminal nobody wants to wait longer for that.
const BUILDERS_TIME: Duration = Duration::from_secs(60);

/// An image that was found or made, and how.
pub(crate) struct Made {
    pub(crate) report: Report,
    pub(super) provenance: Provenance,
    pub(crate) image: OwnedFd,
    /// Its file in the store.
    pub(super) path: Option<PathBuf>,
    /// Its checksum there, if it may be replaced by one that has more.
    checksum: Option<[u8; 32]>,
    /// What it was made of, where that is not what was asked for.
    origin: Option<Arc<Request>>,
}

impl Made {
    fn of_store(report: Report, request: &Request, found: Found) -> Self {
        let Found { hit, own } = found;
        let origin = hit.other_request(request).map(Arc::new);
        let Hit { path, file: image, checksum, record, .. } = hit;
        let provenance = Provenance::Recorded { record, directory: request.directory.clone() };
        Self { report, provenance, image, path: Some(path), checksum: own.then_some(checksum), origin }
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
            let request = Arc::clone(made.origin.as_ref().unwrap_or(request));
            functions.note_origin(path.clone(), Origin { request, checksum });
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
        let found = self.inner.cache.find(key, &request.directory, &*self.inner.observer)?.ok()?;
        Some(Made::of_store(Report { from_store: true, ..Report::default() }, request, found))
    }

    /// Finds the image for `request` in the store, or has it made and stores it, unless somebody else is at that: then it waits,
    /// and finds it.
    pub(crate) fn make(&self, request: &Arc<Request>, key: &Key) -> Result<Made, Error> {
        let observer = &*self.inner.observer;
        let unit = &request.unit;
        let store = self.inner.cache.store(observer);
        let mut report = Report::default();
        let mut found = self.look_up(request, key);
        // Held until what is made is in the store, so that others find it there.
        let turn = match (&found, store) {
            (Some(Err(_)), Some(store)) => store.turn(key, &request.directory, BUILDERS_TIME, &mut || {
                observer.note(&format!("{unit}: waiting for somebody else, who compiles it"));
            }),
            _ => Turn::Unlocked,
        };
        match turn {
            Turn::Ours(_) | Turn::Theirs => found = self.look_up(request, key),
            Turn::Late => observer.note(&format!(
                "{unit}: compiled all the same, since somebody else is not done after {} seconds",
                BUILDERS_TIME.as_secs()
            )),
            Turn::Unlocked => {}
        }
        match found {
            Some(Ok(found)) => {
                tracing::debug!(image = %found.hit.path.display(), "from the store");
                observer.note(&format!("{unit}: from the store, {}", found.hit.path.display()));
                report.from_store = true;
                return Ok(Made::of_store(report, request, found));
            }
            Some(Err(miss)) => {
                if let Some(path) = miss.path() {
                    files::outlive_tick(&request.directory.join(path));
                }
                let miss = match store {
                    Some(store) => store.explain(request, miss),
                    None => miss,
                };
                tracing::debug!(%miss, "not in the store");
                observer.note(&format!("{unit}: not in the store: {miss}"));
                report.miss = Some(miss);
            }
            None => {}
        }
        for input in request.inputs() {
            if let Content::File(path) = &input.content {
                files::outlive_tick(path);
            }
        }
        let started = Stamp::now();
        let stocked = store.filter(|_| keeps_stock(request));
        let (mut reply, image) = match stocked {
            Some(store) => {
                let stock = Some(store.stock(request));
                let answer = self.compile(&Arc::new(Request { stock, ..Request::clone(request) }))?;
                answer.0.stock.iter().for_each(|stock| store.keep_stock(request, stock));
                answer
            }
            None => self.compile(request)?,
        };
        report.absorb(&mut reply);
        let Reply { dependencies, reproducible, level_signs, .. } = reply;
        if let Some(store) = store {
            if !reproducible {
                store.note(request, Fate::Unrepeatable);
                observer
                    .note(&format!("{unit}: not stored: it uses the date or the time of its compilation, or has the assembler read files"));
            } else {
                let directory = &request.directory;
                match store.insert(key, directory, &dependencies, level_signs, started, image.as_fd()) {
                    Ok(hit) => {
                        store.note(request, Fate::Kept);
                        return Ok(Made::of_store(report, request, Found { hit, own: true }));
                    }
                    Err(error) => self.inner.cache.complain(&error, unit, observer),
                }
            }
        }
        let provenance = Provenance::Since { dependencies, directory: request.directory.clone(), started };
        Ok(Made { report, provenance, image, path: None, checksum: None, origin: None })
    }

    /// What the store has, if there is one; also when it is about to have more in it.
    fn look_up(&self, request: &Request, key: &Key) -> Option<Result<Found, Miss>> {
        let (cache, observer) = (&self.inner.cache, &*self.inner.observer);
        let found = cache.find(key, &request.directory, observer)?;
        // A run that has just ended may be about to have everything in its image that this one will call.
        if let Ok(Found { hit, own: true }) = &found
            && request.lazy
            && let Some(store) = cache.store(observer)
            && store.wait_for_replacement(&hit.checksum, KEEPERS_TIME)
        {
            return cache.find(key, &request.directory, observer);
        }
        Some(found)
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

/// Whether something may be kept of what is compiled for `request`: whole units only are.
fn keeps_stock(request: &Request) -> bool {
    !request.lazy && request.trace.is_none() && request.inputs().any(|input| input.lang.is_compiled())
}
