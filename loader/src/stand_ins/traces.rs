//! Addresses as text: `backtrace_symbols` and `backtrace_symbols_fd`, in glibc's format.

use super::address::{belonging, nearest};
use crate::sys::linker;
use std::ffi::{c_char, c_int, c_void};
use std::io::Write;

/// `FILE(SYMBOL+OFFSET)`, the offset as `show` has it; nothing where no image is. An address without a symbol is counted
/// from where the file's addresses begin, or the function that it is in.
fn place(address: usize, show: fn(usize) -> String) -> Option<Vec<u8>> {
    let (image, body, within) = belonging(address)?;
    let mut text = image.shown().label().to_bytes().to_vec();
    let (name, start) = match nearest(&image, within) {
        Some(nearest) => (nearest.name, body.unwrap_or(nearest.address)),
        None => (b"".as_slice(), body.unwrap_or(image.mapped().place.base)),
    };
    text.push(b'(');
    text.extend_from_slice(name);
    // Writing to a vector cannot fail.
    let _ = write!(text, "+{})", show(address.wrapping_sub(start)));
    Some(text)
}

/// As C's `%#tx` has it: no mark in front of a zero.
fn unmarked_zero(number: usize) -> String {
    if number == 0 { "0".into() } else { marked(number) }
}

fn marked(number: usize) -> String {
    format!("{number:#x}")
}

/// # Safety
/// `buffer` has `size` addresses, if that is positive.
unsafe fn addresses<'a>(buffer: *const *mut c_void, size: c_int) -> &'a [*mut c_void] {
    match usize::try_from(size) {
        // SAFETY: the caller's promise.
        Ok(size) if size > 0 => unsafe { std::slice::from_raw_parts(buffer, size) },
        _ => &[],
    }
}

/// What units get for `backtrace_symbols`.
///
/// # Safety
/// As for glibc's: `buffer` has `size` addresses.
pub(super) unsafe extern "C" fn backtrace_symbols(
    buffer: *const *mut c_void,
    size: c_int,
) -> *mut *mut c_char {
    // SAFETY: the caller's promise.
    let addresses = unsafe { addresses(buffer, size) };
    let texts: Vec<Vec<u8>> = addresses
        .iter()
        .map(|address| match place(*address as usize, unmarked_zero) {
            Some(mut text) => {
                let _ = write!(text, " [{:p}]", *address);
                text
            }
            None => linker::describe(*address),
        })
        .collect();
    linker::table_of_texts(&texts)
}

/// What units get for `backtrace_symbols_fd`.
///
/// # Safety
/// As for glibc's: `buffer` has `size` addresses.
pub(super) unsafe extern "C" fn backtrace_symbols_fd(
    buffer: *const *mut c_void,
    size: c_int,
    descriptor: c_int,
) {
    // SAFETY: the caller's promise.
    for address in unsafe { addresses(buffer, size) } {
        match place(*address as usize, marked) {
            Some(mut text) => {
                let _ = writeln!(text, "[{:p}]", *address);
                linker::write(descriptor, &text);
            }
            None => linker::write_description(*address, descriptor),
        }
    }
}
