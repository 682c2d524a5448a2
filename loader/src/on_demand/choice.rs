//! Which of several libraries that export a name is taken. In this order:
//!
//! 1. one that has been chosen for another of the names that are looked for together
//! 2. a strong definition before a weak one
//! 3. a folder that comes earlier in the order of search
//! 4. a library with a name that linkers look for (`libz.so`), which is one that programs are written for
//! 5. of two versions of one library, the higher one
//! 6. the shorter file name, then the one that comes first in the alphabet
//!
//! The others are named to whoever asks.

use super::index::{Library, STRONG};
use std::cmp::{Ordering, Reverse};
use std::path::{Path, PathBuf};

/// A library that exports the name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    /// The library.
    pub(super) library: &'a Library,
    /// What it exports.
    pub(super) flags: u8,
}

/// Sorts by preference, best first.
pub(super) fn sort(candidates: &mut [Candidate<'_>], chosen: &[PathBuf]) {
    candidates.sort_by(|a, b| compare(*a, *b, chosen));
}

fn compare(a: Candidate<'_>, b: Candidate<'_>, chosen: &[PathBuf]) -> Ordering {
    let rank = |one: &Candidate<'_>| {
        (
            !chosen.contains(&one.library.path),
            one.flags & STRONG == 0,
            one.library.folder,
            !one.library.has_linker_name,
        )
    };
    rank(&a).cmp(&rank(&b)).then_with(|| {
        let (a, b) = (name(&a.library.path), name(&b.library.path));
        let ((a_stem, a_version), (b_stem, b_version)) = (split(a), split(b));
        if a_stem == b_stem {
            return Reverse(a_version).cmp(&Reverse(b_version));
        }
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    })
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// `libz.so.1.2` is `libz` of version 1.2.
fn split(name: &str) -> (&str, Vec<u64>) {
    match name.rfind(".so") {
        Some(at) => (&name[..at], name[at + 3..].split('.').filter_map(|one| one.parse().ok()).collect()),
        None => (name, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::sys::files::FileIdentity;

    fn library(path: &str, folder: u32, has_linker_name: bool) -> Library {
        Library {
            path: path.into(),
            identity: FileIdentity { device: 0, inode: 0, size: 0, mtime_ns: 0, ctime_ns: 0 },
            settled: true,
            build_id: [0; 20],
            folder,
            has_linker_name,
        }
    }

    #[test]
    fn the_rules_hold_in_their_order() {
        let libraries = [
            (library("/b/libchosen.so.1", 1, false), 0),
            (library("/a/libzz.so", 0, true), STRONG),
            (library("/a/liblonger.so", 0, true), STRONG),
            (library("/a/liba.so.10", 0, false), STRONG),
            (library("/a/liba.so.9.5", 0, false), STRONG),
            (library("/b/libb.so", 1, true), STRONG),
            (library("/a/libweak.so", 0, true), 0),
        ];
        let expected: Vec<&Path> = libraries.iter().map(|(library, _)| library.path.as_path()).collect();
        for rotation in 0..libraries.len() {
            let mut candidates: Vec<Candidate<'_>> =
                libraries.iter().map(|(library, flags)| Candidate { library, flags: *flags }).collect();
            candidates.rotate_left(rotation);
            sort(&mut candidates, &["/b/libchosen.so.1".into()]);
            let got: Vec<&Path> = candidates.iter().map(|one| one.library.path.as_path()).collect();
            assert_eq!(got, expected);
        }
    }
}
