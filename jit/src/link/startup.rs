//! What the start files of a program do for its `.init` and `.fini` sections.
//!
//! Those sections are pieces of two functions: every object may put code there, the start files put the beginning in front
//! of all pieces and the end behind them. An image is linked without start files, so where an object has such a piece
//! these two objects stand in for them.

use object::write::{Object, StandardSection, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    elf,
};

/// The sections, and the functions that they are: the linker enters them in the dynamic section by these names.
const FUNCTIONS: [(&str, &str); 2] = [(".init", "_init"), (".fini", "_fini")];

/// `sub rsp, 8`: pieces may call, which wants an aligned stack.
const BEGINNING: [u8; 4] = [0x48, 0x83, 0xec, 0x08];
/// `add rsp, 8`, `ret`.
const END: [u8; 5] = [0x48, 0x83, 0xc4, 0x08, 0xc3];

/// The two objects, to be linked as the first and as the last.
///
/// # Errors
/// When they cannot be written, which is a defect.
pub(super) fn objects() -> Result<[Vec<u8>; 2], object::write::Error> {
    Ok([object(&BEGINNING, true)?, object(&END, false)?])
}

fn object(code: &[u8], named: bool) -> Result<Vec<u8>, object::write::Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    // Nothing is in it, but objects have one.
    object.section_id(StandardSection::Text);
    for (section, function) in FUNCTIONS {
        let id = object.add_section(Vec::new(), section.into(), SectionKind::Text);
        object.section_mut(id).flags =
            SectionFlags::Elf { sh_type: elf::SHT_PROGBITS, sh_flags: elf::SHF_ALLOC | elf::SHF_EXECINSTR };
        // What the linker fills gaps with is not to be executed, so there are none.
        object.append_section_data(id, code, 1);
        if named {
            object.add_symbol(Symbol {
                name: function.into(),
                value: 0,
                size: 0,
                kind: SymbolKind::Text,
                scope: SymbolScope::Linkage,
                weak: false,
                section: SymbolSection::Section(id),
                flags: SymbolFlags::None,
            });
        }
    }
    object.write()
}
