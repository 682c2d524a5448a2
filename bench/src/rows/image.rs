//! An image from a file to the end of its first call, against `dlopen` of that very file: as it is, at its recorded address,
//! in a process with many libraries, and against the floor that the kernel sets.
//!
//! The image is sqlite3, sealed. What it needs (libc, libm) is open already on both sides. The clock stops when the function
//! has been called; unloading and closing are not in the figures.

use crate::Result;
use crate::context::Context;
use crate::generated;
use crate::measure::{Turns, timed};
use crate::peers::floor::Floor;
use crate::peers::shared_library::{Callee, Entry, LibraryPath, SharedLibrary, open_for_all};
use crate::process::output_of;
use crate::row::{Outcome, Row, Unit};
use hotbed_loader::image::ImageSource;
use hotbed_loader::{Loader, LoaderOptions};
use std::ffi::c_int;
use std::path::PathBuf;
use std::time::Duration;

/// The row of the first whole path: what a user gets who asks for nothing.
pub(super) const FIRST_IMAGE_CALL: Row = Row {
    id: "first.image-call",
    what: "sqlite3 image (sealed, -O0) mapped, bound, initialised, one call; its dependencies are open already",
    peer: PEER,
    unit: Unit::Microseconds,
    run: |context| against_dlopen(context, Address::Recorded, 0),
};

/// Mapped wherever there is room.
pub(super) const IMAGE_CALL: Row = Row {
    id: "loader.image-call",
    what: "sqlite3 image (sealed, -O0) at any address: mapped, bound, RELRO and unwind tables done, one call",
    peer: PEER,
    unit: Unit::Microseconds,
    run: |context| against_dlopen(context, Address::Any, 0),
};

/// Mapped at the address that is recorded in it.
pub(super) const IMAGE_CALL_PREFERRED: Row = Row {
    id: "loader.image-call-preferred",
    what: "the same at its recorded address",
    peer: PEER,
    unit: Unit::Microseconds,
    run: |context| against_dlopen(context, Address::Recorded, 0),
};

/// See [`Floor`].
pub(super) const IMAGE_FLOOR: Row = Row {
    id: "loader.image-floor",
    what: "the same at its recorded address",
    peer: "a bare loop with only the system calls and page touches that it cannot do without",
    unit: Unit::Microseconds,
    run: against_floor,
};

/// As in a host with many plugins.
pub(super) const IMAGE_CALL_CROWDED: Row = Row {
    id: "loader.image-call-crowded",
    what: "the same in a process that has 100 other libraries open for everybody",
    peer: PEER,
    unit: Unit::Microseconds,
    run: |context| against_dlopen(context, Address::Recorded, CROWD),
};

const PEER: &str = "dlopen(RTLD_NOW, RTLD_LOCAL) + dlsym + call of that very file";

/// How many libraries a crowded process has.
const CROWD: usize = 100;

/// A function of sqlite3 that needs nothing set up.
const VERSION: &std::ffi::CStr = c"sqlite3_libversion_number";

/// Where an image goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// Anywhere.
    Any,
    /// Where it was linked for, if there is room.
    Recorded,
}

/// A loader that puts images there.
pub(super) fn loader(address: Address) -> Loader {
    let preferred_addresses = address == Address::Recorded;
    Loader::new(LoaderOptions { preferred_addresses, ..LoaderOptions::default() })
}

/// The image, its function, and what that gives.
struct Sqlite {
    image: PathBuf,
    callee: Callee,
    expected: c_int,
    _math: SharedLibrary,
}

impl Sqlite {
    /// Builds the image and opens what it needs.
    fn new(context: &Context) -> Result<Self> {
        let sqlite = context.library("sqlite3")?;
        let image = context.scratch_path("sqlite3.hbi");
        let mut build = context.hotbed(&["image", "build", "-o"]);
        let build = build.arg(&image).args(["-w", "-O0"]);
        output_of(build.args(&sqlite.flags).args(&sqlite.files).args(&sqlite.libraries))?;
        // The bench itself needs libc, and libm is opened here for both sides.
        let math = SharedLibrary::open(&LibraryPath::new("libm.so.6".as_ref())?)?;
        let callee = Callee::new(image.clone(), VERSION)?;
        let expected = callee.open_and_call()?.1;
        Ok(Self { image, callee, expected, _math: math })
    }

    /// Our side.
    fn load(&self, loader: &Loader) -> Result<Duration> {
        let (time, (mapped, version)) = timed(|| {
            let mapped = loader.load_image("sqlite3", ImageSource::File(&self.image))?;
            let function = mapped.get("sqlite3_libversion_number").ok_or("the image has no such function")?;
            // SAFETY: the address is that of sqlite3_libversion_number, whose type sqlite3.h gives.
            let entry = unsafe { std::mem::transmute::<usize, Entry>(function.address) };
            // SAFETY: it takes nothing and returns a constant.
            let version = unsafe { entry() };
            Ok((mapped, version))
        })?;
        drop(mapped);
        self.expect(version)?;
        Ok(time)
    }

    /// The dynamic linker's.
    fn open(&self) -> Result<Duration> {
        let (time, (library, version)) = timed(|| self.callee.open_and_call())?;
        drop(library);
        self.expect(version)?;
        // Were it still open, the next turn would measure nothing.
        if self.callee.is_open() { Err("dlclose leaves the image open".into()) } else { Ok(time) }
    }

    fn expect(&self, version: c_int) -> Result<()> {
        let expected = self.expected;
        let same = version == expected;
        same.then_some(()).ok_or_else(|| format!("the call gives {version} and not {expected}").into())
    }
}

fn against_dlopen(context: &Context, address: Address, crowd: usize) -> Result<Outcome> {
    let sqlite = Sqlite::new(context)?;
    let crowd = if crowd > 0 { generated::libraries(context, crowd)? } else { Vec::new() };
    let _crowd = crowd.iter().map(|library| open_for_all(library)).collect::<Result<Vec<_>>>()?;
    let loader = loader(address);
    Turns::TINY.compare(Unit::Microseconds, || sqlite.load(&loader), || sqlite.open())
}

fn against_floor(context: &Context) -> Result<Outcome> {
    let sqlite = Sqlite::new(context)?;
    let floor = Floor::new(&sqlite.image, VERSION.to_str()?)?;
    let loader = loader(Address::Recorded);
    let bare = || {
        let (time, version) = floor.time()?;
        sqlite.expect(version)?;
        Ok(time)
    };
    Turns::TINY.compare(Unit::Microseconds, || sqlite.load(&loader), bare)
}
