//! Unwind tables of several files in one section.
//!
//! gdb reads one `.eh_frame` a file, and takes addresses in it relative to where its section lies. So tables are put behind
//! each other, and since that moves them, the beginning of every function in them is moved the other way. Personality
//! routines and tables of handlers would have to be moved too; gdb does not look at them.
//!
//! A record is a 4-byte length, a 4-byte id, 0 for what functions have in common (CIE) and otherwise the distance back to
//! that (FDE), and in the latter the beginning of the function: here always 4 bytes, relative to their own place.

use super::super::dwarf::Elf;
use super::super::error::DebugError;
use gimli::constants::{DW_EH_PE_pcrel, DW_EH_PE_sdata4};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};
use object::{Object, ObjectSection};

/// Where the beginning of the function is in an FDE.
const BEGINNING: usize = 8;

/// Unwind tables at an address.
#[derive(Default)]
pub(super) struct Tables {
    /// Where they are taken to lie: where the first of them does.
    pub(super) address: u64,
    /// Their bytes.
    pub(super) data: Vec<u8>,
}

impl Tables {
    /// Adds the tables of `file`, which lies at `bias`. What is too far away or of another kind is left out as a whole.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn add(&mut self, file: &Elf<'_>, bias: u64) -> Result<(), DebugError> {
        let Some(section) = file.section_by_name(".eh_frame") else { return Ok(()) };
        let mut data = section.data()?.to_vec();
        let lies = section.address().wrapping_add(bias);
        if self.data.is_empty() {
            self.address = lies;
        }
        let moved = self.address.wrapping_add(self.data.len() as u64).wrapping_sub(lies) as i64;
        let frames = section.data()?;
        let frames = EhFrame::new(frames, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(section.address());
        let mut entries = frames.entries(&bases);
        let mut end = 0;
        while let Some(entry) = entries.next()? {
            let fde = match entry {
                CieOrFde::Cie(cie) => {
                    end = cie.offset() + 4 + cie.entry_len();
                    continue;
                }
                CieOrFde::Fde(partial) => partial.parse(EhFrame::cie_from_offset)?,
            };
            end = fde.offset() + 4 + fde.entry_len();
            if fde.cie().fde_address_encoding() != Some(DW_EH_PE_pcrel | DW_EH_PE_sdata4) {
                return Ok(());
            }
            let field = fde.offset() + BEGINNING;
            let Some(field) = data.get_mut(field..field + 4).and_then(|field| field.first_chunk_mut::<4>())
            else {
                return Ok(());
            };
            let Ok(value) = i32::try_from(i64::from(i32::from_le_bytes(*field)).wrapping_sub(moved)) else {
                return Ok(());
            };
            *field = value.to_le_bytes();
        }
        // Without the zero that ends them, so that more can follow.
        data.truncate(end);
        self.data.extend_from_slice(&data);
        Ok(())
    }
}
