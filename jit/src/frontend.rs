//! From sources, IR and bitcode to objects: clang's driver works out the jobs, its front end runs them in this process.

mod driver;
mod headers;
mod jobs;
mod messages;
mod sources;
mod target;

pub(crate) use driver::{Piece, Place, ask};
pub(crate) use jobs::{
    Compiled, CompiledObject, Form, Module, compile, distinct_paths, generate, modules, shown,
};
pub(crate) use messages::{failure, to_diagnostics};
pub(crate) use sources::{Contents, Prepared, prepare, read};
pub(crate) use target::Target;
