//! The index as it lies on disk: which libraries export which symbols.
//!
//! ```text
//! magic       8 bytes    "hblib" 0, version as u16
//! length      u64        bytes of the head
//! checksum    32 bytes   BLAKE3 of the head
//! head                   values of `codec`, see `Head`: the key, the run-time linker's cache, the folders, the libraries, the
//!                        number of the filter's lines, and the first hash of each page
//! zeros                  up to a multiple of 4096
//! filter                 lines, see `filter`; a multiple of 4096 bytes
//! pages       4096 bytes each:
//!     checksum    u64        of the rest, see `mix`
//!     count       u32        of entries; then four bytes of nothing
//!     entries     12 bytes each: u64 hash of a name, u32 library: its number in the lower 24 bits, above them what it
//!                            exports (1 a strong definition, 2 one for those who ask for no version)
//!     zeros
//! ```
//!
//! Everything is little endian. Entries are sorted by hash and then library, each pair once, over all pages. A look-up reads
//! a line of the filter. Unless that says that nobody has the name, it finds the page by the hashes in the head and reads that page,
//! or several when a name is exported so often that its entries fill more than one. The head is checked when the index is
//! opened, a line or page when it is read, so the file is never read as a whole; whatever is wrong makes the index
//! damaged, which means that it is built again.
//!
//! The hash is 64-bit FNV-1a. That two names have one is harmless: the library is asked before it is loaded.

use super::filter::{self, LINE};
use super::mix;
use crate::codec::{CodecError, Reader, Writer};
use crate::sys::files::{self, FileIdentity};
use crate::sys::mapped_file::MappedFile;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"hblib\0\x02\0";
const PREFIX: usize = 8 + 8 + 32;
const PAGE: usize = 4096;
const PAGE_HEADER: usize = 16;
const ENTRY: usize = 12;
/// How many entries fit on a page.
const PER_PAGE: usize = (PAGE - PAGE_HEADER) / ENTRY;
/// More than any machine has libraries.
const LARGEST_HEAD: u64 = 1 << 28;

/// The library exports a strong definition.
pub(super) const STRONG: u8 = 1;
/// The library exports a definition for those who ask for no version.
pub(super) const DEFAULT: u8 = 2;
/// How many libraries there may be.
pub(super) const MOST_LIBRARIES: usize = 1 << 24;

/// The state of a file or folder when the index was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where.
    pub(super) path: PathBuf,
    /// What was there; `None` if nothing was.
    pub(super) identity: Option<FileIdentity>,
    /// Whether any change since then shows in the identity: it had been left alone for a while.
    pub(super) settled: bool,
}

/// A library in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Library {
    /// Its canonical path.
    pub(super) path: PathBuf,
    /// Which state of which file was read.
    pub(super) identity: FileIdentity,
    /// Whether any change since then shows in the identity.
    pub(super) settled: bool,
    /// Its build id; zeros if it has none.
    pub(super) build_id: [u8; 20],
    /// Place of its folder in the order of search.
    pub(super) folder: u32,
    /// Whether linkers find it under a name like `libz.so`.
    pub(super) has_linker_name: bool,
}

/// All but the entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// What was searched, see `OnDemand`.
    pub(super) key: [u8; 32],
    /// The run-time linker's cache and the folders.
    pub(super) seen: Vec<Seen>,
    /// The libraries.
    pub(super) libraries: Vec<Library>,
    /// How many lines the filter has.
    lines: u32,
    /// The first hash of each page.
    first: Vec<u64>,
}

/// One pair of a symbol and a library that exports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Hash of the symbol's name.
    pub(super) hash: u64,
    /// Number of the library.
    pub(super) library: u32,
    /// What it exports.
    pub(super) flags: u8,
}

/// The index is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

impl From<CodecError> for Damaged {
    fn from(_: CodecError) -> Self {
        Self
    }
}

/// Where the bytes are.
#[derive(Debug)]
enum Bytes {
    Mapped(MappedFile),
    Owned(Vec<u8>),
}

/// An index, open.
#[derive(Debug)]
pub(super) struct Index {
    bytes: Bytes,
    head: Head,
    /// Where the filter begins.
    filter: usize,
    /// Where the pages begin.
    pages: usize,
}

/// The hash by which a name is in the index.
pub(super) fn hash(name: &[u8]) -> u64 {
    name.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Index {
    /// Opens the index in the file at `path`, if it is one that this user wrote and nobody else could have changed.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let (file, status) = files::open_no_follow(path).ok()?;
        if status.owner != files::effective_user() || status.mode & 0o022 != 0 || status.identity.size == 0 {
            return None;
        }
        Self::new(Bytes::Mapped(MappedFile::new(&file, status.identity.size).ok()?)).ok()
    }

    /// An index in memory of these entries, which are sorted, each pair of hash and library once.
    pub(super) fn build(mut head: Head, entries: &[Entry]) -> Self {
        let names = || entries.chunk_by(|one, next| one.hash == next.hash).map(|name| name[0].hash);
        let lines = filter::lines_for(names().count(), PAGE / LINE);
        head.lines = lines as u32;
        head.first =
            entries.chunks(PER_PAGE).filter_map(|page| page.first().map(|entry| entry.hash)).collect();
        let bytes = encode(&head, &filter::encode(names(), lines), entries);
        let pages = bytes.len() - head.first.len() * PAGE;
        Self { bytes: Bytes::Owned(bytes), head, filter: pages - lines * LINE, pages }
    }

    /// Its file, if it was built here.
    pub(super) fn file(&self) -> Option<&[u8]> {
        match &self.bytes {
            Bytes::Owned(bytes) => Some(bytes),
            Bytes::Mapped(_) => None,
        }
    }

    fn new(bytes: Bytes) -> Result<Self, Damaged> {
        let mut prefix = [0; PREFIX];
        bytes.copy(0, &mut prefix)?;
        let mut reader = Reader::new(&prefix);
        if reader.raw(MAGIC.len())? != MAGIC {
            return Err(Damaged);
        }
        let length = reader.u64()?;
        let checksum = reader.array::<32>()?;
        if length > LARGEST_HEAD || length > bytes.size() as u64 {
            return Err(Damaged);
        }
        let mut head = vec![0; length as usize];
        bytes.copy(PREFIX, &mut head)?;
        if *blake3::hash(&head).as_bytes() != checksum {
            return Err(Damaged);
        }
        let filter = (PREFIX + head.len()).next_multiple_of(PAGE);
        let head = Head::decode(&head)?;
        // Neither the lines nor what was decoded from memory can be so many that this overflows.
        let pages = filter + head.lines as usize * LINE;
        if pages + head.first.len() * PAGE != bytes.size() {
            return Err(Damaged);
        }
        Ok(Self { bytes, head, filter, pages })
    }

    /// All but the entries.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// The numbers of the libraries that export a symbol of that hash, with what each exports.
    pub(super) fn find(&self, hash: u64) -> Result<Vec<(u32, u8)>, Damaged> {
        if !self.may_have(hash)? {
            return Ok(Vec::new());
        }
        let first = &self.head.first;
        // The page before the first one that begins with the hash or above may end with it.
        let start = first.partition_point(|first| *first < hash).saturating_sub(1);
        let mut found = Vec::new();
        for (number, _) in first.iter().enumerate().skip(start).take_while(|(_, first)| **first <= hash) {
            let page = self.page(number)?;
            let entries = page.entries();
            let at = entries.partition_point(|entry| u64_of(entry) < hash);
            for entry in entries[at..].iter().map(entry_of).take_while(|entry| entry.hash == hash) {
                found.push((entry.library, entry.flags));
            }
        }
        Ok(found)
    }

    /// Calls `visit` with every entry, in order.
    pub(super) fn for_each(&self, mut visit: impl FnMut(Entry)) -> Result<(), Damaged> {
        for number in 0..self.head.first.len() {
            self.page(number)?.entries().iter().for_each(|entry| visit(entry_of(entry)));
        }
        Ok(())
    }

    /// What the filter says.
    fn may_have(&self, hash: u64) -> Result<bool, Damaged> {
        let lines = self.head.lines as usize;
        if lines == 0 {
            return Ok(false);
        }
        let mut line = [0; LINE];
        self.bytes.copy(self.filter + filter::line_of(hash, lines) * LINE, &mut line)?;
        filter::may_have(&line, hash)
    }

    fn page(&self, number: usize) -> Result<Page, Damaged> {
        let mut page = Page([0; PAGE]);
        self.bytes.copy(self.pages + number * PAGE, &mut page.0)?;
        if page.0[..8] != page.checksum() || page.count() > PER_PAGE {
            return Err(Damaged);
        }
        Ok(page)
    }
}

impl Bytes {
    fn size(&self) -> usize {
        match self {
            Self::Mapped(file) => file.size(),
            Self::Owned(bytes) => bytes.len(),
        }
    }

    fn copy(&self, at: usize, buffer: &mut [u8]) -> Result<(), Damaged> {
        match self {
            Self::Mapped(file) => file.copy(at, buffer).then_some(()).ok_or(Damaged),
            Self::Owned(bytes) => {
                let end = at.checked_add(buffer.len()).ok_or(Damaged)?;
                buffer.copy_from_slice(bytes.get(at..end).ok_or(Damaged)?);
                Ok(())
            }
        }
    }
}

/// A page, copied.
struct Page([u8; PAGE]);

impl Page {
    fn checksum(&self) -> [u8; 8] {
        mix::checksum(self.0[8..].as_chunks().0).to_le_bytes()
    }

    fn count(&self) -> usize {
        u32::from_le_bytes([self.0[8], self.0[9], self.0[10], self.0[11]]) as usize
    }

    fn entries(&self) -> &[[u8; ENTRY]] {
        let all = self.0[PAGE_HEADER..].as_chunks().0;
        &all[..self.count().min(all.len())]
    }
}

fn u64_of(entry: &[u8; ENTRY]) -> u64 {
    let mut hash = [0; 8];
    hash.copy_from_slice(&entry[..8]);
    u64::from_le_bytes(hash)
}

fn entry_of(entry: &[u8; ENTRY]) -> Entry {
    let [.., low, middle, high, flags] = *entry;
    Entry { hash: u64_of(entry), library: u32::from_le_bytes([low, middle, high, 0]), flags }
}

/// The file of an index.
fn encode(head: &Head, filter: &[u8], entries: &[Entry]) -> Vec<u8> {
    let size = filter.len() + head.first.len() * PAGE;
    let head = head.encode();
    let mut bytes = Vec::with_capacity((PREFIX + head.len()).next_multiple_of(PAGE) + size);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
    bytes.extend_from_slice(blake3::hash(&head).as_bytes());
    bytes.extend_from_slice(&head);
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    bytes.extend_from_slice(filter);
    for entries in entries.chunks(PER_PAGE) {
        let mut page = Page([0; PAGE]);
        page.0[8..12].copy_from_slice(&(entries.len() as u32).to_le_bytes());
        for (place, entry) in page.0[PAGE_HEADER..].chunks_exact_mut(ENTRY).zip(entries) {
            place[..8].copy_from_slice(&entry.hash.to_le_bytes());
            place[8..].copy_from_slice(&entry.library.to_le_bytes());
            place[11] = entry.flags;
        }
        let checksum = page.checksum();
        page.0[..8].copy_from_slice(&checksum);
        bytes.extend_from_slice(&page.0);
    }
    bytes
}

impl Head {
    /// An index of no entries yet.
    pub(super) fn new(key: [u8; 32], seen: Vec<Seen>, libraries: Vec<Library>) -> Self {
        Self { key, seen, libraries, ..Self::default() }
    }

    fn encode(&self) -> Vec<u8> {
        let Self { key, seen, libraries, lines, first } = self;
        let mut writer = Writer::new();
        writer.raw(key);
        writer.list(seen, |w, Seen { path, identity, settled }| {
            w.path(path);
            w.option(identity.as_ref(), write_identity);
            w.bool(*settled);
        });
        writer.list(libraries, |w, library| {
            let Library { path, identity, settled, build_id, folder, has_linker_name } = library;
            w.path(path);
            write_identity(w, identity);
            w.bool(*settled);
            w.raw(build_id);
            w.u32(*folder);
            w.bool(*has_linker_name);
        });
        writer.u32(*lines);
        writer.list(first, |w, hash| w.u64(*hash));
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            key: reader.array()?,
            seen: reader.list(|r| {
                Ok(Seen { path: r.path()?, identity: r.option(read_identity)?, settled: r.bool()? })
            })?,
            libraries: reader.list(|r| {
                Ok(Library {
                    path: r.path()?,
                    identity: read_identity(r)?,
                    settled: r.bool()?,
                    build_id: r.array()?,
                    folder: r.u32()?,
                    has_linker_name: r.bool()?,
                })
            })?,
            lines: reader.u32()?,
            first: reader.list(Reader::u64)?,
        })
    }
}

fn write_identity(w: &mut Writer, identity: &FileIdentity) {
    let FileIdentity { device, inode, size, mtime_ns, ctime_ns } = identity;
    w.u64(*device);
    w.u64(*inode);
    w.u64(*size);
    w.i64(*mtime_ns);
    w.i64(*ctime_ns);
}

fn read_identity(r: &mut Reader<'_>) -> Result<FileIdentity, CodecError> {
    Ok(FileIdentity {
        device: r.u64()?,
        inode: r.u64()?,
        size: r.u64()?,
        mtime_ns: r.i64()?,
        ctime_ns: r.i64()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    fn head(libraries: usize) -> Head {
        let identity = FileIdentity { device: 1, inode: 2, size: 3, mtime_ns: 4, ctime_ns: 5 };
        let library = |number| Library {
            path: format!("/lib/lib{number}.so").into(),
            identity,
            settled: number % 2 == 0,
            build_id: [number as u8; 20],
            folder: 7,
            has_linker_name: number == 1,
        };
        let seen = vec![
            Seen { path: "/lib".into(), identity: Some(identity), settled: true },
            Seen { path: "/none".into(), identity: None, settled: false },
        ];
        Head::new([9; 32], seen, (0..libraries).map(library).collect())
    }

    fn built(libraries: usize, entries: &[Entry]) -> Vec<u8> {
        Index::build(head(libraries), entries).file().unwrap().to_vec()
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Index, Damaged> {
        Index::new(Bytes::Owned(bytes))
    }

    /// A name that fills more than two pages, with others before and after it.
    fn entries() -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            (0..900).map(|at| Entry { hash: at * 3, library: 0, flags: STRONG }).collect();
        entries.extend((0..900).map(|library| Entry { hash: 3000, library, flags: DEFAULT }));
        entries.extend((0..500).map(|at| Entry { hash: u64::MAX - 500 + at, library: 1, flags: 3 }));
        entries
    }

    #[test]
    fn what_was_written_is_found_and_nothing_else() {
        let index = from_bytes(built(900, &entries())).unwrap();
        assert_eq!(index.head().libraries, head(900).libraries);
        assert_eq!(index.head().seen, head(900).seen);
        for hash in (0..2800).chain(2990..3010).chain(u64::MAX - 502..=u64::MAX) {
            let expected: Vec<_> = entries()
                .iter()
                .filter(|entry| entry.hash == hash)
                .map(|entry| (entry.library, entry.flags))
                .collect();
            assert_eq!(index.find(hash).unwrap(), expected, "{hash}");
        }
        let mut all = Vec::new();
        index.for_each(|entry| all.push(entry)).unwrap();
        assert_eq!(all, entries());
        let empty = from_bytes(built(0, &[])).unwrap();
        assert_eq!(empty.find(5).unwrap(), []);
    }

    #[test]
    fn every_byte_and_every_length_is_checked() {
        let entries = &entries()[..400];
        let good = built(3, entries);
        let right: Vec<_> = entries.iter().map(|entry| (entry.library, entry.flags)).collect();
        let whole_or_damaged = |bytes: Vec<u8>, what: &str| {
            let Ok(index) = from_bytes(bytes) else { return };
            for (entry, right) in entries.iter().zip(&right).step_by(17) {
                match index.find(entry.hash) {
                    Ok(found) => assert_eq!(found, [*right], "{what}"),
                    Err(Damaged) => return,
                }
                if let Ok(found) = index.find(entry.hash + 1) {
                    assert!(found.is_empty(), "{what}");
                }
            }
        };
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            whole_or_damaged(bytes, &format!("byte {at}"));
        }
        for length in (0..good.len()).step_by(13) {
            assert!(from_bytes(good[..length].to_vec()).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_head_that_lies_does_not_panic() {
        let head = head(3).encode();
        for at in 0..head.len() {
            for value in [0, 0x7f, 0xff] {
                let mut head = head.clone();
                head[at] = value;
                let mut bytes = MAGIC.to_vec();
                bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
                bytes.extend_from_slice(blake3::hash(&head).as_bytes());
                bytes.extend_from_slice(&head);
                bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
                if let Ok(index) = from_bytes(bytes) {
                    let _ = index.find(1);
                }
            }
        }
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the tables of its authors.
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
