//! Fifty different images in a row, as a host loads its plugins: the time, and the memory they add.
//!
//! The images are generated units with 20 to 200 functions, imports from the C and maths libraries and relocated data, whose
//! entry is called once. All stay loaded until the last is; unloading is not in the figures. Memory is counted in a process
//! of its own for each side, after some further images have been loaded and called there, so that the code of the loader
//! itself, which is part of the program, and that of the dynamic linker, which has run before, do not count. (Several: the
//! first of all has no others beside it, so that not all of the code runs, and what the system brings in with one page of
//! code is four per cent of the figure.)

use super::image::{Address, loader};
use crate::Result;
use crate::context::Context;
use crate::generated::{self, Set};
use crate::measure::{Turns, timed};
use crate::memory::resident;
use crate::peers::shared_library::{Entry, LibraryPath, SharedLibrary};
use crate::row::{Outcome, Row, Unit};
use crate::side::Side;
use hotbed_loader::image::ImageSource;
use hotbed_loader::{Image, Loader};
use std::ffi::{CString, c_int};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// See [`images_50`].
pub(super) const IMAGES_50: Row = Row {
    id: "loader.images-50",
    what: "50 different images (20 to 200 functions each) loaded in a row, one call each",
    peer: "the same 50 with dlopen(RTLD_NOW, RTLD_LOCAL) + dlsym + call",
    unit: Unit::Microseconds,
    run: images_50,
};

/// See [`images_50_memory`].
pub(super) const IMAGES_50_MEMORY: Row = Row {
    id: "loader.images-50-memory",
    what: "resident memory (Rss) that the 50 images add, in a process of its own",
    peer: "the same 50 with dlopen, in a process of its own",
    unit: Unit::Kilobytes,
    run: images_50_memory,
};

/// Our side of [`IMAGES_50_MEMORY`].
pub(super) const OUR_MEMORY: Side = Side { id: "loader.images-50-memory.ours", work: our_memory };
/// The peer's side of [`IMAGES_50_MEMORY`].
pub(super) const PEER_MEMORY: Side = Side { id: "loader.images-50-memory.peer", work: peer_memory };

/// How many images are loaded for warming up.
const WARM: usize = 4;
/// Those that count: fifty.
const COUNTED: Range<usize> = WARM..WARM + 50;

/// The images, those for warming up first; what they need is open.
struct Fifty {
    set: Set,
    /// File and entry of each, as the dynamic linker takes them.
    targets: Vec<(LibraryPath, CString)>,
    _math: SharedLibrary,
}

impl Fifty {
    fn new(context: &Context) -> Result<Self> {
        let set = generated::images(context, COUNTED.end, 20, 200)?;
        let target = |(unit, image): (&generated::Generated, _)| {
            Ok((LibraryPath::new(image)?, CString::new(unit.entry.as_str())?))
        };
        let targets = set
            .units
            .iter()
            .zip(set.images.iter().map(|path| path.as_path()))
            .map(target)
            .collect::<Result<_>>()?;
        Ok(Self { set, targets, _math: SharedLibrary::open(&LibraryPath::new("libm.so.6".as_ref())?)? })
    }

    /// Loads an image and calls its entry.
    fn load(&self, loader: &Loader, at: usize) -> Result<(Arc<Image>, c_int)> {
        let unit = &self.set.units[at];
        let image = loader.load_image(&unit.name, ImageSource::File(&self.set.images[at]))?;
        let entry = image.get(&unit.entry).ok_or("the image has no entry")?;
        // SAFETY: every generated unit defines its entry with this type.
        let entry = unsafe { std::mem::transmute::<usize, Entry>(entry.address) };
        // SAFETY: it takes nothing and returns a constant.
        let number = unsafe { entry() };
        Ok((image, number))
    }

    /// Opens an image with the dynamic linker and calls its entry.
    fn open(&self, at: usize) -> Result<(SharedLibrary, c_int)> {
        let (path, entry) = &self.targets[at];
        let library = SharedLibrary::open(path)?;
        let entry = library.entry(entry)?;
        // SAFETY: as in `load`.
        let number = unsafe { entry() };
        Ok((library, number))
    }

    /// Takes those that count, with the time.
    fn all<T>(&self, mut one: impl FnMut(usize) -> Result<(T, c_int)>) -> Result<(Duration, Vec<T>)> {
        let mut loaded = Vec::with_capacity(COUNTED.len());
        let (time, sum) = timed(|| {
            let mut sum = 0;
            for at in COUNTED {
                let (image, number) = one(at)?;
                loaded.push(image);
                sum += number;
            }
            Ok(sum)
        })?;
        if sum as usize != COUNTED.sum() {
            return Err(format!("the entries give {sum} in all").into());
        }
        Ok((time, loaded))
    }
}

fn images_50(context: &Context) -> Result<Outcome> {
    let fifty = Fifty::new(context)?;
    let loader = loader(Address::Recorded);
    Turns::QUICK.compare(
        Unit::Microseconds,
        || Ok(fifty.all(|at| fifty.load(&loader, at))?.0),
        || {
            let (time, libraries) = fifty.all(|at| fifty.open(at))?;
            drop(libraries);
            // Were they still open, the next turn would measure nothing.
            let open = fifty.targets[COUNTED].iter().any(|target| target.0.is_open());
            if open { Err("dlclose leaves an image open".into()) } else { Ok(time) }
        },
    )
}

fn images_50_memory(context: &Context) -> Result<Outcome> {
    // Built now, so that no side does it.
    drop(Fifty::new(context)?);
    Turns::PROCESSES.compare_figures(|| OUR_MEMORY.figure(context, &[]), || PEER_MEMORY.figure(context, &[]))
}

fn our_memory(context: &Context, _: &[String]) -> Result<Vec<f64>> {
    let fifty = Fifty::new(context)?;
    let loader = loader(Address::Recorded);
    let _warm = (0..WARM).map(|at| fifty.load(&loader, at)).collect::<Result<Vec<_>>>()?;
    added(|| fifty.all(|at| fifty.load(&loader, at)))
}

fn peer_memory(context: &Context, _: &[String]) -> Result<Vec<f64>> {
    let fifty = Fifty::new(context)?;
    let _warm = (0..WARM).map(|at| fifty.open(at)).collect::<Result<Vec<_>>>()?;
    added(|| fifty.all(|at| fifty.open(at)))
}

/// The resident memory that is there after `load` and was not before.
fn added<T>(load: impl FnOnce() -> Result<T>) -> Result<Vec<f64>> {
    // Once for what reading it touches.
    resident()?;
    let before = resident()?;
    let loaded = load()?;
    let after = resident()?;
    drop(loaded);
    Ok(vec![after - before])
}
