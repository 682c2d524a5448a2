//! The symbols of an ELF file: its full table, local functions too, or what is left of it in a stripped one.

use super::dwarf::Elf;
use object::read::elf::ElfSymbol64;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, SymbolSection, elf};

/// A definition in an ELF file.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSymbol<'d> {
    /// Its name, mangled.
    pub(super) name: &'d [u8],
    /// Address in the file.
    pub(super) address: u64,
    /// Bytes, 0 if unknown.
    pub(super) size: u64,
    /// A function, or a label in code.
    pub(super) function: bool,
    /// Only this file's.
    pub(super) local: bool,
    /// Others may have their own that is as good.
    pub(super) weak: bool,
}

/// The functions and variables that `file` defines, in no particular order; thread-local ones have no address and are
/// left out.
pub(super) fn of_file<'d>(file: &Elf<'d>) -> Vec<FileSymbol<'d>> {
    let code = code_sections(file);
    let full: Vec<_> = file.symbols().filter_map(|symbol| of_symbol(&symbol, &code)).collect();
    if full.is_empty() {
        return file.dynamic_symbols().filter_map(|symbol| of_symbol(&symbol, &code)).collect();
    }
    full
}

/// The functions of `file`, in ascending order and with sizes. Of several names for one address the most telling: one
/// that has a size, and one that others see.
pub(super) fn functions<'d>(file: &Elf<'d>) -> Vec<FileSymbol<'d>> {
    let mut functions = of_file(file);
    functions.retain(|symbol| symbol.function);
    functions
        .sort_by_key(|symbol| (symbol.address, symbol.size == 0, symbol.local, symbol.weak, symbol.name));
    functions.dedup_by_key(|symbol| symbol.address);
    let ends: Vec<u64> = functions.iter().skip(1).map(|next| next.address).chain([u64::MAX]).collect();
    for (symbol, next) in functions.iter_mut().zip(ends) {
        if symbol.size == 0 {
            // An assembler's label: up to the next one, within reason.
            symbol.size = (next - symbol.address).min(1 << 16);
        }
    }
    functions
}

/// Whether a section has code, for each section.
fn code_sections(file: &Elf<'_>) -> Vec<bool> {
    let mut code = Vec::new();
    for section in file.sections() {
        let index = section.index().0;
        if code.len() <= index {
            code.resize(index + 1, false);
        }
        code[index] = matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(elf::SHF_EXECINSTR));
    }
    code
}

fn of_symbol<'d>(
    symbol: &ElfSymbol64<'d, '_, object::LittleEndian>,
    code: &[bool],
) -> Option<FileSymbol<'d>> {
    let SymbolSection::Section(section) = symbol.section() else { return None };
    let function = match symbol.kind() {
        SymbolKind::Text => true,
        SymbolKind::Data => false,
        // Assembly often leaves the type out.
        SymbolKind::Unknown | SymbolKind::Label => code.get(section.0).copied().unwrap_or_default(),
        _ => return None,
    };
    let name = symbol.name_bytes().ok().filter(|name| !name.is_empty())?;
    Some(FileSymbol {
        name,
        address: symbol.address(),
        size: symbol.size(),
        function,
        local: symbol.is_local(),
        weak: symbol.is_weak(),
    })
}
