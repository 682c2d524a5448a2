//! What libraries see of facades, with libraries made by clang and opened by glibc.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use super::wanted::{LibraryFile, closure};
use super::write::{Offer, OfferKind};
use super::*;
use crate::image::symbols::Name;
use crate::sys::libraries;
use crate::testing::Folder;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn open(path: &Path) -> Result<Handle, String> {
    Handle::open(&CString::new(path.as_os_str().as_bytes()).unwrap(), false)
}

fn call(library: &Handle, name: &std::ffi::CStr) -> i32 {
    let address = library.symbol(name).unwrap();
    // SAFETY: the tests give functions of this type only.
    unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(address)() }
}

extern "C" fn twenty_one() -> i32 {
    21
}

static VARIABLE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

fn offer(name: &str, address: usize, kind: OfferKind) -> Offer {
    Offer { name: name.into(), address, kind, size: 4 }
}

#[test]
fn libraries_are_bound_to_what_a_facade_offers() {
    let folder = Folder::new();
    let path = folder.library(
        "refers.c",
        "int facade_function(void); extern int facade_variable;\n\
         int (*pointer)(void) = facade_function; int *variable = &facade_variable;\n\
         __attribute__((constructor)) static void early(void) { facade_variable = 1; }\n\
         int sum(void) { return facade_function() + pointer() + ++facade_variable; }\n\
         int same(void) { return pointer == facade_function && variable == &facade_variable; }",
        &[],
    );
    assert!(open(&path).is_err(), "nobody has its symbols");
    let facade = Facade::open(&[
        offer("facade_function", twenty_one as *const () as usize, OfferKind::Function),
        offer("facade_variable", VARIABLE.as_ptr() as usize, OfferKind::Data),
    ])
    .unwrap();
    let library = open(&path).unwrap();
    assert_eq!((call(&library, c"sum"), call(&library, c"same")), (44, 1));
    assert_eq!(VARIABLE.load(Ordering::Relaxed), 2);
    drop((library, facade));
    assert!(open(&path).is_err(), "closed");
}

/// A name that libraries ask for with a version, as `operator new` of libstdc++.
#[test]
fn references_of_a_version_are_bound_to_a_definition_without() {
    let folder = Folder::new();
    let script = folder.path().join("map");
    std::fs::write(&script, "V_1 { global: facade_versioned; };").unwrap();
    let script = format!("-Wl,--version-script={}", script.display());
    let own = folder.library(
        "owner.c",
        "int facade_versioned(void) { return 1; } int inside(void) { return facade_versioned(); }",
        &[&script, "-fno-inline", "-fsemantic-interposition"],
    );
    let user = folder.library(
        "user.c",
        "int facade_versioned(void); int use(void) { return facade_versioned(); }",
        &[own.to_str().unwrap()],
    );
    let facade =
        Facade::open(&[offer("facade_versioned", twenty_one as *const () as usize, OfferKind::Function)])
            .unwrap();
    let library = open(&user).unwrap();
    assert_eq!(call(&library, c"use"), 21);
    drop((library, facade));
    assert_eq!(call(&open(&user).unwrap(), c"use"), 1);
}

#[test]
fn many_facades_are_open_at_once_and_no_descriptor() {
    let offer = |at: usize| offer(&format!("facade_many_{at}"), 0x1000 + at, OfferKind::Data);
    let facades: Vec<_> = (0..40).map(|at| Facade::open(&[offer(at)]).unwrap()).collect();
    for (at, facade) in facades.iter().enumerate() {
        let name = CString::new(format!("facade_many_{at}")).unwrap();
        assert_eq!(facade.0.as_ref().unwrap().symbol(&name), Some(0x1000 + at));
    }
    let all: Vec<_> = facades.iter().map(|facade| facade.0.as_ref().unwrap().identity().unwrap().0).collect();
    let shown = || all.iter().filter(|dynamic| libraries::is_loaded(**dynamic)).count();
    assert_eq!(shown(), 40);
    assert!(Facade::count() >= 40);
    // Other tests have theirs open for a moment.
    let open = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let mut files = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        files.any(|path| path.to_string_lossy().contains("hotbed-facade-"))
    };
    assert!((0..1000).any(|_| !open()), "a descriptor stays open");
    drop(facades);
    assert_eq!(shown(), 0);
}

/// Whoever asks glibc for a name binds himself to what has it.
#[test]
fn a_facade_that_stays_is_noticed() {
    let facade = Facade::open(&[offer("facade_stays", 0x1234, OfferKind::Data)]).unwrap();
    assert_eq!(libraries::default_symbol(c"facade_stays", None), Some(0x1234));
    assert!(!facade.close());
    assert_eq!(libraries::default_symbol(c"facade_stays", None), Some(0x1234));
    let facade = Facade::open(&[offer("facade_goes", 0x1234, OfferKind::Data)]).unwrap();
    assert!(facade.close());
}

#[test]
fn files_say_what_they_want() {
    let folder = Folder::new();
    let below = folder.library("below.c", "int below(void) { return 1; }", &["-Wl,-soname,libbelow.so"]);
    std::fs::rename(&below, folder.path().join("libbelow.so")).unwrap();
    let link = format!("-L{}", folder.path().display());
    let path = folder.library(
        "wants.c",
        "int below(void); int elsewhere(void); extern __thread int local __attribute__((tls_model(\"global-dynamic\")));\n\
         __attribute__((weak)) int perhaps(void);\n\
         int defined(void) { return below() + elsewhere() + local + (perhaps ? perhaps() : 0); }",
        &[&link, "-lbelow", "-Wl,-rpath,$ORIGIN"],
    );
    let files = closure(&path, &crate::libraries::SearchPath::of_process(), |name| {
        name == b"libc.so.6" || name.starts_with(b"ld-")
    });
    let paths: Vec<_> = files.iter().map(|file| file.path().file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(paths, ["wants.so", "libbelow.so"]);
    let mut wanted: Vec<_> = files[0]
        .references()
        .filter(|reference| !reference.name.starts_with(b"_"))
        .map(|r| (std::str::from_utf8(r.name).unwrap(), r.thread_local, r.weak))
        .collect();
    wanted.sort_unstable();
    assert_eq!(
        wanted,
        [
            ("below", false, false),
            ("elsewhere", false, false),
            ("local", true, false),
            ("perhaps", false, true)
        ]
    );
    assert!(files[0].defines(Name::new(b"defined")) && !files[0].defines(Name::new(b"below")));
    assert!(files[1].defines(Name::new(b"below")));
}

/// A library without definitions has a hash table that does not say how many symbols there are.
#[test]
fn a_library_that_only_refers_is_understood() {
    let folder = Folder::new();
    let source = "int elsewhere(void); __attribute__((constructor)) static void early(void) { elsewhere(); }";
    for linker in ["-fuse-ld=lld", "-fuse-ld=bfd"] {
        let path = folder.library("only.c", source, &[linker, "-nostartfiles"]);
        let file = LibraryFile::open(&path).unwrap();
        assert!(file.references().any(|reference| reference.name == b"elsewhere"), "{linker}");
    }
}

#[test]
fn damaged_files_want_nothing_and_harm_nobody() {
    let folder = Folder::new();
    let path = folder.library("damaged.c", "int elsewhere(void); int f(void) { return elsewhere(); }", &[]);
    let bytes = std::fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged");
    let look = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        let file = LibraryFile::open(&damaged)?;
        Some((file.references().count(), file.defines(Name::new(b"f"))))
    };
    assert!(look(&bytes).is_some_and(|(count, defines)| count > 0 && defines));
    assert_eq!(look(b""), None);
    for end in (0..bytes.len()).step_by(61) {
        look(&bytes[..end]);
    }
    // The tables lie at the front of the file.
    for at in (0..bytes.len().min(2000)).step_by(3) {
        let mut other = bytes.clone();
        for value in [0, 0x7f, 0xff] {
            other[at] = value;
            look(&other);
        }
    }
}
