//! The bytes of a facade: an ELF shared object of dynamic symbols and nothing else.
//!
//! It has one loadable segment, which is writable because run-time linkers before glibc 2.35 relocate addresses in the
//! dynamic section where they lie:
//!
//! | part              | contents                                                                      |
//! |-------------------|-------------------------------------------------------------------------------|
//! | file header       | `ET_DYN`                                                                      |
//! | program headers   | `PT_LOAD`, `PT_DYNAMIC`, `PT_GNU_STACK` (a stack that is not executable)       |
//! | dynamic section   | `DT_SONAME`, `DT_GNU_HASH`, `DT_STRTAB`, `DT_STRSZ`, `DT_SYMTAB`, `DT_SYMENT`  |
//! | dynamic symbols   | absolute (`SHN_ABS`), global, without versions, in the order of their buckets |
//! | GNU hash table    | of all of them                                                                |
//! | dynamic strings   | their names and the `SONAME`                                                  |
//! | section headers   | of the last four, for readers like `readelf`; not loaded                      |
//!
//! A definition without a version serves those who ask for one as well: the run-time linker takes it wherever the file
//! is not the one that the version is recorded to be of.

use crate::image::symbols::Name;
use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, ProgramHeader, Sym, Writer};

/// What is offered under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferKind {
    /// A function.
    Function,
    /// A variable that is not thread-local.
    Data,
}

/// A definition for everybody in the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Its name, without zeros.
    pub(crate) name: Vec<u8>,
    /// Where it is.
    pub(crate) address: usize,
    /// What it is.
    pub(crate) kind: OfferKind,
    /// Bytes, 0 if unknown.
    pub(crate) size: u64,
}

/// Why there can be no such file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// A name ends at its first zero.
    #[error("a name with a zero byte in it")]
    ZeroInName,
    /// Symbols are numbered in 32 bits.
    #[error("too many names")]
    TooMany,
    /// The tables are larger than the format allows.
    #[error(transparent)]
    Format(#[from] object::write::Error),
}

/// Bytes of an entry of the dynamic section.
const DYNAMIC_ENTRY: u64 = 16;
/// Entries of the dynamic section, with the one that ends it.
const DYNAMIC_ENTRIES: usize = 7;
/// Bytes of an entry of the symbol table.
const SYMBOL: u64 = 24;
/// Which bits of the hash the second bit of the Bloom filter is made of.
const BLOOM_SHIFT: u32 = 26;

/// The file that offers `offers` (at least one, no name twice) under the name `soname`.
///
/// # Errors
/// When a name has a zero in it, or there are more of them than the format has room for.
pub(crate) fn write(soname: &str, offers: &[Offer]) -> Result<Vec<u8>, WriteError> {
    let count = u32::try_from(offers.len()).map_err(|_| WriteError::TooMany)?;
    if soname.as_bytes().contains(&0) || offers.iter().any(|offer| offer.name.contains(&0)) {
        return Err(WriteError::ZeroInName);
    }
    let buckets = (count / 2).max(1);
    // Two bits a name in words of 64: an eighth of the bits are set.
    let bloom = (count / 4).max(1).next_power_of_two();
    let mut sorted: Vec<(u32, &Offer)> =
        offers.iter().map(|offer| (Name::new(&offer.name).hash, offer)).collect();
    // The table wants the names of a bucket behind each other.
    sorted.sort_by_key(|(hash, _)| hash % buckets);

    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    writer.reserve_file_header();
    writer.reserve_program_headers(3);
    writer.reserve_dynamic_section_index();
    writer.reserve_dynsym_section_index();
    writer.reserve_gnu_hash_section_index();
    writer.reserve_dynstr_section_index();
    writer.reserve_shstrtab_section_index();
    let soname = writer.add_dynamic_string(soname.as_bytes());
    let dynamic = writer.reserve_dynamic(DYNAMIC_ENTRIES);
    writer.reserve_null_dynamic_symbol_index();
    let names: Vec<_> = sorted
        .iter()
        .map(|(_, offer)| {
            writer.reserve_dynamic_symbol_index();
            writer.add_dynamic_string(&offer.name)
        })
        .collect();
    let symbols = writer.reserve_dynsym();
    let hash = writer.reserve_gnu_hash(bloom, buckets, count);
    let strings = writer.reserve_dynstr()?;
    let length = writer.reserved_len();
    writer.reserve_shstrtab()?;
    writer.reserve_section_headers();

    writer.write_file_header(&FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_DYN,
        e_machine: elf::EM_X86_64,
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    })?;
    writer.write_align_program_headers();
    let segment = |p_type, p_flags, offset, size, p_align| ProgramHeader {
        p_type,
        p_flags,
        p_offset: offset,
        p_vaddr: offset,
        p_paddr: offset,
        p_filesz: size,
        p_memsz: size,
        p_align,
    };
    let writable = elf::PF_R | elf::PF_W;
    writer.write_program_header(&segment(elf::PT_LOAD, writable, 0, length, 4096));
    let dynamic_size = DYNAMIC_ENTRIES as u64 * DYNAMIC_ENTRY;
    writer.write_program_header(&segment(elf::PT_DYNAMIC, writable, dynamic, dynamic_size, 8));
    writer.write_program_header(&segment(elf::PT_GNU_STACK, writable, 0, 0, 16));

    writer.write_align_dynamic();
    writer.write_dynamic_string(elf::DT_SONAME, soname)?;
    writer.write_dynamic(elf::DT_GNU_HASH, hash)?;
    writer.write_dynamic(elf::DT_STRTAB, strings)?;
    writer.write_dynamic(elf::DT_STRSZ, writer.dynstr_len().into())?;
    writer.write_dynamic(elf::DT_SYMTAB, symbols)?;
    writer.write_dynamic(elf::DT_SYMENT, SYMBOL)?;
    writer.write_dynamic(elf::DT_NULL, 0)?;

    writer.write_null_dynamic_symbol();
    for ((_, offer), name) in sorted.iter().zip(names) {
        let kind = match offer.kind {
            OfferKind::Function => elf::STT_FUNC,
            OfferKind::Data => elf::STT_OBJECT,
        };
        let st_name = writer.dynamic_string_offset(Some(name));
        writer.write_dynamic_symbol(&Sym {
            section: None,
            st_name,
            st_info: elf::SymbolInfo::new(elf::STB_GLOBAL, kind),
            st_other: elf::SymbolOther(0),
            st_shndx: elf::SHN_ABS,
            st_value: offer.address as u64,
            st_size: offer.size,
        });
    }
    writer.write_gnu_hash(1, BLOOM_SHIFT, bloom, buckets, count, |at| sorted[at as usize].0);
    writer.write_dynstr();

    writer.write_shstrtab();
    writer.write_null_section_header();
    writer.write_dynamic_section_header(dynamic);
    writer.write_dynsym_section_header(symbols, 1);
    writer.write_gnu_hash_section_header(hash);
    writer.write_dynstr_section_header(strings);
    writer.write_shstrtab_section_header();
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

    use super::*;
    use object::read::elf::{Dyn, FileHeader as _, GnuHashTable, ProgramHeader as _};

    fn offers(count: usize) -> Vec<Offer> {
        let one = |at: usize| Offer {
            name: format!("name_{at}").into_bytes(),
            address: 0x1000 * (at + 1),
            kind: if at.is_multiple_of(3) { OfferKind::Data } else { OfferKind::Function },
            size: at as u64,
        };
        (0..count).map(one).collect()
    }

    /// What another reader of the format sees: addresses and sizes by name.
    #[test]
    fn the_file_says_what_it_was_made_of() {
        for count in [1, 2, 7, 1000] {
            let bytes = write("facade-test", &offers(count)).unwrap();
            let header = elf::FileHeader64::<Endianness>::parse(bytes.as_slice()).unwrap();
            let endian = header.endian().unwrap();
            let segments = header.program_headers(endian, bytes.as_slice()).unwrap();
            let dynamic = segments.iter().find_map(|s| s.dynamic(endian, bytes.as_slice()).unwrap()).unwrap();
            let value = |tag: elf::DynamicTag| {
                dynamic.iter().find(|entry| entry.d_tag(endian) == tag).unwrap().d_val(endian) as usize
            };
            let strings = object::StringTable::new(
                bytes.as_slice(),
                value(elf::DT_STRTAB) as u64,
                (value(elf::DT_STRTAB) + value(elf::DT_STRSZ)) as u64,
            );
            assert_eq!(strings.get(value(elf::DT_SONAME) as u32).unwrap(), b"facade-test");
            let hash = GnuHashTable::<elf::FileHeader64<Endianness>>::parse(
                endian,
                &bytes[value(elf::DT_GNU_HASH)..value(elf::DT_STRTAB)],
            )
            .unwrap();
            assert_eq!(hash.symbol_base(), 1);
            let symbol = |at: usize| {
                let start = value(elf::DT_SYMTAB) + at * SYMBOL as usize;
                object::from_bytes::<elf::Sym64<Endianness>>(&bytes[start..]).unwrap().0
            };
            let mut seen: Vec<_> = (1..=count)
                .map(|at| {
                    let symbol = symbol(at);
                    assert_eq!(symbol.st_shndx.get(endian), elf::SHN_ABS);
                    let name = strings.get(symbol.st_name.get(endian)).unwrap().to_vec();
                    let kind = if symbol.st_info.st_type() == elf::STT_OBJECT {
                        OfferKind::Data
                    } else {
                        OfferKind::Function
                    };
                    let (address, size) = (symbol.st_value.get(endian) as usize, symbol.st_size.get(endian));
                    Offer { name, address, kind, size }
                })
                .collect();
            seen.sort_by_key(|offer| offer.address);
            assert_eq!(seen, offers(count));
        }
    }

    #[test]
    fn names_that_end_early_are_refused() {
        let mut offers = offers(2);
        offers[1].name = b"a\0b".to_vec();
        assert!(matches!(write("f", &offers), Err(WriteError::ZeroInName)));
    }
}
