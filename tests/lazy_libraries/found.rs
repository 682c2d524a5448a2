//! What a library has is found out, wherever it comes from: the text, headers, macros, C++, inputs that are no source, the store.

use super::*;
use crate::support::{archive, object};

#[test]
fn in_headers_made_by_macros_and_mangled() {
    let scratch = Scratch::new("lazy-libraries-hidden");
    scratch.write("single.h", "#ifdef IMPLEMENTATION\nint single_header(void) { return 1; }\n#endif\n");
    let (runtime, _) = runtime();
    let text = "#define IMPLEMENTATION\n#include \"single.h\"\n";
    let include = format!("-I{}", scratch.path().display());
    let single = runtime.library("single").source_text("single.c", text).flag(include).lazy().unwrap();
    let pasted = lazy(&runtime, "pasted", "#define F(x) int pas##x(void) { return 2; }\nF(ted)\n");
    let text = "namespace n { struct S { static int twice(int x); }; int S::twice(int x) { return 2 * x; } }";
    let mangled = runtime.library("mangled").source_text("mangled.cpp", text).lazy().unwrap();
    assert_eq!(call(&load(&runtime, user("single_header")), "user"), 1);
    assert_eq!(call(&load(&runtime, user("pasted")), "user"), 2);
    let text = "namespace n { struct S { static int twice(int); }; } extern \"C\" int user() { return n::S::twice(3); }";
    assert_eq!(call(&load(&runtime, Source::text("user.cpp", text)), "user"), 6);
    assert!([single, pasted, mangled].iter().all(|library| !library.is_waiting()));
    // Variables of threads and others, and templates that the library has instantiated.
    let text = "template <class T> T thrice(T x) { return 3 * x; } template int thrice(int); int counter = 5; thread_local int own = 6;";
    runtime.library("more").source_text("more.cpp", text).flag("-O1").lazy().unwrap();
    let text = "template <class T> T thrice(T); extern int counter; extern thread_local int own;\n\
                extern \"C\" int user() { return thrice(counter++) + own; }";
    assert_eq!(call(&load(&runtime, Source::text("more user.cpp", text)), "user"), 21);
}

#[test]
fn in_inputs_of_every_kind() {
    let scratch = Scratch::new("lazy-libraries-kinds");
    let write = |name: &str| scratch.write(format!("{name}.c"), format!("int {name}(void) {{ return 1; }}"));
    let (runtime, log) = runtime();
    let a = object(&write("of_object"), "o", &["-fPIC"]);
    let b = object(&write("of_bitcode"), "bc", &["-emit-llvm"]);
    let library = scratch.join("lib.a");
    archive(&library, &[object(&write("of_archive"), "o", &["-fPIC"])]);
    runtime.library("object").source(&a).lazy().unwrap();
    runtime.library("bitcode").bytes("bitcode", Lang::Bitcode, std::fs::read(&b).unwrap()).lazy().unwrap();
    runtime.library("archive").file_as(&library, Lang::Archive).lazy().unwrap();
    let ir = "define i32 @of_ir() {\n  ret i32 1\n}\n";
    runtime.library("ir").bytes("ir", Lang::Ir, ir).lazy().unwrap();
    for name in ["of_ir", "of_archive", "of_bitcode", "of_object"] {
        assert_eq!(call(&load(&runtime, user(name)), "user"), 1);
        let kind = name.trim_start_matches("of_");
        assert_eq!(log.compiled(), [format!("user of {name}.c"), kind.to_owned()], "and no other");
    }
}

#[test]
fn archives_and_libraries_need_each_other() {
    let scratch = Scratch::new("lazy-libraries-archives");
    let member = "int of_library(void); int of_member(void) { return of_library() + 1; }";
    let path = scratch.join("lib.a");
    archive(&path, &[object(&scratch.write("member.c", member), "o", &["-fPIC"])]);
    let (runtime, _) = runtime();
    let text =
        "int base_member(void); int of_library(void) { return 5; } int other(void) { return base_member(); }";
    lazy(&runtime, "library", text);
    let lib = load(&runtime, hotbed::Archive::file(&path));
    let base = "int base_member(void) { return 100; }";
    let base_path = scratch.join("base.a");
    archive(&base_path, &[object(&scratch.write("base.c", base), "o", &["-fPIC"])]);
    load(&runtime, hotbed::Archive::file(&base_path));
    assert_eq!(call(&load(&runtime, user("of_member")), "user"), 6);
    assert_eq!(lib.members(), ["member.o"]);
    assert_eq!(call(&runtime.unit("library").unwrap(), "other"), 100);
}

#[test]
fn in_the_store_without_compiling_and_as_the_files_are_now() {
    let scratch = Scratch::new("lazy-libraries-store");
    let source = scratch.write("lib.c", "#include \"part.h\"\nint lib(void) { return PART; }");
    let part = |text: &str| scratch.write("part.h", text);
    part("#define PART 1\n");
    let run = |function: &str| {
        let (runtime, log) = stored(&scratch);
        let lib = runtime.library("lib").source(&source).lazy().unwrap();
        let got = runtime.load(user(function)).map(|unit| call(&unit, "user"));
        (got.ok(), lib.is_waiting(), log.compiled())
    };
    assert_eq!(run("lib"), (Some(1), false, vec!["user of lib.c".into(), "lib".into()]));
    assert_eq!(run("lib"), (Some(1), false, vec![]));
    // Not even to see that it does not have something.
    assert_eq!(run("nothing"), (None, true, vec!["user of nothing.c".into()]));
    assert_eq!(run("nothing"), (None, true, vec![]));
    // Files count as they are when somebody needs it.
    part("#define PART 2\nint more(void) { return 3; }\n");
    assert_eq!(run("more"), (Some(3), false, vec!["user of more.c".into(), "lib".into()]));
    assert_eq!(run("lib"), (Some(2), false, vec![]));
    let (runtime, log) = stored(&scratch);
    let lib = runtime.library("lib").source(&source).lazy().unwrap();
    assert!(runtime.load(user("nothing")).is_err() && lib.exports().len() == 2);
    part("#define PART 4\nint nothing(void) { return 5; }\n");
    assert_eq!(call(&load(&runtime, user("nothing")), "user"), 5);
    assert_eq!(call(&lib, "lib"), 4);
    assert_eq!(log.compiled(), ["lib"]);
}

#[test]
fn what_was_compiled_in_it_is_kept() {
    let scratch = Scratch::new("lazy-libraries-kept");
    let run = || {
        let (runtime, log) = stored(&scratch);
        lazy(&runtime, "lib", "int lib(void) { return 8; } int never(void) { return 9; }");
        assert_eq!(call(&load(&runtime, user("lib")), "user"), 8);
        (runtime.functions_compiled(), log.compiled().len(), runtime.keep_compiled().unwrap())
    };
    assert_eq!(run(), (1, 2, true));
    crate::support::kept(&scratch.join("store"));
    assert_eq!(run(), (0, 0, false));
}

#[test]
fn weak_references_load_nothing_and_own_definitions_are_enough() {
    let (runtime, log) = runtime();
    let lib = lazy(&runtime, "lib", "int lib(void) { return 1; }");
    let text = "__attribute__((weak)) int lib(void); int user(void) { return lib ? lib() : -1; }";
    let unit = load(&runtime, Source::text("weak.c", text));
    assert_eq!(call(&unit, "user"), -1);
    load(&runtime, Source::text("own.c", "int lib(void) { return 2; } int user(void) { return lib(); }"));
    assert_eq!(call(&load(&runtime, user("lib")), "user"), 2);
    assert!(lib.is_waiting());
    assert_eq!(log.compiled(), ["weak.c", "own.c", "user of lib.c"]);
    assert_eq!(call(&lib, "lib"), 1);
}
