//! Functions in an order of their own: those that a program calls lie together, in the order in which it does so first.
//!
//! The linker takes sections as they come, file by file. Where functions have sections of their own, those that are to
//! come first get names that say where; [`SCRIPT`] has the linker put these in front, by their names. (lld's own files of
//! symbols in order do not tell apart what is local in several files.)

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};
use std::collections::HashMap;

/// What the linker is told where there are functions in an order. It is said of the section of code alone, and leaves
/// everything else as it is without.
pub(crate) const SCRIPT: &str = "OVERWRITE_SECTIONS { .text : { *(SORT_BY_NAME(.text.hotbed.traced.*)) } }\n";

/// The name of a section at a place; names have the order of places.
fn section_name(place: u32) -> String {
    format!(".text.hotbed.traced.{place:08x}")
}

const SECTION_HEADER: usize = 64;

/// The object with its functions in an order: `place` gives the place of a function by its name, and whether it is local. Where
/// several functions have one section the first of them counts. None when it has none of them in sections for code; those that
/// its source has put into others stay there.
pub(crate) fn with_order(bytes: &[u8], place: impl Fn(&str, bool) -> Option<u32>) -> Option<Vec<u8>> {
    let header = FileHeader64::<LE>::parse(bytes).ok()?;
    let sections = header.sections(LE, bytes).ok()?;
    let symbols = sections.symbols(LE, bytes, elf::SHT_SYMTAB).ok()?;
    let mut places: HashMap<usize, u32> = HashMap::new();
    for (index, symbol) in symbols.enumerate().filter(|(_, symbol)| symbol.st_type() == elf::STT_FUNC) {
        let name = symbols.symbol_name(LE, symbol).ok().and_then(|name| std::str::from_utf8(name).ok());
        let found = name.and_then(|name| place(name, symbol.st_bind() == elf::STB_LOCAL));
        let section = symbols.symbol_section(LE, symbol, index).ok().flatten();
        if let (Some(found), Some(section)) = (found, section) {
            let first = places.entry(section.0).or_insert(found);
            *first = found.min(*first);
        }
    }

    let table = usize::try_from(header.e_shoff.get(LE)).ok()?;
    let names = header.shstrndx(LE, bytes).ok()? as usize;
    let mut strings = sections.section(object::SectionIndex(names)).ok()?.data(LE, bytes).ok()?.to_vec();
    let mut changed = bytes.to_vec();
    let mut any = false;
    for (index, section) in sections.iter().enumerate() {
        let Some(&place) = places.get(&index) else { continue };
        let name = sections.section_name(LE, section).ok()?;
        if name == b".text" || name.starts_with(b".text.") {
            let name_at = u32::try_from(strings.len()).ok()?;
            strings.extend(section_name(place).bytes());
            strings.push(0);
            let at = table + index * SECTION_HEADER;
            changed.get_mut(at..at + 4)?.copy_from_slice(&name_at.to_le_bytes());
            any = true;
        }
    }
    // The names have grown, so they move to the end.
    let at = table + names * SECTION_HEADER;
    let [offset, size] = [changed.len() as u64, strings.len() as u64];
    changed.get_mut(at + 24..at + 32)?.copy_from_slice(&offset.to_le_bytes());
    changed.get_mut(at + 32..at + 40)?.copy_from_slice(&size.to_le_bytes());
    changed.extend(strings);
    any.then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_order_of_places() {
        let names = [0, 9, 10, 255, 256, u32::MAX].map(section_name);
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn what_is_no_object_is_left_alone() {
        for bytes in [&b""[..], b"BC\xc0\xde", &[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]] {
            assert_eq!(with_order(bytes, |_, _| Some(0)), None);
        }
    }
}
