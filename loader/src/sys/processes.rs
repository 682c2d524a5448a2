//! Processes that are nobody's children, for workers.
//!
//! The program that runs in this process may call `wait` and must never be given a process it did not make, nor a
//! `SIGCHLD` for one. So a worker is made by two steps: a first child that ends without a signal (its exit signal is 0, so
//! that only a wait with `__WCLONE` sees it), and its child, which executes the worker and is handed over to the
//! system's reaper. Both steps share the memory of this process (`CLONE_VM | CLONE_VFORK`), so that they cost
//! the same in a large host as in a small one; they run on stacks of their own, with every signal blocked, and make
//! nothing but system calls.

use super::signals::SignalMask;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// What to start, and with what.
#[derive(Debug)]
pub struct Detached<'a> {
    /// The executable.
    pub program: &'a Path,
    /// Its arguments, from `argv[0]` on.
    pub arguments: &'a [&'a Path],
    /// What becomes descriptor 3.
    pub channel: BorrowedFd<'a>,
    /// What becomes standard output and standard error; standard input is `/dev/null`.
    pub output: BorrowedFd<'a>,
    /// How many bytes of private memory it may write to.
    pub memory_limit: Option<u64>,
}

/// A process that is not our child.
#[derive(Debug)]
pub struct DetachedProcess {
    id: i32,
    handle: Option<OwnedFd>,
}

/// The number of the descriptor that [`Detached::channel`] becomes.
pub const CHANNEL_DESCRIPTOR: i32 = 3;

/// Bytes of each of the two stacks.
const STACK_BYTES: usize = 64 * 1024;

/// What the two steps need; everything is made before the first.
struct Plan {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    null: c_int,
    channel: c_int,
    output: c_int,
    limit: Option<libc::rlimit>,
    second_stack: *mut c_void,
    process: c_int,
    error: c_int,
}

/// Starts a process that is nobody's child; every signal is blocked in it. All other descriptors are closed in it.
///
/// # Errors
/// What the system says, also when the program cannot be executed.
pub fn spawn_detached(what: &Detached<'_>) -> io::Result<DetachedProcess> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
    let program = text(what.program)?;
    let arguments = what.arguments.iter().map(|a| text(a)).collect::<io::Result<Vec<_>>>()?;
    let mut argument_pointers: Vec<*const c_char> = arguments.iter().map(|a| a.as_ptr()).collect();
    argument_pointers.push(ptr::null());

    // Out of the way of descriptors 0 to 3, which one of them may be when the host has closed its own.
    let null = std::fs::File::open("/dev/null")?;
    let null = above_standard(null.as_raw_fd())?;
    let channel = above_standard(what.channel.as_raw_fd())?;
    let output = above_standard(what.output.as_raw_fd())?;

    let mut stacks = vec![0u128; 2 * STACK_BYTES / 16];
    let middle = stacks.as_mut_ptr().wrapping_add(STACK_BYTES / 16);
    let end = stacks.as_mut_ptr().wrapping_add(2 * STACK_BYTES / 16);
    let mut plan = Plan {
        program: program.as_ptr(),
        arguments: argument_pointers.as_ptr(),
        // SAFETY: reading the pointer; that nobody changes the environment meanwhile is what every exec relies on.
        environment: unsafe { libc::environ }.cast_const().cast(),
        null: null.as_raw_fd(),
        channel: channel.as_raw_fd(),
        output: output.as_raw_fd(),
        limit: what.memory_limit.map(|bytes| libc::rlimit { rlim_cur: bytes, rlim_max: bytes }),
        second_stack: middle.cast(),
        process: 0,
        error: 0,
    };

    let mask = SignalMask::block_all();
    // SAFETY: `first_step` only makes system calls; it runs on a stack of its own that, like the plan, lives until the call
    // returns, which is after the child has ended (CLONE_VFORK).
    let child = unsafe {
        libc::clone(first_step, end.cast(), libc::CLONE_VM | libc::CLONE_VFORK, (&raw mut plan).cast())
    };
    let failed = (child < 0).then(io::Error::last_os_error);
    if child > 0 {
        let mut status = 0;
        // SAFETY: waits for the one child made above, which has ended. Another wait of the host may have been faster.
        while unsafe { libc::waitpid(child, &raw mut status, libc::__WCLONE) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    drop(mask);
    drop(stacks);
    if let Some(error) = failed {
        return Err(error);
    }
    // SAFETY: the plan is ours again; it was written to behind the compiler's back.
    let (process, error) =
        unsafe { ((&raw const plan.process).read_volatile(), (&raw const plan.error).read_volatile()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: pidfd_open takes two integers; a system that does not know it says so.
    let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let handle = i32::try_from(handle).ok().filter(|fd| *fd >= 0);
    // SAFETY: the descriptor is new and nobody else's.
    let handle = handle.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(DetachedProcess { id: process, handle })
}

impl DetachedProcess {
    /// Its process id.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Ends it at once. Does nothing when it has ended.
    pub fn kill(&self) {
        // SAFETY: both calls take plain integers. The handle can only mean the process it was opened for; without handles
        // (before Linux 5.3) the id is all there is.
        unsafe {
            match &self.handle {
                Some(handle) => {
                    let no_info = ptr::null::<c_void>();
                    libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), libc::SIGKILL, no_info, 0);
                }
                None => {
                    libc::kill(self.id, libc::SIGKILL);
                }
            }
        }
    }
}

/// Runs in the first child: makes the second and ends.
extern "C" fn first_step(plan: *mut c_void) -> c_int {
    let plan = plan.cast::<Plan>();
    // SAFETY: the plan outlives both children, and only one of the three threads that know it runs at a time. The second
    // child's stack is not in use.
    unsafe {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let child = libc::clone(second_step, (*plan).second_stack, flags, plan.cast());
        if child < 0 {
            (*plan).error = *libc::__errno_location();
        }
        (*plan).process = child;
        libc::_exit(0)
    }
}

/// Runs in the second child: becomes the program, or says why not.
extern "C" fn second_step(plan: *mut c_void) -> c_int {
    // SAFETY: as above; the pointers in the plan are zero-terminated strings and null-terminated lists of them.
    unsafe {
        let plan = &mut *plan.cast::<Plan>();
        let moved = libc::dup2(plan.null, 0) >= 0
            && libc::dup2(plan.output, 1) >= 0
            && libc::dup2(plan.output, 2) >= 0
            && libc::dup2(plan.channel, CHANNEL_DESCRIPTOR) >= 0;
        // A session of its own: keys typed at the host's terminal are the host's. It fails for a leader, which this is not.
        libc::setsid();
        // Not there before Linux 5.9: then descriptors that the host leaves open on exec stay open.
        libc::syscall(libc::SYS_close_range, CHANNEL_DESCRIPTOR + 1, u32::MAX, 0);
        let limited = match &plan.limit {
            Some(limit) => libc::setrlimit(libc::RLIMIT_DATA, limit) == 0,
            None => true,
        };
        if moved && limited {
            libc::execve(plan.program, plan.arguments, plan.environment);
        }
        plan.error = *libc::__errno_location();
        libc::_exit(127)
    }
}

fn above_standard(fd: c_int) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and gives a new descriptor that is nobody else's.
    unsafe {
        let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10);
        if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(copy)) }
    }
}

/// Makes a process that [`spawn_detached`] started an ordinary one: no signal is blocked, those that the host ignored
/// have their default action again, and one that ends it because of a fault first writes a line to standard error
/// that names the signal.
pub fn settle_in() {
    // SAFETY: plain settings of this process, which is the worker's own: no other code in it has installed handlers or will
    // be surprised by them. The handler makes nothing but async-signal-safe calls.
    unsafe {
        for signal in 1..32 {
            if signal != libc::SIGKILL && signal != libc::SIGSTOP {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        // On another stack where there is one, for an overflow leaves no room: see `last_words_stack`.
        for (signal, _) in FAULTS {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = last_words as *const () as usize;
            action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND | libc::SA_NODEFER;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Ends this process at once: nothing is flushed, no handler runs.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Gives the calling thread, which should be one that lasts as long as the process, a stack for the handler that
/// [`settle_in`] installs, so that an overflow of its own stack has last words too. The memory is never given back.
pub fn last_words_stack() {
    let stack: &'static mut [u8] = Box::leak(vec![0; 64 * 1024].into_boxed_slice());
    let setting = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the memory is nobody else's and lives for ever.
    unsafe { libc::sigaltstack(&raw const setting, ptr::null_mut()) };
}

/// What [`settle_in`]'s handler writes is this, the signal's name and a line end.
pub const LAST_WORDS: &str = "ended by ";

const FAULTS: [(c_int, &str); 6] = [
    (libc::SIGSEGV, "ended by SIGSEGV\n"),
    (libc::SIGBUS, "ended by SIGBUS\n"),
    (libc::SIGILL, "ended by SIGILL\n"),
    (libc::SIGFPE, "ended by SIGFPE\n"),
    (libc::SIGABRT, "ended by SIGABRT\n"),
    (libc::SIGTRAP, "ended by SIGTRAP\n"),
];

extern "C" fn last_words(signal: c_int) {
    for (known, words) in FAULTS {
        if known == signal {
            // SAFETY: write is async-signal-safe; the words live for ever.
            unsafe { libc::write(2, words.as_ptr().cast(), words.len()) };
        }
    }
    // SAFETY: both are async-signal-safe; the default action is in place again (SA_RESETHAND), so this ends the process.
    unsafe {
        libc::raise(signal);
        libc::_exit(127)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::sys::files;
    use crate::sys::sockets::Channel;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    fn shell(script: &str, memory_limit: Option<u64>) -> (Channel, OwnedFd, DetachedProcess) {
        let (ours, theirs) = Channel::pair().unwrap();
        let output = files::memory_log("output").unwrap();
        let process = spawn_detached(&Detached {
            program: Path::new("/bin/sh"),
            arguments: &[Path::new("sh"), Path::new("-c"), Path::new(script)],
            channel: theirs.as_fd(),
            output: output.as_fd(),
            memory_limit,
        })
        .unwrap();
        (ours, output, process)
    }

    #[test]
    fn a_detached_process_runs_and_is_no_child() {
        let (channel, output, process) = shell(
            "echo $PPID; ls /proc/self/fd | wc -l; ulimit -d; printf '\\2\\0\\0\\0\\0\\0\\0\\0ok' >&3",
            Some(1 << 30),
        );
        let deadline = Some(Instant::now() + Duration::from_secs(20));
        assert_eq!(channel.receive(deadline).unwrap().unwrap().bytes, b"ok");
        let text = String::from_utf8(files::contents(output.as_fd()).unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_ne!(lines[0], std::process::id().to_string(), "our child");
        assert_eq!(lines[1], "5", "0 to 3 and the one ls opens");
        assert_eq!(lines[2], (1u64 << 20).to_string());
        let mut status = 0;
        // SAFETY: a plain call.
        assert_eq!(unsafe { libc::waitpid(process.id(), &raw mut status, libc::WNOHANG | libc::__WALL) }, -1);
    }

    #[test]
    fn it_can_be_killed() {
        let (channel, _output, process) = shell("read never <&3", None);
        process.kill();
        let deadline = Some(Instant::now() + Duration::from_secs(20));
        assert!(channel.receive(deadline).unwrap().is_none());
        process.kill();
    }

    #[test]
    fn what_cannot_be_executed_is_an_error() {
        let (_ours, theirs) = Channel::pair().unwrap();
        let output = files::memory_log("output").unwrap();
        let error = spawn_detached(&Detached {
            program: Path::new("/nowhere/at/all"),
            arguments: &[],
            channel: theirs.as_fd(),
            output: output.as_fd(),
            memory_limit: None,
        })
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
