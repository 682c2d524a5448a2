//! Names as for the linker's `-l`: `z` is `libz.so`, or else the `libz.so.N` of the highest number that the run-time
//! linker could find. Development files, which `libz.so` belongs to, need not be installed to load a library.

use super::{Cache, SearchPath};
use std::collections::BTreeSet;

/// The names of files that `name` may stand for, best first.
pub(crate) fn candidates(name: &str, path: &SearchPath) -> impl Iterator<Item = String> {
    let plain = format!("lib{name}.so");
    // The folders are read only if the first does not serve.
    let (again, path) = (plain.clone(), path.clone());
    std::iter::once(plain).chain(std::iter::once_with(move || numbered(&again, &path)).flatten())
}

/// Names of libraries that are `plain` with a number after it, highest first: those in the cache and in the folders.
fn numbered(plain: &str, path: &SearchPath) -> Vec<String> {
    let prefix = format!("{plain}.");
    let mut found = BTreeSet::new();
    let mut add = |name: &str| {
        if let Some(rest) = name.strip_prefix(&prefix)
            && let Some(numbers) =
                rest.split('.').map(|number| number.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
        {
            found.insert((numbers, name.to_owned()));
        }
    };
    if let Some(cache) = path.cache().and_then(Cache::read) {
        for name in cache.entries().filter_map(|entry| std::str::from_utf8(entry.name).ok()) {
            add(name);
        }
    }
    for folder in path.environment().iter().chain(path.defaults()) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str() {
                add(name);
            }
        }
    }
    found.into_iter().rev().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::testing::Folder;
    use std::ffi::OsStr;

    #[test]
    fn the_highest_number_is_the_next_best() {
        let folder = Folder::new();
        for name in ["libq.so.9", "libq.so.10.1", "libq.so.10", "libq.so.x", "libqq.so.11", "libq.so.bak.3"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let path = SearchPath::new(folder.path().as_os_str(), None, &[] as &[&str]);
        let names: Vec<String> = candidates("q", &path).collect();
        assert_eq!(names, ["libq.so", "libq.so.10.1", "libq.so.10", "libq.so.9"]);
        assert_eq!(candidates("zz", &SearchPath::new(OsStr::new(""), None, &[] as &[&str])).count(), 1);
    }
}
