//! Symbols by name among many: 10,000 symbols in 200 images, each looked up once a pass in an order that follows no table.
//!
//! The answer is an address, on both sides. Each side has a process of its own, for the dynamic linker finds what is open for
//! everybody, and so does our loader: it would find the peer's libraries.

use super::image::{Address, loader};
use crate::Result;
use crate::context::Context;
use crate::generated::{self, Set};
use crate::measure::{Turns, median, timed};
use crate::peers::shared_library::{find_for_all, open_for_all};
use crate::row::{Outcome, Row, Unit};
use crate::side::Side;
use hotbed_loader::image::ImageSource;
use std::ffi::CString;
use std::hint::black_box;

/// Names that are there.
pub(super) const LOOKUP_HIT: Row = Row {
    id: "loader.lookup-hit",
    what: "10,000 look-ups by name, of 10,000 symbols in 200 images",
    peer: "dlsym(RTLD_DEFAULT) over the same 200 opened RTLD_GLOBAL by dlopen, in a process of its own",
    unit: Unit::Microseconds,
    run: |context| run(context, HIT),
};

/// Names that nobody has.
pub(super) const LOOKUP_MISS: Row = Row {
    id: "loader.lookup-miss",
    what: "10,000 look-ups of names that nobody has, among 200 images",
    peer: "the same with dlsym(RTLD_DEFAULT), in a process of its own",
    unit: Unit::Microseconds,
    run: |context| run(context, MISS),
};

/// Our side: `hit` or `miss`.
pub(super) const OUR_LOOKUP: Side = Side { id: "loader.lookup.ours", work: our_lookup };
/// The peer's side, likewise.
pub(super) const PEER_LOOKUP: Side = Side { id: "loader.lookup.peer", work: peer_lookup };

const HIT: &str = "hit";
const MISS: &str = "miss";
/// How many images there are.
const IMAGES: usize = 200;
/// How many functions each has, but for its entry.
const FUNCTIONS: usize = 50;
/// Passes over all names, the first of which do not count.
const PASSES: usize = 12;
const WARM_UP: usize = 2;

fn run(context: &Context, which: &'static str) -> Result<Outcome> {
    // Built now, so that no side does it.
    drop(set(context)?);
    Turns::PROCESSES
        .compare_figures(|| OUR_LOOKUP.figure(context, &[which]), || PEER_LOOKUP.figure(context, &[which]))
}

fn set(context: &Context) -> Result<Set> {
    generated::images(context, IMAGES, FUNCTIONS, FUNCTIONS)
}

/// The names to look up, and whether they are there.
fn names(set: &Set, arguments: &[String]) -> Result<(Vec<String>, bool)> {
    let there = match arguments.first().map(String::as_str) {
        Some(HIT) => true,
        Some(MISS) => false,
        _ => return Err("neither hit nor miss".into()),
    };
    // A missing name is like the others but for its end: it has the beginning of one that is there.
    let missing = |name: &String| format!("{name}9");
    let names = set.units.iter().flat_map(|unit| &unit.functions);
    let mut names: Vec<_> = if there { names.cloned().collect() } else { names.map(missing).collect() };
    let mut state = 1u64;
    for at in (1..names.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        names.swap(at, (state >> 33) as usize % (at + 1));
    }
    Ok((names, there))
}

fn our_lookup(context: &Context, arguments: &[String]) -> Result<Vec<f64>> {
    let set = set(context)?;
    let (names, there) = names(&set, arguments)?;
    let loader = loader(Address::Recorded);
    let load = |(unit, path): (&generated::Generated, &std::path::PathBuf)| {
        loader.load_image(&unit.name, ImageSource::File(path))
    };
    let _images = set.units.iter().zip(&set.images).map(load).collect::<std::result::Result<Vec<_>, _>>()?;
    passes(&names, there, |name| loader.resolve(name).map_or(0, |found| found.address))
}

fn peer_lookup(context: &Context, arguments: &[String]) -> Result<Vec<f64>> {
    let set = set(context)?;
    let (names, there) = names(&set, arguments)?;
    let names = names.into_iter().map(CString::new).collect::<std::result::Result<Vec<_>, _>>()?;
    let _libraries = set.images.iter().map(|path| open_for_all(path)).collect::<Result<Vec<_>>>()?;
    passes(&names, there, |name| find_for_all(name))
}

/// The median time of a pass over all names in microseconds; `find` gives an address, or nought.
fn passes<N>(names: &[N], there: bool, find: impl Fn(&N) -> usize) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for pass in 0..PASSES {
        let (time, found) = timed(|| Ok(names.iter().filter(|name| black_box(find(name)) != 0).count()))?;
        if found != if there { names.len() } else { 0 } {
            return Err(format!("{found} of {} names were found", names.len()).into());
        }
        if pass >= WARM_UP {
            times.push(time.as_secs_f64() * 1e6);
        }
    }
    Ok(vec![median(times)])
}
