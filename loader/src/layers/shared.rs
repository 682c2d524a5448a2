//! Definitions of which several files may have one, and all must use the same: inline variables and functions,
//! template statics, type information. The first that was loaded wins.
//!
//! A variable with a dynamic initialiser has a guard, a symbol of its own, which says whether that has run. Both
//! must be the same party's, or a variable is initialised twice or never.

use super::{Found, Layer, Layers, Party, Value};
use crate::image::symbols::Name;
use crate::image::{SymbolKind, own_value};
use std::sync::atomic::AtomicU64;

/// Whether a name is mangled as C++ does.
pub(crate) fn is_mangled(name: &[u8]) -> bool {
    name.starts_with(b"_Z")
}

/// Names that the variable guarded by `name` may have, likelier first; none when `name` is no guard.
///
/// A variable in the global namespace is not mangled, but its guard is.
pub(crate) fn guarded_by(name: &[u8]) -> Option<[Vec<u8>; 2]> {
    let encoding = name.strip_prefix(b"_ZGV")?;
    let digits = encoding.iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some([[b"_Z", encoding].concat(), encoding[digits..].to_vec()])
}

/// The guard that a party has for a variable of its, given the guard's name: its own, or, where it has none because
/// the variable needs no initialiser there, one that says that it has run.
///
/// `None` for the program: it may well have a guard and not export it.
pub(crate) fn same_party(layers: &Layers<'_>, variable: Party, guard: Name<'_>) -> Option<Found> {
    /// Read by guarded initialisers only, which leave it alone as its first byte is not zero.
    static INITIALISED: AtomicU64 = AtomicU64::new(1);
    let found = match variable {
        Party::Image(at) => {
            let image = layers.held.get(at)?;
            image.symbols().find(guard, None).map(|(_, symbol)| {
                let (value, kind) = image.value_of(symbol);
                Found { value, kind, shared: true, party: variable, layer: Layer::Images }
            })
        }
        Party::Member(at) => {
            let member = layers.group.get(at)?;
            member.mapped.symbols.find(guard, None).and_then(|(_, symbol)| {
                let value = own_value(&member.mapped.place, member.module(), symbol)?;
                let kind = SymbolKind::of(symbol);
                Some(Found { value, kind, shared: true, party: variable, layer: Layer::Images })
            })
        }
        Party::Process(at) => {
            let found = layers.process.find_in(at, guard, None);
            if found.is_none() && at == 0 {
                return None;
            }
            found
        }
        Party::Unit => return None,
        Party::Host | Party::Unknown | Party::Runtime => None,
    };
    Some(found.unwrap_or(Found {
        value: Value::Address(INITIALISED.as_ptr() as usize),
        kind: SymbolKind::Data,
        shared: true,
        party: Party::Runtime,
        layer: Layer::Process,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_name_their_variables() {
        let names = |name: &str| guarded_by(name.as_bytes());
        assert_eq!(names("_ZGVZ1fvE1s"), Some([b"_ZZ1fvE1s".to_vec(), b"Z1fvE1s".to_vec()]));
        assert_eq!(names("_ZGV7counter"), Some([b"_Z7counter".to_vec(), b"counter".to_vec()]));
        assert_eq!(names("_ZTV1A"), None);
    }
}
