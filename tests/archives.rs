//! Archives as a layer: which members come in, when, and what they are bound to; the linker is the oracle for which.

use crate::libraries::Library;
use crate::support::{Scratch, archive, execute, object};
use hotbed::{Archive, Error, Image, Layer, Runtime, SharedLibrary, Source, Unit, host_fn};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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

/// An archive of one object for each text.
fn archive_of(scratch: &Scratch, name: &str, members: &[(&str, &str)]) -> PathBuf {
    let made: Vec<PathBuf> =
        members.iter().map(|(member, text)| object(&scratch.write(member, text), "o", &["-fPIC"])).collect();
    let path = scratch.join(name);
    archive(&path, &made);
    path
}

#[track_caller]
fn load(runtime: &Runtime, what: impl Into<hotbed::Load>) -> Unit {
    runtime.load(what).unwrap_or_else(|error| panic!("{}", error.render()))
}

#[test]
fn members_come_in_when_something_needs_them_and_once() {
    let scratch = Scratch::new("archives-once");
    let path = archive_of(
        &scratch,
        "lib.a",
        &[
            ("count.c", "static int n; int count(void) { return ++n; }"),
            ("twice.c", "int count(void); int twice(void) { count(); return count(); }"),
            ("thrice.c", "int count(void), twice(void); int thrice(void) { twice(); return count(); }"),
            ("broken.c", "int nobody_has_this(void); int broken(void) { return nobody_has_this(); }"),
        ],
    );
    let runtime = runtime();
    let lib = load(&runtime, Archive::file(&path));
    assert!(lib.members().is_empty() && lib.is_loaded());
    assert_eq!(lib.path().as_deref(), Some(&*path));
    let names: BTreeSet<String> = lib.exports().into_iter().collect();
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["broken", "count", "thrice", "twice"]);
    let one = load(&runtime, Source::text("one.c", "int twice(void); int one(void) { return twice(); }"));
    assert_eq!(lib.members(), ["count.o", "twice.o"]);
    assert_eq!(call(&one, "one"), 2);
    // What is there is used, and what is missing comes by the archive's own unit.
    let two = load(&runtime, Source::text("two.c", "int count(void); int two(void) { return count(); }"));
    assert_eq!(call(&two, "two"), 3);
    assert_eq!(lib.members().len(), 2);
    assert_eq!(call(&lib, "thrice"), 6);
    assert_eq!(lib.members(), ["count.o", "twice.o", "thrice.o"]);
    assert_eq!(call(&lib, "count"), 7);
    // SAFETY: never called.
    let error = unsafe { lib.get::<unsafe extern "C" fn()>("nothing") }.unwrap_err();
    assert!(matches!(error, Error::Get { .. }), "{error}");
    // What would be loaded is told, and what is there.
    let said = runtime.explain("broken");
    let (asked, answer) = said.winner().unwrap();
    assert_eq!((asked.layer, &*answer.unit), (Layer::Archives, &*format!("{}(broken.o)", path.display())));
    assert_eq!(runtime.explain("twice").winner().unwrap().0.layer, Layer::Images);
    // A member that cannot be loaded says what it lacks, and who was asked.
    for _ in 0..2 {
        let user = Source::text("user.c", "int broken(void); int user(void) { return broken(); }");
        let error = runtime.load(user).unwrap_err().to_string();
        assert!(
            error.contains("nobody_has_this")
                && error.contains("lib.a(broken.o)")
                && error.contains("the process, archives"),
            "{error}"
        );
        assert_eq!(lib.members().len(), 3);
    }
    // The same again is the same; other content is not.
    assert_eq!(load(&runtime, Archive::file(&path)).members().len(), 3);
    std::fs::copy(archive_of(&scratch, "other.a", &[("other.c", "int other;")]), &path).unwrap();
    assert!(matches!(runtime.load(Archive::file(&path)).unwrap_err(), Error::NameTaken { .. }));
}

#[test]
fn members_and_archives_that_need_each_other() {
    let scratch = Scratch::new("archives-cyclic");
    let even = "int odd(int n); int even(int n) { return n == 0 ? 1 : odd(n - 1); } int start(void) { return even(10); }";
    let odd = "int even(int n); int odd(int n) { return n == 0 ? 0 : even(n - 1); }";
    let runtime = runtime();
    let one =
        load(&runtime, Archive::file(archive_of(&scratch, "one.a", &[("even.c", even), ("odd.c", odd)])));
    assert_eq!(call(&one, "start"), 1);
    assert_eq!(one.members(), ["even.o", "odd.o"]);
    // The same in two archives, and a unit that its archive calls back.
    let runtime = self::runtime();
    let left = archive_of(
        &scratch,
        "left.a",
        &[("left.c", &format!("int base(void); {even} int go(void) {{ return base() + even(4); }}"))],
    );
    let right = archive_of(&scratch, "right.a", &[("right.c", odd)]);
    let left = load(&runtime, Archive::file(&left));
    let right = load(&runtime, Archive::bytes("right", std::fs::read(&right).unwrap()));
    let user = load(
        &runtime,
        Source::text("user.c", "int go(void); int base(void) { return 40; } int user(void) { return go(); }"),
    );
    assert_eq!(call(&user, "user"), 41);
    assert_eq!((left.members(), right.members()), (vec!["left.o".to_owned()], vec!["right.o".to_owned()]));
}

#[test]
fn look_ups_of_units_load_members() {
    let scratch = Scratch::new("archives-look-ups");
    let members = [
        ("base.c", "int base(void) { return 4; }"),
        ("looked.c", "int base(void); int looked_up(void) { return base() + 1; }"),
    ];
    let runtime = runtime();
    let lib = load(&runtime, Archive::file(archive_of(&scratch, "lib.a", &members)));
    let text = "#include <dlfcn.h>\nint user(void) { int (*f)(void) = dlsym(RTLD_DEFAULT, \"looked_up\"); return f ? f() : -1; }";
    let user = load(&runtime, Source::text("user.c", text));
    assert!(lib.members().is_empty() && lib.is_waiting());
    assert_eq!(call(&user, "user"), 5);
    assert_eq!(lib.members(), ["base.o", "looked.o"]);
}

#[test]
fn bitcode_hidden_symbols_and_thin_archives() {
    let scratch = Scratch::new("archives-kinds");
    let bitcode = |name: &str, text: &str| object(&scratch.write(name, text), "bc", &["-emit-llvm"]);
    let members = [
        bitcode("deep.c", "int value = 5; int deep(void) { return value; }"),
        bitcode("shallow.c", "int deep(void); int shallow(void) { return deep() + 1; }"),
    ];
    let path = scratch.join("bitcode.a");
    execute(Command::new("llvm-ar-22").args(["rcs"]).arg(&path).args(&members));
    let runtime = runtime();
    let lib = load(&runtime, Archive::file(&path));
    assert_eq!(call(&lib, "shallow"), 6);
    let mut names = lib.members();
    names.sort();
    assert_eq!(names, ["deep.bc", "shallow.bc"]);

    // Code reaches what is hidden directly, so these two cannot be loaded one after the other.
    const HIDDEN: &str = "extern int state __attribute__((visibility(\"hidden\")));";
    let path = archive_of(
        &scratch,
        "hidden.a",
        &[
            ("set.c", &format!("{HIDDEN} int state = 7; int set(void) {{ return state = 8; }}")),
            ("get.c", &format!("{HIDDEN} int get(void) {{ return state; }}")),
            ("apart.c", "int apart(void) { return 1; }"),
        ],
    );
    let lib = load(&runtime, Archive::file(&path));
    assert_eq!(call(&lib, "set"), 8);
    assert_eq!(call(&lib, "get"), 8);
    assert_eq!(lib.members(), ["set.o", "get.o"]);
    // A linker lets every object of a program see it.
    let user = load(&runtime, Source::text("user.c", "extern int state; int user(void) { return state; }"));
    assert_eq!(call(&user, "user"), 8);

    let thin = scratch.join("thin.a");
    let made = object(&scratch.write("thin.c", "int thin(void) { return 3; }"), "o", &["-fPIC"]);
    execute(Command::new("llvm-ar-22").args(["rcsT"]).arg(&thin).arg(&made));
    assert_eq!(call(&load(&runtime, Archive::file(&thin)), "thin"), 3);
    let error = runtime.load(Archive::bytes("memory.a", std::fs::read(&thin).unwrap())).unwrap_err();
    assert!(error.to_string().contains("thin archive"), "{error}");
}

#[test]
fn others_come_before_archives() {
    let scratch = Scratch::new("archives-order");
    let path = archive_of(
        &scratch,
        "order.a",
        &[
            ("who.c", "int who(void) { return 1; }"),
            ("getpid.c", "int getpid(void) { return -1; }"),
            ("user.c", "int who(void), getpid(void); int user(void) { return who() * 2 + (getpid() > 0); }"),
        ],
    );
    let who =
        crate::support::shared_library(&scratch.write("library.c", "int who(void) { return 10; }"), &[]);
    let runtime = runtime();
    let library = load(&runtime, SharedLibrary::path(&who));
    let lib = load(&runtime, Archive::file(&path));
    assert_eq!(call(&lib, "user"), 21);
    assert_eq!(lib.members(), ["user.o"]);
    assert_eq!(call(&lib, "who"), 1, "the archive's own is there for who asks the archive");
    assert_eq!(call(&library, "who"), 10);
    // Whole: all at once, and one that cannot be is an error.
    let whole = load(&self::runtime(), Archive::file(&path).whole());
    assert!(whole.members().is_empty());
    assert_eq!(call(&whole, "getpid"), -1);
}

#[test]
fn a_member_stays_while_others_are_bound_to_it() {
    let scratch = Scratch::new("archives-unload");
    let path = archive_of(
        &scratch,
        "lib.a",
        &[
            ("base.c", "static int n; int base(void) { return ++n; }"),
            ("more.c", "int base(void); int more(void) { return base(); }"),
        ],
    );
    let runtime = runtime();
    let lib = load(&runtime, Archive::file(&path));
    let user = load(&runtime, Source::text("user.c", "int base(void); int user(void) { return base(); }"));
    assert_eq!((call(&user, "user"), call(&lib, "more")), (1, 2));
    let error = lib.unload().unwrap_err().to_string();
    assert!(error.contains("user.c"), "{error}");
    // A refusal changes nothing: what is loaded is not loaded once more.
    assert_eq!(lib.members(), ["base.o", "more.o"]);
    assert_eq!(call(&lib, "base"), 3);
    let text = "int base(void), more(void); int again(void) { more(); return base(); }";
    let again = load(&runtime, Source::text("again.c", text));
    assert_eq!((call(&again, "again"), lib.members().len()), (5, 2));
    again.unload().unwrap();
    user.unload().unwrap();
    // Its own members are bound to each other, which keeps nothing.
    lib.unload().unwrap();
    assert!(!lib.is_loaded() && lib.unload().is_err());
    assert!(
        runtime.load(Source::text("user.c", "int base(void); int user(void) { return base(); }")).is_err()
    );
    assert_eq!(call(&load(&runtime, Archive::file(&path)), "more"), 1);
}

#[test]
fn what_was_linked_of_an_archive_is_stored() {
    let scratch = Scratch::new("archives-stored");
    let path = archive_of(&scratch, "lib.a", &[("seven.c", "int seven(void) { return 7; }")]);
    let image = scratch.join("user.hbi");
    let builder = || Runtime::builder().cache_dir(scratch.join("store"));
    let first = builder().build().unwrap();
    first
        .image(&image)
        .unit(Source::text("user.c", "int seven(void); int user(void) { return seven(); }"))
        .build()
        .unwrap();
    for runtime in [first, builder().back_end(scratch.join("no back end")).build().unwrap()] {
        load(&runtime, Archive::file(&path));
        assert_eq!(call(&load(&runtime, Image::file(&image)), "user"), 7);
    }
}

/// The members of `archive` that the linker takes for `program`.
fn taken_by_linker(library: &Library, program: &Path, archive: &Path, out: &Path) -> BTreeSet<String> {
    let mut command = Command::new("clang-22");
    command.args(&library.flags).arg(program).arg(archive).args(&library.libs).arg("-o").arg(out);
    let said = execute(command.args(["-fuse-ld=lld", "-Wl,--trace"])).stdout;
    let members = said.lines().filter_map(|line| line.split_once(&format!("{}(", archive.display())));
    members.map(|(_, member)| member.trim_end_matches(')').to_owned()).collect()
}

#[test]
fn a_real_library_gives_what_a_linker_would_take() {
    let scratch = Scratch::new("archives-lua");
    let library = Library::find("lua");
    let mut objects = library.compile(&scratch, &["-fPIC"], "o");
    objects.pop();
    let lua = scratch.join("liblua.a");
    archive(&lua, &objects);
    let text = "#include <lauxlib.h>\n#include <lua.h>\n#include <lualib.h>\n\
        int run(void) { lua_State *L = luaL_newstate(); luaL_requiref(L, \"math\", luaopen_math, 1);\n\
          int failed = luaL_dostring(L, \"return math.floor(20.5) * 2 + select('#', 7)\"); \n\
          int value = failed ? -1 : (int)lua_tointeger(L, -1); lua_close(L); return value; }\n\
        int main(void) { return run() != -1; }\n";
    // Without the base library there is no `select`: that is an error, in both.
    let program = scratch.write("program.c", text);
    let executable = scratch.join("executable");
    let want = taken_by_linker(&library, &program, &lua, &executable);
    execute(&mut Command::new(&executable));
    let runtime = runtime();
    let lib = load(&runtime, Archive::file(&lua).flags(&library.libs));
    let user = load(&runtime, Source::file(&program).flags(&library.flags));
    assert_eq!(lib.members().into_iter().collect::<BTreeSet<_>>(), want);
    assert!(want.len() < objects.len() && want.contains("lmathlib.o"), "{want:?}");
    assert_eq!(call(&user, "run"), -1);
    // What one more program needs comes on top.
    let text = text.replace("luaL_requiref(L, \"math\", luaopen_math, 1);", "luaL_openlibs(L);");
    let program = scratch.write("more.c", text.replace("!= -1", "!= 41"));
    let more = taken_by_linker(&library, &program, &lua, &executable);
    execute(&mut Command::new(&executable));
    let user = load(&runtime, Source::file(&program).flags(&library.flags));
    assert_eq!(call(&user, "run"), 41);
    assert_eq!(lib.members().len(), more.len(), "each once");
    assert_eq!(lib.members().into_iter().collect::<BTreeSet<_>>(), more);
}

#[test]
fn threads_that_need_the_same_member_share_it() {
    let scratch = Scratch::new("archives-threads");
    let path = archive_of(
        &scratch,
        "lib.a",
        &[
            ("deep.c", "static int n; int *deep(void) { return &n; }"),
            ("same.c", "int *deep(void); int *same(void) { return deep(); }"),
        ],
    );
    let runtime = runtime();
    let lib = load(&runtime, Archive::file(&path));
    let (runtime, lib) = (&runtime, &lib);
    let addresses: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|at| {
                scope.spawn(move || {
                    let name = ["deep", "same"][at % 2];
                    let text = format!("int *{name}(void); int *ask(void) {{ return {name}(); }}");
                    let unit = load(runtime, Source::text(format!("user{at}.c"), text));
                    let unit = if at % 4 < 2 { unit } else { lib.clone() };
                    let name = if at % 4 < 2 { "ask" } else { name };
                    // SAFETY: all of them have this type.
                    let ask = unsafe { unit.get::<unsafe extern "C" fn() -> *mut i32>(name) }.unwrap();
                    // SAFETY: as above.
                    unsafe { ask() as usize }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
    let mut members = lib.members();
    members.sort();
    assert_eq!(members, ["deep.o", "same.o"]);
}

static NESTED: OnceLock<Runtime> = OnceLock::new();

/// Loads a unit that needs another member, and the member that is being loaded.
extern "C" fn load_more() -> i32 {
    let text = "int other(void), begun(void); int nested(void) { return other() + begun(); }";
    call(&load(NESTED.get().unwrap(), Source::text("nested.c", text)), "nested")
}

#[test]
fn a_constructor_of_a_member_may_load_more() {
    let scratch = Scratch::new("archives-nested");
    let path = archive_of(
        &scratch,
        "lib.a",
        &[
            (
                "begun.c",
                "int load_more(void); static int found; int begun(void) { return 1; }\n\
                 __attribute__((constructor)) static void begin(void) { found = load_more(); }\n\
                 int result(void) { return found; }",
            ),
            ("other.c", "int other(void) { return 20; }"),
        ],
    );
    let runtime = NESTED.get_or_init(runtime);
    runtime.define("load_more", host_fn!(load_more as extern "C" fn() -> i32)).unwrap();
    let lib = load(runtime, Archive::file(&path));
    assert_eq!(call(&lib, "result"), 21);
    let mut members = lib.members();
    members.sort();
    assert_eq!(members, ["begun.o", "other.o"]);
}

#[test]
fn damaged_archives_are_refused_or_read() {
    let scratch = Scratch::new("archives-damaged");
    let members =
        [("a.c", "int a(void) { return 1; }"), ("b.cpp", "inline int x = 1; int *b() { return &x; }")];
    let sound = std::fs::read(archive_of(&scratch, "lib.a", &members)).unwrap();
    let runtime = runtime();
    let mut sequence = 0;
    let mut read = |bytes: Vec<u8>| {
        sequence += 1;
        let result = runtime.load(Archive::bytes(format!("{sequence}.a"), bytes));
        match &result {
            Ok(unit) => unit.unload().unwrap(),
            Err(error) => assert!(matches!(error, Error::Input { .. }), "{error}"),
        }
        result.is_ok()
    };
    assert!(read(sound.clone()));
    let beginning = 8;
    for end in (0..sound.len() - 1).filter(|end| *end != beginning) {
        // Between two members it is a smaller archive, with an index that points outside.
        assert!(!read(sound[..end].to_vec()), "cut off at {end}");
    }
    let refused = (0..sound.len())
        .flat_map(|at| [0xff, 0x80, 1].map(|mask| (at, mask)))
        .filter(|(at, mask)| {
            let mut bytes = sound.clone();
            bytes[*at] ^= mask;
            !read(bytes)
        })
        .count();
    assert!(refused > 100, "{refused}");
}
