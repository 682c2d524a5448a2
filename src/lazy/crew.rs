//! The threads that compile functions, unless the host has some for that, and the images that they have opened.

use super::Functions;
use super::ahead::{Ahead, Likely};
use super::times::FunctionTimes;
use crate::back_end::{BackEnds, COMPILE_STACK};
use crate::executor::Job;
use hotbed_loader::boundary::{Bodies, FreshArea, FreshDefinition, FunctionCompiler, Others};
use hotbed_loader::image::{FreshCode, Metadata, SymbolKind, unit_names};
use hotbed_loader::sys::start::process_id;
use hotbed_loader::sys::sync::{Condvar, Mutex};
use hotbed_loader::sys::threads::{processors, spawn_quiet};
use hotbed_loader::trace::matters;
use hotbed_loader::{FunctionRequest, Slots};
use std::any::Any;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// A thread that has had nothing to do for so long ends.
const IDLE: Duration = Duration::from_millis(500);

/// See the module's description.
pub(super) struct Crew {
    /// The process that it works in.
    pub(super) process: i32,
    jobs: Mutex<Jobs>,
    more: Condvar,
    images: Arc<Images>,
    compiler: Arc<Once<dyn FunctionCompiler>>,
    times: Mutex<FunctionTimes>,
}

/// Opened when it is wanted first, or why it cannot be.
type Once<T> = OnceLock<Result<Box<T>, String>>;

#[derive(Default)]
struct Jobs {
    /// Each with the moment when it was asked for.
    waiting: VecDeque<(FunctionRequest, Instant)>,
    ahead: Ahead,
    threads: usize,
    idle: usize,
}

/// The images that something was compiled for.
#[derive(Default)]
struct Images {
    /// By the address of their slots.
    opened: Mutex<HashMap<usize, Arc<Opened>>>,
    /// By the number that the back end knows them by.
    by_number: Mutex<(u64, HashMap<u64, Weak<Slots>>)>,
}

/// An image.
pub(super) struct Opened {
    number: u64,
    slots: Weak<Slots>,
    bodies: Once<dyn Bodies>,
    origin: OnceLock<Origin>,
    images: Arc<Images>,
    /// Slots of functions that were counted.
    counted: Mutex<HashSet<u32>>,
    // Behind the bodies, which go first.
    compiler: Arc<Once<dyn FunctionCompiler>>,
}

/// What the functions of an image were made of.
#[derive(Default)]
struct Origin {
    /// Its sources, as they were given.
    sources: Vec<String>,
    /// The flags that matter for code.
    flags: Vec<String>,
}

impl Crew {
    pub(super) fn new() -> Self {
        Self {
            process: process_id(),
            jobs: Mutex::default(),
            more: Condvar::new(),
            images: Arc::default(),
            compiler: Arc::default(),
            times: Mutex::default(),
        }
    }

    /// What compiling has come to.
    pub(super) fn times(&self) -> &Mutex<FunctionTimes> {
        &self.times
    }

    /// Takes a request for the host's threads, or for the next one of ours that is free; `functions` is who has this crew.
    pub(super) fn take(&self, functions: Arc<Functions>, request: FunctionRequest) {
        if let Some(executor) = functions.executor().map(Arc::clone) {
            executor.execute(Job::new(functions, request));
            return;
        }
        let mut jobs = self.jobs.lock();
        jobs.waiting.push_back((request, Instant::now()));
        let most = processors();
        if jobs.waiting.len() <= jobs.idle || jobs.threads >= most {
            self.more.notify_one();
            return;
        }
        jobs.threads += 1;
        drop(jobs);
        self.start(functions);
    }

    /// Notes what is likely to be called next, after a function that was.
    pub(super) fn expect(&self, functions: Arc<Functions>, likely: Vec<Likely>) {
        let most = processors();
        let mut jobs = self.jobs.lock();
        jobs.ahead.expect(likely);
        if !jobs.ahead.has_work(most) {
            return;
        }
        // Who has noted it looks for work itself.
        if jobs.idle == 0 && jobs.threads < most {
            jobs.threads += 1;
            drop(jobs);
            self.start(functions);
        } else {
            self.more.notify_one();
        }
    }

    /// Starts a thread, which is counted already.
    fn start(&self, functions: Arc<Functions>) {
        let work = move || functions.make_crew().work(&functions);
        if spawn_quiet("hotbed-compile", COMPILE_STACK, work).is_err() {
            let mut jobs = self.jobs.lock();
            jobs.threads -= 1;
            // Dropped, requests fail.
            let given_up = (jobs.threads == 0).then(|| std::mem::take(&mut jobs.waiting));
            drop(jobs);
            drop(given_up);
        }
    }

    /// What a thread does.
    fn work(&self, functions: &Functions) {
        let most = processors();
        let mut jobs = self.jobs.lock();
        loop {
            if let Some((request, asked)) = jobs.waiting.pop_front() {
                let Some(request) = jobs.ahead.keep(request, asked) else { continue };
                drop(jobs);
                functions.serve(request, asked);
                jobs = self.jobs.lock();
                continue;
            }
            if let Some(likely) = jobs.ahead.begin(most) {
                drop(jobs);
                let next = functions.compile_ahead(&likely);
                let called = self.jobs.lock().ahead.end(&likely, next);
                drop(likely);
                called.into_iter().for_each(|(request, asked)| functions.serve(request, asked));
                jobs = self.jobs.lock();
                continue;
            }
            jobs.idle += 1;
            let late;
            (jobs, late) = self.more.wait_for(jobs, IDLE);
            jobs.idle -= 1;
            if late && jobs.waiting.is_empty() {
                jobs.threads -= 1;
                return;
            }
        }
    }

    /// The image with these slots.
    pub(super) fn image(&self, slots: &Arc<Slots>) -> Arc<Opened> {
        let mut opened = self.images.opened.lock();
        let make = || {
            let (next, numbers) = &mut *self.images.by_number.lock();
            *next += 1;
            numbers.insert(*next, Arc::downgrade(slots));
            Arc::new(Opened {
                number: *next,
                slots: Arc::downgrade(slots),
                bodies: OnceLock::new(),
                origin: OnceLock::new(),
                images: Arc::clone(&self.images),
                counted: Mutex::default(),
                compiler: Arc::clone(&self.compiler),
            })
        };
        Arc::clone(opened.entry(Arc::as_ptr(slots) as usize).or_insert_with(make))
    }

    /// Calls `visit` with the path and the bodies of every image that something was compiled of.
    pub(super) fn for_each_compiled(&self, mut visit: impl FnMut(&Path, &dyn Bodies)) {
        let opened: Vec<Arc<Opened>> = self.images.opened.lock().values().cloned().collect();
        for image in opened {
            if let Some(Ok(bodies)) = image.bodies.get()
                && let Some(slots) = image.slots.upgrade()
                && let Some(path) = slots.path()
            {
                visit(path, &**bodies);
            }
        }
    }

    /// An image is gone.
    pub(super) fn forget(&self, slots: &Slots) {
        let gone = self.images.opened.lock().remove(&(std::ptr::from_ref(slots) as usize));
        if let Some(gone) = gone {
            self.jobs.lock().ahead.forget(&gone);
            self.images.by_number.lock().1.remove(&gone.number);
        }
    }
}

impl Opened {
    /// Where its slots are, or were.
    pub(super) fn address(&self) -> usize {
        self.slots.as_ptr() as usize
    }

    /// Whether a function was not counted yet; it is then. Whoever compiled it may still have to do that when somebody else
    /// calls it.
    pub(super) fn count(&self, slot: u32) -> bool {
        self.counted.lock().insert(slot)
    }

    /// Its slots, if it is still there.
    pub(super) fn slots(&self) -> Option<Arc<Slots>> {
        self.slots.upgrade()
    }

    /// The source of a function, as it was given, and the function's name as linkers see it. Empty when the image is gone.
    pub(super) fn name_of(&self, slot: u32) -> (String, String) {
        let function = self.slots.upgrade().and_then(|slots| slots.function(slot));
        let Some(function) = function else { return Default::default() };
        let source = self.origin().sources.get(function.unit as usize);
        (source.cloned().unwrap_or_default(), function.name)
    }

    /// The flags that matter for its functions' code.
    pub(super) fn flags(&self) -> &[String] {
        &self.origin().flags
    }

    fn origin(&self) -> &Origin {
        self.origin.get_or_init(|| {
            let read = |file: &[u8]| Origin {
                sources: unit_names(file).unwrap_or_default(),
                flags: Metadata::of_file(file)
                    .map(|known| {
                        matters(known.flags.iter().map(String::as_str))
                            .into_iter()
                            .map(str::to_owned)
                            .collect()
                    })
                    .unwrap_or_default(),
            };
            self.slots.upgrade().and_then(|slots| slots.read_file(read)).unwrap_or_default()
        })
    }

    /// The bodies of its functions; each is compiled `alone`, if that is said at the first time.
    pub(super) fn bodies(&self, back_ends: &BackEnds, alone: bool) -> Result<&dyn Bodies, String> {
        let bodies = self.bodies.get_or_init(|| {
            let slots = self.slots.upgrade().ok_or("the image is gone")?;
            let open = || {
                let back_end = back_ends.in_process(slots.name()).map_err(|error| error.to_string())?;
                let others = Arc::new(Asked(Arc::clone(&self.images)));
                back_end.function_compiler(others).map_err(|failure| failure.message)
            };
            let compiler = self.compiler.get_or_init(open).as_ref().map_err(String::clone)?;
            let distance = slots.bias().ok_or("the image is gone")?;
            let opened = slots.read_file(|file| compiler.open(self.number, file, distance, alone));
            opened.ok_or("the image is gone")?.map_err(|failure| failure.message)
        });
        bodies.as_deref().map_err(String::clone)
    }
}

/// What the back end asks.
struct Asked(Arc<Images>);

impl Others for Asked {
    fn find(&self, image: u64, name: &str) -> Option<FreshDefinition> {
        let slots = self.0.by_number.lock().1.get(&image).and_then(Weak::upgrade)?;
        let found = slots.for_fresh(name)?;
        let function = matches!(found.kind, SymbolKind::Function | SymbolKind::IndirectFunction);
        Some(FreshDefinition { address: found.address, function })
    }

    fn make_known(&self, area: &FreshArea) -> Option<Box<dyn Any + Send + Sync>> {
        // SAFETY: the back end says that it keeps the area so as long as it holds the result.
        let known = unsafe { FreshCode::new(area) }?;
        Some(Box::new(known))
    }
}
