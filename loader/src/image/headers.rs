//! The ELF header and the program headers: what a file wants to be in memory.

use super::ImageError;
use super::elf::*;
use super::note::CONSTANTS_SETTLED;
use super::place::Segment;
use crate::sys::memory::{Access, PAGE, page_down, page_up};
use smallvec::SmallVec;

/// How many bytes from the beginning of a file are read for its headers: seven more than linkers write.
pub(crate) const HEADER_BYTES: usize = 64 + 17 * 56;

/// A range of addresses before relocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// First address.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) size: u64,
}

/// The initial contents of the thread-local block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlsSegment {
    /// Where they are, before relocation.
    pub(crate) address: u64,
    /// How many bytes of them there are; the rest is zero.
    pub(crate) file_size: u64,
    /// Bytes of the block.
    pub(crate) size: u64,
    /// Its alignment, a power of two.
    pub(crate) align: u64,
}

/// What is still wanted of the program headers when the image is mapped.
#[derive(Debug, Clone)]
pub(crate) struct Outline {
    /// First page of the loadable segments.
    pub(crate) first: usize,
    /// The dynamic section.
    pub(crate) dynamic: Range,
    /// Thread-local storage.
    pub(crate) tls: Option<TlsSegment>,
    /// What becomes read-only after relocation.
    pub(crate) relro: Option<Range>,
    /// Where the image was linked for, nothing is ever written there: see [`CONSTANTS_SETTLED`]. It is then all of the second
    /// segment, which continues the first one, and that may only be read.
    pub(crate) settled: bool,
    /// The index of the unwind tables.
    pub(crate) unwind: Option<Range>,
}

/// What the program headers say.
#[derive(Debug, Clone)]
pub(crate) struct Headers {
    /// Loadable segments: ascending, no two on one page, inside the file, not both writable and executable. Those that
    /// can be mapped at once are one.
    pub(crate) segments: Vec<Segment>,
    /// Bytes from their first page to the end of the last.
    pub(crate) span: usize,
    /// Notes.
    pub(crate) notes: SmallVec<[Range; 2]>,
    /// The rest.
    pub(crate) outline: Outline,
}

/// Largest image in memory; far above anything sensible.
const LARGEST: u64 = 1 << 40;
/// Most that may lie between segments, all in all: several times the largest alignment that a section may have. It
/// costs nothing in the file, but every page of the range that an image occupies is entered in the registry.
const WIDEST_GAPS: u64 = 1 << 32;
/// Largest thread-local block and its largest alignment: what is larger is damage, as is found out here rather than when
/// a thread needs its block and there is no way to say so.
const LARGEST_BLOCK: u64 = 1 << 32;
const LARGEST_ALIGNMENT: u64 = 1 << 30;
/// Where the addresses end that a program can have; far below where sums of them overflow.
const HIGHEST: u64 = 1 << 47;

/// Reads the headers from the first bytes of a file of `file_size` bytes.
pub(crate) fn parse(bytes: &[u8], file_size: u64) -> Result<Headers, ImageError> {
    if !bytes.starts_with(b"\x7fELF") {
        return Err(ImageError::NotElf);
    }
    if bytes.get(4..7).is_some_and(|ident| ident != [2, 1, 1]) {
        return Err(ImageError::WrongClass);
    }
    let header = bytes.first_chunk::<64>().ok_or_else(|| ImageError::truncated("the ELF header"))?;
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if half(18) != EM_X86_64 {
        return Err(ImageError::WrongMachine(half(18)));
    }
    if half(16) != ET_DYN {
        return Err(ImageError::WrongType(half(16)));
    }
    let table = u64_at(header, 32) as usize;
    let (entry, count) = (usize::from(half(54)), usize::from(half(56)));
    if entry != 56 {
        return Err(ImageError::damaged("the size of its program headers"));
    }
    let table = table
        .checked_add(entry * count)
        .and_then(|end| bytes.get(table..end))
        .ok_or_else(|| ImageError::truncated("the program header table"))?;

    let table = table.as_chunks::<56>().0;
    // As many as there are: an image keeps them.
    let loaded = table.iter().filter(|entry| u32_at(*entry, 0) == PT_LOAD).count();
    let mut segments = Vec::with_capacity(loaded);
    let mut dynamic = None;
    let (mut tls, mut relro, mut unwind) = (None, None, None);
    let mut settled = false;
    let mut notes = SmallVec::new();
    for entry in table {
        let [offset, address, file_size_here, size, align] = [8, 16, 32, 40, 48].map(|at| u64_at(entry, at));
        let range = Range { address, size: file_size_here };
        match u32_at(entry, 0) {
            PT_LOAD if size > 0 => {
                let flags = u32_at(entry, 4);
                segments.push(Segment {
                    address,
                    size,
                    offset,
                    file_size: file_size_here,
                    access: Access {
                        read: flags & PF_R != 0,
                        write: flags & PF_W != 0,
                        execute: flags & PF_X != 0,
                    },
                });
            }
            PT_DYNAMIC => dynamic = Some(range),
            PT_NOTE => notes.push(range),
            PT_TLS if size > 0 => {
                if file_size_here > size
                    || !align.max(1).is_power_of_two()
                    || align > LARGEST_ALIGNMENT
                    || size > LARGEST_BLOCK
                {
                    return Err(ImageError::damaged("its thread-local segment"));
                }
                tls = Some(TlsSegment { address, file_size: file_size_here, size, align: align.max(1) });
            }
            PT_GNU_RELRO => {
                relro = Some(Range { address, size });
                settled = u32_at(entry, 4) & CONSTANTS_SETTLED != 0;
            }
            PT_GNU_EH_FRAME => unwind = Some(range),
            _ => {}
        }
    }
    let (first, span) = check(&segments, file_size)?;
    join(&mut segments);
    let settled = settled && relro.is_some_and(|relro| is_settled(&segments, relro));
    Ok(Headers {
        segments,
        span,
        notes,
        outline: Outline {
            first,
            dynamic: dynamic.ok_or_else(|| ImageError::damaged("it has no dynamic section"))?,
            tls,
            relro,
            settled,
            unwind,
        },
    })
}

impl Headers {
    /// Makes the segments what is mapped where the image was linked for: what is settled becomes a part of the first one. Gives
    /// both as they were.
    pub(crate) fn settle(&mut self) -> Option<[Segment; 2]> {
        let both = *self.segments.first_chunk::<2>().filter(|_| self.outline.settled)?;
        self.segments.remove(1);
        self.segments[0] = joined(&both[0], &both[1]);
        Some(both)
    }

    /// Takes that back.
    pub(crate) fn unsettle(&mut self, [first, constants]: [Segment; 2]) {
        if let Some(place) = self.segments.first_mut() {
            *place = first;
            self.segments.insert(1, constants);
        }
    }
}

/// Whether the second segment is what becomes read-only, and as the first one then continues that.
fn is_settled(segments: &[Segment], relro: Range) -> bool {
    let [first, constants, ..] = segments else { return false };
    let only_read = Access { read: true, ..Access::default() };
    let pages = |address: u64, size: u64| (page_down(address as usize), page_up((address + size) as usize));
    let Some(end) = relro.address.checked_add(relro.size).filter(|end| *end < HIGHEST) else { return false };
    let whole = (page_down(relro.address as usize), Some(page_down(end as usize)));
    first.access == only_read
        && constants.access.write
        && constants.size == constants.file_size
        && pages(constants.address, constants.size) == whole
        && continues(first, &Segment { access: only_read, ..*constants })
}

fn check(segments: &[Segment], file_size: u64) -> Result<(usize, usize), ImageError> {
    let first = segments.first().ok_or_else(|| ImageError::damaged("it has no loadable segment"))?;
    if first.address > HIGHEST {
        return Err(ImageError::damaged("the address of its first segment"));
    }
    let mut end = page_down(first.address as usize);
    let mut gaps = 0;
    for segment in segments {
        let Segment { address, size, offset, file_size: in_file, access } = *segment;
        // Those in the wrong order are found below.
        if address.saturating_sub(first.address) > LARGEST || size > LARGEST || in_file > size {
            return Err(ImageError::damaged("the size of a segment"));
        }
        if offset.checked_add(in_file).is_none_or(|end| end > file_size) {
            return Err(ImageError::truncated("a segment"));
        }
        if page_down(address as usize) < end {
            return Err(ImageError::damaged("its segments overlap"));
        }
        gaps += (page_down(address as usize) - end) as u64;
        if gaps > WIDEST_GAPS {
            return Err(ImageError::damaged("its segments are too far apart"));
        }
        if (address ^ offset) as usize & (PAGE - 1) != 0 {
            return Err(ImageError::damaged("a segment is not aligned to pages"));
        }
        if access.write && access.execute {
            return Err(ImageError::Unsupported("a segment is writable and executable at once".into()));
        }
        if in_file < size && !access.write {
            return Err(ImageError::damaged("a read-only segment has no contents"));
        }
        end =
            page_up((address + size) as usize).ok_or_else(|| ImageError::damaged("the size of a segment"))?;
    }
    let first = page_down(first.address as usize);
    Ok((first, end - first))
}

/// Makes each segment that continues the one before it, in the file as in memory and to the same use, a part of that: a
/// linker begins a new one where what becomes read-only after relocation ends.
fn join(segments: &mut Vec<Segment>) {
    segments.dedup_by(|segment, last| {
        let joins = continues(last, segment);
        if joins {
            *last = joined(last, segment);
        }
        joins
    });
}

fn joined(first: &Segment, next: &Segment) -> Segment {
    let distance = next.address - first.address;
    Segment { size: distance + next.size, file_size: distance + next.file_size, ..*first }
}

fn continues(last: &Segment, next: &Segment) -> bool {
    // Between them there is less than a page, which the linker has left free in the file and in memory.
    page_up((last.address + last.size) as usize) == Some(page_down(next.address as usize))
        && next.offset.checked_sub(last.offset) == Some(next.address - last.address)
        && next.offset >= last.offset + last.file_size
        && next.offset - (last.offset + last.file_size) < PAGE as u64
        && next.access == last.access
        && next.file_size > 0
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
