//! What the tests share: scratch folders, clang as the oracle, the command, and processes of this test binary itself for
//! what would disturb other tests or may end a process.

mod child;
mod process;
mod scratch;
mod tools;

pub(crate) use child::{Child, flush as child_flush, task};
pub(crate) use process::{End, Outcome, finish, finish_within, hotbed, kept, timing};
pub(crate) use scratch::Scratch;
pub(crate) use tools::{archive, clang, clangxx, execute, object, shared_library};
