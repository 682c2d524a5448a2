//! Images that the user named: each is copied into the store once, and mapped from there.
//!
//! A mapping of a file shows what is done to the file: cut short, it kills who touches the missing pages; written over
//! in place, it changes code that runs. Files of the store are never changed, so an image that the user may change or
//! delete is mapped from its copy `images/<checksum>.hbi`, an entry like any other.
//!
//! A *memo* says which copy belongs to a file, so that neither is read again: `<store>/named/<hash>`, the hash being that
//! of the format's version and of the file's identity. Its contents, in the encoding of [`crate::codec`]: a magic text with
//! the version of this format, the checksum, the identity of the copy when its contents were last verified (if it had
//! been left alone for long enough), and a BLAKE3 hash over all that. It is written only for a file that had been
//! left alone for long enough, and whatever is wrong with it means that the file is read again.

use super::manifest::{read_memo, write_memo};
use super::reasons::StoreError;
use super::{Miss, Store};
use crate::codec::{CodecError, Reader, Writer};
use crate::image::note;
use crate::sys::files::{self, FileIdentity, Stamp};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

const FOLDER: &str = "named";
const MAGIC: &[u8; 8] = b"HotbedN1";
const HASH_BYTES: usize = 32;
/// More than a memo has: magic, checksum, presence byte, identity, hash.
const LARGEST: usize = 128;

/// The store's copy of an image that the user named.
#[derive(Debug)]
pub struct NamedImage {
    /// The checksum in its note.
    pub checksum: [u8; 32],
    /// The copy, open for reading, verified.
    pub file: OwnedFd,
}

/// Which copy belongs to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memo {
    checksum: [u8; 32],
    copy: Option<FileIdentity>,
}

impl Store {
    /// The copy of the image file with this identity, if the store has one and knows that it is.
    pub fn find_named(&self, identity: &FileIdentity) -> Option<NamedImage> {
        let path = self.memo_path(identity);
        let (file, _) = files::open_no_follow(&path).ok()?;
        let mut bytes = [0; LARGEST];
        let length = files::read_start(&file, &mut bytes).ok()?;
        let mut memo = Memo::decode(&bytes[..length]).ok()?;
        let (file, changed) = self.open_copy(&mut memo).ok()?;
        if changed {
            // Best effort: without it the next start reads the copy again.
            let _ = self.write(&path, &memo.encode(), false);
        }
        Some(NamedImage { checksum: memo.checksum, file })
    }

    /// Takes in a copy of an image file that had this identity at `read`, before its contents, `bytes`, were read.
    ///
    /// # Errors
    /// What is wrong with the directory or the image. Nothing is left behind.
    pub fn insert_named(
        &self,
        identity: &FileIdentity,
        read: Stamp,
        bytes: &[u8],
    ) -> Result<NamedImage, StoreError> {
        let checksum = note::verify(bytes)?;
        let mut memo = Memo { checksum, copy: None };
        let file = match self.open_copy(&mut memo) {
            Ok((file, _)) => file,
            // Missing or damaged.
            Err(_) => {
                let path = self.image_path(&checksum);
                self.write(&path, bytes, true).map_err(|source| StoreError::System {
                    operation: "write to",
                    path: path.clone(),
                    source,
                })?;
                let (file, _) = self
                    .open_copy(&mut memo)
                    .map_err(|miss| StoreError::Unusable { path, reason: miss.to_string() })?;
                file
            }
        };
        if identity.is_settled(read) {
            // Only a memo.
            let _ = self.write(&self.memo_path(identity), &memo.encode(), false);
        }
        Ok(NamedImage { checksum, file })
    }

    fn open_copy(&self, memo: &mut Memo) -> Result<(OwnedFd, bool), Miss> {
        self.open_image(&memo.checksum, &mut memo.copy)
    }

    fn memo_path(&self, identity: &FileIdentity) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&note::FORMAT_VERSION.to_le_bytes()).update(&identity.to_bytes());
        self.named(FOLDER, &hasher.finalize().to_hex(), "")
    }
}

impl Memo {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { checksum, copy } = self;
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.raw(checksum);
        write_memo(&mut w, copy.as_ref());
        let mut bytes = w.finish();
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (contents, hash) = bytes
            .len()
            .checked_sub(HASH_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(CodecError("it is cut off"))?;
        let values = contents.strip_prefix(MAGIC).ok_or(CodecError("it has no magic number"))?;
        if blake3::hash(contents).as_bytes() != hash {
            return Err(CodecError("its checksum does not match"));
        }
        let mut r = Reader::new(values);
        Ok(Self { checksum: r.array()?, copy: read_memo(&mut r)? })
    }
}

/// A memo with something of everything.
#[cfg(test)]
pub(super) fn sample() -> Memo {
    let copy = FileIdentity { device: 1, inode: 2, size: 3, mtime_ns: 4, ctime_ns: 5 };
    Memo { checksum: [6; 32], copy: Some(copy) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::tests::{Scratch, image_bytes};
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::time::{Duration, SystemTime};

    /// An identity that no file has.
    const OLD: FileIdentity = FileIdentity { device: 1, inode: 2, size: 3, mtime_ns: 4, ctime_ns: 5 };

    #[test]
    fn a_copy_is_found_by_the_identity_of_the_file() {
        let scratch = Scratch::new("named-found");
        let store = scratch.store();
        let bytes = image_bytes("named");
        assert!(store.find_named(&OLD).is_none());
        let put = store.insert_named(&OLD, Stamp::now(), &bytes).unwrap();
        let got = store.find_named(&OLD).unwrap();
        assert_eq!(got.checksum, put.checksum);
        assert_eq!(files::contents(got.file.as_fd()).unwrap(), bytes);
        assert!(store.find_named(&FileIdentity { ctime_ns: 6, ..OLD }).is_none());
        // The second is the first: nothing is written again.
        let before = FileIdentity::of_path(&store.image_path(&put.checksum)).unwrap();
        store.insert_named(&FileIdentity { inode: 7, ..OLD }, Stamp::now(), &bytes).unwrap();
        assert_eq!(FileIdentity::of_path(&store.image_path(&put.checksum)).unwrap(), before);
    }

    #[test]
    fn a_young_file_is_copied_and_not_remembered() {
        let scratch = Scratch::new("named-young");
        let store = scratch.store();
        scratch.write("young", "");
        let young = FileIdentity::of_path(&scratch.path("young")).unwrap();
        store.insert_named(&young, Stamp::now(), &image_bytes("young")).unwrap();
        assert!(store.find_named(&young).is_none());
        let later = Stamp::from_system(SystemTime::now() + Duration::from_secs(3));
        store.insert_named(&young, later, &image_bytes("young")).unwrap();
        assert!(store.find_named(&young).is_some());
    }

    #[test]
    fn a_settled_copy_is_not_read_again() {
        let scratch = Scratch::new("named-settled");
        let store = scratch.store();
        let put = store.insert_named(&OLD, Stamp::now(), &image_bytes("settled")).unwrap();
        let path = store.image_path(&put.checksum);
        let memo = Memo { checksum: put.checksum, copy: Some(FileIdentity::of_path(&path).unwrap()) };
        store.write(&store.memo_path(&OLD), &memo.encode(), false).unwrap();
        assert_eq!(store.find_named(&OLD).unwrap().checksum, put.checksum);
        // Another file in its place is looked at.
        std::fs::write(&path, "not an image").unwrap();
        assert!(store.find_named(&OLD).is_none());
    }

    #[test]
    fn whatever_is_wrong_means_another_copy() {
        let scratch = Scratch::new("named-wrong");
        let store = scratch.store();
        let bytes = image_bytes("wrong");
        let put = store.insert_named(&OLD, Stamp::now(), &bytes).unwrap();
        let (memo, copy) = (store.memo_path(&OLD), store.image_path(&put.checksum));
        let good = std::fs::read(&memo).unwrap();
        assert!(good.len() < LARGEST);
        for at in 0..good.len() {
            std::fs::write(&memo, &good[..at]).unwrap();
            assert!(store.find_named(&OLD).is_none(), "cut at {at}");
            let mut flipped = good.clone();
            flipped[at] ^= 4;
            std::fs::write(&memo, &flipped).unwrap();
            assert!(store.find_named(&OLD).is_none(), "flipped at {at}");
        }
        std::fs::write(&memo, &good).unwrap();
        assert!(store.find_named(&OLD).is_some());
        File::options().write(true).open(&copy).unwrap().set_len(60).unwrap();
        assert!(store.find_named(&OLD).is_none());
        store.insert_named(&OLD, Stamp::now(), &bytes).unwrap();
        assert!(store.find_named(&OLD).is_some());
        std::fs::remove_file(&copy).unwrap();
        assert!(store.find_named(&OLD).is_none());
        assert!(matches!(store.insert_named(&OLD, Stamp::now(), b"no image"), Err(StoreError::Image(_))));
    }
}
