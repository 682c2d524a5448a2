//! The functions of `shim/session*.cpp` as Rust sees them.

use super::{Object, RawObject, Slice};
use hotbed_loader::sys::sync::{Condvar, Mutex};
use std::ffi::c_void;
use std::marker::{PhantomData, PhantomPinned};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// What a link wants of memory, and where it got it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    /// Address of the code.
    pub(crate) code: u64,
    /// Where the code is written.
    pub(crate) code_writer: u64,
    /// Bytes of code.
    pub(crate) code_size: u64,
    /// What the code's address is a multiple of.
    pub(crate) code_alignment: u64,
    /// The same for constants.
    pub(crate) constants: u64,
    /// Where the constants are written.
    pub(crate) constants_writer: u64,
    /// Bytes of constants.
    pub(crate) constants_size: u64,
    /// As above.
    pub(crate) constants_alignment: u64,
    /// The same for data, which are written where they are.
    pub(crate) data: u64,
    /// Bytes of data.
    pub(crate) data_size: u64,
    /// As above.
    pub(crate) data_alignment: u64,
    /// The piece of the arena that code and constants are in.
    pub(crate) piece: u64,
    /// 1 while it is written.
    pub(crate) pending: u64,
}

impl Place {
    /// The addresses of the code.
    pub(crate) fn code(&self) -> Range<usize> {
        self.code as usize..(self.code + self.code_size) as usize
    }

    /// The addresses of the constants.
    pub(crate) fn constants(&self) -> Range<usize> {
        self.constants as usize..(self.constants + self.constants_size) as usize
    }

    /// The addresses of the data.
    pub(crate) fn data(&self) -> Range<usize> {
        self.data as usize..(self.data + self.data_size) as usize
    }
}

/// The unwind tables of a link.
#[repr(C)]
pub(crate) struct Frames<'a> {
    /// Their bytes.
    pub(crate) section: Slice<'a>,
    /// Where they will be.
    pub(crate) address: u64,
    /// Where there is room for their entry.
    pub(crate) entry: u64,
    /// How much.
    pub(crate) entry_size: u64,
}

/// Who gives a session memory.
#[repr(C)]
pub(crate) struct RawMemory {
    /// Handed to the functions.
    pub(crate) owner: *const c_void,
    /// Fills in where.
    pub(crate) take: unsafe extern "C" fn(*const c_void, *mut Place) -> bool,
    /// Everything is written.
    pub(crate) publish: unsafe extern "C" fn(*const c_void, *mut Place, *const Frames<'_>),
    /// Nobody uses it any more.
    pub(crate) give_back: unsafe extern "C" fn(*const c_void, *mut Place),
}

/// Who answers a session's questions.
#[repr(C)]
pub(crate) struct RawHost {
    /// Handed to the function.
    pub(crate) owner: *const c_void,
    /// Takes a question over.
    pub(crate) find: unsafe extern "C" fn(*const c_void, u64, *mut RawQuestion),
}

/// What somebody has under a name.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct RawDefinition {
    /// Its address.
    pub(crate) address: u64,
    /// 0 nobody has it, 1 function, 2 data.
    pub(crate) kind: u8,
}

/// How code is generated.
#[repr(C)]
pub(crate) struct RawCodegen<'a> {
    /// 0 to 3.
    pub(crate) level: u8,
    /// Name of the processor.
    pub(crate) processor: Slice<'a>,
    /// Features with `+` or `-`.
    pub(crate) features: Slice<'a>,
}

/// Told when something is done, with an owned failure or null.
pub(crate) type RawDone = unsafe extern "C" fn(*mut c_void, *mut RawFailure);

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub(crate) struct $name {
            opaque: [u8; 0],
            pinned: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}

opaque! {
    /// A session.
    RawSession;
    /// A unit.
    RawUnit;
    /// A part of a unit.
    RawPart;
    /// A question to the host.
    RawQuestion;
    /// Why something failed.
    RawFailure;
}

unsafe extern "C" {
    pub(crate) fn hb_session_new(
        memory: *const RawMemory,
        host: *const RawHost,
        failure: *mut *mut RawFailure,
    ) -> *mut RawSession;
    pub(crate) fn hb_session_free(session: *mut RawSession);
    pub(crate) fn hb_unit_new(
        session: *mut RawSession,
        name: Slice<'_>,
        number: u64,
        order: *const *mut RawUnit,
        count: usize,
        failure: *mut *mut RawFailure,
    ) -> *mut RawUnit;
    pub(crate) fn hb_unit_remove(unit: *mut RawUnit, failure: *mut *mut RawFailure) -> bool;
    pub(crate) fn hb_unit_free(unit: *mut RawUnit);
    pub(crate) fn hb_unit_look_up(
        unit: *mut RawUnit,
        names: *const Slice<'_>,
        count: usize,
        addresses: *mut u64,
        done: RawDone,
        data: *mut c_void,
    );
    pub(crate) fn hb_part_new(
        unit: *mut RawUnit,
        name: Slice<'_>,
        bytes: Slice<'_>,
        exports: *const Slice<'_>,
        count: usize,
        all: bool,
        failure: *mut *mut RawFailure,
    ) -> *mut RawPart;
    pub(crate) fn hb_part_link(part: *mut RawPart, done: RawDone, data: *mut c_void);
    pub(crate) fn hb_part_calls(part: *const RawPart, end: bool, count: *mut usize) -> *const u64;
    pub(crate) fn hb_part_remove(part: *mut RawPart, failure: *mut *mut RawFailure) -> bool;
    pub(crate) fn hb_part_free(part: *mut RawPart);
    pub(crate) fn hb_question_count(question: *const RawQuestion) -> usize;
    pub(crate) fn hb_question_name<'a>(question: *const RawQuestion, index: usize) -> Slice<'a>;
    pub(crate) fn hb_question_answer(
        question: *mut RawQuestion,
        definitions: *const RawDefinition,
        reason: Slice<'_>,
    );
    fn hb_session_compile(
        session: *mut RawSession,
        name: Slice<'_>,
        bitcode: Slice<'_>,
        wishes: *const RawCodegen<'_>,
        exports: *const Slice<'_>,
        count: usize,
        all: bool,
        failure: *mut *mut RawFailure,
    ) -> *mut RawObject;
    fn hb_failure_kind(failure: *const RawFailure) -> u8;
    fn hb_failure_message<'a>(failure: *const RawFailure) -> Slice<'a>;
    fn hb_failure_names(failure: *const RawFailure) -> usize;
    fn hb_failure_name<'a>(failure: *const RawFailure, index: usize) -> Slice<'a>;
    fn hb_failure_free(failure: *mut RawFailure);
}

/// A failure as the shim tells it: kind, message and names.
pub(crate) type Failure = (u8, String, Vec<String>);

/// Calls a function that may leave a failure, and takes that over.
///
/// # Safety
/// `call` leaves an owned failure in its argument, or null.
pub(crate) unsafe fn checked<T>(call: impl FnOnce(*mut *mut RawFailure) -> T) -> Result<T, Failure> {
    let mut failure = std::ptr::null_mut();
    let result = call(&mut failure);
    // SAFETY: as the caller says.
    unsafe { told(failure) }.map(|()| result)
}

/// Calls a function that says later that it is done, and waits for that. `work` is dropped before.
///
/// # Safety
/// `call` has the function that it is given called once, with the pointer and an owned failure or null.
pub(crate) unsafe fn waited<W>(work: W, call: impl FnOnce(RawDone, *mut c_void)) -> Result<(), Failure> {
    unsafe extern "C" fn done(data: *mut c_void, failure: *mut RawFailure) {
        // SAFETY: the pointer made below, which is handed back once, and a failure that is owned or null.
        let (outcome, result) = unsafe { (Arc::from_raw(data.cast::<Outcome>()), told(failure)) };
        *outcome.result.lock() = Some(result);
        outcome.known.notify_one();
    }
    let outcome = Arc::new(Outcome::default());
    call(done, Arc::into_raw(outcome.clone()).cast_mut().cast());
    drop(work);
    let mut result = outcome.result.lock();
    loop {
        match result.take() {
            Some(result) => return result,
            None => result = outcome.known.wait(result),
        }
    }
}

/// What comes of something, as soon as it is known.
#[derive(Default)]
struct Outcome {
    result: Mutex<Option<Result<(), Failure>>>,
    known: Condvar,
}

/// What a failure says, if it is one.
///
/// # Safety
/// It is owned, or null.
unsafe fn told(failure: *mut RawFailure) -> Result<(), Failure> {
    let Some(failure) = NonNull::new(failure).map(NonNull::as_ptr) else { return Ok(()) };
    // SAFETY: an owned failure, which is read and freed once; indices are below the count.
    unsafe {
        let names = (0..hb_failure_names(failure)).map(|i| hb_failure_name(failure, i).text()).collect();
        let told = (hb_failure_kind(failure), hb_failure_message(failure).text(), names);
        hb_failure_free(failure);
        Err(told)
    }
}

/// Names for the shim; none stands for all.
pub(crate) struct Names<'a> {
    slices: Vec<Slice<'a>>,
    /// Whether there is no limit.
    pub(crate) all: bool,
}

impl<'a> Names<'a> {
    /// Those of the list, or all.
    pub(crate) fn new(names: Option<&'a [&'a str]>) -> Self {
        let slices = names.unwrap_or_default().iter().map(|name| Slice::from(*name)).collect();
        Self { slices, all: names.is_none() }
    }

    /// First of them.
    pub(crate) fn pointer(&self) -> *const Slice<'a> {
        self.slices.as_ptr()
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.slices.len()
    }
}

/// Makes an object of bitcode.
///
/// # Safety
/// The session is alive.
pub(crate) unsafe fn compile(
    session: *mut RawSession,
    name: &str,
    bitcode: &[u8],
    wishes: &RawCodegen<'_>,
    exports: &Names<'_>,
) -> Result<Option<Object>, Failure> {
    // SAFETY: all borrows outlive the call, the session is alive, and the result is owned.
    unsafe {
        checked(|failure| {
            let object = hb_session_compile(
                session,
                name.into(),
                bitcode.into(),
                wishes,
                exports.pointer(),
                exports.count(),
                exports.all,
                failure,
            );
            Object::own(object)
        })
    }
}
