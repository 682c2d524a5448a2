//! Libraries found on demand: `--autoload` and `Runtime::builder().autoload(true)`, against programs that are linked with
//! the library.

use crate::support::{End, Outcome, Scratch, execute, finish, hotbed, kept, shared_library, timing};
use hotbed::{Observer, Runtime, Source};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

const ZLIB: &str = "#include <stdio.h>\nunsigned long crc32(unsigned long, const unsigned char *, unsigned);\n\
                    int main(void) { printf(\"%lx\\n\", crc32(0, (const unsigned char *)\"abc\", 3)); return 3; }";

/// Libraries of one's own in `LD_LIBRARY_PATH`, whose names nobody else has.
struct Libraries {
    scratch: Scratch,
    folder: PathBuf,
}

impl Libraries {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let folder = scratch.folder("lib");
        Self { folder: folder.canonicalize().unwrap(), scratch }
    }

    /// Makes the library `libNAME.so`.
    fn add(&self, name: &str, source: &str) -> PathBuf {
        let made = shared_library(&self.scratch.write(format!("{name}.c"), source), &[]);
        let place = self.folder.join(format!("lib{name}.so"));
        std::fs::rename(made, &place).unwrap();
        place
    }

    /// Runs `p.c` with `flags`.
    fn run(&self, flags: &[&str]) -> Outcome {
        let mut command = hotbed(["run", "--timings=json", "--cache-dir"]);
        command.arg(self.scratch.join("store")).args(flags).arg(self.scratch.join("p.c"));
        finish(command.env("LD_LIBRARY_PATH", &self.folder))
    }
}

#[test]
fn a_library_of_the_system_is_found_cold_and_warm() {
    let scratch = Scratch::new("autoload-zlib");
    let source = scratch.write("z.c", ZLIB);
    let executable = scratch.join("z");
    execute(Command::new("clang-22").arg(&source).arg("-lz").arg("-o").arg(&executable));
    let want = finish(&mut Command::new(&executable));
    let run = |flags: &[&str]| {
        let mut command = hotbed(["run", "--verbose", "--timings=json", "--cache-dir"]);
        finish(command.arg(scratch.join("store")).args(flags).arg(&source))
    };
    let refused = run(&[]);
    assert_eq!(refused.end, End::Status(1));
    assert!(refused.stderr.contains("unresolved symbol crc32"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("on demand"), "{}", refused.stderr);
    for round in ["cold", "warm", "warmer"] {
        let got = run(&["--autoload"]);
        got.assert_same(&want, round);
        assert!(got.stderr.contains("libz.so") && got.stderr.contains(" for crc32\n"), "{}", got.stderr);
        assert_eq!(timing(&got.stderr, "units_compiled"), "0", "the image is there since it was refused");
        assert_eq!(timing(&got.stderr, "backend_loaded"), (round == "cold").to_string(), "{round}");
        kept(&scratch.join("store"));
    }
}

#[test]
fn several_libraries_are_a_warning_that_names_them() {
    let libraries = Libraries::new("autoload-ambiguous");
    libraries.scratch.write("p.c", "int of_two(void); int main(void) { return of_two(); }");
    let two = libraries.add("two", "__attribute__((weak)) int of_two(void) { return 2; }");
    let one = libraries.add("one-longer", "int of_two(void) { return 1; }");
    for _ in 0..2 {
        let got = libraries.run(&["--autoload"]);
        assert_eq!(got.end, End::Status(1), "{}", got.stderr);
        let warning = format!(
            "hotbed: warning: {}: several libraries have of_two: taken is {}; also in {}\n",
            libraries.scratch.join("p.c").display(),
            one.display(),
            two.display()
        );
        assert!(got.stderr.contains(&warning), "{}", got.stderr);
    }
    // Gone between two runs: the other one serves, and nobody warns.
    std::fs::remove_file(&one).unwrap();
    let got = libraries.run(&["--autoload"]);
    assert_eq!(got.end, End::Status(2), "{}", got.stderr);
    assert!(!got.stderr.contains("warning"), "{}", got.stderr);
    std::fs::remove_file(&two).unwrap();
    let got = libraries.run(&["--autoload"]);
    assert!(got.stderr.contains("unresolved symbol of_two") && got.end == End::Status(1), "{}", got.stderr);
    // Back again, with another answer.
    libraries.add("two", "int of_two(void) { return 22; }");
    assert_eq!(libraries.run(&["--autoload"]).end, End::Status(22));
}

#[test]
fn interposers_are_not_loaded_and_what_is_missing_opens_nothing() {
    let libraries = Libraries::new("autoload-refused");
    let announce =
        "#include <stdio.h>\n__attribute__((constructor)) static void c(void) { puts(\"loaded\"); }\n";
    let interposer =
        libraries.add("jemalloc", &format!("{announce} int of_interposer(void) {{ return 1; }}"));
    libraries.add("fine", &format!("{announce} int of_fine(void) {{ return 4; }}"));
    let program = "int of_fine(void); int of_interposer(void); int of_nobody(void);\n\
                   int main(void) { return of_fine() + of_interposer() + of_nobody(); }";
    libraries.scratch.write("p.c", program);
    let got = libraries.run(&["--autoload", "--verbose"]);
    assert_eq!((got.end, got.stdout.as_str()), (End::Status(1), ""), "{}", got.stderr);
    let refusal = format!("of_interposer is in {} only", interposer.display());
    assert!(got.stderr.contains(&refusal), "{}", got.stderr);
    assert!(got.stderr.contains("of_nobody is in no library of the system"), "{}", got.stderr);
    let error = "unresolved symbol of_nobody, needed by ";
    assert!(got.stderr.contains(error), "{}", got.stderr);
    assert!(got.stderr.contains(", libraries found on demand"), "{}", got.stderr);
    libraries.scratch.write("p.c", "int of_fine(void); int main(void) { return of_fine(); }");
    let got = libraries.run(&["--autoload"]);
    assert_eq!((got.end, got.stdout.as_str()), (End::Status(4), "loaded\n"), "{}", got.stderr);
}

#[test]
fn variables_and_several_libraries_at_once() {
    let libraries = Libraries::new("autoload-several");
    libraries.add("numbers", "int number = 40; __thread int own = 1;");
    // It needs the other one and does not say so; whichever is asked for first, both are opened.
    libraries.add("adding", "extern int number; int add(int x) { return number + x; } int a_1, z_1;");
    libraries.add("broken", "int missing_in_broken(void); int (*f)(void) = missing_in_broken; int spare;");
    libraries.add("broken-spare", "int spare = 1;");
    let program = "extern int a_1, number, z_1, spare; extern __thread int own; int add(int);\n\
                   int main(void) { number++; return add(own + a_1) + 7 + z_1 + spare; }";
    libraries.scratch.write("p.c", program);
    for _ in 0..2 {
        let got = libraries.run(&["--autoload", "--verbose"]);
        assert_eq!(got.end, End::Status(50), "{}", got.stderr);
        assert!(got.stderr.contains("warning") && got.stderr.contains("missing_in_broken"), "{}", got.stderr);
    }
    assert_eq!(libraries.run(&["--autoload", "--no-cache"]).end, End::Status(50));
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

#[test]
fn the_library_does_it_when_it_is_told_to() {
    let scratch = Scratch::new("autoload-library");
    let source = "unsigned long crc32(unsigned long, const unsigned char *, unsigned);\n\
                  unsigned sum(void) { return crc32(0, (const unsigned char *)\"abc\", 3); }";
    let notes = Arc::new(Notes::default());
    let build = |autoload| {
        let builder = Runtime::builder().cache_dir(scratch.join("store")).observer(notes.clone());
        builder.autoload(autoload).build().unwrap()
    };
    let refused = build(false).load(Source::text("sum.c", source)).unwrap_err().to_string();
    assert!(refused.contains("crc32"), "{refused}");
    let runtime = build(true);
    let unit = runtime.load(Source::text("sum.c", source)).unwrap();
    // SAFETY: declared above with this type.
    let sum = unsafe { unit.get::<unsafe extern "C" fn() -> u32>("sum").unwrap() };
    // SAFETY: as above.
    assert_eq!(unsafe { sum() }, 0x3524_41c2);
    assert!(notes.0.lock().unwrap().iter().any(|note| note.contains("loaded on demand: ")));
    let error = runtime
        .load(Source::text("b.c", "int nobody_has_this(void); int f(void) { return nobody_has_this(); }"));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("nobody_has_this") && error.contains("libraries found on demand"), "{error}");
}
