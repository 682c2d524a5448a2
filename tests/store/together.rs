//! Several processes that want the same at the same time: one compiles, and none is kept waiting by one that failed or died.

use super::Bed;
use crate::support::{End, Outcome, Scratch, finish, hotbed, kept, timing};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Eight of them at once.
fn eight(command: &(dyn Fn() -> Command + Sync)) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| finish(&mut command()))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

fn under_way(store: &std::path::Path) -> usize {
    std::fs::read_dir(store.join("building")).map_or(0, Iterator::count)
}

#[test]
fn eight_at_once_compile_once() {
    for mode in ["--eager", "--lazy"] {
        let bed = Bed::new(&format!("eight{mode}"));
        let mut compiled = 0;
        for got in eight(&|| {
            let mut command = bed.command(&bed.store());
            command.arg(mode);
            command
        }) {
            let got = got.assert_success("one of eight");
            assert_eq!(got.stdout, "1 0\n");
            compiled += timing(&got.stderr, "units_compiled").parse::<u32>().unwrap();
        }
        assert_eq!(compiled, 1, "{mode}");
        assert_eq!(under_way(&bed.store()), 0);
        kept(&bed.store());
    }
}

#[test]
fn what_cannot_be_kept_is_compiled_by_each() {
    let scratch = Scratch::new("store-together-unkept");
    for (name, text, end) in [
        ("time.c", "int main(void) { return __TIME__[0] == 0; }", End::Status(0)),
        ("wrong.c", "int main(void) { return nothing; }", End::Status(1)),
    ] {
        let source = scratch.write(name, text);
        let store = scratch.join("store");
        for got in eight(&|| {
            let mut command = hotbed(["run", "--eager", "--cache-dir"]);
            command.arg(&store).arg(&source);
            command
        }) {
            assert_eq!(got.end, end, "{}", got.stderr);
            assert_eq!(got.stderr.contains("undeclared identifier"), name == "wrong.c", "{}", got.stderr);
        }
        assert_eq!(under_way(&store), 0);
    }
}

#[test]
fn who_dies_is_not_waited_for() {
    let scratch = Scratch::new("store-together-killed");
    // It takes a while.
    let text = "#include <regex>\n#include <cstdio>\nint main() { std::puts(std::regex_match(\"aab\", std::regex(\"a+b\")) ? \"yes\" : \"no\"); }";
    let source = scratch.write("slow.cpp", text);
    let store = scratch.join("store");
    let command = || {
        let mut command = hotbed(["run", "--eager", "--verbose", "--timings=json", "--cache-dir"]);
        command.arg(&store).arg(&source).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut first = command().spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while under_way(&store) == 0 {
        assert!(Instant::now() < end && first.try_wait().unwrap().is_none(), "it does not compile");
        std::thread::sleep(Duration::from_millis(1));
    }
    // Both wait for the first; when that is gone one goes on in its place.
    let (one, other) = std::thread::scope(|scope| {
        let waiting = [(); 2].map(|()| scope.spawn(|| finish(&mut command())));
        std::thread::sleep(Duration::from_millis(300));
        first.kill().unwrap();
        first.wait().unwrap();
        let [one, other] = waiting.map(|one| one.join().unwrap().assert_success("after a death"));
        (one, other)
    });
    let compiled = |got: &Outcome| timing(&got.stderr, "units_compiled").parse::<u32>().unwrap();
    assert_eq!((one.stdout.as_str(), other.stdout.as_str()), ("yes\n", "yes\n"));
    assert_eq!(compiled(&one) + compiled(&other), 1, "{}{}", one.stderr, other.stderr);
    // On a busy machine one of them may come when the first is gone already.
    let waited = [&one, &other].into_iter().any(|got| got.stderr.contains("waiting for somebody else"));
    assert!(waited, "{}{}", one.stderr, other.stderr);
    assert_eq!(under_way(&store), 0);
}
