//! Unwind tables: found through their index, registered once per image.

use super::ImageError;
use super::map::Mapped;
use crate::sys::unwind::Registration;

/// Encoding of a pointer: four bytes, signed, relative to where it stands. The only one that lld writes here.
const PC_RELATIVE_4: u8 = 0x1b;

/// Registers the image's `.eh_frame`; `None` when it has none.
///
/// # Safety
/// The image stays mapped as long as the registration.
pub(crate) unsafe fn register(mapped: &Mapped) -> Result<Option<Registration>, ImageError> {
    let (Some(index), Some(header)) = (mapped.headers.unwind, mapped.unwind) else { return Ok(None) };
    if header[..2] != [1, PC_RELATIVE_4] {
        return Err(ImageError::Unsupported("the index of its unwind tables is of an unknown kind".into()));
    }
    let distance = i32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let section = (index.address + 4).wrapping_add_signed(distance.into());
    if section % 4 != 0
        || mapped.place.segment(section, 4).is_none_or(|segment| !segment.access.read || segment.access.write)
    {
        return Err(ImageError::Truncated("its unwind tables"));
    }
    // SAFETY: it lies in read-only memory of the image; that it is well formed follows from the checksum, which says
    // that it is what lld wrote, with a zero at the end.
    Ok(unsafe { Registration::new(mapped.place.at(section)) })
}
