//! gdb's JIT interface: a list of ELF files in memory, and a function with a breakpoint of gdb's.
//!
//! gdb looks for two symbols in every file of the process (its manual, "JIT Compilation Interface"):
//!
//! - `__jit_debug_descriptor`, a variable: `u32` version (1), `u32` action (0 none, 1 registered, 2 unregistered), a
//!   pointer to the entry that the action is about, and one to the first entry;
//! - `__jit_debug_register_code`, a function that does nothing. gdb sets a breakpoint there, and when it is hit reads
//!   the descriptor.
//!
//! An entry has pointers to the next and the previous one, the address of the file and its size (`u64`). When gdb attaches
//! later it walks the list, so files stay in memory, unchanged, as long as they are registered.
//!
//! Both symbols are weak: another compiler in the process, such as LLVM linked into the host, may have its own, and then
//! there must be one list that all of them use. Two loaders share it in any case.

use crate::sys::sync::Mutex;
use crate::sys::{files, libraries};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::ptr;

/// `JIT_REGISTER_FN`.
const REGISTERED: u32 = 1;
/// `JIT_UNREGISTER_FN`.
const UNREGISTERED: u32 = 2;
const DESCRIPTOR: &CStr = c"__jit_debug_descriptor";

/// `struct jit_code_entry`.
#[repr(C)]
struct Entry {
    next: *mut Entry,
    previous: *mut Entry,
    file: *const u8,
    size: u64,
}

/// `struct jit_descriptor`.
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *mut Entry,
    first: *mut Entry,
}

core::arch::global_asm!(
    ".pushsection .data.__jit_debug_descriptor,\"aw\",@progbits",
    ".weak __jit_debug_descriptor",
    ".type __jit_debug_descriptor,@object",
    ".size __jit_debug_descriptor,24",
    ".p2align 3",
    "__jit_debug_descriptor:",
    ".long 1, 0",
    ".quad 0, 0",
    ".popsection",
    ".pushsection .text.__jit_debug_register_code,\"ax\",@progbits",
    ".weak __jit_debug_register_code",
    ".type __jit_debug_register_code,@function",
    ".p2align 4",
    "__jit_debug_register_code:",
    "ret",
    ".size __jit_debug_register_code,1",
    ".popsection",
);

unsafe extern "C" {
    static mut __jit_debug_descriptor: Descriptor;
    fn __jit_debug_register_code();
}

/// Held while the list is changed.
static LIST: Mutex<()> = Mutex::new(());

/// A file that is in the list; dropped, it is taken out.
pub(super) struct Registration {
    entry: *mut Entry,
    file: Box<[u8]>,
}

// SAFETY: the entry is touched under the lock only.
unsafe impl Send for Registration {}

impl Registration {
    /// Puts `file`, a whole ELF file, into the list.
    pub(super) fn new(file: Vec<u8>) -> Self {
        let file = file.into_boxed_slice();
        let entry = Box::into_raw(Box::new(Entry {
            next: ptr::null_mut(),
            previous: ptr::null_mut(),
            file: file.as_ptr(),
            size: file.len() as u64,
        }));
        let _lock = LIST.lock();
        // SAFETY: the list is locked; it consists of entries that live until they are taken out, and `entry` is a new one.
        unsafe {
            let descriptor = &raw mut __jit_debug_descriptor;
            let first = (*descriptor).first;
            (*entry).next = first;
            if !first.is_null() {
                (*first).previous = entry;
            }
            (*descriptor).first = entry;
            tell(descriptor, entry, REGISTERED);
        }
        Self { entry, file }
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> usize {
        self.file.len()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _lock = LIST.lock();
        // SAFETY: the list is locked, and `entry` is in it: it is taken out once, here, and freed afterwards.
        unsafe {
            let descriptor = &raw mut __jit_debug_descriptor;
            let Entry { next, previous, .. } = *self.entry;
            if previous.is_null() {
                (*descriptor).first = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            tell(descriptor, self.entry, UNREGISTERED);
            drop(Box::from_raw(self.entry));
        }
    }
}

/// Lets gdb look.
///
/// # Safety
/// The list is locked and in order; `entry` is readable.
unsafe fn tell(descriptor: *mut Descriptor, entry: *mut Entry, action: u32) {
    // SAFETY: the caller's promise; the writes are volatile because somebody outside reads them, and the function does
    // nothing by itself.
    unsafe {
        (&raw mut (*descriptor).relevant).write_volatile(entry);
        (&raw mut (*descriptor).action).write_volatile(action);
        __jit_debug_register_code();
        // Who attaches between two changes must not take the last one for news about an entry that may be gone.
        (&raw mut (*descriptor).action).write_volatile(0);
        (&raw mut (*descriptor).relevant).write_volatile(ptr::null_mut());
    }
}

/// Whether gdb can find the descriptor: by the dynamic symbols of the file that has it, or by its full symbol table.
pub(super) fn is_visible() -> bool {
    let address = (&raw const __jit_debug_descriptor).addr();
    if libraries::default_symbol(DESCRIPTOR, None) == Some(address) {
        return true;
    }
    let Some(near) = libraries::nearest(address) else { return false };
    // The name that the program goes by may not be its path.
    let path = if near.is_program { "/proc/self/exe" } else { &near.path };
    let Ok(bytes) = File::open(path).and_then(|file| files::contents(file.as_fd())) else { return false };
    let Ok(file) = ElfFile64::<object::LittleEndian>::parse(&*bytes) else { return false };
    file.symbols()
        .chain(file.dynamic_symbols())
        .any(|symbol| symbol.is_definition() && symbol.name_bytes() == Ok(DESCRIPTOR.to_bytes()))
}

/// Copies of the files in the list.
#[cfg(test)]
pub(super) fn listed() -> Vec<Vec<u8>> {
    let _lock = LIST.lock();
    let mut files = Vec::new();
    // SAFETY: the list is locked, and files stay as long as they are in it.
    unsafe {
        let mut entry = __jit_debug_descriptor.first;
        while let Some(Entry { next, file, size, .. }) = entry.as_ref() {
            files.push(std::slice::from_raw_parts(*file, *size as usize).to_vec());
            entry = *next;
        }
    }
    files
}
