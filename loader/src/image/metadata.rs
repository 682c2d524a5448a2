//! What an image says about itself beside its note: nothing of it is needed to map the image, and who maps one does not read it.

use super::ImageError;
use super::note::{METADATA_SECTION, UNITS_SECTION, header};
use crate::codec::{CodecError, Reader, Writer};
use object::Endianness;
use object::read::elf::{FileHeader, SectionHeader};

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

    /// What the image in `file` says about itself.
    ///
    /// # Errors
    /// When `file` is no image or has no intact metadata.
    pub fn of_file(file: &[u8]) -> Result<Self, ImageError> {
        let header = header(file)?;
        let endian = Endianness::Little;
        let sections =
            header.sections(endian, file).map_err(|_| ImageError::Truncated("the section table"))?;
        let (_, section) =
            sections.section_by_name(endian, METADATA_SECTION.as_bytes()).ok_or(ImageError::NoMetadata)?;
        let bytes = section.data(endian, file).map_err(|_| ImageError::Truncated("the metadata"))?;
        Self::decode(bytes).map_err(|_| ImageError::Damaged("its metadata cannot be decoded"))
    }
}

/// The names of the units in [`UNITS_SECTION`] of the image in `file`, in its order; none where it has no such section.
///
/// # Errors
/// When `file` is no image or its units are damaged.
pub fn unit_names(file: &[u8]) -> Result<Vec<String>, ImageError> {
    let endian = Endianness::Little;
    let sections =
        header(file)?.sections(endian, file).map_err(|_| ImageError::Truncated("the section table"))?;
    let Some((_, section)) = sections.section_by_name(endian, UNITS_SECTION.as_bytes()) else {
        return Ok(Vec::new());
    };
    let bytes = section.data(endian, file).map_err(|_| ImageError::Truncated("its units"))?;
    let unit = |r: &mut Reader<'_>| {
        let name = r.text()?.to_owned();
        let (_suffix, _arguments) = (r.text()?, r.list(|r| r.text())?);
        let (_trusted, _bitcode) = (r.bool()?, r.bytes()?);
        Ok(name)
    };
    Reader::new(bytes).list(unit).map_err(|_| ImageError::Damaged("its units cannot be decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
