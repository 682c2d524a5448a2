//! Units as images keep them: what has to be known to open one again.

use hotbed_loader::codec::{CodecError, Reader, Writer};
use hotbed_loader::image::note::{BODIES_SECTION, UNITS_SECTION};
use object::LittleEndian as LE;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept<'a> {
    /// What messages call it.
    pub(super) name: &'a str,
    /// What is behind its local names.
    pub(super) suffix: &'a str,
    /// The front end's arguments, after `-cc1`.
    pub(super) arguments: Vec<&'a str>,
    /// Whether the bitcode need not be verified.
    pub(super) trusted: bool,
    /// Its bitcode.
    pub(super) bitcode: &'a [u8],
}

/// The contents of [`UNITS_SECTION`].
pub(super) fn encode(units: &[Kept<'_>]) -> Vec<u8> {
    let mut w = Writer::new();
    w.list(units, |w, unit| {
        // Taken apart, so that a new field cannot be forgotten here.
        let Kept { name, suffix, arguments, trusted, bitcode } = unit;
        w.text(name);
        w.text(suffix);
        w.list(arguments, |w, argument| w.text(argument));
        w.bool(*trusted);
        w.bytes(bitcode);
    });
    w.finish()
}

fn decode(bytes: &[u8]) -> Result<Vec<Kept<'_>>, CodecError> {
    Reader::new(bytes).list(|r| {
        Ok(Kept {
            name: r.text()?,
            suffix: r.text()?,
            arguments: r.list(|r| r.text())?,
            trusted: r.bool()?,
            bitcode: r.bytes()?,
        })
    })
}

/// Functions that were compiled together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptBody<'a> {
    /// Their slots.
    pub(super) slots: Vec<u32>,
    /// The object that they are in.
    pub(super) object: &'a [u8],
}

/// The contents of [`BODIES_SECTION`].
pub(super) fn encode_bodies(bodies: &[KeptBody<'_>]) -> Vec<u8> {
    let mut w = Writer::new();
    w.list(bodies, |w, KeptBody { slots, object }| {
        w.list(slots, |w, slot| w.u32(*slot));
        w.bytes(object);
    });
    w.finish()
}

/// What [`encode_bodies`] makes.
pub(super) fn decode_bodies(bytes: &[u8]) -> Result<Vec<KeptBody<'_>>, CodecError> {
    Reader::new(bytes).list(|r| Ok(KeptBody { slots: r.list(|r| r.u32())?, object: r.bytes()? }))
}

/// The bodies that the image in `file` has.
///
/// # Errors
/// What is wrong with them.
pub(super) fn bodies(file: &[u8]) -> Result<Vec<KeptBody<'_>>, &'static str> {
    match section(file, BODIES_SECTION)? {
        Some(bytes) => decode_bodies(bytes).map_err(|_| "has damaged bodies"),
        None => Ok(Vec::new()),
    }
}

fn section<'a>(file: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, &'static str> {
    let header = FileHeader64::<LE>::parse(file).map_err(|_| "is no image")?;
    let sections = header.sections(LE, file).map_err(|_| "has no table of sections")?;
    let found = sections.section_by_name(LE, name.as_bytes());
    found.map(|(_, section)| section.data(LE, file).map_err(|_| "has a damaged section")).transpose()
}

/// The units of the image in `file`, in its order.
///
/// # Errors
/// What is wrong with them.
pub(super) fn units(file: &[u8]) -> Result<Vec<Kept<'_>>, &'static str> {
    let bytes = section(file, UNITS_SECTION)?.ok_or("has no bitcode of its functions")?;
    decode(bytes).map_err(|_| "has damaged bitcode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_survive_the_file() {
        let bodies =
            [KeptBody { slots: vec![0, 7], object: b"object" }, KeptBody { slots: Vec::new(), object: b"" }];
        let bytes = encode_bodies(&bodies);
        assert_eq!(decode_bodies(&bytes).expect("bodies"), bodies);
        assert!((0..bytes.len()).all(|length| decode_bodies(&bytes[..length]).is_err()));
    }

    #[test]
    fn units_survive_the_file() {
        let units = [
            Kept {
                name: "a.c",
                suffix: ".u0",
                arguments: vec!["-O0", "-x", "c"],
                trusted: true,
                bitcode: &[1, 2, 3],
            },
            Kept { name: "b.c", suffix: ".u1", arguments: vec![], trusted: false, bitcode: &[] },
        ];
        let bytes = encode(&units);
        assert_eq!(decode(&bytes).expect("units"), units);
        assert!((0..bytes.len()).all(|length| decode(&bytes[..length]).is_err()));
    }
}
