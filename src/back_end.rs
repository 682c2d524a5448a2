//! Access to a back end: found and opened on the first compilation, in this process or in workers.
//!
//! A compilation in this process runs on a thread of its own: its stack is as large as a compiler's deep recursion
//! needs whatever the caller's is, and every signal is blocked in it.

mod functions;
mod plugin;
mod search;
mod workers;

use crate::builder::Isolation;
use crate::error::Error;
use crate::lazy::Grown;
use hotbed_loader::boundary::{BackEnd, Failure, FailureKind, Reply, Request};
use hotbed_loader::store::Store;
use hotbed_loader::sys::sync::Mutex;
use hotbed_loader::sys::threads::spawn_quiet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use workers::Workers;

pub(crate) use plugin::Plugin;
pub(crate) use search::executable;
#[cfg(not(feature = "static-backend"))]
use search::find_plugin;

/// Stack of a thread that compiles; only what is touched takes memory.
pub(crate) const COMPILE_STACK: usize = 64 << 20;

/// Whether this host was built to compile. Where it was not, nothing of what that takes is linked.
const CAN_COMPILE: bool = cfg!(feature = "jit");

/// Which back end, and how.
#[derive(Default)]
pub(crate) struct BackEndOptions {
    pub(crate) plugin: Option<PathBuf>,
    pub(crate) worker: Option<PathBuf>,
    pub(crate) isolation: Isolation,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) memory_limit: Option<u64>,
    #[cfg(test)]
    pub(crate) object: Option<Arc<dyn BackEnd>>,
}

/// The back ends of one runtime.
pub(crate) struct BackEnds {
    options: BackEndOptions,
    in_process: Mutex<Option<Arc<dyn BackEnd>>>,
    workers: Workers,
}

impl BackEnds {
    pub(crate) fn new(options: BackEndOptions) -> Self {
        Self { options, in_process: Mutex::new(None), workers: Workers::new() }
    }

    /// Compiles `request`, which becomes an image in the file that comes back.
    pub(crate) fn compile(&self, request: &Arc<Request>) -> Result<(Reply, OwnedFd), Error> {
        match self.options.isolation {
            Isolation::Process if CAN_COMPILE => self.workers.compile(&self.options, request),
            Isolation::InProcess | Isolation::Process => self.compile_here(request),
        }
    }

    /// Whether images may have functions that are compiled when they are first called, which is done in this process.
    pub(crate) fn compiles_functions(&self) -> bool {
        CAN_COMPILE && self.options.isolation == Isolation::InProcess
    }

    /// Starts a process that links what was compiled into images, and puts these into the store, unless others are at
    /// that; whether there was anything to do.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn start_keeper(&self, store: &Store, images: Vec<Grown>) -> Result<bool, String> {
        if CAN_COMPILE { workers::start_keeper(&self.options, store, images) } else { Ok(false) }
    }

    /// Ends all workers that wait for work.
    pub(crate) fn shut_down_workers(&self) {
        self.workers.shut_down();
    }

    fn compile_here(&self, request: &Arc<Request>) -> Result<(Reply, OwnedFd), Error> {
        let back_end = self.in_process(&request.unit)?;
        let failed = |reason: &str| {
            let message = format!("cannot compile {}: {reason}", request.unit);
            Error::of_failure(&request.unit, Failure::new(FailureKind::Internal, message))
        };
        let shared = Arc::clone(request);
        let thread = spawn_quiet("hotbed-compile", COMPILE_STACK, move || back_end.compile(&shared))
            .map_err(|e| failed(&format!("no thread to compile on: {e}")))?;
        match thread.join() {
            Ok(answer) => answer.map_err(|failure| Error::of_failure(&request.unit, failure)),
            Err(_) => Err(failed("the back end panicked")),
        }
    }

    /// The back end in this process, opened if it was not.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn in_process(&self, unit: &str) -> Result<Arc<dyn BackEnd>, Error> {
        let mut opened = self.in_process.lock();
        if let Some(back_end) = &*opened {
            return Ok(Arc::clone(back_end));
        }
        let back_end = self.open(unit)?;
        *opened = Some(Arc::clone(&back_end));
        Ok(back_end)
    }

    fn open(&self, unit: &str) -> Result<Arc<dyn BackEnd>, Error> {
        #[cfg(test)]
        if let Some(object) = &self.options.object {
            return Ok(Arc::clone(object));
        }
        let opened = if CAN_COMPILE {
            open_back_end(self.options.plugin.as_deref())
        } else {
            Err("this host was built without one (feature `jit` of the crate hotbed)".to_owned())
        };
        opened.map_err(|reason| Error::Plugin { unit: unit.to_owned(), reason })
    }
}

/// The back end that is linked in, or the plugin: the one at `path`, or else where plugins are.
#[cfg(feature = "static-backend")]
pub(crate) fn open_back_end(path: Option<&std::path::Path>) -> Result<Arc<dyn BackEnd>, String> {
    match path {
        Some(path) => Ok(Arc::new(Plugin::open(path)?)),
        None => Ok(Arc::new(hotbed_jit::InProcess::new())),
    }
}

/// The plugin: the one at `path`, or else where plugins are.
#[cfg(not(feature = "static-backend"))]
pub(crate) fn open_back_end(path: Option<&std::path::Path>) -> Result<Arc<dyn BackEnd>, String> {
    Ok(Arc::new(Plugin::open(&find_plugin(path)?)?))
}

#[cfg(test)]
mod tests;
