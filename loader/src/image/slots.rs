//! Where the functions of an image are that have slots: those that are compiled when they are first called.
//!
//! The address of such a function is its stub's, `jmp *slot(%rip)`, for ever. Its slot holds the address of its lazy entry
//! until there is a body, then that of the body. What belongs to the functions stands in three tables, one entry each, in the same
//! order:
//!
//! | section             | an entry                                                                                   |
//! |---------------------|--------------------------------------------------------------------------------------------|
//! | `.hotbed.slots`     | the slot, 8 bytes; two words stand in front of all: see below                               |
//! | `.hotbed.lazy`      | the lazy entry, 5 bytes: a call of `__hotbed_lazy_head`, whose return address says which one |
//! | `.hotbed.functions` | the record, 16 bytes: which unit of the image, which of its functions (4 bytes each), how far from this field the stub is, how far from this field the name is that a zero ends (signed, 4 bytes each; zero where it is not known) |
//!
//! `__hotbed_lazy_head` pushes the first of the two words and jumps to where the second points. In the file that is a
//! function of the image that ends the process, for whoever maps it and cannot compile; [`crate::slots`] puts itself there.

use super::ImageError;
use super::headers;
use super::note::{ENTRY_BYTES, FUNCTION_BYTES, LazyLayout, SLOT_BYTES, SLOTS_HEAD};
use super::place::Place;
use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `jmp *distance(%rip)`, of which these are the first bytes and the distance the rest.
const JUMP: [u8; 2] = [0xff, 0x25];
const JUMP_BYTES: usize = 6;

/// The tables in memory, checked. Valid as long as the image is mapped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables {
    /// How many functions.
    count: u32,
    /// The two words; slots follow.
    head: usize,
    entries: usize,
    /// Four numbers a function.
    records: &'static [u32],
    /// Address of these before relocation.
    records_at: u64,
}

impl Tables {
    /// Those of the image at `place`, of which `relro` becomes read-only.
    ///
    /// # Errors
    /// When they do not lie where tables of that kind may.
    ///
    /// # Safety
    /// As for [`Place::table`].
    pub(crate) unsafe fn new(
        place: &Place,
        relro: Option<headers::Range>,
        layout: LazyLayout,
    ) -> Result<Self, ImageError> {
        let LazyLayout { count, slots, entries, functions } = layout;
        let bytes = |each: u64| each * u64::from(count);
        let length = SLOTS_HEAD + bytes(SLOT_BYTES);
        let head = place.at(slots);
        let protected = relro.is_some_and(|relro| {
            slots < relro.address.saturating_add(relro.size) && relro.address < slots.saturating_add(length)
        });
        let writable = place.segment(slots, length).is_some_and(|segment| segment.access.write);
        if !writable || protected || !head.is_multiple_of(align_of::<usize>()) {
            return Err(ImageError::Damaged("the slots of its functions are not in writable memory"));
        }
        if place.segment(entries, bytes(ENTRY_BYTES)).is_none_or(|segment| !segment.access.execute) {
            return Err(ImageError::Damaged("the lazy entries of its functions are not in its code"));
        }
        // SAFETY: the caller's promise.
        let records = unsafe { place.table::<u32>(functions, (bytes(FUNCTION_BYTES) / 4) as usize) }
            .ok_or(ImageError::Truncated("the records of its functions"))?;
        Ok(Self { count, head, entries: place.at(entries), records, records_at: functions })
    }

    /// How many functions there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The words in front of the slots.
    pub(crate) fn head(&self) -> *mut usize {
        self.head as *mut usize
    }

    /// The slot of a function.
    ///
    /// # Safety
    /// The image is mapped, and stays so as long as the result is used.
    pub(crate) unsafe fn slot<'a>(&self, number: u32) -> Option<&'a AtomicUsize> {
        let at = self.head + SLOTS_HEAD as usize + number as usize * SLOT_BYTES as usize;
        // SAFETY: in the table, which is aligned and in writable memory.
        (number < self.count).then(|| unsafe { &*(at as *const AtomicUsize) })
    }

    /// What is in the slot of a function as long as there is no body.
    pub(crate) fn entry(&self, number: u32) -> usize {
        self.entries + number as usize * ENTRY_BYTES as usize
    }

    /// The body of a function, if it has one.
    ///
    /// # Safety
    /// As for [`Tables::slot`].
    pub(crate) unsafe fn body(&self, number: u32) -> Option<usize> {
        // SAFETY: the caller's promise.
        let body = unsafe { self.slot(number) }?.load(Ordering::Acquire);
        (body != self.entry(number)).then_some(body)
    }

    /// The function whose lazy entry's call returns to an address.
    pub(crate) fn of_return(&self, address: usize) -> Option<u32> {
        let end = address.wrapping_sub(self.entries);
        let each = ENTRY_BYTES as usize;
        let number = u32::try_from((end / each).wrapping_sub(1)).ok()?;
        (end.is_multiple_of(each) && number < self.count).then_some(number)
    }

    /// The function whose stub is at an address.
    ///
    /// # Safety
    /// As for [`Tables::slot`].
    pub(crate) unsafe fn of_stub(&self, place: &Place, address: usize) -> Option<u32> {
        let linked = address.wrapping_sub(place.base) as u64;
        place.segment(linked, JUMP_BYTES as u64).filter(|segment| segment.access.execute)?;
        // SAFETY: the caller's promise.
        let code = unsafe { place.table::<u8>(linked, JUMP_BYTES) }?;
        let (jump, distance) = code.split_first_chunk::<2>()?;
        let distance = i32::from_le_bytes(*distance.first_chunk()?);
        let slot = (address + JUMP_BYTES).wrapping_add_signed(distance as isize);
        let at = slot.wrapping_sub(self.head + SLOTS_HEAD as usize);
        let number = u32::try_from(at / SLOT_BYTES as usize).ok()?;
        let fits = *jump == JUMP && at.is_multiple_of(SLOT_BYTES as usize) && number < self.count;
        fits.then_some(number)
    }

    /// The unit of a function, and its number there.
    pub(crate) fn identity(&self, number: u32) -> Option<(u32, u32)> {
        match self.records.get(number as usize * 4..)? {
            [unit, function, ..] => Some((*unit, *function)),
            _ => None,
        }
    }

    /// The address of a function: that of its stub.
    pub(crate) fn stub(&self, place: &Place, number: u32) -> Option<usize> {
        const FIELD: u64 = 8;
        let distance = self.records.get(number as usize * 4 + 2)?.cast_signed();
        let field = self.records_at + u64::from(number) * FUNCTION_BYTES + FIELD;
        (distance != 0).then(|| place.at(field.wrapping_add_signed(distance.into())))
    }

    /// The name of a function.
    ///
    /// # Safety
    /// As for [`Tables::slot`].
    pub(crate) unsafe fn name(&self, place: &Place, number: u32) -> Option<&'static [u8]> {
        const FIELD: u64 = 12;
        let distance = self.records.get(number as usize * 4 + 3)?.cast_signed();
        let field = self.records_at + u64::from(number) * FUNCTION_BYTES + FIELD;
        let name = field.wrapping_add_signed(distance.into());
        // SAFETY: the caller's promise.
        let rest = unsafe { place.tail::<u8>(name) }.filter(|_| distance != 0)?;
        CStr::from_bytes_until_nul(rest).ok().map(CStr::to_bytes)
    }
}
