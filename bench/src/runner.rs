//! Each row in a process of its own: what one row leaves behind (open libraries, a warm allocator, threads, the back
//! end) touches no other, and a crash or a hang costs one row and not the run.

use crate::Result;
use crate::context::Context;
use crate::row::{Outcome, Row};
use crate::rows;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A row that takes longer is ended. Its first run may have to make what is kept for the next ones: the images of Jolt, on a
/// machine with other things to do.
const LIMIT: Duration = Duration::from_secs(3600);

/// Measures a row in a child of this process.
///
/// # Errors
/// What the row says, or how its process ended.
pub(crate) fn measure_apart(row: &Row, context: &Context) -> Result<Outcome> {
    context.clear_scratch()?;
    let file = context.scratch_path("outcome");
    // Its standard output is not ours: a program that a row loads may write there.
    let mut child = Command::new(std::env::current_exe()?)
        .args(["row", row.id])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start a process for the row: {error}"))?;
    let status = wait(&mut child)?;
    let line = std::fs::read_to_string(&file).unwrap_or_default();
    match line.split_once(' ') {
        Some(("ok", outcome)) if status.success() => {
            Ok(Outcome::from_line(outcome).ok_or_else(|| format!("the row's process wrote {line:?}"))?)
        }
        Some(("error", why)) => Err(why.into()),
        _ => Err(format!("the row's process ended early: {status}").into()),
    }
}

/// Waits for a child, but not for ever.
///
/// # Errors
/// When it had to be ended, or the system refuses to wait.
pub(crate) fn wait(child: &mut Child) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Err(format!("ended after {} seconds", LIMIT.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The child's side: measures row `id` and writes what came out into `file`.
///
/// # Errors
/// When there is no such row or the file cannot be written. That the row failed is in the file.
pub(crate) fn measure_here(id: &str, file: &Path) -> Result<()> {
    let row = rows::ALL.iter().find(|row| row.id == id).ok_or_else(|| format!("no row {id:?}"))?;
    let line = match Context::new().and_then(|context| (row.run)(&context)) {
        Ok(outcome) => format!("ok {}", outcome.to_line()),
        Err(error) => format!("error {error}"),
    };
    Ok(std::fs::write(file, line)?)
}
