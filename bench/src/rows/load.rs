//! From an object's bytes to a call of its code: against LLJIT and against the linker as a process. The clock
//! stops when a function has been called; closing and unloading are not in the figures.

use super::compile::runtime;
use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, timed};
use crate::peers::lljit::Lljit;
use crate::peers::shared_library::{Callee, Entry};
use crate::process::{clang, output_of, tool};
use crate::row::{Outcome, Row, Unit};
use hotbed::{Isolation, Object, Runtime};
use std::cell::Cell;
use std::fmt::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// See [`object_to_call`].
pub(super) const OBJECT_TO_CALL: Row = Row {
    id: "first.object-to-call",
    what: "object bytes to called, sqlite3 -O0 -fPIC, nothing cached",
    peer: "LLJIT: addObjectFile + lookup + call (a fresh one each time, its creation not counted)",
    unit: Unit::Milliseconds,
    run: object_to_call,
};

/// See [`chain_4000`].
pub(super) const CHAIN_4000: Row = Row {
    id: "first.chain-4000",
    what: "object bytes to called, 4000 exported functions in a call chain, -ffunction-sections, nothing cached",
    peer: "`ld.lld -shared` as a process + dlopen + dlsym + call",
    unit: Unit::Milliseconds,
    run: chain_4000,
};

/// A function of sqlite3 that needs nothing set up.
const VERSION: &std::ffi::CStr = c"sqlite3_libversion_number";

/// How many functions the chain has.
const CHAIN: i32 = 4000;

fn object_to_call(context: &Context) -> Result<Outcome> {
    let sqlite = context.library("sqlite3")?;
    let object = context.scratch_path("sqlite3.o");
    let mut compile = clang(["-w", "-O0", "-fPIC", "-c", "-o"])?;
    output_of(compile.arg(&object).args(&sqlite.flags).args(&sqlite.files))?;
    // Kept to the end of the row's process: LLJIT does not copy what it links.
    let bytes: &'static [u8] = std::fs::read(&object)?.leak();

    let runtime = runtime(context, Isolation::InProcess)?;
    let mut turn = 0;
    let expected = Cell::new(None);
    let same = |version| {
        let first = expected.get().unwrap_or(version);
        expected.set(Some(first));
        expect(version, first)
    };
    let ours = || {
        turn += 1;
        let (time, version) =
            object_and_call(&runtime, &format!("sqlite3-{turn}"), bytes, VERSION.to_str()?)?;
        same(version)?;
        Ok(time)
    };
    let peer = || {
        let jit = Lljit::new()?;
        let (time, version) = timed(|| {
            let entry = jit.add_and_look_up(bytes, VERSION)?;
            // SAFETY: sqlite3.h gives the function this type; it takes nothing and returns a constant.
            Ok(unsafe { entry() })
        })?;
        same(version)?;
        Ok(time)
    };
    Turns::QUICK.compare(Unit::Milliseconds, ours, peer)
}

fn chain_4000(context: &Context) -> Result<Outcome> {
    let source = context.write("chain.c", &chain_source()?)?;
    let object = context.scratch_path("chain.o");
    let mut compile = clang(["-O0", "-fPIC", "-ffunction-sections", "-c", "-o"])?;
    output_of(compile.arg(&object).arg(&source))?;
    let bytes = std::fs::read(&object)?;

    let runtime = runtime(context, Isolation::InProcess)?;
    let mut turn = 0;
    let ours = || {
        turn += 1;
        let (time, links) = object_and_call(&runtime, &format!("chain-{turn}"), &bytes, "f0")?;
        expect(links, CHAIN)?;
        Ok(time)
    };
    let linker = match tool(&["ld.lld-22", "ld.lld"]) {
        Ok(linker) => linker,
        Err(missing) => return Turns::QUICK.alone(Unit::Milliseconds, ours, missing),
    };
    let mut linked = 0;
    let peer = || {
        linked += 1;
        let target = Callee::new(context.scratch_path(&format!("chain-{linked}.so")), c"f0")?;
        let mut link = Command::new(&linker);
        link.arg("-shared").arg(&object).arg("-o").arg(&target.file).stdin(Stdio::null());
        let (time, (library, links)) = timed(|| {
            let status = link.status()?;
            status.success().then_some(()).ok_or_else(|| format!("ld.lld: {status}"))?;
            target.open_and_call()
        })?;
        drop(library);
        expect(links, CHAIN)?;
        std::fs::remove_file(&target.file)?;
        Ok(time)
    };
    Turns::QUICK.compare(Unit::Milliseconds, ours, peer)
}

/// The time from an object's bytes to the end of the first call of its function `symbol`, and what that gave; the unit
/// is unloaded afterwards.
fn object_and_call(runtime: &Runtime, name: &str, bytes: &[u8], symbol: &str) -> Result<(Duration, i32)> {
    let (time, (unit, entry, result)) = timed(|| {
        let unit = runtime.load(Object::bytes(name, bytes))?;
        // SAFETY: both objects define what the rows ask for as functions that take nothing and give an int.
        let entry = unsafe { unit.get::<Entry>(symbol)? };
        // SAFETY: as above; neither needs anything set up.
        let result = unsafe { entry() };
        Ok((unit, entry, result))
    })?;
    drop(entry);
    unit.unload()?;
    Ok((time, result))
}

/// `f0` calls `f1` and so on; each adds one.
fn chain_source() -> Result<String> {
    let mut source = String::new();
    writeln!(source, "int f{}(void) {{ return 1; }}", CHAIN - 1)?;
    for number in (0..CHAIN - 1).rev() {
        writeln!(source, "int f{number}(void) {{ return f{}() + 1; }}", number + 1)?;
    }
    Ok(source)
}

fn expect(result: i32, expected: i32) -> Result<()> {
    if result == expected {
        Ok(())
    } else {
        Err(format!("the call gives {result} and not {expected}").into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use crate::peers::shared_library::{LibraryPath, SharedLibrary};

    #[test]
    fn the_chain_is_as_long_as_it_says() {
        let source = chain_source().unwrap();
        assert_eq!(source.lines().count(), CHAIN as usize);
        assert!(source.ends_with("int f0(void) { return f1() + 1; }\n"));
    }

    #[test]
    fn a_missing_function_is_no_crash() {
        let library = SharedLibrary::open(&LibraryPath::new("libc.so.6".as_ref()).unwrap());
        assert!(library.unwrap().entry(c"no_such_function").is_err());
    }
}
