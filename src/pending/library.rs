//! A lazy library: what makes it, and what it has as far as that can be known without making it.
//!
//! What it has is known from its image: one that was made in this process, or that the store has, for as long as everything
//! that went into it is what it was. Nothing is compiled for that, and nothing mapped. A list that the host declares
//! narrows that down, and is what is known before there is an image. Text tells nothing for certain (names are pasted together, come from headers,
//! are mangled), so without an image and a list a library may have anything: it is compiled to find out.

use super::Says;
use crate::archive::Definition;
use crate::provenance::Provenance;
use crate::unit::Making;
use hotbed_loader::boundary::{Content, Request};
use hotbed_loader::store::Key;
use hotbed_loader::sys::files;
use hotbed_loader::sys::sync::Mutex;
use hotbed_loader::{SymbolKind, demangle};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, Sym};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

/// See the module's description.
pub(crate) struct LazyLibrary {
    pub(crate) request: Arc<Request>,
    pub(crate) key: Key,
    declared: Option<BTreeSet<String>>,
    known: Mutex<Option<Known>>,
    /// How it was made, once it is loaded; the unit's too.
    making: Arc<OnceLock<Making>>,
}

/// What its image has.
struct Known {
    exports: Exports,
    /// As long as this holds.
    provenance: Provenance,
}

/// What an image exports.
#[derive(Debug, Default)]
pub(crate) struct Exports(HashMap<String, Definition>);

impl LazyLibrary {
    pub(crate) fn new(request: Arc<Request>, key: Key, declared: Option<BTreeSet<String>>) -> Self {
        Self { request, key, declared, known: Mutex::default(), making: Arc::default() }
    }

    /// Where it will stand how it was made.
    pub(crate) fn making(&self) -> Arc<OnceLock<Making>> {
        Arc::clone(&self.making)
    }

    /// It is loaded.
    pub(super) fn keep(&self, making: Making) {
        // Nobody loads it twice.
        let _ = self.making.set(making);
    }

    /// What it says of `name`.
    pub(super) fn says(&self, name: &str) -> Says {
        if !self.may_give(name) {
            return Says::HasNot;
        }
        match &*self.known.lock() {
            Some(known) => known.exports.get(name).map_or(Says::HasNot, Says::Has),
            None => Says::MayHave,
        }
    }

    /// Whether it is known to have `name`, whatever others are told.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.known.lock().as_ref().is_some_and(|known| known.exports.get(name).is_some())
    }

    /// Whether it is loaded for `name` if it has it.
    pub(crate) fn may_give(&self, name: &str) -> bool {
        self.declared.as_ref().is_none_or(|declared| declared.contains(name))
    }

    /// Whether the host has declared a list of what it has.
    pub(crate) fn has_list(&self) -> bool {
        self.declared.is_some()
    }

    /// What it has, as far as that is known.
    pub(super) fn names(&self) -> Vec<String> {
        match (&*self.known.lock(), &self.declared) {
            (Some(known), _) => known.exports.names().map(str::to_owned).collect(),
            (None, Some(declared)) => declared.iter().cloned().collect(),
            (None, None) => Vec::new(),
        }
    }

    /// Notes what an image of it exports that was made of what `provenance` says.
    pub(crate) fn learn(&self, exports: Exports, provenance: Provenance) {
        *self.known.lock() = Some(Known { exports, provenance });
    }

    /// Whether it is known what it has; what was known before something changed is not.
    pub(crate) fn is_known(&self) -> bool {
        let mut known = self.known.lock();
        if known.as_mut().is_some_and(|known| known.provenance.check().is_err()) {
            *known = None;
        }
        known.is_some()
    }

    /// The text of its inputs.
    pub(crate) fn text(&self) -> Vec<Vec<u8>> {
        let text = |content: &Content| match content {
            Content::Bytes { bytes, .. } => Some(bytes.clone()),
            // What cannot be read is said when it is compiled.
            Content::File(path) => {
                let (file, status) = files::open_regular(&self.request.directory.join(path)).ok()?;
                files::contents_of(&file, status.identity.size).ok()
            }
        };
        self.request.inputs().filter_map(|input| text(&input.content)).collect()
    }
}

/// Whether a symbol called `name` is mentioned in `text`: as it is, or as C++ source would.
pub(crate) fn mentions(text: &[u8], name: &str) -> bool {
    let text = String::from_utf8_lossy(text);
    let source = demangle(name);
    let plain = source.as_deref().map(|source| {
        let end = source.find(['(', '<', '[']).unwrap_or(source.len());
        source[..end].rsplit([':', ' ', '~']).next().unwrap_or(source)
    });
    text.contains(name) || plain.is_some_and(|plain| !plain.is_empty() && text.contains(plain))
}

impl Exports {
    /// Those of an image; none where it is damaged, which mapping it will find out.
    pub(crate) fn of(image: &[u8]) -> Self {
        Self::read(image).unwrap_or_default()
    }

    fn read(image: &[u8]) -> object::Result<Self> {
        let sections = FileHeader64::<LE>::parse(image)?.sections(LE, image)?;
        let symbols = sections.symbols(LE, image, elf::SHT_DYNSYM)?;
        let defined = symbols.iter().filter(|symbol| !symbol.is_undefined(LE) && !symbol.is_local());
        let all = defined.filter_map(|symbol| {
            let name = std::str::from_utf8(symbols.symbol_name(LE, symbol).ok()?).ok()?;
            let kind = match symbol.st_type() {
                elf::STT_GNU_IFUNC => SymbolKind::IndirectFunction,
                elf::STT_TLS => SymbolKind::Tls,
                elf::STT_OBJECT | elf::STT_COMMON => SymbolKind::Data,
                _ => SymbolKind::Function,
            };
            let weak = symbol.st_bind() != elf::STB_GLOBAL;
            Some((name.to_owned(), Definition { member: 0, kind, weak }))
        });
        Ok(Self(all.collect()))
    }

    /// The definition of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<Definition> {
        self.0.get(name).copied()
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mentioned_as_they_are_and_as_source_has_them() {
        let text = b"namespace n { int twice(int x) { return 2 * x; } } int plain; \xff";
        assert!(mentions(text, "plain"));
        assert!(mentions(text, "_ZN1n5twiceEi"));
        assert!(!mentions(text, "_ZN1n6thriceEi"));
        assert!(!mentions(text, "other"));
    }
}
