//! Plugin and workers end to end, with a plugin in C that crashes, hangs and eats on request, and this test executable
//! as the worker.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use super::*;
use hotbed_loader::boundary::{
    Argument, BUILD, BackEndTable, Content, Counts, Dependency, Input, Lang, Phases, TABLE_SYMBOL,
    encode_answer,
};
use hotbed_loader::sys::files;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Instant;

const PLUGIN: &str = r#"
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
typedef struct { unsigned char *bytes; size_t length, capacity; int image; } Raw;
typedef struct { size_t size; const char *build; Raw (*compile)(const void *, size_t); void *others[OTHERS]; void (*release)(Raw); } Table;
static const unsigned char answer[] = { ANSWER };
static int has(const void *p, size_t n, const char *word) { return memmem(p, n, word, strlen(word)) != 0; }
static volatile int deep(volatile int n) { volatile char b[4096]; b[0] = n; return deep(n + 1) + b[0]; }
static Raw compile(const void *p, size_t n) {
  if (has(p, n, "CRASH")) { fputs("Stack dump:\nLLVM ERROR: Cannot select\n", stderr); abort(); }
  if (has(p, n, "DEEP")) deep(0);
  if (has(p, n, "QUIET")) _exit(0);
  if (has(p, n, "HANG")) for (;;) pause();
  if (has(p, n, "HUNGRY")) for (;;) { char *m = malloc(1 << 20); if (!m) { fputs("LLVM ERROR: out of memory\n", stderr); abort(); } memset(m, 1, 1 << 20); }
  Raw raw = { malloc(sizeof answer), sizeof answer, sizeof answer, memfd_create("image", MFD_CLOEXEC) };
  memcpy(raw.bytes, answer, sizeof answer);
  dprintf(raw.image, "%d", getpid());
  if (has(p, n, "FOREIGN")) raw.bytes[0] = 77;
  return raw;
}
static void release(Raw raw) { free(raw.bytes); }
static const Table table = { sizeof(Table), BUILD, compile, .release = release };
const Table *hotbed_back_end(void) { return &table; }
"#;

struct Fake {
    folder: PathBuf,
    plugin: PathBuf,
    worker: PathBuf,
}

impl Fake {
    fn new(name: &str) -> Self {
        Self::of_build(name, BUILD)
    }

    fn of_build(name: &str, build: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("hotbed-back-end-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let reply = Reply {
            dependencies: vec![Dependency::File("a.h".into())],
            counts: Counts {
                units_compiled: 1,
                functions_compiled: 2,
                functions_reused: 0,
                images_linked: 1,
            },
            phases: Phases::default(),
            ..Reply::default()
        };
        let bytes: Vec<String> = encode_answer(&Ok(reply)).iter().map(u8::to_string).collect();
        std::fs::write(folder.join("plugin.c"), PLUGIN.replace("ANSWER", &bytes.join(","))).unwrap();
        let plugin = folder.join("libhotbed_jit.so");
        let status = Command::new("cc")
            .args(["-w", "-shared", "-fPIC", "-O0", "-o"])
            .arg(&plugin)
            .arg(format!("-DBUILD=\"{build}\""))
            // What the table has besides, which is all for functions one by one.
            .arg(format!("-DOTHERS={}", size_of::<BackEndTable>() / size_of::<usize>() - 4))
            .arg(folder.join("plugin.c"))
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(TABLE_SYMBOL, c"hotbed_back_end");
        let worker = folder.join("worker");
        let test = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\nHOTBED_TEST_WORKER=1 exec '{}' --exact worker::tests::serve_when_asked --nocapture\n",
            test.display()
        );
        let text = folder.join("worker.sh");
        std::fs::write(&text, script).unwrap();
        // Another process has it open for writing: of this one a child that another test has just forked might have it still,
        // and nobody can run it meanwhile.
        let status = Command::new("install").args(["-m", "700"]).args([&text, &worker]).status().unwrap();
        assert!(status.success());
        Self { folder, plugin, worker }
    }

    fn options(&self, isolation: Isolation) -> BackEndOptions {
        BackEndOptions {
            plugin: Some(self.plugin.clone()),
            worker: Some(self.worker.clone()),
            isolation,
            ..BackEndOptions::default()
        }
    }

    fn request(&self, text: &str) -> Arc<Request> {
        Arc::new(Request {
            unit: "fake.c".into(),
            arguments: vec![Argument::Input(Input {
                lang: Lang::C,
                content: Content::Bytes { name: "fake.c".into(), bytes: text.into() },
            })],
            directory: self.folder.clone(),
            ..Request::default()
        })
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn process_of(answer: (Reply, OwnedFd)) -> u32 {
    assert_eq!(answer.0.counts.functions_compiled, 2);
    assert_eq!(answer.0.dependencies, [Dependency::File("a.h".into())]);
    String::from_utf8(files::contents(answer.1.as_fd()).unwrap()).unwrap().parse().unwrap()
}

#[test]
fn a_plugin_compiles_in_this_process() {
    let fake = Fake::new("here");
    let back_ends = BackEnds::new(fake.options(Isolation::InProcess));
    assert_eq!(process_of(back_ends.compile(&fake.request("int x;")).unwrap()), std::process::id());
    let error = back_ends.compile(&fake.request("FOREIGN")).unwrap_err();
    assert!(error.to_string().contains("boundary"), "{error}");
}

#[test]
fn a_plugin_of_another_build_is_refused() {
    let fake = Fake::of_build("other", "9.9.9-other");
    let error =
        BackEnds::new(fake.options(Isolation::InProcess)).compile(&fake.request("int x;")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("another build (9.9.9-other, this is") && text.contains("fake.c"), "{text}");
    let error = BackEnds::new(fake.options(Isolation::Process)).compile(&fake.request("int x;")).unwrap_err();
    assert!(error.to_string().contains("another build"), "{error}");
}

#[test]
fn a_worker_stays_for_the_next_request() {
    let fake = Fake::new("stays");
    let back_ends = BackEnds::new(fake.options(Isolation::Process));
    let first = process_of(back_ends.compile(&fake.request("int x;")).unwrap());
    assert_ne!(first, std::process::id());
    assert_eq!(process_of(back_ends.compile(&fake.request("int y;")).unwrap()), first);
    back_ends.shut_down_workers();
    assert_ne!(process_of(back_ends.compile(&fake.request("int z;")).unwrap()), first);
}

#[test]
fn a_dying_worker_has_last_words_and_a_successor() {
    let fake = Fake::new("dies");
    let back_ends = BackEnds::new(fake.options(Isolation::Process));
    for (text, said) in [
        ("CRASH", "ended by SIGABRT: LLVM ERROR: Cannot select"),
        ("DEEP", "ended by SIGSEGV"),
        ("QUIET", "ended without a word"),
    ] {
        let error = back_ends.compile(&fake.request(text)).unwrap_err();
        assert!(matches!(error, Error::Worker { .. }));
        assert!(error.to_string().contains(said) && error.to_string().contains("fake.c"), "{error}");
        process_of(back_ends.compile(&fake.request("int x;")).unwrap());
    }
    let worker = process_of(back_ends.compile(&fake.request("int x;")).unwrap());
    // SAFETY: sends a signal; the number is that of a worker of this test, which nothing else ends.
    assert_eq!(unsafe { libc::kill(worker as i32, libc::SIGKILL) }, 0);
    // A process loses its memory first and its sockets later, with its last thread; a zombie that is alone, or nobody, has
    // lost all.
    let gone = || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        let threads = std::fs::read_dir(format!("/proc/{worker}/task")).map_or(0, Iterator::count);
        let ended = |state: &str| state.is_empty() || state.starts_with(['Z', 'X']);
        threads < 2 && status.rsplit(") ").next().is_none_or(ended)
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_ne!(process_of(back_ends.compile(&fake.request("an idle worker was killed")).unwrap()), worker);
}

#[test]
fn time_and_memory_have_limits() {
    let fake = Fake::new("limits");
    let limited =
        BackEndOptions { time_limit: Some(Duration::from_secs(6)), ..fake.options(Isolation::Process) };
    let back_ends = BackEnds::new(limited);
    process_of(back_ends.compile(&fake.request("int x;")).unwrap());
    let error = back_ends.compile(&fake.request("HANG")).unwrap_err();
    assert!(error.to_string().contains("time limit of 6s"), "{error}");
    process_of(back_ends.compile(&fake.request("int x;")).unwrap());

    let limited = BackEndOptions { memory_limit: Some(300 << 20), ..fake.options(Isolation::Process) };
    let back_ends = BackEnds::new(limited);
    process_of(back_ends.compile(&fake.request("int x;")).unwrap());
    let error = back_ends.compile(&fake.request("HUNGRY")).unwrap_err().to_string();
    assert!(error.contains("out of memory") && error.contains("300 MiB"), "{error}");
}

#[test]
fn workers_that_cannot_start_say_so() {
    let fake = Fake::new("start");
    let missing =
        BackEndOptions { worker: Some("/nowhere/hotbed".into()), ..fake.options(Isolation::Process) };
    let error = BackEnds::new(missing).compile(&fake.request("int x;")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/hotbed"), "{error}");
    let no_worker = BackEndOptions { worker: Some("/bin/true".into()), ..fake.options(Isolation::Process) };
    assert!(BackEnds::new(no_worker).compile(&fake.request("int x;")).is_err());
    let no_program = BackEndOptions { worker: Some(fake.plugin.clone()), ..fake.options(Isolation::Process) };
    assert!(BackEnds::new(no_program).compile(&fake.request("int x;")).is_err());
}

#[test]
fn several_threads_have_a_worker_each() {
    let fake = Fake::new("several");
    let back_ends = BackEnds::new(fake.options(Isolation::Process));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    process_of(back_ends.compile(&fake.request("int x;")).unwrap());
                }
            });
        }
    });
}
