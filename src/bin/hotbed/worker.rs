//! `hotbed worker FD`: what a process is that compiles for another one; started by the library, not by people.

use crate::{Status, console};
use std::ffi::CStr;

/// Serves requests that arrive on the descriptor until the other end is closed.
pub(crate) fn serve(descriptor: &CStr) -> Status {
    let Some(number) = descriptor.to_str().ok().and_then(|text| text.parse().ok()) else {
        console::say(&format!("error: {} is no descriptor", descriptor.to_string_lossy()));
        return Status::Usage;
    };
    match hotbed::worker::serve(number) {
        Ok(()) => Status::Success,
        Err(error) => {
            console::say(&format!("worker: {error}"));
            Status::Failure
        }
    }
}
