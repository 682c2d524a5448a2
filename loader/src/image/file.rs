//! The file of an image as it lies on disk or in memory, read without being mapped: its sections, what stands at an address,
//! its dynamic symbols with their versions, and the libraries that it needs.
//!
//! Tables are found by section headers, which the linker always writes and only tools want. Every look is checked against
//! the bounds of the file, and what is read of it takes no more memory than a few times its size.

use super::elf::Symbol;
use super::note::Layout;
use super::{ImageDependency, ImageError, note};
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, SectionTable, VersionTable};
use object::{Endianness, SymbolIndex};

type Header = FileHeader64<Endianness>;
const LE: Endianness = Endianness::Little;

/// Bytes of a symbol.
const SYMBOL_BYTES: usize = 24;
/// The names of all symbols and versions may have so many times the bytes of the file: a name that stands in it once may
/// be that of every symbol.
const MOST_TEXT: usize = 4;

/// The file.
pub(crate) struct ImageFile<'a> {
    bytes: &'a [u8],
    segments: &'a [ProgramHeader64<Endianness>],
    sections: SectionTable<'a, Header>,
}

/// A section.
pub(crate) struct FileSection<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) header: &'a SectionHeader64<Endianness>,
}

/// A dynamic symbol.
pub(crate) struct FileSymbol<'a> {
    pub(crate) name: &'a str,
    pub(crate) symbol: Symbol,
    pub(crate) version: Option<FileVersion<'a>>,
}

/// The version of a dynamic symbol.
#[derive(Clone, Copy)]
pub(crate) struct FileVersion<'a> {
    pub(crate) name: &'a str,
    /// The library that has it, where the symbol is not defined.
    pub(crate) library: Option<&'a str>,
    /// It is given to those who ask for no version.
    pub(crate) default: bool,
}

/// The names in a dynamic section.
#[derive(Default)]
pub(crate) struct FileNames<'a> {
    /// `DT_SONAME`: what others need it by.
    pub(crate) own: Option<&'a str>,
    /// `DT_NEEDED`: the libraries that it needs, in order.
    pub(crate) needed: Vec<&'a str>,
    /// `DT_RPATH`: where they are looked for.
    pub(crate) rpath: Option<&'a str>,
    /// `DT_RUNPATH`: the same with less weight.
    pub(crate) runpath: Option<&'a str>,
}

impl<'a> ImageFile<'a> {
    /// The file with these contents.
    ///
    /// # Errors
    /// When it is no shared object, or its headers lie outside of it.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let header = note::header(bytes)?;
        let segments = header
            .program_headers(LE, bytes)
            .map_err(|_| ImageError::Truncated("the program header table"))?;
        let sections = header.sections(LE, bytes).map_err(|_| ImageError::Truncated("the section table"))?;
        Ok(Self { bytes, segments, sections })
    }

    /// Its sections, in the order of the file.
    pub(crate) fn sections(&self) -> impl Iterator<Item = FileSection<'a>> {
        self.sections.iter().skip(1).map(|header| FileSection {
            name: self.sections.section_name(LE, header).unwrap_or_default(),
            header,
        })
    }

    /// How many bytes of memory its segments take.
    pub(crate) fn memory(&self) -> u64 {
        let loadable = self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
        loadable.fold(0, |sum, segment| sum.saturating_add(segment.p_memsz(LE)))
    }

    /// What the file has of the `size` bytes at `address`, an address before relocation.
    pub(crate) fn at(&self, address: u64, size: u64) -> Option<&'a [u8]> {
        self.tail(address)?.get(..usize::try_from(size).ok()?)
    }

    /// What the file has from `address` to the end of its segment.
    pub(crate) fn tail(&self, address: u64) -> Option<&'a [u8]> {
        let loadable = self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
        loadable.into_iter().find_map(|segment| {
            let inside = address.checked_sub(segment.p_vaddr(LE))?;
            segment.data(LE, self.bytes).ok()?.get(usize::try_from(inside).ok()?..)
        })
    }

    /// Its dynamic symbols, but for those whose names are not UTF-8.
    ///
    /// # Errors
    /// When the tables lie outside of the file, or have more to say than it can.
    pub(crate) fn symbols(&self) -> Result<Vec<FileSymbol<'a>>, ImageError> {
        let Some(section) = self.sections.iter().find(|section| section.sh_type(LE) == elf::SHT_DYNSYM)
        else {
            return Ok(Vec::new());
        };
        let entries = section.data(LE, self.bytes).map_err(|_| ImageError::Truncated("the symbol table"))?;
        let strings = self
            .sections
            .strings(LE, self.bytes, section.link(LE))
            .map_err(|_| ImageError::Truncated("the string table"))?;
        let versions =
            self.sections.versions(LE, self.bytes).map_err(|_| ImageError::Truncated("the version table"))?;
        let mut room = self.bytes.len().saturating_mul(MOST_TEXT);
        let mut symbols = Vec::new();
        let (entries, _) = entries.as_chunks::<SYMBOL_BYTES>();
        for (index, entry) in entries.iter().enumerate().skip(1) {
            let symbol = Symbol::of_bytes(entry);
            let name =
                strings.get(symbol.name).map_err(|()| ImageError::Truncated("the name of a symbol"))?;
            let version = match &versions {
                Some(versions) => version_of(versions, SymbolIndex(index))?,
                None => None,
            };
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if name.is_empty() {
                continue;
            }
            room = room
                .checked_sub(name.len() + version.map_or(0, |version| version.name.len()))
                .ok_or(ImageError::Damaged("its symbols have more names than it has room for"))?;
            symbols.push(FileSymbol { name, symbol, version });
        }
        Ok(symbols)
    }

    /// The names in its dynamic section.
    ///
    /// # Errors
    /// When that lies outside of the file.
    pub(crate) fn names(&self) -> Result<FileNames<'a>, ImageError> {
        let outside = |_| ImageError::Truncated("the dynamic section");
        let mut names = FileNames::default();
        let Some((entries, link)) = self.sections.dynamic(LE, self.bytes).map_err(outside)? else {
            return Ok(names);
        };
        let strings = self.sections.strings(LE, self.bytes, link).map_err(outside)?;
        for entry in entries.iter().take_while(|entry| entry.tag(LE) != elf::DT_NULL) {
            let text = || std::str::from_utf8(entry.string(LE, strings).ok()?).ok();
            match entry.tag(LE) {
                elf::DT_SONAME => names.own = text(),
                elf::DT_NEEDED => names.needed.extend(text()),
                elf::DT_RPATH => names.rpath = text(),
                elf::DT_RUNPATH => names.runpath = text(),
                _ => {}
            }
        }
        Ok(names)
    }

    /// What it remembers of images that it was linked against; `layout` is what its note says.
    ///
    /// # Errors
    /// When that lies outside of the file, or cannot be decoded.
    pub(crate) fn dependencies(&self, layout: &Layout) -> Result<Vec<ImageDependency>, ImageError> {
        let Some((address, size)) = layout.dependencies else { return Ok(Vec::new()) };
        ImageDependency::of_image(self.at(address, size.into()))
    }

    /// The build id that the linker has given it.
    pub(crate) fn build_id(&self) -> Option<&'a [u8]> {
        self.segments.iter().find_map(|segment| {
            let mut notes = segment.notes(LE, self.bytes).ok()??;
            while let Ok(Some(note)) = notes.next() {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
                    return Some(note.desc());
                }
            }
            None
        })
    }
}

fn version_of<'a>(
    versions: &VersionTable<'a, Header>,
    symbol: SymbolIndex,
) -> Result<Option<FileVersion<'a>>, ImageError> {
    let index = versions.version_index(LE, symbol);
    let found =
        versions.version(index.index()).map_err(|_| ImageError::Truncated("the version of a symbol"))?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    Ok(found.and_then(|version| {
        let library = version.file().and_then(text);
        Some(FileVersion { name: text(version.name())?, library, default: !index.is_hidden() })
    }))
}
