//! A lazy image with what was compiled of it: the next start has that, and compiles only what is still missing.
//!
//! The front end does not run again: the units are in the image. Their data and stubs are made anew, and linked with the
//! objects that bodies were linked of as fresh code; a slot then holds a body's address from the start.

use super::bodies::functions;
use super::head::head_object;
use super::kept::{self, Kept, KeptBody};
use super::link::{defect, stubs};
use crate::frontend::Target;
use crate::in_process::link;
use crate::made::{Made, MadeSource};
use crate::shim;
use crate::split::{Number, Settings, Unit};
use hotbed_loader::boundary::{Failure, FailureKind, Reply, Request};
use hotbed_loader::image::{Metadata, note};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Makes the image in `file`, which was made of `request`, with the bodies that it has and those of `more`, which
/// [`Bodies::kept`](super::Bodies::kept) gave.
///
/// # Errors
/// When that is not such an image, an input of the request is not what it was, or LLVM or lld fail.
pub fn keep(request: &Request, file: &[u8], more: &[u8]) -> Result<OwnedFd, Failure> {
    shim::initialize();
    let refuse =
        |what: &str| Failure::new(FailureKind::Input, format!("cannot keep bodies of an image: it {what}"));
    let units = kept::units(file).map_err(refuse)?;
    let functions = functions(file).map_err(refuse)?;
    let metadata = Metadata::of_file(file).map_err(|error| refuse(&format!("is none: {error}")))?;
    let more = kept::decode_bodies(more).map_err(|_| refuse("comes with damaged bodies"))?;
    let bodies = different(kept::bodies(file).map_err(refuse)?.into_iter().chain(more), functions.len());

    let mut compiled: Vec<HashSet<Number>> = vec![HashSet::new(); units.len()];
    let mut objects: Vec<Vec<&[u8]>> = vec![Vec::new(); units.len()];
    for body in &bodies {
        for (nth, slot) in body.slots.iter().enumerate() {
            let (unit, number) = functions[*slot as usize];
            let place = compiled.get_mut(unit as usize).zip(objects.get_mut(unit as usize));
            let (compiled, objects) =
                place.ok_or_else(|| refuse("has functions of a unit that it has not"))?;
            compiled.insert(number);
            if nth == 0 {
                objects.push(body.object);
            }
        }
    }

    let mut made = Made::default();
    for (at, unit) in units.iter().enumerate() {
        let Kept { name, suffix, ref arguments, trusted, bitcode } = *unit;
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let settings = Settings { name, suffix, arguments: &arguments, trusted, far: false };
        let mut opened = Unit::open(Arc::new(bitcode.to_vec()), &settings)?;
        let data = opened.data()?.compile()?;
        let stubs = stubs(name, opened.facts(), at as u32, suffix, &compiled[at], None)?;
        let own = std::iter::once(data).chain(stubs).map(Cow::Owned);
        let objects = own.chain(objects[at].iter().map(|&object| Cow::Borrowed(object))).collect();
        // Sources come in the order of units, and what the front end made of them is what it was.
        let hash = request_hash(request, &metadata.inputs, at).ok_or_else(|| refuse("has other inputs"))?;
        made.sources.push(MadeSource { hash, objects });
    }
    made.first = Some(head_object(&units, &bodies).map_err(|error| defect("functions", &error))?);
    made.known = Some(metadata.inputs);
    let reply = Reply { reproducible: true, ..Reply::default() };
    let requires = note::layout(file).map_err(|error| refuse(&format!("is none: {error}")))?.requires;
    let target = Target { cpu: metadata.cpu, requires };
    Ok(link(request, made, target, reply, BTreeSet::new())?.image)
}

/// Bodies of functions that no earlier one has.
fn different<'a>(all: impl Iterator<Item = KeptBody<'a>>, count: usize) -> Vec<KeptBody<'a>> {
    let mut seen = HashSet::new();
    let mut is_new = |body: &KeptBody<'_>| {
        let fits = body.slots.iter().all(|slot| (*slot as usize) < count && !seen.contains(slot));
        if fits {
            seen.extend(body.slots.iter().copied());
        }
        fits && !body.slots.is_empty()
    };
    all.filter(|body| is_new(body)).collect()
}

/// The hash of what the front end made of the source that is number `nth` of those that go through it.
fn request_hash(request: &Request, inputs: &[(String, [u8; 32])], nth: usize) -> Option<[u8; 32]> {
    let is_source = |at: &usize| request.inputs().nth(*at).is_some_and(|input| input.lang.is_compiled());
    let at = (0..request.inputs().count()).filter(is_source).nth(nth)?;
    inputs.get(at).map(|(_, hash)| *hash)
}
