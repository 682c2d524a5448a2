//! Functions one by one: what a back end offers for lazy images, and what it asks of the host meanwhile.
//!
//! The same three traits stand on both sides of a plugin: there they become the functions of [`super::BackEndTable`] and
//! of [`RawOthers`].

use super::{Failure, FreshArea, RawBytes};
use crate::codec::{CodecError, Reader, Writer};
use std::any::Any;
use std::ffi::c_void;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FreshDefinition {
    /// Its address.
    pub address: usize,
    /// Whether it is a function.
    pub function: bool,
}

/// A function's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Body {
    /// The function's slot, counted from zero.
    pub slot: u32,
    /// Where the body is.
    pub address: usize,
    /// What compiling and linking it took, in nanoseconds; of what several functions took together, a share by their size.
    pub nanoseconds: u64,
    /// A hash of what the function says, the same in every process; only where functions are compiled one by one.
    pub content: Option<[u8; 32]>,
}

/// What became of functions that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompiledFunctions {
    /// The bodies of all that were compiled, and of the one that was asked for.
    pub bodies: Vec<Body>,
    /// Slots of functions that these call by name and that had no body, in the order of the calls: they are likely to be wanted
    /// next. There may be more.
    pub calls: Vec<u32>,
}

/// Who knows what images cannot say of themselves: the host.
pub trait Others: Send + Sync {
    /// What a relocation of that image against `name` gets: of what the image leaves undefined, and of weak symbols, which
    /// have one address in the process. Bodies may also refer to what no relocation of their image does (`memcpy`). It
    /// holds as long as the image.
    fn find(&self, image: u64, name: &str) -> Option<FreshDefinition>;

    /// Makes an area in which bodies are linked known to unwinders, as long as the result lives. `None` if they cannot be
    /// led to it; then every link's tables are registered.
    fn make_known(&self, area: &FreshArea) -> Option<Box<dyn Any + Send + Sync>>;
}

/// Compiles for all lazy images of a host. It lives as long as something of them may run.
pub trait FunctionCompiler: Send + Sync {
    /// Opens the lazy image in `file`, which others know by the number `image`; it is mapped `distance` bytes behind the
    /// addresses it was linked for. With `alone` nothing is compiled together and nothing inlined that need not be: every call of
    /// a function goes through its slot.
    ///
    /// # Errors
    /// When it is no lazy image, or has lost its table of symbols.
    fn open(&self, image: u64, file: &[u8], distance: usize, alone: bool)
    -> Result<Box<dyn Bodies>, Failure>;
}

/// The functions of a mapped lazy image; dropped, what was compiled is gone, when nobody uses it any more.
///
/// Compiling needs a deep stack: the caller gives its threads 64 MiB, and blocks every signal in them. Several may compile
/// at once.
pub trait Bodies: Send + Sync {
    /// Compiles a function if it is not, or waits for whoever does; what it reaches by direct calls within its image too, if
    /// it shall be `deep`. The bodies of all functions that were compiled with it come with its own.
    ///
    /// # Errors
    /// When there is no such function, it does not compile, or refers to what nobody has. It can be tried again.
    fn compile(&self, slot: u32, deep: bool) -> Result<CompiledFunctions, Failure>;

    /// What was compiled so far, for [`BackEnd::keep`](super::BackEnd::keep); the back end's business.
    fn kept(&self) -> Vec<u8>;
}

/// [`Others`] as a plugin is given them. The functions may be called by any thread and never unwind.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RawOthers {
    /// Whose they are; valid as long as the compiler that has them.
    pub owner: *const c_void,
    /// See [`Others::find`]; writes to `definition` if it gives true. The name is UTF-8.
    pub find: unsafe extern "C" fn(
        owner: *const c_void,
        image: u64,
        name: RawBytes,
        definition: *mut FreshDefinition,
    ) -> bool,
    /// See [`Others::make_known`]; null if they cannot be led to it.
    pub make_known: unsafe extern "C" fn(owner: *const c_void, area: *const FreshArea) -> *mut c_void,
    /// Ends what `make_known` gave.
    pub forget: unsafe extern "C" fn(known: *mut c_void),
}

// SAFETY: the functions may be called by any thread, with the owner that they were given with.
unsafe impl Send for RawOthers {}
// SAFETY: as above.
unsafe impl Sync for RawOthers {}

/// Encodes what became of an operation, with what it gave.
pub fn encode_outcome(outcome: &Result<CompiledFunctions, Failure>) -> Vec<u8> {
    let mut w = Writer::new();
    match outcome {
        Ok(CompiledFunctions { bodies, calls }) => {
            w.u8(0);
            w.list(bodies, |w, body| {
                // Taken apart, so that a new field cannot be forgotten here.
                let Body { slot, address, nanoseconds, content } = *body;
                w.u32(slot);
                w.u64(address as u64);
                w.u64(nanoseconds);
                w.option(content.as_ref(), |w, content| w.raw(content));
            });
            w.list(calls, |w, slot| w.u32(*slot));
        }
        Err(failure) => {
            w.u8(1);
            failure.write(&mut w);
        }
    }
    w.finish()
}

/// Decodes it.
///
/// # Errors
/// When the bytes are not what [`encode_outcome`] makes.
pub fn decode_outcome(bytes: &[u8]) -> Result<Result<CompiledFunctions, Failure>, CodecError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        0 => {
            let body = |r: &mut Reader<'_>| {
                Ok(Body {
                    slot: r.u32()?,
                    address: r.u64()? as usize,
                    nanoseconds: r.u64()?,
                    content: r.option(|r| r.array())?,
                })
            };
            Ok(Ok(CompiledFunctions { bodies: r.list(body)?, calls: r.list(|r| r.u32())? }))
        }
        1 => Ok(Err(Failure::read(&mut r)?)),
        _ => Err(CodecError("neither bodies nor a failure")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::FailureKind;
    use super::*;

    #[test]
    fn outcomes_cross_the_boundary() {
        let outcomes = [
            Ok(CompiledFunctions {
                bodies: vec![
                    Body { slot: 7, address: 0x7fff_1234_5678, nanoseconds: 1 << 40, content: None },
                    Body { slot: 0, address: 1, nanoseconds: 0, content: Some([7; 32]) },
                ],
                calls: vec![3, 1 << 31],
            }),
            Ok(CompiledFunctions::default()),
            Err(Failure::new(FailureKind::Compile, "cannot compile it".to_owned())),
        ];
        for outcome in outcomes {
            let bytes = encode_outcome(&outcome);
            assert_eq!(decode_outcome(&bytes).unwrap(), outcome);
            assert!((0..bytes.len()).all(|length| decode_outcome(&bytes[..length]).is_err()));
        }
    }
}
