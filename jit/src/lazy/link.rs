//! A lazy image: the data of its units, their stubs, and whatever else is linked with them.

use super::chosen::Chosen;
use super::head::head_object;
use super::kept::Kept;
use super::stubs::stub_object;
use super::suffix;
use crate::frontend::{Compiled, Module, Prepared, modules};
use crate::in_process::build;
use crate::link::is_plain;
use crate::made::{Made, MadeSource};
use crate::parallel::in_parallel;
use crate::shim;
use crate::split::{Facts, Number, Settings, Unit, optimises, prepare};
use crate::traced::{READER_SUFFIX, Seen, Traced};
use hotbed_loader::boundary::{Failure, FailureKind, Reply, Request};
use std::borrow::Cow;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A lazy image that was made just now.
pub struct Skeleton {
    /// What a host is told; no function was compiled.
    pub reply: Reply,
    /// The image.
    pub image: OwnedFd,
    /// Its units, which need not be opened again by whoever compiles their functions in this process.
    pub opened: Vec<Opened>,
}

/// A unit of an image, opened.
pub struct Opened(pub(super) Unit);

/// Makes a lazy image of a request: as a compilation does, but without the functions of its sources, IR and bitcode. Where
/// these have no functions it is an image like any other.
///
/// # Errors
/// As for a compilation. There are things that cannot be taken to pieces (flags for the whole process, local names that
/// assembly of several units may mean): what fails here may still be compiled whole.
pub fn skeleton(request: &Request) -> Result<Skeleton, Failure> {
    shim::initialize();
    let built = build(request, true)?;
    Ok(Skeleton { reply: built.reply, image: built.image, opened: built.opened })
}

/// A unit that was opened just now.
pub(super) struct Fresh<'a> {
    pub(super) number: u32,
    pub(super) facts: Arc<Facts>,
    name: &'a str,
    suffix: String,
    arguments: &'a [String],
    /// Hash of what the front end made of its source.
    hash: [u8; 32],
    /// What is opened, as often as wanted.
    bitcode: Arc<Vec<u8>>,
    /// Whether that is sound for certain.
    trusted: bool,
}

/// Opens the units, and makes what is linked of them; with a trace the bodies of functions that were called, too, and of the
/// `entry`.
///
/// # Errors
/// When something cannot be taken to pieces, or the trace does not fit and that is to be an error.
pub(crate) fn divide(
    compiled: Option<&Compiled>,
    sources: &[Prepared<'_>],
    traced: Option<&Traced<'_>>,
    entry: Option<&str>,
) -> Result<Made<'static>, Failure> {
    let modules = compiled.map_or_else(Vec::new, |compiled| modules(sources, compiled));
    let divided = in_parallel(modules.len(), false, |number| {
        let (unit, mut opened) = Fresh::open(number as u32, &modules[number])?;
        let data = opened.data()?.compile()?;
        Ok((unit, opened, data))
    });
    let (mut units, mut opened, mut objects) = (Vec::new(), Vec::new(), Vec::new());
    for (unit, piece, data) in divided.map_err(|(_, failure)| failure)? {
        units.push(unit);
        opened.push(Opened(piece));
        objects.push(vec![data]);
    }
    let mut made = Made::default();
    let mut chosen = None;
    if let Some(traced) = traced {
        let seen = in_parallel(units.len(), false, |number| Ok(units[number].look_up(traced)));
        let seen: Vec<Seen> = seen.map_err(|(_, failure): (_, Failure)| failure)?;
        let order = traced.order(&seen)?;
        chosen = Some(Chosen::of(&order, &seen, entry)?);
        (made.unmatched, made.ordered) = (order.messages, true);
    }
    let nothing = HashSet::new();
    let stubs = in_parallel(units.len(), false, |number| {
        let compiled = chosen.as_ref().map_or(&nothing, |chosen| chosen.of_unit(number));
        let Fresh { name, facts, suffix, .. } = &units[number];
        stubs(name, facts, number as u32, suffix, compiled, chosen.as_ref().map(Chosen::exports))
    });
    for (objects, stubs) in objects.iter_mut().zip(stubs.map_err(|(_, failure)| failure)?) {
        objects.extend(stubs);
    }
    if let Some(chosen) = &chosen {
        let bodies = chosen.compile(&units)?;
        made.compiled = bodies.count;
        made.reads_files = bodies.read_files;
        objects.iter_mut().zip(bodies.objects).for_each(|(objects, bodies)| objects.extend(bodies));
    }
    let has_functions = units.iter().any(|unit| unit.facts.functions().next().is_some());
    if has_functions {
        let kept: Vec<Kept<'_>> = units.iter().map(Fresh::kept).collect();
        made.first = Some(head_object(&kept, &[]).map_err(|error| defect("functions", &error))?);
    }
    let source = |(unit, objects): (&Fresh<'_>, Vec<Vec<u8>>)| MadeSource {
        hash: unit.hash,
        objects: objects.into_iter().map(Cow::Owned).collect(),
    };
    made.sources = units.iter().zip(objects).map(source).collect();
    made.reads_files |= opened.iter().any(|opened| opened.0.reads_files());
    made.opened = opened;
    Ok(made)
}

impl<'a> Fresh<'a> {
    /// Opens what the front end has made of a source.
    fn open(number: u32, module: &Module<'a>) -> Result<(Self, Unit), Failure> {
        let &Module { path: name, arguments, bitcode: bytes, trusted } = module;
        let bitcode = if optimises(arguments) { prepare(bytes, name, trusted)? } else { bytes.to_vec() };
        let (bitcode, suffix) = (Arc::new(bitcode), suffix(number));
        let settings = Settings { name, suffix: &suffix, arguments, trusted, far: false };
        let unit = Unit::open(bitcode.clone(), &settings)?;
        let (facts, hash) = (Arc::clone(unit.facts()), *blake3::hash(bytes).as_bytes());
        Ok((Self { number, facts, name, suffix, arguments, hash, bitcode, trusted }, unit))
    }

    /// The unit, opened once more.
    pub(super) fn open_again(&self) -> Result<Unit, Failure> {
        self.open_with(&self.suffix)
    }

    fn open_with(&self, suffix: &str) -> Result<Unit, Failure> {
        let &Self { name, arguments, trusted, .. } = self;
        Unit::open(self.bitcode.clone(), &Settings { name, suffix, arguments, trusted, far: false })
    }

    /// What the records of its source fit in it.
    fn look_up(&self, traced: &Traced<'_>) -> Seen {
        let mut reader = None;
        traced.look_up(self.name, &self.facts, &self.suffix, |function| {
            let reader = reader.get_or_insert_with(|| self.open_with(READER_SUFFIX).ok());
            reader.as_mut()?.content(function).ok()
        })
    }

    fn kept(&self) -> Kept<'_> {
        let Self { name, suffix, arguments, bitcode, trusted, .. } = self;
        let arguments = arguments.iter().map(String::as_str).collect();
        Kept { name, suffix, arguments, trusted: *trusted, bitcode }
    }
}

/// The stubs of a unit, if it has functions; those that are `compiled` have bodies in other objects. If there are `exports`,
/// the image does not show the names of other functions.
pub(super) fn stubs(
    name: &str,
    facts: &Facts,
    number: u32,
    suffix: &str,
    compiled: &HashSet<Number>,
    exports: Option<&HashSet<String>>,
) -> Result<Option<Vec<u8>>, Failure> {
    let any = facts.functions().next().is_some();
    let object = any.then(|| stub_object(facts, number, suffix, compiled, exports)).transpose();
    object.map_err(|error| defect(name, &error))
}

pub(super) fn defect(of: &str, error: &object::write::Error) -> Failure {
    Failure::new(FailureKind::Internal, format!("cannot link {of}: {error}"))
}

/// What the linker is told behind the user's flags: bodies refer to what nobody refers to yet, and find it by the table of
/// symbols.
pub(crate) fn link_flags<'a>(mut flags: impl Iterator<Item = &'a str> + Clone) -> Vec<&'static str> {
    let special = flags.clone().any(|flag| !is_plain(flag));
    let strips = flags.any(|flag| flag == "-s" || (!is_plain(flag) && flag.contains("-s")));
    let keep = special.then_some("-Wl,--no-gc-sections,--icf=none");
    keep.into_iter().chain(strips.then_some("-Wl,--strip-debug")).collect()
}
