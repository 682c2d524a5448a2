//! Programs that are run to the end: timed ones, whose output goes nowhere, and those that prepare something, whose
//! words matter when they fail.

use crate::Result;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Runs a program from start to end and gives the time that took. Both sides of a row are started like this.
///
/// # Errors
/// When it cannot be started or does not end with status 0.
pub(crate) fn time_of(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().map_err(|error| format!("cannot run {}: {error}", line_of(command)))?;
    let time = start.elapsed();
    if status.success() { Ok(time) } else { Err(format!("{}: {status}", line_of(command)).into()) }
}

/// Runs a program that prepares something.
///
/// # Errors
/// When it cannot be started or does not end with status 0, with the last line it wrote to its standard error.
pub(crate) fn output_of(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", line_of(command)))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(failure(command, output.status, &errors).into());
    }
    Ok(Output { output: output.stdout, errors })
}

/// Runs a program whose output is not wanted, and gives what it wrote to its standard error.
///
/// # Errors
/// When it cannot be started or does not end with status 0.
pub(crate) fn errors_of(command: &mut Command) -> Result<String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let output = child
        .and_then(std::process::Child::wait_with_output)
        .map_err(|error| format!("cannot run {}: {error}", line_of(command)))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(errors) } else { Err(failure(command, output.status, &errors).into()) }
}

/// What a program wrote.
pub(crate) struct Output {
    /// To its standard output.
    pub(crate) output: Vec<u8>,
    /// To its standard error.
    pub(crate) errors: String,
}

/// One line on a program that failed.
fn failure(command: &Command, status: ExitStatus, errors: &str) -> String {
    let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    format!("{}: {status}: {last}", line_of(command))
}

/// The start of the command line, for messages.
fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
        if line.len() > 160 {
            line.push_str(" ...");
            break;
        }
    }
    line
}

/// Looks for the first of `names` in the folders of `PATH`.
///
/// # Errors
/// A sentence that says what is missing.
pub(crate) fn tool(names: &[&str]) -> std::result::Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in names {
        for folder in std::env::split_paths(&path) {
            let file = folder.join(name);
            if is_executable(&file) {
                return Ok(file);
            }
        }
    }
    Err(format!("{} is not installed", names.join(" or ")))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// clang 22 with `arguments`.
///
/// # Errors
/// When it is not installed.
pub(crate) fn clang<I: IntoIterator<Item: AsRef<OsStr>>>(
    arguments: I,
) -> std::result::Result<Command, String> {
    let mut command = Command::new(tool(&["clang-22"])?);
    command.args(arguments);
    Ok(command)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;

    #[test]
    fn a_failing_program_is_an_error_with_its_last_words() {
        let error = output_of(Command::new("sh").args(["-c", "echo first >&2; echo last >&2; exit 3"]))
            .err()
            .unwrap();
        assert!(error.to_string().ends_with("exit status: 3: last"), "{error}");
        assert!(time_of(Command::new("sh").args(["-c", "exit 3"])).is_err());
        assert!(time_of(&mut Command::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn a_missing_tool_is_named() {
        assert_eq!(
            tool(&["no-such-tool", "nor-this"]).unwrap_err(),
            "no-such-tool or nor-this is not installed"
        );
        assert!(tool(&["no-such-tool", "sh"]).is_ok());
    }
}
