//! Hotbed's loader: maps images, searches layers, opens shared libraries and keeps the store. It knows no LLVM.

pub mod boundary;
pub mod codec;
pub mod cpu;
pub mod debug;
mod error;
mod facade;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
pub mod layers;
pub mod libraries;
mod loader;
pub mod on_demand;
mod slots;
mod stand_ins;
pub mod store;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod trace;

pub use debug::Frame;
pub use error::{LoadError, Unresolved, demangle};
pub use image::{
    Definition, Export, Image, ImageError, ImageSource, Import, LoadTimes, Obstacles, SymbolKind,
};
pub use layers::{Layer, Resolution};
pub use loader::{Answer, Asked, Explanation, Reason, Verdict, near_misses};
pub use loader::{Duplicate, Duplicates, Sameness};
pub use loader::{Library, LibraryRequest, Loader, LoaderOptions, Namespace, NamespaceOptions, Provider};
pub use slots::{FunctionFailure, FunctionRequest, LazyFunction, Materializer, Slots};
pub use sys::arguments::ProgramArguments;
