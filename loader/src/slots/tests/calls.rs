//! First calls that are written down.

use super::numbers;
use super::support::{Fake, image, load};
use crate::sys::append::AppendFile;
use crate::sys::threads::in_child;
use crate::testing::{Folder, call};
use crate::{FunctionRequest, Image, Loader, LoaderOptions, Materializer};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// A file of first calls, and a loader that writes it. A record is the name of a function.
struct Traced {
    path: PathBuf,
    loader: Loader,
    fake: Arc<Fake>,
}

impl Traced {
    fn new(folder: &Folder) -> Self {
        let path = folder.path().join("calls");
        let fake = Fake::new(answer_elsewhere);
        let materializer: Arc<dyn Materializer> = Arc::<Fake>::clone(&fake);
        let first_calls = Some(Arc::new(AppendFile::new(&path).unwrap()));
        let options =
            LoaderOptions { materializer: Some(materializer), first_calls, ..LoaderOptions::default() };
        Self { path, loader: Loader::new(options), fake }
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.path).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The body that the image has for a function.
fn body(request: &FunctionRequest, slot: u32) -> usize {
    let name = request.slots().function(slot).unwrap().name;
    request.slots().for_fresh(&(name + "_body")).unwrap().address
}

fn answer(request: FunctionRequest) {
    let (slots, slot) = (Arc::clone(request.slots()), request.slot());
    let record = |slot: u32| slots.function(slot).unwrap().name + "\n";
    if request.is_deep() {
        for other in 0..slots.count() {
            assert!(slots.set_ready(other, body(&request, other), record(other).as_bytes()));
        }
    }
    let address = body(&request, slot);
    assert!(slots.set_ready(slot, address, record(slot).as_bytes()));
    request.done(Ok(address));
}

fn answer_elsewhere(request: FunctionRequest) {
    std::thread::spawn(|| answer(request));
}

#[test]
fn they_are_there_in_their_order_whatever_was_compiled_before() {
    let folder = Folder::new();
    let source = "int c(void); int c_body(void) { return 3; } int b(void); int b_body(void) { return c() * 10; }
         int a(void); int a_body(void) { return b() + b() + c(); } int never(void); int never_body(void) { return 0; }";
    let traced = Traced::new(&folder);
    let bytes = image(&folder, "order.c", source, &["c", "b", "a", "never"]);
    let image = load(&traced.loader, "order", &bytes);
    let slots = image.slots().unwrap();
    assert!(slots.compile(0, false).is_ok() && slots.compile(3, false).is_ok());
    assert!(slots.is_compiled(0) && slots.body(0).is_some() && !slots.is_compiled(1));
    assert!(traced.lines().is_empty(), "nothing is called yet");
    assert_eq!(call(&image, "a"), 63);
    assert_eq!(traced.lines(), ["a", "b", "c"]);
    assert_eq!(traced.fake.take(), ["c", "never", "a", "b"]);
    assert_eq!(call(&image, "a"), 63);
    assert_eq!(traced.lines().len(), 3);
}

#[test]
fn bodies_of_an_image_are_not_used() {
    let folder = Folder::new();
    let source = "int f(void); int f_body(void) { return 3; } int g(void); int g_body(void) { return 5; } int h_body(void) { return 9; }";
    let mut bytes = image(&folder, "has.c", source, &["f", "g"]);
    // In the file both slots lead elsewhere already.
    let layout = crate::image::note::layout(&bytes).unwrap().lazy.unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = object::Object::section_by_name(&file, ".hotbed.slots").unwrap();
    let at = object::ObjectSection::file_range(&section).unwrap().0 as usize;
    assert_eq!(object::ObjectSection::address(&section), layout.slots);
    bytes[at + 16..at + 32].fill(1);
    crate::image::note::seal(&mut bytes).unwrap();
    let traced = Traced::new(&folder);
    let image = load(&traced.loader, "has", &bytes);
    assert_eq!((call(&image, "f"), call(&image, "g")), (3, 5));
    assert_eq!(traced.lines(), ["f", "g"]);
}

#[test]
fn another_body_takes_the_place_of_the_first_before_and_after_the_call() {
    extern "C" fn other() -> i32 {
        7
    }
    let folder = Folder::new();
    let source = "int f(void); int f_body(void) { return 3; } int g(void); int g_body(void) { return 5; }";
    let bytes = image(&folder, "others.c", source, &["f", "g"]);
    let traced = Traced::new(&folder);
    let image = load(&traced.loader, "others", &bytes);
    let slots = image.slots().unwrap();
    let other = other as *const () as usize;
    slots.compile(0, false).unwrap();
    assert!(slots.set_body(0, other) && slots.set_body(1, other));
    assert_eq!((slots.body(0), slots.body(1)), (Some(other), Some(other)));
    assert_eq!((call(&image, "f"), call(&image, "g")), (7, 7));
    // Nobody has said what to write of the second.
    assert_eq!(traced.lines(), ["f"]);
    assert!(slots.set_body(1, slots.for_fresh("g_body").unwrap().address));
    assert_eq!(call(&image, "g"), 5);
    assert_eq!(traced.fake.take(), ["f"]);
}

#[test]
fn callers_stand_before_callees_in_all_threads() {
    const COUNT: usize = 200;
    let folder = Folder::new();
    let mut source = numbers(COUNT).0;
    let names: Vec<String> = (0..COUNT).map(|at| format!("f{at}")).collect();
    for at in 0..COUNT - 1 {
        let next = at + 1;
        source = source.replace(
            &format!("int f{at}_body(void) {{ return {at}; }}"),
            &format!("int f{next}(void); int f{at}_body(void) {{ return f{next}() - 1; }}"),
        );
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bytes = image(&folder, "chain.c", &source, &names);
    let traced = Traced::new(&folder);
    let image = load(&traced.loader, "chain", &bytes);
    let start = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                assert_eq!(call(&image, "f0"), 0);
            });
        }
    });
    assert_eq!(traced.lines(), names);
}

#[test]
fn processes_go_on_for_themselves() {
    let folder = Folder::new();
    let (source, names) = numbers(6);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bytes = image(&folder, "children.c", &source, &names);
    let traced = Traced::new(&folder);
    let image = load(&traced.loader, "children", &bytes);
    let all = |image: &Image, range: std::ops::Range<usize>| {
        range.map(|at| call(image, &format!("f{at}"))).sum::<i32>()
    };
    assert_eq!(all(&image, 0..2), 1);
    image.slots().unwrap().compile(3, false).unwrap();
    assert_eq!(in_child(|| all(&image, 0..4) as u8), Some(6));
    assert_eq!(traced.lines(), ["f0", "f1", "f2", "f3"]);
    assert_eq!(all(&image, 0..6), 15);
    assert_eq!(traced.lines()[4..], ["f2", "f3", "f4", "f5"]);
}

#[test]
fn handlers_of_signals_are_told_when_they_are_called() {
    // Handlers are the whole process's.
    const ALONE: &str = "HOTBED_TRACED_HANDLERS_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "slots::tests::calls::handlers_of_signals_are_told_when_they_are_called";
        let mut process = Command::new(std::env::current_exe().unwrap());
        let result = process.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stdout));
        return;
    }
    let source = "#include <signal.h>
         static volatile int seen; void reached(int); void reached_body(int n) { seen += n; }
         void handler(int); void handler_body(int n) { seen = 1; reached(41); }
         int first(void); int first_body(void) { return 0; }
         int install(void) { return signal(SIGUSR1, handler) == SIG_ERR; }
         int run(void) { first(); raise(SIGUSR1); raise(SIGUSR1); return seen; }";
    let folder = Folder::new();
    let bytes = image(&folder, "handler.c", source, &["reached", "handler", "first"]);
    let traced = Traced::new(&folder);
    let image = load(&traced.loader, "handler", &bytes);
    assert_eq!(call(&image, "install"), 0);
    assert_eq!(traced.fake.take(), ["handler*"]);
    assert!(traced.lines().is_empty());
    assert_eq!(call(&image, "run"), 42);
    assert_eq!(traced.lines(), ["first", "handler", "reached"]);
    assert!(traced.fake.take().is_empty(), "all was ready");
}

#[test]
fn a_file_that_cannot_be_written_changes_nothing() {
    let folder = Folder::new();
    let (source, names) = numbers(3);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bytes = image(&folder, "full.c", &source, &names);
    let file = Arc::new(AppendFile::new("/dev/full".as_ref()).unwrap());
    let materializer: Arc<dyn Materializer> = Fake::new(answer_elsewhere);
    let options = LoaderOptions {
        materializer: Some(materializer),
        first_calls: Some(Arc::clone(&file)),
        ..LoaderOptions::default()
    };
    let image = load(&Loader::new(options), "full", &bytes);
    assert_eq!((call(&image, "f1"), call(&image, "f2")), (1, 2));
    assert_eq!(file.take_failure().unwrap().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(call(&image, "f0"), 0);
    assert!(file.take_failure().is_none());
}
