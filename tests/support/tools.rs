//! clang and its companions as processes: the oracle, and the maker of inputs.

use super::process::{Outcome, finish};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `clang-22`, which must succeed.
#[track_caller]
pub(crate) fn clang(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) {
    execute(Command::new("clang-22").args(arguments));
}

/// Runs `clang++-22`, which must succeed.
#[track_caller]
pub(crate) fn clangxx(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) {
    execute(Command::new("clang++-22").args(arguments));
}

/// Runs a tool, which must succeed.
#[track_caller]
pub(crate) fn execute(command: &mut Command) -> Outcome {
    let shown = format!("{command:?}");
    finish(command).assert_success(&shown)
}

/// Compiles a source with the given flags into an object (or bitcode) beside it, named `suffix`.
#[track_caller]
pub(crate) fn object(source: &Path, suffix: &str, flags: &[&str]) -> PathBuf {
    let object = source.with_extension(suffix);
    let cpp = source.extension().is_some_and(|suffix| suffix == "cpp");
    let mut command = Command::new(if cpp { "clang++-22" } else { "clang-22" });
    execute(command.arg("-w").args(flags).arg("-c").arg(source).arg("-o").arg(&object));
    object
}

/// Makes an archive.
#[track_caller]
pub(crate) fn archive(path: &Path, members: &[impl AsRef<OsStr>]) {
    execute(Command::new("llvm-ar-22").arg("rcs").arg(path).args(members));
}

/// Compiles and links a source into a shared library beside it.
#[track_caller]
pub(crate) fn shared_library(source: &Path, flags: &[&str]) -> PathBuf {
    let name = format!("lib{}.so", source.file_stem().unwrap().to_string_lossy());
    let library = source.with_file_name(name);
    let cpp = source.extension().is_some_and(|suffix| suffix == "cpp");
    let mut command = Command::new(if cpp { "clang++-22" } else { "clang-22" });
    execute(command.args(["-w", "-shared", "-fPIC"]).arg(source).args(flags).arg("-o").arg(&library));
    library
}
