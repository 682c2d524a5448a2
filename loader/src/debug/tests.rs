//! What is behind an address, against LLVM's `addr2line`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use super::*;
use crate::testing::{Folder, load, loader};
use crate::{Frame, ImageSource};
use std::path::Path;
use std::process::Command;

const INLINED: &str = r#"
volatile int sink;
static inline __attribute__((always_inline)) int inner(int n) {
  sink = n;
  return sink * 3;
}
static __attribute__((noinline)) int hidden(int n) {
  int a = inner(n);
  int b = inner(n + 1);
  return a + b;
}
namespace deep { struct Type { static __attribute__((noinline)) int member(int n) { return hidden(n) + inner(n); } }; }
extern "C" int outer(int n) {
  return deep::Type::member(n) + hidden(n + 2);
}
"#;

/// Function, file and line of each frame, as `llvm-addr2line` tells them.
fn told(file: &Path, address: u64) -> Vec<(String, String)> {
    let output = Command::new("llvm-addr2line-22")
        .args(["-f", "-i", "-C", "-e"])
        .arg(file)
        .arg(format!("{address:#x}"))
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let line = |line: &str| line.split(" (discriminator").next().unwrap().to_owned();
    lines.as_chunks::<2>().0.iter().map(|[function, place]| ((*function).to_owned(), line(place))).collect()
}

fn shown(frames: &[Frame]) -> Vec<(String, String)> {
    let place = |frame: &Frame| {
        let file = frame.file.as_ref().map_or("??".to_owned(), |file| file.display().to_string());
        format!("{file}:{}", frame.line.map_or("?".to_owned(), |line| line.to_string()))
    };
    let name = |frame: &Frame| frame.function.clone().unwrap_or_else(|| "??".to_owned());
    frames.iter().map(|frame| (name(frame), place(frame))).collect()
}

#[test]
fn frames_are_those_of_addr2line() {
    for flags in [&["-g", "-O2"][..], &["-gdwarf-4", "-O2"], &["-gline-tables-only", "-O1"], &["-g", "-O0"]] {
        let folder = Folder::new();
        let path = folder.image("inlined.cpp", INLINED, flags);
        let loader = loader();
        let image = load(&loader, &path).unwrap();
        let mut deepest = 0;
        let lines = image.code().lines().unwrap();
        let start = lines.functions()[0].address;
        let end = lines.functions().iter().map(|function| function.address + function.size).max().unwrap();
        assert!(end - start < 2000, "{start:#x} {end:#x}");
        for at in (start..end).step_by(7) {
            let frames = loader.symbolize(image.bias() + at as usize);
            let want = told(&path, at);
            // Between functions there is nothing.
            if lines.function_at(at).is_some() {
                assert_eq!(shown(&frames), want, "{flags:?} {at:#x}");
                assert!(frames.iter().all(|frame| frame.unit.as_deref() == Some("inlined")));
            }
            deepest = deepest.max(frames.len());
        }
        assert_eq!(deepest, 2, "{flags:?}");
    }
}

#[test]
fn names_are_readable_and_the_linkers_beside_them() {
    let folder = Folder::new();
    for flags in [&["-g"][..], &["-g0"]] {
        let path = folder.image("inlined.cpp", INLINED, flags);
        let loader = loader();
        let image = load(&loader, &path).unwrap();
        let lines = image.code().lines().unwrap();
        let member = lines.functions().iter().find(|function| function.name.contains("member")).unwrap();
        let frames = loader.symbolize(image.bias() + member.address as usize + 4);
        let frame = frames.last().unwrap();
        assert_eq!(frame.function.as_deref(), Some("deep::Type::member(int)"), "{flags:?}");
        assert_eq!(frame.mangled.as_deref(), Some("_ZN4deep4Type6memberEi"), "{flags:?}");
        assert_eq!(frame.offset, 4);
        let local = lines.functions().iter().find(|function| function.name.contains("hidden")).unwrap();
        let frames = loader.symbolize(image.bias() + local.address as usize);
        assert_eq!(
            frames.last().unwrap().function.as_deref(),
            Some("hidden(int)"),
            "local names are in the file"
        );
    }
}

#[test]
fn images_from_bytes_tell_what_they_have() {
    let folder = Folder::new();
    for (flags, line, hidden) in [("-g", true, true), ("-g0", false, false)] {
        let path = folder.image("bytes.cpp", INLINED, &[flags, "-O0"]);
        let bytes = std::fs::read(&path).unwrap();
        let loader = loader();
        let image = loader.load_image("bytes", ImageSource::Bytes(&bytes)).unwrap();
        drop(bytes);
        let outer = image.get("outer").unwrap();
        let frames = loader.symbolize(outer.address + 4);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].function.as_deref(), Some("outer"));
        assert_eq!(frames[0].offset, 4);
        assert_eq!(frames[0].line.is_some(), line);
        assert_eq!(matches!(image.code().file(), CodeFile::Bytes(_)), line, "kept when it says something");
        let addresses = image.range();
        let any = addresses.clone().step_by(8).any(|address| {
            loader.symbolize(address).iter().any(|frame| frame.function.as_deref() == Some("hidden(int)"))
        });
        assert_eq!(any, hidden);
        assert!(loader.symbolize(addresses.end).iter().all(|frame| frame.unit.as_deref() != Some("bytes")));
    }
}

#[test]
fn another_file_of_that_name_is_not_believed() {
    let folder = Folder::new();
    let path = folder.image("replaced.c", "int first(void) { return 1; }", &["-g"]);
    let loader = loader();
    let image = load(&loader, &path).unwrap();
    let first = image.get("first").unwrap().address;
    assert!(image.code().contents().is_ok(), "the note's checksum is the same in both");
    // The note of the other one says something else.
    let mut other = std::fs::read(&path).unwrap();
    let name = other.windows(7).position(|bytes| bytes == crate::image::note::NOTE_NAME).unwrap();
    let at = name - 12 + crate::image::note::CHECKSUM_OFFSET;
    other[at..at + 32].fill(7);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &other).unwrap();
    assert!(matches!(image.code().contents(), Err(DebugError::Changed(_))));
    let frames = loader.symbolize(first);
    assert_eq!(frames[0].function.as_deref(), Some("first"), "the memory still knows");
    assert_eq!((frames[0].line, frames[0].unit.as_deref()), (None, Some("replaced")));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(image.code().contents(), Err(DebugError::Read { .. })));
    assert_eq!(loader.symbolize(first)[0].function.as_deref(), Some("first"));
}

#[test]
fn libraries_of_the_process_tell_names() {
    let address = libc::qsort as *const () as usize;
    let frames = loader().symbolize(address + 1);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].function.as_deref(), Some("qsort"));
    assert!(frames[0].unit.as_deref().unwrap().contains("libc.so"), "{frames:?}");
    assert_eq!(frames[0].offset, 1);
    assert!(loader().symbolize(16).is_empty());
}

#[test]
fn damaged_debug_information_is_no_more_than_missing() {
    let folder = Folder::new();
    let path = folder.image("damaged.cpp", INLINED, &["-g"]);
    let bytes = std::fs::read(&path).unwrap();
    let mut state = 1_u64;
    for round in 0..300 {
        let mut damaged = bytes.clone();
        let file = dwarf::Elf::parse(&*bytes).unwrap();
        let sections: Vec<_> = object::Object::sections(&file)
            .filter(|section| {
                object::ObjectSection::name(section).is_ok_and(|name| name.starts_with(".debug"))
            })
            .filter_map(|section| object::ObjectSection::file_range(&section))
            .collect();
        for _ in 0..1 + round % 9 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (start, size) = sections[(state >> 33) as usize % sections.len()];
            damaged[(start + (state >> 20) % size.max(1)) as usize] = (state >> 50) as u8;
        }
        let lines = lines::Lines::parse(&damaged).unwrap();
        for function in lines.functions() {
            let frames = lines.frames(function.address);
            assert!(!frames.is_empty(), "the symbol is left");
            lines.rows(function.address, function.size);
        }
        // Whatever becomes of the debug information, there is a file.
        let code = LoadedCode::new("damaged", 1 << 40, 1 << 40..1 << 41, CodeFile::Bytes(damaged.into()));
        gdb::make_file(&[Arc::new(code)]).unwrap();
    }
}
