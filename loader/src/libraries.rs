//! Shared libraries as files: where a name leads, as glibc's run-time linker has it, and what a file says about itself.
//! Nothing is opened as a library here, and no code of one runs.

mod cache;
mod file;
mod levels;
mod linker_names;
mod search;
mod tokens;

pub(crate) use cache::Cache;
pub(crate) use file::{Fitness, LibraryFile, fitness};
pub(crate) use linker_names::candidates;
pub use search::{SearchPath, find};
pub(crate) use tokens::{Tokens, expand};
