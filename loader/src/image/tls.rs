//! Thread-local storage of images.
//!
//! Every image with `thread_local` data is a *module*. Code reaches a variable through a pair (module, offset) that
//! lies in its global offset table and is filled at load, by a call of `__tls_get_addr` or through a TLS descriptor;
//! both are bound to functions of ours ([`entry`]). A module of ours has the top bit of its number set, so that the
//! same functions can serve variables of ordinary libraries by passing the call on to glibc.
//!
//! Each thread has a table of pointers to its blocks, reached through one native thread-local word. A block is made
//! at the first use by its thread: threads that were there before the image was loaded need nothing. It ends when
//! its thread ends, after the destructors of the variables, or when the image is unloaded, whichever is first; one
//! lock keeps the two apart. Numbers are never used twice, so a stale pointer in a table is never looked at.

pub(crate) mod ends;
pub(crate) mod entry;
#[cfg(test)]
mod tests;

use super::headers::TlsSegment;
use crate::sys::exit::die;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::threads::{END_ROUNDS, ThreadEnd, at_fork};
use ends::Ends;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::without_provenance_mut;
use std::sync::{Arc, Once};

/// Marks the number of a module as ours.
pub(crate) const OURS: usize = 1 << 63;

/// How code names a thread-local variable; glibc calls it `tls_index`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Reference {
    /// Number of the module.
    pub(crate) module: usize,
    /// Where in its block.
    pub(crate) offset: usize,
}

/// An image's module; dropped, all its blocks are gone.
#[derive(Debug)]
pub(crate) struct Module {
    index: usize,
}

/// What is known of a module, and the blocks that exist.
struct Blocks {
    initial: usize,
    initial_size: usize,
    /// Bytes in front of the block that make its address fit the alignment as the segment's does.
    skew: usize,
    layout: Layout,
    live: Vec<usize>,
}

/// State of the process: threads belong to it and not to a loader.
struct State {
    modules: Vec<Slot>,
    /// Destructors of thread-local variables.
    ends: Option<Ends>,
}

/// Who has a number.
enum Slot {
    /// A module.
    Live(Blocks),
    /// Nobody any more.
    Gone,
    /// Nobody, and whoever asks for a block of it ends the process with this message.
    Trap(Arc<[u8]>),
}

impl State {
    fn blocks(&mut self, index: usize) -> Option<&mut Blocks> {
        match self.modules.get_mut(index) {
            Some(Slot::Live(blocks)) => Some(blocks),
            _ => None,
        }
    }
}

/// A module without blocks: the number of a variable that is gone. Dropped, the message is less precise.
#[derive(Debug)]
pub(crate) struct TrapModule {
    index: usize,
}

impl TrapModule {
    /// One whose use ends the process with `message`.
    pub(crate) fn new(message: &[u8]) -> Self {
        let mut state = state();
        state.modules.push(Slot::Trap(message.into()));
        Self { index: state.modules.len() - 1 }
    }

    /// The number that goes into a [`Reference`].
    pub(crate) fn number(&self) -> usize {
        self.index | OURS
    }
}

impl Drop for TrapModule {
    fn drop(&mut self) {
        if let Some(slot) = state().modules.get_mut(self.index) {
            *slot = Slot::Gone;
        }
    }
}

static STATE: Mutex<State> = Mutex::new(State { modules: Vec::new(), ends: None });
static THREAD_END: ThreadEnd = ThreadEnd::new();

thread_local! {
    static HELD: RefCell<Option<MutexGuard<'static, State>>> = const { RefCell::new(None) };
}

/// Takes the lock. The thread that forks takes it before and gives it back after, in the parent and in the child, so
/// that a child never finds it taken by a thread it does not have.
fn state() -> MutexGuard<'static, State> {
    extern "C" fn before() {
        let guard = STATE.lock();
        // A thread whose locals are gone already forks without the lock.
        let _ = HELD.try_with(|held| *held.borrow_mut() = Some(guard));
    }
    extern "C" fn in_parent() {
        let _ = HELD.try_with(|held| held.borrow_mut().take());
    }
    extern "C" fn in_child() {
        let guard = HELD.try_with(|held| held.borrow_mut().take()).ok().flatten();
        // The other threads are not there.
        if let Some(mut guard) = guard
            && let Some(ends) = &mut guard.ends
        {
            ends.keep_own();
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| at_fork(before, in_parent, in_child));
    STATE.lock()
}

impl Module {
    /// Makes a module whose initial contents are at `initial` in memory. `None` for a block that no address space
    /// has room for.
    ///
    /// # Safety
    /// `segment.file_size` bytes can be read there as long as the module exists.
    pub(crate) unsafe fn new(segment: &TlsSegment, initial: usize) -> Option<Self> {
        let align = usize::try_from(segment.align).ok()?.max(align_of::<usize>());
        let skew = segment.address as usize & (align - 1);
        let size = usize::try_from(segment.size).ok()?.checked_add(skew)?;
        let blocks = Blocks {
            initial,
            initial_size: usize::try_from(segment.file_size).ok()?,
            skew,
            layout: Layout::from_size_align(size, align).ok()?,
            live: Vec::new(),
        };
        let mut state = state();
        state.modules.push(Slot::Live(blocks));
        Some(Self { index: state.modules.len() - 1 })
    }

    /// The number that goes into a [`Reference`].
    pub(crate) fn number(&self) -> usize {
        self.index | OURS
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let slot = state().modules.get_mut(self.index).map(|slot| std::mem::replace(slot, Slot::Gone));
        let Some(Slot::Live(blocks)) = slot else { return };
        for block in blocks.live {
            // SAFETY: made by `make_block` with this layout, and no code of the image will run again.
            unsafe { dealloc(block as *mut u8, blocks.layout) };
        }
    }
}

/// The address of the calling thread's instance of what `reference` names.
pub(crate) fn address(reference: Reference) -> usize {
    // SAFETY: a valid reference, of either kind.
    unsafe { entry::tls_get_addr(&reference) as usize }
}

/// Where the calling thread's block of the module with that number is, or 0 if it has none yet.
pub(crate) fn block(number: usize) -> usize {
    let (table, index) = (entry::table(), number & !OURS);
    // SAFETY: a table is a length followed by as many words, and belongs to this thread.
    unsafe { if table.is_null() || index >= *table { 0 } else { *table.add(1 + index) } }
}

/// Makes the calling thread's block of the module with that index and returns where its contents begin.
fn make_block(index: usize) -> usize {
    let (block, skew) = {
        let mut state = state();
        let message = match state.modules.get(index) {
            Some(Slot::Trap(message)) => Some(Arc::clone(message)),
            _ => None,
        };
        let Some(blocks) = state.blocks(index) else {
            // Code of an image that is gone, or code that was bound to one when it was unloaded by force.
            drop(state);
            let unknown = b"hotbed: use of a thread-local variable of a unit that was unloaded";
            die(&[message.as_deref().unwrap_or(unknown)])
        };
        // SAFETY: a block has at least one byte.
        let block = unsafe { alloc_zeroed(blocks.layout) };
        if block.is_null() {
            handle_alloc_error(blocks.layout);
        }
        // SAFETY: the initial contents are readable (contract of `Module::new`) and the block has room for them.
        unsafe {
            std::ptr::copy_nonoverlapping(
                blocks.initial as *const u8,
                block.add(blocks.skew),
                blocks.initial_size,
            );
        }
        blocks.live.push(block as usize);
        (block as usize, blocks.skew)
    };
    set_block(index, block + skew);
    block + skew
}

/// Enters a block into the calling thread's table: a length and that many addresses.
fn set_block(index: usize, contents: usize) {
    let table = entry::table();
    // SAFETY: a table is a length followed by as many words, and belongs to this thread.
    let length = if table.is_null() { 0 } else { unsafe { *table } };
    if index < length {
        // SAFETY: as above.
        unsafe { *table.add(1 + index) = contents };
        return;
    }
    let larger = (index + 1).max(2 * length).max(7);
    let layout = table_layout(larger);
    // SAFETY: the layout is not empty; the old table has `1 + length` words, of which the first changes.
    unsafe {
        let fresh = alloc_zeroed(layout).cast::<usize>();
        if fresh.is_null() {
            handle_alloc_error(layout);
        }
        if length > 0 {
            std::ptr::copy_nonoverlapping(table, fresh, 1 + length);
        }
        *fresh = larger;
        *fresh.add(1 + index) = contents;
        entry::set_table(fresh);
        if table.is_null() {
            // Without a way to learn of the thread's end its blocks are lost at its end: no reason to end the process.
            let _ = THREAD_END.set(without_provenance_mut(1), end_of_thread);
        } else {
            dealloc(table.cast(), table_layout(length));
        }
    }
}

fn table_layout(length: usize) -> Layout {
    let bytes = (1 + length) * size_of::<usize>();
    match Layout::from_size_align(bytes, align_of::<usize>()) {
        Ok(layout) => layout,
        Err(_) => handle_alloc_error(Layout::new::<usize>()),
    }
}

/// Called by glibc with the number of the round.
unsafe extern "C" fn end_of_thread(round: *mut c_void) {
    if (round as usize) < END_ROUNDS as usize
        && THREAD_END.set(without_provenance_mut(round as usize + 1), end_of_thread).is_ok()
    {
        return;
    }
    let table = entry::table();
    if table.is_null() {
        return;
    }
    entry::set_table(std::ptr::null_mut());
    // SAFETY: a table is a length followed by as many words, and nobody uses it any more.
    unsafe {
        let length = *table;
        let mut state = state();
        if let Some(ends) = &mut state.ends {
            ends.forget_own();
        }
        for index in 0..length {
            let contents = *table.add(1 + index);
            let Some(blocks) = state.blocks(index) else { continue };
            let block = contents.wrapping_sub(blocks.skew);
            if contents != 0
                && let Some(at) = blocks.live.iter().position(|live| *live == block)
            {
                blocks.live.swap_remove(at);
                dealloc(block as *mut u8, blocks.layout);
            }
        }
        drop(state);
        dealloc(table.cast(), table_layout(length));
    }
}
