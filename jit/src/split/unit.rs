//! An opened unit and its pieces.

use super::{Body, Facts, Number};
use crate::frontend::failure;
use crate::shim::split::{self as raw, Copies};
use crate::shim::{Messages, initialize};
use hotbed_loader::boundary::{Failure, FailureKind};
use std::marker::PhantomData;
use std::sync::Arc;

/// How a unit is opened.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// What errors call it.
    pub name: &'a str,
    /// What is put behind its local names; must be the unit's own, and the same whenever it is opened.
    pub suffix: &'a str,
    /// The front end's arguments, after `-cc1`: how code is generated and optimised.
    pub arguments: &'a [String],
    /// Clang made the bitcode just now, in this process or in a worker: LLVM's verifier, which with debug information
    /// takes longer than reading, has nothing to find in it.
    pub trusted: bool,
    /// Code pieces may be further than 2 GiB from others.
    pub far: bool,
}

/// A unit whose bodies are read when they are wanted.
pub struct Unit {
    // Before the bitcode, which it reads from until it goes.
    split: raw::Split,
    bitcode: Arc<Vec<u8>>,
    name: String,
    trusted: bool,
    facts: Arc<Facts>,
}

/// A part of a unit that is compiled by itself. While it is there the unit waits.
pub struct Piece<'unit> {
    piece: raw::Piece,
    name: &'unit str,
    unit: PhantomData<&'unit mut Unit>,
}

/// Does to the bitcode of a whole unit what makes optimised pieces good: functions become small enough to be judged by
/// those that call them, and their attributes say what calls do not do (throw, write, fail to return). The result is
/// opened instead, as often as wanted.
///
/// # Errors
/// When the bitcode cannot be read or does not verify.
pub fn prepare(bitcode: &[u8], name: &str, trusted: bool) -> Result<Vec<u8>, Failure> {
    initialize();
    let messages = Messages::new();
    let prepared = raw::prepare(bitcode, name, trusted, &messages);
    prepared
        .map(|object| object.bytes().to_vec())
        .ok_or_else(|| failed(&format!("prepare {name}"), &messages))
}

impl Unit {
    /// Opens a unit.
    ///
    /// # Errors
    /// When the bitcode cannot be read or does not verify, or the arguments are not understood or not for a part of a unit.
    pub fn open(bitcode: Arc<Vec<u8>>, settings: &Settings<'_>) -> Result<Self, Failure> {
        initialize();
        if settings.arguments.iter().any(|argument| argument == "-mllvm") {
            let message =
                format!("cannot open {}: -mllvm is for the whole process and not for pieces", settings.name);
            return Err(Failure::new(FailureKind::Input, message));
        }
        let messages = Messages::new();
        // SAFETY: the vector is kept beside the unit and dropped after it, and nobody changes what is shared.
        let split = unsafe {
            raw::Split::open(
                &bitcode,
                settings.name,
                settings.suffix,
                settings.arguments,
                settings.trusted,
                settings.far,
                &messages,
            )
        }
        .ok_or_else(|| failed(&format!("open {}", settings.name), &messages))?;
        let facts = Arc::new(Facts::new(split.symbols(), split.starts()));
        Ok(Self { split, bitcode, name: settings.name.to_owned(), trusted: settings.trusted, facts })
    }

    /// Its names.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// [`Settings::trusted`].
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Whether assembly has the assembler read files, so that code depends on these; in a unit that is not trusted, as far
    /// as it was read.
    pub fn reads_files(&self) -> bool {
        self.split.reads_files()
    }

    /// The bitcode it was opened from.
    pub fn bitcode(&self) -> &Arc<Vec<u8>> {
        &self.bitcode
    }

    /// Reads a function's body.
    ///
    /// # Errors
    /// When there is none, or it cannot be read or does not verify.
    pub fn body(&mut self, function: Number) -> Result<Body, Failure> {
        let messages = Messages::new();
        self.split
            .body(function, &messages, |body, calls, mentions| Body {
                calls: calls.to_vec(),
                mentions: mentions.to_vec(),
                instructions: body.instructions,
                assembly: body.assembly,
                labels: body.labels,
            })
            .ok_or_else(|| failed(&format!("read a function of {}", self.name), &messages))
    }

    /// The piece with everything that is not a function; to be linked once.
    ///
    /// # Errors
    /// When LLVM fails.
    pub fn data(&mut self) -> Result<Piece<'_>, Failure> {
        let messages = Messages::new();
        // SAFETY: the piece borrows the unit.
        let piece = unsafe { self.split.data(&messages) };
        self.piece(piece, "take the data of", &messages)
    }

    /// Makes functions local to the pieces that have them, from now on. All their callers must be there, as a
    /// [`plan`](super::plan()) says.
    pub fn keep_local(&mut self, functions: &[Number]) {
        self.split.keep_local(functions);
    }

    /// A piece with these functions under their own names.
    ///
    /// # Errors
    /// When one does not exist, or its body cannot be read or does not verify.
    pub fn code(&mut self, wanted: &[Number]) -> Result<Piece<'_>, Failure> {
        self.code_of(wanted, "")
    }

    /// The same under their names with `suffix`, if that is not empty: their own names, where their addresses are
    /// taken, are then for others to define. Calls within the piece go to the bodies directly.
    ///
    /// # Errors
    /// As for [`code`](Self::code).
    pub fn code_of(&mut self, wanted: &[Number], suffix: &str) -> Result<Piece<'_>, Failure> {
        self.make(wanted, suffix, Copies::All)
    }

    /// The same of one function, whose calls stay calls: nothing is inlined but what always is.
    ///
    /// # Errors
    /// As for [`code`](Self::code).
    pub fn code_alone(&mut self, function: Number, suffix: &str) -> Result<Piece<'_>, Failure> {
        self.make(&[function], suffix, Copies::Forced)
    }

    /// A hash of what a function says, names and attributes of all it mentions and the unit's settings included; the
    /// same in every process, and when other parts of the unit change.
    ///
    /// # Errors
    /// As for [`code`](Self::code).
    pub fn content(&mut self, function: Number) -> Result<[u8; 32], Failure> {
        let piece = self.make(&[function], "", Copies::None)?;
        Ok(*blake3::hash(&piece.bitcode()?).as_bytes())
    }

    fn make(&mut self, wanted: &[Number], suffix: &str, copies: Copies) -> Result<Piece<'_>, Failure> {
        let messages = Messages::new();
        // SAFETY: the piece borrows the unit.
        let piece = unsafe { self.split.code(wanted, suffix, copies, &messages) };
        self.piece(piece, "take functions of", &messages)
    }

    fn piece(
        &mut self,
        piece: Option<raw::Piece>,
        what: &str,
        messages: &Messages,
    ) -> Result<Piece<'_>, Failure> {
        let name = self.name.as_str();
        let piece = piece.ok_or_else(|| failed(&format!("{what} {name}"), messages))?;
        Ok(Piece { piece, name, unit: PhantomData })
    }
}

impl Piece<'_> {
    /// Checks it; pieces of verified bodies are sound, this is for tests.
    ///
    /// # Errors
    /// What LLVM does not like.
    pub fn verify(&self) -> Result<(), Failure> {
        let messages = Messages::new();
        let sound = self.piece.verify(&messages);
        sound.then_some(()).ok_or_else(|| failed(&format!("verify a piece of {}", self.name), &messages))
    }

    /// As bitcode: what another process or a store can keep.
    ///
    /// # Errors
    /// When LLVM fails.
    pub fn bitcode(&self) -> Result<Vec<u8>, Failure> {
        let messages = Messages::new();
        let bitcode = self.piece.bitcode(&messages);
        bitcode
            .map(|object| object.bytes().to_vec())
            .ok_or_else(|| failed(&format!("write a piece of {}", self.name), &messages))
    }

    /// As a relocatable ELF file.
    ///
    /// # Errors
    /// When LLVM cannot generate code for it.
    pub fn compile(mut self) -> Result<Vec<u8>, Failure> {
        let messages = Messages::new();
        let object = self.piece.compile(&messages);
        object
            .map(|object| object.bytes().to_vec())
            .ok_or_else(|| failed(&format!("compile a piece of {}", self.name), &messages))
    }
}

fn failed(what: &str, messages: &Messages) -> Failure {
    failure(FailureKind::Compile, what, messages)
}
