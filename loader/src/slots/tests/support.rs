//! Images whose functions wait for their bodies, and a materializer that finds these in the image itself.

use crate::image::note::{self, LazyLayout};
use crate::sys::sync::Mutex;
use crate::testing::Folder;
use crate::{
    FunctionFailure, FunctionRequest, Image, ImageSource, Loader, LoaderOptions, Materializer, Slots,
};
use object::{Object, ObjectSection};
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a link adds to an image that has such functions.
const OWN: &str = r#".section .hotbed.slots,"aw",@progbits
.p2align 3
.Lhead: .quad 0, __hotbed_lazy_abort
.text
.hidden __hotbed_lazy_head
.globl __hotbed_lazy_head
__hotbed_lazy_head: pushq .Lhead(%rip)
jmpq *.Lhead+8(%rip)
.hidden __hotbed_lazy_abort
.globl __hotbed_lazy_abort
__hotbed_lazy_abort: ud2
"#;

/// What belongs to a function.
const FUNCTION: &str = r#".section .text.hotbed.stubs,"ax",@progbits
.p2align 3
.globl NAME
.type NAME,@function
NAME:
.Lstub.NAME: jmpq *.Lslot.NAME(%rip)
.p2align 3
.size NAME, 8
.section .hotbed.slots,"aw",@progbits
.p2align 3
.Lslot.NAME: .quad .Lentry.NAME
.section .hotbed.lazy,"ax",@progbits
.Lentry.NAME: call __hotbed_lazy_head
.section .hotbed.names,"a",@progbits
.Lname.NAME: .asciz "NAME"
.section .hotbed.functions,"a",@progbits
.p2align 3
.long 3, NUMBER, .Lstub.NAME - ., .Lname.NAME - .
"#;

/// The image of `source` in which `functions` have slots. The body of one is the function of its name with `_body` behind.
pub(crate) fn image(folder: &Folder, name: &str, source: &str, functions: &[&str]) -> Vec<u8> {
    let mut assembly = OWN.to_owned();
    for (function, number) in functions.iter().zip(100..) {
        assembly.push_str(&FUNCTION.replace("NAME", function).replace("NUMBER", &number.to_string()));
    }
    assembly.push_str(".text\n");
    let mut whole = source.to_owned();
    for line in assembly.lines() {
        let _ = writeln!(whole, "__asm__({:?});", format!("{line}\n"));
    }
    let path = folder.image(name, &whole, &["-mavx", "-fno-optimize-sibling-calls"]);
    let mut bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let address = |name| file.section_by_name(name).unwrap().address();
    let lazy = LazyLayout {
        count: functions.len() as u32,
        slots: address(note::SLOTS_SECTION),
        entries: address(note::ENTRIES_SECTION),
        functions: address(note::FUNCTIONS_SECTION),
    };
    change(&mut bytes, |_| lazy);
    bytes
}

/// Says something else about the tables in an image.
pub(super) fn change(bytes: &mut [u8], change: impl FnOnce(Option<LazyLayout>) -> LazyLayout) {
    let mut layout = note::layout(bytes).unwrap();
    layout.lazy = Some(change(layout.lazy));
    note::set_layout(bytes, &layout).unwrap();
    note::seal(bytes).unwrap();
}

/// What is done with a request.
type Answer = dyn Fn(FunctionRequest) + Send + Sync;
/// What is called instead of a function that failed.
type Instead = dyn Fn(&FunctionFailure<'_>) -> Option<usize> + Send + Sync;

/// A materializer for a test.
pub(super) struct Fake {
    /// Names, with a star if everything that they reach is wanted, in the order in which they were asked for.
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) ended: AtomicUsize,
    answer: Box<Answer>,
    instead: Box<Instead>,
}

impl Fake {
    pub(super) fn new(answer: impl Fn(FunctionRequest) + Send + Sync + 'static) -> Arc<Self> {
        Self::failing(answer, |_| None)
    }

    pub(super) fn failing(
        answer: impl Fn(FunctionRequest) + Send + Sync + 'static,
        instead: impl Fn(&FunctionFailure<'_>) -> Option<usize> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (asked, ended) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { asked, ended, answer: Box::new(answer), instead: Box::new(instead) })
    }

    /// A loader that has it.
    pub(super) fn loader(self: &Arc<Self>) -> Loader {
        let materializer: Arc<dyn Materializer> = Arc::<Self>::clone(self);
        Loader::new(LoaderOptions { materializer: Some(materializer), ..LoaderOptions::default() })
    }

    /// What was asked for since somebody looked.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock())
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Materializer for Fake {
    fn materialize(&self, request: FunctionRequest) {
        let star = if request.is_deep() { "*" } else { "" };
        self.asked.lock().push(request.function().unwrap().name + star);
        (self.answer)(request);
    }

    fn failed(&self, failure: &FunctionFailure<'_>) -> Option<usize> {
        (self.instead)(failure)
    }

    fn ended(&self, _: &Slots) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// Answers with the body that the image has.
pub(super) fn answer(request: FunctionRequest) {
    let body = request.slots().for_fresh(&(request.function().unwrap().name + "_body"));
    request.done(body.map(|body| body.address).ok_or_else(|| "it has no body".to_owned()));
}

/// The same on another thread.
pub(super) fn answer_elsewhere(request: FunctionRequest) {
    std::thread::spawn(|| answer(request));
}

pub(super) fn load(loader: &Loader, name: &str, bytes: &[u8]) -> Arc<Image> {
    loader.load_image(name, ImageSource::Bytes(bytes)).unwrap()
}
