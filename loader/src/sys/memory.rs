//! Mappings: address space that belongs to an image.

use crate::sys::sync::Mutex;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use std::sync::atomic::{AtomicUsize, Ordering};

/// Size of a page; x86-64 Linux has no other.
pub const PAGE: usize = 4096;

/// `address` rounded down to a page.
pub const fn page_down(address: usize) -> usize {
    address & !(PAGE - 1)
}

/// `address` rounded up to a page; `None` past the end of the address space.
pub const fn page_up(address: usize) -> Option<usize> {
    match address.checked_add(PAGE - 1) {
        Some(sum) => Some(page_down(sum)),
        None => None,
    }
}

/// What may be done with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Executing.
    pub execute: bool,
}

impl Access {
    fn bits(self) -> i32 {
        (if self.read { libc::PROT_READ } else { 0 })
            | (if self.write { libc::PROT_WRITE } else { 0 })
            | (if self.execute { libc::PROT_EXEC } else { 0 })
    }
}

/// One contiguous piece of address space, given back when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: usize,
    length: usize,
    /// Whether it lies where it was asked for.
    chosen: bool,
    /// Whether its addresses are never given back.
    kept: bool,
}

impl Mapping {
    /// Reserves `length` bytes (a multiple of [`PAGE`], not zero) wherever there is room and maps `file` privately
    /// from `offset` (a multiple of [`PAGE`]) over all of it. What lies past the end of the file must not be touched.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_file(file: BorrowedFd<'_>, offset: u64, length: usize, access: Access) -> io::Result<Self> {
        let (offset, file) = (file_offset(offset)?, file.as_raw_fd());
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, access.bits(), libc::MAP_PRIVATE, file, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start as usize, length, chosen: false, kept: false })
    }

    /// Zeros, `length` bytes (a multiple of [`PAGE`], not zero) wherever there is room.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_zeros(length: usize, access: Access) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access.bits(), flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start as usize, length, chosen: false, kept: false })
    }

    /// From now on dropping it gives the memory back but not the addresses: whoever uses one of them is sure to fault, as
    /// long as the process lives.
    pub fn keep_addresses(&mut self) {
        self.kept = true;
    }

    /// Nothing yet, at `start` (a multiple of [`PAGE`]), to be made larger at its end.
    pub fn growing(start: usize) -> Self {
        Self { start, length: 0, chosen: true, kept: false }
    }

    /// Maps the next `length` bytes (a multiple of [`PAGE`], not zero) if they are free: those of `file` from `offset`
    /// (likewise), or zeros without one.
    ///
    /// # Errors
    /// What the system says; that something is there already.
    pub fn grow(
        &mut self,
        length: usize,
        file: Option<(BorrowedFd<'_>, u64)>,
        access: Access,
    ) -> io::Result<()> {
        let place = self.start + self.length;
        let mut flags = libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
        let (file, offset) = match file {
            Some((file, offset)) => (file.as_raw_fd(), file_offset(offset)?),
            None => {
                flags |= libc::MAP_ANONYMOUS;
                (-1, 0)
            }
        };
        // SAFETY: nothing that exists is replaced.
        let start = unsafe { libc::mmap(place as *mut _, length, access.bits(), flags, file, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if start as usize != place {
            // Linux before 4.17 takes the address for a hint.
            // SAFETY: mapped just now.
            unsafe { libc::munmap(start, length) };
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.length += length;
        Ok(())
    }

    /// Address of the first byte.
    pub fn start(&self) -> usize {
        self.start
    }

    /// How many bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Maps `file` from `offset` privately over `length` bytes at `at` within this mapping; all three are multiples
    /// of [`PAGE`]. `populate` brings all pages in at once, as copies of its own if they are writable.
    ///
    /// # Errors
    /// What the system says, or that the range is not inside.
    pub fn replace_with_file(
        &mut self,
        at: usize,
        length: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        access: Access,
        populate: bool,
    ) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | if populate { libc::MAP_POPULATE } else { 0 };
        self.replace(at, length, access, flags, file.as_raw_fd(), file_offset(offset)?)
    }

    /// Puts zeros over `length` bytes at `at`, multiples of [`PAGE`].
    ///
    /// # Errors
    /// As for [`Mapping::replace_with_file`].
    pub fn replace_with_zeros(&mut self, at: usize, length: usize, access: Access) -> io::Result<()> {
        self.replace(at, length, access, libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANONYMOUS, -1, 0)
    }

    fn replace(
        &mut self,
        at: usize,
        length: usize,
        access: Access,
        flags: i32,
        file: i32,
        offset: libc::off_t,
    ) -> io::Result<()> {
        let place = self.place(at, length)?;
        // SAFETY: the range lies inside this mapping, which nobody else has references into while it is borrowed
        // mutably.
        let start = unsafe { libc::mmap(place as *mut _, length, access.bits(), flags, file, offset) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Brings the pages of `length` writable bytes at `at` (multiples of [`PAGE`]) in at once, as copies of its own: less
    /// work than one by one. Where the system cannot do that, they come when they are touched.
    pub fn populate(&self, at: usize, length: usize) {
        if let Ok(place) = self.place(at, length) {
            // SAFETY: the range lies inside this mapping; nothing in it changes. Linux before 5.14 refuses.
            unsafe { libc::madvise(place as *mut _, length, libc::MADV_POPULATE_WRITE) };
        }
    }

    /// Changes what may be done with `length` bytes at `at`, multiples of [`PAGE`].
    ///
    /// # Errors
    /// As for [`Mapping::replace_with_file`].
    ///
    /// # Safety
    /// Nobody relies on an access to that range that is taken away.
    pub unsafe fn protect(&self, at: usize, length: usize, access: Access) -> io::Result<()> {
        let place = self.place(at, length)?;
        // SAFETY: the range lies inside this mapping; the rest is the caller's promise.
        if unsafe { libc::mprotect(place as *mut _, length, access.bits()) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn place(&self, at: usize, length: usize) -> io::Result<usize> {
        if at.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(io::Error::other("outside of the mapping"));
        }
        Ok(self.start + at)
    }
}

/// Stretches of a gigabyte that keep their page tables.
static ANCHORS: Mutex<Vec<usize>> = Mutex::new(Vec::new());
/// No more than that many.
const MOST_ANCHORS: usize = 8;

/// Keeps a page in the gigabyte around `address` for the rest of the process, so that the upper levels of its page tables
/// need not be made again for the next mapping there.
fn anchor(address: usize) {
    const STRETCH: usize = 1 << 30;
    let mut anchors = ANCHORS.lock();
    let stretch = address / STRETCH;
    if anchors.len() == MOST_ANCHORS || anchors.contains(&stretch) {
        return;
    }
    anchors.push(stretch);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | libc::MAP_FIXED_NOREPLACE;
    let place = ((stretch + 1) * STRETCH - PAGE) as *mut _;
    // SAFETY: nothing that exists is replaced. It is of no consequence if the page is taken.
    unsafe { libc::mmap(place, PAGE, libc::PROT_READ, flags, -1, 0) };
}

impl Drop for Mapping {
    #[inline]
    fn drop(&mut self) {
        // One that could not be made ends here, without the page of code that has the rest.
        if self.length != 0 {
            self.give_back();
        }
    }
}

impl Mapping {
    fn give_back(&mut self) {
        if self.chosen {
            anchor(self.start);
        }
        if self.kept {
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: the range is ours, and whoever drops it has ended all use of it.
            let start =
                unsafe { libc::mmap(self.start as *mut _, self.length, libc::PROT_NONE, flags, -1, 0) };
            if start == libc::MAP_FAILED {
                // Better what was there than what may come there.
                // SAFETY: as above.
                unsafe { libc::mprotect(self.start as *mut _, self.length, libc::PROT_NONE) };
            }
            return;
        }
        // SAFETY: the range is ours, and whoever drops it has ended all use of it.
        unsafe { libc::munmap(self.start as *mut _, self.length) };
    }
}

/// Two regions of the same length one behind the other: memory for code, and memory for data. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Shelf {
    start: usize,
    region: usize,
    /// The memory for code once more, where it can be written.
    writer: usize,
    /// Bytes that were written there since its pages were let go of.
    written: usize,
}

impl Shelf {
    /// Regions of `region` bytes, a multiple of [`PAGE`].
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(region: usize) -> io::Result<Self> {
        let file = super::files::memory_file("hotbed arena")?;
        // SAFETY: makes a file that nobody else has yet longer.
        if unsafe { libc::ftruncate(file.as_raw_fd(), file_offset(region as u64)?) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let shared = libc::MAP_SHARED;
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let map = |place: usize, length, access, flags, file| {
            // SAFETY: at a place of the system's choice, or over what this function has reserved.
            let start = unsafe { libc::mmap(place as *mut _, length, access, flags, file, 0) };
            if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start as usize) }
        };
        let start = map(0, 2 * region, libc::PROT_READ | libc::PROT_WRITE, private, -1)?;
        // From here on dropping it gives everything back.
        let mut shelf = Self { start, region, writer: 0, written: 0 };
        let fixed = shared | libc::MAP_FIXED;
        map(start, region, libc::PROT_READ | libc::PROT_EXEC, fixed, file.as_raw_fd())?;
        shelf.writer = map(0, region, libc::PROT_READ | libc::PROT_WRITE, shared, file.as_raw_fd())?;
        Ok(shelf)
    }

    /// Address of the first region.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Writes code at an offset. What is there must not be in use.
    pub(crate) fn put_code(&mut self, at: usize, bytes: &[u8]) {
        // So much may count twice as memory of the process.
        const TWICE: usize = 64 << 10;
        if at + bytes.len() > self.region {
            return;
        }
        // SAFETY: inside of the mapping, which nobody has references into.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), (self.writer + at) as *mut u8, bytes.len()) };
        self.written += bytes.len();
        if self.written >= TWICE {
            self.written = 0;
            // SAFETY: a shared mapping keeps its contents; where it fails, nothing is different.
            unsafe { libc::madvise(self.writer as *mut _, self.region, libc::MADV_DONTNEED) };
        }
    }

    /// Makes a range of offsets of the code trap wherever it is entered. What is there must not be in use.
    pub(crate) fn trap_code(&mut self, range: std::ops::Range<usize>) {
        const BREAKPOINT: u8 = 0xcc;
        if range.end <= self.region {
            // SAFETY: inside of the mapping, which nobody has references into.
            unsafe { ((self.writer + range.start) as *mut u8).write_bytes(BREAKPOINT, range.len()) };
        }
    }

    /// Writes data at an offset. What is there must not be in use.
    pub(crate) fn put_data(&mut self, at: usize, bytes: &[u8]) {
        if at + bytes.len() <= self.region {
            let target = (self.start + self.region + at) as *mut u8;
            // SAFETY: inside of the mapping, which nobody has references into.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        }
    }

    /// Puts zeros into a range of offsets of the data. What is there must not be in use.
    pub(crate) fn clear_data(&mut self, range: std::ops::Range<usize>) {
        if range.end <= self.region {
            let target = (self.start + self.region + range.start) as *mut u8;
            // SAFETY: inside of the mapping, which nobody has references into.
            unsafe { target.write_bytes(0, range.len()) };
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        // SAFETY: the ranges are ours, and whoever drops it has ended all use of them.
        unsafe {
            libc::munmap(self.start as *mut _, 2 * self.region);
            if self.writer != 0 {
                libc::munmap(self.writer as *mut _, self.region);
            }
        }
    }
}

/// Stores a word, in one piece for whoever reads it meanwhile if its address is a multiple of 8; `read_only` says that its
/// page must be made writable for that.
///
/// # Errors
/// What the system says.
///
/// # Safety
/// `address` is that of a word in memory that stays mapped, as `read_only` says, and whoever reads it can do with `value`.
pub(crate) unsafe fn store_word(address: usize, value: usize, read_only: bool) -> io::Result<()> {
    const WORD: usize = std::mem::size_of::<usize>();
    let protect = |write| {
        let access = Access { read: true, write, execute: false };
        let (start, end) = (page_down(address), page_down(address + WORD - 1) + PAGE);
        // SAFETY: pages that the caller answers for, which never become less than readable.
        match unsafe { libc::mprotect(start as *mut _, end - start, access.bits()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    if read_only {
        protect(true)?;
    }
    if address.is_multiple_of(align_of::<usize>()) {
        // SAFETY: the caller's promise; writable by now.
        unsafe { &*(address as *const AtomicUsize) }.store(value, Ordering::Release);
    } else {
        // SAFETY: as above.
        unsafe { (address as *mut usize).write_unaligned(value) };
    }
    if read_only { protect(false) } else { Ok(()) }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::other("an offset that no file has"))
}

/// Reads into `buffer` from `offset` of `file` until it is full or the file ends; gives the number of bytes read.
///
/// # Errors
/// What the system says.
pub fn read_at(file: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        // SAFETY: the kernel writes at most as many bytes as `rest` has.
        let read = unsafe {
            libc::pread(
                file.as_raw_fd(),
                rest.as_mut_ptr().cast(),
                rest.len(),
                file_offset(offset + done as u64)?,
            )
        };
        match read {
            0 => break,
            read if read > 0 => done += read as usize,
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(done)
}

/// Bytes in `file`; an error for what is no ordinary file.
///
/// # Errors
/// What the system says.
pub fn size_of(file: BorrowedFd<'_>) -> io::Result<u64> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat fills the struct when it returns 0.
    let status = unsafe {
        if libc::fstat(file.as_raw_fd(), status.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        status.assume_init()
    };
    if status.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(io::Error::other("not an ordinary file"));
    }
    Ok(status.st_size as u64)
}
