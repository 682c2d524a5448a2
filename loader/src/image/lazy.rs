//! Functions that are looked up when they are called for the first time.
//!
//! As ELF has it: a call goes through a stub of the image to what stands in an import slot. At first that is the next
//! instruction of the stub, which pushes the number of the relocation and goes on to the first stub of all; that one
//! pushes the second word of the slots' table and jumps to where the third points. There stand the image and
//! [`entry`], which finds the function, puts it into the slot and goes on to it, with every argument register as it was.
//!
//! Only what is certain to be found is left for later (`Resolver::can_wait`), and finding it takes no lock and
//! allocates nothing: the first call may come from a signal handler.

use super::bind::tables;
use super::map::Mapped;
use super::registers::{self, STATE_BYTES, first_call};
use super::symbols::Name;
use super::{Image, ImageError};
use crate::sys::exit::die;
use std::arch::naked_asm;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Words in front of the slots.
const RESERVED: u64 = 3;

/// Whether the image is linked for it, and this processor has what [`entry`] needs.
pub(crate) fn is_possible(mapped: &Mapped) -> bool {
    let Some(table) = mapped.dynamic.slots else { return false };
    let writable = mapped.place.segment(table, RESERVED * 8).is_some_and(|segment| segment.access.write);
    let protected = mapped
        .headers
        .relro
        // The table is in a segment; where the other is, nobody has looked yet.
        .is_some_and(|relro| {
            table < relro.address.saturating_add(relro.size)
                && relro.address < table.saturating_add(RESERVED * 8)
        });
    !mapped.dynamic.bind_now && writable && !protected && table % 8 == 0 && registers::prepare()
}

/// Enters the image and [`entry`] in the table of slots.
///
/// # Safety
/// [`is_possible`] is true, nobody uses the image yet, and `image` is valid as long as it is mapped.
pub(super) unsafe fn connect(mapped: &Mapped, image: *const Image) {
    let Some(table) = mapped.dynamic.slots else { return };
    let table = mapped.place.at(table) as *mut usize;
    // SAFETY: writable and aligned, as `is_possible` says; the rest is the caller's promise.
    unsafe {
        table.add(1).write(image as usize);
        table.add(2).write(entry as *const () as usize);
    }
}

/// Where the stubs of images jump to. On the stack are the image, the number of a relocation, and the address that the
/// function will return to.
#[unsafe(naked)]
unsafe extern "C" fn entry() {
    naked_asm!(first_call!(), state_bytes = sym STATE_BYTES, find = sym bind)
}

/// Finds the function of an import slot, and puts it there.
unsafe extern "C" fn bind(image: *const Image, number: usize) -> usize {
    // SAFETY: `connect` has put it there; code of the image runs, so it is mapped.
    let image = unsafe { &*image };
    match find(image, number) {
        Ok((slot, function)) => {
            // SAFETY: `find` has checked that it is a slot of the image. Others may do the same at this moment.
            unsafe { &*(slot as *const AtomicUsize) }.store(function, Ordering::Release);
            function
        }
        Err(symbol) => die(&[
            b"hotbed: ",
            image.name().as_bytes(),
            b": cannot find ",
            symbol,
            b" any more, which it calls",
        ]),
    }
}

/// Address of a slot and of the function that belongs there, or its name when it is not found.
fn find(image: &Image, number: usize) -> Result<(usize, usize), &'static [u8]> {
    let mapped = image.mapped();
    let damaged = |_: ImageError| &b"a function"[..];
    let relocation = tables(mapped).map_err(damaged)?[1].get(number).ok_or(&b"a function"[..])?;
    let slot = relocation.offset;
    let fits = mapped.place.segment(slot, 8).is_some_and(|segment| segment.access.write) && slot % 8 == 0;
    let symbols = &mapped.symbols;
    let symbol = symbols.get(relocation.symbol()).filter(|_| fits).ok_or(&b"a function"[..])?;
    let name = symbols.text(symbol.name.into()).unwrap_or_default();
    let version = symbols.needed_version(relocation.symbol());
    let process = &image.space().common.process;
    let function = process.function(Name::new(name), version, image.libraries()).ok_or(name)?;
    Ok((mapped.place.at(slot), function))
}
