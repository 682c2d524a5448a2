//! The command `hotbed`: runs, builds and explains code from a terminal.
//!
//! Rust's own start-up is left out (`no_main`): it ignores `SIGPIPE` and installs handlers for `SIGSEGV` and `SIGBUS`,
//! and a program that is run must find every disposition as it was at exec. Whatever prepares a program returns before
//! the program starts, so that none of its frames lies under the program's.

#![cfg_attr(not(test), no_main)]

mod arguments;
mod cache;
mod console;
mod doctor;
mod explain;
mod image;
mod input;
mod inspect;
mod json;
mod progress;
mod run;
mod timings;
mod usage;
mod why;
mod worker;

use hotbed_loader::sys::start;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What remains to be done when everything is prepared.
enum Outcome {
    /// Enter a program; it decides how the process ends.
    Program(run::Program),
    /// End with this status.
    Status(Status),
}

/// How the command itself ends.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
enum Status {
    /// Done.
    Success = 0,
    /// It did not work.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
}

/// The process starts here.
///
/// # Safety
/// Called by the C run-time alone, with the process's arguments and environment.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char, _envp: *const *const c_char) -> c_int {
    let started = Instant::now();
    // SAFETY: these are the process's own arguments.
    let arguments = unsafe { start::arguments(argc, argv) };
    std::panic::set_hook(Box::new(|panic| console::say(&format!("internal error: {panic}"))));
    match catch_unwind(AssertUnwindSafe(|| dispatch(&arguments, started))) {
        Ok(Outcome::Program(program)) => program.enter(),
        Ok(Outcome::Status(status)) => status as c_int,
        Err(_) => Status::Failure as c_int,
    }
}

/// `run`, `explain`, `image build` and `cache why` speak clang's grammar and take their own path, without a general parser; `run` must be quick.
fn dispatch(arguments: &[&'static CStr], started: Instant) -> Outcome {
    let (command, rest) = match arguments {
        [_, command, rest @ ..] => (command.to_bytes(), rest),
        _ => (&b""[..], &[][..]),
    };
    match (command, rest) {
        (b"run", rest) => run::run(rest, started),
        (b"explain", rest) => Outcome::Status(explain::explain(rest)),
        (b"worker", [descriptor]) => Outcome::Status(worker::serve(descriptor, hotbed::worker::serve)),
        (b"keep", [descriptor]) => Outcome::Status(worker::serve(descriptor, hotbed::keeper::serve)),
        (b"image", [sub, rest @ ..]) if *sub == c"build" => Outcome::Status(image::build(rest, started)),
        (b"cache", [sub, rest @ ..]) if *sub == c"why" => Outcome::Status(why::why(rest)),
        _ => Outcome::Status(usage::command(arguments)),
    }
}
