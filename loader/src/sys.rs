//! The only place with calls to the operating system and to glibc's run-time linker.

pub mod append;
pub mod arguments;
pub(crate) mod clock;
pub(crate) mod cpuid;
pub(crate) mod exit;
pub mod file_in_place;
pub mod files;
pub(crate) mod fork_lock;
pub(crate) mod futex;
pub(crate) mod libraries;
pub(crate) mod linker;
pub mod locks;
pub(crate) mod mapped_file;
pub(crate) mod mapped_names;
pub mod memory;
pub mod processes;
pub mod reservation;
pub(crate) mod signals;
pub mod sockets;
pub mod start;
pub mod sync;
pub mod threads;
pub mod unwind;
pub(crate) mod view;
