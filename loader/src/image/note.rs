//! The image format: what Hotbed adds to an ELF shared object, and how it is read and sealed.
//!
//! An image is a valid ELF file of type `ET_DYN`. Beside what the linker puts there it has:
//!
//! - **a note** in the allocated section `.note.hotbed` (type `SHT_NOTE`, alignment 4), so that it is covered by a
//!   `PT_NOTE` segment and found without section headers:
//!
//!   | offset | size | contents                                           |
//!   |--------|------|----------------------------------------------------|
//!   | 0      | 4    | size of the name, 7                                |
//!   | 4      | 4    | size of the description, 164                       |
//!   | 8      | 4    | type, 1                                            |
//!   | 12     | 8    | name, `Hotbed\0`, padded with one zero byte        |
//!   | 20     | 4    | [`FORMAT_VERSION`], little-endian                  |
//!   | 24     | 4    | flags                                              |
//!   | 28     | 32   | checksum                                           |
//!   | 60     | 4    | distance from here to the handle, signed           |
//!   | 64     | 8    | address of the hashes of the imports' names        |
//!   | 72     | 4    | how many there are                                 |
//!   | 76     | 4    | stride of an image for arenas, otherwise zero      |
//!   | 80     | 8    | address of the unwind tables, zero if not known    |
//!   | 88     | 8    | size of the unwind tables in bytes                 |
//!   | 96     | 4    | number of functions that have slots                |
//!   | 100    | 8    | address of their slots, zero where there are none  |
//!   | 108    | 8    | address of their lazy entries, the same            |
//!   | 116    | 8    | address of their records, the same                 |
//!   | 124    | 32   | hash of the interface                              |
//!   | 156    | 8    | address of the dependencies, zero if there are none |
//!   | 164    | 4    | how many bytes they are                            |
//!   | 168    | 16   | features of the processor that it needs            |
//!
//!   The checksum is BLAKE3 over the whole file with these 32 bytes taken as zero. The features are a set in the encoding of
//!   [`crate::cpu`]. Addresses are those of the file, before
//!   relocation. The flags and what stands from offset 64 on is [`Layout`]: it can be had from the rest of the file as
//!   well, but not without further looks at it.
//!
//!   | flag | meaning                                                                                        |
//!   |------|------------------------------------------------------------------------------------------------|
//!   | 1    | at the address that the program headers give, no relative relocation has anything to do         |
//!   | 2    | functions of the image itself have to be called in order to relocate it (`R_X86_64_IRELATIVE`)   |
//!   | 4    | what the image exports is for every library of the process (`-rdynamic`)                         |
//!   | 8    | relocations that want the address of a shared definition of the image's own have it already, as with flag 1 |
//!
//!   **Constants that are settled**: where [`CONSTANTS_SETTLED`] is among the flags of `PT_GNU_RELRO`, no relocation but relative
//!   ones concerns what becomes read-only, so at the address that the program headers give nobody ever writes there. If it is
//!   all of the second loadable segment, and continues the first, which is read only, both are mapped as one.
//!
//!   **The shape for arenas**: an image with a stride has two loadable segments and no `PT_GNU_RELRO`. The first may be read
//!   and executed, the second read and written, and the second lies as far behind the first in memory as in the file,
//!   plus the stride; no section wants an alignment above [`ARENA_ALIGNMENT`]. So images of one stride may be copied side
//!   by side, each at any multiple of that alignment, into two regions of stride bytes, one behind the other.
//!
//!   **Functions with slots** are compiled when they are first called; what stands in their tables is told in `image/slots.rs`.
//! - **hashes of the imports' names** in a note of type 2 in the section `.note.hotbed.hashes` (a note, so that it lies near the other
//!   tables, on pages that are touched anyway): a `u32` each, that of GNU's hash
//!   tables, for the symbols 1, 2, 3 ... of the dynamic symbol table, where lld puts what is undefined first. The room is
//!   reserved before the link; symbols behind its end have no hash here.
//! - **dependencies** in a note of type 3 in the section `.note.hotbed.dependencies`, where the image was linked against other
//!   images: what `image/interface.rs` tells of them.
//! - **a hidden symbol** [`DSO_HANDLE`], the handle: a word in writable memory with its own address in it. By that address
//!   the C and C++ run-time libraries know the image: compiled code takes the symbol's, the static part of the C
//!   library (`atexit`, `at_quick_exit`, `pthread_atfork`) takes what is in the word. The symbol is not in the dynamic
//!   symbol table, so the note says where the word is; with a distance of zero the note itself is the handle.
//! - **metadata** in the section `.hotbed` (`SHT_PROGBITS`, not allocated): a [`Metadata`](super::Metadata) in the encoding of
//!   [`crate::codec`]. Nothing of it is needed to map the image.
//! - **identities** of what other images may have too, in the section [`IDENTITIES_SECTION`](super::IDENTITIES_SECTION)
//!   (`SHT_PROGBITS`, not allocated): what `image/identity.rs` tells of them. An image may do without.
//! - **units** in the section [`UNITS_SECTION`] (`SHT_PROGBITS`, not allocated), where functions are compiled when they are first
//!   called: a list in the encoding of [`crate::codec`], of each unit its name, what is behind its local names, the
//!   arguments of clang's front end, whether its bitcode is sound for certain, and that. Functions belong to units by their
//!   places in this list. What bodies refer to is found in `.symtab`: what is hidden there or global (of what is weak and
//!   visible the process has one) has the address that the table says, and a `thread_local` variable `x` of a unit with the
//!   suffix `.u0` is asked for by a function `x.u0.tls`. What was compiled of them by then is linked in, and stands once more
//!   in the section [`BODIES_SECTION`], likewise not allocated, so that it can be linked again with what comes later: a list
//!   of the slots of functions that were compiled together and the object that they became. A stub's name is the function's;
//!   stubs of weak functions are in no groups, so each has its slot, and of several ones the name means the first. An image that
//!   was made by a trace stays as it is and has no such section; there the names of functions without bodies are hidden.

use super::{ImageDependency, ImageError};
use crate::cpu::CpuFeatures;
use crate::sys::files;
use object::elf::{FileHeader64, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::ops::Range;

/// Version of the format; an image of another version is refused.
pub const FORMAT_VERSION: u32 = 5;
/// Section of the note.
pub const NOTE_SECTION: &str = ".note.hotbed";
/// Section of the metadata.
pub const METADATA_SECTION: &str = ".hotbed";
/// Section of the units whose functions are compiled later.
pub const UNITS_SECTION: &str = ".hotbed.bitcode";
/// Section of the objects that functions were compiled to.
pub const BODIES_SECTION: &str = ".hotbed.bodies";
/// Section of the hashes of the imports' names.
pub const HASHES_SECTION: &str = ".note.hotbed.hashes";
/// Type of the note that the hashes are in.
const HASHES_TYPE: u32 = 2;
/// Section of the dependencies on other images.
pub const DEPENDENCIES_SECTION: &str = ".note.hotbed.dependencies";
/// Type of the note that they are in.
const DEPENDENCIES_TYPE: u32 = 3;
/// Where the contents of a note of ours begin.
pub const CONTENTS_AT: usize = 20;
/// Largest alignment in bytes of what is in an image for arenas.
pub const ARENA_ALIGNMENT: u64 = 64;
/// A flag of the program header `PT_GNU_RELRO`, one of those that are an operating system's own (`PF_MASKOS`).
pub const CONSTANTS_SETTLED: u32 = 0x0010_0000;
/// Section of the slots of functions, with two words in front.
pub const SLOTS_SECTION: &str = ".hotbed.slots";
/// Section of their lazy entries.
pub const ENTRIES_SECTION: &str = ".hotbed.lazy";
/// Section of their records.
pub const FUNCTIONS_SECTION: &str = ".hotbed.functions";
/// Bytes in front of the slots.
pub const SLOTS_HEAD: u64 = 16;
/// Bytes of a slot.
pub const SLOT_BYTES: u64 = 8;
/// Bytes of a lazy entry.
pub const ENTRY_BYTES: u64 = 5;
/// Bytes of a record.
pub const FUNCTION_BYTES: u64 = 16;
/// Hidden symbol by which run-time libraries know the image.
pub const DSO_HANDLE: &str = "__dso_handle";

/// Name in the note, with its terminator.
pub(crate) const NOTE_NAME: &[u8; 7] = b"Hotbed\0";
/// Type of the note.
pub(crate) const NOTE_TYPE: u32 = 1;
/// Bytes of the note's description.
pub(crate) const NOTE_DESCRIPTION: usize = 164;
const FLAGS_AT: usize = 4;
const CHECKSUM_AT: usize = 8;
/// Where the checksum is after the beginning of the note.
pub(crate) const CHECKSUM_OFFSET: usize = 20 + CHECKSUM_AT;
const HANDLE_AT: usize = 40;
const LAYOUT_AT: usize = 44;
const LAYOUT_END: usize = NOTE_DESCRIPTION;
/// Where in the contents of [`NOTE_SECTION`] the distance to the handle stands, for the linker to enter.
pub const HANDLE_DISTANCE_AT: usize = CONTENTS_AT + HANDLE_AT;

const RELOCATED: u32 = 1;
const RESOLVERS: u32 = 2;
const EXPORTS: u32 = 4;
const SETTLED: u32 = 8;

/// What the note says about the rest of the file, so that a loader need not look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// Mapped at the addresses that its program headers give, the image needs no relative relocation.
    pub relocated: bool,
    /// Mapped there, the places of relocations that want the address of a shared definition of the image's own
    /// (weak, COMDAT) have that address: nobody has to write it unless another definition is used.
    pub settled: bool,
    /// Functions of the image have to be called in order to relocate it.
    pub resolvers: bool,
    /// What the image exports is for every library of the process, as a linker exports everything of an executable when
    /// it is told to.
    pub exports: bool,
    /// Address of the hashes of the names of the symbols from number 1 on, and how many there are.
    pub hashes: (u64, u32),
    /// The image has the shape for arenas: bytes of addresses that its second segment lies further behind the first than
    /// in the file.
    pub stride: Option<NonZeroU32>,
    /// Address and size in bytes of `.eh_frame`, which ends with a record of length zero.
    pub frames: Option<(u64, u64)>,
    /// Its functions that have slots, if there are any.
    pub lazy: Option<LazyLayout>,
    /// Hash of its [interface](super::Interface).
    pub interface: [u8; 32],
    /// Address and size in bytes of what it remembers of images that it was linked against, if there are any.
    pub dependencies: Option<(u64, u32)>,
    /// What its code needs of the processor.
    pub requires: CpuFeatures,
}

/// Where the tables of functions with slots are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LazyLayout {
    /// How many functions.
    pub count: u32,
    /// Address of the slots, of the words in front of them.
    pub slots: u64,
    /// Address of the lazy entries.
    pub entries: u64,
    /// Address of the records.
    pub functions: u64,
}

impl Layout {
    fn encode(&self) -> (u32, [u8; LAYOUT_END - LAYOUT_AT]) {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self {
            relocated,
            settled,
            resolvers,
            exports,
            hashes: (hashes, count),
            stride,
            frames,
            lazy,
            interface,
            dependencies,
            requires,
        } = *self;
        let flags = [(relocated, RELOCATED), (settled, SETTLED), (resolvers, RESOLVERS), (exports, EXPORTS)];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag);
        let (frames, size) = frames.unwrap_or_default();
        let mut bytes = [0; LAYOUT_END - LAYOUT_AT];
        bytes[..8].copy_from_slice(&hashes.to_le_bytes());
        bytes[8..12].copy_from_slice(&count.to_le_bytes());
        bytes[12..16].copy_from_slice(&stride.map_or(0, NonZeroU32::get).to_le_bytes());
        bytes[16..24].copy_from_slice(&frames.to_le_bytes());
        bytes[24..32].copy_from_slice(&size.to_le_bytes());
        if let Some(LazyLayout { count, slots, entries, functions }) = lazy {
            bytes[32..36].copy_from_slice(&count.to_le_bytes());
            let places = bytes[36..60].as_chunks_mut().0;
            for (place, address) in places.iter_mut().zip([slots, entries, functions]) {
                *place = address.to_le_bytes();
            }
        }
        bytes[60..92].copy_from_slice(&interface);
        let (dependencies, size) = dependencies.unwrap_or_default();
        bytes[92..100].copy_from_slice(&dependencies.to_le_bytes());
        bytes[100..104].copy_from_slice(&size.to_le_bytes());
        bytes[104..].copy_from_slice(&requires.to_bytes());
        (flags, bytes)
    }

    /// Reads it from the description of a note of this format version.
    pub(crate) fn decode(description: &[u8; NOTE_DESCRIPTION]) -> Self {
        let half = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| description[at + byte]));
        let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
        let flags = half(FLAGS_AT);
        let frames = (word(LAYOUT_AT + 16), word(LAYOUT_AT + 24));
        Self {
            relocated: flags & RELOCATED != 0,
            settled: flags & SETTLED != 0,
            resolvers: flags & RESOLVERS != 0,
            exports: flags & EXPORTS != 0,
            hashes: (word(LAYOUT_AT), half(LAYOUT_AT + 8)),
            stride: NonZeroU32::new(half(LAYOUT_AT + 12)),
            frames: (frames.0 != 0).then_some(frames),
            lazy: (word(LAYOUT_AT + 36) != 0).then(|| LazyLayout {
                count: half(LAYOUT_AT + 32),
                slots: word(LAYOUT_AT + 36),
                entries: word(LAYOUT_AT + 44),
                functions: word(LAYOUT_AT + 52),
            }),
            interface: std::array::from_fn(|at| description[LAYOUT_AT + 60 + at]),
            dependencies: (word(LAYOUT_AT + 92) != 0).then(|| (word(LAYOUT_AT + 92), half(LAYOUT_AT + 100))),
            requires: CpuFeatures::from_bytes(std::array::from_fn(|at| description[LAYOUT_AT + 104 + at])),
        }
    }
}

/// How far behind the beginning of a note with this description its image's handle is.
pub(crate) fn handle_distance(description: &[u8; NOTE_DESCRIPTION]) -> isize {
    match i32::from_le_bytes([0, 1, 2, 3].map(|byte| description[HANDLE_AT + byte])) {
        0 => 0,
        distance => distance as isize + HANDLE_DISTANCE_AT as isize,
    }
}

/// The contents of [`HASHES_SECTION`], with room for so many hashes.
pub fn hashes_bytes(count: usize) -> Vec<u8> {
    note_with(HASHES_TYPE, &vec![0; count * 4])
}

/// The contents of [`DEPENDENCIES_SECTION`].
pub fn dependencies_bytes(dependencies: &[ImageDependency]) -> Vec<u8> {
    note_with(DEPENDENCIES_TYPE, &ImageDependency::encode_all(dependencies))
}

/// The contents of [`NOTE_SECTION`], with a checksum of zeros and nothing said about the layout.
pub fn note_bytes() -> Vec<u8> {
    let mut description = [0; NOTE_DESCRIPTION];
    description[..4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    note_with(NOTE_TYPE, &description)
}

/// A note of ours.
fn note_with(kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CONTENTS_AT + contents.len() + 3);
    for word in [NOTE_NAME.len() as u32, contents.len() as u32, kind] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(NOTE_NAME);
    bytes.push(0);
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Enters `layout` in the note of the image in `file`, which has to be sealed afterwards.
///
/// # Errors
/// When there is no note of this format version in it.
pub fn set_layout(file: &mut [u8], layout: &Layout) -> Result<(), ImageError> {
    let at = description_range(file)?.start;
    let (flags, bytes) = layout.encode();
    file[at + FLAGS_AT..at + CHECKSUM_AT].copy_from_slice(&flags.to_le_bytes());
    file[at + LAYOUT_AT..at + LAYOUT_END].copy_from_slice(&bytes);
    Ok(())
}

/// What the note of the image in `file` says about its layout.
///
/// # Errors
/// The reason why it is no image.
pub fn layout(file: &[u8]) -> Result<Layout, ImageError> {
    read_layout(file)
}

/// The same of a file that is not in memory: only its headers and notes are read.
///
/// # Errors
/// As for [`layout`].
pub fn read_layout<'a>(file: impl ReadRef<'a>) -> Result<Layout, ImageError> {
    Ok(Layout::decode(description(file)?))
}

/// Computes the checksum of the image in `file`, writes it into its note and returns it.
///
/// # Errors
/// When there is no note of this format version in it.
pub fn seal(file: &mut [u8]) -> Result<[u8; 32], ImageError> {
    let at = checksum_offset(file)?;
    let checksum = compute(file, at);
    file[at..at + 32].copy_from_slice(&checksum);
    Ok(checksum)
}

/// Checks that the contents of `file` are those it was sealed with, and returns its checksum.
///
/// # Errors
/// The reason why it is no image, or not an intact one.
pub fn verify(file: &[u8]) -> Result<[u8; 32], ImageError> {
    let at = checksum_offset(file)?;
    let checksum = compute(file, at);
    if checksum == file[at..at + 32] { Ok(checksum) } else { Err(ImageError::Checksum) }
}

/// The checksum that stands in the note of `file`, unchecked.
///
/// # Errors
/// The reason why it is no image.
pub fn recorded_checksum<'a>(file: impl ReadRef<'a>) -> Result<[u8; 32], ImageError> {
    let description = description(file)?;
    Ok(std::array::from_fn(|at| description[CHECKSUM_AT + at]))
}

/// [`verify`] of a file that is not in memory, and is not brought there as a whole if its note is near its beginning, where linkers
/// put it: a process that has looked through a large image would keep the memory. It has about `size` bytes.
///
/// # Errors
/// What the system says; inside, as for [`verify`].
pub(crate) fn verify_file(file: &File, size: u64) -> io::Result<Result<[u8; 32], ImageError>> {
    const PIECE: usize = 256 << 10;
    if size <= PIECE as u64 {
        return Ok(verify(&files::contents_of(file, size)?));
    }
    let (mut hasher, mut recorded, mut place, mut first) = (blake3::Hasher::new(), [0; 32], None, true);
    files::in_pieces(file, PIECE, |piece| {
        if std::mem::take(&mut first)
            && let Ok(at) = checksum_offset(piece)
        {
            place = Some(at);
            recorded.copy_from_slice(&piece[at..at + 32]);
            piece[at..at + 32].fill(0);
        }
        if place.is_some() {
            hasher.update(piece);
        }
    })?;
    if place.is_none() {
        return Ok(verify(&files::contents_of(file, size)?));
    }
    Ok(if *hasher.finalize().as_bytes() == recorded { Ok(recorded) } else { Err(ImageError::Checksum) })
}

fn compute(file: &[u8], at: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[..at]);
    hasher.update(&[0; 32]);
    hasher.update(&file[at + 32..]);
    *hasher.finalize().as_bytes()
}

pub(super) fn header<'a>(file: impl ReadRef<'a>) -> Result<&'a FileHeader64<Endianness>, ImageError> {
    let start = file.read_bytes_at(0, file.len().unwrap_or(0).min(7)).unwrap_or_default();
    if !start.starts_with(b"\x7fELF") {
        return Err(ImageError::NotElf);
    }
    let header = FileHeader64::<Endianness>::parse(file).map_err(|_| match start.get(4..) {
        Some([2, 1, 1]) => ImageError::Truncated("the ELF header"),
        _ => ImageError::WrongClass,
    })?;
    if header.e_ident.data != object::elf::ELFDATA2LSB {
        return Err(ImageError::WrongClass);
    }
    Ok(header)
}

fn checksum_offset(file: &[u8]) -> Result<usize, ImageError> {
    Ok(description_range(file)?.start + CHECKSUM_AT)
}

/// Where in `file` the description of the note lies; all of it is inside.
///
/// # Errors
/// The reason why it is no image.
pub(crate) fn description_range(file: &[u8]) -> Result<Range<usize>, ImageError> {
    // A slice of the file.
    let start = description(file)?.as_ptr() as usize - file.as_ptr() as usize;
    Ok(start..start + NOTE_DESCRIPTION)
}

fn description<'a>(file: impl ReadRef<'a>) -> Result<&'a [u8; NOTE_DESCRIPTION], ImageError> {
    let header = header(file)?;
    let endian = Endianness::Little;
    let kind = header.e_type.get(endian);
    if kind != object::elf::ET_DYN {
        return Err(ImageError::WrongType(kind.0));
    }
    let segments = header
        .program_headers(endian, file)
        .map_err(|_| ImageError::Truncated("the program header table"))?;
    for segment in segments.iter().filter(|segment| segment.p_type(endian) == PT_NOTE) {
        let mut notes = match segment.notes(endian, file) {
            Ok(Some(notes)) => notes,
            Ok(None) => continue,
            Err(_) => return Err(ImageError::Truncated("a note")),
        };
        while let Some(note) =
            notes.next().map_err(|_| ImageError::Damaged("a note runs over its segment"))?
        {
            // `object` gives the name without its terminator.
            if note.name() != &NOTE_NAME[..6] || note.n_type(endian).0 != NOTE_TYPE {
                continue;
            }
            let description = note.desc();
            let Some(version) = description.first_chunk::<4>() else {
                return Err(ImageError::Damaged("its note is too short"));
            };
            let version = u32::from_le_bytes(*version);
            if version != FORMAT_VERSION {
                return Err(ImageError::Format { found: version, expected: FORMAT_VERSION });
            }
            return description.try_into().map_err(|_| ImageError::Damaged("its note has the wrong size"));
        }
    }
    Err(ImageError::NoNote)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    /// The smallest file with a note: a header, one program header and the note.
    fn smallest() -> Vec<u8> {
        let mut file = vec![0u8; 120];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16] = 3; // ET_DYN
        file[18] = 62; // EM_X86_64
        file[20] = 1;
        file[32] = 64; // e_phoff
        file[52] = 64; // e_ehsize
        file[54] = 56; // e_phentsize
        file[56] = 1; // e_phnum
        let note = note_bytes();
        file[64] = 4; // PT_NOTE
        file[72] = 120; // p_offset
        file[96] = note.len() as u8; // p_filesz
        file[112] = 4; // p_align
        file.extend_from_slice(&note);
        file.extend_from_slice(b"the rest");
        file
    }

    #[test]
    fn a_sealed_file_verifies_and_a_changed_one_does_not() {
        let mut file = smallest();
        assert_eq!(verify(&file), Err(ImageError::Checksum));
        let checksum = seal(&mut file).unwrap();
        assert_eq!(verify(&file), Ok(checksum));
        assert_eq!(recorded_checksum(&*file), Ok(checksum));
        assert_eq!(seal(&mut file), Ok(checksum), "sealing again changes nothing");
        for at in 0..file.len() {
            file[at] ^= 0x10;
            assert!(verify(&file).is_err(), "byte {at}");
            file[at] ^= 0x10;
        }
        for end in 0..file.len() {
            assert!(verify(&file[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn files_are_verified_piece_by_piece() {
        let folder = crate::testing::Folder::new();
        let path = folder.path().join("image");
        let verified = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            verify_file(&File::open(&path).unwrap(), bytes.len() as u64).unwrap()
        };
        let piece = 256 << 10;
        for size in [200, piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 77] {
            let mut file = smallest();
            file.resize(size.max(file.len()), 7);
            let checksum = seal(&mut file).unwrap();
            assert_eq!(verified(&file), Ok(checksum), "{size}");
            for at in [0, 150, file.len() / 2, file.len() - 1] {
                file[at] ^= 1;
                assert!(verified(&file).is_err(), "{size}: byte {at}");
                file[at] ^= 1;
            }
            assert!(verified(&file[..file.len() - 1]).is_err(), "{size}");
        }
        // The note far behind.
        let mut file = smallest();
        let note = file.split_off(120);
        file.resize(2 * piece, 0);
        file[72..76].copy_from_slice(&(2 * piece as u32).to_le_bytes());
        file.extend_from_slice(&note);
        let checksum = seal(&mut file).unwrap();
        assert_eq!(verified(&file), Ok(checksum));
    }

    #[test]
    fn what_is_no_image_says_why() {
        assert_eq!(verify(b"hello"), Err(ImageError::NotElf));
        assert_eq!(verify(b"\x7fELF\x02\x01\x01"), Err(ImageError::Truncated("the ELF header")));
        assert_eq!(verify(b"\x7fELF\x01\x01\x01"), Err(ImageError::WrongClass));
        let mut file = smallest();
        file[16] = 1;
        assert_eq!(verify(&file), Err(ImageError::WrongType(1)));
        let mut file = smallest();
        file[140] = 9;
        assert_eq!(verify(&file), Err(ImageError::Format { found: 9, expected: FORMAT_VERSION }));
        let mut file = smallest();
        file[132] = b'X';
        assert_eq!(verify(&file), Err(ImageError::NoNote));
    }

    #[test]
    fn a_layout_survives_and_is_under_the_checksum() {
        let mut file = smallest();
        assert_eq!(layout(&file), Ok(Layout::default()));
        let said = Layout {
            relocated: true,
            settled: true,
            resolvers: true,
            exports: true,
            hashes: (0x2000_0000_1238, 77),
            stride: NonZeroU32::new(1 << 20),
            frames: Some((0x2000_0000_4568, 1 << 33)),
            lazy: Some(LazyLayout {
                count: 9,
                slots: 0x2000_0001_0000,
                entries: 0x2000_0002_0003,
                functions: 8,
            }),
            interface: [3; 32],
            dependencies: Some((0x2000_0000_0300, 1 << 20)),
            requires: CpuFeatures::named(["avx", "wbnoinvd"]),
        };
        let before = seal(&mut file).unwrap();
        set_layout(&mut file, &said).unwrap();
        assert_eq!(layout(&file), Ok(said));
        assert_eq!(verify(&file), Err(ImageError::Checksum));
        assert_ne!(seal(&mut file), Ok(before));
        assert_eq!(layout(&file), Ok(said), "sealing keeps it");
        for one in [Layout { relocated: true, ..Layout::default() }, Layout { resolvers: true, ..said }] {
            set_layout(&mut file, &one).unwrap();
            assert_eq!(layout(&file), Ok(one));
        }
    }
}
