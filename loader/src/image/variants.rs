//! Images for several kinds of processor in one file.
//!
//! Each variant is a whole image, with a note and a checksum of its own; what of the processor it needs stands in its note, and no two
//! need the same. Such a file is
//!
//! - **the variants**, one behind the other, each at the beginning of a page: the least demanding one first, so the file as a
//!   whole is an ELF shared object that every processor of the file's can run, which linkers, `dlopen` and tools take for that one and
//!   nothing more;
//! - **a table** at the end, which begins at a multiple of 8: for each variant in their order the offset of its first byte in the file
//!   and how many bytes it has, then their number, then [`MAGIC`] with the version of this format. Numbers have 8 bytes, little-endian.
//!
//! What lies between them is zero. So every byte of the file is covered: by a checksum, or by what it must be. A file without the
//! magic at its end is one image, and its only variant.
//!
//! The table is at the end, and not in a section, so that each variant is byte by byte the image that it would be in a file of
//! its own. Who loads one takes it out: a mapping begins where an ELF file begins, as debuggers and profilers expect it, and a store
//! keeps nothing that its processor cannot run.
//!
//! **The interface** of the file is what all variants export. What is defined strongly, and the name, must be the same in
//! all, and so must dependencies. A weak or inline function may have dissolved in some of them: nobody can count on it, so it is
//! not part of the interface, though it is exported where it is. The note of each variant has the hash of that common interface.

use super::error::ProcessorLacks;
use super::file::{FileSymbol, ImageFile};
use super::note::{self, Layout};
use super::{ImageError, Interface};
use crate::cpu::CpuFeatures;
use crate::sys::memory::PAGE;
use std::ops::Range;

/// What a file with variants ends with.
const MAGIC: &[u8; 8] = b"HotbedV1";
/// Bytes of an entry of the table.
const ENTRY: usize = 16;
/// Bytes behind the entries.
const TAIL: usize = 16;
/// There are no more variants than this.
pub(crate) const MOST: usize = 8;

/// A variant of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant<'a> {
    /// The image.
    pub bytes: &'a [u8],
    /// What its code needs of the processor.
    pub requires: CpuFeatures,
}

/// The variants of the image in `file`, the first one first; of an ordinary image the one that it is. Whether their checksums hold is
/// not looked at.
///
/// # Errors
/// When it is no image, or its table is damaged.
pub fn variants(file: &[u8]) -> Result<Vec<Variant<'_>>, ImageError> {
    let places = table(file)?.unwrap_or_else(|| std::iter::once(0..file.len()).collect());
    let of = |place: Range<usize>| {
        let bytes = &file[place];
        Ok(Variant { bytes, requires: note::layout(bytes)?.requires })
    };
    places.into_iter().map(of).collect()
}

/// The same, intact.
///
/// # Errors
/// Also when the contents of a variant are not those it was sealed with.
pub fn intact_variants(file: &[u8]) -> Result<Vec<Variant<'_>>, ImageError> {
    let variants = variants(file)?;
    variants.iter().try_for_each(|variant| note::verify(variant.bytes).map(drop))?;
    Ok(variants)
}

/// The place of the best of variants that need this of a processor which has `has`: that for the widest vectors, and of several of these
/// the one for the most features.
///
/// # Errors
/// When the processor can run none of them.
pub fn choose(requires: &[CpuFeatures], has: CpuFeatures) -> Result<usize, ImageError> {
    let fitting = requires.iter().enumerate().filter(|(_, requires)| has.has(**requires));
    let best = fitting.max_by_key(|(_, requires)| requires.rank());
    let lacks = || ImageError::Processor(ProcessorLacks { requires: requires.to_vec(), has });
    best.map(|(at, _)| at).ok_or_else(lacks)
}

/// Where in `file` its variants are, if it has a table.
fn table(file: &[u8]) -> Result<Option<Vec<Range<usize>>>, ImageError> {
    const DAMAGED: ImageError = ImageError::Damaged("the table of its variants");
    let Some((rest, tail)) = file.split_last_chunk::<TAIL>().filter(|(_, tail)| tail.ends_with(MAGIC)) else {
        return Ok(None);
    };
    let count = usize::try_from(word(tail)).ok().filter(|count| (2..=MOST).contains(count)).ok_or(DAMAGED)?;
    let at = rest.len().checked_sub(count * ENTRY).ok_or(DAMAGED)?;
    let mut end = 0;
    let mut places = Vec::with_capacity(count);
    for entry in rest[at..].as_chunks::<ENTRY>().0 {
        let start = usize::try_from(word(entry)).map_err(|_| DAMAGED)?;
        let size = usize::try_from(word(&entry[8..])).map_err(|_| DAMAGED)?;
        let next = start.checked_add(size).filter(|next| *next <= at && size > 0).ok_or(DAMAGED)?;
        is_gap(file, end, start, PAGE).then_some(()).ok_or(DAMAGED)?;
        places.push(start..next);
        end = next;
    }
    is_gap(file, end, at, size_of::<u64>()).then_some(Some(places)).ok_or(DAMAGED)
}

/// Whether from `end` to `start` there is what something of that alignment has in front of it.
fn is_gap(file: &[u8], end: usize, start: usize, alignment: usize) -> bool {
    end.next_multiple_of(alignment) == start && file[end..start].iter().all(|byte| *byte == 0)
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|at| bytes[at]))
}

/// Makes one file of sealed images that were made of the same things for different processors. What needs the same of a processor as
/// one before it is left out; one image alone stays what it is.
///
/// # Errors
/// When users can see a difference between them, other than weak definitions that some do not have; when there are too many.
pub fn join(images: Vec<Vec<u8>>) -> Result<Vec<u8>, ImageError> {
    let mut ranked = Vec::with_capacity(images.len());
    for image in images {
        let layout = note::layout(&image)?;
        if ranked.iter().all(|(_, known): &(_, Layout)| known.requires != layout.requires) {
            ranked.push((image, layout));
        }
    }
    ranked.sort_by_key(|(_, layout)| layout.requires.rank());
    if ranked.len() > MOST {
        return Err(ImageError::Variants(format!("there are {}, of at most {MOST}", ranked.len())));
    }
    if let [(one, _)] = &mut ranked[..] {
        return Ok(std::mem::take(one));
    }
    let interface = common_interface(ranked.iter().map(|(image, _)| &image[..]))?.hash();
    let (mut file, mut entries) = (Vec::new(), Vec::new());
    for (mut image, layout) in ranked {
        if layout.interface != interface {
            note::set_layout(&mut image, &Layout { interface, ..layout })?;
            note::seal(&mut image)?;
        }
        file.resize(file.len().next_multiple_of(PAGE), 0);
        entries.extend([file.len() as u64, image.len() as u64]);
        file.append(&mut image);
    }
    file.resize(file.len().next_multiple_of(size_of::<u64>()), 0);
    entries.push(entries.len() as u64 / 2);
    entries.iter().for_each(|word| file.extend_from_slice(&word.to_le_bytes()));
    file.extend_from_slice(MAGIC);
    Ok(file)
}

/// What users can see of an image that has these variants: what all of them export.
///
/// # Errors
/// When some lack what is defined strongly, or they are different things.
pub(super) fn common_interface<'a>(
    variants: impl Iterator<Item = &'a [u8]>,
) -> Result<Interface, ImageError> {
    let mut all: Vec<(CpuFeatures, Vec<FileSymbol<'_>>)> = Vec::new();
    let mut linkage = None;
    for bytes in variants {
        let (image, layout) = (ImageFile::new(bytes)?, note::layout(bytes)?);
        let remembered = image.dependencies(&layout)?.into_iter().map(|one| (one.name, one.interface));
        let this = (image.names()?.own, remembered.collect::<Vec<_>>());
        if linkage.get_or_insert_with(|| this.clone()) != &this {
            let what = "they have different names, or were linked against different images";
            return Err(ImageError::Variants(what.into()));
        }
        all.push((layout.requires, image.symbols()?));
    }
    Interface::common(&all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::cpu::CpuLevel;
    use crate::testing::{Folder, call, loader};
    use crate::{ImageSource, LoadError, Loader, LoaderOptions};

    /// An image of `source` that needs `requires`.
    fn image(folder: &Folder, source: &str, requires: CpuFeatures) -> Vec<u8> {
        let mut bytes = std::fs::read(folder.image("variant.c", source, &["-Wl,-soname,v.hbi"])).unwrap();
        let interface = Interface::of_file(&bytes).unwrap().hash();
        let layout = Layout { requires, interface, ..note::layout(&bytes).unwrap() };
        note::set_layout(&mut bytes, &layout).unwrap();
        note::seal(&mut bytes).unwrap();
        bytes
    }

    const LEVELS: [CpuLevel; 3] = [CpuLevel::V3, CpuLevel::V1, CpuLevel::V2];

    fn three(folder: &Folder) -> Vec<Vec<u8>> {
        let of = |level: CpuLevel| {
            let source = format!("int f(void) {{ return {}; }}", level as i32);
            image(folder, &source, level.features())
        };
        LEVELS.into_iter().map(of).collect()
    }

    #[test]
    fn variants_are_byte_by_byte_what_they_were() {
        let folder = Folder::new();
        let images = three(&folder);
        let mut with_twin = images.clone();
        with_twin.push(images[1].clone());
        let file = join(with_twin).unwrap();
        let all = intact_variants(&file).unwrap();
        let bytes: Vec<&[u8]> = all.iter().map(|variant| variant.bytes).collect();
        assert_eq!(bytes, [&images[1][..], &images[2], &images[0]]);
        let requires: Vec<CpuFeatures> = all.iter().map(|variant| variant.requires).collect();
        for (at, level) in [CpuLevel::V1, CpuLevel::V2, CpuLevel::V3].into_iter().enumerate() {
            assert_eq!(choose(&requires, level.features()), Ok(at));
        }
        assert_eq!(choose(&requires, CpuFeatures::ALL), Ok(2));
        // The file is its first variant to whoever does not ask.
        let image = loader().load_image("v", ImageSource::Bytes(&file)).unwrap();
        assert_eq!(call(&image, "f"), CpuLevel::V1 as i32);
        // One alone is an ordinary image.
        assert_eq!(join(vec![images[0].clone()]).unwrap(), images[0]);
    }

    #[test]
    fn a_loader_refuses_what_the_processor_lacks() {
        let folder = Folder::new();
        let wide = &three(&folder)[0];
        let cpu = Some(CpuLevel::V2.features());
        let lesser = Loader::new(LoaderOptions { cpu, ..LoaderOptions::default() });
        let Err(LoadError::Image { source, .. }) = lesser.load_image("v", ImageSource::Bytes(wide)) else {
            unreachable!("it needs more");
        };
        let text = source.to_string();
        assert!(
            text.contains("it requires x86-64-v3, the processor has x86-64-v2: missing are avx, avx2"),
            "{text}"
        );
        // Nothing of it runs.
        Loader::dry_run(&[("v", ImageSource::Bytes(wide))]).unwrap();
    }

    #[test]
    fn a_table_that_lies_is_found_out() {
        let folder = Folder::new();
        let file = join(three(&folder)).unwrap();
        let table = file.len() - TAIL - 3 * ENTRY;
        for at in table..file.len() {
            for value in [0, 1, 2, 0x10, 0x7f, 0xff] {
                let mut bad = file.clone();
                if std::mem::replace(&mut bad[at], value) != value {
                    assert!(intact_variants(&bad).is_err(), "{value} at {at} of {table}");
                }
            }
        }
        // Something between the variants, or behind them.
        let ends: Vec<usize> = variants(&file)
            .unwrap()
            .iter()
            .map(|variant| variant.bytes.as_ptr() as usize - file.as_ptr() as usize + variant.bytes.len())
            .collect();
        for end in ends.into_iter().filter(|end| end % 8 != 0 && *end < table) {
            let mut bad = file.clone();
            bad[end] = 1;
            assert_eq!(variants(&bad), Err(ImageError::Damaged("the table of its variants")), "{end}");
        }
        for cut in [1, 8, 16, 40, table / 2, table] {
            assert!(intact_variants(&file[..file.len() - cut]).is_err(), "without the last {cut}");
        }
        // Nothing but a table.
        for count in 0..9u64 {
            let mut bad = vec![0; 40];
            bad.extend_from_slice(&count.to_le_bytes());
            bad.extend_from_slice(MAGIC);
            assert!(variants(&bad).is_err());
        }
    }

    #[test]
    fn what_is_not_the_same_is_named() {
        let folder = Folder::new();
        let base = |source: &str| image(&folder, source, CpuFeatures::NONE);
        let wide = |source: &str| image(&folder, source, CpuLevel::V3.features());
        let error = |one: &str, other: &str| join(vec![base(one), wide(other)]).unwrap_err().to_string();
        let missing = error("int f(void) { return 1; } int g;", "int g;");
        assert!(
            missing.contains("the one for x86-64 has a function f, the one for x86-64-v3 has not"),
            "{missing}"
        );
        let larger = error("int g[2];", "int g[3];");
        assert!(larger.contains("a variable g of"), "{larger}");
        let other = error("int g;", "int g(void) { return 1; }");
        assert!(other.contains(" g"), "{other}");
        // What is weak may be missing, and is then nothing that users can count on.
        let weak = "__attribute__((weak)) int w(void) { return 1; } int g;";
        let file = join(vec![base(weak), wide("int g;")]).unwrap();
        let plain = Interface::of_file(&base("int g;")).unwrap();
        for variant in intact_variants(&file).unwrap() {
            assert_eq!(note::layout(variant.bytes).unwrap().interface, plain.hash());
        }
        let symbols = ImageFile::new(&file).unwrap().symbols().unwrap();
        assert!(symbols.iter().any(|one| one.name == "w" && one.symbol.is_exported()));
    }
}
