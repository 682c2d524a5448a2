//! `hotbed cache`, and the same from the library: what is in a store, and making room in it.

use crate::support::{End, Outcome, Scratch, finish, hotbed, kept, timing};
use hotbed::{ByteSize, Runtime, Source, Store};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn cache(command: &str, store: &Path, more: &[&str]) -> Outcome {
    finish(hotbed(["cache", command, "--cache-dir"]).arg(store).args(more))
}

/// A figure of `cache stat --json`.
#[track_caller]
fn stat(store: &Path, key: &str) -> u64 {
    let got = cache("stat", store, &["--json"]).assert_success("stat");
    assert_eq!(got.stdout.lines().count(), 1, "{}", got.stdout);
    timing(&got.stdout, key).parse().unwrap_or_else(|_| panic!("{key}: {}", got.stdout))
}

/// A store with so many images, none of which was used since; other tests have none of them mapped.
fn filled(name: &str, count: u32) -> (Scratch, std::path::PathBuf) {
    let scratch = Scratch::new(&format!("cache-{name}"));
    let store = scratch.join("store");
    let runtime = Runtime::builder().cache_dir(&store).build().unwrap();
    for at in 0..count {
        let text = format!("int {name}(void) {{ return {at}; }}");
        runtime.load(Source::text(format!("f{at}.c"), text)).unwrap();
    }
    (scratch, store)
}

#[test]
fn it_says_where_the_store_is_and_what_is_in_it() {
    let (scratch, store) = filled("stat", 3);
    assert_eq!(cache("path", &store, &[]).stdout, format!("{}\n", store.display()));
    let home = scratch.folder("home");
    let mut command = hotbed(["cache", "path", "--json"]);
    let got = finish(command.env("XDG_CACHE_HOME", &home)).assert_success("path");
    assert_eq!(got.stdout, format!("{{\"path\":\"{}/hotbed\"}}\n", home.display()));
    assert!(!home.join("hotbed").exists(), "asking makes a store");

    for (key, value) in [("entries", 3), ("images", 3), ("used", 0), ("orphans", 0), ("budget", 5 << 30)] {
        assert_eq!(stat(&store, key), value, "{key}");
    }
    assert!(stat(&store, "bytes") > 3 * 500 && stat(&store, "oldest") <= stat(&store, "newest"));
    let runtime = Runtime::builder().cache_dir(&store).build().unwrap();
    for _ in 0..2 {
        runtime.load(Source::text("f1.c", "int stat(void) { return 1; }")).unwrap();
    }
    assert_eq!(stat(&store, "used"), 1);
    let text = cache("stat", &store, &[]).assert_success("stat").stdout;
    for words in ["5.0 GiB", "1 of them used", store.to_str().unwrap()] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn where_there_is_no_store_there_is_nothing() {
    let scratch = Scratch::new("cache-nothing");
    let store = scratch.join("store");
    assert_eq!((stat(&store, "entries"), stat(&store, "bytes")), (0, 0));
    for command in ["gc", "clear"] {
        let got = cache(command, &store, &[]).assert_success(command);
        assert!(got.stdout.contains("0 images"), "{}", got.stdout);
    }
    assert!(!store.exists());
}

#[test]
fn gc_makes_room_and_clear_leaves_nothing() {
    let (scratch, store) = filled("gc", 8);
    let all = stat(&store, "bytes");
    scratch.write("store/tmp-1-1", "left behind");
    assert_eq!(
        cache("gc", &store, &[]).assert_success("gc").stdout.matches("removed 0 images and 1 files").count(),
        1
    );
    assert_eq!(stat(&store, "bytes"), all);
    let half = (all / 2).to_string();
    let got = cache("gc", &store, &["--cache-size", &half, "--json"]).assert_success("gc").stdout;
    assert!(timing(&got, "images").parse::<u32>().unwrap() >= 4, "{got}");
    assert!(stat(&store, "bytes") <= all / 2 && stat(&store, "images") > 0);
    // By the environment.
    let mut command = hotbed(["cache", "gc", "--cache-dir"]);
    finish(command.arg(&store).env("HOTBED_CACHE_SIZE", "1K")).assert_success("gc");
    assert!(stat(&store, "bytes") <= 1024);

    scratch.write("store/images/README", "a stranger's");
    let source = scratch.write("main.c", "int main(void) { return 0; }");
    let run = |expected: &str| {
        let mut command = hotbed(["run", "--timings=json", "--cache-dir"]);
        let got = finish(command.arg(&store).arg(&source)).assert_success("a program");
        assert_eq!(timing(&got.stderr, "units_compiled"), expected);
        kept(&store);
    };
    run("1");
    run("0");
    let got = cache("clear", &store, &[]).assert_success("clear");
    assert!(got.stdout.starts_with("removed "), "{}", got.stdout);
    assert_eq!((stat(&store, "images"), stat(&store, "bytes")), (0, 0));
    assert!(store.join("images/README").exists());
    run("1");
}

#[test]
fn a_runtime_keeps_to_the_size_it_is_given() {
    let (_scratch, store) = filled("size", 1);
    let one = stat(&store, "bytes");
    // What is noted of an image for explanations is written after others have made room for it.
    let limit = one * 4 + 1024;
    let build = || Runtime::builder().cache_dir(&store).cache_size(ByteSize(one * 4)).build().unwrap();
    for at in 0..16 {
        // What a runtime has mapped stays, so each has its own.
        build().load(Source::text("g.c", format!("int g(void) {{ return {at}; }}"))).unwrap();
        assert!(stat(&store, "bytes") <= limit);
    }
    assert!(stat(&store, "images") >= 2);
}

#[test]
fn what_is_wrong_has_a_name() {
    let (scratch, store) = filled("wrong", 1);
    std::fs::set_permissions(&store, PermissionsExt::from_mode(0o777)).unwrap();
    let file = scratch.write("file", "");
    for command in ["stat", "gc", "clear"] {
        for (store, words) in [(&store, "other users may write to it"), (&file, "not a directory")] {
            let got = cache(command, store, &[]);
            assert_eq!((got.end, got.stdout.as_str()), (End::Status(1), ""), "{command}");
            assert!(got.stderr.contains(words), "{}", got.stderr);
        }
    }
    assert_eq!(std::fs::read_dir(store.join("images")).unwrap().count(), 1);
    let got = cache("gc", &store, &["--cache-size", "much"]);
    assert_eq!(got.end, End::Status(2));
    assert!(got.stderr.contains("a size is a number"), "{}", got.stderr);
    let source = scratch.write("main.c", "int main(void) { return 0; }");
    for (name, value) in [("HOTBED_CACHE_SIZE", "much"), ("HOTBED_CACHE_SIZE", "-1")] {
        let got = finish(hotbed(["run"]).arg(&source).env(name, value));
        assert_eq!(got.end, End::Status(1));
        assert!(got.stderr.contains(name) && got.stderr.contains(value), "{}", got.stderr);
    }
    let got = finish(hotbed(["run", "--cache-size", "much"]).arg(&source));
    assert_eq!(got.end, End::Status(2), "{}", got.stderr);
}

#[test]
fn the_library_looks_after_a_store_too() {
    let (scratch, path) = filled("library", 2);
    let store = Store::at(&path).unwrap().with_size(ByteSize(0));
    assert_eq!((store.stat().unwrap().images, store.path()), (2, path.as_path()));
    // Nothing is mapped any more.
    let collected = store.collect().unwrap().unwrap();
    assert_eq!((collected.evicted, store.stat().unwrap().images), (2, 0));
    let nowhere = Store::at(scratch.join("nowhere")).unwrap();
    assert_eq!(nowhere.clear().unwrap().unwrap().evicted, 0);
    let wrong = Store::at(scratch.write("file", "")).unwrap();
    assert!(wrong.stat().unwrap_err().to_string().contains("not a directory"));
}
