//! The floor under loading an image: a bare loop with only the system calls and the page touches that the image, at its
//! address, cannot do without. Nothing is parsed, checked, looked up or remembered in the loop; everything it does was worked
//! out from the file before the clock started.
//!
//! | step | why nobody can leave it out |
//! |---|---|
//! | `open` | the image is a file, named by a path |
//! | `lseek` to the end | whoever touches a page behind the end of a file is killed, so its size must be known; there is no cheaper way to ask |
//! | `pread` of [`HEADER`] bytes | where its segments go is in the file |
//! | `mmap` of the first segment | the headers' and tables' pages; where it may go anywhere over the whole span, for the address space |
//! | `mmap` of every further segment | other access, or another place in the file; those that continue each other in both are one |
//! | `mmap` of zeros | only where a segment is longer in memory than in the file by whole pages |
//! | a store to each page that must be written | it becomes a private copy: see below |
//! | a read of each page that must be read | it comes into the page tables: see below |
//! | `mprotect` | what is read-only after relocation, unless nothing in it must be written: then it is mapped so, with what is in front of it where that is mapped alike |
//! | the call | touches the page of the code that is called |
//! | `close` | the descriptor |
//!
//! *Must be written*: pages with a place that a relocation changes. At the recorded address (where the first segment has one, an
//! address that is not nought) a relative relocation changes nothing that is in the file already. A jump slot counts where the
//! image says that everything is bound at once (`DF_BIND_NOW`, `DF_1_NOW`); otherwise what counts is the page of the two words
//! through which the first call of a function finds the loader. So do pages whose file contents after the end of a segment's
//! data are not nought and must be.
//!
//! *Must be read*: pages with the dynamic section, with the relocations that are applied, with symbols, names and versions that
//! relocations refer to (a function that nobody has is an error at load, whenever it is bound), and with what the look-up of the called function reads: the head of the hash table, one word of its
//! filter, a bucket, a chain, the symbol, its name. A page that was written need not be read.
//!
//! The writable pages can be had one by one, at the store, or all at once with `MAP_POPULATE`, which costs less for a page but
//! takes pages that nobody needs. What is cheaper depends on the image and the machine: both are tried before the clock
//! starts, and the floor is the cheaper one.

use crate::Result;
use crate::elf::{Elf, RELA, SYMBOL, gnu_hash};
use crate::measure::{median, timed};
use crate::peers::shared_library::Entry;
use object::elf::*;
use std::collections::BTreeSet;
use std::ffi::{CString, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Bytes that hold the ELF header and the program headers of any image.
const HEADER: usize = 64 + 14 * 56;
const PAGE: u64 = 4096;
/// How often both ways to have the writable pages are tried.
const TRIALS: usize = 60;

/// What the loop does for one image.
pub(crate) struct Floor {
    path: CString,
    /// The recorded address, or nought for anywhere.
    wanted: usize,
    /// Bytes from the beginning of the first segment to the end of the last.
    span: usize,
    /// Bytes of the first segment, in whole pages.
    first_length: usize,
    /// The first segment's access and place in the file.
    first: (c_int, i64),
    /// The further segments.
    files: Vec<Piece>,
    /// Zeros after a segment's file contents: place, bytes, access.
    zeros: Vec<(usize, usize, c_int)>,
    /// Pages to be written, from the beginning of the mapping.
    stores: Vec<usize>,
    /// Pages to be read, likewise.
    reads: Vec<usize>,
    /// What is made read-only: place and bytes.
    protect: Option<(usize, usize)>,
    /// Place of the called function.
    entry: usize,
    /// Whether writable pages are had all at once.
    populate: bool,
}

/// Part of a file that is mapped.
struct Piece {
    place: usize,
    length: usize,
    access: c_int,
    offset: i64,
}

/// Memory that the loop has mapped.
struct Mapped(*mut c_void, usize);

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `Floor::run` for this value, and nothing in it is in use.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

impl Floor {
    /// Works out the steps for the image at `path` and its function `symbol`, which must be of type [`Entry`] and need
    /// nothing but its own code.
    ///
    /// # Errors
    /// When the file is not as images are.
    pub(crate) fn new(path: &Path, symbol: &str) -> Result<Self> {
        let data = std::fs::read(path)?;
        let elf = Elf::new(&data)?;
        let (first, last) = elf.segments.first().zip(elf.segments.last()).ok_or("no segments")?;
        let base = down(first.address);
        let delta_known = base != 0;
        let mut pages = Pages { elf: &elf, written: BTreeSet::new(), read: BTreeSet::new() };
        pages.relocations(delta_known)?;
        let entry = pages.look_up(symbol)?;
        pages.dynamic_section();
        let relro = elf.others.iter().find(|other| other.0 == PT_GNU_RELRO.0);
        let protected = relro.map(|(_, address, size)| down(*address)..up(address + size));
        let written = |page: &u64| pages.written.contains(page);
        // What nobody writes to is what it will be from the start.
        let constants = protected
            .clone()
            .filter(|range| !range.clone().step_by(PAGE as usize).any(|page| written(&page)));
        let mut first_length = (up(first.address + first.size) - base) as usize;
        let first_access = access(first.flags);
        let (mut files, mut zeros) = (Vec::<Piece>::new(), Vec::new());
        for (index, segment) in elf.segments.iter().enumerate() {
            let place = (down(segment.address) - base) as usize;
            let contents = segment.address + segment.file_size;
            let mapped = if segment.file_size == 0 { down(contents) } else { up(contents) };
            if index > 0 && segment.file_size > 0 {
                let length = (mapped - base) as usize - place;
                let offset = i64::try_from(down(segment.offset))?;
                let constant = segment.size == segment.file_size
                    && constants.as_ref().is_some_and(|range| {
                        range.contains(&segment.address) && up(segment.address + segment.size) <= range.end
                    });
                let access = if constant { libc::PROT_READ } else { access(segment.flags) };
                match files.last_mut() {
                    None if access == first_access
                        && first_length == place
                        && i64::try_from(down(first.offset) + first_length as u64)? == offset =>
                    {
                        first_length += length;
                    }
                    // One mapping does for both.
                    Some(Piece { place: before, length: known, access: same, offset: from })
                        if *same == access
                            && *before + *known == place
                            && *from + i64::try_from(*known)? == offset =>
                    {
                        *known += length;
                    }
                    _ => files.push(Piece { place, length, access, offset }),
                }
            }
            let end = segment.address + segment.size;
            if up(end) > mapped {
                zeros.push(((mapped - base) as usize, (up(end) - mapped) as usize, access(segment.flags)));
            }
            let rest = usize::try_from(segment.offset + segment.file_size)?;
            let follows = data.get(rest..rest + (mapped.min(end) - contents.min(mapped)) as usize);
            if end > contents && follows.is_none_or(|bytes| bytes.iter().any(|byte| *byte != 0)) {
                pages.written.insert(down(contents));
            }
        }
        let (written, read) = (pages.written, pages.read);
        let place = |page: &u64| (page - base) as usize;
        let mut floor = Self {
            path: CString::new(path.as_os_str().as_bytes())?,
            wanted: base as usize,
            span: (up(last.address + last.size) - base) as usize,
            first_length,
            first: (first_access, i64::try_from(down(first.offset))?),
            files,
            zeros,
            protect: protected
                .filter(|_| constants.is_none())
                .map(|range| (place(&range.start), (range.end - range.start) as usize)),
            entry: (entry - base) as usize,
            stores: written.iter().map(place).collect(),
            reads: read.difference(&written).map(place).collect(),
            populate: false,
        };
        let mut ways = [Vec::new(), Vec::new()];
        for trial in 0..2 * TRIALS {
            floor.populate = trial % 2 == 1;
            ways[trial % 2].push(floor.time()?.0.as_secs_f64());
        }
        let [one_by_one, at_once] = ways.map(median);
        floor.populate = at_once < one_by_one;
        Ok(floor)
    }

    /// Takes all steps, and gives the time and what the function gave. Unmapping is not in the time.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn time(&self) -> Result<(Duration, c_int)> {
        let (time, (mapped, result)) = timed(|| Ok(self.run()?))?;
        drop(mapped);
        Ok((time, result))
    }

    fn run(&self) -> io::Result<(Mapped, c_int)> {
        let mut header = [0u8; HEADER];
        // What is called there needs nothing but its code, see `new`; what is stored is what is there.
        //
        // SAFETY: the descriptor is this function's own, and so is the memory: the first mapping is made where nothing is
        // (without MAP_FIXED, or with the flag that refuses to replace), the others within it. Stores and reads are
        // within segments that were mapped writable or readable, as `new` worked out.
        unsafe {
            let file = libc::open(self.path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            check(file >= 0)?;
            check(libc::lseek(file, 0, libc::SEEK_END) >= HEADER as libc::off_t)?;
            check(libc::pread(file, header.as_mut_ptr().cast(), HEADER, 0) > 0)?;
            let fixed = if self.wanted == 0 { 0 } else { libc::MAP_FIXED_NOREPLACE };
            let wanted = self.wanted as *mut c_void;
            let flags = libc::MAP_PRIVATE | fixed;
            let length = if self.wanted == 0 { self.span } else { self.first_length };
            let start = libc::mmap(wanted, length, self.first.0, flags, file, self.first.1);
            check(start != libc::MAP_FAILED)?;
            // What lies where it was asked for need not replace anything.
            let fixed = if self.wanted == 0 { libc::MAP_FIXED } else { libc::MAP_FIXED_NOREPLACE };
            let mapped = Mapped(start, self.span);
            for Piece { place, length, access, offset } in &self.files {
                let whole = self.populate && access & libc::PROT_WRITE != 0;
                let populate = if whole { libc::MAP_POPULATE } else { 0 };
                let flags = libc::MAP_PRIVATE | fixed | populate;
                check(
                    libc::mmap(start.add(*place), *length, *access, flags, file, *offset) != libc::MAP_FAILED,
                )?;
            }
            for (place, length, access) in &self.zeros {
                let flags = libc::MAP_PRIVATE | fixed | libc::MAP_ANONYMOUS;
                check(libc::mmap(start.add(*place), *length, *access, flags, -1, 0) != libc::MAP_FAILED)?;
            }
            for page in &self.reads {
                start.add(*page).cast::<u8>().read_volatile();
            }
            for page in &self.stores {
                // One access that changes nothing: to read first would be to be interrupted twice.
                std::arch::asm!("lock or byte ptr [{}], 0", in(reg) start.add(*page), options(nostack));
            }
            if let Some((place, length)) = self.protect {
                check(libc::mprotect(start.add(place), length, libc::PROT_READ) == 0)?;
            }
            let result = std::mem::transmute::<*mut c_void, Entry>(start.add(self.entry))();
            libc::close(file);
            Ok((mapped, result))
        }
    }
}

/// The pages that are touched, by address.
struct Pages<'a> {
    elf: &'a Elf<'a>,
    written: BTreeSet<u64>,
    read: BTreeSet<u64>,
}

impl Pages<'_> {
    /// What relocations write, and what has to be read for that.
    fn relocations(&mut self, at_recorded_address: bool) -> Result<()> {
        let elf = self.elf;
        let now = elf.tag(DT_BIND_NOW.0).is_some()
            || elf.tag(DT_FLAGS.0).is_some_and(|flags| flags & DF_BIND_NOW.0 != 0)
            || elf.tag(DT_FLAGS_1.0).is_some_and(|flags| flags & DF_1_NOW.0 != 0);
        for (table, size) in [(DT_RELA.0, DT_RELASZ.0), (DT_JMPREL.0, DT_PLTRELSZ.0)] {
            for (index, relocation) in elf.relocations(table, size)?.into_iter().enumerate() {
                let kind = relocation.kind;
                let there = elf.u64(relocation.place).is_ok_and(|word| word == relocation.addend);
                if kind == R_X86_64_RELATIVE.0 && at_recorded_address && there {
                    continue;
                }
                // Bound at the first call: until then it leads there by itself, at the recorded address. That somebody
                // has the function must be known all the same.
                let waits = kind == R_X86_64_JUMP_SLOT.0 && !now && at_recorded_address;
                if !waits {
                    self.written.insert(down(relocation.place));
                }
                if let Some(table) = elf.tag(table) {
                    self.reads(table + index as u64 * RELA, RELA);
                }
                if relocation.symbol != 0 {
                    self.symbol(relocation.symbol.into())?;
                }
            }
        }
        if let (false, Some(slots)) = (now, elf.tag(DT_PLTGOT.0)) {
            self.written.insert(down(slots));
        }
        if !at_recorded_address {
            self.relative()?;
        }
        Ok(())
    }

    /// `DT_RELR`: an even word is the address of a place; an odd one has a bit for each of the 63 words after the last.
    fn relative(&mut self) -> Result<()> {
        let (Some(table), Some(size)) = (self.elf.tag(DT_RELR.0), self.elf.tag(DT_RELRSZ.0)) else {
            return Ok(());
        };
        self.reads(table, size);
        let mut next = 0;
        for index in 0..size / 8 {
            let word = self.elf.u64(table + index * 8)?;
            if word & 1 == 0 {
                self.written.insert(down(word));
                next = word + 8;
            } else {
                let places = (1..64).filter(|bit| word >> bit & 1 != 0).map(|bit| next + (bit - 1) * 8);
                self.written.extend(places.map(down));
                next += 63 * 8;
            }
        }
        Ok(())
    }

    /// What is read to know what a symbol is called, and in which version.
    fn symbol(&mut self, index: u64) -> Result<()> {
        let elf = self.elf;
        let (symbols, strings) = self.tables()?;
        let symbol = symbols + index * SYMBOL;
        self.reads(symbol, SYMBOL);
        let name = strings + u64::from(elf.u32(symbol)?);
        self.reads(name, elf.text(name)?.len() as u64 + 1);
        if let Some(versions) = elf.tag(DT_VERSYM.0) {
            self.reads(versions + index * 2, 2);
            if elf.u16(versions + index * 2)? > 1
                && let Some(needed) = elf.tag(DT_VERNEED.0)
            {
                self.reads(needed, 32);
            }
        }
        Ok(())
    }

    /// What is read to find a definition by its name; gives its address.
    fn look_up(&mut self, name: &str) -> Result<u64> {
        let elf = self.elf;
        let table = elf.tag(DT_GNU_HASH.0).ok_or("no hash table")?;
        let (symbols, strings) = self.tables()?;
        let (buckets, first) = (u64::from(elf.u32(table)?), u64::from(elf.u32(table + 4)?));
        let words = u64::from(elf.u32(table + 8)?);
        let hash = u64::from(gnu_hash(name.as_bytes()));
        self.reads(table, 16);
        self.reads(table + 16 + hash / 64 % words * 8, 8);
        let bucket = table + 16 + words * 8 + hash % buckets * 4;
        self.reads(bucket, 4);
        let mut index = u64::from(elf.u32(bucket)?);
        loop {
            let chain =
                table + 16 + words * 8 + buckets * 4 + index.checked_sub(first).ok_or("no such symbol")? * 4;
            self.reads(chain, 4);
            let found = u64::from(elf.u32(chain)?);
            if found | 1 == hash | 1 {
                let symbol = symbols + index * SYMBOL;
                let text = strings + u64::from(elf.u32(symbol)?);
                self.reads(symbol, SYMBOL);
                self.reads(text, name.len() as u64 + 1);
                if elf.text(text)? == name.as_bytes() {
                    return elf.u64(symbol + 8);
                }
            }
            if found & 1 != 0 {
                return Err(format!("the image has no {name}").into());
            }
            index += 1;
        }
    }

    fn dynamic_section(&mut self) {
        let sections = self.elf.others.iter().filter(|other| other.0 == PT_DYNAMIC.0);
        for (_, address, size) in sections.copied().collect::<Vec<_>>() {
            self.reads(address, size);
        }
    }

    fn tables(&self) -> Result<(u64, u64)> {
        let tables = self.elf.tag(DT_SYMTAB.0).zip(self.elf.tag(DT_STRTAB.0));
        Ok(tables.ok_or("no symbol table")?)
    }

    fn reads(&mut self, address: u64, size: u64) {
        let pages = (down(address)..address + size.max(1)).step_by(PAGE as usize);
        self.read.extend(pages);
    }
}

fn check(fine: bool) -> io::Result<()> {
    if fine { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

fn up(address: u64) -> u64 {
    down(address + PAGE - 1)
}

fn access(flags: u32) -> c_int {
    let bit = |flag: u32, access| if flags & flag != 0 { access } else { 0 };
    bit(PF_R.0, libc::PROT_READ) | bit(PF_W.0, libc::PROT_WRITE) | bit(PF_X.0, libc::PROT_EXEC)
}
