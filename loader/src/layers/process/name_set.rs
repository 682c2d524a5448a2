//! A set of few names that is asked often: all hashes lie side by side, and a text is looked at when its hash fits.

use crate::image::symbols::Name;

/// Names; it does not change.
pub(super) struct NameSet {
    hashes: Box<[u32]>,
    names: Box<[Box<[u8]>]>,
}

impl NameSet {
    /// A set of these.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let names: Box<[Box<[u8]>]> = names.map(Box::from).collect();
        Self { hashes: names.iter().map(|name| Name::new(name).hash).collect(), names }
    }

    /// Whether `name` is in it.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        let hash = Name::new(name).hash;
        let mut of_hash = self.hashes.iter().zip(&self.names).filter(|(known, _)| **known == hash);
        of_hash.any(|(_, known)| **known == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_it_or_is_not() {
        let set = NameSet::new([&b"libc.so.6"[..], b"libm.so.6", b""].into_iter());
        assert!(set.has(b"libc.so.6") && set.has(b"libm.so.6") && set.has(b""));
        assert!(!set.has(b"libc.so") && !set.has(b"libc.so.61"));
        assert!(!NameSet::new(std::iter::empty()).has(b""));
    }
}
