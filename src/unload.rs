//! Unloading units: what may stand in the way, and what a caller may want done about it.

use crate::error::Error;
use crate::pending::Pending;
use crate::runtime::{self, Runtime};
use crate::unit::{Body, Unit};
use hotbed_loader::image::wait_for_change;
use hotbed_loader::{Image, Library};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to do about what stands in the way of unloading: symbols that are held, units and libraries that are bound to the
/// unit, threads that have destructors of its `thread_local` objects to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unload(How);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Refusing,
    Waiting(Duration),
    Forced,
}

impl Unload {
    /// Unload only what nothing keeps.
    pub fn refusing() -> Self {
        Self(How::Refusing)
    }

    /// Wait until nothing keeps it any more; refuse when something still does after `limit`. What other threads have to call
    /// is called when they end, so a thread must not wait for itself.
    pub fn waiting(limit: Duration) -> Self {
        Self(How::Waiting(limit))
    }

    /// Unload it all the same. Where other units are bound to it they are led to traps: calling a function of it, or using a
    /// `thread_local` variable of it, ends the process (`SIGABRT`) with a message that names the symbol, its unit and the
    /// user; its variables lie where nobody has access. The addresses where it was stay taken, so that a pointer to it faults
    /// and never leads to something else. Destructors of other threads' `thread_local` objects are never called.
    ///
    /// No thread may be in code of the unit, or call it meanwhile. Shared libraries are the system's and cannot be unloaded
    /// like this while somebody uses them.
    pub fn forced() -> Self {
        Self(How::Forced)
    }
}

/// Why a unit cannot be unloaded.
struct Refusal {
    unit: String,
    reason: String,
    /// Whether that may change.
    passes: bool,
}

/// Unloads units that are loaded by one runtime.
///
/// # Errors
/// What stands in the way; then nothing is unloaded.
pub(crate) fn together(units: &[Unit], how: Unload) -> Result<(), Error> {
    let mut units = units.to_vec();
    // Locks are taken in this order.
    units.sort_by_key(Unit::sequence);
    units.dedup_by(|one, other| one.is(other));
    let began = Instant::now();
    let bodies = loop {
        let attempted = {
            // Nothing that is pending must be loaded in between.
            let pending = units.iter().find(|unit| unit.pending().is_some());
            let runtime = pending.and_then(|unit| Runtime::upgrade(unit.runtime()));
            let _right = runtime.as_ref().map(Runtime::right_to_pull);
            attempt(&units, how)
        };
        let refusal = match attempted {
            Ok(bodies) => break bodies,
            Err(refusal) => refusal,
        };
        match how.0 {
            How::Waiting(limit) if refusal.passes && began.elapsed() < limit => {
                wait_for_change(limit.saturating_sub(began.elapsed()));
            }
            _ => return Err(Error::Unload { unit: refusal.unit, reason: refusal.reason }),
        }
    };
    for unit in &units {
        if let Some(runtime) = unit.runtime().upgrade() {
            runtime::forget(&runtime, unit);
        }
    }
    // Destructors in the reverse order of constructors. They may call anything, this runtime too: no lock is held.
    for body in bodies.into_iter().rev() {
        if let Body::Pending(pending) = &body {
            pending.take_images().into_iter().rev().for_each(drop);
        }
    }
    Ok(())
}

/// What is loaded of several units, taken out of them in their order.
struct Taken {
    images: Vec<Arc<Image>>,
    libraries: Vec<Arc<Library>>,
    units: Vec<What>,
}

/// What a unit is.
enum What {
    Image,
    Library,
    /// An archive or a lazy library, of which so many images were made.
    Pending(Arc<Pending>, usize),
}

impl What {
    /// How many images or libraries it has.
    fn count(&self, images: bool) -> usize {
        match self {
            Self::Image => usize::from(images),
            Self::Library => usize::from(!images),
            Self::Pending(_, count) => {
                if images {
                    *count
                } else {
                    0
                }
            }
        }
    }
}

impl Taken {
    fn add(&mut self, body: Body) {
        self.units.push(match body {
            Body::Image(image) => {
                self.images.push(image);
                What::Image
            }
            Body::Library(library) => {
                self.libraries.push(library);
                What::Library
            }
            Body::Pending(pending) => {
                let images = pending.take_images();
                let count = images.len();
                self.images.extend(images);
                What::Pending(pending, count)
            }
        });
    }

    fn into_bodies(self) -> impl Iterator<Item = Body> {
        let (mut images, mut libraries) = (self.images.into_iter(), self.libraries.into_iter());
        self.units.into_iter().filter_map(move |unit| match unit {
            What::Image => images.next().map(Body::Image),
            What::Library => libraries.next().map(Body::Library),
            What::Pending(pending, count) => {
                pending.give_back(images.by_ref().take(count).collect());
                Some(Body::Pending(pending))
            }
        })
    }

    /// The unit of an image or a library.
    fn place(&self, image: bool, number: usize) -> usize {
        let mut seen = 0;
        let at = self.units.iter().position(|unit| {
            seen += unit.count(image);
            seen > number
        });
        at.unwrap_or(0)
    }

    /// The first library that somebody else holds.
    fn shared_library(&self) -> Option<(usize, Arc<Library>)> {
        let used = |library: &Arc<Library>| {
            let within = self.images.iter().filter(|image| image.is_bound_to_library(library)).count();
            Arc::strong_count(library) > 1 + within + usize::from(library.is_kept())
        };
        let number = self.libraries.iter().position(used)?;
        Some((self.place(false, number), Arc::clone(&self.libraries[number])))
    }
}

/// Takes what is loaded out of the units, if nothing stands in the way.
fn attempt(units: &[Unit], how: Unload) -> Result<Vec<Body>, Refusal> {
    let forced = how.0 == How::Forced;
    let refuse = |at: usize, reason: String, passes| {
        let unit = units.get(at).map_or_else(String::new, |unit| unit.name().to_owned());
        Refusal { unit, reason, passes }
    };
    let mut places: Vec<_> = units.iter().map(|unit| unit.body().write()).collect();
    if let Some(at) = places.iter().position(|body| body.is_none()) {
        return Err(refuse(at, "it is unloaded already".into(), false));
    }
    if let Some(at) = units.iter().position(|unit| unit.held() > 0 && !forced) {
        return Err(refuse(at, format!("{} of its symbols are held", units[at].held()), true));
    }
    // Taken out, so that nobody but the owner holds anything.
    let mut taken = Taken { images: Vec::new(), libraries: Vec::new(), units: Vec::new() };
    places.iter_mut().filter_map(|body| body.take()).for_each(|body| taken.add(body));
    let library = taken.shared_library();
    let image = match &library {
        Some(_) => None,
        // Units that are being started may be waited for, and may ask for these.
        None if forced => {
            drop(places);
            let failed = Image::retire_by_force(&taken.images).err();
            places = units.iter().map(|unit| unit.body().write()).collect();
            failed.map(|error| refuse(taken.place(true, 0), error.to_string(), false))
        }
        None => Image::retire_together(&taken.images)
            .err()
            .map(|obstacles| refuse(taken.place(true, obstacles.image), obstacles.to_string(), true)),
    };
    if library.is_none() && image.is_none() {
        for unit in &taken.units {
            if let What::Pending(pending, _) = unit {
                pending.namespace().remove_pending(pending);
            }
        }
        return Ok(taken.into_bodies().collect());
    }
    for (place, body) in places.iter_mut().zip(taken.into_bodies()) {
        **place = Some(body);
    }
    // Looking at other units takes their locks.
    drop(places);
    Err(match (library, image) {
        (Some((at, library)), _) => refuse(at, bound_to(&library, units), !forced),
        (None, Some(refusal)) => refusal,
        (None, None) => refuse(0, "it is in use".into(), true),
    })
}

/// Who is bound to a library of one of these units, in words.
fn bound_to(library: &Arc<Library>, units: &[Unit]) -> String {
    let runtime = units.first().and_then(|unit| unit.runtime().upgrade());
    let users: Vec<String> = runtime
        .iter()
        .flat_map(|runtime| runtime::units(runtime))
        .filter(|unit| !units.iter().any(|other| other.is(unit)))
        .filter(|unit| unit.images().iter().any(|image| image.is_bound_to_library(library)))
        .map(|unit| unit.name().to_owned())
        .collect();
    match users.as_slice() {
        [] => "other units are bound to it".to_owned(),
        [user] => format!("{user} is bound to it"),
        users => format!("{} are bound to it", users.join(", ")),
    }
}
