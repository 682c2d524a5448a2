//! Why the store has nothing, and why it takes nothing.

use crate::image::ImageError;
use crate::sys::files::plain;
use std::io;
use std::path::{Path, PathBuf};

/// Why no entry of the store serves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Miss {
    /// Nothing with these flags and inputs was compiled before.
    #[error("these inputs and flags were not compiled before")]
    NoEntry,
    /// The manifest is there but cannot be read.
    #[error("the store's manifest cannot be read: {0}")]
    ManifestUnreadable(io::ErrorKind),
    /// The manifest is not what was written.
    #[error("the store's manifest is damaged: {0}")]
    ManifestDamaged(&'static str),
    /// A file has other contents.
    #[error("{} has changed", .0.display())]
    DependencyChanged(PathBuf),
    /// There is now a file where one was looked for in vain.
    #[error("{} has appeared", .0.display())]
    DependencyAppeared(PathBuf),
    /// A file is not there any more, or cannot be read.
    #[error("{} cannot be read any more: {}", .0.display(), .1)]
    DependencyGone(PathBuf, io::ErrorKind),
    /// A folder has other names in it.
    #[error("the list of files in {} has changed", .0.display())]
    ListingChanged(PathBuf),
    /// The image is not there any more.
    #[error("the stored image is gone")]
    ImageMissing,
    /// The image is not what was written.
    #[error("the stored image is damaged: {0}")]
    ImageDamaged(String),
}

impl Miss {
    /// The dependency that is to blame, as the back end named it.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::DependencyChanged(path)
            | Self::DependencyAppeared(path)
            | Self::DependencyGone(path, _)
            | Self::ListingChanged(path) => Some(path),
            Self::NoEntry
            | Self::ManifestUnreadable(_)
            | Self::ManifestDamaged(_)
            | Self::ImageMissing
            | Self::ImageDamaged(_) => None,
        }
    }
}

/// Why the store cannot be used, or does not take an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory is not one that may be trusted.
    #[error("cannot use the store in {}: {reason}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {operation} the store in {}: {}", path.display(), plain(source))]
    System {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A dependency may have changed while it was being compiled, so nobody knows what the image was made from. Nothing is
    /// wrong with the store.
    #[error("not stored: {} {reason}", path.display())]
    Unstable {
        /// The dependency.
        path: PathBuf,
        /// What happened to it.
        reason: String,
    },
    /// What was to be stored is no image.
    #[error("not stored: {0}")]
    Image(#[from] ImageError),
}
