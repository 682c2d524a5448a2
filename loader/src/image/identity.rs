//! Identities of shared definitions: what several images may have a copy of, and all must use the same of (template instances, inline
//! functions and variables, vtables, type information), is known by a hash of what it is.
//!
//! Two copies have one **identity** if they have the same contents but for places that are relocated, and refer at these places to the
//! same names, or to contents that are the same again. Where they lie does not count, nor what else is in their images. A definition
//! that refers to a variable which only its own unit has (a `static` one) is no other unit's.
//!
//! They are found out when an image is linked, from the objects, where references are by name still (`link/identity.rs` of the back end),
//! and stand in the section [`IDENTITIES_SECTION`] (`SHT_PROGBITS`, not allocated): a list in the encoding of [`crate::codec`], sorted,
//! of the first eight bytes of the BLAKE3 hash of a name and of the 16 bytes of its identity. Only what a symbol of the image
//! is weak for means something there. Loading an image reads nothing of it; an image without the section, and functions that
//! are bitcode only, have no identities.

use super::ImageError;
use super::note::header;
use crate::codec::{Reader, Writer};
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, ReadRef};
use std::fmt;

/// Section of the identities.
pub const IDENTITIES_SECTION: &str = ".hotbed.identities";

/// What a shared definition is, whatever image it is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 16]);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identities of the shared definitions of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// By the hashes of names.
    all: Vec<([u8; 8], Identity)>,
}

impl Identities {
    /// Those of definitions with these names, each of which comes once.
    pub fn new<'a>(all: impl IntoIterator<Item = (&'a [u8], Identity)>) -> Self {
        let mut all: Vec<_> = all.into_iter().map(|(name, identity)| (short(name), identity)).collect();
        all.sort_unstable();
        Self { all }
    }

    /// Those of the image, or of another file, in `file`.
    ///
    /// # Errors
    /// When it is none, or they cannot be decoded.
    pub fn of_file(file: &[u8]) -> Result<Self, ImageError> {
        Self::read(file)
    }

    /// The same of a file that is not in memory: only its headers and the section are read.
    pub(crate) fn read<'a>(file: impl ReadRef<'a>) -> Result<Self, ImageError> {
        let endian = Endianness::Little;
        let sections =
            header(file)?.sections(endian, file).map_err(|_| ImageError::Truncated("the section table"))?;
        let Some((_, section)) = sections.section_by_name(endian, IDENTITIES_SECTION.as_bytes()) else {
            return Ok(Self::default());
        };
        let bytes = section.data(endian, file).map_err(|_| ImageError::Truncated("its identities"))?;
        let read = Reader::new(bytes).list(|r| Ok((r.array()?, Identity(r.array()?))));
        let all = read.map_err(|_| ImageError::Damaged("its identities cannot be decoded"))?;
        if !all.is_sorted() {
            return Err(ImageError::Damaged("its identities are in no order"));
        }
        Ok(Self { all })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The identity of the definition of `name`, if it is known.
    pub fn of(&self, name: &[u8]) -> Option<Identity> {
        let key = short(name);
        let at = self.all.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(self.all[at].1)
    }

    /// The contents of [`IDENTITIES_SECTION`].
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.list(&self.all, |w, (name, Identity(identity))| {
            w.raw(name);
            w.raw(identity);
        });
        w.finish()
    }
}

/// Names are not compared byte by byte: 64 bits tell those of an image apart.
fn short(name: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(name);
    std::array::from_fn(|at| hash.as_bytes()[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_found_by_name() {
        let names = ["_Z1fv", "_ZTV1A", "x"];
        let all = Identities::new(
            names.iter().enumerate().map(|(at, name)| (name.as_bytes(), Identity([at as u8; 16]))),
        );
        for (at, name) in names.iter().enumerate() {
            assert_eq!(all.of(name.as_bytes()), Some(Identity([at as u8; 16])), "{name}");
        }
        assert_eq!(all.of(b"y"), None);
        assert_eq!(Identity([0xab; 16]).to_string(), "ab".repeat(16));
    }
}
