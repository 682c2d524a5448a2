//! Stand-ins: functions that units get instead of the process's own, because those know nothing of images.
//!
//! Which name stands for which function is data: [`find`]. A name that the host or a unit defines itself stays theirs;
//! only what would have been the process's answer is replaced ([`instead_of_process`]), but for the two functions of
//! thread-local storage, without which an image cannot run ([`always`]).
//!
//! What a stand-in has nothing to say about it hands on to glibc. Some answers depend on who asks, which glibc finds out
//! from the return address; so do these: their entries pass it on (`caller`).

mod address;
mod errors;
mod handlers;
mod handles;
mod list;
mod lookup;
mod open;
mod shown;
mod traces;

pub(crate) use handles::{Special, abandon};
pub(crate) use shown::Shown;

use crate::image::symbols::Name;
use crate::image::tls::ends::thread_atexit;
use crate::image::tls::entry::tls_get_addr;
use crate::image::unwind;

/// A name, and what gives the address of what units get for it.
struct StandIn {
    name: Name<'static>,
    function: fn() -> usize,
}

/// Makes a line of the table.
macro_rules! stand_in {
    ($name:literal, $function:path) => {
        StandIn { name: Name::new($name), function: || $function as *const () as usize }
    };
}

/// Needed by every image that has thread-local variables.
static ALWAYS: [StandIn; 3] = [
    stand_in!(b"__tls_get_addr", tls_get_addr),
    stand_in!(b"__cxa_thread_atexit", thread_atexit),
    stand_in!(b"__cxa_thread_atexit_impl", thread_atexit),
];

/// What is said about loaded code, so that images are part of it; and what is told which functions to call where nothing can be waited for.
static INSTEAD_OF_PROCESS: [StandIn; 19] = [
    stand_in!(b"dladdr", address::dladdr),
    stand_in!(b"dladdr1", address::dladdr1),
    stand_in!(b"dlsym", lookup::dlsym),
    stand_in!(b"dlvsym", lookup::dlvsym),
    stand_in!(b"dlopen", open::dlopen),
    stand_in!(b"dlclose", open::dlclose),
    stand_in!(b"dlinfo", open::dlinfo),
    stand_in!(b"dlerror", errors::dlerror),
    stand_in!(b"dl_iterate_phdr", list::dl_iterate_phdr),
    stand_in!(b"_dl_find_object", unwind::find_object),
    stand_in!(b"backtrace_symbols", traces::backtrace_symbols),
    stand_in!(b"backtrace_symbols_fd", traces::backtrace_symbols_fd),
    stand_in!(b"signal", handlers::signal),
    stand_in!(b"bsd_signal", handlers::signal),
    stand_in!(b"ssignal", handlers::signal),
    stand_in!(b"__sysv_signal", handlers::sysv_signal),
    stand_in!(b"sigset", handlers::sigset),
    stand_in!(b"sigaction", handlers::sigaction),
    stand_in!(b"__register_atfork", handlers::register_atfork),
];

/// What ends threads or looks at callers by an unwinder that glibc opens for it, where it is not there yet.
static UNWINDING: [Name<'_>; 4] = [
    Name::new(b"backtrace"),
    Name::new(b"pthread_cancel"),
    Name::new(b"pthread_exit"),
    Name::new(b"thrd_exit"),
];

/// Words of [`HASHES`]: so many that hardly any other name has a bit in it, as those cost a look at their text.
const WORDS: usize = 64;

/// A bit for each remainder that the hash of one of those names leaves.
static HASHES: [u64; WORDS] = {
    const fn set(bits: &mut [u64; WORDS], name: &Name<'_>) {
        let hash = name.hash as usize;
        bits[hash / 64 % WORDS] |= 1 << (hash % 64);
    }
    const fn set_all(bits: &mut [u64; WORDS], mut stand_ins: &[StandIn]) {
        while let [first, rest @ ..] = stand_ins {
            set(bits, &first.name);
            stand_ins = rest;
        }
    }
    let mut bits = [0; WORDS];
    set_all(&mut bits, &ALWAYS);
    set_all(&mut bits, &INSTEAD_OF_PROCESS);
    let mut names: &[Name<'_>] = &UNWINDING;
    while let [first, rest @ ..] = names {
        set(&mut bits, first);
        names = rest;
    }
    bits
};

/// Whether there may be something to do about a name with this hash: a quick no.
#[inline]
pub(crate) fn may_be(hash: u32) -> bool {
    HASHES[hash as usize / 64 % WORDS] >> (hash % 64) & 1 != 0
}

fn find(table: &[StandIn], name: Name<'_>) -> Option<usize> {
    if !may_be(name.hash) {
        return None;
    }
    let is_it = |known: &&StandIn| known.name.hash == name.hash && known.name.bytes == name.bytes;
    table.iter().find(is_it).map(|stand_in| (stand_in.function)())
}

/// What every image gets for `name`, whoever else has it.
#[inline]
pub(crate) fn always(name: Name<'_>) -> Option<usize> {
    find(&ALWAYS, name)
}

/// Whether `name` registers destructors of thread-local variables.
pub(crate) fn registers_thread_ends(name: &[u8]) -> bool {
    name.starts_with(b"__cxa_thread_atexit")
}

/// Whether the process's function of that name unwinds, so that whoever gets it needs [`crate::image::unwind::bring_in`].
#[inline]
pub(crate) fn unwinds(name: Name<'_>) -> bool {
    may_be(name.hash) && UNWINDING.iter().any(|known| known.hash == name.hash && known.bytes == name.bytes)
}

/// Whether there is a stand-in of that name.
#[inline]
pub(crate) fn is_name(name: Name<'_>) -> bool {
    always(name).is_some() || instead_of_process(name).is_some()
}

/// What an image gets for `name` where the process would answer.
#[inline]
pub(crate) fn instead_of_process(name: Name<'_>) -> Option<usize> {
    find(&INSTEAD_OF_PROCESS, name)
}

#[cfg(test)]
mod tests;
