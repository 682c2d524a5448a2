//! The compiler of functions as a host has it, in the traits of the boundary.

use super::recent;
use super::{Bodies, Compiler};
use hotbed_loader::boundary::{self, CompiledFunctions, Failure, FailureKind, FunctionCompiler, Others};
use std::sync::Arc;

/// A [`Compiler`] for a host.
pub(crate) struct ServedCompiler(Compiler);

/// [`Bodies`] for a host; there until they are dropped.
struct ServedBodies(Option<Bodies>);

impl ServedCompiler {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no address space.
    pub(crate) fn new(others: Arc<dyn Others>) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::new(FailureKind::Internal, format!("cannot compile functions one by one: {error}"))
        };
        Compiler::new(others).map(Self).map_err(failed)
    }
}

impl FunctionCompiler for ServedCompiler {
    fn open(
        &self,
        image: u64,
        file: &[u8],
        distance: usize,
        alone: bool,
    ) -> Result<Box<dyn boundary::Bodies>, Failure> {
        let bodies = self.0.open(image, file, distance, recent::take(file))?;
        let bodies = if alone { bodies.one_by_one() } else { bodies };
        Ok(Box::new(ServedBodies(Some(bodies))))
    }
}

impl boundary::Bodies for ServedBodies {
    fn compile(&self, slot: u32, deep: bool) -> Result<CompiledFunctions, Failure> {
        let gone = || Failure::new(FailureKind::Internal, "the bodies are gone");
        let bodies = self.0.as_ref().ok_or_else(gone)?;
        if deep { bodies.compile_deep(slot) } else { bodies.compile(slot) }
    }

    fn kept(&self) -> Vec<u8> {
        self.0.as_ref().map(Bodies::kept).unwrap_or_default()
    }
}

impl Drop for ServedBodies {
    fn drop(&mut self) {
        // What the session says when it takes something out changes nothing: it is out.
        let _ = self.0.take().map(Bodies::remove);
    }
}
