//! `hotbed run`: everything that is given becomes units, and the entry is called as if the process had just been
//! exec'd with it.

use crate::arguments::{self, Arguments, Kind, Purpose};
use crate::input;
use crate::timings::{self, Totals};
use crate::{Outcome, Status, console, usage};
use hotbed::{Duplicate, Image, Load, ProgramArguments, Runtime, Sameness, SharedLibrary, Unit};
use hotbed_loader::demangle;
use hotbed_loader::sys::start;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Instant;

/// A program that is loaded and waits to be entered. What it consists of is never unloaded.
pub(crate) struct Program {
    entry: usize,
    arguments: ProgramArguments,
}

impl Program {
    /// Runs it on this thread; it never comes back.
    pub(crate) fn enter(self) -> ! {
        let Self { entry, arguments } = self;
        // SAFETY: the entry belongs to a unit that is never unloaded, and whoever asked for it to be run says that it
        // is a program's entry; the arguments are null-terminated and leaked.
        unsafe { start::enter(entry, arguments) }
    }
}

/// `hotbed run` with the arguments after `run`.
pub(crate) fn run(arguments: &[&'static CStr], started: Instant) -> Outcome {
    match prepare(arguments, started) {
        Ok(program) => Outcome::Program(program),
        Err(status) => Outcome::Status(status),
    }
}

fn prepare(arguments: &[&'static CStr], started: Instant) -> Result<Program, Status> {
    let parsed = arguments::parse(arguments, Purpose::Run).map_err(|error| console::usage(&error, "run"))?;
    if parsed.options.help {
        return Err(usage::help(usage::RUN));
    }
    if parsed.options.timings.is_some() {
        timings::print_at_exit();
    }
    input::readable(&parsed)?;
    // Registered before anything is loaded, so called when all of the program has ended.
    start::at_exit(keep_compiled);
    let name = parsed.files().next().map_or(c"", |file| file.argument);
    // Constructors may look, so the names change before anything is loaded.
    start::take_name(name);
    let program = program_arguments(name, &parsed.program);
    let runtime = input::runtime(&parsed.options, Some(program)).map_err(|error| console::fail(&error))?;
    let mut totals = Totals::default();
    let loaded = load(&runtime, &parsed, &mut totals)?;
    let symbol = parsed.options.entry.unwrap_or("main");
    let Some(entry) = loaded.iter().find_map(|unit| unit.address_of(symbol)) else {
        console::say(&format!("error: no entry: `{symbol}` is not defined by {}", input::names(&parsed)));
        return Err(Status::Failure);
    };
    runtime.shut_down_workers();
    if let Some(format) = parsed.options.timings {
        timings::entering(format, totals, started, &runtime);
    }
    if parsed.options.jitdump.is_some() {
        start::at_exit(close_dumps);
    }
    let _ = RUNTIME.set((start::process_id(), runtime.clone()));
    // The program lives until the process ends; what glibc calls at exit ends its images.
    std::mem::forget((loaded, runtime));
    Ok(Program { entry, arguments: program })
}

/// The program's runtime, and the process that it was made in.
static RUNTIME: OnceLock<(i32, Runtime)> = OnceLock::new();

/// Has what was compiled while the program ran kept, and says what the trace lacks. What comes of that nobody waits for.
extern "C" fn keep_compiled() {
    if let Some((process, runtime)) = RUNTIME.get()
        && *process == start::process_id()
    {
        // Nothing may unwind into the C library; what the panic says, the hook has said.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            runtime.check_trace();
            runtime.keep_compiled()
        }));
    }
}

/// Ends the dump for perf with the program.
extern "C" fn close_dumps() {
    hotbed_loader::debug::close_dumps();
}

/// Loads everything together, so that all may need each other whatever their order. Shared libraries and images come first in the
/// search. The units come back in the order in which an entry is looked for.
fn load(runtime: &Runtime, parsed: &Arguments, totals: &mut Totals) -> Result<Vec<Unit>, Status> {
    let mut loads: Vec<Load> = Vec::new();
    let mut seen = Vec::new();
    for file in parsed.files() {
        // Naming a file twice changes nothing, as for a linker.
        if matches!(file.kind, Kind::Input(_)) || seen.contains(&file.path()) {
            continue;
        }
        seen.push(file.path());
        loads.push(match file.kind {
            Kind::SharedLibrary => SharedLibrary::path(file.path()).into(),
            _ => Image::file(file.path()).into(),
        });
    }
    let program = program(parsed)?;
    let has_program = program.is_some();
    loads.extend(program);
    let mut units = runtime.load_all(loads).map_err(|error| console::fail(&error))?;
    // Images that others of these were linked against have come along.
    for unit in runtime.units().iter().filter(|unit| !unit.is_library()) {
        totals.add(unit.report());
        totals.mapped();
        console::print(&unit.report().rendered);
    }
    if parsed.options.verbose {
        say_what_differs(runtime);
    }
    if has_program {
        units.rotate_right(1);
    }
    Ok(units)
}

/// Names what several units define, each something else: one definition is used, and some may mean another one.
fn say_what_differs(runtime: &Runtime) {
    for Duplicate { symbol, unit, used, .. } in runtime.duplicates().that_are(Sameness::Differs) {
        let symbol = demangle(symbol).unwrap_or_else(|| symbol.clone());
        let used = used.as_deref().unwrap_or("the process");
        console::say(&format!(
            "{unit}: {symbol} is not the same as that of {used}, which is used: it was made of another source, or with other flags"
        ));
    }
}

/// What is compiled or linked for the program, if anything is.
pub(crate) fn program(parsed: &Arguments) -> Result<Option<Load>, Status> {
    let options = &parsed.options;
    // Debuggers and profilers are told of images only, and a worker compiles whole ones.
    let lazy = !options.eager && !options.isolate && !options.gdb && options.jitdump.is_none();
    Ok(input::program(parsed)?.map(|program| {
        let program = program.entry(options.entry.unwrap_or("main"));
        if lazy { program.lazy().into() } else { program.into() }
    }))
}

/// `argv` of the program: the first file as it was given, what came after `--`, and a null pointer.
fn program_arguments(name: &'static CStr, rest: &[&'static CStr]) -> ProgramArguments {
    let mut argv: Vec<*const c_char> = Vec::with_capacity(rest.len() + 2);
    argv.push(name.as_ptr());
    argv.extend(rest.iter().map(|argument| argument.as_ptr()));
    argv.push(std::ptr::null());
    ProgramArguments {
        count: c_int::try_from(rest.len() + 1).unwrap_or(c_int::MAX),
        values: argv.leak().as_ptr(),
        environment: std::ptr::null(),
    }
}
