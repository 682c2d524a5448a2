//! gdb: which files it is given, and when.
//!
//! Every piece of code is registered before it runs, so that breakpoints hold from its first instruction. gdb pays for
//! every file that it has, at every registration, so small files are merged by count: as soon as there are
//! [`MERGE`] that went through the same number of merges, one takes their place. Of `n` pieces it has at most about
//! `MERGE * log(n)` files, and each piece is converted `log(n)` times. When a piece goes, the file that it is in is
//! replaced by one without it.

mod eh_frame;
mod file;
mod interface;
mod rebase;
#[cfg(test)]
mod tests;

use super::Note;
use super::code::LoadedCode;
use crate::sys::sync::Mutex;
use interface::Registration;
use std::sync::Arc;

/// So many files of one level make one of the next.
const MERGE: usize = 8;
/// Files of more bytes than this are not merged: converting them again would cost more than they do.
const LARGEST_MERGED: usize = 1 << 20;

/// What gdb has been given by one loader.
pub(super) struct Gdb {
    note: Option<Note>,
    groups: Mutex<Vec<Group>>,
}

/// A file that gdb has.
struct Group {
    /// How many merges are behind it.
    level: u32,
    codes: Vec<Arc<LoadedCode>>,
    /// Nothing when no file could be made.
    registration: Option<Registration>,
}

impl Gdb {
    /// Nothing is registered yet. Says so when gdb will not be able to find what is.
    pub(super) fn new(note: Option<Note>) -> Self {
        let gdb = Self { note, groups: Mutex::new(Vec::new()) };
        if !interface::is_visible() {
            gdb.note(
                "gdb will not see units: this program is stripped of the symbols that it looks for; link it with \
                 -Wl,--export-dynamic-symbol=__jit_debug_descriptor \
                 -Wl,--export-dynamic-symbol=__jit_debug_register_code",
            );
        }
        gdb
    }

    /// Registers pieces of code that were loaded in one go, in one file.
    pub(super) fn add(&self, codes: Vec<Arc<LoadedCode>>) {
        if codes.is_empty() {
            return;
        }
        let mut groups = self.groups.lock();
        let level = codes.len().ilog(MERGE);
        let group = self.register(level, codes);
        groups.push(group);
        self.merge(&mut groups);
    }

    /// Takes `code` back, which is still in its place.
    pub(super) fn remove(&self, code: &Arc<LoadedCode>) {
        let mut groups = self.groups.lock();
        let holds = |group: &Group| group.codes.iter().any(|other| Arc::ptr_eq(other, code));
        let Some(at) = groups.iter().position(holds) else { return };
        let Group { level, mut codes, registration } = groups.remove(at);
        codes.retain(|other| !Arc::ptr_eq(other, code));
        if !codes.is_empty() {
            groups.insert(at, self.register(level, codes));
        }
        // As in `merge`: the new file first.
        drop(registration);
    }

    /// Merges what has become too many, as the last has.
    fn merge(&self, groups: &mut Vec<Group>) {
        while let Some(level) = groups.last().map(|group| group.level) {
            let of_level = |group: &Group| group.level == level && group.is_small();
            if groups.iter().filter(|group| of_level(group)).count() < MERGE {
                return;
            }
            let merged: Vec<_> = groups.extract_if(.., |group| of_level(group)).collect();
            let codes = merged.iter().flat_map(|group| group.codes.iter().cloned()).collect();
            let group = self.register(level + 1, codes);
            groups.push(group);
            // gdb keeps its breakpoints when it is told of the new file first.
            drop(merged);
        }
    }

    fn register(&self, level: u32, codes: Vec<Arc<LoadedCode>>) -> Group {
        let made = file::make(&codes, &mut |code, error| {
            self.note(&format!("gdb does not see all of {}: {error}", code.name()));
        });
        let registration = match made {
            Ok(file) => Some(Registration::new(file)),
            Err(error) => {
                let names: Vec<_> = codes.iter().map(|code| code.name()).collect();
                self.note(&format!("gdb does not see {}: {error}", names.join(", ")));
                None
            }
        };
        Group { level, codes, registration }
    }

    fn note(&self, line: &str) {
        if let Some(note) = &self.note {
            note(line);
        }
    }
}

impl Group {
    fn is_small(&self) -> bool {
        self.registration.as_ref().is_none_or(|registration| registration.size() <= LARGEST_MERGED)
    }
}

/// The file that gdb would get for `codes`.
#[cfg(test)]
pub(super) fn make_file(codes: &[Arc<LoadedCode>]) -> Result<Vec<u8>, super::DebugError> {
    file::make(codes, &mut |_, _| {})
}
