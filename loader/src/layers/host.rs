//! What the host defined: names and addresses.

use super::chains::{Chains, Link};
use super::readers::Section;
use super::{Found, Layer, Party, Value};
use crate::image::SymbolKind;
use crate::image::symbols::{Name, PartialHash};
use crate::sys::sync::Mutex;

/// The host's definitions. They are never taken back.
#[derive(Default)]
pub(crate) struct Host {
    names: Chains<Definition>,
    /// Owns what is in the table.
    definitions: Mutex<Vec<Box<[Link<Definition>]>>>,
}

struct Definition {
    name: Box<[u8]>,
    address: usize,
}

impl Host {
    /// Adds a definition; false when there is one of that name with another address.
    pub(crate) fn define(&self, name: &str, address: usize) -> bool {
        let mut definitions = self.definitions.lock();
        let known = Name::new(name.as_bytes());
        if let Some(known) = self.address(known) {
            return known == address;
        }
        let link = Link::new(known.key(), Definition { name: name.as_bytes().into(), address });
        definitions.push(Box::new([link]));
        if let Some(links) = definitions.last() {
            // SAFETY: the list only grows, and its boxes stay where they are until the table is dropped.
            unsafe { self.names.enter(links) };
        }
        true
    }

    fn address(&self, name: Name<'_>) -> Option<usize> {
        if self.names.is_empty() {
            return None;
        }
        let section = Section::enter();
        let found = self.names.of(name.key(), &section).find(|found| *found.name == *name.bytes);
        found.map(|found| found.address)
    }

    /// Whether there are none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether there may be one with either of two hashes.
    pub(crate) fn may_have(&self, hash: PartialHash) -> bool {
        !self.names.is_empty() && self.names.has(hash.key(), &Section::enter())
    }

    /// The definition of a name.
    pub(crate) fn find(&self, name: Name<'_>) -> Option<Found> {
        Some(Found {
            value: Value::Address(self.address(name)?),
            kind: SymbolKind::Function,
            shared: false,
            party: Party::Host,
            layer: Layer::Host,
        })
    }

    /// All names.
    pub(crate) fn names(&self) -> Vec<Vec<u8>> {
        self.definitions.lock().iter().flatten().map(|link| link.value.name.to_vec()).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The table goes first: it has pointers to the definitions.
        self.names = Chains::default();
    }
}
