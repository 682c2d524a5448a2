//! What names lead to for code that is compiled for an image later: the same that they lead to in the image itself.
//!
//! What the image refers to itself was resolved when it was loaded, and stays that. Anything else is decided now, as binding
//! would have done it then: images that were loaded later do not count.

use super::Slots;
use crate::image::bind::{self, Choice, Slot};
use crate::image::elf::{STB_WEAK, Symbol};
use crate::image::map::Mapped;
use crate::image::symbols::{Name, Symbols};
use crate::image::unwind;
use crate::image::{Definition, Image, SymbolKind, address_of, own_value, registry};
use crate::layers::readers::Section;
use crate::layers::{Found, Held, Layer, Layers, Party, ProcessView, Query, Value};
use crate::stand_ins;
use crate::sys::fork_lock::ForkLock;
use crate::sys::threads::at_fork;
use std::sync::{Arc, Once};

/// Taken while locks are held that a forked process must not find taken.
static ANSWERING: ForkLock<()> = ForkLock::new(());

/// What is decided about a name.
enum Decision {
    Found(Found),
    /// Stands in for what would have been found.
    StandIn(usize),
    Nobodys,
}

impl Slots {
    /// What code that is compiled for the image now gets for `name`, which the image exports or needs, or which nobody has spoken of
    /// yet: an address of zero for something weak that nobody has. Whatever it is of stays as long as the image. Thread-local
    /// variables, and functions that another function chooses which is not compiled itself, are not reached this way.
    pub fn for_fresh(&self, name: &str) -> Option<Definition> {
        // The image itself may be among these: it must not end as long as somebody is inside of it.
        let held = Held::default();
        let inside = self.enter()?;
        let mapped = inside.mapped();
        let name = Name::new(name.as_bytes());
        let symbols = &mapped.symbols;
        let known = symbols.find(name, None).map(|(index, _)| index).or_else(|| needed(symbols, name));
        let Some((index, symbol)) = known.and_then(|index| Some((index, symbols.get(index)?))) else {
            return self.decided(mapped, name, None, &held).and_then(|found| definition(found, 0, &held));
        };
        let kind = SymbolKind::of(symbol);
        if kind == SymbolKind::Tls {
            return None;
        }
        let weak = symbol.is_shared() || symbol.binding() == STB_WEAK;
        if let Some(value) = self.resolved(mapped, index) {
            return definition((value, kind, weak), symbol.size, &held);
        }
        if symbol.is_defined() && (!symbol.is_shared() || self.shared.counts(index) == Some(true)) {
            let value = own_value(&mapped.place, self.module, symbol)?;
            return definition((value, kind, weak), symbol.size, &held);
        }
        let nobodys = || (weak && !symbol.is_defined()).then_some((Value::Address(0), kind, weak));
        let found = self.decided(mapped, name, Some(index), &held).or_else(nobodys)?;
        definition(found, symbol.size, &held)
    }

    /// What the image's own references to a symbol have got, if there are any.
    fn resolved(&self, mapped: &Mapped, index: u32) -> Option<Value> {
        match self.resolved.get(index as usize)? {
            Slot::Unknown => None,
            Slot::Known(value) => Some(*value),
            Slot::Own => own_value(&mapped.place, self.module, mapped.symbols.get(index)?),
            Slot::Absent => Some(Value::Address(0)),
            // The first call looks it up in the same way.
            Slot::Later => {
                let symbols = &mapped.symbols;
                let name = Name::new(symbols.text(symbols.get(index)?.name.into())?);
                let version = symbols.needed_version(index);
                let process = &self.space.common.process;
                process.function(name, version, &self.libraries).map(Value::Address)
            }
        }
    }

    /// What binding would have given for a name; `index` if it is a symbol of the image.
    fn decided(
        &self,
        mapped: &Mapped,
        name: Name<'_>,
        index: Option<u32>,
        held: &Held,
    ) -> Option<(Value, SymbolKind, bool)> {
        let defined = index.filter(|index| mapped.symbols.get(*index).is_some_and(Symbol::is_defined));
        let mut view = self.space.common.process.view();
        for round in 0..2 {
            match self.decide(mapped, name, (index, defined), held, &view) {
                Decision::Found(Found { value, kind, shared, layer, .. }) => {
                    if layer == Layer::Process && stand_ins::unwinds(name) {
                        unwind::bring_in();
                    }
                    return Some((value, kind, shared));
                }
                Decision::StandIn(address) => {
                    return Some((Value::Address(address), SymbolKind::Function, false));
                }
                Decision::Nobodys => {}
            }
            let version = index.and_then(|index| mapped.symbols.needed_version(index));
            let wanted = (name.bytes.to_vec(), version.map(|version| version.name.to_vec()));
            // `dlsym` must not be called under a lock.
            if round > 0 || !view.ask(vec![wanted]) {
                break;
            }
        }
        None
    }

    fn decide(
        &self,
        mapped: &Mapped,
        name: Name<'_>,
        (index, defined): (Option<u32>, Option<u32>),
        held: &Held,
        view: &ProcessView,
    ) -> Decision {
        let this = self.image.upgrade().inspect(|this| {
            held.hold(this);
        });
        let _forks = ANSWERING.lock();
        let binding = self.space.common.binding.lock();
        let host = self.loader.host();
        let layers = Layers::new(&self.space, host, view, (&[], 0), held, Section::under(&binding));
        let choice = match defined {
            Some(index) => {
                bind::choose_defined(mapped, self.module, &layers, index).map_or(Choice::Nobodys, Choice::Of)
            }
            None => {
                let version = index.and_then(|index| mapped.symbols.needed_version(index));
                bind::choose(&layers, name, version)
            }
        };
        let found = match choice {
            Choice::Always(address) | Choice::Instead(address) => return Decision::StandIn(address),
            Choice::Of(found) => found,
            Choice::Nobodys => return Decision::Nobodys,
        };
        let found = match found.party {
            Party::Image(at) if held.get(at).is_some_and(|image| self.is_later(&image)) => {
                let own = defined.and_then(|index| {
                    let symbol = mapped.symbols.get(index)?;
                    let value = own_value(&mapped.place, self.module, symbol)?;
                    let kind = SymbolKind::of(symbol);
                    Some(Found { value, kind, party: Party::Unit, ..found })
                });
                let query = Query { name, version: None, shared: None };
                match own.or_else(|| view.find_under(&query, &layers.section)) {
                    Some(found) => found,
                    None => return Decision::Nobodys,
                }
            }
            _ => found,
        };
        self.keep(found.party, this.as_deref(), held, view);
        Decision::Found(found)
    }

    /// Whether an image came after this one. It itself did not.
    fn is_later(&self, image: &Image) -> bool {
        image.sequence() > self.sequence
    }

    /// Keeps what an answer came from as long as the image. Under the binding lock.
    fn keep(&self, party: Party, this: Option<&Image>, held: &Held, view: &ProcessView) {
        match party {
            Party::Image(at) => {
                let Some(image) = held.get(at) else { return };
                let is_own = image.sequence() == self.sequence;
                if !is_own && !this.is_some_and(|this| this.is_partner(&image)) {
                    image.count_binder(&mut self.images.lock());
                }
            }
            Party::Process(at) => {
                let Some(library) = view.owner(at) else { return };
                let mut later = self.later_libraries.lock();
                if !self.libraries.iter().chain(&*later).any(|known| Arc::ptr_eq(known, library)) {
                    later.push(Arc::clone(library));
                }
            }
            _ => {}
        }
    }
}

/// As a back end gets it.
fn definition((value, kind, weak): (Value, SymbolKind, bool), size: u64, held: &Held) -> Option<Definition> {
    match value {
        Value::Tls { .. } => return None,
        // Calling it here would wait for what may never come: this is asked by who compiles.
        Value::Resolver(resolver) if is_uncompiled(resolver, held) => return None,
        Value::Address(_) | Value::Resolver(_) => {}
    }
    Some(Definition { address: address_of(value), kind, weak, size })
}

/// Whether a function is one that is compiled when it is called, and was not yet.
fn is_uncompiled(address: usize, held: &Held) -> bool {
    let image = registry::image_at(address).inspect(|image| {
        held.hold(image);
    });
    let slots = image.and_then(|image| image.slots().cloned());
    slots.is_some_and(|slots| slots.slot_of(address).is_some_and(|slot| !slots.is_compiled(slot)))
}

/// The undefined symbol of a name.
fn needed(symbols: &Symbols, name: Name<'_>) -> Option<u32> {
    (1..symbols.count()).find(|index| {
        symbols.hash_of(*index).is_none_or(|hash| hash == name.hash)
            && symbols.get(*index).is_some_and(|symbol| {
                !symbol.is_defined() && symbols.text(symbol.name.into()) == Some(name.bytes)
            })
    })
}

/// Keeps forks from finding locks taken. To be called before names are asked for.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    extern "C" fn before() {
        ANSWERING.hold(|()| {});
    }
    extern "C" fn after() {
        // SAFETY: `before` was called in this thread.
        unsafe { ANSWERING.let_go() };
    }
    ONCE.call_once(|| at_fork(before, after, after));
}
