//! A unit in pieces, so that a function is compiled when it is first needed.
//!
//! [`sources`] makes bitcode of a unit's sources. [`Unit::open`] reads it without the bodies. Its [`facts`](Unit::facts) are known at once; [`Unit::data`]
//! gives one piece with everything that is not a function, [`Unit::code`] a piece with the functions that are wanted.
//! All pieces of a unit linked together are the unit: each name is defined once, and what was local to the unit
//! has a name that no other unit has, so that there is one copy of every variable, text and function.
//!
//! Who links pieces has to know:
//! - Aliases and ifuncs of a function, and tables with the addresses of its labels, are in the code piece that has the
//!   function ([`Symbol::base`]).
//! - The tables of constructors and destructors are in the data piece, and name functions of code pieces ([`Facts::starts`]).
//! - `thread_local` variables are reached by general dynamic TLS only (`__tls_get_addr`, `R_X86_64_TLSGD`), also hidden ones,
//!   in other pieces and in the same. Bodies of [`Unit::code_of`] call functions of the data piece instead.
//! - Hidden names are reached directly, within 2 GiB; visible ones through the GOT and the PLT.
//! - Where names shall mean stubs, bodies get names of their own ([`Unit::code_of`]). Pieces then have neither aliases nor
//!   ifuncs of functions: an alias means the stub of its function, and who resolves an ifunc calls its function.
//! - Symbols that assembly within a body defines are there when its piece is.
//!
//! A unit is for one thread at a time. It can be opened several times: names are the same each time.

mod facts;
mod plan;
mod source;
#[cfg(test)]
pub(crate) mod tests;
mod unit;

pub use facts::{Body, Facts, Kind, Linkage, Number, Start, Symbol, Visibility};
pub use plan::{Plan, PlanOptions, cluster, plan};
pub(crate) use source::optimises;
pub use source::{Source, sources};
pub use unit::{Piece, Settings, Unit, prepare};
