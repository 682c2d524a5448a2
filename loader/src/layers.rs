//! Layers: the places where symbols are searched, in an order that is data, walked by one function.

pub(crate) mod chains;
mod held;
mod host;
mod images;
mod process;
pub(crate) mod readers;
mod shared;
mod space;
mod wide;

pub(crate) use held::Held;
pub(crate) use host::Host;
pub(crate) use process::{Closure, Process, ProcessView};
pub(crate) use shared::{guarded_by, is_mangled, same_party};
pub(crate) use space::{Common, Exports, Space};

use crate::image::SymbolKind;
use crate::image::symbols::{Import, Name, PartialHash, Symbols};
use crate::image::versions::Version;
use crate::loader::Member;
use crate::stand_ins;
use readers::Section;
use std::fmt;

/// One place where symbols are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The unit that asks, as far as its definitions are strong.
    Unit,
    /// What the host defined.
    Host,
    /// Code compiled in this process and not in an image.
    Fresh,
    /// Loaded images, in load order.
    Images,
    /// The program, its libraries and the libraries that were opened.
    Process,
    /// Archives and lazy libraries: code that is known and gets loaded when something needs it.
    Archives,
    /// Libraries looked for when nothing else has a symbol.
    OnDemand,
    /// Functions that Hotbed gives to units instead of glibc's. Explanations name it; no order needs to.
    Runtime,
}

impl Layer {
    /// Whether there is anything in this layer yet that could be asked.
    pub(crate) fn is_searched(self) -> bool {
        match self {
            Self::Unit | Self::Host | Self::Images | Self::Process => true,
            Self::Fresh | Self::Archives | Self::OnDemand | Self::Runtime => false,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unit => "the unit itself",
            Self::Host => "host definitions",
            Self::Fresh => "fresh code",
            Self::Images => "loaded images",
            Self::Process => "the process",
            Self::Archives => "archives, lazy libraries",
            Self::OnDemand => "libraries found on demand",
            Self::Runtime => "Hotbed itself",
        })
    }
}

/// The order in which layers are asked when nothing else was said.
pub(crate) const DEFAULT_ORDER: [Layer; 7] =
    [Layer::Unit, Layer::Host, Layer::Fresh, Layer::Images, Layer::Process, Layer::Archives, Layer::OnDemand];

/// An answer to the question where a symbol is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Its address; that of the calling thread's instance for a thread-local variable.
    pub address: usize,
    /// Who had it.
    pub layer: Layer,
    /// Name of the unit, path of the library, `host` for a host definition, or empty for the program itself.
    pub unit: String,
    /// What it is.
    pub kind: SymbolKind,
}

/// What a symbol stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    /// Something at this address.
    Address(usize),
    /// A function whose address the function at this address gives, once its image is bound.
    Resolver(usize),
    /// A thread-local variable.
    Tls {
        /// Number of the module, ours or glibc's.
        module: usize,
        /// Offset in its block.
        offset: usize,
        /// Whether the block is at the same distance from the thread pointer in every thread.
        fixed: bool,
    },
}

/// Who defines a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// The unit that asks.
    Unit,
    /// The host.
    Host,
    /// The image at this place among those that are held.
    Image(usize),
    /// The image at this place in the group that is being loaded.
    Member(usize),
    /// The program or library at this place in the view of the process.
    Process(usize),
    /// Some library that glibc found and did not name.
    Unknown,
    /// Hotbed itself.
    Runtime,
}

/// A definition that a layer has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// What it stands for.
    pub(crate) value: Value,
    /// What it is.
    pub(crate) kind: SymbolKind,
    /// Whether it is weak or otherwise shared.
    pub(crate) shared: bool,
    /// Who has it.
    pub(crate) party: Party,
    /// In which layer.
    pub(crate) layer: Layer,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a> {
    /// Its name.
    pub(crate) name: Name<'a>,
    /// The version it must have.
    pub(crate) version: Option<&'a Version>,
    /// Whether somebody has a definition of his own that counts only if nobody was earlier, and of what.
    pub(crate) shared: Option<SymbolKind>,
}

/// All layers, as they are at one moment for one image that is being loaded.
pub(crate) struct Layers<'a> {
    /// The namespace.
    pub(crate) space: &'a Space,
    /// What the host defined.
    pub(crate) host: &'a Host,
    /// The process.
    pub(crate) process: &'a ProcessView,
    /// The images that are being loaded together.
    pub(crate) group: &'a [Member],
    /// Place in the group of the one that asks; past its end when it is none of them.
    pub(crate) position: usize,
    /// The images that answers came from.
    pub(crate) held: &'a Held,
    /// Under [`Common::binding`].
    pub(crate) section: Section,
    /// Whether there is nobody but the one that asks and the process.
    alone: bool,
    /// The same, and the process is asked.
    process_only: bool,
}

impl<'a> Layers<'a> {
    /// What the image at `position` of `group` is to ask.
    pub(crate) fn new(
        space: &'a Space,
        host: &'a Host,
        process: &'a ProcessView,
        (group, position): (&'a [Member], usize),
        held: &'a Held,
        section: Section,
    ) -> Self {
        let alone = position < group.len()
            && group.len() == 1
            && host.is_empty()
            && space.scope().all(Space::is_vacant);
        let process_only = alone && space.order.contains(&Layer::Process);
        Self { space, host, process, group, position, held, section, alone, process_only }
    }

    /// What an import gets, where nobody but the process is asked and has been asked before, and the place in the view of
    /// the process of who has it, if it is not a stand-in. Where nobody has a name of that hash, that is all that is looked at.
    #[inline(always)]
    pub(crate) fn remembered(&self, symbols: &Symbols, import: Import) -> Option<(Value, Option<usize>)> {
        if !self.process_only {
            return None;
        }
        if stand_ins::may_be(import.hash) {
            return self.remembered_or_replaced(symbols, import);
        }
        let (value, at) = self.process.remembered(symbols, import, &self.section)?;
        Some((*value, Some(at)))
    }

    #[inline(never)]
    fn remembered_or_replaced(&self, symbols: &Symbols, import: Import) -> Option<(Value, Option<usize>)> {
        let name = symbols.name_of(import)?;
        if stand_ins::always(name).is_some() || stand_ins::unwinds(name) {
            return None;
        }
        let (value, at) = self.process.remembered(symbols, import, &self.section)?;
        let stand_in = stand_ins::instead_of_process(name).map(|address| (Value::Address(address), None));
        Some(stand_in.unwrap_or((*value, Some(at))))
    }

    /// Whether there is nobody but the one that asks and the process.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whether any layer may have a name of which only a part of the hash is known: a quick no.
    pub(crate) fn may_have(&self, hash: PartialHash) -> bool {
        self.may_come_first(hash) || self.process.may_have(hash)
    }

    /// The same for everything but the process.
    #[inline]
    pub(crate) fn may_come_first(&self, hash: PartialHash) -> bool {
        !self.alone && self.others_may_have(hash)
    }

    fn others_may_have(&self, hash: PartialHash) -> bool {
        let others = self.group.iter().enumerate().filter(|(at, _)| *at != self.position);
        self.host.may_have(hash)
            || self.space.scope().any(|space| space.may_have(hash, &self.section))
            || others.into_iter().any(|(_, member)| member.mapped.symbols.filter().passes_partly(hash))
    }

    /// The first answer in the order. `own` is what the unit that asks has itself, if that is a strong definition.
    pub(crate) fn find(&self, query: &Query<'_>, own: Option<Found>) -> Option<Found> {
        if self.process_only && own.is_none() {
            return self.in_process(query);
        }
        self.space.order.iter().find_map(|layer| match layer {
            Layer::Unit => own,
            Layer::Host => self.host.find(query.name),
            Layer::Images => images::find(self, query),
            Layer::Process => self.in_process(query),
            Layer::Fresh | Layer::Archives | Layer::OnDemand | Layer::Runtime => None,
        })
    }

    /// What the process has. A shared definition whose name is not mangled belongs to whoever has it, as a C program's
    /// own `init` must not become the host's; but a variable that is shared on both sides is one variable (C++ does
    /// not mangle the names of global variables).
    fn in_process(&self, query: &Query<'_>) -> Option<Found> {
        match query.shared {
            None => self.process.find_under(query, &self.section),
            Some(_) if is_mangled(query.name.bytes) => self.process.find_under(query, &self.section),
            Some(SymbolKind::Data | SymbolKind::Tls) => {
                self.process.find_under(query, &self.section).filter(|found| found.shared)
            }
            Some(SymbolKind::Function | SymbolKind::IndirectFunction) => None,
        }
    }
}
