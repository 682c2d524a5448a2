//! What an image has and what it wants, by name.

use super::elf::STB_WEAK;
use super::map::Mapped;
use super::symbols::Name;
use super::{Definition, Export, Image, Import, SymbolKind, address_of};

impl Image {
    /// Its own exported definition of `symbol`. For a definition that is shared with other units, the one that all
    /// of them use.
    pub fn get(&self, symbol: &str) -> Option<Definition> {
        let (index, symbol) = self.symbols().find(Name::new(symbol.as_bytes()), None)?;
        let value = symbol.is_shared().then(|| self.shared.instead(index)).flatten();
        Some(Definition {
            address: address_of(value.unwrap_or_else(|| self.value_of(symbol).0)),
            kind: SymbolKind::of(symbol),
            weak: symbol.is_shared(),
            size: symbol.size,
        })
    }

    /// What it exports, in no particular order. Names that are not UTF-8 are left out.
    pub fn exports(&self) -> impl Iterator<Item = Export<'_>> {
        self.symbols().iter().filter(|(_, symbol, _)| symbol.is_exported()).filter_map(|(_, symbol, name)| {
            Some(Export {
                name: std::str::from_utf8(name).ok()?,
                kind: SymbolKind::of(symbol),
                weak: symbol.is_shared(),
                size: symbol.size,
            })
        })
    }

    /// The functions of the C library's allocator that it defines itself. They serve units and the libraries that are opened
    /// for them only as far as these do not find the process's first: whatever was there before keeps its own.
    pub fn replaced_allocator(&self) -> Vec<&'static str> {
        const ALLOCATOR: [&str; 10] = [
            "malloc",
            "free",
            "calloc",
            "realloc",
            "reallocarray",
            "memalign",
            "aligned_alloc",
            "posix_memalign",
            "valloc",
            "malloc_usable_size",
        ];
        let defines = |name: &&str| {
            let found = self.symbols().find(Name::new(name.as_bytes()), None);
            found.is_some_and(|(_, symbol)| !symbol.is_shared())
        };
        ALLOCATOR.into_iter().filter(defines).collect()
    }

    /// What it needs from elsewhere.
    pub fn imports(&self) -> Vec<Import> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let symbols = self.symbols();
        symbols
            .iter()
            .filter(|(_, symbol, name)| !symbol.is_defined() && !name.is_empty())
            .map(|(index, symbol, name)| {
                let version = symbols.needed_version(index);
                Import {
                    name: text(name),
                    version: version.map(|version| text(version.name)),
                    library: version.map(|version| text(version.file)),
                    weak: symbol.binding() == STB_WEAK,
                }
            })
            .collect()
    }

    /// Names of the libraries that it needs.
    pub fn needed(&self) -> Vec<String> {
        needed(&self.body.mapped).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }
}

/// Names of the libraries that an image needs.
pub(crate) fn needed(mapped: &Mapped) -> impl Iterator<Item = &'static [u8]> {
    mapped.dynamic.needed.iter().filter_map(|name| mapped.symbols.text(*name))
}
