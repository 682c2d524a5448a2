//! The store: a warm start compiles nothing and opens no back end; what has changed is compiled again; whatever is wrong with
//! the store itself, programs run.

mod faults;
mod layers;
mod together;

use crate::support::{End, Outcome, Scratch, finish, hotbed, kept, timing};
use hotbed::{Observer, Runtime, Source};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A program of a source and headers.
struct Bed {
    scratch: Scratch,
    flags: Vec<String>,
}

impl Bed {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(&format!("store-{name}"));
        scratch.write("first/empty.h", "");
        scratch.write("second/value.h", "#define VALUE 1\n");
        scratch.write(
            "main.c",
            "#include <stdio.h>\n#include <value.h>\n#if __has_include(\"extra.h\")\n#include \"extra.h\"\n#else\n#define EXTRA 0\n#endif\n\
             int main(void) { printf(\"%d %d\\n\", VALUE, EXTRA); return 0; }",
        );
        Self { scratch, flags: ["-Ifirst", "-Isecond"].map(str::to_owned).into() }
    }

    fn store(&self) -> PathBuf {
        self.scratch.join("store")
    }

    fn command(&self, store: &Path) -> Command {
        let mut command = hotbed(["run", "--timings=json", "--verbose", "--cache-dir"]);
        command.current_dir(self.scratch.path()).arg(store).args(&self.flags).arg("main.c");
        command
    }

    fn run(&self) -> Outcome {
        finish(&mut self.command(&self.store()))
    }

    /// Runs it; it must print `output` and have compiled or not.
    #[track_caller]
    fn prints(&self, output: &str, compiled: bool) -> String {
        let got = self.run().assert_success("a program");
        assert_eq!(got.stdout, output, "{}", got.stderr);
        for (count, cold) in [("units_compiled", "1"), ("functions_compiled", "1"), ("images_linked", "1")] {
            assert_eq!(
                timing(&got.stderr, count),
                if compiled { cold } else { "0" },
                "{count}: {}",
                got.stderr
            );
        }
        assert_eq!(timing(&got.stderr, "backend_loaded"), compiled.to_string());
        assert_eq!(timing(&got.stderr, "images_mapped"), "1");
        kept(&self.store());
        got.stderr
    }

    fn files(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, files) } else { files.push(path) }
            }
        }
        let mut files = Vec::new();
        walk(&self.store(), &mut files);
        files
    }
}

#[test]
fn a_warm_start_compiles_nothing() {
    let bed = Bed::new("warm");
    let said = bed.prints("1 0\n", true);
    assert!(said.contains("not compiled before"), "{said}");
    for _ in 0..3 {
        bed.prints("1 0\n", false);
    }
    // Another folder, flag or environment is another program.
    let mut command = bed.command(&bed.store());
    assert_eq!(timing(&finish(command.arg("-DX")).stderr, "units_compiled"), "1");
    assert_eq!(std::fs::metadata(bed.store()).unwrap().permissions().mode() & 0o777, 0o700);
    for file in bed.files() {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
    }
}

#[test]
fn what_changes_is_compiled_again() {
    let bed = Bed::new("changed");
    bed.prints("1 0\n", true);
    // As quickly as a person or a program can, and of the same size.
    for value in 2..6 {
        bed.scratch.write("second/value.h", format!("#define VALUE {value}\n"));
        let said = bed.prints(&format!("{value} 0\n"), true);
        assert!(said.contains("value.h has changed"), "{said}");
        bed.prints(&format!("{value} 0\n"), false);
    }
    // A header that hides the one that was found.
    bed.scratch.write("first/value.h", "#define VALUE 50\n");
    let said = bed.prints("50 0\n", true);
    assert!(said.contains("first/value.h has appeared"), "{said}");
    // One that was asked for.
    bed.scratch.write("extra.h", "#define EXTRA 9\n");
    bed.prints("50 9\n", true);
    bed.prints("50 9\n", false);
    std::fs::remove_file(bed.scratch.join("first/value.h")).unwrap();
    std::fs::remove_file(bed.scratch.join("extra.h")).unwrap();
    assert_eq!(bed.run().stdout, "5 0\n");
    bed.prints("5 0\n", false);
    // Touched but the same.
    bed.scratch.write("second/value.h", "#define VALUE 5\n");
    bed.prints("5 0\n", false);
    // An older time of modification hides nothing.
    bed.scratch.write("second/value.h", "#define VALUE 6\n");
    let touched =
        Command::new("touch").args(["-d", "2001-01-01"]).arg(bed.scratch.join("second/value.h")).status();
    assert!(touched.unwrap().success());
    bed.prints("6 0\n", true);
}

#[test]
fn the_compilers_environment_is_part_of_the_key() {
    let bed = Bed { flags: Vec::new(), ..Bed::new("environment") };
    let with = |folder: &str| {
        let mut command = bed.command(&bed.store());
        finish(command.env("CPATH", bed.scratch.join(folder))).assert_success(folder)
    };
    bed.scratch.write("third/value.h", "#define VALUE 33\n");
    for (folder, output, compiled) in [
        ("second", "1 0\n", "1"),
        ("third", "33 0\n", "1"),
        ("second", "1 0\n", "0"),
        ("third", "33 0\n", "0"),
    ] {
        let got = with(folder);
        assert_eq!((got.stdout.as_str(), timing(&got.stderr, "units_compiled").as_str()), (output, compiled));
    }
}

#[test]
fn what_depends_on_the_time_is_not_kept() {
    let scratch = Scratch::new("store-time");
    for (name, text) in [
        ("time.c", "const char *when = __TIME__;"),
        ("date.c", "const char *when = __DATE__;"),
        ("stamp.c", "const char *when = __TIMESTAMP__;"),
        ("macro.c", "#define NOW __TIME__\nconst char *when = NOW;"),
    ] {
        let source = scratch.write(name, format!("{text}\nint main(void) {{ return when[0] == 0; }}"));
        for _ in 0..2 {
            let mut command = hotbed(["run", "--timings=json", "--verbose", "--cache-dir"]);
            let got = finish(command.arg(scratch.join("store")).arg(&source)).assert_success(name);
            assert_eq!(timing(&got.stderr, "units_compiled"), "1", "{name}");
            assert!(got.stderr.contains("not stored"), "{name}: {}", got.stderr);
        }
    }
}

#[test]
fn a_damaged_entry_is_made_anew() {
    let bed = Bed::new("damaged");
    bed.prints("1 0\n", true);
    bed.prints("1 0\n", false);
    let mut whole: Vec<(PathBuf, Vec<u8>)> =
        bed.files().into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
    // Some are there for their names and times.
    whole.retain(|(_, bytes)| !bytes.is_empty());
    assert!(whole.len() >= 2, "{whole:?}");
    let damage = |at: &dyn Fn(&[u8]) -> Vec<u8>| {
        for (path, bytes) in &whole {
            // The files of an earlier round may have been replaced or swept.
            let _ = std::fs::write(path, at(bytes));
            assert_eq!(
                bed.run().assert_success("with a damaged store").stdout,
                "1 0\n",
                "{}",
                path.display()
            );
        }
        assert_eq!(bed.run().assert_success("after damage").stdout, "1 0\n");
        kept(&bed.store());
        bed.prints("1 0\n", false);
    };
    damage(&|_| Vec::new());
    damage(&|bytes| bytes[..bytes.len() / 2].to_vec());
    damage(&|bytes| bytes[..bytes.len() - 1].to_vec());
    for share in [0, 3, 5, 9] {
        damage(&|bytes| {
            let mut bytes = bytes.to_vec();
            let at = (bytes.len() - 1) * share / 10;
            bytes[at] ^= 0x21;
            bytes
        });
    }
    damage(&|bytes| vec![0xff; bytes.len()]);
    // Everything at once, and everything gone.
    for (path, bytes) in &whole {
        let _ = std::fs::write(path, &bytes[..bytes.len() / 3]);
    }
    assert_eq!(bed.run().stdout, "1 0\n");
    kept(&bed.store());
    for file in bed.files() {
        // Keepers of earlier rounds may still be replacing files.
        let _ = std::fs::remove_file(file);
    }
    assert_eq!(bed.run().stdout, "1 0\n");
    kept(&bed.store());
    bed.prints("1 0\n", false);
}

#[test]
fn a_store_that_cannot_be_used_is_mentioned_once() {
    let bed = Bed::new("unusable");
    let file = bed.scratch.write("a file", "");
    let shared = bed.scratch.folder("shared");
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).unwrap();
    let link = bed.scratch.join("link");
    std::os::unix::fs::symlink(bed.scratch.folder("target"), &link).unwrap();
    for store in [Path::new("/proc/nowhere"), &file, &shared, &link] {
        let mut command = hotbed(["run", "--cache-dir"]);
        command.current_dir(bed.scratch.path()).arg(store).args(&bed.flags).arg("main.c");
        let got = finish(&mut command).assert_success("without a store");
        assert_eq!(got.stdout, "1 0\n");
        let lines: Vec<&str> = got.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{}: {}", store.display(), got.stderr);
        assert!(
            lines[0].starts_with("hotbed: warning: ") && lines[0].contains("running without it"),
            "{}",
            lines[0]
        );
        assert!(lines[0].contains(store.to_str().unwrap()), "{}", lines[0]);
    }
}

#[test]
fn a_store_of_somebody_else_is_not_used() {
    let bed = Bed::new("foreign");
    let store = bed.scratch.folder("store");
    std::fs::set_permissions(&store, PermissionsExt::from_mode(0o700)).unwrap();
    if std::os::unix::fs::chown(&store, Some(12345), None).is_err() {
        return; // only root can give folders away
    }
    let got = bed.run().assert_success("with a foreign store");
    assert_eq!(got.stdout, "1 0\n");
    assert!(got.stderr.contains("warning") && got.stderr.contains("store"), "{}", got.stderr);
    assert!(bed.files().is_empty());
}

#[test]
fn a_read_only_store_serves() {
    let bed = Bed::new("read-only");
    bed.prints("1 0\n", true);
    bed.prints("1 0\n", false);
    let mounted = Command::new("mount").arg("--bind").args([bed.store(), bed.store()]).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return; // only root can
    }
    let _unmount = Unmount(bed.store());
    let only = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(bed.store()).status().unwrap();
    assert!(only.success());
    bed.prints("1 0\n", false);
    bed.scratch.write("second/value.h", "#define VALUE 4\n");
    assert_eq!(bed.run().assert_success("read-only").stdout, "4 0\n");
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_store_is_done_without() {
    let bed = Bed::new("full");
    let store = bed.scratch.folder("store");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "none"]).arg(&store).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return; // only root can
    }
    let _unmount = Unmount(store.clone());
    std::fs::write(store.join("filler"), vec![0; 1 << 20]).unwrap_err();
    for _ in 0..2 {
        let got = bed.run().assert_success("with a full store");
        assert_eq!(got.stdout, "1 0\n");
        assert_eq!(got.stderr.matches("warning: ").count(), 1, "{}", got.stderr);
    }
    std::fs::remove_file(store.join("filler")).unwrap();
    assert_eq!(bed.run().assert_success("with room again").stdout, "1 0\n");
}

#[test]
fn processes_share_it() {
    let bed = Bed::new("shared");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(bed.run().assert_success("one of many").stdout, "1 0\n");
                }
            });
        }
    });
    bed.prints("1 0\n", false);
}

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Observer for Said {
    fn warning(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

#[test]
fn the_library_reports_where_an_image_came_from() {
    let scratch = Scratch::new("store-library");
    let source = scratch.write("f.c", "int f(void) { return 1; }");
    let load = |flags: &[&str]| {
        let said = Arc::new(Said::default());
        let runtime =
            Runtime::builder().cache_dir(scratch.join("store")).observer(said.clone()).build().unwrap();
        let unit = runtime.load(Source::file(&source).flags(flags.iter().copied())).unwrap();
        assert!(said.0.lock().unwrap().is_empty());
        unit.report().clone()
    };
    let cold = load(&[]);
    assert_eq!((cold.from_store, cold.back_end_loaded, cold.counts.units_compiled), (false, true, 1));
    assert!(cold.miss.is_some() && cold.phases.frontend_ms > 0.0);
    let warm = load(&[]);
    assert_eq!((warm.from_store, warm.back_end_loaded, warm.counts.units_compiled), (true, false, 0));
    assert_eq!((warm.miss, warm.times.map.is_zero()), (None, false));
    assert!(!load(&["-O2"]).from_store && load(&["-O2"]).from_store);
    let said = Arc::new(Said::default());
    let runtime = Runtime::builder().cache_dir("/proc/nowhere").observer(said.clone()).build().unwrap();
    for round in 0..3 {
        runtime.load(Source::file(&source).named(format!("{round}"))).unwrap();
    }
    assert_eq!(said.0.lock().unwrap().len(), 1);
}

#[test]
fn the_default_place_and_no_cache() {
    let bed = Bed::new("place");
    let run = |home: &Path, flags: &[&str]| {
        let mut command = hotbed(["run", "--timings=json"]);
        command.current_dir(bed.scratch.path()).args(flags).args(&bed.flags).arg("main.c");
        finish(command.env("XDG_CACHE_HOME", home))
    };
    let home = bed.scratch.folder("home");
    assert_eq!(run(&home, &["--no-cache"]).end, End::Status(0));
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
    run(&home, &[]);
    assert!(home.join("hotbed").is_dir());
    assert_eq!(timing(&run(&home, &[]).stderr, "units_compiled"), "0");
    assert_eq!(timing(&run(&home, &["--no-cache"]).stderr, "units_compiled"), "1");
}

#[test]
fn more_functions_are_kept_than_a_process_may_open_files() {
    let scratch = Scratch::new("lazy-many-kept");
    let mut text = String::from("#include <stdio.h>\n");
    for number in 0..600 {
        text += &format!("int f{number}(int x) {{ return x % {} + {number}; }}\n", number % 7 + 1);
    }
    let names = (0..600).map(|number| format!("f{number}")).collect::<Vec<_>>().join(", ");
    let main =
        "int main(void) { int s = 0; for (int i = 0; i < 600; i++) s += all[i](i); printf(\"%d\\n\", s); }";
    text += &format!("int (*all[])(int) = {{ {names} }};\n{main}\n");
    let source = scratch.write("many.c", text);
    let store = scratch.join("store");
    let mut said = Vec::new();
    for compiled in ["601", "0"] {
        let limited = "ulimit -n 200; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args([
            "-c",
            limited,
            "sh",
            env!("CARGO_BIN_EXE_hotbed"),
            "run",
            "--timings=json",
            "--cache-dir",
        ]);
        let outcome = finish(command.arg(&store).arg(&source)).assert_success("many functions");
        assert_eq!(timing(&outcome.stderr, "functions_compiled"), compiled, "{}", outcome.stderr);
        said.push(outcome.stdout);
        kept(&store);
    }
    assert_eq!(said[0], said[1]);
}
