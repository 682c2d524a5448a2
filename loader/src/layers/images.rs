//! Loaded images, in load order.

use super::{Found, Layer, Layers, Party, Query};
use crate::image::SymbolKind;

/// The first image's answer.
///
/// A shared definition counts only where it has won: an image whose own references went elsewhere does not offer its
/// copy. Where nobody has asked for it yet, the answer is found, and recorded, as if the image itself had asked when
/// it was loaded.
pub(super) fn find(layers: &Layers<'_>, query: Query<'_>) -> Option<Found> {
    for (at, image) in layers.images.iter().enumerate() {
        let Some((index, symbol)) = image.symbols().find(query.name, query.version) else { continue };
        if symbol.is_shared() {
            let query = Query { shared: Some(SymbolKind::of(symbol)), ..query };
            let own = image.shared().decide(index, || layers.in_process(query).is_none());
            if !own {
                continue;
            }
        }
        let (value, kind) = image.value_of(symbol);
        return Some(Found {
            value,
            kind,
            shared: symbol.is_shared(),
            party: Party::Image(at),
            layer: Layer::Images,
        });
    }
    None
}
