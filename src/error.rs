//! The one error type, by operation.

use hotbed_loader::LoadError;
use hotbed_loader::boundary::{Diagnostic, Failure, FailureKind};
use hotbed_loader::image::ImageError;
use hotbed_loader::store::StoreError;
use hotbed_loader::sys::files::plain;
use std::fmt::Write;

/// What can go wrong, by operation; each variant names its object and the reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A runtime cannot be made.
    #[error("cannot make a runtime: {reason}")]
    Build {
        /// Why.
        reason: String,
    },
    /// There is no usable back end: the plugin is missing, of another build, or cannot be opened.
    #[error("no back end to compile {unit} with: {reason}")]
    Plugin {
        /// The unit that needed one.
        unit: String,
        /// Why, and where it was looked for.
        reason: String,
    },
    /// The process that compiled could not be started, ended, or took too long.
    #[error("cannot compile {unit}: {reason}")]
    Worker {
        /// The unit.
        unit: String,
        /// What happened, with the process's last words.
        reason: String,
    },
    /// What was asked for makes no sense: an unknown flag, a file of unknown kind.
    #[error("{failure}")]
    Usage {
        /// The unit.
        unit: String,
        /// What is wrong.
        failure: Box<Failure>,
    },
    /// An input cannot be read.
    #[error("{failure}")]
    Read {
        /// The unit.
        unit: String,
        /// Which one, and why.
        failure: Box<Failure>,
    },
    /// A source does not compile, IR or bitcode does not parse or verify, or the compiler itself failed.
    #[error("{failure}")]
    Compile {
        /// The unit.
        unit: String,
        /// Which input, and why; the compiler's messages are in it.
        failure: Box<Failure>,
    },
    /// An object, an archive or a trace is damaged or of the wrong kind, or a strict trace is of something else.
    #[error("{failure}")]
    Input {
        /// The unit.
        unit: String,
        /// Which one, and why.
        failure: Box<Failure>,
    },
    /// The linker refuses.
    #[error("{failure}")]
    Link {
        /// The unit.
        unit: String,
        /// Why.
        failure: Box<Failure>,
    },
    /// An image is damaged, or is none.
    #[error("cannot load image {unit}: {source}")]
    Image {
        /// The image's name.
        unit: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// An image cannot be mapped, bound or initialised.
    #[error("{source}")]
    Bind {
        /// The unit.
        unit: String,
        /// Why; it names the symbols that are missing.
        source: Box<LoadError>,
    },
    /// A lazy library that has a symbol, or may have one that nobody else has, cannot be compiled.
    #[error("cannot load {library} for `{symbol}`, needed by {unit}: {source}")]
    Needed {
        /// The unit that needs it.
        unit: String,
        /// The symbol.
        symbol: String,
        /// The library.
        library: String,
        /// Why; the compiler's messages are in it.
        source: Box<Error>,
    },
    /// A shared library cannot be opened.
    #[error("{source}")]
    Library {
        /// The library's name.
        unit: String,
        /// Why.
        source: Box<LoadError>,
    },
    /// A symbol of the host cannot be defined.
    #[error("cannot define {symbol}: {source}")]
    Define {
        /// The symbol.
        symbol: String,
        /// Why.
        source: Box<LoadError>,
    },
    /// A unit of that name is loaded, from other content.
    #[error("cannot load {unit}: a unit of that name is loaded already, {reason}")]
    NameTaken {
        /// The name.
        unit: String,
        /// What differs.
        reason: String,
    },
    /// A unit does not have the symbol that was asked for.
    #[error("cannot get `{symbol}` of {unit}: {reason}")]
    Get {
        /// The unit.
        unit: String,
        /// The symbol.
        symbol: String,
        /// Why.
        reason: String,
    },
    /// A unit cannot be unloaded.
    #[error("cannot unload {unit}: {reason}")]
    Unload {
        /// The unit.
        unit: String,
        /// What holds it.
        reason: String,
    },
    /// An image was built but cannot be put where it should go.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A store that somebody looks after cannot be used. (A runtime does without.)
    #[error("{source}")]
    Store {
        /// What is wrong with it.
        source: StoreError,
    },
}

impl Error {
    /// The compiler's messages that belong to this; may be empty.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        self.failure().map_or(&[], |failure| &failure.diagnostics)
    }

    /// The error as the `hotbed` command prints it: the compiler's messages as the compiler prints them, then one line
    /// with the error. Ends with a line end.
    pub fn render(&self) -> String {
        let mut text = self.failure().map_or_else(String::new, |failure| failure.rendered.clone());
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "hotbed: error: {self}");
        text
    }

    /// Whether the request itself makes no sense, rather than that something it names is missing or broken.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage { .. })
    }

    /// What a back end reported, or a check before it.
    pub(crate) fn of_failure(unit: &str, failure: Failure) -> Self {
        let unit = unit.to_owned();
        let kind = failure.kind;
        let failure = Box::new(failure);
        match kind {
            FailureKind::Usage => Self::Usage { unit, failure },
            FailureKind::Read => Self::Read { unit, failure },
            FailureKind::Compile | FailureKind::Internal => Self::Compile { unit, failure },
            FailureKind::Input => Self::Input { unit, failure },
            FailureKind::Link => Self::Link { unit, failure },
        }
    }

    /// A file cannot be read.
    pub(crate) fn read(unit: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let message = format!("cannot read {}: {}", path.display(), plain(error));
        Self::of_failure(unit, Failure::new(FailureKind::Read, message))
    }

    /// What the back end had done.
    pub(crate) fn log(&self) -> &[String] {
        self.failure().map_or(&[], |failure| &failure.log)
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Usage { failure, .. }
            | Self::Read { failure, .. }
            | Self::Compile { failure, .. }
            | Self::Input { failure, .. }
            | Self::Link { failure, .. } => Some(failure),
            Self::Needed { source, .. } => source.failure(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_before_the_line() {
        let mut failure = Failure::new(FailureKind::Compile, "cannot compile a.c");
        failure.rendered = "a.c:1:1: error: no".into();
        let error = Error::of_failure("u", failure);
        assert_eq!(error.render(), "a.c:1:1: error: no\nhotbed: error: cannot compile a.c\n");
        assert_eq!(error.to_string(), "cannot compile a.c");
        assert!(!error.is_usage());
        let missing = std::io::Error::from_raw_os_error(2);
        let error = Error::read("u", std::path::Path::new("nowhere.c"), &missing);
        assert_eq!(error.render(), "hotbed: error: cannot read nowhere.c: No such file or directory\n");
    }
}
