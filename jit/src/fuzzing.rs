//! The checks of what goes to lld, each behind one function: for the fuzzers in `fuzz/` and for a test that gives them
//! mutated files by the hundred thousand. What lld makes of those that pass is seen by the tests of the whole.

use crate::link::{check_archive, check_object, with_visible_entry};
use hotbed_loader::fuzzing::Outcome;

/// Checks an object, and makes its entry point visible.
pub fn object(bytes: &[u8]) -> Outcome {
    let checked = check_object(bytes);
    if checked.is_ok()
        && let Some(patched) = with_visible_entry(bytes, "main")
    {
        // Nothing else may have changed.
        assert!(patched.len() == bytes.len() && check_object(&patched).is_ok());
    }
    checked.map(|_| ()).into()
}

/// Checks an archive that does not lie in a folder.
pub fn archive(bytes: &[u8]) -> Outcome {
    check_archive(bytes, None).map(|_| ()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

    use super::*;
    use hotbed_loader::fuzzing::mutation::{Random, Subject};
    use std::path::Path;
    use std::process::Command;

    /// Objects and archives together.
    const COUNT: u64 = 100_000;

    const C: &str = "#include <stdio.h>\nstatic int table[4] = {1, 2, 3, 4}; _Thread_local int t = 3; int common[300];
        int add(int a, int b) { return a + b + table[a & 3] + t; } __attribute__((visibility(\"hidden\"))) int main(void)
        { return printf(\"%s %d\\n\", \"text\", add(1, 2)); } __attribute__((constructor)) void begin(void) { common[1] = 1; }";
    const CPP: &str = "struct B { virtual ~B() {} virtual int f() { return 1; } }; inline int shared = 5;
        template <class T> struct D : B { T v{}; int f() override { return int(v) + 2; } };
        int use(B *b) { try { return b->f() + shared; } catch (int i) { return i; } } int make() { D<int> d; D<long> e;
        if (use(&d) > 5) throw 3; return use(&e); }";

    fn run(folder: &Path, tool: &str, arguments: &[&str]) {
        assert!(Command::new(tool).current_dir(folder).args(arguments).status().unwrap().success(), "{tool}");
    }

    #[test]
    fn mutations_are_refused_or_pass() {
        let folder = std::env::temp_dir().join(format!("hotbed-checks-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("c.c"), C).unwrap();
        std::fs::write(folder.join("cpp.cpp"), CPP).unwrap();
        run(&folder, "clang-22", &["-g", "-gz", "-fcommon", "-ffunction-sections", "-fPIC", "-c", "c.c"]);
        run(&folder, "clang++-22", &["-fPIC", "-c", "cpp.cpp"]);
        std::fs::copy(folder.join("c.o"), folder.join("a-name-that-is-longer-than-sixteen.o")).unwrap();
        let long = "a-name-that-is-longer-than-sixteen.o";
        run(&folder, "llvm-ar-22", &["rcsD", "gnu.a", "c.o", "cpp.o", long]);
        run(&folder, "llvm-ar-22", &["rcsD", "--format=bsd", "bsd.a", "cpp.o", long]);
        run(&folder, "llvm-ar-22", &["rcSD", "plain.a", "c.o", "c.o"]);
        run(&folder, "llvm-ar-22", &["rcsDT", "thin.a", "c.o", long]);
        let read = |name: &&str| std::fs::read(folder.join(name)).unwrap();
        let objects: Vec<Subject> =
            ["c.o", "cpp.o"].iter().map(|name| Subject::of_elf(read(name)).unwrap()).collect();
        let archives: Vec<Subject> = ["gnu.a", "bsd.a", "plain.a", "thin.a"]
            .iter()
            .map(|name| Subject::of_archive(read(name)).unwrap())
            .collect();
        std::fs::remove_dir_all(&folder).unwrap();
        for sound in objects.iter().chain(&archives[..3]) {
            let check = if sound.bytes.starts_with(b"!") { archive } else { object };
            assert_eq!(
                check(&sound.bytes),
                Outcome::Accepted,
                "{}",
                String::from_utf8_lossy(&sound.bytes[..99])
            );
        }
        let mut counts = [[0u64; 2]; 2];
        for number in 0..COUNT {
            let mut random = Random::new(number);
            let kind = (number % 2) as usize;
            let subjects = [&objects, &archives][kind];
            let subject = &subjects[random.below(subjects.len())];
            let bytes = subject.mutated(&mut random, subjects);
            let check = [object as fn(&[u8]) -> Outcome, archive][kind];
            let Ok(outcome) = std::panic::catch_unwind(|| check(&bytes)) else { panic!("case {number}") };
            counts[kind][usize::from(outcome == Outcome::Accepted)] += 1;
        }
        println!("refused and accepted: {counts:?} objects, archives");
        // Neither is everything refused nor does nothing matter.
        assert!(counts.iter().flatten().all(|part| *part > COUNT / 100), "{counts:?}");
    }
}
