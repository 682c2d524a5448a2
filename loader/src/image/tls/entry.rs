//! The functions that compiled code calls to reach a thread-local variable: few instructions when the block exists.

use super::{OURS, Reference, make_block};
use crate::image::registers::{STATE_BYTES, restore_state, save_state};
use std::arch::{asm, global_asm, naked_asm};

// The native thread-local word: a Rust `thread_local!` cannot be reached from the functions below, which must not
// touch any register. In the initial-exec model it costs two loads wherever this code is linked into.
global_asm!(
    ".pushsection .tbss.hotbed_loader_tls_table,\"awT\",@nobits",
    ".globl hotbed_loader_tls_table",
    ".hidden hotbed_loader_tls_table",
    ".type hotbed_loader_tls_table,@object",
    ".size hotbed_loader_tls_table, 8",
    ".p2align 3",
    "hotbed_loader_tls_table:",
    ".zero 8",
    ".popsection",
);

unsafe extern "C" {
    /// glibc's.
    fn __tls_get_addr(reference: *const Reference) -> *mut u8;
}

/// The calling thread's table, or null.
pub(super) fn table() -> *mut usize {
    let table;
    // SAFETY: reads the word defined above.
    unsafe {
        asm!(
            "mov {t}, qword ptr [rip + hotbed_loader_tls_table@gottpoff]",
            "mov {t}, qword ptr fs:[{t}]",
            t = out(reg) table,
            options(nostack, readonly, preserves_flags),
        );
    }
    table
}

/// Replaces the calling thread's table.
pub(super) fn set_table(table: *mut usize) {
    // SAFETY: writes the word defined above.
    unsafe {
        asm!(
            "mov {t}, qword ptr [rip + hotbed_loader_tls_table@gottpoff]",
            "mov qword ptr fs:[{t}], {v}",
            t = out(reg) _,
            v = in(reg) table,
            options(nostack, preserves_flags),
        );
    }
}

/// What images get for `__tls_get_addr`.
///
/// # Safety
/// `reference` points to a reference to a module of ours that is loaded, or of glibc's.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn tls_get_addr(reference: *const Reference) -> *mut u8 {
    naked_asm!(
        "mov rax, qword ptr [rdi]",
        "btr rax, 63",
        "jnc 3f",
        "mov rcx, qword ptr [rip + hotbed_loader_tls_table@gottpoff]",
        "mov rcx, qword ptr fs:[rcx]",
        "test rcx, rcx",
        "jz 2f",
        "cmp rax, qword ptr [rcx]",
        "jae 2f",
        "mov rax, qword ptr [rcx + 8*rax + 8]",
        "test rax, rax",
        "jz 2f",
        "add rax, qword ptr [rdi + 8]",
        "ret",
        // Some compilers call this with a stack that is not aligned.
        "2:",
        "push rbp",
        "mov rbp, rsp",
        "and rsp, -16",
        "call {first_use}",
        "leave",
        "ret",
        "3:",
        "jmp qword ptr [rip + {glibc}@GOTPCREL]",
        first_use = sym first_use,
        glibc = sym __tls_get_addr,
    )
}

/// What a TLS descriptor calls: its second word points to a [`Reference`]. Returns the distance from the thread
/// pointer to the variable in `rax` and leaves every other register as it was.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn descriptor() {
    naked_asm!(
        "mov rax, qword ptr [rax + 8]",
        "push rcx",
        "push rdx",
        "mov rdx, qword ptr [rax]",
        "btr rdx, 63",
        "jnc 2f",
        "mov rcx, qword ptr [rip + hotbed_loader_tls_table@gottpoff]",
        "mov rcx, qword ptr fs:[rcx]",
        "test rcx, rcx",
        "jz 2f",
        "cmp rdx, qword ptr [rcx]",
        "jae 2f",
        "mov rcx, qword ptr [rcx + 8*rdx + 8]",
        "test rcx, rcx",
        "jz 2f",
        "mov rax, qword ptr [rax + 8]",
        "add rax, rcx",
        "sub rax, qword ptr fs:[0]",
        "pop rdx",
        "pop rcx",
        "ret",
        "2:",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push rbp",
        "mov rbp, rsp",
        "mov rdi, rax",
        save_state!(),
        "call {get_addr}",
        "mov rcx, rax",
        restore_state!(),
        "mov rax, rcx",
        "sub rax, qword ptr fs:[0]",
        "mov rsp, rbp",
        "pop rbp",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "ret",
        state_bytes = sym STATE_BYTES,
        get_addr = sym tls_get_addr,
    )
}

/// What the descriptor of an undefined weak variable calls: its second word is the address to appear at.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn undefined_descriptor() {
    naked_asm!("mov rax, qword ptr [rax + 8]", "sub rax, qword ptr fs:[0]", "ret")
}

/// What the descriptor of a variable at a fixed distance from the thread pointer calls.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn fixed_descriptor() {
    naked_asm!("mov rax, qword ptr [rax + 8]", "ret")
}

/// The distance from the thread pointer to the block of a module of glibc's that is at a fixed one.
pub(crate) fn fixed_distance(module: usize) -> usize {
    let pointer: usize;
    // SAFETY: the module is loaded; the word at the thread pointer is the thread pointer.
    unsafe {
        let block = __tls_get_addr(&Reference { module, offset: 0 }) as usize;
        asm!("mov {}, qword ptr fs:[0]", out(reg) pointer, options(nostack, readonly, preserves_flags));
        block.wrapping_sub(pointer)
    }
}

unsafe extern "C" fn first_use(reference: *const Reference) -> *mut u8 {
    // SAFETY: the caller's promise.
    let Reference { module, offset } = unsafe { *reference };
    make_block(module & !OURS).wrapping_add(offset) as *mut u8
}
