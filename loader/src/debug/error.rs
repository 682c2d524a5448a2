//! Why something about loaded code cannot be told.

use std::io;
use std::path::PathBuf;

/// Why something about loaded code cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// The file it was mapped from cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file that has its name now is another one.
    #[error("{0} is not the file that was mapped")]
    Changed(PathBuf),
    /// Its contents are in no file and were not kept.
    #[error("its file was not kept")]
    Nowhere,
    /// Its contents are no ELF file that can be read.
    #[error("its ELF file cannot be read: {0}")]
    Elf(#[from] object::Error),
    /// Its debug information cannot be read.
    #[error("its debug information cannot be read: {0}")]
    Dwarf(#[from] gimli::Error),
    /// Its debug information cannot be moved to where it lies.
    #[error("its debug information cannot be converted: {0}")]
    Convert(#[from] gimli::write::ConvertError),
    /// Parts of its debug information are of a kind that is not converted.
    #[error("{0} attributes of its debug information are of a kind that is not converted")]
    Partly(usize),
    /// A section is compressed.
    #[error("its section {0} is compressed")]
    Compressed(String),
    /// A file for a tool cannot be made.
    #[error("cannot make the file for gdb: {0}")]
    Make(String),
    /// A file for a tool cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
