//! LLVM's way to find the library that has a symbol: ORC's `LibraryResolver`, new in LLVM 22. It scans folders when it is asked for
//! the first time, reads the symbols of one library after the other into filters, and keeps them in memory.

use crate::Result;
use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// Longer than any path.
const CAPACITY: usize = 4097;

/// What `shim/library_resolver.cpp` hands out.
#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn hotbed_bench_resolver_new(folders: *const *const c_char, count: usize) -> *mut Opaque;
    fn hotbed_bench_resolver_find(
        resolver: *mut Opaque,
        symbol: *const c_char,
        path: *mut c_char,
        capacity: usize,
    ) -> c_int;
    fn hotbed_bench_resolver_free(resolver: *mut Opaque);
}

/// Folders in the form that the resolver takes, made before the clock starts.
pub(crate) struct Folders(Vec<CString>);

/// A `LibraryResolver`.
pub(crate) struct LibraryResolver(NonNull<Opaque>);

impl Folders {
    /// `folders` must have no zero bytes in them.
    ///
    /// # Errors
    /// When one has.
    pub(crate) fn new(folders: &[impl AsRef<Path>]) -> Result<Self> {
        let folder = |folder: &_| CString::new(AsRef::<Path>::as_ref(folder).as_os_str().as_bytes());
        Ok(Self(folders.iter().map(folder).collect::<std::result::Result<_, _>>()?))
    }
}

impl LibraryResolver {
    /// One for these folders.
    ///
    /// # Errors
    /// When LLVM makes none.
    pub(crate) fn new(folders: &Folders) -> Result<Self> {
        let pointers: Vec<*const c_char> = folders.0.iter().map(|folder| folder.as_ptr()).collect();
        // SAFETY: as many terminated texts as it is told; they are copied.
        let resolver = unsafe { hotbed_bench_resolver_new(pointers.as_ptr(), pointers.len()) };
        NonNull::new(resolver).map(Self).ok_or_else(|| "LLVM makes no LibraryResolver".into())
    }

    /// The library that has `symbol`.
    ///
    /// # Errors
    /// When its path is longer than paths are.
    pub(crate) fn find(&self, symbol: &CStr) -> Result<Option<PathBuf>> {
        let mut path = [0_u8; CAPACITY];
        // SAFETY: the resolver is there as long as `self`, and is used by one thread; the name is terminated, the buffer has
        // the size that is said.
        let found = unsafe {
            hotbed_bench_resolver_find(self.0.as_ptr(), symbol.as_ptr(), path.as_mut_ptr().cast(), path.len())
        };
        match found {
            0 => Ok(None),
            1 => {
                let path = CStr::from_bytes_until_nul(&path)?;
                Ok(Some(OsStr::from_bytes(path.to_bytes()).into()))
            }
            _ => Err("LLVM gives a path that is too long".into()),
        }
    }
}

impl Drop for LibraryResolver {
    fn drop(&mut self) {
        // SAFETY: made once for this value, and nobody uses it any more.
        unsafe { hotbed_bench_resolver_free(self.0.as_ptr()) };
    }
}
