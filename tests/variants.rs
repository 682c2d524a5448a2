//! Images with variants for several kinds of processor: which one runs where, who is refused, and what linkers, `dlopen` and others see.

use crate::libraries::Library;
use crate::support::{End, Outcome, Scratch, clang, execute, finish, hotbed, object, timing};
use hotbed::{CpuFeatures, CpuLevel, Image, ImageError, Runtime, Source};
use std::path::{Path, PathBuf};
use std::process::Command;

const LEVELS: [CpuLevel; 3] = [CpuLevel::V1, CpuLevel::V2, CpuLevel::V3];
const ALL: &str = "x86-64;x86-64-v2;x86-64-v3";

/// Says by which instructions it was compiled.
const LEVEL: &str = "#if defined __AVX512F__\n#define LEVEL 4\n#elif defined __AVX2__\n#define LEVEL 3\n\
    #elif defined __SSE4_2__\n#define LEVEL 2\n#else\n#define LEVEL 1\n#endif\n";

fn number(level: CpuLevel) -> i32 {
    match level {
        CpuLevel::V1 => 1,
        CpuLevel::V2 => 2,
        CpuLevel::V3 => 3,
        CpuLevel::V4 | CpuLevel::Native => 4,
    }
}

/// The levels that this machine has, of those that images are made for here.
fn here() -> impl Iterator<Item = CpuLevel> {
    LEVELS.into_iter().filter(|level| CpuFeatures::host().has(level.features()))
}

fn program(scratch: &Scratch) -> PathBuf {
    let text = "#include <stdio.h>\nint level(void) { return LEVEL; } int main(void) { printf(\"%d\\n\", level()); return 0; }";
    scratch.write("level.c", LEVEL.to_owned() + text)
}

fn try_build(image: &Path, levels: &str, files: &[&Path], flags: &[&str]) -> Outcome {
    let mut command = hotbed(["image", "build", "--no-cache", "-w", "--cpu", levels, "-o"]);
    finish(command.arg(image).args(flags).args(files))
}

#[track_caller]
fn build(image: &Path, levels: &str, files: &[&Path], flags: &[&str]) -> PathBuf {
    try_build(image, levels, files, flags).assert_success("image build");
    image.to_owned()
}

fn run(image: &Path, level: Option<CpuLevel>, store: &[&str], arguments: &[&str]) -> Outcome {
    let mut command = hotbed(["run", "--timings=json"]);
    command.args(store);
    if let Some(level) = level {
        command.args(["--cpu", level.name()]);
    }
    finish(command.arg(image).arg("--").args(arguments))
}

fn called(runtime: &Runtime, image: Image) -> i32 {
    let unit = runtime.load(image).unwrap();
    // SAFETY: that is its type.
    let level = unsafe { unit.get::<unsafe extern "C" fn() -> i32>("level") }.unwrap();
    // SAFETY: as above.
    unsafe { level() }
}

#[test]
fn each_processor_runs_its_variant() {
    let scratch = Scratch::new("variants-run");
    let image = build(&scratch.join("level.hbi"), ALL, &[&program(&scratch)], &["-O1"]);
    let store = scratch.join("store").display().to_string();
    let stored = ["--cache-dir", &store];
    // Twice, so that the store has what it copied, once for each level in turn.
    for store in [&["--no-cache"][..], &stored, &stored] {
        for level in here() {
            let got = run(&image, Some(level), store, &[]).assert_success(level.name());
            assert_eq!(got.stdout, format!("{}\n", number(level)), "{level} {store:?}");
            assert_eq!(timing(&got.stderr, "backend_loaded"), "false");
        }
        let best = here().map(number).max().unwrap();
        assert_eq!(run(&image, None, store, &[]).stdout, format!("{best}\n"));
    }
    let bytes = std::fs::read(&image).unwrap();
    for level in here() {
        for builder in [Runtime::builder().no_cache(), Runtime::builder().cache_dir(&store)] {
            let runtime = builder.cpu(level).build().unwrap();
            assert_eq!(called(&runtime, Image::bytes("bytes", bytes.clone())), number(level));
            assert_eq!(called(&runtime, Image::file(&image)), number(level));
        }
    }
}

#[test]
fn what_is_compiled_is_for_the_same_processor() {
    let scratch = Scratch::new("variants-compiled");
    let source = program(&scratch);
    for level in here() {
        for how in ["--eager", "--lazy"] {
            let mut command = hotbed(["run", "--no-cache", how, "--cpu", level.name()]);
            let got = finish(command.arg(&source)).assert_success(how);
            assert_eq!(got.stdout, format!("{}\n", number(level)), "{how}");
        }
    }
    let both = finish(hotbed(["run", "--no-cache", "--cpu", "x86-64", "-march=x86-64-v2"]).arg(&source));
    assert!(both.stderr.contains("-march=x86-64-v2 says for which processor"), "{}", both.stderr);
    if !CpuFeatures::host().has(CpuLevel::V4.features()) {
        let error = Runtime::builder().cpu(CpuLevel::V4).build().err().unwrap().to_string();
        assert!(error.contains("x86-64-v4") && error.contains("missing are"), "{error}");
    }
}

#[test]
fn who_lacks_something_is_told_what() {
    let scratch = Scratch::new("variants-refused");
    let source = program(&scratch);
    let one = build(&scratch.join("one.hbi"), "x86-64-v3", &[&source], &[]);
    let two = build(&scratch.join("two.hbi"), "x86-64-v3;x86-64-v4", &[&source], &[]);
    let flagged = scratch.join("flagged.hbi");
    finish(hotbed(["image", "build", "--no-cache", "-mavx2", "-o"]).arg(&flagged).arg(&source))
        .assert_success("image build");
    for (image, words) in [
        (&one, &["it requires x86-64-v3", "the processor has x86-64-v2", "missing are avx, avx2, bmi"][..]),
        (
            &two,
            &[
                "none of its variants",
                "x86-64-v2",
                "of x86-64-v3 are missing avx",
                "of x86-64-v4 are missing avx",
            ][..],
        ),
        (&flagged, &["it requires x86-64 with avx, avx2", "missing are avx, avx2"][..]),
    ] {
        let store = scratch.join("store").display().to_string();
        for store in [&["--no-cache"][..], &["--cache-dir", &store]] {
            let got = run(image, Some(CpuLevel::V2), store, &[]);
            assert_eq!(got.end, End::Status(1), "{}", got.stderr);
            words.iter().for_each(|word| assert!(got.stderr.contains(word), "{word}: {}", got.stderr));
        }
    }
    let runtime = Runtime::builder().no_cache().cpu(CpuLevel::V1).build().unwrap();
    let error = runtime.load(Image::bytes("two", std::fs::read(&two).unwrap())).unwrap_err();
    let hotbed::Error::Image { source: ImageError::Processor(lacks), .. } = &error else { panic!("{error}") };
    assert_eq!(lacks.requires, [CpuLevel::V3.features(), CpuLevel::V4.features()]);
    assert_eq!(lacks.has, CpuFeatures::NONE);
}

#[test]
fn levels_that_make_no_sense_are_refused() {
    let scratch = Scratch::new("variants-usage");
    let (source, image) = (program(&scratch), scratch.join("x.hbi"));
    for levels in ["x86-64;x86-64-v5", "", "x86-64;", "haswell"] {
        let got = try_build(&image, levels, &[&source], &[]);
        assert_eq!(got.end, End::Status(2), "{levels}");
        assert!(
            got.stderr.contains("the levels are x86-64, x86-64-v2, x86-64-v3, x86-64-v4 and native"),
            "{}",
            got.stderr
        );
    }
    for flag in ["-march=native", "-mcpu=haswell"] {
        let got = try_build(&image, ALL, &[&source], &[flag]);
        assert_ne!(got.end, End::Status(0));
        assert!(got.stderr.contains(flag) && got.stderr.contains("x86-64"), "{}", got.stderr);
    }
    assert!(!image.exists());
}

#[test]
fn what_is_the_same_is_stored_once() {
    let scratch = Scratch::new("variants-once");
    let source = program(&scratch);
    let count = |levels: &str, file: &Path| {
        let image = build(&scratch.join("once.hbi"), levels, &[file], &[]);
        Image::file(image).inspect().unwrap().variants.len()
    };
    assert_eq!(count("x86-64-v2;x86-64-v2", &source), 1);
    assert_eq!(count("native;x86-64;native", &source), if CpuFeatures::host().is_empty() { 1 } else { 2 });
    // Nothing in it was compiled for any of them.
    assert_eq!(count(ALL, &object(&source, "o", &["-fPIC"])), 1);
}

#[test]
fn linkers_and_dlopen_see_the_least_demanding_one() {
    let scratch = Scratch::new("variants-dlopen");
    // Whatever the order in which they are named.
    let image = build(&scratch.join("level.hbi"), "x86-64-v3;x86-64;x86-64-v2", &[&program(&scratch)], &[]);
    let uses = scratch.write("use.c", "int level(void); int main(void) { return level(); }");
    let opens = scratch.write(
        "open.c",
        "#include <dlfcn.h>\nint main(int c, char **v) { void *h = dlopen(v[1], RTLD_NOW); return h ? ((int (*)(void))dlsym(h, \"level\"))() : 9; }",
    );
    let (linked, opener) = (scratch.join("linked"), scratch.join("opener"));
    let rpath = format!("-Wl,-rpath,{}", scratch.path().display());
    clang([uses.as_os_str(), image.as_os_str(), rpath.as_ref(), "-o".as_ref(), linked.as_os_str()]);
    clang([opens.as_os_str(), "-o".as_ref(), opener.as_os_str()]);
    assert_eq!(finish(&mut Command::new(&linked)).end, End::Status(1));
    assert_eq!(finish(Command::new(&opener).arg(&image)).end, End::Status(1));
    let told = execute(Command::new("readelf").arg("-hW").arg(&image)).stdout;
    assert!(told.contains("DYN"), "{told}");
    let told = execute(Command::new("llvm-nm-22").args(["-D", "--defined-only"]).arg(&image)).stdout;
    assert!(told.lines().any(|line| line.ends_with(" T level")), "{told}");
}

#[test]
fn variants_are_shown() {
    let scratch = Scratch::new("variants-inspect");
    let image = build(&scratch.join("level.hbi"), ALL, &[&program(&scratch)], &[]);
    let described = Image::file(&image).inspect().unwrap();
    let requires: Vec<CpuFeatures> = described.variants.iter().map(|variant| variant.requires).collect();
    assert_eq!(requires, LEVELS.map(CpuLevel::features));
    let sum: u64 = described.variants.iter().map(|variant| variant.size).sum();
    assert!(sum < described.size && described.size == std::fs::metadata(&image).unwrap().len());
    let text = finish(hotbed(["image", "inspect"]).arg(&image)).assert_success("inspect").stdout;
    let rows: Vec<&str> = text.lines().skip_while(|line| *line != "variants (3)").skip(1).take(3).collect();
    let best = here().count() - 1;
    for (at, (row, level)) in rows.iter().zip(LEVELS).enumerate() {
        assert!(row.ends_with(level.name()), "{text}");
        assert_eq!(row.contains("taken here"), at == best, "{text}");
    }
    let json = finish(hotbed(["image", "inspect", "--json"]).arg(&image)).assert_success("json").stdout;
    for part in [
        "\"variants\":[{\"level\":\"x86-64\",\"features\":[]",
        "\"level\":\"x86-64-v3\"",
        "\"avx2\"",
        "\"taken\":true",
    ] {
        assert!(json.contains(part), "{part}: {json}");
    }
}

#[test]
fn damage_anywhere_is_found() {
    let scratch = Scratch::new("variants-damaged");
    let image = build(&scratch.join("level.hbi"), ALL, &[&program(&scratch)], &[]);
    finish(hotbed(["image", "verify"]).arg(&image)).assert_success("verify");
    let good = std::fs::read(&image).unwrap();
    let described = Image::file(&image).inspect().unwrap();
    let starts = described.variants.iter().scan(0, |at, variant| {
        let start = *at;
        *at = (start + variant.size as usize).next_multiple_of(4096);
        Some((start, variant.size as usize))
    });
    let inside =
        starts.flat_map(|(start, size)| [start + 20, start + size / 2, start + size - 1, start + size]);
    // The table, each byte of it.
    let table = good.len() - 16 - 3 * 16..good.len();
    for at in inside.chain(table).filter(|at| *at < good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let image = Image::bytes("bad", bad);
        assert!(image.verify().is_err() && image.inspect().is_err(), "byte {at} of {}", good.len());
        let runtime = Runtime::builder().no_cache().cpu(CpuLevel::V1).build().unwrap();
        assert!(runtime.load(image).is_err(), "byte {at}");
    }
    for end in [good.len() - 1, good.len() - 8, good.len() / 2, 4096] {
        assert!(Image::bytes("cut", &good[..end]).verify().is_err(), "cut at {end}");
    }
    let bad = scratch.write("bad.hbi", {
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        bad
    });
    let got = finish(hotbed(["image", "verify"]).arg(&bad));
    assert!(got.end == End::Status(1) && got.stderr.contains("damaged"), "{}", got.stderr);
}

#[test]
fn users_see_the_same_in_all() {
    let scratch = Scratch::new("variants-interface");
    let of = |name: &str, text: &str| scratch.write(name, LEVEL.to_owned() + text);
    let image = scratch.join("x.hbi");
    for (text, word) in [
        (
            "#if LEVEL > 2\nint extra(void) { return 1; }\n#endif\nint f(void) { return 1; }",
            "a function extra",
        ),
        ("int table[LEVEL];", "a variable table of"),
        ("#if LEVEL > 2\nint thing = 1;\n#else\nint thing(void) { return 1; }\n#endif", "thing"),
    ] {
        let got = try_build(&image, ALL, &[&of("x.c", text)], &[]);
        assert_eq!(got.end, End::Status(1));
        assert!(
            got.stderr.contains("variants do not go together") && got.stderr.contains(word),
            "{}",
            got.stderr
        );
        assert!(!image.exists());
    }
    // An inline function may dissolve in some; nobody can count on it then.
    let text = "inline int helper(int x) { static int calls; return ++calls + x; }
        extern \"C\" int level() { return LEVEL; }
        #if LEVEL < 3\nint (*kept)(int) = helper;\n#else\nint (*kept)(int) = nullptr;\n#endif";
    let core = build(&scratch.join("core.hbi"), ALL, &[&of("core.cpp", text)], &["-O2"]);
    Image::file(&core).verify().unwrap();
    let described = Image::file(&core).inspect().unwrap();
    assert!(described.exports.iter().any(|export| export.name == "_Z6helperi"));
    // Whoever is linked against it, with variants or without, gets the one for the same processor.
    let main = scratch.write(
        "main.cpp",
        "#include <cstdio>\nextern \"C\" int level(); inline int helper(int x) { static int calls; return ++calls + x; }
        int main() { std::printf(\"%d %d\\n\", level(), helper(1)); }",
    );
    for levels in ["x86-64", ALL] {
        let user = build(&scratch.join("user.hbi"), levels, &[&main, &core], &[]);
        for level in here() {
            let got = run(&user, Some(level), &["--no-cache"], &[]);
            assert_eq!(got.stdout, format!("{} 2\n", number(level)), "{}", got.stderr);
        }
    }
}

#[test]
fn functions_compiled_later_are_for_the_same_processor() {
    let scratch = Scratch::new("variants-bitcode");
    let text = "#include <stdio.h>\n__attribute__((noinline)) int often(void) { return LEVEL; }
        __attribute__((noinline)) int seldom(void) { return 10 * LEVEL + __builtin_popcount(LEVEL); }
        int main(int c, char **v) { printf(\"%d\\n\", c > 1 ? seldom() : often()); return 0; }";
    let source = scratch.write("part.c", LEVEL.to_owned() + text);
    let trace = scratch.join("trace");
    finish(hotbed(["run", "--no-cache", "--trace"]).arg(&trace).arg(&source)).assert_success("trace");
    let option = format!("--trace={}", trace.display());
    for rest in ["bitcode", "compile"] {
        let flags = [option.as_str(), "--strict", "--rest", rest, "-O1"];
        let image = build(&scratch.join(format!("{rest}.hbi")), ALL, &[&source], &flags);
        for level in here() {
            let n = number(level);
            let got = run(&image, Some(level), &["--no-cache"], &[]).assert_success(rest);
            assert_eq!(got.stdout, format!("{n}\n"));
            assert_eq!(timing(&got.stderr, "functions_compiled"), "0");
            let got = run(&image, Some(level), &["--no-cache"], &["x"]).assert_success(rest);
            assert_eq!(got.stdout, format!("{}\n", 10 * n + n.count_ones() as i32));
            let compiled = if rest == "bitcode" { "1" } else { "0" };
            assert_eq!(timing(&got.stderr, "functions_compiled"), compiled);
        }
    }
}

#[test]
fn the_library_builds_variants() {
    let scratch = Scratch::new("variants-library");
    let image = scratch.join("level.hbi");
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let source = Source::text(
        "level.c",
        LEVEL.to_owned() + "int level(void) { return LEVEL; } int bad(void) { return 1 / 0; }",
    );
    let built = runtime.image(&image).unit(source.flags(["-O1"])).cpu(CpuLevel::V1).cpu(CpuLevel::V2);
    let report = built.build().unwrap();
    assert_eq!(report.counts.units_compiled, 2);
    // What is said of each is said once.
    assert_eq!(report.diagnostics.len(), 1, "{}", report.rendered);
    assert_eq!(report.rendered.matches("division by zero").count(), 1, "{}", report.rendered);
    for level in here().filter(|level| *level != CpuLevel::V3) {
        let runtime = Runtime::builder().no_cache().cpu(level).build().unwrap();
        assert_eq!(called(&runtime, Image::file(&image)), number(level));
    }
}

#[test]
fn flecs_runs_at_each_level() {
    let scratch = Scratch::new("variants-flecs");
    let library = Library::find("flecs");
    let executable = scratch.join("executable");
    let objects = library.compile(&scratch, &["-O0"], "o");
    execute(Command::new("clang-22").args(&objects).args(&library.libs).arg("-o").arg(&executable));
    let want = finish(&mut Command::new(&executable));
    let image = scratch.join("flecs.hbi");
    let mut command = hotbed(["image", "build", "--no-cache", "-w", "-O1", "--cpu", ALL, "-o"]);
    command.arg(&image).args(&library.flags).args(&library.files).arg(&library.program);
    finish(command.args(&library.libs)).assert_success("image build");
    finish(hotbed(["image", "verify"]).arg(&image)).assert_success("verify");
    for level in here() {
        run(&image, Some(level), &["--no-cache"], &[]).assert_same(&want, level.name());
    }
}
