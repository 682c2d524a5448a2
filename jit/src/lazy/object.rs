//! Writing the small objects of a lazy image.

use object::write::{Error, Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags,
    SymbolKind, SymbolScope, elf,
};

/// An object that is being written.
pub(super) struct Writer {
    object: Object<'static>,
    frames: Section,
}

/// A section of it. It is in the object when it was [put](Writer::put) there.
pub(super) struct Section {
    id: SectionId,
    /// Stands for its beginning.
    pub(super) start: SymbolId,
    /// Its contents.
    pub(super) bytes: Vec<u8>,
    alignment: u64,
}

/// How a symbol is bound, who may see it and what it is.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    pub(super) binding: elf::SymbolBind,
    pub(super) visibility: elf::SymbolVisibility,
    pub(super) kind: elf::SymbolType,
}

/// What is common to all records here: on entry the return address is on top of the stack.
const CIE: [u8; 24] = [
    20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, // pointers are distances of four bytes
    0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0,
];

impl Manner {
    /// For the image only.
    pub(super) const HIDDEN: Self =
        Self { binding: elf::STB_GLOBAL, visibility: elf::STV_HIDDEN, kind: elf::STT_FUNC };
}

impl Writer {
    pub(super) fn new() -> Self {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let stack = object.add_section(Vec::new(), b".note.GNU-stack".into(), SectionKind::Other);
        object.section_mut(stack).data_mut();
        let mut frames = new_section(&mut object, ".eh_frame", elf::SHF_ALLOC, 8);
        frames.bytes.extend(CIE);
        Self { object, frames }
    }

    /// A new section in memory, which stays whoever refers to it; nobody collects what bodies will refer to.
    pub(super) fn section(&mut self, name: &str, more: elf::SectionFlags, alignment: u64) -> Section {
        new_section(&mut self.object, name, elf::SHF_ALLOC | elf::SHF_GNU_RETAIN | more, alignment)
    }

    /// A section that is in the file only.
    pub(super) fn section_in_file(&mut self, name: &str, bytes: Vec<u8>) {
        let id = self.object.add_section(Vec::new(), name.into(), SectionKind::Other);
        self.object.section_mut(id).set_data(bytes, 8);
    }

    /// Defines a symbol.
    pub(super) fn define(
        &mut self,
        name: &str,
        section: &Section,
        offset: u64,
        size: u64,
        manner: Manner,
    ) -> SymbolId {
        self.symbol(name, SymbolSection::Section(section.id), offset, size, manner)
    }

    /// A symbol that somebody else defines.
    pub(super) fn need(&mut self, name: &str, manner: Manner) -> SymbolId {
        self.symbol(name, SymbolSection::Undefined, 0, 0, manner)
    }

    fn symbol(
        &mut self,
        name: &str,
        section: SymbolSection,
        value: u64,
        size: u64,
        manner: Manner,
    ) -> SymbolId {
        let flags =
            SymbolFlags::Elf { st_info: manner.binding | manner.kind, st_other: manner.visibility.into() };
        self.object.add_symbol(Symbol {
            name: name.into(),
            value,
            size,
            // The flags say it; others go into a table by name, which is not needed here.
            kind: SymbolKind::Unknown,
            scope: SymbolScope::Dynamic,
            weak: manner.binding == elf::STB_WEAK,
            section,
            flags,
        })
    }

    /// Appends room for a reference to `symbol`, of four or eight bytes.
    pub(super) fn refer(
        &mut self,
        section: &mut Section,
        symbol: SymbolId,
        addend: i64,
        kind: elf::RelocationType,
    ) -> Result<(), Error> {
        refer(&mut self.object, section, symbol, addend, kind)
    }

    /// Says that in these bytes of a section nothing is on the stack but the return address, or what `more` says, in at
    /// most seven bytes.
    pub(super) fn frame(
        &mut self,
        of: &Section,
        offset: usize,
        size: usize,
        more: &[u8],
    ) -> Result<(), Error> {
        let start = self.frames.bytes.len();
        self.frames.bytes.extend(20u32.to_le_bytes());
        self.frames.bytes.extend((start as u32 + 4).to_le_bytes());
        refer(&mut self.object, &mut self.frames, of.start, offset as i64, elf::R_X86_64_PC32)?;
        self.frames.bytes.extend((size as u32).to_le_bytes());
        self.frames.bytes.push(0);
        self.frames.bytes.extend(more);
        self.frames.bytes.resize(start + 24, 0);
        Ok(())
    }

    /// Puts a finished section into the object.
    pub(super) fn put(&mut self, section: Section) {
        self.object.section_mut(section.id).set_data(section.bytes, section.alignment);
    }

    /// The object.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Error> {
        self.object.section_mut(self.frames.id).set_data(self.frames.bytes, self.frames.alignment);
        self.object.write()
    }
}

fn new_section(object: &mut Object<'_>, name: &str, flags: elf::SectionFlags, alignment: u64) -> Section {
    let id = object.add_section(Vec::new(), name.into(), SectionKind::Data);
    object.section_mut(id).flags = SectionFlags::Elf { sh_type: elf::SHT_PROGBITS, sh_flags: flags };
    Section { id, start: object.section_symbol(id), bytes: Vec::new(), alignment }
}

fn refer(
    object: &mut Object<'_>,
    section: &mut Section,
    symbol: SymbolId,
    addend: i64,
    kind: elf::RelocationType,
) -> Result<(), Error> {
    let offset = section.bytes.len() as u64;
    section.bytes.extend(&[0; 8][..if kind == elf::R_X86_64_64 { 8 } else { 4 }]);
    let flags = RelocationFlags::Elf { r_type: kind };
    object.add_relocation(section.id, Relocation { offset, symbol, addend, flags })
}
