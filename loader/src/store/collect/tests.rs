//! Who goes, who stays, and what is not the store's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use super::super::tests::{Scratch, filled, find, image, key};
use super::super::{Hit, Miss};
use super::*;
use crate::boundary::LevelSigns;
use crate::image::variants;
use crate::sys::files;
use crate::sys::mapped_file::MappedFile;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What an image has in these tests, in bytes and nearly.
const LARGE: usize = 100_000;

/// Puts a large image under the key of `flag` into a store.
fn put(store: &Store, flag: &str) -> Hit {
    let image = image(&flag.repeat(LARGE / flag.len()));
    store.insert(&key(flag), Path::new("/"), &[], LevelSigns::NONE, Stamp::now(), image.as_fd()).unwrap()
}

/// Sets when an image was made and when it was used, in days from now.
fn set_times(store: &Store, hit: &Hit, made: i64, used: Option<i64>) {
    let moved = |days: i64| {
        let by = DAY * u32::try_from(days.unsigned_abs()).unwrap();
        if days < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    };
    File::options().write(true).open(&hit.path).unwrap().set_modified(moved(made)).unwrap();
    if let Some(used) = used {
        store.note_use(&hit.checksum);
        let marker = File::options().write(true).open(store.use_path(&hit.checksum)).unwrap();
        marker.set_modified(moved(used)).unwrap();
    }
}

fn has(store: &Store, flag: &str) -> bool {
    match store.find(&key(flag), Path::new("/")) {
        Ok(_) => true,
        // Neither has a manifest been left behind.
        Err(Miss::NoEntry) => false,
        Err(other) => panic!("{flag}: {other}"),
    }
}

/// A store with an image for each flag, with its times in days from now.
fn aged(name: &str, all: &[(&str, i64, Option<i64>)]) -> (Scratch, Store) {
    let scratch = Scratch::new(name);
    let store = scratch.store();
    for (flag, made, used) in all {
        set_times(&store, &put(&store, flag), *made, *used);
    }
    (scratch, store)
}

/// Which images go, in that order, when the budget gets less and less.
fn order(store: &Store, all: &[(&str, i64, Option<i64>)]) -> Vec<String> {
    let mut order = Vec::new();
    for kept in (0..=all.len()).rev() {
        let budget = kept as u64 * LARGE as u64 * 7 / 6;
        let store = Store::open(store.root()).unwrap().with_budget(budget);
        store.collect().unwrap().unwrap();
        for (flag, ..) in all {
            if !has(&store, flag) && !order.iter().any(|gone| gone == flag) {
                order.push((*flag).to_owned());
            }
        }
    }
    order
}

#[test]
fn what_was_never_used_goes_first_then_what_was_not_for_longest() {
    let all = [
        ("-used-lately", -40, Some(-2)),
        ("-never-used", -5, None),
        ("-used-long-ago", -30, Some(-20)),
        ("-never-used-and-older", -6, None),
        ("-just-made", 0, None),
        ("-used-today", -40, Some(0)),
    ];
    let (_scratch, store) = aged("order", &all);
    let mut gone = order(&store, &all);
    assert_eq!(gone.len(), all.len());
    // Those of the same day in any order.
    gone.truncate(4);
    assert_eq!(gone, ["-never-used-and-older", "-never-used", "-used-long-ago", "-used-lately"]);
    let stat = store.stat();
    assert_eq!((stat.entries, stat.images, stat.orphans), (0, 0, 0));
}

#[test]
fn a_clock_that_was_wrong_tells_nothing() {
    let all = [
        ("-used-in-the-future", -40, Some(300)),
        ("-made-in-the-future", 300, None),
        ("-used-lately", -40, Some(-2)),
        ("-never-used", -5, None),
        ("-used-yesterday", -40, Some(-1)),
    ];
    let (_scratch, store) = aged("wrong-clock", &all);
    let gone = order(&store, &all);
    assert_eq!(
        gone,
        ["-made-in-the-future", "-never-used", "-used-in-the-future", "-used-lately", "-used-yesterday"]
    );
}

#[test]
fn what_is_mapped_stays() {
    let all = [("-mapped", -20, None), ("-other", -10, Some(-5)), ("-newest", 0, None)];
    let (_scratch, store) = aged("mapped", &all);
    let hit = store.find(&key("-mapped"), Path::new("/")).unwrap();
    let file = File::from(hit.file);
    let mapped = MappedFile::new(&file, LARGE as u64).unwrap();
    let store = store.with_budget(LARGE as u64 * 5 / 2);
    store.collect().unwrap().unwrap();
    assert!(has(&store, "-mapped") && !has(&store, "-other") && has(&store, "-newest"));
    // What goes is still there for who has it.
    drop(mapped);
    let store = store.with_budget(LARGE as u64 * 3 / 2);
    store.collect().unwrap().unwrap();
    assert!(!has(&store, "-mapped"));
    assert!(files::contents(file.as_fd()).unwrap().ends_with(b"-mapped"));
}

#[test]
fn a_store_keeps_to_its_budget_by_itself() {
    let scratch = Scratch::new("budget");
    let budget = 5 * LARGE as u64;
    let store = scratch.store().with_budget(budget);
    for round in 0..30 {
        let hit = put(&store, &format!("-{round}"));
        assert!(store.stat().bytes <= budget, "{:?}", store.stat());
        assert!(hit.path.exists(), "what was just made is gone");
        assert!(has(&store, &format!("-{round}")));
    }
    // One that is larger than all that may be.
    let store = store.with_budget(0);
    let hit = put(&store, "-large");
    assert!(hit.path.exists() && store.stat().images == 1);
}

#[test]
fn of_several_results_of_one_request_one_can_go() {
    let scratch = Scratch::new("one-of-several");
    let store = scratch.store();
    let dependency = [crate::boundary::Dependency::File("a.h".into())];
    let mut hits = Vec::new();
    for text in ["one", "two"] {
        scratch.write("a.h", text);
        let image = image(&text.repeat(LARGE / 3));
        hits.push(
            store
                .insert(
                    &key("-O1"),
                    &scratch.path("."),
                    &dependency,
                    LevelSigns::NONE,
                    Stamp::now(),
                    image.as_fd(),
                )
                .unwrap(),
        );
    }
    set_times(&store, &hits[0], -3, None);
    let store = store.with_budget(LARGE as u64 * 3 / 2);
    store.collect().unwrap().unwrap();
    assert_eq!(store.stat().entries, 1);
    store.find(&key("-O1"), &scratch.path(".")).unwrap();
    scratch.write("a.h", "one");
    let miss = store.find(&key("-O1"), &scratch.path(".")).unwrap_err();
    assert_eq!(miss, Miss::DependencyChanged("a.h".into()));
}

/// What others have put into the store's directory, and some of the store's that is in use.
struct Strangers {
    paths: Vec<std::path::PathBuf>,
    _locked: Vec<File>,
}

fn strangers(scratch: &Scratch, store: &Store) -> Strangers {
    let hex = "ab".repeat(32);
    let mut paths = Vec::new();
    for name in ["README", "images/notes.txt", "images/ab.hbi", "manifests/x", "tmpfile"] {
        scratch.write(&format!("store/{name}"), "a stranger's");
        paths.push(store.root().join(name));
    }
    fs::create_dir_all(store.root().join(format!("used/{hex}"))).unwrap();
    paths.push(store.root().join(format!("used/{hex}")));
    let mut locked = Vec::new();
    for name in [format!("keeping/{hex}"), format!("building/{hex}"), "tmp-1-1".to_owned()] {
        scratch.write(&format!("store/{name}"), "");
        locked.push(locks::lock(&store.root().join(&name)).unwrap().unwrap());
        paths.push(store.root().join(name));
    }
    scratch.write("target", "elsewhere");
    paths.push(scratch.path("target"));
    Strangers { paths, _locked: locked }
}

/// Files that nobody needs, one of each kind; as many.
fn litter(scratch: &Scratch, store: &Store) -> u64 {
    let hex = "cd".repeat(32);
    let names = ["building", "keeping", "used", "images"].map(|folder| match folder {
        "images" => format!("images/{hex}.hbi"),
        other => format!("{other}/{hex}"),
    });
    for name in names.iter().map(String::as_str).chain(["tmp-1-2"]) {
        scratch.write(&format!("store/{name}"), "left behind");
    }
    scratch.write(&format!("store/used/{}", "ef".repeat(32)), "");
    let link = store.root().join(format!("images/{}.hbi", "ef".repeat(32)));
    symlink(scratch.path("target"), link).unwrap();
    // Not counted as files that nobody needs: they stood for something.
    scratch.write(&format!("store/manifests/{hex}"), "damaged");
    scratch.write(&format!("store/named/{hex}"), "damaged");
    7
}

#[test]
fn what_nobody_needs_goes_and_nothing_else() {
    let (scratch, store) = filled("orphans");
    let strangers = strangers(&scratch, &store);
    let litter = litter(&scratch, &store);
    let stat = store.stat();
    assert_eq!((stat.entries, stat.images, stat.orphans), (1, 2, litter));
    let collected = store.collect().unwrap().unwrap();
    let damaged = 2 * "damaged".len() as u64;
    assert_eq!((collected.evicted, collected.orphans), (0, litter));
    assert_eq!(collected.bytes, stat.orphan_bytes + damaged);
    assert!(strangers.paths.iter().all(|path| path.exists()));
    find(&store, &scratch).unwrap();
    for folder in ["manifests", "named"] {
        assert!(!store.root().join(folder).join("cd".repeat(32)).exists());
    }
    assert_eq!(store.stat().orphans, 0);
    assert_eq!(store.collect().unwrap(), Some(Collected::default()));
}

#[test]
fn clearing_leaves_what_is_not_the_stores() {
    let (scratch, store) = filled("clear");
    store
        .insert_named(
            &files::FileIdentity { device: 1, inode: 2, size: 3, mtime_ns: 4, ctime_ns: 5 },
            Stamp::now(),
            &variants(&super::super::tests::image_bytes("named")).unwrap(),
            0,
        )
        .unwrap();
    let strangers = strangers(&scratch, &store);
    let litter = litter(&scratch, &store);
    let hit = find(&store, &scratch).unwrap();
    let collected = store.clear().unwrap().unwrap();
    assert_eq!((collected.evicted, collected.orphans), (2, litter));
    assert!(strangers.paths.iter().all(|path| path.exists()));
    assert!(files::contents(hit.file.as_fd()).unwrap().ends_with(b"code"));
    assert_eq!(find(&store, &scratch).unwrap_err(), Miss::NoEntry);
    let stat = store.stat();
    assert_eq!((stat.entries, stat.images, stat.orphans, stat.newest), (0, 0, 0, None));
    put(&store, "-O1");
}

#[test]
fn folders_that_lead_elsewhere_are_not_followed() {
    let (scratch, store) = filled("led-elsewhere");
    fs::rename(scratch.path("store/images"), scratch.path("elsewhere")).unwrap();
    symlink(scratch.path("elsewhere"), scratch.path("store/images")).unwrap();
    assert_eq!(store.stat().images, 0);
    store.clear().unwrap().unwrap();
    assert_eq!(fs::read_dir(scratch.path("elsewhere")).unwrap().count(), 1);
}

#[test]
fn nothing_goes_while_something_is_added() {
    let (scratch, store) = filled("adding");
    let adding = store.adding().unwrap();
    assert_eq!(store.collect().unwrap(), None);
    assert_eq!(store.clear().unwrap(), None);
    drop(adding);
    find(&store, &scratch).unwrap();
    assert!(store.clear().unwrap().is_some());
}

#[test]
fn who_looks_while_others_add_and_remove_gets_the_right_thing_or_nothing() {
    let scratch = Scratch::new("all-at-once");
    let store = scratch.store().with_budget(4 * LARGE as u64);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..25 {
                    let flag = format!("-{}-", (thread + round) % 7);
                    match store.find(&key(&flag), Path::new("/")) {
                        Ok(hit) => {
                            let contents = files::contents(hit.file.as_fd()).unwrap();
                            assert!(contents.ends_with(flag.as_bytes()));
                            store.note_use(&hit.checksum);
                        }
                        Err(Miss::NoEntry | Miss::ImageMissing) => drop(put(store, &flag)),
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                store.collect().unwrap();
            }
        });
    });
    store.collect().unwrap().unwrap();
    assert!(store.stat().bytes <= 4 * LARGE as u64);
    assert_eq!(store.stat().orphans, 0);
}
