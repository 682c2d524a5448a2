//! Help texts, and the subcommands whose arguments are not clang's.

use crate::{Status, doctor};
use clap::{Parser, Subcommand};
use std::ffi::{CStr, OsStr};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

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
  --no-cache           neither read nor write the store
  --cache-dir DIR      where the store is [default: $XDG_CACHE_HOME/hotbed or ~/.cache/hotbed]
  --isolate            compile in a worker process
  --verbose            say what is done
  --help               this text

The exit status is 0 when somebody has it, 1 when nobody has (names like it are shown) or something is wrong with the
files, 2 for a command line that makes no sense.
";

/// `hotbed image build --help`.
pub(crate) const IMAGE_BUILD: &str = "\
Compiles and links files into one image.

Usage: hotbed image build -o OUT.hbi [CLANG FLAGS] [OPTIONS] FILE...

FILE is .c .cc .cpp .cxx .ll .bc .o .a, or - (standard input) with --lang.

Options:
  -o OUT.hbi           the file to write
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
    /// Make images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Say what is found, what is missing, and how to mend it
    Doctor {
        /// Where the store is
        #[arg(long, value_name = "DIR")]
        cache_dir: Option<std::path::PathBuf>,
    },
}

#[derive(Subcommand)]
enum ImageCommand {
    /// Compile and link files into one image
    #[command(override_help = IMAGE_BUILD)]
    Build,
}

/// Everything but `run`, `explain` and `image build` with arguments.
pub(crate) fn command(arguments: &[&'static CStr]) -> Status {
    let arguments = arguments.iter().map(|argument| OsStr::from_bytes(argument.to_bytes()));
    let status = match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Command::Doctor { cache_dir } }) => doctor::examine(cache_dir.as_deref()),
        // These have been dealt with before the general parser is asked.
        Ok(Cli { command: Command::Run | Command::Explain | Command::Image(ImageCommand::Build) }) => {
            Status::Usage
        }
        Err(error) => {
            // Nobody is there to be told when this cannot be written.
            let _ = error.print();
            if error.exit_code() == 0 { Status::Success } else { Status::Usage }
        }
    };
    let _ = std::io::stdout().flush();
    status
}
