//! Loaded images, in load order: those of the namespace, those of the namespaces that it sees, and those that are
//! being loaded together with the one that asks.

use super::{Found, Layer, Layers, Party, Query};
use crate::image::{SymbolKind, own_value};

/// The first image's answer.
///
/// A shared definition counts only where it has won: an image whose own references went elsewhere does not offer its
/// copy. Where nobody has asked for it yet, the answer is found, and recorded, as if the image itself had asked when
/// it was loaded.
pub(super) fn find(layers: &Layers<'_>, query: &Query<'_>) -> Option<Found> {
    let loaded = layers.space.scope().find_map(|space| {
        space.find(query.name, query.version, &layers.section, |image, index, symbol| {
            if symbol.is_shared() {
                let query = Query { shared: Some(SymbolKind::of(symbol)), ..*query };
                if !image.shared().decide(index, || layers.in_process(&query).is_none()) {
                    return None;
                }
            }
            let (value, kind) = image.value_of(symbol);
            // One that is ending has nothing to offer.
            let party = Party::Image(layers.held.hold(image)?);
            Some(Found { value, kind, shared: symbol.is_shared(), party, layer: Layer::Images })
        })
    });
    loaded.or_else(|| in_group(layers, query))
}

/// The answer of an image that is being loaded at the same time. They are in load order as well: whoever has a shared
/// definition of his own does not ask those behind him.
fn in_group(layers: &Layers<'_>, query: &Query<'_>) -> Option<Found> {
    for (at, member) in layers.group.iter().enumerate() {
        if at == layers.position {
            if query.shared.is_some() {
                return None;
            }
            continue;
        }
        let Some((_, symbol)) = member.mapped.symbols.find(query.name, query.version) else { continue };
        if symbol.is_shared() {
            let query = Query { shared: Some(SymbolKind::of(symbol)), ..*query };
            if layers.in_process(&query).is_some() {
                continue;
            }
        }
        let Some(value) = own_value(&member.mapped.place, member.module(), symbol) else { continue };
        return Some(Found {
            value,
            kind: SymbolKind::of(symbol),
            shared: symbol.is_shared(),
            party: Party::Member(at),
            layer: Layer::Images,
        });
    }
    None
}
