//! The file of entries under one key.
//!
//! A magic text with the version of this format, the entries in the encoding of [`crate::codec`], newest first, and
//! a BLAKE3 hash over all that. Paths stand as the back end named them. A *memo* is the identity that a file or folder
//! had when it was last seen to be as recorded; it is there only if the file had been left alone for long enough.

use super::level::Level;
use super::reasons::Miss;
use super::record::{FileRecord, FolderRecord, ListingRecord, Record};
use crate::boundary::LevelSigns;
use crate::codec::{CodecError, Reader, Writer};
use crate::cpu::CpuFeatures;
use crate::sys::files::FileIdentity;

const MAGIC: &[u8; 8] = b"HotbedM3";
/// How many results of one request are kept, for directories and states of files that alternate.
const ENTRIES: usize = 8;
const HASH_BYTES: usize = 32;

/// The results of one request, newest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) entries: Vec<Entry>,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Checksum and name of the image.
    pub(super) checksum: [u8; 32],
    /// Memo of the image's file.
    pub(super) memo: Option<FileIdentity>,
    /// The level of optimisation, where levels have a rank.
    pub(super) level: Option<Level>,
    /// What the sources looked at that is not the same at other levels.
    pub(super) seen: LevelSigns,
    /// What its code needs of the processor.
    pub(super) requires: CpuFeatures,
    /// What it depends on.
    pub(super) record: Record,
}

impl Manifest {
    /// Puts `entry` first, in the place of one of the same level for the same state of the same files.
    pub(super) fn add(&mut self, entry: Entry) {
        let is_other = |other: &Entry| other.level != entry.level || !other.record.same_state(&entry.record);
        self.entries.retain(is_other);
        self.entries.insert(0, entry);
        self.entries.truncate(ENTRIES);
    }

    /// Takes over the memos of entries that it has too.
    pub(super) fn remember(&mut self, others: &[Entry]) {
        for entry in &mut self.entries {
            let is_it = |other: &&Entry| {
                other.checksum == entry.checksum
                    && other.level == entry.level
                    && other.record.same_state(&entry.record)
            };
            if let Some(other) = others.iter().find(is_it) {
                entry.clone_from(other);
            }
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.list(&self.entries, |w, entry| {
            let Entry { checksum, memo, level, seen, requires, record } = entry;
            w.raw(checksum);
            write_memo(w, memo.as_ref());
            w.option(level.as_ref(), |w, level| w.u8(*level as u8));
            w.u8(seen.bits());
            w.raw(&requires.to_bytes());
            let Record { files, folders, listings } = record;
            w.list(files, |w, FileRecord { path, hash, memo }| {
                w.path(path);
                w.raw(hash);
                write_memo(w, memo.as_ref());
            });
            w.list(folders, |w, FolderRecord { path, missing, memo }| {
                w.path(path);
                w.list(missing, |w, name| w.path(name));
                write_memo(w, memo.as_ref());
            });
            w.list(listings, |w, ListingRecord { path, hash, memo }| {
                w.path(path);
                w.raw(hash);
                write_memo(w, memo.as_ref());
            });
        });
        let mut bytes = w.finish();
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// A manifest from the contents of its file.
    ///
    /// # Errors
    /// That it is damaged, or of another format.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Miss> {
        let (contents, hash) = bytes
            .len()
            .checked_sub(HASH_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(Miss::ManifestDamaged("it is cut off"))?;
        if blake3::hash(contents).as_bytes() != hash {
            return Err(Miss::ManifestDamaged("its checksum does not match"));
        }
        // Sound, so it is another format's.
        let contents = contents.strip_prefix(MAGIC).ok_or(Miss::Format)?;
        let entries = Self::read_entries(contents).map_err(|CodecError(what)| Miss::ManifestDamaged(what))?;
        Ok(Self { entries })
    }

    fn read_entries(contents: &[u8]) -> Result<Vec<Entry>, CodecError> {
        Reader::new(contents).list(|r| {
            Ok(Entry {
                checksum: r.array()?,
                memo: read_memo(r)?,
                level: r.option(|r| Level::from_tag(r.u8()?).ok_or(CodecError("an unknown level")))?,
                seen: LevelSigns::from_bits(r.u8()?),
                requires: CpuFeatures::from_bytes(r.array()?),
                record: Record {
                    files: r.list(|r| {
                        Ok(FileRecord { path: r.path()?, hash: r.array()?, memo: read_memo(r)? })
                    })?,
                    folders: r.list(|r| {
                        Ok(FolderRecord {
                            path: r.path()?,
                            missing: r.list(Reader::path)?,
                            memo: read_memo(r)?,
                        })
                    })?,
                    listings: r.list(|r| {
                        Ok(ListingRecord { path: r.path()?, hash: r.array()?, memo: read_memo(r)? })
                    })?,
                },
            })
        })
    }
}

pub(super) fn write_memo(w: &mut Writer, memo: Option<&FileIdentity>) {
    w.option(memo, |w, FileIdentity { device, inode, size, mtime_ns, ctime_ns }| {
        w.u64(*device);
        w.u64(*inode);
        w.u64(*size);
        w.i64(*mtime_ns);
        w.i64(*ctime_ns);
    });
}

pub(super) fn read_memo(r: &mut Reader<'_>) -> Result<Option<FileIdentity>, CodecError> {
    r.option(|r| {
        Ok(FileIdentity {
            device: r.u64()?,
            inode: r.u64()?,
            size: r.u64()?,
            mtime_ns: r.i64()?,
            ctime_ns: r.i64()?,
        })
    })
}

/// A manifest with something of everything.
#[cfg(test)]
pub(super) fn sample() -> Manifest {
    let memo = Some(FileIdentity { device: 1, inode: 2, size: 3, mtime_ns: -4, ctime_ns: 5 });
    let record = Record {
        files: vec![
            FileRecord { path: "a.c".into(), hash: [1; 32], memo },
            FileRecord { path: "/b.h".into(), hash: [2; 32], memo: None },
        ],
        folders: vec![FolderRecord { path: "inc".into(), missing: vec!["b.h".into()], memo }],
        listings: vec![ListingRecord { path: "dir".into(), hash: [3; 32], memo: None }],
    };
    let (level, seen) = (Some(Level::O2), LevelSigns::OPTIMIZE);
    let requires = CpuFeatures::named(["avx2"]);
    Manifest { entries: vec![Entry { checksum: [9; 32], memo, level, seen, requires, record }] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_or_flipped_bit_is_noticed() {
        let mut bytes = sample().encode();
        assert_eq!(Manifest::decode(&bytes), Ok(sample()));
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn wild_contents_with_a_right_checksum_do_not_panic() {
        let good = sample().encode();
        let body = &good[..good.len() - HASH_BYTES];
        for at in MAGIC.len()..body.len() {
            for value in [0, 0xff, 0x80] {
                let mut bytes = body.to_vec();
                bytes[at] = value;
                let hash = blake3::hash(&bytes);
                bytes.extend_from_slice(hash.as_bytes());
                let _ = Manifest::decode(&bytes);
            }
        }
    }

    #[test]
    fn a_new_result_for_the_same_state_takes_the_old_ones_place() {
        let mut all = Manifest::default();
        for i in 0..20u8 {
            let mut entry = sample().entries.remove(0);
            entry.record.files[0].hash = [i % 10; 32];
            entry.checksum = [i; 32];
            all.add(entry);
        }
        let kept: Vec<u8> = all.entries.iter().map(|entry| entry.checksum[0]).collect();
        assert_eq!(kept, [19, 18, 17, 16, 15, 14, 13, 12]);
        let mut again = sample().entries.remove(0);
        again.record.files[0].hash = [5; 32];
        again.checksum = [99; 32];
        all.add(again);
        assert_eq!(all.entries.len(), ENTRIES);
        assert_eq!(all.entries[0].checksum[0], 99);
        let mut higher = sample().entries.remove(0);
        (higher.record.files[0].hash, higher.level) = ([5; 32], Some(Level::O3));
        all.add(higher);
        assert_eq!(all.entries[1].checksum[0], 99, "a higher level does not always serve");
    }
}
