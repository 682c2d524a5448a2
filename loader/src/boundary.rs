//! What goes between a host and a back end: bytes, names, addresses and plain options; no LLVM type.
//!
//! One implementation serves three ways across: a trait object in one process ([`BackEnd`]), a table of functions
//! exported by the plugin ([`BackEndTable`]), and messages to a worker. All three carry the same encoded [`Request`]
//! and [`Reply`], and the finished image as a descriptor of an in-memory file.

mod flags;
mod fresh;
mod functions;
mod reply;
mod request;
mod signs;
mod table;

pub use flags::takes_value;
pub use fresh::{ENTRY_HEAD, FreshArea, GRANULE};
pub use functions::{
    Bodies, Body, CompiledFunctions, FreshDefinition, FunctionCompiler, Others, RawOthers, decode_outcome,
    encode_outcome,
};
pub use reply::{
    Counts, Dependency, Diagnostic, Failure, FailureKind, Phases, Reply, Severity, decode as decode_answer,
    encode as encode_answer,
};
pub use request::{Argument, Content, Input, Lang, Request, Trace};
pub use signs::LevelSigns;
pub use table::{BackEndTable, RawBytes, RawReply, TABLE_SYMBOL, TableFunction};

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Identity of this build of Hotbed: two parts that do not agree in it do not talk to each other, and an entry of
/// the store made by another build is not used. A hash over the sources of the loader and the back end and the
/// version of LLVM.
pub const BUILD: &str = env!("HOTBED_BUILD");

/// [`BUILD`] for the plugin's table.
pub const BUILD_ZERO_TERMINATED: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("HOTBED_BUILD"), "\0").as_bytes()) {
        Ok(build) => build,
        Err(_) => c"",
    };

/// Something that turns inputs into an image.
pub trait BackEnd: Send + Sync {
    /// Compiles and links the inputs of `request` into one image; into a lazy one, if the request says so and the
    /// inputs can be taken to pieces.
    ///
    /// Any thread may call it, several at once. The image comes back in an in-memory file that the caller owns,
    /// positioned anywhere.
    ///
    /// # Errors
    /// What was wrong with which input, with the compiler's diagnostics.
    fn compile(&self, request: &Request) -> Result<(Reply, OwnedFd), Failure>;

    /// Makes the lazy image in `file`, which was made of `request`, once more, with the bodies that it has and those that
    /// [`Bodies::kept`] gave for it.
    ///
    /// # Errors
    /// When that is not such an image, an input of the request is not what it was, or the link fails.
    fn keep(&self, request: &Request, file: &[u8], bodies: &[u8]) -> Result<OwnedFd, Failure> {
        let _ = (request, file, bodies);
        Err(Failure::new(FailureKind::Internal, "this back end compiles whole units only".to_owned()))
    }

    /// Who compiles functions of lazy images in this process, with `others` to ask.
    ///
    /// # Errors
    /// When the system gives no address space, or this compiles elsewhere.
    fn function_compiler(&self, others: Arc<dyn Others>) -> Result<Box<dyn FunctionCompiler>, Failure> {
        let _ = others;
        Err(Failure::new(FailureKind::Internal, "this back end compiles whole units only".to_owned()))
    }
}
