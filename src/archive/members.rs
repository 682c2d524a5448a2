//! An archive whose members are loaded when something needs them: what is in it, and what makes an image of members.

use super::Archived;
use super::index::{Definition, Index};
use crate::error::Error;
use crate::input::Compilation;
use hotbed_loader::boundary::{Content, Failure, FailureKind, Lang};
use hotbed_loader::sys::files;
use std::path::{Path, PathBuf};

/// The members of a loaded archive.
pub(crate) struct Members {
    path: Option<PathBuf>,
    flags: Vec<String>,
    index: Index,
    /// What tells its contents from others.
    pub(crate) hash: [u8; 32],
}

impl Members {
    /// Reads an archive.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub(crate) fn read(unit: &str, archive: Archived) -> Result<Self, Error> {
        let Archived { content, flags } = archive;
        let (bytes, path) = match content {
            Content::Bytes { bytes, .. } => (bytes, None),
            Content::File(path) => {
                let bytes = files::open_regular(&path)
                    .and_then(|(file, status)| files::contents_of(&file, status.identity.size))
                    .map_err(|e| Error::read(unit, &path, &e))?;
                (bytes, Some(std::path::absolute(&path).unwrap_or(path)))
            }
        };
        let index = Index::read(&bytes, path.as_deref().and_then(Path::parent)).map_err(|what| {
            Error::of_failure(
                unit,
                Failure::new(FailureKind::Input, format!("cannot load {unit}: it {what}")),
            )
        })?;
        let mut hasher = blake3::Hasher::new();
        for flag in &flags {
            hasher.update(&(flag.len() as u64).to_le_bytes()).update(flag.as_bytes());
        }
        // Of a thin archive the members are elsewhere.
        for member in &index.members {
            hasher.update(&(member.contents.len() as u64).to_le_bytes()).update(&member.contents);
        }
        hasher.update(&bytes);
        Ok(Self { path, flags, index, hash: hasher.finalize().into() })
    }

    /// Where the archive is, if it is a file.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The names that its members define.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.index.names()
    }

    /// The first definition of `name`.
    pub(crate) fn definition(&self, name: &str) -> Option<Definition> {
        self.index.definition(name)
    }

    /// The name of a member.
    pub(crate) fn name_of(&self, member: usize) -> &str {
        self.index.members.get(member).map_or("", |member| &member.name)
    }

    /// The members that must be loaded together with `member`, itself included.
    pub(crate) fn cluster(&self, member: usize) -> &[usize] {
        self.index.cluster(member)
    }

    /// What a member refers to and does not have, as far as that is known.
    pub(crate) fn needs(&self, member: usize) -> &[String] {
        self.index.members.get(member).map_or(&[], |member| &member.needs)
    }

    /// What makes one image of these `members` of the archive that goes by `name`.
    pub(crate) fn compilation(&self, name: &str, members: &[usize]) -> Compilation {
        let inputs = members.iter().filter_map(|at| self.index.members.get(*at)).map(|member| {
            let lang = if member.bitcode { Lang::Bitcode } else { Lang::Object };
            let name = format!("{name}({})", member.name);
            (lang, Content::Bytes { name, bytes: member.contents.clone() })
        });
        Compilation::of_all(inputs, &self.flags)
    }
}
