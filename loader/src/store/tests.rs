//! The store as a whole: what hits, what misses and why.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use super::*;
use crate::boundary::{Argument, Content, Input, Lang, Request};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

/// A folder of its own, removed at the end.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hotbed-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and makes it look old, but for its ctime, which nothing can set.
    pub(super) fn write(&self, name: &str, contents: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        files::outlive_tick(&path);
    }

    pub(super) fn store(&self) -> Store {
        Store::open(&self.path("store")).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn key(flag: &str) -> Key {
    let input = Argument::Input(Input { lang: Lang::C, content: Content::File("a.c".into()) });
    Key::of(&request(vec![Argument::Flag(flag.into()), input]))
}

pub(super) fn request(arguments: Vec<Argument>) -> Request {
    Request { unit: "u".into(), arguments, directory: "/".into(), ..Request::default() }
}

/// What is an image as far as the store looks.
pub(super) fn image_bytes(contents: &str) -> Vec<u8> {
    let mut file = vec![0u8; 120];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (at, value) in
        [(16, 3), (18, 62), (20, 1), (32, 64), (52, 64), (54, 56), (56, 1), (64, 4), (72, 120), (112, 4)]
    {
        file[at] = value;
    }
    let note = note::note_bytes();
    file[96] = note.len() as u8;
    file.extend_from_slice(&note);
    file.extend_from_slice(contents.as_bytes());
    note::seal(&mut file).unwrap();
    file
}

pub(super) fn image(contents: &str) -> OwnedFd {
    in_memory(&image_bytes(contents))
}

fn in_memory(file: &[u8]) -> OwnedFd {
    let memory = files::memory_file("image").unwrap();
    File::from(memory.try_clone().unwrap()).write_all(file).unwrap();
    memory
}

fn dependencies() -> Vec<Dependency> {
    vec![
        Dependency::File("a.c".into()),
        Dependency::File("inc2/a.h".into()),
        Dependency::Missing("inc1/a.h".into()),
        Dependency::Missing("nowhere/a.h".into()),
        Dependency::Missing("a.h".into()),
        Dependency::Listing("inc2".into()),
        Dependency::File("a.c".into()),
    ]
}

/// Inputs and a store that knows an image made from them.
pub(super) fn filled(name: &str) -> (Scratch, Store) {
    let scratch = Scratch::new(name);
    scratch.write("a.c", "source");
    scratch.write("inc1/other.h", "");
    scratch.write("inc2/a.h", "header");
    let store = scratch.store();
    let image = image("code");
    files::outlive_tick(&scratch.path("inc2"));
    store
        .insert(&key("-O1"), &scratch.0, &dependencies(), LevelSigns::NONE, Stamp::now(), image.as_fd())
        .unwrap();
    (scratch, store)
}

pub(super) fn find(store: &Store, scratch: &Scratch) -> Result<Hit, Miss> {
    store.find(&key("-O1"), &scratch.0)
}

/// Gives every memo of the only manifest as if the files were old.
pub(super) fn settle(store: &Store, scratch: &Scratch) {
    let path = store.manifest_path(&key("-O1"));
    let mut manifest = Manifest::decode(&std::fs::read(&path).unwrap()).unwrap();
    for entry in &mut manifest.entries {
        let identity = |path: &Path| Some(FileIdentity::of_path(path).unwrap());
        entry.memo = identity(&store.image_path(&entry.checksum));
        for file in &mut entry.record.files {
            file.memo = identity(&scratch.0.join(&file.path));
        }
        for folder in entry.record.folders.iter_mut().filter(|f| !f.path.ends_with("nowhere")) {
            folder.memo = identity(&scratch.0.join(&folder.path));
        }
        for listing in &mut entry.record.listings {
            listing.memo = identity(&scratch.0.join(&listing.path));
        }
    }
    store.write(&path, &manifest.encode(), false).unwrap();
}

#[test]
fn an_entry_for_another_processor_does_not_serve() {
    let (scratch, store) = filled("processor");
    let mut bytes = image_bytes("code for another");
    // No processor has all of it.
    let layout = note::Layout { requires: CpuFeatures::ALL, ..note::Layout::default() };
    note::set_layout(&mut bytes, &layout).unwrap();
    note::seal(&mut bytes).unwrap();
    let (key, seen, image) = (key("-march=wide"), LevelSigns::NONE, in_memory(&bytes));
    store.insert(&key, &scratch.0, &dependencies(), seen, Stamp::now(), image.as_fd()).unwrap();
    let miss = store.find(&key, &scratch.0).unwrap_err();
    assert_eq!(miss.name(), "cpu-features");
    let text = miss.to_string();
    assert!(text.contains("it requires x86-64-v4") && text.contains("missing are"), "{text}");
    find(&store, &scratch).unwrap();
}

#[test]
fn what_was_put_in_is_found() {
    let (scratch, store) = filled("found");
    let hit = find(&store, &scratch).unwrap();
    assert!(files::contents(hit.file.as_fd()).unwrap().ends_with(b"code"));
    assert_eq!(hit.record.dependencies().len(), 6);
    assert_eq!(store.find(&key("-Os"), &scratch.0).unwrap_err(), Miss::NoEntry);
    assert!(
        std::fs::read_dir(store.root()).unwrap().all(|e| !e
            .unwrap()
            .file_name()
            .as_bytes()
            .starts_with(b"tmp"))
    );
    assert_eq!(std::fs::metadata(store.root()).unwrap().permissions().mode() & 0o777, 0o700);
    settle(&store, &scratch);
    find(&store, &scratch).unwrap();
}

#[test]
fn a_higher_level_serves_a_lower_one() {
    let (scratch, store) = filled("levels");
    let find = |flag| store.find(&key(flag), &scratch.0);
    let asked = |flag: &str| Argument::Flag(flag.into());
    find("-O").unwrap();
    for lower in ["-O0", "-DX"] {
        assert_eq!(find(lower).is_ok(), lower == "-O0", "{lower}");
    }
    let miss = find("-O2").unwrap_err();
    assert_eq!(miss, Miss::Level(Difference { asked: "-O2".into(), has: "-O1".into() }));
    // Every entry's own reason counts less than what has become of the one that would do.
    let insert = |flag, seen, text| {
        store
            .insert(&key(flag), &scratch.0, &dependencies(), seen, Stamp::now(), image(text).as_fd())
            .unwrap()
    };
    insert("-O3", LevelSigns::OPTIMIZE, "more code");
    insert("-O0", LevelSigns::OPTIMIZE, "less code");
    let hit = find("-O2").unwrap();
    assert!(files::contents(hit.file.as_fd()).unwrap().ends_with(b"more code"));
    let request = request(vec![asked("-O2"), asked("-include"), asked("-O2")]);
    let other = hit.other_request(&request).unwrap();
    assert_eq!(other.arguments, [asked("-O3"), asked("-include"), asked("-O2")]);
    assert_eq!(find("-O3").unwrap().other_request(&other), None);
    scratch.write("a.c", "other source");
    assert_eq!(find("-O2").unwrap_err(), Miss::DependencyChanged("a.c".into()));
}

/// Every pair of these: an entry that one has made serves the other, or not.
#[test]
fn what_serves_what() {
    // What must be the same, and the level, if it has a rank.
    let sets: [(&str, &str, Option<u8>); 24] = [
        ("", "", Some(0)),
        ("-O0", "", Some(0)),
        ("-O1", "", Some(1)),
        ("-O", "", Some(1)),
        ("-O2", "", Some(2)),
        ("-O0 -O3", "", Some(3)),
        ("-Os", "-Os", None),
        ("-Oz", "-Oz", None),
        ("-Og", "-Og", None),
        ("-Ofast", "-Ofast", None),
        ("-O2 -Ofast", "-O2 -Ofast", None),
        ("-O2 -g", "-g", Some(2)),
        ("-g -O1", "-g", Some(1)),
        ("-O2 -g1", "-g1", Some(2)),
        ("-O2 -ffast-math", "-ffast-math", Some(2)),
        ("-O2 -fno-inline", "-fno-inline", Some(2)),
        ("-O2 -fsanitize=bounds", "-fsanitize=bounds", Some(2)),
        ("-fsanitize=bounds", "-fsanitize=bounds", Some(0)),
        ("-O2 -DX", "-DX", Some(2)),
        ("-O2 -D X", "-D X", Some(2)),
        ("-O2 -std=c17", "-std=c17", Some(2)),
        ("-O2 -include -O0", "-include -O0", Some(2)),
        ("-O1 -include -O0", "-include -O0", Some(1)),
        ("-O1 -Xclang -O0", "-O1 -Xclang -O0", None),
    ];
    let (scratch, store) = filled("pairs");
    let key = |flags: &str| {
        let input = Argument::Input(Input { lang: Lang::C, content: Content::File("a.c".into()) });
        let flags = flags.split_whitespace().map(|flag| Argument::Flag(flag.into()));
        Key::of(&request(flags.chain([input]).collect()))
    };
    for (has, has_exact, has_level) in sets {
        for seen in [LevelSigns::NONE, LevelSigns::NO_INLINE, LevelSigns::OPTIMIZE] {
            std::fs::remove_dir_all(scratch.path("store/manifests")).unwrap();
            let (dependencies, image) = (dependencies(), image("code"));
            let (key_of, now) = (key(has), Stamp::now());
            store.insert(&key_of, &scratch.0, &dependencies, seen, now, image.as_fd()).unwrap();
            for (asked, asked_exact, asked_level) in sets {
                let told = seen != LevelSigns::NONE && (has_level == Some(0)) != (asked_level == Some(0));
                let serves = has_exact == asked_exact && has_level >= asked_level && !told;
                let found = store.find(&key(asked), &scratch.0);
                assert_eq!(found.is_ok(), serves, "{asked} by {has}, which looks at {seen:?}");
            }
        }
    }
}

#[test]
fn every_change_has_a_name() {
    for settled in [false, true] {
        let (scratch, store) = filled(if settled { "named-settled" } else { "named" });
        if settled {
            settle(&store, &scratch);
        }
        let miss = || find(&store, &scratch).unwrap_err();
        // The same size and, set back, the same mtime: only the ctime tells.
        let header = scratch.path("inc2/a.h");
        let before = std::fs::metadata(&header).unwrap().modified().unwrap();
        std::fs::write(&header, "HEADER").unwrap();
        File::options().write(true).open(&header).unwrap().set_modified(before).unwrap();
        assert_eq!(miss(), Miss::DependencyChanged("inc2/a.h".into()));
        std::fs::write(&header, "header").unwrap();
        find(&store, &scratch).expect("touched, not changed");
        scratch.write("inc1/a.h", "found earlier");
        assert_eq!(miss(), Miss::DependencyAppeared("inc1/a.h".into()));
        std::fs::remove_file(scratch.path("inc1/a.h")).unwrap();
        std::fs::create_dir(scratch.path("inc1/a.h")).unwrap();
        find(&store, &scratch).expect("a folder is no header");
        std::fs::remove_dir(scratch.path("inc1/a.h")).unwrap();
        std::os::unix::fs::symlink("target", scratch.path("inc1/a.h")).unwrap();
        find(&store, &scratch).expect("a link to nowhere is no header");
        scratch.write("inc1/target", "");
        assert_eq!(miss(), Miss::DependencyAppeared("inc1/a.h".into()));
        std::fs::remove_file(scratch.path("inc1/a.h")).unwrap();
        scratch.write("nowhere/a.h", "");
        assert_eq!(miss(), Miss::DependencyAppeared("nowhere/a.h".into()));
        std::fs::remove_dir_all(scratch.path("nowhere")).unwrap();
        scratch.write("inc2/new.h", "");
        assert_eq!(miss(), Miss::ListingChanged("inc2".into()));
        std::fs::remove_file(scratch.path("inc2/new.h")).unwrap();
        find(&store, &scratch).unwrap();
        std::fs::remove_file(scratch.path("a.c")).unwrap();
        assert_eq!(miss(), Miss::DependencyGone("a.c".into(), io::ErrorKind::NotFound));
    }
}

#[test]
fn a_changed_dependency_can_come_back() {
    let (scratch, store) = filled("back");
    scratch.write("a.c", "other source");
    assert!(find(&store, &scratch).is_err());
    let other = image("other code");
    store
        .insert(&key("-O1"), &scratch.0, &dependencies(), LevelSigns::NONE, Stamp::now(), other.as_fd())
        .unwrap();
    let ends =
        |text: &[u8]| files::contents(find(&store, &scratch).unwrap().file.as_fd()).unwrap().ends_with(text);
    assert!(ends(b"other code"));
    scratch.write("a.c", "source");
    assert!(!ends(b"other code"));
}

#[test]
fn what_changes_while_it_is_compiled_is_not_stored() {
    let scratch = Scratch::new("unstable");
    let store = scratch.store();
    let started = Stamp::now();
    scratch.write("a.c", "source");
    let image = image("code");
    let insert = |dependencies: &[Dependency], started| {
        store
            .insert(&key("-O1"), &scratch.0, dependencies, LevelSigns::NONE, started, image.as_fd())
            .map(|_| ())
    };
    let file = Dependency::File("a.c".into());
    assert!(matches!(insert(std::slice::from_ref(&file), started), Err(StoreError::Unstable { .. })));
    let later = Stamp::now();
    assert!(matches!(insert(&[Dependency::Missing("a.c".into())], later), Err(StoreError::Unstable { .. })));
    assert!(matches!(
        insert(&[Dependency::File("/dev/null".into())], later),
        Err(StoreError::Unstable { .. })
    ));
    assert!(matches!(find(&store, &scratch), Err(Miss::NoEntry)));
    insert(&[file], later).unwrap();
    let no_image = files::memory_file("junk").unwrap();
    let refused = store.insert(&key("-O1"), &scratch.0, &[], LevelSigns::NONE, later, no_image.as_fd());
    assert!(matches!(refused, Err(StoreError::Image(_))));
}

#[test]
fn damage_is_a_miss() {
    let (scratch, store) = filled("damage");
    let manifest = store.manifest_path(&key("-O1"));
    let good = std::fs::read(&manifest).unwrap();
    for at in 0..good.len() {
        std::fs::write(&manifest, &good[..at]).unwrap();
        assert!(matches!(find(&store, &scratch), Err(Miss::ManifestDamaged(_))), "cut at {at}");
        let mut flipped = good.clone();
        flipped[at] ^= 4;
        std::fs::write(&manifest, &flipped).unwrap();
        assert!(matches!(find(&store, &scratch), Err(Miss::ManifestDamaged(_))), "flipped at {at}");
    }
    std::fs::write(&manifest, &good).unwrap();
    let hit = find(&store, &scratch).unwrap();
    let image_bytes = std::fs::read(&hit.path).unwrap();
    for at in 0..image_bytes.len() {
        let mut flipped = image_bytes.clone();
        flipped[at] ^= 4;
        std::fs::write(&hit.path, &flipped).unwrap();
        let miss = find(&store, &scratch).unwrap_err();
        // One bit of it is another version.
        assert!(matches!(miss, Miss::ImageDamaged(_) | Miss::Format), "image flipped at {at}: {miss}");
    }
    // Compiling again mends it.
    store
        .insert(
            &key("-O1"),
            &scratch.0,
            &dependencies(),
            LevelSigns::NONE,
            Stamp::now(),
            image("code").as_fd(),
        )
        .unwrap();
    find(&store, &scratch).unwrap();
    std::fs::remove_file(&hit.path).unwrap();
    assert_eq!(find(&store, &scratch).unwrap_err(), Miss::ImageMissing);
    std::os::unix::fs::symlink("/etc/passwd", &hit.path).unwrap();
    assert!(matches!(find(&store, &scratch), Err(Miss::ImageDamaged(_))));
    std::fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &manifest).unwrap();
    assert!(matches!(find(&store, &scratch), Err(Miss::ManifestUnreadable(_))));
}

#[test]
fn what_was_found_stays_what_it_was() {
    let (scratch, store) = filled("exchanged");
    let hit = find(&store, &scratch).unwrap();
    let other = image_bytes("something else");
    std::fs::write(scratch.path("other"), &other).unwrap();
    std::fs::rename(scratch.path("other"), &hit.path).unwrap();
    assert!(files::contents(hit.file.as_fd()).unwrap().ends_with(b"code"));
    // Sound, and under a name that it should not have.
    let miss = find(&store, &scratch).unwrap_err();
    assert_eq!(miss, Miss::ImageDamaged("it is another image".into()));
    // One that says it is the right one.
    let mut lying = other;
    let right = hit.checksum;
    let wrong = note::verify(&lying).unwrap();
    let at = lying.windows(32).position(|window| window == wrong).unwrap();
    lying[at..at + 32].copy_from_slice(&right);
    std::fs::write(&hit.path, &lying).unwrap();
    assert!(matches!(find(&store, &scratch), Err(Miss::ImageDamaged(_))));
}

#[test]
fn a_copied_store_and_a_copied_project_work() {
    let (scratch, store) = filled("copied");
    settle(&store, &scratch);
    let copy = Scratch::new("copy");
    let status =
        std::process::Command::new("cp").arg("-r").arg(scratch.path(".")).arg(&copy.0).status().unwrap();
    assert!(status.success());
    std::fs::set_permissions(copy.path("store"), std::fs::Permissions::from_mode(0o700)).unwrap();
    find(&copy.store(), &copy).unwrap();
}

#[test]
fn a_directory_that_others_could_have_filled_is_refused() {
    let scratch = Scratch::new("refused");
    let reason = |path: &Path| match Store::open(path) {
        Err(StoreError::Unusable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    std::fs::create_dir(scratch.path("open")).unwrap();
    std::fs::set_permissions(scratch.path("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(reason(&scratch.path("open")).contains("write"));
    std::os::unix::fs::symlink("open", scratch.path("link")).unwrap();
    assert!(reason(&scratch.path("link")).contains("link"));
    std::fs::write(scratch.path("file"), "").unwrap();
    assert!(reason(&scratch.path("file")).contains("not a directory"));
    if files::effective_user() == 0 {
        std::fs::create_dir(scratch.path("foreign")).unwrap();
        let path = CString::new(scratch.path("foreign").as_os_str().as_bytes()).unwrap();
        // SAFETY: a zero-terminated path.
        assert_eq!(unsafe { libc::chown(path.as_ptr(), 12345, 12345) }, 0);
        assert!(reason(&scratch.path("foreign")).contains("another user"));
    } else {
        assert!(reason(Path::new("/usr")).contains("another user"));
    }
    assert!(matches!(Store::open(Path::new("/proc/nowhere")), Err(StoreError::System { .. })));
    Store::open(&scratch.path("deep/er/store")).unwrap();
}
