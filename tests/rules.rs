//! The rules by which the store chooses: which flags an image may have been made with to serve who asks for others, and the
//! reasons when none does.

use crate::support::{End, Outcome, Scratch, finish, hotbed, kept, object, timing};
use hotbed::{Difference, Image, Miss, Runtime, Source};
use std::path::PathBuf;

/// Sources and a store.
struct Bed(Scratch);

impl Bed {
    fn new(name: &str) -> Self {
        Self(Scratch::new(&format!("rules-{name}")))
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// `hotbed run --eager` with these arguments.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = hotbed(["run", "--eager", "--timings=json", "--verbose", "--cache-dir"]);
        command.arg(self.store()).args(arguments).current_dir(self.0.path());
        finish(&mut command)
    }

    /// Whether something had to be compiled.
    #[track_caller]
    fn compiles(&self, arguments: &[&str]) -> bool {
        let got = self.run(arguments).assert_success(&format!("{arguments:?}"));
        timing(&got.stderr, "units_compiled") != "0"
    }
}

/// The names of the reasons that `--timings=json` has counted.
#[track_caller]
fn misses(stderr: &str) -> Vec<String> {
    let counted = stderr.split("\"misses\":{").nth(1).unwrap_or_else(|| panic!("no misses in {stderr}"));
    let counted = counted.split('}').next().unwrap();
    counted.split(',').filter_map(|one| one.split('"').nth(1)).map(str::to_owned).collect()
}

/// Looks at nothing that tells levels apart.
const PLAIN: &str = "int main(void) { return 0; }";

#[test]
fn flags_that_must_match_and_levels_that_need_not() {
    let bed = Bed::new("flags");
    bed.0.write("p.c", PLAIN);
    // In this order, into one store.
    for (flags, compiled) in [
        (&["-O1"][..], true),
        (&["-O2"], true),
        (&["-O2"], false),
        (&["-O1"], false),
        (&["-O"], false),
        (&["-O0"], false),
        (&[], false),
        (&["-O3"], true),
        (&["-Os"], true),
        (&["-Oz"], true),
        (&["-Os"], false),
        (&["-O2", "-g"], true),
        (&["-O1", "-g"], false),
        (&["-O3", "-g"], true),
        (&["-O2", "-ffast-math"], true),
        (&["-Ofast", "-w"], true),
        (&["-O2", "-fsanitize=bounds", "-fsanitize-trap=bounds"], true),
        (&["-O2", "-fno-inline"], true),
        (&["-O0", "-fno-inline"], false),
        (&["-O2", "-DX"], true),
        (&["-O2", "-Xclang", "-disable-O0-optnone"], true),
        (&["-O1", "-Xclang", "-disable-O0-optnone"], true),
    ] {
        let arguments: Vec<&str> = flags.iter().copied().chain(["p.c"]).collect();
        assert_eq!(bed.compiles(&arguments), compiled, "{flags:?}");
    }
    // The other way round: debug information that nobody asks for does not serve either.
    bed.0.write("q.c", PLAIN);
    assert!(bed.compiles(&["-g", "q.c"]) && bed.compiles(&["q.c"]));
    // Modules have no preprocessor, and what is linked as it is has no level.
    bed.0.write("m.ll", "define i32 @main() { ret i32 0 }");
    assert!(
        bed.compiles(&["-O2", "m.ll"]) && !bed.compiles(&["-O0", "m.ll"]) && bed.compiles(&["-O3", "m.ll"])
    );
    let object = object(&bed.0.write("o.c", PLAIN), "o", &["-fPIC"]);
    let object = object.to_str().unwrap();
    let linked = |level| timing(&bed.run(&[level, object]).stderr, "images_linked");
    assert_eq!((linked("-O2"), linked("-Os")), ("1".into(), "0".into()));
}

#[test]
fn a_source_that_can_tell_levels_apart_gets_its_own() {
    let bed = Bed::new("told");
    bed.0.write("level.h", "#if defined(__OPTIMIZE__)\n#define LEVEL 1\n#else\n#define LEVEL 0\n#endif\n");
    for (name, text) in [
        ("ifdef.c", "#ifdef __OPTIMIZE__\n#define LEVEL 1\n#else\n#define LEVEL 0\n#endif\n"),
        ("ifndef.c", "#ifndef __NO_INLINE__\n#define LEVEL 1\n#else\n#define LEVEL 0\n#endif\n"),
        ("if.c", "#if __OPTIMIZE__\n#define LEVEL 1\n#else\n#define LEVEL 0\n#endif\n"),
        ("not.c", "#if !__NO_INLINE__\n#define LEVEL 1\n#else\n#define LEVEL 0\n#endif\n"),
        ("elif.c", "#if 0\n#elif __OPTIMIZE__ + 0\n#define LEVEL 1\n#else\n#define LEVEL 0\n#endif\n"),
        ("elifdef.c", "#if 0\n#elifdef __NO_INLINE__\n#define LEVEL 0\n#else\n#define LEVEL 1\n#endif\n"),
        ("elifndef.c", "#if 0\n#elifndef __OPTIMIZE__\n#define LEVEL 0\n#else\n#define LEVEL 1\n#endif\n"),
        ("macro.c", "#define TOLD __OPTIMIZE__\n#if TOLD\n#define LEVEL 1\n#else\n#define LEVEL 0\n#endif\n"),
        ("header.c", "#include \"level.h\"\n"),
        (
            "libc.c",
            "#include <stdio.h>\n#ifdef __USE_EXTERN_INLINES\n#define LEVEL 1\n#else\n#define LEVEL 0\n#endif\n",
        ),
    ] {
        bed.0.write(name, format!("{text}int main(void) {{ return LEVEL; }}"));
        let status = |level: &str| {
            let got = bed.run(&["-w", level, name]);
            (got.end == End::Status(1), timing(&got.stderr, "units_compiled") != "0")
        };
        assert_eq!(status("-O2"), (true, true), "{name}");
        assert_eq!(status("-O0"), (false, true), "{name} at -O0 after -O2");
        assert_eq!(status("-O1"), (true, false), "{name} at -O1 after -O2");
        assert_eq!(status("-O3"), (true, true), "{name} at -O3 after -O2");
    }
    bed.0.write("included.c", PLAIN);
    assert!(bed.compiles(&["-O2", "-include", "level.h", "included.c"]));
    assert!(bed.compiles(&["-O0", "-include", "level.h", "included.c"]));
    // Clang takes a precompiled header at its own level only, whatever is in it.
    let header = bed.0.write("precompiled.h", "int of_header(void);\n");
    let header = object(&header, "pch", &["-O2", "-fPIC", "-x", "c-header"]);
    let with = |level| bed.run(&[level, "-include-pch", header.to_str().unwrap(), "included.c"]);
    with("-O2").assert_success("a precompiled header");
    let refused = with("-O1");
    assert!(
        refused.end == End::Status(1) && refused.stderr.contains("differs in precompiled file"),
        "{}",
        refused.stderr
    );
}

#[test]
fn every_miss_has_a_name() {
    let bed = Bed::new("names");
    bed.0.write("p.c", "#include \"h.h\"\nint main(void) { return VALUE; } int other(void) { return 0; }");
    bed.0.write("b/h.h", "#define VALUE 0\n");
    bed.0.folder("a");
    const USUAL: &[&str] = &["-O1", "-Ia", "-Ib", "p.c"];
    let reason = |arguments: &[&str]| {
        let got = bed.run(arguments).assert_success(&format!("{arguments:?}"));
        let misses = misses(&got.stderr);
        assert_eq!(misses.is_empty(), !got.stderr.contains("not in the store"), "{}", got.stderr);
        misses.join(" ")
    };
    let with = |more: &[&str]| reason(&[USUAL, more].concat());
    assert_eq!(reason(USUAL), "no-entry");
    assert_eq!(reason(USUAL), "");
    assert_eq!(reason(&["p.c", "-O1", "-Ia", "-Ib"]), "order");
    for (more, name) in [
        (&["-O2"][..], "level"),
        (&["-Os"], "level"),
        (&["-g"], "debug-info"),
        (&["-fsanitize=bounds", "-fsanitize-trap=bounds"], "bounds-checks"),
        (&["-fno-inline"], "inlining"),
        (&["-ffast-math"], "floating-point"),
        (&["-mtune=generic"], "processor"),
        (&["--target=x86_64-linux-gnu"], "target"),
        (&["-DX"], "flags"),
        (&["--lazy"], "form"),
        (&["--entry", "other"], "linkage"),
    ] {
        assert_eq!(with(more), name, "{more:?}");
    }
    kept(&bed.store());
    let elsewhere = |cpath: Option<&str>, folder: &str, arguments: &[&str]| {
        let mut command = hotbed(["run", "--eager", "--timings=json", "--cache-dir"]);
        command.arg(bed.store()).args(arguments).current_dir(bed.0.join(folder));
        cpath.map(|cpath| command.env("CPATH", bed.0.join(cpath)));
        misses(&finish(&mut command).assert_success(folder).stderr).join(" ")
    };
    assert_eq!(elsewhere(Some("a"), ".", USUAL), "environment");
    let source = bed.0.write("q.c", PLAIN);
    let recorded = ["-g", source.to_str().unwrap()];
    assert_eq!(
        (elsewhere(None, "a", &recorded), elsewhere(None, "b", &recorded)),
        ("no-entry".into(), "directory".into())
    );

    bed.0.write("p.c", "#include \"h.h\"\nint main(void) { return VALUE; } int other(void) { return 1; }");
    assert_eq!(reason(USUAL), "input-changed");
    bed.0.write("b/h.h", "#define VALUE  0\n");
    assert_eq!(reason(USUAL), "dependency-changed");
    bed.0.write("a/h.h", "#define VALUE 0\n");
    assert_eq!(reason(USUAL), "dependency-appeared");
    finish(hotbed(["cache", "clear", "--cache-dir"]).arg(bed.store())).assert_success("clearing the store");
    assert_eq!(reason(USUAL), "no-entry");
    std::fs::remove_file(bed.0.join("a/h.h")).unwrap();
    assert_eq!(reason(USUAL), "dependency-gone");

    bed.0.write("t.c", "const char *when = __TIME__; int main(void) { return when == 0; }");
    assert_eq!((reason(&["t.c"]), reason(&["t.c"])), ("no-entry".into(), "unrepeatable".into()));
    bed.0.write("l.c", "#ifdef __OPTIMIZE__\nint o;\n#endif\nint main(void) { return 0; }");
    assert_eq!((reason(&["-O2", "l.c"]), reason(&["-O0", "l.c"])), ("no-entry".into(), "level-seen".into()));
}

#[test]
fn what_is_wrong_with_the_store_has_a_name() {
    let bed = Bed::new("store");
    bed.0.write("p.c", PLAIN);
    let reason = || misses(&bed.run(&["p.c"]).assert_success("p.c").stderr).join(" ");
    let only = |folder: &str| {
        let mut files = std::fs::read_dir(bed.store().join(folder)).unwrap();
        files.next().unwrap().unwrap().path()
    };
    assert_eq!(reason(), "no-entry");
    let whole = std::fs::read(only("images")).unwrap();
    std::fs::write(only("images"), &whole[..whole.len() - 1]).unwrap();
    assert_eq!(reason(), "image-damaged");
    std::fs::remove_file(only("images")).unwrap();
    assert_eq!(reason(), "image-missing");
    let (manifest, siblings) = (only("manifests"), only("siblings"));
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, &whole[1..]).unwrap();
    assert_eq!(reason(), "manifest-damaged");
    // A sound file of another version.
    let newer = |path: &std::path::Path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes.truncate(bytes.len() - 32);
        bytes[7] = b'9';
        let hash = blake3::hash(&bytes);
        std::fs::write(path, [&bytes[..], hash.as_bytes()].concat()).unwrap();
    };
    newer(&manifest);
    assert_eq!(reason(), "format");
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(reason(), "dropped");
    std::fs::remove_file(&manifest).unwrap();
    newer(&siblings);
    assert_eq!(reason(), "format");
    std::fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink("/dev/null", &manifest).unwrap();
    assert_eq!(reason(), "manifest-unreadable");
    assert_eq!(reason(), "");
}

/// `hotbed cache why --eager` with these arguments; it must do nothing to the store.
#[track_caller]
fn why(bed: &Bed, arguments: &[&str]) -> String {
    let files = || {
        let mut all = Vec::new();
        let mut folders = vec![bed.store()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let entry = entry.unwrap();
                all.push((entry.path(), entry.metadata().unwrap().modified().unwrap()));
                folders.extend(entry.metadata().unwrap().is_dir().then(|| entry.path()));
            }
        }
        all.sort();
        all
    };
    let before = files();
    let mut command = hotbed(["cache", "why", "--eager", "--cache-dir"]);
    command.arg(bed.store()).args(arguments).current_dir(bed.0.path());
    let got = finish(&mut command).assert_success(&format!("{arguments:?}"));
    assert_eq!(got.stderr, "", "{arguments:?}");
    assert_eq!(files(), before, "{arguments:?} changed the store");
    got.stdout
}

#[test]
fn the_command_says_why() {
    let bed = Bed::new("why");
    bed.0.write("p.c", "#include \"h.h\"\nint main(void) { return VALUE; }");
    bed.0.write("h.h", "#define VALUE 0\n");
    assert_eq!(
        why(&bed, &["p.c"]),
        "p.c: has to be compiled: these inputs and flags were not compiled before\n"
    );
    assert!(!bed.store().exists());
    for flags in [&["-O1"][..], &["-O3"], &["-DX"]] {
        assert!(bed.compiles(&[flags, &["p.c"]].concat()));
    }
    let said = why(&bed, &["-O2", "p.c"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("p.c: served by ") && lines[0].ends_with(".hbi"), "{said}");
    assert!(lines[1].ends_with(" with -O3: serves"), "{said}");
    assert!(
        lines[2]
            .ends_with(" with -O1: the level of optimisation differs: -O2 is asked for, the entry has -O1")
    );
    assert_eq!(
        lines[3..],
        ["  entry with -DX: the level of optimisation differs: -O2 is asked for, the entry has no such flag"]
    );
    let said = why(&bed, &["-O2", "-g", "p.c"]);
    assert!(
        said.starts_with("p.c: has to be compiled: debug information differs: -g is asked for"),
        "{said}"
    );
    let said = why(&bed, &["--lazy", "-O1", "p.c"]);
    assert!(said.contains("compilation of functions at their first calls is asked for"), "{said}");
    // Once more as a program reads it, of all kinds of file.
    let image = bed.0.join("i.hbi");
    bed.0.write("i.c", "int i;");
    finish(hotbed(["image", "build", "--no-cache", "-o"]).arg(&image).arg(bed.0.join("i.c")))
        .assert_success("an image");
    bed.0.write("h.h", "#define VALUE 1\n");
    let said = why(&bed, &["--json", "-O3", "p.c", "i.hbi"]);
    assert!(
        said.starts_with(
            "{\"units\":[{\"unit\":\"i.hbi\",\"image\":\"i.hbi\",\"miss\":null,\"entries\":[]},"
        )
    );
    let miss = "{\"name\":\"dependency-changed\",\"reason\":\"./h.h has changed\"}";
    assert!(
        said.contains(&format!("{{\"unit\":\"p.c\",\"image\":null,\"miss\":{miss},\"entries\":[{{")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
    for usage in [&["p.c", "--timings"][..], &["p.c", "-o", "x"], &[], &["--trace", "t", "p.c"]] {
        let refused = finish(hotbed(["cache", "why"]).args(usage).current_dir(bed.0.path()));
        assert_eq!(refused.end, End::Status(2), "{usage:?}: {}", refused.stderr);
    }
    let help = finish(&mut hotbed(["cache", "why", "--help"])).assert_success("help");
    assert_eq!(
        help.stdout.lines().nth(2).unwrap(),
        "Usage: hotbed cache why [CLANG FLAGS] [OPTIONS] FILE... [-- ARG...]"
    );
}

#[test]
fn the_library_says_why() {
    let bed = Bed::new("library");
    let source = bed.0.write("f.c", "int f(void) { return 1; }");
    let runtime = Runtime::builder().cache_dir(bed.store()).build().unwrap();
    let of = |flags: &[&str]| Source::file(&source).flags(flags.iter().copied());
    assert_eq!(runtime.why(of(&[])).unwrap().answer, Err(Miss::NoEntry));
    let made = runtime.load(of(&["-O2"])).unwrap();
    assert_eq!(made.report().miss, Some(Miss::NoEntry));
    let served = runtime.why(of(&["-O1"])).unwrap();
    assert!(served.answer.is_ok_and(|image| image.starts_with(bed.store())));
    // What is loaded already is another unit for all that.
    assert!(runtime.load(of(&["-O1"])).is_err());
    let difference = Difference { asked: "-O3".into(), has: "-O2".into() };
    assert_eq!(runtime.why(of(&["-O3"])).unwrap().answer, Err(Miss::Level(difference)));
    assert!(runtime.why(Image::file("nowhere.hbi")).unwrap_err().is_usage());
    let without = Runtime::builder().no_cache().build().unwrap();
    assert_eq!(without.why(of(&[])).unwrap().answer, Err(Miss::NoEntry));
}
