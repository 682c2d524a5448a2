//! Libraries that are needed while something runs: by look-ups, constructors, several threads at once, children of a fork.

use super::*;
use crate::support::{Child, task};
use std::thread;

const LOOK_UP: &str = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdio.h>\n#include <string.h>\n\
    static int found(void *handle, const char *name) { int (*f)(void) = dlsym(handle, name); return f ? f() : -1; }\n";

#[test]
fn look_ups_of_units_load_them() {
    let (runtime, log) = runtime();
    for name in ["by_default", "by_program", "by_next"] {
        lazy(&runtime, name, &format!("int {name}(void) {{ return 1; }}"));
    }
    lazy(&runtime, "broken", "int broken(void) { return undeclared; }");
    let text = format!(
        "{LOOK_UP} int user(void) {{ return found(RTLD_DEFAULT, \"by_default\") + 10 * found(dlopen(0, RTLD_NOW), \"by_program\")\n\
         + 100 * found(RTLD_NEXT, \"by_next\"); }}\n\
         int nobody(void) {{ return found(RTLD_DEFAULT, \"nobody_has_it\"); }}\n\
         int of_libc(void) {{ return found(RTLD_DEFAULT, \"getpid\") > 0; }}\n\
         int broken_one(void) {{ if (found(RTLD_DEFAULT, \"broken\") != -1) return 0; const char *e = dlerror(); return strstr(e, \"cannot load broken for `broken`, needed by user.c: \") != 0; }}"
    );
    let unit = load(&runtime, Source::text("user.c", text));
    assert_eq!(log.compiled(), ["user.c"]);
    assert_eq!(call(&unit, "of_libc"), 1);
    assert!(log.compiled().is_empty());
    assert_eq!(call(&unit, "user"), 111);
    assert_eq!(log.compiled(), ["by_default", "by_program", "by_next"]);
    assert_eq!(call(&unit, "broken_one"), 1);
    assert_eq!(call(&unit, "nobody"), -1);
}

#[test]
fn constructors_that_need_others() {
    let (runtime, _) = runtime();
    let outer = format!(
        "{LOOK_UP} int value, early(void); __attribute__((constructor)) static void start(void) {{\n\
         value = found(RTLD_DEFAULT, \"inner\") + early(); }} int outer(void) {{ return value; }}"
    );
    lazy(&runtime, "outer", &outer);
    // This one looks up what is being started, and something else again.
    let inner = format!(
        "{LOOK_UP} static int sum; __attribute__((constructor)) static void start(void) {{\n\
         sum = found(RTLD_DEFAULT, \"innermost\") + (dlsym(RTLD_DEFAULT, \"outer\") != 0); }} int inner(void) {{ return sum; }}"
    );
    lazy(&runtime, "inner", &inner);
    lazy(&runtime, "innermost", "int innermost(void) { return 5; }");
    lazy(
        &runtime,
        "early",
        "static int ready; __attribute__((constructor)) static void start(void) { ready = 100; } int early(void) { return ready; }",
    );
    assert_eq!(call(&load(&runtime, user("outer")), "user"), 106);
}

#[test]
fn several_threads_at_once_load_it_once() {
    let (runtime, log) = runtime();
    let counted = "static int starts; __attribute__((constructor)) static void start(void) { starts++; } int starts_of_it(void) { return starts; }";
    lazy(&runtime, "counted", counted);
    lazy(&runtime, "other", "int starts_of_it(void); int other(void) { return 10 * starts_of_it(); }");
    let text = format!("{LOOK_UP} int user(void) {{ return 100 * found(RTLD_DEFAULT, \"starts_of_it\"); }}");
    let look_up = load(&runtime, Source::text("look-up.c", text));
    thread::scope(|scope| {
        for at in 0..8 {
            let (runtime, look_up) = (&runtime, &look_up);
            scope.spawn(move || match at % 4 {
                0 => assert_eq!(call(look_up, "user"), 100),
                1 => assert_eq!(call(&load(runtime, user("other").named(format!("{at}"))), "user"), 10),
                2 => assert_eq!(call(&load(runtime, user("starts_of_it").named(format!("{at}"))), "user"), 1),
                _ => assert_eq!(call(&runtime.unit("counted").unwrap(), "starts_of_it"), 1),
            });
        }
    });
    let compiled = log.compiled();
    for name in ["counted", "other"] {
        assert_eq!(compiled.iter().filter(|unit| *unit == name).count(), 1, "{compiled:?}");
    }
}

#[test]
fn a_child_of_a_fork_loads_what_it_needs() {
    assert_eq!(Child::new("lazy_libraries::threads::forks", "run").succeed(), "parent 7 child 7\n");
}

#[test]
fn forks() {
    let Some(_task) = task() else { return };
    let (runtime, _) = runtime();
    lazy(&runtime, "lib", "int lib(void) { return 7; }");
    let text = format!("{LOOK_UP} int user(void) {{ return found(RTLD_DEFAULT, \"lib\"); }}");
    let unit = load(&runtime, Source::text("user.c", text));
    // SAFETY: the child calls the unit and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let got = call(&unit, "user");
        // SAFETY: ends the process.
        unsafe { libc::_exit(got) };
    }
    let mut status = 0;
    // SAFETY: a place for the result.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(runtime.unit("lib").unwrap().is_waiting());
    println!("parent {} child {}", call(&unit, "user"), libc::WEXITSTATUS(status));
}
