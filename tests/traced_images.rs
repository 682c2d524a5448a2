//! Images that are built by traces: code in the order of first calls, or compiled for what was called only; and traces that are
//! of something else, or none.

use crate::libraries::Library;
use crate::support::{End, Outcome, Scratch, execute, finish, hotbed, timing};
use hotbed::{Image, Runtime, Source, Trace};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs sources with a trace of their own.
#[track_caller]
fn trace(scratch: &Scratch, name: &str, files: &[&Path], flags: &[&str], arguments: &[&str]) -> PathBuf {
    let trace = scratch.join(name);
    let mut command = hotbed(["run", "-w", "--no-cache", "--trace"]);
    let got = finish(command.arg(&trace).args(flags).args(files).arg("--").args(arguments));
    assert!(trace.exists(), "{}", got.stderr);
    trace
}

/// Builds an image of sources.
fn build(image: &Path, files: &[&Path], options: &[&str]) -> Outcome {
    let mut command = hotbed(["image", "build", "--no-cache", "-w", "-o"]);
    finish(command.arg(image).args(options).args(files))
}

fn run(image: &Path, arguments: &[&str]) -> Outcome {
    let mut command = hotbed(["run", "--no-cache", "--timings=json"]);
    finish(command.arg(image).arg("--").args(arguments))
}

/// The functions of an image by their addresses.
fn functions(image: &Path) -> Vec<String> {
    let told = execute(Command::new("llvm-nm-22").args(["-n", "--defined-only"]).arg(image)).stdout;
    let code = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let code = matches!(words.next(), Some("t" | "T" | "w" | "W"));
        words.next().filter(|_| code).map(str::to_owned)
    };
    told.lines().filter_map(code).collect()
}

/// What an image shows to linkers.
fn exports(image: &Path) -> Vec<String> {
    let told = execute(Command::new("llvm-nm-22").args(["-D", "--defined-only"]).arg(image)).stdout;
    let mut names: Vec<String> =
        told.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    names.sort();
    names
}

fn sections(image: &Path) -> String {
    execute(Command::new("llvm-readelf-22").args(["-S", "-W"]).arg(image)).stdout
}

const NEVER_INLINED: &str = "#define KEPT __attribute__((noinline))\n";

/// Two sources whose local functions have the same name.
fn two_sources(scratch: &Scratch) -> [PathBuf; 2] {
    let one = "static volatile int n; KEPT static int same(int x) { return x + n; } KEPT static int idle(int x) { return x - n; }\n\
               KEPT int cold(int x) { return idle(x) * 5; } KEPT int one(int x) { return same(x) * 2; } KEPT int late(int x) { return x + 9 + n; }\n";
    let two = "#include <stdio.h>\nint one(int), cold(int), late(int); static volatile int m; KEPT static int unused(int x) { return x * m; }\n\
               KEPT static int same(int x) { return x - 1 - m; } KEPT static int other(int x) { return same(x) + unused(0); }\n\
               int main(int c, char **v) { if (c > 2) return cold(c); printf(\"%d\\n\", same(c) + one(c)); return c > 1 ? late(other(c)) : 0; }\n";
    let write = |name: &str, text: &str| scratch.write(name, NEVER_INLINED.to_owned() + text);
    [write("one.c", one), write("two.c", two)]
}

#[test]
fn what_is_called_lies_together() {
    let scratch = Scratch::new("traced-order");
    let [one, two] = two_sources(&scratch);
    let files = [one.as_path(), two.as_path()];
    let short = trace(&scratch, "short", &files, &[], &[]);
    let long = trace(&scratch, "long", &files, &[], &["x"]);
    let image = scratch.join("both.hbi");
    let build = |traces: &[&Path]| {
        let options: Vec<String> =
            traces.iter().map(|trace| format!("--trace={}", trace.display())).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).chain(["-O2"]).collect();
        let built = build(&image, &files, &options).assert_success("image build");
        assert_eq!(built.stderr, "");
        let mut functions = functions(&image);
        functions.retain(|name| !name.starts_with('_'));
        functions
    };
    assert_eq!(build(&[&short])[..4], ["main", "same", "one", "same"]);
    let merged = ["main", "same", "one", "same", "other", "unused", "late"];
    let functions = build(&[&short, &long]);
    assert_eq!(functions[..7], merged);
    assert_eq!(functions.len(), 9, "{functions:?}");
    // The first one's order, whatever the second's is.
    let mut turned: Vec<String> =
        std::fs::read_to_string(&long).unwrap().lines().map(str::to_owned).collect();
    turned.reverse();
    let turned = scratch.write("turned", turned.join("\n") + "\n");
    let functions = build(&[&turned, &short]);
    assert_eq!(functions[..7], ["late", "unused", "other", "same", "one", "same", "main"]);
    // It is an image like any other.
    assert!(!sections(&image).contains(".hotbed.slots"));
    for (arguments, status, text) in [(&[][..], 0, "2\n"), (&["x"], 10, "5\n"), (&["x", "y"], 15, "")] {
        let got = run(&image, arguments);
        assert_eq!((got.end, got.stdout.as_str()), (End::Status(status), text), "{}", got.stderr);
        assert_eq!(timing(&got.stderr, "backend_loaded"), "false");
    }
}

#[test]
fn what_is_not_called_stays_bitcode() {
    let scratch = Scratch::new("traced-bitcode");
    let [one, two] = two_sources(&scratch);
    let files = [one.as_path(), two.as_path()];
    for level in ["-O0", "-O2"] {
        let trace = trace(&scratch, &format!("trace{level}"), &files, &[level], &[]);
        let image = scratch.join(format!("part{level}.hbi"));
        let option = format!("--trace={}", trace.display());
        build(&image, &files, &[&option, "--rest=bitcode", level]).assert_success("image build");
        assert_eq!(exports(&image), ["main", "one"]);
        let bodies: Vec<String> =
            functions(&image).into_iter().filter(|name| name.ends_with(".body")).collect();
        assert_eq!(bodies, ["main.u1.body", "same.u1.u1.body", "one.u0.body", "same.u0.u0.body"]);
        for (arguments, status, text, compiled) in
            [(&[][..], 0, "2\n", "0"), (&["x"], 10, "5\n", "3"), (&["x", "y"], 15, "", "2")]
        {
            let got = run(&image, arguments);
            assert_eq!((got.end, got.stdout.as_str()), (End::Status(status), text), "{}", got.stderr);
            assert_eq!(timing(&got.stderr, "backend_loaded"), (compiled != "0").to_string());
            assert_eq!(timing(&got.stderr, "functions_compiled"), compiled, "{}", got.stderr);
        }
    }
}

#[test]
fn who_cannot_compile_has_what_was_called() {
    let scratch = Scratch::new("traced-dlopen");
    let text = "KEPT static int inner(int x) { return x + 1; } int often(int x) { return inner(x); } int seldom(int x) { return x * 7; }\n\
                int (*table[])(int) = {often, seldom}; static int began; __attribute__((constructor)) static void begin(void) { began = 40; }\n\
                int start(void) { return began; } int main(void) { return often(start()); }\n";
    let source = scratch.write("part.c", NEVER_INLINED.to_owned() + text);
    let trace = trace(&scratch, "trace", &[&source], &[], &[]);
    // Constructors run whether they are in a trace or not.
    let kept: String = std::fs::read_to_string(&trace)
        .unwrap()
        .lines()
        .filter(|line| !line.contains("\tbegin\t"))
        .map(|line| format!("{line}\n"))
        .collect();
    let trace = scratch.write("without", kept);
    let image = scratch.join("part.hbi");
    let option = format!("--trace={}", trace.display());
    build(&image, &[&source], &[&option, "--rest", "bitcode", "-O1"]).assert_success("image build");
    assert_eq!(exports(&image), ["main", "often", "start", "table"]);
    let host = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(int c, char **v) {
  void *handle = dlopen(v[1], RTLD_NOW);
  if (!handle) { puts(dlerror()); return 1; }
  int (*often)(int) = dlsym(handle, "often"), (*start)(void) = dlsym(handle, "start");
  int (**table)(int) = dlsym(handle, "table");
  printf("%d %d %d\n", often(start()), table[0] == often, dlsym(handle, "seldom") == 0);
  fflush(stdout);
  return table[1](1);
}
"#;
    let host = scratch.write("host.c", host);
    let executable = scratch.join("host");
    execute(Command::new("clang-22").arg("-w").arg(&host).arg("-o").arg(&executable));
    let got = finish(Command::new(&executable).arg(&image));
    assert_eq!((got.end, got.stdout.as_str()), (End::Signal(libc::SIGABRT), "41 1 1\n"), "{got:?}");
    assert_eq!(got.stderr, "hotbed: seldom was never compiled\n");
    let user = scratch.write("user.c", "int seldom(int); int main(void) { return seldom(1); }");
    let mut link = Command::new("clang-22");
    let refused = finish(link.arg(&user).arg(&image).arg("-o").arg(scratch.join("user")));
    assert!(refused.end != End::Status(0) && refused.stderr.contains("seldom"), "{}", refused.stderr);
}

#[test]
fn templates_and_statics_are_one() {
    let header = "#include <cstdio>\n#include <stdexcept>\n#include <string>\n#include <vector>\n\
        template <class T> T &counter() { static T n{}; return n; }\n\
        template <class T> T add(T a, T b) { counter<T>() += 1; return a + b; }\n\
        inline int shared() { static int n = 40; return ++n; }\n\
        struct Shape { virtual ~Shape() {} virtual int area() const { return 0; } };\n\
        struct Square : Shape { int side; explicit Square(int s) : side(s) {} int area() const override { if (side < 0) throw std::runtime_error(\"negative\"); return side * side; } };\n\
        int one(int); Shape *make(int);\nnamespace { int local(int x) { return shared() + x; } }\n";
    let one = "int one(int x) { return add(x, 2) + local(1); } Shape *make(int s) { return new Square(s); }\n\
        template int add<int>(int, int); static std::string text = std::to_string(one(3));\nconst char *first() { return text.c_str(); }\n";
    let two = "const char *first(); int main(int c, char **) {\n\
        std::vector<int> v; for (int i = 0; i < 9; i++) v.push_back(add(i, one(i)));\n\
        Shape *s = make(c > 1 ? -1 : 3); Square own(2); int sum = own.area();\n\
        try { sum += s->area(); } catch (const std::exception &e) { std::puts(e.what()); sum = local(2); }\n\
        std::printf(\"%s %d %d %d %d %g\\n\", first(), v[8], sum, counter<int>(), shared(), add(1.5, c > 1 ? 2.0 : 1.0)); delete s; return local(0) & 63; }\n";
    let scratch = Scratch::new("traced-templates");
    let one = scratch.write("one.cpp", header.to_owned() + one);
    let two = scratch.write("two.cpp", header.to_owned() + two);
    let files = [one.as_path(), two.as_path()];
    let executable = scratch.join("executable");
    execute(Command::new("clang++-22").args(files).arg("-o").arg(&executable));
    let trace = trace(&scratch, "trace", &files, &[], &[]);
    let option = format!("--trace={}", trace.display());
    for (rest, level) in [("compile", "-O2"), ("bitcode", "-O0"), ("bitcode", "-O2")] {
        let image = scratch.join(format!("{rest}{level}.hbi"));
        let built = build(&image, &files, &[&option, "--rest", rest, level]).assert_success("image build");
        assert_eq!(built.stderr, "", "{rest} {level}");
        for arguments in [&[][..], &["x"]] {
            let want = finish(Command::new(&executable).args(arguments));
            let got = run(&image, arguments);
            let what = format!("{rest} {level} {arguments:?}");
            got.assert_same(&want, &what);
            if arguments.is_empty() {
                assert_eq!(timing(&got.stderr, "functions_compiled"), "0", "{what}");
                assert_eq!(timing(&got.stderr, "backend_loaded"), "false", "{what}");
            }
        }
    }
}

#[test]
fn small_images_may_have_thread_locals_that_are_all_zero() {
    let scratch = Scratch::new("traced-zeros");
    let text = "#include <stdio.h>\nstatic _Thread_local const char *reason;\n\
                static int fail(const char *why) { reason = why; return 0; }\n\
                int unused(int x) { return fail(\"unused\") + x; }\n\
                int main(void) { fail(\"why\"); return printf(\"%s\\n\", reason) != 4; }\n";
    let source = scratch.write("zeros.c", text);
    let trace = format!("--trace={}", trace(&scratch, "trace", &[&source], &["-O2"], &[]).display());
    let image = scratch.join("zeros.hbi");
    for options in [&["-O2"][..], &["-O2", &trace], &["-O2", &trace, "--rest=bitcode"]] {
        build(&image, &[&source], options).assert_success("image build");
        assert_eq!(run(&image, &[]).assert_success("run").stdout, "why\n", "{options:?}");
    }
}

#[test]
fn what_two_sources_define_is_compiled_once() {
    let one = "__attribute__((weak)) KEPT int weak(int x) { return x + 100; } KEPT int first(int x) { return weak(x); }\n\
        static int chosen_one(int x) { return x * 2; } static int (*resolve(void))(int) { return chosen_one; }\n\
        int chosen(int) __attribute__((ifunc(\"resolve\")));\n\
        int target(int x) { return x - 1; } int other(int) __attribute__((alias(\"target\")));\n";
    let two = "#include <stdio.h>\n__attribute__((weak)) KEPT int weak(int x) { return x + 200; }\n\
        int first(int), chosen(int), other(int); KEPT int rare(int x) { return weak(x) + other(x); }\n\
        int main(int c, char **v) { printf(\"%d %d\\n\", first(c), chosen(c)); return c > 1 ? rare(c) : 0; }\n";
    let scratch = Scratch::new("traced-weak");
    let one = scratch.write("one.c", NEVER_INLINED.to_owned() + one);
    let two = scratch.write("two.c", NEVER_INLINED.to_owned() + two);
    let trace = trace(&scratch, "trace", &[&one, &two], &[], &[]);
    let option = format!("--trace={}", trace.display());
    let image = scratch.join("weak.hbi");
    // Whichever of them the linker takes, and whichever was traced.
    for (files, weak) in [([&one, &two], 100), ([&two, &one], 200)] {
        let files = files.map(PathBuf::as_path);
        for (rest, level) in [("compile", "-O2"), ("bitcode", "-O0"), ("bitcode", "-O2")] {
            let what = format!("{weak} {rest} {level}");
            let built = build(&image, &files, &[&option, "--rest", rest, level]).assert_success(&what);
            assert_eq!(built.stderr, "", "{what}");
            if rest == "bitcode" {
                assert_eq!(exports(&image), ["chosen", "first", "main", "weak"], "{what}");
            }
            let got = run(&image, &[]);
            assert_eq!((got.end, got.stdout), (End::Status(0), format!("{} 2\n", weak + 1)), "{what}");
            assert_eq!(timing(&got.stderr, "functions_compiled"), "0", "{what}");
            let got = run(&image, &["x"]);
            let sum = (weak + 2 + 1) & 255;
            assert_eq!((got.end, got.stdout), (End::Status(sum), format!("{} 4\n", weak + 2)), "{what}");
            assert_eq!(timing(&got.stderr, "backend_loaded"), (rest == "bitcode").to_string(), "{what}");
        }
    }
}

#[test]
fn what_is_inlined_finds_the_local_functions_of_its_own_source() {
    let scratch = Scratch::new("traced-inlined");
    let header = "KEPT static int local(int x) { return x * 3; }\n\
                  inline int shared(int x) { return local(x) + local(x + 1); }\n";
    let sources = [
        (
            "one.cpp",
            "KEPT int one(int x) { return shared(x); }\n\
                     KEPT static int other(int x) { return x + 1; } KEPT int idle(int x) { return other(x); }\n",
        ),
        (
            "two.cpp",
            "#include <cstdio>\nint one(int), idle(int); KEPT static int other(int x) { return x + 2; }\n\
                     KEPT static int two(int x) { return shared(x) + 1; }\n\
                     int main(int c, char **) { return std::printf(\"%d %d %d\\n\", one(c), two(c), other(c)) + (c > 1 ? idle(c) : 0) != 7; }\n",
        ),
    ];
    let write = |(name, text): (&str, &str)| scratch.write(name, format!("{NEVER_INLINED}{header}{text}"));
    let files = sources.map(write);
    let files = files.each_ref().map(PathBuf::as_path);
    let option = format!("--trace={}", trace(&scratch, "trace", &files, &["-O2"], &[]).display());
    let image = scratch.join("inlined.hbi");
    let built = build(&image, &files, &[&option, "--rest=bitcode", "-O2"]).assert_success("image build");
    assert_eq!(built.stderr, "");
    // What has the name of a traced function, and says something else, stays bitcode.
    assert_eq!(
        functions(&image).iter().filter(|name| name.contains("other")).count(),
        3,
        "{:?}",
        functions(&image)
    );
    let got = run(&image, &[]).assert_success("run");
    assert_eq!(got.stdout, "9 10 3\n");
    assert_eq!(timing(&got.stderr, "functions_compiled"), "0");
    assert_eq!(timing(&got.stderr, "backend_loaded"), "false");
}

#[test]
fn who_has_an_allocator_is_whole() {
    let text = "#include <cstdio>\n#include <cstdlib>\n#include <new>\n#include <string>\nstatic long live;\n\
        void *operator new(std::size_t n) { live++; return (char *)std::malloc(n + 16) + 16; }\n\
        void operator delete(void *p) noexcept { if (p) { live--; std::free((char *)p - 16); } }\n\
        void operator delete(void *p, std::size_t) noexcept { operator delete(p); }\n\
        KEPT static std::string *make(int c) { return new std::string(c > 1 ? 60 : 50, 'x'); } KEPT static int idle(int x) { return x * 3; }\n\
        int main(int c, char **) { long before = live; std::string *s = make(c); std::printf(\"%zu %d\\n\", s->size(), live > before);\n\
        if (c > 1) { delete s; std::printf(\"%d\\n\", live == before); } return c > 1 ? idle(c) : 0; }\n";
    let scratch = Scratch::new("traced-allocator");
    let source = scratch.write("new.cpp", NEVER_INLINED.to_owned() + text);
    let trace = trace(&scratch, "trace", &[&source], &[], &[]);
    let image = scratch.join("new.hbi");
    let option = format!("--trace={}", trace.display());
    build(&image, &[&source], &[&option, "--rest=bitcode", "-O2"]).assert_success("image build");
    for (arguments, status, want) in [(&[][..], 0, "50 1\n"), (&["x"], 6, "60 1\n1\n")] {
        let got = run(&image, arguments);
        assert_eq!((got.end, got.stdout.as_str()), (End::Status(status), want), "{}", got.stderr);
        assert_eq!(timing(&got.stderr, "backend_loaded"), "false");
    }
}

#[test]
fn records_that_fit_nothing_are_told() {
    let scratch = Scratch::new("traced-stale");
    let text = "KEPT static int gone(int x) { return x * 3; } KEPT static int changes(int x) { return x + 1; }\n\
                int main(void) { return gone(changes(3)); }\n";
    let source = scratch.write("a.c", NEVER_INLINED.to_owned() + text);
    let other = scratch.write("b.c", "int main(void) { return 0; }");
    let trace_of = |name: &str, file: &Path, level: &str| trace(&scratch, name, &[file], &[level], &[]);
    let first = trace_of("first", &source, "-O1");
    let second = trace_of("second", &other, "-O1");
    let new = text.replace("x + 1", "x + 2").replace("gone(", "there(");
    scratch.write("a.c", NEVER_INLINED.to_owned() + &new);
    let image = scratch.join("a.hbi");
    let [first_option, second_option] = [&first, &second].map(|trace| format!("--trace={}", trace.display()));
    let a = source.display();
    let said = |severity: &str| {
        format!(
            "{first}:1: {severity}: main of {a} is not what it was\n\
             {first}:2: {severity}: changes of {a} is not what it was\n\
             {first}:3: {severity}: {a} has no function gone\n\
             {second}:1: {severity}: {b}, which has main, is no source here\n\
             {severity}: 4 of 4 records of calls fit nothing here\n",
            first = first.display(),
            second = second.display(),
            b = other.display()
        )
    };
    for rest in ["compile", "bitcode"] {
        let options = [&first_option, &second_option, "--rest", rest, "-O1"];
        let told = build(&image, &[&source], &options).assert_success(rest);
        assert_eq!(told.stderr, said("warning"), "{rest}");
        // What is there is taken for called all the same.
        let got = run(&image, &[]);
        assert_eq!(got.end, End::Status(15), "{}", got.stderr);
        std::fs::remove_file(&image).unwrap();
        let told = build(&image, &[&source], &[&options[..], &["--strict"]].concat());
        assert_eq!(told.end, End::Status(1));
        let error = format!(
            "hotbed: error: cannot make {a} as it was traced: {}:1: main of {a} is not what it was\n",
            first.display()
        );
        assert_eq!(told.stderr, said("error") + &error, "{rest}");
        assert!(!image.exists());
    }
    // With other flags contents say nothing.
    let told = build(&image, &[&source], &[&first_option, "-O2"]).assert_success("other flags");
    assert!(told.stderr.contains("1 of 3 records"), "{}", told.stderr);
    // A strict build of what fits.
    let fresh = trace_of("fresh", &source, "-O1");
    let option = format!("--trace={}", fresh.display());
    for rest in ["compile", "bitcode"] {
        let told = build(&image, &[&source], &[&option, "--strict", "--rest", rest, "-O1"]);
        assert_eq!(told.assert_success(rest).stderr, "");
    }
}

#[test]
fn what_is_no_trace_is_refused_by_its_line() {
    let scratch = Scratch::new("traced-nonsense");
    let source = scratch.write("a.c", "int main(void) { return 0; }");
    let image = scratch.join("a.hbi");
    let good = trace(&scratch, "good", &[&source], &[], &[]);
    let good = std::fs::read_to_string(good).unwrap();
    let version = good.replace("hotbed-trace-1", "hotbed-trace-9");
    for (text, why) in [
        (format!("{good}\nint main;\n"), "line 3: it is no record of a trace"),
        (version, "line 1: its form is version 9, this is version 1"),
        (good[..good.len() / 2].to_owned(), "line 1: it is damaged"),
        ("\u{7f}ELF".to_owned(), "line 1: it is no record of a trace"),
    ] {
        let trace = scratch.write("bad", text);
        let option = format!("--trace={}", trace.display());
        let told = build(&image, &[&source], &[&option]);
        assert_eq!(told.end, End::Status(1), "{}", told.stderr);
        let error = format!("hotbed: error: cannot read the trace {}: {why}", trace.display());
        assert!(told.stderr.starts_with(&error), "{}", told.stderr);
        assert!(!image.exists());
    }
    let told = build(&image, &[&source], &["--trace=/no/where"]);
    let error = "hotbed: error: cannot read /no/where: No such file or directory\n";
    assert_eq!((told.end, told.stderr.as_str()), (End::Status(1), error));
}

#[test]
fn a_host_says_it_too() {
    let scratch = Scratch::new("traced-host");
    let text = "KEPT int twice(int x) { return 2 * x; } KEPT int four(int x) { return twice(twice(x)); } KEPT int idle(int x) { return x + 5; }\n\
                int chosen(int x, int y) { return y ? idle(x) : four(x); }\n";
    let source = || Source::text("four.c", NEVER_INLINED.to_owned() + text).flags(["-O2"]);
    let call = |runtime: &Runtime, load: hotbed::Load, y: i32| {
        let unit = runtime.load(load).unwrap();
        // SAFETY: that is its type.
        let chosen = unsafe { unit.get::<unsafe extern "C" fn(i32, i32) -> i32>("chosen") }.unwrap();
        // SAFETY: as above.
        unsafe { chosen(3, y) }
    };
    let path = scratch.join("trace");
    let runtime = Runtime::builder().no_cache().trace(&path).build().unwrap();
    assert_eq!(call(&runtime, source().into(), 0), 12);
    drop(runtime);
    let trace = Trace::read(&path).unwrap();
    let store = scratch.join("store");
    for cached in [false, true] {
        let builder = Runtime::builder();
        let builder = if cached { builder.cache_dir(&store) } else { builder.no_cache() };
        let runtime = builder.build().unwrap();
        assert_eq!(call(&runtime, source().named("whole").trace(trace.clone()).into(), 0), 12);
        let lazy = || source().named("lazy").lazy().trace(trace.clone().strict());
        assert_eq!(call(&runtime, lazy().into(), 0), 12);
        assert_eq!(runtime.functions_compiled(), 0);
        assert_eq!(call(&runtime, lazy().into(), 1), 8);
        assert_eq!(runtime.functions_compiled(), 1);
        // The same as a file.
        let image = scratch.join("four.hbi");
        let report = runtime.image(&image).unit(lazy()).build().unwrap();
        assert_eq!(report.counts.functions_compiled, 3);
        assert_eq!(call(&runtime, Image::file(&image).into(), 1), 8);
        assert_eq!(runtime.functions_compiled(), 2);
    }
    let both = Trace::read(&path).unwrap().and(&trace).strict();
    let other = Source::text("other.c", "int other;").trace(both);
    let error = Runtime::builder().no_cache().build().unwrap().load(other).unwrap_err();
    assert_eq!(error.diagnostics().len(), 3, "{error}");
    assert!(error.to_string().contains("four.c"), "{error}");
}

#[test]
fn lua_is_traced() {
    let scratch = Scratch::new("traced-lua");
    let library = Library::find("lua");
    let executable = scratch.join("executable");
    let objects = library.compile(&scratch, &["-O0"], "o");
    execute(Command::new("clang-22").args(&objects).args(&library.libs).arg("-o").arg(&executable));
    let want = finish(&mut Command::new(&executable));
    let inputs = || library.files.iter().chain([&library.program]);
    let trace = scratch.join("trace");
    let mut traced = hotbed(["run", "--no-cache", "--trace"]);
    let got = finish(traced.arg(&trace).args(&library.flags).args(inputs()).args(&library.libs));
    got.assert_same(&want, "traced");
    let called = std::fs::read_to_string(&trace).unwrap().lines().count();
    assert!(called > 50, "{called}");
    for rest in ["bitcode", "compile"] {
        let image = scratch.join(format!("{rest}.hbi"));
        let mut build = hotbed(["image", "build", "--no-cache", "--timings=json", "--rest", rest, "--trace"]);
        build.arg(&trace).arg("-o").arg(&image).args(&library.flags).arg("-O2").args(inputs());
        let built = finish(build.args(&library.libs)).assert_success(rest);
        let compiled: usize = timing(&built.stderr, "functions_compiled").parse().unwrap();
        assert_eq!(compiled == called, rest == "bitcode", "{compiled} of {called}");
        let got = run(&image, &[]);
        got.assert_same(&want, rest);
        for (key, value) in
            [("units_compiled", "0"), ("functions_compiled", "0"), ("backend_loaded", "false")]
        {
            assert_eq!(timing(&got.stderr, key), value, "{rest}: {key}");
        }
        let exports = exports(&image);
        assert!(exports.iter().any(|name| name == "lua_pcallk"), "{exports:?}");
    }
}
