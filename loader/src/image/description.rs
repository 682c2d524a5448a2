//! Descriptions of images: all that an image's file says about itself, for people and for tools. The file is only read; no
//! part of it is mapped or run.

use super::file::{FileSection, FileSymbol, ImageFile};
use super::identity::{Identities, Identity};
use super::interface::ImageDependency;
use super::metadata::{Metadata, unit_names};
use super::note::{self, LazyLayout};
use super::symbols::Name;
use super::variants::{Variant, common_interface, intact_variants};
use super::{ImageError, SymbolKind};
use crate::cpu::CpuFeatures;
use crate::error::demangle;
use crate::layers::Layer;
use crate::stand_ins;
use object::Endianness;
use object::elf::{self, SectionHeader64};
use object::read::elf::SectionHeader;
use std::collections::HashMap;

const LE: Endianness = Endianness::Little;

/// What an image says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageDescription {
    /// The name by which others need it: its `SONAME`.
    pub name: Option<String>,
    /// Version of the image format.
    pub format: u32,
    /// Hash over the image.
    pub checksum: [u8; 32],
    /// Hash of what its users can see of it; images that are linked against it depend on that.
    pub interface: [u8; 32],
    /// What the linker knows it by.
    pub build_id: Option<Vec<u8>>,
    /// Bytes of the file, all variants together.
    pub size: u64,
    /// What it consists of, for different processors: of an ordinary image itself. Everything else here is said of the first one,
    /// which is what linkers see.
    pub variants: Vec<VariantDescription>,
    /// Bytes of memory that its segments take.
    pub memory: u64,
    /// What its maker has said: the Hotbed that wrote it, unit, triple and processor, flags, inputs, entry.
    pub metadata: Metadata,
    /// Names of the libraries that it needs, those of images among them.
    pub needed: Vec<String>,
    /// The images that it was linked against.
    pub dependencies: Vec<ImageDependency>,
    /// Its sections, in the order of the file.
    pub sections: Vec<SectionDescription>,
    /// What others find in it, by name.
    pub exports: Vec<ExportDescription>,
    /// What it wants of others, by name.
    pub imports: Vec<ImportDescription>,
    /// The sources that it has the bitcode of; none where it is compiled whole.
    pub sources: Vec<String>,
    /// Their functions, in the order of its tables, each with a slot: they are compiled when they are first called, or were
    /// already.
    pub functions: Vec<FunctionDescription>,
}

/// A variant of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VariantDescription {
    /// What its code needs of the processor.
    pub requires: CpuFeatures,
    /// LLVM's name of the processor it was compiled for.
    pub cpu: String,
    /// Bytes of the file that it takes.
    pub size: u64,
    /// Hash over them.
    pub checksum: [u8; 32],
}

/// A section of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SectionDescription {
    /// Its name.
    pub name: String,
    /// Bytes, in memory if it gets there.
    pub size: u64,
    /// Where in memory it lies, before relocation; nothing for what stays in the file.
    pub address: Option<u64>,
    /// Whether it may be written to.
    pub writable: bool,
    /// Whether there is code in it.
    pub executable: bool,
    /// Whether the file has its contents, rather than zeros.
    pub in_file: bool,
}

/// A symbol that others find in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportDescription {
    /// Its name.
    pub name: String,
    /// The name as C++ source has it, if it is mangled.
    pub demangled: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// What it is.
    pub kind: SymbolKind,
    /// Whether it is weak or otherwise shared with other units.
    pub weak: bool,
    /// Bytes, 0 if unknown; those of its stub for a function that has one.
    pub size: u64,
    /// Whether the image has its code; false for a function that exists as bitcode only.
    pub compiled: bool,
    /// Of what is weak, what it is: the same in every image that has the same; not known of functions that are compiled when
    /// they are first called, and where a linker's script or an archive was in the way.
    pub identity: Option<Identity>,
}

/// A symbol that an image wants of others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportDescription {
    /// Its name.
    pub name: String,
    /// The name as C++ source has it, if it is mangled.
    pub demangled: Option<String>,
    /// The version that it must have.
    pub version: Option<String>,
    /// Whether it may be missing.
    pub weak: bool,
    /// Who is expected to answer: an image that this one was linked against; the process, by a library that it needs; Hotbed
    /// itself, which stands in for some functions of the C library; or the host and other units, whoever of them has it, as
    /// nothing says who.
    pub layer: Layer,
    /// The image or library that is expected to have it.
    pub from: Option<String>,
}

/// A function that has a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionDescription {
    /// Its name, where the image says it.
    pub name: Option<String>,
    /// The place of its source among those of the image.
    pub source: u32,
    /// Whether the image has its code, besides its bitcode.
    pub compiled: bool,
}

impl ImageDescription {
    /// Describes the image in `file`.
    ///
    /// # Errors
    /// Why it is no image, or not an intact one.
    pub fn of(file: &[u8]) -> Result<Self, ImageError> {
        let variants = intact_variants(file)?;
        let interface = common_interface(variants.iter().map(|variant| variant.bytes))?.hash();
        for variant in &variants {
            if note::layout(variant.bytes)?.interface != interface {
                return Err(ImageError::Damaged("its note tells of another interface than it has"));
            }
        }
        let size = file.len() as u64;
        let file = variants.first().map_or(file, |first| first.bytes);
        let image = ImageFile::new(file)?;
        let names = image.names()?;
        let (layout, all) = (note::layout(file)?, image.symbols()?);
        let dependencies = image.dependencies(&layout)?;
        let (functions, stubs) = match layout.lazy {
            Some(layout) => functions(&image, layout)?,
            None => Default::default(),
        };
        let identities = Identities::of_file(file)?;
        let (exports, imports) = symbols(all, &dependencies, &identities, |address| {
            stubs.get(&address).is_none_or(|number| functions.get(*number).is_none_or(|one| one.compiled))
        });
        Ok(Self {
            name: names.own.map(str::to_owned),
            format: note::FORMAT_VERSION,
            checksum: note::recorded_checksum(file)?,
            interface,
            build_id: image.build_id().map(<[u8]>::to_vec),
            size,
            variants: variants.iter().map(describe).collect::<Result<_, _>>()?,
            memory: image.memory(),
            metadata: Metadata::of_file(file)?,
            needed: names.needed.into_iter().map(str::to_owned).collect(),
            dependencies,
            sections: image.sections().map(|section| section_of(&section)).collect(),
            exports,
            imports,
            sources: unit_names(file)?,
            functions,
        })
    }
}

fn describe(variant: &Variant<'_>) -> Result<VariantDescription, ImageError> {
    let Variant { bytes, requires } = *variant;
    let (cpu, checksum) = (Metadata::of_file(bytes)?.cpu, note::recorded_checksum(bytes)?);
    Ok(VariantDescription { requires, cpu, size: bytes.len() as u64, checksum })
}

fn section_of(FileSection { name, header }: &FileSection<'_>) -> SectionDescription {
    let has = |flag: elf::SectionFlags| header.sh_flags(LE).0 & flag.0 != 0;
    SectionDescription {
        name: String::from_utf8_lossy(name).into_owned(),
        size: header.sh_size(LE),
        address: has(elf::SHF_ALLOC).then(|| SectionHeader64::sh_addr(header, LE)),
        writable: has(elf::SHF_WRITE),
        executable: has(elf::SHF_EXECINSTR),
        in_file: header.sh_type(LE) != elf::SHT_NOBITS,
    }
}

/// What the image has for others and what it wants of them, each by name. `is_compiled` is asked for the addresses of
/// functions.
fn symbols(
    all: Vec<FileSymbol<'_>>,
    dependencies: &[ImageDependency],
    identities: &Identities,
    is_compiled: impl Fn(u64) -> bool,
) -> (Vec<ExportDescription>, Vec<ImportDescription>) {
    let (mut exports, mut imports) = (Vec::new(), Vec::new());
    for one in all {
        let (name, symbol) = (one.name.to_owned(), &one.symbol);
        let demangled = demangle(&name);
        let version = one.version.map(|version| version.name.to_owned());
        if symbol.is_exported() {
            let (kind, weak, size) = (SymbolKind::of(symbol), symbol.is_shared(), symbol.size);
            let compiled = is_compiled(symbol.value);
            let identity = if weak { identities.of(name.as_bytes()) } else { None };
            exports.push(ExportDescription {
                name,
                demangled,
                version,
                kind,
                weak,
                size,
                compiled,
                identity,
            });
        } else if !symbol.is_defined() {
            let image = dependencies.iter().find(|image| image.has(one.name));
            let library = one.version.and_then(|version| version.library);
            let (layer, from) = match (image, library) {
                (Some(image), _) => (Layer::Images, Some(image.name.clone())),
                _ if stand_ins::is_name(Name::new(name.as_bytes())) => (Layer::Runtime, None),
                (None, Some(library)) => (Layer::Process, Some(library.to_owned())),
                (None, None) => (Layer::Host, None),
            };
            let weak = symbol.binding() == super::elf::STB_WEAK;
            imports.push(ImportDescription { name, demangled, version, weak, layer, from });
        }
    }
    exports.sort_unstable_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    imports.sort_unstable_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    (exports, imports)
}

/// The functions that have slots, and which of them is behind the stub at an address.
fn functions(
    image: &ImageFile<'_>,
    layout: LazyLayout,
) -> Result<(Vec<FunctionDescription>, HashMap<u64, usize>), ImageError> {
    const STUB: u64 = 8;
    const NAME: u64 = 12;
    let LazyLayout { count, slots, entries, functions } = layout;
    let bytes = |each: u64| each * u64::from(count);
    let outside = ImageError::Truncated("a table of its functions");
    let slots = slots.checked_add(note::SLOTS_HEAD).and_then(|at| image.at(at, bytes(note::SLOT_BYTES)));
    let slots = slots.ok_or(outside.clone())?.as_chunks::<8>().0;
    let records = image.at(functions, bytes(note::FUNCTION_BYTES)).ok_or(outside)?;
    let mut room = records.len().saturating_add(image.tail(functions).map_or(0, <[u8]>::len));
    let mut described = Vec::with_capacity(slots.len());
    let mut stubs = HashMap::with_capacity(slots.len());
    for (number, (slot, record)) in slots.iter().zip(records.as_chunks::<16>().0).enumerate() {
        let at = number as u64;
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| record[at + byte]));
        // Where a field leads to that says how far it is from there.
        let leads = |field: u64| {
            let distance = word(field as usize).cast_signed();
            let from = functions.wrapping_add(at * note::FUNCTION_BYTES + field);
            (distance != 0).then(|| from.wrapping_add_signed(distance.into()))
        };
        let name = leads(NAME).and_then(|at| image.tail(at)).and_then(|text| {
            let end = text.iter().take(room).position(|byte| *byte == 0)?;
            std::str::from_utf8(&text[..end]).ok()
        });
        room -= name.map_or(0, str::len);
        if let Some(stub) = leads(STUB) {
            stubs.insert(stub, number);
        }
        described.push(FunctionDescription {
            name: name.map(str::to_owned),
            source: word(0),
            compiled: u64::from_le_bytes(*slot) != entries.wrapping_add(at * note::ENTRY_BYTES),
        });
    }
    Ok((described, stubs))
}
