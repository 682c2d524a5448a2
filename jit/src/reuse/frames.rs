//! The unwind records of an object's functions, found and copied one by one.

use super::elf::{Elf, Place, Relocation};
use std::collections::HashMap;
use std::ops::Range;

pub(super) const SECTION: &[u8] = b".eh_frame";

/// Where the record of a function is.
#[derive(Clone)]
pub(super) struct Frame {
    /// The section of records.
    pub(super) section: usize,
    pub(super) record: Range<usize>,
    /// The record that it shares with others.
    pub(super) common: Range<usize>,
}

/// The records of functions by the sections of these; nothing if one is not understood.
pub(super) fn frames(elf: &Elf<'_>) -> Option<HashMap<usize, Frame>> {
    let mut frames = HashMap::new();
    for (index, section) in elf.sections.iter().enumerate().filter(|(_, section)| *section.name == *SECTION) {
        let data = &section.data;
        let mut common: HashMap<usize, Range<usize>> = HashMap::new();
        let mut at = 0;
        while at + 8 <= data.len() {
            let length = word(data, at)? as usize;
            let record = at..at.checked_add(4)?.checked_add(length)?;
            if length < 4 || length == 0xffff_ffff || record.end > data.len() {
                return None;
            }
            match word(data, at + 4)? as usize {
                0 => drop(common.insert(at, record.clone())),
                distance => {
                    let common = common.get(&(at + 4).checked_sub(distance)?)?.clone();
                    // What shares a section with others, as what runs at the start does, is not taken.
                    if let Some(function) = function(elf, index, &record)? {
                        let frame = Frame { section: index, record: record.clone(), common };
                        frames.insert(function, frame);
                    }
                }
            }
            at = record.end;
        }
        if at != data.len() {
            return None;
        }
    }
    Some(frames)
}

/// The section whose beginning a record is about, if it is about a beginning.
fn function(elf: &Elf<'_>, section: usize, record: &Range<usize>) -> Option<Option<usize>> {
    let start = (record.start + 8) as u64;
    let relocation =
        relocations(elf, section, record).iter().find(|relocation| relocation.offset == start)?;
    let symbol = &elf.symbols[relocation.symbol];
    match symbol.place {
        Place::Section(function) => {
            let place = relocation.addend.checked_add_unsigned(symbol.value)?;
            Some((place == 0).then_some(function))
        }
        _ => None,
    }
}

/// The relocations in a part of a section.
pub(super) fn relocations<'e>(elf: &'e Elf<'_>, section: usize, part: &Range<usize>) -> &'e [Relocation] {
    let all = &elf.sections[section].relocations;
    let from = all.partition_point(|relocation| relocation.offset < part.start as u64);
    let to = all.partition_point(|relocation| relocation.offset < part.end as u64);
    &all[from..to]
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?))
}
