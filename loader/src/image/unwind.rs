//! Unwind tables: how exceptions and backtraces find those of images.
//!
//! libgcc asks glibc, by `_dl_find_object`, whose the code at an address is. That call is led to a function of ours
//! ([`hook`]), which knows images by their addresses: no image has to be registered, nothing grows with their number,
//! and none of their tables is touched before something is thrown. Where the unwinder is another one, each image's
//! section is registered with it.

mod hook;

use super::ImageError;
use super::headers::Range;
use super::map::Mapped;
use crate::sys::unwind::Registration;

/// Encoding of a pointer: four bytes, signed, relative to where it stands. The only one that lld writes here.
const PC_RELATIVE_4: u8 = 0x1b;

/// Address of the index of the image's unwind tables, in memory.
pub(super) fn index(mapped: &Mapped) -> Result<Option<usize>, ImageError> {
    let Some(index) = mapped.headers.unwind else { return Ok(None) };
    let readable = mapped.place.segment(index.address, index.size.max(8));
    if readable.is_none_or(|segment| !segment.access.read || segment.access.write) || index.address % 4 != 0 {
        return Err(ImageError::Truncated("the index of its unwind tables"));
    }
    Ok(Some(mapped.place.at(index.address)))
}

/// Sees to it that the unwinder finds the image; gives what must be kept as long as the image, if anything.
///
/// # Safety
/// The image stays mapped as long as the registration, and is known to the registry.
pub(super) unsafe fn register(mapped: &Mapped) -> Result<Option<Registration>, ImageError> {
    let Some(index) = mapped.headers.unwind else { return Ok(None) };
    if hook::holds() {
        return Ok(None);
    }
    let section = match mapped.layout.frames {
        Some((address, _)) => address,
        None => by_index(mapped, index)?,
    };
    if section % 4 != 0
        || mapped.place.segment(section, 4).is_none_or(|segment| !segment.access.read || segment.access.write)
    {
        return Err(ImageError::Truncated("its unwind tables"));
    }
    // SAFETY: it lies in read-only memory of the image; that it is well formed follows from the checksum, which says
    // that it is what lld wrote, with a zero at the end.
    Ok(unsafe { Registration::new(mapped.place.at(section)) })
}

/// Where the section is, as the index says.
fn by_index(mapped: &Mapped, index: Range) -> Result<u64, ImageError> {
    // SAFETY: the image is mapped as its segments say.
    let header = unsafe { mapped.place.table::<u8>(index.address, 8) }
        .ok_or(ImageError::Truncated("the index of its unwind tables"))?;
    if header[..2] != [1, PC_RELATIVE_4] {
        return Err(ImageError::Unsupported("the index of its unwind tables is of an unknown kind".into()));
    }
    let distance = i32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    Ok((index.address + 4).wrapping_add_signed(distance.into()))
}
