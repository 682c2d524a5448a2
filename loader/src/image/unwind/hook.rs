//! libgcc's question, answered by us first.
//!
//! libgcc 12 and later find the unwind tables of ordinary libraries by glibc's `_dl_find_object` (glibc 2.35), which
//! they call through an import slot of `libgcc_s.so.1` like any function of another library. That slot is led to
//! [`find_object`], which hands on what is not about an image to whoever was there before. It is looked at again
//! whenever an image is loaded, as whoever binds it lazily at the same moment may write it once more.

use crate::image::dynamic::Dynamic;
use crate::image::elf::{PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD, Rela};
use crate::image::headers;
use crate::image::place::Place;
use crate::image::registry;
use crate::image::symbols::Symbols;
use crate::sys::libraries::{self, Loaded};
use crate::sys::memory::{page_down, store_word};
use crate::sys::sync::Mutex;
use std::ffi::{CString, c_int, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

const ASKED: &[u8] = b"_dl_find_object";

/// libgcc's slot, once it is led here. libgcc is never unloaded, as the Rust run-time library needs it.
static SLOT: AtomicUsize = AtomicUsize::new(0);
/// glibc's function.
static GLIBC: AtomicUsize = AtomicUsize::new(0);
/// Who was asked before: glibc's function, or another's that was there first.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// How many libraries had been loaded when the slot was looked for in vain.
static LOOKED_AT: Mutex<Option<u64>> = Mutex::new(None);

type FindObject = unsafe extern "C" fn(*mut c_void, *mut Answer) -> c_int;

/// glibc's `struct dl_find_object`.
#[repr(C)]
struct Answer {
    flags: u64,
    start: usize,
    end: usize,
    library: *const c_void,
    index: usize,
    reserved: [u64; 7],
}

/// A slot in libgcc.
struct Slot {
    address: usize,
    /// Whether it lies in what was made read-only after relocation.
    read_only: bool,
    /// Where libgcc is.
    libgcc: Range<usize>,
}

/// Whether libgcc asks us, which is arranged for if it can be.
pub(super) fn holds() -> bool {
    let slot = SLOT.load(Ordering::Acquire);
    if slot == 0 {
        return install();
    }
    // SAFETY: the slot of a library that stays loaded.
    let current = unsafe { &*(slot as *const AtomicUsize) };
    // Anything else is of somebody who asks us next.
    if current.load(Ordering::Acquire) == GLIBC.load(Ordering::Relaxed) {
        current.store(ours(), Ordering::Release);
    }
    true
}

fn ours() -> usize {
    find_object as FindObject as usize
}

fn install() -> bool {
    let mut looked_at = LOOKED_AT.lock();
    if SLOT.load(Ordering::Acquire) != 0 {
        return true;
    }
    let loaded = libraries::present();
    if looked_at.replace(loaded) == Some(loaded) {
        return false;
    }
    let Some(glibc) = libraries::default_symbol(c"_dl_find_object", None) else { return false };
    let (slot, own_library) = find();
    let Some(slot) = slot else { return false };
    if let Some(path) = own_library {
        libraries::keep(&path);
    }
    // SAFETY: the slot of a library that stays loaded.
    let current = unsafe { &*(slot.address as *const AtomicUsize) }.load(Ordering::Acquire);
    // A slot that is not bound yet leads back into libgcc.
    let next = if slot.libgcc.contains(&current) { glibc } else { current };
    GLIBC.store(glibc, Ordering::Release);
    NEXT.store(next, Ordering::Release);
    // SAFETY: as above; what is put there answers as what was there does.
    if unsafe { store_word(slot.address, ours(), slot.read_only) }.is_err() {
        return false;
    }
    // One in read-only memory was bound before and is not written again.
    SLOT.store(slot.address, Ordering::Release);
    true
}

/// The slot through which libgcc calls glibc's function, and the path of the library that this code is in, if that is
/// one: libgcc must not be led to what may be unloaded.
fn find() -> (Option<Slot>, Option<CString>) {
    let (mut slot, mut own_library) = (None, None);
    libraries::for_each(|loaded| {
        let name = loaded.name.to_bytes();
        let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if file.starts_with(b"libgcc_s.so") {
            slot = slot.take().or_else(|| slot_of(loaded));
        }
        if !name.is_empty() && place_of(loaded).is_code(ours()) {
            own_library = Some(loaded.name.to_owned());
        }
        true
    });
    (slot, own_library)
}

fn place_of(loaded: Loaded<'_>) -> Place {
    Place::of_loaded(loaded.base, loaded.segments.iter().filter(|segment| segment.p_type == PT_LOAD))
}

fn slot_of(loaded: Loaded<'_>) -> Option<Slot> {
    let range = loaded.segments.iter().find(|segment| segment.p_type == PT_DYNAMIC)?;
    let place = place_of(loaded);
    // SAFETY: glibc has mapped and relocated the library as its segments say, and it stays loaded meanwhile.
    unsafe {
        let (dynamic, tables) =
            Dynamic::read(&place, headers::Range { address: range.p_vaddr, size: range.p_memsz }).ok()?;
        let symbols = Symbols::new(&place, &tables).ok()?;
        let relocations = [dynamic.jump_relocations, dynamic.relocations];
        for table in relocations.into_iter().flatten() {
            let entries: &[Rela] = place.table(table.address, table.size as usize / size_of::<Rela>())?;
            let wanted = |relocation: &&Rela| {
                let symbol = symbols.get(relocation.symbol());
                symbol.is_some_and(|symbol| {
                    !symbol.is_defined() && symbols.text(symbol.name.into()) == Some(ASKED)
                })
            };
            if let Some(relocation) = entries.iter().find(wanted) {
                let at = relocation.offset;
                let address = (place.segment(at, 8).is_some() && at % 8 == 0).then(|| place.at(at))?;
                let relro = loaded.segments.iter().find(|segment| segment.p_type == PT_GNU_RELRO);
                let read_only = relro.is_some_and(|relro| {
                    (relro.p_vaddr..page_down((relro.p_vaddr + relro.p_memsz) as usize) as u64).contains(&at)
                });
                let (first, last) = (place.segments.first()?, place.segments.last()?);
                let libgcc = place.at(first.address)..place.at(last.address + last.size);
                return Some(Slot { address, read_only, libgcc });
            }
        }
    }
    None
}

/// What libgcc calls instead of glibc's function, in any thread and in signal handlers.
unsafe extern "C" fn find_object(address: *mut c_void, answer: *mut Answer) -> c_int {
    if let Some(found) = registry::unwindable(address as usize) {
        let registry::Unwindable { start, end, index } = found;
        let filled = Answer { flags: 0, start, end, library: std::ptr::null(), index, reserved: [0; 7] };
        // SAFETY: the caller has made room for an answer.
        unsafe { answer.write(filled) };
        return 0;
    }
    let next = NEXT.load(Ordering::Acquire);
    // SAFETY: stored before the slot was; this is the function's type.
    let next = unsafe { std::mem::transmute::<usize, FindObject>(next) };
    // SAFETY: the caller's arguments, handed on.
    unsafe { next(address, answer) }
}
