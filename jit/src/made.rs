//! What is made of the sources of a request before everything is linked: objects as the compiler makes them, the same with
//! functions that have an order, or what a lazy image has of them.

use crate::frontend::{self, Compiled, CompiledObject, Module, Place, Prepared};
use crate::lazy::Opened;
use crate::link::with_order;
use crate::parallel::in_parallel;
use crate::split::{Settings, Unit, optimises, prepare};
use crate::traced::{READER_SUFFIX, Seen, Traced};
use hotbed_loader::boundary::{Diagnostic, Failure};
use std::borrow::Cow;
use std::sync::Arc;

/// What was made of the sources.
#[derive(Default)]
pub(crate) struct Made<'a> {
    /// To be linked before everything else.
    pub(crate) first: Option<Vec<u8>>,
    /// Of each source.
    pub(crate) sources: Vec<MadeSource<'a>>,
    /// Whether functions have an order that the linker has to be told of.
    pub(crate) ordered: bool,
    /// The units of a lazy image.
    pub(crate) opened: Vec<Opened>,
    /// How many functions of a lazy image are compiled.
    pub(crate) compiled: u32,
    /// Whether something depends on files that the assembler reads, of what nobody knew that of before.
    pub(crate) reads_files: bool,
    /// What inputs are known to be; it is an error if one is something else.
    pub(crate) known: Option<Vec<(String, [u8; 32])>>,
    /// Records of a trace that fit nothing.
    pub(crate) unmatched: Vec<Diagnostic>,
    /// What the code generator said.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// The same as clang prints it.
    pub(crate) rendered: String,
}

/// What was made of a source.
pub(crate) struct MadeSource<'a> {
    /// Hash of what the front end made of it.
    pub(crate) hash: [u8; 32],
    /// What is linked.
    pub(crate) objects: Vec<Cow<'a, [u8]>>,
}

impl<'a> Made<'a> {
    /// Of objects.
    pub(crate) fn whole(compiled: Option<&'a Compiled>) -> Self {
        let source = |content: &'a [u8]| MadeSource {
            hash: *blake3::hash(content).as_bytes(),
            objects: vec![Cow::Borrowed(content)],
        };
        let contents = compiled.into_iter().flat_map(|compiled| &compiled.objects);
        let contents = contents.map(CompiledObject::bytes);
        Self { sources: contents.map(source).collect(), ..Self::default() }
    }

    /// Of bitcode, all of it compiled, with the functions that were called in the order of a trace.
    ///
    /// # Errors
    /// When code cannot be generated, or the trace does not fit and that is to be an error.
    pub(crate) fn in_order(
        compiled: Option<&Compiled>,
        sources: &[Prepared<'_>],
        traced: &Traced<'_>,
        place: &Place<'_>,
        color: bool,
    ) -> Result<Self, Failure> {
        let modules = compiled.map_or_else(Vec::new, |compiled| frontend::modules(sources, compiled));
        let seen = in_parallel(modules.len(), false, |number| look_up(traced, &modules[number]));
        let seen = seen.map_err(|(_, failure)| failure)?;
        let order = traced.order(&seen)?;
        let mut all = Self { ordered: true, ..Self::default() };
        let objects = frontend::generate(sources, &modules, place, color)?;
        for (unit, (object, messages)) in objects.into_iter().enumerate() {
            let places = order.by_name(unit, &seen[unit]);
            let object = object.bytes();
            let ordered = with_order(object, |name, local| places.get(&(name, local)).copied());
            let hash = *blake3::hash(modules[unit].bitcode).as_bytes();
            let objects = vec![Cow::Owned(ordered.unwrap_or_else(|| object.to_vec()))];
            all.sources.push(MadeSource { hash, objects });
            all.diagnostics.extend(frontend::to_diagnostics(&messages));
            all.rendered += &messages.rendered();
        }
        all.unmatched = order.messages;
        Ok(all)
    }
}

/// What the records of a source fit in its module.
fn look_up(traced: &Traced<'_>, module: &Module<'_>) -> Result<Seen, Failure> {
    let &Module { path, arguments, bitcode, trusted } = module;
    // Contents are hashed of what functions would be compiled from one by one.
    let bitcode = if traced.compares(path) && optimises(arguments) {
        prepare(bitcode, path, trusted)?
    } else {
        bitcode.to_vec()
    };
    // What is for LLVM's whole process is not for a unit, and changes nothing of what it says.
    let mut arguments = arguments.to_vec();
    while let Some(at) = arguments.iter().position(|argument| argument == "-mllvm") {
        arguments.drain(at..(at + 2).min(arguments.len()));
    }
    let arguments = arguments.as_slice();
    let settings = Settings { name: path, suffix: READER_SUFFIX, arguments, trusted, far: false };
    let mut unit = Unit::open(Arc::new(bitcode), &settings)?;
    let facts = Arc::clone(unit.facts());
    Ok(traced.look_up(path, &facts, READER_SUFFIX, |function| unit.content(function).ok()))
}
