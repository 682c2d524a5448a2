//! C++ exceptions through everything: thrown in one unit and caught in another, in a shared library that plays the host's
//! C++ caller, through frames of C, and after units have been unloaded.

use crate::support::{Scratch, execute, finish, hotbed, shared_library};
use hotbed::{Object, Runtime, SharedLibrary, Source, Unit};
use std::ffi::{CStr, c_char};
use std::process::Command;

const THROWER: &str = r#"
#include <stdexcept>
#include <string>
struct Own : std::runtime_error { int code; Own(int c) : std::runtime_error("own"), code(c) {} };
struct Count { int *place; ~Count() { ++*place; } };
extern "C" void raise_it(int kind, int *unwound) {
  Count count{unwound};
  if (kind == 0) throw 42;
  if (kind == 1) throw std::out_of_range("far away");
  if (kind == 2) throw Own(7);
  if (kind == 3) throw std::string("text");
}
"#;

const CATCHER: &str = r#"
#include <cstdio>
#include <stdexcept>
#include <string>
struct Own : std::runtime_error { int code; Own(int c) : std::runtime_error("own"), code(c) {} };
extern "C" void raise_it(int kind, int *unwound);
extern "C" int catch_it(int kind, void (*call)(int, int *)) {
  int unwound = 0;
  try { call(kind, &unwound); }
  catch (int value) { return 1000 + value + unwound; }
  catch (const Own &own) { return 2000 + own.code + unwound; }
  catch (const std::exception &e) { return 3000 + std::string(e.what()).size() + unwound; }
  catch (const std::string &s) { return 4000 + s.size() + unwound; }
  return unwound;
}
"#;

/// What `catch_it` gives for each kind.
const WANT: [i32; 5] = [1043, 3009, 2008, 4005, 1];

type Raise = unsafe extern "C-unwind" fn(i32, *mut i32);
type Catch = unsafe extern "C" fn(i32, Raise) -> i32;

fn runtime() -> Runtime {
    Runtime::builder().no_cache().build().unwrap()
}

fn results(catcher: &Unit, raise: usize) -> Vec<i32> {
    // SAFETY: that is its type.
    let catch = unsafe { catcher.get::<Catch>("catch_it") }.unwrap();
    // SAFETY: every caller passes a function of this type.
    let raise = unsafe { std::mem::transmute::<usize, Raise>(raise) };
    // SAFETY: it catches what `raise` throws.
    (0..5).map(|kind| unsafe { catch(kind, raise) }).collect()
}

#[test]
fn thrown_in_one_unit_and_caught_in_another() {
    let runtime = runtime();
    for level in ["-O0", "-O2"] {
        let thrower = runtime
            .load(Source::text("thrower.cpp", THROWER).flags([level]).named(format!("t{level}")))
            .unwrap();
        let catcher = runtime
            .load(Source::text("catcher.cpp", CATCHER).flags([level]).named(format!("c{level}")))
            .unwrap();
        assert_eq!(results(&catcher, thrower.address_of("raise_it").unwrap()), WANT, "{level}");
    }
}

#[test]
fn caught_in_a_shared_library_that_calls_back() {
    let scratch = Scratch::new("exceptions-host");
    let library =
        shared_library(&scratch.write("host.cpp", CATCHER), &["-Wl,--unresolved-symbols=ignore-all"]);
    let runtime = runtime();
    let thrower = runtime.load(Source::text("thrower.cpp", THROWER)).unwrap();
    let host = runtime.load(SharedLibrary::path(&library)).unwrap();
    assert_eq!(results(&host, thrower.address_of("raise_it").unwrap()), WANT);
}

#[test]
fn thrown_by_a_shared_library_and_caught_in_a_unit() {
    let scratch = Scratch::new("exceptions-library");
    let library = shared_library(&scratch.write("thrower.cpp", THROWER), &[]);
    let runtime = runtime();
    let thrower = runtime.load(SharedLibrary::path(&library)).unwrap();
    let catcher = runtime.load(Source::text("catcher.cpp", CATCHER)).unwrap();
    assert_eq!(results(&catcher, thrower.address_of("raise_it").unwrap()), WANT);
}

#[test]
fn through_frames_of_c() {
    let c = r#"
        void raise_it(int, int *);
        static void clean(int *p) { *p += 100; }
        void through(int kind, int *unwound) {
          int local __attribute__((cleanup(clean))) = 0;
          volatile char frame[10000]; frame[9999] = 1;
          raise_it(kind, unwound);
          frame[0] = 2;
        }
    "#;
    let runtime = runtime();
    runtime.load(Source::text("thrower.cpp", THROWER)).unwrap();
    let middle = runtime.load(Source::text("through.c", c).flags(["-fexceptions"])).unwrap();
    let catcher = runtime.load(Source::text("catcher.cpp", CATCHER)).unwrap();
    assert_eq!(results(&catcher, middle.address_of("through").unwrap()), WANT);
}

#[test]
fn from_objects_of_gcc_and_clang() {
    let scratch = Scratch::new("exceptions-objects");
    let runtime = runtime();
    let made = |compiler: &str, name: &str, text: &str| {
        let source = scratch.write(format!("{compiler}-{name}.cpp"), text);
        let object = source.with_extension("o");
        execute(Command::new(compiler).args(["-fPIC", "-c"]).arg(&source).arg("-o").arg(&object));
        runtime.load(Object::file(&object)).unwrap()
    };
    let throwers = ["g++", "clang++-22"].map(|compiler| made(compiler, "thrower", THROWER));
    let catchers = ["g++", "clang++-22"].map(|compiler| made(compiler, "catcher", CATCHER));
    for thrower in &throwers {
        for catcher in &catchers {
            assert_eq!(results(catcher, thrower.address_of("raise_it").unwrap()), WANT);
        }
    }
}

#[test]
fn many_units_come_and_go() {
    let runtime = runtime();
    let catcher = runtime.load(Source::text("catcher.cpp", CATCHER)).unwrap();
    for _ in 0..20 {
        let thrower = runtime.load(Source::text("thrower.cpp", THROWER)).unwrap();
        assert_eq!(results(&catcher, thrower.address_of("raise_it").unwrap()), WANT);
        thrower.unload().unwrap();
    }
}

#[test]
fn from_several_threads_at_once() {
    let runtime = runtime();
    let thrower = runtime.load(Source::text("thrower.cpp", THROWER)).unwrap();
    let catcher = runtime.load(Source::text("catcher.cpp", CATCHER)).unwrap();
    let raise = thrower.address_of("raise_it").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(results(&catcher, raise), WANT);
                }
            });
        }
    });
}

#[test]
fn a_type_is_the_same_everywhere() {
    let part = |function: &str| {
        format!(
            "#include <typeinfo>\nstruct Shared {{ virtual ~Shared() {{}} }};\ninline int variable = 1;\n\
             template <class T> struct Holder {{ static T value; }}; template <class T> T Holder<T>::value = 5;\n\
             extern \"C\" const void *{function}(int which) {{ \
             static Shared s; (void)s; return which == 0 ? (const void *)&typeid(Shared) : which == 1 ? (const void *)&variable : &Holder<int>::value; }}"
        )
    };
    let runtime = runtime();
    let one = runtime.load(Source::text("one.cpp", part("one"))).unwrap();
    let two = runtime.load(Source::text("two.cpp", part("two"))).unwrap();
    type Address = unsafe extern "C" fn(i32) -> *const u8;
    // SAFETY: both have this type.
    let (one, two) = unsafe { (one.get::<Address>("one").unwrap(), two.get::<Address>("two").unwrap()) };
    for which in 0..3 {
        // SAFETY: as above.
        assert_eq!(unsafe { one(which) }, unsafe { two(which) }, "{which}");
    }
}

#[test]
fn the_command_runs_what_throws_between_files() {
    let main = r#"
        #include <cstdio>
        extern "C" void raise_it(int kind, int *unwound);
        extern "C" int catch_it(int kind, void (*call)(int, int *));
        int main() { for (int k = 0; k < 5; k++) std::printf("%d\n", catch_it(k, raise_it)); }
    "#;
    let scratch = Scratch::new("exceptions-command");
    let files = [
        scratch.write("main.cpp", main),
        scratch.write("thrower.cpp", THROWER),
        scratch.write("catcher.cpp", CATCHER),
    ];
    let library = shared_library(&files[1], &[]);
    for files in [&files[..], &[files[0].clone(), files[2].clone(), library]] {
        for _ in 0..2 {
            let mut command = hotbed(["run", "--cache-dir"]);
            let got = finish(command.arg(scratch.join("store")).args(files)).assert_success("exceptions");
            assert_eq!(got.stdout, "1043\n3009\n2008\n4005\n1\n");
        }
    }
}

#[test]
fn names_of_exceptions_are_readable() {
    let runtime = runtime();
    let text = "#include <cstring>\n#include <stdexcept>\n#include <typeinfo>\nextern \"C\" const char *name() { \
                try { throw std::logic_error(\"x\"); } catch (std::exception &e) { return typeid(e).name(); } }";
    let unit = runtime.load(Source::text("name.cpp", text)).unwrap();
    // SAFETY: that is its type.
    let name = unsafe { unit.get::<unsafe extern "C" fn() -> *const c_char>("name") }.unwrap();
    // SAFETY: type names are zero-terminated and live as long as their library.
    assert_eq!(unsafe { CStr::from_ptr(name()) }, c"St11logic_error");
}
