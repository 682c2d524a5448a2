//! Units that need each other, loaded together in any order: generated ones, and real libraries apart from their programs.

use crate::libraries::Library;
use crate::support::{Child, Scratch, child_flush, execute, finish, hotbed, object, shared_library, task};
use hotbed::{Archive, Error, Image, Load, Object, Runtime, SharedLibrary, Source, Unit};
use std::ffi::{c_char, c_int};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn call(unit: &Unit, name: &str) -> i32 {
    // SAFETY: every function in these tests that is called so has this type.
    let function = unsafe { unit.get::<unsafe extern "C" fn() -> i32>(name) };
    let function = function.unwrap_or_else(|error| panic!("{}", error.render()));
    // SAFETY: as above.
    unsafe { function() }
}

fn runtime() -> Runtime {
    Runtime::builder().no_cache().build().unwrap()
}

#[track_caller]
fn load_all(runtime: &Runtime, all: impl IntoIterator<Item = Load>) -> Vec<Unit> {
    runtime.load_all(all).unwrap_or_else(|error| panic!("{}", error.render()))
}

#[test]
fn every_kind_in_every_order() {
    let scratch = Scratch::new("groups-kinds");
    let made = object(
        &scratch.write("two.c", "int one(void); int two(void) { return one() + 1; }"),
        "o",
        &["-fPIC"],
    );
    let image = scratch.join("three.hbi");
    let three = Source::text("three.c", "int two(void); int three(void) { return two() + 1; }");
    runtime().image(&image).unit(three).build().unwrap();
    let four = shared_library(&scratch.write("four.c", "int four(void) { return 4; }"), &[]);
    // A library that needs what only the units have.
    let plugin = "int three(void); int plugin(void) { return three() + 10; }";
    let plugin = shared_library(&scratch.write("plugin.c", plugin), &[]);
    let member = object(&scratch.write("zero.c", "int zero(void) { return 0; }"), "o", &["-fPIC"]);
    let archive = scratch.join("zero.a");
    crate::support::archive(&archive, &[&member]);
    let loads = || -> Vec<Load> {
        vec![
            Source::text("one.c", "int zero(void), four(void); int one(void) { return zero() + 1; } int five(void) { return four() + 1; }").into(),
            Object::file(&made).into(),
            Image::file(&image).into(),
            SharedLibrary::path(&four).into(),
            SharedLibrary::path(&plugin).into(),
            Archive::file(&archive).into(),
        ]
    };
    let names: Vec<String> =
        load_all(&runtime(), loads()).iter().map(|unit| unit.name().to_owned()).collect();
    assert_eq!(names[0], "one.c");
    assert_eq!(names[5], archive.display().to_string());
    for turn in 0..names.len() {
        for backwards in [false, true] {
            let mut all = loads();
            all.rotate_left(turn);
            if backwards {
                all.reverse();
            }
            let runtime = runtime();
            let units = load_all(&runtime, all);
            assert_eq!(units.len(), names.len());
            let unit = |name: &str| runtime.unit(name).unwrap();
            assert_eq!(call(&unit(&names[2]), "three"), 3, "{turn} {backwards}");
            assert_eq!(call(&unit("one.c"), "five"), 5);
            assert_eq!(call(&unit(&names[4]), "plugin"), 13);
            assert_eq!(unit(&names[5]).members(), ["zero.o"]);
        }
    }
}

#[test]
fn nothing_is_loaded_when_one_fails() {
    let scratch = Scratch::new("groups-fail");
    let runtime = runtime();
    let kept = runtime.load(Source::text("kept.c", "int kept = 1;")).unwrap();
    let good = || Source::text("good.c", "int other(void); int good(void) { return other(); }").into();
    let other = || Source::text("other.c", "int other(void) { return 1; }").into();
    let lonely = shared_library(
        &scratch.write("lonely.c", "int nowhere(void); int lonely(void) { return nowhere(); }"),
        &[],
    );
    type Fits = fn(&Error) -> bool;
    let bad: Vec<(Load, Fits)> = vec![
        (Source::text("bad.c", "int bad(void) { return }").into(), |e| matches!(e, Error::Compile { .. })),
        (Source::text("bad.c", "int no(void); int bad(void) { return no(); }").into(), |e| {
            matches!(e, Error::Bind { .. })
        }),
        (Image::bytes("bad", b"no image".to_vec()).into(), |e| matches!(e, Error::Image { .. })),
        (SharedLibrary::path(&lonely).into(), |e| matches!(e, Error::Library { .. })),
        (Archive::bytes("bad.a", b"no archive".to_vec()).into(), |e| matches!(e, Error::Input { .. })),
        (Source::text("kept.c", "int kept = 2;").into(), |e| matches!(e, Error::NameTaken { .. })),
        (good(), Error::is_usage),
    ];
    for (load, fits) in bad {
        let name = format!("{load:?}");
        let error = runtime.load_all([good(), load, other()]).unwrap_err();
        assert!(fits(&error), "{name}: {error}");
        assert_eq!(runtime.units().len(), 1, "{name}");
        // Alone it still lacks the other.
        assert!(matches!(runtime.load_all([good()]).unwrap_err(), Error::Bind { .. }), "{name}");
    }
    assert!(load_all(&runtime, []).is_empty());
    // What is there already is given, and the rest loaded.
    let units = load_all(&runtime, [good(), Source::text("kept.c", "int kept = 1;").into(), other()]);
    assert_eq!((units[1].name(), units.len(), runtime.units().len()), (kept.name(), 3, 3));
    assert_eq!(call(&units[0], "good"), 1);
}

const COUNT: usize = 200;

const SHARED: &str = r#"
#pragma once
#include <typeinfo>
struct Base { virtual ~Base() = default; virtual int number() const = 0; };
struct Trouble { int from; explicit Trouble(int at) : from(at) {} virtual ~Trouble() = default; };
template <int N> struct Part : Base { int number() const override { return N; } static int made; };
template <int N> int Part<N>::made = 0;
inline int total = 0;
inline int &once() { static int value = ++total; return value; }
template <class T> T twice(T x) { return x + x; }
struct Seen { const void *total, *once, *made, *type, *twice; };
"#;

fn generated(scratch: &Scratch) -> Vec<PathBuf> {
    scratch.write("shared.h", SHARED);
    let mut files = Vec::new();
    for at in 0..COUNT {
        let next = (at + 7) % COUNT;
        let kind = at % 5;
        let text = format!(
            "#include \"shared.h\"\nvoid trouble_{next}(); Base *make_{next}();\n\
             Base *make_{at}() {{ Part<{kind}>::made++; return new Part<{kind}>; }}\n\
             void trouble_{at}() {{ throw Trouble{{{at}}}; }}\n\
             Seen seen_{at}() {{ Part<0> part; return {{&total, &once(), &Part<0>::made, &typeid(Base), (const void *)&twice<int>}}; }}\n\
             int check_{at}() {{ int sum = 0; try {{ trouble_{next}(); }} catch (Trouble &t) {{ sum += t.from; }}\n\
               Base *other = make_{next}(); sum += twice(other->number());\n\
               if (dynamic_cast<Part<{}> *>(other)) sum += 1000; delete other; total++; return sum; }}\n",
            next % 5
        );
        files.push(scratch.write(format!("unit_{at}.cpp"), text));
    }
    let mut main = String::from("#include \"shared.h\"\n#include <cstdio>\n#include <set>\n");
    for at in 0..COUNT {
        let _ = writeln!(main, "Seen seen_{at}(); int check_{at}();");
    }
    main.push_str("int main() { std::set<const void *> sets[5]; int sum = 0; Seen (*seen[])() = {");
    (0..COUNT).for_each(|at| {
        let _ = write!(main, "seen_{at}, ");
    });
    main.push_str("}; int (*checks[])() = {");
    (0..COUNT).for_each(|at| {
        let _ = write!(main, "check_{at}, ");
    });
    main.push_str(
        "};\nfor (auto f : seen) { Seen s = f(); const void *all[] = {s.total, s.once, s.made, s.type, s.twice};\n\
         for (int i = 0; i < 5; i++) sets[i].insert(all[i]); }\n\
         for (auto f : checks) sum += f();\n\
         for (auto &s : sets) std::printf(\"%zu \", s.size());\n\
         std::printf(\"%d %d %d %d %d\\n\", sum, total, once(), Part<0>::made, Part<4>::made);\n\
         std::printf(\"%d\\n\", sets[0].count(&total) && sets[3].count(&typeid(Base)) && sets[4].count((const void *)&twice<int>));\n\
         std::fflush(stdout); return 0; }\n",
    );
    files.push(scratch.write("main.cpp", main));
    files
}

#[test]
fn two_hundred_units_share_what_has_one_address() {
    let scratch = Scratch::new("groups-200");
    let files = generated(&scratch);
    let mut clang = Command::new("clang++-22");
    execute(clang.current_dir(scratch.path()).args(["-fPIC", "-c"]).args(&files));
    let objects = files.iter().map(|file| file.with_extension("o"));
    let executable = scratch.join("executable");
    execute(Command::new("clang++-22").args(objects).arg("-o").arg(&executable));
    let want = finish(&mut Command::new(&executable)).assert_success("executable");
    assert!(want.stdout.starts_with("1 1 1 1 1 ") && want.stdout.ends_with("\n1\n"), "{want:?}");
    for order in ["forwards", "backwards"] {
        let child = Child::new("groups::two_hundred", format!("{} {order}", scratch.path().display()));
        assert_eq!(child.succeed(), want.stdout, "{order}");
    }
}

#[test]
fn two_hundred() {
    let Some(task) = task() else { return };
    let (folder, order) = task.as_str().split_once(' ').unwrap();
    let mut loads: Vec<Load> = (0..COUNT)
        .map(|at| {
            let file = Path::new(folder).join(format!("unit_{at}.cpp"));
            // Most as objects, which clang has compiled already.
            if at % 10 == 0 {
                Source::file(file).into()
            } else {
                Object::file(file.with_extension("o")).into()
            }
        })
        .collect();
    loads.push(Object::file(Path::new(folder).join("main.o")).named("main").into());
    if order == "backwards" {
        loads.reverse();
    }
    let runtime = runtime();
    let units = load_all(&runtime, loads);
    assert_eq!(units.len(), COUNT + 1);
    assert_eq!(call(&runtime.unit("main").unwrap(), "main"), 0);
}

/// A real library as a unit of its own, its program as another.
fn apart(name: &str, flags: &[&str]) {
    let scratch = Scratch::new(&format!("groups-{name}"));
    let library = Library::find(name);
    let mut objects = library.compile(&scratch, flags, "o");
    let executable = scratch.join("executable");
    execute(Command::new(library.compiler()).args(&objects).args(&library.libs).arg("-o").arg(&executable));
    let want = finish(&mut Command::new(&executable));
    objects.pop();
    let image = scratch.join("library.hbi");
    let store = scratch.join("store");
    let mut build = hotbed(["image", "build", "--cache-dir"]);
    finish(build.arg(&store).arg("-o").arg(&image).args(&objects).args(&library.libs))
        .assert_success("image build");
    for order in [[&image, &library.program], [&library.program, &image]] {
        for round in ["cold", "warm"] {
            let mut command = hotbed(["run", "--cache-dir"]);
            command.arg(&store).args(&library.flags).args(order).args(&library.libs);
            finish(&mut command).assert_same(&want, &format!("{name}, {order:?}, {round}"));
        }
    }
    // The program as an image that does not name the library, too.
    let program = scratch.join("program.hbi");
    let mut build = hotbed(["image", "build", "--cache-dir"]);
    build.arg(&store).arg("-o").arg(&program).args(&library.flags).arg(&library.program);
    finish(&mut build).assert_success("image of the program");
    for order in [[&image, &program], [&program, &image]] {
        let mut command = hotbed(["run", "--cache-dir"]);
        finish(command.arg(&store).args(order)).assert_same(&want, &format!("{name}, {order:?}"));
    }
}

macro_rules! libraries {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            apart(stringify!($name), &["-fPIC"]);
        })*
    };
}

libraries!(sqlite3, lua, flecs, zlib, stb_image, imgui, miniaudio);

#[test]
#[ignore = "slow: make test-slow"]
fn jolt_in_parts() {
    let scratch = Scratch::new("groups-jolt");
    let library = Library::find("jolt");
    let objects: Vec<PathBuf> = (0..library.files.len()).map(|at| scratch.join(format!("{at}.o"))).collect();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for first in 0..threads {
            let (library, objects) = (&library, &objects);
            scope.spawn(move || {
                for at in (first..objects.len()).step_by(threads) {
                    let mut clang = Command::new("clang++-22");
                    clang.args(&library.flags).args(["-fPIC", "-c"]).arg(&library.files[at]);
                    execute(clang.arg("-o").arg(&objects[at]));
                }
            });
        }
    });
    let folder = library.flags.iter().filter(|flag| flag.starts_with("-I"));
    let program = scratch.join("program.o");
    execute(
        Command::new("clang-22")
            .args(folder)
            .args(["-w", "-fPIC", "-c"])
            .arg(&library.program)
            .arg("-o")
            .arg(&program),
    );
    let executable = scratch.join("executable");
    let mut link = Command::new("clang++-22");
    execute(link.args(&objects).arg(&program).args(&library.libs).arg("-o").arg(&executable));
    let want = finish(&mut Command::new(&executable)).assert_success("executable");
    for parts in [2, 8, objects.len()] {
        let child = Child::new(
            "groups::jolt_child",
            format!("{} {parts} {}", scratch.path().display(), objects.len()),
        );
        assert_eq!(child.succeed(), want.stdout, "{parts} parts");
    }
}

#[test]
fn jolt_child() {
    let Some(task) = task() else { return };
    let words: Vec<&str> = task.as_str().split(' ').collect();
    let (folder, parts, count) = (Path::new(words[0]), words[1].parse().unwrap(), words[2].parse().unwrap());
    let mut programs = vec![hotbed::Program::new().file(folder.join("program.o")).named("program")];
    for part in 0..parts {
        let files = (part..count).step_by(parts).map(|at: usize| folder.join(format!("{at}.o")));
        let part = files.fold(hotbed::Program::new().named(format!("part {part}")), hotbed::Program::file);
        programs.push(part.flags(["-lm", "-lpthread"]));
    }
    let runtime = runtime();
    let units = load_all(&runtime, programs.into_iter().map(Load::from));
    // SAFETY: the program has such a `main`.
    let main = unsafe { units[0].get::<unsafe extern "C" fn(c_int, *const *const c_char) -> c_int>("main") };
    let arguments = [c"program".as_ptr(), std::ptr::null()];
    // SAFETY: as above, with a null-terminated list of arguments.
    assert_eq!(unsafe { main.unwrap()(1, arguments.as_ptr()) }, 0);
    child_flush();
}
