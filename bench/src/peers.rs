//! What Hotbed is compared with inside the process. Both are called as directly as a careful host would call them, with
//! nothing between that would make the peer slower than it is.

pub(crate) mod floor;
pub(crate) mod library_resolver;
pub(crate) mod lljit;
pub(crate) mod shared_library;
