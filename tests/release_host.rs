//! A host that is built without a compiler, with its own profile, as it would be shipped: what it runs, how large it is, what
//! is not in it.

use crate::support::{End, Scratch, finish, finish_within};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Bytes that the executable may have.
const MOST: u64 = 2_000_000;

/// Builds `examples/release_host`, and gives the path of the executable.
fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_BIN_EXE_hotbed")).ancestors().nth(2).unwrap().join("release-host");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]);
    cargo.arg(root.join("examples/release_host/Cargo.toml")).arg("--target-dir").arg(&target);
    cargo.env("HOTBED", env!("CARGO_BIN_EXE_hotbed"));
    finish_within(&mut cargo, b"", Duration::from_secs(1800))
        .assert_success("cargo build of the release host");
    target.join("release/release-host")
}

#[test]
fn a_host_without_a_compiler_runs_what_is_in_it() {
    let built = build();
    let scratch = Scratch::new("release-host");
    // Where there is nothing beside it.
    let alone = scratch.join("host");
    std::fs::copy(&built, &alone).unwrap();
    let size = std::fs::metadata(&alone).unwrap().len();
    assert!(size < MOST, "{size} bytes");
    // A plugin would be taken if there were a way to.
    let plugin = Path::new(env!("CARGO_BIN_EXE_hotbed")).with_file_name("libhotbed_jit.so");
    let got = finish(Command::new(&alone).env("HOTBED_JIT", plugin));
    assert_eq!((got.end, got.stderr.as_str()), (End::Status(0), ""));
    assert_eq!(
        got.stdout,
        "1 for customer 7: 225\n100 for customer 7: 20250\n100 for customer 700: 22500\n\
         refused: cannot load image damaged rules: damaged: the checksum does not match the contents\n\
         refused: no back end to compile more.c with: this host was built without one (feature `jit` of the crate hotbed)\n"
    );
    let bytes = std::fs::read(&alone).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("rules.hbi") && !has("libhotbed_jit") && !has("libLLVM"));
}
