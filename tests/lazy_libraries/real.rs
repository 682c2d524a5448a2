//! Real libraries that wait, and the programs that need them, against clang's executables.

use super::*;
use crate::libraries::Library;
use crate::support::{Child, Outcome, child_flush, execute, finish, task};
use hotbed::Program;
use std::ffi::{c_char, c_int};
use std::path::PathBuf;
use std::process::Command;

const NAMES: [&str; 4] = ["flecs", "lua", "sqlite3", "zlib"];

fn executable(scratch: &Scratch, name: &str) -> Outcome {
    let library = Library::find(name);
    let path = scratch.join(format!("executable-{name}"));
    let mut command = Command::new(library.compiler());
    command.args(&library.flags).args(&library.files).arg(&library.program).args(&library.libs);
    execute(command.arg("-o").arg(&path));
    finish(&mut Command::new(&path))
}

#[test]
fn they_are_loaded_by_the_programs_that_need_them() {
    let scratch = Scratch::new("lazy-libraries-real");
    let want: String =
        NAMES.iter().map(|name| executable(&scratch, name).assert_success(name).stdout).collect();
    for round in ["cold", "warm"] {
        let child = Child::new("lazy_libraries::real::programs", scratch.path());
        assert_eq!(child.env("HOTBED_ROUND", round).succeed(), want, "{round}");
    }
}

/// Calls `main` of every program, all of whose libraries wait.
#[test]
fn programs() {
    let Some(task) = task() else { return };
    let cold = std::env::var("HOTBED_ROUND").unwrap() == "cold";
    let (runtime, log) = logged(Runtime::builder().cache_dir(PathBuf::from(task.as_str()).join("store")));
    for name in NAMES {
        let library = Library::find(name);
        let builder = runtime.library(name).flags(&library.flags);
        library
            .files
            .iter()
            .fold(builder, |builder, file| builder.source(file))
            .flags(&library.libs)
            .lazy()
            .unwrap();
    }
    load(&runtime, Source::text("plain.c", "#include <stdio.h>\nint plain(void) { return puts(\"\"); }"));
    assert_eq!(log.compiled().len(), usize::from(cold), "nobody needs any of them");
    let mut compiled = Vec::new();
    for name in NAMES {
        let library = Library::find(name);
        let waiting = runtime.unit(name).unwrap();
        let program =
            Program::new().flags(&library.flags).file(&library.program).named(format!("program of {name}"));
        let unit = load(&runtime, program.lazy());
        assert!(!waiting.is_waiting(), "{name}");
        compiled.append(&mut log.compiled());
        // SAFETY: `main` has this type.
        let main =
            unsafe { unit.get::<unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int>("main") }.unwrap();
        let mut arguments = [c"program".as_ptr().cast_mut(), std::ptr::null_mut()];
        // SAFETY: the arguments are as `main` wants them.
        assert_eq!(unsafe { main(1, arguments.as_mut_ptr()) }, 0, "{name}");
        child_flush();
    }
    // Each once, and none for the sake of another; warm nothing at all.
    compiled.sort();
    let mut want: Vec<String> =
        NAMES.iter().flat_map(|name| [(*name).to_owned(), format!("program of {name}")]).collect();
    want.sort();
    assert_eq!(compiled, if cold { want } else { Vec::new() });
}
