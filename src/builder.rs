//! How a runtime is set up.

use crate::back_end::{BackEndOptions, BackEnds};
use crate::byte_size::ByteSize;
use crate::cache::{self, CacheOptions};
use crate::debug::DebugSettings;
use crate::error::Error;
use crate::executor::Executor;
use crate::lazy::{Functions, OnFailure, Trace};
use crate::observer::{Observer, Silent};
use crate::runtime::{Misses, Runtime};
use hotbed_loader::cpu::{CpuFeatures, CpuLevel};
use hotbed_loader::image::choose;
use hotbed_loader::sys::arguments::ProgramArguments;
use hotbed_loader::{FunctionFailure, Loader, LoaderOptions, Materializer, Provider};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where compilation happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// In this process, on a thread of its own: fastest, and fit for input that is trusted not to crash a compiler.
    #[default]
    InProcess,
    /// In a worker process: no input whatever can end the host, and time and memory can be limited.
    Process,
}

/// Where the store is.
#[derive(Debug, Clone, Default)]
enum CacheChoice {
    #[default]
    Default,
    At(PathBuf),
    None,
}

/// Sets a [`Runtime`] up; from [`Runtime::builder`].
#[derive(Default)]
#[must_use]
pub struct RuntimeBuilder {
    cache: CacheChoice,
    cache_size: Option<ByteSize>,
    cache_layers: Vec<PathBuf>,
    back_end: BackEndOptions,
    color: bool,
    cpu: Option<CpuLevel>,
    program: Option<ProgramArguments>,
    global_libraries: bool,
    debug: DebugSettings,
    autoload: bool,
    observer: Option<Arc<dyn Observer>>,
    on_failure: Option<OnFailure>,
    executor: Option<Arc<dyn Executor>>,
    trace: Option<PathBuf>,
    speculate: bool,
}

impl RuntimeBuilder {
    /// The directory of the store, which is made when it does not exist. Without this it is `hotbed` in `$XDG_CACHE_HOME` or
    /// `~/.cache`. A store that cannot be used is a warning, not an error.
    pub fn cache_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.cache = CacheChoice::At(path.as_ref().to_owned());
        self
    }

    /// No store: everything is compiled anew, nothing is written.
    pub fn no_cache(mut self) -> Self {
        self.cache = CacheChoice::None;
        self
    }

    /// How large the store gets. Now and then, after something was compiled, what is too much goes: what was never used again
    /// first, then what was not used for longest; not what some process has mapped. Without this it is what the environment
    /// variable `HOTBED_CACHE_SIZE` says, such as `500M` or `2G`, or else 5 GiB. Of several who use one store the least
    /// decides.
    pub fn cache_size(mut self, size: ByteSize) -> Self {
        self.cache_size = Some(size);
        self
    }

    /// One more store, which others have filled, for all users of a machine say: looked into when the user's own has nothing, nor
    /// any that was given before; never written to. It must belong to root or this user, and nobody else may write to it;
    /// one that cannot be used is a warning. Without this there are those that the environment variable
    /// `HOTBED_CACHE_LAYERS` names, with colons between them. [`no_cache`](Self::no_cache) goes for them too.
    pub fn cache_layer(mut self, path: impl AsRef<Path>) -> Self {
        self.cache_layers.push(path.as_ref().to_owned());
        self
    }

    /// The plugin that holds the back end. Without this it is `libhotbed_jit.so` beside the executable or in `../lib`, or
    /// else what the environment variable `HOTBED_JIT` says.
    pub fn back_end(mut self, path: impl AsRef<Path>) -> Self {
        self.back_end.plugin = Some(path.as_ref().to_owned());
        self
    }

    /// The executable `hotbed` that workers run. Without this it is the one beside the executable or beside the plugin, or
    /// else what the environment variable `HOTBED_WORKER` says.
    pub fn worker(mut self, path: impl AsRef<Path>) -> Self {
        self.back_end.worker = Some(path.as_ref().to_owned());
        self
    }

    /// Where compilation happens; in this process, if nothing is said.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.back_end.isolation = isolation;
        self
    }

    /// How long a worker may take for one unit before it is ended; no limit, if nothing is said. In this process nothing
    /// can be ended, so there it has no effect.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.back_end.time_limit = Some(limit);
        self
    }

    /// How many bytes of private memory a worker may have, itself included; less than 256 MiB is hardly enough. No limit,
    /// if nothing is said; no effect in this process.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.back_end.memory_limit = Some(bytes);
        self
    }

    /// Whether the compiler's messages carry terminal colours.
    pub fn color(mut self, color: bool) -> Self {
        self.color = color;
        self
    }

    /// The processor that all code of this runtime is for: what is compiled is compiled for it, of images with variants the one for it
    /// is taken, and an image that needs more is refused. It must not be more than this processor. With it a host can be
    /// tried as it would be on a lesser one. If nothing is said, images are chosen for this processor, and what is compiled is for
    /// the one that its flags say, or else for every one.
    pub fn cpu(mut self, level: CpuLevel) -> Self {
        self.cpu = Some(level);
        self
    }

    /// What constructors of units are called with; the arguments of this process, if nothing is said.
    pub fn program(mut self, arguments: ProgramArguments) -> Self {
        self.program = Some(arguments);
        self
    }

    /// Whether shared libraries are opened so that every later library sees their symbols, as those that a program is linked
    /// with are.
    pub fn global_libraries(mut self, global: bool) -> Self {
        self.global_libraries = global;
        self
    }

    /// Whether gdb is told about units, by its JIT interface: it then shows functions, lines and variables of units that were
    /// compiled with `-g`, and breakpoints in units hold from their first instruction. It may run the host or attach later.
    /// Loading takes longer and needs memory for a copy of the debug information; what cannot be shown is noted
    /// ([`Observer::note`]).
    ///
    /// A host that is stripped must export two symbols for it, with
    /// `-Wl,--export-dynamic-symbol=__jit_debug_descriptor` and `-Wl,--export-dynamic-symbol=__jit_debug_register_code`
    /// for its linker; without them gdb sees nothing, and that is noted too.
    pub fn gdb(mut self, gdb: bool) -> Self {
        self.debug.gdb = gdb;
        self
    }

    /// Tells perf about units that have no file, by `jit-PID.dump` in the folder, which is made when it does not exist:
    /// record with `perf record -k 1`, then let `perf inject --jit` work the dump in. Units from files, those in the store
    /// too, perf finds by itself.
    pub fn jitdump(mut self, folder: impl AsRef<Path>) -> Self {
        self.debug.jitdump = Some(folder.as_ref().to_owned());
        self
    }

    /// Whether symbols that nobody has are looked for in the libraries of the system, and the libraries that have them are
    /// opened, which runs their constructors. The observer is told which, and warned when several would do. Not done, if
    /// nothing is said.
    pub fn autoload(mut self, autoload: bool) -> Self {
        self.autoload = autoload;
        self
    }

    /// What happens when a function is called that could not be compiled ([`Source::lazy`](crate::Source::lazy)). It is
    /// called where the function was, and may end the thread or the process in its own way, or give the address of a function
    /// of the same type, which is called instead. Otherwise, or without it, the process ends with a message that names
    /// function and reason.
    pub fn on_function_failure(
        mut self,
        on_failure: impl Fn(&FunctionFailure<'_>) -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        self.on_failure = Some(Arc::new(on_failure));
        self
    }

    /// Whose threads compile functions when they are first called ([`Source::lazy`](crate::Source::lazy)); the runtime has some of its own for that, if
    /// nothing is said, as many as there are processors, which end when there is nothing to do. What is compiled whole, before it
    /// is loaded, is not affected, nor is a runtime with [`Isolation::Process`]. A child of a fork, in which the threads of the host are
    /// not, uses threads of the runtime's.
    ///
    /// ```
    /// # fn main() -> Result<(), hotbed::Error> {
    /// let (sender, jobs) = std::sync::mpsc::channel::<hotbed::Job>();
    /// std::thread::Builder::new().stack_size(hotbed::Job::STACK).spawn(move || jobs.iter().for_each(hotbed::Job::run)).unwrap();
    /// let runtime = hotbed::Runtime::builder().executor(move |job| drop(sender.send(job))).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn executor(mut self, executor: impl Executor + 'static) -> Self {
        self.executor = Some(Arc::new(executor));
        self
    }

    /// Has every function written to the file `path` when it is called first, in that order, one record a line (what stands in
    /// it: `hotbed_loader::trace`); behind what is there, if the file exists. A child of a fork goes on with its own
    /// first calls, and several processes may write one file. When writing fails, the observer is warned, once, and the
    /// program goes on.
    ///
    /// It is for a run that shall tell, not for every day: sources, IR, bitcode and programs are lazy then
    /// ([`Source::lazy`](crate::Source::lazy)), every function is compiled by itself, even one that the store has, and nothing that is
    /// compiled is kept. So calls are seen that an optimiser would dissolve. Objects, archives, images that are compiled and what
    /// cannot be taken to pieces have no functions that could be seen.
    pub fn trace(mut self, path: impl AsRef<Path>) -> Self {
        self.trace = Some(path.as_ref().to_owned());
        self
    }

    /// Whether functions that are likely to be called soon are compiled while others run, by a thread that has nothing else to
    /// do, where there are several processors: a program is there earlier, for more work in all. It stays in proportion to
    /// the functions that were called. Not done, if nothing is said, nor with an [executor](Self::executor) or a
    /// [trace](Self::trace).
    pub fn speculate(mut self, speculate: bool) -> Self {
        self.speculate = speculate;
        self
    }

    /// Who is told what happens.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Compiles with this instead of a plugin.
    #[cfg(test)]
    pub(crate) fn back_end_object(mut self, back_end: Arc<dyn hotbed_loader::boundary::BackEnd>) -> Self {
        self.back_end.object = Some(back_end);
        self
    }

    /// Makes the runtime. Nothing is read or opened yet, but for a trace: the store and the back end are when they are needed
    /// first.
    ///
    /// # Errors
    /// When limits make no sense, or what the environment says of the store's size; when this processor is less than the one that
    /// code shall be for; when a trace is wanted of what a worker compiles; when the trace cannot be written.
    pub fn build(self) -> Result<Runtime, Error> {
        let Self {
            cache,
            cache_size,
            cache_layers,
            back_end,
            color,
            cpu,
            program,
            global_libraries,
            autoload,
            debug,
            observer,
            on_failure,
            executor,
            trace,
            speculate,
        } = self;
        if back_end.time_limit == Some(Duration::ZERO) || back_end.memory_limit == Some(0) {
            return Err(Error::Build { reason: "a limit of zero leaves nothing to compile with".into() });
        }
        if trace.is_some() && back_end.isolation == Isolation::Process {
            let reason = "a worker compiles whole units, whose calls cannot be traced";
            return Err(Error::Build { reason: reason.into() });
        }
        if let Some(level) = cpu {
            choose(&[level.features()], CpuFeatures::host()).map_err(|lacks| Error::Build {
                reason: format!("code for {level} cannot run here: {lacks}"),
            })?;
        }
        let trace = trace.map(|path| Trace::open(&path)).transpose()?;
        let first_calls = trace.as_ref().map(|trace| Arc::clone(trace.file()));
        let cache = match cache {
            CacheChoice::None => CacheOptions::default(),
            choice => CacheOptions {
                directory: match choice {
                    CacheChoice::At(path) => Some(path),
                    _ => cache::usual_directory(),
                },
                size: cache_size.map_or_else(cache::usual_size, |size| Ok(Some(size)))?,
                layers: if cache_layers.is_empty() { cache::usual_layers() } else { cache_layers },
            },
        };
        let observer = observer.unwrap_or_else(|| Arc::new(Silent));
        let debug = debug.options(&observer);
        let back_ends = Arc::new(BackEnds::new(back_end));
        // What a worker compiles, it compiles whole.
        let functions = back_ends.compiles_functions().then(|| {
            Functions::new(
                Arc::clone(&back_ends),
                on_failure,
                executor,
                trace,
                Arc::clone(&observer),
                speculate,
            )
        });
        let materializer = functions.clone().map(|functions| functions as Arc<dyn Materializer>);
        let misses = Arc::new(Misses::default());
        let provider: Option<Arc<dyn Provider>> = Some(Arc::clone(&misses) as _);
        let options = LoaderOptions {
            global_libraries,
            program,
            debug,
            materializer,
            provider,
            first_calls,
            cpu: cpu.map(CpuLevel::features),
            ..LoaderOptions::default()
        };
        let loader = (Loader::new(options), &*misses);
        Ok(Runtime::assemble(loader, (back_ends, functions), cache, autoload, (color, cpu), observer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_zero_are_refused() {
        assert!(Runtime::builder().no_cache().time_limit(Duration::ZERO).build().is_err());
        assert!(Runtime::builder().no_cache().memory_limit(0).build().is_err());
    }
}
