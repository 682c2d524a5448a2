//! Applying relocations: writing resolved addresses into an image that nobody uses yet.

use super::{Plan, Slot, tables};
use crate::image::ImageError;
use crate::image::elf::*;
use crate::image::map::{Mapped, Memory};
use crate::image::place::{Place, text_of};
use crate::image::registers;
use crate::image::tls::Reference;
use crate::image::tls::entry::{descriptor, fixed_descriptor, fixed_distance, undefined_descriptor};
use crate::image::{Image, call_resolver, own_value};
use crate::layers::Value;
use crate::sys::memory::{PAGE, page_down};
use std::sync::Arc;

/// What relocation has left behind.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// What TLS descriptors point to; lives as long as the image.
    pub(crate) references: Vec<Arc<Reference>>,
    /// Places that get the result of a function of an image, to be called when everything else is in place.
    deferred: Vec<Deferred>,
    /// Whether there are functions to be looked up when they are called.
    pub(crate) later: bool,
    /// The images that it is bound to.
    pub(crate) used: Vec<Arc<Image>>,
    /// Whether the image calls functions of the process that unwind.
    pub(crate) unwinds: bool,
}

#[derive(Debug)]
struct Deferred {
    target: usize,
    resolver: usize,
    addend: i64,
}

/// Applies all relocations of an image but those that need code to run. `first` says that it was not done before: the
/// relative ones add to what is there and are left out another time.
///
/// # Safety
/// The image is mapped, and nobody else writes to it.
pub(crate) unsafe fn apply(
    mapped: &Mapped,
    module: Option<usize>,
    plan: &Plan,
    first: bool,
) -> Result<Applied, ImageError> {
    let mut targets = Targets { place: &mapped.place, low: 0, high: 0 };
    let mut applied = Applied::default();
    let [relocations, jumps] = tables(mapped)?;
    if first {
        // What is written where all constants are settled is little and lies together.
        if mapped.place.base == 0 && !mapped.headers.settled {
            bring_in(mapped, relocations, plan);
        }
        // SAFETY: the caller's promise, here and below.
        unsafe { mapped.clear_rests() };
    }
    if first && (mapped.place.base != 0 || !mapped.layout.relocated) {
        // SAFETY: as above.
        unsafe { relative(mapped, &mut targets)? };
    }
    // Slots that wait have what they need already, if they are where slots may be.
    if let Some((low, high)) = plan.waiting.filter(|_| mapped.place.base == 0) {
        applied.later = targets.get(low, (high - low).saturating_add(8)).is_ok();
    }
    let in_place = applied.later;
    let settled = first && mapped.place.base == 0 && mapped.layout.settled;
    for table in [relocations, jumps] {
        for relocation in table {
            let slot = plan.slots.get(relocation.symbol() as usize);
            if in_place && slot == Some(&Slot::Later) {
                continue;
            }
            if let Some(Slot::Known(Value::Address(address))) = slot
                && is_address(relocation)
                && let Some(target) = targets.near(relocation.offset, 8)
            {
                let address = address.wrapping_add_signed(relocation.addend as isize);
                // SAFETY: to be written to, as `near` says.
                unsafe { (target as *mut usize).write_unaligned(address) };
                continue;
            }
            // The place has what it needs already.
            let settled = settled && slot == Some(&Slot::Own) && is_address(relocation);
            if settled && targets.near(relocation.offset, 8).is_some() {
                continue;
            }
            // SAFETY: as above.
            unsafe { one(mapped, module, plan, relocation, &mut targets, &mut applied)? };
        }
    }
    Ok(applied)
}

/// Has pages that will be written brought in, where several follow each other: one call for all of them costs less than being
/// interrupted at each, and one page that nobody needs costs as much as either. (Elsewhere than at its own address an image is mapped
/// so from the start, as nearly all of its data is relocated.)
fn bring_in(mapped: &Mapped, relocations: &[Rela], plan: &Plan) {
    const FEWEST: u32 = 3;
    let Memory::Own { mapping, .. } = &mapped.memory else { return };
    let Some(segment) = mapped.place.segments.iter().find(|segment| segment.access.write) else { return };
    let begin = page_down(segment.address as usize);
    let count = ((segment.address + segment.size) as usize - begin).div_ceil(PAGE).min(64);
    // A bit for each of the first pages.
    let mut written = 0u64;
    let rests = mapped.place.segments.iter().filter_map(|segment| segment.rest().map(|(at, _)| at));
    let is_written = |relocation: &&Rela| !(mapped.layout.settled && slot(plan, relocation) == Slot::Own);
    let relocated = relocations.iter().filter(is_written).map(|relocation| relocation.offset);
    for place in relocated.chain(mapped.dynamic.slots).chain(rests) {
        let page = (place as usize).wrapping_sub(begin) / PAGE;
        if page < count {
            written |= 1 << page;
        }
    }
    let mut at = begin - mapped.headers.first;
    while written != 0 {
        let skipped = written.trailing_zeros();
        written >>= skipped;
        at += skipped as usize * PAGE;
        let length = written.trailing_ones();
        if length >= FEWEST {
            mapping.populate(at, length as usize * PAGE);
        }
        written = written.checked_shr(length).unwrap_or(0);
        at += length as usize * PAGE;
    }
}

impl Applied {
    /// Calls the functions that say where others are, and enters what they say.
    ///
    /// # Safety
    /// The image is still writable, and every image that it is bound to is complete.
    pub(crate) unsafe fn finish(&mut self) {
        for Deferred { target, resolver, addend } in self.deferred.drain(..) {
            // SAFETY: the resolver lies in code of an image, whose other relocations are done; the target was checked.
            unsafe {
                let value = call_resolver(resolver).wrapping_add_signed(addend as isize);
                (target as *mut usize).write_unaligned(value);
            }
        }
    }
}

/// Finds out which addresses may be written to.
struct Targets<'a> {
    place: &'a Place,
    /// The writable segment that was found last.
    low: u64,
    high: u64,
}

impl Targets<'_> {
    /// The same as [`Targets::get`] in the segment that was found last.
    #[inline]
    fn near(&self, address: u64, length: u64) -> Option<usize> {
        let inside = address >= self.low && address.saturating_add(length) <= self.high;
        inside.then(|| self.place.at(address))
    }

    /// Where `length` bytes at `address` are in memory, all in one writable segment.
    #[inline]
    fn get(&mut self, address: u64, length: u64) -> Result<usize, ImageError> {
        if address < self.low || address.saturating_add(length) > self.high {
            let segment = self.place.segment(address, length).filter(|segment| segment.access.write);
            let segment = segment
                .ok_or_else(|| ImageError::damaged("a relocation outside of its writable segments"))?;
            self.low = segment.address;
            self.high = segment.address + segment.size;
        }
        Ok(self.place.at(address))
    }
}

/// # Safety
/// As for [`apply`].
unsafe fn relative(mapped: &Mapped, targets: &mut Targets<'_>) -> Result<(), ImageError> {
    const WORD: u64 = 8;
    const BITS: u64 = 63;
    let Some(range) = mapped.dynamic.relative else { return Ok(()) };
    // SAFETY: the image is mapped as its segments say.
    let words = unsafe { mapped.place.table::<u64>(range.address, (range.size / WORD) as usize) }
        .ok_or_else(|| ImageError::truncated("its relative relocations"))?;
    let base = mapped.place.base;
    // SAFETY: to be called with addresses from `targets` only.
    let add = |target: usize| unsafe {
        let word = target as *mut usize;
        word.write_unaligned(word.read_unaligned().wrapping_add(base));
    };
    let mut next = 0u64;
    for word in words {
        if word & 1 == 0 {
            add(targets.get(*word, WORD)?);
            next = word.wrapping_add(WORD);
            continue;
        }
        let mut bits = word >> 1;
        if let Ok(start) = targets.get(next, BITS * WORD) {
            while bits != 0 {
                add(start + bits.trailing_zeros() as usize * WORD as usize);
                bits &= bits - 1;
            }
        } else {
            while bits != 0 {
                let at = u64::from(bits.trailing_zeros()) * WORD;
                add(targets.get(next.wrapping_add(at), WORD)?);
                bits &= bits - 1;
            }
        }
        next = next.wrapping_add(BITS * WORD);
    }
    Ok(())
}

/// # Safety
/// As for [`apply`].
#[inline(never)]
unsafe fn one(
    mapped: &Mapped,
    module: Option<usize>,
    plan: &Plan,
    relocation: &Rela,
    targets: &mut Targets<'_>,
    applied: &mut Applied,
) -> Result<(), ImageError> {
    let place = &mapped.place;
    let Rela { offset, addend, .. } = *relocation;
    let kind = relocation.kind();
    // SAFETY: to be called with addresses from `targets` only.
    let write = |target: usize, value: usize| unsafe { (target as *mut usize).write_unaligned(value) };
    let plus = |value: usize| value.wrapping_add_signed(addend as isize);
    match kind {
        R_X86_64_NONE => {}
        R_X86_64_RELATIVE if place.base == 0 && mapped.layout.relocated => {}
        R_X86_64_RELATIVE => write(targets.get(offset, 8)?, plus(place.base)),
        R_X86_64_64 | R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT => {
            let target = targets.get(offset, 8)?;
            match slot(plan, relocation) {
                Slot::Known(Value::Address(address)) => write(target, plus(address)),
                Slot::Own => {
                    let symbol = mapped.symbols.get(relocation.symbol());
                    let own = symbol.and_then(|symbol| own_value(place, module, symbol));
                    let Some(Value::Address(address)) = own else { return Err(mixed(mapped, relocation)) };
                    write(target, plus(address));
                }
                Slot::Known(Value::Resolver(resolver)) => {
                    applied.deferred.push(Deferred { target, resolver, addend });
                }
                Slot::Known(Value::Tls { .. }) => return Err(mixed(mapped, relocation)),
                Slot::Later => {
                    applied.later = true;
                    // The place has the address of the code that asks for the function, as the image was linked.
                    if place.base != 0 {
                        // SAFETY: checked, and the image is readable where it is writable.
                        let linked = unsafe { (target as *const usize).read_unaligned() };
                        write(target, linked.wrapping_add(place.base));
                    }
                }
                Slot::Absent | Slot::Unknown => write(target, plus(0)),
            }
        }
        R_X86_64_IRELATIVE => {
            let target = targets.get(offset, 8)?;
            let resolver = plus(place.base);
            if !place.is_code(resolver) {
                return Err(ImageError::damaged("an indirect function lies outside of its code"));
            }
            applied.deferred.push(Deferred { target, resolver, addend: 0 });
        }
        R_X86_64_DTPMOD64 => {
            let target = targets.get(offset, 8)?;
            write(
                target,
                variable(mapped, module, plan, relocation)?.map_or(0, |(reference, _)| reference.module),
            );
        }
        R_X86_64_DTPOFF64 => {
            let target = targets.get(offset, 8)?;
            let offset =
                variable(mapped, module, plan, relocation)?.map_or(0, |(reference, _)| reference.offset);
            write(target, plus(offset));
        }
        R_X86_64_TPOFF64 => {
            let target = targets.get(offset, 8)?;
            let distance = match variable(mapped, module, plan, relocation)? {
                Some((reference, true)) => fixed_distance(reference.module).wrapping_add(reference.offset),
                Some((_, false)) => return Err(initial_exec(mapped, relocation)),
                None => 0,
            };
            write(target, plus(distance));
        }
        R_X86_64_TLSDESC => {
            let target = targets.get(offset, 16)?;
            let (function, argument) = match variable(mapped, module, plan, relocation)? {
                Some((reference, true)) => {
                    let distance = fixed_distance(reference.module).wrapping_add(reference.offset);
                    (fixed_descriptor as *const () as usize, plus(distance))
                }
                Some((mut reference, false)) => {
                    if !registers::prepare() {
                        return Err(ImageError::Unsupported(
                            "it uses TLS descriptors, which need a processor with XSAVE".into(),
                        ));
                    }
                    reference.offset = plus(reference.offset);
                    let reference = Arc::new(reference);
                    let argument = Arc::as_ptr(&reference) as usize;
                    applied.references.push(reference);
                    (descriptor as *const () as usize, argument)
                }
                None => (undefined_descriptor as *const () as usize, plus(0)),
            };
            write(target, function);
            write(target + 8, argument);
        }
        R_X86_64_COPY => {
            let name = name(mapped, relocation);
            return Err(ImageError::Unsupported(format!(
                "it wants a copy of `{name}` (copy relocation): recompile with -fPIC"
            )));
        }
        other => {
            return Err(ImageError::Unsupported(format!(
                "it has relocations of type {other}, which shared objects have no use for: recompile with -fPIC"
            )));
        }
    }
    Ok(())
}

/// Whether the address of something goes to the place of a relocation, and nothing more.
#[inline]
fn is_address(relocation: &Rela) -> bool {
    matches!(relocation.kind(), R_X86_64_64 | R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT)
}

fn slot(plan: &Plan, relocation: &Rela) -> Slot {
    plan.slots.get(relocation.symbol() as usize).copied().unwrap_or(Slot::Unknown)
}

/// The thread-local variable that a relocation refers to, and whether it is at a fixed distance from the thread
/// pointer; `None` for a weak one that nobody has.
fn variable(
    mapped: &Mapped,
    module: Option<usize>,
    plan: &Plan,
    relocation: &Rela,
) -> Result<Option<(Reference, bool)>, ImageError> {
    if relocation.symbol() == 0 {
        let module = module
            .ok_or_else(|| ImageError::damaged("it refers to a thread-local segment it does not have"))?;
        return Ok(Some((Reference { module, offset: 0 }, false)));
    }
    match slot(plan, relocation) {
        Slot::Known(Value::Tls { module, offset, fixed }) => Ok(Some((Reference { module, offset }, fixed))),
        Slot::Known(_) | Slot::Own | Slot::Later => Err(mixed(mapped, relocation)),
        Slot::Absent | Slot::Unknown => Ok(None),
    }
}

fn mixed(mapped: &Mapped, relocation: &Rela) -> ImageError {
    ImageError::Unsupported(format!(
        "`{}` is thread-local on one side and not on the other",
        name(mapped, relocation)
    ))
}

fn initial_exec(mapped: &Mapped, relocation: &Rela) -> ImageError {
    let name = name(mapped, relocation);
    let which = if name.is_empty() { String::new() } else { format!(" `{name}`") };
    ImageError::Unsupported(format!(
        "initial-exec thread_local{which}: recompile with -fPIC (without -ftls-model=initial-exec)"
    ))
}

fn name(mapped: &Mapped, relocation: &Rela) -> String {
    let symbol = mapped.symbols.get(relocation.symbol());
    let text = symbol.and_then(|symbol| text_of(&mapped.symbols, symbol).ok());
    text.map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}
