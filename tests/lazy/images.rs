//! Lazy images as files: opened by who cannot compile, and damaged.

use crate::support::{End, Scratch, execute, finish, hotbed};
use hotbed::{Image, Runtime, Source};
use std::path::{Path, PathBuf};
use std::process::Command;

const TEXT: &str = "int data = 5;\nstatic int helper(int x) { return x + data; }\nint f(int x) { return helper(x) * 2; }\n\
                    __attribute__((aligned(64))) int (*const table[])(int) = {helper, f};";

fn build(scratch: &Scratch) -> PathBuf {
    let image = scratch.join("lazy.hbi");
    let runtime = Runtime::builder().no_cache().build().unwrap();
    runtime.image(&image).unit(Source::text("u.c", TEXT).lazy()).build().unwrap();
    image
}

/// Calls `f`, which must give what it should.
#[track_caller]
fn call(runtime: &Runtime, image: impl Into<hotbed::Load>) {
    let unit = runtime.load(image).unwrap_or_else(|error| panic!("{}", error.render()));
    // SAFETY: that is its type.
    let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>("f") }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { f(4) }, 18);
}

/// Where the contents of a section lie in the file.
fn section(image: &Path, name: &str) -> (usize, usize) {
    let told = execute(Command::new("llvm-readelf-22").args(["-S", "-W"]).arg(image)).stdout;
    let line =
        told.lines().find(|line| line.contains(&format!(" {name} "))).unwrap_or_else(|| panic!("{told}"));
    let mut words = line[line.find(name).unwrap()..].split_whitespace().skip(3);
    let mut number = || usize::from_str_radix(words.next().unwrap(), 16).unwrap();
    (number(), number())
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x5a;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_file_is_compiled_from_where_it_is_loaded() {
    let scratch = Scratch::new("lazy-image");
    let image = build(&scratch);
    for runtime in [Runtime::builder().no_cache(), Runtime::builder().cache_dir(scratch.join("store"))] {
        let runtime = runtime.build().unwrap();
        call(&runtime, Image::file(&image));
        assert!(runtime.functions_compiled() > 0);
        call(&runtime, Image::bytes("bytes", std::fs::read(&image).unwrap()));
    }
}

#[test]
fn who_cannot_compile_ends_with_the_name() {
    let scratch = Scratch::new("lazy-dlopen");
    let image = build(&scratch);
    let host = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(int c, char **v) {
  void *handle = dlopen(v[1], RTLD_NOW);
  if (!handle) { puts(dlerror()); return 1; }
  int *data = dlsym(handle, "data"), (*f)(int) = dlsym(handle, "f");
  printf("%d\n", *data);
  fflush(stdout);
  return f(1);
}
"#;
    let host = scratch.write("host.c", host);
    let executable = scratch.join("host");
    execute(Command::new("clang-22").arg("-w").arg(&host).arg("-o").arg(&executable));
    let got = finish(Command::new(&executable).arg(&image));
    assert_eq!((got.end, got.stdout.as_str()), (End::Signal(libc::SIGABRT), "5\n"), "{got:?}");
    assert_eq!(got.stderr, "hotbed: f was never compiled\n");
}

#[test]
fn a_damaged_image_is_refused() {
    let scratch = Scratch::new("lazy-damaged");
    let image = build(&scratch);
    let damaged = scratch.join("damaged.hbi");
    for name in [".hotbed.bitcode", ".hotbed.functions", ".symtab", ".text"] {
        let (offset, size) = section(&image, name);
        for at in [offset, offset + size / 2, offset + size - 1] {
            std::fs::copy(&image, &damaged).unwrap();
            flip(&damaged, at);
            for runtime in
                [Runtime::builder().no_cache(), Runtime::builder().cache_dir(scratch.join("store"))]
            {
                let error = runtime.build().unwrap().load(Image::file(&damaged)).unwrap_err().to_string();
                assert!(error.contains("checksum"), "{name} at {at}: {error}");
            }
            let mut command = hotbed(["run", "--no-cache"]);
            let got = finish(command.arg(&damaged));
            assert_eq!(got.end, End::Status(1), "{got:?}");
        }
    }
}

#[test]
fn a_damaged_entry_of_the_store_is_made_anew() {
    let scratch = Scratch::new("lazy-damaged-store");
    let store = scratch.join("store");
    let load = || {
        let runtime = Runtime::builder().cache_dir(&store).build().unwrap();
        let unit = runtime.load(Source::text("u.c", TEXT).lazy()).unwrap();
        // SAFETY: that is its type.
        let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>("f") }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { f(4) }, 18);
        unit.report().counts.images_linked
    };
    assert_eq!((load(), load()), (1, 0));
    let entries: Vec<PathBuf> =
        std::fs::read_dir(store.join("images")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    let (offset, size) = section(entry, ".hotbed.bitcode");
    flip(entry, offset + size / 2);
    assert_eq!((load(), load()), (1, 0));
}
