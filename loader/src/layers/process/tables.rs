//! The symbol tables of what glibc has loaded, and which of them count.

use crate::image::SymbolKind;
use crate::image::dynamic::Dynamic;
use crate::image::elf::{PT_DYNAMIC, PT_LOAD, SHN_ABS, STT_GNU_IFUNC, STT_TLS, Symbol};
use crate::image::headers::Range;
use crate::image::place::Place;
use crate::image::symbols::{Filter, Name, PartialHash, Symbols};
use crate::image::versions::Version;
use crate::layers::Value;
use crate::sys::libraries::Loaded;

/// The program or one library.
pub(super) struct Tables {
    path: String,
    /// Where the name of the file begins in the path.
    file_at: usize,
    soname: String,
    needed: Vec<String>,
    /// Address of its dynamic section: its identity.
    dynamic: usize,
    place: Place,
    symbols: Option<Symbols>,
    tls_module: usize,
}

impl Tables {
    /// Reads what is loaded. To be used only as long as it is.
    pub(super) fn read(loaded: Loaded<'_>) -> Self {
        let segments = loaded.segments.iter().filter(|segment| segment.p_type == PT_LOAD);
        let place = Place::of_loaded(loaded.base, segments);
        let range = loaded.segments.iter().find(|segment| segment.p_type == PT_DYNAMIC);
        let path = loaded.name.to_string_lossy().into_owned();
        let mut tables = Self {
            file_at: path.rfind('/').map_or(0, |at| at + 1),
            path,
            soname: String::new(),
            needed: Vec::new(),
            dynamic: range.map_or(0, |range| place.at(range.p_vaddr)),
            symbols: None,
            tls_module: loaded.tls_module,
            place,
        };
        let Some(range) = range else { return tables };
        let range = Range { address: range.p_vaddr, size: range.p_memsz };
        // SAFETY: glibc has mapped and relocated it as its segments say, and it is looked at only as long as it is
        // loaded.
        unsafe {
            let Ok((dynamic, symbol_tables)) = Dynamic::read(&tables.place, range) else { return tables };
            let Ok(symbols) = Symbols::new(&tables.place, &symbol_tables) else { return tables };
            let text = |offset: u64| {
                symbols
                    .text(offset)
                    .map(|text| String::from_utf8_lossy(text).into_owned())
                    .unwrap_or_default()
            };
            tables.soname = dynamic.soname.map(text).unwrap_or_default();
            tables.needed = dynamic.needed.iter().map(|name| text(*name)).collect();
            tables.symbols = Some(symbols);
        }
        tables
    }

    /// The hashes of its names, as far as its tables have them.
    pub(super) fn hashes(&self) -> impl Iterator<Item = PartialHash> {
        let symbols = self.symbols.iter();
        symbols.flat_map(|symbols| symbols.findable().map(|(_, key)| PartialHash::of_key(key)))
    }

    /// Whether there may be a name of which only a part of the hash is known.
    pub(super) fn may_have(&self, hash: PartialHash) -> bool {
        self.symbols.as_ref().is_some_and(|symbols| symbols.may_have(hash))
    }

    /// Name of the file without its folder.
    fn file_name(&self) -> &str {
        &self.path[self.file_at..]
    }

    /// Whether a needed library of that name is this one.
    pub(super) fn is_called(&self, name: &[u8]) -> bool {
        self.names().any(|known| known == name)
    }

    /// The names that others may need it by.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        let names = [self.soname.as_str(), self.file_name(), &self.path];
        names.into_iter().filter(|name| !name.is_empty()).map(str::as_bytes)
    }

    /// The same of what was not read.
    pub(super) fn identity_of(loaded: &Loaded<'_>) -> Option<usize> {
        let range = loaded.segments.iter().find(|segment| segment.p_type == PT_DYNAMIC)?;
        Some(loaded.base.wrapping_add(range.p_vaddr as usize))
    }

    /// Address of its dynamic section, which no two have at the same time.
    pub(super) fn identity(&self) -> usize {
        self.dynamic
    }

    /// Its path; empty for the program.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Names of what it needs.
    pub(super) fn needed(&self) -> &[String] {
        &self.needed
    }

    /// What lets names pass that it may have.
    pub(super) fn filter(&self) -> Filter {
        match &self.symbols {
            // It answers for functions that it does not define.
            Some(_) if self.has_stand_ins() => Filter::OPEN,
            Some(symbols) => symbols.filter(),
            None => Filter::OPEN,
        }
    }

    /// Its symbols; valid as long as it is loaded.
    pub(super) fn symbols(&self) -> Option<&Symbols> {
        self.symbols.as_ref()
    }

    /// Whether it defines that version.
    pub(super) fn defines(&self, version: &Version) -> bool {
        self.symbols.as_ref().is_some_and(|symbols| symbols.defines(version))
    }

    /// Whether it is a program at a fixed address.
    fn has_stand_ins(&self) -> bool {
        self.place.base == 0
    }

    /// What it has under that name, and whether that is shared. `program` says that it is the program, `from_start` that it was there when that
    /// started, so that its thread-local block is at a fixed distance from the thread pointer.
    pub(super) fn find(
        &self,
        name: Name<'_>,
        version: Option<&Version>,
        program: bool,
        from_start: bool,
    ) -> Option<(Value, SymbolKind, bool)> {
        let symbols = self.symbols.as_ref()?;
        if let Some((_, symbol)) = symbols.find(name, version) {
            let (value, kind) = self.value(symbol, from_start);
            return Some((value, kind, symbol.is_shared()));
        }
        // Where the code of a program is not position-independent, this is the function's address for everybody.
        let (_, symbol) = (program && self.has_stand_ins()).then(|| symbols.find_stand_in(name)).flatten()?;
        Some((Value::Address(self.place.at(symbol.value)), SymbolKind::Function, false))
    }

    fn value(&self, symbol: &Symbol, fixed: bool) -> (Value, SymbolKind) {
        let kind = SymbolKind::of(symbol);
        let value = match symbol.kind() {
            STT_TLS => Value::Tls { module: self.tls_module, offset: symbol.value as usize, fixed },
            _ if symbol.section == SHN_ABS => Value::Address(symbol.value as usize),
            STT_GNU_IFUNC => {
                let resolver = self.place.at(symbol.value);
                // SAFETY: glibc has relocated the library, so its resolvers may be called, as glibc does itself.
                Value::Address(unsafe { crate::image::call_resolver(resolver) })
            }
            _ => Value::Address(self.place.at(symbol.value)),
        };
        (value, kind)
    }
}

/// How many of the tables, which are in glibc's order, were there when the program started: these are the front of the
/// list, up to the last that anything in that front needs.
pub(super) fn front(tables: &[Tables]) -> usize {
    let mut end = tables.len().min(1);
    let mut at = 0;
    while at < end {
        for name in &tables[at].needed {
            if let Some(found) = tables.iter().position(|table| table.is_called(name.as_bytes())) {
                end = end.max(found + 1);
            }
        }
        at += 1;
    }
    end
}
