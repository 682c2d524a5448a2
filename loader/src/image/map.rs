//! Mapping: from a file, a descriptor or bytes to memory in which nothing is relocated yet.

mod alone;

use super::arena::{self, Alone, Lease};
use super::dynamic::Dynamic;
use super::headers::{self, HEADER_BYTES, Headers, Outline};
use super::note::{
    self, CHECKSUM_OFFSET, FORMAT_VERSION, Layout, NOTE_DESCRIPTION, NOTE_NAME, NOTE_TYPE, handle_distance,
};
use super::place::Place;
use super::slots::Tables;
use super::symbols::Symbols;
use super::{Identities, ImageDependency, ImageError, StartError};
use crate::loader::LoaderOptions;
use crate::sys::files::{memory_copy, memory_file, open_regular, open_sized};
use crate::sys::memory::{Access, Mapping, page_down, read_at, size_of};
use object::ReadCache;
use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Where an image is.
#[derive(Debug, Clone, Copy)]
pub enum ImageSource<'a> {
    /// A file. It is mapped, so nobody may write to it or cut it short before the image is gone.
    File(&'a Path),
    /// An open file, mapped likewise; the path is only what it goes by. The descriptor may be closed after loading.
    Descriptor {
        /// The file, readable.
        file: BorrowedFd<'a>,
        /// Its name.
        path: &'a Path,
    },
    /// Bytes, which are copied.
    Bytes(&'a [u8]),
}

impl ImageSource<'_> {
    /// The path, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Descriptor { path, .. } => Some(path),
            Self::Bytes(_) => None,
        }
    }
}

/// Why a source could not be mapped.
#[derive(Debug)]
pub(crate) enum MapError {
    /// The file cannot be read.
    Read(io::Error),
    /// The system refuses a mapping.
    Map(io::Error),
    /// The contents.
    Image(ImageError),
}

impl From<ImageError> for MapError {
    #[cold]
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// A mapped image and what was read from it.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// What the program headers said, but for the segments, which are in `place`.
    pub(crate) headers: Outline,
    /// What the dynamic section said.
    pub(crate) dynamic: Dynamic,
    /// Its symbols: slices of `mapping`.
    pub(crate) symbols: Symbols,
    /// Where it is.
    pub(crate) place: Place,
    /// Address by which run-time libraries know the image.
    pub(crate) handle: usize,
    /// Address of the note before relocation.
    pub(crate) note: u64,
    /// What the note said.
    pub(crate) layout: Layout,
    /// Its functions that are compiled when they are first called.
    pub(crate) lazy: Option<Box<Lazy>>,
    /// The name it was mapped from.
    pub(crate) path: Option<PathBuf>,
    /// The memory itself.
    pub(crate) memory: Memory,
}

/// What an image has that has functions that are compiled when they are first called.
#[derive(Debug)]
pub(crate) struct Lazy {
    /// Which functions.
    pub(crate) tables: Tables,
    /// All of the file: what they are compiled from is in no segment.
    file: Option<Mapping>,
}

/// Whose the memory of an image is.
#[derive(Debug)]
pub(crate) enum Memory {
    /// Its own.
    Own {
        /// All of it.
        mapping: Mapping,
        /// For a small one.
        _alone: Option<Alone>,
    },
    /// A place in an arena.
    Arena(Lease),
}

/// Maps `source`; `name` is for bytes, which may get a file in memory of that name.
pub(crate) fn map(
    name: &str,
    source: ImageSource<'_>,
    options: &LoaderOptions,
) -> Result<Box<Mapped>, MapError> {
    let path = source.path().map(Path::to_owned);
    match source {
        ImageSource::File(path_) => {
            let (file, size) = open_sized(path_).map_err(MapError::Read)?;
            map_file(file.as_fd(), size, path, options)?.with_file(file.as_fd(), size)
        }
        ImageSource::Descriptor { file, .. } => {
            let size = size_of(file).map_err(MapError::Read)?;
            map_file(file, size, path, options)?.with_file(file, size)
        }
        ImageSource::Bytes(bytes) => {
            // Refused before anything is copied.
            let head = &bytes[..bytes.len().min(HEADER_BYTES)];
            let headers = headers::parse(head, bytes.len() as u64)?;
            if let Some(extent) = arena_extent(&headers, options)
                && let Some(mapped) = into_arena(bytes, &headers, extent, None)?
            {
                if mapped.lazy.is_none() {
                    return Ok(mapped);
                }
                let file = memory_copy(name, bytes).map_err(MapError::Map)?;
                return mapped.with_file(file.as_fd(), bytes.len() as u64);
            }
            let file = memory_file(name).map_err(MapError::Map)?;
            let mut file = File::from(file);
            file.write_all(bytes).map_err(MapError::Map)?;
            map_alone(file.as_fd(), headers, None, options, None)?.with_file(file.as_fd(), bytes.len() as u64)
        }
    }
}

impl Mapped {
    /// Whether others need it by that name.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let own = self.dynamic.soname.and_then(|own| self.symbols.text(own));
        own == Some(name.as_bytes())
    }

    /// The checksum in its note, unchecked.
    pub(crate) fn checksum(&self) -> Option<[u8; 32]> {
        let at = self.note.wrapping_add(CHECKSUM_OFFSET as u64);
        // SAFETY: mapped as its segments say, and the bytes are not used beyond this function.
        unsafe { self.place.table::<u8>(at, 32) }?.first_chunk().copied()
    }

    /// The identities of its shared definitions, from its file; nothing if that is not there any more.
    pub(crate) fn identities(&self) -> Option<Identities> {
        if let Some(file) = self.contents() {
            return Identities::of_file(file).ok();
        }
        let (file, _) = open_regular(self.path.as_ref()?).ok()?;
        let file = ReadCache::new(file);
        let is_it = note::recorded_checksum(&file).ok() == self.checksum();
        Identities::read(&file).ok().filter(|_| is_it)
    }

    /// What it remembers of images that it was linked against.
    pub(crate) fn dependencies(&self) -> Result<Vec<ImageDependency>, ImageError> {
        let Some((address, size)) = self.layout.dependencies else { return Ok(Vec::new()) };
        // SAFETY: mapped as its segments say, and the bytes are not used beyond this function.
        ImageDependency::of_image(unsafe { self.place.table::<u8>(address, size as usize) })
    }

    /// The image with its file, if it will be wanted.
    fn with_file(mut self: Box<Self>, file: BorrowedFd<'_>, size: u64) -> Result<Box<Self>, MapError> {
        if let Some(lazy) = &mut self.lazy {
            let access = Access { read: true, ..Access::default() };
            lazy.file = Some(Mapping::of_file(file, 0, size as usize, access).map_err(MapError::Map)?);
        }
        Ok(self)
    }

    /// The contents of the file, where it is kept.
    pub(crate) fn contents(&self) -> Option<&[u8]> {
        let file = self.lazy.as_ref()?.file.as_ref()?;
        // SAFETY: mapped to be read, as long as the borrow; nobody writes to the file of an image that is mapped.
        Some(unsafe { std::slice::from_raw_parts(file.start() as *const u8, file.length()) })
    }
}

fn map_file(
    file: BorrowedFd<'_>,
    size: u64,
    path: Option<PathBuf>,
    options: &LoaderOptions,
) -> Result<Box<Mapped>, MapError> {
    let mut buffer = [MaybeUninit::uninit(); HEADER_BYTES];
    let read = read_at(file, &mut buffer, 0).map_err(MapError::Read)?;
    // SAFETY: that many bytes have been read.
    let bytes = unsafe { buffer[..read].assume_init_ref() };
    let headers = headers::parse(bytes, size)?;
    let Some(extent) = arena_extent(&headers, options) else {
        return map_alone(file, headers, path, options, None);
    };
    let alone = arena::alone();
    if alone.is_none() {
        let mut bytes = Vec::with_capacity(extent);
        let length = extent.min(size as usize);
        let read = read_at(file, &mut bytes.spare_capacity_mut()[..length], 0).map_err(MapError::Read)?;
        // SAFETY: that many bytes have been read.
        unsafe { bytes.set_len(read) };
        if let Some(mapped) = into_arena(&bytes, &headers, extent, path.clone())? {
            return Ok(mapped);
        }
    }
    map_alone(file, headers, path, options, alone)
}

/// How much of the file goes into an arena, if the image may go there: not while gdb shall set breakpoints, since the
/// system lets nobody write into memory that is shared and not writable, debuggers neither.
fn arena_extent(headers: &Headers, options: &LoaderOptions) -> Option<usize> {
    if options.debug.gdb { None } else { arena::extent(headers) }
}

/// Copies a small image into an arena; `None` if it must have mappings of its own after all.
fn into_arena(
    bytes: &[u8],
    headers: &Headers,
    extent: usize,
    path: Option<PathBuf>,
) -> Result<Option<Box<Mapped>>, MapError> {
    // Where memory cannot be executed that is mapped twice, a mapping of the file may be.
    let Ok(lease) = Lease::new(bytes, headers, extent) else { return Ok(None) };
    let [code, ..] = headers.segments.as_slice() else { return Ok(None) };
    let base = lease.start().wrapping_sub(code.address as usize);
    let mapped = read_tables(headers.clone(), base, path, Memory::Arena(lease))?;
    Ok((mapped.layout.stride.map(NonZeroU32::get) == Some(arena::STRIDE as u32)).then_some(mapped))
}

/// Maps an image for itself.
fn map_alone(
    file: BorrowedFd<'_>,
    headers: Headers,
    path: Option<PathBuf>,
    options: &LoaderOptions,
    alone: Option<Alone>,
) -> Result<Box<Mapped>, MapError> {
    let (mapping, headers) = alone::map(file, headers, options)?;
    let base = mapping.start().wrapping_sub(headers.outline.first);
    read_tables(headers, base, path, Memory::Own { mapping, _alone: alone })
}

/// Reads the tables of what is in memory.
fn read_tables(
    headers: Headers,
    base: usize,
    path: Option<PathBuf>,
    memory: Memory,
) -> Result<Box<Mapped>, MapError> {
    let Headers { segments, notes, outline: headers, .. } = headers;
    let place = Place { base, segments, settled: false };
    let (dynamic, tables, mut symbols, handle, note, layout, lazy);
    // SAFETY: in memory as the segments say, and `Mapped` keeps the memory as long as the symbols.
    unsafe {
        (note, handle, layout) = find_note(&place, &notes)?;
        (dynamic, tables) = Dynamic::read(&place, headers.dynamic)?;
        symbols = Symbols::new(&place, &tables)?;
        symbols.set_hashes(&place, layout.hashes)?;
        lazy = match layout.lazy {
            Some(lazy) => {
                let tables = Tables::new(&place, headers.relro, lazy)?;
                Some(Box::new(Lazy { tables, file: None }))
            }
            None => None,
        };
    }
    if dynamic.text_relocations {
        return Err(ImageError::Unsupported("it has text relocations: recompile with -fPIC".into()).into());
    }
    if dynamic.plain_relocations {
        return Err(ImageError::damaged("it has relocations of a kind that x86-64 does not have").into());
    }
    // Where there is nothing but zeros, linkers may lay it beside all segments.
    if let Some(tls) = headers.tls.as_ref().filter(|tls| tls.file_size > 0)
        && place.segment(tls.address, tls.file_size).is_none_or(|segment| !segment.access.read)
    {
        return Err(ImageError::truncated("the thread-local segment").into());
    }
    Ok(Box::new(Mapped { headers, dynamic, symbols, place, handle, note, layout, lazy, path, memory }))
}

impl Memory {
    /// Whether an address is its own.
    pub(crate) fn holds(&self, address: usize) -> bool {
        match self {
            Self::Own { mapping, .. } => address.wrapping_sub(mapping.start()) < mapping.length(),
            Self::Arena(lease) => lease.offset_of(address).is_some(),
        }
    }

    /// From now on dropping it gives no addresses back: nothing else will ever be found there.
    pub(crate) fn keep_addresses(&mut self) {
        match self {
            Self::Own { mapping, .. } => mapping.keep_addresses(),
            Self::Arena(lease) => lease.keep_addresses(),
        }
    }

    /// Its addresses. Those of a small image have others in between.
    pub(crate) fn range(&self) -> Range<usize> {
        match self {
            Self::Own { mapping, .. } => mapping.start()..mapping.start() + mapping.length(),
            Self::Arena(lease) => lease.range(),
        }
    }
}

/// The address of the image's note before relocation, that of its handle, and what the note says.
///
/// # Safety
/// As for [`Place::table`].
unsafe fn find_note(place: &Place, notes: &[headers::Range]) -> Result<(u64, usize, Layout), ImageError> {
    for range in notes {
        // SAFETY: the caller's promise.
        let Some(bytes) = (unsafe { place.table::<u8>(range.address, range.size as usize) }) else {
            return Err(ImageError::truncated("a note"));
        };
        let mut at = 0;
        while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<12>()) {
            let word = |at: usize| {
                u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize
            };
            let (name_size, size) = (word(0), word(4));
            let name = at + 12;
            let description = name + name_size.next_multiple_of(4);
            if word(8) == NOTE_TYPE as usize && bytes.get(name..name + name_size) == Some(NOTE_NAME) {
                let Some(version) = bytes.get(description..).and_then(|rest| rest.first_chunk::<4>()) else {
                    return Err(ImageError::truncated("its note"));
                };
                let found = u32::from_le_bytes(*version);
                if found != FORMAT_VERSION {
                    return Err(ImageError::Format { found, expected: FORMAT_VERSION });
                }
                if size != NOTE_DESCRIPTION {
                    return Err(ImageError::damaged("its note has the wrong size"));
                }
                let description = bytes.get(description..).and_then(|rest| rest.first_chunk());
                let description = description.ok_or_else(|| ImageError::truncated("its note"))?;
                let note = range.address.wrapping_add(at as u64);
                let handle = note.wrapping_add_signed(handle_distance(description) as i64);
                if place.segment(handle, 1).is_none() {
                    return Err(ImageError::damaged("its handle lies outside of it"));
                }
                return Ok((note, place.at(handle), Layout::decode(description)));
            }
            at = description + size.next_multiple_of(4);
        }
    }
    Err(ImageError::NoNote)
}

/// Makes read-only what the image wants to be so after relocation.
///
/// # Safety
/// Nobody writes there any more.
pub(super) unsafe fn protect(mapped: &Mapped) -> Result<(), StartError> {
    let (Some(range), Memory::Own { mapping, .. }) = (mapped.headers.relro, &mapped.memory) else {
        return Ok(());
    };
    let from = match mapped.place.segment(range.address, range.size) {
        // With what is in front of it, see `alone`.
        Some(segment) if segment.access.write && mapped.headers.settled => mapped.headers.first,
        Some(segment) if segment.access.write => page_down(range.address as usize),
        // Mapped so.
        Some(_) if mapped.headers.settled => return Ok(()),
        _ => {
            let what = "what shall become read-only is not in a writable segment";
            return Err(ImageError::Damaged(what).into());
        }
    };
    let start = from - mapped.headers.first;
    let end = page_down((range.address + range.size) as usize) - mapped.headers.first;
    if end > start {
        let access = Access { read: true, ..Access::default() };
        // SAFETY: the range is in a segment of the image; the rest is the caller's promise.
        unsafe { mapping.protect(start, end - start, access) }.map_err(StartError::System)?;
    }
    Ok(())
}
