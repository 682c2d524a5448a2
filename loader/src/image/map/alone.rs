//! Mappings of its own for an image: at the addresses it was linked for, or anywhere.

use super::MapError;
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

/// Maps the segments, contents and zeros. Between them there is nothing.
pub(super) fn map(
    file: BorrowedFd<'_>,
    headers: &Headers,
    options: &LoaderOptions,
) -> Result<Mapping, MapError> {
    // One that is linked for address zero has no address of its own.
    let preferred = options.preferred_addresses && headers.first >= LOWEST;
    match preferred.then(|| at_preferred(file, headers)).and_then(Result::ok) {
        Some(mapping) => Ok(mapping),
        None => anywhere(file, headers),
    }
}

/// Maps the segments where they were linked for, piece by piece: cheaper than a whole of which most is replaced.
fn at_preferred(file: BorrowedFd<'_>, headers: &Headers) -> io::Result<Mapping> {
    let mut mapping = Mapping::growing(headers.first);
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
        clear_rest(&mapping, headers, segment);
        if zeros > 0 {
            mapping.grow(zeros, None, segment.access)?;
        }
    }
    Ok(mapping)
}

/// Maps the segments wherever there is room.
fn anywhere(file: BorrowedFd<'_>, headers: &Headers) -> Result<Mapping, MapError> {
    let [first, ..] = headers.segments.as_slice() else {
        return Err(ImageError::Damaged("it has no loadable segment").into());
    };
    let start = page_down(first.offset as usize) as u64;
    let whole = Mapping::of_file(file, start, headers.span, first.access);
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
            mapping
                .replace_with_file(begin, from_file, file, offset, segment.access, populate)
                .map_err(MapError::Map)?;
        }
        clear_rest(&mapping, headers, segment);
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
        let begin = address as usize - headers.first;
        let page = page_down(begin);
        let filled = if file_size == 0 { page } else { (begin + file_size as usize).next_multiple_of(PAGE) };
        let end = page_up(begin + size as usize);
        let end = end.ok_or_else(|| io::Error::other("the end of the address space"))?;
        Ok(Self { begin: page, from_file: filled - page, zeros: end.saturating_sub(filled) })
    }
}

/// Puts zeros behind a segment's contents, up to the end of the page.
fn clear_rest(mapping: &Mapping, headers: &Headers, segment: &Segment) {
    let begin = segment.address as usize - headers.first;
    let contents_end = begin + segment.file_size as usize;
    let last = begin + segment.size as usize;
    if segment.file_size > 0 && contents_end < last {
        let end = contents_end.next_multiple_of(PAGE).min(last);
        // SAFETY: writable (`headers::parse` has checked), inside this mapping, and within the file's pages.
        unsafe { ((mapping.start() + contents_end) as *mut u8).write_bytes(0, end - contents_end) };
    }
}
