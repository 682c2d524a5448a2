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
//!   | 4      | 4    | size of the description, 40                        |
//!   | 8      | 4    | type, 1                                            |
//!   | 12     | 8    | name, `Hotbed\0`, padded with one zero byte        |
//!   | 20     | 4    | [`FORMAT_VERSION`], little-endian                  |
//!   | 24     | 4    | flags, none yet, zero                              |
//!   | 28     | 32   | checksum                                           |
//!
//!   The checksum is BLAKE3 over the whole file with these 32 bytes taken as zero.
//! - **a hidden symbol** [`DSO_HANDLE`] at the start of that section: the address by which the C and C++ run-time
//!   libraries know the image. It is not in the dynamic symbol table, so the loader works it out: load address plus
//!   the virtual address of the note.
//! - **metadata** in the section `.hotbed` (`SHT_PROGBITS`, not allocated): a [`Metadata`] in the encoding of
//!   [`crate::codec`]. Nothing of it is needed to map the image.

use super::ImageError;
use crate::codec::{CodecError, Reader, Writer};
use object::Endianness;
use object::elf::{FileHeader64, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

/// Version of the format; an image of another version is refused.
pub const FORMAT_VERSION: u32 = 1;
/// Section of the note.
pub const NOTE_SECTION: &str = ".note.hotbed";
/// Section of the metadata.
pub const METADATA_SECTION: &str = ".hotbed";
/// Hidden symbol at the start of [`NOTE_SECTION`].
pub const DSO_HANDLE: &str = "__dso_handle";

/// Name in the note, with its terminator.
pub(crate) const NOTE_NAME: &[u8; 7] = b"Hotbed\0";
/// Type of the note.
pub(crate) const NOTE_TYPE: u32 = 1;
/// Bytes of the note's description.
pub(crate) const NOTE_DESCRIPTION: usize = 40;
const CHECKSUM_AT: usize = 8;

/// What an image says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// [`crate::boundary::BUILD`] of the Hotbed that wrote it.
    pub build: String,
    /// Name of the unit.
    pub unit: String,
    /// LLVM target triple.
    pub triple: String,
    /// LLVM name of the processor it was compiled for.
    pub cpu: String,
    /// The flags it was compiled with, in order.
    pub flags: Vec<String>,
    /// Name and BLAKE3 hash of each input.
    pub inputs: Vec<(String, [u8; 32])>,
    /// The entry point of a program.
    pub entry: Option<String>,
}

impl Metadata {
    /// The contents of [`METADATA_SECTION`].
    pub fn encode(&self) -> Vec<u8> {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self { build, unit, triple, cpu, flags, inputs, entry } = self;
        let mut w = Writer::new();
        for text in [build, unit, triple, cpu] {
            w.text(text);
        }
        w.list(flags, |w, flag| w.text(flag));
        w.list(inputs, |w, (name, hash)| {
            w.text(name);
            w.raw(hash);
        });
        w.option(entry.as_ref(), |w, entry| w.text(entry));
        w.finish()
    }

    /// Metadata from the contents of [`METADATA_SECTION`].
    ///
    /// # Errors
    /// When they are not what [`Metadata::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        Ok(Self {
            build: r.text()?.to_owned(),
            unit: r.text()?.to_owned(),
            triple: r.text()?.to_owned(),
            cpu: r.text()?.to_owned(),
            flags: r.list(|r| Ok(r.text()?.to_owned()))?,
            inputs: r.list(|r| Ok((r.text()?.to_owned(), r.array()?)))?,
            entry: r.option(|r| Ok(r.text()?.to_owned()))?,
        })
    }
}

/// The contents of [`NOTE_SECTION`], with a checksum of zeros.
pub fn note_bytes() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + NOTE_DESCRIPTION);
    bytes.extend_from_slice(&(NOTE_NAME.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(NOTE_DESCRIPTION as u32).to_le_bytes());
    bytes.extend_from_slice(&NOTE_TYPE.to_le_bytes());
    bytes.extend_from_slice(NOTE_NAME);
    bytes.push(0);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.resize(20 + NOTE_DESCRIPTION, 0);
    bytes
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

/// Where in `file` the checksum stands.
///
/// # Errors
/// The reason why it is no image.
pub fn checksum_range(file: &[u8]) -> Result<std::ops::Range<usize>, ImageError> {
    let at = checksum_offset(file)?;
    Ok(at..at + 32)
}

/// The checksum that stands in the note of `file`, unchecked.
///
/// # Errors
/// The reason why it is no image.
pub fn recorded_checksum(file: &[u8]) -> Result<[u8; 32], ImageError> {
    let at = checksum_offset(file)?;
    let mut checksum = [0; 32];
    checksum.copy_from_slice(&file[at..at + 32]);
    Ok(checksum)
}

/// What the image in `file` says about itself.
///
/// # Errors
/// When `file` is no image or has no intact metadata.
pub fn metadata(file: &[u8]) -> Result<Metadata, ImageError> {
    let header = header(file)?;
    let endian = Endianness::Little;
    let sections = header.sections(endian, file).map_err(|_| ImageError::Truncated("the section table"))?;
    let (_, section) =
        sections.section_by_name(endian, METADATA_SECTION.as_bytes()).ok_or(ImageError::NoMetadata)?;
    let bytes = section.data(endian, file).map_err(|_| ImageError::Truncated("the metadata"))?;
    Metadata::decode(bytes).map_err(|_| ImageError::Damaged("its metadata cannot be decoded"))
}

fn compute(file: &[u8], at: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[..at]);
    hasher.update(&[0; 32]);
    hasher.update(&file[at + 32..]);
    *hasher.finalize().as_bytes()
}

fn header(file: &[u8]) -> Result<&FileHeader64<Endianness>, ImageError> {
    if !file.starts_with(b"\x7fELF") {
        return Err(ImageError::NotElf);
    }
    let header = FileHeader64::<Endianness>::parse(file).map_err(|_| {
        match (file.get(4), file.get(5), file.get(6)) {
            (Some(2), Some(1), Some(1)) => ImageError::Truncated("the ELF header"),
            _ => ImageError::WrongClass,
        }
    })?;
    if header.e_ident.data != object::elf::ELFDATA2LSB {
        return Err(ImageError::WrongClass);
    }
    Ok(header)
}

/// Where in `file` the checksum of the note lies; the 32 bytes are inside.
fn checksum_offset(file: &[u8]) -> Result<usize, ImageError> {
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
            if description.len() != NOTE_DESCRIPTION {
                return Err(ImageError::Damaged("its note has the wrong size"));
            }
            // The description is a slice of the file.
            let start = description.as_ptr() as usize - file.as_ptr() as usize;
            return Ok(start + CHECKSUM_AT);
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
        assert_eq!(recorded_checksum(&file), Ok(checksum));
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
    fn what_is_no_image_says_why() {
        assert_eq!(verify(b"hello"), Err(ImageError::NotElf));
        assert_eq!(verify(b"\x7fELF\x02\x01\x01"), Err(ImageError::Truncated("the ELF header")));
        assert_eq!(verify(b"\x7fELF\x01\x01\x01"), Err(ImageError::WrongClass));
        let mut file = smallest();
        file[16] = 1;
        assert_eq!(verify(&file), Err(ImageError::WrongType(1)));
        let mut file = smallest();
        file[140] = 9;
        assert_eq!(verify(&file), Err(ImageError::Format { found: 9, expected: 1 }));
        let mut file = smallest();
        file[132] = b'X';
        assert_eq!(verify(&file), Err(ImageError::NoNote));
        assert_eq!(metadata(&smallest()), Err(ImageError::NoMetadata));
    }

    #[test]
    fn metadata_survives() {
        let metadata = Metadata {
            build: "b".into(),
            unit: "u".into(),
            triple: "x86_64-pc-linux-gnu".into(),
            cpu: "x86-64".into(),
            flags: vec!["-O2".into()],
            inputs: vec![("a.c".into(), [7; 32])],
            entry: Some("main".into()),
        };
        let bytes = metadata.encode();
        assert_eq!(Metadata::decode(&bytes), Ok(metadata));
        for end in 0..bytes.len() {
            assert!(Metadata::decode(&bytes[..end]).is_err());
        }
    }
}
