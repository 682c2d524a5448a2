//! What the command says to the person at the terminal: always on standard error, which a program that is run shares.

use crate::Status;
use crate::arguments::UsageError;
use crate::progress::Progress;
use hotbed::Observer;
use hotbed_loader::sys::sync::Mutex;
use std::io::{IsTerminal, Write};

/// Writes one line, prefixed with the command's name.
pub(crate) fn say(line: &str) {
    print(&format!("hotbed: {line}\n"));
}

/// Writes text as it is.
pub(crate) fn print(text: &str) {
    // When standard error is closed there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Whether messages may be coloured.
pub(crate) fn color() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Explains why a command line makes no sense.
pub(crate) fn usage(error: &UsageError, command: &str) -> Status {
    say(&format!("error: {error}"));
    say(&format!("`hotbed {command} --help` has the options"));
    Status::Usage
}

/// Shows an error of the library, the compiler's diagnostics with it.
pub(crate) fn fail(error: &hotbed::Error) -> Status {
    let mut text = error.render();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    print(&text);
    if error.is_usage() { Status::Usage } else { Status::Failure }
}

/// Listens to a runtime on behalf of the person at the terminal.
pub(crate) struct Console {
    verbose: bool,
    progress: Mutex<Option<Progress>>,
}

impl Console {
    /// One that passes notes on when `verbose`.
    pub(crate) fn new(verbose: bool) -> Self {
        Self { verbose, progress: Mutex::new(None) }
    }
}

impl Observer for Console {
    fn compiling(&self, unit: &str) {
        // Lines of notes and a bar that is redrawn would run into each other.
        if !self.verbose && std::io::stderr().is_terminal() {
            *self.progress.lock() = Progress::start(unit);
        }
    }

    fn compiled(&self) {
        if let Some(progress) = self.progress.lock().take() {
            progress.finish();
        }
    }

    fn note(&self, line: &str) {
        if self.verbose {
            say(line);
        }
    }

    fn warning(&self, line: &str) {
        say(&format!("warning: {line}"));
    }
}
