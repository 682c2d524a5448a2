//! Every kind of input, as plain clang makes it (for executables, not for shared objects), through the command and through
//! the library, against the executable.

use crate::support::{
    Outcome, Scratch, archive, clang, clangxx, execute, finish, hotbed, object, shared_library,
};
use hotbed::{
    Archive, Bitcode, Image, Ir, Lang, Object, Program, Runtime, SharedLibrary, Source, Unit, host_fn,
};
use inkwell::context::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

const HELLO: &str = r#"
#include <stdio.h>
static int counter = 40;
int table[3] = {1, 2, 3};
int *pointer = &table[1];
const char *const words[] = {"zero", "one"};
int bump(void) { return ++counter; }
int main(int argc, char **argv) {
  fprintf(stdout, "%s %d %d %d\n", words[argc > 0], bump(), *pointer, argc);
  return counter;
}
"#;

const SHAPES: &str = r#"
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <typeinfo>
#include <vector>
struct Shape { virtual ~Shape() = default; virtual double area() const = 0; };
template <class T> struct Square : Shape { T side; explicit Square(T s) : side(s) {} double area() const override { return double(side) * side; } static int made; };
template <class T> int Square<T>::made = 0;
inline int instances = 7;
inline const std::string &name() { static const std::string text = "shapes"; return text; }
int main(int argc, char **) {
  std::vector<std::unique_ptr<Shape>> shapes;
  for (int i = 1; i < 4; i++) { shapes.push_back(std::make_unique<Square<int>>(i)); Square<int>::made++; }
  shapes.push_back(std::make_unique<Square<float>>(0.5f));
  double sum = 0;
  for (auto &s : shapes) sum += s->area();
  std::map<std::string, int> count;
  for (auto word : {"a", "b", "a"}) count[word]++;
  std::cout << name() << ' ' << sum << ' ' << Square<int>::made << ' ' << instances << ' ' << count["a"] << std::endl;
  std::printf("%d %s\n", dynamic_cast<Square<float> *>(shapes.back().get()) != nullptr, typeid(*shapes[0]).name());
  return int(sum);
}
"#;

/// A program as source, with the executable's outcome.
struct Sample {
    scratch: Scratch,
    source: PathBuf,
    want: Outcome,
}

impl Sample {
    fn new(name: &str, file: &str, text: &str) -> Self {
        let scratch = Scratch::new(&format!("inputs-{name}"));
        let source = scratch.write(file, text);
        let executable = scratch.join("executable");
        let compiler = if file.ends_with(".c") { "clang-22" } else { "clang++-22" };
        execute(Command::new(compiler).arg("-w").arg(&source).arg("-o").arg(&executable));
        let want = finish(&mut Command::new(&executable));
        Self { scratch, source, want }
    }

    /// Runs files with the command, cold and warm.
    #[track_caller]
    fn runs(&self, files: &[&Path], flags: &[&str]) {
        for round in ["cold", "warm"] {
            let mut command = hotbed(["run", "-w", "--cache-dir"]);
            let got = finish(command.arg(self.scratch.join("store")).args(files).args(flags));
            got.assert_same(&self.want, &format!("{files:?} {flags:?}, {round}"));
            assert_eq!(got.stderr, "", "{files:?} {flags:?}, {round}");
        }
    }
}

/// All forms that clang can give a source.
fn forms(sample: &Sample, flags: &[&str]) -> Vec<PathBuf> {
    let plain = |suffix: &str, more: &[&str]| object(&sample.source, suffix, &[flags, more].concat());
    let object = plain("o", &[]);
    let made = vec![
        plain("bc", &["-emit-llvm"]),
        plain("pic.o", &["-fPIC"]),
        plain("sections.o", &["-fPIC", "-ffunction-sections", "-fdata-sections"]),
        plain("g.o", &["-fPIC", "-g"]),
        plain("opt.bc", &["-emit-llvm", "-O2"]),
        plain("opt.o", &["-O2", "-fPIC"]),
        plain("nopie.bc", &["-emit-llvm", "-fno-pie"]),
        object,
    ];
    let ll = sample.source.with_extension("ll");
    let mut llvm =
        Command::new(if sample.source.extension().unwrap() == "c" { "clang-22" } else { "clang++-22" });
    execute(llvm.arg("-w").args(flags).args(["-S", "-emit-llvm"]).arg(&sample.source).arg("-o").arg(&ll));
    let library = sample.scratch.join("whole.a");
    archive(&library, &[made[1].clone()]);
    let thin = sample.scratch.join("thin.a");
    execute(Command::new("llvm-ar-22").args(["rcsT"]).arg(&thin).arg(&made[1]));
    let image = sample.scratch.join("built.hbi");
    let mut build = hotbed(["image", "build", "-w", "--no-cache", "-o"]);
    finish(build.arg(&image).args(flags).arg(&sample.source)).assert_success("image build");
    made.into_iter().chain([ll, library, image]).collect()
}

#[test]
fn c_of_every_form() {
    let sample = Sample::new("c", "hello.c", HELLO);
    sample.runs(&[&sample.source], &[]);
    sample.runs(&[&sample.source], &["-O2", "-g"]);
    for file in forms(&sample, &[]) {
        sample.runs(&[&file], &[]);
    }
}

#[test]
fn cpp_of_every_form_and_suffix() {
    let sample = Sample::new("cpp", "shapes.cpp", SHAPES);
    for suffix in ["cpp", "cc", "cxx"] {
        let source = sample.scratch.write(format!("copy.{suffix}"), SHAPES);
        sample.runs(&[&source], &[]);
    }
    // Objects and bitcode of C++ need no flag that says so.
    for file in forms(&sample, &[]) {
        sample.runs(&[&file], &[]);
    }
}

#[test]
fn a_shared_library_that_has_the_program() {
    let sample = Sample::new("so", "hello.c", HELLO);
    let library = shared_library(&sample.source, &[]);
    sample.runs(&[&library], &[]);
}

#[test]
fn kinds_mix_in_one_program() {
    let scratch = Scratch::new("inputs-mixed");
    let part = |name: &str, text: &str| scratch.write(name, text);
    let main = part(
        "main.c",
        "#include <stdio.h>\nint one(void), two(void), three(void), four(void), five(void), six(void);\n\
         int main(void) { printf(\"%d %d %d %d %d %d\\n\", one(), two(), three(), four(), five(), six()); return 0; }",
    );
    let one =
        part("one.cpp", "#include <string>\nextern \"C\" int one() { return std::string(\"1\").size(); }");
    let two = object(&part("two.c", "int two(void) { return 2; }"), "o", &["-fPIC"]);
    let three = object(&part("three.c", "int three(void) { return 3; }"), "bc", &["-emit-llvm"]);
    let four = part("four.ll", "define i32 @four() {\n  ret i32 4\n}\n");
    let five_object = object(&part("five.c", "int five(void) { return 5; }"), "o", &["-fPIC"]);
    // Nothing refers to this member, and what it needs does not exist.
    let unused = object(
        &part("unused.c", "int nowhere(void); int unused(void) { return nowhere(); }"),
        "o",
        &["-fPIC"],
    );
    let five = scratch.join("libfive.a");
    archive(&five, &[five_object, unused]);
    let six = shared_library(&part("six.c", "int six(void) { return 6; }"), &[]);
    let run = |files: &[&Path], flags: &[&str]| {
        let mut command = hotbed(["run", "-w", "--cache-dir"]);
        finish(command.arg(scratch.join("store")).args(files).args(flags))
    };
    for _ in 0..2 {
        let files = [&main, &one, &two, &three, &four, &five, &six].map(PathBuf::as_path);
        assert_eq!(run(&files, &[]).assert_success("mixed").stdout, "1 2 3 4 5 6\n");
    }
    // The archive and the library as a linker finds them.
    let search = format!("-L{}", scratch.path().display());
    let rpath = format!("-Wl,-rpath,{}", scratch.path().display());
    let files = [&main, &one, &two, &three, &four].map(PathBuf::as_path);
    let got = run(&files, &[&search, &rpath, "-lfive", "-lsix"]);
    assert_eq!(got.assert_success("libraries by name").stdout, "1 2 3 4 5 6\n");
    // An image gives its symbols to what is loaded beside it.
    let image = scratch.join("parts.hbi");
    let mut build = hotbed(["image", "build", "-w", "--no-cache", "-o"]);
    let parts = [&one, &two, &three, &four].map(PathBuf::as_path);
    finish(build.arg(&image).args(parts)).assert_success("image of parts");
    let files = [&main, &image, &five, &six].map(PathBuf::as_path);
    assert_eq!(run(&files, &[]).assert_success("with an image").stdout, "1 2 3 4 5 6\n");
}

#[test]
fn clangs_flags_mean_what_they_mean_to_clang() {
    let scratch = Scratch::new("inputs-flags");
    scratch.write("inc/value.h", "#define VALUE 30\n");
    scratch.write("pre.h", "#define PRE 7\n");
    let source = scratch.write(
        "flags.cpp",
        "#include <cmath>\n#include <cstdio>\n#include \"value.h\"\n#include <zlib.h>\n\
         int main(int c, char **v) { std::printf(\"%ld %d %d %s %d %d %s %.1f\\n\", __cplusplus, X, PRE, __FILE__, VALUE, \
         __OPTIMIZE__ + __FAST_MATH__, zlibVersion(), std::cos(c - 1.0)); }",
    );
    let flags = ["-std=c++20", "-DX=5", "-D", "Y", "-Iinc", "-include", "pre.h", "-O2", "-ffast-math", "-w"];
    let executable = scratch.join("executable");
    let mut clang = Command::new("clang++-22");
    execute(
        clang
            .current_dir(scratch.path())
            .args(flags)
            .arg(&source)
            .args(["-lz", "-lm", "-o"])
            .arg(&executable),
    );
    let want = finish(&mut Command::new(&executable));
    for _ in 0..2 {
        let mut command = hotbed(["run", "--cache-dir", "store"]);
        command.current_dir(scratch.path()).args(flags).arg(&source).args(["-lz", "-lm"]);
        finish(&mut command).assert_same(&want, "flags");
    }
}

extern "C" fn host_three() -> i32 {
    3
}

fn call(unit: &Unit, name: &str) -> i32 {
    // SAFETY: every function in these tests that is called so has this type.
    let function = unsafe { unit.get::<unsafe extern "C" fn() -> i32>(name) }.unwrap();
    // SAFETY: as above.
    unsafe { function() }
}

#[test]
fn the_library_takes_every_kind_from_file_and_memory() {
    let scratch = Scratch::new("inputs-api");
    let text = "int host_three(void); int value = 4; int seven(void) { return host_three() + value; }";
    let source = scratch.write("seven.c", text);
    let object = object(&source, "o", &["-fPIC"]);
    let bitcode = object_of(&source, "bc", &["-emit-llvm"]);
    let ll = object_of(&source, "ll", &["-emit-llvm", "-S"]);
    let library = scratch.join("seven.a");
    archive(&library, &[&object]);
    let runtime = Runtime::builder().cache_dir(scratch.join("store")).build().unwrap();
    runtime.define("host_three", host_fn!(host_three as extern "C" fn() -> i32)).unwrap();
    let image = scratch.join("seven.hbi");
    runtime.image(&image).unit(Object::file(&object)).build().unwrap();
    let bytes = |path: &Path| std::fs::read(path).unwrap();
    let loads: Vec<hotbed::Load> = vec![
        Source::file(&source).into(),
        Source::text("text.c", text).into(),
        Source::text("no suffix", text).lang(Lang::C).into(),
        Ir::file(&ll).into(),
        Ir::text("text.ll", std::fs::read_to_string(&ll).unwrap()).into(),
        Bitcode::file(&bitcode).into(),
        Bitcode::bytes("bitcode in memory", bytes(&bitcode)).into(),
        Object::file(&object).into(),
        Object::bytes("object in memory", bytes(&object)).into(),
        Archive::file(&library).into(),
        Archive::bytes("archive in memory", bytes(&library)).into(),
        Image::file(&image).into(),
        Image::bytes("image in memory", bytes(&image)).into(),
        Program::new().bytes("of pieces", Lang::Object, bytes(&object)).into(),
    ];
    let count = loads.len();
    let units: Vec<Unit> = loads
        .into_iter()
        .map(|load| runtime.load(load).unwrap_or_else(|error| panic!("{}", error.render())))
        .collect();
    for unit in &units {
        assert_eq!(call(unit, "seven"), 7, "{}", unit.name());
    }
    assert_eq!(runtime.units().len(), count);
    // Each has its own variable.
    // SAFETY: `value` is an int.
    unsafe { **units[0].get::<*mut i32>("value").unwrap() = 10 };
    let values: Vec<i32> = units.iter().map(|unit| call(unit, "seven")).collect();
    assert_eq!(values[0], 13);
    assert!(values[1..].iter().all(|&value| value == 7), "{values:?}");
}

/// As `object`, for names that a variable hides.
fn object_of(source: &Path, suffix: &str, flags: &[&str]) -> PathBuf {
    let made = source.with_extension(suffix);
    clang([&["-w"], flags].concat().iter().map(PathBuf::from).chain([
        "-c".into(),
        source.to_owned(),
        "-o".into(),
        made.clone(),
    ]));
    made
}

#[test]
fn a_shared_library_by_path_and_by_name() {
    let scratch = Scratch::new("inputs-library");
    let own = shared_library(&scratch.write("nine.c", "int nine(void) { return 9; }"), &[]);
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let unit = runtime.load(SharedLibrary::path(&own)).unwrap();
    assert_eq!(call(&unit, "nine"), 9);
    let zlib = runtime.load(SharedLibrary::name("z")).unwrap();
    // SAFETY: that is zlib's type.
    let version =
        unsafe { zlib.get::<unsafe extern "C" fn() -> *const std::ffi::c_char>("zlibVersion") }.unwrap();
    // SAFETY: it gives a zero-terminated text.
    let version = unsafe { std::ffi::CStr::from_ptr(version()) };
    assert!(version.to_str().unwrap().starts_with("1."), "{version:?}");
    // Later units find what it has.
    let user = runtime
        .load(Source::text("user.c", "int nine(void); int user(void) { return nine() + 1; }"))
        .unwrap();
    assert_eq!(call(&user, "user"), 10);
}

#[test]
fn a_module_that_inkwell_built() {
    let context = Context::create();
    let module = context.create_module("inkwell");
    let word = context.i32_type();
    let kind = word.fn_type(&[word.into(), word.into()], false);
    let callee = module.add_function("host_add", kind, None);
    let function = module.add_function("twice_the_sum", kind, None);
    let builder = context.create_builder();
    builder.position_at_end(context.append_basic_block(function, "entry"));
    let parameters: Vec<_> = function.get_param_iter().map(Into::into).collect();
    let sum = builder.build_call(callee, &parameters, "sum").unwrap().try_as_basic_value().unwrap_basic();
    let sum = sum.into_int_value();
    builder.build_return(Some(&builder.build_int_add(sum, sum, "twice").unwrap())).unwrap();
    extern "C" fn host_add(a: i32, b: i32) -> i32 {
        a + b
    }
    let runtime = Runtime::builder().no_cache().build().unwrap();
    runtime.define("host_add", host_fn!(host_add as extern "C" fn(i32, i32) -> i32)).unwrap();
    for flags in [&["-O0"][..], &["-O2"]] {
        let load =
            Bitcode::bytes("inkwell", hotbed_jit::module_bitcode(&module)).flags(flags.iter().copied());
        let unit = runtime.load(load.named(flags.concat())).unwrap();
        // SAFETY: it was given this type above.
        let function = unsafe { unit.get::<unsafe extern "C" fn(i32, i32) -> i32>("twice_the_sum") }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { function(20, 1) }, 42);
    }
}

#[test]
fn inputs_in_memory_may_have_the_same_name_and_folders_that_do_not_exist() {
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let scratch = Scratch::new("inputs-same-name");
    let bitcode = |value: i32| {
        let source = scratch.write(format!("{value}.c"), format!("int f{value}(void) {{ return {value}; }}"));
        std::fs::read(object(&source, "bc", &["-emit-llvm"])).unwrap()
    };
    let object = |value: i32| {
        let source =
            scratch.write(format!("o{value}.c"), format!("int g{value}(void) {{ return {value}; }}"));
        std::fs::read(object(&source, "o", &["-fPIC"])).unwrap()
    };
    let program = Program::new()
        .bytes("no/where/x.bc", Lang::Bitcode, bitcode(1))
        .bytes("no/where/x.bc", Lang::Bitcode, bitcode(2))
        .bytes("no/where/x.c", Lang::C, "int f3(void) { return 3; }")
        .bytes("no/where/x.c", Lang::C, "int f4(void) { return 4; }")
        .bytes("no/where/x.o", Lang::Object, object(5))
        .bytes("no/where/x.o", Lang::Object, object(6));
    let unit = runtime.load(program).unwrap_or_else(|error| panic!("{}", error.render()));
    let got: Vec<i32> = ["f1", "f2", "f3", "f4", "g5", "g6"].map(|name| call(&unit, name)).into();
    assert_eq!(got, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn an_object_that_gcc_made() {
    let scratch = Scratch::new("inputs-gcc");
    let source = scratch.write("gcc.cpp", SHAPES);
    let made = scratch.join("gcc.o");
    execute(Command::new("g++").args(["-std=c++17", "-fPIC", "-O1", "-c"]).arg(&source).arg("-o").arg(&made));
    let executable = scratch.join("executable");
    clangxx([&made, Path::new("-o"), &executable]);
    let want = finish(&mut Command::new(&executable));
    let mut command = hotbed(["run", "--no-cache"]);
    finish(command.arg(&made)).assert_same(&want, "gcc's object");
}
