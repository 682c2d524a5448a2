//! How the command is linked: what it exports, and what makes it start sooner.
//!
//! - What gdb looks for is exported: its JIT interface (`loader/src/debug/gdb/interface.rs`), which stripping would take
//!   away otherwise.
//! - At a fixed address (`-no-pie`): four thousand pointers need no relocation at each start, so that the pages they are
//!   on need not be written.
//! - libgcc's unwinder is part of it instead of `libgcc_s.so.1`, which takes a tenth of a millisecond to load. C++
//!   programs bring that along, as ever.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What libgcc from 12 on asks glibc for, and thereby the loader.
const ASKED: &[u8] = b"_dl_find_object";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for symbol in ["__jit_debug_descriptor", "__jit_debug_register_code"] {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbol}");
    }
    println!("cargo:rustc-link-arg-bins=-no-pie");
    if let Some(folder) = static_libgcc() {
        println!("cargo:rustc-link-arg-bins=-L{}", folder.display());
    }
}

/// A folder in which the linker finds libgcc's archives where the Rust run-time library asks for `libgcc_s.so`, if the
/// compiler has such archives and the loader can serve what is in them.
fn static_libgcc() -> Option<PathBuf> {
    let output = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output().ok()?;
    let archive = String::from_utf8(output.stdout).ok()?;
    let archive = Path::new(archive.trim()).canonicalize().ok()?;
    let serves = fs::read(&archive).ok()?.windows(ASKED.len()).any(|window| window == ASKED);
    let folder = PathBuf::from(env::var_os("OUT_DIR")?).join("libgcc");
    fs::create_dir_all(&folder).ok()?;
    fs::write(folder.join("libgcc_s.so"), format!("INPUT ( {} -lgcc )\n", archive.display())).ok()?;
    serves.then_some(folder)
}
