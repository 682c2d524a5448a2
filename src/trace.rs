//! Traces that were written before ([`RuntimeBuilder::trace`](crate::RuntimeBuilder::trace)), as what is known of calls when an image is made.

use crate::error::Error;
use hotbed_loader::boundary::{self, Failure, FailureKind};
use hotbed_loader::trace;
use std::path::Path;

/// Which functions were called when a program was run, in the order of their first calls: what
/// [`RuntimeBuilder::trace`](crate::RuntimeBuilder::trace) and `hotbed run --trace` write.
///
/// ```no_run
/// use hotbed::{Runtime, Source, Trace};
///
/// # fn main() -> Result<(), hotbed::Error> {
/// let trace = Trace::read("short.trace")?.and(&Trace::read("long.trace")?);
/// let program = Source::file("program.c").flags(["-O2"]).trace(trace);
/// Runtime::builder().build()?.image("program.hbi").unit(program).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Trace(boundary::Trace);

impl Trace {
    /// Reads a trace from a file.
    ///
    /// # Errors
    /// When the file cannot be read, or a line of it is no record; it is named.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.to_string_lossy();
        let text = std::fs::read(path).map_err(|error| Error::read(&name, path, &error))?;
        let calls = trace::calls(&name, &text).map_err(|reason| {
            let message = format!("cannot read the trace {name}: {reason}");
            Error::of_failure(&name, Failure::new(FailureKind::Input, message))
        })?;
        Ok(Self(boundary::Trace { calls, strict: false }))
    }

    /// Adds what another one says of other functions, behind those of this one.
    pub fn and(mut self, other: &Self) -> Self {
        trace::append(&mut self.0.calls, other.0.calls.iter().cloned());
        self
    }

    /// Makes it an error when something was called that is not there any more, or is not what it was. Otherwise that is a
    /// warning ([`Report::diagnostics`](crate::Report::diagnostics)).
    pub fn strict(mut self) -> Self {
        self.0.strict = true;
        self
    }

    pub(crate) fn into_request(self) -> boundary::Trace {
        self.0
    }
}
