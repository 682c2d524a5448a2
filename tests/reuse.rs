//! Single functions that are not compiled again: programs that are edited and run again, against clang's executables; how much was
//! compiled; and what comes of a stock that is damaged.

use crate::support::{Outcome, Scratch, clang, clangxx, finish, hotbed, timing};
use hotbed::{Isolation, Lang, Program, Runtime};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that is edited.
struct Edited {
    scratch: Scratch,
    name: &'static str,
    text: String,
    flags: Vec<&'static str>,
}

impl Edited {
    /// The program with so many more functions that reuse is worth it.
    fn new(test: &str, name: &'static str, text: &str, flags: &[&'static str]) -> Self {
        let filler: String =
            (0..40).map(|n| format!("int filler{n}(int x) {{ return x * {n}; }}\n")).collect();
        let scratch = Scratch::new(&format!("reuse-{test}"));
        Self { scratch, name, text: filler + text, flags: flags.to_vec() }
    }

    fn store(&self) -> PathBuf {
        self.scratch.join("store")
    }

    fn run(&self, options: &[&str]) -> Outcome {
        let source = self.scratch.write(self.name, &self.text);
        let mut command = hotbed(["run", "--eager", "-w", "--timings=json", "--cache-dir"]);
        finish(command.arg(self.store()).args(options).args(&self.flags).arg(source))
    }

    /// Runs it as it is now, and compares with clang's executable. Gives how many functions were compiled and reused.
    #[track_caller]
    fn check(&self, options: &[&str], what: &str) -> (u32, u32) {
        let got = self.run(options);
        let executable = self.scratch.join("executable");
        let compile = if self.name.ends_with(".c") { clang } else { clangxx };
        let (source, out) = (self.scratch.join(self.name), executable.as_os_str().to_owned());
        let flags = self.flags.iter().map(Into::into);
        compile(["-w".into(), "-o".into(), out, source.into_os_string()].into_iter().chain(flags));
        got.assert_same(&finish(&mut Command::new(executable)), what);
        let count = |key| timing(&got.stderr, key).parse().unwrap();
        (count("functions_compiled"), count("functions_reused"))
    }

    #[track_caller]
    fn edit(&mut self, from: &str, to: &str) {
        assert_eq!(self.text.matches(from).count(), 1, "{from}");
        self.text = self.text.replace(from, to);
    }
}

const C: &str = r#"
#include <stdio.h>
#include <string.h>
struct pair { int a, b; };
static int counter; static _Thread_local int own = 5; static const int table[] = {1, 2, 3, 4};
static int *where(void) { return &counter; }
static int local_static(int x) { static int n = 7; n += x; return n; }
static const char *say(int x) { return x & 1 ? "odd" : "even"; }
static double number(double x) { return x * 2.75 + 0.125; }
static int jump(int x) { switch (x) { case 0: return 11; case 1: return 13; case 2: return 17; case 3: return 19; case 4: return 23; case 5: return 29; } return -1; }
static int go(int x) { static void *labels[] = {&&a, &&b}; goto *labels[x & 1]; a: return 100; b: return 200; }
static int callee(int x) { return x + 1; }
static int caller(int x) { counter++; return callee(x) + table[x & 3] + own++; }
static int (*functions[])(int) = {caller, jump, go, local_static, callee};
static int field(struct pair *p) { return p->b; }
__attribute__((constructor)) static void begin(void) { counter = 40; }
int edited(int x) { return x + 1; }
int main(void) {
  int s = 0; struct pair p = {3, 4};
  for (int i = 0; i < 6; i++) for (unsigned f = 0; f < 5; f++) { s += functions[f](i); printf("%s %d %.3f\n", say(i), s, number(i)); }
  printf("%d %d %d %d %d\n", s, edited(s), *where(), where() == &counter, functions[4] == callee);
  printf("%d %d %d\n", field(&p), own, table[2]);
  return 0;
}
"#;

#[test]
fn a_program_in_c_is_what_clang_makes_of_it_after_every_edit() {
    for level in ["-O0", "-O2"] {
        let mut program = Edited::new(&format!("c{level}"), "program.c", C, &[level]);
        let (all, none) = program.check(&[], "first");
        assert!(all > 40 && none == 0);
        // What is edited, and how many functions are compiled then, if nothing is inlined.
        for (from, to, compiled) in [
            ("int edited(int x) { return x + 1; }", "int edited(int x) { return x + 3; }", 2),
            ("return x + 3; }", "static int n; printf(\"a text in front %d\\n\", n++); return x + 3; }", 2),
            ("static double number", "static int fresh(int x) { return x - 9; } static double number", 2),
            ("x * 2.75 + 0.125", "x * 2.5 + fresh(3)", 3),
            ("table[] = {1, 2, 3, 4}", "table[] = {1, 2, 33, 4}", 3),
            ("counter; static _Thread_local int own = 5", "counter; static _Thread_local int own = 6", 2),
            (
                "static int local_static(int x) { static int n = 7;",
                "static int local_static(int x) { static int n = 8;",
                2,
            ),
            ("static int callee(int x)", "__attribute__((noinline, cold)) static int callee(int x)", 4),
            (
                "int edited(int x) { static int n;",
                "int edited(int x) { if (where() != &counter) return 0; static int n;",
                2,
            ),
            ("struct pair { int a, b; }", "struct pair { char more[9]; int a, b; }", 3),
            ("struct pair p = {3, 4}", "struct pair p = {\"more\", 3, 4}", 2),
            ("static int fresh(int x)", "static int renamed(int x)", 44),
        ] {
            if to.contains("renamed") {
                program.text = program.text.replace("fresh(3)", "renamed(3)");
            }
            program.edit(from, to);
            let (now, reused) = program.check(&[], to);
            assert!(now >= 1 && reused >= 32, "{level} {to}: {now} compiled, {reused} reused");
            if level == "-O0" {
                // The one whose labels are in a table is compiled every time.
                assert!(now <= compiled + 1, "{to}: {now} compiled, {reused} reused");
            }
        }
    }
}

const CPP: &str = r#"
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>
struct Tracer { const char *name; ~Tracer() { std::printf("~%s\n", name); } };
struct Base { virtual ~Base() = default; virtual int value() const { return 1; } };
template <class T> struct Derived : Base { T t; explicit Derived(T t) : t(t) {} int value() const override { return int(t) + 1; } };
template <class T> T twice(T x) { static int calls; std::printf("call %d\n", ++calls); return x + x; }
inline int instances = 7;
inline const std::string &name() { static const std::string text = "name"; return text; }
static std::vector<int> made = {1, 2, 3};
thread_local std::string own = "thread";
int thrower(int x) { Tracer t{"thrower"}; if (x > 2) throw std::runtime_error("too much"); if (x < 0) throw x; return x; }
int through(int x) { Tracer t{"through"}; return thrower(x) + 1; }
int catcher(int x) { try { return through(x); } catch (const std::exception &e) { return int(std::string(e.what()).size()); } catch (int i) { return i; } }
int virtuals(const Base &b) { return b.value() + (dynamic_cast<const Derived<int> *>(&b) != nullptr); }
int edited(int x) { return x + 1; }
int main() {
  for (int x : {-1, 1, 5}) std::printf("%d\n", catcher(x));
  std::printf("%d %d %d\n", virtuals(Derived<int>(3)), virtuals(Derived<double>(4)), twice(2) + int(twice(2.5)));
  std::map<std::string, int> count; count[name()] += edited(instances); made.push_back(count["name"]);
  std::printf("%d %zu %s\n", made.back(), made.size(), own.c_str());
}
"#;

#[test]
fn a_program_in_cpp_is_what_clang_makes_of_it_after_every_edit() {
    for level in ["-O0", "-O1"] {
        let mut program = Edited::new(&format!("cpp{level}"), "program.cpp", CPP, &[level]);
        program.check(&[], "first");
        for (from, to) in [
            ("int edited(int x) { return x + 1; }", "int edited(int x) { return x + 3; }"),
            (
                "return x + 3; }",
                "try { return through(x); } catch (...) { std::printf(\"in the edited one\\n\"); return catcher(-7) + x; } }",
            ),
            ("if (x < 0) throw x;", "if (x < 0) throw x + 10;"),
            ("return int(t) + 1;", "return int(t) + 2;"),
            ("int main() {", "int main() { Derived<long> more(3); std::printf(\"%d\\n\", virtuals(more));"),
            ("thread_local std::string own = \"thread\"", "thread_local std::string own = \"other thread\""),
            (
                "virtual int value() const { return 1; }",
                "virtual int other() const { return 2; } virtual int value() const { return 1; }",
            ),
        ] {
            program.edit(from, to);
            let (now, reused) = program.check(&[], to);
            assert!(now >= 1 && reused >= 40, "{level} {to}: {now} compiled, {reused} reused");
        }
    }
}

#[test]
fn it_is_said_how_many_functions_are_reused() {
    let mut program = Edited::new("said", "program.c", C, &["-O0"]);
    program.check(&[], "first");
    program.edit("return x + 1; }\nint main", "return x + 2; }\nint main");
    let got = program.run(&["--verbose"]);
    let (compiled, reused): (u32, u32) = (
        timing(&got.stderr, "functions_compiled").parse().unwrap(),
        timing(&got.stderr, "functions_reused").parse().unwrap(),
    );
    let line = format!("reused {reused} of {} functions", compiled + reused);
    assert!(reused > 40 && got.stderr.contains(&line), "{line}: {}", got.stderr);
}

#[test]
fn debug_information_is_for_whole_units() {
    let mut program = Edited::new("debug", "program.c", C, &["-g"]);
    program.check(&[], "first");
    program.edit("return x + 1; }\nint main", "return x + 2; }\nint main");
    assert_eq!(program.check(&[], "edited").1, 0);
    assert!(!program.store().join("stocks").exists());
}

fn stocks(store: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(store.join("stocks")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_damaged_stock_is_none() {
    let mut program = Edited::new("damaged", "program.c", C, &["-O0"]);
    program.check(&[], "first");
    let good = std::fs::read(&stocks(&program.store())[0]).unwrap();
    let cut = |at: usize| good[..at].to_vec();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let mut count = 0;
    for bytes in [
        cut(0),
        cut(1),
        cut(good.len() / 2),
        cut(good.len() - 1),
        flipped(3),
        flipped(good.len() / 2),
        flipped(good.len() - 1),
    ] {
        let path = &stocks(&program.store())[0];
        std::fs::write(path, bytes).unwrap();
        count += 1;
        let (from, to) = (
            format!("int edited(int x) {{ return x + {count}; }}"),
            format!("int edited(int x) {{ return x + {}; }}", count + 1),
        );
        program.edit(&from, &to);
        assert_eq!(program.check(&[], "damaged").1, 0);
    }
    // What was made then is as good as the first one.
    program.edit("int edited(int x) { return x + 8; }", "int edited(int x) { return x * 8; }");
    assert!(program.check(&[], "whole again").1 > 40);
}

#[test]
fn a_worker_does_the_same_and_so_do_several_sources() {
    let scratch = Scratch::new("reuse-worker");
    let filler: String =
        (0..40).map(|n| format!("int NAMEfiller{n}(int x) {{ return x * {n}; }}\n")).collect();
    let source = |name: &str, more: &str| filler.replace("NAME", name) + more;
    for isolation in [Isolation::InProcess, Isolation::Process] {
        let store = scratch.join(format!("store-{isolation:?}"));
        let runtime = || Runtime::builder().cache_dir(&store).isolation(isolation).build().unwrap();
        let load = |answer: i32| {
            let one = source("one", "static int here; int *of_one(void) { return &here; }");
            let two = format!("int *of_one(void); int answer(void) {{ return ++*of_one() + {answer}; }}");
            let program = Program::new().named(format!("both-{isolation:?}")).bytes("one.c", Lang::C, one);
            let unit = runtime().load(program.bytes("two.c", Lang::C, source("two", &two))).unwrap();
            // SAFETY: that is its type.
            let function = unsafe { unit.get::<unsafe extern "C" fn() -> i32>("answer") }.unwrap();
            // SAFETY: it takes nothing.
            let got = unsafe { function() };
            assert_eq!(got, answer + 1);
            unit.report().counts
        };
        let first = load(1);
        assert_eq!((first.functions_compiled, first.functions_reused), (82, 0));
        let second = load(2);
        assert_eq!((second.functions_compiled, second.functions_reused), (1, 81));
    }
}
