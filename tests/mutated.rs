//! Mutated objects, bitcode files, archives and sources, thousands of them, to one host.
//!
//! In worker mode the host survives every one. In process the survivors are counted: there a signal may end the host, which
//! is why these hosts are processes of their own; but the ways out by `exit`, which lld and LLVM take for fatal errors,
//! are closed, so that none of them ends with an exit status.

use crate::support::{Child, End, Scratch, execute, task};
use hotbed::{Archive, Bitcode, Isolation, Load, Object, Runtime, Source};
use hotbed_loader::fuzzing::mutation::{Random, Subject};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Mutations in a normal run; `make test-slow` runs [`SLOW_COUNT`].
const COUNT: u64 = 3200;
const SLOW_COUNT: u64 = 20_000;

/// What a process that compiles may have, in bytes: some inputs ask for all there is.
const MEMORY: u64 = 4 << 30;

const PLAIN: &str = "#include <stdio.h>\nstatic int table[4] = {1, 2, 3, 4};\n_Thread_local int t = 3;\n\
                     int add(int a, int b) { return a + b + table[a & 3] + t; }\n\
                     int say(const char *s) { return printf(\"%s %d\\n\", s, add(1, 2)); }\n";

const TEMPLATES: &str = "struct B { virtual ~B() {} virtual int f() { return 1; } };\n\
                         template <class T> struct D : B { T v{}; int f() override { return int(v) + 2; } };\n\
                         inline int shared = 5;\nint use(B *b) { try { return b->f() + shared; } catch (int i) { return i; } }\n\
                         int make() { D<int> d; D<long> e; if (use(&d) > 5) throw 3; return use(&e); }\n";

/// The kinds of input.
const KINDS: [&str; 6] = ["object", "c++ object", "bitcode", "archive", "source", "c++ source"];

/// The sound inputs, one a kind, made once by clang; the same bytes in whatever folder, so that a number says it all.
fn make_seeds(scratch: &Scratch) {
    scratch.write("plain.c", PLAIN);
    scratch.write("templates.cpp", TEMPLATES);
    let run = |tool: &str, arguments: &[&str]| {
        execute(Command::new(tool).current_dir(scratch.path()).args(arguments));
    };
    let debug = ["-g", "-fdebug-compilation-dir=/"];
    run("clang-22", &[&debug[..], &["-fPIC", "-c", "plain.c"]].concat());
    run("clang++-22", &["-fPIC", "-c", "templates.cpp"]);
    run("clang-22", &["-emit-llvm", "-c", "plain.c"]);
    run("llvm-ar-22", &["rcsD", "both.a", "plain.o", "templates.o"]);
}

/// What is mutated, by kind; where the format is known, fields and tables are known as well.
fn seeds(folder: &Path) -> [Subject; 6] {
    ["plain.o", "templates.o", "plain.bc", "both.a", "plain.c", "templates.cpp"].map(|name| {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        match name.rsplit('.').next().unwrap() {
            "o" => Subject::of_elf(bytes).unwrap(),
            "a" => Subject::of_archive(bytes).unwrap(),
            _ => Subject::of_bytes(bytes),
        }
    })
}

/// The mutation of that number: its kind, and the bytes. Every other one of an object or archive is of its fields.
fn mutation(seeds: &[Subject; 6], number: u64) -> (&'static str, Vec<u8>) {
    let kind = (number % 6) as usize;
    let mut random = Random::new(number);
    if matches!(kind, 0 | 1 | 3) && number / 6 % 2 == 1 {
        let others = if kind == 3 { &seeds[3..4] } else { &seeds[..2] };
        return (KINDS[kind], seeds[kind].mutated(&mut random, others));
    }
    let mut bytes = seeds[kind].bytes.clone();
    match random.below(8) {
        // Bytes that are something else.
        0..=3 => {
            for _ in 0..=random.below(6) {
                let at = random.below(bytes.len());
                bytes[at] = random.number() as u8;
            }
        }
        // Single bits.
        4 => {
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        5 => bytes.truncate(random.below(bytes.len())),
        // A word that is as large as can be, or nothing.
        6 => {
            let at = random.below(bytes.len()) & !7;
            let fill = if random.below(2) == 0 { 0xff } else { 0 };
            let end = (at + 8).min(bytes.len());
            bytes[at..end].fill(fill);
        }
        // A part that is there twice.
        _ => {
            let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
            let length = random.below(64).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
        }
    }
    (KINDS[kind], bytes)
}

/// As something to load; sources get only what a compiler makes of them.
fn load(kind: &str, number: u64, bytes: Vec<u8>) -> Load {
    let name = format!("mutated-{number}");
    match kind {
        "object" | "c++ object" => Object::bytes(name, bytes).into(),
        "bitcode" => Bitcode::bytes(name, bytes).into(),
        "archive" => Archive::bytes(name, bytes).whole().into(),
        "source" => Source::text(format!("{name}.c"), String::from_utf8_lossy(&bytes)).into(),
        _ => Source::text(format!("{name}.cpp"), String::from_utf8_lossy(&bytes)).into(),
    }
}

/// How many of `numbers` gave an image and how many an error. Nothing is mapped: what a mutated program does when it runs is
/// not what is tested.
fn compile(
    runtime: &Runtime,
    folder: &Path,
    numbers: impl Iterator<Item = u64>,
    mut before: impl FnMut(u64),
) -> (u64, u64) {
    let seeds = seeds(folder);
    let image = folder.join(format!("image-{}.hbi", std::process::id()));
    let (mut good, mut bad) = (0, 0);
    for number in numbers {
        before(number);
        let (kind, bytes) = mutation(&seeds, number);
        match runtime.image(&image).unit(load(kind, number, bytes)).build() {
            Ok(_) => good += 1,
            Err(error) => {
                let said = error.to_string();
                assert!(
                    !said.is_empty() && said.contains(&format!("mutated-{number}")),
                    "{number}, {kind}: {said}"
                );
                assert!(!error.is_usage(), "{number}, {kind}: {said}");
                bad += 1;
            }
        }
    }
    (good, bad)
}

fn through_workers(name: &str, count: u64) {
    let scratch = Scratch::new(name);
    make_seeds(&scratch);
    let runtime = Runtime::builder()
        .no_cache()
        .isolation(Isolation::Process)
        .time_limit(Duration::from_secs(60))
        .memory_limit(MEMORY)
        .build()
        .unwrap();
    let halves = std::thread::scope(|scope| {
        let half = |start: u64| {
            let (runtime, folder) = (runtime.clone(), scratch.folder(&format!("half-{start}")));
            for file in ["plain.o", "templates.o", "plain.bc", "both.a", "plain.c", "templates.cpp"] {
                std::fs::copy(scratch.join(file), folder.join(file)).unwrap();
            }
            scope.spawn(move || compile(&runtime, &folder, (start..count).step_by(2), |_| ()))
        };
        [half(0), half(1)].map(|half| half.join().unwrap())
    });
    let (good, bad) = (halves[0].0 + halves[1].0, halves[0].1 + halves[1].1);
    assert_eq!(good + bad, count);
    // Neither is everything refused nor does nothing matter.
    println!("in workers: {good} images, {bad} errors");
    assert!(good > count / 20 && bad > count / 20, "{good} images, {bad} errors");
    // And the host compiles what is sound.
    let unit = runtime.load(Source::text("sound.c", "int f(void) { return 1; }")).unwrap();
    assert!(unit.address_of("f").is_some());
}

#[test]
fn the_host_survives_in_worker_mode() {
    through_workers("mutated-workers", COUNT);
}

#[test]
#[ignore = "slow: make test-slow"]
fn the_host_survives_many_more_in_worker_mode() {
    through_workers("mutated-workers-slow", SLOW_COUNT);
}

/// What became of the hosts that compiled in process.
#[derive(Debug, Default)]
struct Ends {
    survived: u64,
    by_signal: Vec<(u64, i32)>,
    by_exit: Vec<(u64, i32)>,
}

fn in_process(name: &str, count: u64) -> Ends {
    let scratch = Scratch::new(name);
    make_seeds(&scratch);
    let progress = scratch.join("progress");
    let mut ends = Ends::default();
    let mut next = 0;
    while next < count {
        let child = Child::new("mutated::compile_here", format!("{next} {count}"));
        let outcome = child.env("HOTBED_TEST_FOLDER", scratch.path()).run();
        let last = std::fs::read_to_string(&progress).unwrap();
        let last: u64 = last.trim_end().rsplit('\n').next().unwrap().parse().unwrap();
        match outcome.end {
            End::Status(0) => {
                ends.survived += count - next;
                break;
            }
            End::Status(status) => ends.by_exit.push((last, status)),
            End::Signal(signal) => ends.by_signal.push((last, signal)),
        }
        if let Some((number, status)) = ends.by_exit.last() {
            eprintln!("mutation {number} ended its host with status {status}: {}", outcome.stderr);
        }
        ends.survived += last - next;
        next = last + 1;
    }
    println!("in process: {} of {count} hosts survive, {} by signal", ends.survived, ends.by_signal.len());
    for (number, signal) in &ends.by_signal {
        println!("mutation {number} ({}) ended its host by signal {signal}", KINDS[(number % 6) as usize]);
    }
    ends
}

/// The host that compiles in process the mutations from the first number of its task to the second.
#[test]
fn compile_here() {
    let Some(task) = task() else { return };
    let (from, to) = task.as_str().split_once(' ').unwrap();
    let folder = PathBuf::from(std::env::var_os("HOTBED_TEST_FOLDER").unwrap());
    let limit = libc::rlimit { rlim_cur: MEMORY, rlim_max: MEMORY };
    // SAFETY: a plain setting of this process.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
    let mut progress = std::fs::File::create(folder.join("progress")).unwrap();
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let range = from.parse().unwrap()..to.parse().unwrap();
    compile(&runtime, &folder, range, |number| writeln!(progress, "{number}").unwrap());
}

fn check_in_process(name: &str, count: u64) {
    let ends = in_process(name, count);
    assert!(ends.by_exit.is_empty(), "ways out by exit that are open: {:?}", ends.by_exit);
    // The rest is what the isolation is for; objects, whose checks are ours, are expected to be tight.
    let objects = ends.by_signal.iter().filter(|(number, _)| matches!(number % 6, 0 | 1 | 3));
    assert_eq!(objects.count(), 0, "objects and archives: {:?}", ends.by_signal);
    assert!(ends.survived >= count * 95 / 100, "{ends:?}");
}

#[test]
fn no_way_out_by_exit_in_process() {
    check_in_process("mutated-here", COUNT);
}

#[test]
#[ignore = "slow: make test-slow"]
fn no_way_out_by_exit_in_process_for_many_more() {
    check_in_process("mutated-here-slow", SLOW_COUNT);
}
