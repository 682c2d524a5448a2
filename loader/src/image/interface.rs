//! Interfaces of images: what users of an image can see of it, and how images that were linked against another one remember
//! that.
//!
//! An interface is the list of what the image exports: name, version, kind and, of variables, the size; in the order of
//! names, then versions. Its **hash** is BLAKE3 over the list in the encoding of [`crate::codec`]. Where things are and what is
//! in them does not count, nor how strong a definition is, nor by which of several ways a function is chosen at load. So an image that is
//! made anew with the same interface serves whoever was linked against the one before. An image's note has the hash of
//! its interface.
//!
//! An image that was linked against others has **dependencies**: of each the name (`SONAME`, which is in its `DT_NEEDED`
//! as well), the hash of its interface then, and what the image refers to of it, as far as that was known before the link.

use super::file::{FileSymbol, ImageFile};
use super::variants::{common_interface, intact_variants};
use super::{ImageError, SymbolKind};
use crate::codec::{CodecError, Reader, Writer};
use crate::cpu::CpuFeatures;
use crate::error::demangle;
use std::collections::{BTreeMap, BTreeSet};

/// What users of an image can see of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// By name and version.
    symbols: Vec<InterfaceSymbol>,
}

/// Something that an image exports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceSymbol {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<InterfaceVersion>,
    /// What it is; an indirect function is a function.
    pub kind: InterfaceKind,
    /// Bytes of a variable, otherwise 0.
    pub size: u64,
}

/// The version of something that an image exports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceVersion {
    /// Its name.
    pub name: String,
    /// Whether who asks for no version gets this one.
    pub default: bool,
}

/// What a user makes a difference between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum InterfaceKind {
    /// Something that is called, or of no known kind.
    Function = 0,
    /// A variable.
    Data = 1,
    /// A thread-local variable.
    Tls = 2,
}

/// An image that others are linked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInterface {
    /// Its `SONAME`.
    pub name: String,
    /// What can be seen of it.
    pub interface: Interface,
}

/// What an image remembers of one that it was linked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDependency {
    /// Its `SONAME`.
    pub name: String,
    /// Hash of its interface.
    pub interface: [u8; 32],
    /// What of it is referred to, as far as that is known.
    pub symbols: Vec<InterfaceSymbol>,
}

impl Interface {
    /// That of the image, or of another shared object, in `file`.
    ///
    /// # Errors
    /// When it is none, or its tables are damaged.
    pub fn of_file(file: &[u8]) -> Result<Self, ImageError> {
        Ok(Self::of(&ImageFile::new(file)?.symbols()?))
    }

    pub(super) fn of(symbols: &[FileSymbol<'_>]) -> Self {
        let mut symbols: Vec<_> = InterfaceSymbol::exported(symbols).map(|(symbol, _)| symbol).collect();
        symbols.sort_unstable();
        symbols.dedup();
        Self { symbols }
    }

    /// That of an image with variants, which have these symbols and need that of a processor: what all of them export. A weak
    /// definition that some do not have is not part of it.
    ///
    /// # Errors
    /// When some do not have what is defined strongly, or are different there.
    pub(super) fn common(variants: &[(CpuFeatures, Vec<FileSymbol<'_>>)]) -> Result<Self, ImageError> {
        let exported = |(_, symbols): &(_, Vec<FileSymbol<'_>>)| {
            InterfaceSymbol::exported(symbols).collect::<BTreeMap<_, _>>()
        };
        let all: Vec<BTreeMap<InterfaceSymbol, bool>> = variants.iter().map(exported).collect();
        let every: BTreeSet<&InterfaceSymbol> = all.iter().flat_map(BTreeMap::keys).collect();
        let mut symbols = Vec::new();
        for symbol in every {
            let Some(lacks) = all.iter().position(|one| !one.contains_key(symbol)) else {
                symbols.push(symbol.clone());
                continue;
            };
            // What is weak where it is, and no other thing where it is not.
            let is_other =
                |other: &InterfaceSymbol| other.name == symbol.name && other.version == symbol.version;
            let strong = all.iter().any(|one| one.get(symbol) == Some(&false));
            if strong || all[lacks].keys().any(is_other) {
                let has = all.iter().position(|one| one.contains_key(symbol)).unwrap_or_default();
                let [lacks, has] = [lacks, has].map(|at| variants[at].0);
                let what = symbol.describe();
                return Err(ImageError::Variants(format!(
                    "the one for {has} has {what}, the one for {lacks} has not"
                )));
            }
        }
        Ok(Self { symbols })
    }

    /// What it consists of, by name and version.
    pub fn symbols(&self) -> &[InterfaceSymbol] {
        &self.symbols
    }

    /// Its hash.
    pub fn hash(&self) -> [u8; 32] {
        let mut w = Writer::new();
        self.encode(&mut w);
        *blake3::hash(&w.finish()).as_bytes()
    }

    /// What of it has one of these names.
    pub fn named<'a>(&self, names: impl IntoIterator<Item = &'a [u8]>) -> Vec<InterfaceSymbol> {
        let mut found: Vec<InterfaceSymbol> = Vec::new();
        for name in names {
            let start = self.symbols.partition_point(|symbol| symbol.name.as_bytes() < name);
            let same = self.symbols[start..].iter().take_while(|symbol| symbol.name.as_bytes() == name);
            found.extend(same.cloned());
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn encode(&self, w: &mut Writer) {
        w.list(&self.symbols, |w, symbol| symbol.encode(w));
    }
}

impl InterfaceKind {
    pub(crate) fn of(kind: SymbolKind) -> Self {
        match kind {
            SymbolKind::Function | SymbolKind::IndirectFunction => Self::Function,
            SymbolKind::Data => Self::Data,
            SymbolKind::Tls => Self::Tls,
        }
    }

    /// What of a symbol's size can be seen.
    pub(crate) fn visible(self, size: u64) -> u64 {
        if self == Self::Function { 0 } else { size }
    }
}

impl InterfaceSymbol {
    /// What of `symbols` users can see, and whether it is weak.
    fn exported(symbols: &[FileSymbol<'_>]) -> impl Iterator<Item = (Self, bool)> {
        symbols.iter().filter(|one| one.symbol.is_exported()).map(|one| {
            let kind = InterfaceKind::of(SymbolKind::of(&one.symbol));
            let version = one
                .version
                .map(|version| InterfaceVersion { name: version.name.to_owned(), default: version.default });
            let size = kind.visible(one.symbol.size);
            (Self { name: one.name.to_owned(), version, kind, size }, one.symbol.is_shared())
        })
    }

    /// What it is, in words.
    fn describe(&self) -> String {
        let Self { name, version, kind, size } = self;
        let name = demangle(name).unwrap_or_else(|| name.clone());
        let version = version.as_ref().map_or_else(String::new, |version| format!("@{}", version.name));
        match kind {
            InterfaceKind::Function => format!("a function {name}{version}"),
            InterfaceKind::Data => format!("a variable {name}{version} of {size} bytes"),
            InterfaceKind::Tls => format!("a thread-local variable {name}{version} of {size} bytes"),
        }
    }

    fn encode(&self, w: &mut Writer) {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self { name, version, kind, size } = self;
        w.text(name);
        w.option(version.as_ref(), |w, InterfaceVersion { name, default }| {
            w.text(name);
            w.bool(*default);
        });
        w.u8(*kind as u8);
        w.u64(*size);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            name: r.text()?.to_owned(),
            version: r.option(|r| Ok(InterfaceVersion { name: r.text()?.to_owned(), default: r.bool()? }))?,
            kind: match r.u8()? {
                0 => InterfaceKind::Function,
                1 => InterfaceKind::Data,
                2 => InterfaceKind::Tls,
                _ => return Err(CodecError("an unknown kind of symbol")),
            },
            size: r.u64()?,
        })
    }
}

impl ImageInterface {
    /// That of the image in `file`, which may have variants.
    ///
    /// # Errors
    /// When it is no image, is damaged, or has no name that others could need it by.
    pub fn of_file(file: &[u8]) -> Result<Self, ImageError> {
        let variants = intact_variants(file)?;
        let interface = common_interface(variants.iter().map(|variant| variant.bytes))?;
        let name = soname(file).ok_or_else(|| ImageError::Unsupported("it has no SONAME".into()))?;
        Ok(Self { name, interface })
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        let Self { name, interface } = self;
        w.text(name);
        interface.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let name = r.text()?.to_owned();
        let mut symbols = r.list(InterfaceSymbol::decode)?;
        symbols.sort_unstable();
        Ok(Self { name, interface: Interface { symbols } })
    }
}

/// The name that others need the image in `file` by, if it is one and has any.
pub fn soname(file: &[u8]) -> Option<String> {
    ImageFile::new(file).ok()?.names().ok()?.own.map(str::to_owned)
}

impl ImageDependency {
    /// What an image remembers of `image` that leaves the symbols `undefined` to others.
    pub fn new<'a>(image: &ImageInterface, undefined: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let ImageInterface { name, interface } = image;
        Self { name: name.clone(), interface: interface.hash(), symbols: interface.named(undefined) }
    }

    /// Whether it is referred to for a symbol of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        let at = self.symbols.partition_point(|symbol| &*symbol.name < name);
        self.symbols.get(at).is_some_and(|symbol| symbol.name == name)
    }

    /// All that an image has, from the bytes of it that its note tells of.
    ///
    /// # Errors
    /// When these are not there, or cannot be decoded.
    pub(crate) fn of_image(bytes: Option<&[u8]>) -> Result<Vec<Self>, ImageError> {
        let bytes = bytes.ok_or(ImageError::Truncated("what it remembers of other images"))?;
        let damaged = |_| ImageError::Damaged("what it remembers of other images cannot be decoded");
        Self::decode_all(bytes).map_err(damaged)
    }

    /// The encoding of several.
    pub fn encode_all(all: &[Self]) -> Vec<u8> {
        let mut w = Writer::new();
        w.list(all, |w, Self { name, interface, symbols }| {
            w.text(name);
            w.raw(interface);
            w.list(symbols, |w, symbol| symbol.encode(w));
        });
        w.finish()
    }

    /// Several from their encoding.
    ///
    /// # Errors
    /// When that is not what [`ImageDependency::encode_all`] makes.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, CodecError> {
        Reader::new(bytes).list(|r| {
            Ok(Self {
                name: r.text()?.to_owned(),
                interface: r.array()?,
                symbols: r.list(InterfaceSymbol::decode)?,
            })
        })
    }
}

/// An interface with something of everything.
#[cfg(test)]
pub(crate) fn sample(name: &str) -> ImageInterface {
    let symbol = |name: &str, version: Option<&str>, kind, size| InterfaceSymbol {
        name: name.into(),
        version: version.map(|name| InterfaceVersion { name: name.into(), default: name.ends_with('2') }),
        kind,
        size,
    };
    let symbols = vec![
        symbol("area", None, InterfaceKind::Function, 0),
        symbol("names", Some("V_1"), InterfaceKind::Data, 16),
        symbol("names", Some("V_2"), InterfaceKind::Data, 24),
        symbol("own", None, InterfaceKind::Tls, 4),
    ];
    ImageInterface { name: name.into(), interface: Interface { symbols } }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::testing::Folder;

    const BASE: &str = "int f(int x) { return x; } int table[4] = {1}; __thread int own; static int hidden;
                        int *place(void) { return &hidden; }";

    fn hash(name: &str, source: &str, flags: &[&str]) -> [u8; 32] {
        let folder = Folder::new();
        let image = folder.image(name, source, flags);
        Interface::of_file(&std::fs::read(image).unwrap()).unwrap().hash()
    }

    #[test]
    fn an_interface_is_what_can_be_seen() {
        let base = hash("base.c", BASE, &[]);
        let same = [
            BASE.replace("return x;", "return x * x * x;"),
            BASE.replace("{1}", "{7, 8, 9}"),
            BASE.replace("static int hidden;", "static int hidden, more[100];"),
            format!("static int inner(void) {{ return 1; }} {BASE}"),
            BASE.replace("int f(", "__attribute__((weak)) int f("),
        ];
        for source in same {
            assert_eq!(hash("same.c", &source, &["-O2"]), base, "{source}");
        }
        let other = [
            BASE.replace("int f(", "int g("),
            BASE.replace("table[4]", "table[5]"),
            BASE.replace("__thread int own", "int own"),
            format!("{BASE} int more;"),
            BASE.replace("int f(int x) { return x; }", "int f = 1;"),
            BASE.replace("int f(", "__attribute__((visibility(\"hidden\"))) int f("),
        ];
        for source in other {
            assert_ne!(hash("other.c", &source, &[]), base, "{source}");
        }
        let folder = Folder::new();
        let map = folder.path().join("map");
        std::fs::write(&map, "V_1 { global: *; };").unwrap();
        let flag = format!("-Wl,--version-script={}", map.display());
        assert_ne!(hash("versioned.c", BASE, &[&flag]), base);
    }

    #[test]
    fn dependencies_survive_and_name_what_is_used() {
        let image = sample("core.hbi");
        let used: [&[u8]; 4] = [b"names", b"nobody", b"area", b"names"];
        let dependency = ImageDependency::new(&image, used);
        let names: Vec<_> = dependency.symbols.iter().map(|symbol| &*symbol.name).collect();
        assert_eq!(names, ["area", "names", "names"]);
        let all = [dependency, ImageDependency::new(&image, [])];
        let bytes = ImageDependency::encode_all(&all);
        assert_eq!(ImageDependency::decode_all(&bytes).unwrap(), all);
        for end in 0..bytes.len() {
            assert!(ImageDependency::decode_all(&bytes[..end]).is_err());
        }
        let mut w = Writer::new();
        image.encode(&mut w);
        assert_eq!(ImageInterface::decode(&mut Reader::new(&w.finish())), Ok(image));
    }
}
