//! `Runtime::explain` and `hotbed explain`: who has a symbol, the same cold and warm.

use crate::support::{End, Outcome, Scratch, archive, finish, hotbed, object, shared_library};
use hotbed::{Image, Layer, Observer, Program, Runtime, Source, Verdict, host_fn};
use std::path::Path;
use std::sync::{Arc, Mutex};

const PROGRAM: &str = "#include <stdio.h>\nint helper(int x) { return x + 1; }\n\
                       int main(void) { printf(\"%d\\n\", helper(1)); return 0; }\n";

/// `hotbed explain`, with a store of its own.
fn explain(scratch: &Scratch, arguments: &[&str]) -> Outcome {
    let mut command = hotbed(["explain", "--cache-dir"]);
    finish(command.arg(scratch.join("store")).args(arguments).current_dir(scratch.path()))
}

/// The same twice, for the store to be empty and full; both must be alike.
#[track_caller]
fn explain_twice(scratch: &Scratch, arguments: &[&str]) -> Outcome {
    let _ = std::fs::remove_dir_all(scratch.join("store"));
    let cold = explain(scratch, arguments);
    let warm = explain(scratch, arguments);
    assert_eq!((cold.end, &cold.stdout), (warm.end, &warm.stdout), "cold and warm, {arguments:?}");
    warm
}

#[test]
fn the_command_says_who_has_it() {
    let scratch = Scratch::new("explain-command");
    scratch.write("p.c", PROGRAM);
    let printf = explain_twice(&scratch, &["printf", "p.c"]).assert_success("printf");
    assert!(printf.stdout.starts_with("printf of version GLIBC_"), "{}", printf.stdout);
    assert!(printf.stdout.contains(", needed by p.c\n"), "{}", printf.stdout);
    let last = printf.stdout.lines().last().unwrap();
    assert!(last.contains("libc.so.6, the process: first in the order that has it"), "{last}");
    let helper = explain_twice(&scratch, &["helper", "p.c"]).assert_success("helper");
    assert!(
        helper.stdout.ends_with("helper is from p.c, the unit itself: the unit's own strong definition\n"),
        "{}",
        helper.stdout
    );
    let missing = explain_twice(&scratch, &["helpr", "p.c"]);
    assert_eq!(missing.end, End::Status(1));
    assert!(missing.stdout.contains("nobody has helpr; did you mean helper"), "{}", missing.stdout);
    let refused = explain(&scratch, &["printf", "nowhere.c"]);
    assert_eq!((refused.end, refused.stdout.as_str()), (End::Status(1), ""));
    assert_eq!(explain(&scratch, &["printf"]).end, End::Status(2));
    assert_eq!(
        explain(&scratch, &["--help"]).assert_success("help").stdout.lines().nth(2).unwrap(),
        "Usage: hotbed explain [CLANG FLAGS] [OPTIONS] SYMBOL FILE..."
    );
}

#[test]
fn cpp_names_are_taken_as_the_source_has_them() {
    let scratch = Scratch::new("explain-cpp");
    let source = "#include <iostream>\n#include <string>\nnamespace n { template <class T> T twice(T x) { return x + x; } }\n\
                  int twice(int x) { return 2 * x; } int nobody(long);\n\
                  int main() { std::cout << n::twice(std::string(\"a\")) << twice(1) << nobody(2); }";
    scratch.write("x.cpp", source);
    let mangled = explain_twice(&scratch, &["_Z5twicei", "x.cpp"]).assert_success("mangled");
    let source = explain_twice(&scratch, &["twice(int)", "x.cpp"]).assert_success("as in the source");
    assert_eq!(mangled.stdout, source.stdout);
    assert!(source.stdout.starts_with("twice(int) (_Z5twicei)\n"), "{}", source.stdout);
    let stream = explain_twice(&scratch, &["std::cout", "x.cpp"]).assert_success("std::cout");
    assert!(
        stream.stdout.contains("libstdc++.so.6") && stream.stdout.contains("needed by x.cpp"),
        "{}",
        stream.stdout
    );
    let missing = explain_twice(&scratch, &["nobody(long)", "x.cpp"]);
    assert_eq!(missing.end, End::Status(1));
    assert!(missing.stdout.starts_with("nobody(long) (_Z6nobodyl), needed by x.cpp\n"), "{}", missing.stdout);
}

#[test]
fn images_archives_and_libraries_are_taken_as_run_takes_them() {
    let scratch = Scratch::new("explain-kinds");
    let source = scratch.write("image.c", "int of_image(void) { return 1; } int both(void) { return 1; }");
    finish(hotbed(["image", "build", "-o"]).arg(scratch.join("i.hbi")).arg(&source)).assert_success("image");
    let member = scratch.write("member.c", "int of_archive(void) { return 2; } int both(void) { return 2; }");
    archive(&scratch.join("liba.a"), &[object(&member, "o", &["-fPIC"])]);
    let library = scratch.write("shared.c", "int of_library = 3;");
    std::fs::rename(shared_library(&library, &[]), scratch.join("libs.so")).unwrap();
    scratch.write(
        "p.c",
        "int of_image(void), of_archive(void), late(void); extern int of_library;\n\
                   int main(void) { return of_image() + of_archive() + of_library; }",
    );
    let all = ["i.hbi", "p.c", "liba.a", "libs.so"];
    let last = |symbol: &str| {
        let arguments: Vec<&str> = std::iter::once(symbol).chain(all).collect();
        let outcome = explain_twice(&scratch, &arguments).assert_success(symbol);
        outcome.stdout.lines().last().unwrap().to_owned()
    };
    assert_eq!(last("of_image"), "of_image is from i.hbi, loaded images: first in the order that has it");
    assert_eq!(
        last("of_archive"),
        "of_archive is from p.c, the unit itself: the unit's own strong definition"
    );
    let library = scratch.join("libs.so").canonicalize().unwrap();
    assert_eq!(
        last("of_library"),
        format!("of_library is from {}, the process: first in the order that has it", library.display())
    );
    let both = explain_twice(&scratch, &["both", "i.hbi", "p.c", "liba.a"]).assert_success("both");
    assert!(
        both.stdout.contains("p.c: function: ") && both.stdout.contains("i.hbi: function: used"),
        "{}",
        both.stdout
    );
}

#[test]
fn json_has_every_field() {
    let scratch = Scratch::new("explain-json");
    scratch.write(
        "p.c",
        "int helper(int x) { return x; } int main(void) { return helpr(1); } int helpr(int);"
            .replace("int main", "int helpr(int); int main"),
    );
    let found = explain_twice(&scratch, &["--json", "helper", "p.c"]).assert_success("json");
    let answer = "{\"unit\":\"p.c\",\"kind\":\"function\",\"weak\":false,\"version\":null,\"verdict\":\"used\",\"reason\":null,\"same\":null}";
    let begin = format!(
        "{{\"symbol\":\"helper\",\"demangled\":null,\"version\":null,\"needed_by\":null,\"asked\":[{{\"layer\":\"unit\",\
         \"answers\":[{answer}],\"remark\":null}},"
    );
    assert!(found.stdout.starts_with(&begin), "{}", found.stdout);
    let end = "\"winner\":{\"layer\":\"unit\",\"unit\":\"p.c\"},\"why\":\"the unit's own strong definition\",\"near\":[]}\n";
    assert!(found.stdout.ends_with(end), "{}", found.stdout);
    let missing = explain_twice(&scratch, &["--json", "helpr", "p.c"]);
    assert_eq!(missing.end, End::Status(1));
    assert!(missing.stdout.contains("\"needed_by\":\"p.c\""), "{}", missing.stdout);
    assert!(
        missing.stdout.contains("\"winner\":null,\"why\":null,\"near\":[\"helper\""),
        "{}",
        missing.stdout
    );
}

#[test]
fn libraries_on_demand_say_what_would_be_opened() {
    let scratch = Scratch::new("explain-autoload");
    scratch.write(
        "z.c",
        "unsigned long crc32(unsigned long, const unsigned char *, unsigned);\n\
                   int main(void) { return crc32(0, 0, 0); }",
    );
    let without = explain_twice(&scratch, &["crc32", "z.c"]);
    assert_eq!(without.end, End::Status(1));
    assert!(without.stdout.contains("libraries found on demand  (not asked)"), "{}", without.stdout);
    let with = explain_twice(&scratch, &["--autoload", "crc32", "z.c"]).assert_success("autoload");
    let line = with.stdout.lines().find(|line| line.contains("libraries found on demand")).unwrap();
    assert!(line.contains("libz.so") && line.ends_with("function: used"), "{line}");
    let ours = explain_twice(&scratch, &["--autoload", "main", "z.c"]).assert_success("its own");
    assert!(ours.stdout.contains("(not asked)"), "{}", ours.stdout);
}

/// Finds out whether anything was written by code that should not run.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Observer for Warnings {
    fn warning(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

#[test]
fn the_library_explains_what_is_loaded_and_what_would_be() {
    extern "C" fn hosts_own() {}
    let scratch = Scratch::new("explain-library");
    let warnings = Arc::new(Warnings::default());
    let runtime =
        Runtime::builder().cache_dir(scratch.join("store")).observer(warnings.clone()).build().unwrap();
    runtime.define("hosts_own", host_fn!(hosts_own as extern "C" fn())).unwrap();
    let explained = runtime.explain("hosts_own");
    assert_eq!(explained.winner().unwrap().0.layer, Layer::Host, "{explained}");
    let one = runtime.load(Source::text("one.c", "int both(void) { return 1; }")).unwrap();
    let two = runtime.load(Source::text("two.c", "int both(void) { return 2; }")).unwrap();
    let explained = runtime.explain("both");
    let images = explained.asked.iter().find(|asked| asked.layer == Layer::Images).unwrap();
    let units: Vec<_> = images.answers.iter().map(|answer| (answer.unit.as_str(), answer.verdict)).collect();
    assert_eq!(units, [("one.c", Verdict::Used), ("two.c", Verdict::Shadowed)]);

    // Constructors do not run, and other symbols may be missing.
    let flag = scratch.join("ran");
    let source = format!(
        "#include <stdio.h>\nint both(void), missing(void);\n\
         __attribute__((constructor)) static void c(void) {{ fclose(fopen(\"{}\", \"w\")); }}\n\
         int f(void) {{ return both() + missing(); }}",
        flag.display()
    );
    let would = |source: &str| runtime.explain_with([Source::text("three.c", source)], "both").unwrap();
    let explained = would(&source);
    assert_eq!(explained.needed_by.as_deref(), Some("three.c"));
    assert_eq!(explained.winner().unwrap().1.unit, "one.c", "{explained}");
    assert_eq!(explained, would(&source), "cold and warm");
    assert!(!flag.exists() && !runtime.is_loaded("three.c"));
    one.unload().unwrap();
    assert_eq!(would(&source).winner().unwrap().1.unit, "two.c");
    two.unload().unwrap();
    let later = runtime.explain_with(
        [
            Program::new().bytes("a.c", hotbed::Lang::C, source.as_bytes()),
            Program::new().bytes("b.c", hotbed::Lang::C, "int both(void) { return 3; }"),
        ],
        "both",
    );
    assert_eq!(later.unwrap().winner().unwrap().1.unit, "b.c", "loaded together they see each other");
    let nowhere = runtime.explain_with([Image::file(Path::new("/nowhere.hbi"))], "f");
    assert!(nowhere.unwrap_err().to_string().contains("/nowhere.hbi"));
    assert!(warnings.0.lock().unwrap().is_empty());
}
