//! Input that cannot work: a clear error that names file and reason, the right exit status, nothing on standard output, and
//! a host that goes on. Every case in this process and through a worker.

use crate::support::{End, Outcome, Scratch, archive, clang, execute, finish, hotbed, kept, object};
use hotbed::{
    Archive, Bitcode, Error, Image, Ir, Isolation, Load, Object, Runtime, Severity, SharedLibrary, Source,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODES: [&[&str]; 2] = [&[], &["--isolate"]];

/// Files that are broken in every way.
struct Broken {
    scratch: Scratch,
}

impl Broken {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        scratch.write("undeclared.c", "int main(void) {\n  return x;\n}\n");
        scratch.write("unresolved.c", "int nope(int); int main(void) { return nope(1); }");
        scratch.write("unresolved.cpp", "namespace a { int nope(int); } int main() { return a::nope(1); }");
        scratch.write("bad.ll", "define i32 @main() { ret i64 0 }");
        scratch.write(
            "verify.ll",
            "define i32 @main(i1 %c) {\n br i1 %c, label %a, label %b\na:\n %x = add i32 1, 2\n br label %b\nb:\n ret i32 %x\n}",
        );
        let mut junk = 12345_u32;
        let junk: Vec<u8> = std::iter::repeat_with(|| {
            junk = junk.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (junk >> 24) as u8
        })
        .take(4000)
        .collect();
        for suffix in ["o", "bc", "a", "hbi", "so"] {
            scratch.write(format!("junk.{suffix}"), &junk);
            scratch.write(format!("empty.{suffix}"), "");
        }
        let source = scratch.write("f.c", "int f(void) { return 1; }");
        let made = object(&source, "o", &["-fPIC"]);
        let bitcode = object(&source, "bc", &["-emit-llvm"]);
        let library = scratch.join("f.a");
        archive(&library, &[&made]);
        let cut = |path: &Path, name: &str, share: usize| {
            let bytes = std::fs::read(path).unwrap();
            scratch.write(name, &bytes[..bytes.len() * share / 10])
        };
        cut(&made, "cut.o", 6);
        cut(&bitcode, "cut.bc", 5);
        cut(&library, "cut.a", 4);
        let image = scratch.join("f.hbi");
        finish(hotbed(["image", "build", "--no-cache", "-o"]).arg(&image).arg(&source))
            .assert_success("image");
        cut(&image, "cut.hbi", 7);
        let mut bytes = std::fs::read(&image).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        scratch.write("flipped.hbi", bytes);
        let foreign = |target: &str, name: &str| {
            clang([
                OsStr::new(target),
                "-c".as_ref(),
                source.as_ref(),
                "-o".as_ref(),
                scratch.join(name).as_ref(),
            ]);
        };
        foreign("--target=aarch64-linux-gnu", "arm.o");
        foreign("--target=i386-linux-gnu", "i386.o");
        clang([
            OsStr::new("--target=aarch64-linux-gnu"),
            "-c".as_ref(),
            "-emit-llvm".as_ref(),
            source.as_ref(),
            "-o".as_ref(),
            scratch.join("arm.bc").as_ref(),
        ]);
        let executable = scratch.write("executable.c", "int main(void) { return 0; }");
        clang([executable.as_ref(), OsStr::new("-o"), scratch.join("executable.o").as_ref()]);
        scratch.write("d1.c", "int dup(void) { return 1; }\nint main(void) { return 0; }");
        scratch.write("d2.c", "int dup(void) { return 2; }");
        Self { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = hotbed(["run", "--cache-dir", "store"]);
        finish(command.current_dir(self.scratch.path()).args(arguments))
    }

    /// An error that names `words`.
    #[track_caller]
    fn fails(&self, arguments: &[&str], status: i32, words: &[&str]) -> String {
        let got = self.run(arguments);
        assert_eq!(
            (got.end, got.stdout.as_str()),
            (End::Status(status), ""),
            "{arguments:?}: {}",
            got.stderr
        );
        for word in words {
            assert!(got.stderr.contains(word), "{arguments:?}: no {word:?} in {}", got.stderr);
        }
        for bad in ["panicked", "Stack dump", "RUST_BACKTRACE", "PLEASE submit", "internal error"] {
            assert!(!got.stderr.contains(bad), "{arguments:?}: {}", got.stderr);
        }
        got.stderr
    }
}

const DAMAGED: [&str; 16] = [
    "junk.o",
    "junk.bc",
    "junk.a",
    "junk.hbi",
    "junk.so",
    "empty.o",
    "empty.bc",
    "empty.hbi",
    "empty.so",
    "cut.o",
    "cut.bc",
    "cut.a",
    "cut.hbi",
    "flipped.hbi",
    "bad.ll",
    "verify.ll",
];

#[test]
fn the_command_says_what_is_wrong() {
    let broken = Broken::new("bad-command");
    for mode in MODES {
        let fails = |file: &str, words: &[&str]| broken.fails(&[mode, &[file]].concat(), 1, words);
        fails("nowhere.c", &["cannot read nowhere.c: No such file or directory"]);
        fails(
            "undeclared.c",
            &["undeclared.c:2:10: error: use of undeclared identifier 'x'", "    2 |   return x;"],
        );
        fails("unresolved.c", &["nope", "unresolved.c"]);
        fails("unresolved.cpp", &["a::nope(int)", "unresolved.cpp"]);
        for file in DAMAGED {
            fails(file, &[file]);
        }
        fails("arm.o", &["arm.o", "another architecture", "AArch64"]);
        fails("i386.o", &["i386.o", "another architecture"]);
        fails("arm.bc", &["arm.bc", "aarch64"]);
        fails("executable.o", &["executable.o", "not a relocatable object"]);
        fails("f.c", &["main"]);
        let duplicate = broken.fails(&[mode, &["d1.c", "d2.c"]].concat(), 1, &["dup", "d1.c", "d2.c"]);
        assert!(duplicate.lines().last().unwrap().starts_with("hotbed: error: "), "{duplicate}");
        broken.fails(&[mode, &["."]].concat(), 2, &["."]);
    }
}

#[test]
fn usage_is_status_two() {
    let broken = Broken::new("bad-usage");
    for (arguments, word) in [
        (&[][..], "file"),
        (&["--no-such-option-of-anybody", "f.c"], "--no-such-option-of-anybody"),
        (&["-c", "f.c"], "-c"),
        (&["-o", "x", "f.c"], "-o"),
        (&["readme"], "readme"),
        (&["-"], "--lang"),
        (&["--cache-dir"], "--cache-dir"),
        (&["--lang", "ada", "f.c"], "ada"),
    ] {
        broken.fails(arguments, 2, &[word]);
    }
    assert_eq!(finish(&mut hotbed(["frobnicate"])).end, End::Status(2));
    assert_eq!(finish(&mut hotbed(["image", "build", "x.c"])).end, End::Status(2));
}

#[test]
fn objects_that_cannot_move_are_run_or_explained() {
    let broken = Broken::new("bad-pic");
    let made = |name: &str, text: &str, flags: &[&str]| {
        object(&broken.scratch.write(format!("{name}.c"), text), "o", flags);
        format!("{name}.o")
    };
    let refers = "#include <stdio.h>\nextern int stranger; int main(void) { fprintf(stdout, \"%d\", stranger); return 0; }";
    let local = "static int t; int *p = &t; int main(void) { return *p; }";
    let thread = "_Thread_local int t = 5; int main(void) { return t - 5; }";
    let files = [
        made("nopic", refers, &["-fno-pic", "-mcmodel=small"]),
        made("kernel", local, &["-fno-pic", "-mcmodel=kernel"]),
        made("localexec", thread, &["-fPIC", "-ftls-model=local-exec"]),
        made(
            "initialexec",
            "_Thread_local int e; int main(void) { return e; }",
            &["-fPIC", "-ftls-model=initial-exec"],
        ),
        made(
            "text",
            "int f(void); int main(void) { return f(); }\nvoid *const table[] __attribute__((section(\".text.table,\\\"ax\\\",@progbits#\"))) = {main};",
            &["-fno-pic"],
        ),
    ];
    for mode in MODES {
        for file in &files {
            let got = broken.run(&[mode, &[file]].concat());
            if got.end != End::Status(0) {
                assert_eq!(got.end, End::Status(1), "{file}: {}", got.stderr);
                assert!(
                    got.stderr.contains("fPIC") && got.stderr.contains(file.as_str()),
                    "{file}: {}",
                    got.stderr
                );
            }
        }
    }
    let gcc = broken.scratch.write("gcc.cpp", "#include <iostream>\nint main() { std::cout << 1; }");
    let made = broken.path("gcc.o");
    execute(Command::new("g++").args(["-fno-pie", "-c"]).arg(&gcc).arg("-o").arg(&made));
    let got = broken.run(&["gcc.o"]);
    if got.end != End::Status(0) {
        assert!(
            got.stderr.contains("gcc.o") && got.stderr.contains("recompile with -fPIC"),
            "{}",
            got.stderr
        );
    }
}

/// The section headers' bytes of an object, each 64 long, and where they begin.
fn section_headers(bytes: &[u8]) -> (usize, usize) {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    (word(0x28), usize::from(u16::from_le_bytes([bytes[0x3c], bytes[0x3d]])))
}

#[test]
fn sections_that_would_end_the_linker_are_refused() {
    let scratch = Scratch::new("bad-sections");
    let made =
        object(&scratch.write("s.c", "int bss[9]; int f(void) { return bss[1]; }"), "o", &["-fPIC", "-g"]);
    let sound = std::fs::read(made).unwrap();
    let (start, count) = section_headers(&sound);
    let field = |index: usize, at: usize| start + index * 64 + at;
    let read = |at: usize| u64::from_le_bytes(sound[at..at + 8].try_into().unwrap());
    let kind = |index: usize| u32::from_le_bytes(sound[field(index, 4)..field(index, 8)].try_into().unwrap());
    let find = |what: &dyn Fn(usize) -> bool| (1..count).find(|&index| what(index)).unwrap();
    let empty = find(&|index| kind(index) == 1 && read(field(index, 32)) == 0);
    let in_memory = find(&|index| kind(index) == 1 && read(field(index, 8)) & 2 != 0);
    let in_file = find(&|index| kind(index) == 1 && read(field(index, 8)) == 0 && read(field(index, 32)) > 0);
    let zeros = find(&|index| kind(index) == 8);
    let runtime = Runtime::builder().no_cache().build().unwrap();
    for (what, index, at, value) in [
        ("an empty section outside the file", empty, 24, 1_u64 << 40),
        ("an empty section at the end of all addresses", empty, 24, u64::MAX),
        ("a section outside the file", in_memory, 24, 1 << 40),
        ("an alignment of 4 GiB", in_memory, 48, 1 << 32),
        ("an alignment of 1 GiB in the file", in_file, 48, 1 << 30),
        ("an alignment that is none", in_memory, 48, 3),
        ("zeros without end", zeros, 32, 1 << 39),
    ] {
        let mut bytes = sound.clone();
        bytes[field(index, at)..field(index, at) + 8].copy_from_slice(&value.to_le_bytes());
        let error = runtime.load(Object::bytes("sections.o", bytes)).unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{what}: {error:?}");
        assert!(error.to_string().starts_with("cannot load sections.o: "), "{what}: {error}");
    }
    runtime.load(Object::bytes("sections.o", sound.clone())).unwrap();
}

#[test]
fn the_library_says_what_is_wrong_and_goes_on() {
    let broken = Broken::new("bad-library");
    for isolation in [Isolation::InProcess, Isolation::Process] {
        let runtime = Runtime::builder().no_cache().isolation(isolation).build().unwrap();
        let error = |load: Load| runtime.load(load).unwrap_err();
        for file in DAMAGED.iter().chain(&["arm.o", "i386.o", "arm.bc", "executable.o"]) {
            let path = broken.path(file);
            let load: Load = match path.extension().unwrap().to_str().unwrap() {
                "o" => Object::file(&path).into(),
                "bc" => Bitcode::file(&path).into(),
                "a" => Archive::file(&path).into(),
                "hbi" => Image::file(&path).into(),
                "ll" => Ir::file(&path).into(),
                _ => SharedLibrary::path(&path).into(),
            };
            let error = error(load);
            let said = error.to_string();
            assert!(said.contains(file) && !said.contains('\n') && !error.is_usage(), "{file}: {said}");
            // From memory, where there is no path to name.
            let bytes = std::fs::read(&path).unwrap();
            let load: Load = match path.extension().unwrap().to_str().unwrap() {
                "o" => Object::bytes("in memory", bytes).into(),
                "bc" => Bitcode::bytes("in memory", bytes).into(),
                "a" => Archive::bytes("in memory", bytes).into(),
                "hbi" => Image::bytes("in memory", bytes).into(),
                "ll" => Ir::bytes("in memory", bytes).into(),
                _ => continue,
            };
            let said = runtime.load(load).unwrap_err().to_string();
            assert!(said.contains("in memory"), "{file}: {said}");
        }
        let kinds = [
            (error(Object::file(broken.path("junk.o")).into()), "Input"),
            (error(Source::file(broken.path("undeclared.c")).into()), "Compile"),
            (error(Source::file(broken.path("unresolved.c")).into()), "Bind"),
            (error(Source::files([broken.path("d1.c"), broken.path("d2.c")]).into()), "Link"),
            (error(Source::file(broken.path("none.c")).into()), "Read"),
            (error(Image::file(broken.path("flipped.hbi")).into()), "Image"),
            (error(SharedLibrary::name("no-such-library-anywhere").into()), "Library"),
        ];
        for (error, kind) in &kinds {
            let variant = format!("{error:?}");
            assert!(variant.starts_with(kind), "{variant}");
        }
        assert!(runtime.units().is_empty());
        let unit = runtime.load(Source::file(broken.path("f.c"))).unwrap();
        assert!(unit.address_of("f").is_some());
    }
}

#[test]
fn diagnostics_have_file_line_and_column() {
    let scratch = Scratch::new("bad-diagnostics");
    scratch.write("inc.h", "\n\nint g(void) { return y; }\n");
    let source =
        scratch.write("d.c", "#include \"inc.h\"\nint f(int a) {\n  int unused;\n  return a +;\n}\n");
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let error = runtime.load(Source::file(&source).flags(["-Wall"])).unwrap_err();
    let found: Vec<(Severity, bool, u32, u32)> = error
        .diagnostics()
        .iter()
        .map(|d| (d.severity, d.file.ends_with("inc.h"), d.line, d.column))
        .filter(|(severity, ..)| *severity == Severity::Error)
        .collect();
    assert_eq!(found, [(Severity::Error, true, 3, 22), (Severity::Error, false, 4, 13)]);
    let rendered = error.render();
    assert!(
        rendered.contains("d.c:4:13: error: expected expression") && rendered.contains("^"),
        "{rendered}"
    );
    assert!(!rendered.contains('\x1b'), "{rendered:?}");
    let colored = Runtime::builder().no_cache().color(true).build().unwrap();
    let rendered = colored.load(Source::file(&source)).unwrap_err().render();
    assert!(rendered.contains("\x1b["), "{rendered:?}");
    let warned =
        runtime.load(Source::text("w.c", "int f(void) { int u; return 1; }").flags(["-Wall"])).unwrap();
    let warnings = &warned.report().diagnostics;
    assert_eq!((warnings.len(), warnings[0].severity), (1, Severity::Warning));
    assert!(warned.report().rendered.contains("w.c:1:19: warning: unused variable 'u'"));
}

#[test]
fn unresolved_symbols_say_who_needs_them_and_who_was_asked() {
    let text = "namespace a { struct S { S(int); }; int nope(const S &, double); extern int *data; } \
                extern \"C\" int plain(void); extern \"C\" int f() { return a::nope(a::S(1), 2) + *a::data + plain(); }";
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let error = runtime.load(Source::text("needs.cpp", text).named("the unit")).unwrap_err();
    let said = error.to_string();
    for word in
        ["a::nope(a::S const&, double)", "a::S::S(int)", "a::data", "plain", "the unit", "the process"]
    {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    let Error::Bind { source, .. } = &error else { panic!("{error:?}") };
    let hotbed::LoadError::Unresolved { symbols, asked, .. } = &**source else { panic!("{source:?}") };
    assert_eq!(symbols.len(), 4, "{symbols:?}");
    assert!(asked.len() >= 3, "{asked:?}");
    assert!(runtime.units().is_empty());
}

#[test]
fn a_plugin_that_is_missing_or_of_another_build() {
    let scratch = Scratch::new("bad-plugin");
    let text = || Source::text("u.c", "int f;");
    let with =
        |path: &Path| Runtime::builder().no_cache().back_end(path).build().unwrap().load(text()).unwrap_err();
    let missing = with(&scratch.join("libhotbed_jit.so"));
    assert!(matches!(missing, Error::Plugin { .. }), "{missing:?}");
    let shown = scratch.join("libhotbed_jit.so").display().to_string();
    assert!(missing.to_string().starts_with("no back end to compile u.c with: "), "{missing}");
    assert!(missing.to_string().contains(&shown), "{missing}");
    let foreign = crate::support::shared_library(
        &scratch.write(
            "hotbed_jit.c",
            "static const struct { unsigned long size; const char *build; void *a, *b; } table = { sizeof table, \"0.0.9-other\" }; \
             const void *hotbed_back_end(void) { return &table; }",
        ),
        &[],
    );
    let other = with(&foreign).to_string();
    assert!(
        other.contains("another build") && other.contains("0.0.9-other") && other.contains(hotbed::BUILD),
        "{other}"
    );
    let none = with(Path::new("/lib/x86_64-linux-gnu/libm.so.6")).to_string();
    assert!(none.contains("not a plugin of Hotbed"), "{none}");
    let junk = scratch.write("junk.so", "junk");
    assert!(with(&junk).to_string().contains("junk.so"));

    // The command, alone in a folder.
    let alone = scratch.join("hotbed");
    std::fs::copy(env!("CARGO_BIN_EXE_hotbed"), &alone).unwrap();
    let source = scratch.write("m.c", "int main(void) { return 4; }");
    let run = |variable: &Path, flags: &[&str]| {
        let mut command = Command::new(&alone);
        command.arg("run").args(flags).arg("--cache-dir").arg(scratch.join("store")).arg(&source);
        finish(command.env("HOTBED_JIT", variable).env_remove("HOTBED_WORKER"))
    };
    for flags in MODES {
        let got = run(Path::new(""), flags);
        assert_eq!((got.end, got.stdout.as_str()), (End::Status(1), ""), "{}", got.stderr);
        assert!(got.stderr.contains("libhotbed_jit.so"), "{}", got.stderr);
        let got = run(&foreign, flags);
        assert_eq!(got.end, End::Status(1));
        assert!(got.stderr.contains("0.0.9-other"), "{}", got.stderr);
    }
    // What is in the store needs no plugin.
    let mut warm = hotbed(["run", "--cache-dir"]);
    assert_eq!(finish(warm.arg(scratch.join("store")).arg(&source)).end, End::Status(4));
    kept(&scratch.join("store"));
    assert_eq!(run(Path::new(""), &[]).end, End::Status(4));
}

#[test]
fn doctor_says_what_is_missing() {
    let well = finish(&mut hotbed(["doctor"]));
    assert_eq!(well.end, End::Status(0), "{}{}", well.stdout, well.stderr);
    assert!(
        well.stdout.contains("back end: build") && well.stdout.contains(hotbed::BUILD),
        "{}",
        well.stdout
    );
    let scratch = Scratch::new("bad-doctor");
    let alone = scratch.join("hotbed");
    std::fs::copy(env!("CARGO_BIN_EXE_hotbed"), &alone).unwrap();
    let ill = finish(Command::new(&alone).arg("doctor").env_remove("HOTBED_JIT"));
    assert_eq!(ill.end, End::Status(1), "{}{}", ill.stdout, ill.stderr);
    assert!(format!("{}{}", ill.stdout, ill.stderr).contains("libhotbed_jit.so"));
}
