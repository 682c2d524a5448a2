//! Units of a running host whose functions are compiled when they are first called, against the same units compiled as a
//! whole in the same process, and against themselves.
//!
//! The unit is bitcode of 4000 functions, as clang makes it without optimisation; each calls the next one as often as it is
//! told to. So one unit serves for all that is called and for little of it.

use super::compile::runtime;
use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, timed};
use crate::process::{clang, output_of};
use crate::row::{Outcome, Row, Unit};
use hotbed::{Bitcode, Isolation, Runtime, Symbol};
use std::ffi::c_int;
use std::fmt::Write;
use std::time::Duration;

/// See [`chain`].
pub(super) const ALL_CALLED: Row = Row {
    id: "lazy.all-called",
    what: "lazy: bitcode (-O0) of 4000 functions in a call chain to the end of the first call, which calls all",
    peer: "the same bitcode compiled as a whole, in the same process",
    unit: Unit::Milliseconds,
    run: |context| chain(context, FUNCTIONS),
};

/// See [`chain`].
pub(super) const FEW_CALLED: Row = Row {
    id: "lazy.few-called",
    what: "lazy: bitcode (-O0) of 4000 functions to the end of the first call, which calls 40 of them",
    peer: "the same bitcode compiled as a whole, in the same process",
    unit: Unit::Milliseconds,
    run: |context| chain(context, 40),
};

/// See [`two_threads`].
pub(super) const TWO_THREADS: Row = Row {
    id: "lazy.two-threads",
    what: "first calls of all of 4000 functions of a lazy unit, half of them in each of two threads",
    peer: "all of them in one thread",
    unit: Unit::Milliseconds,
    run: two_threads,
};

/// How many functions the unit has.
const FUNCTIONS: usize = 4000;

/// A function of the unit: calls the next one and so on, that many times, and tells how many were called.
type Link = unsafe extern "C" fn(c_int) -> c_int;

/// When functions are compiled.
#[derive(Clone, Copy)]
enum When {
    Lazily,
    AtOnce,
}

/// Loads units made of the same bitcode, each under a name of its own.
struct Units {
    runtime: Runtime,
    bitcode: Vec<u8>,
    loaded: u32,
}

impl Units {
    fn new(context: &Context) -> Result<Self> {
        let source = context.write("chain.c", &source(FUNCTIONS)?)?;
        let file = context.scratch_path("chain.bc");
        output_of(clang(["-O0", "-emit-llvm", "-c", "-o"])?.arg(&file).arg(&source))?;
        let runtime = runtime(context, Isolation::InProcess)?;
        Ok(Self { runtime, bitcode: std::fs::read(file)?, loaded: 0 })
    }

    fn load(&mut self, when: When) -> Result<hotbed::Unit> {
        self.loaded += 1;
        let bitcode =
            Bitcode::bytes(format!("chain-{}.bc", self.loaded), self.bitcode.as_slice()).flags(["-O0"]);
        Ok(self.runtime.load(match when {
            When::Lazily => bitcode.lazy(),
            When::AtOnce => bitcode,
        })?)
    }

    /// The time from the bitcode to the end of a call of the first function that calls `called` of them.
    fn load_and_call(&mut self, when: When, called: usize) -> Result<Duration> {
        let before = self.runtime.functions_compiled();
        let (time, (unit, first)) = timed(|| {
            let unit = self.load(when)?;
            let first = link(&unit, 0)?;
            call(&first, called)?;
            Ok((unit, first))
        })?;
        drop(first);
        unit.unload()?;
        let compiled = (self.runtime.functions_compiled() - before) as usize;
        match when {
            When::Lazily if compiled < called => Err(format!("{compiled} functions were compiled").into()),
            When::AtOnce if compiled > 0 => Err("functions were compiled one by one".into()),
            _ => Ok(time),
        }
    }
}

fn chain(context: &Context, called: usize) -> Result<Outcome> {
    let units = std::cell::RefCell::new(Units::new(context)?);
    let side = |when| units.borrow_mut().load_and_call(when, called);
    Turns::QUICK.compare(Unit::Milliseconds, || side(When::Lazily), || side(When::AtOnce))
}

fn two_threads(context: &Context) -> Result<Outcome> {
    let units = std::cell::RefCell::new(Units::new(context)?);
    let side = |threads: usize| {
        let unit = units.borrow_mut().load(When::Lazily)?;
        let links = (0..FUNCTIONS).map(|number| link(&unit, number)).collect::<Result<Vec<_>>>()?;
        let (time, ()) = timed(|| call_all(&links, threads))?;
        drop(links);
        unit.unload()?;
        Ok(time)
    };
    Turns::QUICK.compare(Unit::Milliseconds, || side(2), || side(1))
}

/// Calls every function by itself, in that many threads.
fn call_all(links: &[Symbol<Link>], threads: usize) -> Result<()> {
    std::thread::scope(|scope| {
        let work = |part: &'_ [Symbol<Link>]| {
            part.iter().try_for_each(|link| call(link, 1).map_err(|error| error.to_string()))
        };
        let parts = links.chunks(links.len().div_ceil(threads));
        let running: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        for thread in running {
            thread.join().map_err(|_| "a thread that calls functions panicked")??;
        }
        Ok(())
    })
}

/// Function `number` of a unit.
fn link(unit: &hotbed::Unit, number: usize) -> Result<Symbol<Link>> {
    // SAFETY: `source` gives every function this type.
    Ok(unsafe { unit.get(&format!("f{number}"))? })
}

/// Calls a function so that `called` of them are called.
fn call(link: &Symbol<Link>, called: usize) -> Result<()> {
    // SAFETY: it takes a number and touches only its own stack.
    let count = unsafe { link(called as c_int - 1) };
    if count as usize == called {
        Ok(())
    } else {
        Err(format!("{count} functions were called, not {called}").into())
    }
}

/// `f0` calls `f1` and so on, as long as there is something left of `more`. Each does a little besides.
fn source(functions: usize) -> Result<String> {
    let mut source = format!("static int f{functions}(int more) {{ return more; }}\n");
    for number in (0..functions).rev() {
        writeln!(
            source,
            "int f{number}(int more) {{\n  int cells[8], sum = 0;\n  for (int i = 0; i < 8; i++)\n    \
             cells[i] = more ^ (i * {number});\n  for (int i = 0; i < 8; i++)\n    \
             sum += cells[i] > more ? cells[i] - more : more - cells[i];\n  \
             if (more == 0)\n    return sum < 0 ? 0 : 1;\n  return f{}(more - 1) + 1;\n}}",
            number + 1
        )?;
    }
    Ok(source)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;

    #[test]
    fn the_chain_is_as_long_as_it_says() {
        let source = source(3).unwrap();
        assert_eq!(source.matches("int f").count(), 4);
        assert!(source.contains("int f0(int more)") && source.ends_with("return f1(more - 1) + 1;\n}\n"));
    }
}
