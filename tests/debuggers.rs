//! What gdb shows of units, and what is behind an address: gdb in batch mode, against what it shows of clang's executable.

use crate::support::{Child, Outcome, Scratch, clangxx, execute, finish, hotbed, object, task};
use hotbed::{Image, Object, Runtime, Source};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

const C: &str = r#"#include <stdio.h>
#include <stdlib.h>
struct pair { int a, b; };
static int pair_inner(struct pair *p) {
  p->b = p->a * 2;
  return p->b;
}
int pair_outer(int n) {
  struct pair p = {n, 0};
  return pair_inner(&p) + 1;
}
int main(void) { printf("%d\n", pair_outer(21)); return 0; }
"#;

const CPP: &str = r#"#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>
template <class T> struct Stack {
  std::vector<T> items;
  void push(const T &item) {
    items.push_back(item);
  }
  T top() const { return items.back(); }
};
enum class Color { Red, Green };
union Either { int number; char bytes[4]; };
struct Base { virtual ~Base() {} virtual int go(int) = 0; };
struct Derived : Base { int k = 3; Color color = Color::Green; int go(int n) override { return n * k; } };
static int counter = 7;
static int before = counter * 2;
__attribute__((constructor)) static void early() {
  counter++;
}
static int fail(int code) {
  if (code > 2)
    throw std::runtime_error("too much");
  return code;
}
int main() {
  Stack<int> stack;
  for (int i = 0; i < 3; i++) stack.push(i * 10);
  auto add = [&](int n) {
    counter += n + stack.top();
    return counter;
  };
  std::map<int, double> halves{{1, 0.5}, {2, 1.0}};
  Either either;
  either.number = 0x41424344;
  Derived derived;
  Base &base = derived;
  int sum = add(5) + base.go(2) + before;
  try {
    fail(3);
  } catch (const std::exception &e) {
    std::printf("%s %d %d\n", e.what(), sum, either.number);
  }
  return 0;
}
"#;

/// gdb in batch mode with commands; what it runs is still to be added.
fn gdb<'a>(commands: impl IntoIterator<Item = &'a str>) -> Command {
    let mut gdb = Command::new("gdb");
    gdb.args([
        "-nx",
        "-batch",
        "-ex",
        "set breakpoint pending on",
        "-ex",
        "set confirm off",
        "-ex",
        "set width 0",
    ]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    gdb.arg("--args");
    gdb
}

/// gdb with `hotbed run` and its arguments.
fn gdb_hotbed(commands: &[&str], arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
    let run = hotbed(arguments);
    let mut gdb = gdb(commands.iter().copied());
    finish(gdb.arg(run.get_program()).args(run.get_args()))
}

/// Makes sure that lines appear in this order; `…` in one stands for anything.
#[track_caller]
fn assert_shows(outcome: &Outcome, wanted: &[&str]) {
    let mut lines = outcome.stdout.lines();
    for want in wanted {
        let parts: Vec<&str> = want.split('…').collect();
        let has = |line: &str| {
            let mut rest = line;
            parts.iter().all(|part| match rest.find(part) {
                Some(at) => {
                    rest = &rest[at + part.len()..];
                    true
                }
                None => false,
            })
        };
        assert!(lines.any(has), "gdb does not show `{want}`:\n{}{}", outcome.stdout, outcome.stderr);
    }
}

#[test]
fn gdb_shows_a_c_program_cold_and_warm() {
    let scratch = Scratch::new("gdb-c");
    let source = scratch.write("debug.c", C);
    let commands = ["break pair_inner", "run", "bt", "print *p", "finish"];
    let store = scratch.join("s");
    let arguments =
        [OsStr::new("run"), "--gdb".as_ref(), "--eager".as_ref(), "--cache-dir".as_ref(), store.as_ref()];
    let arguments = arguments.into_iter().chain(["-g".as_ref(), "-O0".as_ref(), source.as_os_str()]);
    for _ in ["cold", "warm"] {
        let outcome = gdb_hotbed(&commands, arguments.clone());
        assert_shows(
            &outcome,
            &[
                "Breakpoint 1,… pair_inner (p=0x…) at …debug.c:5",
                "#0  pair_inner (p=0x…) at …debug.c:5",
                "#1 … in pair_outer (n=21) at …debug.c:10",
                "#2 … in main () at …debug.c:12",
                "{a = 21, b = 0}",
                "Value returned is … = 42",
            ],
        );
        // BFD complains about a file that is not as it should be.
        assert!(!outcome.stderr.contains("BFD"), "{}", outcome.stderr);
    }
}

/// What gdb says of the program's own, without what differs from run to run: addresses, thread numbers, and frames below
/// `main`; up to the program's own last line.
fn comparable(outcome: &Outcome) -> Vec<String> {
    let (_, shown) = outcome.stdout.split_once("== begin").unwrap_or_else(|| panic!("{}", outcome.stdout));
    let own = |line: &&str| {
        let noise = ["[", "Breakpoint ", "Thread ", "Catchpoint ", "Using host", "warning:"];
        !line.is_empty()
            && !noise.iter().any(|noise| line.starts_with(noise))
            && !line.contains("call_and_exit")
    };
    let plain = |line: &str| {
        let mut text = String::new();
        let mut rest = line;
        while let Some(at) = rest.find("0x") {
            let end =
                rest[at + 2..].find(|c: char| !c.is_ascii_hexdigit()).map_or(rest.len(), |end| at + 2 + end);
            text += &rest[..at];
            text += "0x";
            rest = &rest[end..];
        }
        text + rest
    };
    // After its last line there is a file to look into only where there is an executable.
    let end = shown.find("too much 55").map_or(shown.len(), |at| at + "too much 55".len());
    shown[..end].lines().filter(own).map(plain).collect()
}

#[test]
fn gdb_shows_cpp_as_it_shows_the_executable() {
    let scratch = Scratch::new("gdb-cpp");
    let source = scratch.write("program.cpp", CPP);
    // The exception is not looked at: where it lies before it is caught is chance.
    let commands = [
        "break early",
        "break fail",
        "break Stack<int>::push",
        "break program.cpp:32",
        "run",
        "echo == begin\\n",
        "frame",
        "print counter",
        "continue",
        "bt",
        "print item",
        "print *this",
        "delete 3",
        "continue",
        "bt",
        "print n",
        "print stack.items",
        "print counter",
        "ptype stack",
        "continue",
        "bt",
        "up",
        "print stack",
        "print halves",
        "print derived.k",
        "print derived.color",
        "print either",
        "print sum",
        "ptype derived",
        "ptype either",
        "info symbol &counter",
        "info line program.cpp:24",
        "catch throw",
        "continue",
        "bt -frame-arguments none",
        "delete",
        "continue",
    ];
    for flags in [&["-g", "-O0"][..], &["-gdwarf-4", "-O0"], &["-g", "-O2"]] {
        let executable = scratch.join(format!("executable{}", flags.concat()));
        clangxx([OsStr::new("-w")].into_iter().chain(flags.iter().map(OsStr::new)).chain([
            source.as_os_str(),
            "-o".as_ref(),
            executable.as_os_str(),
        ]));
        let want = finish(gdb(commands).arg(&executable));
        let want = comparable(&want);
        for shown in ["fail (code=3)", "too much", "Color::Green"] {
            // The optimizer leaves things out.
            let there = want.iter().any(|line| line.contains(shown));
            assert!(there || flags.contains(&"-O2"), "no {shown}: {want:#?}");
        }
        let store = scratch.join("store");
        let mut arguments: Vec<&OsStr> = ["run", "--gdb", "-w", "--cache-dir"].map(OsStr::new).into();
        arguments.push(store.as_ref());
        arguments.extend(flags.iter().map(OsStr::new));
        arguments.push(source.as_ref());
        let got = comparable(&gdb_hotbed(&commands, arguments));
        let section = |lines: &[String]| -> Vec<String> {
            // Where `info symbol` finds it is a section of the executable there, and of a file without a name here.
            lines.iter().map(|line| line.split(" in section").next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(section(&got), section(&want), "{flags:?}");
    }
}

const LIBRARY: &str = r#"
struct node { int value; struct node *next; };
int total(const struct node *n) {
  int sum = 0;
  for (; n; n = n->next)
    sum += n->value;
  return sum;
}
"#;

#[test]
fn gdb_shows_several_units_at_once() {
    let scratch = Scratch::new("gdb-units");
    let library = scratch.write("library.c", LIBRARY);
    let main = "struct node { int value; struct node *next; };\nint total(const struct node *);\n\
                int main(void) {\n  struct node a = {1, 0}, b = {41, &a};\n  return total(&b) - 42;\n}\n";
    let main = scratch.write("main.c", main);
    let image = scratch.join("library.hbi");
    finish(hotbed(["image", "build", "--no-cache", "-g", "-o"]).arg(&image).arg(&library))
        .assert_success("image");
    for (kind, library) in [("image", &image), ("object", &object(&library, "o", &["-g", "-fPIC"]))] {
        let commands = ["break total", "run", "bt", "print *n->next", "up", "info locals", "continue"];
        let arguments = ["run", "--gdb", "--no-cache", "-g"].map(OsStr::new);
        let outcome =
            gdb_hotbed(&commands, arguments.into_iter().chain([main.as_ref(), library.as_os_str()]));
        assert_shows(
            &outcome,
            &[
                "total (n=0x…) at …library.c:4",
                "#0  total (n=0x…) at …library.c:4",
                "#1  … in main () at …main.c:5",
                "{value = 1, next = 0x0}",
                "b = {value = 41, next = 0x…}",
                "exited normally",
            ],
        );
        assert!(!outcome.stderr.contains("BFD"), "{kind}: {}", outcome.stderr);
    }
}

/// A host that loads units in the middle of its run, calls them, and unloads one.
#[test]
fn host() {
    let Some(task) = task() else { return };
    let folder = Path::new(task.as_str());
    let runtime = Runtime::builder().no_cache().gdb(true).build().unwrap();
    let value = |n: i32| {
        format!(
            "static int scale = {n};\nint script_{n}(int n) {{\n  int scaled = n * scale;\n  return scaled + 1;\n}}\n"
        )
    };
    type Function = unsafe extern "C" fn(i32) -> i32;
    let mut units = Vec::new();
    // More than are merged.
    for n in 1..=20 {
        let unit = runtime.load(Source::text(format!("script_{n}.c"), value(n)).flags(["-g"])).unwrap();
        // SAFETY: that is its type.
        let function = unsafe { unit.get::<Function>(&format!("script_{n}")) }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { function(2) }, 2 * n + 1);
        drop(function);
        units.push(unit);
    }
    units.remove(4).unload().unwrap();
    // SAFETY: that is its type.
    let first = unsafe { units[0].get::<Function>("script_1") }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { first(5) }, 6);
    let packed = folder.join("packed.hbi");
    let text = "int packed(int n) {\n  int half = n / 2;\n  return half;\n}\n";
    runtime.image(&packed).unit(Source::text("packed.c", text).flags(["-g"])).build().unwrap();
    let packed = Image::bytes("packed", std::fs::read(&packed).unwrap());
    let packed = runtime.load(packed).unwrap();
    // SAFETY: that is its type.
    let half = unsafe { packed.get::<Function>("packed") }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { half(10) }, 5);
    let object = folder.join("script.o");
    let late = runtime.load(Object::file(&object)).unwrap();
    // SAFETY: that is its type.
    let late = unsafe { late.get::<Function>("late") }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { late(3) }, 9);
}

#[test]
fn gdb_shows_units_of_a_library_host_as_they_come_and_go() {
    let scratch = Scratch::new("gdb-host");
    let source = scratch.write("script.c", "int late(int n) {\n  int square = n * n;\n  return square;\n}\n");
    object(&source, "o", &["-g", "-fPIC"]);
    let commands = [
        "break script_3.c:3",
        "break script_1",
        "break script_5",
        "break late",
        "break packed",
        "run",
        "echo == one\\n",
        "bt 1",
        "continue",
        "echo == three\\n",
        "bt 1",
        "print scale",
        "finish",
        "continue",
        "echo == five\\n",
        "print n",
        "continue",
        "echo == again\\n",
        "bt 1",
        "info line script_20",
        "info line script_5",
        "continue",
        "echo == packed\\n",
        "bt 1",
        "next",
        "print half",
        "continue",
        "echo == late\\n",
        "next",
        "print square",
        "continue",
    ];
    let host = Child::new("debuggers::host", scratch.path().to_str().unwrap());
    let outcome = finish(&mut host.under(gdb(commands)));
    assert_shows(
        &outcome,
        &[
            "== one",
            "#0  script_1 (n=2) at …script_1.c:3",
            "== three",
            "#0  script_3 (n=2) at …script_3.c:3",
            "= 3",
            "Value returned is … = 7",
            "== five",
            "= 2",
            "== again",
            "#0  script_1 (n=5) at …script_1.c:3",
            "Line 2 of …script_20.c\" starts at address",
            "== packed",
            "#0  packed (n=10) at …packed.c:2",
            "= 5",
            "== late",
            "= 9",
            "exited normally",
        ],
    );
    assert!(outcome.stderr.contains("Function \"script_5\" not defined"), "unloaded: {}", outcome.stderr);
}

#[test]
fn addresses_tell_units_and_lines() {
    let scratch = Scratch::new("symbolize");
    let text = "int sink;\nstatic inline __attribute__((always_inline)) int inner(int n) {\n  return sink += n;\n}\n\
                int outer(int n) {\n  return inner(n) * 3;\n}\n";
    let source = scratch.write("lines.c", text);
    let image = scratch.join("lines.hbi");
    let runtime = Runtime::builder().cache_dir(scratch.join("store")).build().unwrap();
    runtime.image(&image).unit(Source::file(&source).flags(["-g", "-O2"])).build().unwrap();
    let bytes = std::fs::read(&image).unwrap();
    let units = [
        runtime.load(Source::file(&source).flags(["-g", "-O2"]).named("from source")).unwrap(),
        runtime.load(Image::file(&image).named("from a file")).unwrap(),
        runtime.load(Image::bytes("from bytes", bytes)).unwrap(),
    ];
    for unit in units {
        let outer = unit.address_of("outer").unwrap();
        let frames: Vec<_> =
            (0..32).map(|at| runtime.symbolize(outer + at)).filter(|frames| frames.len() == 2).collect();
        let [inner, outer] = &frames[0][..] else { panic!("{}: {frames:?}", unit.name()) };
        assert_eq!((inner.function.as_deref(), inner.line), (Some("inner"), Some(3)));
        assert_eq!((outer.function.as_deref(), outer.line), (Some("outer"), Some(6)));
        for frame in [inner, outer] {
            assert_eq!(frame.file.as_deref(), Some(source.as_path()));
            assert_eq!(frame.unit.as_deref(), Some(unit.name()));
        }
        let address = unit.address_of("outer").unwrap();
        unit.unload().unwrap();
        assert!(runtime.symbolize(address).iter().all(|frame| frame.function.is_none()), "{}", unit.name());
    }
}

#[test]
fn a_stripped_host_is_told_what_gdb_misses() {
    let scratch = Scratch::new("gdb-stripped");
    let source = scratch.write("debug.c", C);
    // The command exports what gdb looks for, so it may be stripped.
    let run = hotbed(["run", "--gdb", "--verbose", "--no-cache", "-g"]);
    let stripped = scratch.join("hotbed");
    execute(Command::new("strip").arg("-o").arg(&stripped).arg(run.get_program()));
    let mut gdb = gdb(["break pair_inner", "run", "bt"]);
    let plugin = Path::new(run.get_program()).with_file_name("libhotbed_jit.so");
    let outcome = finish(gdb.arg(&stripped).args(run.get_args()).arg(&source).env("HOTBED_JIT", plugin));
    assert_shows(&outcome, &["#0  pair_inner (p=0x…) at …debug.c:5", "main () at …debug.c:12"]);
    assert!(!outcome.stderr.contains("gdb will not see"), "{}", outcome.stderr);
}
