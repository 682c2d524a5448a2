//! `hotbed worker FD` and `hotbed keep FD`: what processes are that compile for another one, or keep what it has compiled;
//! started by the library, not by people.

use crate::{Status, console};
use std::ffi::CStr;

/// Does with the descriptor what `serve` does.
pub(crate) fn serve(descriptor: &CStr, serve: impl FnOnce(i32) -> std::io::Result<()>) -> Status {
    let Some(number) = descriptor.to_str().ok().and_then(|text| text.parse().ok()) else {
        console::say(&format!("error: {} is no descriptor", descriptor.to_string_lossy()));
        return Status::Usage;
    };
    match serve(number) {
        Ok(()) => Status::Success,
        Err(error) => {
            console::say(&format!("worker: {error}"));
            Status::Failure
        }
    }
}
