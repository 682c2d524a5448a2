//! The object that makes a shared object an image: the note, the handle `__dso_handle`, room for the hashes of the imports'
//! names, what it remembers of images that it is linked against, the identities of what others may have too, and the metadata.

use hotbed_loader::image::note::{
    DEPENDENCIES_SECTION, DSO_HANDLE, HANDLE_DISTANCE_AT, HASHES_SECTION, METADATA_SECTION, NOTE_SECTION,
    dependencies_bytes, hashes_bytes, note_bytes,
};
use hotbed_loader::image::{IDENTITIES_SECTION, Identities, ImageDependency, Metadata};
use object::write::{Object, Relocation, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags,
    SymbolKind, SymbolScope, elf,
};

/// The object as bytes, with room for `imports` hashes.
///
/// # Errors
/// When it cannot be written, which is a defect.
pub(crate) fn own_object(
    metadata: &Metadata,
    imports: usize,
    dependencies: &[ImageDependency],
    identities: &Identities,
) -> Result<Vec<u8>, object::write::Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let note = object.add_section(Vec::new(), NOTE_SECTION.into(), SectionKind::Note);
    object.section_mut(note).flags = SectionFlags::Elf { sh_type: elf::SHT_NOTE, sh_flags: elf::SHF_ALLOC };
    object.append_section_data(note, &note_bytes(), 4);
    // Its own address is in it: the static part of the C library takes that for the handle.
    let word = object.add_section(Vec::new(), b".data.rel.ro".into(), SectionKind::ReadOnlyDataWithRel);
    object.append_section_data(word, &[0; 8], 8);
    let handle = object.add_symbol(Symbol {
        name: DSO_HANDLE.into(),
        value: 0,
        size: 8,
        kind: SymbolKind::Data,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(word),
        flags: SymbolFlags::None,
    });
    object.add_relocation(word, refer(handle, 0, elf::R_X86_64_64))?;
    object.add_relocation(note, refer(handle, HANDLE_DISTANCE_AT as u64, elf::R_X86_64_PC32))?;
    let mut notes = vec![(HASHES_SECTION, hashes_bytes(imports))];
    if !dependencies.is_empty() {
        notes.push((DEPENDENCIES_SECTION, dependencies_bytes(dependencies)));
    }
    for (name, contents) in notes {
        let note = object.add_section(Vec::new(), name.into(), SectionKind::Note);
        object.section_mut(note).flags = SectionFlags::Elf {
            sh_type: elf::SHT_NOTE,
            // Nothing refers to it, and it stays all the same.
            sh_flags: elf::SHF_ALLOC | elf::SHF_GNU_RETAIN,
        };
        object.append_section_data(note, &contents, 4);
    }
    let mut aside = vec![(METADATA_SECTION, metadata.encode())];
    if !identities.is_empty() {
        aside.push((IDENTITIES_SECTION, identities.encode()));
    }
    for (name, contents) in aside {
        let section = object.add_section(Vec::new(), name.into(), SectionKind::Other);
        object.append_section_data(section, &contents, 1);
    }
    let stack = object.add_section(Vec::new(), b".note.GNU-stack".into(), SectionKind::Other);
    object.section_mut(stack).data_mut();
    object.write()
}

fn refer(symbol: SymbolId, offset: u64, kind: elf::RelocationType) -> Relocation {
    Relocation { offset, symbol, addend: 0, flags: RelocationFlags::Elf { r_type: kind } }
}
