use super::*;
use hotbed_loader::image::note;
use hotbed_loader::sys::files::contents;
use std::os::fd::AsFd;

fn request(arguments: Vec<Argument>) -> Request {
    Request { unit: "test".into(), arguments, directory: std::env::temp_dir(), ..Request::default() }
}

fn text(lang: Lang, name: &str, bytes: &[u8]) -> Argument {
    Argument::Input(Input { lang, content: Content::Bytes { name: name.into(), bytes: bytes.into() } })
}

fn failure(arguments: Vec<Argument>) -> Failure {
    match InProcess::new().compile(&request(arguments)) {
        Ok(_) => panic!("an image where none can be"),
        Err(failure) => failure,
    }
}

#[test]
fn c_becomes_a_sealed_image_with_its_dependencies() {
    let source = b"#include <stdio.h>\nint hello(void) { return puts(\"hi\"); }\n";
    let arguments = vec![Argument::Flag("-O1".into()), text(Lang::C, "hello.c", source)];
    let (reply, image) = InProcess::new().compile(&request(arguments)).expect("an image");
    let bytes = contents(image.as_fd()).expect("its bytes");
    note::verify(&bytes).expect("sealed");
    let metadata = Metadata::of_file(&bytes).expect("metadata");
    assert_eq!((metadata.unit.as_str(), metadata.flags), ("test", vec!["-O1".to_owned()]));
    assert_eq!((reply.counts.units_compiled, reply.counts.functions_compiled), (1, 1));
    assert!(reply.reproducible);
    assert!(reply.dependencies.contains(&Dependency::File("/usr/include/stdio.h".into())));
    assert!(reply.dependencies.contains(&Dependency::Missing("/usr/local/include/stdio.h".into())));
    let of_libc = |d: &Dependency| matches!(d, Dependency::File(path) if path.ends_with("libc.so.6"));
    assert!(reply.dependencies.iter().any(of_libc), "{:?}", reply.dependencies);
}

#[test]
fn languages_mix_in_one_image() {
    let c = b"int one(void) { return 1; }";
    let cpp = b"#include <string>\nextern \"C\" int one(); int two() { return one() + (int)std::string(\"x\").size(); }";
    let ir = b"define i32 @three() { ret i32 3 }";
    let arguments =
        vec![text(Lang::C, "one.c", c), text(Lang::Cpp, "two.cpp", cpp), text(Lang::Ir, "three.ll", ir)];
    let (reply, _image) = InProcess::new().compile(&request(arguments)).expect("an image");
    assert_eq!(reply.counts.units_compiled, 3);
    assert!(reply.log.iter().any(|line| line.starts_with("ld.lld ") && line.contains("-lstdc++")));
}

#[test]
fn files_that_the_assembler_reads_make_an_image_irreproducible() {
    // Nobody sees the assembler open them.
    let c = b"__asm__(\".section .rodata\\nblob: .incbin \\\"/etc/debian_version\\\"\\n.text\\n\");";
    let ir = b"module asm \".section .rodata\"\nmodule asm \".incbin \\22/etc/debian_version\\22\"";
    let call = b"define void @f() { call void asm sideeffect \".incbin \\22/etc/debian_version\\22\", \"\"() ret void }";
    for (lang, name, source) in
        [(Lang::C, "blob.c", &c[..]), (Lang::Ir, "blob.ll", ir), (Lang::Ir, "call.ll", call)]
    {
        let (reply, _image) =
            InProcess::new().compile(&request(vec![text(lang, name, source)])).expect("an image");
        assert!(!reply.reproducible, "{name}");
    }
}

#[test]
fn a_standard_is_for_the_language_that_has_it() {
    let c = || text(Lang::C, "old.c", b"int old(void) { return __STDC_VERSION__ == 199901L; }");
    let cpp =
        || text(Lang::Cpp, "new.cpp", b"static_assert(__cplusplus == 201703L); int fresh() { return 1; }");
    let flags = || ["-std=c++17", "-std=c99"].map(|flag| Argument::Flag(flag.into()));
    let both = flags().into_iter().chain([c(), cpp()]).collect();
    InProcess::new().compile(&request(both)).expect("an image");
    let alone = failure(vec![Argument::Flag("-std=c++17".into()), c()]);
    assert!(alone.message.contains("not allowed with 'C'"), "{}", alone.message);
}

#[test]
fn the_source_that_does_not_compile_is_named() {
    let mut sources: Vec<_> =
        (0..6).map(|i| text(Lang::C, &format!("{i}.c"), format!("int f{i};").as_bytes())).collect();
    sources.insert(3, text(Lang::C, "bad.c", b"int f(void) { return nothing; }"));
    assert!(failure(sources).message.starts_with("cannot compile bad.c: bad.c:1:"));
}

#[test]
fn what_does_not_compile_says_where() {
    let failure = failure(vec![text(Lang::C, "bad.c", b"int f(void) {\n  return x;\n}")]);
    assert_eq!(failure.kind, FailureKind::Compile);
    assert_eq!(failure.message, "cannot compile bad.c: bad.c:2:10: use of undeclared identifier 'x'");
    assert!(failure.rendered.contains("    2 |   return x;\n"), "{}", failure.rendered);
    assert_eq!((failure.diagnostics[0].line, failure.diagnostics[0].column), (2, 10));
}

#[test]
fn ir_that_does_not_verify_is_refused() {
    let parse = failure(vec![text(Lang::Ir, "bad.ll", b"define i32 @f() { ret i64 0 }")]);
    assert!(parse.message.starts_with("cannot read bad.ll: bad.ll:1:"), "{}", parse.message);
    let verify = failure(vec![text(
        Lang::Ir,
        "use.ll",
        b"define i32 @f(i1 %c) {\n br i1 %c, label %a, label %b\na:\n %x = add i32 1, 2\n br label %b\nb:\n ret i32 %x\n}",
    )]);
    assert!(verify.message.contains("does not verify"), "{}", verify.message);
    let other = failure(vec![text(Lang::Ir, "arm.ll", b"target triple = \"aarch64-linux-gnu\"")]);
    assert!(other.message.contains("aarch64"), "{}", other.message);
}

#[test]
fn flags_that_clang_does_not_know_are_a_usage_error() {
    let failure = failure(vec![Argument::Flag("--no-such".into()), text(Lang::C, "a.c", b"")]);
    assert_eq!(failure.kind, FailureKind::Usage);
    assert!(failure.message.contains("--no-such"), "{}", failure.message);
}

/// Imports with versions and the libraries they are expected in, and the needed libraries.
fn asked_of_libraries(image: &OwnedFd) -> Vec<String> {
    use object::LittleEndian as LE;
    use object::read::elf::{Dyn, FileHeader};
    let bytes = contents(image.as_fd()).expect("its bytes");
    let header = object::elf::FileHeader64::<LE>::parse(&*bytes).expect("a header");
    let sections = header.sections(LE, &*bytes).expect("sections");
    let symbols = sections.symbols(LE, &*bytes, object::elf::SHT_DYNSYM).expect("symbols");
    let versions = sections.versions(LE, &*bytes).expect("versions").expect("versions");
    let mut asked = Vec::new();
    for (index, symbol) in symbols.enumerate().filter(|(_, s)| s.st_shndx.get(LE) == object::elf::SHN_UNDEF) {
        let version = versions.version(versions.version_index(LE, index).index()).expect("a version");
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        asked.push(format!(
            "{} {} {} {:?}",
            text(symbols.symbol_name(LE, symbol).ok()),
            text(version.map(|v| v.name())),
            text(version.and_then(|v| v.file())),
            symbol.st_type()
        ));
    }
    let (dynamic, link) = sections.dynamic(LE, &*bytes).expect("dynamic").expect("dynamic");
    let strings = sections.strings(LE, &*bytes, link).expect("strings");
    for entry in dynamic.iter().filter(|entry| entry.tag(LE) == object::elf::DT_NEEDED) {
        asked.push(String::from_utf8_lossy(entry.string(LE, strings).expect("a name")).into_owned());
    }
    asked.sort();
    asked
}

#[test]
fn reduced_libraries_give_the_same_imports() {
    let source = b"#include <cmath>\n#include <cstdlib>\n#include <iostream>\n#include <thread>\n\
        double root(double x) { static thread_local int n; std::cout << x << std::endl; n++; \
        std::atexit([] {}); std::thread([] {}).join(); if (x < 0) throw 1; return std::pow(x, n) + std::exp(x); }";
    let link = |flag: &str| {
        let flags = [flag, "-lm"].map(|flag| Argument::Flag(flag.into()));
        let arguments = flags.into_iter().chain([text(Lang::Cpp, "root.cpp", source)]).collect();
        let (reply, image) = InProcess::new().compile(&request(arguments)).expect("an image");
        let of_libstdcpp = |d: &Dependency| matches!(d, Dependency::File(p) if p.ends_with("libstdc++.so"));
        assert!(reply.dependencies.iter().any(of_libstdcpp), "{:?}", reply.dependencies);
        asked_of_libraries(&image)
    };
    let reduced = link("-O0");
    assert!(reduced.iter().any(|line| line.starts_with("pow GLIBC_2.29 libm.so.6")), "{reduced:#?}");
    assert_eq!(reduced, link("-Wl,-z,relro"));
}

#[test]
fn a_hidden_entry_is_exported() {
    let source = text(Lang::C, "m.c", b"int helper(void) { return 1; } int main(void) { return helper(); }");
    let flag = Argument::Flag("-fvisibility=hidden".into());
    let request = Request { entry: Some("main".into()), ..request(vec![flag, source]) };
    let (_, image) = InProcess::new().compile(&request).expect("an image");
    let bytes = contents(image.as_fd()).expect("its bytes");
    use object::{Object, ObjectSymbol};
    let names: Vec<String> = object::File::parse(&*bytes)
        .expect("an ELF file")
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .map(|symbol| symbol.name().expect("a name").to_owned())
        .collect();
    assert_eq!(names, ["main"]);
}

#[test]
fn two_strong_definitions_name_both_files() {
    let one = text(Lang::C, "one.c", b"int dup(void) { return 1; }");
    let two = text(Lang::C, "two.c", b"int dup(void) { return 2; }");
    let failure = failure(vec![one, two]);
    assert_eq!(failure.kind, FailureKind::Link);
    assert!(failure.message.contains("dup"), "{}", failure.message);
    assert!(failure.rendered.contains("one.c") && failure.rendered.contains("two.c"), "{}", failure.rendered);
}

#[test]
fn time_macros_make_an_image_irreproducible() {
    let source = text(Lang::C, "t.c", b"const char *when(void) { return __TIME__; }");
    let (reply, _image) = InProcess::new().compile(&request(vec![source])).expect("an image");
    assert!(!reply.reproducible);
}

#[test]
fn damaged_objects_are_refused_by_name() {
    for (lang, name) in [(Lang::Object, "junk.o"), (Lang::Archive, "junk.a"), (Lang::Bitcode, "junk.bc")] {
        for bytes in [&b""[..], b"garbage that is longer than a header, and then some more of it to be sure"]
        {
            let failure = failure(vec![text(lang, name, bytes)]);
            assert!(failure.message.contains(name), "{}", failure.message);
        }
    }
}
