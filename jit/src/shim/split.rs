//! The functions of `shim/split*.cpp` as Rust sees them.

use super::{Messages, Object, RawMessages, RawObject, Slice};
use std::marker::{PhantomData, PhantomPinned};
use std::ptr::NonNull;

owned! {
    /// An opened unit.
    Split, RawSplit, hb_split_free;
    /// A piece of it, which must not live longer.
    Piece, RawPiece, hb_piece_free;
}

// SAFETY: a unit has a context of its own and no ties to the thread that opened it; it is used through an exclusive reference.
unsafe impl Send for Split {}

/// A name of the unit.
#[repr(C)]
pub(crate) struct RawSymbol<'a> {
    /// The name.
    pub(crate) name: Slice<'a>,
    /// 0 function, 1 variable, 2 alias, 3 ifunc.
    pub(crate) kind: u8,
    /// 0 strong, 1 weak, 2 common, 3 for inlining only, 4 declared, 5 declared weak.
    pub(crate) linkage: u8,
    /// 0 default, 1 hidden, 2 protected.
    pub(crate) visibility: u8,
    /// 1 was local, 2 data has its address, 4 used, 8 has addresses of labels, 16 thread-local, 32 constant, 64 always
    /// inlined.
    pub(crate) flags: u8,
    /// Bytes of bitcode of a function, of memory of a variable.
    pub(crate) size: u32,
    /// The symbol it belongs to, or the largest number.
    pub(crate) base: u32,
}

/// An entry in the tables of constructors and destructors.
#[repr(C)]
pub(crate) struct RawStart {
    /// Number of the function.
    pub(crate) function: u32,
    /// Lower ones first.
    pub(crate) priority: u32,
    /// Otherwise a constructor.
    pub(crate) destructor: bool,
}

/// What a body says.
#[repr(C)]
pub(crate) struct RawBody {
    calls: *const u32,
    mentions: *const u32,
    call_count: usize,
    mention_count: usize,
    /// Instructions of LLVM.
    pub(crate) instructions: u32,
    /// Has inline assembly.
    pub(crate) assembly: bool,
    /// The address of a label is taken.
    pub(crate) labels: bool,
}

/// What is copied into a code piece, to be inlined there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Copies {
    /// Nothing; such a piece is good for looking at only.
    None,
    /// Functions that are inlined wherever they are called.
    Forced,
    /// These and small ones.
    All,
}

unsafe extern "C" {
    fn hb_split_open(
        bitcode: Slice<'_>,
        name: Slice<'_>,
        suffix: Slice<'_>,
        arguments: *const Slice<'_>,
        count: usize,
        trusted: bool,
        far: bool,
        messages: *mut RawMessages,
    ) -> *mut RawSplit;
    fn hb_split_free(split: *mut RawSplit);
    fn hb_split_reads_files(split: *const RawSplit) -> bool;
    fn hb_split_symbols<'a>(split: *const RawSplit, count: *mut usize) -> *const RawSymbol<'a>;
    fn hb_split_starts(split: *const RawSplit, count: *mut usize) -> *const RawStart;
    fn hb_split_body(
        split: *mut RawSplit,
        number: u32,
        body: *mut RawBody,
        messages: *mut RawMessages,
    ) -> bool;
    fn hb_split_prepare(
        bitcode: Slice<'_>,
        name: Slice<'_>,
        trusted: bool,
        messages: *mut RawMessages,
    ) -> *mut RawObject;
    fn hb_split_data(split: *mut RawSplit, messages: *mut RawMessages) -> *mut RawPiece;
    fn hb_split_keep_local(split: *mut RawSplit, numbers: *const u32, count: usize);
    fn hb_split_code(
        split: *mut RawSplit,
        wanted: *const u32,
        count: usize,
        suffix: Slice<'_>,
        copies: Copies,
        messages: *mut RawMessages,
    ) -> *mut RawPiece;

    fn hb_piece_free(piece: *mut RawPiece);
    fn hb_piece_verify(piece: *mut RawPiece, messages: *mut RawMessages) -> bool;
    fn hb_piece_bitcode(piece: *mut RawPiece, messages: *mut RawMessages) -> *mut RawObject;
    fn hb_piece_compile(piece: *mut RawPiece, messages: *mut RawMessages) -> *mut RawObject;
}

/// Simplifies a unit's functions and infers their attributes; bitcode, or none after an error.
pub(crate) fn prepare(bitcode: &[u8], name: &str, trusted: bool, messages: &Messages) -> Option<Object> {
    // SAFETY: all borrows outlive the call, and the result is owned.
    unsafe { Object::own(hb_split_prepare(bitcode.into(), name.into(), trusted, messages.raw())) }
}

impl Split {
    /// Opens a unit; none after an error.
    ///
    /// # Safety
    /// `bitcode` stays where it is as long as the unit lives.
    pub(crate) unsafe fn open(
        bitcode: &[u8],
        name: &str,
        suffix: &str,
        arguments: &[String],
        trusted: bool,
        far: bool,
        messages: &Messages,
    ) -> Option<Self> {
        let slices: Vec<Slice<'_>> = arguments.iter().map(|a| a.as_str().into()).collect();
        // SAFETY: all other borrows outlive the call, the bitcode by the caller's word; the result is owned.
        unsafe {
            Self::own(hb_split_open(
                bitcode.into(),
                name.into(),
                suffix.into(),
                slices.as_ptr(),
                slices.len(),
                trusted,
                far,
                messages.raw(),
            ))
        }
    }

    /// All names, by number.
    pub(crate) fn symbols(&self) -> &[RawSymbol<'_>] {
        let mut count = 0;
        // SAFETY: the list is the unit's, and does not change once it is open.
        unsafe { list(hb_split_symbols(self.raw(), &raw mut count), count) }
    }

    /// The constructors and destructors.
    pub(crate) fn starts(&self) -> &[RawStart] {
        let mut count = 0;
        // SAFETY: the list is the unit's, and does not change once it is open.
        unsafe { list(hb_split_starts(self.raw(), &raw mut count), count) }
    }

    /// Whether assembly was seen that has the assembler read files.
    pub(crate) fn reads_files(&self) -> bool {
        // SAFETY: alive.
        unsafe { hb_split_reads_files(self.raw()) }
    }

    /// What a body says, as `convert` makes it of the lists of calls and mentions; none after an error.
    pub(crate) fn body<T>(
        &mut self,
        number: u32,
        messages: &Messages,
        convert: impl FnOnce(&RawBody, &[u32], &[u32]) -> T,
    ) -> Option<T> {
        let mut body = RawBody {
            calls: std::ptr::null(),
            mentions: std::ptr::null(),
            call_count: 0,
            mention_count: 0,
            instructions: 0,
            assembly: false,
            labels: false,
        };
        // SAFETY: `body` is written during the call; its lists are good until the next one, which needs the unit.
        unsafe {
            hb_split_body(self.raw(), number, &raw mut body, messages.raw()).then(|| {
                convert(&body, list(body.calls, body.call_count), list(body.mentions, body.mention_count))
            })
        }
    }

    /// The data piece; none after an error.
    ///
    /// # Safety
    /// The unit lives longer than the piece, and is not used beside it.
    pub(crate) unsafe fn data(&mut self, messages: &Messages) -> Option<Piece> {
        // SAFETY: the unit is alive and used by nobody else; the result is owned.
        unsafe { Piece::own(hb_split_data(self.raw(), messages.raw())) }
    }

    /// Makes functions local to their pieces.
    pub(crate) fn keep_local(&mut self, functions: &[u32]) {
        // SAFETY: the unit is alive and used by nobody else.
        unsafe { hb_split_keep_local(self.raw(), functions.as_ptr(), functions.len()) }
    }

    /// A code piece; none after an error.
    ///
    /// # Safety
    /// As for [`data`](Self::data).
    pub(crate) unsafe fn code(
        &mut self,
        wanted: &[u32],
        suffix: &str,
        copies: Copies,
        messages: &Messages,
    ) -> Option<Piece> {
        // SAFETY: as above.
        unsafe {
            Piece::own(hb_split_code(
                self.raw(),
                wanted.as_ptr(),
                wanted.len(),
                suffix.into(),
                copies,
                messages.raw(),
            ))
        }
    }
}

impl Piece {
    /// Whether LLVM takes it for a sound module.
    pub(crate) fn verify(&self, messages: &Messages) -> bool {
        // SAFETY: alive.
        unsafe { hb_piece_verify(self.raw(), messages.raw()) }
    }

    /// As bitcode; none after an error.
    pub(crate) fn bitcode(&self, messages: &Messages) -> Option<Object> {
        // SAFETY: alive, and the result is owned.
        unsafe { Object::own(hb_piece_bitcode(self.raw(), messages.raw())) }
    }

    /// Generates code, once; none after an error.
    pub(crate) fn compile(&mut self, messages: &Messages) -> Option<Object> {
        // SAFETY: alive and used by nobody else; the result is owned.
        unsafe { Object::own(hb_piece_compile(self.raw(), messages.raw())) }
    }
}

/// A list of the shim's.
///
/// # Safety
/// `count` values lie at `data` for 'a, unless it is 0.
unsafe fn list<'a, T>(data: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller says so.
    unsafe { std::slice::from_raw_parts(data, count) }
}
