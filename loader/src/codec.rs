//! How values become bytes: the one encoding of everything that crosses the plugin boundary, goes to a worker or
//! lies in the store.
//!
//! Little-endian and length-prefixed, without padding: integers as they are, `bool` and variant tags as one byte,
//! byte strings, texts and lists as a `u32` count followed by the contents, options as a presence byte. There is no
//! schema in the bytes; a reader that meets bytes of another version must have been told so before (the boundary
//! compares build identities, the store has a magic number and a checksum). Decoding never panics and never
//! allocates more than the input can hold.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The bytes are not an encoding of the type that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed encoding: {0}")]
pub struct CodecError(pub &'static str);

/// Appends encoded values to a byte vector.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes written so far.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes a byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Writes a `bool` as one byte.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// Writes four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Writes eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Writes eight bytes.
    pub fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Writes a length and that many bytes.
    ///
    /// # Panics
    /// When `value` is longer than 4 GiB.
    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.bytes.extend_from_slice(value);
    }

    /// Writes bytes whose number the reader knows.
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// Writes a text.
    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Writes a path as its bytes.
    pub fn path(&mut self, value: &Path) {
        self.bytes(value.as_os_str().as_bytes());
    }

    /// Writes a list: its length, then each element through `write`.
    pub fn list<T>(&mut self, values: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.count(values.len());
        for value in values {
            write(self, value);
        }
    }

    /// Writes a presence byte and, if there is one, the value through `write`.
    pub fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn count(&mut self, count: usize) {
        let count = u32::try_from(count).expect("more than u32::MAX elements");
        self.u32(count);
    }
}

/// Takes encoded values off a byte slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes `count` bytes.
    ///
    /// # Errors
    /// When fewer are left; so do all the others.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        if count > self.rest.len() {
            return Err(CodecError("cut off"));
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    /// Takes a byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.raw(1)?[0])
    }

    /// Takes a `bool`.
    pub fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError("neither true nor false")),
        }
    }

    /// Takes four bytes.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes eight bytes.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes eight bytes.
    pub fn i64(&mut self) -> Result<i64, CodecError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Takes an array of bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    /// Takes a byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let count = self.u32()? as usize;
        self.raw(count)
    }

    /// Takes a text.
    pub fn text(&mut self) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError("a text that is not UTF-8"))
    }

    /// Takes a path.
    pub fn path(&mut self) -> Result<PathBuf, CodecError> {
        Ok(PathBuf::from(OsString::from_vec(self.bytes()?.to_vec())))
    }

    /// Takes a list, each element through `read`.
    pub fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = self.u32()? as usize;
        // Every element takes a byte at least in the input, but may take many in memory; more room than the input has is
        // only made when there really are that many.
        let room = self.rest.len() / size_of::<T>().max(1);
        let mut values = Vec::with_capacity(count.min(room));
        for _ in 0..count {
            values.push(read(self)?);
        }
        Ok(values)
    }

    /// Takes an option.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        Ok(if self.bool()? { Some(read(self)?) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut w = Writer::new();
        w.u8(7);
        w.bool(true);
        w.u32(1 << 30);
        w.u64(u64::MAX);
        w.i64(-5);
        w.text("né");
        w.path(Path::new("/a/b"));
        w.list(&[1u32, 2, 3], |w, v| w.u32(*v));
        w.option(Some(&9u8), |w, v| w.u8(*v));
        w.option(None::<&u8>, |w, v| w.u8(*v));
        let bytes = w.finish();
        let mut r = Reader::new(&bytes);
        assert_eq!(r.u8(), Ok(7));
        assert_eq!(r.bool(), Ok(true));
        assert_eq!(r.u32(), Ok(1 << 30));
        assert_eq!(r.u64(), Ok(u64::MAX));
        assert_eq!(r.i64(), Ok(-5));
        assert_eq!(r.text(), Ok("né"));
        assert_eq!(r.path(), Ok(PathBuf::from("/a/b")));
        assert_eq!(r.list(Reader::u32), Ok(vec![1, 2, 3]));
        assert_eq!(r.option(Reader::u8), Ok(Some(9)));
        assert_eq!(r.option(Reader::u8), Ok(None));
        assert!(r.rest().is_empty());
    }

    #[test]
    fn cut_and_wild_input_is_an_error() {
        let mut w = Writer::new();
        w.list(&["one", "two"], |w, v| w.text(v));
        let bytes = w.finish();
        for end in 0..bytes.len() {
            assert!(Reader::new(&bytes[..end]).list(|r| r.text().map(str::to_owned)).is_err());
        }
        assert!(Reader::new(&[0xff; 16]).list(Reader::u8).is_err());
    }
}
