//! Where constants with addresses lie: what is relocated and read-only afterwards.
//!
//! An image is linked for an address of its own, so that a constant that leads to something of the image itself is right as
//! it stands in the file. Where all constants are of that kind, nobody ever writes to them there: linked in between the
//! tables and the code ([`script`]), they are mapped together with the tables, and read-only from the start. What others' addresses
//! are written to is then dense as well: the table of imports and the data behind it. For sqlite3 that is one page instead of
//! three that become the process's own, and one change of protection less, which together are a quarter of what mapping it
//! takes (5.4 us of 22.7).
//!
//! lld's own order has constants, the imports of data and the rest of the data behind the code, and protects the first two after
//! relocation. So it stays where constants lead to others: type information to the run-time library's, vtables to what other images
//! may have too. The imports of data, which lld would protect, can be written to in the order of the script, as those
//! of functions always can that are looked up when they are called; so can the initial values of thread-local variables.

use super::check::ObjectFacts;
use hotbed_loader::image::note::CONSTANTS_SETTLED;
use hotbed_loader::sys::memory::PAGE;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian as LE, pod};
use std::collections::HashSet;
use std::mem::size_of;
use std::ops::Range;

/// What the linker is told where there are constructors or destructors: of an array that it is told of it says something in
/// the dynamic section, even if that has nothing.
const ARRAYS: &str = "SECTIONS {
  .preinit_array : { *(.preinit_array) }
  .init_array : { *(SORT_BY_INIT_PRIORITY(.init_array.*) .init_array) }
  .fini_array : { *(SORT_BY_INIT_PRIORITY(.fini_array.*) .fini_array) }
} INSERT BEFORE .text;
";
/// What it is told in any case.
const CONSTANTS: &str = "SECTIONS {
  .data.rel.ro : { *(.data.rel.ro .data.rel.ro.*) }
} INSERT BEFORE .text;
SECTIONS {
  .got : { *(.got) }
  .got.plt : { *(.got.plt) }
} INSERT BEFORE .data;
";

/// What the linker is told, beside [`ARGUMENTS`]; `arrays` is whether there are constructors or destructors. The sections that
/// it is about are put before others which [`own_object`](super::own_object) sees to, and everything else stays as it is.
pub(super) fn script(arrays: bool) -> String {
    format!("{}{CONSTANTS}", if arrays { ARRAYS } else { "" })
}

/// The linker does not protect anything then: it would have all of that in one place. [`protect`] does it.
pub(crate) const ARGUMENTS: [&str; 2] = ["-z", "norelro"];

/// Whether a section of this name has constructors or destructors.
pub(super) fn is_array(name: &[u8]) -> bool {
    [&b".init_array"[..], b".fini_array", b".preinit_array"].iter().any(|known| is_part(name, known))
}

/// Whether a section of this name has constants with addresses.
pub(super) fn is_constants(name: &[u8]) -> bool {
    is_part(name, b".data.rel.ro") || is_array(name)
}

fn is_part(name: &[u8], whole: &[u8]) -> bool {
    name.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
}

/// Whether the constants of objects, and of what archives may bring in, lead to nothing but what these define.
pub(super) fn are_settled<'a>(objects: impl Iterator<Item = &'a ObjectFacts> + Clone) -> bool {
    let mut wanted = objects.clone().flat_map(|facts| &facts.constants_want).peekable();
    if objects.clone().any(|facts| facts.shared_constants) || objects.clone().next().is_none() {
        return false;
    }
    if wanted.peek().is_none() {
        return true;
    }
    let defined: HashSet<u32> = objects.flat_map(|facts| facts.defined.iter().copied()).collect();
    wanted.all(|hash| defined.contains(hash))
}

/// Says in the program headers of an image that was linked by a [`script`] that its constants are read-only after relocation, and if
/// none of them leads to others, that they are so where it was linked for. `relocated` is whether relative relocations have nothing to do
/// there. What the linker says about the place of the headers makes room for that: it is for executables.
pub(super) fn protect(image: &mut [u8], relocated: bool) -> Option<()> {
    let header = FileHeader64::<LE>::parse(&*image).ok()?;
    let segments = header.program_headers(LE, &*image).ok()?;
    let place = segments.iter().position(|segment| segment.p_type(LE) == elf::PT_PHDR)?;
    let mut loadable = segments.iter().enumerate().filter(|(_, segment)| segment.p_type(LE) == elf::PT_LOAD);
    // What is writable behind all code is data. Some code may be in front: `.init`, or what has a section of its own.
    let (code, _) = loadable.clone().rfind(|(_, segment)| segment.p_flags(LE) == elf::PF_R | elf::PF_X)?;
    let (constants_at, constants) =
        loadable.find(|(at, segment)| *at < code && segment.p_flags(LE) == elf::PF_R | elf::PF_W)?;
    let (first, size) = (constants.p_vaddr(LE), constants.p_memsz(LE).next_multiple_of(PAGE as u64));
    // Nothing else is in their last page, neither in memory nor in the file.
    segments.iter().find(|next| next.p_offset(LE) == constants.p_offset(LE) + size)?;
    let settled = relocated && !others_are_written(header, image, &(first..first + size))?;
    let flags = elf::PF_R.0 | if settled { CONSTANTS_SETTLED } else { 0 };
    let mut loaded = *constants;
    loaded.p_filesz.set(LE, size);
    loaded.p_memsz.set(LE, size);
    let mut relro = loaded;
    relro.p_type.set(LE, elf::PT_GNU_RELRO);
    relro.p_flags.set(LE, elf::ProgramFlags(flags));
    relro.p_align.set(LE, 1);
    let table = usize::try_from(header.e_phoff.get(LE)).ok()?;
    for (place, segment) in [(place, relro), (constants_at, loaded)] {
        let at = table + place * size_of::<ProgramHeader64<LE>>();
        let bytes = pod::bytes_of(&segment);
        image.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    }
    Some(())
}

/// Whether relocations that are not relative write to these addresses.
fn others_are_written(header: &FileHeader64<LE>, image: &[u8], addresses: &Range<u64>) -> Option<bool> {
    let sections = header.sections(LE, image).ok()?;
    for section in sections.iter().filter(|section| section.sh_flags.get(LE).0 & elf::SHF_ALLOC.0 != 0) {
        if section.sh_type.get(LE) == elf::SHT_RELA
            && section.rela(LE, image).ok()??.0.iter().any(|relocation| {
                relocation.r_type(LE, false) != elf::R_X86_64_RELATIVE
                    && addresses.contains(&relocation.r_offset.get(LE))
            })
        {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(wants: &[u32], defines: &[u32], shared: bool) -> ObjectFacts {
        let (constants_want, defined) = (wants.to_vec(), defines.to_vec());
        ObjectFacts { constants_want, defined, shared_constants: shared, ..ObjectFacts::default() }
    }

    #[test]
    fn constants_are_settled_where_all_that_they_lead_to_is_in_the_image() {
        assert!(are_settled([facts(&[], &[1], false)].iter()));
        assert!(are_settled([facts(&[2], &[1], false), facts(&[], &[2], false)].iter()));
        assert!(!are_settled([facts(&[2], &[1], false), facts(&[], &[3], false)].iter()));
        assert!(!are_settled([facts(&[], &[1], false), facts(&[], &[], true)].iter()));
        assert!(!are_settled([].iter()));
    }

    #[test]
    fn constants_are_known_by_their_sections() {
        assert!(
            [".data.rel.ro", ".data.rel.ro.x", ".init_array", ".fini_array.101"]
                .iter()
                .all(|name| is_constants(name.as_bytes()))
        );
        assert!(
            [".data", ".data.rel", ".data.rel.rot", ".rodata", ".tdata"]
                .iter()
                .all(|name| !is_constants(name.as_bytes()))
        );
    }

    #[test]
    fn what_is_no_image_stays_as_it_is() {
        for bytes in [&b""[..], b"\x7fELF", &[0; 200]] {
            let mut copy = bytes.to_vec();
            assert_eq!(protect(&mut copy, true), None);
            assert_eq!(copy, bytes);
        }
    }
}
