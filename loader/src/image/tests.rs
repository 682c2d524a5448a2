//! Images whose note says something about the rest of the file, and images that are linked anywhere.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use super::note::{self, Layout};
use super::symbols::Name;
use super::{ImageError, ImageSource};
use crate::testing::{Folder, call, load, loader};
use crate::{Image, LoadError, Loader};
use object::{Object, ObjectSection};
use std::path::Path;
use std::sync::Arc;

/// Room for hashes, as the back end makes it.
const ROOM: &str =
    "__asm__(\".section .hotbed.hashes,\\\"a\\\",@progbits\\n.p2align 2\\n.zero 64\\n.text\\n\");";

/// The image at `path`, with what `change` makes of the hashes of its symbols and of its layout.
fn changed(path: &Path, change: impl Fn(&mut [u32], &mut Layout)) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".hotbed.hashes").unwrap();
    let (start, size) = section.file_range().unwrap();
    let mut layout = Layout { hashes: (section.address(), (size / 4) as u32), ..Layout::default() };
    let mut hashes = vec![0; size as usize / 4];
    let frames = file.section_by_name(".eh_frame").unwrap();
    layout.frames = Some((frames.address(), frames.size()));
    use object::ObjectSymbol;
    for symbol in file.dynamic_symbols() {
        hashes[symbol.index().0 - 1] = Name::new(symbol.name_bytes().unwrap()).hash;
    }
    change(&mut hashes, &mut layout);
    for (at, hash) in hashes.into_iter().enumerate() {
        let at = start as usize + at * 4;
        bytes[at..at + 4].copy_from_slice(&hash.to_le_bytes());
    }
    note::set_layout(&mut bytes, &layout).unwrap();
    note::seal(&mut bytes).unwrap();
    bytes
}

fn load_bytes(loader: &Loader, bytes: &[u8]) -> Result<Arc<Image>, LoadError> {
    loader.load_image("changed", ImageSource::Bytes(bytes))
}

#[test]
fn imports_are_looked_up_by_the_hashes_in_the_image() {
    let folder = Folder::new();
    let source = format!("{ROOM} int theirs(int); int f(void) {{ return theirs(-3); }}");
    let path = folder.image("hashes.c", &source, &[]);
    let loader = loader();
    let theirs = folder.image("theirs.c", "int theirs(int x) { return -x; }", &[]);
    let _theirs = load(&loader, &theirs).unwrap();
    let image = load_bytes(&loader, &changed(&path, |_, _| {})).unwrap();
    assert_eq!(call(&image, "f"), 3);
    let symbols = image.symbols();
    assert_eq!(symbols.hash_of(0), None);
    for (index, _, name) in symbols.iter() {
        assert_eq!(symbols.hash_of(index), Some(Name::new(name).hash));
    }
    assert_eq!(symbols.hash_of(16), Some(0));
    assert_eq!(symbols.hash_of(17), None);
    // An image without them is hashed at load; one with wrong ones finds nothing.
    let none = changed(&path, |_, layout| layout.hashes.1 = 0);
    assert_eq!(call(&load_bytes(&loader, &none).unwrap(), "f"), 3);
    let wrong = changed(&path, |hashes, _| hashes[0] ^= 0x100);
    let missing = load_bytes(&loader, &wrong).unwrap_err();
    assert!(matches!(missing, LoadError::Unresolved { .. }), "{missing}");
    for hashes in [(1 << 50, 4), (0, u32::MAX), (u64::MAX, 1)] {
        let outside = changed(&path, |_, layout| layout.hashes = hashes);
        let error = load_bytes(&loader, &outside).unwrap_err().to_string();
        assert!(error.contains(&ImageError::Truncated("the hashes of its imports").to_string()), "{error}");
    }
}

#[test]
fn unwind_tables_are_where_the_note_says() {
    let folder = Folder::new();
    let source = format!(
        "{ROOM} static int thrower(int x) {{ if (x) throw x; return 0; }}
         extern \"C\" int f() {{ try {{ return thrower(7); }} catch (int x) {{ return x; }} }}"
    );
    let path = folder.image("frames.cpp", &source, &[]);
    let loader = loader();
    loader.open_library(crate::LibraryRequest::Name("stdc++")).unwrap();
    for known in [true, false] {
        let bytes = changed(&path, |_, layout| layout.frames = layout.frames.filter(|_| known));
        assert_eq!(call(&load_bytes(&loader, &bytes).unwrap(), "f"), 7);
    }
    for frames in [(1 << 50, 64), (2, 64)] {
        let bytes = changed(&path, |_, layout| layout.frames = Some(frames));
        // Where the unwinder finds the image by itself, nobody looks there.
        match load_bytes(&loader, &bytes) {
            Ok(image) => assert_eq!(call(&image, "f"), 7),
            Err(error) => assert!(error.to_string().contains("its unwind tables"), "{error}"),
        }
    }
}

#[test]
fn an_image_may_be_linked_at_any_address() {
    let folder = Folder::new();
    let source = "#include <string.h>\nstatic int value = 3; int *place = &value; thread_local int t = 2;
         struct V { virtual int f() { return t + *place; } }; V v; V *pv = &v; static int started;
         __attribute__((constructor)) static void begin() { started = 1; }
         extern \"C\" int f() { return pv->f() * 10 + started + (int)strlen(\"four\") * 100; }";
    let loader = loader();
    for base in ["0x0", "0x10000", "0x200000010000", "0x5ffffff00000", "0x7fffff000000"] {
        let name = format!("at{base}.cpp");
        let path = folder.image(&name, source, &["-std=c++20", &format!("-Wl,--image-base={base}")]);
        for _ in 0..2 {
            assert_eq!(call(&load(&loader, &path).unwrap(), "f"), 451, "{base}");
        }
        // A segment that lies below the first, or beyond all addresses, is none.
        let mut bytes = std::fs::read(&path).unwrap();
        let second = (64..).step_by(56).filter(|at| bytes[*at] == 1).nth(1).unwrap();
        for address in [0u64, 1 << 63, u64::MAX - 4095] {
            bytes[second + 16..second + 24].copy_from_slice(&address.to_le_bytes());
            assert!(load_bytes(&loader, &bytes).is_err());
        }
    }
}

#[test]
fn the_dynamic_section_may_lie_among_tables_or_data() {
    let folder = Folder::new();
    let source = "#define _GNU_SOURCE\n#include <link.h>\n#include <string.h>\n
         static int flags(struct dl_phdr_info *info, size_t size, void *place) {
           int mine = 0, found = 0;
           for (int at = 0; at < info->dlpi_phnum; at++) {
             const ElfW(Phdr) *part = info->dlpi_phdr + at;
             if (part->p_type == PT_DYNAMIC) found = part->p_flags;
             mine |= part->p_type == PT_LOAD && (ElfW(Addr))&flags - info->dlpi_addr - part->p_vaddr < part->p_memsz;
           }
           if (mine) *(int *)place = found;
           return 0;
         }
         int f(void) { int found = 0; dl_iterate_phdr(flags, &found); return found * 10 + (int)strlen(\"four\"); }";
    let loader = loader();
    // What is said of the section is what may be done with it.
    for (name, flag, said) in [("table.c", "-Wl,-z,rodynamic", 44), ("data.c", "-Wl,-z,norelro", 64)] {
        let path = folder.image(name, source, &[flag]);
        assert_eq!(call(&load(&loader, &path).unwrap(), "f"), said, "{name}");
    }
}

#[test]
fn code_and_data_may_lie_far_apart() {
    let folder = Folder::new();
    let flags = [
        "-Wl,--image-base=0x200000100000,--no-rosegment",
        "-Wl,-z,max-page-size=0x100000,-z,noseparate-code,-z,norelro",
    ];
    let source = "static int value = 3, zeros[9000]; int *place = &value;
         int f(void) { return *place + zeros[8000]++; }";
    let path = folder.image("apart.c", source, &flags);
    let loader = loader();
    let image = load(&loader, &path).unwrap();
    assert_eq!((call(&image, "f"), call(&image, "f")), (3, 4));
    assert!(image.range().len() > 1 << 20);
    // Between them is nothing that could be read.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let middle = image.range().start + (1 << 19);
    let line = maps.lines().find(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&middle)
    });
    assert!(line.is_none_or(|line| line.contains("---p")), "{line:?}");
}

#[test]
fn segments_that_can_be_mapped_at_once_are_one() {
    let folder = Folder::new();
    let source = "static int value = 3, zeros[9000]; int *place = &value, *const fixed = &value;
         __attribute__((section(\".bss.rel.ro\"))) int later[3000];
         int f(void) { return *place + *fixed + zeros[8000]++ + later[2999]; }";
    let segments = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        super::headers::parse(&bytes[..bytes.len().min(super::headers::HEADER_BYTES)], bytes.len() as u64)
            .unwrap()
            .segments
    };
    let loader = loader();
    let few =
        "int *place, value, kept = 1; int *const fixed = &value; int f(void) { return place == 0 ? 6 : 0; }";
    for (name, source, flag, count) in [
        ("apart.c", few, "-Wl,-z,noseparate-code", 4),
        ("joined.c", few, "-Wl,-z,separate-loadable-segments", 3),
        // What has no contents in the file takes no room there, so what follows does not continue it.
        ("zeros.c", source, "-Wl,-z,separate-loadable-segments", 4),
    ] {
        let path = folder.image(name, source, &[flag]);
        let segments = segments(&path);
        assert_eq!(segments.len(), count, "{name}: {segments:?}");
        assert_eq!(call(&load(&loader, &path).unwrap(), "f"), 6, "{name}");
    }
}
