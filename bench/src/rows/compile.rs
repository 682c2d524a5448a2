//! From source text to a call of it in a running host, nothing cached: in process, through a worker, and as people do it
//! without Hotbed, with the compiler as a process and `dlopen`.
//!
//! Every text is another one (a number in it), so that neither a store nor a table of units could answer. The host has
//! compiled before: opening the back end is a thing of the first time and not in the figures.

use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, timed};
use crate::peers::shared_library::{Callee, Entry};
use crate::process::{clang, tool};
use crate::row::{Outcome, Row, Unit};
use hotbed::{Isolation, Runtime, Source};
use std::process::Stdio;
use std::time::Duration;

/// See [`source_to_call`].
pub(super) const SOURCE_TO_CALL: Row = Row {
    id: "first.source-to-call",
    what: "in a running host: source text to called, hello-size C with stdio.h, -O0, nothing cached",
    peer: "`clang -O0 -shared -fPIC` as a process + dlopen + dlsym + call",
    unit: Unit::Milliseconds,
    run: source_to_call,
};

/// See [`worker`].
pub(super) const WORKER: Row = Row {
    id: "first.worker",
    what: "source text to called, hello-size C, through a warm worker",
    peer: "the same compiled in process",
    unit: Unit::Milliseconds,
    run: worker,
};

/// What the function of every text gives: the length of its line.
const LENGTH: i32 = 20;

fn source_to_call(context: &Context) -> Result<Outcome> {
    let runtime = runtime(context, Isolation::InProcess)?;
    let mut number = 0;
    let ours = || {
        number += 1;
        load_and_call(&runtime, number)
    };
    if let Err(missing) = tool(&["clang-22"]) {
        return Turns::QUICK.alone(Unit::Milliseconds, ours, missing);
    }
    let mut turn = 0;
    let peer = || {
        turn += 1;
        let source = context.write(&format!("hello-{turn}.c"), &text(turn))?;
        // Another file each time: the dynamic linker knows a library by its path, and the compiler writes into it.
        let target = Callee::new(context.scratch_path(&format!("hello-{turn}.so")), c"hello")?;
        let mut clang = clang(["-O0", "-shared", "-fPIC"])?;
        clang.arg(&source).arg("-o").arg(&target.file).stdin(Stdio::null());
        let (time, (library, length)) = timed(|| {
            let status = clang.status()?;
            status.success().then_some(()).ok_or_else(|| format!("clang: {status}"))?;
            target.open_and_call()
        })?;
        drop(library);
        expect(length)?;
        std::fs::remove_file(&target.file)?;
        Ok(time)
    };
    Turns::QUICK.compare(Unit::Milliseconds, ours, peer)
}

fn worker(context: &Context) -> Result<Outcome> {
    let isolated = runtime(context, Isolation::Process)?;
    let in_process = runtime(context, Isolation::InProcess)?;
    let mut number = 0;
    let mut next = 0;
    Turns::QUICK.compare(
        Unit::Milliseconds,
        || {
            number += 1;
            load_and_call(&isolated, number)
        },
        || {
            next += 1;
            load_and_call(&in_process, next)
        },
    )
}

/// A runtime without a store, with the plugin that lies beside the bench.
pub(crate) fn runtime(context: &Context, isolation: Isolation) -> Result<Runtime> {
    Ok(Runtime::builder().no_cache().back_end(context.plugin()).isolation(isolation).build()?)
}

/// The time from a text to the end of its function's first call; the unit is unloaded afterwards.
fn load_and_call(runtime: &Runtime, number: u32) -> Result<Duration> {
    let (name, text) = (format!("hello-{number}.c"), text(number));
    let (time, (unit, hello, length)) = timed(|| {
        let unit = runtime.load(Source::text(&name, &text).flags(["-O0"]))?;
        // SAFETY: `text` defines `hello` with this type.
        let hello = unsafe { unit.get::<Entry>("hello")? };
        // SAFETY: it takes nothing and touches only its own stack.
        let length = unsafe { hello() };
        Ok((unit, hello, length))
    })?;
    drop(hello);
    unit.unload()?;
    expect(length)?;
    Ok(time)
}

/// A source that no other number gives.
fn text(number: u32) -> String {
    format!(
        "#include <stdio.h>\nint hello(void) {{\n  char line[64];\n  return snprintf(line, sizeof line, \
         \"hello, world %06d\\n\", {number});\n}}\n"
    )
}

fn expect(length: i32) -> Result<()> {
    if length == LENGTH { Ok(()) } else { Err(format!("hello gives {length} and not {LENGTH}").into()) }
}
