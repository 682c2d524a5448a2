//! The unwinder's registers: where C++ exceptions and backtraces learn about code that glibc does not know.

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

/// The way to register a whole, zero-terminated `.eh_frame` section with the unwinder that this process has.
enum Unwinder {
    /// libgcc, with storage of ours, so that nothing is allocated behind our back. It takes a list of sections: given
    /// one section it would look into it at once, and touch a page that nobody may ever need.
    Libgcc {
        register: unsafe extern "C" fn(*const c_void, *mut c_void),
        deregister: unsafe extern "C" fn(*const c_void) -> *mut c_void,
    },
    /// LLVM's libunwind, or a libgcc that allocates for itself.
    Plain { register: unsafe extern "C" fn(*const c_void), deregister: unsafe extern "C" fn(*const c_void) },
    /// None: nothing in this process can unwind.
    None,
}

/// What libgcc gets: its `struct object`, six words, of which versions to come may want more, and a list of sections.
#[repr(C)]
struct Storage {
    object: [usize; 16],
    sections: [usize; 2],
}

/// A registered section; dropped, it is registered no more.
pub struct Registration {
    section: usize,
    storage: *mut Storage,
}

// SAFETY: the unwinder locks its list; the storage is touched by it only.
unsafe impl Send for Registration {}
// SAFETY: as above, and there is nothing to do with a shared reference.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers the `.eh_frame` section at `section`.
    ///
    /// # Safety
    /// There is a well-formed section, ended by a zero length, which stays there as long as the registration.
    pub unsafe fn new(section: usize) -> Option<Self> {
        match unwinder() {
            Unwinder::None => None,
            Unwinder::Libgcc { register, .. } => {
                let storage = Box::into_raw(Box::new(Storage { object: [0; 16], sections: [section, 0] }));
                // SAFETY: the caller's promise about the section; the storage lives as long as the registration.
                unsafe {
                    register((&raw mut (*storage).sections).cast(), (&raw mut (*storage).object).cast())
                };
                Some(Self { section, storage })
            }
            Unwinder::Plain { register, .. } => {
                // SAFETY: the caller's promise about the section.
                unsafe { register(section as *const c_void) };
                Some(Self { section, storage: std::ptr::null_mut() })
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        match unwinder() {
            Unwinder::None => {}
            Unwinder::Libgcc { deregister, .. } => {
                // SAFETY: this very list was registered, with this storage, which libgcc lets go of here.
                unsafe {
                    deregister((&raw const (*self.storage).sections).cast());
                    drop(Box::from_raw(self.storage));
                }
            }
            // SAFETY: this very section was registered.
            Unwinder::Plain { deregister, .. } => unsafe { deregister(self.section as *const c_void) },
        }
    }
}

fn unwinder() -> &'static Unwinder {
    static FOUND: OnceLock<Unwinder> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let (Some(register), Some(deregister)) =
            (find(c"__register_frame_info_table"), find(c"__deregister_frame_info"))
        {
            // SAFETY: these are the types of libgcc's functions of these names.
            return unsafe {
                Unwinder::Libgcc {
                    register: std::mem::transmute::<usize, unsafe extern "C" fn(*const c_void, *mut c_void)>(
                        register,
                    ),
                    deregister: std::mem::transmute::<
                        usize,
                        unsafe extern "C" fn(*const c_void) -> *mut c_void,
                    >(deregister),
                }
            };
        }
        // libunwind's `__register_frame` takes one entry, its other function a section as libgcc's does.
        for (register, deregister) in [
            (c"__unw_add_dynamic_eh_frame_section", c"__unw_remove_dynamic_eh_frame_section"),
            (c"__register_frame", c"__deregister_frame"),
        ] {
            if let (Some(register), Some(deregister)) = (find(register), find(deregister)) {
                // SAFETY: these are the types of the functions of these names.
                return unsafe {
                    Unwinder::Plain {
                        register: std::mem::transmute::<usize, unsafe extern "C" fn(*const c_void)>(register),
                        deregister: std::mem::transmute::<usize, unsafe extern "C" fn(*const c_void)>(
                            deregister,
                        ),
                    }
                };
            }
        }
        Unwinder::None
    })
}

fn find(name: &CStr) -> Option<usize> {
    super::libraries::default_symbol(name, None)
}
