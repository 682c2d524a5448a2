//! Unwind tables: how exceptions and backtraces find those of images.
//!
//! libgcc asks glibc, by `_dl_find_object`, whose the code at an address is. That call is led to a function of ours
//! ([`hook`]), which knows images by their addresses: no image has to be registered, nothing grows with their number,
//! and none of their tables is touched before something is thrown. Where the unwinder is another one, each image's
//! section is registered with it.

mod hook;

pub(crate) use hook::{bring_in, find_object};

use super::ImageError;
use super::headers::Range;
use super::map::Mapped;
use crate::sys::unwind::Registration;

/// Encoding of a pointer: four bytes, signed, relative to where it stands. The only one that lld writes here.
const PC_RELATIVE_4: u8 = 0x1b;

/// Address of the index of the image's unwind tables, in memory.
pub(super) fn index(mapped: &Mapped) -> Result<Option<usize>, ImageError> {
    if let Some((address, size)) = mapped.layout.frames {
        check(mapped, address, size)?;
    }
    let Some(index) = mapped.headers.unwind else { return Ok(None) };
    check(mapped, index.address, index.size.max(8))?;
    Ok(Some(mapped.place.at(index.address)))
}

/// Whether the unwinder finds tables by what the registry says of an address, so that nothing need be registered.
pub(super) fn by_address() -> bool {
    hook::holds()
}

/// To be called when libraries may have been loaded: an unwinder may be among them.
pub(crate) fn look_again() {
    hook::holds();
}

/// Sees to it that the unwinder finds the image; gives what must be kept as long as the image, if anything.
///
/// # Safety
/// The image stays mapped as long as the registration, is known to the registry, and [`index`] was not against it.
pub(super) unsafe fn register(mapped: &Mapped) -> Result<Option<Registration>, ImageError> {
    if by_address() {
        return Ok(None);
    }
    // SAFETY: it lies in read-only memory of the image; that it is well formed follows from the checksum, which says
    // that it is what lld wrote, with a zero at the end.
    Ok(section(mapped)?.and_then(|section| unsafe { Registration::new(section) }))
}

/// Address of the unwind tables themselves, in memory that is never written.
pub(super) fn section(mapped: &Mapped) -> Result<Option<usize>, ImageError> {
    let Some(index) = mapped.headers.unwind else { return Ok(None) };
    let section = match mapped.layout.frames {
        Some((address, _)) => address,
        None => by_index(mapped, index)?,
    };
    check(mapped, section, 4)?;
    Ok(Some(mapped.place.at(section)))
}

/// Whether there are aligned tables that nobody writes to.
fn check(mapped: &Mapped, address: u64, size: u64) -> Result<(), ImageError> {
    let segment = mapped.place.segment(address, size);
    if !address.is_multiple_of(4)
        || segment.is_none_or(|segment| !segment.access.read || segment.access.write)
    {
        return Err(ImageError::truncated("its unwind tables"));
    }
    Ok(())
}

/// Where the section is, as the index says.
fn by_index(mapped: &Mapped, index: Range) -> Result<u64, ImageError> {
    // SAFETY: the image is mapped as its segments say.
    let header = unsafe { mapped.place.table::<u8>(index.address, 8) }
        .ok_or_else(|| ImageError::truncated("the index of its unwind tables"))?;
    if header[..2] != [1, PC_RELATIVE_4] {
        return Err(ImageError::Unsupported("the index of its unwind tables is of an unknown kind".into()));
    }
    let distance = i32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let section = (index.address + 4).wrapping_add_signed(distance.into());
    check(mapped, section, 4)?;
    Ok(section)
}
