//! Threads of the host's instead of the runtime's, to compile functions on when they are first called.

use crate::back_end::COMPILE_STACK;
use crate::lazy::Functions;
use hotbed_loader::FunctionRequest;
use hotbed_loader::sys::start::process_id;
use hotbed_loader::sys::threads::{kernel_id, quietly, spawn_quiet, stack_left};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Runs the jobs of a runtime ([`RuntimeBuilder::executor`](crate::RuntimeBuilder::executor)). A closure that takes a
/// [`Job`] is one.
pub trait Executor: Send + Sync {
    /// Takes a job, to have it run soon by another thread. The thread that calls a function waits for its job, so
    /// - a job that is dropped makes the call fail ([`RuntimeBuilder::on_function_failure`](crate::RuntimeBuilder::on_function_failure)), and so
    ///   does a panic here;
    /// - a job that is neither run nor dropped makes it wait for ever;
    /// - jobs must not be left to threads that may all be waiting for calls themselves.
    ///
    /// This is called on the thread that calls the function, which may have little stack, and blocks every signal here and in
    /// threads that are started here.
    fn execute(&self, job: Job);
}

impl<F: Fn(Job) + Send + Sync> Executor for F {
    fn execute(&self, job: Job) {
        self(job);
    }
}

/// A function that is to be compiled.
#[must_use = "a job that is dropped has failed"]
pub struct Job {
    functions: Arc<Functions>,
    request: Option<FunctionRequest>,
    asked: Instant,
    process: i32,
    /// The thread that has called the function.
    caller: i32,
}

/// What a thread may have used of its stack before it runs a job.
const USED: usize = COMPILE_STACK / 16;

impl Job {
    /// How many bytes of stack a thread should have that runs jobs; it takes memory for what is touched only.
    pub const STACK: usize = COMPILE_STACK;

    pub(crate) fn new(functions: Arc<Functions>, request: FunctionRequest) -> Self {
        Self {
            functions,
            request: Some(request),
            asked: Instant::now(),
            process: process_id(),
            caller: kernel_id(),
        }
    }

    /// Compiles the function and lets its calls go on. Every signal is blocked meanwhile, and nothing panics.
    ///
    /// A thread with less stack than [`Job::STACK`] has it done by a thread of the runtime's, and waits for that. Nothing is
    /// compiled on the stack of the thread that has called the function: if that runs the job, it is done by
    /// a thread of the runtime's as well, and nobody waits here. In a child of a fork, a job of the parent does nothing.
    pub fn run(mut self) {
        let Some(request) = self.take() else { return };
        let (functions, asked) = (Arc::clone(&self.functions), self.asked);
        let serve = move || functions.serve(request, asked);
        let calls = self.caller == kernel_id();
        if !calls && stack_left() >= COMPILE_STACK - USED {
            return quietly(serve);
        }
        // Without a thread the request is dropped, and has failed.
        if let Ok(thread) = spawn_quiet("hotbed-compile", COMPILE_STACK, serve)
            && !calls
        {
            // It catches what is thrown.
            let _ = thread.join();
        }
    }

    /// The unit whose function it is.
    pub fn unit(&self) -> &str {
        self.request.as_ref().map_or("", |request| request.slots().name())
    }

    /// The request, if it is of this process.
    fn take(&mut self) -> Option<FunctionRequest> {
        let request = self.request.take()?;
        if self.process == process_id() {
            return Some(request);
        }
        // Whoever waits for it is in the parent.
        std::mem::forget(request);
        None
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(request) = self.take() {
            request.done(Err("the executor has dropped it".into()));
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("unit", &self.unit()).finish_non_exhaustive()
    }
}
