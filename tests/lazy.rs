//! Functions that are compiled when they are first called: programs and units cannot tell, whatever they do at the time.

mod ahead;
mod called;
mod ends;
mod executors;
mod failures;
mod forks;
mod frames;
mod images;
mod real;
mod spans;
mod threads;
mod trace;
mod units;

use crate::support::{Outcome, Scratch, execute, finish, hotbed, timing};
use hotbed::{Runtime, Source};
use std::process::Command;

/// Runs a program lazily, without and with optimisation, against its executable: cold, with what was kept, and as an image
/// that has no code. Gives what it has done.
#[track_caller]
fn same(file: &str, text: &str) -> Outcome {
    let scratch = Scratch::new(&format!("lazy-{file}"));
    let source = scratch.write(file, text);
    let compiler = if file.ends_with(".cpp") { "clang++-22" } else { "clang-22" };
    let outcomes = ["-O0", "-O2"].map(|level| {
        let executable = scratch.join(format!("executable{level}"));
        let mut command = Command::new(compiler);
        execute(command.args(["-w", level]).arg(&source).args(["-lpthread", "-lm", "-o"]).arg(&executable));
        let want = finish(&mut Command::new(&executable));
        let run = || {
            let mut command = hotbed(["run", "--lazy", "--timings=json", "--cache-dir"]);
            command.arg(scratch.join("store"));
            command
        };
        for round in ["cold", "warm"] {
            let got = finish(run().args(["-w", level, "-lm"]).arg(&source));
            let what = format!("{file} {level}, {round}");
            got.assert_same(&want, &what);
            assert_lazy(&got, round, &what);
        }
        let image = scratch.join(format!("program{level}.hbi"));
        let lazy = Source::file(&source).flags(["-w", level, "-lm"]).lazy();
        Runtime::builder().no_cache().build().unwrap().image(&image).unit(lazy).build().unwrap();
        let got = finish(run().arg(&image));
        got.assert_same(&want, &format!("{file} {level}, image"));
        // Compiled whole it would have no use for a back end.
        assert_eq!(timing(&got.stderr, "backend_loaded"), "true", "{file} {level} is not lazy");
        want
    });
    let [want, optimised] = outcomes;
    optimised.assert_same(&want, "the executables");
    want
}

/// Makes sure that functions were compiled as the program ran, and its units only when it was cold.
#[track_caller]
fn assert_lazy(outcome: &Outcome, round: &str, what: &str) {
    let count = |name| timing(&outcome.stderr, name);
    if round == "cold" {
        assert_ne!(count("functions_compiled"), "0", "{what}: {}", outcome.stderr);
    } else {
        assert_eq!((count("units_compiled"), count("images_linked")), ("0".into(), "0".into()), "{what}");
    }
}
