//! `thread_local` variables: initial values, one copy a thread, threads that were there before the unit, destructors when a
//! thread ends, and sharing between units and with shared libraries.

use crate::support::{Scratch, execute, finish, hotbed, object, shared_library};
use hotbed::{Archive, Object, Runtime, SharedLibrary, Source, Unit, host_fn};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;

const COUNTERS: &str = r#"
static _Thread_local int hidden = 100;
_Thread_local int visible = 10;
_Thread_local char zeros[5000];
_Thread_local long aligned __attribute__((aligned(64))) = 3;
int next(void) {
  if (zeros[4999]++ > 100 || (unsigned long)&aligned % 64) return -1;
  return ++hidden + ++visible * 1000;
}
int *address(void) { return &visible; }
"#;

type Next = unsafe extern "C" fn() -> i32;

fn next(unit: &Unit) -> i32 {
    // SAFETY: `next` has this type in every unit of these tests.
    let next = unsafe { unit.get::<Next>("next") }.unwrap();
    // SAFETY: as above.
    unsafe { next() }
}

fn runtime() -> Runtime {
    Runtime::builder().no_cache().build().unwrap()
}

/// Every thread counts on its own, the ones that were there before the load too.
fn counts_by_thread(load: impl Into<hotbed::Load>) {
    let runtime = runtime();
    let (to_early, early_gets) = mpsc::channel::<Unit>();
    let early = std::thread::spawn(move || {
        let unit = early_gets.recv().unwrap();
        (next(&unit), next(&unit))
    });
    let unit = runtime.load(load).unwrap_or_else(|error| panic!("{}", error.render()));
    assert_eq!((next(&unit), next(&unit)), (11101, 12102));
    to_early.send(unit.clone()).unwrap();
    assert_eq!(early.join().unwrap(), (11101, 12102));
    let together = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                together.wait();
                for round in 1..50 {
                    assert_eq!(next(&unit), 100 + round + (10 + round) * 1000);
                }
            });
        }
    });
    assert_eq!(next(&unit), 13103);
    unit.unload().unwrap();
}

#[test]
fn from_source() {
    counts_by_thread(Source::text("counters.c", COUNTERS));
    counts_by_thread(Source::text("counters.c", COUNTERS).flags(["-O2"]));
}

#[test]
fn from_objects_of_every_model_that_an_image_can_have() {
    let scratch = Scratch::new("threads-models");
    for (name, flags) in [
        ("general", &["-fPIC"][..]),
        ("local", &["-fPIC", "-ftls-model=local-dynamic"]),
        ("descriptors", &["-fPIC", "-mtls-dialect=gnu2"]),
        ("optimised", &["-fPIC", "-O2"]),
    ] {
        let source = scratch.write(format!("{name}.c"), COUNTERS);
        let made = object(&source, "o", flags);
        counts_by_thread(Object::file(&made));
        let archive = scratch.join(format!("{name}.a"));
        crate::support::archive(&archive, &[&made]);
        counts_by_thread(Archive::file(&archive));
    }
    let source = scratch.write("gcc.c", COUNTERS);
    let made = scratch.join("gcc.o");
    execute(Command::new("gcc").args(["-fPIC", "-c"]).arg(&source).arg("-o").arg(&made));
    counts_by_thread(Object::file(&made));
}

#[test]
fn a_symbol_is_that_of_the_calling_thread() {
    let runtime = runtime();
    let unit = runtime.load(Source::text("counters.c", COUNTERS)).unwrap();
    let address = || {
        // SAFETY: that is its type.
        let address = unsafe { unit.get::<unsafe extern "C" fn() -> *mut i32>("address") }.unwrap();
        // SAFETY: as above; and the symbol is a variable of that type.
        let (address, symbol) = unsafe { (address(), *unit.get::<*mut i32>("visible").unwrap()) };
        assert_eq!(address, symbol);
        symbol as usize
    };
    let here = address();
    assert_eq!(here, address());
    let there = std::thread::scope(|scope| scope.spawn(address).join().unwrap());
    assert_ne!(here, there);
}

#[test]
fn units_and_libraries_share_them() {
    let scratch = Scratch::new("threads-share");
    let library = shared_library(
        &scratch.write("own.c", "_Thread_local int of_library = 5; int library(void) { return of_library; }"),
        &[],
    );
    let runtime = runtime();
    runtime
        .load(Source::text("owner.c", "_Thread_local int shared = 20; int owner(void) { return shared; }"))
        .unwrap();
    runtime.load(SharedLibrary::path(&library)).unwrap();
    let text = "extern _Thread_local int shared, of_library; int owner(void), library(void); int next(void) { \
                shared++; of_library++; return shared == owner() && of_library == library() ? shared * 100 + of_library : -1; }";
    let user = runtime.load(Source::text("user.c", text)).unwrap();
    assert_eq!((next(&user), next(&user)), (2106, 2207));
    let there = std::thread::scope(|scope| scope.spawn(|| next(&user)).join().unwrap());
    assert_eq!(there, 2106);
}

static ENDED: AtomicI32 = AtomicI32::new(0);

extern "C" fn ended(by: i32) {
    ENDED.fetch_add(by, Ordering::SeqCst);
}

#[test]
fn destructors_run_when_their_thread_ends() {
    let text = r#"
        extern "C" void ended(int);
        struct Guard { int by; explicit Guard(int b) : by(b) {} ~Guard() { ended(by); } };
        thread_local Guard first(1);
        inline thread_local Guard second(10);
        extern "C" int next() {
          thread_local Guard inner(100);
          return first.by + second.by + inner.by;
        }
    "#;
    let runtime = runtime();
    runtime.define("ended", host_fn!(ended as extern "C" fn(i32))).unwrap();
    let unit = runtime.load(Source::text("guard.cpp", text)).unwrap();
    for round in 1..=3 {
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(next(&unit), 111));
        });
        // A scope waits for the closure, not for the end of the thread's own destructors.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while ENDED.load(Ordering::SeqCst) != 111 * round && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(ENDED.load(Ordering::SeqCst), 111 * round);
    }
    let idle = std::thread::spawn(|| ());
    idle.join().unwrap();
    assert_eq!(ENDED.load(Ordering::SeqCst), 333);
    unit.unload().unwrap();
}

#[test]
fn the_command_runs_threads_with_them() {
    let text = r#"
        #include <cstdio>
        #include <string>
        #include <thread>
        #include <vector>
        struct Loud { std::string name; ~Loud() { std::printf("end of %s\n", name.c_str()); } };
        thread_local Loud loud{"a thread"};
        static thread_local int count = 5;
        int main() {
          loud.name = "main";
          for (int i = 0; i < 3; i++) std::thread([i] { count += i; loud.name += std::to_string(count); }).join();
          std::vector<std::thread> many;
          int sums[8];
          for (int i = 0; i < 8; i++) many.emplace_back([&sums, i] { for (int k = 0; k < 1000; k++) count++; sums[i] = count; });
          for (auto &t : many) t.join();
          for (int s : sums) std::printf("%d ", s);
          std::printf("%d\n", count);
          return 0;
        }
    "#;
    let scratch = Scratch::new("threads-command");
    let source = scratch.write("threads.cpp", text);
    let executable = scratch.join("executable");
    execute(Command::new("clang++-22").arg(&source).args(["-lpthread", "-o"]).arg(&executable));
    let want = finish(&mut Command::new(&executable));
    for flag in ["-O0", "-O2", "-O2"] {
        let mut command = hotbed(["run", flag, "--cache-dir"]);
        finish(command.arg(scratch.join("store")).arg(&source)).assert_same(&want, flag);
    }
}
