//! The back end as a plugin: opened once, never closed.
//!
//! A compiler has threads, caches and exit handlers of its own, and closing its library under them is asking for
//! trouble; so an opened plugin stays until the process ends.

use super::functions;
use hotbed_loader::boundary::{
    BUILD, BackEnd, BackEndTable, Failure, FailureKind, FunctionCompiler, Others, RawBytes, RawReply, Reply,
    Request, TABLE_SYMBOL, TableFunction, decode_answer,
};
use hotbed_loader::sys::files::plain;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::CStr;
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// An opened plugin of this build.
pub(crate) struct Plugin {
    table: &'static BackEndTable,
}

impl Plugin {
    /// Opens the plugin in the file `path`.
    ///
    /// # Errors
    /// A text that says why it is none that can be used.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        // dlopen would search the library directories for a name without a slash.
        let absolute =
            std::path::absolute(path).map_err(|e| format!("cannot open plugin {shown}: {}", plain(&e)))?;
        // SAFETY: the constructors of a plugin of ours do nothing that depends on the host; another file that is given for
        // one is the user's choice, as with any library.
        let library = unsafe { Library::open(Some(&absolute), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|e| format!("cannot open plugin {shown}: {}", because(&e)))?;
        // SAFETY: the symbol is a function of this type in every build of the plugin.
        let give_table = unsafe { library.get::<TableFunction>(TABLE_SYMBOL.to_bytes_with_nul()) }
            .map_err(|_| format!("{shown} is not a plugin of Hotbed: it has no symbol {TABLE_SYMBOL:?}"))?;
        // SAFETY: the function has no preconditions.
        let table = unsafe { give_table() };
        if table.is_null() {
            return Err(format!("plugin {shown} has no table"));
        }
        // SAFETY: size and build are the first two fields in every build, whatever comes after them.
        let (size, build) = unsafe { ((*table).size, (*table).build) };
        let build = if build.is_null() {
            "unknown".into()
        } else {
            // SAFETY: a zero-terminated text that lives as long as the plugin.
            unsafe { CStr::from_ptr(build) }.to_string_lossy()
        };
        if build != BUILD || size != size_of::<BackEndTable>() {
            return Err(format!("plugin {shown} is of another build ({build}, this is {BUILD})"));
        }
        std::mem::forget(library);
        // SAFETY: the plugin stays open from here on, and of the same build it has the same table.
        Ok(Self { table: unsafe { &*table } })
    }
}

/// The dynamic linker's own words, which `libloading` keeps behind its own.
fn because(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

impl BackEnd for Plugin {
    fn compile(&self, request: &Request) -> Result<(Reply, OwnedFd), Failure> {
        let bytes = request.encode();
        // SAFETY: the table's contract: the bytes live through the call, any thread may call.
        self.image(unsafe { (self.table.compile)(RawBytes::new(&bytes)) })
    }

    fn keep(&self, request: &Request, file: &[u8], bodies: &[u8]) -> Result<OwnedFd, Failure> {
        let request = request.encode();
        let [request, file, bodies] = [&request, file, bodies].map(RawBytes::new);
        // SAFETY: as for `compile`.
        Ok(self.image(unsafe { (self.table.keep)(request, file, bodies) })?.1)
    }

    fn function_compiler(&self, others: Arc<dyn Others>) -> Result<Box<dyn FunctionCompiler>, Failure> {
        functions::compiler(self.table, others)
    }
}

impl Plugin {
    /// The image of a reply, which is given back.
    fn image(&self, raw: RawReply) -> Result<(Reply, OwnedFd), Failure> {
        // SAFETY: the descriptor, if there is one, is the caller's.
        let image = (raw.image >= 0).then(|| unsafe { OwnedFd::from_raw_fd(raw.image) });
        let answer = self.decode(&raw);
        // SAFETY: the reply came from this plugin and is given back once; nothing borrows from it any more.
        unsafe { (self.table.release)(raw) };
        match (answer?, image) {
            (Ok(reply), Some(image)) => Ok((reply, image)),
            (Ok(_), None) => Err(internal("it gave no image")),
            (Err(failure), _) => Err(failure),
        }
    }

    fn decode(&self, raw: &RawReply) -> Result<Result<Reply, Failure>, Failure> {
        if raw.bytes.is_null() {
            return Err(internal("it gave no answer"));
        }
        // SAFETY: the plugin says that there are that many bytes, and they are not released yet.
        let bytes = unsafe { std::slice::from_raw_parts(raw.bytes, raw.length) };
        decode_answer(bytes).map_err(|e| internal(&e.to_string()))
    }
}

pub(super) fn internal(reason: &str) -> Failure {
    Failure::new(FailureKind::Internal, format!("the back end does not keep to the boundary: {reason}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    #[test]
    fn what_is_no_plugin_says_so() {
        let said = Plugin::open(Path::new("/nowhere/libhotbed_jit.so")).err().unwrap();
        assert!(said.contains("/nowhere/libhotbed_jit.so"), "{said}");
        let said = Plugin::open(Path::new("/lib/x86_64-linux-gnu/libm.so.6")).err().unwrap();
        assert!(said.contains("not a plugin"), "{said}");
    }
}
