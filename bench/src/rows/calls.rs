//! What a call through an import costs once it is bound: the same two sources, as images, and as shared libraries whose
//! imports go through a procedure linkage table that is bound at the first call.

use super::image::{Address, loader};
use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, timed};
use crate::peers::shared_library::{LibraryPath, SharedLibrary};
use crate::process::{clang, output_of};
use crate::row::{Outcome, Row, Unit};
use hotbed_loader::image::ImageSource;
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// See [`import_call`].
pub(super) const IMPORT_CALL: Row = Row {
    id: "loader.import-call",
    what: "100,000 calls, in a loop in one image, of a function in another, after the first call",
    peer: "the same sources as shared libraries, -z lazy, RTLD_LAZY: through a PLT",
    unit: Unit::Microseconds,
    run: import_call,
};

const CALLEE: &str = "int callee(int x) { return x + 1; }\n";
const CALLER: &str = "int callee(int);\n\
                      int caller(int n) { int x = 0; for (int i = 0; i < n; i++) x = callee(x); return x; }\n";
const CALLS: c_int = 100_000;
/// Both sides alike; loops begin where a block of the instruction cache does.
const FLAGS: [&str; 3] = ["-O2", "-fPIC", "-falign-loops=32"];

/// `caller` above.
type Caller = unsafe extern "C" fn(c_int) -> c_int;

fn import_call(context: &Context) -> Result<Outcome> {
    let sources = [("callee", CALLEE), ("caller", CALLER)];
    let mut paths = Vec::new();
    for (name, text) in sources {
        let source = context.write(&format!("{name}.c"), text)?;
        paths.push((image(context, name, &source)?, library(context, name, &source)?));
    }
    let [(our_callee, peer_callee), (our_caller, peer_caller)] = paths.as_slice() else {
        return Err("there are two sources".into());
    };

    let loader = loader(Address::Recorded);
    let _callee = loader.load_image("callee", ImageSource::File(our_callee))?;
    let image = loader.load_image("caller", ImageSource::File(our_caller))?;
    let ours = image.get("caller").ok_or("the image has no caller")?.address;
    let open =
        |path: &Path, scope| SharedLibrary::open_with(&LibraryPath::new(path)?, libc::RTLD_LAZY | scope);
    let _library = open(peer_callee, libc::RTLD_GLOBAL)?;
    let library = open(peer_caller, libc::RTLD_LOCAL)?;
    let peers = library.address(c"caller")?;
    let run = |address: usize| -> Result<Duration> {
        // SAFETY: the address is that of `caller`, of the image or of the library, which stay loaded; it has this type.
        let caller = unsafe { std::mem::transmute::<usize, Caller>(address) };
        // SAFETY: it needs nothing but its import, which is bound or binds itself.
        let (time, sum) = timed(|| Ok(unsafe { caller(CALLS) }))?;
        if sum == CALLS { Ok(time) } else { Err(format!("the loop gives {sum}").into()) }
    };
    Turns::TINY.compare(Unit::Microseconds, || run(ours), || run(peers))
}

fn image(context: &Context, name: &str, source: &Path) -> Result<PathBuf> {
    let image = context.scratch_path(&format!("{name}.hbi"));
    let mut build = context.hotbed(&["image", "build", "-o"]);
    output_of(build.arg(&image).args(FLAGS).arg(source))?;
    Ok(image)
}

fn library(context: &Context, name: &str, source: &Path) -> Result<PathBuf> {
    let library = context.scratch_path(&format!("lib{name}.so"));
    let mut compile = clang(["-shared", "-Wl,-z,lazy", "-o"])?;
    output_of(compile.arg(&library).args(FLAGS).arg(source))?;
    Ok(library)
}
