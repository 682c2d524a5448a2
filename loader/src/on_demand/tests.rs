//! The index over folders with libraries made for the purpose.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use super::*;
use crate::testing::Folder;
use std::process::Command;
use std::time::Duration;

/// A folder of libraries and one for the index.
struct Place {
    folder: Folder,
    /// Canonical.
    libraries: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        let libraries = folder.path().join("lib");
        std::fs::create_dir(&libraries).unwrap();
        Self { libraries: libraries.canonicalize().unwrap(), folder }
    }

    /// Puts a library there.
    fn add(&self, file: &str, source: &str) -> PathBuf {
        let made = self.folder.library("made.c", source, &["-Wl,--build-id"]);
        let place = self.libraries.join(file);
        std::fs::rename(made, &place).unwrap();
        place
    }

    fn search(&self) -> SearchPath {
        SearchPath::new(self.libraries.as_os_str(), None, &[] as &[&str])
    }

    /// As another process would see it.
    fn on_demand(&self) -> OnDemand {
        OnDemand::with_search(Some(self.folder.path()), self.search())
    }

    fn index_file(&self) -> PathBuf {
        self.on_demand().file().unwrap()
    }
}

/// Waits until changes show in the identities of all files made so far.
fn settle() {
    std::thread::sleep(Duration::from_millis(2100));
}

fn found(library: &Path) -> Answer {
    Answer::Found { library: library.to_owned(), others: Vec::new() }
}

#[test]
fn libraries_are_found_by_what_they_export() {
    let place = Place::new();
    let a =
        place.add("liba.so", "int only_a(void) { return 1; } int a_data = 3; int common(void) { return 1; }");
    let b =
        place.add("libb.so.2", "__attribute__((weak)) int common(void) { return 2; } __thread int b_tls;");
    place.add("libjemalloc.so.2", "int only_j(void) { return 0; } int only_a(void) { return 0; }");
    std::fs::write(place.libraries.join("libtext.so"), "INPUT(-la)").unwrap();
    std::os::unix::fs::symlink("liba.so", place.libraries.join("liba.so.1")).unwrap();
    let on_demand = place.on_demand();
    let ask = |name: &str| on_demand.find(name.as_bytes(), None);
    for _ in 0..2 {
        assert_eq!(ask("only_a"), found(&a));
        assert_eq!(ask("a_data"), found(&a));
        assert_eq!(ask("b_tls"), found(&b));
        assert_eq!(ask("common"), Answer::Found { library: a.clone(), others: vec![b.clone()] });
        assert_eq!(ask("nobody_has_it"), Answer::Nobody);
        assert_eq!(ask("_init"), Answer::Nobody);
        let interposer = place.libraries.join("libjemalloc.so.2");
        assert_eq!(ask("only_j"), Answer::Refused { interposer });
    }
    assert_eq!(on_demand.find_all(&[]), []);
}

#[test]
fn names_looked_for_together_come_from_one_library() {
    let place = Place::new();
    let a = place.add("liba.so", "int x(void) { return 1; } int y(void) { return 1; }");
    let b = place.add("libbb.so", "int x(void) { return 2; } int z(void) { return 2; }");
    let on_demand = place.on_demand();
    assert_eq!(on_demand.find(b"x", None), Answer::Found { library: a.clone(), others: vec![b.clone()] });
    let answers = on_demand.find_all(&[(b"x", None), (b"z", None), (b"none", None)]);
    assert_eq!(answers, [Answer::Found { library: b.clone(), others: vec![a] }, found(&b), Answer::Nobody]);
}

#[test]
fn a_version_is_asked_of_the_library() {
    let place = Place::new();
    let script = place.folder.path().join("map");
    std::fs::write(&script, "V_1 { global: f; local: *; }; V_2 { global: g; } V_1;").unwrap();
    let flag = format!("-Wl,--version-script={}", script.display());
    let source = "__asm__(\".symver f1, f@V_1\"); int f1(void) { return 1; } int g(void) { return 2; }";
    let made = place.folder.library("versions.c", source, &[&flag, "-Wl,--undefined-version"]);
    let library = place.libraries.join("libversions.so");
    std::fs::rename(made, &library).unwrap();
    let on_demand = place.on_demand();
    assert_eq!(on_demand.find(b"f", None), Answer::Nobody, "it is not the default");
    assert_eq!(on_demand.find(b"f", Some(b"V_1")), found(&library));
    assert_eq!(on_demand.find(b"g", Some(b"V_2")), found(&library));
    assert_eq!(on_demand.find(b"g", None), found(&library));
    assert_eq!(on_demand.find(b"g", Some(b"V_1")), Answer::Nobody);
}

#[test]
fn only_what_changed_is_read_again() {
    let place = Place::new();
    let a = place.add("liba.so", "int a(void) { return 1; }");
    let b = place.add("libb.so", "int b(void) { return 1; }");
    settle();
    let first = place.on_demand();
    assert_eq!(first.find(b"a", None), found(&a));
    assert_eq!(first.libraries_read(), 2);
    let written = std::fs::read(place.index_file()).unwrap();

    let second = place.on_demand();
    assert_eq!((second.find(b"b", None), second.find(b"c", None)), (found(&b), Answer::Nobody));
    assert_eq!(second.libraries_read(), 0);

    // A new library is seen, by those who have the index open as well.
    let c = place.add("libc1.so", "int c(void) { return 1; }");
    for on_demand in [&first, &second] {
        assert_eq!(on_demand.find(b"c", None), found(&c));
        assert_eq!(on_demand.find(b"a", None), found(&a));
    }
    // It alone is read, and as it is young, at both questions.
    assert_eq!(first.libraries_read(), 2 + 2);
    assert_ne!(std::fs::read(place.index_file()).unwrap(), written);

    // The same contents in another file are known by their build id.
    settle();
    assert_eq!(first.find(b"c", None), found(&c));
    let before = first.libraries_read();
    std::fs::copy(&a, place.libraries.join("copy")).unwrap();
    std::fs::rename(place.libraries.join("copy"), &a).unwrap();
    assert_eq!(first.find(b"a", None), found(&a));
    assert_eq!(first.libraries_read(), before);

    std::fs::remove_file(&b).unwrap();
    assert_eq!(first.find(b"b", None), Answer::Nobody);
    assert_eq!(second.find(b"b", None), Answer::Nobody);
}

#[test]
fn a_library_written_to_in_place_is_noticed_when_it_is_the_answer() {
    let place = Place::new();
    let a = place.add("liba.so", "int a(void) { return 1; } int stays(void) { return 1; }");
    settle();
    let on_demand = place.on_demand();
    assert_eq!(on_demand.find(b"a", None), found(&a));
    let other = place.add("other", "int now(void) { return 1; } int stays(void) { return 1; }");
    let contents = std::fs::read(&other).unwrap();
    std::fs::remove_file(&other).unwrap();
    settle();
    assert_eq!(on_demand.find(b"now", None), Answer::Nobody);
    std::fs::write(&a, contents).unwrap();
    assert_eq!(on_demand.find(b"a", None), Answer::Nobody);
    assert_eq!(on_demand.find(b"now", None), found(&a));
    assert_eq!(on_demand.find(b"stays", None), found(&a));
}

#[test]
fn damaged_libraries_export_nothing() {
    let place = Place::new();
    let a = place.add("liba.so", "int a(void) { return 1; }");
    let whole = std::fs::read(&a).unwrap();
    std::fs::write(place.libraries.join("libcut.so"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(place.libraries.join("libempty.so"), "").unwrap();
    let mut wild = whole.clone();
    wild[40..48].copy_from_slice(&u64::MAX.to_le_bytes()); // where the section headers are
    std::fs::write(place.libraries.join("libwild.so"), wild).unwrap();
    let mut other = whole;
    other[18] = 183; // AArch64
    std::fs::write(place.libraries.join("libother.so"), other).unwrap();
    assert_eq!(place.on_demand().find(b"a", None), found(&a));
}

#[test]
fn a_damaged_index_is_built_again() {
    let place = Place::new();
    let a = place.add("liba.so", "int a(void) { return 1; } int common(void) { return 1; }");
    let b = place.add("libb.so", "int common(void) { return 1; }");
    settle();
    let right = |on_demand: &OnDemand, what: &str| {
        assert_eq!(on_demand.find(b"a", None), found(&a), "{what}");
        let both = Answer::Found { library: a.clone(), others: vec![b.clone()] };
        assert_eq!(on_demand.find(b"common", None), both, "{what}");
        assert_eq!(on_demand.find(b"none", None), Answer::Nobody, "{what}");
    };
    right(&place.on_demand(), "new");
    let file = place.index_file();
    let good = std::fs::read(&file).unwrap();
    let check = |bytes: &[u8], what: &str| {
        std::fs::remove_file(&file).unwrap();
        let mut damaged = files::create_private(&file).unwrap();
        damaged.write_all(bytes).unwrap();
        right(&place.on_demand(), what);
        assert!(Index::open(&file).is_some(), "{what}");
        let healed = place.on_demand();
        right(&healed, what);
        assert_eq!(healed.libraries_read(), 0, "{what}");
    };
    check(&good, "good");
    // The head and the beginning of the page byte by byte, every line of the filter, zeros here and there.
    let used = (0..900).chain((4096..8192).step_by(61)).chain(8192..8296);
    for at in used.chain((900..good.len()).step_by(101)) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        check(&bytes, &format!("byte {at}"));
    }
    for length in (0..good.len()).step_by(301).chain([good.len() - 1]) {
        check(&good[..length], &format!("length {length}"));
    }
    let mut longer = good.clone();
    longer.push(0);
    check(&longer, "longer");
}

#[test]
fn an_index_of_somebody_else_s_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let a = place.add("liba.so", "int a(void) { return 1; }");
    settle();
    assert_eq!(place.on_demand().find(b"a", None), found(&a));
    let set = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    set(&place.index_file(), 0o666);
    let suspicious = place.on_demand();
    assert_eq!(suspicious.find(b"a", None), found(&a));
    assert_eq!(suspicious.libraries_read(), 1);
    // In a folder that others may write to nothing is written.
    let folder = place.folder.path().join(FOLDER);
    std::fs::remove_file(place.index_file()).unwrap();
    set(&folder, 0o777);
    assert_eq!(place.on_demand().find(b"a", None), found(&a));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn without_a_directory_the_index_is_in_memory() {
    let place = Place::new();
    let a = place.add("liba.so", "int a(void) { return 1; }");
    settle();
    for directory in [None, Some(Path::new("/proc/nowhere"))] {
        let on_demand = OnDemand::with_search(directory, place.search());
        assert_eq!(on_demand.find(b"a", None), found(&a));
        assert_eq!(on_demand.find(b"b", None), Answer::Nobody);
        assert_eq!(on_demand.libraries_read(), 1);
    }
}

#[test]
fn few_indexes_are_kept_and_each_knows_what_the_last_one_did() {
    let place = Place::new();
    let a = place.add("liba.so", "int a(void) { return 1; }");
    settle();
    let mut read = 0;
    for number in 0..KEPT + 4 {
        let more = place.folder.path().join(format!("more-{number}"));
        let search = SearchPath::new(more.as_os_str(), None, &[&place.libraries]);
        let on_demand = OnDemand::with_search(Some(place.folder.path()), search);
        assert_eq!(on_demand.find(b"a", None), found(&a));
        read += on_demand.libraries_read();
    }
    assert_eq!(read, 1);
    assert_eq!(std::fs::read_dir(place.folder.path().join(FOLDER)).unwrap().count(), KEPT);
}

const CHILD: &str = "HOTBED_ON_DEMAND_CHILD";

/// A process of [`many_processes_and_threads_at_once`].
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let libraries = Path::new(&folder).join("lib").canonicalize().unwrap();
    let search = SearchPath::new(libraries.as_os_str(), None, &[] as &[&str]);
    for _ in 0..30 {
        // A new value each time reads what others write.
        let on_demand = OnDemand::with_search(Some(Path::new(&folder)), search.clone());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    assert_eq!(on_demand.find(b"a", None), found(&libraries.join("liba.so")));
                    assert_eq!(on_demand.find(b"nobody", None), Answer::Nobody);
                });
            }
        });
    }
}

#[test]
fn many_processes_and_threads_at_once() {
    let place = Place::new();
    place.add("liba.so", "int a(void) { return 1; }");
    let children: Vec<_> = (0..4)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "on_demand::tests::child", "--nocapture"])
                .env(CHILD, place.folder.path())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    // Meanwhile things change: the folder is young, so everybody builds all the time, and indexes are damaged.
    for number in 0..20 {
        std::fs::write(place.libraries.join(format!("libx{number}.so")), "x").unwrap();
        let _ = std::fs::remove_file(place.index_file());
        std::thread::sleep(Duration::from_millis(5));
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let left = std::fs::read_dir(place.folder.path().join(FOLDER)).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("tmp-")), "{left:?}");
}
