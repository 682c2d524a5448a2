//! Small functions that are compiled one at a time, as a REPL or a query engine has them: what one costs in a session, and
//! whether the hundred thousandth costs what the first ones did.

use super::compile::runtime;
use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, timed};
use crate::memory::mappings;
use crate::peers::lljit::{Lljit, bitcode};
use crate::row::{Outcome, Peer, Row, Unit};
use crate::side::{Side, number};
use hotbed::{Ir, Isolation};
use hotbed_jit::session::{Codegen, Host, Question, Session};
use hotbed_loader::boundary::FreshArea;
use std::any::Any;
use std::ffi::{CString, c_int};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// See [`small_function`].
pub(super) const SMALL_FUNCTION: Row = Row {
    id: "lazy.small-function",
    what: "a small function in a session, bitcode to called, -O0, one after the other",
    peer: "LLJIT, code generated as for -O0, a module for each function",
    unit: Unit::Microseconds,
    run: small_function,
};

/// See [`functions`].
pub(super) const FUNCTIONS_100000: Row = Row {
    id: "lazy.functions-100000",
    what: "first calls of functions 90,001 to 100,000 of a lazy unit, -O0, each compiled by itself",
    peer: "functions 1 to 10,000 of the same unit",
    unit: Unit::Milliseconds,
    run: |context| Turns::LONGEST.repeat(|| FUNCTIONS.both(context, &["100000", "10000", "times"])),
};

/// See [`functions`].
pub(super) const MAPPINGS_100000: Row = Row {
    id: "lazy.mappings-100000",
    what: "mappings of the process after first calls of 100,000 functions of a lazy unit",
    peer: "",
    unit: Unit::Count,
    run: |context| {
        let ours = FUNCTIONS.figure(context, &["100000", "10000", "mappings"])?;
        Ok(Outcome { ours, peer: Peer::None, n: 1 })
    },
};

/// What calling many functions for the first time takes, the last batch and the first, or leaves: how many functions, how
/// many in a batch, what of.
pub(super) const FUNCTIONS: Side = Side { id: "lazy.functions", work: functions };

/// How many functions each side of a turn compiles.
const BATCH: usize = 10;

/// The functions' type.
type Function = unsafe extern "C" fn(c_int) -> c_int;

/// Nobody: what is linked here needs nothing.
struct Nobody;

impl Host for Nobody {
    fn find(&self, question: Question) {
        question.refuse("the functions need nothing");
    }

    fn make_known(&self, _: &FreshArea) -> Option<Box<dyn Any + Send + Sync>> {
        None
    }
}

fn small_function(_: &Context) -> Result<Outcome> {
    let session = Session::new(Arc::new(Nobody))?;
    let unit = session.unit("functions", &[])?;
    let jit = Lljit::unoptimised()?;
    let (mut next, mut peers_next) = (0, 0);
    let ours = || {
        each(&mut next, |name, bitcode| {
            unit.add_bitcode(name, bitcode, &Codegen::default(), None)?;
            only(unit.look_up(&[name])?)
        })
    };
    let peer =
        || each(&mut peers_next, |name, bitcode| jit.compile_and_look_up(bitcode, &CString::new(name)?));
    Turns::QUICK.compare_figures(ours, peer)
}

/// Has the next functions compiled, one at a time, and calls each. Gives microseconds a function; that its bitcode is made
/// is not in them.
fn each(next: &mut usize, mut compile: impl FnMut(&str, &[u8]) -> Result<usize>) -> Result<f64> {
    let mut time = Duration::ZERO;
    for _ in 0..BATCH {
        let (number, name) = (*next, name(*next));
        *next += 1;
        let bitcode = bitcode(&CString::new(text(number)?)?)?;
        let (took, result) = timed(|| {
            let address = compile(&name, &bitcode)?;
            // SAFETY: compiled from `text`, which gives it this type; it stays to the end of the process.
            let function = unsafe { std::mem::transmute::<usize, Function>(address) };
            // SAFETY: it touches nothing but its stack.
            Ok(unsafe { function(1) })
        })?;
        expect(number, result)?;
        time += took;
    }
    Ok(time.as_secs_f64() * 1e6 / BATCH as f64)
}

fn only(addresses: Vec<usize>) -> Result<usize> {
    addresses.first().copied().ok_or_else(|| "the session gives no address".into())
}

fn functions(context: &Context, arguments: &[String]) -> Result<Vec<f64>> {
    let (count, batch) = (number(arguments, 0)?, number(arguments, 1)?);
    let mut all = String::new();
    for number in 0..count {
        all.push_str(&text(number)?);
    }
    let runtime = runtime(context, Isolation::InProcess)?;
    let unit = runtime.load(Ir::bytes("functions.ll", all).flags(["-O0"]).lazy())?;
    // SAFETY: `text` gives all functions this type.
    let get = |number| Ok(unsafe { unit.get::<Function>(&name(number))? });
    let functions = (0..count).map(get).collect::<Result<Vec<_>>>()?;
    let mut batches = Vec::new();
    for (at, functions) in functions.chunks(batch).enumerate() {
        let (time, ()) = timed(|| {
            functions.iter().zip(at * batch..).try_for_each(|(function, number)| {
                // SAFETY: they touch nothing but their stack.
                expect(number, unsafe { function(1) })
            })
        })?;
        batches.push(time.as_secs_f64() * 1e3);
    }
    let compiled = runtime.functions_compiled() as usize;
    if compiled != count {
        return Err(format!("{compiled} of {count} functions were compiled").into());
    }
    let figures = match arguments.get(2).map(String::as_str) {
        Some("times") => [batches.last(), batches.first()].into_iter().flatten().copied().collect(),
        Some("mappings") => vec![mappings()?],
        _ => return Err("neither times nor mappings".into()),
    };
    // The process ends anyway.
    std::mem::forget((functions, unit, runtime));
    Ok(figures)
}

fn name(number: usize) -> String {
    format!("function_{number}")
}

/// A function as a front end writes it down without optimisation.
fn text(number: usize) -> Result<String> {
    let mut text = String::new();
    write!(
        text,
        "define i32 @{}(i32 %x) {{\n  %kept = alloca i32\n  %sum = alloca i32\n  store i32 %x, ptr %kept\n  \
         store i32 {number}, ptr %sum\n  %value = load i32, ptr %kept\n  %positive = icmp sgt i32 %value, 0\n  \
         br i1 %positive, label %then, label %end\nthen:\n  %old = load i32, ptr %sum\n  %again = load i32, ptr %kept\n  \
         %new = add nsw i32 %old, %again\n  store i32 %new, ptr %sum\n  br label %end\nend:\n  \
         %result = load i32, ptr %sum\n  ret i32 %result\n}}\n",
        name(number)
    )?;
    Ok(text)
}

fn expect(number: usize, result: c_int) -> Result<()> {
    if result as usize == number + 1 {
        Ok(())
    } else {
        Err(format!("function {number} gives {result}").into())
    }
}
