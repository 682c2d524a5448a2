//! Where the name of a library leads, by the rules of glibc's run-time linker (`ld.so(8)`, `elf/dl-load.c`):
//!
//! 1. `DT_RPATH` of the object that needs it, unless it has `DT_RUNPATH`; libraries that the object needs inherit it
//! 2. `LD_LIBRARY_PATH`
//! 3. `DT_RUNPATH` of the object that needs it, for its own needs only
//! 4. the cache, `/etc/ld.so.cache`
//! 5. the default folders
//!
//! In each folder the `glibc-hwcaps` folders of the levels that the processor has come first. A file of another class or for another machine
//! is passed over; the search ends at the first other file, even if that turns out to be no library. A name with a slash is a
//! path and is not searched.

use super::{Cache, Fitness, Tokens, expand, fitness, levels};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Where ld.so looks when nothing else helps; what does not exist is passed over. Which of them glibc has built in
/// depends on the distribution, and those it has not are links to the others or are empty.
const DEFAULT: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// The places where libraries are looked for, on behalf of an object or of nobody.
#[derive(Debug, Clone, Default)]
pub struct SearchPath {
    rpath: Vec<PathBuf>,
    environment: Vec<PathBuf>,
    runpath: Vec<PathBuf>,
    cache: Option<PathBuf>,
    /// The cache, read when it is needed first; shared with those that were made of this one.
    contents: Arc<OnceLock<Option<Cache>>>,
    defaults: Vec<PathBuf>,
}

impl SearchPath {
    /// The places that count for the whole process: `LD_LIBRARY_PATH` as it is now, the cache, the default folders.
    pub fn of_process() -> Self {
        let environment = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        Self::new(&environment, Some(Path::new(Cache::PATH)), &DEFAULT)
    }

    /// Places of one's own: `LD_LIBRARY_PATH` as it would be written, a file like `/etc/ld.so.cache`, default folders.
    pub fn new(environment: &OsStr, cache: Option<&Path>, defaults: &[impl AsRef<Path>]) -> Self {
        let environment = environment.as_bytes();
        Self {
            // Its tokens are those of the program.
            environment: if environment.is_empty() {
                Vec::new()
            } else {
                let tokens = Tokens::of_object(std::env::current_exe().ok().as_deref());
                folders(environment, b":;", &tokens)
            },
            cache: cache.map(Path::to_owned),
            defaults: defaults.iter().map(|folder| folder.as_ref().to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The same on behalf of the object at `path` (an object in memory has none) with these entries of its dynamic
    /// section.
    pub fn on_behalf_of(self, path: Option<&Path>, rpath: Option<&[u8]>, runpath: Option<&[u8]>) -> Self {
        let tokens = Tokens::of_object(path);
        let list = |text: Option<&[u8]>| match text {
            Some(text) if !text.is_empty() => folders(text, b":", &tokens),
            _ => Vec::new(),
        };
        let rpath = if runpath.is_some() { None } else { rpath };
        Self { rpath: list(rpath), runpath: list(runpath), ..self }
    }

    /// The same for a library that such an object needs and that says nothing itself: only what is inherited is left.
    pub(crate) fn inherited(&self) -> Self {
        Self { runpath: Vec::new(), ..self.clone() }
    }

    /// Adds what an object between says: its `DT_RPATH` comes before that of who needs it, and with a `DT_RUNPATH` it
    /// inherits nothing.
    pub(crate) fn through(&self, path: &Path, rpath: Option<&[u8]>, runpath: Option<&[u8]>) -> Self {
        let own = self.inherited().on_behalf_of(Some(path), rpath, runpath);
        if runpath.is_some() {
            return own;
        }
        Self { rpath: own.rpath.iter().chain(&self.rpath).cloned().collect(), ..own }
    }

    /// Whether libraries that an object with these places needs are looked for in places that glibc does not know.
    pub(crate) fn hands_down(&self) -> bool {
        !self.rpath.is_empty()
    }

    /// The folders of `LD_LIBRARY_PATH`.
    pub(crate) fn environment(&self) -> &[PathBuf] {
        &self.environment
    }

    /// The file of the cache.
    pub(crate) fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    /// The default folders.
    pub(crate) fn defaults(&self) -> &[PathBuf] {
        &self.defaults
    }

    /// The file of that name in the places that come before the cache.
    pub(crate) fn find_in_front(&self, name: &OsStr) -> Option<PathBuf> {
        let front = self.rpath.iter().chain(&self.environment).chain(&self.runpath);
        front.into_iter().find_map(|folder| in_folder(folder, name))
    }
}

/// The file that the run-time linker would open for the library `name`; nothing is opened here.
pub fn find(name: &OsStr, path: &SearchPath) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    if name.as_bytes().contains(&b'/') {
        return (fitness(Path::new(name)) != Fitness::Absent).then(|| name.into());
    }
    path.find_in_front(name)
        .or_else(|| {
            let file = path.cache.as_deref()?;
            let found = path.contents.get_or_init(|| Cache::read(file)).as_ref()?.find(name.as_bytes())?;
            is_acceptable(&found).then_some(found)
        })
        .or_else(|| path.defaults.iter().find_map(|folder| in_folder(folder, name)))
}

/// The file `name` in a folder or in the folders of levels in it.
fn in_folder(folder: &Path, name: &OsStr) -> Option<PathBuf> {
    let levels = folder.join(levels::FOLDER);
    if levels.is_dir() {
        let found = levels::supported()
            .iter()
            .map(|level| levels.join(level).join(name))
            .find(|path| is_acceptable(path));
        if found.is_some() {
            return found;
        }
    }
    Some(folder.join(name)).filter(|path| is_acceptable(path))
}

/// Whether a search ends at this file.
fn is_acceptable(path: &Path) -> bool {
    match fitness(path) {
        Fitness::Fits | Fitness::NotElf => true,
        Fitness::Other | Fitness::Absent => false,
    }
}

/// A list of folders, taken apart. An empty element is the working directory.
fn folders(text: &[u8], separators: &[u8], tokens: &Tokens) -> Vec<PathBuf> {
    let elements = text.split(|byte| separators.contains(byte));
    elements.filter_map(|one| if one.is_empty() { Some(".".into()) } else { expand(one, tokens) }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::cache::tests::made;
    use super::*;
    use crate::testing::Folder;

    /// Folders `a` to `f` with a library each, and a file that stands for another machine's.
    struct Places {
        folder: Folder,
    }

    impl Places {
        fn new() -> Self {
            let folder = Folder::new();
            let library = folder.library("made.c", "int f(void) { return 1; }", &[]);
            for name in ["a", "b", "c", "d", "e", "f"] {
                std::fs::create_dir(folder.path().join(name)).unwrap();
                std::fs::copy(&library, folder.path().join(name).join("libp.so")).unwrap();
            }
            Self { folder }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn text(&self, name: &str) -> Vec<u8> {
            self.at(name).into_os_string().into_encoded_bytes()
        }

        /// `LD_LIBRARY_PATH` is b, the cache says d, the default folder is e.
        fn path(&self) -> SearchPath {
            let cache = self.at("cache");
            let library = self.at("d/libp.so");
            std::fs::write(&cache, made(&[("libp.so", library.to_str().unwrap(), None)])).unwrap();
            SearchPath::new(self.at("b").as_os_str(), Some(&cache), &[self.at("e")])
        }

        fn remove(&self, name: &str) {
            std::fs::remove_file(self.at(name).join("libp.so")).unwrap();
        }
    }

    fn found(path: &SearchPath) -> Option<String> {
        let found = find(OsStr::new("libp.so"), path)?;
        Some(found.parent()?.file_name()?.to_str()?.to_owned())
    }

    #[test]
    fn the_environment_comes_between_the_two_entries_of_an_object() {
        let places = Places::new();
        let (a, c) = (places.text("a"), places.text("c"));
        let path = places.path();
        let with = |rpath, runpath| path.clone().on_behalf_of(None, rpath, runpath);
        assert_eq!(found(&with(Some(&a), None)).unwrap(), "a");
        assert_eq!(found(&with(None, Some(&c))).unwrap(), "b");
        // DT_RPATH does not count beside DT_RUNPATH, even when that is empty.
        assert_eq!(found(&with(Some(&a), Some(&c))).unwrap(), "b");
        assert_eq!(found(&with(Some(&a), Some(b""))).unwrap(), "b");
        places.remove("b");
        assert_eq!(found(&with(Some(&a), Some(&c))).unwrap(), "c");
        places.remove("c");
        assert_eq!(found(&with(Some(&a), Some(&c))).unwrap(), "d");
        places.remove("d");
        assert_eq!(found(&with(Some(&a), Some(&c))).unwrap(), "e");
        places.remove("e");
        assert_eq!(found(&with(Some(&a), Some(&c))), None);
    }

    #[test]
    fn only_the_old_entry_is_inherited() {
        let places = Places::new();
        let (a, c) = (places.text("a"), places.text("c"));
        let object = places.path().on_behalf_of(None, Some(&a), None);
        let between = Path::new("/nowhere/libq.so");
        assert_eq!(found(&object.through(between, None, None)).unwrap(), "a");
        assert_eq!(found(&object.through(between, Some(&c), None)).unwrap(), "c");
        assert_eq!(found(&object.through(between, None, Some(&c))).unwrap(), "b");
        let object = places.path().on_behalf_of(None, None, Some(&c));
        places.remove("b");
        assert_eq!(found(&object.through(between, None, None)).unwrap(), "d");
    }

    #[test]
    fn files_for_other_machines_are_passed_over_and_others_are_not() {
        let places = Places::new();
        let (a, b) = (places.at("a/libp.so"), places.at("b/libp.so"));
        let path = SearchPath::new(OsStr::new(""), None, &[places.at("a"), places.at("b")]);
        let mut bytes = std::fs::read(&a).unwrap();
        bytes[4] = 1; // 32 bits
        std::fs::write(&a, &bytes).unwrap();
        assert_eq!(found(&path).unwrap(), "b");
        bytes[4] = 2;
        bytes[18] = 183; // AArch64
        std::fs::write(&a, &bytes).unwrap();
        assert_eq!(found(&path).unwrap(), "b");
        std::fs::write(&a, "INPUT(-lp)").unwrap();
        assert_eq!(found(&path).unwrap(), "a");
        std::fs::remove_file(&a).unwrap();
        std::fs::create_dir(&a).unwrap();
        assert_eq!(find(OsStr::new("libp.so"), &path), Some(b));
    }

    #[test]
    fn levels_come_first_in_their_folder() {
        let places = Places::new();
        let Some(level) = levels::supported().first() else { return };
        let inner = places.at("b").join(levels::FOLDER).join(level);
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::copy(places.at("b/libp.so"), inner.join("libp.so")).unwrap();
        assert_eq!(find(OsStr::new("libp.so"), &places.path()), Some(inner.join("libp.so")));
    }

    #[test]
    fn origin_is_the_object_s_folder_and_empty_elements_the_working_directory() {
        let places = Places::new();
        let object = places.at("a/program");
        let path = SearchPath::default().on_behalf_of(Some(&object), None, Some(b"$ORIGIN/../f"));
        assert_eq!(found(&path).unwrap(), "f");
        assert_eq!(folders(b"/x::/y", b":", &Tokens::new(None)), ["/x", ".", "/y"].map(PathBuf::from));
        assert!(folders(b"$ORIGIN", b":", &Tokens::new(None)).is_empty());
        assert_eq!(folders(b"/x;/y:/z", b":;", &Tokens::new(None)).len(), 3);
    }

    #[test]
    fn a_name_with_a_slash_is_a_path() {
        let places = Places::new();
        let path = places.at("f/libp.so");
        assert_eq!(find(path.as_os_str(), &SearchPath::default()), Some(path));
        assert_eq!(find(OsStr::new("/nowhere/libp.so"), &SearchPath::of_process()), None);
        assert_eq!(find(OsStr::new(""), &SearchPath::of_process()), None);
    }

    #[test]
    fn the_process_s_own_libraries_are_found() {
        let found = find(OsStr::new("libc.so.6"), &SearchPath::of_process()).unwrap();
        let loaded = std::fs::read_to_string("/proc/self/maps").unwrap();
        let canonical = found.canonicalize().unwrap();
        assert!(loaded.contains(canonical.to_str().unwrap()), "{}", canonical.display());
    }
}
