//! How fast lazily compiled code is once everything has been compiled: the programs of the real libraries and some small
//! ones that compute (`bench/programs`), at -O2.
//!
//! Each program becomes the function `work` of a process that calls it until it is warm and then measures calls of it: once
//! under `hotbed run --lazy`, once in the executable that clang makes of the same. So compiling is in neither figure.

use super::start::LIBRARIES;
use crate::Result;
use crate::context::Context;
use crate::measure::Turns;
use crate::process::{clang, errors_of, output_of};
use crate::row::{Outcome, Row, Unit};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// See [`steady`].
pub(super) const STEADY: Row = Row {
    id: "lazy.steady",
    what: "steady state under `hotbed run --lazy -O2`: one run of a program, geometric mean of twelve",
    peer: "the clang -O2 executables of them",
    unit: Unit::Microseconds,
    run: steady,
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

/// A program, both ways.
struct Program {
    name: String,
    /// Of the compiler, for either side.
    arguments: Vec<OsString>,
    executable: PathBuf,
}

fn steady(context: &Context) -> Result<Outcome> {
    let mut programs = Vec::new();
    for name in LIBRARIES {
        let library = context.library(name)?;
        let source = PathBuf::from(&library.program);
        programs.push(program(context, name, source, Some(name))?);
    }
    for (name, library) in SMALL {
        let source = context.root().join(format!("bench/programs/{name}.c"));
        programs.push(program(context, name, source, library)?);
    }
    Turns::LONGEST.repeat(|| {
        // One program after the other on both sides, so that both find the machine alike.
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for program in &programs {
            let mut run = context.hotbed(&["run", "--lazy", "--no-cache"]);
            let figure =
                |command: &mut Command| figure(command).map_err(|error| format!("{}: {error}", program.name));
            ours.push(figure(run.args(&program.arguments))?);
            peers.push(figure(&mut Command::new(&program.executable))?);
        }
        Ok((geometric_mean(&ours), geometric_mean(&peers)))
    })
}

/// Makes a program whose `main` is in `source`; `library` comes with it. Executables are kept from run to run.
fn program(context: &Context, name: &str, source: PathBuf, library: Option<&str>) -> Result<Program> {
    let suffix = source.extension().unwrap_or_default().to_string_lossy().into_owned();
    let text = format!("#define main work\n#include \"{}\"\n{DRIVER}", source.display());
    let driver = context.write(&format!("{name}.{suffix}"), &text)?;
    let mut arguments = vec![OsString::from("-w"), "-O2".into()];
    match library {
        Some(library) => {
            let library = context.library(library)?;
            arguments.extend([library.flags, library.files].concat());
            arguments.push(driver.into());
            arguments.extend(library.libraries);
        }
        None => arguments.extend([driver.into(), "-lm".into()]),
    }
    let from = (&text, std::fs::read(&source)?, &arguments);
    let folder = context.kept(&format!("steady-{name}"), &from, |folder| {
        let mode = if suffix == "cpp" { "--driver-mode=g++" } else { "--driver-mode=gcc" };
        output_of(clang([mode])?.args(&arguments).arg("-o").arg(folder.join(name))).map(drop)
    })?;
    Ok(Program { name: name.to_owned(), arguments, executable: folder.join(name) })
}

/// What the driver says.
fn figure(command: &mut Command) -> Result<f64> {
    let errors = errors_of(command)?;
    let last = errors.lines().last().unwrap_or_default();
    last.parse().map_err(|_| format!("its driver says {last:?}").into())
}

fn geometric_mean(figures: &[f64]) -> f64 {
    let logarithms: f64 = figures.iter().map(|figure| figure.ln()).sum();
    (logarithms / figures.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_ratios_is_the_ratio_of_means() {
        let (ours, peers) = ([2.0, 30.0, 0.5], [1.0, 60.0, 0.25]);
        let ratio = geometric_mean(&ours) / geometric_mean(&peers);
        assert!((ratio - geometric_mean(&[2.0, 0.5, 2.0])).abs() < 1e-12);
    }
}
