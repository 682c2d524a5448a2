//! An image that the user named, whose file is changed or goes away while the image is loaded.

use crate::support::{Child, End, Scratch, finish, hotbed, shared_library, task};
use hotbed::{Image, Runtime, Source, Unit};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Functions, each on a page of its own, and as many pages of data.
const FUNCTIONS: usize = 100;

/// An image with code and data on many pages, beside which there is nothing of it.
fn build(scratch: &Scratch, name: &str) -> PathBuf {
    let mut text = String::new();
    for at in 0..FUNCTIONS {
        writeln!(
            text,
            "const int d{at}[1024] = {{{at}, [1023] = {at}}}; \
             __attribute__((aligned(4096))) int f{at}(int x) {{ return x + {at} + d{at}[x]; }}"
        )
        .unwrap();
    }
    let image = scratch.join(name);
    let runtime = Runtime::builder().no_cache().build().unwrap();
    runtime.image(&image).unit(Source::text("u.c", text).flags(["-O1"])).build().unwrap();
    image
}

/// Calls all functions, most of them on pages that nobody has touched.
fn call_all(unit: &Unit) {
    for at in 0..FUNCTIONS {
        // SAFETY: that is their type.
        let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>(&format!("f{at}")) }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { f(1023) }, 1023 + 2 * at as i32);
    }
}

/// What can be done to the file.
fn harm(what: &str, path: &Path) {
    let length = std::fs::metadata(path).unwrap().len();
    match what {
        "truncated" => std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap(),
        "shrunk" => std::fs::File::options().write(true).open(path).unwrap().set_len(length / 2).unwrap(),
        // In place: the same inode.
        "overwritten" => {
            let mut file = std::fs::File::options().write(true).open(path).unwrap();
            std::io::Write::write_all(&mut file, &vec![0xcc; length as usize]).unwrap();
        }
        "deleted" => std::fs::remove_file(path).unwrap(),
        other => panic!("{other}"),
    }
}

#[test]
fn what_becomes_of_the_file_does_not_matter() {
    let scratch = Scratch::new("named-image");
    let image = build(&scratch, "kept.hbi");
    for store in ["no store", "store", "store that cannot be made", "blocked store"] {
        for what in ["truncated", "shrunk", "overwritten", "deleted"] {
            std::fs::copy(&image, scratch.join("u.hbi")).unwrap();
            let said = Child::new("named_image::harmed", format!("{store}/{what}"))
                .env("HOTBED_TEST_FOLDER", scratch.path())
                .succeed();
            assert_eq!(said, "called", "{store}, {what}");
        }
    }
    let copies = std::fs::read_dir(scratch.join("store/images")).unwrap().count();
    assert_eq!(copies, 1, "the same image is kept once");
}

#[test]
fn harmed() {
    let Some(task) = task() else { return };
    let (store, what) = task.as_str().split_once('/').unwrap();
    let folder = PathBuf::from(std::env::var_os("HOTBED_TEST_FOLDER").unwrap());
    let path = folder.join("u.hbi");
    let runtime = match store {
        "no store" => Runtime::builder().no_cache(),
        "store" => Runtime::builder().cache_dir(folder.join("store")),
        "store that cannot be made" => Runtime::builder().cache_dir("/proc/nowhere"),
        "blocked store" => {
            let store = folder.join("blocked");
            std::fs::create_dir_all(&store).unwrap();
            std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o700)).unwrap();
            std::fs::write(store.join("images"), "no folder").unwrap();
            Runtime::builder().cache_dir(store)
        }
        other => panic!("{other}"),
    };
    let runtime = runtime.build().unwrap();
    let unit = runtime.load(Image::file(&path)).unwrap();
    harm(what, &path);
    call_all(&unit);
    assert_eq!(unit.path().as_deref(), Some(&*path));
    print!("called");
}

#[test]
fn a_remembered_image_is_neither_read_nor_copied_again() {
    let scratch = Scratch::new("named-image-warm");
    let image = build(&scratch, "u.hbi");
    let size = std::fs::metadata(&image).unwrap().len();
    let bytes_read = || {
        let said = Child::new("named_image::loads", "").env("HOTBED_TEST_FOLDER", scratch.path()).succeed();
        said.parse::<u64>().unwrap()
    };
    assert!(bytes_read() > size);
    // Until the file and then the copy have been left alone for long enough, both are looked at.
    std::thread::sleep(Duration::from_millis(2100));
    bytes_read();
    std::thread::sleep(Duration::from_millis(2100));
    bytes_read();
    assert!(bytes_read() < size / 4, "the image has {size} bytes");
    // A change of the file is seen.
    harm("shrunk", &image);
    let runtime = Runtime::builder().cache_dir(scratch.join("store")).build().unwrap();
    let error = runtime.load(Image::file(&image)).unwrap_err().to_string();
    assert!(error.contains("u.hbi"), "{error}");
}

/// Says how many bytes were read while an image was loaded.
#[test]
fn loads() {
    let Some(_task) = task() else { return };
    let folder = PathBuf::from(std::env::var_os("HOTBED_TEST_FOLDER").unwrap());
    let read = || {
        let text = std::fs::read_to_string("/proc/self/io").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
        line.parse::<u64>().unwrap()
    };
    let runtime = Runtime::builder().cache_dir(folder.join("store")).build().unwrap();
    let before = read();
    let unit = runtime.load(Image::file(folder.join("u.hbi"))).unwrap();
    let after = read();
    call_all(&unit);
    print!("{}", after - before);
}

#[test]
fn a_program_outlives_its_file_and_finds_its_libraries_beside_it() {
    let scratch = Scratch::new("named-image-run");
    let library = scratch.write("lib/x.c", "int x(void) { return 40; }");
    shared_library(&library, &[]);
    // The program cuts its own image short and goes on, on pages of its own.
    let source = scratch.write(
        "p.c",
        "#include <stdio.h>\n#include <unistd.h>\nint x(void);\n\
         __attribute__((aligned(4096), noinline)) int later(void) { return x() + 2; }\n\
         __attribute__((aligned(4096))) int main(int c, char **v) {\n\
         if (truncate(v[1], 10)) return 1; printf(\"%d\\n\", later()); return 0; }\n",
    );
    let image = scratch.join("p.hbi");
    let mut command = hotbed(["image", "build", "--no-cache", "-Wl,-rpath,$ORIGIN/lib", "-o"]);
    let folder = format!("-L{}", scratch.join("lib").display());
    finish(command.arg(&image).arg(&source).args([&folder, "-lx"])).assert_success("image build");
    for store in ["", "store"] {
        let moved = scratch.join("moved.hbi");
        std::fs::copy(&image, &moved).unwrap();
        let mut command = hotbed(["run"]);
        match store {
            "" => command.arg("--no-cache"),
            store => command.arg("--cache-dir").arg(scratch.join(store)),
        };
        let got = finish(command.arg(&moved).arg("--").arg(&moved));
        assert_eq!((got.end, got.stdout.as_str()), (End::Status(0), "42\n"), "{}", got.stderr);
    }
}

#[test]
fn an_unreadable_file_is_an_error_even_if_there_is_a_copy() {
    let scratch = Scratch::new("named-image-unreadable");
    let image = build(&scratch, "u.hbi");
    let load = || {
        let runtime = Runtime::builder().cache_dir(scratch.join("store")).build().unwrap();
        runtime.load(Image::file(&image)).map(|_| ()).map_err(|error| error.to_string())
    };
    load().unwrap();
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser may read everything.
    if std::fs::File::open(&image).is_err() {
        assert!(load().unwrap_err().contains("Permission denied"));
    }
    std::fs::remove_file(&image).unwrap();
    assert!(load().unwrap_err().contains("u.hbi"));
}
