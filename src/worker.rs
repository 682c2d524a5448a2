//! The worker's side: what the `hotbed worker` process does.
//!
//! It is told which plugin to open, then answers requests until the host closes its end of the socket. A thread watches for
//! that, so that the process ends at once even in the middle of a compilation that nobody waits for any more.

use crate::back_end::{COMPILE_STACK, open_back_end};
use hotbed_loader::boundary::{BackEnd, Failure, FailureKind, Request, encode_answer};
use hotbed_loader::sys::processes::{exit_now, last_words_stack, settle_in};
use hotbed_loader::sys::sockets::Channel;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Builder;

/// Serves the host at the other end of the socket `descriptor`, until it closes it.
///
/// To be called once, by a process that does nothing else: it changes signal handlers, the working directory and the
/// environment.
///
/// # Errors
/// When the socket is none, or breaks.
pub fn serve(descriptor: i32) -> io::Result<()> {
    if descriptor < 3 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the descriptor of a socket"));
    }
    settle_in();
    // SAFETY: the host put the socket there for us, and nothing else in this process knows of it.
    let channel = Arc::new(Channel::from_socket(unsafe { OwnedFd::from_raw_fd(descriptor) }));
    let watched = Arc::clone(&channel);
    Builder::new().name("hotbed-watch".into()).stack_size(64 << 10).spawn(move || {
        watched.wait_for_hang_up();
        exit_now(0)
    })?;
    on_compile_stack(move || answer_all(&channel))
}

/// Does the work of a process that does nothing else, on a stack that is deep enough for a compiler.
pub(crate) fn on_compile_stack(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let work = move || {
        last_words_stack();
        work()
    };
    let thread = Builder::new().name("hotbed-compile".into()).stack_size(COMPILE_STACK).spawn(work)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that compiles panicked")))
}

fn answer_all(channel: &Channel) -> io::Result<()> {
    let Some(first) = channel.receive(None)? else { return Ok(()) };
    let plugin =
        PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(first.bytes));
    let plugin = (!plugin.as_os_str().is_empty()).then_some(plugin);
    let mut back_end = None;
    while let Some(frame) = channel.receive(None)? {
        let answer = Request::decode(&frame.bytes)
            .map_err(|e| {
                Failure::new(FailureKind::Internal, format!("the host's request makes no sense: {e}"))
            })
            .and_then(|request| answer(&mut back_end, plugin.as_deref(), &request));
        match answer {
            Ok((reply, image)) => channel.send(&encode_answer(&Ok(reply)), Some(image.as_fd()), None)?,
            Err(failure) => channel.send(&encode_answer(&Err(failure)), None, None)?,
        }
    }
    Ok(())
}

/// Brings this process to where a request is about.
pub(crate) fn settle_for(request: &Request) -> Result<(), Failure> {
    std::env::set_current_dir(&request.directory).map_err(|e| {
        let directory = request.directory.display();
        Failure::new(FailureKind::Read, format!("cannot compile {} in {directory}: {e}", request.unit))
    })?;
    for name in Request::ENVIRONMENT {
        let value = request.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        // SAFETY: no other thread of this process touches the environment: one may watch a socket, one waits for this
        // one, and a back end's threads are gone when it has answered.
        unsafe {
            match value {
                Some(value) => std::env::set_var(name, value),
                None => std::env::remove_var(name),
            }
        }
    }
    Ok(())
}

fn answer(
    back_end: &mut Option<Arc<dyn BackEnd>>,
    plugin: Option<&Path>,
    request: &Request,
) -> Result<(hotbed_loader::boundary::Reply, OwnedFd), Failure> {
    settle_for(request)?;
    let back_end = match back_end {
        Some(back_end) => back_end,
        None => back_end.insert(open_back_end(plugin).map_err(|reason| {
            let message = format!("no back end to compile {} with: {reason}", request.unit);
            Failure::new(FailureKind::Internal, message)
        })?),
    };
    back_end.compile(request)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

    /// The worker process of the back end's tests, which run this very executable for it; otherwise nothing.
    #[test]
    fn serve_when_asked() {
        if std::env::var_os("HOTBED_TEST_WORKER").is_some() {
            super::serve(3).unwrap();
        }
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        assert!(super::serve(1).is_err());
    }
}
