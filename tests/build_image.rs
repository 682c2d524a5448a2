//! Images built on purpose: by the command and by the library, valid ELF for other tools, reproducible, movable, usable by a
//! machine that has no back end.

use crate::support::{End, Scratch, execute, finish, hotbed, object, timing};
use hotbed::{Error, Image, Isolation, Lang, Program, Runtime, Source};
use std::process::Command;

const TEXT: &str = "#include <stdio.h>\n#include <math.h>\nint value = 3, *place = &value; int f(int x) { return x + *place; }\n\
                    int main(int c, char **v) { printf(\"%d %.0f\\n\", f(c), cos(c - 1.0)); return 5; }";

#[test]
fn the_command_builds_what_the_command_runs() {
    let scratch = Scratch::new("image-command");
    let source = scratch.write("p.c", TEXT);
    let image = scratch.join("out/p.hbi");
    scratch.folder("out");
    let build = |flags: &[&str]| {
        let mut command = hotbed(["image", "build", "--timings=json", "--cache-dir"]);
        command.arg(scratch.join("store")).args(flags).arg("-o").arg(&image).arg(&source).arg("-lm");
        finish(&mut command).assert_success("image build")
    };
    let first = build(&[]);
    assert_eq!(
        (timing(&first.stderr, "images_linked"), timing(&first.stderr, "units_compiled")),
        ("1".into(), "1".into())
    );
    let bytes = std::fs::read(&image).unwrap();
    assert_eq!(timing(&build(&[]).stderr, "units_compiled"), "0");
    assert_eq!(std::fs::read(&image).unwrap(), bytes);
    build(&["--no-cache"]);
    assert_eq!(std::fs::read(&image).unwrap(), bytes, "the same input gives the same image");
    build(&["--no-cache", "--isolate"]);
    assert_eq!(std::fs::read(&image).unwrap(), bytes, "a worker gives the same image");

    // Elsewhere, where there is no plugin and no store.
    let alone = scratch.join("alone");
    std::fs::create_dir(&alone).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_hotbed"), alone.join("hotbed")).unwrap();
    std::fs::rename(&image, alone.join("moved.hbi")).unwrap();
    for flags in [&["--no-cache"][..], &["--cache-dir", "store"], &["--cache-dir", "store"]] {
        let mut command = Command::new(alone.join("hotbed"));
        command.current_dir(&alone).env_remove("HOTBED_JIT").arg("run").args(flags).arg("--timings=json");
        let got = finish(command.args(["moved.hbi", "--", "x"]));
        assert_eq!((got.stdout.as_str(), got.end), ("5 1\n", End::Status(5)), "{}", got.stderr);
        assert_eq!(timing(&got.stderr, "backend_loaded"), "false");
    }
}

#[test]
fn executables_are_linked_against_it() {
    let scratch = Scratch::new("image-link");
    let image = scratch.join("answer.hbi");
    let source = scratch.write("add.c", "int add(int a, int b) { return a + b; }");
    let user = scratch.write("use.c", "int add(int, int); int main(void) { return add(40, 2); }");
    for store in [&["--no-cache"][..], &["--cache-dir", "store"], &["--cache-dir", "store"]] {
        let mut build = hotbed(["image", "build"]);
        build.current_dir(scratch.path()).args(store).arg("-o").arg(&image).arg(&source);
        finish(&mut build).assert_success("image build");
        let mut link = Command::new("clang-22");
        link.current_dir(scratch.path()).arg(&user).args(["./answer.hbi", "-o", "use"]);
        execute(link.arg(format!("-Wl,-rpath,{}", scratch.path().display())));
        assert_eq!(finish(&mut Command::new(scratch.join("use"))).end, End::Status(42));
    }
}

#[test]
fn other_tools_understand_it() {
    let scratch = Scratch::new("image-tools");
    let image = scratch.join("p.hbi");
    let source = scratch.write("p.c", TEXT);
    let mut build = hotbed(["image", "build", "-g", "--no-cache", "-o"]);
    finish(build.arg(&image).arg(&source).arg("-lm")).assert_success("image build");
    let headers = execute(Command::new("readelf").arg("-hldn").arg("--wide").arg(&image));
    assert_eq!(headers.stderr, "");
    for word in
        ["DYN (Shared object file)", "GNU_EH_FRAME", "libc.so.6", "libm.so.6", "SONAME", "RELR", "Hotbed"]
    {
        assert!(headers.stdout.contains(word), "no {word} in {}", headers.stdout);
    }
    assert!(!headers.stdout.contains("TEXTREL") && !headers.stdout.contains("RWE"), "{}", headers.stdout);
    let names = execute(Command::new("nm").arg("-D").arg(&image)).stdout;
    for word in [" T f\n", " T main\n", " D value\n", " U printf@GLIBC_2.2.5\n"] {
        assert!(names.contains(word), "no {word} in {names}");
    }
    let place =
        names.lines().find(|line| line.ends_with(" T f")).unwrap().split(' ').next().unwrap().to_owned();
    let line = execute(Command::new("addr2line").arg("-e").arg(&image).arg(&place)).stdout;
    assert!(line.contains("p.c:3"), "{line}");
    // An ordinary linker links against it.
    let user = scratch.write("user.c", "int f(int); int main(void) { return f(39); }");
    let executable = scratch.join("user");
    let mut clang = Command::new("clang-22");
    execute(
        clang
            .args(["-w", "-x", "c"])
            .arg(&user)
            .args(["-x", "none", "-Wl,--allow-shlib-undefined"])
            .arg(&image)
            .arg("-o")
            .arg(&executable),
    );
}

#[test]
fn the_library_builds_what_the_library_loads() {
    let scratch = Scratch::new("image-library");
    let image = scratch.join("u.hbi");
    for isolation in [Isolation::InProcess, Isolation::Process] {
        let runtime = Runtime::builder().no_cache().isolation(isolation).build().unwrap();
        let program = Program::new().flag("-O1").bytes("u.c", Lang::C, TEXT).flag("-lm");
        let report = runtime.image(&image).unit(program).build().unwrap();
        assert_eq!((report.counts.images_linked, report.counts.functions_compiled), (1, 2));
        assert!(runtime.units().is_empty());
        let bytes = std::fs::read(&image).unwrap();
        let units =
            [runtime.load(Image::file(&image)).unwrap(), runtime.load(Image::bytes("bytes", bytes)).unwrap()];
        // What is mapped does not mind that the file is gone.
        std::fs::remove_file(&image).unwrap();
        for unit in &units {
            // SAFETY: that is its type.
            let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>("f") }.unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { f(4) }, 7);
            assert_eq!(unit.report().counts.units_compiled, 0);
        }
    }
}

#[test]
fn a_file_is_replaced_under_those_who_have_it_mapped() {
    let scratch = Scratch::new("image-replaced");
    let image = scratch.join("u.hbi");
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let build = |value: i32| {
        let text = format!("int f(void) {{ return {value}; }}");
        runtime.image(&image).unit(Source::text("u.c", text)).build().unwrap();
    };
    let call = |name: &str| {
        // SAFETY: that is its type.
        let f = unsafe { runtime.unit(name).unwrap().get::<unsafe extern "C" fn() -> i32>("f") }.unwrap();
        // SAFETY: as above.
        unsafe { f() }
    };
    build(1);
    runtime.load(Image::file(&image).named("one")).unwrap();
    build(2);
    runtime.load(Image::file(&image).named("two")).unwrap();
    assert_eq!((call("one"), call("two")), (1, 2));
    let taken = runtime.load(Image::file(&image).named("one")).unwrap_err();
    assert!(matches!(taken, Error::NameTaken { .. }), "{taken}");
    runtime.load(Image::file(&image).named("two")).unwrap();
}

#[test]
fn what_cannot_be_built_leaves_nothing() {
    let scratch = Scratch::new("image-fails");
    let source = scratch.write("bad.c", "int f(void) { return x; }");
    let good = scratch.write("good.c", "int f(void) { return 1; }");
    let image = scratch.write("kept.hbi", "kept");
    let mut build = hotbed(["image", "build", "--no-cache", "-o"]);
    let got = finish(build.arg(&image).arg(&source));
    assert_eq!(got.end, End::Status(1));
    assert_eq!(std::fs::read(&image).unwrap(), b"kept");
    for (place, word) in [("no/folder/x.hbi", "no/folder/x.hbi"), ("/proc/x.hbi", "/proc/x.hbi")] {
        let mut build = hotbed(["image", "build", "--no-cache", "-o", place]);
        let got = finish(build.current_dir(scratch.path()).arg(&good));
        assert_eq!(got.end, End::Status(1), "{place}");
        assert!(got.stderr.contains("cannot write") && got.stderr.contains(word), "{}", got.stderr);
    }
    let left: Vec<String> = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let error = runtime.image(scratch.join("x.hbi")).unit(Image::file(&image)).build().unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("linked already"), "{error}");
}

#[test]
fn undefined_symbols_are_for_the_load_to_find() {
    let scratch = Scratch::new("image-undefined");
    let image = scratch.join("u.hbi");
    let made =
        object(&scratch.write("u.c", "int later(void); int f(void) { return later(); }"), "o", &["-fPIC"]);
    let mut build = hotbed(["image", "build", "--no-cache", "-o"]);
    finish(build.arg(&image).arg(&made)).assert_success("image build");
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let error = runtime.load(Image::file(&image)).unwrap_err().to_string();
    assert!(error.contains("later") && error.contains("u.hbi"), "{error}");
    runtime.load(Source::text("later.c", "int later(void) { return 2; }")).unwrap();
    runtime.load(Image::file(&image)).unwrap();
}
