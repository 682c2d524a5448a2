//! Mappings of its own for an image: at the addresses it was linked for, or anywhere.

use super::{MapError, Mapped, Memory};
use crate::image::ImageError;
use crate::image::headers::Headers;
use crate::image::place::Segment;
use crate::loader::LoaderOptions;
use crate::sys::memory::{Access, Mapping, PAGE, page_down, page_up};
use std::io;
use std::os::fd::BorrowedFd;

/// Below this nothing is mapped at its preferred address: programs and their heaps are there.
const LOWEST: usize = 1 << 32;
/// Writable segments up to this many bytes are brought in as a whole when they are relocated.
const POPULATED: usize = 32 * PAGE;

/// Maps the segments, contents and zeros; what else the file has behind contents in their last page is left for
/// [`Mapped::clear_rests`]. Between them there is nothing.
pub(super) fn map(
    file: BorrowedFd<'_>,
    mut headers: Headers,
    options: &LoaderOptions,
) -> Result<(Mapping, Headers), MapError> {
    // One that is linked for address zero has no address of its own.
    if options.preferred_addresses && headers.outline.first >= LOWEST {
        let before = headers.settle();
        if let Ok(mapping) = at_preferred(file, &headers) {
            return Ok((mapping, headers));
        }
        if let Some(before) = before {
            headers.unsettle(before);
        }
    }
    Ok((anywhere(file, &headers)?, headers))
}

/// Maps the segments where they were linked for, piece by piece: cheaper than a whole of which most is replaced.
fn at_preferred(file: BorrowedFd<'_>, headers: &Headers) -> io::Result<Mapping> {
    let mut mapping = Mapping::growing(headers.outline.first);
    for segment in &headers.segments {
        let Pieces { begin, from_file, zeros } = Pieces::of(segment, headers)?;
        let end = mapping.length();
        if begin > end {
            // Nothing else may get there.
            mapping.grow(begin - end, None, Access::default())?;
        }
        if from_file > 0 {
            let offset = page_down(segment.offset as usize) as u64;
            // Hardly anything is relocated, so that few of the pages will be touched.
            mapping.grow(from_file, Some((file, offset)), segment.access)?;
        }
        if zeros > 0 {
            mapping.grow(zeros, None, segment.access)?;
        }
    }
    Ok(mapping)
}

/// Maps the segments wherever there is room.
fn anywhere(file: BorrowedFd<'_>, headers: &Headers) -> Result<Mapping, MapError> {
    let [first, ..] = headers.segments.as_slice() else {
        return Err(ImageError::damaged("it has no loadable segment").into());
    };
    let start = page_down(first.offset as usize) as u64;
    // What is settled where the image was linked for is relocated here, and afterwards read-only together with what is in
    // front of it: so all can be writable that need not be executable, and takes no mappings of its own.
    let access = Access { write: headers.outline.settled, ..first.access };
    let whole = Mapping::of_file(file, start, headers.span, access);
    let mut mapping = whole.map_err(MapError::Map)?;
    let mut end = 0;
    for (number, segment) in headers.segments.iter().enumerate() {
        let Pieces { begin, from_file, zeros } = Pieces::of(segment, headers).map_err(MapError::Map)?;
        if begin > end {
            // Rather than some part of the file.
            mapping.replace_with_zeros(end, begin - end, Access::default()).map_err(MapError::Map)?;
        }
        if number > 0 && from_file > 0 {
            // Relocation and zeroing will touch most of these pages: all at once costs a third of one by one.
            let populate = segment.access.write && from_file <= POPULATED;
            let offset = page_down(segment.offset as usize) as u64;
            if segment.access != access || offset != start + begin as u64 {
                mapping
                    .replace_with_file(begin, from_file, file, offset, segment.access, populate)
                    .map_err(MapError::Map)?;
            } else if populate {
                mapping.populate(begin, from_file);
            }
        }
        end = begin + from_file;
        if zeros > 0 {
            mapping.replace_with_zeros(end, zeros, segment.access).map_err(MapError::Map)?;
            end += zeros;
        }
    }
    Ok(mapping)
}

/// What a segment is made of, in whole pages.
struct Pieces {
    /// Where it begins, counted from the beginning of the image.
    begin: usize,
    /// Bytes that come from the file.
    from_file: usize,
    /// Bytes of zeros behind them.
    zeros: usize,
}

impl Pieces {
    fn of(segment: &Segment, headers: &Headers) -> io::Result<Self> {
        let Segment { address, size, file_size, .. } = *segment;
        let begin = address as usize - headers.outline.first;
        let page = page_down(begin);
        let filled = if file_size == 0 { page } else { (begin + file_size as usize).next_multiple_of(PAGE) };
        let end = page_up(begin + size as usize);
        let end = end.ok_or_else(|| io::Error::other("the end of the address space"))?;
        Ok(Self { begin: page, from_file: filled - page, zeros: end.saturating_sub(filled) })
    }
}

impl Segment {
    /// The first address behind its contents that must be zero and is in the last page of them, and how many do.
    pub(crate) fn rest(&self) -> Option<(u64, u64)> {
        let end = self.address + self.file_size;
        let rest = (end.next_multiple_of(PAGE as u64) - end).min(self.size - self.file_size);
        (self.file_size > 0 && rest > 0).then_some((end, rest))
    }
}

impl Mapped {
    /// Puts zeros behind the contents of segments, up to the ends of their last pages.
    ///
    /// # Safety
    /// Nobody uses the image yet.
    pub(crate) unsafe fn clear_rests(&self) {
        if let Memory::Arena(_) = self.memory {
            // Put there as it shall be.
            return;
        }
        for (address, length) in self.place.segments.iter().filter_map(Segment::rest) {
            // SAFETY: within the pages of a segment that is longer than its contents, which is writable (`headers::parse`
            // has checked); the rest is the caller's promise.
            unsafe { (self.place.at(address) as *mut u8).write_bytes(0, length as usize) };
        }
    }
}
