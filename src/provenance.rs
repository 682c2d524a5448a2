//! What a loaded unit was made from, and whether loading it again would give the same.

use hotbed_loader::boundary::Dependency;
use hotbed_loader::store::{Key, Record};
use hotbed_loader::sys::files::{FileIdentity, FileKind, FileStatus, Stamp};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::input::LibraryName;

/// What was asked for under a unit's name; equal ones give the same unit as long as the provenance holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A request, and the directory when it names files relative to it.
    Compiled(Key, Option<PathBuf>),
    /// An image, by its checksum.
    Image([u8; 32]),
    /// A shared library.
    Library(LibraryName),
    /// An archive, by a hash of its contents and flags.
    Archive([u8; 32]),
    /// A lazy library: a request, the directory that it was made in, and the declared list.
    Lazy(Key, PathBuf, Option<BTreeSet<String>>),
}

/// What a unit depends on.
#[derive(Debug, Clone, Default)]
pub(crate) enum Provenance {
    /// Nothing beyond its identity.
    #[default]
    Itself,
    /// Recorded by the store, with hashes.
    Recorded { record: Record, directory: PathBuf },
    /// Not recorded: whatever was changed after that moment counts as changed.
    Since { dependencies: Vec<Dependency>, directory: PathBuf, started: Stamp },
}

impl Provenance {
    /// The dependencies as the back end named them.
    pub(crate) fn dependencies(&self) -> Vec<Dependency> {
        match self {
            Self::Itself => Vec::new(),
            Self::Recorded { record, .. } => record.dependencies(),
            Self::Since { dependencies, .. } => dependencies.clone(),
        }
    }

    /// Makes sure that nothing has changed.
    ///
    /// # Errors
    /// What has, in words.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        match self {
            Self::Itself => Ok(()),
            Self::Recorded { record, directory } => record.check(directory).map_err(|miss| miss.to_string()),
            Self::Since { dependencies, directory, started } => {
                dependencies.iter().try_for_each(|dependency| check_since(dependency, directory, *started))
            }
        }
    }
}

fn check_since(dependency: &Dependency, directory: &Path, started: Stamp) -> Result<(), String> {
    match dependency {
        Dependency::File(path) | Dependency::Listing(path) => {
            match FileIdentity::of_path(&directory.join(path)) {
                Ok(identity) if identity.changed_since(started) => {
                    Err(format!("{} has changed", path.display()))
                }
                Ok(_) => Ok(()),
                Err(e) => Err(format!("{} cannot be read any more: {}", path.display(), e.kind())),
            }
        }
        Dependency::Missing(path) => match FileStatus::of_path(&directory.join(path)) {
            Ok(status) if status.kind != FileKind::Folder => Err(format!("{} has appeared", path.display())),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    #[test]
    fn changes_after_the_start_are_seen() {
        let directory = std::env::temp_dir().join(format!("hotbed-provenance-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("a.c");
        std::fs::write(&file, "1").unwrap();
        hotbed_loader::sys::files::outlive_tick(&file);
        let mut provenance = Provenance::Since {
            dependencies: vec![Dependency::File("a.c".into()), Dependency::Missing("b.h".into())],
            directory: directory.clone(),
            started: Stamp::now(),
        };
        provenance.check().unwrap();
        std::fs::write(directory.join("b.h"), "").unwrap();
        assert_eq!(provenance.check().unwrap_err(), "b.h has appeared");
        std::fs::remove_file(directory.join("b.h")).unwrap();
        std::fs::write(&file, "2").unwrap();
        assert_eq!(provenance.check().unwrap_err(), "a.c has changed");
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(provenance.check().is_err());
    }
}
