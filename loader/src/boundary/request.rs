//! What a host asks of a back end.

use crate::codec::{CodecError, Reader, Writer};
use crate::image::ImageInterface;
use crate::trace::{Call, Record};
use std::path::PathBuf;

/// One compilation: everything in it becomes one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Name of the unit, for messages; its last part is the image's `SONAME` unless there is another.
    pub unit: String,
    /// Flags and inputs in the order of a command line; the order matters for libraries and archives.
    pub arguments: Vec<Argument>,
    /// Absolute path against which relative paths are resolved.
    pub directory: PathBuf,
    /// The environment variables that a compiler consults ([`Request::ENVIRONMENT`]), where they are set.
    pub environment: Vec<(String, String)>,
    /// A symbol that must be taken out of archives even when nothing refers to it (the entry point of a program).
    pub entry: Option<String>,
    /// The image's `SONAME`: what others that are linked against it will look for.
    pub soname: Option<String>,
    /// Images that it is linked against, in the order of search: all that the linker needs to know of them.
    pub images: Vec<ImageInterface>,
    /// Take every member of archives, needed or not.
    pub whole_archives: bool,
    /// Compile functions of sources, IR and bitcode when they are first called: the image has them as bitcode.
    pub lazy: bool,
    /// What is known of the program's calls. The functions that were called lie together, in that order; of a lazy image
    /// they are compiled now, and the others are for the image only until they are.
    pub trace: Option<Trace>,
    /// Render diagnostics with terminal colours.
    pub color: bool,
    /// What a back end gave to be kept when the same was last compiled ([`super::Reply::stock`]), empty if there is nothing;
    /// none if nothing is to be kept. It changes nothing of what comes out but how long that takes.
    pub stock: Option<Vec<u8>>,
}

/// Which functions of a program were called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Each once, in the order of first calls.
    pub calls: Vec<Call>,
    /// It is an error if something was called that is not there, or is not what it was. Otherwise that is a warning.
    pub strict: bool,
}

/// A piece of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A flag as clang's driver takes it; a flag and its value may be two of these.
    Flag(String),
    /// Something to compile or link.
    Input(Input),
}

/// Something to compile or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What it is.
    pub lang: Lang,
    /// Where it is.
    pub content: Content,
}

/// Kinds of input a back end takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Lang {
    /// C source.
    C = 0,
    /// C++ source.
    Cpp = 1,
    /// LLVM IR as text.
    Ir = 2,
    /// LLVM bitcode.
    Bitcode = 3,
    /// A relocatable ELF object.
    Object = 4,
    /// An `ar` archive of objects.
    Archive = 5,
}

/// Where an input's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file, named as the user named it.
    File(PathBuf),
    /// Bytes in memory and the name they go by in messages.
    Bytes {
        /// File name for diagnostics and `__FILE__`; nothing is read from there.
        name: String,
        /// The contents.
        bytes: Vec<u8>,
    },
}

impl Request {
    /// Environment variables that change what clang's driver, its front end or lld do.
    pub const ENVIRONMENT: [&'static str; 12] = [
        "CPATH",
        "C_INCLUDE_PATH",
        "CPLUS_INCLUDE_PATH",
        "OBJC_INCLUDE_PATH",
        "OBJCPLUS_INCLUDE_PATH",
        "LIBRARY_PATH",
        "COMPILER_PATH",
        "GCC_EXEC_PREFIX",
        "CCC_OVERRIDE_OPTIONS",
        "CLANG_CONFIG_PATH",
        "SOURCE_DATE_EPOCH",
        "SYSROOT",
    ];

    /// The inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Input(input) => Some(input),
            Argument::Flag(_) => None,
        })
    }

    /// The request as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.text(&self.unit);
        w.list(&self.arguments, |w, argument| match argument {
            Argument::Flag(flag) => {
                w.u8(0);
                w.text(flag);
            }
            Argument::Input(input) => {
                w.u8(1);
                w.u8(input.lang as u8);
                match &input.content {
                    Content::File(path) => {
                        w.u8(0);
                        w.path(path);
                    }
                    Content::Bytes { name, bytes } => {
                        w.u8(1);
                        w.text(name);
                        w.bytes(bytes);
                    }
                }
            }
        });
        w.path(&self.directory);
        w.list(&self.environment, |w, (name, value)| {
            w.text(name);
            w.text(value);
        });
        w.option(self.entry.as_ref(), |w, entry| w.text(entry));
        w.option(self.soname.as_ref(), |w, soname| w.text(soname));
        w.list(&self.images, |w, image| image.encode(w));
        w.bool(self.whole_archives);
        w.bool(self.lazy);
        w.option(self.trace.as_ref(), |w, trace| {
            w.list(&trace.calls, |w, Call { record, trace, line }| {
                w.text(&record.encode());
                w.text(trace);
                w.u32(*line);
            });
            w.bool(trace.strict);
        });
        w.bool(self.color);
        w.option(self.stock.as_ref(), |w, stock| w.bytes(stock));
        w.finish()
    }

    /// A request from its bytes.
    ///
    /// # Errors
    /// When they are not what [`Request::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        Ok(Self {
            unit: r.text()?.to_owned(),
            arguments: r.list(|r| match r.u8()? {
                0 => Ok(Argument::Flag(r.text()?.to_owned())),
                1 => Ok(Argument::Input(Input {
                    lang: Lang::from_tag(r.u8()?).ok_or(CodecError("an unknown language"))?,
                    content: match r.u8()? {
                        0 => Content::File(r.path()?),
                        1 => Content::Bytes { name: r.text()?.to_owned(), bytes: r.bytes()?.to_vec() },
                        _ => return Err(CodecError("an unknown kind of content")),
                    },
                })),
                _ => Err(CodecError("an unknown kind of argument")),
            })?,
            directory: r.path()?,
            environment: r.list(|r| Ok((r.text()?.to_owned(), r.text()?.to_owned())))?,
            entry: r.option(|r| Ok(r.text()?.to_owned()))?,
            soname: r.option(|r| Ok(r.text()?.to_owned()))?,
            images: r.list(ImageInterface::decode)?,
            whole_archives: r.bool()?,
            lazy: r.bool()?,
            trace: r.option(|r| {
                let calls = r.list(|r| {
                    let record = Record::decode(r.text()?).map_err(|_| CodecError("no record of a call"))?;
                    Ok(Call { record, trace: r.text()?.to_owned(), line: r.u32()? })
                })?;
                Ok(Trace { calls, strict: r.bool()? })
            })?,
            color: r.bool()?,
            stock: r.option(|r| Ok(r.bytes()?.to_vec()))?,
        })
    }
}

impl Lang {
    /// Whether it goes through the front end.
    pub fn is_compiled(self) -> bool {
        !matches!(self, Self::Object | Self::Archive)
    }

    /// The language a file name's suffix stands for.
    pub fn of_suffix(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "c" => Self::C,
            "cc" | "cpp" | "cxx" | "c++" | "C" | "cp" | "CPP" => Self::Cpp,
            "ll" => Self::Ir,
            "bc" => Self::Bitcode,
            "o" => Self::Object,
            "a" => Self::Archive,
            _ => return None,
        })
    }

    /// The language with that discriminant.
    pub fn from_tag(tag: u8) -> Option<Self> {
        [Self::C, Self::Cpp, Self::Ir, Self::Bitcode, Self::Object, Self::Archive]
            .get(usize::from(tag))
            .copied()
    }
}

impl Content {
    /// What messages call it.
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::File(path) => path.to_string_lossy(),
            Self::Bytes { name, .. } => name.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_boundary() {
        let record = Record {
            source: "a.cpp".into(),
            function: "_Z1fv".into(),
            content: Some([5; 32]),
            microseconds: 7,
            flags: vec!["-O2".into()],
        };
        let call = Call { record, trace: "t.trace".into(), line: 3 };
        let request = Request {
            unit: "u".into(),
            arguments: vec![
                Argument::Flag("-O2".into()),
                Argument::Input(Input { lang: Lang::Cpp, content: Content::File("a.cpp".into()) }),
                Argument::Input(Input {
                    lang: Lang::Object,
                    content: Content::Bytes { name: "o".into(), bytes: vec![1, 2] },
                }),
            ],
            directory: "/".into(),
            environment: vec![("CPATH".into(), "x".into())],
            entry: Some("main".into()),
            soname: Some("u.hbi".into()),
            images: vec![crate::image::sample_interface("core.hbi")],
            whole_archives: true,
            lazy: true,
            trace: Some(Trace { calls: vec![call], strict: true }),
            color: false,
            stock: Some(vec![3, 4]),
        };
        let bytes = request.encode();
        assert_eq!(Request::decode(&bytes), Ok(request));
        for end in 0..bytes.len() {
            assert!(Request::decode(&bytes[..end]).is_err());
        }
    }
}
