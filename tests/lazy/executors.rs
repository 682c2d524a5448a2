//! Threads of the host's that compile functions: whatever they do with a job, the call goes on or fails, and the rest works.

use crate::support::{Child, task};
use hotbed::{Job, Runtime, RuntimeBuilder, Source, Unit};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, Builder, JoinHandle, ThreadId};

const COUNT: usize = 40;

/// `COUNT` functions, each of which gives its number.
fn load(builder: RuntimeBuilder) -> (Runtime, Unit) {
    let mut text = String::new();
    for at in 0..COUNT {
        writeln!(text, "__attribute__((noinline)) int f{at}(void) {{ static int own = {at}; return own; }}")
            .unwrap();
    }
    let runtime = builder.no_cache().build().unwrap();
    let unit = runtime.load(Source::text("numbers.c", text).lazy()).unwrap();
    (runtime, unit)
}

fn call(unit: &Unit, at: usize) -> i32 {
    // SAFETY: that is the type of all of them.
    let f = unsafe { unit.get::<unsafe extern "C" fn() -> i32>(&format!("f{at}")) }.unwrap();
    // SAFETY: as above.
    unsafe { f() }
}

fn call_all(unit: &Unit) {
    for at in 0..COUNT {
        assert_eq!(call(unit, at), at as i32);
    }
}

extern "C" fn replacement() -> i32 {
    -7
}

/// Threads that take jobs from one queue, and who has run one.
struct Pool {
    jobs: Sender<Job>,
    ran: Arc<Mutex<HashSet<ThreadId>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    fn new(threads: usize, stack: usize) -> Self {
        let (jobs, taken): (Sender<Job>, Receiver<Job>) = channel();
        let (taken, ran) = (Arc::new(Mutex::new(taken)), Arc::default());
        let work = |_| {
            let (taken, ran) = (Arc::clone(&taken), Arc::clone(&ran));
            let work = move || {
                loop {
                    let Ok(job) = taken.lock().unwrap().recv() else { return };
                    let ran: &Mutex<HashSet<ThreadId>> = &ran;
                    ran.lock().unwrap().insert(thread::current().id());
                    assert_eq!(job.unit(), "numbers.c");
                    job.run();
                }
            };
            Builder::new().stack_size(stack).spawn(work).unwrap()
        };
        let threads = (0..threads).map(work).collect();
        Self { jobs, ran, threads }
    }

    fn builder(&self) -> RuntimeBuilder {
        let jobs = self.jobs.clone();
        Runtime::builder().executor(move |job| drop(jobs.send(job)))
    }

    /// How many threads have run jobs; all end.
    fn end(self) -> usize {
        drop(self.jobs);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.ran.lock().unwrap().len()
    }
}

#[test]
fn one_thread_with_a_deep_stack_and_one_without() {
    for stack in [Job::STACK, 128 << 10] {
        let pool = Pool::new(1, stack);
        let (runtime, unit) = load(pool.builder());
        call_all(&unit);
        assert!(runtime.functions_compiled() >= COUNT as u32);
        drop((unit, runtime));
        assert_eq!(pool.end(), 1);
    }
}

#[test]
fn two_threads_for_many_callers() {
    let pool = Pool::new(2, Job::STACK);
    let (runtime, unit) = load(pool.builder());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| call_all(&unit));
        }
    });
    drop((unit, runtime));
    assert!((1..=2).contains(&pool.end()));
}

#[test]
fn on_the_thread_that_calls() {
    let places = Arc::new(Mutex::new(HashSet::new()));
    let seen = Arc::clone(&places);
    let (_runtime, unit) = load(Runtime::builder().executor(move |job: Job| {
        seen.lock().unwrap().insert(thread::current().id());
        job.run();
    }));
    // It has too little stack for a compiler.
    let small = Builder::new().stack_size(64 << 10);
    let unit = small.spawn(move || call_all(&unit)).unwrap();
    let id = unit.thread().id();
    unit.join().unwrap();
    assert_eq!(*places.lock().unwrap(), HashSet::from([id]));
}

#[test]
fn jobs_that_are_dropped_and_executors_that_panic() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let (reasons, count) = (Arc::clone(&told), Arc::clone(&asked));
    let pool = Pool::new(1, Job::STACK);
    let jobs = pool.jobs.clone();
    let builder = Runtime::builder()
        .on_function_failure(move |failure| {
            reasons.lock().unwrap().push(failure.reason.into());
            Some(replacement as *const () as usize)
        })
        .executor(move |job| match count.fetch_add(1, Ordering::Relaxed) {
            0 => drop(job),
            1 => {
                // It goes with a thread that has not run it.
                thread::spawn(move || drop(job));
            }
            2 => std::panic::panic_any("the executor is out of order"),
            _ => drop(jobs.send(job)),
        });
    let (runtime, unit) = load(builder);
    for _ in 0..3 {
        assert_eq!(call(&unit, 5), -7);
    }
    call_all(&unit);
    assert!(asked.load(Ordering::Relaxed) > 3);
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(told, ["the executor has dropped it"; 3]);
    drop((unit, runtime));
    assert_eq!(pool.end(), 1);
}

/// An executor that keeps jobs, and the next of them.
fn keeping() -> (RuntimeBuilder, impl Fn() -> Job) {
    let (kept, jobs) = channel::<Job>();
    let builder = Runtime::builder().executor(move |job| drop(kept.send(job)));
    (builder, move || jobs.recv().unwrap())
}

#[test]
fn a_job_may_wait_and_be_run_or_dropped_by_anybody() {
    let (builder, next) = keeping();
    let (_runtime, unit) = load(builder.on_function_failure(|_| Some(replacement as *const () as usize)));
    let unit = &unit;
    thread::scope(|scope| {
        let one = scope.spawn(move || call(unit, 1));
        let job = next();
        // Another function meanwhile, and whoever wants the same waits for the same job.
        let two = scope.spawn(move || call(unit, 2));
        next().run();
        assert_eq!(two.join().unwrap(), 2);
        job.run();
        assert_eq!(one.join().unwrap(), 1);
        let three = scope.spawn(move || call(unit, 3));
        drop(next());
        assert_eq!(three.join().unwrap(), -7);
        let again = scope.spawn(move || call(unit, 3));
        next().run();
        assert_eq!(again.join().unwrap(), 3);
    });
}

#[test]
fn a_child_of_a_fork_compiles_by_itself() {
    let got = Child::new("lazy::executors::forks", "run").succeed();
    assert_eq!(got, "child 0\nparent 1\n");
}

#[test]
fn forks() {
    let Some(_task) = task() else { return };
    let (builder, next) = keeping();
    let (_runtime, unit) = load(builder);
    let unit = &unit;
    thread::scope(|scope| {
        let waiting = scope.spawn(move || call(unit, 1));
        let job = next();
        // SAFETY: the child calls the unit and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // What the parent waits for is not the child's to do; it asks for itself.
            job.run();
            call_all(unit);
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: a place for the result.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        println!("child {status}");
        job.run();
        println!("parent {}", waiting.join().unwrap());
    });
}
