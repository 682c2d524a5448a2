//! The debug sections of an ELF file.

use super::error::DebugError;
use gimli::{Dwarf, EndianArcSlice, EndianSlice, LittleEndian, SectionId};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, SectionFlags};
use std::sync::Arc;

/// An ELF file as it is read here.
pub(super) type Elf<'d> = ElfFile64<'d, object::LittleEndian>;

/// Whether an ELF file has debug information.
pub(super) fn is_in(bytes: &[u8]) -> bool {
    Elf::parse(bytes).is_ok_and(|file| has_information(&file))
}

/// Whether `file` has debug information.
pub(super) fn has_information(file: &Elf<'_>) -> bool {
    file.section_by_name(".debug_info").is_some()
}

/// The debug sections where they are.
pub(super) fn borrowed<'d>(file: &Elf<'d>) -> Result<Dwarf<EndianSlice<'d, LittleEndian>>, DebugError> {
    Dwarf::load(|id| Ok(EndianSlice::new(section(file, id)?, LittleEndian)))
}

/// Copies of the debug sections, which need the file no longer.
pub(super) fn owned(file: &Elf<'_>) -> Result<Dwarf<EndianArcSlice<LittleEndian>>, DebugError> {
    Dwarf::load(|id| Ok(EndianArcSlice::new(Arc::from(section(file, id)?), LittleEndian)))
}

/// The bytes of a section; none when it is not there.
fn section<'d>(file: &Elf<'d>, id: SectionId) -> Result<&'d [u8], DebugError> {
    let Some(section) = file.section_by_name(id.name()) else { return Ok(&[]) };
    if let SectionFlags::Elf { sh_flags, .. } = section.flags()
        && sh_flags.contains(object::elf::SHF_COMPRESSED)
    {
        return Err(DebugError::Compressed(id.name().to_owned()));
    }
    Ok(section.data()?)
}
