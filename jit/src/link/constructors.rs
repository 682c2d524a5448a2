//! Constructors of old objects.
//!
//! Compilers used to put the addresses of constructors and destructors into `.ctors` and `.dtors`, for the start files of the
//! time to go through: constructors from the last to the first, destructors from the first to the last. Nobody does so
//! any more; GNU's linker turns them into the arrays that are used today, which are gone through the other way round, and lld
//! does not. So it is done here: the section gets the name and the type of today's and its entries in reverse order. A
//! priority in the name counts from the other end, too.

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, Rela, SectionHeader, SectionTable};
use std::ops::Range;

const SECTION_HEADER: usize = 64;
const ENTRY: usize = 8;
const PRIORITIES: u32 = 65535;

/// Whether a section has constructors or destructors of the old kind.
pub(super) fn is_old(section: &[u8]) -> bool {
    modern(section).is_some()
}

/// Name and type of the section of today that stands for the old one of that name.
fn modern(section: &[u8]) -> Option<(String, elf::SectionType)> {
    let name = std::str::from_utf8(section).ok()?;
    let kinds =
        [(".ctors", ".init_array", elf::SHT_INIT_ARRAY), (".dtors", ".fini_array", elf::SHT_FINI_ARRAY)];
    let (rest, modern, kind) =
        kinds.into_iter().find_map(|(old, modern, kind)| Some((name.strip_prefix(old)?, modern, kind)))?;
    if rest.is_empty() {
        return Some((modern.to_owned(), kind));
    }
    let priority = PRIORITIES.checked_sub(rest.strip_prefix('.')?.parse().ok()?)?;
    Some((format!("{modern}.{priority}"), kind))
}

/// An archive's first bytes, and the size of what stands in front of each member.
const ARCHIVE: &[u8] = b"!<arch>\n";
const MEMBER_HEADER: usize = 60;
/// Where in that the size of the member stands, as decimal digits.
const MEMBER_SIZE: Range<usize> = 48..58;

/// The archive with the members that have constructors of the old kind changed as [`with_modern_constructors`] does, and
/// without an index, which would be wrong then: lld looks at the members themselves. None when nothing is to be changed.
/// `bytes` passed the checks.
pub(crate) fn archive_with_modern_constructors(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes.strip_prefix(ARCHIVE)?;
    let mut changed = ARCHIVE.to_vec();
    let mut any = false;
    while rest.len() >= MEMBER_HEADER {
        let (header, behind) = rest.split_at(MEMBER_HEADER);
        let size: usize = std::str::from_utf8(&header[MEMBER_SIZE]).ok()?.trim_end().parse().ok()?;
        let member = behind.get(..size)?;
        rest = behind.get(size.next_multiple_of(2)..).unwrap_or_default();
        if header.starts_with(b"/ ") || header.starts_with(b"/SYM64/ ") {
            continue;
        }
        let modern = with_modern_constructors(member);
        any |= modern.is_some();
        let member = modern.as_deref().unwrap_or(member);
        let at = changed.len();
        changed.extend(header);
        let digits = format!("{:<10}", member.len());
        changed
            .get_mut(at + MEMBER_SIZE.start..at + MEMBER_SIZE.end)?
            .copy_from_slice(digits.as_bytes().get(..10)?);
        changed.extend(member);
        if !member.len().is_multiple_of(2) {
            changed.push(b'\n');
        }
    }
    any.then_some(changed)
}

/// The object with its constructors and destructors where they are expected today; none when it has none of the old
/// kind, or something else in their place. `bytes` passed the checks.
pub(crate) fn with_modern_constructors(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = FileHeader64::<LE>::parse(bytes).ok()?;
    let sections = header.sections(LE, bytes).ok()?;
    let table = usize::try_from(header.e_shoff.get(LE)).ok()?;
    let names = header.shstrndx(LE, bytes).ok()? as usize;
    let names_range = file_range(&sections, names)?;
    let mut strings = bytes.get(names_range)?.to_vec();
    let mut patched = bytes.to_vec();
    let mut any = false;
    for (index, section) in sections.iter().enumerate() {
        let Some((name, kind)) = modern(sections.section_name(LE, section).ok()?) else { continue };
        if section.sh_type.get(LE) != elf::SHT_PROGBITS || section.sh_size.get(LE) == 0 {
            continue;
        }
        reverse(&sections, index, bytes, &mut patched)?;
        let at = table + index * SECTION_HEADER;
        let name_at = u32::try_from(strings.len()).ok()?;
        strings.extend(name.bytes());
        strings.push(0);
        patched.get_mut(at..at + 4)?.copy_from_slice(&name_at.to_le_bytes());
        patched.get_mut(at + 4..at + 8)?.copy_from_slice(&kind.0.to_le_bytes());
        any = true;
    }
    // The names have grown, so they move to the end.
    let at = table + names * SECTION_HEADER;
    let [place, size] = [patched.len() as u64, strings.len() as u64];
    patched.get_mut(at + 24..at + 32)?.copy_from_slice(&place.to_le_bytes());
    patched.get_mut(at + 32..at + 40)?.copy_from_slice(&size.to_le_bytes());
    patched.extend(strings);
    any.then_some(patched)
}

/// Turns the entries of a section round, and the relocations that fill them in.
fn reverse(
    sections: &SectionTable<'_, FileHeader64<LE>>,
    index: usize,
    bytes: &[u8],
    patched: &mut [u8],
) -> Option<()> {
    let contents = file_range(sections, index)?;
    let size = contents.len();
    if !size.is_multiple_of(ENTRY) {
        return None;
    }
    let (entries, _) = patched.get_mut(contents)?.as_chunks_mut::<ENTRY>();
    entries.reverse();
    for (number, section) in sections.iter().enumerate() {
        if section.sh_type.get(LE) != elf::SHT_RELA || section.sh_info.get(LE) as usize != index {
            continue;
        }
        let table = file_range(sections, number)?;
        let (relocations, _) = section.rela(LE, bytes).ok()??;
        let (places, _) = patched.get_mut(table)?.as_chunks_mut::<24>();
        for (place, relocation) in places.iter_mut().zip(relocations) {
            let offset = usize::try_from(relocation.r_offset(LE)).ok()?;
            if relocation.r_type(LE, false) != elf::R_X86_64_64 || !offset.is_multiple_of(ENTRY) {
                return None;
            }
            let mirrored = size.checked_sub(offset + ENTRY)? as u64;
            place[..8].copy_from_slice(&mirrored.to_le_bytes());
        }
    }
    Some(())
}

fn file_range(sections: &SectionTable<'_, FileHeader64<LE>>, index: usize) -> Option<Range<usize>> {
    let (start, size) = sections.section(object::SectionIndex(index)).ok()?.file_range(LE)?;
    let start = usize::try_from(start).ok()?;
    Some(start..start.checked_add(usize::try_from(size).ok()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_priorities_are_todays() {
        let modern = |name: &str| modern(name.as_bytes()).map(|(name, _)| name);
        assert_eq!(modern(".ctors").as_deref(), Some(".init_array"));
        assert_eq!(modern(".dtors.65434").as_deref(), Some(".fini_array.101"));
        assert_eq!(modern(".ctors.00000").as_deref(), Some(".init_array.65535"));
        for other in [".ctors_of_mine", ".ctors.x", ".ctors.70000", ".init_array", ".ctor"] {
            assert_eq!(modern(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_object_is_left_alone() {
        assert_eq!(with_modern_constructors(b""), None);
        for archive in
            [&b""[..], b"!<arch>\n", b"!<thin>\n", b"!<arch>\nx", &[b"!<arch>\n", &[b'9'; 60][..]].concat()]
        {
            assert_eq!(archive_with_modern_constructors(archive), None);
        }
        assert_eq!(with_modern_constructors(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]), None);
    }
}
