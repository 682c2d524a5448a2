//! What shape an image gets: the address it is linked at, how its segments lie, how much room there is for hashes.
//!
//! Every image is linked at an address of its own, worked out from what identifies it. Mapped there, none of its relative
//! relocations has anything to do. The range is far from where the system puts programs, libraries and heaps, so that it is
//! nearly always free; where it is not, the image is mapped elsewhere and relocated. It is one stretch of 4 GiB: a call of
//! another image costs a nanosecond more where the upper halves of the addresses differ, and over a terabyte fifty images
//! took twice the memory and three times the time, for page tables that they do not share. For the same reason an image
//! lies within what one page table covers, if it is small enough for that.
//!
//! A small image has few pages but as many mappings as a large one, and those are what it costs. It is linked so that it
//! can do without mappings of its own: see the shape for arenas in [`hotbed_loader::image::note`].

use super::check::ObjectFacts;
use super::constants;
use hotbed_loader::image::Metadata;
use hotbed_loader::image::note::ARENA_ALIGNMENT;
use std::collections::HashSet;
use std::path::Path;

/// Where the addresses of images begin, and how many bytes they are.
const EAGER: (u64, u64) = (0x2000_0000_0000, 1 << 32);
/// The same of images whose functions become fresh code at [`FRESH_CODE`], all of it within reach.
const LAZY: (u64, u64) = (EAGER.0 + EAGER.1, 1 << 30);
/// Where a session for the functions of lazy images wants its memory, which is less than another GiB; so far behind that the
/// last image has room.
pub(crate) const FRESH_CODE: usize = (LAZY.0 + LAZY.1) as usize + (32 << 20);
/// What the address of an image is a multiple of.
const STEP: u64 = 1 << 16;
/// Bytes of addresses that one page table covers.
const TABLE: u64 = 2 << 20;
/// Bytes of an image beside the sections of its inputs: headers, and what is left free of pages. The tables of its symbols
/// come in proportion.
const BESIDE: u64 = 64 << 10;

/// Bytes of addresses between code and data of an image for arenas, beside those between them in the file.
pub(crate) const STRIDE: u32 = 1 << 20;
/// Largest sum of the sections of the inputs, in bytes, for which an image gets the shape for arenas.
const SMALL: u64 = 32 << 10;

/// Symbols that the linker's own libraries may need beside those of the inputs.
const SPARE: usize = 4;

/// How an image is to be linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Address of its first segment.
    pub(crate) base: u64,
    /// It is to be fit for arenas.
    pub(crate) arena: bool,
    /// Its constants are to lie in front of its code, see [`constants`].
    pub(crate) settled: bool,
}

impl Shape {
    /// The shape of an image of inputs whose sections take that many bytes in memory. `small` is whether [`is_small`] holds
    /// for them. Constants lie where the linker has them.
    pub(crate) fn new(metadata: &Metadata, allocated: u64, small: bool, lazy: bool) -> Self {
        // Where an arena is, is known too late for code that shall reach its image.
        let small = small && !lazy;
        let (lowest, range) = if lazy { LAZY } else { EAGER };
        let mut hasher = blake3::Hasher::new();
        hasher.update(metadata.unit.as_bytes());
        for (_, input) in &metadata.inputs {
            hasher.update(input);
        }
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        // With pages of the stride's size, as the linker sees it, images begin at such a page.
        let step = if small { u64::from(STRIDE) } else { STEP };
        let beside = BESIDE + if small { step } else { 0 };
        let expected = allocated.saturating_add(allocated / 2).saturating_add(beside);
        // How many places there are in what a page table covers. What does not fit begins anywhere.
        let places = TABLE.checked_sub(expected).map_or(TABLE / step, |free| free / step + 1);
        let place = hash % (range / TABLE * places);
        Self { base: lowest + place / places * TABLE + place % places * step, arena: small, settled: false }
    }

    /// The linker's arguments for it; the user's come later and win.
    pub(crate) fn arguments(self) -> Vec<String> {
        let mut arguments = vec![
            format!("--image-base={:#x}", self.base),
            // So that the few relative relocations that cannot be packed have nothing to do either.
            "--apply-dynamic-relocs".to_owned(),
        ];
        if self.arena {
            // Headers, tables, constants and code in one segment, all data in another, both of them dense in the file. Data
            // go behind the code by the size of a page, which is thereby the stride.
            arguments.extend(
                ["--no-rosegment", "-z", "noseparate-code", "-z", "norelro", "-z"].map(str::to_owned),
            );
            arguments.push(format!("max-page-size={STRIDE:#x}"));
        } else {
            // Pages of the file have one use each, so what is read-only after relocation and what stays writable lie in the
            // file as in memory, and are mapped at once.
            arguments.extend(["-z", "separate-loadable-segments"].map(str::to_owned));
            if self.settled {
                arguments.extend(constants::ARGUMENTS.map(str::to_owned));
            }
        }
        arguments
    }
}

/// Whether objects are small enough for an arena and nothing in them is against it.
pub(crate) fn is_small<'a>(objects: impl Iterator<Item = &'a ObjectFacts>) -> bool {
    let mut sum = 0u64;
    objects.into_iter().all(|facts| {
        sum = sum.saturating_add(facts.allocated);
        sum < SMALL && facts.alignment <= ARENA_ALIGNMENT
    })
}

/// Whether an argument of the linker's line brings in an archive with code of unknown size.
pub(crate) fn is_foreign_archive(found: &Path) -> bool {
    let name = found.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".a") && name != "libgcc.a"
}

/// How many imports an image of these inputs can have at most, as long as libraries bring in none of their own.
pub(crate) fn most_imports<'a>(inputs: impl Iterator<Item = (&'a ObjectFacts, bool)> + Clone) -> usize {
    // Members of archives may stay out, and with them what they define.
    let defined: HashSet<u32> = inputs
        .clone()
        .filter(|(_, archive)| !archive)
        .flat_map(|(facts, _)| facts.defined.iter().copied())
        .collect();
    let undefined: HashSet<u32> = inputs
        .flat_map(|(facts, _)| facts.undefined.iter().map(|name| object::elf::gnu_hash(name)))
        .filter(|hash| !defined.contains(hash))
        .collect();
    undefined.len() + SPARE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(unit: &str, inputs: &[u8]) -> Metadata {
        let inputs = inputs.iter().map(|&byte| (format!("{byte}.c"), [byte; 32])).collect();
        Metadata { unit: unit.into(), inputs, ..Metadata::default() }
    }

    #[test]
    fn the_address_follows_from_what_the_image_is() {
        let one = Shape::new(&metadata("one", &[1, 2]), 4000, false, false);
        assert_eq!(Shape::new(&metadata("one", &[1, 2]), 4000, false, false), one);
        for (unit, inputs) in [("two", &[1, 2][..]), ("one", &[2, 1]), ("one", &[1])] {
            assert_ne!(
                Shape::new(&metadata(unit, inputs), 4000, false, false).base,
                one.base,
                "{unit} {inputs:?}"
            );
        }
    }

    #[test]
    fn addresses_are_spread_and_no_image_takes_two_page_tables_that_can_do_with_one() {
        for (allocated, small, size) in [
            (100, true, u64::from(STRIDE) + (64 << 10)),
            (100, false, 64 << 10),
            (300 << 10, false, 450 << 10),
            (1 << 20, false, 1300 << 10),
            // Larger than what a page table covers, and than memory.
            (3 << 20, false, 0),
            (u64::MAX, false, 0),
        ] {
            let step = if small { u64::from(STRIDE) } else { STEP };
            let base = |i| Shape::new(&metadata("u", &[i]), allocated, small, false).base;
            let bases: HashSet<u64> = (0..200u8).map(base).collect();
            assert!(bases.len() > 180, "{allocated}: {}", bases.len());
            assert!(bases.iter().all(|base| (EAGER.0..EAGER.0 + EAGER.1).contains(base) && base % step == 0));
            assert!(bases.iter().all(|base| base % TABLE + size <= TABLE), "{allocated}");
            let slots: HashSet<u64> = bases.iter().map(|base| base / TABLE).collect();
            assert!(slots.len() > 180, "{allocated}: {}", slots.len());
        }
    }

    #[test]
    fn lazy_images_are_within_reach_of_fresh_code() {
        for i in 0..200 {
            let shape = Shape::new(&metadata("u", &[i]), 100, true, true);
            assert!(!shape.arena && shape.base + (32 << 20) < FRESH_CODE as u64, "{shape:?}");
            assert!(shape.base + i32::MAX as u64 > FRESH_CODE as u64 + (960 << 20), "{shape:?}");
        }
    }

    #[test]
    fn small_is_what_fits() {
        let facts = |allocated, alignment| ObjectFacts { allocated, alignment, ..ObjectFacts::default() };
        assert!(is_small([facts(16000, 16), facts(16000, 64)].iter()));
        assert!(!is_small([facts(16000, 16), facts(16800, 16)].iter()));
        assert!(!is_small([facts(u64::MAX, 16), facts(16000, 16)].iter()));
        assert!(!is_small([facts(80, 128)].iter()));
    }

    #[test]
    fn imports_are_what_no_object_defines() {
        let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
        let hashes =
            |names: &[&str]| names.iter().map(|name| object::elf::gnu_hash(name.as_bytes())).collect();
        let one = ObjectFacts {
            undefined: names(&["puts", "two", "three"]),
            defined: hashes(&["one"]),
            ..ObjectFacts::default()
        };
        let two = ObjectFacts {
            undefined: names(&["one", "puts"]),
            defined: hashes(&["two"]),
            ..ObjectFacts::default()
        };
        let archive = ObjectFacts { defined: hashes(&["three"]), ..ObjectFacts::default() };
        let count = most_imports([(&one, false), (&two, false), (&archive, true)].into_iter());
        assert_eq!(count, 2 + SPARE);
    }
}
