//! Compiling in worker processes, seen from the host.
//!
//! A worker is the `hotbed` executable with a socket to us. It is started for the first compilation that finds none idle,
//! serves one request at a time and is kept for the next. It ends when our end of the socket closes, whether we close it or
//! die. What it writes to its standard error goes to an in-memory file of ours, so that it never waits for a reader,
//! and its last words are there when it dies.
//!
//! Nothing that a worker does or says is trusted to be well-formed.

use super::BackEndOptions;
use super::search::{find_plugin, find_worker};
use crate::error::Error;
use crate::lazy::{Grown, Order};
use hotbed_loader::boundary::{Reply, Request, decode_answer};
use hotbed_loader::store::Store;
use hotbed_loader::sys::files::{self, plain};
use hotbed_loader::sys::processes::{
    CHANNEL_DESCRIPTOR, Detached, DetachedProcess, LAST_WORDS, spawn_detached,
};
use hotbed_loader::sys::sockets::Channel;
use hotbed_loader::sys::sync::Mutex;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How many idle workers are kept.
const KEPT: usize = 2;
/// How much of the last words is passed on, in bytes.
const WORDS_KEPT: usize = 2000;

/// The workers of one runtime that have nothing to do.
pub(super) struct Workers {
    idle: Mutex<Vec<Worker>>,
}

struct Worker {
    channel: Channel,
    output: OwnedFd,
    process: DetachedProcess,
    /// The process that started it: after a fork the other one must not use it as well.
    owner: u32,
}

impl Workers {
    pub(super) fn new() -> Self {
        Self { idle: Mutex::new(Vec::new()) }
    }

    pub(super) fn shut_down(&self) {
        self.idle.lock().clear();
    }

    pub(super) fn compile(
        &self,
        options: &BackEndOptions,
        request: &Request,
    ) -> Result<(Reply, OwnedFd), Error> {
        let deadline = options.time_limit.and_then(|limit| Instant::now().checked_add(limit));
        let bytes = request.encode();
        let fail = |reason: String| Error::Worker { unit: request.unit.clone(), reason };
        let worker = loop {
            let idle = self.idle.lock().pop();
            let fresh = idle.is_none();
            let worker = match idle {
                Some(worker) => worker,
                None => {
                    let plugin = plugin_for_worker(options)
                        .map_err(|reason| Error::Plugin { unit: request.unit.clone(), reason })?;
                    Worker::start(options, plugin.as_deref()).map_err(fail)?
                }
            };
            // One that was kept may have been ended meanwhile, by whomever.
            if !fresh && !worker.is_usable() {
                continue;
            }
            match worker.channel.send(&bytes, None, deadline) {
                Ok(()) => break worker,
                Err(_) if !fresh => continue,
                Err(e) => return Err(fail(worker.explain(options, &e))),
            }
        };
        let frame = match worker.channel.receive(deadline) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(fail(worker.explain(options, &io::ErrorKind::UnexpectedEof.into()))),
            Err(e) => return Err(fail(worker.explain(options, &e))),
        };
        let answer = decode_answer(&frame.bytes)
            .map_err(|e| fail(format!("the worker's answer makes no sense: {e}")))?;
        self.keep(worker);
        match (answer, frame.file) {
            (Ok(reply), Some(image)) => Ok((reply, image)),
            (Ok(_), None) => Err(fail("the worker sent no image".into())),
            (Err(failure), _) => Err(Error::of_failure(&request.unit, failure)),
        }
    }

    fn keep(&self, worker: Worker) {
        let _ = files::clear(worker.output.as_fd());
        let mut idle = self.idle.lock();
        if idle.len() < KEPT {
            idle.push(worker);
        }
    }
}

impl Worker {
    fn start(options: &BackEndOptions, plugin: Option<&Path>) -> Result<Self, String> {
        let cannot = |e: io::Error| format!("cannot start a worker: {}", plain(&e));
        let program = find_worker(options.worker.as_deref(), plugin)?;
        let (ours, theirs) = Channel::pair().map_err(cannot)?;
        let output = files::memory_log("hotbed-worker-output").map_err(cannot)?;
        let number = CHANNEL_DESCRIPTOR.to_string();
        let process = spawn_detached(&Detached {
            program: &program,
            arguments: &[Path::new("hotbed"), Path::new("worker"), Path::new(&number)],
            channel: theirs.as_fd(),
            output: output.as_fd(),
            memory_limit: options.memory_limit,
        })
        .map_err(|e| format!("cannot start worker {}: {}", program.display(), plain(&e)))?;
        let worker = Self { channel: ours, output, process, owner: std::process::id() };
        // The first frame says which plugin; an empty one leaves it to the worker.
        let plugin = plugin.map_or(OsStr::new(""), Path::as_os_str);
        worker.channel.send(plugin.as_bytes(), None, None).map_err(|e| worker.explain(options, &e))?;
        Ok(worker)
    }

    fn is_usable(&self) -> bool {
        self.owner == std::process::id() && !self.channel.is_hung_up()
    }

    /// Why there was no answer, in one line. The worker is ended.
    fn explain(&self, options: &BackEndOptions, error: &io::Error) -> String {
        self.process.kill();
        if error.kind() == io::ErrorKind::TimedOut {
            let limit = options.time_limit.unwrap_or_default();
            return format!("it took longer than the time limit of {limit:?}");
        }
        let words = files::contents(self.output.as_fd()).unwrap_or_default();
        let words = String::from_utf8_lossy(&words[words.len().saturating_sub(WORDS_KEPT)..]);
        let limit = match options.memory_limit {
            Some(bytes) => format!(" (it may use {} MiB of memory)", bytes >> 20),
            None => String::new(),
        };
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                format!("{}{limit}", last_words(&words))
            }
            _ => format!("the worker cannot be reached: {}", plain(error)),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // In a forked child it is the parent's worker that this would end.
        if self.owner == std::process::id() {
            self.process.kill();
        }
    }
}

/// Starts a process that carries an order out, and is left alone.
///
/// # Errors
/// Why it cannot be started.
pub(super) fn start_keeper(
    options: &BackEndOptions,
    store: &Store,
    images: Vec<Grown>,
) -> Result<bool, String> {
    let cannot = |e: io::Error| format!("cannot start a process that keeps what was compiled: {}", plain(&e));
    // Images that others are at are theirs.
    let (mut locks, mut own) = (Vec::new(), Vec::new());
    for grown in images {
        if let Some(lock) = store.begin_to_replace(&grown.checksum).map_err(cannot)? {
            locks.push(lock);
            own.push(grown);
        }
    }
    let [output, ..] = &locks[..] else { return Ok(false) };
    let plugin = plugin_for_worker(options)?.unwrap_or_default();
    let program = find_worker(options.worker.as_deref(), Some(&plugin))?;
    let order = Order { store: store.root().to_owned(), budget: store.budget(), plugin, images: own };
    let order = files::memory_copy("hotbed-order", &order.encode()).map_err(cannot)?;
    // What it says stands in the file that is locked as long as it lives, if it does not come to its end.
    let number = CHANNEL_DESCRIPTOR.to_string();
    spawn_detached(&Detached {
        program: &program,
        arguments: &[Path::new("hotbed"), Path::new("keep"), Path::new(&number)],
        channel: order.as_fd(),
        output: output.as_fd(),
        memory_limit: options.memory_limit,
    })
    .map(|_| true)
    .map_err(cannot)
}

/// The plugin that the worker shall open; `None` when it has its back end in it.
fn plugin_for_worker(options: &BackEndOptions) -> Result<Option<PathBuf>, String> {
    let absolute = |path: PathBuf| std::path::absolute(path).map_err(|e| plain(&e));
    match find_plugin(options.plugin.as_deref()) {
        Ok(path) => absolute(path).map(Some),
        Err(_) if cfg!(feature = "static-backend") && options.plugin.is_none() => Ok(None),
        Err(reason) => Err(reason),
    }
}

/// What a dead worker's output says about its death, in one line.
fn last_words(output: &str) -> String {
    let mut lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let signal = match lines.last() {
        Some(line) if line.starts_with(LAST_WORDS) => {
            lines.pop().and_then(|line| line.strip_prefix(LAST_WORDS))
        }
        _ => None,
    };
    // What a compiler says about its own failure is marked; otherwise the last line is the best there is.
    let said =
        lines.iter().rev().find(|line| line.contains("ERROR") || line.contains("error:")).or(lines.last());
    match (signal, said) {
        (Some(signal), Some(said)) => format!("the compiler ended by {signal}: {said}"),
        (Some(signal), None) => format!("the compiler ended by {signal}"),
        (None, Some(said)) => format!("the compiler ended: {said}"),
        (None, None) => "the compiler ended without a word".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_name_the_signal_and_the_reason() {
        assert_eq!(last_words(""), "the compiler ended without a word");
        assert_eq!(last_words("ended by SIGSEGV\n"), "the compiler ended by SIGSEGV");
        assert_eq!(
            last_words("noise\nLLVM ERROR: out of memory\nmore\nended by SIGABRT\n"),
            "the compiler ended by SIGABRT: LLVM ERROR: out of memory"
        );
        assert_eq!(last_words("cannot go on\n"), "the compiler ended: cannot go on");
    }
}
