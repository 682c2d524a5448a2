//! The bar that appears on a terminal when compiling takes longer than a second.

use hotbed_loader::sys::sync::{Condvar, Mutex};
use hotbed_loader::sys::threads;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(1);
const REDRAW: Duration = Duration::from_millis(100);
const STACK: usize = 256 << 10;

/// A compilation that is being watched; its thread is gone when [`Progress::finish`] returns.
pub(crate) struct Progress {
    finished: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Starts to watch; nothing when there is no thread to be had.
    pub(crate) fn start(unit: &str) -> Option<Self> {
        let finished = Arc::new((Mutex::new(false), Condvar::new()));
        let (theirs, unit) = (Arc::clone(&finished), unit.to_owned());
        let thread = threads::spawn_quiet("hotbed-progress", STACK, move || watch(&theirs, unit)).ok()?;
        Some(Self { finished, thread })
    }

    /// Takes the bar off the screen and waits until its thread has ended.
    pub(crate) fn finish(self) {
        *self.finished.0.lock() = true;
        self.finished.1.notify_all();
        // A bar that failed is no reason for the program not to run.
        let _ = self.thread.join();
    }
}

fn watch((finished, ended): &(Mutex<bool>, Condvar), unit: String) {
    let started = Instant::now();
    let mut finished = finished.lock();
    while !*finished {
        let Some(rest) = PATIENCE.checked_sub(started.elapsed()) else { break };
        finished = ended.wait_for(finished, rest).0;
    }
    if *finished {
        return;
    }
    let style = ProgressStyle::with_template("{spinner} compiling {msg} [{elapsed}]")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style).with_elapsed(started.elapsed()).with_message(unit);
    while !*finished {
        bar.tick();
        finished = ended.wait_for(finished, REDRAW).0;
    }
    bar.finish_and_clear();
}
