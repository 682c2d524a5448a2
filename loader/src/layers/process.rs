//! The process: the program, the libraries it was started with, and those that a loader opened.
//!
//! glibc's `dlsym` answers one name in microseconds and says nothing about who has it. So the tables are searched
//! here, in the order in which glibc would: the program, the libraries preloaded into it, what it needs, breadth first
//! (these make the front of glibc's list, in this order, and stay as long as the process), then each library that a
//! loader has opened with what it needs (which stay as long as that is open). Libraries that somebody else opened for
//! himself are not searched. Whether somebody opened one for everybody cannot be seen; so, when there are libraries
//! that are nobody's, a name that is not found is asked of `dlsym` after all, before any lock is taken (a thread
//! inside of `dlopen` holds its lock while it runs constructors, which may well call us).

mod listing;
mod many;
mod memo;
mod name_set;
mod tables;

use super::readers::Section;
use super::{Found, Layer, Party, Query, Value};
use crate::facade::Facade;
use crate::image::SymbolKind;
use crate::image::symbols::{Filter, Import, Name, PartialHash, Symbols};
use crate::image::versions::Version;
use crate::loader::Library;
use crate::sys::libraries;
use crate::sys::sync::Mutex;
use many::ManyNames;
use memo::{KnownVersions, Memo};
use name_set::NameSet;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, OnceLock, Weak};
use tables::Tables;

/// The process as one loader sees it.
#[derive(Default)]
pub(crate) struct Process {
    start: OnceLock<Arc<Start>>,
    opened: Mutex<Vec<Weak<Library>>>,
    /// Libraries of the system that images have needed: opening one again and again costs more than all the rest of loading.
    kept: Mutex<Vec<Arc<Library>>>,
    /// What was read of libraries, the latest last.
    read: Mutex<Vec<Read>>,
}

/// The tables of a library and of what it needs, by its dynamic section, and how many things had been unloaded by then.
struct Read {
    root: usize,
    unloaded: u64,
    closure: Arc<Closure>,
}

/// Most loaders open few.
type Libraries = SmallVec<[Arc<Library>; 8]>;
type Further = SmallVec<[Entry; 4]>;

/// That many libraries stay open.
const MOST_KEPT: usize = 64;
/// That many are remembered of what may be opened again.
const MOST_READ: usize = 32;

/// What was loaded when the program started.
struct Start {
    tables: Vec<Tables>,
    entries: Box<[Entry]>,
    /// The names that they go by.
    names: NameSet,
    memo: Memo,
    versions: KnownVersions,
    /// All names that they have, once somebody has had many to ask for.
    many: OnceLock<ManyNames>,
    /// How many more there are by glibc's count, for those that are nobody's libraries.
    uncounted: u64,
}

/// What counts of the process at one moment, in order, held open.
pub(crate) struct ProcessView {
    start: Arc<Start>,
    libraries: Libraries,
    /// Those of the libraries, which follow those of the start.
    further: Further,
    /// What `dlsym` said.
    asked: HashMap<(Vec<u8>, Vec<u8>), Option<usize>>,
}

struct Entry {
    /// Most questions end here.
    filter: Filter,
    /// Place of the library that it is of; `None` for what was there at the start.
    library: Option<u32>,
    /// Place among its tables.
    at: u32,
}

/// The tables of a library that was opened and of what it needs, but for what was there at the start. They are valid
/// as long as it is open.
#[derive(Default)]
pub(crate) struct Closure {
    tables: Vec<Tables>,
    memo: Memo,
    versions: KnownVersions,
}

impl Process {
    /// Adds a library that was opened.
    pub(crate) fn add(&self, library: &Arc<Library>) {
        let mut opened = self.opened.lock();
        opened.retain(|library| library.strong_count() > 0);
        opened.push(Arc::downgrade(library));
    }

    /// Adds a library that an image needs. One of the system's stays open from now on.
    pub(crate) fn add_needed(&self, library: &Arc<Library>) {
        self.add(library);
        let mut kept = self.kept.lock();
        if kept.len() < MOST_KEPT && library.keep() {
            kept.push(Arc::clone(library));
        }
    }

    /// The open library that satisfies `accept`.
    pub(crate) fn opened(&self, accept: impl Fn(&Library) -> bool) -> Option<Arc<Library>> {
        self.libraries().into_iter().find(|library| accept(library))
    }

    /// The open libraries. None may be closed while the list is locked, as a destructor may call us; hence the copy.
    fn libraries(&self) -> Libraries {
        self.opened.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// What was there at the start.
    fn start(&self) -> &Arc<Start> {
        self.start.get_or_init(|| {
            let mut tables = Vec::new();
            let mut all = 0;
            let present = libraries::for_each(|loaded| {
                all += 1;
                // The kernel's page of functions is nobody's library.
                if !loaded.name.to_bytes().starts_with(b"linux-vdso") {
                    tables.push(Tables::read(loaded));
                }
                true
            });
            let uncounted = (all - tables.len() as u64).wrapping_add(present).wrapping_sub(all);
            tables.truncate(tables::front(&tables));
            let names = NameSet::new(tables.iter().flat_map(Tables::names));
            let entries = tables.iter().zip(0..).map(|(table, at)| Entry::new(None, at, table)).collect();
            Arc::new(Start {
                tables,
                entries,
                names,
                memo: Memo::default(),
                versions: KnownVersions::default(),
                many: OnceLock::new(),
                uncounted,
            })
        })
    }

    /// Whether a library of that name was there when the program started.
    pub(crate) fn has_from_start(&self, name: &[u8]) -> bool {
        self.start().names.has(name)
    }

    /// The address of a function that [`ProcessView::provides`] was true for. Takes no lock and allocates nothing.
    pub(crate) fn function(
        &self,
        name: Name<'_>,
        version: Option<&Version>,
        held_open: &[Arc<Library>],
    ) -> Option<usize> {
        let start = self.start.get()?;
        let address = |value| match value {
            Value::Address(address) => Some(address),
            Value::Resolver(_) | Value::Tls { .. } => None,
        };
        if let Some((value, _, _)) = start.memo.find(name, version) {
            return address(value);
        }
        let from_start = start.tables.iter().enumerate();
        let opened = held_open.iter().filter_map(|library| library.known_closure());
        let mut all = from_start
            .map(|(at, table)| (at, true, table))
            .chain(opened.flat_map(|closure| closure.tables.iter()).map(|table| (1, false, table)));
        all.find_map(|(at, from_start, table)| {
            if !table.filter().passes(name.hash) {
                return None;
            }
            let (value, _, _) = table.find(name, version, from_start && at == 0, from_start)?;
            address(value)
        })
    }

    /// Whether something that was there when the program started defines `name`: it comes before everything that is
    /// opened later.
    pub(crate) fn defines_from_start(&self, name: Name<'_>) -> bool {
        let start = self.start();
        let mut tables =
            start.tables.iter().enumerate().filter(|(_, table)| table.filter().passes(name.hash));
        start.memo.find(name, None).is_some()
            || tables.any(|(at, table)| table.find(name, None, at == 0, true).is_some())
    }

    /// The tables of the library whose dynamic section is at `root`, and of what it needs. They are read once, however
    /// often it is opened, as long as nothing is unloaded.
    fn closure_of(&self, root: usize, start: &Start) -> Arc<Closure> {
        let unloaded = libraries::unloaded();
        let mut read = self.read.lock();
        read.retain(|read| read.unloaded == unloaded);
        if let Some(read) = read.iter().find(|read| read.root == root) {
            return Arc::clone(&read.closure);
        }
        let closure = Arc::new(Closure::of(root, start));
        if read.len() < MOST_READ {
            read.push(Read { root, unloaded, closure: Arc::clone(&closure) });
        }
        closure
    }

    /// Whether nobody in the process can have that name: a quick no where no loader has opened anything.
    pub(crate) fn lacks(&self, name: Name<'_>) -> bool {
        let start = self.start();
        let known = start.uncounted.wrapping_add(start.tables.len() as u64).wrapping_add(Facade::count());
        start.tables.iter().all(|table| !table.filter().passes(name.hash))
            && self.opened.lock().iter().all(|library| library.strong_count() == 0)
            && libraries::present() <= known
    }

    /// A view of the process as it is now.
    pub(crate) fn view(&self) -> ProcessView {
        let start = Arc::clone(self.start());
        let libraries = self.libraries();
        let (mut further, mut seen) = (Further::new(), SmallVec::<[usize; 24]>::new());
        for (library, at) in libraries.iter().zip(0..) {
            let closure = library.closure(|root| self.closure_of(root, &start));
            for (table, place) in closure.tables.iter().zip(0..) {
                if !seen.contains(&table.identity()) {
                    seen.push(table.identity());
                    further.push(Entry::new(Some(at), place, table));
                }
            }
        }
        ProcessView { start, libraries, further, asked: HashMap::new() }
    }
}

impl Entry {
    fn new(library: Option<u32>, at: u32, table: &Tables) -> Self {
        Self { filter: table.filter(), library, at }
    }
}

impl Closure {
    /// The library whose dynamic section is at `root`, and what it needs, breadth first. Only their tables are read: there
    /// may be many others.
    fn of(root: usize, start: &Start) -> Self {
        let known = |name: &str| start.names.has(name.as_bytes());
        let mut chosen: Vec<Tables> = Vec::new();
        if let Some(table) = read_first(|loaded| Tables::identity_of(loaded) == Some(root)) {
            chosen.push(table);
        }
        let mut next = 0;
        while let Some(table) = chosen.get(next) {
            next += 1;
            let needed: Vec<_> = table.needed().iter().filter(|name| !known(name)).cloned().collect();
            for name in needed {
                if chosen.iter().any(|table| table.is_called(name.as_bytes())) {
                    continue;
                }
                // Most files have the name that they give themselves.
                let by_file = read_first(|loaded| {
                    let file = loaded.name.to_bytes().rsplit(|byte| *byte == b'/').next();
                    file == Some(name.as_bytes())
                });
                let found = by_file.filter(|table| table.is_called(name.as_bytes())).or_else(|| {
                    let mut found = None;
                    libraries::for_each(|loaded| {
                        found = Some(Tables::read(loaded)).filter(|table| table.is_called(name.as_bytes()));
                        found.is_none()
                    });
                    found
                });
                chosen.extend(found);
            }
        }
        Self { tables: chosen, ..Self::default() }
    }
}

/// An answer that was remembered.
fn found_at(at: usize, value: Value, kind: SymbolKind) -> Found {
    Found { value, kind, shared: false, party: Party::Process(at), layer: Layer::Process }
}

/// The tables of the first library that is the one.
fn read_first(is_it: impl Fn(&libraries::Loaded<'_>) -> bool) -> Option<Tables> {
    let mut found = None;
    libraries::for_each(|loaded| {
        if is_it(&loaded) {
            found = Some(Tables::read(loaded));
        }
        found.is_none()
    });
    found
}

impl ProcessView {
    /// Everything in it, in order.
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.start.entries.iter().chain(&*self.further)
    }

    fn entry(&self, at: usize) -> Option<&Entry> {
        let of_start = &self.start.entries;
        of_start.get(at).or_else(|| self.further.get(at - of_start.len()))
    }

    /// Whether anything in it may have a name of which only a part of the hash is known.
    pub(super) fn may_have(&self, hash: PartialHash) -> bool {
        let has = |entry: &Entry| {
            entry.filter.passes_partly(hash) && self.table(entry).is_some_and(|table| table.may_have(hash))
        };
        let from_start = self.start.many.get().is_none_or(|names| names.may_have(hash));
        !self.asked.is_empty()
            || (from_start && self.start.entries.iter().any(has))
            || self.further.iter().any(has)
    }

    /// To be called before [`ProcessView::may_have`] is asked about thousands of names.
    pub(crate) fn expect_many(&self) {
        self.start.many.get_or_init(|| {
            let names: Vec<_> = self.start.tables.iter().flat_map(Tables::hashes).collect();
            ManyNames::new(&names)
        });
    }

    /// What somebody has got before for an import: the value, and whose it is.
    #[inline(always)]
    pub(super) fn remembered<'s>(
        &self,
        symbols: &Symbols,
        import: Import,
        section: &'s Section,
    ) -> Option<(&'s Value, usize)> {
        match self.start.memo.find_for(symbols, import, section) {
            Some((value, _, at)) => Some((value, *at)),
            None => self.remembered_of_libraries(symbols, import, section),
        }
    }

    fn remembered_of_libraries<'s>(
        &self,
        symbols: &Symbols,
        import: Import,
        section: &'s Section,
    ) -> Option<(&'s Value, usize)> {
        // What was there at the start does not have what was once found in a library.
        let mut of_libraries = self.further.iter().zip(self.start.entries.len()..);
        let (entry, at) = of_libraries.find(|(entry, _)| entry.filter.passes(import.hash))?;
        let (value, _, place) = self.closure(entry)?.memo.find_for(symbols, import, section)?;
        (*place == entry.at as usize).then_some((value, at))
    }

    /// The first answer in glibc's order, or what `dlsym` said.
    pub(crate) fn find(&self, query: &Query<'_>) -> Option<Found> {
        self.find_with(query, None)
    }

    /// The same for who has the lock under which namespaces change, by a section that says so. Answers are remembered:
    /// memos change under that lock only, as their readers here hold off nobody else.
    pub(crate) fn find_under(&self, query: &Query<'_>, section: &Section) -> Option<Found> {
        self.find_with(query, Some(section))
    }

    #[inline]
    fn find_with(&self, query: &Query<'_>, under: Option<&Section>) -> Option<Found> {
        let Query { name, version, shared } = *query;
        // Shared definitions are many, and few of them are anybody else's.
        let remembered = |memo: &Memo| match under {
            _ if shared.is_some() => None,
            Some(section) => memo.find_in(name, version, section),
            None => memo.find(name, version),
        };
        if let Some((value, kind, at)) = remembered(&self.start.memo) {
            return Some(found_at(at, value, kind));
        }
        for (at, entry) in self.entries().enumerate().filter(|(_, entry)| entry.filter.passes(name.hash)) {
            let closure = self.closure(entry);
            if let Some((value, kind, place)) = closure.and_then(|closure| remembered(&closure.memo))
                && place == entry.at as usize
            {
                return Some(found_at(at, value, kind));
            }
            let Some(found) = self.find_in(at, name, version) else { continue };
            if under.is_some() && shared.is_none() {
                let memo = closure.map_or(&self.start.memo, |closure| &closure.memo);
                memo.add(name, version, (found.value, found.kind, entry.at as usize));
            }
            return Some(found);
        }
        self.recall(name, version)
    }

    /// Whether that version is defined by what stays as long as who holds `held_open`, in the library that it is of.
    pub(crate) fn provides(&self, version: &Version, held_open: &[Arc<Library>]) -> bool {
        let mut closures = held_open.iter().filter_map(|library| library.known_closure());
        self.start.versions.knows(version)
            || closures.clone().any(|closure| closure.versions.knows(version))
            || self.start.versions.defined_by(&self.start.tables, version)
            || closures.any(|closure| closure.versions.defined_by(&closure.tables, version))
    }

    /// Whether that is so of all of them.
    pub(crate) fn provides_all<'v>(
        &self,
        mut versions: impl Iterator<Item = &'v Version> + Clone,
        held_open: &[Arc<Library>],
    ) -> bool {
        self.start.versions.know_all(versions.clone())
            || versions.all(|version| self.provides(version, held_open))
    }

    /// The answer of the program or library at this place.
    pub(crate) fn find_in(&self, at: usize, name: Name<'_>, version: Option<&Version>) -> Option<Found> {
        let entry = self.entry(at)?;
        let (value, kind, shared) =
            self.table(entry)?.find(name, version, at == 0, entry.library.is_none())?;
        Some(Found { value, kind, shared, party: Party::Process(at), layer: Layer::Process })
    }

    fn table(&self, entry: &Entry) -> Option<&Tables> {
        let tables = self.closure(entry).map_or(&self.start.tables, |closure| &closure.tables);
        tables.get(entry.at as usize)
    }

    /// What an opened library brought; `None` for what was there at the start.
    fn closure(&self, entry: &Entry) -> Option<&Closure> {
        self.libraries.get(entry.library? as usize)?.known_closure()
    }

    /// The library that must stay open for the answers of that place to stay valid.
    pub(crate) fn owner(&self, at: usize) -> Option<&Arc<Library>> {
        self.libraries.get(self.entry(at)?.library? as usize)
    }

    /// Path of the program (empty) or library at that place.
    pub(crate) fn path(&self, at: usize) -> &str {
        self.entry(at).and_then(|entry| self.table(entry)).map_or("", Tables::path)
    }

    /// Whether `dlsym` could find what is not in the tables.
    pub(crate) fn may_know_more(&self) -> bool {
        // There are libraries that do not count.
        let known = self.start.uncounted.wrapping_add(self.entries().count() as u64);
        libraries::present() > known.wrapping_add(Facade::count())
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
            value: Value::Address(address),
            kind: SymbolKind::Function,
            shared: false,
            party: Party::Unknown,
            layer: Layer::Process,
        })
    }
}
