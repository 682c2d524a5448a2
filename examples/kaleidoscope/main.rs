//! Kaleidoscope: a small language on inkwell and Hotbed.
//!
//! ```text
//! kaleidoscope [--ir] [--stats] [FILE...]
//! ```
//!
//! runs programs, or what is typed (end an item with `;`). It is the language of LLVM's tutorial: every value is a double; `def`
//! defines a function and `extern` declares one that the process, the host or a later definition has; everything else is
//! computed at once and printed.
//!
//! ```text
//! extern sin(x); extern printd(x);
//! def binary| 5 (a b) if a then 1 else if b then 1 else 0;   # operators, with precedences
//! def fib(n) if n < 3 then 1 else fib(n - 1) + fib(n - 2);
//! for i = 1, i < 4 in printd(fib(i));                          # a step may follow the condition: , 2 in
//! var a = 1, b in (b = a + 1) * sin(a);
//! ```
//!
//! `-` before an expression, `/` and `>` are there besides the tutorial's operators, and a program may define any of them anew, but for `=`.
//! The condition of `for` is looked at before every round. `printd` and `putchard` are the host's. Whoever declares a function of
//! the process answers for its type: all that Kaleidoscope calls takes doubles and gives one. Recursion without end ends the
//! process, as in C.
//!
//! The way of a definition: [`lexer`], [`parser`], [`codegen`] to LLVM IR, and [`session`], where all that has to do with
//! Hotbed is: it is the file to read.

mod ast;
mod codegen;
mod host;
mod lexer;
mod parser;
mod session;
mod source;

use parser::Parser;
use session::Session;
use source::Source;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

// Inkwell comes without an LLVM here; that is in this crate (see `examples/inkwell.rs`).
use hotbed_jit as _;

const USAGE: &str = "Usage: kaleidoscope [--ir] [--stats] [FILE...]

Runs programs, or what is on standard input.

      --ir     print the IR of every unit to standard error
      --stats  print how many units are left and how many functions were compiled to standard error
";

/// Only what is used of it takes memory.
const STACK: usize = 256 << 20;

/// What the command line says.
#[derive(Default)]
struct Options {
    ir: bool,
    stats: bool,
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprint!("kaleidoscope: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A stack of its own, so that how deep expressions may be, and functions may call each other, is the same everywhere.
    let session = thread::Builder::new().stack_size(STACK).spawn(move || run(&options));
    let outcome = match session.map(JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err("the session has panicked".to_owned()),
        Err(error) => Err(format!("cannot start a thread: {error}")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("kaleidoscope: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Nothing when it is help that is wanted.
fn options(arguments: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    for argument in arguments {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(None),
            Some("--ir") => options.ir = true,
            Some("--stats") => options.stats = true,
            Some(flag) if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
            _ => options.files.push(argument.into()),
        }
    }
    Ok(Some(options))
}

/// Whether everything went well.
fn run(options: &Options) -> Result<bool, String> {
    let mut session = Session::new(options.ir).map_err(|error| error.to_string())?;
    let mut well = true;
    if options.files.is_empty() {
        let input = io::stdin();
        let interactive = input.is_terminal();
        let source = Source::new("standard input", Box::new(BufReader::new(input)), interactive);
        // Who types has seen what went wrong, and has gone on.
        well = execute(&mut session, source) || interactive;
    }
    for path in &options.files {
        well &= match open(path) {
            Ok(source) => execute(&mut session, source),
            Err(message) => {
                eprintln!("kaleidoscope: {message}");
                false
            }
        };
    }
    if options.stats {
        eprintln!("units: {}, functions compiled: {}", session.units(), session.functions_compiled());
    }
    io::stdout().flush().map_err(|error| format!("cannot write to standard output: {error}"))?;
    Ok(well)
}

fn open(path: &Path) -> Result<Source, String> {
    let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Source::new(path.display().to_string(), Box::new(BufReader::new(file)), false))
}

/// Runs all items of a source, whatever is wrong with some of them. Whether nothing was.
fn execute(session: &mut Session, source: Source) -> bool {
    let mut parser = Parser::new(source);
    let mut well = true;
    loop {
        // An operator whose definition fails is none.
        let operators = session.operators.clone();
        let problem = match parser.item(&mut session.operators) {
            Ok(None) => break,
            Ok(Some(item)) => session.run(item).err(),
            Err(problem) => {
                parser.recover();
                Some(problem)
            }
        };
        if let Some(problem) = problem {
            session.operators = operators;
            // Standard output first, so that a terminal shows things in their order.
            let _ = io::stdout().flush();
            eprint!("{}", parser.source().show(&problem));
            well = false;
        }
    }
    if let Some(error) = parser.source().failure() {
        eprintln!("kaleidoscope: cannot read {}: {error}", parser.source().name());
        return false;
    }
    well
}
