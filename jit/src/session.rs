//! Sessions: objects and bitcode in, functions that can be called in this process out.
//!
//! A [`Session`] links with JITLink into memory of its own. What is linked has names in a [`Unit`]; whatever a unit needs
//! is searched for in itself, in other units in the order it was given, and last asked of the [`Host`], who may answer
//! at once or later, from any thread. An object or module becomes a [`Part`] of a unit, which can be taken out again.
//!
//! Code generation happens in the thread that adds bitcode, a link in the thread that first looks up one of its names, or
//! in the one that answers what it waited for. All of it may be called by any thread, several at once. Whoever takes code
//! out, or ends a session, has seen to it that nobody uses that code any more.

mod arena;
pub(crate) mod fork;
mod frames;
mod free;
#[cfg(test)]
mod tests;

use crate::link::check_object;
use crate::shim::session as raw;
use crate::shim::{self, session::Names};
use arena::Arena;
use hotbed_loader::boundary::FreshArea;
pub use hotbed_loader::boundary::FreshDefinition as Definition;
use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// A link that could not be made.
    Link,
    /// Names that nobody defines.
    Undefined,
    /// A name that the unit has already.
    Duplicate,
    /// An input that cannot be linked at all.
    Input,
    /// Code generation.
    Codegen,
    /// No memory.
    Memory,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionError {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What happened, in one line.
    pub message: String,
    /// The symbols it is about, if it is about some.
    pub names: Vec<String>,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SessionError {}

impl From<raw::Failure> for SessionError {
    fn from((kind, message, names): raw::Failure) -> Self {
        let kind = match kind {
            1 => FailureKind::Undefined,
            2 => FailureKind::Duplicate,
            3 => FailureKind::Input,
            4 => FailureKind::Codegen,
            5 => FailureKind::Memory,
            _ => FailureKind::Link,
        };
        Self { kind, message, names }
    }
}

/// Who knows what no unit defines.
pub trait Host: Send + Sync {
    /// Asks for names. The question may be answered during the call or later, from any thread; the link that needs the
    /// answer waits, and nothing else does. What is answered holds as long as the unit.
    fn find(&self, question: Question);

    /// Makes an area in which the session links code known to unwinders (`hotbed_loader::image::FreshCode`), as long as
    /// the result lives. `None` if they cannot be led to it; then every link's tables are registered.
    fn make_known(&self, area: &FreshArea) -> Option<Box<dyn Any + Send + Sync>>;
}

/// How code is generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codegen {
    /// As in `-O0` to `-O3`. Only code is generated so; the optimiser does not run.
    pub level: u8,
    /// The processor, by LLVM's name, for functions that do not say theirs.
    pub processor: String,
    /// Features of it, with `+` or `-`.
    pub features: String,
}

impl Default for Codegen {
    fn default() -> Self {
        Self { level: 0, processor: "x86-64".to_owned(), features: String::new() }
    }
}

/// A session. It ends when it, its units and parts are dropped and every question is answered.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

/// Names that are linked together. Dropped, it stays as long as its session.
pub struct Unit {
    raw: NonNull<raw::RawUnit>,
    session: Arc<Shared>,
    number: u64,
}

/// What an object or a module became. Dropped, it stays as long as its unit.
pub struct Part {
    raw: NonNull<raw::RawPart>,
    _session: Arc<Shared>,
}

/// Functions of a part that are called at its beginning and at its end, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Constructors, before anything else of the part is called.
    pub beginning: Vec<usize>,
    /// Destructors, before the part is taken out.
    pub end: Vec<usize>,
}

/// Names that the host is asked for. Dropped without an answer, it fails the link.
pub struct Question {
    raw: NonNull<raw::RawQuestion>,
    unit: u64,
    session: Arc<Shared>,
}

struct Shared {
    raw: OnceLock<NonNull<raw::RawSession>>,
    /// That unwinders know the arena, which ends before it.
    known: Option<Box<dyn Any + Send + Sync>>,
    arena: Box<Arena>,
    asked: Box<Asked>,
    units: AtomicU64,
}

/// What questions lead to.
struct Asked {
    host: Arc<dyn Host>,
    session: OnceLock<Weak<Shared>>,
}

// SAFETY: the shim's functions for sessions, units, parts and questions may be called by any thread (session.cpp), and the
// calls of a part are written before `hb_part_link` returns.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Unit {}
// SAFETY: as above.
unsafe impl Sync for Unit {}
// SAFETY: as above.
unsafe impl Send for Part {}
// SAFETY: as above.
unsafe impl Sync for Part {}
// SAFETY: as above.
unsafe impl Send for Question {}
// SAFETY: as above; it is consumed by value.
unsafe impl Sync for Question {}

impl Session {
    /// A new one, which asks `host` for what no unit defines. It must not be held by that host.
    ///
    /// # Errors
    /// When the system gives no address space.
    pub fn new(host: Arc<dyn Host>) -> Result<Self, SessionError> {
        Self::at(host, None)
    }

    /// The same; its memory is at the page `wish` if there is room.
    pub(crate) fn at(host: Arc<dyn Host>, wish: Option<usize>) -> Result<Self, SessionError> {
        shim::initialize();
        let arena = Box::new(Arena::new(wish).map_err(|error| SessionError {
            kind: FailureKind::Memory,
            message: format!("no address space for a session: {error}"),
            names: Vec::new(),
        })?);
        let known = host.make_known(arena.area());
        if known.is_some() {
            arena.found_by_address();
        }
        let asked = Box::new(Asked { host, session: OnceLock::new() });
        let memory = raw::RawMemory { owner: owner(&*arena), take, publish, give_back };
        let host = raw::RawHost { owner: owner(&*asked), find };
        let shared = Shared { raw: OnceLock::new(), known, arena, asked, units: AtomicU64::new(0) };
        let shared = Arc::new(shared);
        let _ = shared.asked.session.set(Arc::downgrade(&shared));
        let _work = fork::begin();
        // SAFETY: arena and host are boxed and live until the session has ended; both are copied.
        let session = unsafe { raw::checked(|failure| raw::hb_session_new(&memory, &host, failure)) }?;
        if let Some(session) = NonNull::new(session) {
            let _ = shared.raw.set(session);
        }
        Ok(Self(shared))
    }

    /// Where everything is that it links.
    pub(crate) fn extent(&self) -> Range<usize> {
        let area = self.0.arena.area();
        area.base..area.table
    }

    /// A new unit. Names are searched for in itself, in the units of `order`, and asked of the host.
    ///
    /// # Errors
    /// What ORC says.
    pub fn unit(&self, name: &str, order: &[&Unit]) -> Result<Unit, SessionError> {
        let _work = fork::begin();
        let number = self.0.units.fetch_add(1, Ordering::Relaxed);
        let others: Vec<_> = order.iter().map(|unit| unit.raw.as_ptr()).collect();
        // SAFETY: session and units are alive, and the borrows outlive the call.
        let unit = unsafe {
            raw::checked(|failure| {
                raw::hb_unit_new(self.0.raw(), name.into(), number, others.as_ptr(), others.len(), failure)
            })
        }?;
        Ok(Unit { raw: made(unit)?, session: self.0.clone(), number })
    }
}

impl Unit {
    /// What the host knows it by: counted from zero within its session.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Adds a relocatable object; nothing of it is linked yet. Only `exports` are names of the unit; without, all that the
    /// object shows are.
    ///
    /// # Errors
    /// What is wrong with the object; a name that is there already.
    pub fn add_object(
        &self,
        name: &str,
        bytes: &[u8],
        exports: Option<&[&str]>,
    ) -> Result<Part, SessionError> {
        let refuse = |what: &str| SessionError {
            kind: FailureKind::Input,
            message: format!("{name}: it {what}"),
            names: Vec::new(),
        };
        check_object(bytes).map_err(|what| refuse(&what))?;
        if !frames::understood(bytes) {
            return Err(refuse("has unwind tables of an unknown kind"));
        }
        self.add(name, bytes, &Names::new(exports))
    }

    /// Generates code for a module and adds it, as [`Unit::add_object`] does. What is not in `exports` is local.
    ///
    /// # Errors
    /// As there, and what is wrong with the module.
    pub fn add_bitcode(
        &self,
        name: &str,
        bitcode: &[u8],
        codegen: &Codegen,
        exports: Option<&[&str]>,
    ) -> Result<Part, SessionError> {
        let exports = Names::new(exports);
        let wishes = raw::RawCodegen {
            level: codegen.level,
            processor: codegen.processor.as_str().into(),
            features: codegen.features.as_str().into(),
        };
        let _work = fork::begin();
        // SAFETY: the session is alive.
        let object = unsafe { raw::compile(self.session.raw(), name, bitcode, &wishes, &exports) }?;
        let object = object.ok_or_else(nothing)?;
        self.add(name, object.bytes(), &exports)
    }

    fn add(&self, name: &str, bytes: &[u8], exports: &Names<'_>) -> Result<Part, SessionError> {
        let _work = fork::begin();
        let (pointer, count, all) = (exports.pointer(), exports.count(), exports.all);
        // SAFETY: the unit is alive, and the borrows outlive the call.
        let part = unsafe {
            raw::checked(|failure| {
                raw::hb_part_new(self.raw.as_ptr(), name.into(), bytes.into(), pointer, count, all, failure)
            })
        }?;
        Ok(Part { raw: made(part)?, _session: self.session.clone() })
    }

    /// Addresses of names that the unit itself defines. What is not linked yet is linked, with all it needs.
    ///
    /// # Errors
    /// Names that are not there; why something could not be linked.
    pub fn look_up(&self, names: &[&str]) -> Result<Vec<usize>, SessionError> {
        let names = Names::new(Some(names));
        let mut addresses = vec![0u64; names.count()];
        let (unit, addressed) = (self.raw.as_ptr(), addresses.as_mut_ptr());
        // SAFETY: the unit is alive, the names are borrowed for the call, and there is an address for each name, until
        // it is done.
        unsafe {
            raw::waited(fork::begin(), |done, data| {
                raw::hb_unit_look_up(unit, names.pointer(), names.count(), addressed, done, data);
            })
        }?;
        Ok(addresses.into_iter().map(|address| address as usize).collect())
    }

    /// Takes all parts of the unit out of the session, and the unit. Nobody uses its code or data any more.
    ///
    /// # Errors
    /// What ORC says; its parts are out all the same.
    pub fn remove(self) -> Result<(), SessionError> {
        let _work = fork::begin();
        // SAFETY: the unit is alive.
        unsafe { raw::checked(|failure| raw::hb_unit_remove(self.raw.as_ptr(), failure)) }?;
        Ok(())
    }
}

impl Part {
    /// Links the part if it is not, and gives what is to be called at its beginning and its end. The session does not call
    /// it.
    ///
    /// # Errors
    /// Why it could not be linked.
    pub fn link(&self) -> Result<Calls, SessionError> {
        // SAFETY: the part is alive.
        unsafe { raw::waited(fork::begin(), |done, data| raw::hb_part_link(self.raw.as_ptr(), done, data)) }?;
        let list = |end| {
            let mut count = 0;
            // SAFETY: the part is linked, so its lists do not change any more.
            let list = unsafe {
                let first = raw::hb_part_calls(self.raw.as_ptr(), end, &mut count);
                if count == 0 { &[] } else { std::slice::from_raw_parts(first, count) }
            };
            list.iter().map(|address| *address as usize).collect()
        };
        Ok(Calls { beginning: list(false), end: list(true) })
    }

    /// Takes the part out of its unit, linked or not: its memory is given back, and its names can be defined anew. Nobody
    /// uses its code or data any more, other parts included.
    ///
    /// # Errors
    /// What ORC says.
    pub fn remove(self) -> Result<(), SessionError> {
        let _work = fork::begin();
        // SAFETY: the part is alive.
        unsafe { raw::checked(|failure| raw::hb_part_remove(self.raw.as_ptr(), failure)) }?;
        Ok(())
    }
}

impl Question {
    /// [`Unit::number`] of the unit that needs the names.
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// The names.
    pub fn names(&self) -> Vec<String> {
        // SAFETY: not consumed yet; indices are below the count.
        unsafe {
            let count = raw::hb_question_count(self.raw.as_ptr());
            (0..count).map(|i| raw::hb_question_name(self.raw.as_ptr(), i).text()).collect()
        }
    }

    /// Answers with what there is under each of the names. What waited for it goes on in this thread before the call
    /// returns.
    pub fn answer(self, definitions: &[Option<Definition>]) {
        // SAFETY: not consumed yet.
        let count = unsafe { raw::hb_question_count(self.raw.as_ptr()) };
        let known = |i| definitions.get(i).copied().flatten();
        let definitions: Vec<_> = (0..count)
            .map(|i| known(i).map_or_else(raw::RawDefinition::default, raw::RawDefinition::from))
            .collect();
        self.consume(&definitions, "");
    }

    /// Lets what waited for an answer fail.
    pub fn refuse(self, reason: &str) {
        self.consume(&[], if reason.is_empty() { "refused by the host" } else { reason });
    }

    fn consume(self, definitions: &[raw::RawDefinition], reason: &str) {
        let question = ManuallyDrop::new(self);
        // SAFETY: `question` is never used again.
        let _session = unsafe { std::ptr::read(&question.session) };
        let _work = fork::go_on();
        // SAFETY: consumed once, here; without a reason there is a definition for each name.
        unsafe { raw::hb_question_answer(question.raw.as_ptr(), definitions.as_ptr(), reason.into()) }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() { "the host panicked" } else { "the host gave no answer" };
        let _work = fork::go_on();
        // SAFETY: not consumed yet: `consume` forgets the question.
        unsafe { raw::hb_question_answer(self.raw.as_ptr(), std::ptr::null(), reason.into()) }
    }
}

impl From<Definition> for raw::RawDefinition {
    fn from(definition: Definition) -> Self {
        Self { address: definition.address as u64, kind: if definition.function { 1 } else { 2 } }
    }
}

impl Shared {
    fn raw(&self) -> *mut raw::RawSession {
        self.raw.get().map_or(std::ptr::null_mut(), |session| session.as_ptr())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _work = fork::begin();
        if let Some(session) = self.raw.get() {
            // SAFETY: whoever uses the session holds it; so nothing is under way and no question is open.
            unsafe { raw::hb_session_free(session.as_ptr()) };
        }
        drop(self.known.take());
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: owned, and freed here only; the session is still alive.
        unsafe { raw::hb_unit_free(self.raw.as_ptr()) };
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // SAFETY: owned, and freed here only; the session is still alive.
        unsafe { raw::hb_part_free(self.raw.as_ptr()) };
    }
}

fn made<T>(result: *mut T) -> Result<NonNull<T>, SessionError> {
    NonNull::new(result).ok_or_else(nothing)
}

fn nothing() -> SessionError {
    (0, "nothing was made and no reason given".to_owned(), Vec::new()).into()
}

fn owner<T>(of: &T) -> *const c_void {
    std::ptr::from_ref(of).cast()
}

unsafe extern "C" fn find(owner: *const c_void, unit: u64, question: *mut raw::RawQuestion) {
    // SAFETY: the session's `Asked`, which lives as long as the session.
    let asked = unsafe { &*owner.cast::<Asked>() };
    let session = asked.session.get().and_then(Weak::upgrade);
    let (Some(raw), Some(session)) = (NonNull::new(question), session) else { return };
    let question = Question { raw, unit, session };
    // What the panic says, the host's own hook has said. The question fails by being dropped.
    let _ = catch_unwind(AssertUnwindSafe(|| asked.host.find(question)));
}

unsafe extern "C" fn take(owner: *const c_void, place: *mut raw::Place) -> bool {
    // SAFETY: the session's arena, which lives as long as the session, and a place that nobody else has.
    let (arena, place) = unsafe { (&*owner.cast::<Arena>(), &mut *place) };
    arena.take(place).is_some()
}

unsafe extern "C" fn publish(owner: *const c_void, place: *mut raw::Place, frames: *const raw::Frames<'_>) {
    // SAFETY: as for `take`; the frames are null or borrowed for the call.
    let (arena, place, frames) = unsafe { (&*owner.cast::<Arena>(), &mut *place, frames.as_ref()) };
    arena.publish(place, frames);
}

unsafe extern "C" fn give_back(owner: *const c_void, place: *mut raw::Place) {
    // SAFETY: as for `take`.
    let (arena, place) = unsafe { (&*owner.cast::<Arena>(), &mut *place) };
    arena.give_back(place);
}
