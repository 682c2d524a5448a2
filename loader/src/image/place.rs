//! A loaded ELF file in memory, seen through its segments: every look into it is checked against them.

use super::ImageError;
use super::elf::{PF_R, PF_W, PF_X, Plain, Symbol};
use super::needle::Needle;
use super::symbols::Symbols;
use crate::sys::memory::Access;
use std::ffi::CStr;

/// A loadable segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// Address before relocation.
    pub(crate) address: u64,
    /// Bytes in memory.
    pub(crate) size: u64,
    /// Where its contents begin in the file.
    pub(crate) offset: u64,
    /// How many bytes of it the file has; the rest is zero.
    pub(crate) file_size: u64,
    /// What its code and data may be used for.
    pub(crate) access: Access,
}

impl Segment {
    fn holds(&self, address: u64, length: u64) -> bool {
        address >= self.address
            && address.checked_add(length).is_some_and(|end| end <= self.address + self.size)
    }
}

/// Where a loaded file lies, and its segments in ascending order; `address + size` of none overflows.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// What is added to the addresses in the file.
    pub(crate) base: usize,
    /// The loadable segments.
    pub(crate) segments: Vec<Segment>,
    /// Whether nobody writes to tables in writable segments any more: so for what glibc has relocated, while an
    /// image of ours must have its tables in read-only ones.
    pub(crate) settled: bool,
}

impl Place {
    /// What glibc has loaded at `base` with these segments.
    pub(crate) fn of_loaded<'a>(base: usize, segments: impl Iterator<Item = &'a libc::Elf64_Phdr>) -> Self {
        let segments = segments.map(|segment| Segment {
            address: segment.p_vaddr,
            size: segment.p_memsz,
            offset: segment.p_offset,
            file_size: segment.p_filesz,
            access: Access {
                read: segment.p_flags & PF_R != 0,
                write: segment.p_flags & PF_W != 0,
                execute: segment.p_flags & PF_X != 0,
            },
        });
        Self { base, segments: segments.collect(), settled: true }
    }

    /// Where `address` of the file is in memory.
    pub(crate) fn at(&self, address: u64) -> usize {
        self.base.wrapping_add(address as usize)
    }

    /// The segment that has all of these bytes.
    pub(crate) fn segment(&self, address: u64, length: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.holds(address, length))
    }

    /// Whether `memory`, an address after relocation, is in executable memory of this file.
    pub(crate) fn is_code(&self, memory: usize) -> bool {
        self.segment(memory.wrapping_sub(self.base) as u64, 1).is_some_and(|segment| segment.access.execute)
    }

    /// `count` elements at `address`, in memory that is never written.
    ///
    /// # Safety
    /// The file is mapped as its segments say, and stays so as long as the slice is used.
    pub(crate) unsafe fn table<T: Plain>(&self, address: u64, count: usize) -> Option<&'static [T]> {
        let length = count.checked_mul(size_of::<T>())?;
        let segment = self.segment(address, length as u64)?;
        // SAFETY: the bytes are in that segment; the rest is the caller's promise.
        unsafe { self.slice(segment, address, count) }
    }

    /// The elements from `address` to the end of its segment, in memory that is never written.
    ///
    /// # Safety
    /// As for [`Place::table`].
    pub(crate) unsafe fn tail<T: Plain>(&self, address: u64) -> Option<&'static [T]> {
        let segment = self.segment(address, 0)?;
        let count = (segment.address + segment.size - address) as usize / size_of::<T>();
        // SAFETY: the bytes are in that segment; the rest is the caller's promise.
        unsafe { self.slice(segment, address, count) }
    }

    unsafe fn slice<T: Plain>(&self, segment: &Segment, address: u64, count: usize) -> Option<&'static [T]> {
        let memory = self.at(address);
        let Access { read, write, .. } = segment.access;
        if !read || (write && !self.settled) || !memory.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: readable, aligned, never written (the mapping is private, and read-only or settled), and any bytes
        // are a `T`.
        Some(unsafe { std::slice::from_raw_parts(memory as *const T, count) })
    }

    /// A copy of `count` elements at `address`, in any readable memory that has contents in the file: so there are never
    /// more of them than that has room for.
    ///
    /// # Safety
    /// As for [`Place::table`]; nobody writes there meanwhile.
    pub(crate) unsafe fn copy<T: Plain>(&self, address: u64, count: usize) -> Option<Vec<T>> {
        let length = count.checked_mul(size_of::<T>())?;
        let segment = self.segment(address, length as u64)?;
        if !segment.access.read || address - segment.address + length as u64 > segment.file_size {
            return None;
        }
        let mut values: Vec<T> = Vec::with_capacity(count);
        // SAFETY: the bytes are readable, there is room for them, and any bytes are a `T`.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.at(address) as *const u8,
                values.as_mut_ptr().cast::<u8>(),
                length,
            );
            values.set_len(count);
        }
        Some(values)
    }
}

/// A table of texts, each ended by a zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strings(&'static [u8]);

impl Strings {
    /// The texts of `bytes`, up to the last that is ended.
    pub(crate) fn new(bytes: &'static [u8]) -> Self {
        let end = bytes.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
        Self(&bytes[..end])
    }

    /// The text at `offset`, without its terminator.
    #[inline]
    pub(crate) fn get(&self, offset: u64) -> Option<&'static [u8]> {
        let rest = self.0.get(usize::try_from(offset).ok()?..).filter(|rest| !rest.is_empty())?;
        // SAFETY: the table ends with a zero (`new` has seen to it), so there is one in the rest, which is not empty.
        Some(unsafe { CStr::from_ptr(rest.as_ptr().cast()) }.to_bytes())
    }

    /// Whether what stands at `offset` begins with `prefix`.
    #[inline]
    pub(crate) fn begins(&self, offset: u64, prefix: &[u8]) -> bool {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..));
        rest.is_some_and(|rest| rest.starts_with(prefix))
    }

    /// Whether that text stands at `offset`.
    #[inline(always)]
    pub(crate) fn has(&self, offset: u32, needle: &Needle) -> bool {
        needle.is_at(self.0, offset as usize)
    }

    /// That text, if it stands at `offset`.
    #[inline(always)]
    pub(crate) fn get_if(&self, offset: u32, needle: &Needle) -> Option<&'static [u8]> {
        let rest = self.0.get(offset as usize..).filter(|_| self.has(offset, needle))?;
        rest.get(..needle.length())
    }

    /// Whether `text` stands at `offset`.
    #[inline]
    pub(crate) fn is(&self, offset: u64, text: &[u8]) -> bool {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..));
        rest.is_some_and(|rest| rest.get(text.len()) == Some(&0) && rest.starts_with(text))
    }
}

/// The name of a symbol.
pub(crate) fn text_of(symbols: &Symbols, symbol: &Symbol) -> Result<&'static [u8], ImageError> {
    symbols.text(symbol.name.into()).ok_or_else(|| ImageError::truncated("the name of a symbol"))
}
