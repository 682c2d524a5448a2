//! Damaged bitcode: an error, or a unit whose pieces are made or refused. What LLVM's reader crashes on by a signal is
//! not asked of it here; a worker contains that.

use super::support::Program;
use crate::split::{Number, Unit};
use hotbed_loader::fuzzing::mutation::{Random, Subject};

const TEXT: &str = r#"
#include <stdio.h>
static int table[4] = {1, 2, 3, 4};
_Thread_local int t = 3;
static int twice(int a) { return a * 2 + table[a & 3]; }
int run(int n) { static const void *const labels[] = {&&one, &&two}; goto *labels[n & 1]; one: return twice(n); two: return t; }
int say(const char *s) { return printf("%s %d\n", s, run(1)); }
int alias(int a) __attribute__((alias("run")));
__attribute__((constructor)) static void begin(void) { table[1] = 5; }
"#;

/// Everything that can be asked of a unit; whether all of it was given.
fn ask(bytes: &[u8], arguments: &[String]) -> bool {
    let settings =
        crate::split::Settings { name: "damaged", suffix: ".u", arguments, trusted: false, far: false };
    let Ok(mut unit) = Unit::open(bytes.to_vec().into(), &settings) else { return false };
    let functions: Vec<Number> = unit.facts().functions().collect();
    let mut all = unit.data().and_then(|piece| piece.compile()).is_ok();
    for function in functions {
        all &= unit.body(function).is_ok();
        all &= unit.code(&[function]).and_then(|piece| piece.verify().and_then(|()| piece.compile())).is_ok();
    }
    all
}

#[test]
fn truncated_bitcode_is_refused() {
    let module = Program::small("truncated.c", TEXT).modules(&["-O0"]).swap_remove(0);
    assert!(ask(&module.bitcode, &module.arguments));
    for length in (0..module.bitcode.len()).step_by(61) {
        assert!(!ask(&module.bitcode[..length], &module.arguments), "{length}");
    }
}

/// A child tries one mutation after the other and is followed by another where a signal ends it. There must be few of
/// these, and nothing may end it in another way.
#[test]
fn mutated_bitcode_is_refused_or_works() {
    const COUNT: u64 = 3000;
    let first = std::env::var("HOTBED_SPLIT_FIRST").ok().and_then(|number| number.parse::<u64>().ok());
    if let Some(first) = first {
        let module = Program::small("mutated.c", TEXT).modules(&["-O0"]).swap_remove(0);
        let seed = Subject::of_bytes(module.bitcode.clone());
        for number in first..COUNT {
            println!("case {number}");
            let bytes = seed.mutated(&mut Random::new(number), std::slice::from_ref(&seed));
            println!("outcome {}", ask(&bytes, &module.arguments));
        }
        return;
    }
    let (mut next, mut crashes, mut outcomes) = (0, 0, [0; 2]);
    while next < COUNT {
        // Damaged counts have LLVM ask for all the memory there is.
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -v 6000000; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "split::tests::hostile::mutated_bitcode_is_refused_or_works", "--nocapture"])
            .env("HOTBED_SPLIT_FIRST", next.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("case", number)) => next = number.parse::<u64>().unwrap() + 1,
                Some(("outcome", worked)) => outcomes[usize::from(worked == "true")] += 1,
                _ => {}
            }
        }
        if !output.status.success() {
            use std::os::unix::process::ExitStatusExt;
            assert!(
                output.status.signal().is_some(),
                "case {}: {:?} {}",
                next - 1,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
            crashes += 1;
        }
    }
    println!("refused and whole: {outcomes:?}, ended by a signal: {crashes}");
    assert!(crashes * 20 < COUNT && outcomes[0] > COUNT / 4 && outcomes[1] > 0, "{crashes} {outcomes:?}");
}
