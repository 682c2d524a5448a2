//! Libraries that an image needs, where the run-time linker would have found them.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use crate::testing::{Folder, call, load, loader};

/// An image that needs `liba.so`, which needs `libb.so`, both in a folder that only the image names, with `flag`.
fn chain(folder: &Folder, flag: &str) -> std::path::PathBuf {
    let hidden = folder.path().join("hidden");
    std::fs::create_dir(&hidden).unwrap();
    // Names that no other test has: glibc knows what is open by them.
    let unique = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
    let (a, b) = (format!("liba-{unique}.so"), format!("libb-{unique}.so"));
    let make = |name: &str, source: &str, soname: &str, more: &[&str]| {
        let soname_flag = format!("-Wl,-soname,{soname}");
        let flags: Vec<&str> = [soname_flag.as_str()].iter().chain(more).copied().collect();
        let made = folder.library(name, source, &flags);
        let place = hidden.join(soname);
        std::fs::rename(made, &place).unwrap();
        place
    };
    let b = make("b.c", "int b(void) { return 20; }", &b, &[]);
    let a = make("a.c", "int b(void); int a(void) { return b() + 1; }", &a, &[b.to_str().unwrap()]);
    folder.image(
        "needy.c",
        "int a(void); int get(void) { return a() * 2; }",
        &["-Wl,-rpath,$ORIGIN/hidden", flag, a.to_str().unwrap()],
    )
}

#[test]
fn libraries_inherit_the_old_search_path_of_an_image() {
    let folder = Folder::new();
    let image = chain(&folder, "-Wl,--disable-new-dtags");
    let image = load(&loader(), &image).unwrap();
    assert_eq!(call(&image, "get"), 42);
}

#[test]
fn libraries_do_not_inherit_the_new_one() {
    let folder = Folder::new();
    let image = chain(&folder, "-Wl,--enable-new-dtags");
    let error = load(&loader(), &image).unwrap_err().to_string();
    assert!(error.contains("libb-"), "{error}");
}
