//! Building the index, from an older one as far as that still holds: only libraries that changed are read again.

use super::index::{self, DEFAULT, Entry, Head, Index, Library, MOST_LIBRARIES, STRONG};
use super::survey::{File, survey};
use crate::libraries::{LibraryFile, SearchPath};
use crate::sys::files::Stamp;
use std::collections::HashMap;

/// A new index.
pub(super) struct Built {
    /// The index, in memory.
    pub(super) index: Index,
    /// How many libraries were read for it.
    pub(super) read: usize,
}

/// The index of all libraries in the places of `path`.
pub(super) fn build(path: &SearchPath, key: [u8; 32], old: Option<&Index>) -> Built {
    let survey = survey(path);
    let mut earlier = Earlier::new(old);
    let mut libraries = Vec::with_capacity(survey.files.len());
    let mut entries = Vec::new();
    for (number, file) in (0..).zip(survey.files.into_iter().take(MOST_LIBRARIES)) {
        let (library, exports) = match earlier.take(&file, number) {
            Some(library) => (library, Vec::new()),
            None => earlier.read(file, number),
        };
        libraries.push(library);
        entries.extend(exports);
    }
    if earlier.copy(&mut entries).is_none() {
        // The old index is damaged.
        return build(path, key, None);
    }
    // Definitions of several versions are one entry.
    entries.sort_unstable();
    entries.dedup_by(|later, kept| {
        let same = (later.hash, later.library) == (kept.hash, kept.library);
        if same {
            kept.flags |= later.flags;
        }
        same
    });
    Built { index: Index::build(Head::new(key, survey.seen, libraries), &entries), read: earlier.read }
}

/// What an older index knows.
struct Earlier<'a> {
    index: Option<&'a Index>,
    /// Places of its libraries by device and inode, and by build id and size.
    by_inode: HashMap<(u64, u64), usize>,
    by_build_id: HashMap<([u8; 20], u64), usize>,
    /// Number in the new index of each library that is taken over.
    numbers: Vec<Option<u32>>,
    /// How many libraries were read nevertheless.
    read: usize,
}

impl<'a> Earlier<'a> {
    fn new(index: Option<&'a Index>) -> Self {
        let libraries = index.map_or(&[][..], |index| &index.head().libraries);
        let settled = || libraries.iter().enumerate().filter(|(_, library)| library.settled);
        let inode = |library: &Library| (library.identity.device, library.identity.inode);
        Self {
            index,
            by_inode: settled().map(|(at, library)| (inode(library), at)).collect(),
            by_build_id: settled()
                .filter(|(_, library)| library.build_id != [0; 20])
                .map(|(at, library)| ((library.build_id, library.identity.size), at))
                .collect(),
            numbers: vec![None; libraries.len()],
            read: 0,
        }
    }

    /// Takes a library over that is the very file it was.
    fn take(&mut self, file: &File, number: u32) -> Option<Library> {
        let at = *self.by_inode.get(&(file.identity.device, file.identity.inode))?;
        let old = self.index?.head().libraries.get(at)?;
        if old.identity != file.identity || self.numbers[at].is_some() {
            return None;
        }
        self.numbers[at] = Some(number);
        Some(Library {
            path: file.path.clone(),
            folder: file.folder,
            has_linker_name: file.has_linker_name,
            ..old.clone()
        })
    }

    /// Reads a library. What is no library, or none for `dlopen`, exports nothing, which is worth knowing, too. When
    /// the build id says that the contents are known, they are taken over.
    fn read(&mut self, file: File, number: u32) -> (Library, Vec<Entry>) {
        let File { path, identity, folder, has_linker_name } = file;
        let now = Stamp::now();
        let opened = LibraryFile::open(&path);
        // It may be another file by now.
        let identity = opened.as_ref().map_or(identity, |opened| *opened.identity());
        let build_id = opened.as_ref().and_then(LibraryFile::build_id).unwrap_or_default();
        let library =
            Library { path, identity, settled: identity.is_settled(now), build_id, folder, has_linker_name };
        if let Some(at) = self.by_build_id.get(&(build_id, identity.size))
            && self.numbers[*at].is_none()
        {
            self.numbers[*at] = Some(number);
            return (library, Vec::new());
        }
        self.read += 1;
        let mut exports = Vec::new();
        if let Some(opened) = opened
            && opened.needs().is_some_and(|needs| !needs.not_for_opening)
        {
            let read = opened.for_each_export(|symbol| {
                let strong = if symbol.strong { STRONG } else { 0 };
                let flags = strong | if symbol.default { DEFAULT } else { 0 };
                exports.push(Entry { hash: index::hash(symbol.name), library: number, flags });
                true
            });
            if read.is_none() {
                exports.clear();
            }
        }
        (library, exports)
    }

    /// Adds the entries of all libraries that were taken over.
    fn copy(&self, entries: &mut Vec<Entry>) -> Option<()> {
        if self.numbers.iter().all(Option::is_none) {
            return Some(());
        }
        let index = self.index?;
        index
            .for_each(|entry| {
                if let Some(number) = self.numbers.get(entry.library as usize).copied().flatten() {
                    entries.push(Entry { library: number, ..entry });
                }
            })
            .ok()
    }
}
