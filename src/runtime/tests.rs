//! The runtime on real images, with a back end that calls the compiler as a process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use super::*;
use crate::{Image, Object, Program, SharedLibrary, Source, host_fn};
use hotbed_loader::boundary::{
    Argument, BackEnd, Content, Counts, Dependency, Failure, FailureKind, Lang, Reply, Request,
};
use hotbed_loader::image::note;
use hotbed_loader::store::Miss;
use hotbed_loader::sys::files;
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// Compiles with `clang-22` and links with `ld.lld`.
struct Processes {
    folder: PathBuf,
    count: AtomicUsize,
}

impl BackEnd for Processes {
    fn compile(&self, request: &Request) -> Result<(Reply, OwnedFd), Failure> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let place = |name: &str| self.folder.join(format!("{count}-{name}"));
        let note = note::note_bytes().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte},");
            text
        });
        let assembler = format!(
            ".section {},\"a\",@note\n.p2align 2\n.globl {handle}\n.hidden {handle}\n{handle}:\n.byte {}\n\
             .section .note.GNU-stack,\"\",@progbits\n",
            note::NOTE_SECTION,
            note.trim_end_matches(','),
            handle = note::DSO_HANDLE,
        );
        std::fs::write(place("note.s"), assembler).unwrap();
        let mut objects = vec![place("note.s")];
        let mut dependencies = Vec::new();
        let flags: Vec<&String> = request
            .arguments
            .iter()
            .filter_map(|a| if let Argument::Flag(flag) = a { Some(flag) } else { None })
            .collect();
        for (at, input) in request.inputs().enumerate() {
            let path = match &input.content {
                Content::File(path) => request.directory.join(path),
                Content::Bytes { bytes, .. } => {
                    let path = place(&format!("{at}.bytes"));
                    std::fs::write(&path, bytes).unwrap();
                    path
                }
            };
            if matches!(input.lang, Lang::Object) {
                objects.push(path);
                continue;
            }
            let object = place(&format!("{at}.o"));
            let list = place("list.d");
            let output = Command::new("clang-22")
                .args(["-x", if input.lang == Lang::C { "c" } else { "c++" }, "-fPIC", "-c", "-MD", "-MF"])
                .arg(&list)
                .args(&flags)
                .arg("-o")
                .args([&object, &path])
                .current_dir(&request.directory)
                .output()
                .unwrap();
            if !output.status.success() {
                let mut failure =
                    Failure::new(FailureKind::Compile, format!("cannot compile {}", request.unit));
                failure.rendered = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(failure);
            }
            let list = std::fs::read_to_string(list).unwrap();
            let files = list.split(':').nth(1).unwrap().split_whitespace().filter(|word| *word != "\\");
            let ours = self.folder.to_str().unwrap();
            dependencies.extend(files.filter(|f| !f.starts_with(ours)).map(|f| Dependency::File(f.into())));
            objects.push(object);
        }
        let linked = place("out.so");
        let output = Command::new("clang-22")
            .args(["-shared", "-fPIC", "-nostartfiles", "-fuse-ld=lld", "-Wl,-Bsymbolic-non-weak", "-o"])
            .arg(&linked)
            .args(&objects)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut bytes = std::fs::read(linked).unwrap();
        if request.unit == "broken.c" {
            enlarge_relocations(&mut bytes);
        }
        note::seal(&mut bytes).unwrap();
        let image = files::memory_file("image").unwrap();
        std::io::Write::write_all(&mut std::fs::File::from(image.try_clone().unwrap()), &bytes).unwrap();
        let counts =
            Counts { units_compiled: 1, functions_compiled: 1, functions_reused: 0, images_linked: 1 };
        Ok((Reply { dependencies, reproducible: true, counts, ..Reply::default() }, image))
    }
}

/// Lets the image say that it has more relocations than there can be.
fn enlarge_relocations(image: &mut [u8]) {
    use object::{Object, ObjectSection};
    let (start, size) =
        object::File::parse(&*image).unwrap().section_by_name(".dynamic").unwrap().file_range().unwrap();
    let (start, end) = (start as usize, (start + size) as usize);
    let at = (start..end).step_by(16).find(|at| image[*at..*at + 8] == 8u64.to_le_bytes()).unwrap();
    image[at + 8..at + 16].copy_from_slice(&(1u64 << 40).to_le_bytes());
}

/// A folder for sources and a store, and the back end.
struct Bed {
    folder: PathBuf,
    back_end: Arc<Processes>,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    warnings: Mutex<Vec<String>>,
}

impl Observer for Said {
    fn warning(&self, line: &str) {
        self.warnings.lock().push(line.to_owned());
    }
}

impl Bed {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("hotbed-runtime-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let work = folder.join("work");
        std::fs::create_dir_all(&work).unwrap();
        let back_end = Arc::new(Processes { folder: work, count: AtomicUsize::new(0) });
        Self { folder, back_end, said: Arc::default() }
    }

    fn builder(&self) -> RuntimeBuilder {
        Runtime::builder().back_end_object(self.back_end.clone()).observer(self.said.clone())
    }

    fn runtime(&self) -> Runtime {
        self.builder().cache_dir(self.folder.join("store")).build().unwrap()
    }

    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    fn compiled(&self) -> usize {
        self.back_end.count.load(Ordering::Relaxed)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn call(unit: &Unit, name: &str) -> i32 {
    // SAFETY: every function in these tests that is called so has this type.
    let function = unsafe { unit.get::<unsafe extern "C" fn() -> i32>(name) }.unwrap();
    // SAFETY: as above.
    unsafe { function() }
}

extern "C" fn host_value() -> i32 {
    17
}

#[test]
fn source_becomes_callable() {
    let bed = Bed::new("callable");
    let runtime = bed.builder().no_cache().build().unwrap();
    runtime.define("host_value", host_fn!(host_value as extern "C" fn() -> i32)).unwrap();
    runtime.define("host_value", host_fn!(host_value as extern "C" fn() -> i32)).unwrap();
    // SAFETY: nobody calls it.
    let other = unsafe { HostFunction::from_address(0x1000) };
    assert!(matches!(runtime.define("host_value", other), Err(Error::Define { .. })));
    let text = "int host_value(void); int variable = 5; int f(void) { return host_value() + variable; }";
    let unit = runtime.load(Source::text("f.c", text)).unwrap();
    assert_eq!(call(&unit, "f"), 22);
    // SAFETY: `variable` is an int.
    let variable = unsafe { unit.get::<*mut i32>("variable") }.unwrap();
    // SAFETY: as above; nobody else uses it.
    unsafe { **variable = 6 };
    assert_eq!(call(&unit, "f"), 23);
    // SAFETY: never used.
    let missing = unsafe { unit.get::<*mut i32>("missing") }.unwrap_err();
    assert_eq!(missing.to_string(), "cannot get `missing` of f.c: the unit does not define it");
    assert!(unit.exports().contains(&"variable".to_owned()));
    assert!(unit.report().back_end_loaded && !unit.report().from_store);
    assert!(runtime.is_loaded("f.c") && !runtime.is_loaded("g.c"));
}

#[test]
fn names_are_identities() {
    let bed = Bed::new("names");
    let runtime = bed.runtime();
    let load = |name: &str, text: &str| runtime.load(Source::text("u.c", text).named(name));
    let first = load("u", "int f(void) { return 1; }").unwrap();
    let again = load("u", "int f(void) { return 1; }").unwrap();
    assert!(first.is(&again));
    assert_eq!(bed.compiled(), 1);
    let taken = load("u", "int f(void) { return 2; }").unwrap_err();
    assert_eq!(taken.to_string(), "cannot load u: a unit of that name is loaded already, from other content");
    let second = load("v", "int f(void) { return 2; }").unwrap();
    assert_eq!((call(&first, "f"), call(&second, "f")), (1, 2));
    let names: Vec<String> = runtime.units().iter().map(|unit| unit.name().to_owned()).collect();
    assert_eq!(names, ["u", "v"]);
    assert!(load("", "int x;").unwrap_err().is_usage());

    let file = bed.file("file.c", "int g(void) { return 1; }");
    let loaded = runtime.load(Source::file(&file)).unwrap();
    assert!(runtime.load(Source::file(&file)).unwrap().is(&loaded));
    bed.file("file.c", "int g(void) { return 3; }");
    let changed = runtime.load(Source::file(&file)).unwrap_err();
    assert!(changed.to_string().contains("file.c has changed"), "{changed}");
    loaded.unload().unwrap();
    assert_eq!(call(&runtime.load(Source::file(&file)).unwrap(), "g"), 3);
}

#[test]
fn threads_of_several_runtimes_compile_once() {
    let bed = Bed::new("once");
    let runtimes = [bed.runtime(), bed.runtime()];
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let runtime = &runtimes[thread % 2];
            scope.spawn(move || {
                let source = Source::text("f.c", "int f(void) { return 5; }").named(format!("f{thread}"));
                assert_eq!(call(&runtime.load(source).unwrap(), "f"), 5);
            });
        }
    });
    assert_eq!(bed.compiled(), 1);
    // What fails is not waited for by turns.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let runtime = &runtimes[thread % 2];
            scope.spawn(move || runtime.load(Source::text("g.c", "int g(void").named(format!("g{thread}"))));
        }
    });
    assert_eq!(bed.compiled(), 5);
    assert_eq!(std::fs::read_dir(bed.folder.join("store/building")).unwrap().count(), 0);
    // Nobody who has no store can wait for another one.
    let alone = bed.builder().no_cache().build().unwrap();
    alone.load(Source::text("f.c", "int f(void) { return 5; }")).unwrap();
    assert_eq!(bed.compiled(), 6);
}

#[test]
fn the_second_start_compiles_nothing() {
    let bed = Bed::new("second");
    bed.file("value.h", "#define VALUE 4\n");
    let file = bed.file("a.c", "#include \"value.h\"\nint f(void) { return VALUE; }");
    let start = || {
        let runtime = bed.runtime();
        let unit = runtime.load(Source::file(&file).flags(["-O1"])).unwrap();
        (call(&unit, "f"), unit.report().clone(), unit.dependencies().len())
    };
    let (value, report, dependencies) = start();
    assert_eq!((value, report.from_store, bed.compiled(), dependencies), (4, false, 1, 2));
    assert_eq!(report.miss, Some(Miss::NoEntry));
    let (value, report, dependencies) = start();
    assert_eq!((value, report.from_store, bed.compiled(), dependencies), (4, true, 1, 2));
    assert_eq!((report.counts, report.back_end_loaded, report.miss), (Counts::default(), false, None));
    bed.file("value.h", "#define VALUE 5\n");
    let (value, report, _) = start();
    assert_eq!((value, bed.compiled()), (5, 2));
    assert!(matches!(report.miss, Some(Miss::DependencyChanged(path)) if path.ends_with("value.h")));
    assert!(start().1.from_store);
}

static ENDED: AtomicI32 = AtomicI32::new(0);

extern "C" fn ended(value: i32) {
    ENDED.store(value, Ordering::SeqCst);
}

#[test]
fn what_is_in_use_stays_loaded() {
    let bed = Bed::new("unload");
    let runtime = bed.runtime();
    runtime.define("ended", host_fn!(ended as extern "C" fn(i32))).unwrap();
    let base = runtime
        .load(Source::text(
            "base.c",
            "void ended(int); int base(void) { return 1; } __attribute__((destructor)) static void end(void) { ended(9); }",
        ))
        .unwrap();
    let user = runtime
        .load(Source::text("user.c", "int base(void); int user(void) { return base() + 1; }"))
        .unwrap();
    assert_eq!(call(&user, "user"), 2);
    let bound = base.unload().unwrap_err();
    assert!(bound.to_string().contains("user.c is bound to it"), "{bound}");
    // SAFETY: the function has this type.
    let symbol = unsafe { user.get::<unsafe extern "C" fn() -> i32>("user") }.unwrap();
    let copy = symbol.clone();
    drop(symbol);
    let held = user.unload().unwrap_err();
    assert!(held.to_string().contains("1 of its symbols are held"), "{held}");
    // SAFETY: as above.
    assert_eq!(unsafe { copy() }, 2);
    drop(copy);
    user.unload().unwrap();
    assert!(!runtime.is_loaded("user.c") && user.address_of("user").is_none() && user.unload().is_err());
    assert_eq!(ENDED.load(Ordering::SeqCst), 0);
    base.unload().unwrap();
    assert_eq!(ENDED.load(Ordering::SeqCst), 9);
    assert!(runtime.units().is_empty());
    runtime.load(Source::text("user.c", "int user(void) { return 3; }")).unwrap();
}

#[test]
fn images_are_built_and_loaded() {
    let bed = Bed::new("images");
    let runtime = bed.runtime();
    let path = bed.folder.join("out.hbi");
    let program = Program::new().flag("-O1").bytes("p.c", Lang::C, "int f(void) { return 8; }");
    assert_eq!(runtime.image(&path).unit(program.clone()).build().unwrap().counts.images_linked, 1);
    assert!(runtime.image(&path).unit(program).build().unwrap().from_store);
    assert!(runtime.units().is_empty());
    let unit = runtime.load(Image::file(&path)).unwrap();
    assert_eq!(call(&unit, "f"), 8);
    assert!(runtime.load(Image::file(&path)).unwrap().is(&unit));
    let bytes = std::fs::read(&path).unwrap();
    let inner = runtime.load(Image::bytes("core", bytes.clone())).unwrap();
    assert_eq!(call(&inner, "f"), 8);
    assert!(runtime.load(Image::bytes("core", bytes.clone())).unwrap().is(&inner));
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    let error = runtime.load(Image::bytes("damaged", damaged)).unwrap_err();
    assert!(matches!(error, Error::Image { .. }) && error.to_string().contains("damaged"), "{error}");
    for (name, contents) in [("empty.hbi", ""), ("junk.hbi", "what is this")] {
        let error = runtime.load(Image::file(bed.file(name, contents)).named("n")).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let missing = runtime.load(Image::file("/nowhere.hbi")).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read /nowhere.hbi: No such file or directory");
    assert!(runtime.image(&path).unit(Image::file(&path)).build().unwrap_err().is_usage());
}

#[test]
fn an_image_that_does_not_load_is_not_written() {
    let bed = Bed::new("broken");
    let path = bed.file("out.hbi", "kept");
    let source = Source::text("broken.c", "int x; int *place = &x;");
    let error = bed.runtime().image(&path).unit(source).build().unwrap_err().to_string();
    assert!(
        error.contains("out.hbi: what came of it for x86-64 does not load")
            && error.contains("a table of relocations"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let bed = Bed::new("why");
    let runtime = bed.runtime();
    let error = runtime.load(Source::text("bad.c", "int f(void) { return x; }")).unwrap_err();
    assert!(matches!(error, Error::Compile { .. }));
    assert!(error.render().contains("undeclared") && error.render().ends_with("cannot compile bad.c\n"));
    let text = "int nope(int); extern \"C\" int f() { return nope(1); }";
    let error = runtime.load(Source::text("u.cpp", text)).unwrap_err();
    assert!(matches!(error, Error::Bind { .. }));
    assert!(error.to_string().contains("nope(int)") && error.to_string().contains("u.cpp"), "{error}");
    let error = runtime.load(SharedLibrary::path("/nowhere/libx.so")).unwrap_err();
    assert!(
        matches!(error, Error::Library { .. }) && error.to_string().contains("/nowhere/libx.so"),
        "{error}"
    );
    assert!(runtime.units().is_empty());
}

#[test]
fn shared_libraries_are_units() {
    let bed = Bed::new("library");
    let runtime = bed.runtime();
    let library = runtime.load(SharedLibrary::name("m")).unwrap();
    // SAFETY: that is cos.
    let cos = unsafe { library.get::<unsafe extern "C" fn(f64) -> f64>("cos") }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { cos(0.0) }, 1.0);
    assert!(runtime.load(SharedLibrary::name("m")).unwrap().is(&library));
    assert!(library.unload().is_err());
    drop(cos);
    library.unload().unwrap();
}

#[test]
fn a_store_that_cannot_be_used_is_said_once() {
    let bed = Bed::new("unusable");
    let runtime = bed.builder().cache_dir("/proc/nowhere").build().unwrap();
    for value in 0..3 {
        let text = format!("int f(void) {{ return {value}; }}");
        assert_eq!(call(&runtime.load(Source::text(format!("{value}.c"), text)).unwrap(), "f"), value);
    }
    let warnings = bed.said.warnings.lock();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("/proc/nowhere") && warnings[0].contains("running without it"),
        "{warnings:?}"
    );
}

#[test]
fn objects_load_from_memory() {
    let bed = Bed::new("objects");
    let runtime = bed.runtime();
    let source = bed.file("o.c", "int f(void) { return 6; }");
    let object = bed.folder.join("o.o");
    let made =
        Command::new("clang-22").args(["-c", "-fPIC", "-o"]).args([&object, &source]).status().unwrap();
    assert!(made.success());
    let bytes = std::fs::read(&object).unwrap();
    assert_eq!(call(&runtime.load(Object::bytes("part", bytes)).unwrap(), "f"), 6);
    assert_eq!(call(&runtime.load(Object::file(&object)).unwrap(), "f"), 6);
}

#[test]
fn threads_that_ask_for_the_same_unit_share_it() {
    let bed = Bed::new("threads");
    let runtime = bed.runtime();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let runtime = runtime.clone();
            scope.spawn(move || {
                let text = format!("int f(void) {{ return {}; }}", thread % 2);
                let unit = runtime.load(Source::text(format!("{}.c", thread % 2), text)).unwrap();
                assert_eq!(call(&unit, "f"), thread % 2);
            });
        }
    });
    assert_eq!((bed.compiled(), runtime.units().len()), (2, 2));
}

#[test]
fn a_unit_outlives_its_runtime() {
    let bed = Bed::new("outlives");
    let unit = bed.runtime().load(Source::text("f.c", "int f(void) { return 4; }")).unwrap();
    assert_eq!(call(&unit, "f"), 4);
    unit.unload().unwrap();
}

#[test]
fn runtimes_are_independent() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    let bed = Bed::new("independent");
    let (one, two) = (bed.runtime(), bed.runtime());
    shared(&one);
    let a = one.load(Source::text("u.c", "int only_in_one(void) { return 1; }")).unwrap();
    shared(&a);
    let text = "int only_in_one(void); int f(void) { return only_in_one(); }";
    assert!(two.load(Source::text("v.c", text)).is_err());
    assert_eq!(call(&one.load(Source::text("v.c", text)).unwrap(), "f"), 1);
}
