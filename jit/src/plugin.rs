//! The plugin's one export: the table of functions through which a host reaches the back end.

use crate::InProcess;
use hotbed_loader::boundary::{
    self, BackEnd, BackEndTable, Bodies, CompiledFunctions, Failure, FailureKind, FreshArea, FreshDefinition,
    FunctionCompiler, Others, RawBytes, RawOthers, RawReply, Reply, Request,
};
use std::any::Any;
use std::ffi::c_void;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

static TABLE: BackEndTable = BackEndTable {
    size: size_of::<BackEndTable>(),
    build: boundary::BUILD_ZERO_TERMINATED.as_ptr(),
    compile,
    function_compiler,
    open_bodies,
    compile_function,
    kept_bodies,
    keep,
    drop_bodies,
    drop_compiler,
    release,
};

/// The plugin's table (see [`boundary::TABLE_SYMBOL`]).
#[unsafe(no_mangle)]
pub extern "C" fn hotbed_back_end() -> *const BackEndTable {
    &raw const TABLE
}

unsafe extern "C" fn compile(request: RawBytes) -> RawReply {
    image_reply(|| {
        // SAFETY: the host lends it for the call.
        InProcess::new().compile(&decoded(unsafe { request.get() })?)
    })
}

fn decoded(request: &[u8]) -> Result<Request, Failure> {
    Request::decode(request)
        .map_err(|error| Failure::new(FailureKind::Internal, format!("cannot read the request: {error}")))
}

/// The image that `make` makes, which must not unwind out of the plugin.
fn image_reply(make: impl FnOnce() -> Result<(Reply, OwnedFd), Failure>) -> RawReply {
    let outcome = catch_unwind(AssertUnwindSafe(make));
    let answer = outcome.unwrap_or_else(|_| {
        Err(Failure::new(FailureKind::Internal, "the back end panicked; this is a defect of Hotbed"))
    });
    let (answer, image) = match answer {
        Ok((reply, image)) => (Ok(reply), image.into_raw_fd()),
        Err(failure) => (Err(failure), -1),
    };
    reply(boundary::encode_answer(&answer), image)
}

fn reply(bytes: Vec<u8>, image: i32) -> RawReply {
    let mut bytes = std::mem::ManuallyDrop::new(bytes);
    RawReply { bytes: bytes.as_mut_ptr(), length: bytes.len(), capacity: bytes.capacity(), image }
}

/// What came of `run`, which must not unwind out of the plugin.
fn outcome(run: impl FnOnce() -> Result<CompiledFunctions, Failure>) -> RawReply {
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Failure::new(FailureKind::Internal, "the back end panicked; this is a defect of Hotbed"))
    });
    reply(boundary::encode_outcome(&outcome), -1)
}

/// The host's side of [`Others`].
struct HostOthers(RawOthers);

/// What the host holds for an area.
struct Known {
    raw: *mut c_void,
    forget: unsafe extern "C" fn(*mut c_void),
}

// SAFETY: the host takes it back in any thread.
unsafe impl Send for Known {}
// SAFETY: nobody looks at it.
unsafe impl Sync for Known {}

impl Others for HostOthers {
    fn find(&self, image: u64, name: &str) -> Option<FreshDefinition> {
        let mut definition = FreshDefinition { address: 0, function: false };
        let RawOthers { owner, find, .. } = self.0;
        // SAFETY: the host's contract: the owner is valid as long as the compiler, and the name lives through the call.
        let found = unsafe { find(owner, image, RawBytes::new(name.as_bytes()), &raw mut definition) };
        found.then_some(definition)
    }

    fn make_known(&self, area: &FreshArea) -> Option<Box<dyn Any + Send + Sync>> {
        let RawOthers { owner, make_known, forget, .. } = self.0;
        // SAFETY: as for `find`; the area is copied.
        let raw = unsafe { make_known(owner, area) };
        if raw.is_null() { None } else { Some(Box::new(Known { raw, forget })) }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        // SAFETY: given by the host, and given back once.
        unsafe { (self.forget)(self.raw) }
    }
}

/// What hosts have pointers to.
type SomeCompiler = Box<dyn FunctionCompiler>;
type SomeBodies = Box<dyn Bodies>;

unsafe extern "C" fn function_compiler(others: *const RawOthers, compiler: *mut *mut c_void) -> RawReply {
    outcome(|| {
        // SAFETY: the host gives a table and a place for the result.
        let others = unsafe { *others };
        let made: SomeCompiler = InProcess::new().function_compiler(Arc::new(HostOthers(others)))?;
        // SAFETY: as above.
        unsafe { compiler.write(Box::into_raw(Box::new(made)).cast()) };
        Ok(CompiledFunctions::default())
    })
}

unsafe extern "C" fn open_bodies(
    compiler: *const c_void,
    image: u64,
    file: RawBytes,
    distance: usize,
    alone: bool,
    bodies: *mut *mut c_void,
) -> RawReply {
    outcome(|| {
        // SAFETY: a compiler that the host was given, readable bytes that stay put, and a place for the result.
        let (compiler, file) = unsafe { (&*compiler.cast::<SomeCompiler>(), file.get()) };
        let opened: SomeBodies = compiler.open(image, file, distance, alone)?;
        // SAFETY: as above.
        unsafe { bodies.write(Box::into_raw(Box::new(opened)).cast()) };
        Ok(CompiledFunctions::default())
    })
}

unsafe extern "C" fn compile_function(bodies: *const c_void, slot: u32, deep: bool) -> RawReply {
    // SAFETY: bodies that the host was given and has not dropped.
    outcome(|| unsafe { &*bodies.cast::<SomeBodies>() }.compile(slot, deep))
}

unsafe extern "C" fn kept_bodies(bodies: *const c_void) -> RawReply {
    // SAFETY: bodies that the host was given and has not dropped.
    let kept = catch_unwind(AssertUnwindSafe(|| unsafe { &*bodies.cast::<SomeBodies>() }.kept()));
    reply(kept.unwrap_or_default(), -1)
}

unsafe extern "C" fn keep(request: RawBytes, file: RawBytes, bodies: RawBytes) -> RawReply {
    image_reply(|| {
        // SAFETY: the host lends them for the call.
        let (request, file, bodies) = unsafe { (request.get(), file.get(), bodies.get()) };
        let image = InProcess::new().keep(&decoded(request)?, file, bodies)?;
        Ok((Reply { reproducible: true, ..Reply::default() }, image))
    })
}

unsafe extern "C" fn drop_bodies(bodies: *mut c_void) {
    // SAFETY: given to the host, and given back once.
    let bodies = unsafe { Box::from_raw(bodies.cast::<SomeBodies>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(bodies)));
}

unsafe extern "C" fn drop_compiler(compiler: *mut c_void) {
    // SAFETY: as for bodies, of which none are left.
    let compiler = unsafe { Box::from_raw(compiler.cast::<SomeCompiler>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(compiler)));
}

unsafe extern "C" fn release(reply: RawReply) {
    // SAFETY: the three values are those of the vector that `compile` let go of, and the host releases it once.
    drop(unsafe { Vec::from_raw_parts(reply.bytes, reply.length, reply.capacity) });
}
