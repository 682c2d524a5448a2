//! The dynamic linker's way: `dlopen`, `dlsym`, call, `dlclose`.

use crate::Result;
use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// A function without parameters that a library of the bench exports.
pub(crate) type Entry = unsafe extern "C" fn() -> c_int;

/// A path in the form that the dynamic linker takes, made before the clock starts.
pub(crate) struct LibraryPath(CString);

/// An open library, closed when dropped.
pub(crate) struct SharedLibrary(NonNull<c_void>);

impl LibraryPath {
    /// `path` must have no zero byte in it.
    ///
    /// # Errors
    /// When it has.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        Ok(Self(CString::new(path.as_os_str().as_bytes())?))
    }

    /// Whether the library is in the process.
    pub(crate) fn is_open(&self) -> bool {
        // SAFETY: the path ends with a zero; RTLD_NOLOAD opens nothing that is not there, so no code of a library runs.
        let handle = unsafe { libc::dlopen(self.0.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        match NonNull::new(handle) {
            Some(handle) => {
                drop(SharedLibrary(handle));
                true
            }
            None => false,
        }
    }
}

impl SharedLibrary {
    /// Opens a library with everything bound at once and its symbols kept to itself.
    ///
    /// # Errors
    /// What the dynamic linker says.
    pub(crate) fn open(path: &LibraryPath) -> Result<Self> {
        Self::open_with(path, libc::RTLD_NOW | libc::RTLD_LOCAL)
    }

    /// Opens a library with the flags of `dlopen`.
    ///
    /// # Errors
    /// What the dynamic linker says.
    pub(crate) fn open_with(path: &LibraryPath, flags: c_int) -> Result<Self> {
        // SAFETY: the path ends with a zero. The libraries of the bench are its own, made by compilers; their
        // constructors expect nothing.
        let handle = unsafe { libc::dlopen(path.0.as_ptr(), flags) };
        NonNull::new(handle).map(Self).ok_or_else(|| last_error().into())
    }

    /// The address of a function of type [`Entry`].
    ///
    /// # Errors
    /// When the library has no such symbol.
    pub(crate) fn entry(&self, symbol: &CStr) -> Result<Entry> {
        // SAFETY: the rows ask only for functions of this type, of sources they wrote or whose header says so.
        Ok(unsafe { std::mem::transmute::<usize, Entry>(self.address(symbol)?) })
    }

    /// The address of a symbol.
    ///
    /// # Errors
    /// When the library has no such symbol.
    pub(crate) fn address(&self, symbol: &CStr) -> Result<usize> {
        // SAFETY: the handle is open as long as `self`, and the name ends with a zero.
        let address = unsafe { libc::dlsym(self.0.as_ptr(), symbol.as_ptr()) };
        if address.is_null() { Err(last_error().into()) } else { Ok(address as usize) }
    }
}

impl Drop for SharedLibrary {
    fn drop(&mut self) {
        // SAFETY: the handle was opened once for this value and nobody else closes it.
        unsafe { libc::dlclose(self.0.as_ptr()) };
    }
}

/// Opens a library with everything bound at once, and its symbols for everybody in the process.
///
/// # Errors
/// What the dynamic linker says.
pub(crate) fn open_for_all(path: &Path) -> Result<SharedLibrary> {
    SharedLibrary::open_with(&LibraryPath::new(path)?, libc::RTLD_NOW | libc::RTLD_GLOBAL)
}

/// The address of `symbol` as anybody in the process finds it; nought if nobody has it.
pub(crate) fn find_for_all(symbol: &CStr) -> usize {
    // SAFETY: the name ends with a zero.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) as usize }
}

/// What the dynamic linker says about this thread's last failure.
fn last_error() -> String {
    // SAFETY: the text belongs to this thread and stays until its next call of the dl family.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the dynamic linker gives no reason".to_owned();
    }
    // SAFETY: not null, so a text that ends with a zero; copied before the next call.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A shared library on disk, or one that will be there, and the function of it that is called.
pub(crate) struct Callee {
    /// Where it lies.
    pub(crate) file: PathBuf,
    /// [`Callee::file`] for the dynamic linker.
    path: LibraryPath,
    symbol: &'static CStr,
}

impl Callee {
    /// `symbol` must be of type [`Entry`] in `file`.
    ///
    /// # Errors
    /// When `file` cannot be a path.
    pub(crate) fn new(file: PathBuf, symbol: &'static CStr) -> Result<Self> {
        Ok(Self { path: LibraryPath::new(&file)?, file, symbol })
    }

    /// Opens the library and calls the function. The library is given back open, so that closing it is not in the
    /// caller's time.
    ///
    /// # Errors
    /// When it cannot be opened or has no such function.
    pub(crate) fn open_and_call(&self) -> Result<(SharedLibrary, c_int)> {
        let library = SharedLibrary::open(&self.path)?;
        let entry = library.entry(self.symbol)?;
        // SAFETY: the row that names the symbol made or knows its source; it takes nothing and gives an int.
        let result = unsafe { entry() };
        Ok((library, result))
    }

    /// Whether the library is in the process.
    pub(crate) fn is_open(&self) -> bool {
        self.path.is_open()
    }
}
