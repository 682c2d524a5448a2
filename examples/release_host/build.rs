//! Has the command `hotbed` make an image of the rules, for the host to take in. The command is the one that the variable
//! `HOTBED` names, or else the one on the path.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=rules.c");
    println!("cargo:rerun-if-env-changed=HOTBED");
    let hotbed = env::var_os("HOTBED").map_or_else(|| PathBuf::from("hotbed"), PathBuf::from);
    if hotbed.is_absolute() {
        println!("cargo:rerun-if-changed={}", hotbed.display());
    }
    // Relative relocations in a few hundred bytes instead of 45,000; for glibc 2.36 and later.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    let image = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("rules.hbi");
    let build = Command::new(&hotbed)
        .args(["image", "build", "-O2", "-o"])
        .arg(image)
        .args(["rules.c", "-lm"])
        .status();
    match build {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} cannot build the image: {status}", hotbed.display()),
        Err(error) => {
            panic!("cannot run {} (the variable HOTBED says where it is): {error}", hotbed.display())
        }
    }
}
