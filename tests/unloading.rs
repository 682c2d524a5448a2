//! Unloading: what keeps a unit, what is done about it, and what is left of one that was unloaded by force.

use crate::support::{Child, End, Outcome, Scratch, child_flush as flush, object, shared_library, task};
use hotbed::{Object, Runtime, SharedLibrary, Source, Symbol, Unit, Unload, host_fn};
use std::ffi::{CStr, c_char};
use std::sync::{Barrier, Mutex, OnceLock, mpsc};
use std::time::Duration;

type Function = unsafe extern "C" fn() -> i32;

fn runtime() -> Runtime {
    let runtime = Runtime::builder().no_cache().build().unwrap();
    runtime.define("say", host_fn!(say as extern "C" fn(*const c_char))).unwrap();
    runtime
}

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

extern "C" fn say(text: *const c_char) {
    // SAFETY: the units here pass texts.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    SAID.lock().unwrap().push(text);
}

fn said(prefix: &str) -> Vec<String> {
    SAID.lock().unwrap().iter().filter_map(|line| line.strip_prefix(prefix).map(str::to_owned)).collect()
}

fn get(unit: &Unit, name: &str) -> Symbol<Function> {
    // SAFETY: the functions asked for here have this type.
    unsafe { unit.get::<Function>(name) }.unwrap()
}

fn call(unit: &Unit, name: &str) -> i32 {
    // SAFETY: as above.
    unsafe { get(unit, name)() }
}

fn load(runtime: &Runtime, name: &str, text: &str) -> Unit {
    let suffix = if text.contains("extern \"C\"") { "cpp" } else { "c" };
    let source = Source::text(format!("{name}.{suffix}"), text).named(name);
    runtime.load(source).unwrap_or_else(|error| panic!("{}", error.render()))
}

const THREADED: &str = r#"extern "C" void say(const char *);
    struct T { const char *n; ~T() { say(n); } };
    static T whole{"PREFIX:static"}; thread_local T mine{"PREFIX:thread"};
    extern "C" int touch() { return mine.n != 0; }"#;

#[test]
fn threads_with_destructors_stand_in_the_way_or_are_waited_for() {
    let runtime = runtime();
    let unit = load(&runtime, "threaded", &THREADED.replace("PREFIX", "waits"));
    let (end, ended) = mpsc::channel::<()>();
    let (ready, is_ready) = mpsc::channel();
    let held = unit.clone();
    let thread = std::thread::spawn(move || {
        call(&held, "touch");
        drop(held);
        ready.send(()).unwrap();
        let _ = ended.recv();
    });
    is_ready.recv().unwrap();
    call(&unit, "touch");
    let refused = unit.unload().unwrap_err().to_string();
    assert_eq!(
        refused,
        "cannot unload threaded: 1 thread has destructors of its thread_local objects to call"
    );
    let refused = unit.unload_with(Unload::waiting(Duration::from_millis(20))).unwrap_err().to_string();
    assert!(refused.contains("1 thread has"), "{refused}");
    assert!(unit.is_loaded() && said("waits:").is_empty());
    let waiter = unit.clone();
    let waits = std::thread::spawn(move || waiter.unload_with(Unload::waiting(Duration::from_secs(200))));
    drop(end);
    thread.join().unwrap();
    // This thread has one as well, and is no longer the one that unloads.
    assert!(!waits.is_finished());
    unit.unload_with(Unload::refusing()).unwrap();
    assert_eq!(
        waits.join().unwrap().unwrap_err().to_string(),
        "cannot unload threaded: it is unloaded already"
    );
    assert_eq!(said("waits:"), ["thread", "thread", "static"]);
}

#[test]
fn symbols_and_units_are_waited_for() {
    let runtime = runtime();
    let base = load(&runtime, "base", "int base(void) { return 1; }");
    let user = load(&runtime, "user", "int base(void); int use(void) { return base() + 1; }");
    let symbol = get(&base, "base");
    let waiter = base.clone();
    let waits = std::thread::spawn(move || waiter.unload_with(Unload::waiting(Duration::from_secs(200))));
    drop(symbol);
    assert!(!waits.is_finished());
    user.unload().unwrap();
    waits.join().unwrap().unwrap();
    assert!(runtime.units().is_empty());
}

#[test]
fn several_go_together_and_only_who_is_outside_stands_in_the_way() {
    let scratch = Scratch::new("unloading-together");
    let runtime = runtime();
    let one = load(&runtime, "one", "int one(void) { return 1; }");
    let two = load(&runtime, "two", "int one(void); int two(void) { return one() + 1; }");
    let three = load(&runtime, "three", "int two(void); int three(void) { return two() + 1; }");
    let refused = runtime.unload(&[one.clone(), two.clone()]).unwrap_err().to_string();
    assert_eq!(refused, "cannot unload two: three is bound to it");
    let other = Runtime::builder().no_cache().build().unwrap();
    let foreign = other.unload(std::slice::from_ref(&one)).unwrap_err().to_string();
    assert_eq!(foreign, "cannot unload one: it is of another runtime");
    assert_eq!(call(&three, "three"), 3);
    runtime.unload(&[two.clone(), one.clone(), three, two.clone()]).unwrap();
    assert!(!one.is_loaded() && !two.is_loaded() && runtime.units().is_empty());
    runtime.unload(&[]).unwrap();

    let source = scratch.write("lib.c", "int of_library(void) { return 5; }");
    let library = runtime.load(SharedLibrary::path(shared_library(&source, &[])).named("lib")).unwrap();
    let user = load(&runtime, "user", "int of_library(void); int use(void) { return of_library(); }");
    for how in [Unload::refusing(), Unload::forced()] {
        let refused = library.unload_with(how).unwrap_err().to_string();
        assert_eq!(refused, "cannot unload lib: user is bound to it");
    }
    assert_eq!(call(&user, "use"), 5);
    runtime.unload(&[library.clone(), user.clone()]).unwrap();
    assert!(!library.is_loaded() && !user.is_loaded());
    assert!(!std::fs::read_to_string("/proc/self/maps").unwrap().contains("unloading-together"));
}

#[test]
fn two_threads_unload_the_same_unit_once() {
    let runtime = runtime();
    for round in 0..20 {
        let text = format!(
            "void say(const char *); __attribute__((destructor)) static void end(void) {{ say(\"both{round}:end\"); }}"
        );
        let unit = load(&runtime, "both", &text);
        let together = Barrier::new(2);
        let unload = || {
            together.wait();
            unit.unload().is_ok()
        };
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(unload);
            (unload(), one.join().unwrap())
        });
        assert!(one != other);
        assert_eq!(said(&format!("both{round}:")), ["end"]);
    }
}

static OTHER: OnceLock<Mutex<Option<Unit>>> = OnceLock::new();

extern "C" fn unload_other() -> i32 {
    let unit = OTHER.get().and_then(|place| place.lock().unwrap().take());
    i32::from(unit.is_some_and(|unit| unit.unload().is_ok()))
}

#[test]
fn constructors_and_destructors_may_unload_other_units() {
    let runtime = runtime();
    runtime.define("unload_other", host_fn!(unload_other as extern "C" fn() -> i32)).unwrap();
    for (name, attribute) in [("begins", "constructor"), ("ends", "destructor")] {
        let text = format!(
            "void say(const char *); __attribute__((destructor)) static void end(void) {{ say(\"{name}:other\"); }}"
        );
        let other = load(&runtime, "other", &text);
        *OTHER.get_or_init(Mutex::default).lock().unwrap() = Some(other.clone());
        let text = format!(
            "int unload_other(void); void say(const char *); __attribute__(({attribute})) static void f(void) {{ say(\"{name}:first\"); if (unload_other()) say(\"{name}:done\"); }}"
        );
        load(&runtime, name, &text).unload().unwrap();
        assert!(!other.is_loaded());
        assert_eq!(said(&format!("{name}:")), ["first", "other", "done"]);
    }
}

/// What a child of [`host`] does, by name.
const OWNER: &str = r#"
    #include <stdlib.h>
    int f(int x) { return x + 1; } int v = 5; _Thread_local int t = 7;
    int plus(void) { return f(1); }"#;
const USER: &str = r#"
    int f(int); extern int v; extern _Thread_local int t; int (*const pointer)(int) = f;
    int call_f(void) { return f(1); } int call_pointer(void) { return pointer(1); }
    int read_v(void) { return v; } int read_t(void) { return t; } int own(void) { return 9; }"#;

/// A unit that says when it begins and ends, in all the ways there are, also registered by another thread; it uses `uses`.
fn ending(name: &str, uses: &[&str]) -> String {
    let calls: String =
        uses.iter().map(|used| format!("if (!f_{used}()) puts(\"{used} is gone\");")).collect();
    let declared: String = uses.iter().map(|used| format!("extern \"C\" int f_{used}(void);")).collect();
    format!(
        r#"#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
{declared}
static int alive = 1;
extern "C" int f_{name}(void) {{ return alive; }}
struct S {{ const char *n; S(const char *n) : n(n) {{ printf("+%s\n", n); }} ~S() {{ {calls} printf("-%s\n", n); }} }};
static S object("{name} object");
thread_local S local("{name} local");
static void from_thread(void) {{ {calls} puts("-{name} registered by a thread"); }}
static void *run(void *) {{ atexit(from_thread); return 0; }}
__attribute__((constructor(65535))) static void begin(void) {{
  pthread_t thread; pthread_create(&thread, 0, run, 0); pthread_join(thread, 0); (void)&local; local.n = "{name} local"; }}
__attribute__((destructor)) static void end(void) {{ {calls} puts("-{name} destructor"); alive = 0; }}
"#
    )
}

#[test]
fn host() {
    let Some(task) = task() else { return };
    let runtime = Runtime::builder().no_cache().build().unwrap();
    match task.as_str().split_once(' ') {
        Some(("forced", function)) => {
            let owner = load(&runtime, "owner", OWNER);
            let user = load(&runtime, "user", USER);
            assert_eq!(call(&user, "call_f") + call(&user, "read_v") + call(&user, "read_t"), 14);
            let kept = get(&owner, "plus");
            assert!(kept.is_valid());
            assert!(owner.unload().is_err());
            owner.unload_with(Unload::forced()).unwrap();
            assert!(!kept.is_valid() && !owner.is_loaded() && call(&user, "own") == 9);
            // Something that may well have come to its place.
            let again = load(&runtime, "again", OWNER);
            assert_eq!(call(&again, "plus"), 2);
            println!("calling");
            flush();
            if function == "symbol" {
                // SAFETY: not safe at all: this is what shall fault.
                unsafe { kept() };
            } else {
                call(&user, function);
            }
            println!("came back");
        }
        Some((action, order)) => {
            let uses: [(&str, &[&str]); 3] = [("a", &[]), ("b", &["a"]), ("c", &["a", "b"])];
            let mut units: Vec<_> =
                uses.iter().map(|(name, uses)| Some(load(&runtime, name, &ending(name, uses)))).collect();
            println!("loaded");
            flush();
            if action == "drop" {
                let mut runtime = Some(runtime);
                for step in order.chars() {
                    match step.to_digit(10) {
                        Some(at) => drop(units[at as usize].take()),
                        None => drop(runtime.take()),
                    }
                }
            } else if action == "together" {
                let units: Vec<Unit> = units.into_iter().flatten().collect();
                runtime.unload(&units).unwrap();
            } else {
                std::mem::forget((units, runtime));
            }
            flush();
            println!("end");
            flush();
            // SAFETY: ends the process as `main` would.
            unsafe { libc::exit(3) }
        }
        None => {}
    }
}

#[test]
fn by_force_who_was_bound_runs_into_a_trap_that_says_so() {
    let run =
        |function: &str| -> Outcome { Child::new("unloading::host", format!("forced {function}")).run() };
    for (function, line) in [
        ("call_f", "call of `f` of unit owner, which was unloaded, by unit user"),
        ("call_pointer", "call of `f` of unit owner, which was unloaded, by unit user"),
        ("read_t", "use of thread-local `t` of unit owner, which was unloaded, by unit user"),
    ] {
        let outcome = run(function);
        assert_eq!(
            (outcome.end, outcome.stdout.as_str()),
            (End::Signal(libc::SIGABRT), "calling\n"),
            "{outcome:?}"
        );
        assert!(outcome.stderr.ends_with(&format!("hotbed: {line}\n")), "{}", outcome.stderr);
    }
    let outcome = run("read_v");
    assert_eq!(
        (outcome.end, outcome.stdout.as_str()),
        (End::Signal(libc::SIGSEGV), "calling\n"),
        "{outcome:?}"
    );
    // A small unit's code lies beside others' and is overwritten.
    let outcome = run("symbol");
    assert!(matches!(outcome.end, End::Signal(libc::SIGSEGV | libc::SIGTRAP)), "{outcome:?}");
    assert_eq!(outcome.stdout, "calling\n");
    let outcome = run("own");
    assert_eq!(
        (outcome.end, outcome.stdout.as_str()),
        (End::Status(0), "calling\ncame back\n"),
        "{outcome:?}"
    );
}

/// Whatever is the order of the steps, a unit ends before those that it is bound to, and everything runs once.
#[test]
fn ends_come_once_and_in_order() {
    let kinds = ["object", "registered by a thread", "destructor"];
    for task in ["drop 012r", "drop 210r", "drop r012", "drop r201", "drop 1r02", "together x", "exit x"] {
        let outcome = Child::new("unloading::host", task).run();
        assert_eq!(outcome.end, End::Status(3), "{task}: {outcome:?}");
        assert!(!outcome.stdout.contains("is gone"), "{task}: {}", outcome.stdout);
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        let at = |line: &str| lines.iter().position(|known| *known == line);
        let last = lines.iter().position(|line| *line == "end").unwrap();
        let mut ends = Vec::new();
        for name in ["c", "b", "a"] {
            for kind in kinds {
                let line = format!("-{name} {kind}");
                assert_eq!(
                    lines.iter().filter(|known| **known == line).count(),
                    1,
                    "{task}: {line} in {}",
                    outcome.stdout
                );
                ends.push(at(&line).unwrap());
            }
            let local = format!("-{name} local");
            assert_eq!(
                lines.iter().filter(|known| **known == local).count(),
                1,
                "{task}: {}",
                outcome.stdout
            );
            assert!(at(&local) < at(&format!("-{name} object")), "{task}: {}", outcome.stdout);
        }
        assert!(ends.is_sorted(), "{task}: {}", outcome.stdout);
        assert_eq!(task.starts_with("exit"), ends[0] > last, "{task}: {}", outcome.stdout);
    }
}

#[test]
fn objects_with_descriptors_are_cut_off_too() {
    let scratch = Scratch::new("unloading-descriptors");
    let runtime = runtime();
    let flags = ["-fPIC", "-O1", "-mtls-dialect=gnu2"];
    let load = |name: &str, text: &str| {
        let file = object(&scratch.write(format!("{name}.c"), text), "o", &flags);
        runtime.load(Object::file(file).named(name)).unwrap()
    };
    let owner = load("owner", OWNER);
    let user = load("user", USER);
    assert_eq!(call(&user, "read_t"), 7);
    runtime.unload_with(std::slice::from_ref(&owner), Unload::forced()).unwrap();
    assert!(!owner.is_loaded() && call(&user, "own") == 9);
    user.unload().unwrap();
    assert!(runtime.units().is_empty());
}

/// A unit of a circle: it says when it ends, and needs `uses`.
fn link(test: &str, name: &str, uses: &[&str]) -> hotbed::Load {
    let sum: String = uses.iter().map(|used| format!(" + number_{used}()")).collect();
    let declared: String = uses.iter().map(|used| format!("int number_{used}(void);")).collect();
    let text = format!(
        "void say(const char *); {declared} int number_{name}(void) {{ return 1; }} int sum_{name}(void) {{ return 0{sum}; }}
         __attribute__((constructor)) static void begin(void) {{ say(\"{test}:+{name}\"); }}
         __attribute__((destructor)) static void end(void) {{ say(\"{test}:-{name}\"); }}"
    );
    Source::text(format!("{name}.c"), text).named(name).into()
}

#[test]
fn units_of_a_circle_go_together_or_by_force() {
    let pair = |runtime: &Runtime, test: &str| -> [Unit; 2] {
        runtime.load_all([link(test, "a", &["b"]), link(test, "b", &["a"])]).unwrap().try_into().unwrap()
    };
    let own = runtime();
    let [a, b] = pair(&own, "pair");
    assert_eq!(a.unload().unwrap_err().to_string(), "cannot unload a: b is bound to it");
    assert_eq!(b.unload().unwrap_err().to_string(), "cannot unload b: a is bound to it");
    assert_eq!(said("pair:"), ["+a", "+b"]);
    own.unload(&[a, b]).unwrap();
    assert_eq!(said("pair:"), ["+a", "+b", "-b", "-a"]);

    let [a, b] = pair(&own, "forced");
    a.unload_with(Unload::forced()).unwrap();
    assert_eq!(said("forced:"), ["+a", "+b", "-a"]);
    // Who was bound to it is not bound to what takes its place, and has nothing to wait for any more.
    assert_eq!(call(&b, "number_b"), 1);
    b.unload().unwrap();
    assert_eq!(said("forced:"), ["+a", "+b", "-a", "-b"]);

    // The handles go first, then the runtime; or the other way round.
    for (test, first) in [("handles", true), ("runtime", false)] {
        let own = runtime();
        let units = pair(&own, test);
        if first {
            drop(units);
            drop(own);
        } else {
            drop(own);
            drop(units);
        }
        assert_eq!(said(&format!("{test}:")), ["+a", "+b", "-b", "-a"]);
    }

    let all = [link("three", "a", &["b"]), link("three", "b", &["c"]), link("three", "c", &["a"])];
    let mut units = own.load_all(all).unwrap();
    let user = own.load(link("three", "user", &["b"])).unwrap();
    assert_eq!(units.iter().map(|unit| call(unit, &format!("sum_{}", unit.name()))).sum::<i32>(), 3);
    assert_eq!(own.unload(&units[1..]).unwrap_err().to_string(), "cannot unload b: a, user are bound to it");
    assert_eq!(own.unload(&units).unwrap_err().to_string(), "cannot unload b: user is bound to it");
    units.push(user);
    own.unload(&units).unwrap();
    assert_eq!(said("three:")[4..], ["-user", "-c", "-b", "-a"]);
    assert!(own.units().is_empty());
}
