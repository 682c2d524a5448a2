//! Works out the identity of this build: a hash over the sources that decide what an image looks like, and the
//! version of LLVM that is found.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let mut files = Vec::new();
    for folder in ["src", "../jit/src", "../jit/shim"] {
        let folder = here.join(folder);
        println!("cargo:rerun-if-changed={}", folder.display());
        collect(&folder, &mut files);
    }
    files.sort();
    let mut hash = blake3::Hasher::new();
    for file in &files {
        if let Ok(bytes) = std::fs::read(file) {
            hash.update(file.strip_prefix(&here).unwrap_or(file).as_os_str().as_encoded_bytes());
            hash.update(&bytes);
        }
    }
    let llvm = Command::new("llvm-config-22").arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    hash.update(&llvm);
    println!(
        "cargo:rustc-env=HOTBED_BUILD={}-{}",
        env!("CARGO_PKG_VERSION"),
        &hash.finalize().to_hex()[..16]
    );
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
