//! What a library's file says before it is opened: the names it refers to, those it defines, the libraries it needs.
//!
//! The file is mapped and looked at through its dynamic section, as the run-time linker will do it: its hash table
//! answers most questions with its Bloom filter alone, so that the usual library, which has nothing to do with units,
//! costs microseconds. Everything is checked against the bounds of the file. A file that is damaged says nothing here:
//! what is wrong with it is for `dlopen` to tell.

use crate::image::dynamic::{Dynamic, SymbolTables};
use crate::image::elf::{Rela, STB_WEAK, STT_TLS};
use crate::image::headers::Range;
use crate::image::place::{Place, Segment};
use crate::image::symbols::{Name, Symbols};
use crate::libraries::{self, SearchPath};
use crate::sys::memory::Access;
use crate::sys::view::FileView;
use object::Endianness;
use object::elf::{EM_X86_64, ET_DYN, FileHeader64, PT_DYNAMIC, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A library that may be opened, as its file describes it.
#[derive(Debug)]
pub(crate) struct LibraryFile {
    path: PathBuf,
    /// Slices of `_view`; nothing of them is handed out for longer than `self`.
    symbols: Symbols,
    needed: Vec<Vec<u8>>,
    rpath: Option<Vec<u8>>,
    runpath: Option<Vec<u8>>,
    /// The highest symbol that relocations refer to.
    referred: u32,
    _view: FileView,
}

/// A name that a library wants from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// The name.
    pub(crate) name: &'a [u8],
    /// Whether it is a thread-local variable.
    pub(crate) thread_local: bool,
    /// Whether it may be missing.
    pub(crate) weak: bool,
}

/// More libraries than any program needs.
const MOST: usize = 4096;

impl LibraryFile {
    /// Reads what is needed of the file at `path`; `None` where it cannot be read or is no library for this machine.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        // SAFETY: the caller is about to load this file.
        let view = unsafe { FileView::open(path) }.ok()?;
        let bytes = view.bytes();
        let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
        let endian = header.endian().ok().filter(|endian| *endian == Endianness::Little)?;
        if header.e_machine(endian) != EM_X86_64 || header.e_type(endian) != ET_DYN {
            return None;
        }
        let headers = header.program_headers(endian, bytes).ok()?;
        let segments: Vec<Extent> = headers
            .iter()
            .filter(|header| header.p_type(endian) == PT_LOAD)
            .map(|header| Extent {
                address: header.p_vaddr(endian),
                size: header.p_filesz(endian),
                offset: header.p_offset(endian),
            })
            .collect();
        let dynamic = headers.iter().find(|header| header.p_type(endian) == PT_DYNAMIC)?;
        // The file as one segment, in which addresses are offsets.
        let length = bytes.len() as u64;
        let whole = Segment {
            address: 0,
            size: length,
            offset: 0,
            file_size: length,
            access: Access { read: true, ..Access::default() },
        };
        let place = Place { base: view.start(), segments: vec![whole], settled: true };
        let at = Range { address: dynamic.p_offset(endian), size: dynamic.p_filesz(endian) };
        // SAFETY: the view is what the segment says, and lives as long as the symbols.
        let (dynamic, symbols, tables) = unsafe {
            let (dynamic, symbol_tables) = translate(Dynamic::read(&place, at).ok()?, &segments)?;
            let symbols = Symbols::new(&place, &symbol_tables).ok()?;
            let ranges = [dynamic.relocations, dynamic.jump_relocations].into_iter().flatten();
            let tables: Option<Vec<&[Rela]>> = ranges
                .map(|range| place.table(range.address, range.size as usize / size_of::<Rela>()))
                .collect();
            (dynamic, symbols, tables?)
        };
        // A table of hashes that is empty does not say how many symbols there are.
        let referred = if symbols.count() <= 1 {
            tables.iter().flat_map(|table| table.iter()).map(Rela::symbol).max().unwrap_or(0)
        } else {
            0
        };
        let text = |offset: u64| symbols.text(offset).map(<[u8]>::to_vec);
        Some(Self {
            path: path.to_owned(),
            needed: dynamic.needed.iter().filter_map(|name| text(*name)).collect(),
            rpath: dynamic.rpath.and_then(text),
            runpath: dynamic.runpath.and_then(text),
            symbols,
            referred,
            _view: view,
        })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the libraries that it needs.
    pub(crate) fn needed(&self) -> &[Vec<u8>] {
        &self.needed
    }

    /// Where what it needs is looked for, given where it was looked for itself.
    fn search(&self, search: &SearchPath) -> SearchPath {
        search.through(&self.path, self.rpath.as_deref(), self.runpath.as_deref())
    }

    /// Whether it has a definition of `name`, of any version.
    pub(crate) fn defines(&self, name: Name<'_>) -> bool {
        self.symbols.find_any(name).is_some()
    }

    /// The names that it wants from elsewhere.
    pub(crate) fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        let end = self.symbols.count().max(self.referred.saturating_add(1));
        (1..end).filter_map(|index| {
            let symbol = self.symbols.get(index).filter(|symbol| !symbol.is_defined())?;
            let name = self.symbols.text(symbol.name.into()).filter(|name| !name.is_empty())?;
            Some(Reference {
                name,
                thread_local: symbol.kind() == STT_TLS,
                weak: symbol.binding() == STB_WEAK,
            })
        })
    }
}

/// The library at `path`, looked for in `search`, and what it needs, breadth first, without what `is_loaded` knows by its
/// name already.
pub(crate) fn closure(
    path: &Path,
    search: &SearchPath,
    is_loaded: impl Fn(&[u8]) -> bool,
) -> Vec<LibraryFile> {
    let first = LibraryFile::open(path).map(|file| (file.search(search), file));
    let mut files: Vec<(SearchPath, LibraryFile)> = first.into_iter().collect();
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut next = 0;
    while let Some((search, file)) = files.get(next) {
        let mut found = Vec::new();
        for name in file.needed() {
            if names.len() < MOST && !names.contains(name) && !is_loaded(name) {
                names.push(name.clone());
                let path = libraries::find(OsStr::from_bytes(name), search);
                let file = path.and_then(|path| LibraryFile::open(&path));
                found.extend(file.map(|file| (file.search(search), file)));
            }
        }
        files.extend(found);
        next += 1;
    }
    files.into_iter().map(|(_, file)| file).collect()
}

/// Where part of the file will be in memory.
struct Extent {
    address: u64,
    size: u64,
    offset: u64,
}

/// The dynamic section with offsets in the file instead of addresses.
fn translate(
    (mut dynamic, mut tables): (Dynamic, SymbolTables),
    segments: &[Extent],
) -> Option<(Dynamic, SymbolTables)> {
    let offset = |address: u64| {
        segments.iter().find_map(|segment| {
            let inside = address.checked_sub(segment.address).filter(|inside| *inside < segment.size)?;
            segment.offset.checked_add(inside)
        })
    };
    let single = |address: &mut Option<u64>| match *address {
        Some(old) => {
            *address = Some(offset(old)?);
            Some(())
        }
        None => Some(()),
    };
    let range = |range: &mut Option<Range>| match range {
        Some(range) if range.size > 0 => {
            range.address = offset(range.address)?;
            Some(())
        }
        _ => {
            *range = None;
            Some(())
        }
    };
    range(&mut tables.strings)?;
    range(&mut dynamic.relocations)?;
    range(&mut dynamic.jump_relocations)?;
    for address in [&mut tables.symbols, &mut tables.gnu_hash, &mut tables.hash, &mut tables.symbol_versions]
    {
        single(address)?;
    }
    for (address, _) in [&mut tables.needed_versions, &mut tables.defined_versions].into_iter().flatten() {
        *address = offset(*address)?;
    }
    Some((dynamic, tables))
}
