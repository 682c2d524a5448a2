//! The object that makes a shared object an image: the note with `__dso_handle` at its start, room for the hashes of the
//! imports' names, and the metadata.

use hotbed_loader::image::note::{
    DSO_HANDLE, HASHES_SECTION, METADATA_SECTION, Metadata, NOTE_SECTION, note_bytes,
};
use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    elf,
};

/// The object as bytes, with room for `imports` hashes.
///
/// # Errors
/// When it cannot be written, which is a defect.
pub(crate) fn own_object(metadata: &Metadata, imports: usize) -> Result<Vec<u8>, object::write::Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let note = object.add_section(Vec::new(), NOTE_SECTION.into(), SectionKind::Note);
    object.section_mut(note).flags = SectionFlags::Elf { sh_type: elf::SHT_NOTE, sh_flags: elf::SHF_ALLOC };
    object.append_section_data(note, &note_bytes(), 4);
    let hashes = object.add_section(Vec::new(), HASHES_SECTION.into(), SectionKind::ReadOnlyData);
    object.section_mut(hashes).flags = SectionFlags::Elf {
        sh_type: elf::SHT_PROGBITS,
        // Nothing refers to it, and it stays all the same.
        sh_flags: elf::SHF_ALLOC | elf::SHF_GNU_RETAIN,
    };
    object.append_section_data(hashes, &vec![0; imports * 4], 4);
    let own = object.add_section(Vec::new(), METADATA_SECTION.into(), SectionKind::Other);
    object.append_section_data(own, &metadata.encode(), 1);
    let stack = object.add_section(Vec::new(), b".note.GNU-stack".into(), SectionKind::Other);
    object.section_mut(stack).data_mut();
    object.add_symbol(Symbol {
        name: DSO_HANDLE.into(),
        value: 0,
        size: 0,
        kind: SymbolKind::Data,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(note),
        flags: SymbolFlags::None,
    });
    object.write()
}
