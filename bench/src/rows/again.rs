//! Programs that are run again: as they were, and with a function that has changed.

use super::start::{executable, expect_same, warm_run};
use crate::Result;
use crate::context::Context;
use crate::measure::Turns;
use crate::process::{clang, output_of, time_of, tool};
use crate::row::{Outcome, Row, Unit};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// See [`store_hit`].
pub(super) const STORE_HIT: Row = Row {
    id: "image.store-hit",
    what: "warm `hotbed run -O0` of the sqlite program's sources, whole process",
    peer: "`ccache clang -O0 -c` of each source (hits), `clang -fuse-ld=lld` of the objects, and a run of what that made",
    unit: Unit::Milliseconds,
    run: store_hit,
};

/// See [`one_function`].
pub(super) const ONE_FUNCTION: Row = Row {
    id: "image.one-function",
    what: "`hotbed run -O0 --eager` of the sqlite program after a change of one function of sqlite3.c, whole process",
    peer: "the same with an empty store",
    unit: Unit::Milliseconds,
    run: one_function,
};

fn store_hit(context: &Context) -> Result<Outcome> {
    let sqlite = context.library("sqlite3")?;
    let arguments = sqlite.program_arguments();
    let (run, warm) = warm_run(context, &arguments)?;
    let ccache = match tool(&["ccache"]).and_then(|ccache| tool(&["clang-22"]).map(|clang| (ccache, clang))) {
        Ok(tools) => tools,
        Err(missing) => return Turns::QUICK.alone(Unit::Milliseconds, || time_of(&mut run()), missing),
    };
    let sources: Vec<&OsString> = sqlite.files.iter().chain([&sqlite.program]).collect();
    let objects: Vec<PathBuf> =
        (0..sources.len()).map(|number| context.scratch_path(&format!("{number}.o"))).collect();
    let made = context.scratch_path("made");
    let compile = |number: usize| {
        let mut compile = Command::new(&ccache.0);
        compile.env("CCACHE_DIR", context.scratch_path("ccache")).arg(&ccache.1).args(["-w", "-O0"]);
        compile.args(&sqlite.flags).arg("-c").arg(sources[number]).arg("-o").arg(&objects[number]);
        compile
    };
    let peer = || -> Result<Duration> {
        let mut time = Duration::ZERO;
        for number in 0..sources.len() {
            time += time_of(&mut compile(number))?;
        }
        let mut link = clang(["-fuse-ld=lld"])?;
        time += time_of(link.args(&objects).args(&sqlite.libraries).arg("-o").arg(&made))?;
        Ok(time + time_of(&mut Command::new(&made))?)
    };
    peer()?;
    expect_same(&warm, &made)?;
    Turns::QUICK.compare(Unit::Milliseconds, || time_of(&mut run()), peer)
}

/// Each turn changes the function before either side.
fn one_function(context: &Context) -> Result<Outcome> {
    /// What the function says; what it said is not what it will.
    const OLD: &str = "{ return SQLITE_VERSION_NUMBER; }";
    let mut sqlite = context.library("sqlite3")?;
    let [original] = sqlite.files.as_slice() else { return Err("sqlite3 is one file".into()) };
    let text = std::fs::read_to_string(original)?;
    if text.matches(OLD).count() != 1 {
        return Err("sqlite3.c has not the function that is to be changed".into());
    }
    let copy = context.scratch_path("sqlite3.c");
    sqlite.files = vec![copy.clone().into()];
    let arguments = sqlite.program_arguments();
    let mut changes = 0;
    let mut changed_run = |store: Option<&str>| -> Result<Command> {
        changes += 1;
        std::fs::write(
            &copy,
            text.replace(OLD, &format!("{{ return SQLITE_VERSION_NUMBER + {changes}; }}")),
        )?;
        let mut run = context.hotbed_run(store.unwrap_or(&format!("store-{changes}")));
        run.arg("--eager").args(&arguments);
        Ok(run)
    };
    let first = output_of(&mut changed_run(Some("store"))?)?.output;
    if let Ok(executable) = executable(context, &arguments)? {
        expect_same(&first, &executable)?;
    }
    let changed_run = std::cell::RefCell::new(changed_run);
    let time = |store| time_of(&mut changed_run.borrow_mut()(store)?);
    Turns::SECONDS.compare(Unit::Milliseconds, || time(Some("store")), || time(None))
}
