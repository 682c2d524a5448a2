//! What files on the linker's line offer and ask for: exports of shared libraries with their versions, undefined
//! symbols of archives. Parsed once per state of a file and kept.

use super::archive::check_archive;
use hotbed_loader::sys::files::FileIdentity;
use hotbed_loader::sys::sync::Mutex;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader};
use object::{LittleEndian as LE, SymbolIndex};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// Exports of a shared library.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    /// `DT_SONAME`, or the file's name.
    pub(crate) soname: Vec<u8>,
    /// Definitions by name; several when there are several versions.
    pub(crate) definitions: HashMap<Vec<u8>, Vec<Export>>,
    /// Names of the versions by their index in the file; the first two are not versions.
    pub(crate) versions: Vec<Vec<u8>>,
}

/// One definition of a shared library.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Export {
    /// Type and binding, as in the file.
    pub(crate) info: u8,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Index of its version, with the bit that says that it is not the default one.
    pub(crate) version: u16,
}

/// What a file is and has.
#[derive(Debug, Clone)]
pub(crate) enum Contents {
    /// A shared library.
    Shared(Arc<Exports>),
    /// An archive and what its members leave undefined.
    Archive(Arc<Vec<Vec<u8>>>),
    /// A text, perhaps a script for the linker.
    Text(Arc<str>),
}

static KNOWN: LazyLock<Mutex<HashMap<PathBuf, (FileIdentity, Contents)>>> = LazyLock::new(Mutex::default);

/// What the file at `path` has; none when it is nothing that is understood here.
pub(crate) fn contents_of(path: &Path) -> Option<Contents> {
    let identity = FileIdentity::of_path(path).ok()?;
    if let Some((known, contents)) = KNOWN.lock().get(path)
        && *known == identity
    {
        return Some(contents.clone());
    }
    let bytes = std::fs::read(path).ok()?;
    let contents = if bytes.starts_with(&elf::ELFMAG) {
        Contents::Shared(Arc::new(read_exports(&bytes, path)?))
    } else if bytes.starts_with(b"!<arch>\n") {
        Contents::Archive(Arc::new(check_archive(&bytes, None).ok()?.objects.undefined))
    } else {
        Contents::Text(String::from_utf8(bytes).ok()?.into())
    };
    KNOWN.lock().insert(path.to_owned(), (identity, contents.clone()));
    Some(contents)
}

fn read_exports(bytes: &[u8], path: &Path) -> Option<Exports> {
    let header = FileHeader64::<LE>::parse(bytes).ok()?;
    if header.e_type.get(LE) != elf::ET_DYN || header.e_machine.get(LE) != elf::EM_X86_64 {
        return None;
    }
    let sections = header.sections(LE, bytes).ok()?;
    let symbols = sections.symbols(LE, bytes, elf::SHT_DYNSYM).ok()?;
    let versions = sections.versions(LE, bytes).ok()?;
    let mut exports = Exports { soname: path.file_name()?.as_encoded_bytes().to_vec(), ..Exports::default() };
    if let Ok(Some((dynamic, link))) = sections.dynamic(LE, bytes) {
        let strings = sections.strings(LE, bytes, link).ok()?;
        let soname = dynamic.iter().find(|entry| entry.tag(LE) == elf::DT_SONAME);
        if let Some(name) = soname.and_then(|entry| entry.string(LE, strings).ok()) {
            exports.soname = name.to_vec();
        }
    }
    for (index, symbol) in symbols.enumerate() {
        if symbol.st_shndx.get(LE) == elf::SHN_UNDEF || symbol.st_bind() == elf::STB_LOCAL {
            continue;
        }
        let mut version = 1;
        if let Some(versions) = &versions {
            let index = versions.version_index(LE, SymbolIndex(index.0));
            if index.index().0 == 0 {
                continue;
            }
            version = index.index().0 | if index.is_hidden() { 0x8000 } else { 0 };
            let number = usize::from(index.index().0);
            if number > 1 && exports.versions.get(number).is_none_or(Vec::is_empty) {
                let name = versions.version(index.index()).ok()??.name().to_vec();
                exports.versions.resize(exports.versions.len().max(number + 1), Vec::new());
                exports.versions[number] = name;
            }
        }
        let name = symbols.symbol_name(LE, symbol).ok()?.to_vec();
        let export = Export { info: symbol.st_info.0, size: symbol.st_size.get(LE), version };
        exports.definitions.entry(name).or_default().push(export);
    }
    Some(exports)
}
