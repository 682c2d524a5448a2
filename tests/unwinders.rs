//! Unwinders in a process: the command has its own, and `libgcc_s.so.1` comes when a program needs it, or when glibc does for
//! a thread that ends or wants to know its callers. Whichever it is, it knows the frames of images.

use crate::support::{Scratch, execute, finish, hotbed, shared_library};
use std::path::Path;
use std::process::Command;

/// Callers by glibc's `backtrace`, and threads that end in the middle of a function, which glibc unwinds.
const GLIBC: &str = r#"
#include <execinfo.h>
#include <pthread.h>
#include <stdio.h>
#include <threads.h>
#include <unistd.h>
__attribute__((noinline)) int callers(int depth) {
  void *frames[64];
  if (depth == 0) return backtrace(frames, 64);
  int seen = callers(depth - 1);
  __asm__ volatile("");
  return seen;
}
static void cleaned(int *of) { printf("cleaned %d\n", *of); fflush(stdout); }
static void *exits(void *result) {
  int local __attribute__((cleanup(cleaned))) = callers(9) - callers(3);
  pthread_exit(result);
}
static void popped(void *text) { printf("popped %s\n", (char *)text); fflush(stdout); }
static void *waits(void *nothing) {
  int local __attribute__((cleanup(cleaned))) = 2;
  pthread_cleanup_push(popped, "cancelled");
  for (;;) pause();
  pthread_cleanup_pop(0);
  return nothing;
}
static int leaves(void *result) {
  int local __attribute__((cleanup(cleaned))) = 3;
  thrd_exit(*(int *)result);
}
int main(void) {
  printf("%d\n", callers(10) - callers(5));
  pthread_t thread;
  void *result;
  pthread_create(&thread, 0, exits, "exited");
  pthread_join(thread, &result);
  puts(result);
  pthread_create(&thread, 0, waits, 0);
  pthread_cancel(thread);
  pthread_join(thread, &result);
  printf("%d\n", result == PTHREAD_CANCELED);
  thrd_t other;
  int number = 42;
  thrd_create(&other, leaves, &number);
  thrd_join(other, &number);
  printf("%d\n", number);
  pthread_create(&thread, 0, exits, 0);
  pthread_detach(thread);
  pthread_exit(0);
}
"#;

/// Callers by libgcc's own function.
const LIBGCC: &str = r#"
#include <stdio.h>
#include <unwind.h>
static _Unwind_Reason_Code count(struct _Unwind_Context *context, void *number) {
  ++*(int *)number;
  return 0;
}
__attribute__((noinline)) int callers(int depth) {
  int number = 0;
  if (depth == 0) { _Unwind_Backtrace(count, &number); return number; }
  number = callers(depth - 1);
  __asm__ volatile("");
  return number;
}
int main(void) { printf("%d\n", callers(9) - callers(3)); }
"#;

/// What brings an unwinder is not known before it runs: a function by `dlsym`, and a C++ library by `dlopen` whose exceptions
/// go through the program.
const LATE: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
static int (*back)(void **, int);
__attribute__((noinline)) int callers(int depth) {
  void *frames[64];
  if (depth == 0) return back(frames, 64);
  int seen = callers(depth - 1);
  __asm__ volatile("");
  return seen;
}
static int (*thrower)(int);
static int relay(int value) { return thrower(value) + 1; }
int main(int argc, char **argv) {
  if (argc > 2) {
    *(void **)&back = dlsym(dlopen("libc.so.6", RTLD_NOW), "backtrace");
    printf("%d\n", callers(10) - callers(5));
  }
  void *library = dlopen(argv[1], RTLD_NOW);
  if (library == 0) { puts(dlerror()); return 1; }
  int (*caught)(int (*)(int), int);
  *(void **)&caught = dlsym(library, "caught");
  *(void **)&thrower = dlsym(library, "thrown");
  printf("%d\n", caught(relay, 5));
}
"#;

const THROWS: &str = r#"
extern "C" int thrown(int value) { throw value; }
extern "C" int caught(int (*call)(int), int value) { try { return call(value); } catch (int it) { return it * 100; } }
"#;

/// What clang's executable does, the command does with the source: lazily, as a whole, and from the store.
#[track_caller]
fn same(scratch: &Scratch, source: &Path, arguments: &[&str]) {
    let executable = scratch.join("executable");
    let flags = ["-O1", "-fexceptions", "-pthread"];
    execute(Command::new("clang-22").args(flags).arg(source).arg("-o").arg(&executable));
    let want = finish(Command::new(&executable).args(arguments));
    for how in [&["--lazy"][..], &["--eager"], &["--lazy"], &["--eager"]] {
        let mut command = hotbed(["run", "--cache-dir"]);
        command.arg(scratch.join("store")).args(how).args(flags).arg(source).arg("--").args(arguments);
        finish(&mut command).assert_same(&want, &format!("{} {how:?} {arguments:?}", source.display()));
    }
}

#[test]
fn glibc_unwinds_for_a_program_in_c() {
    let scratch = Scratch::new("unwinders-glibc");
    same(&scratch, &scratch.write("glibc.c", GLIBC), &[]);
}

#[test]
fn libgcc_is_there_for_who_calls_it() {
    let scratch = Scratch::new("unwinders-libgcc");
    same(&scratch, &scratch.write("libgcc.c", LIBGCC), &[]);
}

#[test]
fn unwinders_that_come_late_know_images() {
    let scratch = Scratch::new("unwinders-late");
    let library = shared_library(&scratch.write("throws.cpp", THROWS), &[]);
    let library = library.to_str().unwrap();
    let source = scratch.write("late.c", LATE);
    same(&scratch, &source, &[library]);
    same(&scratch, &source, &[library, "callers"]);
}

#[test]
fn a_program_that_never_unwinds_starts_without_libgcc() {
    let scratch = Scratch::new("unwinders-none");
    let source = scratch.write(
        "maps.c",
        "#include <stdio.h>\n#include <string.h>\nint main(void) {\n  char line[4096];\n  int found = 0;\n  FILE *maps = \
         fopen(\"/proc/self/maps\", \"r\");\n  while (fgets(line, sizeof line, maps)) found += strstr(line, \"libgcc_s\") != 0;\n  \
         printf(\"%d\\n\", found);\n}\n",
    );
    let run = || {
        let mut command = hotbed(["run", "--eager", "--cache-dir"]);
        finish(command.arg(scratch.join("store")).arg(&source))
    };
    // Cold, a compiler is in the process, which is C++.
    run();
    assert_eq!(run().stdout, "0\n");
}
