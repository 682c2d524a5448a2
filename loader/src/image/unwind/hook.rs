//! libgcc's question, answered by us first.
//!
//! libgcc 12 and later find the unwind tables of ordinary libraries by glibc's `_dl_find_object` (glibc 2.35), which
//! they call through an import slot like any function of another library. That slot is led to [`find_object`], which
//! hands on what is not about an image to whoever was there before. It is looked at again whenever an image is loaded, as
//! whoever binds it lazily at the same moment may write it once more.
//!
//! A process can have two libgccs: `libgcc_s.so.1`, and one that is linked into the file that this code is in
//! (`-static-libgcc`; the command has it). Nor need `libgcc_s.so.1` be there from the beginning: C++ libraries bring it, and
//! glibc opens it when a thread is to be ended or wants to know its callers. Whoever opens libraries says so
//! ([`super::look_again`]), and what makes glibc open it gets it before ([`bring_in`]).

use crate::image::dynamic::Dynamic;
use crate::image::elf::{PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD, Rela};
use crate::image::headers;
use crate::image::place::Place;
use crate::image::registry;
use crate::image::symbols::Symbols;
use crate::sys::libraries::{self, Loaded};
use crate::sys::linker::FoundObject;
use crate::sys::memory::{page_down, store_word};
use crate::sys::sync::Mutex;
use std::ffi::{CStr, CString, c_int, c_void};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

const ASKED: &CStr = c"_dl_find_object";
const LIBRARY: &CStr = c"libgcc_s.so.1";

/// The slot of the libgcc that is linked into the file that this code is in, once it is led here.
static OWN: AtomicUsize = AtomicUsize::new(0);
/// That of `libgcc_s.so.1`, which is kept from then on; [`NO_SLOT`] if it does not ask.
static SHARED: AtomicUsize = AtomicUsize::new(0);
/// Stands for the slot of a library that has none.
const NO_SLOT: usize = 1;
/// Who was asked before, if that was not glibc.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// How many libraries had been loaded when the slots were looked for.
static LOOKED_AT: Mutex<Option<u64>> = Mutex::new(None);

type FindObject = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int;

/// A slot in libgcc.
struct Slot {
    address: usize,
    /// Whether it lies in what was made read-only after relocation.
    read_only: bool,
    /// Where the file is that has it.
    file: Range<usize>,
}

/// Whether every libgcc of this process asks us, and there is one. That is arranged for if it can be.
pub(super) fn holds() -> bool {
    if SHARED.load(Ordering::Acquire) == 0 {
        install();
    }
    let slots = [&OWN, &SHARED].map(|slot| slot.load(Ordering::Acquire));
    for slot in slots.into_iter().filter(|slot| *slot > NO_SLOT) {
        // SAFETY: the slot of something that stays loaded.
        let current = unsafe { &*(slot as *const AtomicUsize) };
        // Anything else is of somebody who asks us next.
        if glibc() == Some(current.load(Ordering::Acquire)) {
            current.store(ours(), Ordering::Release);
        }
    }
    slots[1] != NO_SLOT && slots != [0, 0]
}

/// Sees to it that `libgcc_s.so.1` is there, and asks us, before glibc opens it unseen.
pub(crate) fn bring_in() {
    if SHARED.load(Ordering::Acquire) == 0 {
        // Where it is not installed, glibc does without.
        let _ = libraries::Handle::open(LIBRARY, false).map(std::mem::forget);
        holds();
    }
}

fn ours() -> usize {
    find_object as FindObject as usize
}

/// Address of glibc's function, if it has one.
fn glibc() -> Option<usize> {
    static FOUND: OnceLock<Option<usize>> = OnceLock::new();
    *FOUND.get_or_init(|| libraries::default_symbol(ASKED, None))
}

/// Leads the slots here that are not yet.
fn install() {
    let mut looked_at = LOOKED_AT.lock();
    let loaded = libraries::present();
    if SHARED.load(Ordering::Acquire) != 0 || looked_at.replace(loaded) == Some(loaded) || glibc().is_none() {
        return;
    }
    let Found { own, own_library, shared } = Found::new();
    if let Some(path) = own_library {
        libraries::keep(&path);
    }
    if let Some(slot) = own.filter(|_| OWN.load(Ordering::Acquire) == 0) {
        lead(&slot, &OWN);
    }
    match shared {
        Some(Some(slot)) => {
            libraries::keep(LIBRARY);
            lead(&slot, &SHARED);
        }
        Some(None) => SHARED.store(NO_SLOT, Ordering::Release),
        None => {}
    }
}

/// Leads a slot here, and remembers it.
fn lead(slot: &Slot, remembered: &AtomicUsize) {
    // SAFETY: the slot of something that stays loaded.
    let current = unsafe { &*(slot.address as *const AtomicUsize) }.load(Ordering::Acquire);
    // A slot that is not bound yet leads back into its file.
    if !slot.file.contains(&current) && Some(current) != glibc() {
        NEXT.store(current, Ordering::Release);
    }
    // SAFETY: as above; what is put there answers as what was there does.
    if unsafe { store_word(slot.address, ours(), slot.read_only) }.is_ok() {
        // One in read-only memory was bound before and is not written again.
        remembered.store(slot.address, Ordering::Release);
    }
}

/// What of libgcc is loaded.
#[derive(Default)]
struct Found {
    /// Of the file that this code is in.
    own: Option<Slot>,
    /// The path of that file, if it is a library: libgcc must not be led to what may be unloaded.
    own_library: Option<CString>,
    /// Of `libgcc_s.so.1`, if that is loaded.
    shared: Option<Option<Slot>>,
}

impl Found {
    fn new() -> Self {
        let mut found = Self::default();
        libraries::for_each(|loaded| {
            let name = loaded.name.to_bytes();
            let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            if file.starts_with(b"libgcc_s.so") {
                found.shared.get_or_insert_with(|| slot_of(loaded));
            } else if place_of(loaded).is_code(ours()) {
                found.own_library = (!name.is_empty()).then(|| loaded.name.to_owned());
                found.own = slot_of(loaded);
            }
            true
        });
        found
    }
}

fn place_of(loaded: Loaded<'_>) -> Place {
    Place::of_loaded(loaded.base, loaded.segments.iter().filter(|segment| segment.p_type == PT_LOAD))
}

fn slot_of(loaded: Loaded<'_>) -> Option<Slot> {
    let range = loaded.segments.iter().find(|segment| segment.p_type == PT_DYNAMIC)?;
    let place = place_of(loaded);
    // SAFETY: glibc has mapped and relocated the file as its segments say, and it stays loaded meanwhile.
    unsafe {
        let (dynamic, tables) =
            Dynamic::read(&place, headers::Range { address: range.p_vaddr, size: range.p_memsz }).ok()?;
        let (asked, _) = Symbols::new(&place, &tables).ok()?.import(ASKED.to_bytes())?;
        let relocations = [dynamic.jump_relocations, dynamic.relocations];
        for table in relocations.into_iter().flatten() {
            let entries: &[Rela] = place.table(table.address, table.size as usize / size_of::<Rela>())?;
            if let Some(relocation) = entries.iter().find(|relocation| relocation.symbol() == asked) {
                let at = relocation.offset;
                let address = (place.segment(at, 8).is_some() && at % 8 == 0).then(|| place.at(at))?;
                let relro = loaded.segments.iter().find(|segment| segment.p_type == PT_GNU_RELRO);
                let read_only = relro.is_some_and(|relro| {
                    (relro.p_vaddr..page_down((relro.p_vaddr + relro.p_memsz) as usize) as u64).contains(&at)
                });
                let (first, last) = (place.segments.first()?, place.segments.last()?);
                let file = place.at(first.address)..place.at(last.address + last.size);
                return Some(Slot { address, read_only, file });
            }
        }
    }
    None
}

/// What libgcc calls instead of glibc's `_dl_find_object`, in any thread and in signal handlers, and what units get for it.
///
/// # Safety
/// As for glibc's: `answer` can be written to.
pub(crate) unsafe extern "C" fn find_object(address: *mut c_void, answer: *mut FoundObject) -> c_int {
    if let Some(found) = registry::unwindable(address as usize) {
        let registry::Unwindable { start, end, index } = found;
        let filled = FoundObject { flags: 0, start, end, library: std::ptr::null(), index, reserved: [0; 7] };
        // SAFETY: the caller's promise.
        unsafe { answer.write(filled) };
        return 0;
    }
    let next = match NEXT.load(Ordering::Acquire) {
        0 => glibc(),
        next => Some(next),
    };
    // Without glibc's there is nobody to be asked.
    let Some(next) = next else { return -1 };
    // SAFETY: a function of that type: glibc's, or what somebody else put into the slot.
    let next = unsafe { std::mem::transmute::<usize, FindObject>(next) };
    // SAFETY: the caller's arguments, handed on.
    unsafe { next(address, answer) }
}
