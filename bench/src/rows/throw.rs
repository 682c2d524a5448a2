//! C++ exceptions among many units. A throw walks frames, and for each frame somebody has to find the unwind table of the
//! unit it belongs to: that must not take longer the more units there are, nor when one was loaded a moment ago.
//!
//! One image throws, another catches; half of the units are loaded before these two and half after them. Each side has a
//! process of its own.

use super::image::{Address, loader};
use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, median, timed};
use crate::process::output_of;
use crate::row::{Outcome, Row, Unit};
use crate::side::{Side, number};
use crate::template::Template;
use hotbed_loader::image::ImageSource;
use hotbed_loader::{Image, Loader};
use std::ffi::c_int;
use std::sync::Arc;

/// Many units against few.
pub(super) const THROW_10000: Row = Row {
    id: "loader.throw-10000",
    what: "C++ throw and catch with 10,000 units loaded",
    peer: "with 10",
    unit: Unit::Microseconds,
    run: throw_10000,
};

/// A unit before each throw.
pub(super) const THROW_LOAD: Row = Row {
    id: "loader.throw-load",
    what: "a throw and catch right after a unit was loaded, 1,000 times: the last 100",
    peer: "the first 100",
    unit: Unit::Microseconds,
    run: throw_load,
};

/// How long a throw takes with that many units.
pub(super) const AMONG_UNITS: Side = Side { id: "loader.throw.units", work: among_units };
/// How long the last and the first throws take when a unit is loaded before each.
pub(super) const AFTER_LOADS: Side = Side { id: "loader.throw.loads", work: after_loads };

const THROWER: &str = "#include <stdexcept>\nextern \"C\" void thrower(int n) { if (n >= 0) throw std::runtime_error(\"thrown\"); }\n";
const CATCHER: &str = "#include <stdexcept>\nextern \"C\" void thrower(int);\n\
                       extern \"C\" int throw_and_catch(int n) {\n  try { thrower(n); }\n  \
                       catch (const std::exception &e) { return n + (e.what()[0] == 't'); }\n  return -1;\n}\n";

/// Units of the two sides of [`THROW_10000`].
const MANY: &str = "10000";
const FEW: &str = "10";
/// Throws that are measured, after some that are not.
const THROWS: usize = 2000;
const WARM_UP: usize = 100;
/// Rounds of [`THROW_LOAD`], and how many of them are compared.
const ROUNDS: usize = 1000;
const COMPARED: usize = 100;

fn throw_10000(context: &Context) -> Result<Outcome> {
    build(context)?;
    Turns::PROCESSES
        .compare_figures(|| AMONG_UNITS.figure(context, &[MANY]), || AMONG_UNITS.figure(context, &[FEW]))
}

fn throw_load(context: &Context) -> Result<Outcome> {
    build(context)?;
    Turns::PROCESSES.repeat(|| AFTER_LOADS.both(context, &[]))
}

/// Builds the two images and the template, so that no side does it.
fn build(context: &Context) -> Result<()> {
    for (name, text) in [("thrower", THROWER), ("catcher", CATCHER)] {
        let source = context.write(&format!("{name}.cpp"), text)?;
        let image = context.scratch_path(&format!("{name}.hbi"));
        output_of(context.hotbed(&["image", "build", "-O1", "-o"]).arg(image).arg(source))?;
    }
    Template::new(context).map(drop)
}

/// The catcher's function.
type ThrowAndCatch = unsafe extern "C" fn(c_int) -> c_int;

/// The two images, loaded.
struct Pair {
    throw_and_catch: ThrowAndCatch,
    thrown: c_int,
    _images: [Arc<Image>; 2],
}

impl Pair {
    fn new(context: &Context, loader: &Loader) -> Result<Self> {
        let load = |name: &str| {
            loader.load_image(name, ImageSource::File(&context.scratch_path(&format!("{name}.hbi"))))
        };
        let images = [load("thrower")?, load("catcher")?];
        let function = images[1].get("throw_and_catch").ok_or("the image has no throw_and_catch")?;
        // SAFETY: the source above gives the function this type.
        let throw_and_catch = unsafe { std::mem::transmute::<usize, ThrowAndCatch>(function.address) };
        Ok(Self { throw_and_catch, thrown: 0, _images: images })
    }

    /// Throws once; microseconds.
    fn throw(&mut self) -> Result<f64> {
        self.thrown += 1;
        // SAFETY: the images are loaded as long as `self`; what is thrown is caught within the call.
        let (time, result) = timed(|| Ok(unsafe { (self.throw_and_catch)(self.thrown) }))?;
        if result != self.thrown + 1 {
            return Err(format!("what was thrown was not caught: {result}").into());
        }
        Ok(time.as_secs_f64() * 1e6)
    }
}

fn among_units(context: &Context, arguments: &[String]) -> Result<Vec<f64>> {
    let units = number(arguments, 0)?;
    let template = Template::new(context)?;
    let loader = loader(Address::Recorded);
    let load = |number| load(&loader, &template, number);
    let mut images = (0..units / 2).map(load).collect::<Result<Vec<_>>>()?;
    let mut pair = Pair::new(context, &loader)?;
    for number in units / 2..units {
        images.push(load(number)?);
    }
    for _ in 0..WARM_UP {
        pair.throw()?;
    }
    let times = (0..THROWS).map(|_| pair.throw()).collect::<Result<Vec<_>>>()?;
    // The process ends anyway.
    std::mem::forget(images);
    Ok(vec![median(times)])
}

fn after_loads(context: &Context, _: &[String]) -> Result<Vec<f64>> {
    let template = Template::new(context)?;
    let loader = loader(Address::Recorded);
    let mut pair = Pair::new(context, &loader)?;
    for _ in 0..WARM_UP {
        pair.throw()?;
    }
    let (mut images, mut times) = (Vec::new(), Vec::new());
    for number in 0..ROUNDS {
        images.push(load(&loader, &template, number)?);
        times.push(pair.throw()?);
    }
    std::mem::forget(images);
    Ok(vec![median(times[ROUNDS - COMPARED..].to_vec()), median(times[..COMPARED].to_vec())])
}

fn load(loader: &Loader, template: &Template, number: usize) -> Result<Arc<Image>> {
    Ok(loader.load_image(&Template::name(number), ImageSource::Bytes(&template.copy(number)?))?)
}
