//! Compiling in a worker: the same results; whatever becomes of the worker is an error that carries its last words, the
//! host is alive afterwards and the next request works. And what can be caught without a worker.

use crate::support::{Child, End, Scratch, finish, hotbed, task, timing};
use hotbed::{Error, Isolation, Load, Runtime, RuntimeBuilder, Source};
use std::time::{Duration, Instant};

const GOOD: &str = "int f(void) { return 6; }";

fn isolated() -> RuntimeBuilder {
    // So that a worker that hangs where it should crash is a failure and not the end of the tests.
    Runtime::builder().no_cache().isolation(Isolation::Process).time_limit(Duration::from_secs(120))
}

fn load(runtime: &Runtime, name: &str, load: impl Into<Load>) {
    let unit = runtime.load(load).unwrap_or_else(|error| panic!("{}", error.render()));
    // SAFETY: that is its type.
    let f = unsafe { unit.get::<unsafe extern "C" fn() -> i32>("f") }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { f() }, 6, "{name}");
    drop(f);
    unit.unload().unwrap();
}

#[test]
fn lazy_units_are_compiled_whole() {
    let runtime = isolated().build().unwrap();
    load(&runtime, "lazy", good("lazy").lazy());
    assert_eq!(runtime.functions_compiled(), 0);
}

fn good(name: &str) -> Source {
    Source::text("good.c", GOOD).named(name)
}

#[test]
fn gives_the_same_as_compiling_here() {
    let scratch = Scratch::new("worker-same");
    scratch.write("inc/h.h", "#define SIX 6\n");
    let source = scratch.write("s.c", "#include \"h.h\"\n#warning look\nint f(void) { return SIX; }");
    let flag = format!("-I{}", scratch.join("inc").display());
    let reports = [Runtime::builder().no_cache(), isolated()].map(|builder| {
        let runtime = builder.build().unwrap();
        let unit = runtime.load(Source::file(&source).flags([&flag])).unwrap();
        let report = unit.report().clone();
        (unit.dependencies(), unit.exports(), report.counts, report.rendered, report.diagnostics)
    });
    assert_eq!(reports[0], reports[1]);
    assert!(reports[0].3.contains("look"));
    let errors = [Runtime::builder().no_cache(), isolated()].map(|builder| {
        let error =
            builder.build().unwrap().load(Source::text("bad.c", "int f(void) {\n  return x; }")).unwrap_err();
        (error.render(), error.diagnostics().to_vec())
    });
    assert_eq!(errors[0], errors[1]);
    assert_eq!((errors[0].1[0].line, errors[0].1[0].column, errors[0].1[0].file.as_str()), (2, 10, "bad.c"));
}

#[test]
fn a_crash_is_an_error_with_last_words() {
    let runtime = isolated().build().unwrap();
    load(&runtime, "before", good("before"));
    for (pragma, word) in [
        ("crash", "SIGTRAP SIGILL SIGSEGV SIGABRT"),
        ("parser_crash", "SIGTRAP SIGILL SIGSEGV SIGABRT"),
        ("llvm_fatal_error", "#pragma clang __debug llvm_fatal_error"),
    ] {
        let text = format!("#pragma clang __debug {pragma}\nint x;");
        let error = runtime.load(Source::text("crash.c", text)).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("cannot compile crash.c: "), "{pragma}: {said}");
        let known = word == "#pragma clang __debug llvm_fatal_error";
        let fits =
            if known { said.contains(word) } else { word.split(' ').any(|signal| said.contains(signal)) };
        assert!(fits, "{pragma}: {said}");
        load(&runtime, pragma, good(pragma));
    }
    assert!(runtime.units().is_empty());
}

#[test]
fn what_overflows_the_compilers_stack_is_an_error() {
    let runtime = isolated().build().unwrap();
    let depth = 1_000_000;
    let text = format!("int x = {}1{};", "(".repeat(depth), ")".repeat(depth));
    let error = runtime.load(Source::text("deep.c", text).flags(["-fbracket-depth=2000000"])).unwrap_err();
    assert!(error.to_string().starts_with("cannot compile deep.c: "), "{error}");
    load(&runtime, "after", good("after"));
}

#[test]
fn a_hang_ends_at_the_time_limit() {
    // Each level of this doubles the work.
    let slow = "template <int N, int M> struct S { static const long v = S<N - 1, M * 2>::v + S<N - 1, M * 2 + 1>::v; };\n\
                template <int M> struct S<0, M> { static const long v = M; };\nlong f = S<24, 0>::v;";
    let runtime = isolated().time_limit(Duration::from_secs(2)).build().unwrap();
    load(&runtime, "before", good("before"));
    let started = Instant::now();
    let error = runtime.load(Source::text("slow.cpp", slow)).unwrap_err();
    assert!(matches!(error, Error::Worker { .. }), "{error}");
    assert_eq!(error.to_string(), "cannot compile slow.cpp: it took longer than the time limit of 2s");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    load(&runtime, "after", good("after"));
}

#[test]
fn too_much_memory_is_an_error() {
    let hungry = "template <int N, int M> struct S { static const long v = S<N - 1, M * 2>::v + S<N - 1, M * 2 + 1>::v; };\n\
                  template <int M> struct S<0, M> { static const long v = M; };\nlong f = S<22, 0>::v;";
    let runtime = isolated().memory_limit(400 << 20).time_limit(Duration::from_secs(120)).build().unwrap();
    load(&runtime, "before", good("before"));
    let error = runtime.load(Source::text("hungry.cpp", hungry)).unwrap_err();
    assert!(matches!(error, Error::Worker { .. } | Error::Compile { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("hungry.cpp") && said.to_lowercase().contains("memory"), "{said}");
    load(&runtime, "after", good("after"));
}

#[test]
fn workers_end_with_their_runtime() {
    let output = Child::new("worker::count_workers", "count").succeed();
    assert_eq!(output.trim(), "a worker while it lives: true, after it: false, children: -1");
}

/// A host that has nobody else's workers.
#[test]
fn count_workers() {
    let Some(_task) = task() else { return };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let runtime = isolated().build().unwrap();
    load(&runtime, "one", good("one"));
    let during = descriptors();
    runtime.shut_down_workers();
    load(&runtime, "two", good("two"));
    drop(runtime);
    let after = descriptors();
    // SAFETY: asks for any child; there must be none that a host's own `wait` could find.
    let child = unsafe { libc::wait(std::ptr::null_mut()) };
    print!("a worker while it lives: {}, after it: {}, children: {child}", during > before, after > before);
}

#[test]
fn a_fatal_error_of_llvm_is_an_error_here_too() {
    let outcome = Child::new("worker::fatal_here", "fatal").run();
    assert_eq!(outcome.end, End::Status(0), "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("cannot compile fatal.c"), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("alive"), "{}", outcome.stdout);
}

/// A host that compiles in process what makes LLVM give up.
#[test]
fn fatal_here() {
    let Some(_task) = task() else { return };
    let runtime = Runtime::builder().no_cache().build().unwrap();
    load(&runtime, "before", good("before"));
    for _ in 0..3 {
        let text = "#pragma clang __debug llvm_fatal_error\nint x;";
        println!("{}", runtime.load(Source::text("fatal.c", text)).unwrap_err());
        load(&runtime, "after", good("after"));
    }
    print!("alive");
}

#[test]
fn the_command_isolates() {
    let scratch = Scratch::new("worker-command");
    let source = scratch.write("ok.c", "#include <stdio.h>\nint main(void) { puts(\"ok\"); return 3; }");
    let crash = scratch.write("crash.c", "#pragma clang __debug crash\nint main(void) { return 0; }");
    let run = |file, flags: &[&str]| {
        let mut command = hotbed(["run", "--isolate", "--timings=json", "--cache-dir"]);
        finish(command.arg(scratch.join("store")).args(flags).arg(file))
    };
    let cold = run(&source, &[]);
    assert_eq!((cold.stdout.as_str(), cold.end), ("ok\n", End::Status(3)), "{}", cold.stderr);
    assert_eq!(timing(&cold.stderr, "backend_loaded"), "true");
    let warm = run(&source, &[]);
    assert_eq!((warm.stdout.as_str(), warm.end), ("ok\n", End::Status(3)), "{}", warm.stderr);
    assert_eq!(timing(&warm.stderr, "units_compiled"), "0");
    let crashed = run(&crash, &[]);
    assert_eq!((crashed.stdout.as_str(), crashed.end), ("", End::Status(1)), "{}", crashed.stderr);
    assert!(crashed.stderr.contains("crash.c"), "{}", crashed.stderr);
}

#[test]
fn several_threads_have_workers_of_their_own() {
    let runtime = isolated().build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let runtime = runtime.clone();
            scope.spawn(move || {
                for round in 0..5 {
                    load(&runtime, "threads", good(&format!("{thread}-{round}")));
                }
            });
        }
    });
}
