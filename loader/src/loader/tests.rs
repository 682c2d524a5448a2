//! Loading, binding, sharing and ending real images.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use crate::testing::{Folder, call, call_address, load, loader};
use crate::{ImageError, ImageSource, Layer, LibraryRequest, LoadError, SymbolKind};
use std::sync::Mutex;

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

extern "C" fn log_line(text: *const std::ffi::c_char) {
    // SAFETY: the tests pass texts.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    LOG.lock().unwrap().push(text.to_string_lossy().into_owned());
}

fn lines(prefix: &str) -> Vec<String> {
    LOG.lock().unwrap().iter().filter_map(|line| line.strip_prefix(prefix).map(str::to_owned)).collect()
}

#[test]
fn functions_and_data_are_bound_in_the_order_of_layers() {
    let folder = Folder::new();
    let first = folder.image(
        "first.c",
        "int value = 5; int both(void) { return 1; } int *address(void) { return &value; }
         int strlen(void) { return 77; } int own(void) { return strlen(); }",
        &["-fno-builtin"],
    );
    let second = folder.image(
        "second.c",
        "extern int value; int both(void) { return 2; } int host(void); int *place = &value;
         int get(void) { return *place + both() + host(); } int *seen(void) { return &value; }
         unsigned long strlen(const char *); int length(void) { return strlen(\"four\"); }
         char *getenv(const char *); int environment(void) { return getenv(\"PATH\") != 0; }
         __attribute__((weak)) int nobody(void); int weak(void) { return nobody == 0; }",
        &["-fno-builtin"],
    );
    let loader = loader();
    assert!(matches!(load(&loader, &second), Err(LoadError::Unresolved { .. })));
    extern "C" fn host() -> i32 {
        100
    }
    loader.define("host", host as *const () as usize).unwrap();
    loader.define("host", host as *const () as usize).unwrap();
    assert!(matches!(loader.define("host", 8), Err(LoadError::Redefined { .. })));
    let first = load(&loader, &first).unwrap();
    let second = load(&loader, &second).unwrap();
    assert_eq!(call(&second, "get"), 5 + 2 + 100);
    assert_eq!(call_address(&first, "address"), call_address(&second, "seen"));
    assert_eq!(call(&first, "own"), 77);
    assert_eq!(call(&second, "length"), 77, "images come before the process");
    assert_eq!(call(&second, "environment"), 1);
    assert_eq!(call(&second, "weak"), 1);
    assert_eq!(second.bound_to().len(), 1);

    let value = loader.resolve("value").unwrap();
    assert_eq!((value.layer, value.unit.as_str(), value.kind), (Layer::Images, "first", SymbolKind::Data));
    assert_eq!(loader.resolve("host").unwrap().layer, Layer::Host);
    let getenv = loader.resolve("getenv").unwrap();
    assert!(getenv.layer == Layer::Process && getenv.unit.contains("libc.so"), "{getenv:?}");
    assert_eq!(loader.resolve("no such thing"), None);
    assert_eq!(loader.images().len(), 2);

    let exports: Vec<_> = second.exports().map(|export| export.name).collect();
    assert!(exports.contains(&"both") && !exports.contains(&"value"));
    let imports = second.imports();
    let getenv = imports.iter().find(|import| import.name == "getenv").unwrap();
    assert_eq!(getenv.library.as_deref(), Some("libc.so.6"));
    assert_eq!(second.needed(), ["libc.so.6"]);
    assert!(second.times().map.as_nanos() > 0);

    let range = first.range();
    drop(first);
    assert_eq!(loader.images().len(), 2, "the second is bound to the first");
    drop(second);
    assert!(loader.images().is_empty());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains(&format!("{:x}-", range.start)) || !maps.contains("first.so"));
}

#[test]
fn unresolved_symbols_are_named_with_everything_that_is_known() {
    let folder = Folder::new();
    let image = folder.image("u.cpp", "int nope(int); int also(); int f() { return nope(1) + also(); }", &[]);
    let error = load(&loader(), &image).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("nope(int) (_Z4nopei), needed by u"), "{text}");
    assert!(
        text.contains("also()") && text.contains("host definitions, loaded images, the process"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn bytes_descriptors_and_files_are_the_same() {
    let folder = Folder::new();
    let path = folder.image("b.c", "static int v = 3; int *p = &v; int get(void) { return *p; }", &[]);
    let loader = loader();
    let bytes = std::fs::read(&path).unwrap();
    let image = loader.load_image("bytes", ImageSource::Bytes(&bytes)).unwrap();
    assert_eq!(call(&image, "get"), 3);
    assert_eq!(image.path(), None);
    let file = std::fs::File::open(&path).unwrap();
    let source = ImageSource::Descriptor { file: std::os::fd::AsFd::as_fd(&file), path: &path };
    let other = loader.load_image("descriptor", source).unwrap();
    drop(file);
    assert_eq!(call(&other, "get"), 3);
    assert_ne!(image.get("p").unwrap().address, other.get("p").unwrap().address);
}

#[test]
fn constructors_and_destructors_run_once_and_in_order() {
    let folder = Folder::new();
    let source = |name: &str| {
        format!(
            "extern \"C\" void log_line(const char *); extern \"C\" int atexit(void (*)());
             struct L {{ const char *n; L(const char *n) : n(n) {{ log_line(n); }} ~L() {{ log_line(n); }} }};
             static L one(\"{name}:one\"), two(\"{name}:two\");
             __attribute__((constructor(101))) static void first() {{ log_line(\"{name}:first\"); }}
             __attribute__((destructor)) static void last() {{ log_line(\"{name}:last\"); }}
             __attribute__((constructor(65535))) static void arguments(int c, char **v, char **e) {{
               if (c > 0 && v[0] && !v[c] && e[0]) log_line(\"{name}:arguments\"); }}
             extern \"C\" int f() {{ return 1; }}"
        )
    };
    let loader = loader();
    loader.define("log_line", log_line as *const () as usize).unwrap();
    let image = load(&loader, &folder.image("order.cpp", &source("order"), &[])).unwrap();
    let mut begun = lines("order:");
    assert_eq!(begun.remove(0), "first");
    begun.retain(|line| line != "arguments");
    assert_eq!(begun, ["one", "two"]);
    assert!(lines("order:").contains(&"arguments".to_owned()));
    let before = lines("order:").len();
    drop(image);
    assert_eq!(lines("order:")[before..], ["two", "one", "last"]);
}

#[test]
fn inline_variables_have_one_address_and_are_initialised_once() {
    let folder = Folder::new();
    let source = |name: &str| {
        format!(
            "extern \"C\" void log_line(const char *);
             struct S {{ int v; S() : v(7) {{ log_line(\"weak:made\"); }} ~S() {{ log_line(\"weak:gone\"); }} }};
             inline S shared; namespace n {{ inline S named; }}
             inline S &local() {{ static S s; return s; }}
             template <class T> struct Tag {{ static int value; }}; template <class T> int Tag<T>::value = 5;
             extern \"C\" void *a_{name}() {{ return &shared; }} extern \"C\" void *b_{name}() {{ return &n::named; }}
             extern \"C\" void *c_{name}() {{ return &local(); }} extern \"C\" void *d_{name}() {{ return &Tag<long>::value; }}"
        )
    };
    let loader = loader();
    loader.define("log_line", log_line as *const () as usize).unwrap();
    let one = load(&loader, &folder.image("one.cpp", &source("one"), &[])).unwrap();
    let two = load(&loader, &folder.image("two.cpp", &source("two"), &[])).unwrap();
    for which in ["a", "b", "c", "d"] {
        let (first, second) = (format!("{which}_one"), format!("{which}_two"));
        assert_eq!(call_address(&one, &first), call_address(&two, &second), "{which}");
    }
    assert_eq!(lines("weak:"), ["made", "made", "made"]);
    assert_eq!(one.get("shared"), two.get("shared"), "one definition for all");
    assert_eq!(call_address(&one, "a_one"), loader.resolve("shared").unwrap().address);
    drop(one);
    drop(two);
    assert_eq!(lines("weak:").len(), 6);
}

#[test]
fn shared_definitions_of_the_process_win_when_they_are_mangled() {
    let folder = Folder::new();
    let source =
        "template <class T> struct Tag { static int value; }; template <class T> int Tag<T>::value = 5;
         __attribute__((weak)) int plain(void) { return 1; }
         inline int global = 4; extern \"C\" int *where() { return &global; }
         struct S { int v; S() { static int n; v = ++n; } }; namespace m { inline S made; }
         extern \"C\" int *tag() { return &Tag<long>::value; } extern \"C\" int value() { return m::made.v; }
         extern \"C\" void *made() { return &m::made; }";
    let library = folder.library("libtag.cpp", source, &[]);
    let image = folder.image("tag.cpp", source, &[]);
    let loader = loader();
    let library = loader.open_library(LibraryRequest::Path(&library)).unwrap();
    let first = load(&loader, &image).unwrap();
    let bytes = std::fs::read(&image).unwrap();
    let second = loader.load_image("again", ImageSource::Bytes(&bytes)).unwrap();
    assert_eq!(call_address(&first, "tag"), library.get("_ZN3TagIlE5valueE").unwrap());
    assert_eq!(call_address(&second, "tag"), call_address(&first, "tag"));
    assert_eq!(call_address(&first, "where"), library.get("global").unwrap());
    assert_eq!(call_address(&first, "made"), library.get("_ZN1m4madeE").unwrap());
    assert_eq!(call(&first, "value"), 1);
    assert_eq!(call(&second, "value"), 1, "initialised by the library only");
}

#[test]
fn libraries_are_opened_by_need_and_versions_are_honoured() {
    let folder = Folder::new();
    let map = folder.path().join("map");
    std::fs::write(&map, "V1 { global: f; local: *; }; V2 { global: f; } V1;").unwrap();
    let script = format!("-Wl,--version-script={}", map.display());
    let versions = "__attribute__((symver(\"f@V1\"))) int f1(void) { return 1; }
         __attribute__((symver(\"f@@V2\"))) int f2(void) { return 2; }";
    let flags = [script.as_str(), "-Wl,-soname,libversions.so"];
    // clang has no `symver` attribute: the assembler's directive does the same.
    let source = versions
        .replace("__attribute__((symver(\"f@V1\")))", "__asm__(\".symver f1, f@V1\");")
        .replace("__attribute__((symver(\"f@@V2\")))", "__asm__(\".symver f2, f@@@V2\");");
    let library = folder.library("libversions.c", &source, &flags);
    let origin = ["-Wl,-rpath,$ORIGIN", library.to_str().unwrap()];
    let old = folder.image(
        "old.c",
        "__asm__(\".symver f, f@V1\"); int f(void); int get(void) { return f(); }",
        &origin,
    );
    let new = folder.image("new.c", "int f(void); int get(void) { return f(); }", &origin);
    let plain = folder.image("plain.c", "int f(void); int get(void) { return f(); }", &[]);
    let loader = loader();
    assert!(load(&loader, &plain).is_err());
    let old = load(&loader, &old).unwrap();
    let new = load(&loader, &new).unwrap();
    let plain = load(&loader, &plain).unwrap();
    assert_eq!((call(&old, "get"), call(&new, "get"), call(&plain, "get")), (1, 2, 2));
    drop((old, new));
    assert_eq!(call(&plain, "get"), 2, "the library stays as long as it is bound to");
    drop(plain);
    assert!(!std::fs::read_to_string("/proc/self/maps").unwrap().contains("libversions.so"));

    let missing = folder.image("missing.c", "int f(void); int get(void) { return f(); }", &origin);
    std::fs::remove_file(&library).unwrap();
    let error = load(&crate::testing::loader(), &missing).unwrap_err().to_string();
    assert!(error.contains("libversions.so, needed by missing") && error.contains("cannot open"), "{error}");
}

#[test]
fn indirect_functions_are_resolved_last() {
    let folder = Folder::new();
    let image = folder.image(
        "indirect.c",
        "static int one(void) { return 1; } static int two(void) { return 2; }
         static int choice = 2; static int *chosen = &choice;
         static void *pick(void) { return *chosen == 2 ? (void *)two : (void *)one; }
         int f(void) __attribute__((ifunc(\"pick\"))); static int g(void) __attribute__((ifunc(\"pick\")));
         int call_f(void) { return f(); } int call_g(void) { return g(); } int (*pointer)(void) = f;
         int call_pointer(void) { return pointer(); }",
        &[],
    );
    let user = folder.image(
        "user.c",
        "int f(void); int use(void) { return f(); } void *memcpy(void *, const void *, unsigned long);
         int copy(void) { int a = 9, b = 0; memcpy(&b, &a, 4); return b; }",
        &["-fno-builtin"],
    );
    let loader = loader();
    let image = load(&loader, &image).unwrap();
    for name in ["call_f", "call_g", "call_pointer", "f"] {
        assert_eq!(call(&image, name), 2, "{name}");
    }
    assert_eq!(image.get("f").unwrap().kind, SymbolKind::IndirectFunction);
    let user = load(&loader, &user).unwrap();
    assert_eq!((call(&user, "use"), call(&user, "copy")), (2, 9));
}

#[test]
fn exceptions_pass_between_images() {
    let folder = Folder::new();
    let header = "struct Oops { int n; Oops(int n) : n(n) {} virtual ~Oops() {} }; void thrower(int); ";
    let one =
        folder.image("thrower.cpp", &format!("{header} void thrower(int n) {{ throw Oops{{n}}; }}"), &[]);
    let two = folder.image(
        "catcher.cpp",
        &format!("{header} extern \"C\" int go() {{ try {{ thrower(41); }} catch (const Oops &o) {{ return o.n + 1; }} return 0; }}"),
        &[],
    );
    let loader = loader();
    let one = load(&loader, &one).unwrap();
    let two = load(&loader, &two).unwrap();
    for _ in 0..3 {
        assert_eq!(call(&two, "go"), 42);
    }
    drop((one, two));
}

#[test]
fn what_an_image_cannot_have_is_refused_by_name() {
    let folder = Folder::new();
    let loader = loader();
    let tls = folder.image(
        "initial.c",
        "_Thread_local int counter; int *f(void) { return &counter; }",
        &["-ftls-model=initial-exec"],
    );
    let error = load(&loader, &tls).unwrap_err().to_string();
    assert!(
        error.contains("initial-exec") && error.contains("-fPIC") && error.contains("initial"),
        "{error}"
    );
    let ordinary = folder.library("ordinary.c", "int f(void) { return 1; }", &[]);
    assert!(matches!(load(&loader, &ordinary), Err(LoadError::Image { source: ImageError::NoNote, .. })));
    let missing = folder.path().join("nowhere.hbi");
    let error = load(&loader, &missing).unwrap_err().to_string();
    assert!(error.contains("nowhere.hbi") && error.contains("No such file"), "{error}");
    assert!(load(&loader, folder.path()).is_err());
    for (bytes, wanted) in [
        (&b"junk"[..], ImageError::NotElf),
        (b"", ImageError::NotElf),
        (b"\x7fELF\x02\x01\x01", ImageError::Truncated("the ELF header")),
        (b"\x7fELF\x01\x01\x01", ImageError::WrongClass),
    ] {
        match loader.load_image("bad", ImageSource::Bytes(bytes)) {
            Err(LoadError::Image { source, .. }) => assert_eq!(source, wanted),
            other => unreachable!("{other:?}"),
        }
    }
    let textrel = folder.image(
        "text.s",
        ".globl f\nf: .quad puts\n.section .note.GNU-stack,\"\",@progbits\n.text\n",
        &["-Wl,-z,notext"],
    );
    let error = load(&loader, &textrel).unwrap_err().to_string();
    assert!(error.contains("text relocations") && error.contains("-fPIC"), "{error}");
}

#[test]
fn zeros_are_zero_and_large_data_is_whole() {
    let folder = Folder::new();
    let image = folder.image(
        "large.c",
        "static char zeros[1 << 20]; static int numbers[1 << 18] = {1, [(1 << 18) - 1] = 2}; static const int few[5000] = {7};
         static int *links[3000] = {numbers, [2999] = &numbers[(1 << 18) - 1]};
         int check(void) { for (int i = 0; i < 1 << 20; i++) if (zeros[i]) return 1; zeros[5] = 1;
           if (*links[0] != 1 || *links[2999] != 2 || few[0] != 7 || few[4999]) return 2; numbers[77] = 3; return 0; }",
        &[],
    );
    let loader = loader();
    assert_eq!(call(&load(&loader, &image).unwrap(), "check"), 0);
    let bytes = std::fs::read(&image).unwrap();
    assert_eq!(call(&loader.load_image("bytes", ImageSource::Bytes(&bytes)).unwrap(), "check"), 0);
}

#[test]
fn libraries_of_others_count_only_when_they_are_for_everybody() {
    let folder = Folder::new();
    let open = |name: &str, scope: i32| {
        let path = folder.library(name, "int only_there(void) { return 12; }", &[]);
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a library without constructors, which stays open.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | scope) };
        assert!(!handle.is_null());
    };
    let image = folder.image("asks.c", "int only_there(void); int get(void) { return only_there(); }", &[]);
    let loader = loader();
    open("libprivate.c", libc::RTLD_LOCAL);
    assert!(load(&loader, &image).is_err());
    assert_eq!(loader.resolve("only_there"), None);
    open("libpublic.c", libc::RTLD_GLOBAL);
    assert_eq!(call(&load(&loader, &image).unwrap(), "get"), 12);
    assert_eq!(loader.resolve("only_there").unwrap().layer, Layer::Process);
}

#[test]
fn a_constructor_can_load_what_uses_its_image() {
    static LOADER: Mutex<Option<(crate::Loader, std::path::PathBuf)>> = Mutex::new(None);
    static INNER: Mutex<Option<std::sync::Arc<crate::Image>>> = Mutex::new(None);
    extern "C" fn load_inner() {
        let (loader, path) = LOADER.lock().unwrap().clone().unwrap();
        *INNER.lock().unwrap() = Some(load(&loader, &path).unwrap());
    }
    let folder = Folder::new();
    let outer = folder.image(
        "outer.c",
        "void load_inner(void); int value = 4; __attribute__((constructor)) static void go(void) { load_inner(); }",
        &[],
    );
    let inner = folder.image("inner.c", "extern int value; int get(void) { return value; }", &[]);
    let loader = loader();
    loader.define("load_inner", load_inner as *const () as usize).unwrap();
    *LOADER.lock().unwrap() = Some((loader.clone(), inner));
    let outer = load(&loader, &outer).unwrap();
    let inner = INNER.lock().unwrap().take().unwrap();
    assert_eq!(call(&inner, "get"), 4);
    assert!(std::sync::Arc::ptr_eq(&inner.bound_to()[0], &outer));
}

#[test]
fn threads_that_load_at_once_agree_and_wait_for_each_other() {
    let folder = Folder::new();
    let base = folder.image(
        "base.c",
        "int usleep(unsigned); int ready; int get_ready(void) { return ready; }
         __attribute__((constructor)) static void slow(void) { usleep(30000); ready = 1; }",
        &[],
    );
    let paths: Vec<_> = (0..6)
        .map(|at| {
            folder.image(
                &format!("user{at}.cpp"),
                "extern \"C\" int get_ready(); struct S { int v; S() : v(get_ready()) {} }; inline S shared;
                 extern \"C\" void *address() { return &shared; } extern \"C\" int ok() { return shared.v; }",
                &[],
            )
        })
        .collect();
    for _ in 0..20 {
        let loader = loader();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| load(&loader, &base).unwrap());
            while loader.images().is_empty() {
                std::thread::yield_now();
            }
            let users: Vec<_> =
                paths.iter().map(|path| scope.spawn(|| load(&loader, path).unwrap())).collect();
            let users: Vec<_> = users.into_iter().map(|user| user.join().unwrap()).collect();
            for user in &users {
                assert_eq!(call_address(user, "address"), call_address(&users[0], "address"));
                assert_eq!(call(user, "ok"), 1, "a constructor ran before that of the image it uses");
            }
            drop(first.join().unwrap());
        });
        assert!(loader.images().is_empty());
    }
}

#[test]
fn libraries_are_found_by_name() {
    let loader = loader();
    let library = loader.open_library(LibraryRequest::Name("m")).unwrap();
    assert!(library.get("cos").is_some() && library.get("no such").is_none());
    assert!(library.path().to_string_lossy().contains("libm.so.6"));
    let again = loader.open_library(LibraryRequest::Name("m")).unwrap();
    assert!(std::sync::Arc::ptr_eq(&library, &again));
    let error = loader.open_library(LibraryRequest::Name("no-such-library")).unwrap_err().to_string();
    assert!(error.contains("no-such-library"), "{error}");
    assert!(loader.open_library(LibraryRequest::Path("nowhere.so".as_ref())).is_err());
}

#[test]
fn damaged_images_are_errors_and_never_crash() {
    let folder = Folder::new();
    let path = folder.image(
        "victim.cpp",
        "#include <string>
         thread_local int t = 3; inline std::string &m() { static std::string s(\"x\"); return s; }
         static int pick_() { return 1; } extern \"C\" { void *pick(void) { return (void *)pick_; }
         int ind(void) __attribute__((ifunc(\"pick\"))); }
         struct V { virtual int f() { return t; } }; V v; V *pv = &v;
         std::string &n() { t += ind() + pv->f(); return m(); }",
        &[],
    );
    let bytes = std::fs::read(&path).unwrap();
    let loader = loader();
    drop(loader.prepare(None, &[("whole", ImageSource::Bytes(&bytes))], false).unwrap());

    // The headers, the read-only tables in front of the code, and the dynamic section.
    let file = object::File::parse(&*bytes).unwrap();
    use object::{Object, ObjectSection};
    let mut ranges = vec![(0, 64 + 56 * 14)];
    for section in file.sections() {
        let tables = [
            ".dynsym",
            ".gnu.version",
            ".gnu.version_r",
            ".gnu.hash",
            ".dynstr",
            ".rela.dyn",
            ".relr.dyn",
            ".rela.plt",
            ".dynamic",
            ".note.hotbed",
        ];
        if tables.contains(&section.name().unwrap())
            && let Some((offset, size)) = section.file_range()
        {
            ranges.push((offset as usize, size as usize));
        }
    }
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let (mut good, mut bad) = (0, 0);
    for round in 0..6000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + next(3) {
            let (start, size) = ranges[round % ranges.len()];
            let at = start + next(size);
            damaged[at] = match next(4) {
                0 => 0xff,
                1 => 0,
                2 => damaged[at] ^ (1 << next(8)),
                _ => next(256) as u8,
            };
        }
        match loader.prepare(None, &[("damaged", ImageSource::Bytes(&damaged))], false) {
            Ok(_) => good += 1,
            Err(error) => {
                bad += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    for end in (0..bytes.len()).step_by(97) {
        assert!(
            loader.prepare(None, &[("cut", ImageSource::Bytes(&bytes[..end]))], false).is_err() || end > 64
        );
    }
    assert!(good > 100 && bad > 1000, "{good} {bad}");
}

#[test]
fn a_slot_that_cannot_be_filled_in_one_piece_is_filled_at_once() {
    use object::{Object, ObjectSection};
    let folder = Folder::new();
    let path = folder.image("call.c", "int getppid(void); int f(void) { return getppid(); }", &[]);
    let mut bytes = std::fs::read(&path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let (at, _) = file.section_by_name(".rela.plt").unwrap().file_range().unwrap();
    let at = at as usize;
    let slot = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) - 4;
    bytes[at..at + 8].copy_from_slice(&slot.to_le_bytes());
    let image = loader().bind_only("call", ImageSource::Bytes(&bytes)).unwrap();
    let place = image.bias().wrapping_add(slot as usize) as *const usize;
    // SAFETY: in the writable segment of an image that is mapped, and nobody runs it.
    assert_eq!(unsafe { place.read_unaligned() }, libc::getppid as *const () as usize);
}
