//! The little that the bench reads of linked 64-bit little-endian ELF files: loadable segments, the dynamic section, and
//! numbers and texts at addresses. The files are the bench's own; one that is not as expected is an error.

use crate::Result;
use object::Endianness;
use object::elf::{FileHeader64, PT_DYNAMIC, PT_LOAD};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

/// A linked file in memory.
pub(crate) struct Elf<'a> {
    data: &'a [u8],
    /// Its loadable segments, by address.
    pub(crate) segments: Vec<Segment>,
    /// Program headers of other types: type, address, size in memory.
    pub(crate) others: Vec<(u32, u64, u64)>,
    /// Entries of the dynamic section: tag and value.
    dynamic: Vec<(i64, u64)>,
}

/// A loadable segment, its fields as the file has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) offset: u64,
    pub(crate) file_size: u64,
    /// `PF_R`, `PF_W`, `PF_X`.
    pub(crate) flags: u32,
}

/// A relocation with an addend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relocation {
    /// Address of the place.
    pub(crate) place: u64,
    /// Type.
    pub(crate) kind: u32,
    /// Index of its symbol.
    pub(crate) symbol: u32,
    /// Addend.
    pub(crate) addend: u64,
}

/// Bytes of an entry of the symbol table.
pub(crate) const SYMBOL: u64 = 24;
/// Bytes of an entry of the dynamic section: a tag and its value.
const DYNAMIC: u64 = 16;
/// Bytes of a relocation with an addend.
pub(crate) const RELA: u64 = 24;

impl<'a> Elf<'a> {
    /// Reads headers and dynamic section.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn new(data: &'a [u8]) -> Result<Self> {
        let endian = Endianness::Little;
        let header = FileHeader64::<Endianness>::parse(data)?;
        let (mut segments, mut others, mut dynamic) = (Vec::new(), Vec::new(), Vec::new());
        for segment in header.program_headers(endian, data)? {
            let (address, size) = (segment.p_vaddr(endian), segment.p_memsz(endian));
            if segment.p_type(endian) == PT_LOAD {
                let (offset, file_size) = segment.file_range(endian);
                let flags = segment.p_flags(endian).0;
                segments.push(Segment { address, size, offset, file_size, flags });
            } else {
                others.push((segment.p_type(endian).0, address, size));
            }
            if let Some(entries) = segment.dynamic(endian, data)? {
                dynamic = entries.iter().map(|entry| (entry.d_tag(endian).0, entry.d_val(endian))).collect();
            }
        }
        Ok(Self { data, segments, others, dynamic })
    }

    /// The value of a tag of the dynamic section.
    pub(crate) fn tag(&self, tag: i64) -> Option<u64> {
        self.dynamic.iter().find(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// The values of a tag that may be there several times.
    pub(crate) fn tags(&self, tag: i64) -> impl Iterator<Item = u64> {
        self.dynamic.iter().filter(move |entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// Where in the file the value of a tag of the dynamic section is.
    ///
    /// # Errors
    /// When it is not in the file.
    pub(crate) fn place_of_tag(&self, tag: i64) -> Result<usize> {
        let section = self.others.iter().find(|other| other.0 == PT_DYNAMIC.0).ok_or("no dynamic section")?;
        let at = self.dynamic.iter().position(|entry| entry.0 == tag).ok_or("no such tag")?;
        self.offset(section.1 + at as u64 * DYNAMIC + 8)
    }

    /// Where in the file the byte at `address` is.
    ///
    /// # Errors
    /// When it is not in the file.
    pub(crate) fn offset(&self, address: u64) -> Result<usize> {
        let within = |segment: &&Segment| address.wrapping_sub(segment.address) < segment.file_size;
        let segment = self.segments.iter().find(within).ok_or("an address outside of the file")?;
        Ok(usize::try_from(address - segment.address + segment.offset)?)
    }

    /// The bytes from `address` on.
    ///
    /// # Errors
    /// When they are not in the file.
    pub(crate) fn bytes(&self, address: u64, length: usize) -> Result<&'a [u8]> {
        let offset = self.offset(address)?;
        Ok(self.data.get(offset..offset + length).ok_or("an address outside of the file")?)
    }

    /// Two bytes at `address`.
    ///
    /// # Errors
    /// When they are not in the file.
    pub(crate) fn u16(&self, address: u64) -> Result<u16> {
        let mut bytes = [0; 2];
        bytes.copy_from_slice(self.bytes(address, 2)?);
        Ok(u16::from_le_bytes(bytes))
    }

    /// Four bytes at `address`.
    ///
    /// # Errors
    /// When they are not in the file.
    pub(crate) fn u32(&self, address: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.bytes(address, 4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    /// Eight bytes at `address`.
    ///
    /// # Errors
    /// When they are not in the file.
    pub(crate) fn u64(&self, address: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.bytes(address, 8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// A text that ends with a zero, without it.
    ///
    /// # Errors
    /// When it has no end.
    pub(crate) fn text(&self, address: u64) -> Result<&'a [u8]> {
        let rest = self.data.get(self.offset(address)?..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0).ok_or("a text without an end")?;
        Ok(&rest[..end])
    }

    /// The relocations with addends in the table at the tag `table`, whose size is at the tag `size`.
    ///
    /// # Errors
    /// When the table is not in the file.
    pub(crate) fn relocations(&self, table: i64, size: i64) -> Result<Vec<Relocation>> {
        let (Some(table), Some(size)) = (self.tag(table), self.tag(size)) else { return Ok(Vec::new()) };
        (0..size / RELA)
            .map(|index| {
                let at = table + index * RELA;
                Ok(Relocation {
                    place: self.u64(at)?,
                    kind: self.u32(at + 8)?,
                    symbol: self.u32(at + 12)?,
                    addend: self.u64(at + 16)?,
                })
            })
            .collect()
    }
}

/// The hash of a name that GNU's tables use.
pub(crate) fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use object::elf::{DT_STRSZ, DT_STRTAB};

    #[test]
    fn this_program_can_be_read() {
        let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = Elf::new(&data).unwrap();
        assert!(elf.segments.len() >= 2);
        let (strings, size) = (elf.tag(DT_STRTAB.0).unwrap(), elf.tag(DT_STRSZ.0).unwrap());
        assert_eq!(elf.text(strings).unwrap(), b"");
        assert_eq!(elf.bytes(strings, size as usize).unwrap().len() as u64, size);
        let place = elf.place_of_tag(DT_STRSZ.0).unwrap();
        assert_eq!(data[place..place + 8], size.to_le_bytes());
        assert_eq!(elf.tags(DT_STRSZ.0).collect::<Vec<_>>(), [size]);
        assert!(elf.offset(u64::MAX).is_err());
        assert!(Elf::new(b"no such file").is_err());
    }

    #[test]
    fn the_hash_is_the_one_of_the_tables() {
        assert_eq!((gnu_hash(b""), gnu_hash(b"printf"), gnu_hash(b"exit")), (5381, 0x156b_2bb8, 0x7c96_7e3f));
    }
}
