//! Lazy images are made and run without a loader: a process compiles all bodies for the address that the image was linked
//! at, enters them in the file's slots, and opens that as a library.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

mod bench;
mod modules;

use super::{Compiler, Skeleton, skeleton};
use crate::session::Definition;
use crate::split::tests::support::{Cut, Program};
use hotbed_loader::boundary::Others;
use hotbed_loader::boundary::{Failure, FreshArea};
use hotbed_loader::image::note::SLOTS_SECTION;
use hotbed_loader::sys::files::contents;
use object::read::elf::{Dyn, FileHeader};
use object::{LittleEndian as LE, Object, ObjectSymbol, elf};
use std::any::Any;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
    fn dup2(old: c_int, new: c_int) -> c_int;
}

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;

/// What tells the process that runs an image which one, and where its output goes.
const IMAGE: &str = "HOTBED_TEST_LAZY_IMAGE";
const OUTPUT: &str = "HOTBED_TEST_LAZY_OUTPUT";

fn made(program: &Program, flags: &[&str]) -> Skeleton {
    let explain = |failure: Failure| panic!("{}\n{}", failure.message, failure.rendered);
    skeleton(&program.request(flags)).unwrap_or_else(explain)
}

fn bytes(skeleton: &Skeleton) -> Vec<u8> {
    contents(skeleton.image.as_fd()).unwrap()
}

/// What the program does, as a lazy image with all its bodies.
pub(crate) fn by_fresh_code(program: &Program, flags: &[&str]) -> Output {
    let image = program.folder().join("lazy.hbi");
    std::fs::write(&image, bytes(&made(program, flags))).unwrap();
    run("lazy::tests::child", &image)
}

fn run(test: &str, image: &Path) -> Output {
    let folder = image.parent().unwrap();
    let output = folder.join("output");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--ignored", "--nocapture"]).current_dir(folder);
    let mut result = child.env(IMAGE, image).env(OUTPUT, &output).output().unwrap();
    result.stdout = std::fs::read(output).unwrap_or_default();
    result
}

fn open(path: &str) -> *mut c_void {
    let text = CString::new(path).unwrap();
    // SAFETY: the name is borrowed for the call.
    unsafe {
        let handle = dlopen(text.as_ptr(), RTLD_NOW | RTLD_GLOBAL);
        assert!(!handle.is_null(), "{:?}", std::ffi::CStr::from_ptr(dlerror()));
        handle
    }
}

fn look_up(handle: *mut c_void, name: &str) -> usize {
    let name = CString::new(name).unwrap();
    // SAFETY: the name is borrowed for the call, and the handle is one.
    unsafe { dlsym(handle, name.as_ptr()) as usize }
}

/// The process, and weak symbols of the image.
struct Process(HashMap<String, usize>);

impl Process {
    fn of(file: &[u8]) -> Self {
        let read = object::File::parse(file).unwrap();
        let weak = |symbol: &object::Symbol<'_, '_>| symbol.is_weak() && symbol.is_definition();
        let named =
            |symbol: object::Symbol<'_, '_>| (symbol.name().unwrap().to_owned(), symbol.address() as usize);
        Self(read.symbols().filter(weak).map(named).collect())
    }
}

impl Others for Process {
    fn find(&self, _: u64, name: &str) -> Option<Definition> {
        let address = look_up(std::ptr::null_mut(), name);
        let address = if address == 0 { self.0.get(name).copied()? } else { address };
        Some(Definition { address, function: true })
    }

    fn make_known(&self, _: &FreshArea) -> Option<Box<dyn Any + Send + Sync>> {
        None
    }
}

/// Compiles the whole image, with several threads.
fn compile(file: &[u8], opened: Vec<super::Opened>) -> Vec<usize> {
    let compiler = Compiler::new(Arc::new(Process::of(file))).unwrap();
    let bodies = compiler.open(7, file, 0, opened).unwrap_or_else(|failure| panic!("{}", failure.message));
    let next = AtomicU32::new(0);
    let work = || {
        let mut found = Vec::new();
        while let slot = next.fetch_add(1, Ordering::Relaxed)
            && slot < bodies.len()
        {
            found.extend(bodies.compile(slot).unwrap_or_else(|failure| panic!("{}", failure.message)).bodies);
        }
        found
    };
    let mut addresses = vec![0; bodies.len() as usize];
    thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, work).unwrap();
        let threads: Vec<_> = (0..2).map(spawn).collect();
        for body in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            let known = &mut addresses[body.slot as usize];
            assert!(*known == 0 || *known == body.address, "a function with two bodies");
            *known = body.address;
        }
    });
    let compiled: usize = bodies.compiled().iter().map(|compiled| compiled.slots.len()).sum();
    assert_eq!(compiled, addresses.len(), "each is compiled once");
    // The code is for the rest of the process.
    std::mem::forget((compiler, bodies));
    addresses
}

#[test]
#[ignore = "what `run` starts"]
fn child() {
    go_on_as_the_program();
}

#[test]
#[ignore = "what `run` starts"]
fn far_child() {
    // Where bodies would be within reach, there is something already.
    std::mem::forget(Compiler::new(Arc::new(Process(HashMap::new()))).unwrap());
    go_on_as_the_program();
}

fn go_on_as_the_program() {
    let Some(path) = std::env::var_os(IMAGE) else { return };
    let mut file = std::fs::read(&path).unwrap();
    let header = elf::FileHeader64::<LE>::parse(&file[..]).unwrap();
    let sections = header.sections(LE, &file[..]).unwrap();
    let (dynamic, link) = sections.dynamic(LE, &file[..]).unwrap().unwrap();
    let strings = sections.strings(LE, &file[..], link).unwrap();
    for entry in dynamic.iter().filter(|entry| entry.tag(LE) == elf::DT_NEEDED) {
        open(std::str::from_utf8(entry.string(LE, strings).unwrap()).unwrap());
    }
    if let Some((_, slots)) = sections.section_by_name(LE, SLOTS_SECTION.as_bytes()) {
        let at = slots.sh_offset.get(LE) as usize + 16;
        for (slot, address) in compile(&file, Vec::new()).into_iter().enumerate() {
            file[at + 8 * slot..][..8].copy_from_slice(&address.to_le_bytes());
        }
    }
    let path = format!("{}.whole", path.to_str().unwrap());
    std::fs::write(&path, &file).unwrap();
    // Constructors write, too.
    let output = std::fs::File::create(std::env::var_os(OUTPUT).unwrap()).unwrap();
    // SAFETY: descriptors are no memory.
    unsafe { dup2(output.as_raw_fd(), 1) };
    let image = open(&path);
    let main = look_up(image, "main");
    let linked = object::File::parse(&file[..]).unwrap();
    let found = linked.symbols().find(|symbol| symbol.address() == main as u64);
    assert_eq!(found.map(|symbol| symbol.name()), Some(Ok("main")), "the image is where it was linked");
    let name = CString::new("lazy").unwrap();
    let arguments = [name.as_ptr(), std::ptr::null()];
    // SAFETY: that is the type of main, and the arguments live as long as the process.
    let status = unsafe {
        std::mem::transmute::<usize, extern "C" fn(c_int, *const *const c_char) -> c_int>(main)(
            1,
            arguments.as_ptr(),
        )
    };
    std::process::exit(status);
}

#[test]
#[ignore = "what `run` starts"]
fn bare_child() {
    let Some(path) = std::env::var_os(IMAGE) else { return };
    let function = look_up(open(path.to_str().unwrap()), "second");
    // SAFETY: the tests' function of that name has that type.
    unsafe { std::mem::transmute::<usize, extern "C" fn()>(function)() };
}

#[test]
fn bodies_may_be_out_of_reach() {
    for (name, flags) in [("zlib", "-O2"), ("lua", "-O0")] {
        let program = Program::library(name, "far");
        let image = program.folder().join("far.hbi");
        std::fs::write(&image, bytes(&made(&program, &[flags]))).unwrap();
        let (want, got) = (program.by_clang(&[flags]), run("lazy::tests::far_child", &image));
        let errors = String::from_utf8_lossy(&got.stderr);
        assert_eq!((got.status, got.stdout), (want.status, want.stdout), "{name} {flags}: {errors}");
    }
}

#[test]
fn units_share_what_they_share() {
    let one = r#"
#include <cstdio>
inline int count() { static int n; return ++n; }
template <class T> T twice(T x) { return x + x; }
extern thread_local int shared; thread_local int own = 3;
extern int *where_shared(), *where_own(), (*which_count())(), tentative();
static int same(int x) { return x + 1; }
int elsewhere(int);
int main() {
  shared += own;
  own += 5;
  std::printf("%d %d %d %d\n", where_shared() == &shared, where_own() == &own, which_count() == count, shared + own);
  std::printf("%d %d %d %d\n", count() + which_count()(), twice(4), same(1), elsewhere(2));
}
"#;
    let two = r#"
inline int count() { static int n; return ++n; }
template <class T> T twice(T x) { return x + x; }
thread_local int shared = 7; extern thread_local int own;
int *where_shared() { return &shared; }
int *where_own() { return &own; }
int (*which_count())() { return count; }
static int same(int x) { return x - 1; }
int elsewhere(int x) { return same(x) + twice(x); }
"#;
    let program = Program::several(&[("one.cpp", one), ("two.cpp", two)]);
    // Tables that bodies need survive what takes them away elsewhere.
    let sections = ["-O1", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections,-s"];
    for flags in [&["-O0"][..], &["-O2"], &["-O0", "-s"], &sections] {
        program.compare(flags, &[Cut::Lazy]);
    }
}

#[test]
fn what_a_function_reaches_is_compiled_with_it() {
    let one = "int deep(int); static int near(int x) { return deep(x); } static int other(void) { return 5; }\n\
        int (*pointer)(void) = other; int handler(int x) { return near(x) + pointer(); } int main(void) { return 0; }";
    let two = "static int last(int x) { return x * 2; } int deep(int x) { return last(x); } int never(void) { return 1; }";
    let program = Program::several(&[("one.c", one), ("two.c", two)]);
    let skeleton = made(&program, &["-O0"]);
    let file = bytes(&skeleton);
    let read = object::File::parse(&file[..]).unwrap();
    // Slots are in the order of stubs.
    let mut stubs: Vec<(u64, &str)> = read
        .symbols()
        .filter(|symbol| symbol.size() == 8 && symbol.kind() == object::SymbolKind::Text)
        .map(|symbol| (symbol.address(), symbol.name().unwrap()))
        .collect();
    stubs.sort_unstable();
    let slot = |name: &str| stubs.iter().position(|(_, stub)| *stub == name).unwrap() as u32;
    let compiler = Compiler::new(Arc::new(Process::of(&file))).unwrap();
    let bodies = compiler.open(1, &file, 0, skeleton.opened).unwrap();
    assert_eq!(bodies.len() as usize, stubs.len());
    let mut found: Vec<u32> =
        bodies.compile_deep(slot("handler")).unwrap().bodies.iter().map(|body| body.slot).collect();
    found.sort_unstable();
    found.dedup();
    let mut expected = ["handler", "near.u0", "deep", "last.u1"].map(slot);
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(bodies.compile(slot("deep")).unwrap().bodies.len(), 1);
    assert!(bodies.compile(bodies.len()).is_err());
    bodies.remove().unwrap();
}

#[test]
fn one_by_one_functions_call_each_other_by_name() {
    let one = "static int small(int x) { return x + 1; }\n\
        __attribute__((always_inline)) static inline int inlined(int x) { return x * 3; }\n\
        int caller(int x) { return small(inlined(x)) + small(2); } int main(void) { return 0; }";
    let two = "int second(void) { return 1; }";
    for level in ["-O0", "-O2"] {
        let contents = [[("one.c", one), ("two.c", two)], [("two.c", two), ("one.c", one)]].map(|units| {
            let skeleton = made(&Program::several(&units), &[level]);
            let file = bytes(&skeleton);
            let compiler = Compiler::new(Arc::new(Process::of(&file))).unwrap();
            let bodies = compiler.open(1, &file, 0, skeleton.opened).unwrap().one_by_one();
            let mut contents = Vec::new();
            for slot in 0..bodies.len() {
                let made = bodies.compile(slot).unwrap().bodies;
                assert_eq!((made.len(), made[0].slot), (1, slot), "{level}");
                assert!(made[0].nanoseconds > 0 && made[0].content.is_some(), "{level}");
                let again = bodies.compile(slot).unwrap().bodies;
                assert_eq!(again, made, "{level}");
                contents.push(made[0].content);
            }
            let objects: Vec<_> = bodies.compiled().into_iter().map(|compiled| compiled.object).collect();
            let refers = |object: &Vec<u8>| {
                let read = object::File::parse(&object[..]).unwrap();
                let names = read
                    .symbols()
                    .filter(|symbol| symbol.is_undefined())
                    .filter_map(|symbol| symbol.name().ok());
                names.filter(|name| name.starts_with("small") || name.starts_with("inlined")).count()
            };
            let calls: usize = objects.iter().map(|object| refers(object)).sum();
            assert_eq!(calls, 1, "{level}: the caller's, of the one that need not be inlined");
            bodies.remove().unwrap();
            contents.sort_unstable();
            contents
        });
        assert_eq!(contents[0], contents[1], "{level}: whichever unit comes first");
        assert!(contents[0].windows(2).all(|two| two[0] != two[1]), "{level}");
    }
}

#[test]
fn what_cannot_be_linked_can_be_tried_again() {
    let text = "int absent(void); int tries(void) { return absent(); } int main(void) { return tries(); }";
    let program = Program::small("again.c", text);
    let skeleton = made(&program, &["-O0"]);
    let compiler = Compiler::new(Arc::new(Process(HashMap::new()))).unwrap();
    let bodies = compiler.open(1, &bytes(&skeleton), 0, skeleton.opened).unwrap();
    for _ in 0..2 {
        let failure = bodies.compile(0).unwrap_err();
        assert!(failure.message.contains("undefined: absent"), "{}", failure.message);
    }
    // What cannot be had is left out where it only came along.
    assert_eq!(bodies.compile(1).unwrap().bodies.len(), 1);
    assert!(bodies.compile(0).is_err());
    bodies.remove().unwrap();
}

#[test]
fn without_functions_an_image_is_not_lazy() {
    for text in ["int only = 7;", "extern int other; int *data = &other;"] {
        let skeleton = made(&Program::small("data.c", text), &["-O0"]);
        let file = bytes(&skeleton);
        assert!(object::File::parse(&file[..]).unwrap().section_by_name(SLOTS_SECTION).is_none());
        let compiler = Compiler::new(Arc::new(Process::of(&file))).unwrap();
        assert!(compiler.open(1, &file, 0, skeleton.opened).is_err());
    }
}

#[test]
fn the_entry_is_found_whatever_its_visibility() {
    let text = "#include <stdio.h>\nint main(void) { puts(\"seen\"); return 3; }";
    Program::small("hidden.c", text).compare(&["-O0", "-fvisibility=hidden"], &[Cut::Lazy]);
}

#[test]
fn without_a_loader_the_function_is_named() {
    use std::os::unix::process::ExitStatusExt;
    let program = Program::small(
        "bare.c",
        "void first(void) {}\nvoid second(void) { first(); }\nint main(void) { return 0; }\n",
    );
    let image = program.folder().join("bare.hbi");
    std::fs::write(&image, bytes(&made(&program, &["-O0"]))).unwrap();
    let output = run("lazy::tests::bare_child", &image);
    assert_eq!(output.status.signal(), Some(6));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("hotbed: second was never compiled\n"), "{text}");
}
