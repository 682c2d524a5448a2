//! Processes of this very test binary: hosts whose output is looked at, or that may not survive what they are given.
//!
//! Such a test has a second test function, which does nothing unless it is run with a task.

use super::process::{End, Outcome, finish};
use std::ffi::OsStr;
use std::process::Command;

const TASK: &str = "HOTBED_TEST_TASK";
/// Separates the output of a task from that of the test harness.
const BEGIN: &str = "\n<<<<\n";
const DONE: &str = "\n>>>>\n";

/// A process to come.
pub(crate) struct Child {
    command: Command,
}

/// A task in this process: what it was asked for.
pub(crate) struct Task(String);

impl Child {
    /// A process that runs the test function `function` (its full path) with a task.
    pub(crate) fn new(function: &str, task: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", function, "--nocapture", "--include-ignored"]).env(TASK, task);
        Self { command }
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The same as the last arguments of another program, such as a debugger.
    pub(crate) fn under(self, mut program: Command) -> Command {
        program.arg(self.command.get_program()).args(self.command.get_args());
        program.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        program
    }

    /// Runs it to its end; the output is what the task wrote, whether it came to its end or not.
    #[track_caller]
    pub(crate) fn run(mut self) -> Outcome {
        let mut outcome = finish(&mut self.command);
        let Some((_, written)) = outcome.stdout.split_once(BEGIN) else {
            panic!("the task did not begin: {}{}", outcome.stdout, outcome.stderr);
        };
        outcome.stdout = written.split(DONE).next().unwrap().to_owned();
        outcome
    }

    /// Runs it to its end, which must be a good one.
    #[track_caller]
    pub(crate) fn succeed(self) -> String {
        let outcome = self.run();
        assert_eq!(outcome.end, End::Status(0), "{}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }
}

/// The task of this process, if it has one; what is written to standard output from here on is the parent's to see.
pub(crate) fn task() -> Option<Task> {
    let task = std::env::var(TASK).ok()?;
    print!("{BEGIN}");
    flush();
    Some(Task(task))
}

impl Task {
    /// What was asked for.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        flush();
        print!("{DONE}");
        flush();
    }
}

/// Flushes what Rust and what C has buffered.
pub(crate) fn flush() {
    let _ = std::io::Write::flush(&mut std::io::stdout());
    // SAFETY: a null pointer means all streams.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}
