//! The symbols of an ELF file: its full table, local functions too, or what is left of it in a stripped one.

use super::dwarf::Elf;
use object::read::elf::ElfSymbol64;
use object::{Object, ObjectSymbol, SymbolKind, SymbolSection};

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
    let full: Vec<_> = file.symbols().filter_map(|symbol| of_symbol(&symbol)).collect();
    if full.is_empty() {
        file.dynamic_symbols().filter_map(|symbol| of_symbol(&symbol)).collect()
    } else {
        full
    }
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

fn of_symbol<'d>(symbol: &ElfSymbol64<'d, '_, object::LittleEndian>) -> Option<FileSymbol<'d>> {
    let function = match symbol.kind() {
        SymbolKind::Text => true,
        SymbolKind::Data => false,
        // Hand-written assembly often leaves the type out; data that does so is rare.
        SymbolKind::Unknown | SymbolKind::Label => true,
        _ => return None,
    };
    if !matches!(symbol.section(), SymbolSection::Section(_)) {
        return None;
    }
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
