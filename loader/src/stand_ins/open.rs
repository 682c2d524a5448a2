//! Opening and closing: `dlopen`, `dlclose`, `dlinfo`.
//!
//! A library that a unit opens may need what units define, so it is offered to it before glibc opens the library. A
//! name without a folder is looked for where the asking image wants its libraries looked for, then where glibc looks.

use super::errors;
use super::handles::{self, Meaning};
use crate::image::{Image, unwind};
use crate::loader::{search_of, seen_by};
use crate::slots::image_of;
use crate::sys::linker;
use std::arch::naked_asm;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

/// What units get for `dlopen`.
///
/// # Safety
/// As for glibc's: a terminated name or null. What it opens runs.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!("mov rdx, qword ptr [rsp]", "jmp {}", sym open)
}

unsafe extern "C" fn open(name: *const c_char, flags: c_int, caller: usize) -> *mut c_void {
    let Some(asker) = image_of(caller) else {
        // SAFETY: the caller's promise.
        return unsafe { linker::open(name, flags) };
    };
    // SAFETY: the caller's promise.
    let text = if name.is_null() { c"" } else { unsafe { CStr::from_ptr(name) } };
    if text.is_empty() {
        // SAFETY: as above.
        let handle = unsafe { linker::open(name, flags) };
        match handle.is_null() {
            true => errors::glibc_failed(),
            false => handles::set_program(handle),
        }
        return handle;
    }
    if let Some(image) = image_called(&asker, text) {
        return handles::open_image(image);
    }
    let path = in_run_path(&asker, text);
    let path = path.as_deref().unwrap_or(text);
    let mut offered = None;
    if flags & libc::RTLD_NOLOAD == 0 {
        match asker.loader().offer_to_library(asker.space(), Path::new(OsStr::from_bytes(path.to_bytes()))) {
            Ok(something) => offered = something,
            Err(reason) => {
                errors::fail(&format!("{}: {reason}", path.to_string_lossy()));
                return ptr::null_mut();
            }
        }
    }
    // SAFETY: the caller's promise.
    let handle = unsafe { linker::open(path.as_ptr(), flags) };
    if handle.is_null() {
        errors::glibc_failed();
    } else {
        unwind::look_again();
        handles::keep(handle, offered);
    }
    handle
}

/// The image that a program knows by this name.
fn image_called(asker: &Image, name: &CStr) -> Option<Arc<Image>> {
    seen_by(asker.space())
        .into_iter()
        .find(|image| image.shown().label() == name || image.shown().file() == name)
}

/// Where a name without a folder is in the folders that the asking image names.
fn in_run_path(asker: &Image, name: &CStr) -> Option<CString> {
    if name.to_bytes().contains(&b'/') {
        return None;
    }
    let plain = OsStr::from_bytes(name.to_bytes());
    let found = search_of(asker.mapped()).find_in_front(plain)?;
    CString::new(found.into_os_string().into_vec()).ok()
}

/// What units get for `dlclose`.
///
/// # Safety
/// As for glibc's: an open handle, from which nothing is used any more.
pub(super) unsafe extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let result = unsafe { handles::close(handle) };
    if result != 0 {
        errors::glibc_failed();
    }
    result
}

/// What units get for `dlinfo`.
///
/// # Safety
/// As for glibc's: an open handle, and room for what `request` asks for.
pub(super) unsafe extern "C" fn dlinfo(handle: *mut c_void, request: c_int, answer: *mut c_void) -> c_int {
    const RTLD_DI_TLS_MODID: c_int = 9;
    const RTLD_DI_TLS_DATA: c_int = 10;
    let Meaning::Image(image) = handles::meaning(handle) else {
        // SAFETY: the caller's promise.
        let result = unsafe { linker::info(handle, request, answer) };
        if result != 0 {
            errors::glibc_failed();
        }
        return result;
    };
    let (module, block) = image.thread_block();
    let word = match request {
        // There is one namespace of glibc's, the base.
        libc::RTLD_DI_LMID => 0,
        libc::RTLD_DI_LINKMAP => ptr::from_ref(image.shown().entry()) as usize,
        RTLD_DI_TLS_MODID => module,
        RTLD_DI_TLS_DATA => block,
        _ => {
            errors::fail(&format!("{}: unsupported dlinfo request", image.shown().label().to_string_lossy()));
            return -1;
        }
    };
    // SAFETY: the caller's promise: all of these requests are answered by a word.
    unsafe { answer.cast::<usize>().write(word) };
    0
}
