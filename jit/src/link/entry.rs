//! The entry point of a program is found whatever its visibility.
//!
//! With `-fvisibility=hidden` an executable starts all the same, for its linker looks `main` up before visibility counts.
//! An image is a shared object, where a hidden symbol is out of reach; so the object is shown to lld with the one symbol
//! made visible.

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};

/// Bytes of a symbol in the table, and where in them the visibility stands.
const SYMBOL: usize = 24;
const VISIBILITY: usize = 5;

/// The object with its definition of `entry` made visible; none when it has no hidden one. `bytes` passed the checks.
pub(crate) fn with_visible_entry(bytes: &[u8], entry: &str) -> Option<Vec<u8>> {
    let header = FileHeader64::<LE>::parse(bytes).ok()?;
    let sections = header.sections(LE, bytes).ok()?;
    let symbols = sections.symbols(LE, bytes, elf::SHT_SYMTAB).ok()?;
    let (index, _) = symbols.enumerate().find(|(_, symbol)| {
        symbol.st_bind() != elf::STB_LOCAL
            && symbol.st_shndx.get(LE) != elf::SHN_UNDEF
            && symbol.st_visibility() != elf::STV_DEFAULT
            && symbols.symbol_name(LE, symbol) == Ok(entry.as_bytes())
    })?;
    let table = sections.section(symbols.section()).ok()?.sh_offset(LE) as usize;
    let mut patched = bytes.to_vec();
    *patched.get_mut(table + index.0 * SYMBOL + VISIBILITY)? &= !3;
    Some(patched)
}
