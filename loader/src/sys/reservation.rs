//! Address space that is taken first and filled later, for code that is made while the process runs.
//!
//! Two kinds of memory are put into it. Data are the process's own. Code and constants are mapped twice: here, where they
//! cannot be written, and once more at some other place, where they can be written and not executed; so one link
//! after another can be put into the same page with no system call, and no address is ever writable and executable.
//! The memory behind that has no file and no descriptor, which a program might close and use for something else
//! (under valgrind, which has no other way, it has both until it is mapped).
//!
//! What is mapped twice is shared with the children of a fork; who may still write it is for the caller to see to.

use super::files::memory_file;
use super::memory::PAGE;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;

/// A stretch of addresses, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    start: usize,
    length: usize,
}

/// The place where memory that is mapped twice can be written; dropped, it cannot be any more.
#[derive(Debug)]
pub struct Writer {
    /// The code, and behind it as many bytes of constants.
    start: usize,
    length: usize,
    code: usize,
    constants: usize,
}

impl Reservation {
    /// Takes `length` bytes (a multiple of [`PAGE`], not zero) at the page `wish` if there is room, else wherever there is;
    /// they cannot be accessed yet.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(length: usize, wish: Option<usize>) -> io::Result<Self> {
        let wish = wish.map_or(ptr::null_mut(), |wish| wish as *mut _);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(wish, length, libc::PROT_NONE, flags, -1, 0) };
        Ok(Self { start: mapped(start)?, length })
    }

    /// Address of the first byte.
    pub fn start(&self) -> usize {
        self.start
    }

    /// How many bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Makes the pages of `range` memory of the process's own, zeros that can be read and written.
    ///
    /// # Errors
    /// What the system says, or that the range is not inside.
    pub fn fill(&self, range: Range<usize>) -> io::Result<()> {
        self.check(&range)?;
        // SAFETY: pages of this reservation that nobody has been given yet.
        match unsafe {
            libc::mprotect(range.start as *mut _, range.len(), libc::PROT_READ | libc::PROT_WRITE)
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes `length` bytes at `code` memory that can be executed and `length` bytes at `constants` memory that can be
    /// read, all zeros; addresses and length are multiples of [`PAGE`]. Both are written through the result.
    ///
    /// # Errors
    /// What the system says, or that a range is not inside.
    pub fn fill_twice(&self, code: usize, constants: usize, length: usize) -> io::Result<Writer> {
        self.check(&(code..code + length))?;
        self.check(&(constants..constants + length))?;
        self.map_twice(code, constants, length, None).or_else(|error| {
            // valgrind cannot map memory once more, but can map a file twice.
            let file = File::from(memory_file("fresh code").map_err(|_| error)?);
            file.set_len(2 * length as u64)?;
            self.map_twice(code, constants, length, Some(&file))
        })
    }

    fn map_twice(
        &self,
        code: usize,
        constants: usize,
        length: usize,
        file: Option<&File>,
    ) -> io::Result<Writer> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = if file.is_some() { 0 } else { libc::MAP_ANONYMOUS | libc::MAP_NORESERVE };
        let descriptor = file.map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), 2 * length, access, libc::MAP_SHARED | kind, descriptor, 0)
        };
        let writer = Writer { start: mapped(start)?, length, code, constants };
        for (offset, to, access) in
            [(0, code, libc::PROT_READ | libc::PROT_EXEC), (length, constants, libc::PROT_READ)]
        {
            if file.is_some() {
                let flags = libc::MAP_SHARED | libc::MAP_FIXED;
                // SAFETY: it replaces a part of this reservation that nobody has been given yet.
                mapped(unsafe {
                    libc::mmap(to as *mut _, length, access, flags, descriptor, offset as libc::off_t)
                })?;
                continue;
            }
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            // SAFETY: with no old length, shared memory is mapped once more and nothing moves. It replaces a part of
            // this reservation that nobody has been given yet.
            mapped(unsafe {
                libc::mremap((start as usize + offset) as *mut _, 0, length, flags, to as *mut libc::c_void)
            })?;
            // SAFETY: the mapping made just now.
            if unsafe { libc::mprotect(to as *mut _, length, access) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(writer)
    }

    /// Gives the memory of the pages of `range`, which was filled once, back to the system: they are zero afterwards.
    ///
    /// # Safety
    /// Nobody uses what is there.
    pub unsafe fn empty(&self, range: Range<usize>) {
        if self.check(&range).is_ok() {
            // SAFETY: pages of this reservation; the rest is the caller's promise.
            unsafe { libc::madvise(range.start as *mut _, range.len(), libc::MADV_DONTNEED) };
        }
    }

    fn check(&self, range: &Range<usize>) -> io::Result<()> {
        let whole = range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE) && !range.is_empty();
        let inside = range.start >= self.start && range.end <= self.start + self.length;
        if whole && inside { Ok(()) } else { Err(io::Error::other("not pages of the reservation")) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and whoever drops it has ended all use of it.
        unsafe { libc::munmap(self.start as *mut _, self.length) };
    }
}

impl Writer {
    /// Where the byte at `address` of the code or of the constants can be written.
    pub fn place(&self, address: usize) -> Option<usize> {
        let within = |start: usize| address.checked_sub(start).filter(|offset| *offset < self.length);
        within(self.code)
            .map(|offset| self.start + offset)
            .or_else(|| within(self.constants).map(|offset| self.start + self.length + offset))
    }

    /// Gives the memory of the pages of `range`, all code or all constants, back to the system: they are zero afterwards,
    /// in every process that shares them.
    ///
    /// # Safety
    /// Nobody uses what is there.
    pub unsafe fn empty(&self, range: Range<usize>) {
        if let Some(place) = self.place(range.start) {
            // SAFETY: pages of the mapping; the rest is the caller's promise.
            unsafe { libc::madvise(place as *mut _, range.len(), libc::MADV_REMOVE) };
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and nobody writes there any more. The same memory elsewhere stays.
        unsafe { libc::munmap(self.start as *mut _, 2 * self.length) };
    }
}

fn mapped(start: *mut libc::c_void) -> io::Result<usize> {
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start as usize) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::sys::threads::in_child;

    /// `mov eax, value; ret`.
    fn code_for(value: u8) -> [u8; 6] {
        [0xb8, value, 0, 0, 0, 0xc3]
    }

    fn write(writer: &Writer, address: usize, bytes: &[u8]) {
        let place = writer.place(address).unwrap();
        // SAFETY: the place of bytes inside, with room for these.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place as *mut u8, bytes.len()) };
    }

    fn call(address: usize) -> i32 {
        // SAFETY: `code_for` was written there.
        unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(address)() }
    }

    /// The access to an address as the system shows it.
    fn access_of(address: usize) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let at = |text| usize::from_str_radix(text, 16).ok();
            (at(start)?..at(end)?).contains(&address).then(|| rest[..4].to_owned())
        })
    }

    #[test]
    fn code_is_written_in_one_place_and_runs_in_another() {
        let space = Reservation::new(16 * PAGE, None).unwrap();
        let (code, constants) = (space.start() + 2 * PAGE, space.start() + 8 * PAGE);
        let writer = space.fill_twice(code, constants, 2 * PAGE).unwrap();
        check_twice(&space, writer, code, constants);
    }

    #[test]
    fn a_file_does_where_memory_cannot_be_mapped_once_more() {
        let space = Reservation::new(16 * PAGE, None).unwrap();
        let (code, constants) = (space.start() + 2 * PAGE, space.start() + 8 * PAGE);
        let file = File::from(memory_file("test").unwrap());
        file.set_len(4 * PAGE as u64).unwrap();
        let writer = space.map_twice(code, constants, 2 * PAGE, Some(&file)).unwrap();
        drop(file);
        check_twice(&space, writer, code, constants);
    }

    fn check_twice(space: &Reservation, writer: Writer, code: usize, constants: usize) {
        write(&writer, code + PAGE, &code_for(7));
        assert_eq!(call(code + PAGE), 7);
        write(&writer, code + PAGE + 64, &code_for(8));
        assert_eq!((call(code + PAGE), call(code + PAGE + 64)), (7, 8));
        write(&writer, constants + 5, b"constant");
        // SAFETY: readable memory.
        assert_eq!(unsafe { *((constants + 5) as *const [u8; 8]) }, *b"constant");
        assert_eq!(access_of(code).as_deref(), Some("r-xs"));
        assert_eq!(access_of(constants).as_deref(), Some("r--s"));
        assert_eq!(access_of(writer.start).as_deref(), Some("rw-s"));
        assert_eq!(access_of(space.start()).as_deref(), Some("---p"));
        assert_eq!(writer.place(code - 1), None);
        assert_eq!(writer.place(constants + 2 * PAGE), None);
        // SAFETY: the code there is not used any more.
        unsafe { writer.empty(code + PAGE..code + 2 * PAGE) };
        // SAFETY: readable memory.
        assert_eq!(unsafe { *((code + PAGE) as *const u64) }, 0);
        write(&writer, code, &code_for(9));
        drop(writer);
        assert_eq!(call(code), 9);
    }

    #[test]
    fn data_are_the_process_s_own_after_a_fork() {
        let space = Reservation::new(4 * PAGE, None).unwrap();
        space.fill(space.start() + PAGE..space.start() + 3 * PAGE).unwrap();
        let word = (space.start() + PAGE) as *mut u64;
        // SAFETY: filled above.
        unsafe { word.write(1) };
        // SAFETY: as above.
        let child = in_child(|| unsafe {
            word.write(2);
            word.read() as u8
        });
        // SAFETY: as above.
        assert_eq!((child, unsafe { word.read() }), (Some(2), 1));
        // SAFETY: nobody needs it any more.
        unsafe { space.empty(space.start() + PAGE..space.start() + 2 * PAGE) };
        // SAFETY: as above.
        assert_eq!(unsafe { word.read() }, 0);
        assert!(space.fill(space.start() + 1..space.start() + PAGE).is_err());
        assert!(space.fill(space.start()..space.start() + 5 * PAGE).is_err());
    }
}
