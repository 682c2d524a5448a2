//! Runs processes to their end, with a time limit, and keeps everything that can be seen of them.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any of our processes takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
    /// How it ended.
    pub(crate) end: End,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With this exit status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => Self::Status(code),
            None => Self::Signal(status.signal().unwrap_or_default()),
        }
    }
}

impl Outcome {
    /// What must be equal for two runs of one program.
    #[track_caller]
    pub(crate) fn assert_same(&self, want: &Self, what: &str) {
        assert_eq!(
            (self.end, &self.stdout),
            (want.end, &want.stdout),
            "{what}; standard error: {}",
            self.stderr
        );
    }

    /// Makes sure that it ended well.
    #[track_caller]
    pub(crate) fn assert_success(self, what: &str) -> Self {
        assert_eq!(self.end, End::Status(0), "{what}: {}{}", self.stdout, self.stderr);
        self
    }
}

/// Runs `command` to its end, with nothing on standard input.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Outcome {
    finish_within(command, b"", PATIENCE)
}

/// Runs `command` to its end with `input` on standard input. It is a failure of the test when it takes longer than
/// `patience`.
#[track_caller]
pub(crate) fn finish_within(command: &mut Command, input: &[u8], patience: Duration) -> Outcome {
    let started = Instant::now();
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = match command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(e) => panic!("cannot start {command:?}: {e}"),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it is no failure.
        let _ = stdin.write_all(input);
    }
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > patience {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} has not ended after {patience:?}: {}", stderr.join().unwrap());
        }
        thread::sleep(Duration::from_millis(2));
    };
    Outcome { stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap(), end: status.into() }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The command `hotbed` with arguments.
pub(crate) fn hotbed(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotbed"));
    command.args(arguments);
    command
}

/// Waits until what runs have compiled is in the store.
#[track_caller]
pub(crate) fn kept(store: &Path) {
    let end = Instant::now() + Duration::from_secs(60);
    let at_work = || std::fs::read_dir(store.join("keeping")).is_ok_and(|mut files| files.next().is_some());
    while at_work() {
        assert!(Instant::now() < end, "what a run has compiled is not kept");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The value of `key` in the last object that `--timings=json` has printed.
#[track_caller]
pub(crate) fn timing(stderr: &str, key: &str) -> String {
    let line = stderr.lines().rfind(|line| line.starts_with('{'));
    let line = line.unwrap_or_else(|| panic!("no timings in {stderr}"));
    let name = format!("\"{key}\":");
    let at = line.find(&name).unwrap_or_else(|| panic!("no {key} in {line}")) + name.len();
    line[at..].split([',', '}']).next().unwrap().to_owned()
}
