//! Why the store has nothing, and why it takes nothing.

use crate::image::{ImageError, ProcessorLacks};
use crate::sys::files::plain;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why no entry of the store serves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Miss {
    /// Nothing was made of these inputs before, as far as is known.
    #[error("these inputs and flags were not compiled before")]
    NoEntry,
    /// It was made and stored before, and is not there any more.
    #[error("the entry is not in the store any more")]
    Dropped,
    /// It was made before, and will be different each time.
    #[error(
        "it uses the date or the time of its compilation, or has the assembler read files, and so is never stored"
    )]
    Unrepeatable,
    /// A file of the store has another format.
    #[error("the store has it in the format of another version")]
    Format,
    /// Another Hotbed has made it.
    #[error("the entry was made by another build of Hotbed, {0}")]
    Build(String),
    /// It is for another machine.
    #[error("the machine differs: {0}")]
    Target(Difference),
    /// It is for the processor that some machine had, and this one's is another, which may lack something.
    #[error("the entry is for another processor{}", missing(.0))]
    Features(ProcessorLacks),
    /// It is for another processor by its flags.
    #[error("the processor differs: {0}")]
    Processor(Difference),
    /// What debuggers are told differs.
    #[error("debug information differs: {0}")]
    DebugInfo(Difference),
    /// What is checked while the program runs differs.
    #[error("bounds checks and sanitizers differ: {0}")]
    BoundsChecks(Difference),
    /// What may be inlined differs.
    #[error("inlining differs: {0}")]
    Inlining(Difference),
    /// What may be done to floating-point arithmetic differs.
    #[error("floating-point arithmetic differs: {0}")]
    FloatingPoint(Difference),
    /// It is optimised less, or in another way.
    #[error("the level of optimisation differs: {0}")]
    Level(Difference),
    /// It is optimised more, and a source could tell.
    #[error("a source looks at {name}, which is not the same at each level of optimisation: {levels}")]
    LevelSeen {
        /// The macro, or what else.
        name: &'static str,
        /// The levels.
        levels: Difference,
    },
    /// Other flags differ.
    #[error("flags differ: {0}")]
    Flags(Difference),
    /// The same flags and inputs stand in another order.
    #[error("the order of flags and inputs differs: {0}")]
    Order(Difference),
    /// One is compiled whole, and of the other each function when it is called.
    #[error("{}", form(*.asked_lazy))]
    Form {
        /// Whether each function is to be compiled when it is first called.
        asked_lazy: bool,
    },
    /// What is taken out of archives, or the name for others, differs.
    #[error("what the linker is told differs: {0}")]
    Linkage(Difference),
    /// It is laid out by another trace, or by none, or has what no trace names as bitcode.
    #[error("the trace by which it is laid out differs")]
    Trace,
    /// It is linked against an image that has another interface, or is not linked against it.
    #[error("image {0}, which it is linked against, has another interface")]
    Interface(String),
    /// An environment variable that compilers consult has another value.
    #[error("the environment differs: {0}")]
    Environment(String),
    /// It was compiled in another directory, which is recorded in it.
    #[error("the entry records another working directory, {}", .0.display())]
    Directory(PathBuf),
    /// The manifest is there but cannot be read.
    #[error("the store's manifest cannot be read: {0}")]
    ManifestUnreadable(io::ErrorKind),
    /// The manifest is not what was written.
    #[error("the store's manifest is damaged: {0}")]
    ManifestDamaged(&'static str),
    /// An input has other contents.
    #[error("the input {} has changed", .0.display())]
    InputChanged(PathBuf),
    /// A file that was read, a header or a library, has other contents.
    #[error("{} has changed", .0.display())]
    DependencyChanged(PathBuf),
    /// There is now a file where one was looked for in vain.
    #[error("{} has appeared", .0.display())]
    DependencyAppeared(PathBuf),
    /// A file is not there any more, or cannot be read.
    #[error("{} cannot be read any more: {}", .0.display(), .1)]
    DependencyGone(PathBuf, io::ErrorKind),
    /// A folder has other names in it.
    #[error("the list of files in {} has changed", .0.display())]
    ListingChanged(PathBuf),
    /// The image is not there any more.
    #[error("the stored image is gone")]
    ImageMissing,
    /// The image is not what was written.
    #[error("the stored image is damaged: {0}")]
    ImageDamaged(String),
}

impl Miss {
    /// The dependency that is to blame, as the back end named it.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::InputChanged(path)
            | Self::DependencyChanged(path)
            | Self::DependencyAppeared(path)
            | Self::DependencyGone(path, _)
            | Self::ListingChanged(path) => Some(path),
            _ => None,
        }
    }

    /// A word or two for the kind of reason, by which reasons are counted; the same in every version.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoEntry => "no-entry",
            Self::Dropped => "dropped",
            Self::Unrepeatable => "unrepeatable",
            Self::Format => "format",
            Self::Build(_) => "build",
            Self::Target(_) => "target",
            Self::Features(_) => "cpu-features",
            Self::Processor(_) => "processor",
            Self::DebugInfo(_) => "debug-info",
            Self::BoundsChecks(_) => "bounds-checks",
            Self::Inlining(_) => "inlining",
            Self::FloatingPoint(_) => "floating-point",
            Self::Level(_) => "level",
            Self::LevelSeen { .. } => "level-seen",
            Self::Flags(_) => "flags",
            Self::Order(_) => "order",
            Self::Form { .. } => "form",
            Self::Linkage(_) => "linkage",
            Self::Trace => "trace",
            Self::Interface(_) => "interface",
            Self::Environment(_) => "environment",
            Self::Directory(_) => "directory",
            Self::ManifestUnreadable(_) => "manifest-unreadable",
            Self::ManifestDamaged(_) => "manifest-damaged",
            Self::InputChanged(_) => "input-changed",
            Self::DependencyChanged(_) => "dependency-changed",
            Self::DependencyAppeared(_) => "dependency-appeared",
            Self::DependencyGone(..) => "dependency-gone",
            Self::ListingChanged(_) => "listing-changed",
            Self::ImageMissing => "image-missing",
            Self::ImageDamaged(_) => "image-damaged",
        }
    }

    /// Whether it is about how an entry was made, and not about what became of it or of what it was made from.
    pub(super) fn is_of_settings(&self) -> bool {
        matches!(self, Self::Level(_) | Self::LevelSeen { .. })
    }
}

impl From<ImageError> for Miss {
    /// What is wrong with the image of an entry.
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Format { .. } => Self::Format,
            ImageError::Processor(lacks) => Self::Features(lacks),
            other => Self::ImageDamaged(other.to_string()),
        }
    }
}

fn missing(lacks: &ProcessorLacks) -> String {
    let enough = lacks.requires.iter().all(|requires| lacks.has.has(*requires));
    if enough { String::new() } else { format!(": {lacks}") }
}

fn form(asked_lazy: bool) -> &'static str {
    if asked_lazy {
        "compilation of functions at their first calls is asked for, the entry is compiled whole"
    } else {
        "compilation as a whole is asked for, the entry's functions are compiled at their first calls"
    }
}

/// What a request asks for and what an entry has instead: flags, as they are written; empty where there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Asked for.
    pub asked: String,
    /// In the store.
    pub has: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.asked.as_str(), self.has.as_str()) {
            ("", has) => write!(f, "no flag is given, the entry has {has}"),
            (asked, "") => write!(f, "{asked} is asked for, the entry has no such flag"),
            (asked, has) => write!(f, "{asked} is asked for, the entry has {has}"),
        }
    }
}

/// Why the store cannot be used, or does not take an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory is not one that may be trusted.
    #[error("cannot use the store in {}: {reason}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {operation} the store in {}: {}", path.display(), plain(source))]
    System {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A dependency may have changed while it was being compiled, so nobody knows what the image was made from. Nothing is
    /// wrong with the store.
    #[error("not stored: {} {reason}", path.display())]
    Unstable {
        /// The dependency.
        path: PathBuf,
        /// What happened to it.
        reason: String,
    },
    /// What was to be stored is no image.
    #[error("not stored: {0}")]
    Image(#[from] ImageError),
}
