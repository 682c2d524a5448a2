//! Units whose functions are compiled when they are first called.
//!
//! [`skeleton`] makes an image of a request as a compilation does, but of its sources it has only the data: every function is
//! a stub, by lld linked like any other function, and the bitcode lies in the file. [`Compiler::open`] then makes
//! [`Bodies`] of a mapped image, which compile functions one small group at a time, as fresh code.
//!
//! Who maps such an image fills the slots of its stubs with the addresses of bodies; what stands where is in the
//! description of the format, `hotbed_loader::image::note`.

mod bodies;
mod chosen;
mod claims;
mod head;
mod keep;
mod kept;
mod link;
mod names;
mod object;
mod recent;
mod served;
mod stubs;
#[cfg(test)]
pub(crate) mod tests;

pub use bodies::{Bodies, Compiled, Compiler};
pub use keep::keep;
pub use link::{Opened, Skeleton, skeleton};

pub(crate) use link::{divide, link_flags};
pub(crate) use recent::remember;
pub(crate) use served::ServedCompiler;

use kept::{Kept, KeptBody};

/// What is behind the local names of an image's unit of that number.
fn suffix(unit: u32) -> String {
    format!(".u{unit}")
}

/// What is behind the names of its bodies. It does not end like a suffix of local names, and so is no name of any of them.
fn body_suffix(unit: u32) -> String {
    format!(".u{unit}.body")
}
