//! First calls of functions, by threads that do not know of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

mod calls;
pub(crate) mod support;

use crate::image::ImageError;
use crate::image::note::LazyLayout;
use crate::sys::threads::in_child;
use crate::testing::{Folder, call};
use crate::{FunctionRequest, ImageSource, LoadError, Loader, LoaderOptions};
use std::arch::asm;
use std::fmt::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use support::{Fake, answer, answer_elsewhere, change, image, load};

#[test]
fn arguments_come_as_they_were_given() {
    const SOURCE: &str = r#"
#include <immintrin.h>
#include <stdarg.h>
#define W __m256d
double wide(W a, W b, W c, W d, W e, W f, W g, W h);
double wide_body(W a, W b, W c, W d, W e, W f, W g, W h) {
  W s = a + 2*b + 3*c + 4*d + 5*e + 6*f + 7*g + 8*h; return s[0] + 10*s[1] + 100*s[2] + 1000*s[3]; }
double many(int n, ...);
double many_body(int n, ...) { va_list l; va_start(l, n); double s = 0; while (n--) s = 2*s + va_arg(l, double); va_end(l); return s; }
long double extended(long double a, int b, long double c);
long double extended_body(long double a, int b, long double c) { return a * b - c; }
long six(long a, long b, long c, long d, long e, long f);
long six_body(long a, long b, long c, long d, long e, long f) { return a + 10*b + 100*c + 1000*d + 10000*e + 100000*f; }
struct big { long v[5]; }; struct big returned(int x);
struct big returned_body(int x) { struct big b = {{x, x+1, x+2, x+3, x+4}}; return b; }
void *chain(void); __asm__("chain_body: movq %r10, %rax\nret\n.globl chain_body\n.type chain_body,@function\n.size chain_body,4");
static W w(double x) { return (W){x, x + 1, x + 2, x + 3}; }
int check(void) {
  int place; errno_(7);
  if (wide(w(1), w(2), w(3), w(4), w(5), w(6), w(7), w(8)) != wide_body(w(1), w(2), w(3), w(4), w(5), w(6), w(7), w(8))) return 1;
  if (many(9, 1., 2., 3., 4., 5., 6., 7., 8., 9.) != many_body(9, 1., 2., 3., 4., 5., 6., 7., 8., 9.)) return 2;
  if (many(0) != 0) return 3;
  if (extended(1.5L, 4, 0.25L) != 5.75L) return 4;
  if (six(1, 2, 3, 4, 5, 6) != 654321) return 5;
  if (returned(3).v[4] != 7) return 6;
  if (__builtin_call_with_static_chain(chain(), &place) != &place) return 7;
  return errno_(0) == 7 ? 0 : 8; }
"#;
    const ERRNO: &str =
        "#include <errno.h>\nstatic int errno_(int value) { int old = errno; errno = value; return old; }";
    let folder = Folder::new();
    let names = ["wide", "many", "extended", "six", "returned", "chain"];
    let bytes = image(&folder, "arguments.c", &format!("{ERRNO}{SOURCE}"), &names);
    // On the same thread, so that the registers are lost for certain.
    let fake = Fake::new(|request| {
        answer(request);
        // SAFETY: changes nothing but what it says.
        unsafe {
            *libc::__errno_location() = 99;
            asm!("vzeroall", "fninit", "mov r10d, 5", out("r10") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _);
        }
    });
    let image = load(&fake.loader(), "arguments", &bytes);
    assert_eq!(call(&image, "check"), 0);
    assert_eq!(fake.take(), names);
    assert_eq!(call(&image, "check"), 0);
    assert!(fake.take().is_empty());
}

/// Functions that give their own number.
fn numbers(count: usize) -> (String, Vec<String>) {
    let mut source = String::new();
    for at in 0..count {
        let _ = writeln!(source, "int f{at}(void); int f{at}_body(void) {{ return {at}; }}");
    }
    (source, (0..count).map(|at| format!("f{at}")).collect())
}

#[test]
fn functions_are_compiled_once_whoever_calls() {
    const COUNT: usize = 300;
    let folder = Folder::new();
    let (source, names) = numbers(COUNT);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bytes = image(&folder, "threads.c", &source, &names);
    let (sender, requests) = mpsc::channel::<FunctionRequest>();
    let requests = Arc::new(Mutex::new(requests));
    for _ in 0..2 {
        let requests = Arc::clone(&requests);
        std::thread::spawn(move || {
            let next = || requests.lock().unwrap().recv();
            while let Ok(request) = next() {
                answer(request);
            }
        });
    }
    let fake = Fake::new(move |request| sender.send(request).unwrap());
    let image = load(&fake.loader(), "threads", &bytes);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (image, names) = (&image, &names);
            scope.spawn(move || {
                for at in 0..4 * COUNT {
                    let at = (at * 7919 + seed * 31) % COUNT;
                    assert_eq!(call(image, names[at]), at as i32);
                }
            });
        }
    });
    let mut asked = fake.take();
    assert_eq!(asked.len(), COUNT);
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), COUNT);
    let slots = image.slots().unwrap();
    assert!((0..COUNT as u32).all(|slot| slots.is_compiled(slot)));
}

#[test]
fn a_function_that_cannot_be_compiled_is_named_and_asked_for_again() {
    extern "C" fn substitute() -> i32 {
        -7
    }
    let folder = Folder::new();
    let bytes = image(&folder, "fails.c", "int f(void); int f_body(void) { return 3; }", &["f"]);
    let state = Arc::new(AtomicUsize::new(0));
    let (other, told) = (Arc::clone(&state), Arc::new(Mutex::new(String::new())));
    let telling = Arc::clone(&told);
    let fake = Fake::failing(
        move |request| match other.load(Ordering::SeqCst) {
            0 => assert!(!request.done(Err("no luck".into()))),
            1 => drop(request),
            2 => panic!("on purpose"),
            _ => answer(request),
        },
        move |failure| {
            let function = failure.function;
            let line = format!(
                "{} {} {} {} {}",
                failure.image, function.name, function.unit, function.number, failure.reason
            );
            *telling.lock().unwrap() = line;
            Some(substitute as *const () as usize)
        },
    );
    let loader = fake.loader();
    let image = load(&loader, "fails", &bytes);
    for (at, reason) in
        ["no luck", "nobody has compiled it", "nobody has compiled it"].into_iter().enumerate()
    {
        state.store(at, Ordering::SeqCst);
        assert_eq!(call(&image, "f"), -7);
        assert_eq!(*told.lock().unwrap(), format!("fails f 3 100 {reason}"));
        assert!(!image.slots().unwrap().is_compiled(0));
    }
    state.store(3, Ordering::SeqCst);
    assert_eq!(call(&image, "f"), 3);
    // A host that says nothing else.
    let fake =
        Fake::failing(|request| assert!(!request.done(Err("no luck".into()))), |_| panic!("on purpose"));
    let image = load(&fake.loader(), "fails", &bytes);
    let path = folder.path().join("last words");
    let status = in_child(|| {
        let file = std::fs::File::create(&path).unwrap();
        // SAFETY: descriptors of the child's own.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), 2) };
        call(&image, "f") as u8
    });
    assert_eq!(status, None);
    let said = std::fs::read_to_string(&path).unwrap();
    assert!(said.ends_with("hotbed: fails: cannot compile f, which it calls: no luck\n"), "{said}");
}

#[test]
fn a_forked_process_asks_for_itself() {
    static PARENT: AtomicUsize = AtomicUsize::new(0);
    let here = || std::process::id() as usize;
    PARENT.store(here(), Ordering::SeqCst);
    let folder = Folder::new();
    let source = "int f(void); int f_body(void) { return 3; } int g(void); int g_body(void) { return 5; }";
    let bytes = image(&folder, "forks.c", source, &["f", "g"]);
    let (sender, requests) = mpsc::channel::<FunctionRequest>();
    let sender = Mutex::new(sender);
    let fake = Fake::new(move |request| match here() == PARENT.load(Ordering::SeqCst) {
        true => sender.lock().unwrap().send(request).unwrap(),
        false => answer(request),
    });
    let image = load(&fake.loader(), "forks", &bytes);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| call(&image, "f"));
        let request = requests.recv().unwrap();
        image.slots().unwrap().request(1, false);
        let other = requests.recv().unwrap();
        assert_eq!(in_child(|| call(&image, "f") as u8 * 10 + call(&image, "g") as u8), Some(35));
        // What the child has found is not known here.
        assert!(!image.slots().unwrap().is_compiled(0));
        answer(request);
        assert_eq!(waiting.join().unwrap(), 3);
        answer(other);
    });
    assert_eq!(call(&image, "g"), 5);
}

#[test]
fn little_stack_is_enough() {
    const DEPTH: usize = 20;
    const STACK: usize = 16 << 10;
    let folder = Folder::new();
    let mut source = String::from(
        "int on(char *top, int (*f)(int)) { int result; __asm__ volatile(\"movq %%rsp, %%rbx\\nmovq %1, %%rsp\\nmovl $1, %%edi\\ncallq *%2\\nmovq %%rbx, %%rsp\"
           : \"=a\"(result) : \"r\"(top), \"r\"(f) : \"rbx\", \"rcx\", \"rdx\", \"rsi\", \"rdi\", \"r8\", \"r9\", \"r10\", \"r11\", \"memory\", \"cc\"); return result; }\n",
    );
    let last = DEPTH - 1;
    let _ = writeln!(
        source,
        "int f{last}(int x); int f{last}_body(int x) {{ return x; }} int only(int x); int only_body(int x) {{ return x; }}"
    );
    for at in (0..last).rev() {
        let next = at + 1;
        let _ = writeln!(source, "int f{at}(int x); int f{at}_body(int x) {{ return f{next}(x + 1) + 1; }}");
    }
    let names: Vec<String> = (0..DEPTH).map(|at| format!("f{at}")).chain(["only".into()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bytes = image(&folder, "stack.c", &source, &names);
    let fake = Fake::new(answer_elsewhere);
    let image = load(&fake.loader(), "stack", &bytes);
    let on = image.get("on").unwrap().address;
    // SAFETY: its type in the source.
    let on: extern "C" fn(usize, usize) -> i32 = unsafe { std::mem::transmute(on) };
    let call_on = |name: &str, stack: &mut [u8]| {
        stack.fill(0xa5);
        let top = (stack.as_ptr() as usize + stack.len()) & !15;
        let result = on(top, image.get(name).unwrap().address);
        (result, stack.iter().rev().rposition(|byte| *byte != 0xa5).map_or(0, |at| at + 1))
    };
    let mut stack = vec![0; 4 * STACK];
    let (result, used) = call_on("only", &mut stack);
    assert_eq!(result, 1);
    println!("a first call takes {used} bytes of stack");
    let (result, used) = call_on("f0", &mut stack);
    assert_eq!(result, 2 * DEPTH as i32 - 1);
    assert!(used < STACK, "{used} bytes of stack");
}

#[test]
fn handlers_are_compiled_before_they_can_be_called() {
    let source = "#define _GNU_SOURCE\n#define _XOPEN_SOURCE 700\n#include <signal.h>\n#include <pthread.h>\n#include <unistd.h>\n#include <sys/wait.h>
         static volatile int seen;
         void a(int); void a_body(int n) { seen += 1; } void b(int); void b_body(int n) { seen += 10; }
         void c(int, siginfo_t *, void *); void c_body(int n, siginfo_t *i, void *u) { seen += 100; }
         void d(void); void d_body(void) { seen += 1000; } void e(void); void e_body(void) { seen += 10000; }
         sighandler_t __sysv_signal(int, sighandler_t); void g(int); void g_body(int n) { seen += 100000; }
         int install(void) {
           struct sigaction with = {.sa_sigaction = c, .sa_flags = SA_SIGINFO};
           return signal(SIGUSR1, a) == SIG_ERR || sigaction(SIGURG, &with, 0) || pthread_atfork(d, e, 0)
             || __sysv_signal(SIGWINCH, b) == SIG_ERR || sigset(SIGCHLD, g) == SIG_ERR || signal(SIGUSR2, SIG_IGN) == SIG_ERR; }
         int run(void) { raise(SIGUSR1); raise(SIGURG); raise(SIGWINCH); raise(SIGCHLD); signal(SIGCHLD, SIG_DFL);
           int child = fork(); if (!child) _exit(0); waitpid(child, 0, 0); return seen; }";
    // Handlers are the whole process's.
    const ALONE: &str = "HOTBED_HANDLERS_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "slots::tests::handlers_are_compiled_before_they_can_be_called";
        let mut process = Command::new(std::env::current_exe().unwrap());
        let result = process.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stdout));
        return;
    }
    let folder = Folder::new();
    let bytes = image(&folder, "handlers.c", source, &["a", "b", "c", "d", "e", "g"]);
    let fake = Fake::new(answer_elsewhere);
    let image = load(&fake.loader(), "handlers", &bytes);
    assert_eq!(call(&image, "install"), 0);
    assert_eq!(fake.take(), ["a*", "c*", "d*", "e*", "b*", "g*"]);
    assert_eq!(call(&image, "run"), 111_111);
    assert_eq!(call(&image, "install"), 0);
    assert!(fake.take().is_empty(), "it is known that all that they reach is there");
}

#[test]
fn an_image_may_go_while_its_functions_are_compiled() {
    let source = "int f(void); int f_body(void) { return 3; } int g(void); int g_body(void) { return 5; }
         int ended; __attribute__((destructor)) static void end(void) { ended = g(); }";
    let folder = Folder::new();
    let bytes = image(&folder, "goes.c", source, &["f", "g"]);
    let (sender, requests) = mpsc::channel::<FunctionRequest>();
    let sender = Mutex::new(sender);
    let fake = Fake::new(move |request| match request.function().unwrap().name.as_str() {
        "f" => sender.lock().unwrap().send(request).unwrap(),
        _ => answer_elsewhere(request),
    });
    let loader = fake.loader();
    for by_force in [false, true] {
        let image = load(&loader, "goes", &bytes);
        let slots = Arc::clone(image.slots().unwrap());
        slots.request(0, false);
        slots.request(0, false);
        let request = requests.recv().unwrap();
        match by_force {
            true => crate::Image::retire_by_force(&[Arc::clone(&image)]).unwrap(),
            false => assert!(image.retire()),
        }
        let body = image.get("f_body").unwrap().address;
        drop(image);
        // The destructor has called a function that was not compiled.
        assert_eq!(fake.take(), ["f", "g"]);
        assert_eq!(fake.ended.swap(0, Ordering::SeqCst), 1);
        assert_eq!((request.function(), slots.slot_of(body), slots.is_compiled(0)), (None, None, false));
        assert!(slots.for_fresh("f_body").is_none() && !slots.set_body(0, body));
        assert!(!request.done(Ok(body)), "nobody wants it");
        assert!(slots.compile(1, false).is_err());
    }
    assert!(requests.try_recv().is_err(), "it was asked for once");
}

#[test]
fn slots_can_be_looked_at_and_changed() {
    extern "C" fn other() -> i32 {
        8
    }
    let source = "int f(void); int f_body(void) { return 3; } int g(void); int g_body(void) { return 5; } int (*table[])(void) = {f, g};";
    let folder = Folder::new();
    let bytes = image(&folder, "looks.c", source, &["f", "g"]);
    let fake = Fake::new(answer_elsewhere);
    let image = load(&fake.loader(), "looks", &bytes);
    let slots = image.slots().unwrap();
    assert_eq!((slots.count(), slots.name(), slots.bias()), (2, "looks", Some(image.bias())));
    assert_eq!(slots.function(1).unwrap().name, "g");
    assert_eq!(slots.function(2), None);
    let [f, g, body] = ["f", "g", "f_body"].map(|name| image.get(name).unwrap().address);
    assert_eq!((slots.slot_of(f), slots.slot_of(g), slots.slot_of(body)), (Some(0), Some(1), None));
    assert_eq!(
        (slots.slot_of(f + 1), slots.slot_of(0), slots.slot_of(slots as *const _ as usize)),
        (None, None, None)
    );
    assert_eq!(slots.compile(0, false), Ok(body));
    assert_eq!((slots.body(0), slots.body(1), slots.body(2)), (Some(body), None, None));
    assert!(slots.set_body(0, other as *const () as usize) && !slots.set_body(2, 1));
    assert_eq!((call(&image, "f"), call(&image, "g")), (8, 5));
    assert_eq!(fake.take(), ["f", "g"]);
    assert!(slots.compile(2, false).is_err());
    // A second answer changes nothing.
    assert_eq!(slots.compile(0, true), Ok(other as *const () as usize));
    assert_eq!(call(&image, "f"), 8);
}

#[test]
fn names_lead_where_those_of_the_image_do() {
    let folder = Folder::new();
    let library = folder.image(
        "gives.c",
        "int given(void) { return 4; } int variable = 6; int shared_ = 1; int other(void) { return 1; }",
        &[],
    );
    let source = "#include <string.h>\n#include <stdlib.h>\nextern int given(void), variable; extern int nobody(void) __attribute__((weak)); _Thread_local int thread;
         __attribute__((weak)) int twice(void) { return 1; } __attribute__((weak)) int unused(void) { return 2; } int own(void) { return 3; }
         void *places[] = {(void *)given, &variable, (void *)twice, (void *)nobody, (void *)strlen, (void *)labs};
         unsigned long lazily(char *s) { return strlen(s) + strtoul(s, 0, 7) + thread; } int f(void); int f_body(void) { return 3; }";
    let bytes = image(&folder, "names.c", source, &["f"]);
    let fake = Fake::new(answer_elsewhere);
    let loader = fake.loader();
    let gives = crate::testing::load(&loader, &library).unwrap();
    let image = load(&loader, "names", &bytes);
    // Neither of these changes what the image has got.
    loader.define("given", 1 << 20).unwrap();
    loader.define("nobody", 1 << 21).unwrap();
    let later = folder.image(
        "later.c",
        "int twice(void) { return 7; } int unused(void) { return 7; } int newer(void) { return 7; }",
        &[],
    );
    let later = crate::testing::load(&loader, &later).unwrap();
    let slots = image.slots().unwrap();
    let place = image.get("places").unwrap().address as *const [usize; 6];
    // SAFETY: the array in the source.
    let places = unsafe { *place };
    let of = |name: &str| slots.for_fresh(name).map(|found| found.address);
    for (name, address) in ["given", "variable", "twice", "nobody", "strlen", "labs"].into_iter().zip(places)
    {
        assert_eq!(of(name), Some(address), "{name}");
    }
    let known = |name: &str| image.get(name).map(|found| found.address);
    assert_eq!((of("own"), of("unused"), of("f")), (known("own"), known("unused"), known("f")));
    assert_eq!(of("variable"), gives.get("variable").map(|found| found.address));
    assert_eq!(of("nobody"), Some(0));
    assert_eq!((of("thread"), of("nobody has this"), of("newer")), (None, None, None));
    // A call that was not made yet, and what the image does not speak of.
    assert_eq!(of("strtoul"), loader.resolve("strtoul").map(|found| found.address));
    assert_eq!(of("memmove"), loader.resolve("memmove").map(|found| found.address));
    assert!(
        of("dlsym").is_some_and(|found| Some(found) != loader.resolve("dlsym").map(|found| found.address))
    );
    // What it gets now, it keeps.
    assert!(later.retire());
    drop(later);
    assert_eq!(of("other"), gives.get("other").map(|found| found.address));
    drop(gives);
    assert_eq!(call(&image, "f"), 3);
    assert_eq!(loader.images().len(), 2);
    drop(image);
    assert_eq!(loader.images().len(), 0, "and nothing is kept after it");
}

#[test]
fn a_host_that_cannot_compile_says_so() {
    let folder = Folder::new();
    let bytes = image(
        &folder,
        "refused.c",
        "int f(void); int f_body(void) { return 3; } int own(void) { return 4; }",
        &["f"],
    );
    let refused = Loader::new(LoaderOptions::default()).load_image("refused", ImageSource::Bytes(&bytes));
    let error = refused.unwrap_err();
    assert!(matches!(error, LoadError::Image { source: ImageError::NoBackEnd, .. }), "{error}");
    let options = LoaderOptions { uncompiled_functions: true, ..LoaderOptions::default() };
    let image = load(&Loader::new(options), "refused", &bytes);
    assert!(image.slots().is_none());
    assert_eq!(call(&image, "own"), 4);
    assert_eq!(in_child(|| call(&image, "f") as u8), None);
}

#[test]
fn tables_that_lie_are_refused() {
    let folder = Folder::new();
    let bytes =
        image(&folder, "lies.c", "int f(void); int f_body(void) { return 3; } int zeros[9000];", &["f"]);
    let mut sound = None;
    change(&mut bytes.clone(), |lazy| *sound.insert(lazy.unwrap()));
    let sound = sound.unwrap();
    let fake = Fake::new(answer_elsewhere);
    let loader = fake.loader();
    let load = |lazy: LazyLayout| {
        let mut bytes = bytes.clone();
        change(&mut bytes, |_| lazy);
        loader.load_image("lies", ImageSource::Bytes(&bytes)).map(|image| image.slots().is_some())
    };
    assert!(load(sound).unwrap());
    let far = [1, 1 << 40, 1 << 63, u64::MAX, u64::MAX - 7, u64::MAX - 15];
    let places = far.into_iter().chain([sound.slots, sound.entries, sound.functions]);
    for place in places {
        for (lazy, reason) in [
            (LazyLayout { slots: place, ..sound }, "slots"),
            (LazyLayout { entries: place, ..sound }, "lazy entries"),
            (LazyLayout { functions: place, ..sound }, "records"),
        ] {
            // Records may lie in code as well.
            if lazy != sound && lazy.functions != sound.entries {
                let refused = load(lazy);
                let error = refused.unwrap_err().to_string();
                assert!(error.contains(reason), "{place:x}: {error}");
            }
        }
    }
    for count in [1 << 12, 1 << 24, u32::MAX] {
        assert!(load(LazyLayout { count, ..sound }).is_err(), "{count}");
    }
    assert!(load(LazyLayout { slots: sound.slots + 4, ..sound }).is_err());
}

#[test]
fn a_thread_that_waits_may_be_interrupted() {
    static SEEN: AtomicBool = AtomicBool::new(false);
    extern "C" fn handler(_: i32) {
        SEEN.store(true, Ordering::SeqCst);
    }
    let folder = Folder::new();
    let bytes = image(&folder, "waits.c", "int f(void); int f_body(void) { return 3; }", &["f"]);
    let (sender, requests) = mpsc::channel::<FunctionRequest>();
    let sender = Mutex::new(sender);
    let fake = Fake::new(move |request| sender.lock().unwrap().send(request).unwrap());
    let image = load(&fake.loader(), "waits", &bytes);
    // SAFETY: a handler that touches an atomic only.
    unsafe { libc::signal(libc::SIGCONT, handler as *const () as usize) };
    std::thread::scope(|scope| {
        let (sender, thread) = mpsc::channel();
        let image = &image;
        let waiting = scope.spawn(move || {
            // SAFETY: its own.
            sender.send(unsafe { libc::pthread_self() }).unwrap();
            call(image, "f")
        });
        let thread = thread.recv().unwrap();
        let request = requests.recv().unwrap();
        while !SEEN.load(Ordering::SeqCst) {
            // SAFETY: the thread is not joined yet.
            unsafe { libc::pthread_kill(thread, libc::SIGCONT) };
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished());
        answer(request);
        assert_eq!(waiting.join().unwrap(), 3);
    });
}
