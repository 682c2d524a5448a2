//! How fast code is once everything has been compiled, lazily or before: the programs of the real libraries and some small
//! ones that compute (`bench/programs`), at -O2.
//!
//! Each program becomes the function `work` of a process that calls it until it is warm and then measures calls of it: once
//! under `hotbed run`, from its sources or from a traced image, once in the executable that clang makes of the same. So
//! compiling is in no figure.

use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, geometric_mean};
use crate::process::errors_of;
use crate::programs::{LIBRARIES, Program};
use crate::row::{Outcome, Row, Unit};
use std::path::PathBuf;
use std::process::Command;

/// Compiled while it runs.
pub(super) const LAZY: Row = Row {
    id: "lazy.steady",
    what: "steady state under `hotbed run --lazy -O2`: one run of a program, geometric mean of twelve",
    peer: "the clang -O2 executables of them",
    unit: Unit::Microseconds,
    run: |context| {
        steady(context, |program| {
            let mut run = context.hotbed(&["run", "--lazy", "--no-cache"]);
            run.args(program.arguments());
            Ok(run)
        })
    },
};

/// Compiled before.
pub(super) const IMAGE: Row = Row {
    id: "image.steady",
    what: "steady state from traced images (-O2, --rest bitcode): one run of a program, geometric mean of twelve",
    peer: "the clang -O2 executables of them",
    unit: Unit::Microseconds,
    run: |context| {
        steady(context, |program| {
            let mut run = context.hotbed(&["run", "--no-cache"]);
            run.arg(program.traced_image(context)?);
            Ok(run)
        })
    },
};

/// Programs of `bench/programs`, and the library that one needs.
const SMALL: [(&str, Option<&str>); 5] =
    [("nbody", None), ("fannkuch", None), ("spectral_norm", None), ("sieve", None), ("lua_fib", Some("lua"))];

/// Calls `work` for the first time, then for as long as a processor needs to be awake; then gives microseconds a call, the
/// least of some spans: what disturbs a span makes it longer. The clock is one that every dialect of C has.
const DRIVER: &str = r#"
#undef main
#include <stdio.h>
#include <sys/time.h>
static double now(void) { struct timeval t; gettimeofday(&t, 0); return t.tv_sec * 1e6 + t.tv_usec; }
static double span(double least) {
  double start = now(), took;
  long calls = 0;
  do {
    if (work())
      return -1;
    calls++;
    took = now() - start;
  } while (took < least);
  return took / calls;
}
int main(void) {
  double best;
  if (work() || (best = span(100000)) < 0)
    return 1;
  for (int i = 0; i < 10; i++) {
    double next = span(20000);
    best = next < best ? next : best;
  }
  fprintf(stderr, "%.6f\n", best);
  return 0;
}
"#;

/// `ours` gives what starts a program on our side.
fn steady(context: &Context, ours: impl Fn(&Program) -> Result<Command>) -> Result<Outcome> {
    let mut programs = Vec::new();
    for name in LIBRARIES {
        let source = PathBuf::from(context.library(name)?.program);
        programs.push((name, source, Some(name)));
    }
    for (name, library) in SMALL {
        programs.push((name, context.root().join(format!("bench/programs/{name}.c")), library));
    }
    let mut both = Vec::new();
    for (name, source, library) in &programs {
        let program = Program::driven(context, &format!("steady-{name}"), source, *library, DRIVER)?;
        both.push((*name, ours(&program)?, Command::new(program.executable(context)?)));
    }
    Turns::LONGEST.repeat(|| {
        // One program after the other on both sides, so that both find the machine alike.
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for (name, our_run, peer_run) in &mut both {
            let figure = |command: &mut Command| figure(command).map_err(|error| format!("{name}: {error}"));
            ours.push(figure(our_run)?);
            peers.push(figure(peer_run)?);
        }
        Ok((geometric_mean(&ours), geometric_mean(&peers)))
    })
}

/// What the driver says.
fn figure(command: &mut Command) -> Result<f64> {
    let errors = errors_of(command)?;
    let last = errors.lines().last().unwrap_or_default();
    last.parse().map_err(|_| format!("its driver says {last:?}").into())
}
