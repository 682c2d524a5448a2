//! The index of a link's unwind tables: what `ld` writes into `.eh_frame_hdr`, so that an unwinder finds a function by
//! halving and not by reading everything.

use hotbed_loader::boundary::ENTRY_HEAD;
use object::{Object, ObjectSection};
use std::ops::Range;

/// Version, and the encodings of the three parts: the section's place relative to the word, the count as a plain word, and
/// lines relative to the index.
const HEAD: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// Encodings of the address of a function: relative to where it stands or as it is, with four or eight bytes.
const RELATIVE: u8 = 0x10;
const FORMAT: u8 = 0x0f;

/// Whether JITLink may be given the unwind tables of an object, which has been checked as lld wants it.
pub(super) fn understood(object: &[u8]) -> bool {
    let Ok(file) = object::File::parse(object) else { return false };
    file.sections()
        .filter(|section| section.name_bytes() == Ok(b".eh_frame"))
        .all(|section| section.data().is_ok_and(|frames| functions(frames, 0).is_some()))
}

/// An entry as `FreshArea` wants it for the section `frames`, which lies at `address`; the entry will lie at `at`. `linked` is
/// the code, `base` what distances are counted from. `None` if the section is not understood.
pub(super) fn entry(
    frames: &[u8],
    address: usize,
    at: usize,
    linked: &Range<usize>,
    base: usize,
) -> Option<Vec<u8>> {
    let index = at + ENTRY_HEAD;
    let mut lines = Vec::new();
    for (function, record) in functions(frames, address)? {
        // What was never linked has an address of nothing.
        if linked.contains(&function) {
            lines.push((distance(index, function)?, distance(index, record)?));
        }
    }
    lines.sort_unstable();
    let mut bytes = Vec::with_capacity(ENTRY_HEAD + 12 + 8 * lines.len());
    bytes.extend(u32::try_from(linked.start - base).ok()?.to_le_bytes());
    bytes.extend(u32::try_from(linked.len()).ok()?.to_le_bytes());
    bytes.extend(HEAD);
    bytes.extend(distance(index + 4, address)?.to_le_bytes());
    bytes.extend(u32::try_from(lines.len()).ok()?.to_le_bytes());
    for (function, record) in lines {
        bytes.extend(function.to_le_bytes());
        bytes.extend(record.to_le_bytes());
    }
    Some(bytes)
}

fn distance(from: usize, to: usize) -> Option<i32> {
    i32::try_from(to as i64 - from as i64).ok()
}

/// The address of every function in the section, and that of its record.
fn functions(frames: &[u8], address: usize) -> Option<Vec<(usize, usize)>> {
    let mut found = Vec::new();
    // Where a description of several functions stands, and how it encodes their addresses; mostly there is one.
    let mut common: Vec<(usize, u8)> = Vec::new();
    let mut at = 0;
    while at < frames.len() {
        let length = u32_at(frames, at)? as usize;
        if length == 0 {
            break;
        }
        let body = at + 4;
        let record = frames.get(body..body.checked_add(length)?)?;
        let parent = u32_at(record, 0)? as usize;
        if parent == 0 {
            common.push((at, encoding(record)?));
        } else {
            let parent = body.checked_sub(parent)?;
            let encoding = common.iter().rev().find(|(place, _)| *place == parent)?.1;
            let place = address + body + 4;
            let value = match length_of(encoding)? {
                4 => i64::from(u32_at(record, 4)? as i32),
                _ => i64::from_le_bytes(record.get(4..12)?.try_into().ok()?),
            };
            let from = if encoding & RELATIVE == 0 { 0 } else { place };
            let function = from.wrapping_add(value as usize);
            found.push((function, address + at));
        }
        at = body + length;
    }
    Some(found)
}

/// How a description encodes the addresses of its functions; `None` for what JITLink does not expect, as it would not
/// notice.
fn encoding(record: &[u8]) -> Option<u8> {
    let version = *record.get(4)?;
    let letters = record.get(5..)?;
    let letters = &letters[..letters.iter().position(|byte| *byte == 0)?];
    let mut at = 5 + letters.len() + 1;
    // The factors of code and data, and the register of the return address.
    skip_number(record, &mut at)?;
    skip_number(record, &mut at)?;
    if version == 1 {
        at += 1;
    } else {
        skip_number(record, &mut at)?;
    }
    let letters = match letters {
        [] => return Some(0),
        [b'z', letters @ ..] => letters,
        _ => return None,
    };
    skip_number(record, &mut at)?;
    let mut functions = 0;
    for (index, letter) in letters.iter().enumerate() {
        let encoding = *record.get(at)?;
        let length = length_of(encoding)?;
        at += 1;
        match letter {
            _ if letters[..index].contains(letter) => return None,
            b'R' => functions = encoding,
            b'L' => {}
            // The routine itself follows.
            b'P' => at += length,
            _ => return None,
        }
    }
    Some(functions)
}

/// How many bytes a pointer takes that is encoded so.
fn length_of(encoding: u8) -> Option<usize> {
    /// What is found there is not the address but where that stands.
    const INDIRECT: u8 = 0x80;
    match encoding & FORMAT {
        _ if encoding & !(FORMAT | RELATIVE | INDIRECT) != 0 => None,
        0x03 | 0x0b => Some(4),
        0x00 | 0x04 | 0x0c => Some(8),
        _ => None,
    }
}

/// Goes past a number of seven bits a byte.
fn skip_number(record: &[u8], at: &mut usize) -> Option<()> {
    while record.get(*at)? & 0x80 != 0 {
        *at += 1;
    }
    *at += 1;
    Some(())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description with letters `zPLR` and the records of functions at distances from where each stands.
    fn section(addresses: &[(usize, usize)]) -> Vec<u8> {
        let mut bytes = vec![24, 0, 0, 0, 0, 0, 0, 0, 1];
        bytes.extend(b"zPLR\0");
        // Factors, register, length of the rest, the routine, the encodings.
        bytes.extend([1, 0x78, 16, 7, 0x9b, 1, 2, 3, 4, 0x1b, 0x1b, 0, 0, 0]);
        assert_eq!(bytes.len(), 28);
        for (section, function) in addresses {
            let at = bytes.len();
            bytes.extend(16u32.to_le_bytes());
            bytes.extend((at as u32 + 4).to_le_bytes());
            bytes.extend((*function as i64 - (*section + at + 8) as i64).to_le_bytes()[..4].iter());
            bytes.extend([9, 0, 0, 0, 4, 0, 0, 0]);
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn functions_are_listed_in_order() {
        let address = 0x7000_0000;
        let frames = section(&[(address, 0x6000_0200), (address, 0x6000_0100), (address, 0x10)]);
        let linked = 0x6000_0000..0x6000_1000;
        let at = 0x7000_1000;
        let bytes = entry(&frames, address, at, &linked, 0x5000_0000).expect("understood");
        let words: Vec<i32> =
            bytes.chunks(4).map(|word| i32::from_le_bytes(word.try_into().expect("four"))).collect();
        let index = 0x7000_1008;
        let line = |function: i32, record: i32| [function - index, record - index];
        assert_eq!(words[..2], [0x1000_0000, 0x1000]);
        assert_eq!(bytes[8..12], HEAD);
        assert_eq!(words[3..5], [0x7000_0000 - (index + 4), 2], "the one elsewhere is left out");
        assert_eq!(words[5..7], line(0x6000_0100, 0x7000_0000 + 28 + 20));
        assert_eq!(words[7..], line(0x6000_0200, 0x7000_0000 + 28));
    }

    #[test]
    fn encodings_that_jitlink_would_trip_over_are_not_understood() {
        let whole = section(&[(0x1000, 0x2000)]);
        // The letters, the encoding of the routine, that of the addresses.
        let cases = [
            (10, b'e'),
            (10, b'L'),
            (10, b'R'),
            (18, 0x6e),
            (18, 0x01),
            (24, 0xe6),
            (24, 0x0d),
            (24, 0x30),
            (8, 9),
        ];
        for (at, byte) in cases {
            let mut frames = whole.clone();
            frames[at] = byte;
            assert_eq!(functions(&frames, 0x1000).is_some(), at == 8, "{at} {byte:#x}");
        }
    }

    #[test]
    fn what_is_cut_off_is_not_understood() {
        let whole = section(&[(0x1000, 0x2000)]);
        assert!(functions(&whole, 0x1000).is_some_and(|found| found == [(0x2000, 0x1000 + 28)]));
        for length in 1..whole.len() - 4 {
            // Between two records nothing shows that more was meant.
            assert_eq!(functions(&whole[..length], 0x1000).is_some(), length == 28, "{length} bytes");
        }
    }
}
