//! `hotbed doctor`: tries what a program will need, and says what is found, what is missing and how to mend it.
//!
//! The checks do the real thing, for a header that exists may still be one that cannot be used.

use crate::Status;
use hotbed::{BUILD, Isolation, Lang, Observer, Runtime, SharedLibrary, Source, Unit};
use hotbed_loader::sys::sync::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a check found: details, or why it failed.
type Finding = Result<String, String>;

/// One thing that was tried.
struct Check {
    what: &'static str,
    /// A program can run without it otherwise.
    needed: bool,
    mend: &'static str,
    /// Nothing when it could not be tried.
    finding: Option<Finding>,
}

/// Tries everything and prints a line for each; a failure when something that is needed is missing.
pub(crate) fn examine(cache_dir: Option<&Path>) -> Status {
    let check = |what, mend, finding| Check { what, needed: true, mend, finding };
    let tool = |what, finding| Check {
        what,
        needed: false,
        mend: "optional; the package of the same name",
        finding,
    };
    let back_end = back_end();
    // Where the back end is missing, the rest would only say so again.
    let with = |try_it: &dyn Fn() -> Finding| back_end.as_ref().ok().map(|_| try_it());
    let checks = [
        check(
            "C headers",
            "install libc6-dev",
            with(&|| compile("#include <stdio.h>\n#include <pthread.h>\n", Lang::C, &[])),
        ),
        check("linking with -lm", "install libc6-dev", with(&|| compile("", Lang::C, &["-lm", "-lpthread"]))),
        check(
            "C++ headers",
            "install g++",
            with(&|| compile("#include <string>\n#include <vector>\n", Lang::Cpp, &[])),
        ),
        check("libstdc++", "install libstdc++6", Some(library("stdc++"))),
        check("libgcc_s", "install libgcc-s1", Some(library("gcc_s"))),
        check("worker", "put the command beside the back end, or name it in HOTBED_WORKER", with(&worker)),
        check(
            "store",
            "choose a directory of your own with --cache-dir, or remove what is in the way",
            with(&|| store(cache_dir)),
        ),
        tool("gdb", Some(on_path("gdb"))),
        tool("perf", Some(on_path("perf"))),
    ];
    let mend = "put libhotbed_jit.so of this build beside the command, or name it in HOTBED_JIT";
    let back_end = check("back end", mend, Some(back_end.clone()));
    let mut missing = 0;
    for Check { what, needed, mend, finding } in std::iter::once(&back_end).chain(&checks) {
        match finding {
            None => println!("untried  {what}: wants a back end"),
            Some(Ok(detail)) => println!("ok       {what}: {detail}"),
            Some(Err(why)) => {
                missing += u32::from(*needed);
                println!("{}  {what}: {why}", if *needed { "missing" } else { "absent " });
                println!("         to mend it: {mend}");
            }
        }
    }
    match missing {
        0 => Status::Success,
        _ => Status::Failure,
    }
}

/// A tiny unit through the whole way: plugin, clang, lld, loader.
fn answer(runtime: &Runtime) -> Result<Unit, String> {
    let source = Source::text("doctor.c", "int hotbed_doctor(void) { return 42; }\n");
    let unit = runtime.load(source).map_err(|error| error.to_string())?;
    // SAFETY: the function is defined above with this type.
    let function = unsafe { unit.get::<unsafe extern "C" fn() -> i32>("hotbed_doctor") };
    let function = function.map_err(|error| error.to_string())?;
    // SAFETY: it touches nothing.
    match unsafe { function() } {
        42 => {
            drop(function);
            Ok(unit)
        }
        other => Err(format!("a function that returns 42 returned {other}")),
    }
}

fn back_end() -> Finding {
    let runtime = Runtime::builder().no_cache().build().map_err(|error| error.to_string())?;
    answer(&runtime).map(|_| format!("build {BUILD}, compiles, links and loads"))
}

fn worker() -> Finding {
    let runtime = Runtime::builder().no_cache().isolation(Isolation::Process).build();
    answer(&runtime.map_err(|error| error.to_string())?)
        .map(|_| "compiles in a process of its own".to_owned())
}

fn compile(text: &str, lang: Lang, flags: &[&str]) -> Finding {
    let runtime = Runtime::builder().no_cache().build().map_err(|error| error.to_string())?;
    let name = if lang == Lang::Cpp { "doctor.cpp" } else { "doctor.c" };
    let source = Source::text(name, text).lang(lang).flags(flags.iter().copied());
    match runtime.load(source) {
        Ok(_) => Ok("usable".to_owned()),
        Err(error) => {
            Err(error.diagnostics().first().map_or(error.to_string(), |first| first.message.clone()))
        }
    }
}

fn library(name: &str) -> Finding {
    let runtime = Runtime::builder().no_cache().build().map_err(|error| error.to_string())?;
    let unit = runtime.load(SharedLibrary::name(name)).map_err(|error| error.to_string())?;
    Ok(unit.path().map_or_else(|| unit.name().to_owned(), |path| path.display().to_string()))
}

/// Keeps what a runtime complains about.
#[derive(Default)]
struct Complaints(Mutex<Vec<String>>);

impl Observer for Complaints {
    fn warning(&self, line: &str) {
        self.0.lock().push(line.to_owned());
    }
}

fn store(dir: Option<&Path>) -> Finding {
    let complaints = Arc::new(Complaints::default());
    let mut builder = Runtime::builder().observer(Arc::clone(&complaints) as Arc<dyn Observer>);
    if let Some(dir) = dir {
        builder = builder.cache_dir(dir);
    }
    let runtime = builder.build().map_err(|error| error.to_string())?;
    let unit = answer(&runtime);
    if let Some(complaint) = complaints.0.lock().first() {
        return Err(complaint.clone());
    }
    let image = unit?.path().ok_or("the image was not kept")?;
    Ok(format!("usable, the image is {}", image.display()))
}

fn on_path(tool: &str) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found: Option<PathBuf> =
        std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file());
    found.map(|file| file.display().to_string()).ok_or_else(|| "not found on PATH".to_owned())
}
