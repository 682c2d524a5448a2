//! The plugin's compiler of functions, as the traits of the boundary have it.

use super::plugin::internal;
use hotbed_loader::boundary::{
    BackEndTable, Bodies, CompiledFunctions, Failure, FreshArea, FreshDefinition, FunctionCompiler, Others,
    RawBytes, RawOthers, RawReply, decode_outcome,
};
use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// A compiler of the plugin.
struct PluginCompiler(Arc<Handle>);

/// What the plugin has made, and what it asks.
struct Handle {
    table: &'static BackEndTable,
    raw: NonNull<c_void>,
    /// The owner in its [`RawOthers`].
    _others: Box<Arc<dyn Others>>,
}

/// Bodies of the plugin; they go before their compiler.
struct PluginBodies {
    raw: NonNull<c_void>,
    compiler: Arc<Handle>,
}

// SAFETY: the table's contract: the functions may be called by any thread, several at once.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}
// SAFETY: as above.
unsafe impl Send for PluginBodies {}
// SAFETY: as above.
unsafe impl Sync for PluginBodies {}

/// Who compiles functions in the plugin.
///
/// # Errors
/// What the plugin says.
pub(super) fn compiler(
    table: &'static BackEndTable,
    others: Arc<dyn Others>,
) -> Result<Box<dyn FunctionCompiler>, Failure> {
    let others = Box::new(others);
    let raw_others = RawOthers { owner: ptr::from_ref(&*others).cast(), find, make_known, forget };
    let mut raw = ptr::null_mut();
    // SAFETY: both pointers are valid for the call; the owner lives until the compiler is dropped.
    let reply = unsafe { (table.function_compiler)(&raw const raw_others, &raw mut raw) };
    answer(table, reply)?;
    let raw = NonNull::new(raw).ok_or_else(|| internal("it gave no compiler"))?;
    Ok(Box::new(PluginCompiler(Arc::new(Handle { table, raw, _others: others }))))
}

impl FunctionCompiler for PluginCompiler {
    fn open(
        &self,
        image: u64,
        file: &[u8],
        distance: usize,
        alone: bool,
    ) -> Result<Box<dyn Bodies>, Failure> {
        let Handle { table, raw, .. } = &*self.0;
        let mut bodies = ptr::null_mut();
        // SAFETY: the compiler is alive, and the file and the place for the result are valid for the call.
        let reply = unsafe {
            (table.open_bodies)(raw.as_ptr(), image, RawBytes::new(file), distance, alone, &raw mut bodies)
        };
        answer(table, reply)?;
        let raw = NonNull::new(bodies).ok_or_else(|| internal("it gave no bodies"))?;
        Ok(Box::new(PluginBodies { raw, compiler: Arc::clone(&self.0) }))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: all bodies held it and are gone.
        unsafe { (self.table.drop_compiler)(self.raw.as_ptr()) }
    }
}

impl Bodies for PluginBodies {
    fn compile(&self, slot: u32, deep: bool) -> Result<CompiledFunctions, Failure> {
        let table = self.compiler.table;
        // SAFETY: the bodies are alive.
        answer(table, unsafe { (table.compile_function)(self.raw.as_ptr(), slot, deep) })
    }

    fn kept(&self) -> Vec<u8> {
        let table = self.compiler.table;
        // SAFETY: the bodies are alive; the plugin says that there are that many bytes, and they are given back once.
        unsafe {
            let reply = (table.kept_bodies)(self.raw.as_ptr());
            let bytes = if reply.bytes.is_null() {
                Vec::new()
            } else {
                std::slice::from_raw_parts(reply.bytes, reply.length).to_vec()
            };
            (table.release)(reply);
            bytes
        }
    }
}

impl Drop for PluginBodies {
    fn drop(&mut self) {
        // SAFETY: they are dropped once, here.
        unsafe { (self.compiler.table.drop_bodies)(self.raw.as_ptr()) }
    }
}

/// What a reply says; it is given back.
fn answer(table: &BackEndTable, reply: RawReply) -> Result<CompiledFunctions, Failure> {
    let outcome = if reply.bytes.is_null() {
        Err(internal("it gave no answer"))
    } else {
        // SAFETY: the plugin says that there are that many bytes, and they are not released yet.
        let bytes = unsafe { std::slice::from_raw_parts(reply.bytes, reply.length) };
        decode_outcome(bytes).map_err(|error| internal(&error.to_string())).flatten()
    };
    // SAFETY: the reply came from this plugin and is given back once; nothing borrows from it any more.
    unsafe { (table.release)(reply) };
    outcome
}

unsafe extern "C" fn find(
    owner: *const c_void,
    image: u64,
    name: RawBytes,
    definition: *mut FreshDefinition,
) -> bool {
    // SAFETY: the owner is a box that lives as long as the compiler; the plugin lends the name for the call.
    let (others, name) = unsafe { (&*owner.cast::<Arc<dyn Others>>(), name.get()) };
    let find = || others.find(image, std::str::from_utf8(name).ok()?);
    match catch_unwind(AssertUnwindSafe(find)).ok().flatten() {
        Some(found) => {
            // SAFETY: a place for the result.
            unsafe { definition.write(found) };
            true
        }
        None => false,
    }
}

/// What the host holds for an area.
type Known = Box<dyn Any + Send + Sync>;

unsafe extern "C" fn make_known(owner: *const c_void, area: *const FreshArea) -> *mut c_void {
    // SAFETY: as for `find`.
    let (others, area) = unsafe { (&*owner.cast::<Arc<dyn Others>>(), &*area) };
    let known: Option<Known> = catch_unwind(AssertUnwindSafe(|| others.make_known(area))).ok().flatten();
    known.map_or(ptr::null_mut(), |known| Box::into_raw(Box::new(known)).cast())
}

unsafe extern "C" fn forget(known: *mut c_void) {
    // SAFETY: made by `make_known`, and given back once.
    drop(unsafe { Box::from_raw(known.cast::<Known>()) });
}
