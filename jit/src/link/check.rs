//! Checks of relocatable objects before lld sees them.
//!
//! lld trusts its inputs further than a host can: it ends the process, or writes where it should not, for a section that
//! lies outside the file, a relocation outside its section, an index beyond a table. So everything that it follows
//! without looking is looked at here first. The same pass finds out what the linker's line depends on.

use super::constants::{is_array, is_constants};
use super::constructors::is_old;
use super::identity::{SharedDefinition, shared_definitions};
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader, SectionTable};
use object::{LittleEndian as LE, SectionIndex};

/// What the link needs to know about an object.
#[derive(Debug, Default, Clone)]
pub(crate) struct ObjectFacts {
    /// Functions it defines.
    pub(crate) functions: u32,
    /// It refers to the C++ run-time library.
    pub(crate) cpp: bool,
    /// Symbols that it leaves undefined, without a version.
    pub(crate) undefined: Vec<Vec<u8>>,
    /// Hashes of the names of those that it defines for others.
    pub(crate) defined: Vec<u32>,
    /// Bytes that its sections take in memory, and its common variables.
    pub(crate) allocated: u64,
    /// How many of them are variables without initial values.
    pub(crate) zeros: u64,
    /// The largest alignment of those.
    pub(crate) alignment: u64,
    /// It has pieces of the functions that start files make: `.init` and `.fini`.
    pub(crate) startup: bool,
    /// It has constructors or destructors.
    pub(crate) arrays: bool,
    /// It has constructors or destructors in sections that are out of use.
    pub(crate) old_constructors: bool,
    /// `thread_local` variables it defines.
    pub(crate) thread_locals: Vec<Vec<u8>>,
    /// `thread_local` variables that it reaches by the initial-exec model.
    pub(crate) initial_exec: Vec<Vec<u8>>,
    /// What it defines and others may define too.
    pub(crate) shared: Vec<SharedDefinition>,
    /// Hashes of the names of what its constants with addresses lead to and others define.
    pub(crate) constants_want: Vec<u32>,
    /// Its constants with addresses lead to what it defines and others may define too.
    pub(crate) shared_constants: bool,
}

impl ObjectFacts {
    fn take_room(&mut self, size: u64, alignment: u64) {
        self.allocated = self.allocated.saturating_add(size);
        self.alignment = self.alignment.max(alignment);
    }
}

/// Largest alignment of a section in memory.
const MAX_ALIGNMENT: u64 = 1 << 30;
/// Largest alignment of a section that is in the file only.
const MAX_FILE_ALIGNMENT: u64 = 1 << 20;
/// Largest size of a section in memory.
const MAX_SIZE: u64 = 1 << 32;
/// Largest size of a section that is in the file only.
const MAX_FILE_SIZE: u64 = 1 << 31;

type Header = FileHeader64<LE>;
type Sections<'a> = SectionTable<'a, Header>;
type Finding<T> = Result<T, String>;

/// Checks the relocatable object in `bytes`.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with its name.
pub(crate) fn check_object(bytes: &[u8]) -> Finding<ObjectFacts> {
    if bytes.is_empty() {
        return Err("is empty".into());
    }
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err("is not an ELF file".into());
    }
    // The header is laid out alike for every class and byte order as far as these fields go.
    let ident = bytes.get(..20).ok_or("is cut off in its header")?;
    if ident[4] != elf::ELFCLASS64.0 || ident[5] != elf::ELFDATA2LSB.0 {
        return Err("is for another architecture: not 64-bit little-endian".into());
    }
    let machine = u16::from_le_bytes([ident[18], ident[19]]);
    if machine != elf::EM_X86_64.0 {
        return Err(format!("is for another architecture: {}, this is x86-64", machine_name(machine)));
    }
    let header = Header::parse(bytes).map_err(|_| "is cut off in its header")?;
    if header.e_type.get(LE) != elf::ET_REL {
        return Err("is not a relocatable object".into());
    }
    if header.e_ehsize.get(LE) != 64 || header.e_shentsize.get(LE) != 64 {
        return Err("has a damaged header".into());
    }
    let sections = header.sections(LE, bytes).map_err(|e| format!("has a damaged section table: {e}"))?;
    if sections.is_empty() {
        return Err("has no sections".into());
    }
    let mut facts = ObjectFacts::default();
    check_sections(&sections, bytes, &mut facts)?;
    check_symbols(&sections, bytes, &mut facts)?;
    check_relocations(&sections, bytes, &mut facts)?;
    if let Ok(symbols) = sections.symbols(LE, bytes, elf::SHT_SYMTAB) {
        facts.shared = shared_definitions(&sections, &symbols, bytes);
    }
    Ok(facts)
}

fn check_sections(sections: &Sections<'_>, bytes: &[u8], facts: &mut ObjectFacts) -> Finding<()> {
    let count = sections.len();
    for (index, section) in sections.iter().enumerate().skip(1) {
        let name = sections.section_name(LE, section).map_err(|_| {
            format!("has a section (number {index}) whose name lies outside its string table")
        })?;
        let shown = || String::from_utf8_lossy(name).into_owned();
        let data = section
            .data(LE, bytes)
            .map_err(|_| format!("is cut off: section {} lies outside it", shown()))?;
        let (kind, flags) = (section.sh_type.get(LE), section.sh_flags.get(LE).0);
        let (size, entry) = (section.sh_size.get(LE), section.sh_entsize.get(LE));
        // lld minds where an empty section lies, too; and it dies of that while it makes the section.
        let end = section.sh_offset.get(LE).checked_add(size);
        if kind != elf::SHT_NOBITS && end.is_none_or(|end| end > bytes.len() as u64) {
            return Err(format!("is cut off: section {} lies outside it", shown()));
        }
        // What is not in memory is aligned in the file, which lld builds in memory; so is what takes no room here but
        // may take some in the image, for it is not in memory or has the name of a section with contents.
        let in_memory = flags & elf::SHF_ALLOC.0 != 0;
        let alignment = section.sh_addralign.get(LE);
        let limit = if in_memory { MAX_ALIGNMENT } else { MAX_FILE_ALIGNMENT };
        if alignment > limit || (alignment != 0 && !alignment.is_power_of_two()) {
            return Err(format!("has section {} with the alignment {alignment}", shown()));
        }
        if size > if in_memory { MAX_SIZE } else { MAX_FILE_SIZE } {
            return Err(format!("has section {} with the size {size}", shown()));
        }
        if in_memory {
            facts.take_room(size, alignment);
            if kind == elf::SHT_NOBITS && flags & elf::SHF_TLS.0 == 0 {
                facts.zeros = facts.zeros.saturating_add(size);
            }
            facts.startup |= size > 0 && (name == b".init" || name == b".fini");
            facts.arrays |= size > 0 && is_array(name);
            facts.old_constructors |= size > 0 && is_old(name);
        }
        if section.sh_link.get(LE) as usize >= count {
            return Err(format!("has section {} linked to a section that does not exist", shown()));
        }
        if flags & elf::SHF_COMPRESSED.0 != 0 {
            check_compressed(data)
                .map_err(|what| format!("has the compressed section {} {what}", shown()))?;
            continue;
        }
        if flags & elf::SHF_MERGE.0 != 0 && size != 0 {
            if entry == 0 || size % entry != 0 {
                return Err(format!(
                    "has the mergeable section {} whose size is no multiple of an entry's",
                    shown()
                ));
            }
            let tail = &data[data.len() - (entry as usize).min(data.len())..];
            if flags & elf::SHF_STRINGS.0 != 0 && tail.iter().any(|&b| b != 0) {
                return Err(format!("has section {} whose last string does not end", shown()));
            }
        }
        match kind {
            elf::SHT_GROUP => {
                let words = words(data).ok_or_else(|| format!("has the damaged group {}", shown()))?;
                let bad_member = words.iter().skip(1).any(|&member| member == 0 || member as usize >= count);
                let signature = section.sh_info.get(LE) as usize;
                let symbols = sections.symbols(LE, bytes, elf::SHT_SYMTAB);
                if words.is_empty()
                    || bad_member
                    || symbols.is_err()
                    || symbols.is_ok_and(|symbols| signature >= symbols.len())
                {
                    return Err(format!("has the damaged group {}", shown()));
                }
            }
            elf::SHT_SYMTAB if size % 24 != 0 || entry != 24 => {
                return Err("has a damaged symbol table".into());
            }
            elf::SHT_NOTE => check_notes(data).map_err(|what| format!("has section {} {what}", shown()))?,
            elf::SHT_REL => return Err(format!("has relocations without addends in {}", shown())),
            elf::SHT_PROGBITS | elf::SHT_X86_64_UNWIND if name == b".eh_frame" => {
                check_frames(data).map_err(|what| format!("has the section .eh_frame {what}"))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_compressed(data: &[u8]) -> Finding<()> {
    let header = data.get(..24).ok_or("that is cut off")?;
    let field = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
    if field(8) > (data.len() as u64).saturating_mul(1100) {
        return Err("that says it grows beyond reason".into());
    }
    if !field(16).is_power_of_two() && field(16) != 0 {
        return Err("with a damaged alignment".into());
    }
    Ok(())
}

fn check_notes(mut data: &[u8]) -> Finding<()> {
    while !data.is_empty() {
        let header = words(data.get(..12).ok_or("that is cut off")?).ok_or("that is cut off")?;
        let round = |n: u32| (n as usize).next_multiple_of(4);
        let length = 12 + round(header[0]) + round(header[1]);
        // The last description may lack its padding.
        if length > data.len() + 3 {
            return Err("with a note that is cut off".into());
        }
        data = &data[length.min(data.len())..];
    }
    Ok(())
}

/// The records of an `.eh_frame`: lengths that stay inside, and back references from FDEs to CIEs that exist.
fn check_frames(data: &[u8]) -> Finding<()> {
    let mut at = 0;
    let mut cies = Vec::new();
    while at + 4 <= data.len() {
        let length = word(data, at).unwrap_or(0) as usize;
        if length == 0 {
            return Ok(());
        }
        if length == 0xffff_ffff || length < 4 || length > data.len() - at - 4 {
            return Err("with a record that is cut off".into());
        }
        let id = word(data, at + 4).unwrap_or(0) as usize;
        if id == 0 {
            check_cie(&data[at + 8..at + 4 + length])?;
            cies.push(at);
        } else if !(at + 4).checked_sub(id).is_some_and(|cie| cies.contains(&cie)) {
            return Err("with a record that refers to none".into());
        } else if length < 12 {
            return Err("with a record that is too short".into());
        }
        at += 4 + length;
    }
    if at == data.len() { Ok(()) } else { Err("with something behind its records".into()) }
}

fn check_cie(body: &[u8]) -> Finding<()> {
    let version = body.first().copied().unwrap_or(0);
    let end = body.iter().skip(1).position(|&b| b == 0);
    match (version, end) {
        (1 | 3, Some(end)) if body.len() >= end + 6 => Ok(()),
        _ => Err("with a damaged record".into()),
    }
}

fn check_symbols(sections: &Sections<'_>, bytes: &[u8], facts: &mut ObjectFacts) -> Finding<()> {
    let symbols = sections
        .symbols(LE, bytes, elf::SHT_SYMTAB)
        .map_err(|error| format!("has a damaged symbol table: {error}"))?;
    if symbols.is_empty() {
        return Ok(());
    }
    let table = sections.section(symbols.section()).map_err(|_| "has a damaged symbol table")?;
    let first_global = table.sh_info.get(LE) as usize;
    if first_global > symbols.len() || (first_global == 0 && !symbols.is_empty()) {
        return Err("has a symbol table with a damaged number of local symbols".into());
    }
    for (index, symbol) in symbols.enumerate().skip(1) {
        let name = symbols.symbol_name(LE, symbol).map_err(|_| {
            format!("has a symbol (number {}) whose name lies outside its string table", index.0)
        })?;
        let shown = || String::from_utf8_lossy(name).into_owned();
        let section = symbols.symbol_section(LE, symbol, index).map_err(|_| "has a damaged symbol table")?;
        if section.is_some_and(|SectionIndex(s)| s >= sections.len()) {
            return Err(format!("has the symbol '{}' in a section that does not exist", shown()));
        }
        let (kind, binding) = (symbol.st_type(), symbol.st_bind());
        if (binding == elf::STB_LOCAL) != (index.0 < first_global) {
            return Err(format!("has the symbol '{}' in the wrong part of its symbol table", shown()));
        }
        let undefined = symbol.st_shndx.get(LE) == elf::SHN_UNDEF;
        if let Some(SectionIndex(number)) = section.filter(|s| s.0 != 0) {
            let holder = sections.section(SectionIndex(number)).map_err(|_| "has a damaged symbol table")?;
            let pieces = holder.sh_flags.get(LE).0 & elf::SHF_MERGE.0 != 0;
            if pieces && symbol.st_value.get(LE) > holder.sh_size.get(LE) {
                return Err(format!("has the symbol '{}' outside its section", shown()));
            }
        }
        if symbol.st_shndx.get(LE) == elf::SHN_COMMON {
            let alignment = symbol.st_value.get(LE);
            if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT || symbol.st_size.get(LE) > MAX_SIZE
            {
                return Err(format!("has the common symbol '{}' with a damaged size or alignment", shown()));
            }
            facts.take_room(symbol.st_size.get(LE), alignment);
            facts.zeros = facts.zeros.saturating_add(symbol.st_size.get(LE));
        }
        match kind {
            elf::STT_FUNC | elf::STT_GNU_IFUNC if !undefined => facts.functions += 1,
            elf::STT_TLS if !undefined => facts.thread_locals.push(name.to_vec()),
            _ => {}
        }
        facts.cpp |= undefined && is_cpp_runtime(name);
        if undefined && binding != elf::STB_LOCAL {
            facts.undefined.push(name.split(|&b| b == b'@').next().unwrap_or_default().to_vec());
        } else if binding != elf::STB_LOCAL {
            facts.defined.push(elf::gnu_hash(name));
        }
    }
    Ok(())
}

/// Whether an undefined symbol is one that the C++ run-time library has.
fn is_cpp_runtime(name: &[u8]) -> bool {
    name.starts_with(b"_ZNSt")
        || name.starts_with(b"_ZNKSt")
        || name.starts_with(b"_ZSt")
        || name.starts_with(b"_ZTVN10__cxxabiv1")
        || name.starts_with(b"_ZTI")
        || name.starts_with(b"_Zn")
        || name.starts_with(b"_Zd")
        || name.starts_with(b"__gxx_personality")
        || (name.starts_with(b"__cxa_")
            && ![&b"__cxa_atexit"[..], b"__cxa_finalize", b"__cxa_thread_atexit_impl"].contains(&name))
}

fn check_relocations(sections: &Sections<'_>, bytes: &[u8], facts: &mut ObjectFacts) -> Finding<()> {
    let symbols = sections
        .symbols(LE, bytes, elf::SHT_SYMTAB)
        .map_err(|error| format!("has a damaged symbol table: {error}"))?;
    for section in sections.iter() {
        if section.sh_type.get(LE) != elf::SHT_RELA {
            continue;
        }
        let target = sections
            .section(SectionIndex(section.sh_info.get(LE) as usize))
            .map_err(|_| "has relocations of a section that does not exist")?;
        let name =
            String::from_utf8_lossy(sections.section_name(LE, target).unwrap_or_default()).into_owned();
        if section.sh_entsize.get(LE) != 24 || section.sh_size.get(LE) % 24 != 0 {
            return Err(format!("has a damaged relocation table of {name}"));
        }
        let linked = SectionIndex(section.sh_link.get(LE) as usize);
        let Some((relocations, _)) =
            section.rela(LE, bytes).map_err(|_| format!("has a damaged relocation table of {name}"))?
        else {
            continue;
        };
        if !relocations.is_empty() && linked != symbols.section() {
            return Err(format!("has relocations of {name} that refer to no symbol table"));
        }
        // Where a section is compressed, they are of its contents as they become again.
        let size = match target.compression(LE, bytes) {
            Ok(Some((header, ..))) => header.ch_size.get(LE),
            Ok(None) => target.sh_size.get(LE),
            Err(_) => return Err(format!("has the damaged compressed section {name}")),
        };
        let constants = is_constants(name.as_bytes());
        for relocation in relocations {
            let kind = relocation.r_type(LE, false);
            let index = relocation.r_sym(LE, false) as usize;
            if index >= symbols.len().max(1) {
                return Err(format!("has a relocation in {name} against a symbol that does not exist"));
            }
            let place = relocation.r_offset.get(LE);
            if place.checked_add(width(kind)).is_none_or(|end| end > size) {
                return Err(format!("has a relocation outside its section {name}"));
            }
            if kind == elf::R_X86_64_GOTTPOFF
                && let Ok(symbol) = symbols.symbol(object::SymbolIndex(index))
                && let Ok(variable) = symbols.symbol_name(LE, symbol)
                && !facts.initial_exec.iter().any(|known| known == variable)
            {
                facts.initial_exec.push(variable.to_vec());
            }
            if constants
                && let Ok(symbol) = symbols.symbol(object::SymbolIndex(index))
                && symbol.st_bind() != elf::STB_LOCAL
            {
                if symbol.st_shndx.get(LE) == elf::SHN_UNDEF {
                    let name = symbols.symbol_name(LE, symbol).unwrap_or_default();
                    facts.constants_want.push(elf::gnu_hash(name));
                } else {
                    facts.shared_constants |= symbol.st_bind() != elf::STB_GLOBAL
                        && !matches!(symbol.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL);
                }
            }
        }
    }
    Ok(())
}

/// Bytes that a relocation of this type writes.
pub(super) fn width(kind: elf::RelocationType) -> u64 {
    match kind {
        elf::R_X86_64_NONE => 0,
        elf::R_X86_64_8 | elf::R_X86_64_PC8 => 1,
        elf::R_X86_64_16 | elf::R_X86_64_PC16 => 2,
        elf::R_X86_64_64
        | elf::R_X86_64_PC64
        | elf::R_X86_64_GOTOFF64
        | elf::R_X86_64_DTPOFF64
        | elf::R_X86_64_TPOFF64
        | elf::R_X86_64_SIZE64
        | elf::R_X86_64_GOT64
        | elf::R_X86_64_GOTPCREL64
        | elf::R_X86_64_GOTPC64
        | elf::R_X86_64_PLTOFF64 => 8,
        elf::R_X86_64_TLSDESC_CALL => 2,
        _ => 4,
    }
}

fn machine_name(machine: u16) -> String {
    match elf::Machine(machine) {
        elf::EM_AARCH64 => "AArch64".into(),
        elf::EM_386 => "i386".into(),
        elf::EM_ARM => "ARM".into(),
        elf::EM_RISCV => "RISC-V".into(),
        elf::EM_PPC64 => "PowerPC".into(),
        elf::EM_S390 => "s390".into(),
        elf::EM_BPF => "BPF".into(),
        _ => format!("machine {machine}"),
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

fn words(data: &[u8]) -> Option<Vec<u32>> {
    data.len().is_multiple_of(4).then(|| (0..data.len()).step_by(4).filter_map(|at| word(data, at)).collect())
}

#[cfg(test)]
mod tests;
