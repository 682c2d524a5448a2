//! The plugin's one export: the table of functions through which a host reaches the back end.

use crate::InProcess;
use hotbed_loader::boundary::{self, BackEnd, BackEndTable, Failure, FailureKind, RawReply, Request};
use std::os::fd::IntoRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

static TABLE: BackEndTable = BackEndTable {
    size: size_of::<BackEndTable>(),
    build: boundary::BUILD_ZERO_TERMINATED.as_ptr(),
    compile,
    release,
};

/// The plugin's table (see [`boundary::TABLE_SYMBOL`]).
#[unsafe(no_mangle)]
pub extern "C" fn hotbed_back_end() -> *const BackEndTable {
    &raw const TABLE
}

unsafe extern "C" fn compile(request: *const u8, length: usize) -> RawReply {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the host gives `length` readable bytes that stay put during the call.
        let bytes = unsafe { std::slice::from_raw_parts(request, length) };
        let request = Request::decode(bytes).map_err(|error| {
            Failure::new(FailureKind::Internal, format!("cannot read the request: {error}"))
        })?;
        InProcess::new().compile(&request)
    }));
    let answer = outcome.unwrap_or_else(|_| {
        Err(Failure::new(FailureKind::Internal, "the back end panicked; this is a defect of Hotbed"))
    });
    let (answer, image) = match answer {
        Ok((reply, image)) => (Ok(reply), image.into_raw_fd()),
        Err(failure) => (Err(failure), -1),
    };
    let mut bytes = std::mem::ManuallyDrop::new(boundary::encode_answer(&answer));
    RawReply { bytes: bytes.as_mut_ptr(), length: bytes.len(), capacity: bytes.capacity(), image }
}

unsafe extern "C" fn release(reply: RawReply) {
    // SAFETY: the three values are those of the vector that `compile` let go of, and the host releases it once.
    drop(unsafe { Vec::from_raw_parts(reply.bytes, reply.length, reply.capacity) });
}
