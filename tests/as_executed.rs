//! A program under `hotbed run` cannot tell that it was not exec'd: what it sees of itself, and how it ends, are those of
//! the executable that clang makes of it; cold, when a compiler was at work in the process, and warm.

use crate::support::{Outcome, Scratch, execute, finish, finish_within, hotbed, timing};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A program as source and as its own executable.
struct Pair {
    scratch: Scratch,
    source: PathBuf,
    executable: PathBuf,
}

impl Pair {
    fn new(file: &str, text: &str) -> Self {
        let scratch = Scratch::new(&format!("executed-{file}"));
        let source = scratch.write(file, text);
        let executable = scratch.join("executable");
        let compiler = if file.ends_with(".cpp") { "clang++-22" } else { "clang-22" };
        execute(Command::new(compiler).arg("-w").arg(&source).args(["-lpthread", "-o"]).arg(&executable));
        Self { scratch, source, executable }
    }

    /// The command line that runs the source.
    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = hotbed(["run", "-w", "--cache-dir"]);
        command.arg(self.scratch.join("store")).arg(&self.source);
        if !arguments.is_empty() {
            command.arg("--").args(arguments);
        }
        command
    }

    fn executable(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(arguments);
        command
    }

    /// Runs both with `arguments`, the source cold or whatever the store has by now, and then warm.
    #[track_caller]
    fn same(&self, arguments: &[&str], input: &str) -> Outcome {
        let patience = Duration::from_secs(60);
        let want = finish_within(&mut self.executable(arguments), input.as_bytes(), patience);
        for round in ["first", "warm"] {
            let got = finish_within(&mut self.run(arguments), input.as_bytes(), patience);
            got.assert_same(&want, &format!("{} {arguments:?}, {round} run", self.source.display()));
            assert_eq!(got.stderr, want.stderr, "{arguments:?}, {round} run");
        }
        want
    }
}

const SELF: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
extern char **environ;
static int before_main;
__attribute__((constructor)) static void begin(int argc, char **argv, char **env) {
  before_main = argc * 1000 + (env == environ) * 100 + (argv[argc] == 0) * 10 + 1;
}
static void limit(const char *name, int which) {
  struct rlimit l;
  getrlimit(which, &l);
  printf("%s %lu %lu\n", name, (unsigned long)l.rlim_cur, (unsigned long)l.rlim_max);
}
int main(int argc, char **argv, char **env) {
  printf("%d arguments, then %s, constructor saw %d\n", argc, argv[argc] ? "more" : "null", before_main);
  for (int i = 1; i < argc; i++) printf("<%s>\n", argv[i]);
  printf("main thread: %d, its own name as exec gave it: %d\n", syscall(SYS_gettid) == getpid(), env == environ);
  for (int s = 1; s < NSIG; s++) {
    struct sigaction a;
    sigset_t m;
    if (s == 32 || s == 33) continue; /* the C library's own */
    if (sigaction(s, 0, &a) == 0 && a.sa_handler != SIG_DFL) printf("signal %d: %s\n", s, a.sa_handler == SIG_IGN ? "ignored" : "caught");
    sigprocmask(0, 0, &m);
    if (sigismember(&m, s)) printf("signal %d: blocked\n", s);
  }
  stack_t stack;
  sigaltstack(0, &stack);
  printf("alternate stack: %s\n", stack.ss_flags & SS_DISABLE ? "none" : "some");
  limit("stack", RLIMIT_STACK); limit("files", RLIMIT_NOFILE); limit("memory", RLIMIT_AS); limit("core", RLIMIT_CORE);
  printf("dumpable %d, dies with parent %d\n", prctl(PR_GET_DUMPABLE), ({ int s; prctl(PR_GET_PDEATHSIG, &s); s; }));
  int count = 0, first = open("/dev/null", O_RDONLY);
  for (char **e = environ; *e; e++) count += strncmp(*e, "_=", 2) != 0;
  printf("environment of %d, next descriptor %d\n", count, first);
  for (int fd = 0; fd < 1024; fd++) if (fcntl(fd, F_GETFD) >= 0) printf("descriptor %d open\n", fd);
  pthread_attr_t attributes;
  void *low; size_t size;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &low, &size);
  printf("on the main stack: %d\n", (char *)&size >= (char *)low && (char *)&size < (char *)low + size);
  char line[64] = "";
  while (fgets(line, sizeof line, stdin)) printf("read %s", line);
  return 0;
}
"#;

#[test]
fn what_a_program_sees_of_itself() {
    let pair = Pair::new("self.c", SELF);
    let want = pair.same(&["a b", "", "--help", "-O2", "--", "x.c"], "one\ntwo\n");
    assert!(want.stdout.contains("<-O2>") && want.stdout.ends_with("read two\n"), "{}", want.stdout);
}

#[test]
fn what_the_parent_ignores_or_limits_stays_so() {
    let pair = Pair::new("inherit.c", SELF);
    let setup = "trap '' PIPE USR2; ulimit -n 77; ulimit -s 4096; exec 9</dev/null; exec \"$@\"";
    let shell = |command: &Command| {
        let mut shell = Command::new("bash");
        shell.args(["-c", setup, "shell"]).arg(command.get_program()).args(command.get_args());
        finish(&mut shell)
    };
    let want = shell(&pair.executable(&["x"]));
    assert!(want.stdout.contains("signal 13: ignored") && want.stdout.contains("files 77 77"), "{want:?}");
    for _ in 0..2 {
        shell(&pair.run(&["x"])).assert_same(&want, "with a parent's settings");
    }
}

#[test]
fn its_name_is_the_first_file() {
    let text = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
static const char *early;
__attribute__((constructor)) static void begin(int argc, char **argv) { early = argv[0]; }
int main(int c, char **v) {
  printf("%s %s %s %s\n", v[0], program_invocation_name, program_invocation_short_name, early);
  perror(0);
  return 0;
}
"#;
    let scratch = Scratch::new("executed-name");
    scratch.write("sub/name.c", text);
    let more = scratch.write("more.c", "int more;");
    let run = |first: &Path| {
        let mut command = hotbed(["run", "--cache-dir", "store"]);
        finish(command.current_dir(scratch.path()).arg(first).arg(&more)).assert_success("name").stdout
    };
    for _ in 0..2 {
        assert_eq!(run(Path::new("sub/name.c")), "sub/name.c sub/name.c name.c sub/name.c\n");
        let absolute = scratch.join("sub/name.c");
        let shown = absolute.display();
        assert_eq!(run(&absolute), format!("{shown} {shown} name.c {shown}\n"));
    }
}

const ENDS: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void late(void) { puts("registered"); }
static void later(int status, void *p) { printf("on exit %d\n", status); }
__attribute__((destructor)) static void last(void) { puts("destructor"); }
static volatile int deep(volatile int n) { volatile char frame[4096]; frame[0] = n; return deep(n + 1) + frame[0]; }
static sigjmp_buf back;
static char alternate[65536];
static void caught(int s) { siglongjmp(back, s); }
static void polite(int s) { static const char text[] = "handled\n"; write(1, text, sizeof text - 1); _exit(40 + s); }
static void *other(void *p) { usleep(50000); puts("another thread"); exit(5); }
static void *ender(void *p) { usleep(20000); kill(getpid(), SIGTERM); for (;;) pause(); }
int main(int c, char **v) {
  const char *how = v[1];
  atexit(late);
  on_exit(later, 0);
  puts(how);
  fflush(stdout);
  #define IS(text) (!strcmp(how, text))
  if (IS("return")) return 258;
  if (IS("negative")) return -1;
  if (IS("exit")) exit(3);
  if (IS("_exit")) _exit(4);
  if (IS("quick_exit")) quick_exit(6);
  if (IS("abort")) abort();
  if (IS("term")) raise(SIGTERM);
  if (IS("kill")) kill(getpid(), SIGKILL);
  if (IS("null")) *(volatile int *)0 = 1;
  if (IS("illegal")) __builtin_trap();
  if (IS("deep")) return deep(0);
  if (IS("divide")) { volatile int zero = 0; return 1 / zero; }
  if (IS("bus")) raise(SIGBUS);
  if (IS("thread")) { pthread_t t; pthread_create(&t, 0, other, 0); pthread_exit(0); }
  if (IS("thread-term")) { pthread_t t; pthread_create(&t, 0, ender, 0); for (;;) pause(); }
  if (IS("handler")) { signal(SIGSEGV, polite); *(volatile int *)0 = 1; }
  if (IS("own-stack")) {
    stack_t s = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct sigaction a = {.sa_handler = caught, .sa_flags = SA_ONSTACK};
    sigaltstack(&s, 0);
    sigaction(SIGSEGV, &a, 0);
    for (int i = 0; i < 3; i++) { int s = sigsetjmp(back, 1); if (!s) deep(0); printf("recovered from %d\n", s); }
    return 9;
  }
  if (IS("fork")) { if (!fork()) { puts("child"); exit(7); } int s; wait(&s); printf("child gave %d\n", WEXITSTATUS(s)); return 8; }
  if (IS("no-children")) { int s; printf("%d\n", wait(&s)); return 0; }
  if (IS("sigwait")) {
    sigset_t set; sigemptyset(&set); sigaddset(&set, SIGUSR1); sigprocmask(SIG_BLOCK, &set, 0);
    pid_t parent = getpid();
    if (!fork()) { for (int i = 0; i < 20; i++) { usleep(5000); kill(parent, SIGUSR1); } _exit(0); }
    for (int i = 0, n; i < 5; i++) { sigwait(&set, &n); if (n != SIGUSR1) return 1; }
    int had = wait(0) > 0, more = wait(0) > 0;
    printf("a child: %d, another: %d\n", had, more);
    return 6;
  }
  if (IS("close")) { for (int fd = 3; fd < 4096; fd++) close(fd); chdir("/"); printf("%d\n", access("/", R_OK)); return 10; }
  if (IS("exec")) { execl("/bin/echo", "echo", "executed", (char *)0); return 1; }
  return 99;
}
"#;

#[test]
fn how_a_program_ends() {
    let pair = Pair::new("ends.c", ENDS);
    for how in [
        "return",
        "negative",
        "exit",
        "_exit",
        "quick_exit",
        "abort",
        "term",
        "kill",
        "null",
        "illegal",
        "deep",
        "divide",
        "bus",
        "thread",
        "thread-term",
        "handler",
        "own-stack",
        "fork",
        "no-children",
        "sigwait",
        "close",
        "exec",
    ] {
        let want = pair.same(&[how], "");
        assert_ne!(want.end, crate::support::End::Status(99), "{how} is not known to the program");
    }
}

#[test]
fn a_reader_that_closes_ends_it() {
    let pair = Pair::new("pipe.c", "#include <stdio.h>\nint main(void) { for (;;) puts(\"y\"); }");
    let end = |command: &mut Command| {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 2];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        assert_eq!(&first, b"y\n");
        crate::support::End::from(child.wait().unwrap())
    };
    let want = end(&mut pair.executable(&[]));
    assert_eq!(want, crate::support::End::Signal(libc::SIGPIPE));
    for _ in 0..2 {
        assert_eq!(end(&mut pair.run(&[])), want);
    }
}

#[test]
fn an_uncaught_exception_ends_it_where_it_was_thrown() {
    let text = r#"
#include <cstdio>
#include <exception>
#include <stdexcept>
struct Seen { ~Seen() { std::puts("unwound"); } };
static void own() { std::puts("terminate"); std::fflush(stdout); std::abort(); }
int main(int count, char **) {
  Seen seen;
  std::puts("thrown");
  std::fflush(stdout);
  if (count == 2) std::set_terminate(own);
  if (count == 3) { try { throw 5; } catch (int five) { std::printf("caught %d\n", five); return five; } }
  throw std::runtime_error("nobody wants it");
}
"#;
    let pair = Pair::new("throw.cpp", text);
    let want = pair.same(&[], "");
    assert!(want.stderr.contains("nobody wants it") && want.stdout == "thrown\n", "{want:?}");
    assert!(pair.same(&["own"], "").stdout.contains("terminate"));
    assert!(pair.same(&["a", "b"], "").stdout.contains("caught 5\nunwound"));
}

#[test]
fn constructors_and_destructors_come_in_order() {
    let first = r#"
#include <cstdio>
#include <cstdlib>
struct Noisy { const char *name; Noisy(const char *n) : name(n) { std::printf("+%s\n", n); } ~Noisy() { std::printf("-%s\n", name); } };
Noisy a("a");
__attribute__((init_priority(200))) Noisy early("early");
__attribute__((constructor(300))) static void three() { std::puts("constructor 300"); }
__attribute__((constructor)) static void any() { std::puts("constructor"); }
__attribute__((destructor(300))) static void end_three() { std::puts("destructor 300"); }
__attribute__((destructor)) static void end() { std::puts("destructor"); }
Noisy &local() { static Noisy noisy("local"); return noisy; }
inline Noisy shared("inline");
extern Noisy b;
int main(int count, char **) {
  std::atexit([] { std::puts("at exit"); });
  std::at_quick_exit([] { std::puts("at quick exit"); });
  local();
  std::printf("main sees %s\n", b.name);
  thread_local Noisy threads("thread_local");
  std::printf("%s\n", threads.name);
  std::fflush(stdout);
  if (count > 1) std::exit(3);
  return 0;
}
"#;
    let second = r#"
#include <cstdio>
struct Noisy { const char *name; Noisy(const char *n) : name(n) { std::printf("+%s\n", n); } ~Noisy() { std::printf("-%s\n", name); } };
inline Noisy shared("inline");
Noisy b("b");
__attribute__((init_priority(150))) Noisy earliest("earliest");
"#;
    let scratch = Scratch::new("executed-order");
    let files = [scratch.write("first.cpp", first), scratch.write("second.cpp", second)];
    let executable = scratch.join("executable");
    execute(Command::new("clang++-22").arg("-w").args(&files).arg("-o").arg(&executable));
    for arguments in [&[][..], &["x"]] {
        let want = finish(Command::new(&executable).args(arguments));
        assert!(
            want.stdout.contains("-thread_local\n") && want.stdout.ends_with("destructor 300\n"),
            "{want:?}"
        );
        for _ in 0..2 {
            let mut command = hotbed(["run", "-w", "--cache-dir"]);
            command.arg(scratch.join("store")).args(&files).arg("--").args(arguments);
            finish(&mut command).assert_same(&want, "order");
        }
    }
}

#[test]
fn source_from_standard_input() {
    let scratch = Scratch::new("executed-stdin");
    let text = b"#include <stdio.h>\nint main(int c, char **v) { printf(\"%s %d\\n\", v[0], getchar()); }";
    for (lang, end) in [("c", "- -1\n"), ("c++", "- -1\n")] {
        let mut command = hotbed(["run", "-w", "--lang", lang, "--cache-dir"]);
        command.arg(scratch.join("store")).arg("-");
        let outcome = finish_within(&mut command, text, Duration::from_secs(60));
        assert_eq!(outcome.assert_success(lang).stdout, end);
    }
}

#[test]
fn another_entry_and_timings_at_exit() {
    let scratch = Scratch::new("executed-entry");
    let text =
        "#include <stdlib.h>\nint main(void) { return 1; }\nint other(int c, char **v) { exit(c + 20); }";
    let source = scratch.write("entry.c", text);
    let mut command = hotbed(["run", "--entry", "other", "--timings=json", "--cache-dir"]);
    let outcome = finish(command.arg(scratch.join("store")).arg(&source).args(["--", "a"]));
    assert_eq!(outcome.end, crate::support::End::Status(22), "{outcome:?}");
    // Nobody has called `main`.
    assert_eq!(timing(&outcome.stderr, "functions_compiled"), "1");
    for phase in ["total_ms", "frontend", "codegen", "link", "map"] {
        assert!(timing(&outcome.stderr, phase).parse::<f64>().unwrap() > 0.0, "{phase}");
    }
    for key in ["bind", "init", "run"] {
        assert!(timing(&outcome.stderr, key).parse::<f64>().unwrap() >= 0.0, "{key}");
    }
}

#[test]
fn isolated_compilation_leaves_no_trace_in_the_program() {
    let pair = Pair::new("isolated.c", SELF);
    let ends = Pair::new("isolated-ends.c", ENDS);
    for (pair, argument) in [(&pair, "x"), (&ends, "no-children"), (&ends, "sigwait"), (&ends, "close")] {
        let want = finish(&mut pair.executable(&[argument]));
        let mut command = hotbed(["run", "-w", "--isolate", "--no-cache"]);
        let got = finish(command.arg(&pair.source).args(["--", argument]));
        got.assert_same(&want, argument);
        assert_eq!(got.stderr, want.stderr, "{argument}");
    }
}
