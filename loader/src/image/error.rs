//! What can be wrong with an image, by name.

use crate::cpu::CpuFeatures;
use std::fmt;

/// Why a file or bytes cannot serve as an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The bytes are of something else.
    #[error("not an ELF file")]
    NotElf,
    /// ELF, but 32-bit, big-endian or of an unknown ELF version.
    #[error("not a 64-bit little-endian ELF file")]
    WrongClass,
    /// Code for another processor; the ELF machine number.
    #[error("made for another processor ({})", machine_name(*.0))]
    WrongMachine(u16),
    /// An executable, an object or a core file; the ELF type.
    #[error("{}, not a shared object", type_name(*.0))]
    WrongType(u16),
    /// Something lies beyond the end of the file.
    #[error("truncated or damaged: {0} lies outside the file")]
    Truncated(&'static str),
    /// Something inside does not fit together.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// There is no note of Hotbed's in it.
    #[error("not an image written by Hotbed")]
    NoNote,
    /// Written in another version of the format.
    #[error("image format {found}, this Hotbed reads format {expected}")]
    Format {
        /// The version in the file.
        found: u32,
        /// [`super::note::FORMAT_VERSION`].
        expected: u32,
    },
    /// The contents are not what was written.
    #[error("damaged: the checksum does not match the contents")]
    Checksum,
    /// There is no metadata in it.
    #[error("it has no metadata section")]
    NoMetadata,
    /// Some of its functions exist as bitcode only, and this host has nothing that compiles them.
    #[error("some of its functions are not compiled yet, and nothing here compiles them")]
    NoBackEnd,
    /// Its code needs features that the processor does not have.
    #[error("{0}")]
    Processor(ProcessorLacks),
    /// Images cannot be variants of one.
    #[error("its variants do not go together: {0}")]
    Variants(String),
    /// It is sound but asks for something that an image cannot have.
    #[error("{0}")]
    Unsupported(String),
}

impl ImageError {
    /// [`ImageError::Truncated`], out of the way of what is sound.
    #[cold]
    #[inline(never)]
    pub(crate) fn truncated(what: &'static str) -> Self {
        Self::Truncated(what)
    }

    /// [`ImageError::Damaged`], likewise.
    #[cold]
    #[inline(never)]
    pub(crate) fn damaged(what: &'static str) -> Self {
        Self::Damaged(what)
    }
}

/// What an image needs of the processor, and what that has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessorLacks {
    /// What the image needs, or each of its variants.
    pub requires: Vec<CpuFeatures>,
    /// What there is.
    pub has: CpuFeatures,
}

impl fmt::Display for ProcessorLacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requires, has } = self;
        let missing = |requires: &CpuFeatures| requires.without(*has).names().join(", ");
        if let [requires] = &requires[..] {
            let missing = missing(requires);
            return write!(f, "it requires {requires}, the processor has {has}: missing are {missing}");
        }
        write!(f, "none of its variants is for this processor, which has {has}")?;
        for requires in requires {
            write!(f, "; of {requires} are missing {}", missing(requires))?;
        }
        Ok(())
    }
}

fn machine_name(machine: u16) -> String {
    use object::elf;
    match elf::Machine(machine) {
        elf::EM_386 => "i386".into(),
        elf::EM_X86_64 => "x86-64".into(),
        elf::EM_AARCH64 => "AArch64".into(),
        elf::EM_ARM => "ARM".into(),
        elf::EM_RISCV => "RISC-V".into(),
        elf::EM_PPC64 => "PowerPC 64".into(),
        elf::EM_S390 => "S/390".into(),
        other => format!("ELF machine {}", other.0),
    }
}

fn type_name(kind: u16) -> String {
    use object::elf;
    match elf::FileType(kind) {
        elf::ET_REL => "a relocatable object".into(),
        elf::ET_EXEC => "an executable".into(),
        elf::ET_CORE => "a core file".into(),
        other => format!("ELF type {}", other.0),
    }
}
