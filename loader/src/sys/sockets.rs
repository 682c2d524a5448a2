//! Frames over a pair of connected sockets: byte strings that may carry one descriptor each.
//!
//! A frame is its length as eight bytes, little-endian, and that many bytes; a descriptor travels with the first
//! byte. The other side is not trusted: a length makes no memory until bytes arrive, and waiting has a deadline.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;

/// One end of a pair of connected sockets. Closed when dropped, and on exec.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// A byte string and the descriptor that came with it.
#[derive(Debug)]
pub struct Frame {
    /// The byte string.
    pub bytes: Vec<u8>,
    /// The descriptor, closed on exec.
    pub file: Option<OwnedFd>,
}

/// Room for one descriptor beside a message, aligned as the system wants it.
#[repr(C, align(8))]
struct ControlRoom([u8; CONTROL_BYTES]);

/// What one descriptor takes: a `cmsghdr` of 16 bytes and the descriptor, padded.
const CONTROL_BYTES: usize = 24;

impl Channel {
    /// A new pair.
    ///
    /// # Errors
    /// What the system says.
    pub fn pair() -> io::Result<(Self, Self)> {
        let mut fds = [-1; 2];
        // SAFETY: `fds` has room for the two descriptors.
        if unsafe {
            libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
        } != 0
        {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both descriptors are new and nobody else's.
        let [a, b] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// A channel over a connected socket.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a frame. Nobody is sent `SIGPIPE`.
    ///
    /// # Errors
    /// What the system says; `TimedOut` when the other side does not take it before `deadline`.
    pub fn send(
        &self,
        bytes: &[u8],
        file: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        let length = (bytes.len() as u64).to_le_bytes();
        let mut file = file;
        for mut rest in [&length[..], bytes] {
            while !rest.is_empty() {
                self.wait(libc::POLLOUT, deadline)?;
                match self.send_some(rest, file, deadline.is_some()) {
                    Ok(count) => {
                        rest = &rest[count..];
                        file = None;
                    }
                    Err(e) if is_temporary(&e) => continue,
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// Receives a frame; `None` when the other side has closed its end before the first byte of one.
    ///
    /// # Errors
    /// What the system says; `TimedOut` when it is not complete at `deadline`; `UnexpectedEof` when the other side closed
    /// in the middle of it.
    pub fn receive(&self, deadline: Option<Instant>) -> io::Result<Option<Frame>> {
        let mut file = None;
        let mut length = [0; 8];
        match self.fill(&mut length, &mut file, deadline)? {
            0 => return Ok(None),
            8 => {}
            _ => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
        let length = usize::try_from(u64::from_le_bytes(length))
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let start = bytes.len();
            let step = (length - start).min((start + 1).next_power_of_two().max(1 << 16));
            bytes.try_reserve(step).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            bytes.resize(start + step, 0);
            if self.fill(&mut bytes[start..], &mut file, deadline)? < step {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        Ok(Some(Frame { bytes, file }))
    }

    /// Waits until the other side has closed its end, however much it has sent.
    pub fn wait_for_hang_up(&self) {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
        loop {
            // SAFETY: one pollfd that lives through the call.
            let count = unsafe { libc::poll(&mut poll, 1, -1) };
            let interrupted = count < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            if count > 0 || (count < 0 && !interrupted) {
                return;
            }
        }
    }

    /// Whether the other side has closed its end.
    pub fn is_hung_up(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one pollfd that lives through the call.
        unsafe { libc::poll(&mut poll, 1, 0) != 0 }
    }

    /// Fills `place`, or less when the other side closes; says how much.
    fn fill(
        &self,
        place: &mut [u8],
        file: &mut Option<OwnedFd>,
        deadline: Option<Instant>,
    ) -> io::Result<usize> {
        let mut filled = 0;
        while filled < place.len() {
            self.wait(libc::POLLIN, deadline)?;
            match self.receive_some(&mut place[filled..], file) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if is_temporary(&e) => continue,
                // The other side ended with unread bytes in its buffer.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break,
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn wait(&self, events: i16, deadline: Option<Instant>) -> io::Result<()> {
        let Some(deadline) = deadline else { return Ok(()) };
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events, revents: 0 };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            // A millisecond more, so that the rest of a millisecond is not spent in a tight loop.
            let milliseconds = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
            // SAFETY: one pollfd that lives through the call.
            match unsafe { libc::poll(&mut poll, 1, milliseconds) } {
                0 => {}
                count if count > 0 => return Ok(()),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn send_some(&self, bytes: &[u8], file: Option<BorrowedFd<'_>>, at_once: bool) -> io::Result<usize> {
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut room = ControlRoom([0; CONTROL_BYTES]);
        // SAFETY: all zeros is a valid msghdr.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if let Some(file) = file {
            message.msg_control = room.0.as_mut_ptr().cast();
            message.msg_controllen = CONTROL_BYTES;
            // SAFETY: the control room is aligned and large enough for one header and one descriptor, so CMSG_FIRSTHDR and
            // CMSG_DATA point into it.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
                libc::CMSG_DATA(header).cast::<i32>().write_unaligned(file.as_raw_fd());
            }
        }
        // A blocking send waits until everything is gone, whatever the deadline.
        let flags = libc::MSG_NOSIGNAL | if at_once { libc::MSG_DONTWAIT } else { 0 };
        // SAFETY: the message's parts live through the call.
        let count = unsafe { libc::sendmsg(self.socket.as_raw_fd(), &raw const message, flags) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn receive_some(&self, place: &mut [u8], file: &mut Option<OwnedFd>) -> io::Result<usize> {
        let mut part = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() };
        let mut room = ControlRoom([0; CONTROL_BYTES]);
        // SAFETY: all zeros is a valid msghdr.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = room.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES;
        // SAFETY: the message's parts live through the call.
        let count =
            unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the system has set msg_controllen to what it wrote, so the header, if there is one, is whole; SCM_RIGHTS
        // of one descriptor's length holds a new descriptor that is nobody else's.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            if !header.is_null()
                && (*header).cmsg_level == libc::SOL_SOCKET
                && (*header).cmsg_type == libc::SCM_RIGHTS
                && (*header).cmsg_len >= libc::CMSG_LEN(size_of::<i32>() as u32) as usize
            {
                let fd = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
                *file = Some(OwnedFd::from_raw_fd(fd));
            }
        }
        Ok(count)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::sys::files::{contents, memory_file};
    use std::fs::File;
    use std::io::Write;
    use std::time::Duration;

    #[test]
    fn frames_and_descriptors_arrive() {
        let (a, b) = Channel::pair().unwrap();
        let mut file = File::from(memory_file("sent").unwrap());
        file.write_all(b"in the file").unwrap();
        let large: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
        let sender = std::thread::spawn({
            let large = large.clone();
            move || {
                a.send(b"", None, None).unwrap();
                a.send(&large, Some(file.as_fd()), Some(Instant::now() + Duration::from_secs(20))).unwrap();
            }
        });
        let first = b.receive(None).unwrap().unwrap();
        assert!(first.bytes.is_empty() && first.file.is_none());
        let second = b.receive(Some(Instant::now() + Duration::from_secs(20))).unwrap().unwrap();
        assert_eq!(second.bytes, large);
        assert_eq!(contents(second.file.unwrap().as_fd()).unwrap(), b"in the file");
        sender.join().unwrap();
        assert!(b.receive(None).unwrap().is_none());
    }

    #[test]
    fn silence_and_half_frames_are_errors() {
        let (a, b) = Channel::pair().unwrap();
        assert!(!b.is_hung_up());
        let soon = Some(Instant::now() + Duration::from_millis(30));
        assert_eq!(b.receive(soon).unwrap_err().kind(), io::ErrorKind::TimedOut);
        a.send_some(&u64::MAX.to_le_bytes(), None, false).unwrap();
        a.send_some(b"not that many", None, false).unwrap();
        drop(a);
        assert_eq!(b.receive(None).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        b.wait_for_hang_up();
        assert!(b.is_hung_up());
        assert!(b.send(b"nobody there", None, None).is_err());
    }
}
