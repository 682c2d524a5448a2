//! One filter over the names of several files: large images ask for tens of thousands of names, of which hardly one is there,
//! and asking each file's own filter takes as many times longer as there are files.

use crate::image::symbols::PartialHash;

/// A bit for each name, and fourteen others: one name in fifteen that nobody has is taken for one that somebody has.
const BITS_PER_NAME: usize = 15;

/// See the module's description.
pub(super) struct ManyNames {
    /// A power of two of them.
    words: Box<[u64]>,
}

impl ManyNames {
    /// Of names with these hashes.
    pub(super) fn new(names: &[PartialHash]) -> Self {
        let bits = names.len() * BITS_PER_NAME;
        let mut words = vec![0; bits.div_ceil(64).max(1).next_power_of_two()].into_boxed_slice();
        for &name in names {
            let (word, bit) = place(name, words.len());
            words[word] |= bit;
        }
        Self { words }
    }

    /// Whether one may have that hash: a quick no.
    #[inline]
    pub(super) fn may_have(&self, hash: PartialHash) -> bool {
        let (word, bit) = place(hash, self.words.len());
        self.words[word] & bit != 0
    }
}

/// Where the bit of a hash is, in so many words.
#[inline]
fn place(hash: PartialHash, words: usize) -> (usize, u64) {
    // Neighbouring hashes are of similar names: they are spread by the golden ratio.
    let spread = u64::from(hash.key()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((spread >> 32) as usize & (words - 1), 1 << (spread >> 26 & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::symbols::Name;

    #[test]
    fn what_is_there_passes_and_most_others_do_not() {
        let hash = |number: u32| PartialHash::of(Name::new(format!("_ZN4name{number}Ev").as_bytes()).hash);
        let names = ManyNames::new(&(0..10_000).map(hash).collect::<Vec<_>>());
        assert!((0..10_000).all(|number| names.may_have(hash(number))));
        let wrong = (10_000..20_000).filter(|&number| names.may_have(hash(number))).count();
        assert!(wrong < 1_500, "{wrong}");
        assert!(!ManyNames::new(&[]).may_have(hash(0)));
    }
}
