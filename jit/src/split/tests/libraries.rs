//! The real libraries with the programs that use them.

use super::support::{Cut, Program};

#[test]
fn zlib() {
    Program::library("zlib", "pieces").compare(&["-O0"], &[Cut::Single, Cut::Plan, Cut::Stubs, Cut::Lazy]);
}

#[test]
fn lua() {
    Program::library("lua", "pieces").compare(&["-O0"], &[Cut::Single, Cut::Lazy]);
}

#[test]
fn stb_image() {
    Program::library("stb_image", "pieces").compare(&["-O0"], &[Cut::Single, Cut::Lazy]);
}

#[test]
fn sqlite3() {
    Program::library("sqlite3", "pieces").compare(&["-O0"], &[Cut::Plan, Cut::Lazy]);
}

#[test]
#[ignore = "slow: make test-slow"]
fn with_optimisation() {
    for name in ["zlib", "stb_image", "lua", "imgui", "sqlite3", "flecs", "miniaudio"] {
        Program::library(name, "slow").compare(&["-O2"], &[Cut::Plan, Cut::Lazy]);
    }
}

#[test]
#[ignore = "slow: make test-slow"]
fn with_debug_information() {
    for name in ["zlib", "stb_image", "lua"] {
        Program::library(name, "debug").compare(&["-O0", "-g"], &[Cut::Single, Cut::Stubs, Cut::Lazy]);
    }
}
