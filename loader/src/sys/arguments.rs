//! The arguments and the environment that constructors are called with.

use std::ffi::{c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

static COUNT: AtomicI32 = AtomicI32::new(0);
static VALUES: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// What glibc hands to every function in `.init_array`; nothing else tells a library the arguments of its process.
#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn(c_int, *mut *const c_char, *mut *const c_char) = remember;

extern "C" fn remember(count: c_int, values: *mut *const c_char, _environment: *mut *const c_char) {
    COUNT.store(count, Ordering::Relaxed);
    VALUES.store(values, Ordering::Relaxed);
}

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// `argc`, `argv` and `envp` as a C program knows them.
///
/// The pointers must stay valid as long as anything that was loaded with them; those of the process do.
#[derive(Debug, Clone, Copy)]
pub struct ProgramArguments {
    /// How many arguments there are.
    pub count: c_int,
    /// The arguments, ended by a null pointer.
    pub values: *const *const c_char,
    /// The environment, ended by a null pointer; a null pointer here stands for `environ` as it is at the moment
    /// when it is needed.
    pub environment: *const *const c_char,
}

// SAFETY: the pointers are only handed on to constructors, which may be called from any thread.
unsafe impl Send for ProgramArguments {}
// SAFETY: as above.
unsafe impl Sync for ProgramArguments {}

impl ProgramArguments {
    /// The arguments of this process.
    pub fn of_process() -> Self {
        Self {
            count: COUNT.load(Ordering::Relaxed),
            values: VALUES.load(Ordering::Relaxed),
            environment: ptr::null(),
        }
    }

    /// The environment, with the stand-in resolved.
    pub(crate) fn environment(&self) -> *const *const c_char {
        if self.environment.is_null() {
            // SAFETY: reading the pointer itself; whoever changes it concurrently breaks every `getenv` as well.
            unsafe { environ }
        } else {
            self.environment
        }
    }
}
