//! What runs before `main` and after it, of every kind that objects have, in the order of clang's executable; and what a
//! unit registers to be run at its end, as a library does that is opened and closed.

use crate::support::{
    Child, End, Outcome, Scratch, archive, child_flush as flush, execute, finish, hotbed, object,
    shared_library, task,
};
use hotbed::{Archive, Bitcode, Ir, Load, Object, Runtime, Source};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything that a C file may have; `NAME` is put in front of what it says.
const EVERY_KIND: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#define SAY(f, text) static void f(void) { puts(NAME " " text); }
extern char **environ;
static void first(int count, char **arguments, char **environment) {
  printf(NAME " preinit %d %s %d\n", count, arguments[count - 1], environment[0] != 0);
}
static void with_arguments(int count, char **arguments, char **environment) {
  printf(NAME " init_array %d %s %d\n", count, arguments[count - 1], environment == environ);
}
SAY(second, "preinit again") SAY(ctor, "ctor") SAY(ctor2, "another ctor") SAY(dtor, "dtor") SAY(dtor2, "another dtor")
SAY(early, "early ctor") SAY(late, "late dtor") SAY(leave, "at exit")
#define IN(section_name, f) __attribute__((section(section_name), used)) static void (*in_##f)(void) = (void (*)(void))f;
IN(".preinit_array", first) IN(".preinit_array", second) IN(".init_array", with_arguments)
IN(".ctors", ctor) IN(".ctors", ctor2) IN(".dtors", dtor) IN(".dtors", dtor2)
IN(".ctors.65000", early) IN(".dtors.65000", late)
__attribute__((constructor)) static void c(void) { puts(NAME " constructor"); atexit(leave); }
__attribute__((constructor(102))) static void c102(void) { puts(NAME " constructor 102"); }
__attribute__((constructor(2000))) static void c2000(void) { puts(NAME " constructor 2000"); }
__attribute__((destructor)) static void d(void) { puts(NAME " destructor"); }
__attribute__((destructor(102))) static void d102(void) { puts(NAME " destructor 102"); }
__attribute__((destructor(2000))) static void d2000(void) { puts(NAME " destructor 2000"); }
#ifdef __cplusplus
#define PIECE(name) __attribute__((used)) static void piece_of_##name(void) __asm__("piece_of_" #name); static void piece_of_##name(void)
#else
#define PIECE(name) __attribute__((used)) static void piece_of_##name(void)
#endif
PIECE(init) { printf(NAME " init %d\n", (int)((unsigned long)__builtin_frame_address(0) % 16)); }
PIECE(fini) { puts(NAME " fini"); }
__asm__(".section .init,\"ax\",@progbits\n call piece_of_init\n .section .fini,\"ax\",@progbits\n call piece_of_fini\n .text\n");
"#;

const MAIN: &str =
    "#include \"every.h\"\nint main(int count, char **arguments) { puts(\"main\"); return count; }\n";
const OTHER: &str = "#include \"every.h\"\nstruct Noisy { const char *n; Noisy(const char *n) : n(n) { printf(\"+%s\\n\", n); } \
                     ~Noisy() { printf(\"-%s\\n\", n); } }; Noisy one(\"one\");\n\
                     __attribute__((init_priority(150))) Noisy two(\"two\"); inline Noisy three(\"three\");\n";

/// The files, with the name that each says.
fn files(scratch: &Scratch) -> [PathBuf; 2] {
    scratch.write("every.h", EVERY_KIND);
    let named = |name: &str, text: &str| scratch.write(name, format!("#define NAME \"{name}\"\n{text}"));
    [named("main.c", MAIN), named("other.cpp", OTHER)]
}

#[track_caller]
fn assert_same_order(scratch: &Scratch, flags: &[&str], inputs: &[PathBuf], objects: &[PathBuf]) {
    let executable = scratch.join("executable");
    let mut link = Command::new("clang++-22");
    execute(link.args(objects).args(["-L", "."]).current_dir(scratch.path()).arg("-o").arg(&executable));
    let want = finish(Command::new(&executable).args(["x", "last"]));
    assert!(want.stdout.contains("main.c another ctor\nmain.c ctor\n"), "{want:?}");
    for _ in 0..2 {
        let mut command = hotbed(["run", "-w", "--cache-dir"]);
        command.arg(scratch.join("store")).args(flags).args(inputs).args(["--", "x", "last"]);
        finish(&mut command).assert_same(&want, &format!("{flags:?} {inputs:?}"));
    }
}

#[test]
fn every_kind_in_the_order_of_the_executable() {
    let scratch = Scratch::new("beginning-kinds");
    let files = files(&scratch);
    // With .ctors and .dtors for attributes, too, and without.
    for flags in [&["-O1"][..], &["-O0", "-fno-use-init-array"], &["-O1", "-fPIC", "-ffunction-sections"]] {
        let objects = files.each_ref().map(|file| object(file, "o", flags));
        assert_same_order(&scratch, flags, &files, &objects);
        if flags.contains(&"-fPIC") {
            assert_same_order(&scratch, &[], &objects, &objects);
            let [main, other] = objects;
            assert_same_order(&scratch, &[], &[other.clone(), main.clone()], &[other.clone(), main.clone()]);
            // A member that is taken for what it defines, and one that is not.
            let wanted = scratch.write("wanted.c", "int never; int wanted = 1;\n");
            let user = scratch.write("user.c", "extern int wanted; int *user = &wanted;\n");
            let user = object(&user, "o", flags);
            let text = format!(
                "#define NAME \"wanted.c\"\n#include \"every.h\"\n{}",
                std::fs::read_to_string(&wanted).unwrap()
            );
            std::fs::write(&wanted, text).unwrap();
            let members = scratch.join("members.a");
            let with_a_long_name =
                scratch.write("a-name-of-more-than-sixteen-letters.c", "int unused = 1;\n");
            archive(&members, &[object(&with_a_long_name, "o", flags), object(&wanted, "o", flags)]);
            let all = [main, other, user, members];
            assert_same_order(&scratch, &[], &all, &all);
        }
    }
}

#[test]
fn objects_of_gcc_begin_and_end_alike() {
    let scratch = Scratch::new("beginning-gcc");
    let objects = files(&scratch).map(|file| {
        let object = file.with_extension("gcc.o");
        execute(
            Command::new("g++")
                .args(["-w", "-fPIC", "-c", "-x"])
                .arg(if file.ends_with("main.c") { "c" } else { "c++" })
                .arg(&file)
                .arg("-o")
                .arg(&object),
        );
        object
    });
    assert_same_order(&scratch, &[], &objects, &objects);
}

/// What only the C library's static part has, and a destructor.
const REGISTERS: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
static void one(void) { puts("at exit one"); }
static void two(void) { puts("at exit two"); atexit(one); }
static void quick(void) { puts("at quick exit"); }
static void prepare(void) { puts("prepare"); fflush(stdout); }
static void parent(void) { puts("parent"); }
static void child(void) { puts("child"); fflush(stdout); }
__attribute__((constructor)) static void begin(void) { puts("constructor"); }
__attribute__((destructor)) static void end(void) { puts("destructor"); }
int arm(void) {
  struct stat a, b, c;
  atexit(one); atexit(two); at_quick_exit(quick); pthread_atfork(prepare, parent, child);
  stat("/", &a); lstat("/", &b); fstat(0, &c);
  return S_ISDIR(a.st_mode) && a.st_ino == b.st_ino;
}
"#;

/// Opens its first argument as a library, and does what its second says.
const OPENER: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void divide(void) { fflush(stdout); if (fork() == 0) _exit(0); wait(0); }
int main(int count, char **arguments) {
  void *library = dlopen(arguments[1], RTLD_NOW);
  int (*arm)(void) = (int (*)(void))dlsym(library, "arm");
  printf("armed %d\n", arm());
  divide();
  if (strstr(arguments[2], "unload")) { dlclose(library); puts("unloaded"); divide(); }
  puts("end");
  fflush(stdout);
  if (strstr(arguments[2], "quick")) quick_exit(3);
  exit(4);
}
"#;

unsafe extern "C" {
    safe fn quick_exit(status: i32) -> !;
    safe fn exit(status: i32) -> !;
    safe fn fork() -> i32;
}

fn divide() {
    flush();
    if fork() == 0 {
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: a null pointer means that the status is not wanted.
    unsafe { libc::wait(std::ptr::null_mut()) };
}

/// Writes a line behind what C has written.
fn say(text: &str) {
    flush();
    println!("{text}");
}

/// The same with a unit; the task is a path and what to do.
#[test]
fn host() {
    let Some(task) = task() else { return };
    let (path, action) = task.as_str().split_once(' ').unwrap();
    let load: Load = match Path::new(path).extension().and_then(|suffix| suffix.to_str()) {
        Some("c" | "cpp") => Source::file(path).into(),
        Some("ll") => Ir::file(path).into(),
        Some("bc") => Bitcode::file(path).into(),
        Some("a") => Archive::file(path).into(),
        _ => Object::file(path).into(),
    };
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let unit = runtime.load(load).unwrap();
    // SAFETY: that is its type.
    let arm = unsafe { unit.get::<unsafe extern "C" fn() -> i32>("arm") }.unwrap();
    // SAFETY: as above.
    let armed = unsafe { arm() };
    say(&format!("armed {armed}"));
    divide();
    drop(arm);
    if action.contains("unload") {
        unit.unload().unwrap();
        say("unloaded");
        divide();
    }
    say("end");
    if action.contains("quick") { quick_exit(3) } else { exit(4) }
}

#[test]
fn what_a_unit_registers_runs_at_its_end_and_once() {
    let scratch = Scratch::new("beginning-registers");
    let source = scratch.write("registers.c", REGISTERS);
    let library = shared_library(&source, &[]);
    let opener = scratch.write("opener.c", OPENER);
    let program = scratch.join("opener");
    execute(Command::new("clang-22").arg(&opener).arg("-o").arg(&program));
    let cpp = scratch.write("plus.cpp", REGISTERS.replace("int arm", "extern \"C\" int arm"));
    let made = object(&source, "o", &["-fPIC"]);
    let members = scratch.join("registers.a");
    archive(&members, &[&made]);
    let units = [
        source.clone(),
        cpp,
        object(&source, "ll", &["-emit-llvm", "-S"]),
        object(&source, "bc", &["-emit-llvm"]),
        made,
        members,
    ];
    for (action, status) in [("exit", 4), ("quick", 3), ("unload", 4), ("unload-quick", 3)] {
        let want = finish(Command::new(&program).arg(&library).arg(action));
        assert_eq!((want.end, want.stdout.contains("child")), (End::Status(status), true), "{want:?}");
        for unit in &units {
            let got = Child::new("beginning_and_end::host", format!("{} {action}", unit.display())).run();
            // A library that is closed runs its destructors first; a unit ends as a program does.
            let lines = |outcome: &Outcome| {
                let mut lines: Vec<String> = outcome.stdout.lines().map(str::to_owned).collect();
                if action.contains("unload") {
                    let ends = lines.iter().position(|line| line == "unloaded").unwrap();
                    let begins = lines.iter().position(|line| line == "parent").unwrap();
                    lines[begins..ends].sort();
                }
                (outcome.end, lines)
            };
            assert_eq!(lines(&got), lines(&want), "{action} {}: {}", unit.display(), got.stderr);
            let position = |line: &str| got.stdout.find(line);
            assert!(position("at exit one") < position("destructor") || action.contains("quick"), "{got:?}");
        }
    }
}
