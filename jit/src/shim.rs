//! The functions of `shim/` as Rust sees them, and owners for what they hand out.

pub(crate) mod session;

use hotbed_loader::boundary::LevelSigns;
use std::ffi::c_void;
use std::marker::{PhantomData, PhantomPinned};
use std::ptr::NonNull;

/// A borrowed run of bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Slice<'a> {
    data: *const u8,
    size: usize,
    lifetime: PhantomData<&'a [u8]>,
}

/// A file that is shown without lying on disk.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct File<'a> {
    /// Its path.
    pub(crate) path: Slice<'a>,
    /// Its contents.
    pub(crate) contents: Slice<'a>,
}

// SAFETY: a slice is a shared borrow of bytes, like `&[u8]`.
unsafe impl Send for Slice<'_> {}
// SAFETY: as above.
unsafe impl Sync for Slice<'_> {}

impl<'a> From<&'a [u8]> for Slice<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { data: bytes.as_ptr(), size: bytes.len(), lifetime: PhantomData }
    }
}

impl<'a> From<&'a str> for Slice<'a> {
    fn from(text: &'a str) -> Self {
        text.as_bytes().into()
    }
}

impl<'a> Slice<'a> {
    /// The bytes.
    pub(crate) fn bytes(self) -> &'a [u8] {
        if self.size == 0 {
            return &[];
        }
        // SAFETY: made from a slice of that length that lives for 'a, or handed out by the shim with its owner
        // borrowed for 'a.
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }

    /// The bytes as text; what is not UTF-8 is replaced.
    pub(crate) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// A function of a module, in the shim's words.
#[repr(C)]
struct RawFunction {
    name: Slice<'static>,
    fingerprint: [u8; 16],
    known: bool,
    local_alias: bool,
}

/// A function of a module for which no code has been generated yet.
pub(crate) struct Offered<'a> {
    /// Its name.
    pub(crate) name: &'a [u8],
    /// What code generation can see of it; nothing where that is not known.
    pub(crate) fingerprint: Option<[u8; 16]>,
    /// Code of its own unit refers to it past its symbol.
    pub(crate) local_alias: bool,
}

/// Says which functions of a module need no code.
pub(crate) type Choose<'a> = &'a mut dyn FnMut(&[Offered<'_>]) -> Vec<bool>;

macro_rules! owned {
    ($($(#[$doc:meta])* $name:ident, $raw:ident, $free:ident;)*) => {$(
        #[repr(C)]
        pub(crate) struct $raw {
            opaque: [u8; 0],
            pinned: PhantomData<(*mut u8, PhantomPinned)>,
        }

        $(#[$doc])*
        pub(crate) struct $name(NonNull<$raw>);

        impl $name {
            /// Takes over what the shim hands out; none when it handed out null.
            ///
            /// # Safety
            /// `raw` is null or an owned object of the shim that nobody else frees.
            unsafe fn own(raw: *mut $raw) -> Option<Self> {
                NonNull::new(raw).map(Self)
            }

            fn raw(&self) -> *mut $raw {
                self.0.as_ptr()
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: owned, and freed here only.
                unsafe { $free(self.raw()) }
            }
        }
    )*};
}

owned! {
    /// What a compiler said.
    Messages, RawMessages, hb_messages_free;
    /// The file system of one compilation.
    Files, RawFiles, hb_files_free;
    /// The jobs of a command line.
    Jobs, RawJobs, hb_jobs_free;
    /// An object that the front end made.
    Object, RawObject, hb_object_free;
    /// What a run of the front end left behind.
    Rest, RawRest, hb_rest_free;
    /// A module, verified and position-independent.
    Bitcode, RawBitcode, hb_bitcode_free;
    /// The result of a link.
    Link, RawLink, hb_link_free;
}

pub(crate) mod split;

// SAFETY: hb_files may be used by several threads at once (files.cpp).
unsafe impl Send for Files {}
// SAFETY: as above.
unsafe impl Sync for Files {}
// SAFETY: an object is plain memory without ties to the thread that made it.
unsafe impl Send for Object {}
// SAFETY: any thread may free it (compile.cpp), and nothing else can be done with it.
unsafe impl Send for Rest {}
// SAFETY: messages are plain memory without ties to the thread that made them.
unsafe impl Send for Messages {}
// SAFETY: they are only read through a shared reference, but for `jobs`, `compile` and `append`, whose callers do not
// share them yet.
unsafe impl Sync for Messages {}

unsafe extern "C" {
    fn hb_initialize();

    fn hb_messages_new() -> *mut RawMessages;
    fn hb_messages_copy(messages: *const RawMessages) -> *mut RawMessages;
    fn hb_messages_append(messages: *mut RawMessages, others: *const RawMessages);
    fn hb_messages_free(messages: *mut RawMessages);
    fn hb_messages_count(messages: *const RawMessages) -> usize;
    fn hb_messages_rendered<'a>(messages: *const RawMessages) -> Slice<'a>;
    fn hb_message_severity(messages: *const RawMessages, index: usize) -> u8;
    fn hb_message_line(messages: *const RawMessages, index: usize) -> u32;
    fn hb_message_column(messages: *const RawMessages, index: usize) -> u32;
    fn hb_message_file<'a>(messages: *const RawMessages, index: usize) -> Slice<'a>;
    fn hb_message_text<'a>(messages: *const RawMessages, index: usize) -> Slice<'a>;

    fn hb_files_new(
        directory: Slice<'_>,
        prefix: Slice<'_>,
        resources: *const File<'static>,
        count: usize,
        inputs: *const File<'_>,
        input_count: usize,
    ) -> *mut RawFiles;
    fn hb_files_free(files: *mut RawFiles);
    fn hb_files_each(
        files: *mut RawFiles,
        visit: extern "C" fn(*mut c_void, Slice<'_>, u8),
        data: *mut c_void,
    );

    fn hb_jobs_new(
        files: *mut RawFiles,
        clang: Slice<'_>,
        arguments: *const Slice<'_>,
        count: usize,
        color: bool,
        messages: *mut RawMessages,
    ) -> *mut RawJobs;
    fn hb_jobs_free(jobs: *mut RawJobs);
    fn hb_jobs_count(jobs: *const RawJobs) -> usize;
    fn hb_job_kind(jobs: *const RawJobs, job: usize) -> u8;
    fn hb_job_arguments(jobs: *const RawJobs, job: usize) -> usize;
    fn hb_job_argument<'a>(jobs: *const RawJobs, job: usize, index: usize) -> Slice<'a>;

    fn hb_compile(
        files: *mut RawFiles,
        arguments: *const Slice<'_>,
        count: usize,
        bitcode: bool,
        color: bool,
        messages: *mut RawMessages,
        choose: Option<extern "C" fn(*mut c_void, *const RawFunction, usize, *mut bool)>,
        data: *mut c_void,
    ) -> *mut RawObject;
    fn hb_object_of(bytes: Slice<'_>) -> *mut RawObject;
    fn hb_object_free(object: *mut RawObject);
    fn hb_object_take_rest(object: *mut RawObject) -> *mut RawRest;
    fn hb_rest_free(rest: *mut RawRest);
    fn hb_object_bytes<'a>(object: *const RawObject) -> Slice<'a>;
    fn hb_object_differs_each_time(object: *const RawObject) -> bool;
    fn hb_object_level_signs(object: *const RawObject) -> u8;
    fn hb_object_frontend_ms(object: *const RawObject) -> f64;
    fn hb_object_codegen_ms(object: *const RawObject) -> f64;

    fn hb_bitcode_prepare(bytes: Slice<'_>, name: Slice<'_>, messages: *mut RawMessages) -> *mut RawBitcode;
    fn hb_bitcode_is_current(bytes: Slice<'_>) -> bool;
    fn hb_bitcode_free(bitcode: *mut RawBitcode);
    fn hb_bitcode_reads_files(bitcode: *const RawBitcode) -> bool;
    fn hb_bitcode_bytes<'a>(bitcode: *const RawBitcode) -> Slice<'a>;

    fn hb_processor_features(
        cpu: Slice<'_>,
        changes: *const Slice<'_>,
        count: usize,
        visit: extern "C" fn(*mut c_void, Slice<'_>),
        data: *mut c_void,
    ) -> bool;

    fn hb_link_run(arguments: *const Slice<'_>, count: usize) -> *mut RawLink;
    fn hb_link_free(link: *mut RawLink);
    fn hb_link_status(link: *const RawLink) -> i32;
    fn hb_link_output<'a>(link: *const RawLink) -> Slice<'a>;
}

/// Prepares LLVM; cheap after the first time.
pub(crate) fn initialize() {
    // SAFETY: may be called by any thread any number of times (recovery.cpp).
    unsafe { hb_initialize() }
}

/// One message of a compiler.
pub(crate) struct Message {
    /// 0 note, 1 remark, 2 warning, 3 error.
    pub(crate) severity: u8,
    /// File name or nothing.
    pub(crate) file: String,
    /// From 1, or 0.
    pub(crate) line: u32,
    /// From 1, or 0.
    pub(crate) column: u32,
    /// The message.
    pub(crate) text: String,
}

impl Messages {
    /// No messages yet.
    pub(crate) fn new() -> Self {
        // SAFETY: gives an owned object; `operator new` does not return null.
        unsafe { Self::own(hb_messages_new()) }.expect("operator new never gives null")
    }

    /// The same messages once more.
    pub(crate) fn copy(&self) -> Self {
        // SAFETY: the object is alive, and the result is owned.
        unsafe { Self::own(hb_messages_copy(self.raw())) }.expect("operator new never gives null")
    }

    /// Adds others behind these.
    pub(crate) fn append(&self, others: &Self) {
        // SAFETY: both objects are alive, and nobody else looks at this one, which its owner has not shared yet.
        unsafe { hb_messages_append(self.raw(), others.raw()) }
    }

    /// All of them, in order.
    pub(crate) fn list(&self) -> Vec<Message> {
        // SAFETY: the object is alive, and the index is below the count.
        (0..unsafe { hb_messages_count(self.raw()) })
            .map(|i| unsafe {
                // SAFETY: as above.
                Message {
                    severity: hb_message_severity(self.raw(), i),
                    file: hb_message_file(self.raw(), i).text(),
                    line: hb_message_line(self.raw(), i),
                    column: hb_message_column(self.raw(), i),
                    text: hb_message_text(self.raw(), i).text(),
                }
            })
            .collect()
    }

    /// As clang prints them.
    pub(crate) fn rendered(&self) -> String {
        // SAFETY: the object is alive and borrowed while the slice is read.
        unsafe { hb_messages_rendered(self.raw()) }.text()
    }
}

impl Files {
    /// A file system with working directory `directory` that shows `resources` below `prefix` and `inputs` over the
    /// disk. Every resource has a zero byte behind its contents.
    pub(crate) fn new(
        directory: &str,
        prefix: &'static str,
        resources: &'static [File<'static>],
        inputs: &[File<'_>],
    ) -> Self {
        // SAFETY: the slices are alive for the call, the resources for ever.
        let raw = unsafe {
            hb_files_new(
                directory.into(),
                prefix.into(),
                resources.as_ptr(),
                resources.len(),
                inputs.as_ptr(),
                inputs.len(),
            )
        };
        // SAFETY: an owned object.
        unsafe { Self::own(raw) }.expect("operator new never gives null")
    }

    /// Every path that was read (0), looked for in vain (1) or listed (2).
    pub(crate) fn seen(&self) -> Vec<(Vec<u8>, u8)> {
        extern "C" fn visit(data: *mut c_void, path: Slice<'_>, access: u8) {
            // SAFETY: `data` is the vector below, borrowed by nobody else during the call.
            let list = unsafe { &mut *data.cast::<Vec<(Vec<u8>, u8)>>() };
            list.push((path.bytes().to_vec(), access));
        }
        let mut list = Vec::new();
        // SAFETY: `visit` is called during the call only, with the pointer given here.
        unsafe { hb_files_each(self.raw(), visit, (&raw mut list).cast()) };
        list
    }

    /// The jobs of a command line, or none after an error.
    pub(crate) fn jobs(
        &self,
        clang: &str,
        arguments: &[String],
        color: bool,
        messages: &Messages,
    ) -> Option<Vec<Job>> {
        let slices: Vec<Slice<'_>> = arguments.iter().map(|a| a.as_str().into()).collect();
        // SAFETY: all borrows outlive the call, and the result is owned.
        let jobs = unsafe {
            Jobs::own(hb_jobs_new(
                self.raw(),
                clang.into(),
                slices.as_ptr(),
                slices.len(),
                color,
                messages.raw(),
            ))
        }?;
        // SAFETY: the object is alive; indices are below the counts it gives.
        let list = unsafe {
            (0..hb_jobs_count(jobs.raw()))
                .map(|job| Job {
                    kind: match hb_job_kind(jobs.raw(), job) {
                        0 => JobKind::Compile,
                        1 => JobKind::Link,
                        _ => JobKind::Other,
                    },
                    arguments: (0..hb_job_arguments(jobs.raw(), job))
                        .map(|i| hb_job_argument(jobs.raw(), job, i).text())
                        .collect(),
                })
                .collect()
        };
        Some(list)
    }

    /// Runs the front end on a job's arguments (without `-cc1`), for an object or for bitcode before any pass; none
    /// after an error. The object lacks the functions that `choose` says need no code, if it is asked.
    pub(crate) fn compile(
        &self,
        arguments: &[String],
        bitcode: bool,
        color: bool,
        messages: &Messages,
        mut choose: Option<Choose<'_>>,
    ) -> Option<Object> {
        extern "C" fn ask(data: *mut c_void, functions: *const RawFunction, count: usize, reused: *mut bool) {
            if count == 0 {
                return;
            }
            // SAFETY: `data` is the pointer given below, borrowed by nobody else during the call; the shim lends so many
            // functions and places for the call (reuse.h).
            let (choose, functions, reused) = unsafe {
                (
                    &mut *data.cast::<Choose<'_>>(),
                    std::slice::from_raw_parts(functions, count),
                    std::slice::from_raw_parts_mut(reused, count),
                )
            };
            let offered = |function: &RawFunction| Offered {
                name: function.name.bytes(),
                fingerprint: function.known.then_some(function.fingerprint),
                local_alias: function.local_alias,
            };
            let offered: Vec<Offered<'_>> = functions.iter().map(offered).collect();
            reused.iter_mut().zip(choose(&offered)).for_each(|(place, chosen)| *place = chosen);
        }
        let slices: Vec<Slice<'_>> = arguments.iter().map(|a| a.as_str().into()).collect();
        let ask = choose.is_some().then_some(ask as extern "C" fn(_, _, _, _));
        let data: *mut c_void =
            choose.as_mut().map_or(std::ptr::null_mut(), |choose| std::ptr::from_mut(choose).cast());
        // SAFETY: all borrows outlive the call, `ask` is called during it only and with `data`, and the result is owned.
        unsafe {
            let (line, count) = (slices.as_ptr(), slices.len());
            Object::own(hb_compile(self.raw(), line, count, bitcode, color, messages.raw(), ask, data))
        }
    }
}

/// One job of the driver.
pub(crate) struct Job {
    /// What it would run.
    pub(crate) kind: JobKind,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
}

/// What a job runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobKind {
    /// The front end.
    Compile,
    /// The linker.
    Link,
    /// An assembler or some other tool.
    Other,
}

impl Object {
    /// A copy of bytes for which the front end need not run.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        // SAFETY: the borrow outlives the call, and the result is owned.
        unsafe { Self::own(hb_object_of(bytes.into())) }
    }

    /// The relocatable ELF file.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: alive and borrowed as long as the result.
        unsafe { hb_object_bytes(self.raw()) }.bytes()
    }

    /// Whether its contents depend on more than the files that were seen to be read: on the time, or on files that the
    /// assembler reads.
    pub(crate) fn differs_each_time(&self) -> bool {
        // SAFETY: alive.
        unsafe { hb_object_differs_each_time(self.raw()) }
    }

    /// What the source looked at that is not the same at other levels of optimisation.
    pub(crate) fn level_signs(&self) -> LevelSigns {
        // SAFETY: alive.
        LevelSigns::from_bits(unsafe { hb_object_level_signs(self.raw()) })
    }

    /// What the front end's run left behind, to be freed; none if it is taken, or if there was no run.
    pub(crate) fn take_rest(&mut self) -> Option<Rest> {
        // SAFETY: alive and not shared, and the result is owned.
        unsafe { Rest::own(hb_object_take_rest(self.raw())) }
    }

    /// Milliseconds until the source was parsed, and from then on.
    pub(crate) fn times(&self) -> (f64, f64) {
        // SAFETY: alive.
        unsafe { (hb_object_frontend_ms(self.raw()), hb_object_codegen_ms(self.raw())) }
    }
}

impl Bitcode {
    /// Whether bytes are bitcode of this version of LLVM.
    pub(crate) fn is_current(bytes: &[u8]) -> bool {
        // SAFETY: the borrow outlives the call.
        unsafe { hb_bitcode_is_current(bytes.into()) }
    }

    /// Reads and verifies IR or bitcode and makes it position-independent; none after an error.
    pub(crate) fn prepare(bytes: &[u8], name: &str, messages: &Messages) -> Option<Self> {
        // SAFETY: all borrows outlive the call, and the result is owned.
        unsafe { Self::own(hb_bitcode_prepare(bytes.into(), name.into(), messages.raw())) }
    }

    /// Whether assembly in it has the assembler read files.
    pub(crate) fn reads_files(&self) -> bool {
        // SAFETY: alive.
        unsafe { hb_bitcode_reads_files(self.raw()) }
    }

    /// The bitcode.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: alive and borrowed as long as the result.
        unsafe { hb_bitcode_bytes(self.raw()) }.bytes()
    }
}

/// The names of the features that the front end takes for granted in code for `cpu` with `changes`; none for a processor that nobody
/// knows.
pub(crate) fn processor_features(cpu: &str, changes: &[&str]) -> Vec<String> {
    extern "C" fn visit(data: *mut c_void, name: Slice<'_>) {
        // SAFETY: `data` is the vector below, borrowed by nobody else during the call.
        unsafe { &mut *data.cast::<Vec<String>>() }.push(name.text());
    }
    let changes: Vec<Slice<'_>> = changes.iter().map(|&change| change.into()).collect();
    let mut names = Vec::new();
    let data = (&raw mut names).cast();
    // SAFETY: the borrows outlive the call, and `visit` is called during it only, with the pointer given here.
    unsafe { hb_processor_features(cpu.into(), changes.as_ptr(), changes.len(), visit, data) };
    names
}

/// Links with lld; whether an image was written, and what lld said. One at a time: the caller holds a lock.
pub(crate) fn link(arguments: &[String]) -> (bool, String) {
    let slices: Vec<Slice<'_>> = arguments.iter().map(|a| a.as_str().into()).collect();
    // SAFETY: the borrows outlive the call, and the result is owned.
    let link = unsafe { Link::own(hb_link_run(slices.as_ptr(), slices.len())) }
        .expect("operator new never gives null");
    // SAFETY: alive, and the output is copied before it is freed.
    unsafe { (hb_link_status(link.raw()) == 0, hb_link_output(link.raw()).text()) }
}
