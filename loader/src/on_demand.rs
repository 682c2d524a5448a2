//! Libraries found on demand: which library of the system has a symbol that nobody else has.
//!
//! The answer comes from an index over all libraries that the run-time linker finds by name, kept on disk and mapped. An index is for
//! one set of places ([`SearchPath`]); it says what those were, so it is known to be fresh when the folders and the run-time
//! linker's cache are what they were (a status call each, at every question). A fresh index knows who has no symbol as well as who has
//! one, so a name that nobody has costs one line of its filter. A library that was written to in place shows in no folder; it is
//! noticed when it is the answer, and read again. Before a library is given as an answer its own table is asked, whatever
//! the index says.
//!
//! An index that is missing, stale or damaged is built again: all of a sudden (temporary file, rename), from the old
//! one as far as that holds. Processes that do so at the same time do it twice and harm nobody. Without a directory, or
//! with one that cannot be used, the index lives in memory.
//!
//! | file | what |
//! |---|---|
//! | `survey` | which folders, which files |
//! | `update` | building it |
//! | `index` | its format |
//! | `filter` | which names are not in it |
//! | `mix` | the checksum of its parts |
//! | `choice` | which of several libraries |
//! | `interposers` | which never |

mod choice;
mod filter;
mod index;
mod interposers;
mod mix;
mod survey;
#[cfg(test)]
mod tests;
mod update;

use crate::libraries::{LibraryFile, SearchPath};
use crate::sys::files::{self, FileStatus};
use crate::sys::sync::{Mutex, RwLock};
use choice::Candidate;
use index::{DEFAULT, Damaged, Index};
use interposers::is_interposer;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The folder of indexes in the directory that is given.
const FOLDER: &str = "libraries";
/// How many indexes are kept: one for each value of `LD_LIBRARY_PATH` that was used lately.
const KEPT: usize = 8;

/// Makes temporary names of one process differ.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Finds libraries by what they export. Any thread may ask.
#[derive(Debug)]
pub struct OnDemand {
    /// Where the indexes are.
    folder: Option<PathBuf>,
    search: SearchPath,
    key: [u8; 32],
    index: RwLock<Option<Arc<Index>>>,
    /// Held by the thread that brings the index up to date.
    updating: Mutex<()>,
    /// How many libraries were read so far.
    read: AtomicU64,
}

/// Who has a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A library has it.
    Found {
        /// Canonical path of the library to load.
        library: PathBuf,
        /// Other libraries that export it, best first.
        others: Vec<PathBuf>,
    },
    /// No library has it.
    Nobody,
    /// Only libraries have it that are never loaded on demand.
    Refused {
        /// One of them.
        interposer: PathBuf,
    },
}

/// A symbol that is looked for: its name, and the version it must have.
pub type Wanted<'a> = (&'a [u8], Option<&'a [u8]>);

/// Why the index at hand cannot answer.
enum Unfit {
    /// It is not what was written.
    Damaged,
    /// A library was changed without any folder showing it.
    Changed,
}

impl From<Damaged> for Unfit {
    fn from(_: Damaged) -> Self {
        Self::Damaged
    }
}

impl OnDemand {
    /// Looks in the places that count for this process, and keeps the index in `directory`, which belongs to this user.
    /// Nothing is read before the first question.
    pub fn new(directory: Option<&Path>) -> Self {
        Self::with_search(directory, SearchPath::of_process())
    }

    /// The same for other places.
    pub fn with_search(directory: Option<&Path>, search: SearchPath) -> Self {
        let mut hasher = blake3::Hasher::new();
        // Relative folders are others elsewhere.
        let mut part = |kind: u8, path: &Path| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let bytes = path.as_os_str().as_bytes();
            hasher.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        search.environment().iter().for_each(|folder| part(0, folder));
        search.cache().iter().for_each(|file| part(1, file));
        search.defaults().iter().for_each(|folder| part(2, folder));
        Self {
            folder: directory.map(|directory| directory.join(FOLDER)),
            search,
            key: hasher.finalize().into(),
            index: RwLock::default(),
            updating: Mutex::default(),
            read: AtomicU64::new(0),
        }
    }

    /// The library that has the symbol `name`: of that version, or the definition for those who ask for none.
    pub fn find(&self, name: &[u8], version: Option<&[u8]>) -> Answer {
        self.found(&[(name, version)]).pop().map_or(Answer::Nobody, |(_, answer)| answer)
    }

    /// The libraries that have these symbols, an answer for each. What one library has all of is taken from one.
    pub fn find_all(&self, wanted: &[Wanted<'_>]) -> Vec<Answer> {
        let mut answers = vec![Answer::Nobody; wanted.len()];
        for (at, answer) in self.found(wanted) {
            answers[at] = answer;
        }
        answers
    }

    /// The answers for names that are in the index, each with its place among `wanted`.
    fn found(&self, wanted: &[Wanted<'_>]) -> Vec<(usize, Answer)> {
        let mut index = self.current();
        // Whoever writes to a library all the time must not keep us for ever.
        for _ in 0..3 {
            match found_in(&index, wanted, false) {
                Ok(found) => return found,
                Err(unfit) => index = self.rebuild(&index, &unfit),
            }
        }
        found_in(&index, wanted, true).unwrap_or_default()
    }

    /// The folders whose libraries are known, by canonical path, in the order of search.
    pub fn folders(&self) -> Vec<PathBuf> {
        survey::folders(&self.search)
    }

    /// How many files of libraries were read to build or mend the index, by this value.
    pub fn libraries_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// An index that is fresh.
    fn current(&self) -> Arc<Index> {
        let fresh = || self.index.read().clone().filter(|index| survey::is_unchanged(&index.head().seen));
        if let Some(index) = fresh() {
            return index;
        }
        let _updating = self.updating.lock();
        if let Some(index) = fresh() {
            return index;
        }
        // Somebody else may have brought it up to date.
        let file = self.file();
        let stored = file.as_deref().and_then(Index::open).filter(|index| index.head().key == self.key);
        match stored {
            Some(index) if survey::is_unchanged(&index.head().seen) => self.adopt(Arc::new(index)),
            Some(index) => self.build(Some(&index)),
            None => {
                let own = self.index.read().clone();
                let other = if own.is_none() { self.newest_other() } else { None };
                self.build(own.as_deref().or(other.as_ref()))
            }
        }
    }

    /// Builds the index again because `index` did not serve, unless another thread has.
    fn rebuild(&self, index: &Arc<Index>, why: &Unfit) -> Arc<Index> {
        let _updating = self.updating.lock();
        if let Some(newer) = self.index.read().clone().filter(|newer| !Arc::ptr_eq(newer, index)) {
            return newer;
        }
        match why {
            Unfit::Damaged => self.build(None),
            Unfit::Changed => self.build(Some(index)),
        }
    }

    fn build(&self, old: Option<&Index>) -> Arc<Index> {
        let built = update::build(&self.search, self.key, old);
        self.read.fetch_add(built.read as u64, Ordering::Relaxed);
        // Best effort: without a file the next process builds it again.
        let _ = built.index.file().map(|bytes| self.write(bytes));
        // As a file it is shared with other processes.
        let stored = self.file().as_deref().and_then(Index::open);
        let stored = stored.filter(|stored| stored.head() == built.index.head());
        self.adopt(Arc::new(stored.unwrap_or(built.index)))
    }

    fn adopt(&self, index: Arc<Index>) -> Arc<Index> {
        *self.index.write() = Some(Arc::clone(&index));
        index
    }

    fn file(&self) -> Option<PathBuf> {
        let name = blake3::Hash::from_bytes(self.key).to_hex();
        Some(self.folder.as_ref()?.join(&name.as_str()[..32]))
    }

    /// The newest index for other places, which knows most of the libraries already.
    fn newest_other(&self) -> Option<Index> {
        let files = files_of(self.folder.as_deref()?);
        files.iter().rev().find_map(|(_, path)| Index::open(path))
    }

    /// Puts the index where other processes find it.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let (Some(folder), Some(file)) = (&self.folder, self.file()) else { return Ok(()) };
        files::create_private_folders(folder)?;
        let status = FileStatus::of_link(folder)?;
        if status.owner != files::effective_user() || status.mode & 0o022 != 0 {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("tmp-{}-{count}", std::process::id()));
        // Left behind by a process that had the same number.
        let _ = std::fs::remove_file(&temporary);
        // Not synced: what a crash of the system leaves is checked like anything else.
        let written = files::create_private(&temporary)
            .and_then(|mut temporary| temporary.write_all(bytes))
            .and_then(|()| std::fs::rename(&temporary, &file));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        let all = files_of(folder);
        for (_, old) in all.iter().take(all.len().saturating_sub(KEPT)) {
            let _ = std::fs::remove_file(old);
        }
        written
    }
}

/// The files in a folder, oldest first.
fn files_of(folder: &Path) -> Vec<(i64, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.path();
            Some((FileStatus::of_link(&path).ok()?.identity.mtime_ns, path))
        })
        .collect();
    files.sort_unstable();
    files
}

/// The answers for names that are in an index, each with its place among `wanted`. `lenient` passes over libraries that are not what they were.
fn found_in(index: &Index, wanted: &[Wanted<'_>], lenient: bool) -> Result<Vec<(usize, Answer)>, Unfit> {
    let libraries = &index.head().libraries;
    let mut candidates = Vec::new();
    for (at, (name, version)) in wanted.iter().enumerate() {
        let entries = index.find(index::hash(name))?.into_iter();
        let of_name: Vec<_> = entries
            .filter(|(_, flags)| version.is_some() || flags & DEFAULT != 0)
            .filter_map(|(at, flags)| Some(Candidate { library: libraries.get(at as usize)?, flags }))
            .collect();
        if !of_name.is_empty() {
            candidates.push((at, of_name));
        }
    }
    // Names that one library alone has decide for the others.
    candidates.sort_by_key(|(_, of_name)| of_name.len());
    let mut answers = Vec::with_capacity(candidates.len());
    let mut chosen: Vec<PathBuf> = Vec::new();
    for (at, mut of_name) in candidates {
        let answer = answer(&mut of_name, wanted[at], &chosen, lenient)?;
        if let Answer::Found { library, .. } = &answer
            && !chosen.contains(library)
        {
            chosen.push(library.clone());
        }
        answers.push((at, answer));
    }
    Ok(answers)
}

fn answer(
    candidates: &mut Vec<Candidate<'_>>,
    (name, version): Wanted<'_>,
    chosen: &[PathBuf],
    lenient: bool,
) -> Result<Answer, Unfit> {
    let mut interposer = None;
    candidates.retain(|candidate| {
        let refused = is_interposer(&candidate.library.path);
        if refused {
            interposer.get_or_insert_with(|| candidate.library.path.clone());
        }
        !refused
    });
    choice::sort(candidates, chosen);
    for (at, Candidate { library, .. }) in candidates.iter().enumerate() {
        let file = LibraryFile::open(&library.path).filter(|file| *file.identity() == library.identity);
        match file {
            Some(file) if file.exports(name, version) => {
                let others = candidates[at + 1..].iter().map(|other| other.library.path.clone());
                return Ok(Answer::Found { library: library.path.clone(), others: others.collect() });
            }
            // Another name of the same hash, or another version.
            Some(_) if library.settled => {}
            Some(_) | None if lenient => {}
            Some(_) | None => return Err(Unfit::Changed),
        }
    }
    Ok(match interposer {
        Some(interposer) => Answer::Refused { interposer },
        None => Answer::Nobody,
    })
}
