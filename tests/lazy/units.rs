//! Lazy units in a host: called by it and calling it, unloaded and loaded again, together with each other and with others.

use crate::support::{End, Scratch, finish, hotbed, timing};
use hotbed::{Runtime, Source, Symbol, Unit, host_fn};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

fn runtime() -> Runtime {
    Runtime::builder().no_cache().build().unwrap()
}

#[track_caller]
fn load(runtime: &Runtime, source: Source) -> Unit {
    runtime.load(source).unwrap_or_else(|error| panic!("{}", error.render()))
}

fn get(unit: &Unit, name: &str) -> Symbol<unsafe extern "C" fn(i32) -> i32> {
    // SAFETY: the functions asked for here have this type.
    unsafe { unit.get(name) }.unwrap()
}

fn call(unit: &Unit, name: &str, x: i32) -> i32 {
    // SAFETY: as above.
    unsafe { get(unit, name)(x) }
}

#[test]
fn what_is_not_called_is_not_compiled() {
    let text = "static int c(int x) { return x + 3; }\nint a(int x) { return x + 1; }\n\
                int b(int x) { return c(x) * 2; }\nint never(int x) { return c(x) - 1; }";
    let runtime = runtime();
    let unit = load(&runtime, Source::text("u.c", text).flags(["-O0"]).lazy());
    assert_eq!((runtime.functions_compiled(), unit.report().counts.functions_compiled), (0, 0));
    let (a, b) = (get(&unit, "a"), get(&unit, "b"));
    assert_eq!(runtime.functions_compiled(), 0, "to look for a function is no call");
    // SAFETY: that is its type.
    assert_eq!(unsafe { a(1) }, 2);
    assert_eq!(runtime.functions_compiled(), 1);
    // SAFETY: as above.
    assert_eq!((unsafe { b(1) }, unsafe { b(2) }, unsafe { a(5) }), (8, 10, 6));
    assert_eq!(runtime.functions_compiled(), 3, "it, and what it calls");
    // SAFETY: as above.
    assert_eq!(unsafe { get(&unit, "never")(1) }, 3);
    assert_eq!(runtime.functions_compiled(), 4);
    drop((a, b));
    unit.unload().unwrap();
}

#[test]
fn the_command_counts_what_was_called() {
    let scratch = Scratch::new("lazy-count");
    let mut text = String::new();
    for at in 0..50 {
        writeln!(text, "int f{at}(int x) {{ return x + {at}; }}").unwrap();
    }
    text.push_str("int main(int c, char **v) { int (*volatile f)(int) = f7; return f(c) + f9(c); }");
    let source = scratch.write("count.c", text);
    let count = |how: &str| {
        let got = finish(hotbed(["run", "--no-cache", "--timings=json", how]).arg(&source));
        assert_eq!(got.end, End::Status(18), "{got:?}");
        timing(&got.stderr, "functions_compiled")
    };
    assert_eq!((count("--lazy").as_str(), count("--eager").as_str()), ("3", "51"));
}

#[test]
fn unloaded_and_loaded_again() {
    let runtime = runtime();
    for round in 0..10 {
        let text = format!(
            "static int state = {round};\nstatic int next(void) {{ return ++state; }}\nint f(int x) {{ return next() * x; }}"
        );
        let unit = load(&runtime, Source::text("u.c", text).named("unit").lazy());
        assert_eq!((call(&unit, "f", 1), call(&unit, "f", 10)), (round + 1, 10 * (round + 2)));
        if round % 2 == 0 {
            let refused = {
                let _held = get(&unit, "f");
                unit.unload().unwrap_err().to_string()
            };
            assert!(refused.starts_with("cannot unload unit: "), "{refused}");
        }
        unit.unload().unwrap();
        assert!(runtime.units().is_empty());
    }
}

#[test]
fn from_the_store_it_is_lazy_again() {
    let scratch = Scratch::new("lazy-store");
    let text = "int a(int x) { return x + 1; }\nint b(int x) { return a(x) * 2; }";
    for round in 0..3 {
        let runtime = Runtime::builder().cache_dir(scratch.path()).build().unwrap();
        let unit = load(&runtime, Source::text("u.c", text).lazy());
        assert_eq!(unit.report().counts.images_linked, u32::from(round == 0));
        assert_eq!(call(&unit, "b", 4), 10);
        assert!(runtime.functions_compiled() > 0);
        // Compiled whole it is another image.
        let whole = Runtime::builder().cache_dir(scratch.path()).build().unwrap();
        let unit = load(&whole, Source::text("u.c", text));
        assert_eq!((call(&unit, "b", 4), whole.functions_compiled()), (10, 0));
        assert_eq!(unit.report().counts.images_linked, u32::from(round == 0));
    }
}

/// What both units of a pair see.
const SHARED: &str = r#"
#include <stdexcept>
#include <string>
#include <typeinfo>
struct Base { virtual ~Base() = default; virtual int kind() const { return 1; } };
struct Derived : Base { int value; explicit Derived(int v) : value(v) {} int kind() const override { return 2; } };
struct Third : virtual Base { int kind() const override { return 3; } };
struct Trouble : std::runtime_error { int code; Trouble(int c) : std::runtime_error("trouble"), code(c) {} };
template <class T> struct Registry { static int &count() { static int n = 0; return n; } };
template <class T> int register_one() { return ++Registry<T>::count(); }
inline int shared_variable = 100;
inline const void *place() { return &shared_variable; }
"#;

const LEFT: &str = r#"
Base *make(int kind);
int right_depth(int n);
extern "C" int right_entry(int x);
const void *right_place();
int left_depth(int n) { if (n == 0) throw Trouble(77); return right_depth(n - 1) + 1; }
Base *right_base();
extern "C" int casts(int) {
  Base *b = make(2), *c = make(3), *d = make(1);
  auto *derived = dynamic_cast<Derived *>(b);
  int sum = (derived ? derived->value : -1000) + (dynamic_cast<Third *>(c) ? 1000 : 0) + (dynamic_cast<Derived *>(d) ? 5000 : 0);
  sum += typeid(*b) == typeid(Derived) ? 20000 : 0;
  sum += 100 * (b->kind() + c->kind() + d->kind());
  delete b; delete c; delete d;
  return sum;
}
extern "C" int catches(int n) {
  try { return right_depth(n); } catch (const Trouble &t) { return t.code; } catch (...) { return -1; }
}
extern "C" int catches_foreign(int x) { try { return right_entry(x); } catch (const std::string &s) { return (int)s.size(); } }
extern "C" int counts(int) { register_one<int>(); return register_one<int>(); }
extern "C" int places(int) { return place() == right_place() && &place == &place; }
"#;

const RIGHT: &str = r#"
int left_depth(int n);
Base *make(int kind) { return kind == 2 ? new Derived(42) : kind == 3 ? (Base *)new Third : new Base; }
int right_depth(int n) { struct G { int *p; ~G() { ++*p; } } g{&shared_variable}; return left_depth(n) + 1; }
const void *right_place() { return place(); }
extern "C" int right_entry(int x) { if (x > 3) throw std::string("too large"); return x; }
extern "C" int right_counts(int) { return register_one<int>(); }
extern "C" int variable(int) { return shared_variable; }
"#;

#[test]
fn two_that_need_each_other() {
    for (flags, left_lazy, right_lazy) in
        [("-O0", true, true), ("-O2", true, true), ("-O0", true, false), ("-O2", false, true)]
    {
        let runtime = runtime();
        let source = |name: &str, text: &str, lazy: bool| {
            let source = Source::text(format!("{name}.cpp"), format!("{SHARED}{text}")).flags([flags]);
            if lazy { source.lazy() } else { source }
        };
        let units = runtime
            .load_all([source("left", LEFT, left_lazy).into(), source("right", RIGHT, right_lazy).into()])
            .unwrap_or_else(|error| panic!("{}", error.render()));
        let [left, right] = units.as_slice() else { panic!("two units") };
        let what = format!("{flags} {left_lazy} {right_lazy}");
        assert_eq!(call(left, "casts", 0), 42 + 1000 + 20000 + 600, "{what}");
        assert_eq!(call(left, "catches", 3), 77, "{what}");
        // As many frames of the right unit were unwound.
        assert_eq!(call(right, "variable", 0), 104, "{what}");
        assert_eq!((call(left, "catches_foreign", 2), call(left, "catches_foreign", 5)), (2, 9), "{what}");
        assert_eq!((call(left, "counts", 0), call(right, "right_counts", 0)), (2, 3), "{what}");
        assert_eq!(call(left, "places", 0), 1, "{what}");
        assert!(runtime.functions_compiled() > 0, "{what}");
        runtime.unload(&units).unwrap();
    }
}

static SEEN: AtomicI32 = AtomicI32::new(0);
static BACK: AtomicUsize = AtomicUsize::new(0);

extern "C" fn host_adds(x: i32) -> i32 {
    SEEN.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the test has put a function of this type there.
    let back: extern "C" fn(i32) -> i32 = unsafe { std::mem::transmute(BACK.load(Ordering::Relaxed)) };
    back(x) + 1000
}

#[test]
fn through_an_eager_unit_and_the_host_and_back() {
    let runtime = runtime();
    runtime.define("host_adds", host_fn!(host_adds as extern "C" fn(i32) -> i32)).unwrap();
    let eager = "int eager(int (*f)(int), int x) { return f(x) * 2; }\nint eager_data[3] = {5, 6, 7};";
    load(&runtime, Source::text("eager.c", eager));
    let lazy = "int eager(int (*f)(int), int x), host_adds(int x); extern int eager_data[3];\n\
                static int callback(int x) { return x + eager_data[1]; }\n\
                int back(int x) { return eager(callback, x); }\n\
                int out(int x) { return host_adds(x) + eager_data[2]; }";
    let lazy = load(&runtime, Source::text("lazy.c", lazy).named("lazy").lazy());
    let user =
        "int out(int), back(int); int (*const kept)(int) = back; int use(int x) { return out(x) + kept(x); }";
    let user = load(&runtime, Source::text("user.c", user));
    BACK.store(lazy.address_of("back").unwrap(), Ordering::Relaxed);
    assert_eq!(call(&user, "use", 4), (4 + 6) * 2 + 1000 + 7 + (4 + 6) * 2);
    assert_eq!(SEEN.load(Ordering::Relaxed), 1);
    let refused = lazy.unload().unwrap_err().to_string();
    assert_eq!(refused, "cannot unload lazy: user.c is bound to it");
    runtime.unload(&[user, lazy]).unwrap();
}

static OUTER: OnceLock<Runtime> = OnceLock::new();
static INNER: Mutex<Vec<Unit>> = Mutex::new(Vec::new());

extern "C" fn load_inner(x: i32) -> i32 {
    let text = "int first(int);\nstatic int made;\nstatic int step(int x) { return x * 2; }\n\
                __attribute__((constructor)) static void begin(void) { made = step(first(1)); }\n\
                int inner(int x) { return made + step(x); }";
    let unit = load(OUTER.get().unwrap(), Source::text("inner.c", text).lazy());
    let result = call(&unit, "inner", x);
    INNER.lock().unwrap().push(unit);
    result
}

#[test]
fn a_constructor_calls_and_loads() {
    let runtime = OUTER.get_or_init(runtime);
    runtime.define("load_inner", host_fn!(load_inner as extern "C" fn(i32) -> i32)).unwrap();
    let text = "int load_inner(int);\nstatic int seen;\nstatic int helper(int x) { return x + 10; }\n\
                int first(int x) { return helper(x) + 100; }\n\
                __attribute__((constructor)) static void begin(void) { seen = load_inner(first(3)); }\n\
                __attribute__((destructor)) static void end(void) { seen = first(seen); }\n\
                int outer(int x) { return seen + x; }";
    let unit = load(runtime, Source::text("outer.c", text).lazy());
    assert_eq!(call(&unit, "outer", 1), 2 * 111 + 2 * 113 + 1);
    let mut units = std::mem::take(&mut *INNER.lock().unwrap());
    units.push(unit);
    runtime.unload(&units).unwrap();
}

#[test]
fn what_is_missing_is_an_error_at_load() {
    let runtime = runtime();
    let text =
        "int nobody_has_it(int x);\nint good(int x) { return x; }\nint f(int x) { return nobody_has_it(x); }";
    for flags in ["-O0", "-O2"] {
        let error = runtime.load(Source::text("missing.c", text).flags([flags]).lazy()).unwrap_err();
        assert!(error.to_string().contains("nobody_has_it"), "{error}");
        assert!(runtime.units().is_empty());
    }
    load(&runtime, Source::text("it.c", "int nobody_has_it(int x) { return x * 3; }").lazy());
    let unit = load(&runtime, Source::text("missing.c", text).lazy());
    assert_eq!(call(&unit, "f", 5), 15);
}

#[test]
fn what_is_said_to_llvm_as_a_whole_has_units_compiled_whole() {
    let scratch = Scratch::new("lazy-mllvm");
    let source = scratch.write(
        "whole.c",
        "int f(void) { return 0; } int g(void) { return 1; } int main(void) { return f(); }",
    );
    for level in ["-O0", "-O2"] {
        let mut command =
            hotbed(["run", "--no-cache", "--timings=json", level, "-mllvm", "-inline-threshold=0"]);
        let outcome = finish(command.arg(&source)).assert_success("with -mllvm");
        assert_eq!(timing(&outcome.stderr, "functions_compiled"), "3", "{level}: {}", outcome.stderr);
    }
}
