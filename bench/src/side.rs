//! One side of a row in a process of its own: for sides that would change what the other one finds (a hundred libraries
//! opened for everybody, memory that is counted), and for work of the bench itself that shall leave nothing behind in a
//! process that measures.
//!
//! A side is a function that gets words and gives figures. The row starts it through [`Side::run`], as often as its
//! turns ask for; the figures come back in a file.

use crate::Result;
use crate::context::Context;
use crate::{rows, runner};
use std::path::Path;
use std::process::{Command, Stdio};

/// A side of a row, or work that prepares one.
pub(crate) struct Side {
    /// Name of the row and of the side.
    pub(crate) id: &'static str,
    /// Does the work and gives its figures, in the row's unit.
    pub(crate) work: fn(&Context, &[String]) -> Result<Vec<f64>>,
}

impl Side {
    /// Does the work in a child of this process, which ends when this one does.
    ///
    /// # Errors
    /// What the side says, or how its process ended.
    pub(crate) fn run(&self, context: &Context, arguments: &[&str]) -> Result<Vec<f64>> {
        let file = context.scratch_path(&format!("{}.figures", self.id));
        let _ = std::fs::remove_file(&file);
        let mut child = Command::new(std::env::current_exe()?)
            .args(["side", self.id])
            .arg(&file)
            .arg("--")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start a process for {}: {error}", self.id))?;
        let status = runner::wait(&mut child)?;
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        match text.split_once(' ') {
            Some(("ok", figures)) if status.success() => figures
                .split_whitespace()
                .map(|figure| figure.parse().map_err(|_| format!("{} gave {figure:?}", self.id).into()))
                .collect(),
            Some(("error", why)) => Err(why.into()),
            _ => Err(format!("the process of {} ended early: {status}", self.id).into()),
        }
    }

    /// The only figure of a side that gives one.
    ///
    /// # Errors
    /// Those of [`Side::run`].
    pub(crate) fn figure(&self, context: &Context, arguments: &[&str]) -> Result<f64> {
        match self.run(context, arguments)?.as_slice() {
            [figure] => Ok(*figure),
            others => Err(format!("{} gave {} figures and not one", self.id, others.len()).into()),
        }
    }

    /// Both figures of a side that gives two.
    ///
    /// # Errors
    /// Those of [`Side::run`].
    pub(crate) fn both(&self, context: &Context, arguments: &[&str]) -> Result<(f64, f64)> {
        match self.run(context, arguments)?.as_slice() {
            [first, second] => Ok((*first, *second)),
            others => Err(format!("{} gave {} figures and not two", self.id, others.len()).into()),
        }
    }
}

/// The child's side: does the work of `id` and writes what came out into `file`.
///
/// # Errors
/// When there is no such side or the file cannot be written. That the side failed is in the file.
pub(crate) fn measure_here(id: &str, file: &Path, arguments: &[String]) -> Result<()> {
    // A row that takes too long is ended, and must not leave its sides behind.
    // SAFETY: sets one attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let side = rows::SIDES.iter().find(|side| side.id == id).ok_or_else(|| format!("no side {id:?}"))?;
    let text = match Context::new().and_then(|context| (side.work)(&context, arguments)) {
        Ok(figures) => figures.iter().fold("ok ".to_owned(), |text, figure| format!("{text}{figure} ")),
        Err(error) => format!("error {error}"),
    };
    Ok(std::fs::write(file, text)?)
}

/// The argument at `index`, as a number.
///
/// # Errors
/// When it is none.
pub(crate) fn number(arguments: &[String], index: usize) -> Result<usize> {
    let text = arguments.get(index).ok_or("an argument is missing")?;
    Ok(text.parse().map_err(|_| format!("{text:?} is no number"))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn sides_have_names_of_their_own_and_numbers_are_read() {
        let ids: HashSet<_> = rows::SIDES.iter().map(|side| side.id).collect();
        assert_eq!(ids.len(), rows::SIDES.len());
        assert_eq!(number(&["7".into()], 0).unwrap(), 7);
        assert!(number(&["x".into()], 0).is_err() && number(&[], 0).is_err());
    }
}
