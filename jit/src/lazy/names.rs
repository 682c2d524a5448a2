//! What an image itself says of names: the addresses of its data and stubs.

use crate::session::Definition;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::FileHeader;
use std::collections::HashMap;

/// The names of an image that mean the same whatever else is loaded.
pub(super) struct Names {
    known: HashMap<Box<[u8]>, Definition>,
}

impl Names {
    /// Reads them from the image in `file`, which lies in memory `distance` bytes behind the addresses it was linked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(file: &[u8], distance: usize) -> Result<Self, &'static str> {
        let header = FileHeader64::<LE>::parse(file).map_err(|_| "is no image")?;
        let sections = header.sections(LE, file).map_err(|_| "has no table of sections")?;
        let symbols =
            sections.symbols(LE, file, elf::SHT_SYMTAB).map_err(|_| "has a damaged table of symbols")?;
        if symbols.is_empty() {
            return Err("has no table of symbols: link it without -s");
        }
        let mut known = HashMap::with_capacity(symbols.len());
        for symbol in symbols.iter() {
            // The linker makes local ones of hidden ones, and leaves hidden what was. Weak ones may be somebody else's.
            let own = match symbol.st_bind() {
                elf::STB_LOCAL => symbol.st_visibility() == elf::STV_HIDDEN,
                elf::STB_GLOBAL => true,
                _ => symbol.st_visibility() != elf::STV_DEFAULT,
            };
            let kind = symbol.st_type();
            let place = symbol.st_shndx.get(LE);
            if !own || place == elf::SHN_UNDEF || kind == elf::STT_TLS || kind == elf::STT_GNU_IFUNC {
                continue;
            }
            let Ok(name) = symbols.symbol_name(LE, symbol) else { continue };
            let distance = if place == elf::SHN_ABS { 0 } else { distance };
            let address = (symbol.st_value.get(LE) as usize).wrapping_add(distance);
            known.insert(name.into(), Definition { address, function: kind == elf::STT_FUNC });
        }
        Ok(Self { known })
    }

    /// What the image has under a name.
    pub(super) fn find(&self, name: &str) -> Option<Definition> {
        self.known.get(name.as_bytes()).copied()
    }
}
