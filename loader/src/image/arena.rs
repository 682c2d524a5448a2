//! Arenas: address space that many small images share.
//!
//! An image of its own takes four mappings and as many pages, of which the system has some 65,000 for a process. Small
//! ones are linked so that they can be copied side by side instead (`note.rs`, the shape for arenas): a *shelf* is two
//! regions of [`STRIDE`] bytes one behind the other, the first for what is read and executed, the second for what is
//! read and written, and an image lies at the same offset in both.
//!
//! Code is written through a second mapping of the same memory, so that no page is writable and executable at once.
//! Shared memory stays shared when the process forks, and then neither process may write what the other runs: a fork
//! closes all shelves, in both of them, and what is loaded afterwards goes to new ones.
//!
//! State of the process, as the registry is: loaders share shelves.

use super::headers::Headers;
use super::note::ARENA_ALIGNMENT;
use super::registry::{Crowd, GRANULE};
use crate::sys::fork_lock::ForkLock;
use crate::sys::memory::Shelf;
use crate::sys::threads::at_fork;
use std::io;
use std::ops::Range;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a region. Images of another stride do not go into arenas.
pub(crate) const STRIDE: usize = 1 << 20;
/// The largest image that does.
pub(crate) const LARGEST: usize = STRIDE / 16;
/// That many small images from files get mappings of their own, under which tools know them by their names.
const FIRST_ONES: usize = 64;

static SHELVES: ForkLock<Vec<Board>> = ForkLock::new(Vec::new());
/// How many small images have mappings of their own.
static ALONE: AtomicUsize = AtomicUsize::new(0);

/// A shelf and what is free of it.
struct Board {
    shelf: Shelf,
    crowd: &'static Crowd,
    /// Free offsets, ascending, with something in use between any two.
    free: Vec<Range<usize>>,
    /// How many images are there.
    images: usize,
    /// Nothing more may be put there.
    closed: bool,
}

/// A place in a shelf; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Lease {
    start: usize,
    within: Range<usize>,
    crowd: &'static Crowd,
    /// Whether nothing else may ever come there.
    kept: bool,
}

/// A small image that has mappings of its own; dropped, it has none any more.
#[derive(Debug)]
pub(crate) struct Alone(());

/// How much of the file goes into a shelf, if the image has the shape for that.
pub(crate) fn extent(headers: &Headers) -> Option<usize> {
    let [code, data] = headers.segments.as_slice() else { return None };
    let apart = data.address.checked_sub(code.address)?.checked_sub(data.offset.checked_sub(code.offset)?)?;
    let end = data.offset.checked_add(data.size)?.max(code.offset + code.file_size);
    let fits = code.offset == 0
        && apart == STRIDE as u64
        && code.access.execute
        && !code.access.write
        && code.size == code.file_size
        && data.access.write
        && headers.outline.relro.is_none()
        && end <= LARGEST as u64;
    fits.then_some(end as usize)
}

/// Whether a small image that comes from a file shall have mappings of its own; then it is counted.
pub(crate) fn alone() -> Option<Alone> {
    let counted = ALONE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
        (count < FIRST_ONES).then_some(count + 1)
    });
    counted.ok().map(|_| Alone(()))
}

impl Drop for Alone {
    fn drop(&mut self) {
        ALONE.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    /// Copies an image of that extent into a shelf. `file` has as much of the file as its segments.
    ///
    /// # Errors
    /// What the system says when a new shelf is needed.
    pub(crate) fn new(file: &[u8], headers: &Headers, extent: usize) -> io::Result<Self> {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| at_fork(before_fork, after_fork, after_fork));
        let [code, data] = headers.segments.as_slice() else {
            return Err(io::Error::other("not of the shape for arenas"));
        };
        let length = extent.next_multiple_of(GRANULE);
        let mut shelves = SHELVES.lock();
        let known = shelves.iter_mut().rev().find_map(|board| Some((board.take(length)?, board)));
        let (within, board) = match known {
            Some(found) => found,
            None => {
                let shelf = Shelf::new(STRIDE)?;
                let crowd = Crowd::new(shelf.start(), STRIDE);
                let whole = 0..STRIDE;
                shelves.push(Board { shelf, crowd, free: vec![whole], images: 0, closed: false });
                let board = shelves.last_mut().ok_or_else(|| io::Error::other("no shelf"))?;
                let within = board.take(length).ok_or_else(|| io::Error::other("too large for a shelf"))?;
                (within, board)
            }
        };
        let part =
            |offset: u64, size: u64| file.get(offset as usize..(offset + size) as usize).unwrap_or_default();
        board.shelf.put_code(within.start, part(0, code.file_size));
        // What is not in the file is zero, whoever was there before. Pages that only have code in the other region are left
        // alone.
        let at = within.start + data.offset as usize;
        board.shelf.put_data(at, part(data.offset, data.file_size));
        board.shelf.clear_data(at + data.file_size as usize..at + data.size as usize);
        Ok(Self { start: board.shelf.start(), within, crowd: board.crowd, kept: false })
    }

    /// Address of the beginning of the file.
    pub(crate) fn start(&self) -> usize {
        self.start + self.within.start
    }

    /// How far into its part of a region `address` is, if it is in one of the two parts.
    pub(crate) fn offset_of(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.start())?;
        [Some(offset), offset.checked_sub(STRIDE)]
            .into_iter()
            .flatten()
            .find(|offset| *offset < self.within.len())
    }

    /// From now on dropping it gives nothing back: its code traps wherever it is entered, as long as the process lives. What
    /// a fork has shared with another process stays as it is, as that one may run it.
    pub(crate) fn keep_addresses(&mut self) {
        self.kept = true;
    }

    /// From the first byte in the first region to the last in the second. Others have bytes in between.
    pub(crate) fn range(&self) -> Range<usize> {
        self.start()..self.start + STRIDE + self.within.end
    }

    /// The crowd and the offsets in it.
    pub(crate) fn in_crowd(&self) -> (&'static Crowd, Range<usize>) {
        (self.crowd, self.within.clone())
    }
}

const _: () = assert!(GRANULE as u64 >= ARENA_ALIGNMENT);

impl Drop for Lease {
    fn drop(&mut self) {
        let mut shelves = SHELVES.lock();
        let Some(at) = shelves.iter().position(|board| board.shelf.start() == self.start) else { return };
        let board = &mut shelves[at];
        if self.kept {
            if !board.closed {
                board.shelf.trap_code(self.within.clone());
                board.shelf.clear_data(self.within.clone());
            }
            return;
        }
        board.give_back(self.within.clone());
        if board.images > 0 {
            return;
        }
        // One is kept for whoever comes next.
        let needless =
            board.closed || shelves.iter().any(|other| !other.closed && other.shelf.start() != self.start);
        if needless {
            let board = shelves.swap_remove(at);
            board.crowd.leave();
        }
    }
}

impl Board {
    /// Takes the first free range of that length.
    fn take(&mut self, length: usize) -> Option<Range<usize>> {
        if self.closed {
            return None;
        }
        let at = self.free.iter().position(|range| range.len() >= length)?;
        let range = &mut self.free[at];
        let taken = range.start..range.start + length;
        range.start = taken.end;
        if range.start == range.end {
            self.free.remove(at);
        }
        self.images += 1;
        Some(taken)
    }

    fn give_back(&mut self, range: Range<usize>) {
        self.images -= 1;
        let at = self.free.partition_point(|free| free.start < range.start);
        self.free.insert(at, range);
        if at + 1 < self.free.len() && self.free[at].end == self.free[at + 1].start {
            self.free[at].end = self.free.remove(at + 1).end;
        }
        if at > 0 && self.free[at - 1].end == self.free[at].start {
            self.free[at - 1].end = self.free.remove(at).end;
        }
    }
}

extern "C" fn before_fork() {
    SHELVES.hold(|shelves| shelves.iter_mut().for_each(|board| board.closed = true));
}

extern "C" fn after_fork() {
    // SAFETY: `before_fork` was called in this thread.
    unsafe { SHELVES.let_go() };
}

#[cfg(test)]
mod tests;
