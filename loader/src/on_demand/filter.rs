//! The filter in front of the index: lines that say for most names that nobody has them, so that such a question costs
//! one line of the processor's cache.
//!
//! ```text
//! line        64 bytes:
//!     checksum    u64        of the rest, see `mix`
//!     words       u64 each, 7: a name that somebody has is a bit in each
//! ```
//!
//! The line and the bits come from the name's hash in the index. A line has 32 names on the average and passes one name
//! in some hundred that it does not have; the index itself then says so.

use super::index::Damaged;
use super::mix::{checksum, mix};

/// Bytes of a line.
pub(super) const LINE: usize = 64;
/// Words of a line after the checksum.
const WORDS: usize = LINE / 8 - 1;
/// How many names a line has on the average, at most.
const NAMES: usize = 32;

/// How many lines are wanted for so many names, a multiple of `step`.
pub(super) fn lines_for(names: usize, step: usize) -> usize {
    names.div_ceil(NAMES).next_multiple_of(step)
}

/// The filter for names of these hashes, of so many lines.
pub(super) fn encode(hashes: impl Iterator<Item = u64>, lines: usize) -> Vec<u8> {
    let mut all = vec![[0_u64; WORDS]; lines];
    for hash in hashes {
        if let Some(words) = all.get_mut(line_of(hash, lines)) {
            words.iter_mut().zip(bits_of(hash)).for_each(|(word, bit)| *word |= bit);
        }
    }
    let mut bytes = Vec::with_capacity(lines * LINE);
    for line in all {
        let words = line.map(u64::to_le_bytes);
        bytes.extend_from_slice(&checksum(&words).to_le_bytes());
        bytes.extend_from_slice(words.as_flattened());
    }
    bytes
}

/// Which of so many lines has the name of that hash; 0 if there are none.
pub(super) fn line_of(hash: u64, lines: usize) -> usize {
    // The upper bits choose the line, the lower ones what is in it.
    ((u128::from(mix(0, hash)) * lines as u128) >> 64) as usize
}

/// Whether somebody may have the name of that hash, which is on this line.
///
/// # Errors
/// The line is not what was written.
pub(super) fn may_have(line: &[u8; LINE], hash: u64) -> Result<bool, Damaged> {
    let [sum, words @ ..] = line.as_chunks::<8>().0 else { return Err(Damaged) };
    if u64::from_le_bytes(*sum) != checksum(words) {
        return Err(Damaged);
    }
    Ok(words.iter().zip(bits_of(hash)).all(|(word, bit)| u64::from_le_bytes(*word) & bit != 0))
}

/// The bit of a name in each word.
fn bits_of(hash: u64) -> impl Iterator<Item = u64> {
    let mixed = mix(0, hash);
    (0..WORDS).map(move |word| 1 << ((mixed >> (6 * word)) & 63))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::index::hash;
    use super::*;

    fn ask(filter: &[u8], hash: u64) -> Result<bool, Damaged> {
        let lines = filter.as_chunks::<LINE>().0;
        may_have(&lines[line_of(hash, lines.len())], hash)
    }

    /// Hashes of names that differ in little.
    fn hashes(stem: &str, count: usize) -> impl Iterator<Item = u64> {
        (0..count).map(move |number| hash(format!("{stem}{number}").as_bytes()))
    }

    #[test]
    fn nobody_is_forgotten_and_few_others_pass() {
        for count in [1, 100, 50_000] {
            let lines = lines_for(count, 4);
            let filter = encode(hashes("there_", count), lines);
            assert_eq!(filter.len(), lines * LINE);
            assert!(hashes("there_", count).all(|hash| ask(&filter, hash).unwrap()));
            let passed =
                hashes("nobody_has_this_", 50_000).filter(|hash| ask(&filter, *hash).unwrap()).count();
            assert!(passed < 500, "{passed} of 50000 with {count} names");
        }
        assert_eq!((lines_for(0, 4), lines_for(1, 4), lines_for(129, 4)), (0, 4, 8));
        assert_eq!((line_of(u64::MAX, 0), encode(hashes("there_", 9), 0)), (0, Vec::new()));
    }

    #[test]
    fn every_bit_of_a_line_is_checked() {
        let name = hash(b"name");
        let line: [u8; LINE] = encode([name].into_iter(), 1).try_into().unwrap();
        assert_eq!(may_have(&line, name), Ok(true));
        for bit in 0..LINE * 8 {
            let mut line = line;
            line[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(may_have(&line, name), Err(Damaged), "bit {bit}");
        }
        assert_eq!(may_have(&[0; LINE], name), Err(Damaged), "zeros");
    }
}
