//! What the members of an archive define and need.
//!
//! An archive is a magic text and members; the first of them may be an index of symbols. The index is a linker's short cut and
//! may be stale or missing, so for objects their own symbol tables count; of bitcode only the index knows the symbols.
//!
//! Members may share symbols of hidden visibility, which code reaches without the detour that a symbol of another image takes.
//! A member must not be loaded apart from those; all that mention such a symbol are one *cluster*. And as an ordinary linker would let
//! any object of the program use these symbols, they are made visible: in an executable visibility does not count.

use hotbed_loader::SymbolKind;
use hotbed_loader::sys::files::{self, plain};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::archive::ArchiveFile;
use object::read::elf::{FileHeader, SectionHeader};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The members of an archive.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(super) members: Vec<Member>,
    /// For each name the first definition.
    definitions: HashMap<String, Definition>,
    /// Members that must be loaded together.
    clusters: Vec<Vec<usize>>,
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) bitcode: bool,
    pub(super) contents: Vec<u8>,
    /// What it refers to and does not have; nothing is known about bitcode.
    pub(super) needs: Vec<String>,
    cluster: usize,
}

/// A definition in a member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Definition {
    /// Which one.
    pub(crate) member: usize,
    /// What it is; of bitcode that is not known, and most symbols are functions.
    pub(crate) kind: SymbolKind,
    pub(crate) weak: bool,
}

/// What the symbol table of an object says.
#[derive(Default)]
struct Table {
    defines: Vec<(String, SymbolKind, bool)>,
    needs: Vec<String>,
    /// Strong symbols that are not for everybody.
    hidden: Vec<Hidden>,
}

struct Hidden {
    name: String,
    defined: bool,
    /// Where in the object its visibility is.
    at: usize,
}

/// Bytes of a symbol in the table, and where in them the visibility stands.
const SYMBOL: usize = 24;
const VISIBILITY: usize = 5;

impl Index {
    /// Reads an archive that lies in `folder`, if it is a file.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with its name.
    pub(crate) fn read(bytes: &[u8], folder: Option<&Path>) -> Result<Self, String> {
        if bytes.is_empty() {
            return Err("is empty".into());
        }
        if !bytes.starts_with(b"!<arch>\n") && !bytes.starts_with(b"!<thin>\n") {
            return Err("is not an archive".into());
        }
        let archive = ArchiveFile::parse(bytes).map_err(|error| format!("is not an archive: {error}"))?;
        let mut index = Self::default();
        let mut by_offset = HashMap::new();
        let mut hidden: Vec<(usize, Hidden)> = Vec::new();
        for member in archive.members() {
            let member = member.map_err(|error| format!("is damaged or cut off: {error}"))?;
            let name = String::from_utf8_lossy(member.name()).into_owned();
            let contents = if member.is_thin() {
                let folder = folder
                    .ok_or("is a thin archive, whose members are files beside it: load it by its path")?;
                let path = folder.join(OsStr::from_bytes(member.name()));
                files::open_regular(&path)
                    .and_then(|(file, status)| files::contents_of(&file, status.identity.size))
                    .map_err(|e| format!("has the member {name} that cannot be read: {}", plain(&e)))?
            } else {
                let data = member.data(bytes);
                data.map_err(|_| format!("is cut off in its member {name}"))?.to_vec()
            };
            let at = index.members.len();
            by_offset.insert(member.file_range().0, at);
            let bitcode = contents.starts_with(b"BC\xc0\xde");
            let table = if bitcode {
                Table::default()
            } else {
                read_object(&contents).map_err(|what| format!("has the member {name} that {what}"))?
            };
            for (name, kind, weak) in table.defines {
                index.definitions.entry(name).or_insert(Definition { member: at, kind, weak });
            }
            hidden.extend(table.hidden.into_iter().map(|symbol| (at, symbol)));
            index.members.push(Member { name, bitcode, contents, needs: table.needs, cluster: at });
        }
        if let Some(symbols) = archive.symbols().map_err(|error| format!("has a damaged index: {error}"))? {
            for symbol in symbols {
                let symbol = symbol.map_err(|error| format!("has a damaged index: {error}"))?;
                let member = archive
                    .member(symbol.offset())
                    .map_err(|_| "has an index that points outside its members".to_owned())?;
                if let Some(at) = by_offset.get(&member.file_range().0)
                    && index.members[*at].bitcode
                    && let Ok(name) = std::str::from_utf8(symbol.name())
                {
                    let (member, kind) = (*at, SymbolKind::Function);
                    let definition = Definition { member, kind, weak: false };
                    index.definitions.entry(name.to_owned()).or_insert(definition);
                }
            }
        }
        index.show_hidden(hidden);
        Ok(index)
    }

    /// The first definition of `name`.
    pub(super) fn definition(&self, name: &str) -> Option<Definition> {
        self.definitions.get(name).copied()
    }

    /// The names that its members define.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.keys().map(String::as_str)
    }

    /// The members that must be loaded together with `member`, itself included.
    pub(super) fn cluster(&self, member: usize) -> &[usize] {
        self.members
            .get(member)
            .and_then(|member| self.clusters.get(member.cluster))
            .map_or(&[], Vec::as_slice)
    }

    /// Makes what members share visible, and clusters of those that do.
    fn show_hidden(&mut self, hidden: Vec<(usize, Hidden)>) {
        let mut owners: HashMap<&str, usize> = HashMap::new();
        for (at, symbol) in hidden.iter().filter(|(_, symbol)| symbol.defined) {
            owners.entry(&symbol.name).or_insert(*at);
        }
        for (at, symbol) in &hidden {
            let Some(owner) = owners.get(&*symbol.name) else { continue };
            if let Some(byte) = self.members[*at].contents.get_mut(symbol.at) {
                *byte &= !3;
            }
            let (one, other) = (self.members[*at].cluster, self.members[*owner].cluster);
            if one != other {
                self.members.iter_mut().filter(|m| m.cluster == one).for_each(|m| m.cluster = other);
            }
        }
        self.clusters = vec![Vec::new(); self.members.len()];
        for (at, member) in self.members.iter().enumerate() {
            self.clusters[member.cluster].push(at);
        }
    }
}

fn read_object(bytes: &[u8]) -> Result<Table, String> {
    let damaged = |error: object::Error| format!("is damaged: {error}");
    let header = FileHeader64::<LE>::parse(bytes).map_err(|_| "is not an ELF file".to_owned())?;
    if header.e_type.get(LE) != elf::ET_REL {
        return Err("is not a relocatable object".into());
    }
    let sections = header.sections(LE, bytes).map_err(damaged)?;
    let symbols = sections.symbols(LE, bytes, elf::SHT_SYMTAB).map_err(damaged)?;
    let mut table = Table::default();
    if symbols.is_empty() {
        return Ok(table);
    }
    let start = sections.section(symbols.section()).map_err(damaged)?.sh_offset(LE) as usize;
    for (index, symbol) in symbols.enumerate() {
        if symbol.st_bind() == elf::STB_LOCAL {
            continue;
        }
        let name = symbols.symbol_name(LE, symbol).map_err(damaged)?;
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name.is_empty() {
            continue;
        }
        let defined = symbol.st_shndx.get(LE) != elf::SHN_UNDEF;
        let weak = symbol.st_bind() == elf::STB_WEAK;
        if defined {
            let kind = match symbol.st_type() {
                elf::STT_GNU_IFUNC => SymbolKind::IndirectFunction,
                elf::STT_TLS => SymbolKind::Tls,
                elf::STT_OBJECT | elf::STT_COMMON => SymbolKind::Data,
                _ => SymbolKind::Function,
            };
            table.defines.push((name.to_owned(), kind, symbol.st_bind() != elf::STB_GLOBAL));
        } else if !weak {
            table.needs.push(name.to_owned());
        }
        let is_hidden = matches!(symbol.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL);
        if is_hidden && !(weak && defined) {
            let at = start + index.0 * SYMBOL + VISIBILITY;
            table.hidden.push(Hidden { name: name.to_owned(), defined, at });
        }
    }
    Ok(table)
}
