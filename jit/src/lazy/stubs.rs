//! The stub object of a unit: a stub for every function, and references to all that bodies may need of others.
//!
//! Whoever links it with the unit's data has all of the unit but its bodies. A function's name means its stub, which
//! jumps through the function's slot; at first that leads to the function's lazy entry. What stands where is told in the
//! description of the format, `hotbed_loader::image::note`.
//!
//! Stubs of weak functions are in no COMDAT groups: of several ones the linker takes the first by their binding alone, and
//! what is left over is eight bytes. So nothing of what belongs to a function is ever missing.

use super::body_suffix;
use super::head::HEAD;
use super::object::{Manner, Section, Writer};
use crate::link::STUBS_SECTION;
use crate::split::{Facts, Kind, Linkage, Number, Symbol, Visibility};
use hotbed_loader::image::note::{ENTRIES_SECTION, FUNCTIONS_SECTION, SLOTS_SECTION};
use object::elf;
use object::write::Error;
use std::collections::HashSet;

/// Bytes of a stub, of a slot and of a lazy entry.
const STUB: usize = 8;
const SLOT: usize = 8;
const ENTRY: usize = 5;

/// What fills the room between stubs: nobody comes there.
const TRAP: u8 = 0xcc;

/// The stub object of the unit that is number `unit` of its image, with `suffix` behind its local names. Functions that are
/// `compiled` have their bodies in other objects of the link. If there are `exports`, all other names of functions are for the
/// image alone.
///
/// # Errors
/// When it cannot be written, which is a defect.
pub(super) fn stub_object(
    facts: &Facts,
    unit: u32,
    suffix: &str,
    compiled: &HashSet<Number>,
    exports: Option<&HashSet<String>>,
) -> Result<Vec<u8>, Error> {
    let manner = |symbol: &Symbol, kind| match exports {
        Some(exports) if !exports.contains(symbol.elf_name()) => {
            Manner { visibility: elf::STV_HIDDEN, ..manner(symbol, kind) }
        }
        _ => manner(symbol, kind),
    };
    let mut object = Writer::new();
    let head = object.need(HEAD, Manner { kind: elf::STT_NOTYPE, ..Manner::HIDDEN });
    let mut stubs = object.section(STUBS_SECTION, elf::SHF_EXECINSTR, 16);
    let mut entries = object.section(ENTRIES_SECTION, elf::SHF_EXECINSTR, 1);
    let mut slots = object.section(SLOTS_SECTION, elf::SHF_WRITE, 8);
    let mut records = object.section(FUNCTIONS_SECTION, elf::SectionFlags(0), 8);
    let mut names = object.section(".hotbed.names", elf::SectionFlags(0), 1);

    // Where each function's stub is.
    let mut places: Vec<Option<u64>> = vec![None; facts.symbols.len()];
    for number in facts.functions() {
        let symbol = &facts.symbols[number as usize];
        let (stub, slot, entry) = (stubs.bytes.len(), slots.bytes.len(), entries.bytes.len());
        places[number as usize] = Some(stub as u64);

        // jmp *slot(%rip)
        stubs.bytes.extend([0xff, 0x25]);
        object.refer(&mut stubs, slots.start, slot as i64 - 4, elf::R_X86_64_PC32)?;
        stubs.bytes.resize(stub + STUB, TRAP);
        object.define(symbol.elf_name(), &stubs, stub as u64, STUB as u64, manner(symbol, elf::STT_FUNC));

        // call head
        entries.bytes.push(0xe8);
        object.refer(&mut entries, head, -4, elf::R_X86_64_PC32)?;
        if compiled.contains(&number) {
            let name = format!("{}{}", symbol.elf_name(), body_suffix(unit));
            let body = object.need(&name, Manner::HIDDEN);
            object.refer(&mut slots, body, 0, elf::R_X86_64_64)?;
        } else {
            object.refer(&mut slots, entries.start, entry as i64, elf::R_X86_64_64)?;
        }

        records.bytes.extend(unit.to_le_bytes());
        records.bytes.extend(number.to_le_bytes());
        object.refer(&mut records, stubs.start, stub as i64, elf::R_X86_64_PC32)?;
        object.refer(&mut records, names.start, names.bytes.len() as i64, elf::R_X86_64_PC32)?;
        names.bytes.extend(symbol.source_name(suffix).as_bytes());
        names.bytes.push(0);
    }
    debug_assert_eq!(
        (stubs.bytes.len() / STUB, slots.bytes.len() / SLOT),
        (entries.bytes.len() / ENTRY, records.bytes.len() / 16)
    );

    let mut references = object.section(".hotbed.references", elf::SectionFlags(0), 4);
    define_followers(&mut object, facts, &places, &stubs, &mut references, manner)?;
    let mut calls = object.section(".text.hotbed.references", elf::SHF_EXECINSTR, 1);
    refer_to_others(&mut object, facts, &mut calls, &mut references)?;

    object.frame(&stubs, 0, stubs.bytes.len(), &[])?;
    object.frame(&entries, 0, entries.bytes.len(), &[])?;
    for section in [stubs, entries, slots, records, names, references, calls] {
        object.put(section);
    }
    object.finish()
}

/// Further names of stubs. An ifunc is at the stub of the function that resolves it.
fn define_followers(
    object: &mut Writer,
    facts: &Facts,
    places: &[Option<u64>],
    stubs: &Section,
    references: &mut Section,
    manner: impl Fn(&Symbol, elf::SymbolType) -> Manner,
) -> Result<(), Error> {
    let place = |base: Number| places.get(base as usize).copied().flatten();
    for symbol in &facts.symbols {
        let Some(place) = symbol.base.and_then(place) else { continue };
        let manner = match symbol.kind {
            Kind::Alias => manner(symbol, elf::STT_FUNC),
            Kind::Ifunc => manner(symbol, elf::STT_GNU_IFUNC),
            Kind::Function | Kind::Variable => continue,
        };
        let name = object.define(symbol.elf_name(), stubs, place, STUB as u64, manner);
        let own = symbol.linkage == Linkage::Strong || symbol.visibility != Visibility::Default;
        if symbol.kind == Kind::Ifunc && own {
            // A direct reference makes the linker give the ifunc one address, of an entry that leads to what was chosen. That
            // is what bodies find under its name, and everybody else.
            object.refer(references, name, 0, elf::R_X86_64_PC32)?;
        }
    }
    Ok(())
}

/// What bodies may refer to, so that the linker looks for it, records it, and the loader checks that it is there before
/// anything runs. Nobody executes these calls.
fn refer_to_others(
    object: &mut Writer,
    facts: &Facts,
    calls: &mut Section,
    references: &mut Section,
) -> Result<(), Error> {
    for symbol in &facts.symbols {
        // Functions of the data object have the thread-local ones.
        if symbol.linkage.is_definition() || symbol.thread_local {
            continue;
        }
        let name = object.need(symbol.elf_name(), manner(symbol, elf::STT_NOTYPE));
        match symbol.kind {
            Kind::Function => {
                // jmp function@PLT
                calls.bytes.push(0xe9);
                object.refer(calls, name, -4, elf::R_X86_64_PLT32)?;
            }
            _ => object.refer(references, name, 0, elf::R_X86_64_GOTPCREL)?,
        }
    }
    Ok(())
}

fn manner(symbol: &Symbol, kind: elf::SymbolType) -> Manner {
    Manner {
        binding: match symbol.linkage {
            // It may be inlined everywhere and defined nowhere.
            Linkage::Weak | Linkage::DeclaredWeak | Linkage::InlineOnly => elf::STB_WEAK,
            Linkage::Strong | Linkage::Common | Linkage::Declared => elf::STB_GLOBAL,
        },
        visibility: match symbol.visibility {
            Visibility::Default => elf::STV_DEFAULT,
            Visibility::Hidden => elf::STV_HIDDEN,
            Visibility::Protected => elf::STV_PROTECTED,
        },
        kind,
    }
}
