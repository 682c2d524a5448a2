//! The checks of what goes to lld, and what takes objects apart to reuse functions, each behind one function: for the
//! fuzzers in `fuzz/` and for tests that give them mutated files by the hundred thousand. What lld makes of those that pass
//! is seen by the tests of the whole.

use crate::link::{check_archive, check_object, with_visible_entry};
use crate::reuse::splice_all;
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

/// Takes the functions of one object over into another.
pub fn reuse(old: &[u8], new: &[u8]) -> Outcome {
    let spliced = splice_all(old, new);
    if let Some(bytes) = &spliced {
        // Whether it is sound is for the check that every object gets.
        let _ = check_object(bytes);
    }
    if spliced.is_some() { Outcome::Accepted } else { Outcome::Refused }
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

    /// With everything, and without what is to be reused.
    const REUSED_C: &str = "#include <stdio.h>\nint table[4] = {1, 2, 3, 4}; int f(int a); int g(int a); double h(int a);
        int main(void) { table[1] = f(2) + g(3) + h(1); return puts(\"main\"); }
        #if WITH\nint f(int a) { return table[a & 3] + g(a); }
        int g(int a) { switch (a) { case 1: return puts(\"one\"); case 2: return puts(\"two\"); case 3: return f(7); case 4:
        return puts(\"four\"); case 5: return puts(\"five\"); } return 0; } double h(int a) { return a * 1.5; }\n#endif";
    const REUSED_CPP: &str = "int f(int a); struct T { ~T(); }; int g(int a); int main() { try { return f(1); } catch (int i) {
        return g(i); } }\n#if WITH\nint f(int a) { T t; if (a > 3) throw a; return g(a); } int g(int a) { return f(a + 1); }\n#endif";

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

    #[test]
    fn functions_of_mutated_objects_are_reused_or_not() {
        let folder = std::env::temp_dir().join(format!("hotbed-splices-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("reused.c"), REUSED_C).unwrap();
        std::fs::write(folder.join("reused.cpp"), REUSED_CPP).unwrap();
        for (name, with) in [("old", "-DWITH=1"), ("new", "-DWITH=0")] {
            let flags = ["-fPIC", "-O1", "-fno-addrsig", "-ffunction-sections", with, "-c"];
            run(&folder, "clang-22", &[&flags[..], &["reused.c", "-o", &format!("{name}-c.o")]].concat());
            run(
                &folder,
                "clang++-22",
                &[&flags[..], &["reused.cpp", "-o", &format!("{name}-cpp.o")]].concat(),
            );
        }
        let subject = |name: &str| Subject::of_elf(std::fs::read(folder.join(name)).unwrap()).unwrap();
        let pairs =
            ["c", "cpp"].map(|kind| [subject(&format!("old-{kind}.o")), subject(&format!("new-{kind}.o"))]);
        std::fs::remove_dir_all(&folder).unwrap();
        for [old, new] in &pairs {
            assert_eq!(reuse(&old.bytes, &new.bytes), Outcome::Accepted);
        }
        let mut counts = [[0u64; 2]; 2];
        for number in 0..COUNT / 4 {
            let mut random = Random::new(number);
            let [old, new] = &pairs[random.below(2)];
            let others = &pairs[random.below(2)];
            let which = (number % 2) as usize;
            let bytes = [old, new][which].mutated(&mut random, others);
            let (old, new) = if which == 0 { (&bytes, &new.bytes) } else { (&old.bytes, &bytes) };
            let Ok(outcome) = std::panic::catch_unwind(|| reuse(old, new)) else { panic!("case {number}") };
            counts[which][usize::from(outcome == Outcome::Accepted)] += 1;
        }
        println!("refused and accepted: {counts:?} of older, of newer objects");
        assert!(counts.iter().flatten().all(|part| *part > COUNT / 400), "{counts:?}");
    }
}
