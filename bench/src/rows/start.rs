//! Whole programs from source, once everything is known: `hotbed run` as a process against an executable and against
//! tcc.
//!
//! Before a warm run there is a cold one that fills a fresh store, and a pause: what the store remembers of a file
//! written a moment ago it does not trust, so the first runs would measure that and not what a user has all day.

use crate::Result;
use crate::context::Context;
use crate::measure::Turns;
use crate::process::{clang, output_of, time_of, tool};
use crate::programs::LIBRARIES;
use crate::row::{Outcome, Peer, Row, Unit};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// See [`hello_exe`].
pub(super) const HELLO_EXE: Row = Row {
    id: "first.hello-exe",
    what: "warm `hotbed run hello.c`, whole process",
    peer: "the clang -O2 executable of it",
    unit: Unit::Milliseconds,
    run: hello_exe,
};

/// See [`hello_tcc`].
pub(super) const HELLO_TCC: Row = Row {
    id: "first.hello-tcc",
    what: "warm `hotbed run hello.c`, whole process",
    peer: "`tcc -run hello.c`",
    unit: Unit::Milliseconds,
    run: hello_tcc,
};

/// See [`sqlite_exe`].
pub(super) const SQLITE_EXE: Row = Row {
    id: "first.sqlite-exe",
    what: "warm `hotbed run` of the sqlite program, whole process",
    peer: "the clang -O0 executable of it",
    unit: Unit::Milliseconds,
    run: sqlite_exe,
};

/// See [`warm_compiles`].
pub(super) const WARM_COMPILES: Row = Row {
    id: "first.warm-compiles",
    what: "units_compiled + backend_loaded, summed over a second run of each of the seven libraries",
    peer: "",
    unit: Unit::Count,
    run: warm_compiles,
};

const HELLO: &str = "#include <stdio.h>\nint main(void) { puts(\"hi\"); return 0; }\n";

/// How long a file must lie still before the store trusts what it remembers of it, and a little more.
pub(super) const SETTLED: Duration = Duration::from_millis(2500);

fn hello_exe(context: &Context) -> Result<Outcome> {
    let source = context.write("hello.c", HELLO)?;
    let (run, warm) = warm_run(context, &[source.clone().into()])?;
    let executable = match executable(context, &["-O2".into(), source.into()])? {
        Ok(executable) => executable,
        Err(missing) => return Turns::QUICK.alone(Unit::Milliseconds, || time_of(&mut run()), missing),
    };
    expect_same(&warm, &executable)?;
    Turns::QUICK.compare(
        Unit::Milliseconds,
        || time_of(&mut run()),
        || time_of(&mut Command::new(&executable)),
    )
}

fn hello_tcc(context: &Context) -> Result<Outcome> {
    let source = context.write("hello.c", HELLO)?;
    let (run, _) = warm_run(context, &[source.clone().into()])?;
    let tcc = match tool(&["tcc"]) {
        Ok(tcc) => tcc,
        Err(missing) => return Turns::QUICK.alone(Unit::Milliseconds, || time_of(&mut run()), missing),
    };
    Turns::QUICK.compare(
        Unit::Milliseconds,
        || time_of(&mut run()),
        || time_of(Command::new(&tcc).arg("-run").arg(&source)),
    )
}

fn sqlite_exe(context: &Context) -> Result<Outcome> {
    let arguments = context.library("sqlite3")?.program_arguments();
    let (run, warm) = warm_run(context, &arguments)?;
    let executable = match executable(context, &arguments)? {
        Ok(executable) => executable,
        Err(missing) => return Turns::QUICK.alone(Unit::Milliseconds, || time_of(&mut run()), missing),
    };
    expect_same(&warm, &executable)?;
    Turns::QUICK.compare(
        Unit::Milliseconds,
        || time_of(&mut run()),
        || time_of(&mut Command::new(&executable)),
    )
}

/// Every library is run cold, then all of them again after the pause; the second runs are counted.
fn warm_compiles(context: &Context) -> Result<Outcome> {
    let mut commands = Vec::new();
    for name in LIBRARIES {
        let arguments = context.library(name)?.program_arguments();
        let run = move || {
            let mut command = context.hotbed_run("warm-compiles");
            command.arg("--timings=json").args(&arguments);
            command
        };
        let cold = output_of(&mut run())?;
        if timing(&cold.errors, "units_compiled")? == 0.0 {
            return Err(format!("{name}: the cold run says that it compiled nothing").into());
        }
        commands.push((name, run, cold.output));
    }
    std::thread::sleep(SETTLED);
    let mut total = 0.0;
    for (name, run, cold) in &commands {
        let warm = output_of(&mut run())?;
        if warm.output != *cold {
            return Err(format!("{name}: the second run prints something else than the first").into());
        }
        total += timing(&warm.errors, "units_compiled")? + timing(&warm.errors, "backend_loaded")?;
    }
    Ok(Outcome { ours: total, peer: Peer::None, n: commands.len() })
}

/// Runs `hotbed run ARGUMENTS` cold and twice more after the pause. Gives what starts it again, and what it prints.
pub(super) fn warm_run<'a>(
    context: &'a Context,
    arguments: &[OsString],
) -> Result<(impl Fn() -> Command + use<'a>, Vec<u8>)> {
    let arguments = arguments.to_vec();
    let run = move || {
        let mut command = context.hotbed_run("store");
        command.args(&arguments);
        command
    };
    output_of(&mut run())?;
    std::thread::sleep(SETTLED);
    output_of(&mut run())?;
    let warm = output_of(&mut run())?.output;
    Ok((run, warm))
}

/// What clang makes of `arguments`; the inner error says that clang is missing.
pub(super) fn executable(
    context: &Context,
    arguments: &[OsString],
) -> Result<std::result::Result<PathBuf, String>> {
    let output = context.scratch_path("executable");
    match clang(arguments) {
        Ok(mut clang) => {
            output_of(clang.arg("-o").arg(&output))?;
            Ok(Ok(output))
        }
        Err(missing) => Ok(Err(missing)),
    }
}

/// Both sides of a row do the same work: they print the same.
pub(super) fn expect_same(warm: &[u8], executable: &Path) -> Result<()> {
    let same = output_of(&mut Command::new(executable))?.output == warm;
    same.then_some(()).ok_or_else(|| "the program prints something else than its executable".into())
}

/// A number or a truth value (as 1 or 0) of the object that `--timings=json` wrote.
pub(super) fn timing(errors: &str, key: &str) -> Result<f64> {
    let object = errors.lines().rfind(|line| line.trim_start().starts_with('{'));
    let value = object.and_then(|object| object.split_once(&format!("\"{key}\""))).and_then(|(_, rest)| {
        let value = rest.trim_start().strip_prefix(':')?.split([',', '}']).next()?.trim();
        match value {
            "true" => Some(1.0),
            "false" => Some(0.0),
            number => number.parse().ok(),
        }
    });
    value.ok_or_else(|| format!("--timings=json gave no {key}").into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;

    #[test]
    fn a_timing_is_found_in_the_last_object() {
        let errors = "a warning {\n{\"units_compiled\":7}\n{\"total_ms\": 1.5, \"phases_ms\":{\"run\":0.25},\
                      \"units_compiled\": 2,\"backend_loaded\":true}\n";
        assert_eq!(timing(errors, "units_compiled").unwrap(), 2.0);
        assert_eq!(timing(errors, "backend_loaded").unwrap(), 1.0);
        assert_eq!(timing(errors, "run").unwrap(), 0.25);
        assert!(timing(errors, "images_linked").is_err());
        assert!(timing("", "total_ms").is_err());
    }
}
