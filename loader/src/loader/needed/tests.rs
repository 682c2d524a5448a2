//! Libraries that want what units define, opened for units, by the host, and by units themselves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use crate::image::note;
use crate::sys::libraries::{self, Handle};
use crate::testing::{Folder, call, load, loader};
use crate::{ImageSource, LibraryRequest, LoadError};
use std::ffi::CString;
use std::path::Path;

/// A library with a function that a program may replace, called while it is opened and later.
const GIVER: &str = "int made(int n) { return n; } static int early;
    __attribute__((constructor)) static void begin(void) { early = made(1); }
    int given(void) { return made(2) + 100 * early; }";
/// A program that replaces it, with what must be relocated before it can be called.
const REPLACED: &str = "#include <stdlib.h>
    #include <string.h>
    int base = 40; int *place = &base; __thread int count = 5; int given(void);
    int made(int n) { char *p = malloc(8); strcpy(p, \"abc\"); int l = strlen(p); free(p); return *place + l - 3 + n + 0 * count++; }
    int use(void) { return given(); } int seen(void) { return count; }";

fn giver(folder: &Folder, name: &str) -> String {
    let path = folder.library("giver.c", GIVER, &["-fno-inline", "-fsemantic-interposition"]);
    std::fs::rename(path, folder.path().join(format!("lib{name}.so"))).unwrap();
    format!("-L{} -l{name} -Wl,-rpath,{}", folder.path().display(), folder.path().display())
}

fn flags(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[test]
fn a_function_of_a_program_replaces_that_of_a_library_it_needs() {
    let folder = Folder::new();
    let link = giver(&folder, "replaced");
    let loader = loader();
    let image = load(&loader, &folder.image("own.c", REPLACED, &flags(&link))).unwrap();
    assert_eq!(call(&image, "use"), 42 + 100 * 41);
    assert_eq!(call(&image, "seen"), 7, "one call while the library was opened, one later");
    assert!(!image.retire(), "the library is bound to it");
    assert!(image.libraries_bound()[0].contains("libreplaced.so"), "{:?}", image.libraries_bound());
    assert!(image.libraries().iter().any(|library| library.name().contains("libreplaced.so")));
}

#[test]
fn what_will_be_missing_is_missing_before_a_library_is_opened() {
    let folder = Folder::new();
    let link = giver(&folder, "missing");
    let source = format!("{REPLACED} int nobody_has_this(void); int g(void) {{ return nobody_has_this(); }}");
    let error = load(&loader(), &folder.image("own.c", &source, &flags(&link))).unwrap_err();
    assert!(matches!(&error, LoadError::Unresolved { symbols, .. } if symbols[0].name == "nobody_has_this"));
    assert!(!libraries::is_named(&folder.path().join("libmissing.so")));
}

/// A plugin that is made for a program whose functions it calls.
const PLUGIN: &str = "int twice(int); extern int counter;
    int (*pointer)(int) = twice; int plugged(void) { counter++; return twice(20) + pointer(1); }";
const HOST: &str = "int counter = 3; int twice(int n) { return 2 * n; } int count(void) { return counter; }";

#[test]
fn a_library_that_the_host_opens_finds_what_units_define() {
    let folder = Folder::new();
    let plugin = folder.library("plugin.c", PLUGIN, &[]);
    let loader = loader();
    let request = LibraryRequest::Path(&plugin);
    let error = loader.open_library(request).unwrap_err().to_string();
    assert!(error.contains("twice") || error.contains("counter"), "{error}");
    let image = load(&loader, &folder.image("host.c", HOST, &[])).unwrap();
    let library = loader.open_library(request).unwrap();
    let plugged = library.get("plugged").unwrap();
    // SAFETY: the function's type.
    let plugged = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(plugged) };
    assert_eq!((plugged(), call(&image, "count")), (42, 4));
    assert!(!image.retire() && image.libraries_bound().len() == 1);
    drop(library);
    assert!(image.libraries_bound().is_empty());
    assert!(image.retire());
    drop(image);
    assert!(loader.open_library(request).is_err());
}

#[test]
fn a_library_gets_each_definition_from_the_first_that_has_it() {
    let folder = Folder::new();
    let plugin = folder.library("plugin.c", PLUGIN, &[]);
    let loader = loader();
    let _first =
        load(&loader, &folder.image("first.c", "int twice(int n) { return 1000 * n; }", &[])).unwrap();
    let _second = load(&loader, &folder.image("second.c", HOST, &[])).unwrap();
    let library = loader.open_library(LibraryRequest::Path(&plugin)).unwrap();
    // SAFETY: the function's type.
    let plugged =
        unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(library.get("plugged").unwrap()) };
    assert_eq!(plugged(), 21_000);
}

#[test]
fn a_thread_local_variable_of_a_unit_is_beyond_a_library() {
    let folder = Folder::new();
    let plugin = folder.library("plugin.c", "extern __thread int mine; int f(void) { return mine; }", &[]);
    let loader = loader();
    let _image = load(&loader, &folder.image("host.c", "__thread int mine = 3;", &[])).unwrap();
    let error = loader.open_library(LibraryRequest::Path(&plugin)).unwrap_err().to_string();
    assert!(error.contains("thread-local variable `mine`"), "{error}");
}

/// A program that opens plugins itself.
const OPENER: &str = "#include <dlfcn.h>
    #include <string.h>
    int counter = 3; int twice(int n) { return 2 * n; } static void *handle;
    int open_plugin(void) { handle = dlopen(\"libplugin-of-units.so\", RTLD_NOW); int (*f)(void) = handle ? (int (*)(void))dlsym(handle, \"plugged\") : 0; return f ? f() : -1; }
    int close_plugin(void) { return dlclose(handle); }
    ";

#[test]
fn a_library_that_a_unit_opens_finds_what_units_define() {
    let folder = Folder::new();
    let plugin = folder.library("plugin.c", PLUGIN, &[]);
    std::fs::rename(plugin, folder.path().join("libplugin-of-units.so")).unwrap();
    let loader = loader();
    let flags = ["-Wl,-rpath,$ORIGIN"];
    let image = load(&loader, &folder.image("opener.c", OPENER, &flags)).unwrap();
    for _ in 0..2 {
        assert_eq!(call(&image, "open_plugin"), 42);
        assert_eq!(image.libraries_bound().len(), 1);
        assert!(!image.retire());
        assert_eq!(call(&image, "close_plugin"), 0);
        assert!(image.libraries_bound().is_empty());
    }
    assert!(image.retire());
}

#[test]
fn images_of_other_loaders_are_not_offered() {
    let folder = Folder::new();
    let plugin = folder.library("plugin.c", PLUGIN, &[]);
    let (one, other) = (loader(), loader());
    let _image = load(&one, &folder.image("host.c", HOST, &[])).unwrap();
    assert!(other.open_library(LibraryRequest::Path(&plugin)).is_err());
    assert!(one.open_library(LibraryRequest::Path(&plugin)).is_ok());
}

/// `image`, linked with the wish that everything is exported.
fn exporting(image: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(image).unwrap();
    let description = note::description_range(&bytes).unwrap();
    bytes[description.start + 4] |= 4;
    bytes
}

#[test]
fn what_an_image_exports_to_everybody_is_found_by_libraries_that_others_open() {
    let folder = Folder::new();
    let source = "int everybodys = 3; int to_everybody(int n) { return everybodys += n; }
        static int twice(int n) { return 2 * n; } static void *choose(void) { return twice; }
        int chosen_for_everybody(int) __attribute__((ifunc(\"choose\"))); int get(void) { return everybodys; }";
    let plugin = folder.library(
        "plugin.c",
        "int to_everybody(int); int chosen_for_everybody(int); int f(void) { return to_everybody(chosen_for_everybody(4)); }",
        &[],
    );
    let bytes = exporting(&folder.image("host.c", source, &[]));
    let open = || Handle::open(&CString::new(plugin.to_str().unwrap()).unwrap(), false);
    let loader = loader();
    let image = loader.load_image("host", ImageSource::Bytes(&bytes)).unwrap();
    let library = open().unwrap();
    // SAFETY: the function's type.
    let f = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(library.symbol(c"f").unwrap()) };
    assert_eq!((f(), call(&image, "get")), (11, 11));
    // The run-time linker keeps what the library is bound to, so the image stays, for good.
    drop(image);
    assert_eq!(f(), 19);
    drop(library);
    assert!(open().is_err(), "the facade went with the last library");
    // Where nobody has used it, it goes with the image.
    let again = folder.image("other.c", "int only_shown = 1; int get(void) { return only_shown; }", &[]);
    let image = loader.load_image("other", ImageSource::Bytes(&exporting(&again))).unwrap();
    assert_eq!(call(&image, "get"), 1);
    assert!(image.retire());
    drop(image);
    assert!(libraries::default_symbol(c"only_shown", None).is_none());
}
