//! The examples do what they say: their output, to the letter.
//!
//! `cargo test` builds them; who runs these tests alone does so with `cargo build --examples`.

use crate::support::{End, finish};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The executable of an example, beside the command's.
#[track_caller]
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_hotbed")).with_file_name("examples").join(name);
    assert!(path.is_file(), "{} is not built: cargo build --examples", path.display());
    path
}

#[test]
fn a_module_of_inkwells() {
    let outcome = finish(&mut Command::new(example("inkwell")));
    let want = "loaded: 0 functions compiled\n\
        square(12) = 144\n\
        called square: 1 function compiled\n\
        sum_of_squares() = 30, of [1, 4, 9, 16]\n\
        called sum_of_squares: 2 functions compiled, and cube is none of them\n\
        refused: unresolved symbol nobody, needed by lonely; asked: the unit itself, host definitions, loaded images, the process";
    // What else is asked depends on what the runtime can do.
    assert!(outcome.stdout.starts_with(want), "{}", outcome.stdout);
    assert_eq!(
        (outcome.stdout.lines().count(), outcome.end, outcome.stderr.as_str()),
        (6, End::Status(0), "")
    );
}
