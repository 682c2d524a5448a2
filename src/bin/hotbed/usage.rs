//! Help texts, and the subcommands whose arguments are not clang's.

use crate::cache::{self, CacheCommand};
use crate::{Status, doctor, inspect};
use clap::{Parser, Subcommand};
use std::ffi::{CStr, OsStr};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// `hotbed run --help`.
pub(crate) const RUN: &str = "\
Runs C, C++, LLVM IR, bitcode, objects, archives and images as if they were an executable.

Usage: hotbed run [CLANG FLAGS] [OPTIONS] FILE... [-- ARG...]

FILE is .c .cc .cpp .cxx .ll .bc .o .a .so .hbi, or - (standard input) with --lang. The first FILE is argv[0].
Clang's flags mean what they mean to clang: -O2 -g -std=c++20 -DX -Iinc -Llib -lm -include pre.h -x LANG ...

Options:
  --entry SYMBOL       the function to call [default: main]; its result is the exit status
  --lang LANG          language of sources and of standard input: c, c++, ir, bitcode, object, archive, image, shared
  --eager, --lazy      compile whole units first, or each function when it is first called [default]
  --no-cache           neither read nor write the store
  --cache-dir DIR      where the store is [default: $XDG_CACHE_HOME/hotbed or ~/.cache/hotbed]
  --cache-size SIZE    how large it gets: 500M, 2G ... [default: $HOTBED_CACHE_SIZE or 5G]
  --cache-layer DIR    look there too, and never write there; may be given several times [default: $HOTBED_CACHE_LAYERS]
  --cpu LEVEL          the processor that all code of this run is for: x86-64, x86-64-v2, x86-64-v3, x86-64-v4 or native; compile
                       for it, take the variant for it of an image that has several, refuse an image that needs more; not more
                       than this processor [default: compile as the flags say, and take what this processor can run]
  --isolate            compile in a worker process
  --autoload           look for libraries that have unresolved symbols, and load them
  --gdb                tell gdb about the code: run `gdb --args hotbed run --gdb -g FILE...`
  --jitdump DIR        tell perf about code that has no file, by DIR/jit-PID.dump (`perf record -k 1`, `perf inject --jit`)
  --timings[=json]     to standard error, at exit: phases in ms, counts, and the functions that took longest to compile
  --trace FILE         append every function that is called, in the order of first calls, one record a line; each is then
                       compiled by itself, and nothing of it kept
  --verbose            say what is done, the linker's line, and why something has to be compiled
  --help               this text

The exit status is the program's; 1 when it could not be started, 2 for a command line that makes no sense.
";

/// `hotbed explain --help`.
pub(crate) const EXPLAIN: &str = "\
Says who has a symbol, who is asked for it, in order, what each says, and why the winner wins.

Usage: hotbed explain [CLANG FLAGS] [OPTIONS] SYMBOL FILE...

SYMBOL is a name as the linker sees it or, of C++, as the source has it: printf, _Z5twicei, 'n::twice(int)'.
FILE... is compiled, linked and mapped as `hotbed run` does it, and not started; other symbols may be missing. The answer is for a
reference from the first unit that refers to the symbol.

Options:
  --json               every field, as one object on one line
  --autoload           say too which libraries of the system have a symbol that nobody else has
  --entry SYMBOL       as for `hotbed run` [default: main]
  --lang LANG          language of sources and of standard input: c, c++, ir, bitcode, object, archive, image, shared
  --cpu LEVEL          as for `hotbed run`
  --no-cache           neither read nor write the store
  --cache-dir DIR, --cache-size SIZE, --cache-layer DIR    as for `hotbed run`
  --isolate            compile in a worker process
  --verbose            say what is done
  --help               this text

The exit status is 0 when somebody has it, 1 when nobody has (names like it are shown) or something is wrong with the
files, 2 for a command line that makes no sense.
";

/// `hotbed cache why --help`.
pub(crate) const CACHE_WHY: &str = "\
Says which entry of the store would serve, or why none does and something has to be compiled. Nothing is compiled or written.

Usage: hotbed cache why [CLANG FLAGS] [OPTIONS] FILE... [-- ARG...]

Everything is as for `hotbed run`, whose store would be asked. Of each entry that was made of the same files it is said why it
does not serve; what is known only to have been made with other flags has no image.

Options:
  --json               every field, as one object on one line
  --eager, --lazy      as for `hotbed run`: units compiled whole, or each function when it is first called [default]
  --entry SYMBOL       as for `hotbed run` [default: main]
  --lang LANG          language of sources and of standard input: c, c++, ir, bitcode, object, archive, image, shared
  --cpu LEVEL          as for `hotbed run`
  --cache-dir DIR      where the store is [default: $XDG_CACHE_HOME/hotbed or ~/.cache/hotbed]
  --help               this text

The exit status is 0 whatever the answer is, 1 when a file cannot be read, 2 for a command line that makes no sense.
";

/// `hotbed image build --help`.
pub(crate) const IMAGE_BUILD: &str = "\
Compiles and links files into one image.

Usage: hotbed image build -o OUT.hbi [CLANG FLAGS] [OPTIONS] FILE...

FILE is .c .cc .cpp .cxx .ll .bc .o .a, or - (standard input) with --lang; or .hbi, an image to link against: it is not made
part of the new one, but loaded with it, found beside it or where its libraries are, and must export what it does now.

Options:
  -o OUT.hbi           the file to write
  --trace FILE         what `hotbed run --trace` has written: the functions that were called lie together, in that order;
                       of several traces the first one's come first
  --rest WHAT          what becomes of functions that no trace names: compile [default], or bitcode, which is compiled when
                       one is called after all, by a host that has a back end
  --strict             make it an error if a trace names something that is not there any more, or is not what it was
  --cpu LEVEL[;LEVEL...]  the processors that code of the image is for: x86-64, x86-64-v2, x86-64-v3, x86-64-v4, native (this one);
                       a variant for each in the one file, of which a run takes the best that its processor can run, and
                       linkers and dlopen the least demanding [default: as the flags say]
  --entry SYMBOL       take this symbol out of archives even when nothing refers to it
  --lang LANG          language of sources and of standard input
  --isolate            compile in a worker process
  --timings[=json]     to standard error: phases in ms, and counts
  --verbose            say what is done, and the linker's line
  --help               this text
";

/// Prints a help text.
pub(crate) fn help(text: &str) -> Status {
    let mut out = std::io::stdout();
    // Nobody is there to be told when this cannot be written.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Status::Success
}

#[derive(Parser)]
#[command(
    name = "hotbed",
    version,
    about = "Runs C, C++, LLVM IR and compiled code a moment after it was written"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run sources, IR, objects and images as if they were an executable
    #[command(override_help = RUN)]
    Run,
    /// Say who has a symbol, who is asked for it, and why the winner wins
    #[command(override_help = EXPLAIN)]
    Explain,
    /// Make images, and look at them
    #[command(subcommand)]
    Image(ImageCommand),
    /// Say what is in the store, and make room in it
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Say what is found, what is missing, and how to mend it
    Doctor {
        /// Where the store is
        #[arg(long, value_name = "DIR")]
        cache_dir: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ImageCommand {
    /// Compile and link files into one image
    #[command(override_help = IMAGE_BUILD)]
    Build,
    /// Say what an image says about itself: exports, imports, inputs, what is compiled
    Inspect {
        /// Print every field, as one object on one line
        #[arg(long)]
        json: bool,
        /// The image
        #[arg(value_name = "FILE.hbi")]
        file: PathBuf,
    },
    /// Make sure that images can be loaded as far as that depends on them; the exit status is 1 when one cannot
    Verify {
        /// The images
        #[arg(value_name = "FILE.hbi", required = true)]
        files: Vec<PathBuf>,
    },
}

/// Everything but `run`, `explain`, `image build` and `cache why` with arguments.
pub(crate) fn command(arguments: &[&'static CStr]) -> Status {
    let arguments = arguments.iter().map(|argument| OsStr::from_bytes(argument.to_bytes()));
    let status = match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Command::Doctor { cache_dir } }) => doctor::examine(cache_dir.as_deref()),
        Ok(Cli { command: Command::Image(ImageCommand::Inspect { json, file }) }) => {
            inspect::inspect(&file, json)
        }
        Ok(Cli { command: Command::Image(ImageCommand::Verify { files }) }) => inspect::verify(&files),
        // These have been dealt with before the general parser is asked.
        Ok(Cli {
            command:
                Command::Run
                | Command::Explain
                | Command::Image(ImageCommand::Build)
                | Command::Cache(CacheCommand::Why),
        }) => Status::Usage,
        Ok(Cli { command: Command::Cache(command) }) => cache::cache(&command),
        Err(error) => {
            // Nobody is there to be told when this cannot be written.
            let _ = error.print();
            if error.exit_code() == 0 { Status::Success } else { Status::Usage }
        }
    };
    let _ = std::io::stdout().flush();
    status
}
