//! The process: the program, the libraries it was started with, and those that a loader opened.
//!
//! glibc's `dlsym` answers one name in microseconds and says nothing about who has it. So a view of all tables is
//! kept and searched here, in the order in which glibc would: the program, the libraries preloaded into it, what it
//! needs, breadth first (these make the front of glibc's list, in this order), then each library that a loader has
//! opened with what it needs. Libraries that somebody else opened for himself are not in it. Whether somebody opened
//! one for everybody cannot be seen; so, when there are libraries that are nobody's, a name that is not found is
//! asked of `dlsym` after all, before any lock is taken (a thread inside of `dlopen` holds its lock while it runs
//! constructors, which may well call us).

mod tables;

use super::{Found, Layer, Party, Query};
use crate::image::SymbolKind;
use crate::image::symbols::{Filter, Name};
use crate::image::versions::Version;
use crate::loader::Library;
use crate::sys::libraries::{self, Generation};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Weak};
use tables::Tables;

/// The process as one loader sees it.
#[derive(Default)]
pub(crate) struct Process {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    opened: Vec<Weak<Library>>,
    current: Option<Arc<Snapshot>>,
}

/// The tables of everything that is loaded, valid as long as nothing is loaded or unloaded.
struct Snapshot {
    generation: Generation,
    tables: Vec<Tables>,
    /// The filter of each: most questions end here.
    filters: Vec<Filter>,
    /// How many of them, from the first on, were there when the program started.
    start: usize,
}

/// What counts of the process at one moment, in order. Entries of the snapshot that are not in it may be gone.
pub(crate) struct ProcessView {
    snapshot: Arc<Snapshot>,
    entries: Vec<Entry>,
    /// What `dlsym` said.
    asked: HashMap<(Vec<u8>, Vec<u8>), Option<usize>>,
}

struct Entry {
    /// Place in the snapshot.
    at: usize,
    /// The library that keeps it open; `None` for what was there when the program started.
    owner: Option<Arc<Library>>,
}

impl Process {
    /// Adds a library that was opened.
    pub(crate) fn add(&self, library: &Arc<Library>) {
        let mut state = self.state.lock();
        state.opened.retain(|library| library.strong_count() > 0);
        state.opened.push(Arc::downgrade(library));
    }

    /// The open library that satisfies `accept`.
    pub(crate) fn opened(&self, accept: impl Fn(&Library) -> bool) -> Option<Arc<Library>> {
        // Nothing may be closed while the lock is held: a destructor may call us.
        let all: Vec<_> = self.state.lock().opened.iter().filter_map(Weak::upgrade).collect();
        all.into_iter().find(|library| accept(library))
    }

    /// A view of the process as it is now.
    pub(crate) fn view(&self) -> ProcessView {
        let (opened, current) = {
            let state = self.state.lock();
            let opened: Vec<_> = state.opened.iter().filter_map(Weak::upgrade).collect();
            (opened, state.current.clone())
        };
        // From here on none of `opened` is unloaded, and all of them are in a snapshot of the present generation.
        let generation = libraries::generation();
        let snapshot = match current {
            Some(current) if current.generation == generation => current,
            _ => {
                let fresh = Arc::new(Snapshot::take());
                self.state.lock().current = Some(Arc::clone(&fresh));
                fresh
            }
        };
        let entries = snapshot.choose(opened);
        ProcessView { snapshot, entries, asked: HashMap::new() }
    }
}

impl Snapshot {
    fn take() -> Self {
        let mut tables = Vec::new();
        let generation = libraries::for_each(|loaded| {
            // The kernel's page of functions is nobody's library.
            if !loaded.name.to_bytes().starts_with(b"linux-vdso") {
                tables.push(Tables::read(loaded));
            }
            true
        });
        let start = tables::connect(&mut tables);
        let filters = tables.iter().map(Tables::filter).collect();
        Self { generation, tables, filters, start }
    }

    /// What was there at the start, then each opened library with what it needs, breadth first.
    fn choose(&self, opened: Vec<Arc<Library>>) -> Vec<Entry> {
        let mut entries: Vec<_> = (0..self.start).map(|at| Entry { at, owner: None }).collect();
        for library in opened {
            let root = self.tables.iter().position(|table| table.is(&library));
            let mut queue: Vec<usize> = root.into_iter().collect();
            let mut next = 0;
            while let Some(&at) = queue.get(next) {
                next += 1;
                if !entries.iter().any(|entry| entry.at == at) {
                    entries.push(Entry { at, owner: Some(Arc::clone(&library)) });
                }
                for need in self.tables[at].needs() {
                    if !queue.contains(need) {
                        queue.push(*need);
                    }
                }
            }
        }
        entries
    }
}

impl ProcessView {
    /// The first answer in glibc's order, or what `dlsym` said.
    pub(crate) fn find(&self, query: Query<'_>) -> Option<Found> {
        for (at, entry) in self.entries.iter().enumerate() {
            if self.snapshot.filters[entry.at].passes(query.name)
                && let Some(found) = self.find_in(at, query.name, query.version)
            {
                return Some(found);
            }
        }
        self.recall(query.name, query.version)
    }

    /// The answer of the program or library at this place.
    pub(crate) fn find_in(&self, at: usize, name: Name<'_>, version: Option<&Version>) -> Option<Found> {
        let Entry { at: table, owner } = self.entries.get(at)?;
        let from_start = owner.is_none();
        let (value, kind) = self.snapshot.tables.get(*table)?.find(name, version, at == 0, from_start)?;
        Some(Found { value, kind, party: Party::Process(at), layer: Layer::Process })
    }

    /// The library that must stay open for the answers of that place to stay valid.
    pub(crate) fn owner(&self, at: usize) -> Option<&Arc<Library>> {
        self.entries.get(at)?.owner.as_ref()
    }

    /// Path of the program (empty) or library at that place.
    pub(crate) fn path(&self, at: usize) -> &str {
        self.entries.get(at).and_then(|entry| self.snapshot.tables.get(entry.at)).map_or("", Tables::path)
    }

    /// Whether a library of that name was there when the program started.
    pub(crate) fn has_from_start(&self, name: &str) -> bool {
        self.snapshot.tables[..self.snapshot.start].iter().any(|table| table.is_called(name))
    }

    /// Whether `dlsym` could find what is not in the tables.
    pub(crate) fn may_know_more(&self) -> bool {
        self.entries.len() < self.snapshot.tables.len()
    }

    /// Asks `dlsym` for names, with their versions, that were not found; false when it does not know any. To be
    /// called without any lock.
    pub(crate) fn ask(&mut self, missing: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> bool {
        if !self.may_know_more() {
            return false;
        }
        let mut any = false;
        for (name, version) in missing {
            let (Ok(c_name), Ok(c_version)) =
                (CString::new(name.as_slice()), version.as_deref().map(CString::new).transpose())
            else {
                continue;
            };
            let address = libraries::default_symbol(&c_name, c_version.as_deref());
            any |= address.is_some();
            self.asked.insert((name, version.unwrap_or_default()), address);
        }
        any
    }

    fn recall(&self, name: Name<'_>, version: Option<&Version>) -> Option<Found> {
        if self.asked.is_empty() {
            return None;
        }
        let key = (name.bytes.to_vec(), version.map_or(Vec::new(), |version| version.name.to_vec()));
        let address = (*self.asked.get(&key)?)?;
        Some(Found {
            value: super::Value::Address(address),
            kind: SymbolKind::Function,
            party: Party::Unknown,
            layer: Layer::Process,
        })
    }
}
