//! What the host lends to programs: functions that print.

use hotbed::{Error, Runtime, host_fn};
use std::fmt;
use std::io::{self, Write};

/// Defines them for every unit that is loaded from now on.
pub(crate) fn define(runtime: &Runtime) -> Result<(), Error> {
    runtime.define("printd", host_fn!(printd as extern "C" fn(f64) -> f64))?;
    runtime.define("putchard", host_fn!(putchard as extern "C" fn(f64) -> f64))
}

/// Prints a number and ends the line. As all of these it gives 0, or 1 if nothing can be printed.
extern "C" fn printd(number: f64) -> f64 {
    outcome(writeln!(io::stdout(), "{}", Shown(number)))
}

/// Prints the character of that number; what is no byte becomes the nearest one.
extern "C" fn putchard(character: f64) -> f64 {
    // The cast saturates.
    outcome(io::stdout().write_all(&[character as u8]))
}

/// There is nobody to take an error here, and a panic must not go through compiled code: the program may ask, and the host
/// finds out when it flushes at the end.
fn outcome(written: io::Result<()>) -> f64 {
    if written.is_ok() { 0.0 } else { 1.0 }
}

/// A number as programs print it: as short as it can be, with an exponent where it would be long.
pub(crate) struct Shown(pub f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if self.0.is_finite() && size != 0.0 && !(1e-5..1e16).contains(&size) {
            write!(f, "{:e}", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}
