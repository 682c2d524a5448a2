//! Images that the user named: each is copied into the store once, and mapped from there.
//!
//! A mapping of a file shows what is done to the file: cut short, it kills who touches the missing pages; written over
//! in place, it changes code that runs. Files of the store are never changed, so an image that the user may change or
//! delete is mapped from its copy `images/<checksum>.hbi`, an entry like any other.
//!
//! A *memo* says which copy belongs to a file, so that neither is read again: `<store>/named/<hash>`, the hash being that
//! of the format's version and of the file's identity. Its contents, in the encoding of [`crate::codec`]: a magic text with
//! the version of this format, the checksum, what each variant of the image needs of the processor and which of them was copied, the
//! identity of the copy when its contents were last verified (if it had
//! been left alone for long enough), and a BLAKE3 hash over all that. It is written only for a file that had been
//! left alone for long enough, and whatever is wrong with it means that the file is read again.
//!
//! Of an image that has variants the one for this processor is copied, and nothing else. Another processor, with which the store may be
//! shared, finds out from the memo that it wants another one, and then reads the file itself.

use super::manifest::{read_memo, write_memo};
use super::reasons::StoreError;
use super::{Miss, Store};
use crate::codec::{CodecError, Reader, Writer};
use crate::cpu::CpuFeatures;
use crate::image::{Variant, choose, note};
use crate::sys::files::{self, FileIdentity, Stamp};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub(super) const FOLDER: &str = "named";
const MAGIC: &[u8; 8] = b"HotbedN2";
const HASH_BYTES: usize = 32;
/// More than a memo has: magic, checksum, sixteen bytes for each variant, presence byte, identity, hash.
const LARGEST: usize = 512;

/// The store's copy of an image that the user named.
#[derive(Debug)]
pub struct NamedImage {
    /// The checksum in its note.
    pub checksum: [u8; 32],
    /// The copy, open for reading, verified.
    pub file: OwnedFd,
}

/// Which copy belongs to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memo {
    checksum: [u8; 32],
    /// What variants of the image need.
    requires: Vec<CpuFeatures>,
    /// The place of the copied one among them.
    copied: usize,
    copy: Option<FileIdentity>,
}

impl Store {
    /// The copy of the image file with this identity, for a processor that has what `cpu` says, if the store has one and knows that
    /// it is.
    pub fn find_named(
        &self,
        identity: &FileIdentity,
        cpu: impl FnOnce() -> CpuFeatures,
    ) -> Option<NamedImage> {
        let path = self.memo_path(identity);
        let mut memo = memo(&path)?;
        // What every processor has is not looked for.
        let anybody = memo.requires == [CpuFeatures::NONE];
        if !anybody && choose(&memo.requires, cpu()).ok()? != memo.copied {
            return None;
        }
        let (file, changed) = self.open_copy(&mut memo).ok()?;
        if changed {
            // Best effort: without it the next start reads the copy again.
            let _ = self.write(&path, &memo.encode(), false);
        }
        Some(NamedImage { checksum: memo.checksum, file })
    }

    /// Takes in a copy of an image file that had this identity at `read`, before its contents were read: of its `variants`, which have
    /// been found intact, the one at the place `chosen`.
    ///
    /// # Errors
    /// What is wrong with the directory or the image. Nothing is left behind.
    pub fn insert_named(
        &self,
        identity: &FileIdentity,
        read: Stamp,
        variants: &[Variant<'_>],
        chosen: usize,
    ) -> Result<NamedImage, StoreError> {
        let bytes = variants.get(chosen).map_or(&[][..], |variant| variant.bytes);
        let checksum = note::verify(bytes)?;
        let adding = self.adding();
        let requires = variants.iter().map(|variant| variant.requires).collect();
        let mut memo = Memo { checksum, requires, copied: chosen, copy: None };
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
        drop(adding);
        self.tend_after(&checksum, bytes.len() as u64);
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

/// Which image the memo at `path` is about, if it can be read.
pub(super) fn copy_of(path: &Path) -> Option<[u8; 32]> {
    memo(path).map(|memo| memo.checksum)
}

/// The memo at `path`, if it can be read.
fn memo(path: &Path) -> Option<Memo> {
    let (file, _) = files::open_no_follow(path).ok()?;
    let mut bytes = [0; LARGEST];
    let length = files::read_start(&file, &mut bytes).ok()?;
    Memo::decode(&bytes[..length]).ok()
}

impl Memo {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { checksum, requires, copied, copy } = self;
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.raw(checksum);
        w.list(requires, |w, requires| w.raw(&requires.to_bytes()));
        w.u32(*copied as u32);
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
        Ok(Self {
            checksum: r.array()?,
            requires: r.list(|r| r.array().map(CpuFeatures::from_bytes))?,
            copied: r.u32()? as usize,
            copy: read_memo(&mut r)?,
        })
    }
}

/// A memo with something of everything.
#[cfg(test)]
pub(super) fn sample() -> Memo {
    let copy = FileIdentity { device: 1, inode: 2, size: 3, mtime_ns: 4, ctime_ns: 5 };
    let requires = vec![CpuFeatures::NONE, CpuFeatures::named(["avx"])];
    Memo { checksum: [6; 32], requires, copied: 1, copy: Some(copy) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::tests::{Scratch, image_bytes};
    use super::*;
    use crate::cpu::CpuLevel;
    use crate::image::note::Layout;
    use crate::image::variants;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::time::{Duration, SystemTime};

    /// An identity that no file has.
    const OLD: FileIdentity = FileIdentity { device: 1, inode: 2, size: 3, mtime_ns: 4, ctime_ns: 5 };

    fn find(store: &Store, identity: &FileIdentity) -> Option<NamedImage> {
        store.find_named(identity, || CpuFeatures::NONE)
    }

    fn insert(
        store: &Store,
        identity: &FileIdentity,
        read: Stamp,
        bytes: &[u8],
    ) -> Result<NamedImage, StoreError> {
        store.insert_named(identity, read, &variants(bytes).unwrap(), 0)
    }

    #[test]
    fn each_processor_gets_its_variant() {
        let scratch = Scratch::new("named-variants");
        let store = scratch.store();
        let (v2, v3) = (CpuLevel::V2.features(), CpuLevel::V3.features());
        let of = |text: &str, requires| {
            let mut bytes = image_bytes(text);
            note::set_layout(&mut bytes, &Layout { requires, ..Layout::default() }).unwrap();
            note::seal(&mut bytes).unwrap();
            bytes
        };
        let bytes = [of("plain", CpuFeatures::NONE), of("wide", v3)];
        let variant = |at: usize, requires| Variant { bytes: &bytes[at], requires };
        let both = [variant(0, CpuFeatures::NONE), variant(1, v3)];
        for (has, place) in [(v2, 0), (v3, 1), (v2, 0)] {
            assert!(store.find_named(&OLD, || has).is_none());
            store.insert_named(&OLD, Stamp::now(), &both, place).unwrap();
            let got = store.find_named(&OLD, || has).unwrap();
            assert_eq!(files::contents(got.file.as_fd()).unwrap(), bytes[place]);
        }
        // None runs there.
        store.insert_named(&OLD, Stamp::now(), &both[1..], 0).unwrap();
        assert!(store.find_named(&OLD, || v2).is_none());
    }

    #[test]
    fn a_copy_is_found_by_the_identity_of_the_file() {
        let scratch = Scratch::new("named-found");
        let store = scratch.store();
        let bytes = image_bytes("named");
        assert!(find(&store, &OLD).is_none());
        let put = insert(&store, &OLD, Stamp::now(), &bytes).unwrap();
        let got = find(&store, &OLD).unwrap();
        assert_eq!(got.checksum, put.checksum);
        assert_eq!(files::contents(got.file.as_fd()).unwrap(), bytes);
        assert!(find(&store, &FileIdentity { ctime_ns: 6, ..OLD }).is_none());
        // The second is the first: nothing is written again.
        let before = FileIdentity::of_path(&store.image_path(&put.checksum)).unwrap();
        insert(&store, &FileIdentity { inode: 7, ..OLD }, Stamp::now(), &bytes).unwrap();
        assert_eq!(FileIdentity::of_path(&store.image_path(&put.checksum)).unwrap(), before);
    }

    #[test]
    fn a_young_file_is_copied_and_not_remembered() {
        let scratch = Scratch::new("named-young");
        let store = scratch.store();
        scratch.write("young", "");
        let young = FileIdentity::of_path(&scratch.path("young")).unwrap();
        insert(&store, &young, Stamp::now(), &image_bytes("young")).unwrap();
        assert!(find(&store, &young).is_none());
        let later = Stamp::from_system(SystemTime::now() + Duration::from_secs(3));
        insert(&store, &young, later, &image_bytes("young")).unwrap();
        assert!(find(&store, &young).is_some());
    }

    #[test]
    fn a_settled_copy_is_not_read_again() {
        let scratch = Scratch::new("named-settled");
        let store = scratch.store();
        let put = insert(&store, &OLD, Stamp::now(), &image_bytes("settled")).unwrap();
        let path = store.image_path(&put.checksum);
        let copy = Some(FileIdentity::of_path(&path).unwrap());
        let memo = Memo { checksum: put.checksum, requires: vec![CpuFeatures::NONE], copied: 0, copy };
        store.write(&store.memo_path(&OLD), &memo.encode(), false).unwrap();
        assert_eq!(find(&store, &OLD).unwrap().checksum, put.checksum);
        // Another file in its place is looked at.
        std::fs::write(&path, "not an image").unwrap();
        assert!(find(&store, &OLD).is_none());
    }

    #[test]
    fn whatever_is_wrong_means_another_copy() {
        let scratch = Scratch::new("named-wrong");
        let store = scratch.store();
        let bytes = image_bytes("wrong");
        let put = insert(&store, &OLD, Stamp::now(), &bytes).unwrap();
        let (memo, copy) = (store.memo_path(&OLD), store.image_path(&put.checksum));
        let good = std::fs::read(&memo).unwrap();
        assert!(good.len() < LARGEST);
        for at in 0..good.len() {
            std::fs::write(&memo, &good[..at]).unwrap();
            assert!(find(&store, &OLD).is_none(), "cut at {at}");
            let mut flipped = good.clone();
            flipped[at] ^= 4;
            std::fs::write(&memo, &flipped).unwrap();
            assert!(find(&store, &OLD).is_none(), "flipped at {at}");
        }
        std::fs::write(&memo, &good).unwrap();
        assert!(find(&store, &OLD).is_some());
        File::options().write(true).open(&copy).unwrap().set_len(60).unwrap();
        assert!(find(&store, &OLD).is_none());
        insert(&store, &OLD, Stamp::now(), &bytes).unwrap();
        assert!(find(&store, &OLD).is_some());
        std::fs::remove_file(&copy).unwrap();
        assert!(find(&store, &OLD).is_none());
    }
}
