//! The object that makes a shared object an image: the note, the handle `__dso_handle`, room for the hashes of the imports'
//! names, what it remembers of images that it is linked against, the identities of what others may have too, and the metadata;
//! and where code registers what is to be done at its end, the destructor that has it done: compilers' start files have that, which
//! images are linked without. Our loader knows by itself; whoever opens an image by `dlopen` and closes it does not.

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

/// What code calls to have something done when it is closed.
const REGISTER: [&[u8]; 5] =
    [b"__cxa_atexit", b"__cxa_at_quick_exit", b"atexit", b"at_quick_exit", b"pthread_atfork"];

/// `lea rdi, [rip + handle]; jmp finalize`, and where the two are entered.
const END: [u8; 12] = [0x48, 0x8d, 0x3d, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0];
const END_HANDLE: u64 = 3;
const END_FINALIZE: u64 = 8;

/// Whether code that refers to this name has to be told of its end.
pub(crate) fn registers_ends(name: &[u8]) -> bool {
    REGISTER.contains(&name)
}

/// The object as bytes, with room for `imports` hashes, with the destructor if `ends`, and with what
/// [`zeros`](super::zeros) are to have if `zeros`.
///
/// # Errors
/// When it cannot be written, which is a defect.
pub(crate) fn own_object(
    metadata: &Metadata,
    imports: usize,
    dependencies: &[ImageDependency],
    identities: &Identities,
    ends: bool,
    zeros: bool,
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
    // glibc opens what has packed relocations only if that says so, beside a version of glibc's that it needs: with this
    // symbol, whether it is used or not, every image needs one.
    let finalize = object.add_symbol(Symbol {
        name: b"__cxa_finalize".into(),
        value: 0,
        size: 0,
        kind: SymbolKind::Text,
        scope: SymbolScope::Unknown,
        weak: true,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    });
    if ends {
        add_end(&mut object, handle, finalize)?;
    }
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
    // The linker is told what lies before these two, and wants them to be there.
    for (name, kind) in [(&b".text"[..], SectionKind::Text), (b".data", SectionKind::Data)] {
        object.add_section(Vec::new(), name.into(), kind);
    }
    if zeros {
        // Where one has contents, all have.
        let one = object.add_section(Vec::new(), b".bss.hotbed".into(), SectionKind::Data);
        object.append_section_data(one, &[0], 1);
    }
    let stack = object.add_section(Vec::new(), b".note.GNU-stack".into(), SectionKind::Other);
    object.section_mut(stack).data_mut();
    object.write()
}

/// The destructor, which is called after all others of the image: `__cxa_finalize` with its handle.
fn add_end(
    object: &mut Object<'_>,
    handle: SymbolId,
    finalize: SymbolId,
) -> Result<(), object::write::Error> {
    let code = object.add_section(Vec::new(), b".text".into(), SectionKind::Text);
    object.append_section_data(code, &END, 16);
    let end = object.add_symbol(Symbol {
        name: b"hotbed.end".into(),
        value: 0,
        size: END.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Compilation,
        weak: false,
        section: SymbolSection::Section(code),
        flags: SymbolFlags::None,
    });
    let behind = |relocation: Relocation| Relocation { addend: -4, ..relocation };
    object.add_relocation(code, behind(refer(handle, END_HANDLE, elf::R_X86_64_PC32)))?;
    object.add_relocation(code, behind(refer(finalize, END_FINALIZE, elf::R_X86_64_PLT32)))?;
    // The array is run from its end, and this number makes it the first.
    let array = object.add_section(Vec::new(), b".fini_array.0".into(), SectionKind::Data);
    object.section_mut(array).flags =
        SectionFlags::Elf { sh_type: elf::SHT_FINI_ARRAY, sh_flags: elf::SHF_ALLOC | elf::SHF_WRITE };
    object.append_section_data(array, &[0; 8], 8);
    object.add_relocation(array, refer(end, 0, elf::R_X86_64_64))
}

fn refer(symbol: SymbolId, offset: u64, kind: elf::RelocationType) -> Relocation {
    Relocation { offset, symbol, addend: 0, flags: RelocationFlags::Elf { r_type: kind } }
}
