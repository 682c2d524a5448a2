//! What perf shows of units: by file name where they have a file, by a jitdump where they have none.

use crate::support::{Child, Outcome, Scratch, execute, finish, hotbed, task};
use hotbed::{Image, Runtime, Source};
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Spends its time in a local function.
const SPIN: &str = r#"#include <stdint.h>
#include <time.h>
static volatile uint64_t sink;
static __attribute__((noinline)) uint64_t busy_inside(uint64_t n) {
  uint64_t s = sink;
  for (uint64_t i = 0; i < n; i++)
    s = s * 6364136223846793005u + (s >> 33);
  return s;
}
int main(void) {
  clock_t end = clock() + CLOCKS_PER_SEC / 2;
  while (clock() < end) sink += busy_inside(100000);
  return 0;
}
"#;

/// `perf record` into `data`; what it runs is still to be added.
fn record(data: &Path) -> Command {
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-e", "cpu-clock:u", "-F", "499", "-k", "1", "-o"]).arg(data).arg("--");
    perf
}

/// What `perf script` tells of every sample, after `perf inject` if there is a dump.
fn script(data: &Path, fields: &str) -> Vec<String> {
    let outcome = execute(Command::new("perf").args(["script", "-F", fields, "-i"]).arg(data));
    outcome.stdout.lines().map(|line| line.trim().to_owned()).collect()
}

fn inject(data: &Path) -> PathBuf {
    let injected = data.with_extension("injected");
    execute(Command::new("perf").args(["inject", "--jit", "-i"]).arg(data).arg("-o").arg(&injected));
    injected
}

/// How many of the lines have `text`.
fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

fn recorded(data: &Path, arguments: &[&OsStr]) -> Outcome {
    let run = hotbed(arguments);
    finish(record(data).arg(run.get_program()).args(run.get_args())).assert_success("perf record")
}

#[test]
fn perf_finds_units_in_the_store_by_file_name() {
    let scratch = Scratch::new("perf-store");
    let source = scratch.write("spin.c", SPIN);
    let store = scratch.join("store");
    for (round, flags) in [("cold", "-g"), ("warm", "-g"), ("without debug information", "-g0")] {
        let data = scratch.join("perf.data");
        // Fresh code is in no file.
        let arguments = ["run", "--eager", "-O1", flags, "--cache-dir"].map(OsStr::new);
        recorded(&data, &[&arguments[..], &[store.as_ref(), source.as_ref()]].concat());
        let samples = script(&data, "ip,sym,dso");
        let own = count(&samples, "busy_inside");
        assert!(own > 20, "{round}: {own} samples: {samples:#?}");
        assert_eq!(
            own,
            samples.iter().filter(|line| line.contains("busy_inside") && line.contains(".hbi)")).count()
        );
        if flags == "-g" {
            assert!(count(&script(&data, "ip,sym,srcline"), "spin.c:") > 20, "{round}");
        }
    }
}

#[test]
fn perf_finds_units_without_a_file_by_the_jitdump() {
    let scratch = Scratch::new("perf-jitdump");
    let source = scratch.write("spin.c", SPIN);
    let (data, folder) = (scratch.join("perf.data"), scratch.join("dump"));
    let arguments = ["run", "--no-cache", "-O1", "-g", "--jitdump"].map(OsStr::new);
    recorded(&data, &[&arguments[..], &[folder.as_ref(), source.as_ref()]].concat());
    assert_eq!(count(&script(&data, "ip,sym"), "busy_inside"), 0, "there is no file to look into");
    let injected = inject(&data);
    let samples = script(&injected, "ip,sym,dso");
    assert!(count(&samples, "busy_inside") > 20, "{samples:#?}");
    let lines = script(&injected, "ip,sym,srcline");
    // The loop.
    assert!(count(&lines, "spin.c:6") + count(&lines, "spin.c:7") > 20, "{lines:#?}");
    let dumps: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let dump = dumps.iter().find(|path| path.extension() == Some("dump".as_ref())).unwrap();
    let bytes = std::fs::read(dump).unwrap();
    assert_eq!(bytes[..4], *b"DTiJ");
    assert_eq!(bytes[bytes.len() - 16..][..8], [3, 0, 0, 0, 16, 0, 0, 0], "the record of the end");
}

/// A host that spends its time in units that lie side by side in memory and have no mappings of their own.
#[test]
fn crowded_host() {
    let Some(task) = task() else { return };
    let folder = Path::new(task.as_str());
    let runtime = Runtime::builder().no_cache().jitdump(folder.join("dump")).build().unwrap();
    for name in ["one", "two"] {
        let (path, text) = (folder.join(name), SPIN.replace("busy_inside", &format!("busy_{name}")));
        runtime.image(&path).unit(Source::text("spin.c", text).flags(["-O1", "-g"])).build().unwrap();
        let unit = runtime.load(Image::bytes(name, std::fs::read(&path).unwrap())).unwrap();
        // SAFETY: that is its type.
        let main = unsafe { unit.get::<unsafe extern "C" fn() -> i32>("main") }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { main() }, 0);
    }
}

#[test]
fn perf_finds_units_in_arenas_by_the_jitdump() {
    let scratch = Scratch::new("perf-arena");
    let data = scratch.join("perf.data");
    let host = Child::new("profilers::crowded_host", scratch.path().to_str().unwrap());
    finish(&mut host.under(record(&data))).assert_success("perf record");
    let samples = script(&inject(&data), "ip,sym,srcline");
    for name in ["busy_one", "busy_two"] {
        assert!(count(&samples, name) > 20, "{name}: {samples:#?}");
    }
    assert!(count(&samples, "spin.c:7") > 20, "{samples:#?}");
}

/// Two runtimes of a host with one folder.
#[test]
fn host() {
    let Some(task) = task() else { return };
    let folder = Path::new(task.as_str());
    let next = || std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let load = |runtime: &Runtime, name: &str| {
        let text = format!("int {name}(int n) {{ return n + 1; }}");
        runtime.load(Source::text(format!("{name}.c"), text)).unwrap()
    };
    let builder = || Runtime::builder().no_cache().jitdump(folder).build().unwrap();
    let (one, two) = (builder(), builder());
    load(&one, "first");
    let before = next();
    load(&two, "second");
    load(&one, "third");
    assert_eq!(next(), before, "no descriptor is left");
    println!("{}", std::process::id());
}

#[test]
fn runtimes_of_a_process_write_one_dump() {
    let scratch = Scratch::new("jitdump-host");
    let output = Child::new("profilers::host", scratch.path().to_str().unwrap()).succeed();
    let dump = scratch.join(format!("jit-{}.dump", output.trim()));
    let bytes = std::fs::read(&dump).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 40;
    let mut functions = Vec::new();
    while at < bytes.len() {
        let (kind, size) = (word(at), word(at + 4) as usize);
        if kind == 0 {
            let name = &bytes[at + 56..at + size];
            let name = name.split(|byte| *byte == 0).next().unwrap();
            functions.push((word(at + 48), String::from_utf8_lossy(name).into_owned()));
        }
        at += size;
    }
    assert_eq!(at, bytes.len());
    assert_eq!(functions, [(0, "first".to_owned()), (1, "second".to_owned()), (2, "third".to_owned())]);
}
