//! What lies between a request's inputs and clang: bytes are read, IR and bitcode verified and made
//! position-independent, and everything that is not on disk as the compiler must see it becomes a file in memory.

use super::jobs::Form;
use super::messages::failure;
use crate::shim::{Bitcode, Messages};
use hotbed_loader::boundary::{Content, Failure, FailureKind, Input, Lang};
use hotbed_loader::sys::files::plain;
use std::borrow::Cow;
use std::path::Path;

/// A source, IR or bitcode input as clang's driver takes it.
pub(crate) struct Prepared<'a> {
    /// The language, for the driver's `-x`.
    pub(crate) driver_language: &'static str,
    /// The path, as messages, `__FILE__` and the driver know it.
    pub(crate) path: Cow<'a, str>,
    /// What is there instead of the file on disk.
    pub(crate) contents: Option<Contents<'a>>,
    /// Messages of the verifier.
    pub(crate) messages: Option<Messages>,
}

/// The contents of a file in memory.
pub(crate) enum Contents<'a> {
    /// As the request carries them.
    Borrowed(&'a [u8]),
    /// A verified module.
    Bitcode(Bitcode),
    /// A module that nobody has read.
    Unread(Cow<'a, [u8]>),
}

impl Contents<'_> {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Bitcode(bitcode) => bitcode.bytes(),
            Self::Unread(bytes) => bytes,
        }
    }
}

/// Prepares an input for the front end; none for one that goes to the linker as it is. Bitcode that is wanted as bitcode
/// stays as it is: whoever takes it to pieces reads and verifies these.
///
/// # Errors
/// When its file cannot be read, or it is IR or bitcode that does not parse or verify.
pub(crate) fn prepare<'a>(
    input: &'a Input,
    directory: &Path,
    form: Form,
) -> Result<Option<Prepared<'a>>, Failure> {
    let driver_language = match input.lang {
        Lang::C => "c",
        Lang::Cpp => "c++",
        Lang::Ir | Lang::Bitcode => "ir",
        Lang::Object | Lang::Archive => return Ok(None),
    };
    let path = input.content.name();
    if driver_language == "ir" {
        let bytes = read(&input.content, directory)?;
        // The reader would take anything else for text, and nothing at all for an empty module.
        let magic = bytes.starts_with(b"BC\xc0\xde") || bytes.starts_with(b"\xde\xc0\x17\x0b");
        if input.lang == Lang::Bitcode && !magic {
            return Err(Failure::new(FailureKind::Input, format!("cannot read {path}: it is not bitcode")));
        }
        if magic && form == Form::Bitcode && Bitcode::is_current(&bytes) {
            let contents = Some(Contents::Unread(bytes));
            return Ok(Some(Prepared { driver_language, path, contents, messages: None }));
        }
        let messages = Messages::new();
        let bitcode = Bitcode::prepare(&bytes, &path, &messages)
            .ok_or_else(|| failure(FailureKind::Compile, &format!("read {path}"), &messages))?;
        return Ok(Some(Prepared {
            driver_language,
            path,
            contents: Some(Contents::Bitcode(bitcode)),
            messages: Some(messages),
        }));
    }
    let contents = match &input.content {
        Content::File(file) => {
            // clang would say it too, but without the system's reason.
            let metadata =
                std::fs::metadata(directory.join(file)).map_err(|error| unreadable(&path, &error))?;
            if metadata.is_dir() {
                return Err(Failure::new(
                    FailureKind::Read,
                    format!("cannot read {path}: it is a directory"),
                ));
            }
            None
        }
        Content::Bytes { bytes, .. } => Some(Contents::Borrowed(bytes)),
    };
    Ok(Some(Prepared { driver_language, path, contents, messages: None }))
}

/// The bytes of an input.
///
/// # Errors
/// When its file cannot be read.
pub(crate) fn read<'a>(content: &'a Content, directory: &Path) -> Result<Cow<'a, [u8]>, Failure> {
    match content {
        Content::File(path) => match std::fs::read(directory.join(path)) {
            Ok(bytes) => Ok(Cow::Owned(bytes)),
            Err(error) => Err(unreadable(&content.name(), &error)),
        },
        Content::Bytes { bytes, .. } => Ok(Cow::Borrowed(bytes)),
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Read, format!("cannot read {name}: {}", plain(error)))
}
