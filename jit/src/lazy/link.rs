//! A lazy image: the data of its units, their stubs, and whatever else is linked with them.

use super::head::head_object;
use super::kept::Kept;
use super::stubs::stub_object;
use super::{optimises, suffix};
use crate::frontend::{Compiled, Contents, Form, Prepared};
use crate::in_process::{Made, MadeSource, build};
use crate::link::is_plain;
use crate::parallel::in_parallel;
use crate::shim;
use crate::split::{Number, Settings, Unit, prepare};
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

impl Opened {
    /// Whether data of it depend on files that the assembler reads.
    pub(crate) fn reads_files(&self) -> bool {
        self.0.reads_files()
    }
}

/// Makes a lazy image of a request: as a compilation does, but without the functions of its sources, IR and bitcode. Where
/// these have no functions it is an image like any other.
///
/// # Errors
/// As for a compilation. There are things that cannot be taken to pieces (flags for the whole process, local names that
/// assembly of several units may mean): what fails here may still be compiled whole.
pub fn skeleton(request: &Request) -> Result<Skeleton, Failure> {
    shim::initialize();
    let built = build(request, Form::Bitcode)?;
    Ok(Skeleton { reply: built.reply, image: built.image, opened: built.opened })
}

/// A unit as the front end left it.
struct Fresh<'a> {
    number: u32,
    name: &'a str,
    suffix: String,
    arguments: &'a [String],
    bitcode: &'a [u8],
    /// Whether it is sound for certain.
    trusted: bool,
}

/// Opens the units, and makes what is linked of them.
pub(crate) fn divide<'a>(compiled: &'a Compiled, sources: &[Prepared<'_>]) -> Result<Made<'a>, Failure> {
    let mut units = Vec::with_capacity(sources.len());
    for (number, (object, source)) in (0..).zip(compiled.objects.iter().zip(sources)) {
        units.push(Fresh {
            number,
            name: &source.path,
            suffix: suffix(number),
            arguments: &object.arguments,
            bitcode: object.object.bytes(),
            trusted: !matches!(source.contents, Some(Contents::Unread(_))),
        });
    }
    let divided = in_parallel(units.len(), false, |number| divide_one(&units[number]));
    let mut made = Made::default();
    for (object, (objects, opened)) in compiled.objects.iter().zip(divided.map_err(|(_, failure)| failure)?) {
        let objects = objects.into_iter().map(Cow::Owned).collect();
        let hash = *blake3::hash(object.object.bytes()).as_bytes();
        made.sources.push(MadeSource { hash, objects });
        made.opened.push(opened);
    }
    let mut kept = Vec::with_capacity(units.len());
    for (unit, Opened(opened)) in units.iter().zip(&made.opened) {
        let arguments = unit.arguments.iter().map(String::as_str).collect();
        let (bitcode, trusted) = (opened.bitcode().as_slice(), opened.is_trusted());
        kept.push(Kept { name: unit.name, suffix: &unit.suffix, arguments, trusted, bitcode });
    }
    if made.opened.iter().any(|opened| opened.0.facts().functions().next().is_some()) {
        made.first = Some(head_object(&kept, &[]).map_err(|error| defect("functions", &error))?);
    }
    Ok(made)
}

/// The objects of a unit, and the unit.
fn divide_one(unit: &Fresh<'_>) -> Result<(Vec<Vec<u8>>, Opened), Failure> {
    let Fresh { number, name, ref suffix, arguments, bitcode, trusted } = *unit;
    let bitcode = if optimises(arguments) { prepare(bitcode, name, trusted)? } else { bitcode.to_vec() };
    let settings = Settings { name, suffix, arguments, trusted, far: false };
    let mut unit = Unit::open(Arc::new(bitcode), &settings)?;
    let objects = own_objects(&mut unit, name, number, suffix, &HashSet::new())?;
    Ok((objects, Opened(unit)))
}

/// What is linked of a unit, but for the bodies of functions that are `compiled`.
pub(super) fn own_objects(
    unit: &mut Unit,
    name: &str,
    number: u32,
    suffix: &str,
    compiled: &HashSet<Number>,
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut objects = vec![unit.data()?.compile()?];
    if unit.facts().functions().next().is_some() {
        let stubs = stub_object(unit.facts(), number, suffix, compiled);
        objects.push(stubs.map_err(|error| defect(name, &error))?);
    }
    Ok(objects)
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
