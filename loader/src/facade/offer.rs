//! What is offered to a library, and what must stay because of it.
//!
//! The rule is a linker's for what an executable exports to the libraries on its line: a definition that one of them
//! refers to, or has itself, so that a program's own `operator new` is the C++ library's too. Weak definitions are offered
//! to who refers to them, not to who has his own. Left out is what was in the process from the start, as it is found
//! before any facade. A thread-local variable has no one address that could be offered.

use super::Facade;
use super::wanted::LibraryFile;
use super::write::{Offer, OfferKind};
use crate::image::elf::{STT_TLS, Symbol};
use crate::image::map::Mapped;
use crate::image::symbols::{Name, Symbols};
use crate::image::{Image, SymbolKind, address_of, own_value};
use crate::layers::Value;
use crate::sys::sync::Mutex;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

/// Names that a linker gives to every file that asks for them.
const EVERYBODYS: [&[u8]; 6] = [b"_init", b"_fini", b"_end", b"_edata", b"_etext", b"__bss_start"];

/// Somebody who defines what may be offered, in the order of search.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// An image that is loaded.
    Loaded(&'a Arc<Image>),
    /// The image that is being loaded: relocated as far as can be before the library is opened.
    Loading {
        /// Its memory.
        mapped: &'a Mapped,
        /// The number of its thread-local module.
        module: Option<usize>,
        /// Its place among those that are loaded together.
        member: usize,
    },
}

/// What was chosen: the definitions, and from whom they are.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) offers: Vec<Offer>,
    pub(crate) images: Vec<Arc<Image>>,
    /// Places of those that are being loaded and of which something was chosen.
    pub(crate) members: Vec<usize>,
}

impl<'a> Source<'a> {
    fn symbols(self) -> &'a Symbols {
        match self {
            Self::Loaded(image) => image.symbols(),
            Self::Loading { mapped, .. } => &mapped.symbols,
        }
    }

    /// Where a definition is; for one that is shared, the one that all images use.
    fn address(self, name: &[u8], symbol: &Symbol) -> Option<usize> {
        match self {
            Self::Loaded(image) => Some(image.get(std::str::from_utf8(name).ok()?)?.address),
            Self::Loading { mapped, module, .. } => match own_value(&mapped.place, module, symbol)? {
                // Its resolver cannot be called before the image is complete.
                Value::Resolver(_) | Value::Tls { .. } => None,
                value => Some(address_of(value)),
            },
        }
    }

    /// Whether a definition can be offered to who refers to it. What the image that is being loaded shares with others is
    /// not decided yet.
    fn is_settled(self, symbol: &Symbol) -> bool {
        matches!(self, Self::Loaded(_)) || !symbol.is_shared()
    }
}

/// Chooses what to offer to `files`. `in_process` says what they find in any case; `own` says whose definitions they get
/// even of names that they define themselves.
///
/// # Errors
/// When a file refers to what cannot be offered.
pub(crate) fn choose<'a>(
    files: &[LibraryFile],
    sources: &[Source<'a>],
    own: impl Fn(Source<'a>) -> bool,
    in_process: impl Fn(Name<'_>) -> bool,
) -> Result<Chosen, String> {
    let mut chosen = Chosen::default();
    let mut seen: HashSet<&[u8]> = HashSet::new();
    for file in files {
        for reference in file.references() {
            let name = Name::new(reference.name);
            let Some((source, symbol, text)) = definition(sources, name) else { continue };
            if seen.contains(text) || in_process(name) {
                continue;
            }
            if symbol.kind() == STT_TLS || reference.thread_local {
                let elsewhere = files.iter().any(|file| file.defines(name));
                if reference.thread_local && symbol.kind() == STT_TLS && !reference.weak && !elsewhere {
                    return Err(format!(
                        "it refers to the thread-local variable `{}` of a unit, which ordinary libraries cannot reach",
                        String::from_utf8_lossy(text)
                    ));
                }
                continue;
            }
            if source.is_settled(symbol) && chosen.add(source, text, symbol) {
                seen.insert(text);
            }
        }
    }
    for source in sources.iter().copied().filter(|source| own(*source)) {
        for (_, symbol, text) in source.symbols().iter() {
            let strong = symbol.is_exported() && !symbol.is_shared() && symbol.kind() != STT_TLS;
            if !strong || seen.contains(text) || EVERYBODYS.contains(&text) {
                continue;
            }
            let name = Name::new(text);
            if files.iter().any(|file| file.defines(name))
                && !in_process(name)
                && chosen.add(source, text, symbol)
            {
                seen.insert(text);
            }
        }
    }
    Ok(chosen)
}

/// All that the image offers to everybody, as an executable that exports everything.
pub(crate) fn all(image: &Arc<Image>, in_process: impl Fn(Name<'_>) -> bool) -> Vec<Offer> {
    let mut chosen = Chosen::default();
    let source = Source::Loaded(image);
    for (_, symbol, text) in image.symbols().iter() {
        let offered = symbol.is_exported() && symbol.kind() != STT_TLS && !EVERYBODYS.contains(&text);
        if offered && !in_process(Name::new(text)) {
            chosen.add(source, text, symbol);
        }
    }
    chosen.offers
}

/// The first source that defines `name`, its definition, and the name as it stands there.
fn definition<'a>(
    sources: &[Source<'a>],
    name: Name<'_>,
) -> Option<(Source<'a>, &'static Symbol, &'static [u8])> {
    sources.iter().find_map(|source| {
        let (_, symbol) = source.symbols().find(name, None)?;
        Some((*source, symbol, source.symbols().text(symbol.name.into())?))
    })
}

impl Chosen {
    fn add(&mut self, source: Source<'_>, name: &[u8], symbol: &Symbol) -> bool {
        let Some(address) = source.address(name, symbol) else { return false };
        let kind = match SymbolKind::of(symbol) {
            SymbolKind::Function | SymbolKind::IndirectFunction => OfferKind::Function,
            SymbolKind::Data => OfferKind::Data,
            SymbolKind::Tls => return false,
        };
        match source {
            Source::Loaded(image) if !self.images.iter().any(|known| Arc::ptr_eq(known, image)) => {
                self.images.push(Arc::clone(image));
            }
            Source::Loaded(_) => {}
            Source::Loading { member, .. } if !self.members.contains(&member) => self.members.push(member),
            Source::Loading { .. } => {}
        }
        self.offers.push(Offer { name: name.to_vec(), address, kind, size: symbol.size });
        true
    }
}

/// The images that stay for a library.
type Images = Mutex<Vec<Arc<Image>>>;

/// Definitions that a library is bound to, shown to it by a facade. Dropped after the library was closed; until then, the
/// images that they are of stay.
#[derive(Debug)]
pub(crate) struct Offered {
    facade: Mutex<Option<Facade>>,
    images: Arc<Images>,
    /// Who is bound to them, for messages.
    library: Box<str>,
}

impl Offered {
    /// Opens a facade for the library that goes by that name; `None` when there is nothing to offer.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub(crate) fn open(chosen: Chosen, library: &str) -> Result<Option<Self>, String> {
        if chosen.offers.is_empty() {
            return Ok(None);
        }
        let facade = Facade::open(&chosen.offers)?;
        let offered =
            Self { facade: Mutex::new(Some(facade)), images: Arc::default(), library: library.into() };
        chosen.images.into_iter().for_each(|image| offered.keep(image));
        Ok(Some(offered))
    }

    /// Adds an image that must stay.
    pub(crate) fn keep(&self, image: Arc<Image>) {
        image.offered_to().add(&self.library, &self.images);
        self.images.lock().push(image);
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        let gone = self.facade.get_mut().take().is_none_or(Facade::close);
        let images = std::mem::take(&mut *self.images.lock());
        if gone {
            images.iter().for_each(|image| image.offered_to().remove(&self.library));
        } else {
            // Somebody who is never unloaded is bound to the facade.
            std::mem::forget(images);
        }
    }
}

/// What a library was offered, with the library's identity: dropped when it was closed, it is kept all the same if the
/// library is still there, because others have it open or it is of the kind that is never unloaded.
#[derive(Debug)]
pub(crate) struct KeptFor {
    /// Address of the library's dynamic section.
    pub(crate) dynamic: usize,
    /// What it was offered.
    pub(crate) offered: Option<Arc<Offered>>,
}

impl Drop for KeptFor {
    fn drop(&mut self) {
        if let Some(offered) = self.offered.take()
            && crate::sys::libraries::is_loaded(self.dynamic)
        {
            std::mem::forget(offered);
        }
    }
}

/// The libraries that are bound to an image through facades, by name.
#[derive(Debug, Default)]
pub(crate) struct OfferedTo(Mutex<Vec<(Box<str>, Weak<Images>)>>);

impl OfferedTo {
    fn add(&self, library: &str, images: &Arc<Images>) {
        self.0.lock().push((library.into(), Arc::downgrade(images)));
    }

    fn remove(&self, library: &str) {
        let mut list = self.0.lock();
        if let Some(at) = list.iter().position(|(known, _)| **known == *library) {
            list.swap_remove(at);
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().iter().map(|(name, _)| name.clone().into()).collect()
    }

    /// Has no library keep `image`, whose list this is, any more, though they stay bound to it.
    pub(crate) fn let_go(&self, image: &Arc<Image>) {
        let lists = std::mem::take(&mut *self.0.lock());
        for images in lists.iter().filter_map(|(_, images)| images.upgrade()) {
            // The last to hold the image must not be dropped with the lock held.
            let gone: Vec<_> = images.lock().extract_if(.., |known| Arc::ptr_eq(known, image)).collect();
            drop(gone);
        }
    }
}
