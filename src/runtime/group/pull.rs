//! Which archive members and lazy libraries are loaded for symbols that nobody has.
//!
//! Of several that have a symbol the first one in load order counts. But where somebody's list is not known, finding out
//! takes a compilation; so those whose own text or declared list mentions the symbol are asked before those where it does not,
//! and what is known already makes no difference to the order: the same comes out whatever the store has.

use super::super::make::Made;
use super::{Group, Piece, Source};
use crate::archive::Definition;
use crate::error::Error;
use crate::namespace::Namespace;
use crate::pending::{Claim, Exports, Pending, Says, What, mentions};
use crate::provenance::Provenance;
use crate::report::Report;
use crate::runtime::Runtime;
use hotbed_loader::Layer;
use hotbed_loader::boundary::Request;
use hotbed_loader::store::Key;
use hotbed_loader::sys::sync::ReentrantGuard;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was pulled, on its way into a namespace.
pub(super) struct Pulled {
    pub(super) claim: Claim,
    pub(super) piece: Piece,
    pub(super) report: Report,
    pub(super) provenance: Provenance,
}

/// A lazy library that may have what is missing, and cannot be compiled.
pub(in crate::runtime) struct Failed {
    pub(in crate::runtime) library: Arc<Pending>,
    pub(in crate::runtime) error: Error,
}

/// A search in what is pending in one namespace, in load order. Whoever has it has the right to pull.
pub(in crate::runtime) struct Search<'a> {
    runtime: &'a Runtime,
    pending: &'a [Arc<Pending>],
    /// What was made to see what it has.
    made: HashMap<usize, Made>,
    texts: HashMap<usize, Vec<Vec<u8>>>,
    failed: &'a mut Vec<Failed>,
}

impl<'a> Search<'a> {
    /// What the store knows of what is pending is known from now on.
    pub(in crate::runtime) fn new(
        runtime: &'a Runtime,
        pending: &'a [Arc<Pending>],
        failed: &'a mut Vec<Failed>,
    ) -> Self {
        for library in pending.iter().filter(|one| !one.is_taken(0)).filter_map(|one| one.library()) {
            if !library.is_known()
                && let Some(made) = runtime.stored(&library.request, &library.key)
            {
                library.learn(Exports::of(&made.contents()), made.provenance);
            }
        }
        Self { runtime, pending, made: HashMap::new(), texts: HashMap::new(), failed }
    }

    /// Who has `name`, or may have it, in the order in which they are asked.
    pub(in crate::runtime) fn candidates(&mut self, name: &str) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.pending.len())
            .filter(|at| !matches!(self.pending[*at].says(name), Says::HasNot))
            .collect();
        if all.len() > 1 {
            let mentioned: HashSet<usize> =
                all.iter().copied().filter(|at| self.mentions(*at, name)).collect();
            all.sort_by_key(|at| !mentioned.contains(at));
        }
        all
    }

    fn mentions(&mut self, at: usize, name: &str) -> bool {
        let Some(library) = self.pending[at].library() else { return true };
        library.has_list()
            || self.texts.entry(at).or_insert_with(|| library.text()).iter().any(|text| mentions(text, name))
    }

    /// The definition that one of them has; it is compiled if that is not known.
    pub(in crate::runtime) fn definition(&mut self, at: usize, name: &str) -> Option<Definition> {
        if let Says::MayHave = self.pending[at].says(name) {
            self.find_out(at, name);
        }
        match self.pending[at].says(name) {
            Says::Has(definition) => Some(definition),
            Says::HasNot | Says::MayHave => None,
        }
    }

    /// Has a library compiled, because it may have `name`.
    fn find_out(&mut self, at: usize, name: &str) {
        let pending = &self.pending[at];
        let Some(library) = pending.library() else { return };
        if self.failed.iter().any(|failed| Arc::ptr_eq(&failed.library, pending)) {
            return;
        }
        let observer = &*self.runtime.inner.observer;
        observer.note(&format!("{}: asked for {name}", pending.name()));
        match self.runtime.make(&library.request, &library.key) {
            Ok(made) => {
                let exports = Exports::of(&made.contents());
                if library.has_list() && exports.get(name).is_none() {
                    observer.warning(&format!(
                        "{}: declared to have {name}, which it does not define",
                        pending.name()
                    ));
                }
                library.learn(exports, made.provenance.clone());
                self.made.insert(at, made);
            }
            Err(error) => self.failed.push(Failed { library: Arc::clone(pending), error }),
        }
    }

    /// The first definition of `name`, and who has it.
    fn find(&mut self, name: &str) -> Option<(usize, Definition)> {
        let candidates = self.candidates(name);
        let found = candidates.iter().find_map(|at| Some((*at, self.definition(*at, name)?)))?;
        let others = candidates.iter().map(|at| &self.pending[*at]).filter(|other| {
            other.library().is_some()
                && !Arc::ptr_eq(other, &self.pending[found.0])
                && matches!(other.says(name), Says::Has(_))
        });
        let others: Vec<&str> = others.map(|other| other.name()).collect();
        if !others.is_empty() && !self.pending[found.0].is_taken(found.1.member) {
            self.runtime.inner.observer.warning(&format!(
                "several libraries have {name}: taken is {}; also in {}",
                self.pending[found.0].name(),
                others.join(", ")
            ));
        }
        Some(found)
    }

    /// Takes what defines `names` and, transitively, what these need and nobody `has`: one claim for each archive or
    /// library that has any, with what was made of it already.
    fn select<'n>(
        mut self,
        names: impl IntoIterator<Item = &'n str>,
        has: impl Fn(&str) -> bool,
    ) -> Vec<(Claim, Option<Made>)>
    where
        'a: 'n,
    {
        let pending = self.pending;
        let mut chosen: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); pending.len()];
        let mut seen: HashSet<&str> = HashSet::new();
        let mut open: Vec<(&str, bool)> = names.into_iter().map(|name| (name, true)).collect();
        while let Some((name, certain)) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            let nobody = pending.iter().all(|one| matches!(one.says(name), Says::HasNot));
            if nobody || (!certain && has(name)) {
                continue;
            }
            let Some((at, Definition { member, .. })) = self.find(name) else { continue };
            if pending[at].is_taken(member) || chosen[at].contains(&member) {
                continue;
            }
            match pending[at].what() {
                What::Library(_) => {
                    chosen[at].insert(member);
                }
                What::Archive(members) => {
                    for member in members.cluster(member) {
                        chosen[at].insert(*member);
                        open.extend(members.needs(*member).iter().map(|name| (name.as_str(), false)));
                    }
                }
            }
        }
        let with_members = chosen.into_iter().enumerate().filter(|(_, members)| !members.is_empty());
        let claims = with_members.map(|(at, members)| {
            (Claim::new(&pending[at], members.into_iter().collect()), self.made.remove(&at))
        });
        claims.collect()
    }
}

impl Group<'_> {
    /// Adds what of `pending` defines `symbols`, with what that needs. Whether there is anything.
    fn pull<'n>(
        &mut self,
        pending: &[Arc<Pending>],
        symbols: impl IntoIterator<Item = &'n str>,
    ) -> Result<bool, Error> {
        self.take_right();
        let (runtime, namespace) = (self.runtime, self.namespace.loader());
        let own: HashSet<String> = self.pieces.iter().flat_map(Piece::exports).collect();
        let has =
            |name: &str| own.contains(name) || runtime.loader().resolve_in(Some(namespace), name).is_some();
        let names: Vec<&str> = symbols.into_iter().collect();
        let claims = Search::new(runtime, pending, &mut self.failed).select(names, has);
        let any = !claims.is_empty();
        for (claim, made) in claims {
            self.pulled.push(runtime.make_claimed(claim, made)?);
        }
        Ok(any)
    }

    fn take_right(&mut self) {
        let runtime = self.runtime;
        self.right.get_or_insert_with(|| runtime.right_to_pull());
    }

    /// Adds what is pending in this namespace, and loads what is in those that it sees. Whether trying again may help.
    pub(super) fn find_pending(&mut self, symbols: &[&str]) -> Result<bool, Error> {
        for namespace in self.namespace.scope() {
            let pending = namespace.pending();
            if pending.is_empty() {
                continue;
            }
            if namespace == *self.namespace {
                if self.pull(&pending, symbols.iter().copied())? {
                    return Ok(true);
                }
                continue;
            }
            // It belongs to the other one, where it sees what that one sees.
            let mut others = Group::new(self.runtime, &namespace);
            let found = others.pull(&pending, symbols.iter().copied())?;
            self.failed.append(&mut others.failed);
            if found {
                others.load()?.keep();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The failure of a library that may have one of `symbols`, which `unit` needs, as the reason why it is not there.
    pub(super) fn failure<'n>(
        &mut self,
        unit: &str,
        mut symbols: impl Iterator<Item = &'n str>,
    ) -> Option<Error> {
        let (symbol, at) = symbols.find_map(|symbol| {
            let may_give = |failed: &Failed| failed.library.library().is_some_and(|one| one.may_give(symbol));
            Some((symbol.to_owned(), self.failed.iter().position(may_give)?))
        })?;
        let Failed { library, error } = self.failed.swap_remove(at);
        let (unit, library) = (unit.to_owned(), library.name().to_owned());
        Some(Error::Needed { unit, symbol, library, source: Box::new(error) })
    }

    /// Says which libraries could not be compiled, although that stops nothing.
    pub(super) fn tell_failures(&mut self) {
        for Failed { library, error } in self.failed.drain(..) {
            let name = library.name();
            self.runtime.inner.observer.warning(&format!("{name}: what it has cannot be known: {error}"));
        }
    }
}

impl Runtime {
    /// Loads what of `pending` defines `symbol`, with what it needs, if there is anything and it is not loaded.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) fn pull(&self, pending: &Arc<Pending>, symbol: &str) -> Result<(), Error> {
        let namespace = pending.namespace();
        let mut group = Group::new(self, namespace);
        group.take_right();
        let mut all = namespace.pending();
        if !all.iter().any(|other| Arc::ptr_eq(other, pending)) {
            return Ok(());
        }
        let any = match pending.what() {
            What::Archive(members) => {
                if members.definition(symbol).is_none() {
                    return Ok(());
                }
                all.sort_by_key(|other| !Arc::ptr_eq(other, pending));
                group.pull(&all, [symbol])?
            }
            // Who asks the library itself gets what it has, whatever others are told that it has.
            What::Library(_) if pending.is_taken(0) => false,
            What::Library(library) if library.is_known() && !library.has(symbol) => false,
            What::Library(library) => {
                let made = self.make(&library.request, &library.key)?;
                library.learn(Exports::of(&made.contents()), made.provenance.clone());
                let has = library.has(symbol);
                if has {
                    group.pulled.push(self.make_claimed(Claim::new(pending, vec![0]), Some(made))?);
                }
                has
            }
        };
        if any {
            group.load()?.keep();
        }
        Ok(())
    }

    /// Loads what is pending for `symbol`, which `unit` of `namespace` looks up. Whether it may be there now.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) fn provide(&self, namespace: &Namespace, unit: &str, symbol: &str) -> Result<bool, Error> {
        let is_asked = namespace.order().contains(&Layer::Archives);
        if !is_asked || namespace.scope().iter().all(|namespace| namespace.pending().is_empty()) {
            return Ok(false);
        }
        let mut group = Group::new(self, namespace);
        if !group.find_pending(&[symbol])?
            && let Some(error) = group.failure(unit, std::iter::once(symbol))
        {
            return Err(error);
        }
        group.load()?.keep();
        // Another thread may have loaded it while this one waited for the right to.
        Ok(true)
    }

    /// The right to load what is pending, and to unload it.
    pub(crate) fn right_to_pull(&self) -> ReentrantGuard<'_> {
        self.inner.pulling.lock()
    }

    /// Makes an image of what was claimed, unless it is `made`.
    fn make_claimed(&self, claim: Claim, made: Option<Made>) -> Result<Pulled, Error> {
        let (name, pending) = (claim.name(), claim.pending());
        let observer = &*self.inner.observer;
        let (made, request) = match pending.what() {
            What::Archive(members) => {
                let names: Vec<&str> = claim.members().iter().map(|at| members.name_of(*at)).collect();
                observer.note(&format!("{}: loading members {}", pending.name(), names.join(", ")));
                let compilation = members.compilation(pending.name(), claim.members());
                let request = Arc::new(self.image_request(compilation, &name, None)?);
                (self.make(&request, &Key::of(&request))?, None)
            }
            What::Library(library) => {
                observer.note(&format!("{name}: loading, for it is needed"));
                let made = made.map_or_else(|| self.make(&library.request, &library.key), Ok)?;
                (made, self.keep_lazy(&library.request))
            }
        };
        if let Some(request) = &request {
            self.note_origin(request, &made);
        }
        let Made { report, provenance, image, path, .. } = made;
        let path: PathBuf = path.unwrap_or_else(|| Path::new(&name).to_owned());
        let piece = Piece { name, source: Source::Copy { file: image, path }, request };
        Ok(Pulled { claim, piece, report, provenance })
    }

    /// What a lazy image was made of; nothing for one that is not lazy.
    fn keep_lazy(&self, request: &Arc<Request>) -> Option<Arc<Request>> {
        request.lazy.then(|| Arc::clone(request))
    }
}
