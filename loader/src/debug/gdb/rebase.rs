//! DWARF of several files, moved to where the code lies and put together.

use super::super::dwarf::{self, Elf};
use super::super::error::DebugError;
use gimli::write::{self, Address, AttributeValue, EndianVec, Sections};
use gimli::{EndianSlice, LittleEndian, UnitRef, constants};
use object::{Object, ObjectSection, SectionFlags, elf};
use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Debug information under construction.
#[derive(Default)]
pub(super) struct Rebased(write::Dwarf);

/// A debug section that is finished.
pub(super) struct Section {
    /// Its name.
    pub(super) name: Cow<'static, str>,
    /// Whether it is compressed.
    pub(super) flags: elf::SectionFlags,
    /// Its bytes.
    pub(super) data: Vec<u8>,
}

impl Rebased {
    /// Adds the debug information of `file`, with `bias` added to its addresses. Gives the number of attributes that could
    /// not be taken over.
    ///
    /// # Errors
    /// When it cannot be read or converted as a whole; then what has been put together so far cannot be used.
    pub(super) fn add(&mut self, file: &Elf<'_>, bias: u64) -> Result<usize, DebugError> {
        let places = places(file);
        // Linkers give the address 0 or thereabouts to what they have left out; it must not become a place in the image.
        let move_address = |address: u64| {
            let inside = places.iter().any(|place| place.contains(&address));
            Some(Address::Constant(if inside { address.wrapping_add(bias) } else { address }))
        };
        let read = dwarf::borrowed(file)?;
        let mut units = self.0.convert(&read)?;
        let mut lost = 0;
        while let Some((mut unit, root)) = units.read_unit()? {
            check_line_program(&unit.read_unit)?;
            if let Some(program) = unit.read_line_program(None, None)? {
                let (program, files) = program.convert(&move_address)?;
                unit.set_line_program(program, files);
            }
            let id = unit.unit.root();
            lost += attributes(&mut unit, id, &root, &move_address);
            let mut entry = root;
            while let Some(id) = unit.read_entry(&mut entry)? {
                // Nothing stands for the end of a list of children.
                if id.is_none() {
                    continue;
                }
                let id = unit.add_entry(id, &entry);
                lost += attributes(&mut unit, id, &entry, &move_address);
            }
        }
        Ok(lost)
    }

    /// The sections that are not empty.
    ///
    /// # Errors
    /// When what was added does not fit together.
    pub(super) fn sections(mut self) -> Result<Vec<Section>, DebugError> {
        let mut sections = Sections::new(EndianVec::new(LittleEndian));
        self.0.write(&mut sections).map_err(write::ConvertError::from)?;
        let mut finished = Vec::new();
        let _: Result<(), std::convert::Infallible> = sections.for_each_mut(|id, data| {
            let data = data.take();
            if !data.is_empty() {
                finished.push(Section { name: id.name().into(), flags: elf::SectionFlags(0), data });
            }
            Ok(())
        });
        Ok(finished)
    }
}

/// Refuses what gimli does not convert: lines that special opcodes cannot leave as they are.
fn check_line_program(unit: &UnitRef<'_, EndianSlice<'_, LittleEndian>>) -> Result<(), DebugError> {
    let Some(program) = &unit.line_program else { return Ok(()) };
    let header = program.header();
    let last = i16::from(header.line_base()) + i16::from(header.line_range());
    if (1..=i16::from(i8::MAX)).contains(&last) && header.line_range() <= i8::MAX as u8 {
        Ok(())
    } else {
        Err(write::ConvertError::InvalidLineBase.into())
    }
}

/// The debug sections of a file that lies where it was linked, whatever is in them.
///
/// # Errors
/// When the file is shorter than it says.
pub(super) fn as_they_are(file: &Elf<'_>) -> Result<Vec<Section>, DebugError> {
    let mut sections = Vec::new();
    for section in file.sections() {
        let (Ok(name), SectionFlags::Elf { sh_flags, .. }) = (section.name(), section.flags()) else {
            continue;
        };
        if name.starts_with(".debug_") {
            let (name, flags) = (name.to_owned().into(), sh_flags & elf::SHF_COMPRESSED);
            sections.push(Section { name, flags, data: section.data()?.to_vec() });
        }
    }
    Ok(sections)
}

/// Takes the attributes of an entry over, and gives the number of those that could not be.
fn attributes<'d>(
    unit: &mut write::ConvertUnit<'_, EndianSlice<'d, LittleEndian>>,
    id: write::UnitEntryId,
    entry: &write::ConvertUnitEntry<'_, EndianSlice<'d, LittleEndian>>,
    move_address: &dyn Fn(u64) -> Option<Address>,
) -> usize {
    let mut lost = 0;
    for attribute in entry.attrs() {
        match attribute.name() {
            // There is no place for them beside the location lists here.
            constants::DW_AT_GNU_locviews => continue,
            // Preprocessor macros, whose sections are not taken over.
            constants::DW_AT_macros | constants::DW_AT_macro_info | constants::DW_AT_GNU_macros => continue,
            _ => {}
        }
        match unit.convert_attribute_value(entry.read_unit, attribute, move_address) {
            Ok(AttributeValue::DebugTypesRef(_)) | Err(_) => lost += 1,
            Ok(value) => unit.unit.get_mut(id).set(attribute.name(), value),
        }
    }
    lost
}

/// The addresses in the file that are in memory, each up to and including its end.
fn places(file: &Elf<'_>) -> Vec<RangeInclusive<u64>> {
    file.sections()
        .filter(|section| {
            matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(elf::SHF_ALLOC))
        })
        .filter(|section| section.address() != 0)
        .map(|section| section.address()..=section.address().saturating_add(section.size()))
        .collect()
}
