//! The back end as a plugin shows it: one exported function that gives a table of functions.

use super::RawOthers;
use std::ffi::{CStr, c_char, c_void};

/// Name of the one symbol that the plugin exports, a [`TableFunction`].
pub const TABLE_SYMBOL: &CStr = c"hotbed_back_end";

/// Gives the plugin's table, which lives as long as the plugin is open.
pub type TableFunction = unsafe extern "C" fn() -> *const BackEndTable;

/// What a plugin offers. The first two fields never move, so that a host can tell a plugin of another build from
/// its own before it calls anything else.
#[repr(C)]
pub struct BackEndTable {
    /// Size of this struct in bytes.
    pub size: usize,
    /// [`super::BUILD`] of the plugin, zero-terminated.
    pub build: *const c_char,
    /// Carries out an encoded request. Any thread, several at once; never unwinds. So for all of these.
    pub compile: unsafe extern "C" fn(request: RawBytes) -> RawReply,
    /// See [`super::BackEnd::function_compiler`]. Writes the compiler to `compiler`, or answers with a failure; the answer to
    /// this, and to the next two, is of [`super::decode_outcome`].
    pub function_compiler:
        unsafe extern "C" fn(others: *const RawOthers, compiler: *mut *mut c_void) -> RawReply,
    /// See [`super::FunctionCompiler::open`]. Writes the bodies to `bodies`, or answers with a failure.
    pub open_bodies: unsafe extern "C" fn(
        compiler: *const c_void,
        image: u64,
        file: RawBytes,
        distance: usize,
        alone: bool,
        bodies: *mut *mut c_void,
    ) -> RawReply,
    /// See [`super::Bodies::compile`].
    pub compile_function: unsafe extern "C" fn(bodies: *const c_void, slot: u32, deep: bool) -> RawReply,
    /// See [`super::Bodies::kept`]; the bytes of the answer are what it gives.
    pub kept_bodies: unsafe extern "C" fn(bodies: *const c_void) -> RawReply,
    /// See [`super::BackEnd::keep`]: an encoded request, the file and bodies. The answer is as for `compile`.
    pub keep: unsafe extern "C" fn(request: RawBytes, file: RawBytes, bodies: RawBytes) -> RawReply,
    /// Drops bodies.
    pub drop_bodies: unsafe extern "C" fn(bodies: *mut c_void),
    /// Drops a compiler, when none of its bodies are left.
    pub drop_compiler: unsafe extern "C" fn(compiler: *mut c_void),
    /// Gives the bytes of a reply back; the image's descriptor is the caller's and stays open.
    pub release: unsafe extern "C" fn(reply: RawReply),
}

// SAFETY: the table is immutable and `build` points to a static string; the functions may be called by any thread.
unsafe impl Sync for BackEndTable {}

/// Bytes that are lent for a call.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RawBytes {
    /// The first; not null.
    pub first: *const u8,
    /// How many there are.
    pub length: usize,
}

impl RawBytes {
    /// These.
    pub fn new(bytes: &[u8]) -> Self {
        Self { first: bytes.as_ptr(), length: bytes.len() }
    }

    /// What they are.
    ///
    /// # Safety
    /// They are lent for as long as the result is used.
    pub unsafe fn get<'a>(self) -> &'a [u8] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.first, self.length) }
    }
}

/// An encoded answer, owned by the plugin until it is released.
#[repr(C)]
#[derive(Debug)]
pub struct RawReply {
    /// First byte of the answer ([`super::decode_answer`]).
    pub bytes: *mut u8,
    /// How many bytes it has.
    pub length: usize,
    /// How many it has room for; the plugin's business.
    pub capacity: usize,
    /// Descriptor of the image, owned by the caller; -1 when there is none.
    pub image: i32,
}
