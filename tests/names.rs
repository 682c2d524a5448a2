//! Units by name, symbols, and what a host defines: identities, no-op reloads, two definitions, lifetimes, threads.

use crate::support::Scratch;
use hotbed::{Dependency, Error, HostFunction, Object, Runtime, Source, Symbol, Unit, host_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

type Function = unsafe extern "C" fn() -> i32;

fn call(unit: &Unit, name: &str) -> i32 {
    // SAFETY: every function in these tests that is called so has this type.
    let function = unsafe { unit.get::<Function>(name) }.unwrap();
    // SAFETY: as above.
    unsafe { function() }
}

fn runtime() -> Runtime {
    Runtime::builder().no_cache().build().unwrap()
}

fn source(name: &str, text: &str) -> Source {
    Source::text("u.c", text).named(name)
}

#[test]
fn what_a_runtime_has_may_be_used_by_any_thread() {
    fn shared<T: Send + Sync>() {}
    shared::<Runtime>();
    shared::<Unit>();
    shared::<Symbol<Function>>();
    shared::<Error>();
}

#[test]
fn loading_the_same_again_does_nothing() {
    static STARTED: AtomicI32 = AtomicI32::new(0);
    extern "C" fn started() {
        STARTED.fetch_add(1, Ordering::SeqCst);
    }
    let runtime = runtime();
    runtime.define("started", host_fn!(started as extern "C" fn())).unwrap();
    let text = "void started(void); static int n; __attribute__((constructor)) static void begin(void) { started(); } \
                int count(void) { return ++n; }";
    let first = runtime.load(source("u", text)).unwrap();
    assert_eq!((call(&first, "count"), call(&first, "count")), (1, 2));
    let again = runtime.load(source("u", text)).unwrap();
    assert_eq!(call(&again, "count"), 3);
    assert_eq!((STARTED.load(Ordering::SeqCst), runtime.units().len()), (1, 1));
    let other = runtime.load(source("u", "int count(void) { return 0; }")).unwrap_err();
    assert_eq!(other.to_string(), "cannot load u: a unit of that name is loaded already, from other content");
    assert!(matches!(other, Error::NameTaken { .. }) && !other.is_usage());
    let flags = runtime.load(source("u", text).flags(["-O2"])).unwrap_err();
    assert!(matches!(flags, Error::NameTaken { .. }), "{flags}");
    assert_eq!(call(&first, "count"), 4);
}

#[test]
fn a_file_that_has_changed_is_other_content() {
    let scratch = Scratch::new("names-changed");
    scratch.write("h.h", "#define H 1\n");
    let file = scratch.write("f.c", "#include \"h.h\"\nint f(void) { return H; }");
    let runtime = runtime();
    let unit = runtime.load(Source::file(&file)).unwrap();
    runtime.load(Source::file(&file)).unwrap();
    let header =
        unit.dependencies().iter().any(|d| matches!(d, Dependency::File(path) if path.ends_with("h.h")));
    assert!(header, "{:?}", unit.dependencies());
    scratch.write("h.h", "#define H 2\n");
    let error = runtime.load(Source::file(&file)).unwrap_err();
    assert!(error.to_string().contains("h.h has changed"), "{error}");
    unit.unload().unwrap();
    assert_eq!(call(&runtime.load(Source::file(&file)).unwrap(), "f"), 2);
}

#[test]
fn units_are_found_by_name_and_listed_in_order() {
    let runtime = runtime();
    for name in ["b", "a", "c"] {
        runtime.load(source(name, "int f(void) { return 1; }")).unwrap();
    }
    let names: Vec<String> = runtime.units().iter().map(|unit| unit.name().to_owned()).collect();
    assert_eq!(names, ["b", "a", "c"]);
    assert!(runtime.is_loaded("a") && !runtime.is_loaded("d") && runtime.unit("d").is_none());
    runtime.unit("a").unwrap().unload().unwrap();
    assert!(!runtime.is_loaded("a"));
    let error = runtime.load(source("", "int f;")).unwrap_err();
    assert!(error.is_usage(), "{error}");
}

#[test]
fn two_units_may_export_the_same_symbol() {
    let runtime = runtime();
    let text = |value: i32| format!("int f(void) {{ return {value}; }} int g(void) {{ return f() * 10; }}");
    let one = runtime.load(source("one", &text(1))).unwrap();
    let two = runtime.load(source("two", &text(2))).unwrap();
    assert_eq!([call(&one, "f"), call(&one, "g"), call(&two, "f"), call(&two, "g")], [1, 10, 2, 20]);
    // Anybody else gets the one that was loaded first.
    let user = runtime.load(source("user", "int f(void); int h(void) { return f(); }")).unwrap();
    assert_eq!(call(&user, "h"), 1);
    // A unit's own wins over the process's, too.
    let own = runtime
        .load(source("own", "int getpid(void) { return -5; } int p(void) { return getpid(); }"))
        .unwrap();
    assert_eq!(call(&own, "p"), -5);
    // SAFETY: always succeeds.
    assert!(unsafe { libc::getpid() } > 0);
}

#[test]
fn what_the_host_defines_comes_before_other_units_and_the_process() {
    extern "C" fn host_f() -> i32 {
        99
    }
    let runtime = runtime();
    runtime.load(source("earlier", "int f(void) { return 1; }")).unwrap();
    runtime.define("f", host_fn!(host_f as extern "C" fn() -> i32)).unwrap();
    runtime.define("getppid", host_fn!(host_f as extern "C" fn() -> i32)).unwrap();
    let text = "int f(void), getppid(void); int g(void) { return f(); } int p(void) { return getppid(); }";
    let user = runtime.load(source("user", text)).unwrap();
    assert_eq!((call(&user, "g"), call(&user, "p")), (99, 99));
    let own = runtime.load(source("own", "int f(void) { return 3; } int g(void) { return f(); }")).unwrap();
    assert_eq!(call(&own, "g"), 3);
    // The same again is nothing new, another address is an error.
    runtime.define("f", host_fn!(host_f as extern "C" fn() -> i32)).unwrap();
    // SAFETY: nothing is loaded afterwards.
    let error = runtime.define("f", unsafe { HostFunction::from_address(0x1234) }).unwrap_err();
    assert!(matches!(error, Error::Define { .. }) && error.to_string().contains('f'), "{error}");
}

#[test]
fn a_host_defines_variables_and_takes_strings() {
    static VALUE: AtomicI32 = AtomicI32::new(5);
    let runtime = runtime();
    // SAFETY: a static of that size.
    let value = unsafe { HostFunction::from_address(VALUE.as_ptr() as usize) };
    runtime.define("host_value", value).unwrap();
    let unit =
        runtime.load(source("u", "extern int host_value; int bump(void) { return ++host_value; }")).unwrap();
    assert_eq!((call(&unit, "bump"), VALUE.load(Ordering::SeqCst)), (6, 6));
}

#[test]
fn a_symbol_keeps_its_unit() {
    let runtime = runtime();
    let unit = runtime.load(source("u", "int f(void) { return 8; }")).unwrap();
    // SAFETY: that is its type.
    let symbol = unsafe { unit.get::<Function>("f") }.unwrap();
    assert_eq!(symbol.unit(), "u");
    let copy = symbol.clone();
    let refused = unit.unload().unwrap_err();
    assert!(refused.to_string().starts_with("cannot unload u: 2 of its symbols are held"), "{refused}");
    drop((symbol, unit));
    drop(runtime);
    // Runtime and unit handles are gone, the code is not.
    // SAFETY: as above.
    assert_eq!(unsafe { copy() }, 8);
}

#[test]
fn what_others_are_bound_to_is_not_unloaded() {
    let runtime = runtime();
    let base = runtime.load(source("base", "int base(void) { return 1; }")).unwrap();
    let user = runtime.load(source("user", "int base(void); int use(void) { return base() + 1; }")).unwrap();
    let refused = base.unload().unwrap_err();
    assert_eq!(refused.to_string(), "cannot unload base: user is bound to it");
    assert_eq!(call(&user, "use"), 2);
    user.unload().unwrap();
    assert!(user.unload().unwrap_err().to_string().contains("unloaded already"));
    base.unload().unwrap();
    assert!(runtime.units().is_empty() && base.address_of("base").is_none());
    // SAFETY: never called.
    let error = unsafe { base.get::<Function>("base") }.unwrap_err();
    assert_eq!(error.to_string(), "cannot get `base` of base: the unit is unloaded");
    assert!(runtime.load(source("user", "int base(void); int use(void) { return base(); }")).is_err());
}

static ORDER: std::sync::Mutex<Vec<i32>> = std::sync::Mutex::new(Vec::new());

extern "C" fn note(number: i32) {
    ORDER.lock().unwrap().push(number);
}

#[test]
fn constructors_and_destructors_of_units_come_in_order() {
    let text = r#"
        extern "C" void note(int);
        struct Item { int n; Item(int n) : n(n) { note(n); } ~Item() { note(-n); } };
        static Item one(1), two(2);
        __attribute__((constructor(101))) static void begin() { note(10); }
        __attribute__((destructor(101))) static void end() { note(-10); }
        extern "C" int touch() { static Item local(3); return local.n; }
    "#;
    let runtime = runtime();
    runtime.define("note", host_fn!(note as extern "C" fn(i32))).unwrap();
    let unit = runtime.load(Source::text("order.cpp", text)).unwrap();
    assert_eq!(std::mem::take(&mut *ORDER.lock().unwrap()), [10, 1, 2]);
    call(&unit, "touch");
    unit.unload().unwrap();
    assert_eq!(std::mem::take(&mut *ORDER.lock().unwrap()), [3, -3, -2, -1, -10]);
    // Once a load, and also when the whole runtime goes: the last unit first.
    let first = runtime.load(Source::text("first.cpp", text.replace("touch", "first"))).unwrap();
    let text = "void note(int); __attribute__((destructor)) static void end(void) { note(-77); } int last;";
    runtime.load(source("last", text)).unwrap();
    ORDER.lock().unwrap().clear();
    drop((first, unit, runtime));
    assert_eq!(*ORDER.lock().unwrap(), [-77, -2, -1, -10]);
}

#[test]
fn runtimes_are_independent() {
    extern "C" fn one() -> i32 {
        1
    }
    extern "C" fn two() -> i32 {
        2
    }
    let text = "int which(void); inline int shared(void) { return which(); } int f(void) { return which(); }";
    let runtimes = [runtime(), runtime()];
    runtimes[0].define("which", host_fn!(one as extern "C" fn() -> i32)).unwrap();
    runtimes[1].define("which", host_fn!(two as extern "C" fn() -> i32)).unwrap();
    let units = [0, 1].map(|at: usize| runtimes[at].load(source("same", text)).unwrap());
    assert_eq!(units.each_ref().map(|unit| call(unit, "f")), [1, 2]);
    let error =
        runtimes[1].load(source("other", "int only(void); int g(void) { return only(); }")).unwrap_err();
    assert!(error.to_string().contains("only"), "{error}");
    runtimes[0].load(source("only", "int only(void) { return 1; }")).unwrap();
    assert!(runtimes[1].load(source("other", "int only(void); int g(void) { return only(); }")).is_err());
    let [first, second] = runtimes;
    drop((units, first));
    assert_eq!(call(&second.unit("same").unwrap(), "f"), 2);
}

#[test]
fn weak_symbols_may_be_missing_and_one_definition_wins() {
    let runtime = runtime();
    let text = "__attribute__((weak)) int nobody_has_this(void); int f(void) { return nobody_has_this ? nobody_has_this() : 4; }";
    assert_eq!(call(&runtime.load(source("weak", text)).unwrap(), "f"), 4);
    let weak = |value: i32| {
        format!("__attribute__((weak)) int w(void) {{ return {value}; }} int f(void) {{ return w(); }}")
    };
    let one = runtime.load(source("one", &weak(1))).unwrap();
    let two = runtime.load(source("two", &weak(2))).unwrap();
    assert_eq!((call(&one, "f"), call(&two, "f")), (1, 1));
}

#[test]
fn many_threads_load_at_once() {
    let runtime = runtime();
    let started = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (runtime, started) = (runtime.clone(), Arc::clone(&started));
            scope.spawn(move || {
                for round in 0..5 {
                    // One unit is everybody's, the others are this thread's.
                    let text = format!("int f(void) {{ return {round}; }}");
                    assert_eq!(
                        call(&runtime.load(source(&format!("all-{round}"), &text)).unwrap(), "f"),
                        round
                    );
                    let value = thread * 100 + round;
                    let text = format!("int f(void) {{ return {value}; }}");
                    let own = runtime.load(source(&format!("own-{value}"), &text)).unwrap();
                    assert_eq!(call(&own, "f"), value);
                    if round % 2 == 0 {
                        own.unload().unwrap();
                    }
                    started.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!((started.load(Ordering::SeqCst), runtime.units().len()), (30, 5 + 6 * 2));
}

#[test]
fn a_constructor_may_load_a_unit() {
    use std::sync::OnceLock;
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    extern "C" fn load_inner() -> i32 {
        let inner = RUNTIME.get().unwrap().load(source("inner", "int g(void) { return 6; }")).unwrap();
        call(&inner, "g")
    }
    let runtime = RUNTIME.get_or_init(runtime);
    runtime.define("load_inner", host_fn!(load_inner as extern "C" fn() -> i32)).unwrap();
    let text = "int load_inner(void); static int got; __attribute__((constructor)) static void begin(void) { got = load_inner(); } \
                int f(void) { return got; }";
    assert_eq!(call(&runtime.load(source("outer", text)).unwrap(), "f"), 6);
}

#[test]
fn errors_name_operation_object_and_reason() {
    let runtime = runtime();
    let unit = runtime.load(source("u", "int f(void) { return 8; }")).unwrap();
    // SAFETY: never called.
    let error = unsafe { unit.get::<Function>("g") }.unwrap_err();
    assert_eq!(error.to_string(), "cannot get `g` of u: the unit does not define it");
    let error = runtime.load(Source::file("/nowhere/x.c")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/x.c: No such file or directory");
    let error = runtime.load(Object::file("/nowhere/x.o")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/x.o: No such file or directory");
    let error = runtime.load(Source::text("x.unknown", "")).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("x.unknown"), "{error}");
    let error = runtime.load(source("flag", "int f;").flags(["--no-such-flag"])).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("--no-such-flag"), "{error}");
    assert_eq!(runtime.units().len(), 1);
}
