//! The real libraries with the programs that use them.

use super::support::{Cut, Program};

#[test]
fn zlib() {
    Program::library("zlib", "pieces").compare(&["-O0"], &[Cut::Single, Cut::Plan, Cut::Stubs]);
}

#[test]
fn lua() {
    Program::library("lua", "pieces").compare(&["-O0"], &[Cut::Single, Cut::Stubs]);
}

#[test]
fn stb_image() {
    Program::library("stb_image", "pieces").compare(&["-O0"], &[Cut::Single]);
}

#[test]
fn sqlite3() {
    Program::library("sqlite3", "pieces").compare(&["-O0"], &[Cut::Plan]);
}

#[test]
#[ignore = "slow: make test-slow"]
fn with_optimisation_and_every_cut() {
    for name in ["zlib", "stb_image", "lua", "imgui", "sqlite3", "flecs", "miniaudio"] {
        let program = Program::library(name, "slow");
        program.compare(&["-O0", "-g"], &[Cut::Single, Cut::Stubs]);
        program.compare(&["-O2"], &[Cut::Plan, Cut::Single, Cut::Stubs]);
    }
}
