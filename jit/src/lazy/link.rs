//! A lazy image: the data of its units, their stubs, and whatever else is linked with them.

use super::head::head_object;
use super::kept::Kept;
use super::stubs::stub_object;
use super::suffix;
use crate::frontend::{Compiled, CompiledObject, Form, Prepared};
use crate::in_process::{Made, MadeSource, build};
use crate::link::is_plain;
use crate::shim;
use crate::split::{Settings, Unit, prepare};
use hotbed_loader::boundary::{Failure, FailureKind, Reply, Request};
use std::borrow::Cow;
use std::fmt::Display;
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
/// it has none of these it is an image like any other.
///
/// # Errors
/// As for a compilation. There are things that cannot be taken to pieces (flags for the whole process, local names that
/// assembly of several units may mean): what fails here may still be compiled whole.
pub fn skeleton(request: &Request) -> Result<Skeleton, Failure> {
    shim::initialize();
    let built = build(request, Form::Bitcode)?;
    Ok(Skeleton { reply: built.reply, image: built.image, opened: built.opened })
}

/// Opens the units, and makes what is linked of them.
pub(crate) fn divide<'a>(compiled: &'a Compiled, sources: &[Prepared<'_>]) -> Result<Made<'a>, Failure> {
    let mut made = Made::default();
    let mut arguments = Vec::new();
    for (number, (object, source)) in (0..).zip(compiled.objects.iter().zip(sources)) {
        let (bitcode, objects, opened) = divide_one(object, &source.path, number)?;
        arguments.push((&source.path, suffix(number), &object.arguments));
        made.sources.push(MadeSource { content: bitcode, objects });
        made.opened.push(opened);
    }
    let kept: Vec<Kept<'_>> = arguments
        .iter()
        .zip(&made.opened)
        .map(|((name, suffix, arguments), opened)| Kept {
            name,
            suffix,
            arguments: arguments.iter().map(String::as_str).collect(),
            bitcode: opened.0.bitcode(),
        })
        .collect();
    let defect = |error: &dyn Display| Failure::new(FailureKind::Internal, format!("cannot link: {error}"));
    made.first = Some(head_object(&kept).map_err(|error| defect(&error))?);
    Ok(made)
}

type Divided<'a> = (Cow<'a, [u8]>, Vec<Vec<u8>>, Opened);

fn divide_one<'a>(object: &'a CompiledObject, name: &str, number: u32) -> Result<Divided<'a>, Failure> {
    let level = object.arguments.iter().rfind(|argument| argument.starts_with("-O"));
    let content = object.object.bytes();
    let bitcode = if level.is_some_and(|level| level != "-O0") {
        prepare(content, name, true)?
    } else {
        content.to_vec()
    };
    let suffix = suffix(number);
    let settings =
        Settings { name, suffix: &suffix, arguments: &object.arguments, trusted: true, far: false };
    let mut unit = Unit::open(Arc::new(bitcode), &settings)?;
    let data = unit.data()?.compile()?;
    let stubs = stub_object(unit.facts(), number, &suffix)
        .map_err(|error| Failure::new(FailureKind::Internal, format!("cannot link {name}: {error}")))?;
    Ok((Cow::Borrowed(content), vec![data, stubs], Opened(unit)))
}

/// What the linker is told behind the user's flags: bodies refer to what nobody refers to yet, and find it by the table of
/// symbols.
pub(crate) fn link_flags<'a>(mut flags: impl Iterator<Item = &'a str> + Clone) -> Vec<&'static str> {
    let special = flags.clone().any(|flag| !is_plain(flag));
    let strips = flags.any(|flag| flag == "-s" || (!is_plain(flag) && flag.contains("-s")));
    let keep = special.then_some("-Wl,--no-gc-sections,--icf=none");
    keep.into_iter().chain(strips.then_some("-Wl,--strip-debug")).collect()
}
