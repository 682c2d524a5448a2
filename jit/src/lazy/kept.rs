//! Units as images keep them: what has to be known to open one again.

use hotbed_loader::codec::{CodecError, Reader, Writer};
use hotbed_loader::image::note::UNITS_SECTION;
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
    /// Its bitcode.
    pub(super) bitcode: &'a [u8],
}

/// The contents of [`UNITS_SECTION`].
pub(super) fn encode(units: &[Kept<'_>]) -> Vec<u8> {
    let mut w = Writer::new();
    w.list(units, |w, unit| {
        // Taken apart, so that a new field cannot be forgotten here.
        let Kept { name, suffix, arguments, bitcode } = unit;
        w.text(name);
        w.text(suffix);
        w.list(arguments, |w, argument| w.text(argument));
        w.bytes(bitcode);
    });
    w.finish()
}

fn decode(bytes: &[u8]) -> Result<Vec<Kept<'_>>, CodecError> {
    Reader::new(bytes).list(|r| {
        Ok(Kept { name: r.text()?, suffix: r.text()?, arguments: r.list(|r| r.text())?, bitcode: r.bytes()? })
    })
}

/// The units of the image in `file`, in its order.
///
/// # Errors
/// What is wrong with them.
pub(super) fn units(file: &[u8]) -> Result<Vec<Kept<'_>>, &'static str> {
    let header = FileHeader64::<LE>::parse(file).map_err(|_| "is no image")?;
    let sections = header.sections(LE, file).map_err(|_| "has no table of sections")?;
    let found = sections.section_by_name(LE, UNITS_SECTION.as_bytes());
    let (_, section) = found.ok_or("has no bitcode of its functions")?;
    let bytes = section.data(LE, file).map_err(|_| "has damaged bitcode")?;
    decode(bytes).map_err(|_| "has damaged bitcode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_survive_the_file() {
        let units = [
            Kept { name: "a.c", suffix: ".u0", arguments: vec!["-O0", "-x", "c"], bitcode: &[1, 2, 3] },
            Kept { name: "b.c", suffix: ".u1", arguments: vec![], bitcode: &[] },
        ];
        let bytes = encode(&units);
        assert_eq!(decode(&bytes).expect("units"), units);
        assert!((0..bytes.len()).all(|length| decode(&bytes[..length]).is_err()));
    }
}
