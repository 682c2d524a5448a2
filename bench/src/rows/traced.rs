//! Programs that start from traced images: the functions that a first run called are compiled (-O2) and lie in the order of
//! their calls, the rest is bitcode (`hotbed image build --trace FILE --rest bitcode`).

use super::start::{SETTLED, expect_same, timing};
use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, geometric_mean};
use crate::process::{errors_of, output_of, time_of};
use crate::programs::{JOLT, LIBRARIES, Program};
use crate::row::{Outcome, Peer, Row, Unit};
use std::path::PathBuf;
use std::process::Command;

/// See [`warm`].
pub(super) const WARM: Row = Row {
    id: "image.warm",
    what: "warm `hotbed run` of a program's traced image, whole process, geometric mean of the eight libraries' programs",
    peer: "their clang -O2 executables",
    unit: Unit::Milliseconds,
    run: warm,
};

/// See [`warm_compiles`].
pub(super) const WARM_COMPILES: Row = Row {
    id: "image.warm-compiles",
    what: "functions_compiled + backend_loaded, summed over such runs of all eight",
    peer: "",
    unit: Unit::Count,
    run: warm_compiles,
};

/// See [`first_call`].
pub(super) const FIRST_CALL: Row = Row {
    id: "image.first-call",
    what: "the program of sqlite3 and that of Lua in a process that was started from a traced image, geometric mean: the \
           first time that its `main` is called",
    peer: "the second time, in the same process",
    unit: Unit::Microseconds,
    run: first_call,
};

/// Calls `work` twice, and gives the microseconds of both.
const TWICE: &str = r#"
#undef main
#include <stdio.h>
#include <sys/time.h>
static double now(void) { struct timeval t; gettimeofday(&t, 0); return t.tv_sec * 1e6 + t.tv_usec; }
int main(void) {
  double start = now(), middle;
  if (work())
    return 1;
  middle = now();
  if (work())
    return 1;
  fprintf(stderr, "%.3f %.3f\n", middle - start, now() - middle);
  return 0;
}
"#;

/// A program, and what starts it either way.
struct Both {
    program: Program,
    image: PathBuf,
    executable: PathBuf,
}

/// All programs, whose images have been in the store for a while.
fn all(context: &Context) -> Result<Vec<Both>> {
    let mut all = Vec::new();
    for name in LIBRARIES.into_iter().chain([JOLT]) {
        let program = Program::of_library(context, name)?;
        let (image, executable) = (program.traced_image(context)?, program.executable(context)?);
        let first = output_of(&mut run(context, &image))?;
        expect_same(&first.output, &executable).map_err(|error| format!("{name}: {error}"))?;
        all.push(Both { program, image, executable });
    }
    std::thread::sleep(SETTLED);
    Ok(all)
}

fn run(context: &Context, image: &PathBuf) -> Command {
    let mut run = context.hotbed_run("store");
    run.arg(image);
    run
}

fn warm(context: &Context) -> Result<Outcome> {
    let all = all(context)?;
    Turns::QUICK.repeat(|| {
        // One program after the other on both sides, so that both find the machine alike.
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for both in &all {
            ours.push(time_of(&mut run(context, &both.image))?.as_secs_f64() * 1e3);
            peers.push(time_of(&mut Command::new(&both.executable))?.as_secs_f64() * 1e3);
        }
        Ok((geometric_mean(&ours), geometric_mean(&peers)))
    })
}

fn warm_compiles(context: &Context) -> Result<Outcome> {
    let all = all(context)?;
    let mut total = 0.0;
    for Both { program, image, .. } in &all {
        let errors = errors_of(run(context, image).arg("--timings=json"))?;
        let compiled = timing(&errors, "functions_compiled")? + timing(&errors, "backend_loaded")?;
        if compiled > 0.0 {
            eprintln!("{}: {}", program.name, errors.trim_end());
        }
        total += compiled;
    }
    Ok(Outcome { ours: total, peer: Peer::None, n: all.len() })
}

fn first_call(context: &Context) -> Result<Outcome> {
    let mut images = Vec::new();
    for name in ["sqlite3", "lua"] {
        let source = PathBuf::from(context.library(name)?.program);
        let program = Program::driven(context, &format!("twice-{name}"), &source, Some(name), TWICE)?;
        images.push(program.traced_image(context)?);
        output_of(&mut run(context, &images[images.len() - 1]))?;
    }
    std::thread::sleep(SETTLED);
    Turns::QUICK.repeat(|| {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for image in &images {
            let errors = errors_of(&mut run(context, image))?;
            let both = errors
                .trim()
                .split_once(' ')
                .and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
            let (one, two) = both.ok_or_else(|| format!("the driver says {errors:?}"))?;
            first.push(one);
            second.push(two);
        }
        Ok((geometric_mean(&first), geometric_mean(&second)))
    })
}
