//! The memory of a session: one reservation below 2 GiB, so that everything in it reaches everything else.
//!
//! Links are packed into three regions: code, constants and data. How no page is ever writable and executable was decided
//! by what a link costs:
//!
//! - Changing the access of pages (`mprotect`) wants pages of its own for every link, or code that others run at that
//!   moment loses its access. 4 KiB a function, two calls of the system a link, and mappings that are split.
//! - Memory mapped twice takes any number of links into one page with no call at all. But it is shared with the child of
//!   a fork, and the two would write what the other runs.
//!
//! Code and constants that are linked never change, so sharing them is fine; what must not happen is that either process
//! puts something new there. So code and constants lie in *pieces*, mapped twice, and a fork closes all pieces in both
//! processes: the free rest of the last one is replaced by memory of its own as soon as something is linked, and what is
//! removed from a closed piece is not used again. Data are private memory, written in place.
//!
//! Free data and constants are zero, free code traps wherever it is entered (or was never used).

use super::fork;
use super::frames;
use super::free::Free;
use crate::shim::session::{Frames, Place};
use hotbed_loader::boundary::{FreshArea, GRANULE};
use hotbed_loader::sys::memory::{PAGE, page_down, page_up};
use hotbed_loader::sys::reservation::{Reservation, Writer};
use hotbed_loader::sys::sync::Mutex;
use hotbed_loader::sys::unwind::Registration;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a region. Three of these and the table that leads to unwind tables stay below 2 GiB.
const REGION: usize = 640 << 20;
/// Where there are limits: no smaller than that.
const SMALLEST_REGION: usize = REGION >> 6;
/// A piece, unless a link wants more.
const PIECE: usize = 16 << 20;
/// Data become accessible in steps, as a system that promises no more than it has counts what is.
const DATA_STEP: usize = 1 << 20;
const BREAKPOINT: u8 = 0xcc;

/// Where links go.
pub(super) struct Arena {
    space: Reservation,
    area: FreshArea,
    state: Mutex<State>,
    /// Whether unwinders find tables through the area; otherwise each link's are registered.
    found_by_address: AtomicBool,
}

struct State {
    /// Bytes of a region: so far the constants of a piece are from its code.
    region: usize,
    /// From here on there are no pieces in the region of code.
    frontier: usize,
    pieces: Vec<Piece>,
    data: Free,
    /// The data that can be accessed.
    accessible: Range<usize>,
    /// The forks that the open pieces know of.
    forks: u64,
    /// Registered unwind tables, by where the code is.
    registered: HashMap<usize, Registration>,
}

/// Memory for code and as much for constants, mapped twice.
struct Piece {
    code: Range<usize>,
    free_code: Free,
    free_constants: Free,
    /// None when it is closed and everybody who was given a place has written it.
    writer: Option<Writer>,
    closed: bool,
    /// How many places are still being written.
    pending: usize,
}

impl Arena {
    /// An empty one, at that page if there is room.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new(wish: Option<usize>) -> io::Result<Self> {
        // Who wishes for a place wants to reach something beside it.
        let mut region = if wish.is_some() { REGION / 2 } else { REGION };
        loop {
            match Self::with_region(region, wish) {
                Err(_) if region > SMALLEST_REGION => region /= 2,
                result => return result,
            }
        }
    }

    fn with_region(region: usize, wish: Option<usize>) -> io::Result<Self> {
        let table = region / GRANULE * size_of::<u32>();
        let space = Reservation::new(3 * region + table, wish)?;
        let base = space.start();
        let area = FreshArea { base, code: base, end: base + region, table: base + 3 * region };
        let data = base + 2 * region..base + 3 * region;
        let state = State {
            region,
            frontier: base,
            pieces: Vec::new(),
            accessible: data.start..data.start,
            data: Free::new(data),
            forks: fork::count(),
            registered: HashMap::new(),
        };
        Ok(Self { space, area, state: Mutex::new(state), found_by_address: AtomicBool::new(false) })
    }

    /// What the loader is to know.
    pub(super) fn area(&self) -> &FreshArea {
        &self.area
    }

    /// From now on unwinders find tables through the area.
    pub(super) fn found_by_address(&self) {
        self.found_by_address.store(true, Ordering::Relaxed);
    }

    /// Finds a place for what `place` wants, and fills in where.
    pub(super) fn take(&self, place: &mut Place) -> Option<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.notice_forks();
        // A whole granule belongs to one link.
        place.code_size = place.code_size.checked_next_multiple_of(GRANULE as u64)?;
        let data = state.take_data(&self.space, place.data_size as usize, place.data_alignment as usize)?;
        place.code_alignment = place.code_alignment.max(GRANULE as u64);
        if state.take_shared(&self.space, &self.area, place).is_none() {
            if !data.is_empty() {
                state.data.give_back(data);
            }
            return None;
        }
        place.data = data.start as u64;
        Some(())
    }

    /// Everything is written to `place`: its code can be called and unwound from now on.
    pub(super) fn publish(&self, place: &mut Place, frames: Option<&Frames<'_>>) {
        if let Some(frames) = frames {
            self.make_unwindable(place, frames);
        }
        self.state.lock().is_written(place);
    }

    fn make_unwindable(&self, place: &Place, frames: &Frames<'_>) {
        let linked = place.code();
        let at = frames.entry as usize;
        let entry =
            frames::entry(frames.section.bytes(), frames.address as usize, at, &linked, self.area.base);
        let Some(entry) = entry.filter(|entry| entry.len() as u64 <= frames.entry_size) else { return };
        let writer = place.constants_writer + (frames.entry - place.constants);
        // SAFETY: the place in the constants that was kept for the entry, written by nobody else; the area is this
        // arena's, whose table has a word for each granule of the link, and the entry is complete.
        unsafe {
            std::ptr::copy_nonoverlapping(entry.as_ptr(), writer as *mut u8, entry.len());
            self.area.enter(linked.clone(), at);
        }
        if !self.found_by_address.load(Ordering::Relaxed) {
            // SAFETY: JITLink ends the section with a zero, and has checked its records; it stays until the place is
            // given back.
            if let Some(registration) = unsafe { Registration::new(frames.address as usize) } {
                self.state.lock().registered.insert(linked.start, registration);
            }
        }
    }

    /// Nobody uses the place any more, or it was never written to the end.
    pub(super) fn give_back(&self, place: &mut Place) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.notice_forks();
        let (code, data) = (place.code(), place.data());
        if !code.is_empty() {
            state.registered.remove(&code.start);
            // SAFETY: the area is this arena's, and this is code of it.
            unsafe { self.area.leave(code.clone()) };
        }
        if !data.is_empty() {
            // SAFETY: accessible memory of the arena that nobody uses any more.
            unsafe { (data.start as *mut u8).write_bytes(0, data.len()) };
            let whole = state.data.give_back(data.clone());
            if let Some(pages) = emptied(&data, &whole) {
                // SAFETY: as above; nothing else lies in these pages.
                unsafe { self.space.empty(pages) };
            }
        }
        state.is_written(place);
        if let Some(piece) = state.piece(place) {
            piece.give_back(code, place.constants());
        }
    }
}

/// The pages that `range` has bytes of and that lie in `free`, a free range around it.
fn emptied(range: &Range<usize>, free: &Range<usize>) -> Option<Range<usize>> {
    let first = page_down(range.start);
    let start = if first < free.start { page_up(free.start)? } else { first };
    let last = page_up(range.end)?;
    let end = if last > free.end { page_down(free.end) } else { last };
    (start < end).then_some(start..end)
}

impl State {
    /// Closes all pieces if the process has forked, or was forked, since somebody looked.
    fn notice_forks(&mut self) {
        let forks = fork::count();
        if forks == self.forks {
            return;
        }
        self.forks = forks;
        if let Some(last) = self.pieces.last_mut().filter(|piece| !piece.closed) {
            // What was never used of the last one is used by nobody.
            let used = last.free_code.untouched().max(last.free_constants.untouched() - self.region);
            self.frontier = page_up(used).unwrap_or(last.code.end).min(last.code.end);
            last.code.end = self.frontier;
        }
        for piece in &mut self.pieces {
            piece.closed = true;
            piece.stop_writing();
        }
        self.pieces.retain(|piece| !piece.code.is_empty());
    }

    fn take_data(&mut self, space: &Reservation, size: usize, alignment: usize) -> Option<Range<usize>> {
        if size == 0 {
            return Some(0..0);
        }
        let taken = self.data.take(size, alignment)?;
        if taken.end > self.accessible.end {
            let end = taken.end.next_multiple_of(DATA_STEP).min(self.accessible.start + self.region);
            if space.fill(self.accessible.end..end).is_err() {
                self.data.give_back(taken);
                return None;
            }
            self.accessible.end = end;
        }
        Some(taken)
    }

    /// Finds a place for code and constants, in a new piece if none has room.
    fn take_shared(&mut self, space: &Reservation, area: &FreshArea, place: &mut Place) -> Option<()> {
        if place.code_size == 0 && place.constants_size == 0 {
            return Some(());
        }
        if self.pieces.iter_mut().rev().any(|piece| piece.take(place).is_some()) {
            return Some(());
        }
        let slack = place.code_alignment.max(place.constants_alignment).max(PAGE as u64);
        let wanted = place.code_size.max(place.constants_size).checked_add(slack)?;
        let length = page_up(usize::try_from(wanted).ok()?)?.max(PIECE).min(area.end - self.frontier);
        if (length as u64) < wanted {
            return None;
        }
        let code = self.frontier..self.frontier + length;
        let constants = code.start + self.region;
        let words = |address| area.table + (address - area.code) / GRANULE * size_of::<u32>();
        // Before a fork a longer piece may have been here, whose table stays.
        space.fill(page_down(words(code.start))..page_up(words(code.end))?).ok()?;
        let writer = space.fill_twice(code.start, constants, length).ok()?;
        self.frontier = code.end;
        self.pieces.push(Piece {
            free_code: Free::new(code.clone()),
            free_constants: Free::new(constants..constants + length),
            code,
            writer: Some(writer),
            closed: false,
            pending: 0,
        });
        self.pieces.last_mut()?.take(place)
    }

    /// The piece that a place is in, if it has code or constants.
    fn piece(&mut self, place: &Place) -> Option<&mut Piece> {
        self.pieces.iter_mut().find(|piece| piece.code.start as u64 == place.piece)
    }

    /// Nobody writes to the place any more.
    fn is_written(&mut self, place: &mut Place) {
        if std::mem::take(&mut place.pending) == 0 {
            return;
        }
        if let Some(piece) = self.piece(place) {
            piece.pending -= 1;
            piece.stop_writing();
        }
    }
}

impl Piece {
    /// Finds a place for code and constants.
    fn take(&mut self, place: &mut Place) -> Option<()> {
        if self.closed {
            return None;
        }
        let writer = self.writer.as_ref()?;
        let find = |free: &mut Free, size: u64, alignment: u64| match size {
            0 => Some(0..0),
            _ => free.take(size as usize, alignment as usize),
        };
        let code = find(&mut self.free_code, place.code_size, place.code_alignment)?;
        let constants = find(&mut self.free_constants, place.constants_size, place.constants_alignment);
        let Some(constants) = constants else {
            if !code.is_empty() {
                self.free_code.give_back(code);
            }
            return None;
        };
        let written = |range: &Range<usize>| writer.place(range.start).unwrap_or_default() as u64;
        place.code_writer = written(&code);
        place.constants_writer = written(&constants);
        place.code = code.start as u64;
        place.constants = constants.start as u64;
        place.piece = self.code.start as u64;
        place.pending = 1;
        self.pending += 1;
        Some(())
    }

    /// Nobody uses these any more. What may be another process's as well stays as it is.
    fn give_back(&mut self, code: Range<usize>, constants: Range<usize>) {
        let Some(writer) = self.writer.as_ref().filter(|_| !self.closed) else { return };
        let parts = [(code, BREAKPOINT, &mut self.free_code), (constants, 0, &mut self.free_constants)];
        for (range, filling, free) in parts {
            let Some(place) = writer.place(range.start).filter(|_| !range.is_empty()) else { continue };
            // SAFETY: where these bytes are written, which nobody uses any more.
            unsafe { (place as *mut u8).write_bytes(filling, range.len()) };
            let whole = free.give_back(range.clone());
            if let Some(pages) = emptied(&range, &whole) {
                // SAFETY: as above; nothing else lies in these pages.
                unsafe { writer.empty(pages) };
            }
        }
    }

    /// Gives up writing to a closed piece when everybody has done so.
    fn stop_writing(&mut self) {
        if self.closed && self.pending == 0 {
            self.writer = None;
        }
    }
}

#[cfg(test)]
mod tests;
