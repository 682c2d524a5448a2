//! Binding: every symbol that relocations refer to is resolved first; only when all are known is memory touched.

mod apply;

pub(crate) use apply::{Applied, apply};

use super::elf::*;
use super::map::Mapped;
use super::place::text_of;
use super::symbols::{Import, Imports, Name, PartialHash};
use super::versions::Version;
use super::{ImageError, SymbolKind, decisions, lazy, own_value};
use crate::layers::{Found, Layer, Layers, Party, Query, Value, guarded_by, same_party};
use crate::loader::Library;
use crate::stand_ins;
use smallvec::SmallVec;
use std::sync::Arc;

/// What a symbol that relocations refer to was resolved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing refers to it, or nobody has asked yet.
    Unknown,
    /// It is found.
    Known(Value),
    /// A shared definition of the image's own, at an address that does not change.
    Own,
    /// A function that the process has; it is looked up when it is called.
    Later,
    /// Nobody has it, and it is weak: its address is zero.
    Absent,
}

/// An image that refers to that many symbols refers to many of its own that others may have too.
const MANY: u32 = 4096;

/// Most images need few others.
pub(crate) type Places = SmallVec<[usize; 4]>;

/// All symbols of an image, resolved.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Of every symbol up to the last that anything refers to, at least.
    pub(crate) slots: Vec<Slot>,
    /// Symbols that nobody has and that are needed.
    pub(crate) missing: Vec<u32>,
    /// Symbols that nobody has and that may be missing.
    pub(crate) absent: Vec<u32>,
    /// Places of the images that are needed among those that are held, each once.
    pub(crate) images: Places,
    /// Places of the images that are needed in the group that is being loaded, each once.
    pub(crate) members: Places,
    /// Places of the libraries that are needed in the view of the process, each once.
    pub(crate) libraries: Places,
    /// The shared definitions that are referred to and have won, a bit each.
    pub(crate) own: Vec<u64>,
    /// The shared definitions that are referred to and have not, and what is used instead; sorted.
    pub(crate) elsewhere: Vec<(u32, Value)>,
    /// Whether the image registers destructors of thread-local variables.
    pub(crate) thread_ends: bool,
    /// Whether it calls functions of the process that unwind.
    pub(crate) unwinds: bool,
    /// The first and the last import slot whose function is looked up when it is called, if there are any.
    pub(crate) waiting: Option<(u64, u64)>,
    /// What relocating it has left to do.
    pub(crate) applied: Applied,
}

impl Plan {
    /// Needs the image at a place among those that are held.
    pub(crate) fn use_image(&mut self, at: usize) {
        if !self.images.contains(&at) {
            self.images.push(at);
        }
    }

    /// Needs the image at a place in the group.
    pub(crate) fn use_member(&mut self, at: usize) {
        if !self.members.contains(&at) {
            self.members.push(at);
        }
    }
}

/// Resolves all symbols that relocations of `mapped` refer to, into an empty plan. `module` is the number of its thread-local module.
/// Functions may be looked up when they are called if `held_open`, the libraries that the image holds, is given.
pub(crate) fn resolve(
    mapped: &Mapped,
    module: Option<usize>,
    layers: &Layers<'_>,
    held_open: Option<&[Arc<Library>]>,
    plan: &mut Plan,
) -> Result<(), ImageError> {
    let held_open = held_open.filter(|_| lazy::is_possible(mapped));
    let mut resolver = Resolver {
        mapped,
        module,
        layers,
        plan,
        held_open,
        provided: SmallVec::new(),
        all_provided: false,
        all_wait: false,
        used_last: 0,
    };
    let [relocations, jumps] = tables(mapped)?;
    // Of what it defines itself, most images refer to nothing this way.
    resolver.plan.slots = vec![Slot::Unknown; mapped.symbols.hashed() + 1];
    let imports = mapped.symbols.imports();
    for relocation in relocations {
        resolver.referred(&imports, relocation.symbol())?;
    }
    resolver.all_provided = held_open
        .is_some_and(|held_open| layers.process.provides_all(mapped.symbols.needed_versions(), held_open));
    resolver.all_wait = resolver.all_provided && layers.is_alone();
    let (mut low, mut high) = (u64::MAX, 0);
    for relocation in jumps {
        let (index, place) = (relocation.symbol(), relocation.offset);
        // What is also referred to otherwise is known by now. What is put in when it is called is put in at once.
        if relocation.kind() == R_X86_64_JUMP_SLOT
            && place % 8 == 0
            && resolver.is_unknown(index)?
            && resolver.can_wait(&imports, index)
        {
            resolver.plan.slots[index as usize] = Slot::Later;
            (low, high) = (low.min(place), high.max(place));
        } else {
            resolver.called(&imports, index)?;
        }
    }
    resolver.plan.waiting = (low <= high).then_some((low, high));
    resolver.plan.elsewhere.sort_unstable_by_key(|(index, _)| *index);
    Ok(())
}

/// What a reference to something that an image does not define gets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    /// A stand-in at this address, whoever else has the name.
    Always(usize),
    /// A stand-in at this address, as the process would have answered.
    Instead(usize),
    /// This definition.
    Of(Found),
    /// Nothing.
    Nobodys,
}

/// What a reference to `name` gets from an image that does not define it.
pub(crate) fn choose(layers: &Layers<'_>, name: Name<'_>, version: Option<&Version>) -> Choice {
    if let Some(stand_in) = stand_ins::always(name) {
        return Choice::Always(stand_in);
    }
    match layers.find(&Query { name, version, shared: None }, None) {
        Some(found) if found.layer == Layer::Process => {
            stand_ins::instead_of_process(name).map_or(Choice::Of(found), Choice::Instead)
        }
        Some(found) => Choice::Of(found),
        None => Choice::Nobodys,
    }
}

/// What a reference to `index`, which `mapped` defines and exports, gets: its own definition or another one.
pub(crate) fn choose_defined(
    mapped: &Mapped,
    module: Option<usize>,
    layers: &Layers<'_>,
    index: u32,
) -> Result<Found, ImageError> {
    let plan = &mut Plan::default();
    let mut resolver = Resolver {
        mapped,
        module,
        layers,
        plan,
        held_open: None,
        provided: SmallVec::new(),
        all_provided: false,
        all_wait: false,
        used_last: 0,
    };
    let symbol = mapped.symbols.get(index).ok_or_else(|| ImageError::truncated("a symbol"))?;
    let own = resolver.own(symbol)?;
    if !symbol.is_shared() && !refers(mapped, index)? {
        // The linker has connected it.
        return Ok(own);
    }
    let name = Name::new(text_of(&mapped.symbols, symbol)?);
    Ok(resolver.elsewhere(symbol, name, own)?.unwrap_or(own))
}

/// What references to a symbol get that is defined by the image itself.
fn own_slot(symbol: &Symbol, own: Found) -> Slot {
    match own.value {
        Value::Address(_) if symbol.is_shared() => Slot::Own,
        value => Slot::Known(value),
    }
}

/// Whether a relocation refers to a symbol.
pub(crate) fn refers(mapped: &Mapped, index: u32) -> Result<bool, ImageError> {
    Ok(tables(mapped)?.into_iter().flatten().any(|relocation| relocation.symbol() == index))
}

/// The two tables of relocations with addends.
pub(crate) fn tables(mapped: &Mapped) -> Result<[&'static [Rela]; 2], ImageError> {
    let mut tables: [&'static [Rela]; 2] = [&[], &[]];
    let ranges = [mapped.dynamic.relocations, mapped.dynamic.jump_relocations];
    for (table, range) in tables.iter_mut().zip(ranges) {
        if let Some(range) = range {
            // SAFETY: the image is mapped as its segments say, and the tables are used while it is.
            *table = unsafe { mapped.place.table(range.address, range.size as usize / size_of::<Rela>()) }
                .ok_or_else(|| ImageError::truncated("a table of relocations"))?;
        }
    }
    Ok(tables)
}

struct Resolver<'a> {
    mapped: &'a Mapped,
    module: Option<usize>,
    layers: &'a Layers<'a>,
    plan: &'a mut Plan,
    /// The libraries that the image holds open; nothing if functions are to be looked up now.
    held_open: Option<&'a [Arc<Library>]>,
    /// Versions that are known to be defined, or known not to be, by what the image can rely on.
    provided: SmallVec<[(*const Version, bool); 8]>,
    /// Whether all that the image needs are.
    all_provided: bool,
    /// Whether they are, and there is nobody but the process who could have anything.
    all_wait: bool,
    /// Place in the view of the process of what was remembered last.
    used_last: usize,
}

impl Resolver<'_> {
    /// Resolves what a relocation refers to.
    #[inline(always)]
    fn referred(&mut self, imports: &Imports<'_>, index: u32) -> Result<(), ImageError> {
        if index == 0 || !self.is_unknown(index)? {
            return Ok(());
        }
        let symbols = &self.mapped.symbols;
        if let Some(import) = imports.at(index)
            && let Some((value, place)) = self.layers.remembered(symbols, import)
        {
            if let Some(at) = place.filter(|at| *at != self.used_last) {
                self.used_last = at;
                self.use_of(Party::Process(at));
            }
            self.plan.slots[index as usize] = Slot::Known(value);
            return Ok(());
        }
        self.slot(index).map(|_| ())
    }

    /// The same for the few calls that do not wait.
    #[inline(never)]
    fn called(&mut self, imports: &Imports<'_>, index: u32) -> Result<(), ImageError> {
        self.referred(imports, index)
    }

    /// Whether nobody has asked for a symbol yet.
    #[inline(always)]
    fn is_unknown(&mut self, index: u32) -> Result<bool, ImageError> {
        match self.plan.slots.get(index as usize) {
            Some(slot) => Ok(*slot == Slot::Unknown),
            None => self.make_room(index).map(|()| true),
        }
    }

    #[cold]
    fn make_room(&mut self, index: u32) -> Result<(), ImageError> {
        if self.mapped.symbols.get(index).is_none() {
            return Err(ImageError::damaged("a relocation refers to a symbol that is not there"));
        }
        if index >= MANY {
            self.layers.process.expect_many();
        }
        let length = (index as usize + 1).max(2 * self.plan.slots.len());
        self.plan.slots.resize(length, Slot::Unknown);
        Ok(())
    }

    /// Whether a library that stays defines a version.
    fn is_provided(&mut self, version: &Version) -> bool {
        let Some(held_open) = self.held_open else { return false };
        if let Some((_, provided)) = self.provided.iter().find(|(known, _)| std::ptr::eq(*known, version)) {
            return *provided;
        }
        let provided = self.layers.process.provides(version, held_open);
        self.provided.push((version, provided));
        provided
    }

    /// Whether a function is certain to be found in the process, and nowhere before: a library that stays has the
    /// version that the function was found under when the image was linked, as the system's own linker takes it.
    #[inline(always)]
    fn can_wait(&mut self, imports: &Imports<'_>, index: u32) -> bool {
        let import = imports.at(index);
        let waits = |import: Import| self.all_wait && import.version != 0 && !stand_ins::may_be(import.hash);
        import.is_some_and(waits) || self.can_wait_if_found(index)
    }

    /// The rest of that where not all are alike.
    fn can_wait_if_found(&mut self, index: u32) -> bool {
        let symbols = &self.mapped.symbols;
        let undefined = symbols.get(index).is_some_and(|symbol| !symbol.is_defined());
        let Some(version) = symbols.needed_version(index).filter(|_| undefined) else { return false };
        if !self.all_provided && !self.is_provided(version) {
            return false;
        }
        match symbols.hash_of(index) {
            Some(hash) if !stand_ins::may_be(hash) => !self.layers.may_come_first(PartialHash::of(hash)),
            _ => self.can_wait_by_name(index),
        }
    }

    /// The rest of that where the hash of the name is not enough.
    fn can_wait_by_name(&self, index: u32) -> bool {
        let symbols = &self.mapped.symbols;
        let bytes = symbols.get(index).and_then(|symbol| symbols.text(symbol.name.into()));
        bytes.is_some_and(|bytes| {
            let name = symbols.hash_of(index).map_or_else(|| Name::new(bytes), |hash| Name { bytes, hash });
            !stand_ins::is_name(name)
                && !stand_ins::unwinds(name)
                && !self.layers.may_come_first(PartialHash::of(name.hash))
        })
    }

    fn slot(&mut self, index: u32) -> Result<Slot, ImageError> {
        let known = self.plan.slots.get(index as usize).copied().unwrap_or(Slot::Unknown);
        if known != Slot::Unknown {
            return Ok(known);
        }
        let symbols = &self.mapped.symbols;
        let symbol = symbols.get(index).ok_or_else(|| ImageError::truncated("a symbol"))?;
        let slot = if !symbol.is_defined() {
            let bytes = text_of(symbols, symbol)?;
            let name = symbols.hash_of(index).map_or_else(|| Name::new(bytes), |hash| Name { bytes, hash });
            self.undefined(index, symbol, name)
        } else if self.is_nobody_elses(index, symbol) {
            decisions::set(&mut self.plan.own, index);
            own_slot(symbol, self.own(symbol)?)
        } else {
            self.defined(index, symbol, Name::new(text_of(symbols, symbol)?))?
        };
        if let Some(place) = self.plan.slots.get_mut(index as usize) {
            *place = slot;
        }
        Ok(slot)
    }

    /// Whether a shared definition is surely nobody else's, found out without reading its name. Guards are not decided
    /// by whether somebody else has them.
    fn is_nobody_elses(&self, index: u32, symbol: &Symbol) -> bool {
        let symbols = &self.mapped.symbols;
        symbol.is_shared()
            && symbol.is_exported()
            && symbols.partial_hash(index).is_some_and(|hash| !self.layers.may_have(hash))
            // Names lie scattered, and most of them are of functions.
            && (symbol.kind() == STT_FUNC || !symbols.begins(symbol, b"_ZGV"))
    }

    fn undefined(&mut self, index: u32, symbol: &Symbol, name: Name<'_>) -> Slot {
        match choose(self.layers, name, self.mapped.symbols.needed_version(index)) {
            Choice::Always(stand_in) => {
                self.plan.thread_ends |= stand_ins::registers_thread_ends(name.bytes);
                Slot::Known(Value::Address(stand_in))
            }
            Choice::Instead(stand_in) => Slot::Known(Value::Address(stand_in)),
            Choice::Of(found) => {
                self.plan.unwinds |= found.layer == Layer::Process && stand_ins::unwinds(name);
                self.use_of(found.party);
                Slot::Known(found.value)
            }
            Choice::Nobodys if symbol.binding() == STB_WEAK => {
                self.plan.absent.push(index);
                Slot::Absent
            }
            Choice::Nobodys => {
                self.plan.missing.push(index);
                Slot::Absent
            }
        }
    }

    fn defined(&mut self, index: u32, symbol: &Symbol, name: Name<'_>) -> Result<Slot, ImageError> {
        let own = self.own(symbol)?;
        if !symbol.is_exported()
            || (!symbol.is_shared() && self.layers.space.order.first() == Some(&Layer::Unit))
        {
            return Ok(own_slot(symbol, own));
        }
        let found = self.elsewhere(symbol, name, own)?;
        if symbol.is_shared() {
            match found {
                Some(found) => self.plan.elsewhere.push((index, found.value)),
                None => decisions::set(&mut self.plan.own, index),
            }
        }
        let Some(found) = found else { return Ok(own_slot(symbol, own)) };
        self.use_of(found.party);
        Ok(Slot::Known(found.value))
    }

    /// What an exported definition of the image is replaced by, if by anything.
    fn elsewhere(
        &mut self,
        symbol: &Symbol,
        name: Name<'_>,
        own: Found,
    ) -> Result<Option<Found>, ImageError> {
        if !symbol.is_shared() {
            return Ok(self.layers.find(&Query { name, version: None, shared: None }, Some(own)));
        }
        Ok(match self.guard(name)? {
            Some(found) => found,
            None => self.find_shared(symbol, name),
        })
    }

    /// Where a shared definition is used from, if not from the image itself.
    fn find_shared(&self, symbol: &Symbol, name: Name<'_>) -> Option<Found> {
        let found =
            self.layers.find(&Query { name, version: None, shared: Some(SymbolKind::of(symbol)) }, None)?;
        let is_variable = matches!(symbol.kind(), STT_OBJECT | STT_TLS);
        if is_variable && matches!(found.party, Party::Process(0)) {
            // The program may initialise the variable under a guard that it does not export.
            let length;
            let guard = match name.bytes.strip_prefix(b"_Z") {
                Some(encoding) => [b"_ZGV", encoding].concat(),
                None => {
                    length = name.bytes.len().to_string();
                    [b"_ZGV", length.as_bytes(), name.bytes].concat()
                }
            };
            let guard = Name::new(&guard);
            if self.mapped.symbols.find(guard, None).is_some()
                && same_party(self.layers, found.party, guard).is_none()
            {
                return None;
            }
        }
        Some(found)
    }

    /// Where a guard is used from: `None` if `name` is no guard, `Some(None)` for the image's own.
    fn guard(&mut self, name: Name<'_>) -> Result<Option<Option<Found>>, ImageError> {
        let Some(variables) = guarded_by(name.bytes) else { return Ok(None) };
        let symbols = &self.mapped.symbols;
        let Some((index, variable)) = variables
            .iter()
            .filter(|variable| !variable.starts_with(b"_ZGV"))
            .find_map(|variable| symbols.find(Name::new(variable), None))
        else {
            return Ok(None);
        };
        if !variable.is_shared() {
            return Ok(Some(None));
        }
        let text = text_of(symbols, variable)?;
        let elsewhere = self.find_shared(variable, Name::new(text));
        // The guard must not be answered otherwise than the variable, so the variable is decided now.
        self.slot(index)?;
        Ok(Some(elsewhere.and_then(|found| same_party(self.layers, found.party, name))))
    }

    fn own(&self, symbol: &Symbol) -> Result<Found, ImageError> {
        let value = own_value(&self.mapped.place, self.module, symbol).ok_or(ImageError::Damaged(
            "a symbol lies outside of its segments, or is thread-local and there is no thread-local segment",
        ))?;
        Ok(Found {
            value,
            kind: SymbolKind::of(symbol),
            shared: symbol.is_shared(),
            party: Party::Unit,
            layer: Layer::Unit,
        })
    }

    fn use_of(&mut self, party: Party) {
        match party {
            Party::Image(at) => self.plan.use_image(at),
            Party::Member(at) => self.plan.use_member(at),
            Party::Process(at) if at > 0 && !self.plan.libraries.contains(&at) => {
                self.plan.libraries.push(at)
            }
            _ => {}
        }
    }
}
