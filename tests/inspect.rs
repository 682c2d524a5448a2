//! Images that are looked at and not loaded: `hotbed image inspect` and `verify`, `Image::inspect` and `verify`.

use crate::support::{End, Outcome, Scratch, finish, hotbed, shared_library};
use hotbed::{Error, Image, ImageError, Layer, Runtime, Source, SymbolKind};
use std::path::{Path, PathBuf};

const TEXT: &str = "#include <math.h>\n#include <stdio.h>\n#include <dlfcn.h>\n
    int value = 3; int zeros[1000]; thread_local int mine;
    int nobody_knows(int); inline int shared(int x) { static int count; return count += x; }
    extern \"C\" double root(double x) { return std::sqrt(x) + std::pow(x, 0.3) + shared(2) + zeros[value] + mine; }
    namespace n { int twice(int x) { printf(\"%d\\n\", x); return dlsym(nullptr, \"x\") ? 0 : 2 * nobody_knows(x); } }";

fn build(scratch: &Scratch) -> PathBuf {
    let source = scratch.write("src/n.cpp", TEXT);
    let image = scratch.join("n.hbi");
    let mut command = hotbed(["image", "build", "--no-cache", "-O1", "-DX=a b", "-o"]);
    finish(command.arg(&image).arg(&source).arg("-lm")).assert_success("image build");
    image
}

fn image(arguments: &[&str], file: &Path) -> Outcome {
    finish(hotbed(["image"]).args(arguments).arg(file))
}

#[test]
fn the_library_describes_an_image() {
    let scratch = Scratch::new("inspect-library");
    let path = build(&scratch);
    let of_bytes = Image::bytes("n", std::fs::read(&path).unwrap()).inspect().unwrap();
    let image = Image::file(&path).inspect().unwrap();
    assert_eq!(image, of_bytes);
    assert_eq!(image.name.as_deref(), Some("n.hbi"));
    assert_eq!(image.size, std::fs::metadata(&path).unwrap().len());
    assert!(image.memory > 4000);
    assert_eq!(image.metadata.flags, ["-O1", "-DX=a b", "-lm"]);
    assert_eq!(image.metadata.build, hotbed::BUILD);
    let [(source, _)] = &image.metadata.inputs[..] else { panic!("{:?}", image.metadata.inputs) };
    assert!(source.ends_with("src/n.cpp"), "{source}");
    assert!(image.needed.iter().any(|name| name == "libm.so.6"), "{:?}", image.needed);
    assert!(image.functions.is_empty() && image.sources.is_empty());
    assert!(image.build_id.as_ref().is_some_and(|id| id.len() >= 8));

    let export = |name: &str| image.exports.iter().find(|one| one.name == name).unwrap();
    let of = |name| (export(name).kind, export(name).size, export(name).weak, export(name).compiled);
    assert_eq!(of("value"), (SymbolKind::Data, 4, false, true));
    assert_eq!(of("mine"), (SymbolKind::Tls, 4, false, true));
    assert_eq!(export("_ZN1n5twiceEi").demangled.as_deref(), Some("n::twice(int)"));
    assert_eq!(export("root").kind, SymbolKind::Function);
    assert!(export("_ZZ6sharediE5count").weak);
    let import = |name: &str| image.imports.iter().find(|one| one.name == name).unwrap();
    let of = |name| (import(name).layer, import(name).from.as_deref(), import(name).weak);
    assert_eq!(of("printf"), (Layer::Process, Some("libc.so.6"), false));
    assert_eq!(of("pow"), (Layer::Process, Some("libm.so.6"), false));
    assert_eq!(import("pow").version.as_deref(), Some("GLIBC_2.29"));
    assert_eq!(of("dlsym").0, Layer::Runtime);
    assert_eq!(of("_Z12nobody_knowsi"), (Layer::Host, None, false));
    let section = |name: &str| image.sections.iter().find(|one| one.name == name).unwrap();
    assert!(section(".text").executable && section(".text").address.is_some());
    assert!(section(".bss").size >= 4000 && !section(".bss").in_file && section(".bss").writable);
    assert_eq!(section(".hotbed").address, None);
}

#[test]
fn the_command_says_the_same_to_people_and_to_tools() {
    let scratch = Scratch::new("inspect-command");
    let path = build(&scratch);
    let shown = image(&["inspect"], &path).assert_success("inspect").stdout;
    for line in [
        "name       n.hbi",
        "flags      -O1 -DX=a b -lm",
        "functions  all compiled",
        "_ZN1n5twiceEi  n::twice(int)",
        "  libm.so.6           pow@GLIBC_2.29",
        "  Hotbed              dlsym@GLIBC_2.34",
        "  host or other units _Z12nobody_knowsi  nobody_knows(int)",
    ] {
        // Columns are as wide as what is in them.
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_there =
            shown.lines().any(|shown| shown.split_whitespace().collect::<Vec<_>>().ends_with(&words));
        assert!(is_there, "no {line} in {shown}");
    }
    let json = image(&["inspect", "--json"], &path).assert_success("inspect --json").stdout;
    assert_eq!(json.lines().count(), 1);
    for field in [
        "{\"name\":\"n.hbi\",\"unit\":",
        "\"flags\":[\"-O1\",\"-DX=a b\",\"-lm\"]",
        "\"name\":\"_ZN1n5twiceEi\",\"demangled\":\"n::twice(int)\",\"version\":null,\"kind\":\"function\"",
        "\"name\":\"pow\",\"demangled\":null,\"version\":\"GLIBC_2.29\",\"weak\":false,\"layer\":\"process\",\"from\":\"libm.so.6\"",
        "\"functions\":[]}",
    ] {
        assert!(json.contains(field), "no {field} in {json}");
    }
}

#[test]
fn what_is_bitcode_only_is_told() {
    let scratch = Scratch::new("inspect-lazy");
    let path = scratch.join("lazy.hbi");
    let text = "static int inner(int x) { return x * 7; } int seldom(int x) { return inner(x); }\n\
                int often(int x) { return x + 1; } int data = 5;";
    let runtime = Runtime::builder().no_cache().build().unwrap();
    runtime.image(&path).unit(Source::text("lazy.c", text).lazy()).build().unwrap();
    let image = Image::file(&path).inspect().unwrap();
    assert_eq!(image.sources, ["lazy.c"]);
    let mut names: Vec<&str> = image.functions.iter().filter_map(|one| one.name.as_deref()).collect();
    names.sort_unstable();
    assert!(names.contains(&"often") && names.contains(&"seldom"), "{names:?}");
    assert!(image.functions.iter().all(|one| !one.compiled && one.source == 0));
    let compiled = |name: &str| image.exports.iter().find(|one| one.name == name).unwrap().compiled;
    assert!(!compiled("often") && !compiled("seldom") && compiled("data"));
    let shown = finish(hotbed(["image", "inspect"]).arg(&path)).assert_success("inspect").stdout;
    assert!(shown.contains("of them bitcode only") && shown.contains("\nbitcode only ("), "{shown}");
    Image::file(&path).verify().unwrap();
}

#[test]
fn what_is_no_sound_image_says_why() {
    let scratch = Scratch::new("inspect-unsound");
    let path = build(&scratch);
    let library = shared_library(&scratch.write("plain.c", "int f(void) { return 1; }"), &[]);
    let bytes = std::fs::read(&path).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    let cases = [
        (library, "not an image written by Hotbed"),
        (scratch.write("flipped.hbi", &flipped), "the checksum does not match"),
        (scratch.write("short.hbi", &bytes[..bytes.len() / 2]), "short.hbi: "),
        (scratch.write("text.hbi", "hello"), "not an ELF file"),
        (scratch.join("nowhere.hbi"), "No such file or directory"),
        (scratch.path().to_owned(), "cannot read"),
    ];
    for (file, reason) in cases {
        for arguments in [&["inspect"][..], &["inspect", "--json"], &["verify"]] {
            let got = image(arguments, &file);
            assert_eq!((got.end, got.stdout.as_str()), (End::Status(1), ""), "{arguments:?} {reason}");
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(got.stderr.contains(name) && got.stderr.contains(reason), "{}", got.stderr);
        }
    }
    // All are looked at.
    let mut both = hotbed(["image", "verify"]);
    let got = finish(both.arg(scratch.join("flipped.hbi")).arg(&path));
    assert_eq!(got.end, End::Status(1));
    assert!(got.stdout.contains("n.hbi: sound") && got.stderr.contains("flipped.hbi"), "{got:?}");
    let error = Image::bytes("flipped", flipped).verify().unwrap_err();
    assert!(matches!(error, Error::Image { source: ImageError::Checksum, .. }), "{error}");
}

#[test]
fn tables_are_looked_at_whatever_the_checksum_says() {
    let scratch = Scratch::new("verify-tables");
    let path = build(&scratch);
    let sound = std::fs::read(&path).unwrap();
    Image::bytes("sound", sound.clone()).verify().unwrap();
    // Somebody lies about the size of the relocations, and seals the image again.
    let mut lying = sound.clone();
    let entry = 8u64.to_le_bytes();
    let section = dynamic(&sound);
    let at = section.clone().step_by(16).find(|at| lying[*at..*at + 8] == entry).unwrap();
    lying[at + 8..at + 16].copy_from_slice(&(1u64 << 40).to_le_bytes());
    hotbed_loader::image::note::seal(&mut lying).unwrap();
    let error = Image::bytes("lying", lying).verify().unwrap_err().to_string();
    assert!(error.contains("lying") && error.contains("a table of relocations"), "{error}");
}

/// Where in the file the dynamic section is.
fn dynamic(file: &[u8]) -> std::ops::Range<usize> {
    use object::{Object, ObjectSection};
    let parsed = object::File::parse(file).unwrap();
    let (start, size) = parsed.section_by_name(".dynamic").unwrap().file_range().unwrap();
    start as usize..(start + size) as usize
}
