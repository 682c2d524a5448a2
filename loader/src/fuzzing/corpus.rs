//! Mutated images, metadata, requests, answers, manifests and memos, by the hundred thousand: an error or a correct load,
//! never a crash, a hang, or a look at memory or a write that is not the image's.
//!
//! They are read in processes of their own, which are watched: the number that one was at when it died says what to look
//! at. `HOTBED_CASE=number cargo test -p hotbed-loader fuzzing` repeats one case here and now. Around the mappings of an
//! image there is nothing that may be touched, and neither is there between its segments, so that whoever strays dies.

use super::mutation::{Random, Subject};
use super::{Outcome, codec, image, note as read_note, store};
use crate::boundary::{
    Argument, Content, Dependency, Diagnostic, Failure, FailureKind, Input, Lang, Reply, Request, Severity,
    Trace, encode_answer,
};
use crate::cpu::CpuLevel;
use crate::image::Metadata;
use crate::image::note::{self, Layout};
use crate::image::{ImageDependency, join, sample_interface};
use crate::slots::tests::support as slots;
use crate::store::sample_contents;
use crate::testing::Folder;
use crate::trace::{Call, Record};
use object::elf::{PF_R, PT_GNU_RELRO, PT_LOAD, PT_PHDR};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Cases of a normal run, and of one that takes its time.
const COUNT: u64 = 200_000;
const SLOW_COUNT: u64 = 3_000_000;
/// How long one case may take before it counts as hanging, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of memory that a process may have used at any time: a damaged file must not get what it asks for.
const MEMORY: u64 = 512 << 20;
/// Processes that share the work.
const PROCESSES: u64 = 2;
/// After so many deaths nobody needs more.
const ENOUGH: usize = 10;

const TASK: &str = "HOTBED_CORPUS_TASK";
const FOLDER: &str = "HOTBED_CORPUS_FOLDER";

/// Sources, flags and names of the images that are mutated: one for every kind of table that an image may have.
const IMAGES: [(&str, &str, &[&str]); 7] = [
    (
        "plain.c",
        "#include <stdio.h>\n#include <string.h>\nint data[40] = {1}; int *place = &data[3]; char zeros[9000];
         __attribute__((weak)) int nobody(void); int own(void) { return nobody ? nobody() : strlen(place ? \"a\" : \"b\"); }
         int say(void) { return printf(\"%p %d\\n\", (void *)zeros, own()); }
         __attribute__((constructor)) void begin(void) { data[strlen(zeros)]++; } __attribute__((destructor)) void end(void) { data[strlen(zeros)]--; }",
        &[],
    ),
    (
        "classes.cpp",
        "#include <string>\n#include <stdexcept>
         struct B { virtual ~B() {} virtual int f() { return 1; } }; template <class T> struct D : B { int f() override { return 2; } };
         inline std::string &shared() { static std::string s(\"x\"); return s; } inline int counter = 5; inline D<int> made;
         int use(B *b) { try { if (b->f() > 3) throw std::runtime_error(shared()); } catch (std::exception &e) { return 1; } return counter; }
         int all() { D<long> d; return use(&d) + use(&made); }",
        &[],
    ),
    (
        "threads.cpp",
        "thread_local int first = 3; extern thread_local int elsewhere __attribute__((weak)); static thread_local char many[3000];
         struct L { int v; L() : v(7) {} ~L() { v = 0; } }; thread_local L late; inline thread_local L both;
         int bump() { return ++first + many[first & 7]++ + late.v + both.v + (&elsewhere ? elsewhere : 0); }",
        &["-mtls-dialect=gnu2"],
    ),
    (
        "general.cpp",
        "thread_local int first = 3; static thread_local long many[30] = {1, 2}; alignas(256) thread_local char wide[3] = {9};
         int bump() { return ++first + int(many[first & 7]++) + wide[0]; }",
        &["-Wl,--hash-style=sysv"],
    ),
    (
        "chosen.c",
        "static int one(void) { return 1; } void *pick(void) { return (void *)one; }
         int ind(void) __attribute__((ifunc(\"pick\"))); static int here(void) __attribute__((ifunc(\"pick\")));
         int (*kept)(void) = ind; int call(void) { return ind() + here() + kept(); } int newer(void) { return 2; }",
        &["-O0", "-Wl,--hash-style=both"],
    ),
    (
        "versions.c",
        "#define _GNU_SOURCE\n#include <stdlib.h>\n#include <unistd.h>\n#include <pthread.h>\n#include <math.h>\nint old_(void) { return 1; } int new_(void) { return 2; }
         __asm__(\".symver old_,both@ONE\"); __asm__(\".symver new_,both@@TWO\");
         void *table[] = {(void *)atoi, &environ, (void *)old_, (void *)pow, table}; static void *kept[] = {table, kept};
         double all(double x) { return pthread_self() != (pthread_t)kept ? sin(x) + atoi(\"3\") : 0; }",
        &["-lm", "-Wl,--version-script=map", "-Wl,-z,norelro", "-Wl,-z,nopack-relative-relocs"],
    ),
    (
        SETTLED,
        "#include <stdlib.h>\nextern char **environ; static int one(int x) { return x + 1; } int (*const kept[])(int) = {one, one}; int data[40] = {1};
         __attribute__((constructor)) void begin(void) { data[1]++; } void *out[] = {(void *)atoi, &environ, data};
         int own(int x) { return kept[x & 1](x) + atoi(\"3\") + data[1]; }",
        &["-Wl,-z,norelro,-z,separate-loadable-segments,-z,rodynamic,--apply-dynamic-relocs", "-Wl,--image-base=0x200000410000", "-Wl,settled.ld"],
    ),
];

/// One whose constants are settled.
pub(super) const SETTLED: &str = "settled.c";

/// How they get in front of the code.
const CONSTANTS: &str =
    "SECTIONS { .init_array : { *(.init_array) } .data.rel.ro : { *(.data.rel.ro) } } INSERT BEFORE .text;";

/// One with functions that are compiled when they are called.
const LAZY: &str = "lazy.c";

/// One that has variants.
const VARIANTS: &str = "variants.c";

/// An image that needs what the others have.
const USER: &str =
    "extern int data[], counter, call(void), newer(void), both(void); int own(void), say(void);
    int _Z3allv(void), _Z4bumpv(void), _Z3useP1B(void *); extern char _ZTV1DIiE[], _ZGVZ6sharedB5cxx11vE1s[];
    void *needs[] = {data, &counter, call, newer, both, own, say, _Z3allv, _Z4bumpv, _Z3useP1B, _ZTV1DIiE};
    extern _Thread_local int first; int user(void) { return first + *data + both(); }";

/// Makes all images.
fn make(folder: &Folder) {
    for (name, ..) in IMAGES {
        make_one(folder, name);
    }
    folder.image("user.c", USER, &[]);
    let bytes = slots::image(
        folder,
        LAZY,
        "int f(int x); int f_body(int x) { return x; } int g(void); int (*kept)(void) = g;",
        &["f", "g"],
    );
    std::fs::write(folder.path().join("lazy.so"), bytes).unwrap();
    let variant = |level: CpuLevel| {
        let mut bytes =
            std::fs::read(folder.image("variant.c", "int f(void) { return 1; } int g;", &[])).unwrap();
        let layout = Layout { requires: level.features(), ..note::layout(&bytes).unwrap() };
        note::set_layout(&mut bytes, &layout).unwrap();
        bytes
    };
    let bytes = join([CpuLevel::V1, CpuLevel::V3].map(variant).into()).unwrap();
    std::fs::write(folder.path().join("variants.so"), bytes).unwrap();
}

/// Makes the image of that name, and says where it is.
pub(super) fn make_one(folder: &Folder, wanted: &str) -> PathBuf {
    let map = folder.path().join("map");
    std::fs::write(&map, "ONE { global: both; }; TWO { global: both; all; } ONE;").unwrap();
    let map = format!("-Wl,--version-script={}", map.display());
    let script = folder.path().join("settled.ld");
    std::fs::write(&script, CONSTANTS).unwrap();
    let script = format!("-Wl,{}", script.display());
    let (name, source, flags) = IMAGES.iter().find(|(name, ..)| *name == wanted).unwrap();
    let in_folder = |flag: &&'static str| match *flag {
        flag if flag.ends_with("=map") => map.clone(),
        flag if flag.ends_with("settled.ld") => script.clone(),
        flag => flag.to_owned(),
    };
    let flags: Vec<String> = flags.iter().map(in_folder).collect();
    let image = folder.image(name, source, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    if *name == SETTLED {
        settle(&image);
    }
    image
}

/// Makes of the place of the program headers what the second segment becomes after relocation, and says that it is that.
fn settle(image: &Path) {
    let mut bytes = std::fs::read(image).unwrap();
    let header = |bytes: &[u8], at: usize| bytes[64 + at * 56..][..56].to_vec();
    let is = |bytes: &[u8], at: usize, kind: u32| header(bytes, at)[..4] == kind.to_le_bytes();
    let count = usize::from(bytes[56]);
    let find = |kind: u32, number: usize| (0..count).filter(|at| is(&bytes, *at, kind)).nth(number).unwrap();
    let (place, constants) = (find(PT_PHDR.0, 0), find(PT_LOAD.0, 1));
    let mut relro = header(&bytes, constants);
    let size = u64::from_le_bytes(*relro[40..].first_chunk().unwrap()).next_multiple_of(0x1000);
    for at in [32, 40] {
        relro[at..at + 8].copy_from_slice(&size.to_le_bytes());
        bytes[64 + constants * 56 + at..][..8].copy_from_slice(&size.to_le_bytes());
    }
    relro[..4].copy_from_slice(&PT_GNU_RELRO.0.to_le_bytes());
    relro[4..8].copy_from_slice(&(PF_R.0 | note::CONSTANTS_SETTLED).to_le_bytes());
    bytes[64 + place * 56..][..56].copy_from_slice(&relro);
    let layout = Layout { relocated: true, ..note::layout(&bytes).unwrap() };
    note::set_layout(&mut bytes, &layout).unwrap();
    std::fs::write(image, bytes).unwrap();
}

/// Everything that is mutated.
struct Corpus {
    images: Vec<Subject>,
    user: Vec<u8>,
    codecs: Vec<Subject>,
    stores: Vec<Subject>,
}

impl Corpus {
    fn read(folder: &Path) -> Self {
        let read = |name: &str| {
            let name = name.split('.').next().unwrap();
            std::fs::read(folder.join(format!("{name}.so"))).unwrap()
        };
        Self {
            images: IMAGES
                .iter()
                .map(|(name, ..)| *name)
                .chain([LAZY, VARIANTS])
                .map(|name| Subject::of_elf(read(name)).unwrap())
                .collect(),
            user: read("user"),
            codecs: encodings().into_iter().map(Subject::of_bytes).collect(),
            stores: sample_contents().into_iter().map(Subject::of_bytes).collect(),
        }
    }

    /// The case of that number: what it is of, and what became of it.
    fn run(&self, number: u64) -> (Kind, Outcome) {
        let mut random = Random::new(number);
        let mut pick = |subjects: &[Subject]| {
            let subject = &subjects[random.below(subjects.len())];
            subject.mutated(&mut random, subjects)
        };
        match number % 8 {
            6 => (Kind::Codec, codec(&pick(&self.codecs))),
            7 => (Kind::Store, store(&pick(&self.stores))),
            _ => {
                let bytes = pick(&self.images);
                read_note(&bytes);
                (Kind::Image, image(&bytes, &[&self.user]))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Codec,
    Store,
}

/// Metadata, requests and answers.
fn encodings() -> Vec<Vec<u8>> {
    let metadata = Metadata {
        build: "build".into(),
        unit: "u.c".into(),
        triple: "x86_64-pc-linux-gnu".into(),
        cpu: "x86-64".into(),
        flags: vec!["-O2".into(), "-DX=1".into()],
        inputs: vec![("a.c".into(), [7; 32]), ("b.c".into(), [9; 32])],
        entry: Some("main".into()),
    };
    let record = Record {
        source: "a.c".into(),
        function: "f".into(),
        content: Some([3; 32]),
        microseconds: 40,
        flags: vec!["-O2".into()],
    };
    let request = Request {
        unit: "u.c".into(),
        arguments: vec![
            Argument::Flag("-O2".into()),
            Argument::Input(Input { lang: Lang::C, content: Content::File("a.c".into()) }),
            Argument::Input(Input {
                lang: Lang::Object,
                content: Content::Bytes { name: "o".into(), bytes: vec![1; 40] },
            }),
        ],
        directory: "/work".into(),
        environment: vec![("CPATH".into(), "/inc".into())],
        entry: Some("main".into()),
        soname: None,
        images: vec![sample_interface("core.hbi")],
        whole_archives: true,
        lazy: true,
        trace: Some(Trace { calls: vec![Call { record, trace: "t.trace".into(), line: 2 }], strict: false }),
        color: false,
        stock: None,
    };
    let diagnostic = Diagnostic {
        severity: Severity::Warning,
        file: "a.c".into(),
        line: 3,
        column: 9,
        message: "what is this".into(),
    };
    let reply = Reply {
        dependencies: vec![Dependency::File("a.c".into()), Dependency::Missing("x/a.h".into())],
        reproducible: true,
        diagnostics: vec![diagnostic.clone()],
        rendered: "a.c:3:9".into(),
        log: vec!["ld.lld".into()],
        ..Reply::default()
    };
    let mut failure = Failure::new(FailureKind::Compile, "cannot compile u.c");
    failure.diagnostics.push(diagnostic);
    let answers = [Ok(reply), Err(failure)].map(|answer| encode_answer(&answer));
    let remembered =
        ImageDependency::encode_all(&[ImageDependency::new(&sample_interface("a.hbi"), [&b"area"[..]])]);
    [vec![metadata.encode(), request.encode(), remembered], answers.to_vec()].concat()
}

/// Runs the cases of its task, if there is one: every [`PROCESSES`]th number of a range.
#[test]
fn cases() {
    if let Ok(number) = std::env::var("HOTBED_CASE") {
        let folder = Folder::new();
        make(&folder);
        let corpus = Corpus::read(folder.path());
        println!("{:?}", corpus.run(number.parse().unwrap()));
        return;
    }
    let (Ok(task), Some(folder)) = (std::env::var(TASK), std::env::var_os(FOLDER)) else { return };
    let words: Vec<u64> = task.split(' ').map(|word| word.parse().unwrap()).collect();
    let [from, to, which] = words[..] else { panic!("{task}") };
    let folder = PathBuf::from(folder);
    // SAFETY: a plain setting of this process: it ends with the thread that watches it.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }, 0);
    wall_in();
    let corpus = Corpus::read(&folder);
    let progress = File::create(folder.join(format!("progress-{which}"))).unwrap();
    let mut counts = [[0u64; 2]; 3];
    for number in (from..to).step_by(PROCESSES as usize) {
        progress.write_all_at(&number.to_le_bytes(), 0).unwrap();
        let (kind, outcome) = corpus.run(number);
        let used = memory_used();
        assert!(used < MEMORY, "{used} bytes of memory used");
        counts[kind as usize][usize::from(outcome == Outcome::Accepted)] += 1;
    }
    let counts: Vec<String> = counts.iter().flatten().map(u64::to_string).collect();
    std::fs::write(folder.join(format!("counts-{which}-{from}")), counts.join(" ")).unwrap();
}

/// One of the processes, and the case it is at.
struct Reader {
    process: Child,
    progress: PathBuf,
    which: u64,
    from: u64,
    at: u64,
    since: Instant,
}

impl Reader {
    fn start(folder: &Folder, which: u64, from: u64, to: u64) -> Self {
        let progress = folder.path().join(format!("progress-{which}"));
        let _ = std::fs::remove_file(&progress);
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fuzzing::corpus::cases", "--nocapture"])
            .env(TASK, format!("{from} {to} {which}"))
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process, progress, which, from, at: from, since: Instant::now() }
    }

    /// How it ended, if it has: the reason when that was no good end.
    fn ended(&mut self) -> Option<Result<(), String>> {
        let status = self.process.try_wait().unwrap();
        if let Ok(bytes) = std::fs::read(&self.progress)
            && let Some(number) = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
            && number != self.at
        {
            (self.at, self.since) = (number, Instant::now());
        }
        let Some(status) = status else {
            if self.since.elapsed() > PATIENCE {
                self.process.kill().unwrap();
                self.process.wait().unwrap();
                return Some(Err("hangs".into()));
            }
            return None;
        };
        if status.success() {
            return Some(Ok(()));
        }
        let mut said = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        Some(Err(match status.signal() {
            Some(signal) => format!("dies by signal {signal} {said}"),
            None => said,
        }))
    }
}

fn run(count: u64) {
    let folder = Folder::new();
    make(&folder);
    let mut readers: Vec<Reader> =
        (0..PROCESSES).map(|which| Reader::start(&folder, which, which, count)).collect();
    let mut deaths = Vec::new();
    while !readers.is_empty() {
        std::thread::sleep(Duration::from_millis(20));
        let mut running = Vec::new();
        for mut reader in readers {
            let Some(end) = reader.ended() else {
                running.push(reader);
                continue;
            };
            let Err(reason) = end else { continue };
            let next = reader.at + PROCESSES;
            deaths.push(format!("case {}: {}", reader.at, reason.trim()));
            assert!(reader.at >= reader.from);
            if deaths.len() < ENOUGH && next < count {
                running.push(Reader::start(&folder, reader.which, next, count));
            }
        }
        readers = running;
    }
    assert!(deaths.is_empty(), "{}", deaths.join("\n"));
    let mut counts = [0u64; 6];
    for which in 0..PROCESSES {
        let text = std::fs::read_to_string(folder.path().join(format!("counts-{which}-{which}"))).unwrap();
        for (sum, count) in counts.iter_mut().zip(text.split(' ')) {
            *sum += count.parse::<u64>().unwrap();
        }
    }
    let counts = counts.as_chunks::<2>().0;
    println!("refused and accepted: {counts:?} images, encodings, records");
    assert_eq!(counts.iter().flatten().sum::<u64>(), count);
    // Neither is everything refused nor does nothing matter.
    for kind in counts {
        assert!(kind.iter().all(|part| *part > count / 200), "{counts:?}");
    }
}

#[test]
fn mutations_are_refused_or_loaded() {
    run(COUNT);
}

#[test]
#[ignore = "slow: make test-slow"]
fn many_more_mutations_are_refused_or_loaded() {
    run(SLOW_COUNT);
}

/// The most memory that this process has used, in bytes.
fn memory_used() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: getrusage fills the struct when it returns 0.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_maxrss as u64 * 1024
}

/// Sees to it that what is mapped from now on has nothing beside it that may be touched: gives the process one hole that
/// the system fills first, between walls. The system takes the highest place that is large enough, so everything above
/// is walled up.
fn wall_in() {
    const HOLE: usize = 64 << 20;
    const WALL: usize = 4 << 20;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping where nothing is.
    let all = unsafe { libc::mmap(std::ptr::null_mut(), HOLE + 2 * WALL, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(all, libc::MAP_FAILED);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut end = all as usize;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| usize::from_str_radix(text, 16).unwrap());
        if rest.contains("[stack]") {
            break;
        }
        if from > end && end > all as usize {
            // SAFETY: only where nothing is.
            let wall = unsafe {
                let flags = flags | libc::MAP_FIXED_NOREPLACE;
                libc::mmap(end as *mut _, from - end, libc::PROT_NONE, flags, -1, 0)
            };
            assert_ne!(wall, libc::MAP_FAILED);
        }
        end = end.max(to);
    }
    let hole = all as usize + WALL..all as usize + WALL + HOLE;
    // SAFETY: in the middle of the new mapping, which nobody uses. What is mapped next has to come to lie there.
    unsafe {
        assert_eq!(libc::munmap(hole.start as *mut _, HOLE), 0);
        let first = libc::mmap(std::ptr::null_mut(), 3 * 4096, libc::PROT_NONE, flags, -1, 0);
        assert_eq!(first as usize, hole.end - 3 * 4096);
        libc::munmap(first, 3 * 4096);
    }
}
