//! glibc's functions about loaded code as C programs call them, for those that answer in their place.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

/// What [`dladdr`] fills, `Dl_info` in C.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct AddressInfo {
    /// Path of what the address is in.
    pub(crate) file: *const c_char,
    /// Where that begins.
    pub(crate) base: *mut c_void,
    /// Name of the symbol, or null.
    pub(crate) symbol: *const c_char,
    /// Where that begins, or null.
    pub(crate) address: *mut c_void,
}

/// The public part of `struct link_map`, which begins it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct LinkMap {
    /// What is added to the addresses in the file.
    pub(crate) base: usize,
    /// Its path.
    pub(crate) name: *const c_char,
    /// Address of its dynamic section.
    pub(crate) dynamic: usize,
    /// The next in glibc's list.
    pub(crate) next: *const LinkMap,
    /// The one before.
    pub(crate) previous: *const LinkMap,
}

/// What glibc's `_dl_find_object` fills, `struct dl_find_object` in C.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct FoundObject {
    /// None yet.
    pub(crate) flags: u64,
    /// First address.
    pub(crate) start: usize,
    /// Behind the last.
    pub(crate) end: usize,
    /// What glibc knows it as.
    pub(crate) library: *const LinkMap,
    /// The index of its unwind tables.
    pub(crate) index: usize,
    /// Zeros.
    pub(crate) reserved: [u64; 7],
}

/// What is called for everything that is loaded.
pub(crate) type VisitLoaded =
    unsafe extern "C-unwind" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;

/// [`dladdr1`] shall tell the symbol's entry.
pub(crate) const RTLD_DL_SYMENT: c_int = 1;
/// [`dladdr1`] shall tell the library's entry in glibc's list.
pub(crate) const RTLD_DL_LINKMAP: c_int = 2;

mod glibc {
    use super::{AddressInfo, VisitLoaded};
    use std::ffi::{c_char, c_int, c_void};
    unsafe extern "C" {
        pub(super) fn dladdr1(
            address: *const c_void,
            info: *mut AddressInfo,
            extra: *mut *mut c_void,
            flags: c_int,
        ) -> c_int;
        pub(super) fn backtrace_symbols(buffer: *const *mut c_void, size: c_int) -> *mut *mut c_char;
        pub(super) fn backtrace_symbols_fd(buffer: *const *mut c_void, size: c_int, descriptor: c_int);
    }
    unsafe extern "C-unwind" {
        // What it calls may throw.
        pub(super) fn dl_iterate_phdr(visit: VisitLoaded, data: *mut c_void) -> c_int;
    }
}

/// glibc's `dladdr`.
///
/// # Safety
/// `info` can be written to.
pub(crate) unsafe fn dladdr(address: *const c_void, info: *mut AddressInfo) -> c_int {
    // SAFETY: the caller's promise; the layouts are the same.
    unsafe { libc::dladdr(address, info.cast()) }
}

/// glibc's `dladdr1`.
///
/// # Safety
/// `info` and, where `flags` ask for something more, `extra` can be written to.
pub(crate) unsafe fn dladdr1(
    address: *const c_void,
    info: *mut AddressInfo,
    extra: *mut *mut c_void,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { glibc::dladdr1(address, info, extra, flags) }
}

/// glibc's `dlsym`, or `dlvsym` if there is a version.
///
/// # Safety
/// A handle that is open or one of the special ones, and terminated names.
pub(crate) unsafe fn symbol(
    handle: *mut c_void,
    name: *const c_char,
    version: Option<*const c_char>,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        match version {
            Some(version) => libc::dlvsym(handle, name, version),
            None => libc::dlsym(handle, name),
        }
    }
}

/// glibc's `dlopen`.
///
/// # Safety
/// A terminated name or null. What it opens runs.
pub(crate) unsafe fn open(name: *const c_char, flags: c_int) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { libc::dlopen(name, flags) }
}

/// glibc's `dlclose`.
///
/// # Safety
/// The handle is one that [`open`] gave, and what came from it is not used any more.
pub(crate) unsafe fn close(handle: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::dlclose(handle) }
}

/// glibc's `dlinfo`.
///
/// # Safety
/// An open handle, and room for what `request` asks for.
pub(crate) unsafe fn info(handle: *mut c_void, request: c_int, answer: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::dlinfo(handle, request, answer) }
}

/// glibc's entry for an open handle; it lives as long as that is open.
///
/// # Safety
/// An open handle.
pub(crate) unsafe fn entry<'a>(handle: *mut c_void) -> Option<&'a LinkMap> {
    let mut entry: *const LinkMap = ptr::null();
    // SAFETY: the caller's promise; the request writes one pointer.
    unsafe {
        if info(handle, libc::RTLD_DI_LINKMAP, (&raw mut entry).cast()) != 0 {
            error();
            return None;
        }
        entry.as_ref()
    }
}

/// glibc's `dlerror`: the text is the thread's until its next call.
pub(crate) fn error() -> *mut c_char {
    // SAFETY: takes nothing.
    unsafe { libc::dlerror() }
}

/// glibc's `dl_iterate_phdr`.
///
/// # Safety
/// `visit` may be called with `data`.
pub(crate) unsafe fn visit_loaded(visit: VisitLoaded, data: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { glibc::dl_iterate_phdr(visit, data) }
}

/// What glibc's `backtrace_symbols` says about one address.
pub(crate) fn describe(address: *mut c_void) -> Vec<u8> {
    // SAFETY: one address, and a block with one pointer to a text in it, which is ours to free.
    unsafe {
        let list = glibc::backtrace_symbols(&address, 1);
        if list.is_null() {
            return format!("[{address:p}]").into_bytes();
        }
        let text = CStr::from_ptr(*list).to_bytes().to_vec();
        libc::free(list.cast());
        text
    }
}

/// Writes what glibc's `backtrace_symbols_fd` says about one address.
pub(crate) fn write_description(address: *mut c_void, descriptor: c_int) {
    // SAFETY: one address.
    unsafe { glibc::backtrace_symbols_fd(&address, 1, descriptor) }
}

/// Writes a text to a descriptor that a program named; like glibc's functions of this kind it says nothing when that
/// fails.
pub(crate) fn write(descriptor: c_int, text: &[u8]) {
    let mut rest = text;
    while !rest.is_empty() {
        // SAFETY: as many bytes as there are.
        let written = unsafe { libc::write(descriptor, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
            _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// A table of texts in one block that C's `free` frees: pointers first. Null when there is no memory.
pub(crate) fn table_of_texts(texts: &[Vec<u8>]) -> *mut *mut c_char {
    let bytes: usize = texts.iter().map(|text| text.len() + 1).sum();
    let head = size_of::<*mut c_char>() * texts.len();
    // SAFETY: the block has room for the pointers, and behind them for the texts with their ends.
    unsafe {
        let block = libc::malloc((head + bytes).max(1)).cast::<*mut c_char>();
        if block.is_null() {
            return block;
        }
        let mut place = block.cast::<u8>().add(head);
        for (at, text) in texts.iter().enumerate() {
            block.add(at).write(place.cast());
            ptr::copy_nonoverlapping(text.as_ptr(), place, text.len());
            place.add(text.len()).write(0);
            place = place.add(text.len() + 1);
        }
        block
    }
}
