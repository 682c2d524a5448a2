//! Real libraries as packages: each is an image, and its program another one that is linked against it and brings it along;
//! against the executable that clang makes of both.

use crate::libraries::Library;
use crate::support::{Outcome, Scratch, execute, finish, finish_within, hotbed, timing};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A library and its program, and the folder that their images and their store are in.
struct Packages {
    scratch: Scratch,
    store: PathBuf,
    name: &'static str,
    library: Library,
}

impl Packages {
    fn new(name: &'static str) -> Self {
        let scratch = Scratch::new(&format!("packages-{name}"));
        Self { store: scratch.join("store"), scratch, name, library: Library::find(name) }
    }

    fn image(&self) -> PathBuf {
        self.scratch.join(format!("{}.hbi", self.name))
    }

    fn program(&self) -> PathBuf {
        self.scratch.join("program.hbi")
    }

    fn build(&self, image: &Path) -> Command {
        let mut build = hotbed(["image", "build", "--timings=json", "--cache-dir"]);
        build.arg(&self.store).arg("-o").arg(image);
        build
    }

    /// Builds the library, with flags of its own besides.
    fn build_library(&self, flags: &[&str]) -> Command {
        let mut build = self.build(&self.image());
        build.args(&self.library.flags).args(flags).args(&self.library.files).args(&self.library.libs);
        build
    }

    /// Builds the program against the library.
    fn build_program(&self) -> Command {
        let mut build = self.build(&self.program());
        // A standard of C++ is none of C.
        let is_c = self.library.compiler() == "clang-22";
        let flags = self.library.flags.iter().filter(|flag| !(is_c && flag.starts_with("-std=c++")));
        build.args(flags).arg(&self.library.program).arg(self.image()).args(&self.library.libs);
        build
    }

    /// Runs the program alone, from whatever folder it is in.
    #[track_caller]
    fn assert_runs(&self, program: &Path, want: &Outcome, what: &str) {
        let mut command = hotbed(["run", "--timings=json", "--cache-dir"]);
        let got = finish(command.arg(&self.store).arg(program));
        got.assert_same(want, &format!("{}: {what}", self.name));
        for (key, value) in [("images_mapped", "2"), ("functions_compiled", "0"), ("backend_loaded", "false")]
        {
            assert_eq!(timing(&got.stderr, key), value, "{}, {what}: {key}", self.name);
        }
    }

    fn check(&self, want: &Outcome) {
        let built = patiently(&mut self.build_library(&[])).assert_success("the library");
        assert_ne!(timing(&built.stderr, "units_compiled"), "0");
        let built = finish(&mut self.build_program()).assert_success("the program");
        assert_eq!(timing(&built.stderr, "units_compiled"), "1");
        self.assert_runs(&self.program(), want, "as built");

        // Made anew it is another image with the same interface.
        let first = std::fs::read(self.image()).unwrap();
        let mut anew = self.build_library(&["-fstack-protector-all"]);
        patiently(&mut anew).assert_success("the library, made anew");
        assert_ne!(std::fs::read(self.image()).unwrap(), first);
        self.assert_runs(&self.program(), want, "with the library made anew");
        let built = finish(&mut self.build_program()).assert_success("the program again");
        assert_eq!(timing(&built.stderr, "units_compiled"), "0", "{}", built.stderr);

        // Both moved, and the library is beside the program.
        let elsewhere = self.scratch.folder("elsewhere");
        for image in [self.image(), self.program()] {
            std::fs::rename(&image, elsewhere.join(image.file_name().unwrap())).unwrap();
        }
        self.assert_runs(&elsewhere.join("program.hbi"), want, "moved");
        std::fs::remove_file(elsewhere.join(self.image().file_name().unwrap())).unwrap();
        let got = finish(hotbed(["run", "--no-cache"]).arg(elsewhere.join("program.hbi")));
        let missing = format!("it needs the image {}.hbi", self.name);
        assert!(got.stdout.is_empty() && got.stderr.contains(&missing), "{}", got.stderr);
    }
}

/// What the program does that clang makes of a library and its program.
fn executable(scratch: &Scratch, library: &Library) -> Outcome {
    let executable = scratch.join("executable");
    let objects = library.compile(scratch, &["-O0"], "o");
    let mut link = Command::new(library.compiler());
    execute(link.args(&objects).args(&library.libs).arg("-o").arg(&executable));
    finish(&mut Command::new(&executable))
}

/// Runs what may take many minutes.
fn patiently(command: &mut Command) -> Outcome {
    finish_within(command, b"", Duration::from_secs(3600))
}

macro_rules! libraries {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            let packages = Packages::new(stringify!($name));
            packages.check(&executable(&packages.scratch, &packages.library));
        })*
    };
}

libraries!(sqlite3, lua, flecs, zlib, stb_image, imgui, miniaudio);

#[test]
#[ignore = "slow: make test-slow"]
fn jolt() {
    let packages = Packages::new("jolt");
    // clang compiles a source a folder, which includes those that are in it: it would take minutes for all by themselves.
    let mut joined = Library::find("jolt");
    let mut texts: BTreeMap<&Path, String> = BTreeMap::new();
    for file in &packages.library.files {
        let text = texts.entry(file.parent().unwrap()).or_default();
        text.push_str(&format!("#include \"{}\"\n", file.display()));
    }
    let write = |(number, text)| packages.scratch.write(format!("joined/{number}.cpp"), text);
    joined.files = texts.into_values().enumerate().map(write).collect();
    let program = format!("#include \"{}\"\n", joined.program.display());
    joined.program = packages.scratch.write("program.cpp", program);
    packages.check(&executable(&packages.scratch, &joined));
}

/// Eight processes at once build the packages of three libraries in one store, each in another order, and run the programs.
#[test]
fn eight_processes_share_a_store() {
    let shared = Scratch::new("packages-eight");
    let all = ["lua", "zlib", "stb_image"].map(|name| Packages {
        scratch: Scratch::new(&format!("packages-eight-{name}")),
        store: shared.join("store"),
        name,
        library: Library::find(name),
    });
    let want = all.each_ref().map(|packages| executable(&packages.scratch, &packages.library));
    let compiled = |mut command: Command| -> usize {
        let built = finish(&mut command).assert_success("one of eight");
        timing(&built.stderr, "units_compiled").parse().unwrap()
    };
    let one = &|first: usize| {
        let mut counts = [0; 3];
        for at in (0..3).map(|step| (first + step) % 3) {
            counts[at] += compiled(all[at].build_library(&[])) + compiled(all[at].build_program());
            all[at].assert_runs(&all[at].program(), &want[at], "at the same time");
        }
        counts
    };
    let counts: Vec<[usize; 3]> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|first| scope.spawn(move || one(first))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (at, packages) in all.iter().enumerate() {
        let sum: usize = counts.iter().map(|counts| counts[at]).sum();
        assert_eq!(sum, packages.library.files.len() + 1, "{}", packages.name);
    }
}
