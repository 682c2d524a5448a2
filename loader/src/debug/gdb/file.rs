//! The file that gdb gets: one whose sections, symbols and debug information have the addresses where the code lies.
//!
//! gdb 13 does not move the debug information of what the JIT interface hands over, so the file of an image is of no use
//! unless the image lies where it was linked; and even then gdb would take the stubs of its procedure linkage table for
//! the functions that they call. What is made instead is an ELF executable without code:
//!
//! - for every allocated section of every image one of the same name, address and size, without contents: gdb reads
//!   code from the process;
//! - one `.symtab` with the functions and variables of all, local ones first;
//! - one of each debug section, those of the image as they are if it is alone and lies where it was linked, and converted
//!   ones otherwise (`rebase`);
//! - one `.eh_frame` (`eh_frame`).

use super::super::code::LoadedCode;
use super::super::dwarf::{self, Elf};
use super::super::error::DebugError;
use super::super::symbols;
use super::eh_frame::Tables;
use super::rebase::{self, Rebased, Section};
use object::elf;
use object::write::elf::{FileHeader, SectionHeader, Sym, Writer};
use object::{Endianness, Object, ObjectSection, SectionFlags};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A section of an image, where it lies.
struct Place {
    name: Vec<u8>,
    address: u64,
    size: u64,
    flags: elf::SectionFlags,
}

/// A symbol where it lies.
struct Symbol<'d> {
    name: &'d [u8],
    address: u64,
    size: u64,
    info: elf::SymbolInfo,
    local: bool,
    /// Index in the places.
    place: usize,
}

/// Gives one file for all of `codes`. `complain` hears whose debug information is left out.
///
/// # Errors
/// When none of their files can be read, or none can be made of them.
pub(super) fn make(
    codes: &[Arc<LoadedCode>],
    complain: &mut dyn FnMut(&LoadedCode, &DebugError),
) -> Result<Vec<u8>, DebugError> {
    let mut contents: Vec<(&LoadedCode, Cow<'_, [u8]>)> = Vec::new();
    let mut failed = None;
    for code in codes {
        match code.contents() {
            Ok(bytes) => contents.push((code, bytes)),
            Err(error) => {
                complain(code, &error);
                failed = Some(error);
            }
        }
    }
    let mut files: Vec<(&LoadedCode, Elf<'_>)> = Vec::new();
    for (code, bytes) in &contents {
        match Elf::parse(&**bytes) {
            Ok(file) => files.push((code, file)),
            Err(error) => {
                let error = error.into();
                complain(code, &error);
                failed = Some(error);
            }
        }
    }
    if let (true, Some(error)) = (files.is_empty(), failed) {
        return Err(error);
    }
    let (mut places, mut found) = (Vec::new(), Vec::new());
    let mut unwind = Tables::default();
    for (code, file) in &files {
        let bias = code.bias() as u64;
        let first = places.len();
        places.extend(self::places(file, bias, &code.range()));
        found.extend(symbols_in(file, bias, &places, first));
        if let Err(error) = unwind.add(file, bias) {
            complain(code, &error);
        }
    }
    write(&places, found, &unwind, &debug_sections(&files, complain))
}

/// The debug information of all; of those where that does not go, none.
fn debug_sections(
    files: &[(&LoadedCode, Elf<'_>)],
    complain: &mut dyn FnMut(&LoadedCode, &DebugError),
) -> Vec<Section> {
    if let [(code, file)] = files
        && code.bias() == 0
    {
        return rebase::as_they_are(file).unwrap_or_else(|error| {
            complain(code, &error);
            Vec::new()
        });
    }
    let mut left: Vec<_> = files.iter().filter(|(_, file)| dwarf::has_information(file)).collect();
    'again: loop {
        let mut rebased = Rebased::default();
        let mut lost = Vec::new();
        for (at, (code, file)) in left.iter().enumerate() {
            match caught(|| rebased.add(file, code.bias() as u64)) {
                Ok(count) => lost.push(count),
                Err(error) => {
                    complain(code, &error);
                    // Half of it is in there by now.
                    left.remove(at);
                    continue 'again;
                }
            }
        }
        for ((code, _), lost) in left.iter().zip(lost).filter(|(_, lost)| *lost > 0) {
            complain(code, &DebugError::Partly(lost));
        }
        return caught(|| rebased.sections()).unwrap_or_else(|error| {
            left.iter().for_each(|(code, _)| complain(code, &error));
            Vec::new()
        });
    }
}

/// What `convert` gives; an error if it panics, for gimli's writer asserts some of what its reader lets pass.
fn caught<T>(convert: impl FnOnce() -> Result<T, DebugError>) -> Result<T, DebugError> {
    catch_unwind(AssertUnwindSafe(convert))
        .unwrap_or_else(|_| Err(DebugError::Make("its debug information is damaged".into())))
}

/// The allocated sections of an image.
fn places(file: &Elf<'_>, bias: u64, range: &std::ops::Range<usize>) -> Vec<Place> {
    let place = |section: object::read::elf::ElfSection64<'_, '_, object::LittleEndian>| {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { return None };
        let address = section.address().wrapping_add(bias);
        let inside = address >= range.start as u64
            && address.checked_add(section.size()).is_some_and(|end| end <= range.end as u64);
        let wanted =
            sh_flags.contains(elf::SHF_ALLOC) && !sh_flags.contains(elf::SHF_TLS) && section.size() > 0;
        // There is one table for all.
        let name = section.name_bytes().ok().filter(|name| *name != b".eh_frame")?;
        (inside && wanted).then(|| Place {
            name: name.to_vec(),
            address,
            size: section.size(),
            flags: (elf::SHF_ALLOC | elf::SHF_WRITE | elf::SHF_EXECINSTR) & sh_flags,
        })
    };
    file.sections().filter_map(place).collect()
}

/// The symbols of an image, whose places are those from `first` on.
fn symbols_in<'d>(file: &Elf<'d>, bias: u64, places: &[Place], first: usize) -> Vec<Symbol<'d>> {
    let symbol = |symbol: symbols::FileSymbol<'d>| {
        let address = symbol.address.wrapping_add(bias);
        let place =
            places[first..].iter().position(|place| address.wrapping_sub(place.address) < place.size)?;
        let binding = match symbol {
            symbols::FileSymbol { local: true, .. } => elf::STB_LOCAL,
            symbols::FileSymbol { weak: true, .. } => elf::STB_WEAK,
            _ => elf::STB_GLOBAL,
        };
        let kind = if symbol.function { elf::STT_FUNC } else { elf::STT_OBJECT };
        Some(Symbol {
            name: symbol.name,
            address,
            size: symbol.size,
            info: elf::SymbolInfo::new(binding, kind),
            local: symbol.local,
            place: first + place,
        })
    };
    symbols::of_file(file).into_iter().filter_map(symbol).collect()
}

/// Writes the file.
fn write(
    places: &[Place],
    mut symbols: Vec<Symbol<'_>>,
    unwind: &Tables,
    debug: &[Section],
) -> Result<Vec<u8>, DebugError> {
    let failed = |error: object::write::Error| DebugError::Make(error.to_string());
    // As the format wants it.
    symbols.sort_by_key(|symbol| !symbol.local);
    let locals = symbols.iter().filter(|symbol| symbol.local).count();
    let mut bytes = Vec::new();
    let mut writer = Writer::new_single_phase(Endianness::Little, true, &mut bytes);
    let header = FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_EXEC,
        e_machine: elf::EM_X86_64,
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    };
    writer.write_file_header(&header).map_err(failed)?;

    let mut headers = Vec::with_capacity(places.len() + debug.len() + 1);
    for place in places {
        let mut header = section(elf::SHT_NOBITS, place.flags, place.size);
        header.sh_addr = place.address;
        headers.push((writer.add_section_name(&place.name), header));
    }
    if !unwind.data.is_empty() {
        let mut header = section(elf::SHT_PROGBITS, elf::SectionFlags(0), unwind.data.len() as u64);
        header.sh_addr = unwind.address;
        header.sh_offset = writer.write_align(8);
        writer.write(&unwind.data);
        headers.push((writer.add_section_name(b".eh_frame"), header));
    }
    for part in debug {
        let mut header = section(elf::SHT_PROGBITS, part.flags, part.data.len() as u64);
        header.sh_offset = writer.write_align(8);
        writer.write(&part.data);
        headers.push((writer.add_section_name(part.name.as_bytes()), header));
    }
    writer.write_null_symbol();
    for symbol in &symbols {
        let name = writer.add_string(symbol.name);
        let symbol = Sym {
            // The first section means nothing.
            section: Some(symbol.place as u32 + 1),
            st_name: writer.string_offset(Some(name)),
            st_info: symbol.info,
            st_other: elf::SymbolOther(0),
            st_shndx: elf::SymbolSection(0),
            st_value: symbol.address,
            st_size: symbol.size,
        };
        writer.write_symbol(&symbol);
    }
    writer.write_strtab().map_err(failed)?;
    writer.write_shstrtab().map_err(failed)?;

    writer.write_null_section_header();
    for (name, mut header) in headers {
        header.sh_name = writer.section_name_offset(Some(name));
        writer.write_section_header(&header);
    }
    // The symbols' header names the number of the strings'.
    writer.write_strtab_section_header();
    writer.write_symtab_section_header(locals as u32 + 1);
    writer.write_shstrtab_section_header();
    // Where the headers are is known by now.
    let mut start = Vec::new();
    writer.write_file_header_to(&mut start).map_err(failed)?;
    drop(writer);
    bytes[..start.len()].copy_from_slice(&start);
    Ok(bytes)
}

/// A section header with nothing but these.
fn section(kind: elf::SectionType, flags: elf::SectionFlags, size: u64) -> SectionHeader {
    SectionHeader {
        sh_name: 0,
        sh_type: kind,
        sh_flags: flags,
        sh_addr: 0,
        sh_offset: 0,
        sh_size: size,
        sh_link: 0,
        sh_info: 0,
        sh_addralign: 1,
        sh_entsize: 0,
    }
}
