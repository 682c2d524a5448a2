//! What the host defined: names and addresses.

use super::{Found, Layer, Party, Query, Value};
use crate::image::SymbolKind;
use parking_lot::{RwLock, RwLockReadGuard};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The host's definitions. They are never taken back.
#[derive(Debug, Default)]
pub(crate) struct Host(RwLock<HashMap<Vec<u8>, usize>>);

impl Host {
    /// Adds a definition; false when there is one of that name with another address.
    pub(crate) fn define(&self, name: &str, address: usize) -> bool {
        match self.0.write().entry(name.as_bytes().to_vec()) {
            Entry::Occupied(entry) => *entry.get() == address,
            Entry::Vacant(entry) => {
                entry.insert(address);
                true
            }
        }
    }

    /// The definitions as they are now; no other is made as long as this is held.
    pub(crate) fn read(&self) -> Definitions<'_> {
        Definitions(self.0.read())
    }
}

/// The host's definitions, held still.
pub(crate) struct Definitions<'a>(RwLockReadGuard<'a, HashMap<Vec<u8>, usize>>);

impl Definitions<'_> {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, query: Query<'_>) -> Option<Found> {
        if self.is_empty() {
            return None;
        }
        Some(Found {
            value: Value::Address(*self.0.get(query.name.bytes)?),
            kind: SymbolKind::Function,
            shared: false,
            party: Party::Host,
            layer: Layer::Host,
        })
    }
}
