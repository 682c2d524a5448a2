//! Whole programs that are compiled while they run: `hotbed run --lazy` as a process against what people have, LLVM's own
//! `lli` for bitcode, clang and lld for sources.
//!
//! Nothing is kept between runs, but in the row that is about the second one.

use super::start::{SETTLED, executable, expect_same};
use crate::Result;
use crate::context::Context;
use crate::measure::Turns;
use crate::process::{clang, output_of, time_of, tool};
use crate::row::{Outcome, Row, Unit};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// See [`bitcode`].
pub(super) const SQLITE_BC_LLI: Row = Row {
    id: "lazy.sqlite-bc-lli",
    what: "`hotbed run --lazy` of the sqlite program's bitcode (-O0), whole process, nothing cached",
    peer: "`lli -jit-kind=orc-lazy` of the same bitcode",
    unit: Unit::Milliseconds,
    run: |context| bitcode(context, &["-jit-kind=orc-lazy"]),
};

/// See [`bitcode`].
pub(super) const SQLITE_BC_MCJIT: Row = Row {
    id: "lazy.sqlite-bc-mcjit",
    what: "`hotbed run --lazy` of the sqlite program's bitcode (-O0), whole process, nothing cached",
    peer: "`lli -jit-kind=mcjit -O0` of the same bitcode",
    unit: Unit::Milliseconds,
    run: |context| bitcode(context, &["-jit-kind=mcjit", "-O0"]),
};

/// See [`sources`].
pub(super) const SQLITE_SRC_O0: Row = Row {
    id: "lazy.sqlite-src-O0",
    what: "`hotbed run --lazy -O0` of the sqlite program's sources, whole process, nothing cached",
    peer: "`clang -O0 -fuse-ld=lld` and a run of what it made",
    unit: Unit::Milliseconds,
    run: |context| sources(context, "-O0", Turns::SECONDS),
};

/// See [`sources`].
pub(super) const SQLITE_SRC_O2: Row = Row {
    id: "lazy.sqlite-src-O2",
    what: "`hotbed run --lazy -O2` of the sqlite program's sources, whole process, nothing cached",
    peer: "`clang -O2 -fuse-ld=lld` and a run of what it made",
    unit: Unit::Milliseconds,
    run: |context| sources(context, "-O2", Turns::LONGEST),
};

/// See [`second_run`].
pub(super) const SECOND_RUN: Row = Row {
    id: "lazy.second-run",
    what: "second `hotbed run --lazy` of the sqlite program, whole process",
    peer: "the clang -O0 executable of it",
    unit: Unit::Milliseconds,
    run: second_run,
};

/// The program to its end, which comes right after its only query has been answered.
fn bitcode(context: &Context, kind: &[&str]) -> Result<Outcome> {
    let (file, libraries) = program_bitcode(context)?;
    let ours = || {
        let mut run = without_store(context);
        run.arg(&file).args(&libraries);
        run
    };
    let lli = match tool(&["lli-22"]) {
        Ok(lli) => lli,
        Err(missing) => {
            return Turns::PROCESSES.alone(Unit::Milliseconds, || time_of(&mut ours()), missing);
        }
    };
    let peer = || {
        let mut run = Command::new(&lli);
        run.args(kind).arg(&file);
        run
    };
    if output_of(&mut ours())?.output != output_of(&mut peer())?.output {
        return Err("the program prints something else than under lli".into());
    }
    Turns::PROCESSES.compare(Unit::Milliseconds, || time_of(&mut ours()), || time_of(&mut peer()))
}

/// The sqlite program as one file of bitcode, and the libraries it needs.
fn program_bitcode(context: &Context) -> Result<(PathBuf, Vec<OsString>)> {
    let sqlite = context.library("sqlite3")?;
    let mut parts = Vec::new();
    for (number, file) in sqlite.files.iter().chain([&sqlite.program]).enumerate() {
        let part = context.scratch_path(&format!("part-{number}.bc"));
        let mut compile = clang(["-w", "-O0", "-emit-llvm", "-c", "-o"])?;
        output_of(compile.arg(&part).args(&sqlite.flags).arg(file))?;
        parts.push(part);
    }
    let whole = context.scratch_path("program.bc");
    output_of(Command::new(tool(&["llvm-link-22"])?).args(&parts).arg("-o").arg(&whole))?;
    Ok((whole, sqlite.libraries))
}

fn sources(context: &Context, level: &'static str, turns: Turns) -> Result<Outcome> {
    let arguments = context.library("sqlite3")?.arguments(level);
    let ours = || {
        let mut run = without_store(context);
        run.args(&arguments);
        run
    };
    let mut linked = arguments.clone();
    linked.push("-fuse-ld=lld".into());
    let made = match executable(context, &linked)? {
        Ok(made) => made,
        Err(missing) => return turns.alone(Unit::Milliseconds, || time_of(&mut ours()), missing),
    };
    expect_same(&output_of(&mut ours())?.output, &made)?;
    let peer = || make_and_run(&linked, &made);
    turns.compare(Unit::Milliseconds, || time_of(&mut ours()), peer)
}

/// The time of clang and of the program.
fn make_and_run(arguments: &[OsString], made: &Path) -> Result<Duration> {
    let compile = time_of(clang(arguments)?.arg("-o").arg(made))?;
    Ok(compile + time_of(&mut Command::new(made))?)
}

/// Each turn has a store of its own, which its first run fills; what that compiled is kept by a process that outlives it. Then
/// comes the pause of the rows of warm runs.
fn second_run(context: &Context) -> Result<Outcome> {
    let arguments = context.library("sqlite3")?.arguments("-O0");
    let mut turn = 0;
    let mut ours = || -> Result<(Duration, Vec<u8>)> {
        turn += 1;
        let store = format!("store-{turn}");
        let run = || {
            let mut run = context.hotbed_run(&store);
            run.arg("--lazy").args(&arguments);
            run
        };
        let first = output_of(&mut run())?.output;
        wait_for_keeper(&context.scratch_path(&store))?;
        std::thread::sleep(SETTLED);
        Ok((time_of(&mut run())?, first))
    };
    let made = match executable(context, &arguments)? {
        Ok(made) => made,
        Err(missing) => return Turns::SECONDS.alone(Unit::Milliseconds, || Ok(ours()?.0), missing),
    };
    expect_same(&ours()?.1, &made)?;
    Turns::SECONDS.compare(Unit::Milliseconds, || Ok(ours()?.0), || time_of(&mut Command::new(&made)))
}

/// Waits until what a run has compiled is in its store.
fn wait_for_keeper(store: &Path) -> Result<()> {
    let keeping = store.join("keeping");
    let end = Instant::now() + Duration::from_secs(30);
    while std::fs::read_dir(&keeping).is_ok_and(|mut files| files.next().is_some()) {
        if Instant::now() > end {
            return Err("what the first run compiled is not kept".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// `hotbed run --lazy` that neither finds nor leaves anything.
fn without_store(context: &Context) -> Command {
    context.hotbed(&["run", "--lazy", "--no-cache"])
}
