//! Units are taken apart, compiled piece by piece and put together by the ordinary linker; clang's own executable says
//! what the program must do.
#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

mod bench;
mod facts;
mod features;
mod hostile;
mod libraries;
pub(crate) mod support;
