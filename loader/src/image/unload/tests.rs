//! Unloading images: what stands in the way, what runs and in which order, and what is left where somebody was bound.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use super::Obstacles;
use crate::sys::threads::in_child;
use crate::testing::{Folder, call, call_address, load, loader};
use crate::{Image, ImageSource, Loader};
use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

extern "C" fn log_line(text: *const c_char) {
    // SAFETY: the tests pass texts.
    let text = unsafe { CStr::from_ptr(text) };
    LOG.lock().unwrap().push(text.to_string_lossy().into_owned());
}

fn lines(prefix: &str) -> Vec<String> {
    LOG.lock().unwrap().iter().filter_map(|line| line.strip_prefix(prefix).map(str::to_owned)).collect()
}

fn logging() -> Loader {
    let loader = loader();
    loader.define("log_line", log_line as *const () as usize).unwrap();
    loader
}

fn together(loader: &Loader, files: &[(&str, PathBuf)]) -> Vec<Arc<Image>> {
    let sources: Vec<_> = files.iter().map(|(name, path)| (*name, ImageSource::File(path))).collect();
    loader.load_images(None, &sources).unwrap()
}

/// Without what cannot be otherwise in a circle.
fn ends(prefix: &str) -> Vec<String> {
    lines(prefix).into_iter().filter(|line| !line.ends_with(" was used after its end")).collect()
}

/// A unit that says when it begins and ends, calls `uses` at its end, and has `f_NAME` and `v_NAME`.
fn noisy(test: &str, name: &str, uses: &[&str]) -> String {
    let calls: String = uses.iter().map(|used| format!("f_{used}();")).collect();
    let declared: String = uses.iter().map(|used| format!("extern int f_{used}(void);")).collect();
    format!(
        "void log_line(const char *); {declared} static int alive = 1; int f_{name}(void) {{
           if (!alive) log_line(\"{test}:{name} was used after its end\"); return 1; }}
         int use_{name}(void) {{ {calls} return 3; }}
         __attribute__((constructor)) static void begin(void) {{ log_line(\"{test}:+{name}\"); }}
         __attribute__((destructor)) static void end(void) {{ {calls} alive = 0; log_line(\"{test}:-{name}\"); }}"
    )
}

const THREADED: &str = "
    extern \"C\" void log_line(const char *);
    struct T { const char *n; T(const char *n) : n(n) {} ~T() { log_line(n); } void touch() {} };
    static T whole(\"PREFIX:static\");
    thread_local T one(\"PREFIX:one\"), two(\"PREFIX:two\");
    extern \"C\" int touch() { one.touch(); return 1; }";

#[test]
fn destructors_of_the_own_thread_run_at_unload_and_others_stand_in_the_way() {
    let folder = Folder::new();
    let loader = logging();
    for descriptors in [false, true] {
        let prefix = format!("threads{descriptors}");
        let flags: &[&str] = if descriptors { &["-mtls-dialect=gnu2"] } else { &[] };
        let file = folder.image(&format!("{prefix}.cpp"), &THREADED.replace("PREFIX", &prefix), flags);
        let image = load(&loader, &file).unwrap();
        let touch = image.get("touch").unwrap().address;
        let (end, ended) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: `touch` of the source above.
            unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(touch)() };
            ready.send(()).unwrap();
            let _ = ended.recv();
        });
        is_ready.recv().unwrap();
        call(&image, "touch");
        let refused = Image::retire_together(std::slice::from_ref(&image)).unwrap_err();
        assert_eq!(refused, Obstacles { threads: 1, ..Obstacles::default() });
        assert_eq!(
            refused.to_string(),
            "1 thread has destructors of its thread_local objects to call",
            "the own thread does not count"
        );
        assert!(lines(&format!("{prefix}:")).is_empty());
        drop(end);
        thread.join().unwrap();
        assert_eq!(lines(&format!("{prefix}:")), ["two", "one"]);
        assert!(image.retire());
        drop(image);
        assert_eq!(lines(&format!("{prefix}:")), ["two", "one", "two", "one", "static"]);
    }
    // What the thread has left in glibc's list has nothing to do, also when other images have come to these addresses.
    assert!(
        std::thread::spawn(move || {
            let folder = Folder::new();
            let source = THREADED.replace("PREFIX", "again");
            for round in 1..=3 {
                let image = load(&loader, &folder.image("again.cpp", &source, &[])).unwrap();
                call(&image, "touch");
                assert!(image.retire());
                drop(image);
                assert_eq!(lines("again:").len(), 3 * round);
            }
        })
        .join()
        .is_ok()
    );
    assert_eq!(lines("again:").len(), 9);
}

#[test]
fn a_thread_that_is_not_there_after_a_fork_does_not_stand_in_the_way() {
    let folder = Folder::new();
    let image = load(&logging(), &folder.image("f.cpp", &THREADED.replace("PREFIX", "fork"), &[])).unwrap();
    std::thread::scope(|scope| {
        let (end, ended) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let held = Arc::clone(&image);
        let thread = scope.spawn(move || {
            call(&held, "touch");
            drop(held);
            ready.send(()).unwrap();
            let _ = ended.recv();
        });
        is_ready.recv().unwrap();
        assert!(!image.retire());
        assert_eq!(in_child(|| u8::from(image.retire())), Some(1));
        drop(end);
        thread.join().unwrap();
    });
    assert!(image.retire());
}

#[test]
fn circles_go_together_or_not_at_all() {
    let folder = Folder::new();
    let loader = logging();
    let file = |name: &str, uses: &[&str]| {
        folder.image(&format!("circle{name}.c"), &noisy("circle", name, uses), &["-Wl,-z,undefs"])
    };
    let (a, b, c, d) = (file("a", &["b"]), file("b", &["c"]), file("c", &["a"]), file("d", &["b"]));
    let mut images = together(&loader, &[("a", a), ("b", b), ("c", c)]);
    let user = load(&loader, &d).unwrap();
    assert_eq!(lines("circle:"), ["+a", "+b", "+c", "+d"]);
    let refused = Image::retire_together(&images[..2]).unwrap_err();
    assert_eq!((refused.image, refused.to_string().as_str()), (0, "c is bound to it"));
    let refused = Image::retire_together(&images).unwrap_err();
    assert_eq!((refused.image, refused.images), (1, vec!["circled".to_owned()]));
    images.push(user);
    Image::retire_together(&images).unwrap();
    images.into_iter().rev().for_each(drop);
    assert_eq!(ends("circle:")[4..], ["-d", "-c", "-b", "-a"]);
    assert!(loader.images().is_empty());
}

#[test]
fn handles_may_be_dropped_in_any_order() {
    let folder = Folder::new();
    let names = ["a", "b", "c"];
    let uses: [&[&str]; 3] = [&[], &["a"], &["a", "b"]];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let test = format!("order{order:?}");
        let loader = logging();
        let mut images: Vec<_> = names
            .iter()
            .zip(uses)
            .map(|(name, uses)| {
                let file = folder.image(&format!("{name}.c"), &noisy(&test, name, uses), &["-Wl,-z,undefs"]);
                Some(load(&loader, &file).unwrap())
            })
            .collect();
        order.iter().for_each(|at| drop(images[*at].take()));
        assert_eq!(lines(&format!("{test}:")), ["+a", "+b", "+c", "-c", "-b", "-a"]);
    }
}

const OWNER: &str = "
    int f(int x) { return x + 1; } int v = 5; _Thread_local int t = 7; static int choose(int x) { return x + 2; }
    static void *pick(void) { return (void *)choose; } int g(int) __attribute__((ifunc(\"pick\")));
    __attribute__((weak)) int w(void) { return 1; }";
const USER: &str = "
    int f(int); int g(int); extern int v; extern _Thread_local int t; int (*const pointer)(int) = f; int *place = &v;
    __attribute__((weak)) int w(void) { return 2; }
    int call_f(void) { return f(1); } int call_g(void) { return g(1); } int call_pointer(void) { return pointer(1); }
    int read_v(void) { return v; } int read_place(void) { return *place; } int read_t(void) { return t; } int own(void) { return 9; }
    int call_w(void) { return w(); } void *where_f(void) { return (void *)f; } int (*volatile kept)(int);
    int keep(void) { kept = f; return 1; } int call_kept(void) { return kept(1); }";

/// Calls `function` in a process of its own, and gives the signal that ends it and what it writes to standard error.
fn fate(image: &Image, function: &str) -> (i32, String) {
    let mut pipe = [0; 2];
    // SAFETY: the child does what a forked child may: it calls code and writes to its standard error.
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let child = libc::fork();
        if child == 0 {
            libc::dup2(pipe[1], 2);
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGTRAP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            libc::alarm(20);
            call(image, function);
            libc::_exit(0);
        }
        libc::close(pipe[1]);
        let mut text = Vec::new();
        let mut buffer = [0u8; 512];
        loop {
            let read = libc::read(pipe[0], buffer.as_mut_ptr().cast(), buffer.len());
            if read <= 0 {
                break;
            }
            text.extend_from_slice(&buffer[..read as usize]);
        }
        libc::close(pipe[0]);
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        let signal = if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 };
        (signal, String::from_utf8_lossy(&text).into_owned())
    }
}

#[test]
fn by_force_what_was_bound_is_led_to_traps() {
    let folder = Folder::new();
    // Slots that are read-only, slots that are not, and descriptors.
    for (round, flags) in [&["-Wl,-z,now"][..], &["-Wl,-z,lazy"], &["-mtls-dialect=gnu2", "-Wl,-z,norelro"]]
        .into_iter()
        .enumerate()
    {
        let flags = [&["-Wl,-z,undefs"][..], flags].concat();
        let loader = loader();
        let owner = load(&loader, &folder.image(&format!("owner{round}.c"), OWNER, &flags)).unwrap();
        let user = load(&loader, &folder.image(&format!("user{round}.c"), USER, &flags)).unwrap();
        for (name, value) in
            [("call_f", 2), ("call_g", 3), ("read_v", 5), ("read_t", 7), ("call_w", 1), ("keep", 1)]
        {
            assert_eq!(call(&user, name), value, "{name}");
        }
        let stale = owner.get("f").unwrap().address;
        let range = owner.range();
        let refused = Image::retire_together(std::slice::from_ref(&owner)).unwrap_err();
        assert_eq!(refused.images, [format!("user{round}")]);
        Image::retire_by_force(std::slice::from_ref(&owner)).unwrap();
        drop(owner);
        assert!(user.bound_to().is_empty());

        let abort = |text: String| (libc::SIGABRT, format!("hotbed: {text}, by unit user{round}\n"));
        let of = |what: &str| format!("{what} of unit owner{round}, which was unloaded");
        assert_eq!(fate(&user, "call_f"), abort(of("call of `f`")));
        assert_eq!(fate(&user, "call_g"), abort(of("call of `g`")));
        assert_eq!(fate(&user, "call_w"), abort(of("call of `w`")));
        assert_eq!(fate(&user, "call_pointer"), abort(of("call of `f`")));
        assert_eq!(fate(&user, "read_t"), abort(of("use of thread-local `t`")));
        for name in ["read_v", "read_place", "call_kept"] {
            assert_eq!(fate(&user, name), (libc::SIGSEGV, String::new()), "{name}");
        }
        assert_eq!(call(&user, "own"), 9);
        assert!(!range.contains(&call_address(&user, "where_f")));
        assert!(range.contains(&stale));
        assert_eq!(user.get("w").map(|own| user.range().contains(&own.address)), Some(true));
        assert!(loader.resolve("f").is_none());

        // Its addresses stay taken, wherever it is loaded again, and the new one is nobody's but who is bound to it.
        let again = load(&loader, &folder.image(&format!("owner{round}.c"), OWNER, &flags)).unwrap();
        assert!(again.range().start >= range.end || again.range().end <= range.start);
        assert_eq!(fate(&user, "call_f"), abort(of("call of `f`")));
        let bytes = std::fs::read(folder.path().join(format!("user{round}.so"))).unwrap();
        let other = loader.load_image("other", ImageSource::Bytes(&bytes)).unwrap();
        assert_eq!((call(&other, "call_f"), call(&other, "read_t")), (2, 7));
        assert!(user.retire());
        drop(user);
    }
}

#[test]
fn by_force_a_part_of_a_circle_ends_and_the_rest_lives() {
    let folder = Folder::new();
    let loader = logging();
    let file = |name: &str, uses: &[&str]| {
        folder.image(&format!("part{name}.c"), &noisy("part", name, uses), &["-Wl,-z,undefs"])
    };
    let (a, b) = (file("a", &["b"]), file("b", &["a", "c"]));
    let rest = format!("int f_a(void); int borrow(void) {{ return f_a(); }} {}", noisy("part", "c", &[]));
    let c = folder.image("partc.c", &rest, &["-Wl,-z,undefs"]);
    let mut images = together(&loader, &[("a", a), ("b", b), ("c", c)]);
    let c = images.pop().unwrap();
    // The two may still use each other at their end.
    Image::retire_by_force(&images).unwrap();
    drop(images);
    assert_eq!(ends("part:"), ["+a", "+b", "+c", "-b", "-a"]);
    assert_eq!(call(&c, "f_c"), 1);
    let (signal, text) = fate(&c, "borrow");
    assert_eq!(
        (signal, text.as_str()),
        (libc::SIGABRT, "hotbed: call of `f_a` of unit a, which was unloaded, by unit c\n")
    );
    assert!(c.retire());
    drop(c);
    assert_eq!(ends("part:")[5..], ["-c"]);
}

#[test]
fn by_force_threads_call_nothing_of_it_any_more() {
    let folder = Folder::new();
    let image = load(&logging(), &folder.image("g.cpp", &THREADED.replace("PREFIX", "gone"), &[])).unwrap();
    let touch = image.get("touch").unwrap().address;
    let (end, ended) = mpsc::channel::<()>();
    let (ready, is_ready) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // SAFETY: `touch` of the source above.
        unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(touch)() };
        ready.send(()).unwrap();
        let _ = ended.recv();
    });
    is_ready.recv().unwrap();
    Image::retire_by_force(std::slice::from_ref(&image)).unwrap();
    drop(image);
    assert_eq!(lines("gone:"), ["static"]);
    drop(end);
    thread.join().unwrap();
    assert_eq!(lines("gone:"), ["static"]);
}
