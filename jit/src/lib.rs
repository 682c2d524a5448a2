//! Hotbed's back end: clang, LLVM and lld in one library, the only part of Hotbed that knows them.
//!
//! As a cdylib it is the plugin `libhotbed_jit.so`, which exports one function (see [`plugin`]); as an rlib it is
//! linked into hosts that want no plugin. Either way it turns a
//! [`Request`](hotbed_loader::boundary::Request) into an image.

mod frontend;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod in_process;
pub mod lazy;
mod link;
mod made;
mod module;
mod parallel;
pub mod plugin;
mod reuse;
pub mod session;
mod shim;
pub mod split;
mod traced;

// Linked for the plugin: see shim/plugin/allocator.cpp.
use libmimalloc_sys as _;

pub use in_process::InProcess;
pub use module::module_bitcode;

/// The version of LLVM, clang and lld inside.
pub const LLVM_VERSION: &str = env!("HOTBED_LLVM_VERSION");
