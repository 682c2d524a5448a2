//! What debuggers, profilers and backtraces see: the settings of a runtime, and what is behind an address.

use crate::observer::Observer;
use crate::runtime::Runtime;
use hotbed_loader::Frame;
use hotbed_loader::debug::DebugOptions;
use std::path::PathBuf;
use std::sync::Arc;

/// What a builder was told about tools.
#[derive(Debug, Default)]
pub(crate) struct DebugSettings {
    /// [`crate::RuntimeBuilder::gdb`].
    pub(crate) gdb: bool,
    /// [`crate::RuntimeBuilder::jitdump`].
    pub(crate) jitdump: Option<PathBuf>,
}

impl DebugSettings {
    /// The same for a loader, whose notes go to `observer`.
    pub(crate) fn options(self, observer: &Arc<dyn Observer>) -> DebugOptions {
        let Self { gdb, jitdump } = self;
        let observer = Arc::clone(observer);
        DebugOptions { gdb, jitdump, note: Some(Arc::new(move |line| observer.note(line))) }
    }
}

impl Runtime {
    /// What is behind an address of code: the calls at it, innermost first, more than one where the compiler has inlined;
    /// empty for an address that nobody knows. Any thread may ask.
    ///
    /// Units tell functions, files and lines when they were compiled with `-g` or `-gline-tables-only`, and their functions'
    /// names otherwise; shared libraries and the host tell the names of their exported symbols. Debug information is read at
    /// the first question about a unit and kept until it is unloaded; it may take as long as reading its file. When the
    /// file is not there any more, or is another one by now, exported names are left.
    ///
    /// The addresses in a backtrace are those that calls return to. They may belong to the next line, or even to the next
    /// function: ask about the one before.
    ///
    /// ```
    /// # fn main() -> Result<(), hotbed::Error> {
    /// use hotbed::{Runtime, Source, host_fn};
    /// use std::cell::RefCell;
    ///
    /// unsafe extern "C" {
    ///     // glibc's; a host may have the addresses from anywhere, such as the crate `backtrace`.
    ///     fn backtrace(addresses: *mut usize, room: i32) -> i32;
    /// }
    ///
    /// thread_local! { static ADDRESSES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) } }
    ///
    /// extern "C" fn where_am_i() -> i32 {
    ///     let mut addresses = [0_usize; 64];
    ///     // SAFETY: there is room for 64 addresses.
    ///     let count = unsafe { backtrace(addresses.as_mut_ptr(), 64) };
    ///     ADDRESSES.with(|to| *to.borrow_mut() = addresses[..count as usize].to_vec());
    ///     count
    /// }
    ///
    /// # // The plugin is not beside this example but where cargo puts libraries.
    /// # let plugin = std::path::Path::new(env!("OUT_DIR")).ancestors().map(|path| path.join("libhotbed_jit.so"));
    /// # let plugin = plugin.filter(|path| path.exists()).next().expect("cargo build --workspace");
    /// let runtime = Runtime::builder()
    /// #   .back_end(plugin)
    ///     .no_cache()
    ///     .build()?;
    /// runtime.define("where_am_i", host_fn!(where_am_i as extern "C" fn() -> i32))?;
    /// let text = "int where_am_i(void);\n\
    ///             static int inner(void) {\n  return where_am_i() + 1;\n}\n\
    ///             int outer(void) {\n  return inner() + 1;\n}\n";
    /// let unit = runtime.load(Source::text("script.c", text).flags(["-g"]))?;
    /// // SAFETY: `outer` is defined above with this type.
    /// let outer = unsafe { unit.get::<unsafe extern "C" fn() -> i32>("outer")? };
    /// // SAFETY: as above.
    /// unsafe { outer() };
    ///
    /// let mut seen = Vec::new();
    /// for address in ADDRESSES.take() {
    ///     for frame in runtime.symbolize(address - 1) {
    ///         println!("{frame}"); // inner+0x9 at /where/it/was/script.c:3:10 (script.c)
    ///         if frame.unit.as_deref() == Some("script.c") {
    ///             seen.push((frame.function.unwrap_or_default(), frame.line));
    ///         }
    ///     }
    /// }
    /// assert_eq!(seen, [("inner".to_owned(), Some(3)), ("outer".to_owned(), Some(6))]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn symbolize(&self, address: usize) -> Vec<Frame> {
        self.loader().symbolize(address)
    }
}
