//! The last step of a link: what is known only now is entered, then the checksum.

use super::constants;
use super::shape::STRIDE;
use hotbed_loader::cpu::CpuFeatures;
use hotbed_loader::image::Interface;
use hotbed_loader::image::note::{
    self, ARENA_ALIGNMENT, DEPENDENCIES_SECTION, HASHES_SECTION, Layout, LazyLayout,
};
use hotbed_loader::sys::file_in_place::FileInPlace;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::{LittleEndian as LE, SymbolIndex};
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::ops::Range;

type Sections<'a> = SectionTable<'a, FileHeader64<LE>>;

/// Bytes from the beginning of an image for arenas to the end of its data, the stride not counted, at most.
const ARENA_IMAGE: u64 = 64 << 10;

/// Enters the hashes and the layout in the image, and seals it; gives its checksum. `exports` says that the linker was told
/// to export everything, `requires` what the code needs of the processor, `settled` that its constants are where
/// [`constants`] has them.
///
/// # Errors
/// When the linker's output cannot be mapped or read, or has no note: a script of the user's may leave it out.
pub(super) fn seal(
    image: &mut File,
    exports: bool,
    requires: CpuFeatures,
    settled: bool,
) -> io::Result<[u8; 32]> {
    let mut bytes = FileInPlace::new(image)?;
    let Survey { mut layout, hashes, shared } =
        survey(&bytes).ok_or_else(|| io::Error::other("the linker's output cannot be read"))?;
    layout.exports = exports;
    layout.requires = requires;
    layout.interface = Interface::of_file(&bytes).map_err(io::Error::other)?.hash();
    if let Some((place, values)) = hashes {
        let target = bytes.get_mut(place).unwrap_or_default();
        for (word, value) in target.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *word = value.to_le_bytes();
        }
    }
    for (place, address) in shared {
        bytes[place..place + 8].copy_from_slice(&address.to_le_bytes());
    }
    if settled {
        // Where it has none, there is nothing to protect.
        let _ = constants::protect(&mut bytes, layout.relocated);
    }
    note::set_layout(&mut bytes, &layout).map_err(io::Error::other)?;
    note::seal(&mut bytes).map_err(io::Error::other)
}

/// What there is to be said about an image.
struct Survey {
    layout: Layout,
    /// Where in the file hashes go, and which.
    hashes: Option<(Range<usize>, Vec<u32>)>,
    /// Where in the file addresses of shared definitions of the image's own go, and which.
    shared: Vec<(usize, u64)>,
}

fn survey(bytes: &[u8]) -> Option<Survey> {
    let header = FileHeader64::<LE>::parse(bytes).ok()?;
    let segments = header.program_headers(LE, bytes).ok()?;
    let sections = header.sections(LE, bytes).ok()?;
    let mut layout = Layout { relocated: true, ..Layout::default() };
    note_relocations(&sections, segments, bytes, &mut layout)?;
    layout.frames = frames(&sections, bytes);
    layout.stride = stride(&sections, segments);
    layout.lazy = lazy(&sections)?;
    if let Some((_, section)) = sections.section_by_name(LE, DEPENDENCIES_SECTION.as_bytes()) {
        let size = u32::try_from(section.sh_size.get(LE)).ok()?.checked_sub(note::CONTENTS_AT as u32)?;
        layout.dependencies = Some((section.sh_addr.get(LE) + note::CONTENTS_AT as u64, size));
    }
    let mut hashes = None;
    if let Some((_, section)) = sections.section_by_name(LE, HASHES_SECTION.as_bytes()) {
        let start = section.sh_offset.get(LE) as usize + note::CONTENTS_AT;
        let room = (section.sh_size.get(LE) as usize).saturating_sub(note::CONTENTS_AT) / 4;
        let values = import_hashes(&sections, bytes, room)?;
        layout.hashes = (section.sh_addr.get(LE) + note::CONTENTS_AT as u64, values.len() as u32);
        hashes = Some((start..start + values.len() * 4, values));
    }
    let shared = shared(&sections, segments, bytes)?;
    layout.settled = !shared.is_empty();
    Some(Survey { layout, hashes, shared })
}

/// The hashes of the names of the symbols from 1 to the last undefined one, as many as there is room for.
fn import_hashes(sections: &Sections<'_>, bytes: &[u8], room: usize) -> Option<Vec<u32>> {
    let symbols = sections.symbols(LE, bytes, elf::SHT_DYNSYM).ok()?;
    let undefined = |symbol: &elf::Sym64<LE>| symbol.st_shndx.get(LE) == elf::SHN_UNDEF;
    let last = symbols.iter().rposition(undefined).unwrap_or(0);
    let hash = |index| {
        let symbol = symbols.symbol(SymbolIndex(index)).ok()?;
        Some(elf::gnu_hash(symbols.symbol_name(LE, symbol).ok()?))
    };
    (1..=last.min(room)).map(hash).collect()
}

/// Whether there are relocations that need code to run, or relative ones that are not packed and whose place does not hold
/// their value.
fn note_relocations(
    sections: &Sections<'_>,
    segments: &[ProgramHeader64<LE>],
    bytes: &[u8],
    layout: &mut Layout,
) -> Option<()> {
    for section in sections.iter() {
        let in_memory = section.sh_flags.get(LE).0 & elf::SHF_ALLOC.0 != 0;
        if section.sh_type.get(LE) != elf::SHT_RELA || !in_memory {
            continue;
        }
        for relocation in section.rela(LE, bytes).ok()??.0 {
            match relocation.r_type(LE, false) {
                elf::R_X86_64_IRELATIVE => layout.resolvers = true,
                elf::R_X86_64_RELATIVE => {
                    let place = relocation.r_offset.get(LE);
                    let value = segments
                        .iter()
                        .find_map(|segment| segment.data_range(LE, bytes, place, 8).ok().flatten());
                    let addend = relocation.r_addend.get(LE).to_le_bytes();
                    layout.relocated &= value.is_some_and(|value| value == addend);
                }
                _ => {}
            }
        }
    }
    Some(())
}

/// Places in the file that relocations would write the addresses of shared definitions to which the image has itself, and these
/// addresses.
fn shared(
    sections: &Sections<'_>,
    segments: &[ProgramHeader64<LE>],
    bytes: &[u8],
) -> Option<Vec<(usize, u64)>> {
    let symbols = sections.symbols(LE, bytes, elf::SHT_DYNSYM).ok()?;
    let in_file = |address: u64| {
        let segment =
            segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD).find(|segment| {
                let at = address.checked_sub(segment.p_vaddr(LE));
                at.is_some_and(|at| at.saturating_add(8) <= segment.p_filesz(LE))
            })?;
        let place = usize::try_from(segment.p_offset(LE) + (address - segment.p_vaddr(LE))).ok()?;
        (place + 8 <= bytes.len()).then_some(place)
    };
    let mut shared = Vec::new();
    for section in sections.iter() {
        let in_memory = section.sh_flags.get(LE).0 & elf::SHF_ALLOC.0 != 0;
        if section.sh_type.get(LE) != elf::SHT_RELA || !in_memory {
            continue;
        }
        for relocation in section.rela(LE, bytes).ok()??.0 {
            let kind = relocation.r_type(LE, false);
            if !matches!(kind, elf::R_X86_64_64 | elf::R_X86_64_GLOB_DAT | elf::R_X86_64_JUMP_SLOT) {
                continue;
            }
            let Ok(symbol) = symbols.symbol(SymbolIndex(relocation.r_sym(LE, false) as usize)) else {
                continue;
            };
            let is_shared = matches!(symbol.st_bind(), elf::STB_WEAK | elf::STB_GNU_UNIQUE)
                && symbol.st_shndx.get(LE) != elf::SHN_UNDEF
                && !matches!(symbol.st_type(), elf::STT_TLS | elf::STT_GNU_IFUNC);
            if is_shared {
                // What has no place in the file is zero at first, and cannot be entered.
                let Some(place) = in_file(relocation.r_offset.get(LE)) else { return Some(Vec::new()) };
                let address = symbol.st_value.get(LE).wrapping_add_signed(relocation.r_addend.get(LE));
                shared.push((place, address));
            }
        }
    }
    Some(shared)
}

/// Address and size of the unwind tables, if they end as a run-time library that is given their beginning expects it.
fn frames(sections: &Sections<'_>, bytes: &[u8]) -> Option<(u64, u64)> {
    let (_, section) = sections.section_by_name(LE, b".eh_frame")?;
    let data = section.data(LE, bytes).ok()?;
    let in_memory = section.sh_flags.get(LE).0 & elf::SHF_ALLOC.0 != 0;
    let address = section.sh_addr.get(LE);
    (in_memory && address != 0 && data.ends_with(&[0; 4])).then_some((address, data.len() as u64))
}

/// The tables of functions with slots, if there are any; they have as many entries each.
fn lazy(sections: &Sections<'_>) -> Option<Option<LazyLayout>> {
    let find = |name: &str| {
        let (_, section) = sections.section_by_name(LE, name.as_bytes())?;
        Some((section.sh_addr.get(LE), section.sh_size.get(LE)))
    };
    let Some((slots, size)) = find(note::SLOTS_SECTION) else { return Some(None) };
    let count = u32::try_from(size.checked_sub(note::SLOTS_HEAD)? / note::SLOT_BYTES).ok()?;
    let table = |name, each: u64| find(name).filter(|(_, size)| *size == each * u64::from(count));
    let (entries, _) = table(note::ENTRIES_SECTION, note::ENTRY_BYTES)?;
    let (functions, _) = table(note::FUNCTIONS_SECTION, note::FUNCTION_BYTES)?;
    Some(Some(LazyLayout { count, slots, entries, functions }))
}

/// The stride, if the image has come out in the shape for arenas.
fn stride(sections: &Sections<'_>, segments: &[ProgramHeader64<LE>]) -> Option<NonZeroU32> {
    let loadable = |segment: &&ProgramHeader64<LE>| segment.p_type(LE) == elf::PT_LOAD;
    let mut loadable = segments.iter().filter(loadable);
    let (Some(code), Some(data), None) = (loadable.next(), loadable.next(), loadable.next()) else {
        return None;
    };
    let access = [code, data].map(|segment| segment.p_flags(LE));
    // What stands at offset zero in the file lies at this address, for each of them.
    let origin = |segment: &ProgramHeader64<LE>| segment.p_vaddr(LE).wrapping_sub(segment.p_offset(LE));
    let stride = origin(data).wrapping_sub(origin(code));
    let relro = segments.iter().any(|segment| segment.p_type(LE) == elf::PT_GNU_RELRO);
    let fits = access == [elf::PF_R | elf::PF_X, elf::PF_R | elf::PF_W]
        && code.p_offset(LE) == 0
        && code.p_filesz(LE) == code.p_memsz(LE)
        && stride == u64::from(STRIDE)
        && data.p_offset(LE).checked_add(data.p_memsz(LE))? <= ARENA_IMAGE
        && !relro;
    let aligned = sections.iter().all(|section| {
        section.sh_flags.get(LE).0 & elf::SHF_ALLOC.0 == 0 || section.sh_addralign.get(LE) <= ARENA_ALIGNMENT
    });
    NonZeroU32::new(STRIDE).filter(|_| fits && aligned)
}
