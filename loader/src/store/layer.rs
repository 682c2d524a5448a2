//! Stores that lie below the user's own, for several users of a machine: looked into, and never written to.
//!
//! Such a directory belongs to root or to this user, and nobody else may write to it or to the folders in it. What its memos say
//! of files holds where it was written; a copy, or a file system that is mounted elsewhere, has other identities. Nothing can be
//! written down about those, so what was found to be sound is remembered in this process.

use super::{Hit, IMAGES, Key, MANIFESTS, Miss, Store, StoreError, absolute, trusted_folder};
use crate::sys::files::{self, FileIdentity};
use crate::sys::sync::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::Path;

const ROOT: u32 = 0;

/// A store that is looked into only.
#[derive(Debug)]
pub struct Layer(Store);

/// Images that this process has verified, and the files that they were in.
#[derive(Debug, Default)]
pub(super) struct Verified(Mutex<HashMap<[u8; 32], FileIdentity>>);

impl Layer {
    /// The store in `root`.
    ///
    /// # Errors
    /// When there is none, or others than root and this user could have written to it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = absolute(root)?;
        let trusted = |owner| owner == ROOT || owner == files::effective_user();
        trusted_folder(&root, trusted)?;
        for folder in [IMAGES, MANIFESTS] {
            match trusted_folder(&root.join(folder), trusted) {
                // Nothing is in it yet.
                Err(StoreError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(Self(Store { root, budget: 0, verified: Some(Verified::default()) }))
    }

    /// As [`Store::find`].
    ///
    /// # Errors
    /// As there.
    pub fn find(&self, key: &Key, directory: &Path) -> Result<Hit, Miss> {
        self.0.find(key, directory)
    }
}

impl Verified {
    pub(super) fn has(&self, checksum: &[u8; 32], identity: &FileIdentity) -> bool {
        self.0.lock().get(checksum) == Some(identity)
    }

    pub(super) fn add(&self, checksum: &[u8; 32], identity: FileIdentity) {
        self.0.lock().insert(*checksum, identity);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]
    use super::super::tests::{filled, key, settle};
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// Everything in a folder with the state that it is in.
    fn state(folder: &Path) -> Vec<(PathBuf, FileIdentity)> {
        let mut all = vec![(folder.to_owned(), FileIdentity::of_path(folder).unwrap())];
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => all.extend(state(&path)),
                false => all.push((path.clone(), FileIdentity::of_path(&path).unwrap())),
            }
        }
        all.sort();
        all
    }

    #[test]
    fn a_layer_serves_and_is_left_as_it_is() {
        let (scratch, _store) = filled("layer");
        let root = scratch.path("store");
        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o755)).unwrap();
        let before = state(&root);
        let layer = Layer::open(&root).unwrap();
        // Sources at rest: there are new memos, which a store of one's own would note.
        std::thread::sleep(files::SETTLED_AFTER * 5 / 4);
        let hit = layer.find(&key("-O1"), &scratch.path(".")).unwrap();
        assert!(hit.path.starts_with(&root));
        assert_eq!(state(&root), before);
        // Read once.
        let identity = FileIdentity::of_path(&hit.path).unwrap();
        assert!(layer.0.verified.as_ref().unwrap().has(&hit.checksum, &identity));
        // Not what was verified.
        std::fs::write(&hit.path, "another").unwrap();
        assert!(matches!(layer.find(&key("-O1"), &scratch.path(".")), Err(Miss::ImageDamaged(_))));
    }

    #[test]
    fn what_is_at_rest_is_not_read_again() {
        let (scratch, store) = filled("layer-settled");
        settle(&store, &scratch);
        let layer = Layer::open(&scratch.path("store")).unwrap();
        layer.find(&key("-O1"), &scratch.path(".")).unwrap();
        assert!(layer.0.verified.as_ref().unwrap().0.lock().is_empty());
    }

    #[test]
    fn others_must_not_have_written_to_it() {
        let (scratch, _store) = filled("layer-open");
        let reason = || match Layer::open(&scratch.path("store")) {
            Err(StoreError::Unusable { path, reason }) => (path, reason),
            other => panic!("{other:?}"),
        };
        for folder in ["store/images", "store"] {
            let path = scratch.path(folder);
            let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            mode(0o777);
            assert_eq!(reason().0, path);
            assert!(reason().1.contains("write"));
            mode(0o755);
            Layer::open(&scratch.path("store")).unwrap();
            if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
                assert!(reason().1.contains("another user"));
                std::os::unix::fs::chown(&path, Some(files::effective_user()), None).unwrap();
            }
        }
        assert!(matches!(Layer::open(&scratch.path("nowhere")), Err(StoreError::System { .. })));
        assert!(!scratch.path("nowhere").exists());
    }
}
