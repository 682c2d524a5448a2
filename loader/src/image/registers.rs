//! Registers: keeping all that a call may have arguments in, while something else is done first.
//!
//! The general ones are pushed; x87 and vector registers go to an area below the stack, at the full width that this
//! processor has. What no call passes anything in is left out of it (AMX tiles alone would be eight kilobytes of a stack that may be small).

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::atomic::{AtomicUsize, Ordering};

/// x87, the three parts of vector registers, their masks: what `XSAVE` calls its components 0, 1, 2, 5, 6 and 7. The same number is
/// in the instructions below.
const COMPONENTS: u32 = 0xe7;

/// Instructions that save all vector and x87 registers below the stack, where they find `STATE_BYTES` under the name
/// `state_bytes`; `rax` and `rdx` are lost.
macro_rules! save_state {
    () => {
        concat!(
            "sub rsp, qword ptr [rip + {state_bytes}]\n",
            "and rsp, -64\n",
            // The header of the area must be zero before the first use.
            "xor eax, eax\n",
            "mov qword ptr [rsp + 512], rax\n",
            "mov qword ptr [rsp + 520], rax\n",
            "mov qword ptr [rsp + 528], rax\n",
            "mov qword ptr [rsp + 536], rax\n",
            "mov qword ptr [rsp + 544], rax\n",
            "mov qword ptr [rsp + 552], rax\n",
            "mov qword ptr [rsp + 560], rax\n",
            "mov qword ptr [rsp + 568], rax\n",
            "mov eax, 0xe7\n",
            "xor edx, edx\n",
            "xsave [rsp]\n",
        )
    };
}

/// Instructions that restore what [`save_state`] has saved, with `rsp` as that has left it; `rax` and `rdx` are lost.
macro_rules! restore_state {
    () => {
        concat!("mov eax, 0xe7\n", "xor edx, edx\n", "xrstor [rsp]\n")
    };
}

/// The whole of a function that finds out where a call leads. On the stack it has two words, which it gives to `find`, and
/// below them where the called function will return to; it goes on at the address that `find` gives, with every argument
/// where it was and the two words gone.
macro_rules! first_call {
    () => {
        concat!(
            "push rbp\n",
            "mov rbp, rsp\n",
            "push rax\n",
            "push rcx\n",
            "push rdx\n",
            "push rsi\n",
            "push rdi\n",
            "push r8\n",
            "push r9\n",
            "push r10\n",
            $crate::image::registers::save_state!(),
            "mov rdi, qword ptr [rbp + 8]\n",
            "mov rsi, qword ptr [rbp + 16]\n",
            "call {find}\n",
            "mov r11, rax\n",
            $crate::image::registers::restore_state!(),
            "lea rsp, [rbp - 64]\n",
            "pop r10\n",
            "pop r9\n",
            "pop r8\n",
            "pop rdi\n",
            "pop rsi\n",
            "pop rdx\n",
            "pop rcx\n",
            "pop rax\n",
            "pop rbp\n",
            "lea rsp, [rsp + 16]\n",
            "jmp r11\n",
        )
    };
}

pub(crate) use {first_call, restore_state, save_state};

/// Bytes that `XSAVE` writes for what is saved here.
pub(crate) static STATE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Makes ready what is above; false on a processor without `XSAVE`.
pub(crate) fn prepare() -> bool {
    if STATE_BYTES.load(Ordering::Relaxed) == 0 {
        // Bit 27: the system has enabled XSAVE.
        if __cpuid(1).ecx & (1 << 27) == 0 {
            return false;
        }
        STATE_BYTES.store(state_bytes() as usize, Ordering::Relaxed);
    }
    true
}

/// Where the last component ends that the processor has. The old area for x87 and SSE and the header are always there.
fn state_bytes() -> u32 {
    const LEAST: u32 = 512 + 64;
    let present = __cpuid_count(13, 0).eax & COMPONENTS;
    let ends = (2..8).filter(|component| present >> component & 1 != 0).map(|component| {
        let said = __cpuid_count(13, component);
        said.ebx + said.eax
    });
    ends.fold(LEAST, u32::max)
}
