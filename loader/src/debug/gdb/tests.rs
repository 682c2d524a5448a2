//! The files that gdb gets, against `llvm-dwarfdump` and `addr2line`, and the list that it walks. gdb itself is asked in
//! the integration tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use super::*;
use crate::debug::dwarf::Elf;
use crate::debug::{DebugError, DebugOptions};
use crate::testing::{Folder, load};
use crate::{Loader, LoaderOptions};
use object::ObjectSection;
use std::process::Command;

const ONE: &str = r#"
#include <stdexcept>
#include <vector>
struct Point { int x, y; };
thread_local int own = 1;
int shared = 3;
template <class T> T sum(const std::vector<T> &values) { T s{}; for (const T &v : values) s += v; return s; }
extern "C" int one(int n) {
  std::vector<int> values{1, 2, n};
  Point p{n, own};
  try { if (n > 100) throw std::runtime_error("large"); } catch (const std::exception &) { return -1; }
  auto twice = [&](int k) { return k * p.x + p.y; };
  return sum(values) + twice(2) + shared;
}
"#;
const TWO: &str = r#"
#include <stdio.h>
struct list { struct list *next; const char *name; };
static int count(const struct list *l) {
  int n = 0;
  for (; l; l = l->next)
    n++;
  return n;
}
int two(const char *name) {
  struct list a = {0, name}, b = {&a, name};
  return count(&b);
}
"#;

fn gdb_loader() -> Loader {
    Loader::new(LoaderOptions {
        debug: DebugOptions { gdb: true, ..DebugOptions::default() },
        ..LoaderOptions::default()
    })
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn one_file_for_several_images_is_in_order() {
    for flags in [&["-g", "-O0"][..], &["-g", "-O2"], &["-gdwarf-4", "-O2"], &["-gline-tables-only", "-O1"]] {
        let folder = Folder::new();
        let loader = Loader::new(LoaderOptions::default());
        let images = [
            load(&loader, &folder.image("one.cpp", ONE, flags)).unwrap(),
            load(&loader, &folder.image("two.c", TWO, flags)).unwrap(),
        ];
        let codes: Vec<_> = images.iter().map(|image| Arc::clone(image.code())).collect();
        let mut complaints = Vec::new();
        let file =
            file::make(&codes, &mut |code, error| complaints.push(format!("{}: {error}", code.name())))
                .unwrap();
        assert_eq!(complaints, [""; 0], "{flags:?}");
        let path = folder.path().join("made.elf");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        run("llvm-dwarfdump-22", &["--verify", "--quiet", path]);
        assert!(run("readelf", &["-SW", path]).contains(".eh_frame"));
        let frames = run("readelf", &["--debug-dump=frames", path]);
        let symbols = run("nm", &["-C", path]);
        for (image, name) in images.iter().zip(["one", "two"]) {
            let definition = image.get(name).unwrap();
            assert!(symbols.contains(&format!("{:016x} T {name}\n", definition.address)), "{symbols}");
            let end = definition.address + definition.size as usize;
            let range = format!("pc={:016x}..{end:016x}", definition.address);
            assert!(frames.contains(&range), "{flags:?} {range}: {frames}");
            for at in (0..definition.size as usize).step_by(5) {
                let address = format!("{:#x}", definition.address + at);
                let inside = format!("{:#x}", definition.address + at - image.bias());
                let tell =
                    |file: &str, address: &str| run("addr2line", &["-f", "-i", "-C", "-e", file, address]);
                assert_eq!(
                    tell(path, &address),
                    tell(image.path().unwrap().to_str().unwrap(), &inside),
                    "{flags:?}"
                );
            }
        }
    }
}

#[test]
fn debug_information_of_an_image_that_lies_as_linked_is_as_it_is() {
    let folder = Folder::new();
    let loader = Loader::new(LoaderOptions::default());
    for (compressed, base) in [("none", "0x1b1100000000"), ("zlib", "0x1b1200000000")] {
        let flags =
            [format!("-Wl,--image-base={base}"), format!("-Wl,--compress-debug-sections={compressed}")];
        let path = folder.image("one.cpp", ONE, &["-g", "-O2", &flags[0], &flags[1]]);
        let image = load(&loader, &path).unwrap();
        assert_eq!(image.bias(), 0);
        let code = Arc::clone(image.code());
        let file = file::make(&[code], &mut |code, error| panic!("{}: {error}", code.name())).unwrap();
        let made = folder.path().join("made.elf");
        std::fs::write(&made, file).unwrap();
        let made = made.to_str().unwrap();
        run("llvm-dwarfdump-22", &["--verify", "--quiet", made]);
        let definition = image.get("one").unwrap();
        for at in (0..definition.size as usize).step_by(9) {
            let address = format!("{:#x}", definition.address + at);
            let tell = |file: &str| run("addr2line", &["-f", "-i", "-C", "-e", file, &address]);
            assert_eq!(tell(made), tell(path.to_str().unwrap()), "{compressed}");
        }
    }
}

#[test]
fn symbols_alone_are_registered_when_debug_information_is_compressed() {
    let folder = Folder::new();
    let loader = Loader::new(LoaderOptions::default());
    let path = folder.image("one.cpp", ONE, &["-g", "-Wl,--compress-debug-sections=zlib"]);
    let image = load(&loader, &path).unwrap();
    let mut complaints = Vec::new();
    let codes = [Arc::clone(image.code())];
    let file =
        file::make(&codes, &mut |code, error| complaints.push(format!("{}: {error}", code.name()))).unwrap();
    assert_eq!(complaints.len(), 1);
    assert!(
        complaints[0].starts_with("one: its section .debug_") && complaints[0].ends_with("is compressed")
    );
    let path = folder.path().join("made.elf");
    std::fs::write(&path, file).unwrap();
    assert!(run("nm", &[path.to_str().unwrap()]).contains(" T one\n"));
}

#[test]
fn small_files_are_merged_and_taken_back_one_by_one() {
    let folder = Folder::new();
    let path = folder.image("two.c", TWO, &["-g"]);
    let loader = gdb_loader();
    let noted = Arc::new(Mutex::new(Vec::new()));
    let gdb = Gdb::new(Some({
        let noted = Arc::clone(&noted);
        Arc::new(move |line: &str| noted.lock().push(line.to_owned()))
    }));
    let codes: Vec<_> = (0..70_usize)
        .map(|at| {
            let image = loader.load_image(&format!("unit {at}"), crate::ImageSource::File(&path)).unwrap();
            (Arc::clone(image.code()), image)
        })
        .collect();
    let held = |gdb: &Gdb| gdb.groups.lock().iter().map(|group| group.codes.len()).collect::<Vec<_>>();
    for (at, (code, _)) in codes.iter().enumerate() {
        gdb.add(vec![Arc::clone(code)]);
        let groups = held(&gdb);
        assert_eq!(groups.iter().sum::<usize>(), at + 1);
        assert!(groups.len() < 3 * MERGE, "{groups:?}");
    }
    assert_eq!(held(&gdb), [64, 1, 1, 1, 1, 1, 1]);
    let at_once = Gdb::new(None);
    at_once.add(codes.iter().map(|(code, _)| Arc::clone(code)).collect());
    assert_eq!(held(&at_once), [70], "what comes together is together");
    drop(at_once);
    for (code, _) in codes.iter().step_by(2) {
        gdb.remove(code);
        // Once is enough.
        gdb.remove(code);
    }
    assert_eq!(held(&gdb), [32, 1, 1, 1]);
    for (code, _) in &codes {
        gdb.remove(code);
    }
    assert_eq!(held(&gdb), [0; 0]);
    assert_eq!(*noted.lock(), [""; 0]);
}

#[test]
fn the_list_has_what_is_loaded() {
    let folder = Folder::new();
    let path = folder.image("two.c", TWO, &["-g"]);
    let loader = gdb_loader();
    let image = load(&loader, &path).unwrap();
    let address = image.get("two").unwrap().address as u64;
    let listed = |address: u64| {
        interface::listed().iter().any(|file| {
            use object::{Object, ObjectSymbol};
            let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&**file).unwrap();
            file.symbols().any(|symbol| symbol.name() == Ok("two") && symbol.address() == address)
        })
    };
    assert!(listed(address));
    let bytes = std::fs::read(&path).unwrap();
    let other = loader.load_image("from bytes", crate::ImageSource::Bytes(&bytes)).unwrap();
    let other_address = other.get("two").unwrap().address as u64;
    assert!(listed(other_address));
    drop(image);
    assert!(!listed(address), "taken out before its memory is given back");
    assert!(listed(other_address));
    drop(other);
    assert!(!listed(other_address));
}

#[test]
fn lines_that_cannot_be_encoded_are_refused() {
    let folder = Folder::new();
    let mut bytes = std::fs::read(folder.image("lines.c", TWO, &["-g"])).unwrap();
    let section = {
        let file = Elf::parse(&*bytes).unwrap();
        object::Object::section_by_name(&file, ".debug_line").unwrap().file_range().unwrap()
    };
    // The header of version 5: base and range of the lines of special opcodes come after 15 bytes.
    let at = section.0 as usize + 15;
    assert_eq!((bytes[at] as i8, bytes[at + 1]), (-5, 14), "what clang writes");
    let mut add = |base: i8, range| {
        (bytes[at], bytes[at + 1]) = (base as u8, range);
        rebase::Rebased::default().add(&Elf::parse(&*bytes).unwrap(), 1 << 30)
    };
    for (base, range) in [(-5, 1), (-5, 5), (-128, 200), (0, 255), (3, 14)] {
        let refused = gimli::write::ConvertError::InvalidLineBase;
        assert!(
            matches!(add(base, range), Err(DebugError::Convert(error)) if error == refused),
            "{base} {range}"
        );
    }
    assert!(add(-5, 14).is_ok() && add(-5, 6).is_ok() && add(0, 1).is_ok());
}
