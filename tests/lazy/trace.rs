//! Traces: every function that a program calls, once, in the order of first calls, whatever was compiled before and however the
//! program lives and ends.

use crate::support::{End, Outcome, Scratch, finish, hotbed, kept, object, timing};
use hotbed::{Error, Isolation, Runtime, Source};
use hotbed_loader::trace::Record;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The records in a trace.
#[track_caller]
pub(super) fn records(path: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(path).unwrap();
    let decode = |line: &str| Record::decode(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    text.lines().map(decode).collect()
}

/// The functions in a trace.
#[track_caller]
fn functions(path: &Path) -> Vec<String> {
    records(path).into_iter().map(|record| record.function).collect()
}

/// Runs files with a trace of its own, and gives that.
#[track_caller]
fn traced(scratch: &Scratch, files: &[&Path], flags: &[&str]) -> (Outcome, PathBuf) {
    let trace = scratch.join("trace");
    let _ = std::fs::remove_file(&trace);
    let mut command = hotbed(["run", "-w", "--no-cache", "--trace"]);
    let outcome = finish(command.arg(&trace).args(flags).args(files));
    (outcome, trace)
}

/// Says who is called first.
const SAYS: &str = r#"
#include <stdio.h>
#define SAY static int said; if (!said++) puts(__func__)
"#;

#[test]
fn the_order_is_that_of_the_program() {
    let text = SAYS.to_owned()
        + r#"
#include <stdlib.h>
#include <string.h>
static int small(int x) { SAY; return x + 1; }
static int even(int n); static int odd(int n) { SAY; return n ? even(n - 1) : 0; }
static int even(int n) { SAY; return n ? odd(n - 1) : 1; }
static int pointed(int x) { SAY; return small(x); }
static int (*table[])(int) = {even, pointed};
static int compare(const void *a, const void *b) { SAY; return *(int *)a - *(int *)b; }
int never(int x) { SAY; return small(x); }
static int chosen_one(int x) { SAY; return x; }
static int (*choose(void))(int) { SAY; return chosen_one; }
extern int again(int) __attribute__((alias("aliased"))); int aliased(int x) { SAY; return x; }
__attribute__((always_inline)) static inline int inlined(int x) { return small(x) * 2; }
__attribute__((constructor)) static void begin(void) { setvbuf(stdout, 0, _IONBF, 0); SAY; }
__attribute__((destructor)) static void end(void) { SAY; }
static void late(void) { SAY; }
int main(int c, char **v) {
  SAY;
  int numbers[] = {3, 1, 2};
  atexit(late);
  for (int i = 0; i < 100; i++) { if (c > 5) never(i); inlined(i); }
  qsort(numbers, 3, sizeof *numbers, compare);
  table[1](table[0](10)) + choose()(2) + again(1);
  if (c > 6) choose()(never(3));
  return strlen("abc") + small(1);
}
"#;
    let scratch = Scratch::new("trace-order");
    let source = scratch.write("order.c", text);
    for level in ["-O0", "-O2"] {
        let (outcome, trace) = traced(&scratch, &[&source], &[level]);
        assert_eq!(outcome.end, End::Status(5), "{}", outcome.stderr);
        let want: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(functions(&trace), want, "{level}");
        assert_eq!(want.len(), 12, "{want:?}");
    }
}

#[test]
fn what_was_kept_is_called_all_the_same() {
    let text = SAYS.to_owned()
        + "static int a(int x) { SAY; return x + 1; } static int b(int x) { SAY; return a(x) * 2; }\n\
           int main(int c, char **v) { SAY; printf(\"%d\\n\", b(c)); return a(2); }";
    let scratch = Scratch::new("trace-kept");
    let source = scratch.write("kept.c", text);
    let store = scratch.join("store");
    let run = |name: &str| {
        let mut command = hotbed(["run", "-w", "--timings=json", "--cache-dir"]);
        command.arg(&store);
        if !name.is_empty() {
            command.arg("--trace").arg(scratch.join(name));
        }
        let outcome = finish(command.arg(&source));
        assert_eq!((outcome.end, outcome.stdout.as_str()), (End::Status(3), "main\nb\na\n4\n"));
        kept(&store);
        timing(&outcome.stderr, "functions_compiled")
    };
    let same = |name: &str| {
        let keep = |record: Record| (record.source, record.function, record.content, record.flags);
        records(&scratch.join(name)).into_iter().map(keep).collect::<Vec<_>>()
    };
    // Whoever is the first to compile it.
    assert_eq!(run("cold"), "3");
    assert_eq!(functions(&scratch.join("cold")), ["main", "b", "a"]);
    assert_eq!(run(""), "3", "what was compiled for a trace is not kept");
    assert_eq!(run(""), "0");
    assert_eq!(run("warm"), "3");
    assert_eq!(same("warm"), same("cold"));
    assert_eq!(run(""), "0", "a trace takes nothing out of the store");
}

#[test]
fn records_say_what_they_shall() {
    let scratch = Scratch::new("trace-records");
    let one = "static int n; static int same(int x) { return x + n++; } int one(int x) { return same(x); }";
    let two =
        "int one(int); static int same(int x) { return x - 1; } int main(void) { return one(same(8)); }";
    let folder = scratch.folder("src");
    let (first, second) = (scratch.write("src/one.c", one), scratch.write("src/two.c", two));
    let run = |directory: &Path, files: [&Path; 2], flags: &[&str]| {
        let trace = scratch.join("trace");
        let _ = std::fs::remove_file(&trace);
        let mut command = hotbed(["run", "--no-cache", "-Wall", "-I.", "-lm", "--trace"]);
        command.current_dir(directory).arg(&trace).args(flags).args(files);
        assert_eq!(finish(&mut command).end, End::Status(7));
        records(&trace)
    };
    let inside = run(&folder, ["./one.c".as_ref(), "two.c".as_ref()], &["-O1", "-DX=1"]);
    let identity = |records: &[Record]| -> Vec<String> {
        records.iter().map(|record| format!("{} {}", record.source, record.function)).collect()
    };
    assert_eq!(identity(&inside), ["two.c main", "two.c same", "one.c one", "one.c same"]);
    assert!(inside.iter().all(|record| record.flags == ["-O1", "-DX=1"] && record.microseconds > 0));
    let contents: Vec<_> = inside.iter().map(|record| record.content.expect("a hash")).collect();
    assert_ne!(contents[1], contents[3]);
    // By other paths, in another order, from elsewhere.
    let outside = run(scratch.path(), [&second, &first], &["-O1", "-DX=1"]);
    assert_eq!(identity(&outside), ["src/two.c main", "src/two.c same", "src/one.c one", "src/one.c same"]);
    assert!(outside.iter().zip(&contents).all(|(record, content)| record.content.as_ref() == Some(content)));
    // What changes is told from what does not.
    scratch.write("src/one.c", format!("int more;\n{}", one.replace("x + n++", "x + ++n - 1")));
    let changed = run(&folder, ["one.c".as_ref(), "two.c".as_ref()], &["-O1", "-DX=1"]);
    let same: Vec<bool> = changed.iter().zip(&inside).map(|(new, old)| new.content == old.content).collect();
    assert_eq!(same, [true, true, true, false]);
}

#[test]
fn several_threads_call_each_function_once() {
    const COUNT: usize = 60;
    let mut text = String::from("#include <pthread.h>\n");
    for at in 0..COUNT {
        writeln!(text, "int f{at}(int x) {{ return x + {at}; }}").unwrap();
    }
    text.push_str("static int (*table[])(int) = {");
    (0..COUNT).for_each(|at| write!(text, "f{at}, ").unwrap());
    text.push_str(
        "};\nstatic void *work(void *p) { long sum = 0; for (int i = 0; i < 4 * 60; i++) sum += table[(i * 7 + (long)p * 13) % 60](i); return (void *)sum; }\n\
         int main(void) { pthread_t t[6]; for (long i = 0; i < 6; i++) pthread_create(&t[i], 0, work, (void *)i);\n\
         for (int i = 0; i < 6; i++) pthread_join(t[i], 0); return 3; }",
    );
    let scratch = Scratch::new("trace-threads");
    let source = scratch.write("threads.c", text);
    let (outcome, trace) = traced(&scratch, &[&source], &["-lpthread"]);
    assert_eq!(outcome.end, End::Status(3), "{}", outcome.stderr);
    let mut called = functions(&trace);
    assert_eq!(called[..2], ["main", "work"]);
    let mut want: Vec<String> = (0..COUNT).map(|at| format!("f{at}")).collect();
    want.sort();
    called.drain(..2);
    called.sort();
    assert_eq!(called, want);
}

#[test]
fn processes_that_write_one_file_do_not_tear_lines() {
    const COUNT: usize = 1200;
    // Longer than what pipes take at once.
    let long = "x".repeat(6000);
    let mut text = String::new();
    for at in 0..COUNT {
        let name = if at % 50 == 0 { format!("f{at}_{long}") } else { format!("f{at}") };
        writeln!(text, "int {name}(int x) {{ return x + {at}; }}").unwrap();
        writeln!(text, "#define F{at} {name}").unwrap();
    }
    text.push_str("int main(void) { int x = 0;\n");
    (0..COUNT).for_each(|at| writeln!(text, "x = F{at}(x) & 15;").unwrap());
    text.push_str("return 0; }");
    let scratch = Scratch::new("trace-processes");
    let source = scratch.write("many.c", text);
    let trace = scratch.join("trace");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut command = hotbed(["run", "--no-cache", "--trace"]);
                finish(command.arg(&trace).arg(&source)).assert_success("one of three");
            });
        }
    });
    let mut times: HashMap<String, usize> = HashMap::new();
    for name in functions(&trace) {
        *times.entry(name).or_default() += 1;
    }
    assert_eq!(times.len(), COUNT + 1);
    assert!(times.values().all(|&times| times == 3));
}

#[test]
fn children_go_on_with_their_own_calls() {
    let text = r#"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static int both(int x) { return x + 1; } static int before(int x) { return x; }
static int child(int x) { return both(x); } static int parent(int x) { return both(x) * 2; } static int last(int x) { return x; }
int main(void) {
  before(1);
  int pid = fork();
  if (!pid) { child(3); before(4); kill(getpid(), SIGKILL); }
  int status; waitpid(pid, &status, 0);
  parent(4);
  if (!vfork()) _exit(0);
  _exit(last(WTERMSIG(status)));
}
"#;
    let scratch = Scratch::new("trace-fork");
    let source = scratch.write("fork.c", text);
    let (outcome, trace) = traced(&scratch, &[&source], &[]);
    // Neither the kill nor the exit loses anything.
    assert_eq!(outcome.end, End::Status(9), "{}", outcome.stderr);
    assert_eq!(functions(&trace), ["main", "before", "child", "both", "parent", "both", "last"]);
}

#[test]
fn handlers_are_there_when_they_were_called() {
    let text = r#"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
static volatile int seen;
static int reached(int n) { return seen += n; }
static void handler(int n) { reached(1); } static void unused(int n) { reached(2); }
static void prepare(void) { seen += 10; }
static int first(void) { return 0; }
static void *allocate(void *p) { for (int i = 0; i < 20000; i++) free(malloc(100 + i)); return 0; }
int main(void) {
  pthread_t t;
  signal(SIGUSR1, handler); signal(SIGUSR2, unused); pthread_atfork(prepare, 0, 0);
  first();
  pthread_create(&t, 0, allocate, 0);
  pthread_kill(t, SIGUSR1); pthread_join(t, 0);
  if (!fork()) _exit(0);
  return seen;
}
"#;
    let scratch = Scratch::new("trace-handlers");
    let source = scratch.write("handlers.c", text);
    let (outcome, trace) = traced(&scratch, &[&source], &["-lpthread"]);
    assert_eq!(outcome.end, End::Status(11), "{}", outcome.stderr);
    let called = functions(&trace);
    let place = |name: &str| {
        called.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name}: {called:?}"))
    };
    assert_eq!(called.len(), 6, "{called:?}");
    assert!(
        place("first") < place("handler")
            && place("handler") < place("reached")
            && place("reached") < place("prepare")
    );
    assert!(place("allocate") < 5 && place("main") == 0);
}

#[test]
fn a_template_of_two_units_is_called_once() {
    let scratch = Scratch::new("trace-templates");
    let header = "template <class T> T add(T a, T b) { return a + b; }\ninline int shared() { static int n; return ++n; }\n\
                  namespace { int local() { return shared(); } }\n";
    let one = format!("{header}int one() {{ return add(1, 2) + local(); }}");
    let two =
        format!("{header}int one(); int main() {{ return add(add(3, 4), one()) + local() + shared(); }}");
    let (one, two) = (scratch.write("one.cpp", one), scratch.write("two.cpp", two));
    let (outcome, trace) = traced(&scratch, &[&one, &two], &[]);
    assert_eq!(outcome.end, End::Status(7 + 3 + 1 + 2 + 3), "{}", outcome.stderr);
    let name = |path: &str| Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
    let called: Vec<_> = records(&trace).into_iter().map(|one| (name(&one.source), one.function)).collect();
    let called: Vec<_> =
        called.iter().map(|(source, function)| (source.as_str(), function.as_str())).collect();
    let (add, local, shared) = ("_Z3addIiET_S0_S0_", "_ZN12_GLOBAL__N_15localEv", "_Z6sharedv");
    // The first unit's serves both.
    let want = [
        ("two.cpp", "main"),
        ("one.cpp", add),
        ("one.cpp", "_Z3onev"),
        ("one.cpp", local),
        ("one.cpp", shared),
        ("two.cpp", local),
    ];
    let mut sorted = called.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), called.len());
    // In which order operands are called is the compiler's choice.
    let mut all = want;
    all.sort_unstable();
    assert_eq!(sorted, all);
    assert_eq!(called[0], want[0]);
}

#[test]
fn a_program_may_do_what_it_likes_with_files_and_folders() {
    let text = "#include <fcntl.h>\n#include <unistd.h>\n#include <sys/stat.h>\n\
        static int after(void) { return open(\"/dev/null\", O_RDONLY); }\n\
        int main(void) { for (int i = 0; i < 100; i++) close(i); umask(0777); if (chdir(\"/\")) return 9; return after() + after(); }";
    let scratch = Scratch::new("trace-files");
    let source = scratch.write("files.c", text);
    let mut command = hotbed(["run", "--no-cache", "--trace", "trace"]);
    // The lowest descriptors that are free.
    assert_eq!(finish(command.arg(&source).current_dir(scratch.path())).end, End::Status(1));
    assert_eq!(functions(&scratch.join("trace")), ["main", "after"]);
    assert_eq!(records(&scratch.join("trace"))[0].source, "files.c");
}

#[test]
fn what_cannot_be_written_is_told() {
    let scratch = Scratch::new("trace-unwritable");
    let source = scratch.write("u.c", "#include <stdio.h>\nint f(int x) { return x + 1; } int g(int x) { return f(x); } int main(void) { puts(\"runs\"); return g(1); }");
    let run =
        |trace: &Path, file: &Path| finish(hotbed(["run", "--no-cache", "--trace"]).arg(trace).arg(file));
    let missing = scratch.join("no/trace");
    let outcome = run(&missing, &source);
    assert_eq!((outcome.end, outcome.stdout.as_str()), (End::Status(1), ""));
    let said = format!("hotbed: error: cannot write {}: No such file or directory\n", missing.display());
    assert_eq!(outcome.stderr, said);
    let warning = "hotbed: warning: cannot write /dev/full: No space left on device; the trace ends here\n";
    let outcome = run("/dev/full".as_ref(), &source);
    assert_eq!((outcome.end, outcome.stdout.as_str()), (End::Status(2), "runs\n"));
    assert_eq!(outcome.stderr, warning);
    // Even if there is nothing more to be compiled in which it could be seen.
    let only = scratch.write("only.c", "int main(void) { return 4; }");
    let outcome = run("/dev/full".as_ref(), &only);
    assert_eq!((outcome.end, outcome.stderr.as_str()), (End::Status(4), warning));
    // The signal of a limit is not the program's.
    let full = scratch.write("full", "x".repeat(5000) + "\n");
    let mut command = hotbed(["run", "--no-cache", "--trace"]);
    let limit = || {
        let limit = libc::rlimit { rlim_cur: 5000, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: changes the process that is about to run the command, and nothing else.
        unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(limit) };
    let outcome = finish(command.arg(&full).arg("--eager").arg("--lazy").arg(&only));
    assert_eq!(outcome.end, End::Status(4), "{}", outcome.stderr);
}

#[test]
fn what_is_compiled_whole_has_no_trace() {
    let scratch = Scratch::new("trace-whole");
    let source = scratch.write("whole.c", "int part(int); int main(void) { return part(6); }");
    let trace = scratch.join("trace");
    for option in [&["--eager"][..], &["--isolate"], &["--gdb"], &["--jitdump", "dumps"]] {
        let outcome = finish(hotbed(["run", "--trace"]).arg(&trace).args(option).arg(&source));
        assert_eq!(outcome.end, End::Status(2), "{option:?}");
        assert!(outcome.stderr.contains(&format!("--trace and {}: ", option[0])), "{}", outcome.stderr);
    }
    let outcome = finish(hotbed(["explain", "main", "--trace"]).arg(&trace).arg(&source));
    assert_eq!(outcome.end, End::Status(2));
    assert!(outcome.stderr.contains("--trace makes no sense here"), "{}", outcome.stderr);
    assert!(!trace.exists());
    let refused = Runtime::builder().no_cache().trace(&trace).isolation(Isolation::Process).build();
    assert!(matches!(refused, Err(Error::Build { .. })));
    // Objects are not taken to pieces; the rest of the program is.
    let part = object(&scratch.write("part.c", "int part(int x) { return x + 1; }"), "o", &[]);
    let (outcome, trace) = traced(&scratch, &[&source, &part], &[]);
    assert_eq!(outcome.end, End::Status(7), "{}", outcome.stderr);
    assert_eq!(functions(&trace), ["main"]);
    // An image that has bitcode is traced, one that has code is not.
    for (lazy, want) in [(true, vec!["main", "own"]), (false, vec![])] {
        let source =
            Source::text("image.c", "static int own(void) { return 5; } int main(void) { return own(); }");
        let image = scratch.join(format!("{lazy}.hbi"));
        let source = if lazy { source.lazy() } else { source };
        Runtime::builder().no_cache().build().unwrap().image(&image).unit(source).build().unwrap();
        let (outcome, trace) = traced(&scratch, &[&image], &[]);
        assert_eq!(outcome.end, End::Status(5), "{}", outcome.stderr);
        assert_eq!(functions(&trace), want);
    }
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl hotbed::Observer for Warnings {
    fn warning(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

#[test]
fn a_host_has_its_units_traced() {
    let scratch = Scratch::new("trace-host");
    let trace = scratch.join("trace");
    std::fs::write(&trace, "a line that somebody could not end").unwrap();
    let text = "static int twice(int x) { return 2 * x; } int four(int x) { return twice(twice(x)); } int idle(int x) { return x; }";
    let call = |runtime: &Runtime, name: &str| {
        let unit = runtime.load(Source::text("four.c", text)).unwrap();
        // SAFETY: that is its type.
        let function = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>(name) }.unwrap();
        // SAFETY: as above.
        unsafe { function(3) }
    };
    let runtime = Runtime::builder().no_cache().trace(&trace).build().unwrap();
    assert_eq!((call(&runtime, "four"), call(&runtime, "four")), (12, 12));
    let read = std::fs::read_to_string(&trace).unwrap();
    let lines: Vec<&str> = read.lines().collect();
    assert_eq!(lines[0], "a line that somebody could not end");
    let called: Vec<_> = lines[1..].iter().map(|line| Record::decode(line).unwrap()).collect();
    assert_eq!(called.iter().map(|one| one.function.as_str()).collect::<Vec<_>>(), ["four", "twice"]);
    assert!(called.iter().all(|one| one.source == "four.c"));
    // The same times as in the trace.
    let times = runtime.function_times();
    assert_eq!((times.compiled, runtime.functions_compiled(), times.slowest.len()), (2, 2, 2));
    let micros: u64 = called.iter().map(|one| one.microseconds).sum();
    let ours = times.compiling.as_micros() as u64;
    assert!((micros..=micros + 2).contains(&ours), "{micros} {ours}");
    assert!(times.slowest.iter().all(|one| one.unit == "four.c" && one.source == "four.c"));
    assert!(times.waited >= times.compiling);
    // One that fails, and an observer who hears of it when the runtime goes.
    let warnings = std::sync::Arc::new(Warnings::default());
    let observer = std::sync::Arc::<Warnings>::clone(&warnings);
    let runtime = Runtime::builder().no_cache().trace("/dev/full").observer(observer).build().unwrap();
    assert_eq!(call(&runtime, "idle"), 3);
    drop(runtime);
    let heard = warnings.0.lock().unwrap();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("cannot write /dev/full"));
    assert!(matches!(Runtime::builder().trace(scratch.path()).build(), Err(Error::Write { .. })));
}

#[test]
fn the_slowest_functions_are_shown() {
    let scratch = Scratch::new("trace-timings");
    let mut text = String::from("namespace n { int large(int x) { int y = x;\n");
    (0..400).for_each(|at| writeln!(text, "y = y * {} ^ (x >> {});", at * 7 + 3, at % 31).unwrap());
    text.push_str("return y; } int tiny(int x) { return x; } }\nint main(int c, char **) { return n::large(c) == n::tiny(c); }");
    let source = scratch.write("slow.cpp", text);
    let run = |how: &str| finish(hotbed(["run", "--no-cache", how]).arg(&source)).stderr;
    let json = run("--timings=json");
    let (spent, waited) = (timing(&json, "functions_ms"), timing(&json, "functions_waited_ms"));
    assert!(spent.parse::<f64>().unwrap() > 0.0 && waited.parse::<f64>().unwrap() > 0.0, "{json}");
    let slowest = json.split_once("\"slowest_functions\":[{\"function\":\"").unwrap().1;
    assert!(
        slowest.contains("\"_ZN1n5largeEi\",\"source\":") || slowest.starts_with("_ZN1n5largeEi"),
        "{json}"
    );
    let table = run("--timings");
    let line = table.lines().find(|line| line.contains("n::large(int)")).unwrap_or_else(|| panic!("{table}"));
    assert!(line.contains(" ms  ") && line.ends_with("slow.cpp)"), "{line}");
    // Whole, there is nothing to show.
    let json = finish(hotbed(["run", "--no-cache", "--eager", "--timings=json"]).arg(&source)).stderr;
    assert!(json.contains("\"slowest_functions\":[]"), "{json}");
}
