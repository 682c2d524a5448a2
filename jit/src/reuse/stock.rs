//! What is kept of a compilation so that the next one of the same sources need not generate all code again.
//!
//! The form, in the encoding of [`hotbed_loader::codec`]: a magic text with the version of this form; the build, a text; a list of sources, of
//! each its path, a text, a BLAKE3 hash of the front end's arguments, a list of functions (the name, a byte string, and sixteen bytes, the
//! fingerprint), and the object, a byte string; and a BLAKE3 hash over all that. Whatever else there is means that there is none.

use hotbed_loader::boundary::BUILD;
use hotbed_loader::codec::{CodecError, Reader, Writer};

const MAGIC: &[u8; 8] = b"HotbedF1";
const HASH_BYTES: usize = 32;

/// What code generation sees of a function, as a hash.
pub(crate) type Fingerprint = [u8; 16];

/// What is kept of one source.
pub(crate) struct StockedSource<'a> {
    /// The source, as messages know it.
    pub(crate) path: &'a str,
    /// Of the front end's arguments.
    pub(crate) arguments: [u8; 32],
    pub(crate) functions: Vec<(&'a [u8], Fingerprint)>,
    pub(crate) object: &'a [u8],
}

/// A hash of the front end's arguments.
pub(crate) fn hash_of(arguments: &[String]) -> [u8; 32] {
    let mut w = Writer::new();
    w.list(arguments, |w, argument| w.text(argument));
    *blake3::hash(&w.finish()).as_bytes()
}

/// The sources as bytes.
pub(crate) fn encode(sources: &[StockedSource<'_>]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(MAGIC);
    w.text(BUILD);
    w.list(sources, |w, source| {
        w.text(source.path);
        w.raw(&source.arguments);
        w.list(&source.functions, |w, (name, fingerprint)| {
            w.bytes(name);
            w.raw(fingerprint);
        });
        w.bytes(source.object);
    });
    let mut bytes = w.finish();
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// The sources in `bytes`: none if there is anything wrong with these.
pub(crate) fn decode(bytes: &[u8]) -> Vec<StockedSource<'_>> {
    let parts = bytes.len().checked_sub(HASH_BYTES).and_then(|at| bytes.split_at_checked(at));
    let Some((contents, hash)) = parts else { return Vec::new() };
    if blake3::hash(contents).as_bytes() != hash {
        return Vec::new();
    }
    contents.strip_prefix(MAGIC).and_then(|rest| read(rest).ok()).unwrap_or_default()
}

fn read(bytes: &[u8]) -> Result<Vec<StockedSource<'_>>, CodecError> {
    let mut r = Reader::new(bytes);
    if r.text()? != BUILD {
        return Err(CodecError("of another build"));
    }
    let mut sources = Vec::new();
    for _ in 0..r.u32()? {
        let (path, arguments) = (r.text()?, r.array()?);
        let mut functions = Vec::new();
        for _ in 0..r.u32()? {
            functions.push((r.bytes()?, r.array()?));
        }
        sources.push(StockedSource { path, arguments, functions, object: r.bytes()? });
    }
    if r.rest().is_empty() { Ok(sources) } else { Err(CodecError("something behind the sources")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let functions = vec![(&b"f"[..], [1; 16]), (b"g", [2; 16])];
        encode(&[StockedSource {
            path: "a.c",
            arguments: hash_of(&["-O2".into()]),
            functions,
            object: b"elf",
        }])
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let bytes = sample();
        let sources = decode(&bytes);
        let [source] = &sources[..] else { unreachable!("one source") };
        assert_eq!((source.path, source.object, source.functions.len()), ("a.c", &b"elf"[..], 2));
        assert_eq!(source.arguments, hash_of(&["-O2".into()]));
        assert_ne!(hash_of(&["a".into(), "b".into()]), hash_of(&["ab".into()]));
    }

    #[test]
    fn damage_leaves_nothing() {
        let good = sample();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert!(decode(&bytes).is_empty(), "flipped at {at}");
            assert!(decode(&good[..at]).is_empty(), "cut at {at}");
        }
        // With a hash that is right.
        for end in 8..good.len() - HASH_BYTES {
            let mut bytes = good[..end].to_vec();
            let hash = blake3::hash(&bytes);
            bytes.extend_from_slice(hash.as_bytes());
            assert!(decode(&bytes).is_empty(), "ends at {end}");
        }
    }
}
