//! Many tiny units in one process, as a host loads that compiles a line or a function at a time: whether the hundred
//! thousandth costs what the first ones did, and whether loading and unloading leaves anything behind.
//!
//! The units are copies of one (`template`) and come as bytes. Making the bytes is not in the figures.

use super::image::{Address, loader};
use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, timed};
use crate::memory::{mappings, resident};
use crate::row::{Outcome, Row, Unit};
use crate::side::{Side, number};
use crate::template::{IsCalled, Template};
use hotbed_loader::Image;
use hotbed_loader::image::ImageSource;
use std::ffi::CString;
use std::time::Duration;

/// See [`units`].
pub(super) const UNITS_100000: Row = Row {
    id: "loader.units-100000",
    what: "loading tiny units 90,001 to 100,000 of one process",
    peer: "units 1 to 10,000 of the same process",
    unit: Unit::Milliseconds,
    run: |context| repeat(context, &UNITS, &["100000", "10000"]),
};

/// See [`unloads`].
pub(super) const UNLOAD_MEMORY: Row = Row {
    id: "loader.unload-memory",
    what: "resident memory (Rss) of the process after 10,000 loads and unloads of different units",
    peer: "after 100",
    unit: Unit::Kilobytes,
    run: |context| repeat(context, &UNLOADS, &["10000", "100", "memory"]),
};

/// See [`unloads`].
pub(super) const UNLOAD_MAPPINGS: Row = Row {
    id: "loader.unload-mappings",
    what: "mappings of the process after 10,000 loads and unloads of different units",
    peer: "after 100",
    unit: Unit::Count,
    run: |context| repeat(context, &UNLOADS, &["10000", "100", "mappings"]),
};

/// The times of the last and the first batch: how many units, how many in a batch.
pub(super) const UNITS: Side = Side { id: "loader.units", work: units };
/// What the process has after all and after the first loads and unloads: how many, how many first, what of.
pub(super) const UNLOADS: Side = Side { id: "loader.unloads", work: unloads };

/// How many units are made ready at a time.
const READY: usize = 500;

fn repeat(context: &Context, side: &Side, arguments: &[&str]) -> Result<Outcome> {
    // Built now, so that no side does it.
    drop(Template::new(context)?);
    Turns::PROCESSES.repeat(|| side.both(context, arguments))
}

fn units(context: &Context, arguments: &[String]) -> Result<Vec<f64>> {
    let (count, batch) = (number(arguments, 0)?, number(arguments, 1)?);
    let template = Template::new(context)?;
    let loader = loader(Address::Recorded);
    let mut images = Vec::with_capacity(count);
    let mut batches = vec![Duration::ZERO; count.div_ceil(batch)];
    for first in (0..count).step_by(READY) {
        let copies = (first..count.min(first + READY))
            .map(|number| Ok((Template::name(number), template.copy(number)?)))
            .collect::<Result<Vec<_>>>()?;
        let (time, ()) = timed(|| {
            for (name, bytes) in &copies {
                images.push(loader.load_image(name, ImageSource::Bytes(bytes))?);
            }
            Ok(())
        })?;
        batches[first / batch] += time;
        if let Some(image) = images.last() {
            call(image)?;
        }
    }
    // The first one is still itself.
    images.first().map_or(Ok(()), |image| call(image))?;
    // The process ends anyway.
    std::mem::forget(images);
    let milliseconds = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    Ok(vec![milliseconds(batches.last()), milliseconds(batches.first())])
}

fn unloads(context: &Context, arguments: &[String]) -> Result<Vec<f64>> {
    let (count, few) = (number(arguments, 0)?, number(arguments, 1)?);
    let measure = match arguments.get(2).map(String::as_str) {
        Some("memory") => resident,
        Some("mappings") => mappings,
        _ => return Err("neither memory nor mappings".into()),
    };
    let template = Template::new(context)?;
    let loader = loader(Address::Recorded);
    // Once for what measuring itself touches.
    measure()?;
    let mut after_few = f64::NAN;
    for number in 0..count {
        if number == few {
            after_few = measure()?;
        }
        let name = Template::name(number);
        let image = loader.load_image(&name, ImageSource::Bytes(&template.copy(number)?))?;
        call(&image)?;
        if !image.retire() {
            return Err(format!("{name} cannot be unloaded").into());
        }
        drop(image);
    }
    Ok(vec![measure()?, after_few])
}

/// Calls a unit's function, which must be its own.
fn call(image: &Image) -> Result<()> {
    let function = image.get(image.name()).ok_or("a unit has no function of its name")?;
    let name = CString::new(image.name())?;
    // SAFETY: the template's function has this type, and every copy has one of the image's name.
    let function = unsafe { std::mem::transmute::<usize, IsCalled>(function.address) };
    // SAFETY: the image is held by the caller, and the text ends with a zero.
    let own = unsafe { function(name.as_ptr()) } == 1;
    own.then_some(()).ok_or_else(|| format!("{} is another unit", image.name()).into())
}
