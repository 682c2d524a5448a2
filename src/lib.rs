//! Hotbed: loads C, C++, LLVM IR, bitcode, objects, archives, images and shared libraries into the running process.
//!
//! A [`Runtime`] loads *units*; a [`Unit`] gives typed [`Symbol`]s that keep it alive. What has been compiled once is kept
//! as an image on disk, and the next start maps it without loading a compiler at all.
//!
//! ```no_run
//! use hotbed::{Runtime, Source, host_fn};
//!
//! extern "C" fn host_add(a: i32, b: i32) -> i32 {
//!     a + b
//! }
//!
//! # fn main() -> Result<(), hotbed::Error> {
//! let runtime = Runtime::builder().build()?;
//! runtime.define("host_add", host_fn!(host_add as extern "C" fn(i32, i32) -> i32))?;
//! let unit = runtime.load(Source::text(
//!     "twice.c",
//!     "int host_add(int, int); int twice(int x) { return host_add(x, x); }",
//! ))?;
//! // SAFETY: `twice` is declared above with this type.
//! let twice = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>("twice")? };
//! // SAFETY: as above.
//! assert_eq!(unsafe { twice(21) }, 42);
//! # Ok(())
//! # }
//! ```
//!
//! Without the feature `jit`, a default one, a host runs images and has nothing that compiles; with `static-backend` the
//! compiler is linked in instead of being a plugin.

mod archive;
mod autoload;
mod back_end;
mod builder;
mod byte_size;
mod cache;
mod cpu;
mod debug;
mod error;
mod executor;
mod host_fn;
mod image;
mod input;
mod inspect;
#[doc(hidden)]
pub mod keeper;
mod lazy;
mod library;
mod named;
mod namespace;
mod observer;
mod output;
mod pending;
mod provenance;
mod report;
mod runtime;
mod store;
mod symbol;
mod trace;
mod unit;
mod unload;
#[doc(hidden)]
pub mod worker;

pub use archive::Archive;
pub use builder::{Isolation, RuntimeBuilder};
pub use byte_size::{ByteSize, ByteSizeError};
pub use error::Error;
pub use executor::{Executor, Job};
pub use host_fn::{ForeignFunction, HostFunction};
pub use hotbed_loader::boundary::{
    BUILD, Counts, Dependency, Diagnostic, Failure, FailureKind, Lang, Phases, Severity,
};
pub use hotbed_loader::cpu::{CpuFeatures, CpuLevel, UnknownCpuLevel};
pub use hotbed_loader::image::{
    ExportDescription, FunctionDescription, Identity, ImageDependency, ImageDescription, ImageError,
    ImportDescription, InterfaceKind, InterfaceSymbol, InterfaceVersion, LoadTimes, Metadata, ProcessorLacks,
    SectionDescription, VariantDescription,
};
pub use hotbed_loader::store::{Collected, Considered, Difference, Miss, StoreError, StoreStat, Why};
pub use hotbed_loader::sys::arguments::ProgramArguments;
pub use hotbed_loader::{
    Answer, Asked, Duplicate, Duplicates, Explanation, Frame, Layer, LoadError, Reason, Sameness, SymbolKind,
    Unresolved, Verdict,
};
pub use hotbed_loader::{FunctionFailure, LazyFunction};
pub use image::ImageBuilder;
pub use input::{Bitcode, Image, Ir, Load, Object, Program, SharedLibrary, Source};
pub use lazy::{FunctionTime, FunctionTimes};
pub use library::LibraryBuilder;
pub use namespace::{Namespace, NamespaceOptions};
pub use observer::Observer;
pub use report::Report;
pub use runtime::Runtime;
pub use store::Store;
pub use symbol::Symbol;
pub use trace::Trace;
pub use unit::Unit;
pub use unload::Unload;
