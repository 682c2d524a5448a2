//! Where a name is: `dlsym` and `dlvsym`.
//!
//! The special handles are answered from the layers of the unit that asks, so that it gets for a name what its own
//! references of that name got: `RTLD_DEFAULT` its own definition first, `RTLD_NEXT` what comes behind it in load order.
//! The program's own handle (`dlopen(NULL)`) means all units. What the layers do not have, and every handle of a library,
//! is glibc's to answer; what glibc does not have either, the host may load.

use super::handles::{self, Meaning};
use super::{Special, errors, instead_of_process, unwinds};
use crate::image::symbols::Name;
use crate::image::{Image, registry, unwind};
use crate::slots::image_of;
use crate::sys::linker;
use std::arch::naked_asm;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::Arc;

/// What units get for `dlsym`.
///
/// # Safety
/// As for glibc's: an open handle or a special one, and a terminated name.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    naked_asm!("mov rdx, qword ptr [rsp]", "jmp {}", sym symbol)
}

/// What units get for `dlvsym`.
///
/// # Safety
/// As for [`dlsym`]; a terminated version.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    naked_asm!("mov rcx, qword ptr [rsp]", "jmp {}", sym symbol_of_version)
}

unsafe extern "C" fn symbol(handle: *mut c_void, name: *const c_char, caller: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { find(handle, name, None, caller) }
}

unsafe extern "C" fn symbol_of_version(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { find(handle, name, Some(version), caller) }
}

/// # Safety
/// As for [`dlsym`].
unsafe fn find(
    handle: *mut c_void,
    name: *const c_char,
    version: Option<*const c_char>,
    caller: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    let glibcs = |handle| unsafe { linker::symbol(handle, name, version) };
    let answer = |address: usize| ptr::without_provenance_mut(address);
    let Some(asker) = image_of(caller) else { return glibcs(handle) };
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(name) };
    let Ok(plain) = text.to_str() else { return glibcs(handle) };
    if unwinds(Name::new(text.to_bytes())) {
        unwind::bring_in();
    }
    let special = match handles::meaning(handle) {
        Meaning::Image(image) => {
            let found = if version.is_none() { of_image(&image, plain) } else { None };
            return found.map_or_else(|| fail(&image, plain, version), answer);
        }
        Meaning::Library => {
            let found = glibcs(handle);
            if found.is_null() {
                errors::glibc_failed();
            }
            return found;
        }
        Meaning::Special(special) => special,
    };
    let loader = asker.loader();
    // Units define no versions, and a definition without one is not found by `dlvsym`.
    let in_process = if version.is_none() {
        if let Some(address) = loader.symbol_of_units(&asker, plain, special) {
            return answer(address);
        }
        loader.symbol_of_process(plain).map(answer)
    } else {
        None
    };
    let mut found = in_process.unwrap_or_else(|| glibcs(libc::RTLD_DEFAULT));
    // glibc may know it from a facade: that is not behind the units.
    if special == Special::Next && registry::image_at(found as usize).is_some() {
        found = ptr::null_mut();
    }
    if found.is_null() && version.is_none() {
        match loader.provide(&asker, plain) {
            Ok(true) => {
                if let Some(address) = loader.symbol_of_units(&asker, plain, special) {
                    return answer(address);
                }
            }
            Ok(false) => {}
            Err(reason) => {
                errors::fail(&reason);
                return ptr::null_mut();
            }
        }
    }
    match instead_of_process(Name::new(text.to_bytes())) {
        _ if found.is_null() => fail(&asker, plain, version),
        Some(stand_in) => answer(stand_in),
        None => found,
    }
}

/// The definition of the image itself, or of what it is bound to, breadth first.
fn of_image(image: &Arc<Image>, name: &str) -> Option<usize> {
    let mut seen: Vec<Arc<Image>> = vec![Arc::clone(image)];
    let mut next = 0;
    while let Some(image) = seen.get(next) {
        if let Some(found) = image.get(name) {
            return Some(found.address);
        }
        next += 1;
        for used in image.bound_to() {
            if !seen.iter().any(|known| Arc::ptr_eq(known, &used)) {
                seen.push(used);
            }
        }
    }
    image.libraries().iter().find_map(|library| library.get(name))
}

/// Records that nobody has it, in glibc's words.
fn fail(image: &Image, name: &str, version: Option<*const c_char>) -> *mut c_void {
    let who = image.shown().label().to_string_lossy();
    // SAFETY: the promise of `dlvsym`'s caller.
    let version = version.map(|version| unsafe { CStr::from_ptr(version) }.to_string_lossy());
    let version = version.map(|version| format!(", version {version}")).unwrap_or_default();
    errors::fail(&format!("{who}: undefined symbol: {name}{version}"));
    ptr::null_mut()
}
