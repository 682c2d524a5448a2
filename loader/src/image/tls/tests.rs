//! Thread-local variables of images, in threads of all ages.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use crate::testing::{Folder, call, call_address, load, loader};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;
use std::thread;

static MADE: AtomicI32 = AtomicI32::new(0);
static GONE: AtomicI32 = AtomicI32::new(0);

extern "C" fn made() {
    MADE.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn gone() {
    GONE.fetch_add(1, Ordering::Relaxed);
}

const SOURCE: &str = "
    thread_local int exported = 41; static thread_local int local[100] = {1, 2, 3};
    alignas(256) static thread_local char wide[3] = {9};
    extern \"C\" int *address() { return &exported; } extern \"C\" int bump() { return ++exported + ++local[2]; }
    extern \"C\" int aligned() { return ((unsigned long)wide & 255) == 0 && wide[0] == 9; }";

#[test]
fn every_thread_has_its_own_initial_values() {
    let folder = Folder::new();
    for (name, flags) in [("general", &[][..]), ("descriptors", &["-mtls-dialect=gnu2"][..])] {
        let (ask, asked) = mpsc::channel::<usize>();
        let (answer, answers) = mpsc::channel();
        let old = thread::spawn(move || {
            for function in asked {
                // SAFETY: the functions of the source above.
                let bump = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(function) };
                answer.send(bump()).unwrap();
            }
        });
        let loader = loader();
        let image = load(&loader, &folder.image(&format!("{name}.cpp"), SOURCE, flags)).unwrap();
        assert_eq!((call(&image, "bump"), call(&image, "bump")), (46, 48));
        assert_eq!(call(&image, "aligned"), 1);
        assert_eq!(image.get("exported").unwrap().address, call_address(&image, "address"));
        let bump = image.get("bump").unwrap().address;
        ask.send(bump).unwrap();
        ask.send(bump).unwrap();
        assert_eq!(
            (answers.recv().unwrap(), answers.recv().unwrap()),
            (46, 48),
            "a thread older than the image"
        );
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    assert_eq!((call(&image, "bump"), call(&image, "bump")), (46, 48));
                    assert_eq!(image.get("exported").unwrap().address, call_address(&image, "address"));
                });
            }
        });
        // Another image that uses this one's variable.
        let user = folder.image(
            &format!("{name}user.cpp"),
            "extern thread_local int exported; extern \"C\" int *address(); extern \"C\" int same() { return &exported == address(); }",
            flags,
        );
        let user = load(&loader, &user).unwrap();
        assert_eq!(call(&user, "same"), 1);
        drop((image, user));
        drop(ask);
        old.join().unwrap();
    }
}

#[test]
fn a_descriptor_leaves_all_registers_alone() {
    let folder = Folder::new();
    // The first use in a thread takes the slow way; vectors and integers in registers must survive it.
    let image = folder.image(
        "registers.c",
        "typedef double V __attribute__((vector_size(16))); _Thread_local long t = 5; static _Thread_local char pad[64];
         __attribute__((noinline)) long f(long a, long b, long c, long d, long e, long g, V x, V y, V z) {
           long *p = &t; V s = x + y * z; *p += a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * g; return *p + (long)(s[0] + s[1]); }
         int check(void) { V x = {1, 2}, y = {3, 4}, z = {5, 6}; return f(1, 2, 3, 4, 5, 6, x, y, z) == 5 + 91 + 42; }",
        &["-mtls-dialect=gnu2"],
    );
    let loader = loader();
    let image = load(&loader, &image).unwrap();
    assert_eq!(call(&image, "check"), 1);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(call(&image, "check"), 1));
    });
}

#[test]
fn variables_of_libraries_are_glibcs() {
    let folder = Folder::new();
    let library = folder.library(
        "libvar.c",
        "_Thread_local int there = 8; int *where(void) { return &there; }",
        &["-Wl,-soname,libvar.so"],
    );
    for (name, flag) in [("vargd", "-mtls-dialect=gnu"), ("vardesc", "-mtls-dialect=gnu2")] {
        let image = folder.image(
            &format!("{name}.c"),
            "extern _Thread_local int there; int *where(void); int same(void) { return &there == where() && there == 8; }",
            &[library.to_str().unwrap(), "-Wl,-rpath,$ORIGIN", flag],
        );
        let image = load(&loader(), &image).unwrap();
        assert_eq!(call(&image, "same"), 1);
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(call(&image, "same"), 1));
        });
    }
}

#[test]
fn destructors_run_at_the_end_of_the_thread_and_keep_the_image() {
    let folder = Folder::new();
    let source = "extern \"C\" void made(); extern \"C\" void gone();
         struct D { int v = 1; D() { made(); } ~D() { if (v == 2) gone(); } }; thread_local D d;
         extern \"C\" int touch() { d.v = 2; return 1; }";
    let path = folder.image("ends.cpp", source, &[]);
    let loader = loader();
    loader.define("made", made as *const () as usize).unwrap();
    loader.define("gone", gone as *const () as usize).unwrap();
    let image = load(&loader, &path).unwrap();
    for _ in 0..3 {
        thread::scope(|scope| {
            scope.spawn(|| call(&image, "touch")).join().unwrap();
        });
    }
    assert_eq!((MADE.load(Ordering::Relaxed), GONE.load(Ordering::Relaxed)), (3, 3));
    let range = image.range();
    let (go, wait) = mpsc::channel::<()>();
    let (touched, seen) = mpsc::channel::<()>();
    let touch = image.get("touch").unwrap().address;
    let late = thread::spawn(move || {
        // SAFETY: the function of the source above.
        unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(touch)() };
        touched.send(()).unwrap();
        wait.recv().unwrap();
    });
    seen.recv().unwrap();
    drop(image);
    assert!(loader.images().is_empty());
    go.send(()).unwrap();
    late.join().unwrap();
    assert_eq!((MADE.load(Ordering::Relaxed), GONE.load(Ordering::Relaxed)), (4, 4));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains(&format!("{:x}-", range.start)), "it stays");
}

#[test]
fn a_child_process_can_use_variables_for_the_first_time() {
    let folder = Folder::new();
    let loader = loader();
    let image = load(&loader, &folder.image("fork.cpp", SOURCE, &[])).unwrap();
    let bump = image.get("bump").unwrap().address;
    let stop = &AtomicI32::new(0);
    thread::scope(|scope| {
        // Threads that take the lock all the time.
        for _ in 0..2 {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    thread::scope(|inner| {
                        inner.spawn(|| call(&image, "bump"));
                    });
                }
            });
        }
        for _ in 0..50 {
            // SAFETY: the child only calls a function of the image, and `_exit`.
            let status = unsafe {
                match libc::fork() {
                    0 => libc::_exit(std::mem::transmute::<usize, extern "C" fn() -> i32>(bump)()),
                    child => {
                        let mut status = 0;
                        libc::waitpid(child, &mut status, 0);
                        status
                    }
                }
            };
            assert_eq!(libc::WEXITSTATUS(status), 46);
        }
        stop.store(1, Ordering::Relaxed);
    });
}
