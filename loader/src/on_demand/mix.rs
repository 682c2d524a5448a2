//! Mixing words: the checksum of what is read of the index at every question, and where a name's bits are in its filter.
//!
//! A question shall not cost more than the memory it touches, so this is one multiplication a word and no cryptographic hash:
//! it tells what was written from what a crash or a disk made of it, and nobody else can write to an index. Damage
//! inside of one word is always noticed, for every step can be undone; any other damage is missed once in 2^64.

/// Odd, so that multiplying by it can be undone.
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
/// Sums of words that do not wait for each other.
const LANES: usize = 4;
/// Not zero, so that zeros are not their own checksum.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Stirs `word` into `state`: another value for every other word, and for every other state.
pub(super) fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(FACTOR);
    product ^ (product >> 32)
}

/// The checksum of words, which are little endian.
pub(super) fn checksum(words: &[[u8; 8]]) -> u64 {
    let mut lanes = [SEED; LANES];
    for group in words.chunks(LANES) {
        for (lane, word) in lanes.iter_mut().zip(group) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    }
    lanes.into_iter().fold(words.len() as u64, mix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn damage_is_noticed() {
        let words: Vec<[u8; 8]> = (0..511_u64).map(|at| (at * at).to_le_bytes()).collect();
        let mut seen = HashSet::from([checksum(&words)]);
        let mut is_new = |words: &[[u8; 8]], what: &str| assert!(seen.insert(checksum(words)), "{what}");
        for bit in 0..words.len() * 64 {
            let mut other = words.clone();
            other[bit / 64][bit % 64 / 8] ^= 1 << (bit % 8);
            is_new(&other, &format!("bit {bit}"));
        }
        for at in 1..words.len() {
            let mut other = words.clone();
            other.swap(0, at);
            is_new(&other, &format!("words 0 and {at} in each other's place"));
            is_new(&words[at..], &format!("{at} words less"));
            other = words.clone();
            other[at..].fill([0; 8]);
            is_new(&other, &format!("zeros from {at} on"));
        }
    }

    #[test]
    fn zeros_are_not_their_own_checksum() {
        for length in [1, 7, 511] {
            assert_ne!(checksum(&vec![[0; 8]; length]), 0, "{length}");
        }
    }
}
