//! What a back end answers.

use super::LevelSigns;
use crate::codec::{CodecError, Reader, Writer};
use std::path::PathBuf;

/// An image was made; it comes beside this, as a descriptor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// Every file that was read and every place where one was looked for in vain.
    pub dependencies: Vec<Dependency>,
    /// Whether the same request with the same dependencies would give the same image: false when a source used
    /// `__DATE__`, `__TIME__` or `__TIMESTAMP__`, or has the assembler read files (`.incbin`).
    pub reproducible: bool,
    /// What the sources looked at that is not the same at other levels of optimisation.
    pub level_signs: LevelSigns,
    /// Warnings and notes.
    pub diagnostics: Vec<Diagnostic>,
    /// The diagnostics as clang prints them, with carets.
    pub rendered: String,
    /// What was done, for `--verbose`: the linker's line and the like.
    pub log: Vec<String>,
    /// How much was compiled.
    pub counts: Counts,
    /// Where the time went.
    pub phases: Phases,
    /// To be kept, and given with the next request for the same, if that asks for it: the form is the back end's own.
    pub stock: Option<Vec<u8>>,
}

/// One file, place or folder that the result depends on. Relative paths are relative to the request's directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependency {
    /// A file that was read.
    File(PathBuf),
    /// A path where a file was looked for and not found.
    Missing(PathBuf),
    /// A folder whose list of names was read.
    Listing(PathBuf),
}

/// How much a back end compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sources, IR and bitcode files that went through code generation.
    pub units_compiled: u32,
    /// Functions that code was generated for.
    pub functions_compiled: u32,
    /// Functions whose code was taken over from the last time, since they have not changed.
    pub functions_reused: u32,
    /// Images that lld made.
    pub images_linked: u32,
}

/// Milliseconds a back end spent. The phases of files that are compiled side by side are scaled so that their sum
/// is the time that went by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Phases {
    /// Driver, parsing, IR generation, reading IR and bitcode.
    pub frontend_ms: f64,
    /// Optimisation and code generation.
    pub codegen_ms: f64,
    /// Checking of inputs and lld.
    pub link_ms: f64,
}

/// One of the compiler's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// File, as the compiler names it; empty when it has no place.
    pub file: String,
    /// Line, from 1; 0 when it has no place.
    pub line: u32,
    /// Column, from 1; 0 when it has no place.
    pub column: u32,
    /// The message itself.
    pub message: String,
}

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Severity {
    /// Belongs to the diagnostic before it.
    Note = 0,
    /// A remark, by request.
    Remark = 1,
    /// Compilation goes on.
    Warning = 2,
    /// No image.
    Error = 3,
}

/// No image was made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// One line that names the operation, the object and the reason.
    pub message: String,
    /// Diagnostics of the compiler; may be empty.
    pub diagnostics: Vec<Diagnostic>,
    /// The diagnostics as clang or lld print them; may be empty.
    pub rendered: String,
    /// What had been done, for `--verbose`.
    pub log: Vec<String>,
}

/// What kind of thing went wrong in a back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FailureKind {
    /// The request itself: a flag clang does not know, or one that makes no sense here.
    Usage = 0,
    /// A file could not be read.
    Read = 1,
    /// The source does not compile, or IR or bitcode does not parse or verify.
    Compile = 2,
    /// An object, an archive or a trace is damaged or of the wrong kind, or a strict trace is of something else.
    Input = 3,
    /// The linker refuses: duplicate definitions, relocations that an image cannot have.
    Link = 4,
    /// The compiler itself failed: an internal error, a crash, no memory, no time.
    Internal = 5,
}

impl Failure {
    /// A failure without diagnostics.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            diagnostics: Vec::new(),
            rendered: String::new(),
            log: Vec::new(),
        }
    }
}

impl Diagnostic {
    fn write(&self, w: &mut Writer) {
        w.u8(self.severity as u8);
        w.text(&self.file);
        w.u32(self.line);
        w.u32(self.column);
        w.text(&self.message);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            severity: match r.u8()? {
                0 => Severity::Note,
                1 => Severity::Remark,
                2 => Severity::Warning,
                3 => Severity::Error,
                _ => return Err(CodecError("an unknown severity")),
            },
            file: r.text()?.to_owned(),
            line: r.u32()?,
            column: r.u32()?,
            message: r.text()?.to_owned(),
        })
    }
}

impl Failure {
    pub(super) fn write(&self, w: &mut Writer) {
        w.u8(self.kind as u8);
        w.text(&self.message);
        w.list(&self.diagnostics, |w, d| d.write(w));
        w.text(&self.rendered);
        w.list(&self.log, |w, line| w.text(line));
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            kind: match r.u8()? {
                0 => FailureKind::Usage,
                1 => FailureKind::Read,
                2 => FailureKind::Compile,
                3 => FailureKind::Input,
                4 => FailureKind::Link,
                5 => FailureKind::Internal,
                _ => return Err(CodecError("an unknown kind of failure")),
            },
            message: r.text()?.to_owned(),
            diagnostics: r.list(Diagnostic::read)?,
            rendered: r.text()?.to_owned(),
            log: r.list(|r| Ok(r.text()?.to_owned()))?,
        })
    }
}

impl Dependency {
    /// Appends the dependency to `w`.
    pub fn write(&self, w: &mut Writer) {
        let (tag, path) = match self {
            Self::File(path) => (0, path),
            Self::Missing(path) => (1, path),
            Self::Listing(path) => (2, path),
        };
        w.u8(tag);
        w.path(path);
    }

    /// Takes a dependency off `r`.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let tag = r.u8()?;
        let path = r.path()?;
        match tag {
            0 => Ok(Self::File(path)),
            1 => Ok(Self::Missing(path)),
            2 => Ok(Self::Listing(path)),
            _ => Err(CodecError("an unknown kind of dependency")),
        }
    }
}

/// Encodes the answer to a request.
pub fn encode(answer: &Result<Reply, Failure>) -> Vec<u8> {
    let mut w = Writer::new();
    match answer {
        Ok(reply) => {
            w.u8(0);
            w.list(&reply.dependencies, |w, d| d.write(w));
            w.bool(reply.reproducible);
            w.u8(reply.level_signs.bits());
            w.list(&reply.diagnostics, |w, d| d.write(w));
            w.text(&reply.rendered);
            w.list(&reply.log, |w, line| w.text(line));
            w.u32(reply.counts.units_compiled);
            w.u32(reply.counts.functions_compiled);
            w.u32(reply.counts.functions_reused);
            w.u32(reply.counts.images_linked);
            for ms in [reply.phases.frontend_ms, reply.phases.codegen_ms, reply.phases.link_ms] {
                w.u64(ms.to_bits());
            }
            w.option(reply.stock.as_ref(), |w, stock| w.bytes(stock));
        }
        Err(failure) => {
            w.u8(1);
            failure.write(&mut w);
        }
    }
    w.finish()
}

/// Decodes the answer to a request.
///
/// # Errors
/// When the bytes are not what [`encode`] makes.
pub fn decode(bytes: &[u8]) -> Result<Result<Reply, Failure>, CodecError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        0 => Ok(Ok(Reply {
            dependencies: r.list(Dependency::read)?,
            reproducible: r.bool()?,
            level_signs: LevelSigns::from_bits(r.u8()?),
            diagnostics: r.list(Diagnostic::read)?,
            rendered: r.text()?.to_owned(),
            log: r.list(|r| Ok(r.text()?.to_owned()))?,
            counts: Counts {
                units_compiled: r.u32()?,
                functions_compiled: r.u32()?,
                functions_reused: r.u32()?,
                images_linked: r.u32()?,
            },
            phases: Phases {
                frontend_ms: f64::from_bits(r.u64()?),
                codegen_ms: f64::from_bits(r.u64()?),
                link_ms: f64::from_bits(r.u64()?),
            },
            stock: r.option(|r| Ok(r.bytes()?.to_vec()))?,
        })),
        1 => Ok(Err(Failure::read(&mut r)?)),
        _ => Err(CodecError("neither an image nor a failure")),
    }
}
