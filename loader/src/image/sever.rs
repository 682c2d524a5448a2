//! Severing an image from others that it is bound to, which are unloaded by force: whatever binding has written into it
//! that leads to them is led to [`Traps`] instead.
//!
//! What was written where is not recorded. The relocations that wrote it are gone through once more, and a word that holds
//! an address of the others is one of theirs. What the image has copied elsewhere since cannot be found; those addresses
//! stay taken, so that it leads to a fault.

use super::elf::*;
use super::map::{Mapped, Memory};
use super::tls::Reference;
use super::tls::entry::descriptor;
use super::trap::{Traps, nowhere};
use super::{Image, bind};
use crate::error::demangle;
use crate::image::symbols::Name;
use crate::layers::Value;
use crate::sys::memory::{page_down, store_word};
use std::io;
use std::sync::Arc;

/// What will be written into an image, with the traps that it leads to.
pub(super) struct Severed<'a> {
    user: &'a Image,
    traps: Traps,
    words: Vec<(usize, usize)>,
}

/// A word that leads to one of the others.
enum Use {
    Function(String),
    /// The value that it gets.
    Data(usize),
    Module(String),
    /// With the variable's offset.
    Descriptor(String, usize),
}

impl<'a> Severed<'a> {
    /// Finds everything in `user` that leads to one of `gone`. Nothing is written yet.
    ///
    /// # Errors
    /// That the image is damaged, or what the system says.
    pub(super) fn new(user: &'a Image, gone: &[Arc<Image>]) -> io::Result<Self> {
        let uses = find(user, gone)?;
        let lines = uses.iter().filter_map(|(_, found)| match found {
            Use::Function(line) => Some(line.clone().into_bytes()),
            _ => None,
        });
        let mut traps = Traps::new(lines.collect())?;
        let mut functions = 0;
        let words = uses.iter().map(|(place, found)| {
            let value = match found {
                Use::Function(_) => {
                    functions += 1;
                    traps.stub(functions - 1)
                }
                Use::Data(value) => *value,
                Use::Module(line) => traps.module(line.as_bytes()),
                Use::Descriptor(line, offset) => {
                    let module = traps.module(line.as_bytes());
                    traps.reference(module, *offset)
                }
            };
            (*place, value)
        });
        let words = words.collect();
        Ok(Self { user, traps, words })
    }

    /// Writes it all.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Safety
    /// The image may lose what it is bound to.
    pub(super) unsafe fn apply(self) -> io::Result<()> {
        let Self { user, traps, words } = self;
        user.body.traps.lock().push(traps);
        for (place, value) in words {
            // SAFETY: a word in a writable segment of the image, which stays mapped as long as it; the rest is the
            // caller's promise.
            unsafe { store_word(place, value, is_protected(user.mapped(), place))? };
        }
        Ok(())
    }
}

/// Whether the page of an address was made read-only after relocation.
fn is_protected(mapped: &Mapped, address: usize) -> bool {
    let (Some(range), Memory::Own { .. }) = (mapped.headers.relro, &mapped.memory) else { return false };
    let (start, end) = (mapped.place.at(range.address), mapped.place.at(range.address + range.size));
    (page_down(start)..page_down(end)).contains(&address)
}

fn find(user: &Image, gone: &[Arc<Image>]) -> io::Result<Vec<(usize, Use)>> {
    let mapped = user.mapped();
    let tables = bind::tables(mapped).map_err(io::Error::other)?;
    let mut uses = Vec::new();
    for relocation in tables.iter().flat_map(|table| table.iter()) {
        let Rela { offset, addend, .. } = *relocation;
        let kind = relocation.kind();
        let length = if kind == R_X86_64_TLSDESC { 16 } else { 8 };
        if mapped.place.segment(offset, length).is_none_or(|segment| !segment.access.write) {
            continue;
        }
        let place = mapped.place.at(offset);
        // SAFETY: checked above; a writable segment is readable.
        let word = |place: usize| unsafe { (place as *const usize).read_unaligned() };
        match kind {
            R_X86_64_64 | R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT | R_X86_64_IRELATIVE => {
                let value = word(place);
                let addend = if kind == R_X86_64_64 { addend as isize } else { 0 };
                let symbol = value.wrapping_add_signed(addend.wrapping_neg());
                let owner = gone.iter().find_map(|image| {
                    let memory = &image.mapped().memory;
                    [symbol, value].into_iter().find(|at| memory.holds(*at)).map(|at| (image, at))
                });
                let Some((owner, at)) = owner else { continue };
                let name = name_of(mapped, relocation);
                let found = if kind == R_X86_64_JUMP_SLOT || is_function(owner, name, at) {
                    Use::Function(line(user, owner, name, "call of"))
                } else {
                    let instead = nowhere(&owner.mapped().memory, at);
                    Use::Data(instead.wrapping_add(value.wrapping_sub(at)))
                };
                uses.push((place, found));
            }
            R_X86_64_DTPMOD64 if relocation.symbol() != 0 => {
                let module = word(place);
                if let Some(owner) = gone.iter().find(|image| image.is_module(module)) {
                    let name = name_of(mapped, relocation);
                    uses.push((place, Use::Module(line(user, owner, name, "use of thread-local"))));
                }
            }
            R_X86_64_TLSDESC if word(place) == descriptor as *const () as usize => {
                // SAFETY: the second word of such a descriptor points to a reference that lives as long as the image.
                let reference = unsafe { *(word(place + 8) as *const Reference) };
                if let Some(owner) = gone.iter().find(|image| image.is_module(reference.module)) {
                    let line = line(user, owner, name_of(mapped, relocation), "use of thread-local");
                    uses.push((place + 8, Use::Descriptor(line, reference.offset)));
                }
            }
            _ => {}
        }
    }
    Ok(uses)
}

fn name_of(mapped: &Mapped, relocation: &Rela) -> &'static [u8] {
    let symbol = mapped.symbols.get(relocation.symbol()).filter(|_| relocation.symbol() != 0);
    symbol.and_then(|symbol| mapped.symbols.text(symbol.name.into())).unwrap_or_default()
}

/// Whether what is at an address of `owner`, by that name if it has one, is a function. Where the symbol does not say it, code is what
/// can be executed.
fn is_function(owner: &Image, name: &[u8], at: usize) -> bool {
    let mapped = owner.mapped();
    let symbol = (!name.is_empty()).then(|| mapped.symbols.find(Name::new(name), None)).flatten();
    match symbol.map(|(_, symbol)| symbol.kind()) {
        Some(STT_FUNC | STT_GNU_IFUNC) => true,
        Some(STT_OBJECT | STT_COMMON) => false,
        _ => mapped.place.is_code(at),
    }
}

fn line(user: &Image, owner: &Image, name: &[u8], what: &str) -> String {
    let name = String::from_utf8_lossy(name);
    let shown = demangle(&name).unwrap_or_else(|| name.into_owned());
    let shown = if shown.is_empty() { "an indirect function".to_owned() } else { format!("`{shown}`") };
    format!("hotbed: {what} {shown} of unit {}, which was unloaded, by unit {}", owner.name(), user.name())
}

impl Image {
    fn is_module(&self, number: usize) -> bool {
        self.body.module.as_ref().is_some_and(|module| module.number() == number)
    }

    /// Whether a value that others are bound to is of this image.
    pub(super) fn has_value(&self, value: Value) -> bool {
        match value {
            Value::Address(address) | Value::Resolver(address) => self.mapped().memory.holds(address),
            Value::Tls { module, .. } => self.is_module(module),
        }
    }
}
