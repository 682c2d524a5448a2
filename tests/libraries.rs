//! Seven real libraries, each with a small program: as source, objects, an archive, bitcode and an image, through the
//! command and through the library, against the executable that clang makes.
//!
//! The library's part runs in a process of its own, a host that has all kinds of the same code loaded at the same time;
//! it calls `main` of each.

use crate::support::{
    Child, Outcome, Scratch, archive, child_flush, execute, finish, hotbed, kept, task, timing,
};
use hotbed::{Archive, Image, Lang, Program, Runtime, Source, Unit};
use std::ffi::{c_char, c_int};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A line of `inputs/crates.tsv`, as `scripts/fetch-inputs` has prepared it.
pub(crate) struct Library {
    pub(crate) flags: Vec<String>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) program: PathBuf,
    pub(crate) libs: Vec<String>,
}

/// The same made by clang.
struct Made {
    objects: Vec<PathBuf>,
    bitcode: Vec<PathBuf>,
    archive: PathBuf,
    executable: PathBuf,
}

const OPTIONS: [&str; 2] = ["-w", "-O0"];

impl Library {
    pub(crate) fn find(name: &str) -> Self {
        let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/inputs");
        let lines = |kind: &str| -> Vec<String> {
            let path = inputs.join(format!("{name}.{kind}"));
            let text = std::fs::read_to_string(&path);
            let text = text.unwrap_or_else(|e| panic!("{}: {e}; run scripts/fetch-inputs", path.display()));
            text.lines().map(str::to_owned).collect()
        };
        Self {
            flags: OPTIONS.into_iter().map(str::to_owned).chain(lines("flags")).collect(),
            files: lines("files").into_iter().map(PathBuf::from).collect(),
            program: lines("program").into_iter().map(PathBuf::from).next().unwrap(),
            libs: lines("libs"),
        }
    }

    /// All sources.
    fn sources(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().chain([&self.program]).map(PathBuf::as_path)
    }

    pub(crate) fn compiler(&self) -> &'static str {
        if self.program.extension().is_some_and(|suffix| suffix == "cpp") { "clang++-22" } else { "clang-22" }
    }

    /// Compiles the sources with `flags`; where each result is.
    pub(crate) fn compile(&self, scratch: &Scratch, flags: &[&str], suffix: &str) -> Vec<PathBuf> {
        let of = |folder: &Path, sources: &[PathBuf]| -> Vec<PathBuf> {
            // One call for all of them; clang names the results after the sources.
            let mut command = Command::new(self.compiler());
            execute(command.current_dir(folder).args(&self.flags).args(flags).arg("-c").args(sources));
            let stem = |path: &PathBuf| folder.join(path.file_stem().unwrap()).with_extension(suffix);
            sources.iter().map(stem).collect()
        };
        // The program may have the name of one of the library's files.
        let mut made = of(&scratch.folder(&format!("{suffix}/library")), &self.files);
        made.extend(of(&scratch.folder(&format!("{suffix}/program")), std::slice::from_ref(&self.program)));
        made
    }

    fn make(&self, scratch: &Scratch) -> Made {
        let objects = self.compile(scratch, &["-fPIC"], "o");
        // As plain clang makes it: for an executable.
        let bitcode = self.compile(scratch, &["-emit-llvm"], "bc");
        let whole = scratch.join("whole.a");
        archive(&whole, &objects);
        let executable = scratch.join("executable");
        let mut command = Command::new(self.compiler());
        execute(command.args(&objects).args(&self.libs).arg("-o").arg(&executable));
        Made { objects, bitcode, archive: whole, executable }
    }
}

/// The command with `inputs` between the flags and the libraries.
fn run(scratch: &Scratch, library: &Library, flags: &[String], inputs: &[&Path]) -> Outcome {
    let mut command = hotbed(["run", "--timings=json", "--cache-dir"]);
    finish(command.arg(scratch.join("store")).args(flags).args(inputs).args(&library.libs))
}

fn check(name: &str) {
    let scratch = Scratch::new(&format!("library-{name}"));
    let library = Library::find(name);
    let made = library.make(&scratch);
    let want = finish(&mut Command::new(&made.executable));
    let paths = |paths: &'static str| format!("{name} from {paths}");

    let sources: Vec<&Path> = library.sources().collect();
    let cold = run(&scratch, &library, &library.flags, &sources);
    cold.assert_same(&want, &paths("source, cold"));
    assert_eq!(timing(&cold.stderr, "units_compiled"), sources.len().to_string());
    assert_eq!(timing(&cold.stderr, "backend_loaded"), "true");
    kept(&scratch.join("store"));
    for round in ["source, warm", "source, warmer"] {
        let warm = run(&scratch, &library, &library.flags, &sources);
        warm.assert_same(&want, &paths(round));
        assert_warm(&warm, round);
    }

    let image = scratch.join("built.hbi");
    let mut build = hotbed(["image", "build", "--cache-dir"]);
    build.arg(scratch.join("store")).arg("-o").arg(&image).args(&made.objects).args(&library.libs);
    finish(&mut build).assert_success("image build");
    for (kind, inputs) in [
        ("objects", made.objects.clone()),
        ("an archive", vec![made.archive.clone()]),
        ("bitcode", made.bitcode.clone()),
        ("an image", vec![image.clone()]),
    ] {
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        let got = run(&scratch, &library, &[], &inputs);
        got.assert_same(&want, &format!("{name} from {kind}"));
        assert_eq!(timing(&got.stderr, "images_mapped"), "1", "{kind}");
    }

    let child = Child::new("libraries::child", name).env("HOTBED_TEST_FOLDER", scratch.path());
    for (kind, output) in parts(&child.succeed()) {
        assert_eq!(output, want.stdout, "{name} from {kind}, through the library");
    }
}

#[track_caller]
fn assert_warm(outcome: &Outcome, what: &str) {
    for count in ["units_compiled", "functions_compiled", "images_linked"] {
        assert_eq!(timing(&outcome.stderr, count), "0", "{what}: {count}: {}", outcome.stderr);
    }
    assert_eq!(timing(&outcome.stderr, "backend_loaded"), "false", "{what}");
    assert_ne!(timing(&outcome.stderr, "images_mapped"), "0", "{what}");
}

const KINDS: [&str; 7] =
    ["source", "objects", "archive", "bitcode", "image file", "image bytes", "built image"];

/// The output of each of the host's units.
fn parts(output: &str) -> Vec<(String, String)> {
    let parts: Vec<_> = output
        .split("\n== ")
        .skip(1)
        .map(|part| part.split_once(" ==\n").unwrap())
        .map(|(kind, output)| (kind.to_owned(), output.to_owned()))
        .collect();
    assert_eq!(parts.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), KINDS);
    parts
}

/// The host: loads every kind, then calls every `main`.
#[test]
fn child() {
    let Some(task) = task() else { return };
    let folder = PathBuf::from(std::env::var_os("HOTBED_TEST_FOLDER").unwrap());
    let library = Library::find(task.as_str());
    let named = |suffix: &str| -> Vec<PathBuf> {
        let of = |part: &str, source: &Path| {
            folder.join(suffix).join(part).join(source.file_stem().unwrap()).with_extension(suffix)
        };
        let mut all: Vec<PathBuf> = library.files.iter().map(|source| of("library", source)).collect();
        all.push(of("program", &library.program));
        all
    };
    let new_runtime = || Runtime::builder().cache_dir(folder.join("host-store")).build().unwrap();
    let shared = new_runtime();
    // Units of one runtime share C++'s inline functions, and those of Dear ImGui use a variable of the copy that was
    // loaded first; so there each copy has a runtime of its own.
    let cpp = library.compiler() == "clang++-22";
    let runtimes: Vec<Runtime> = KINDS.map(|_| if cpp { new_runtime() } else { shared.clone() }).into();
    let mixed = |paths: &[PathBuf], lang: Lang| {
        let mut program = Program::new().flags(&library.libs);
        for path in paths {
            let name = path.strip_prefix(&folder).unwrap().to_string_lossy();
            program = program.bytes(name, lang, std::fs::read(path).unwrap());
        }
        program
    };
    let image = folder.join("built.hbi");
    let own_image = folder.join("own.hbi");
    let sources: Vec<PathBuf> = library.sources().map(Path::to_owned).collect();
    let flags: Vec<&String> = library.flags.iter().chain(&library.libs).collect();
    let source = Source::files(&sources).flags(flags);
    let load = |kind: &str| -> hotbed::Load {
        match kind {
            "source" => source.clone().named(kind).into(),
            "objects" => mixed(&named("o"), Lang::Object).named(kind).into(),
            "archive" => {
                Archive::file(folder.join("whole.a")).flags(&library.libs).whole().named(kind).into()
            }
            "bitcode" => mixed(&named("bc"), Lang::Bitcode).named(kind).into(),
            "image file" => Image::file(&image).named(kind).into(),
            "image bytes" => Image::bytes(kind, std::fs::read(&image).unwrap()).into(),
            _ => {
                let program = mixed(&named("o"), Lang::Object).named(kind);
                shared.image(&own_image).unit(program).build().unwrap();
                Image::file(&own_image).named(kind).into()
            }
        }
    };
    let units: Vec<Unit> = KINDS
        .into_iter()
        .zip(&runtimes)
        .map(|(kind, runtime)| match runtime.load(load(kind)) {
            Ok(unit) => unit,
            Err(error) => panic!("{kind}: {}", error.render()),
        })
        .collect();
    for unit in &units {
        print!("\n== {} ==\n", unit.name());
        child_flush();
        // SAFETY: every program has such a `main`.
        let main = unsafe { unit.get::<unsafe extern "C" fn(c_int, *const *const c_char) -> c_int>("main") };
        let name = c"program";
        let arguments = [name.as_ptr(), std::ptr::null()];
        // SAFETY: as above, with a null-terminated list of arguments.
        let status = unsafe { main.unwrap()(1, arguments.as_ptr()) };
        child_flush();
        assert_eq!(status, 0, "{}", unit.name());
    }
    // Whatever the programs have left behind must not keep a unit.
    for unit in units {
        unit.unload().unwrap_or_else(|error| panic!("{error}"));
    }
}

macro_rules! libraries {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

libraries!(sqlite3, lua, flecs, zlib, stb_image, imgui, miniaudio);
