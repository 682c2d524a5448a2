//! Back ends that fail while a function is compiled.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use crate::back_end::open_back_end;
use crate::{Executor, Job, Runtime, Source};
use hotbed_loader::boundary::{BackEnd, Failure, FunctionCompiler, Others, Reply, Request};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The plugin, which panics so many times when a function is to be compiled.
struct Panicking {
    back_end: Arc<dyn BackEnd>,
    times: AtomicUsize,
}

impl BackEnd for Panicking {
    fn compile(&self, request: &Request) -> Result<(Reply, OwnedFd), Failure> {
        self.back_end.compile(request)
    }

    fn function_compiler(&self, others: Arc<dyn Others>) -> Result<Box<dyn FunctionCompiler>, Failure> {
        let left = self.times.load(Ordering::Relaxed);
        if left > 0 {
            self.times.store(left - 1, Ordering::Relaxed);
            panic!("out of order");
        }
        self.back_end.function_compiler(others)
    }
}

extern "C" fn replacement() -> i32 {
    -7
}

#[test]
fn a_panic_fails_one_call_and_ends_no_thread() {
    // More than there are threads.
    let times = std::thread::available_parallelism().unwrap().get() + 2;
    let aside = |job: Job| drop(std::thread::spawn(|| job.run()));
    for executor in [None, Some(Box::new(aside) as Box<dyn Executor>)] {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let reasons = Arc::clone(&told);
        let back_end = Panicking { back_end: open_back_end(None).unwrap(), times: AtomicUsize::new(times) };
        let mut builder = Runtime::builder().no_cache().back_end_object(Arc::new(back_end));
        builder = builder.on_function_failure(move |failure| {
            reasons.lock().unwrap().push(failure.reason.into());
            Some(replacement as *const () as usize)
        });
        if let Some(executor) = executor {
            builder = builder.executor(move |job| executor.execute(job));
        }
        let runtime = builder.build().unwrap();
        let unit = runtime.load(Source::text("one.c", "int one(void) { return 1; }").lazy()).unwrap();
        // SAFETY: that is its type.
        let one = unsafe { unit.get::<unsafe extern "C" fn() -> i32>("one") }.unwrap();
        for _ in 0..times {
            // SAFETY: as above.
            assert_eq!(unsafe { one() }, -7);
        }
        // SAFETY: as above.
        assert_eq!(unsafe { one() }, 1);
        assert_eq!(*told.lock().unwrap(), vec!["the back end panicked"; times]);
    }
}
