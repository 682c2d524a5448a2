//! Starting a program inside this process as if it had been exec'd: its arguments, its names, and the call of its
//! entry from which nothing returns and past which nothing unwinds.

use super::arguments::ProgramArguments;
use std::ffi::{CStr, c_char, c_int, c_void};

unsafe extern "C" {
    static mut program_invocation_name: *const c_char;
    static mut program_invocation_short_name: *const c_char;
}

/// The arguments that the kernel handed to this process, `argv[0]` included.
///
/// # Safety
/// `argc` and `argv` are those of the process's own `main`: the strings are never moved or freed.
pub unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<&'static CStr> {
    (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: the contract above: `argv` has `argc` strings, which live as long as the process.
        .map(|i| unsafe { CStr::from_ptr(*argv.add(i)) })
        .collect()
}

/// Lets the process go by the name of `path`: `program_invocation_name`, `program_invocation_short_name` (what comes
/// after the last slash) and the kernel's name of the calling thread. To be called by the main thread while it is the
/// only one that may look.
pub fn take_name(path: &'static CStr) {
    let bytes = path.to_bytes_with_nul();
    let base = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let short = bytes[base..].as_ptr().cast::<c_char>();
    // SAFETY: both strings end in a zero and are never freed (`'static`); glibc only reads through the two words, and
    // `prctl` copies at most sixteen bytes of the string.
    unsafe {
        program_invocation_name = path.as_ptr();
        program_invocation_short_name = short;
        libc::prctl(libc::PR_SET_NAME, short);
    }
}

/// Has `action` called when the process exits, after everything that is registered later. Says whether there was room.
pub fn at_exit(action: extern "C" fn()) -> bool {
    // SAFETY: `action` is a function of this executable, which is never unloaded.
    unsafe { libc::atexit(action) == 0 }
}

/// The kernel's id of this process.
pub fn process_id() -> i32 {
    // SAFETY: `getpid` has no preconditions.
    unsafe { libc::getpid() }
}

/// Calls the program's entry on this thread's stack and leaves the process with what it returns. No frame of the caller
/// is ever returned to or unwound.
///
/// # Safety
/// `entry` is the address of a function that may be called as `int entry(int, char **, char **)`, and the arguments stay
/// where they are as long as the process lives.
pub unsafe fn enter(entry: usize, arguments: ProgramArguments) -> ! {
    let ProgramArguments { count, values, .. } = arguments;
    // SAFETY: the contract above, passed on.
    unsafe { call_and_exit(entry as *const c_void, count, values, arguments.environment()) }
}

/// Calls `entry` with an aligned stack and hands its result to `exit`.
///
/// The undefined return address tells every unwinder that the stack ends here, as it does in `_start`: an exception
/// that nobody catches terminates the program with its frames intact, and `pthread_exit` finds the end it looks for.
#[unsafe(naked)]
unsafe extern "C" fn call_and_exit(
    entry: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> ! {
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "xor ebp, ebp",
        "mov rax, rdi",
        "mov edi, esi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "and rsp, -16",
        "call rax",
        "mov edi, eax",
        "call {exit}",
        "ud2",
        ".cfi_endproc",
        exit = sym libc::exit,
    )
}
