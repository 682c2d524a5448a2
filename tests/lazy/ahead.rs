//! Functions that are compiled before they are called, because what calls them was.

use super::same;
use hotbed::{Runtime, Source, Unit};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Functions that call the next one each, and a last one.
fn chain(count: usize) -> String {
    let mut text = String::from("int f0(int x) { return x; }\n");
    for at in 1..count {
        // Too large to be compiled together with others.
        let body: String = (0..40).fold(String::new(), |mut text, step| {
            let _ = write!(text, "s = s * {} + x; ", step + at);
            text
        });
        writeln!(text, "int f{at}(int x) {{ unsigned s = 1; {body} return f{}(x) + (s == 7); }}", at - 1)
            .unwrap();
    }
    text
}

fn call(unit: &Unit, name: &str, x: i32) -> i32 {
    // SAFETY: that is the type of all of them.
    let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>(name) }.unwrap();
    // SAFETY: as above.
    unsafe { f(x) }
}

/// Waits until so many functions are compiled.
fn wait_for(runtime: &Runtime, count: u32) {
    let begin = Instant::now();
    while runtime.functions_compiled() < count {
        assert!(begin.elapsed() < Duration::from_secs(60), "{} compiled", runtime.functions_compiled());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn what_a_function_calls_is_compiled_before_it_is_called() {
    let text = chain(64) + "int first(int x) { if (x == 0) return 5; return f63(x); }\n";
    for level in ["-O0", "-O2"] {
        for speculate in [false, true] {
            let runtime = Runtime::builder().no_cache().speculate(speculate).build().unwrap();
            let unit = runtime.load(Source::text("ahead.c", text.as_str()).flags([level]).lazy()).unwrap();
            assert_eq!(call(&unit, "first", 0), 5);
            if speculate && processors() > 1 {
                // Nobody has called it.
                wait_for(&runtime, 2);
                std::thread::sleep(Duration::from_millis(50));
                assert!(runtime.functions_compiled() < 16, "in proportion to the one call");
            } else {
                assert_eq!(runtime.functions_compiled(), 1);
            }
            assert_eq!(call(&unit, "first", 3), 3);
            assert!(runtime.functions_compiled() <= 65);
        }
    }
}

#[test]
fn what_does_not_compile_ahead_is_no_matter() {
    let text = "int bad(int x) { __asm__(\"this is no instruction\"); return x; }\n\
        int good(int x) { return x == 0 ? 7 : bad(x); }\nint other(int x) { return good(x) + 1; }\n";
    let runtime = Runtime::builder().no_cache().speculate(true).build().unwrap();
    let unit = runtime.load(Source::text("bad.c", text).flags(["-O0"]).lazy()).unwrap();
    for _ in 0..3 {
        assert_eq!((call(&unit, "good", 0), call(&unit, "other", 0)), (7, 8));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn units_go_while_something_is_compiled_ahead() {
    let runtime = Runtime::builder().no_cache().speculate(true).build().unwrap();
    let text = chain(200);
    for round in 0..20 {
        let unit = runtime.load(Source::text("going.c", text.as_str()).flags(["-O0"]).lazy()).unwrap();
        let from = 100 + round;
        assert_eq!(call(&unit, &format!("f{from}"), 1), 1);
        unit.unload().unwrap();
    }
    assert!(runtime.units().is_empty());
}

#[test]
fn processes_fork_while_something_is_compiled_ahead() {
    let text = chain(120)
        + "#include <stdio.h>\n#include <sys/wait.h>\n#include <unistd.h>\n\
        static int (*const all[])(int) = {f10, f20, f30, f40, f50, f60, f70, f80, f90, f100};\n\
        int main(void) { int sum = 0;\n\
          for (int i = 0; i < 10; i++) { sum += all[i](i); pid_t child = fork(); if (child < 0) return 1;\n\
            if (!child) _exit(f119(i) + all[9 - i](i)); int status; waitpid(child, &status, 0);\n\
            if (!WIFEXITED(status)) { printf(\"%d\\n\", WTERMSIG(status)); return 1; } sum += WEXITSTATUS(status); }\n\
          printf(\"%d\\n\", sum); return 0; }\n";
    same("forks-ahead.c", &text);
}
