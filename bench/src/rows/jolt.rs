//! Large images: Jolt, and all libraries at once.

use super::image::{Address, loader};
use crate::Result;
use crate::context::Context;
use crate::elf::Elf;
use crate::measure::{Turns, median, timed};
use crate::peers::shared_library::{LibraryPath, SharedLibrary};
use crate::process::output_of;
use crate::programs::{JOLT, LIBRARIES, package};
use crate::row::{Outcome, Peer, Row, Unit};
use hotbed_loader::image::ImageSource;
use hotbed_loader::image::note::seal;
use object::elf::{DT_INIT_ARRAYSZ, DT_NEEDED, DT_STRTAB};
use std::path::{Path, PathBuf};

/// See [`bind`].
pub(super) const BIND: Row = Row {
    id: "image.jolt-bind",
    what: "Jolt image (-O0, its table of constructors emptied) mapped and bound; its dependencies are open already",
    peer: "dlopen(RTLD_NOW, RTLD_LOCAL) of that very file",
    unit: Unit::Microseconds,
    run: bind,
};

/// See [`private_memory`].
pub(super) const PRIVATE_MEMORY: Row = Row {
    id: "image.private-memory",
    what: "Private_Dirty of a `hotbed run` that has started the images (-O0 -g) of all eight libraries, whole process",
    peer: "",
    unit: Unit::Megabytes,
    run: private_memory,
};

/// Least size of all images together, in bytes.
const LEAST: u64 = 40 << 20;

/// How often the process is started.
const RUNS: usize = 7;

/// Says what it has for itself, and is the program of the run.
const OWN_MEMORY: &str = r#"
#include <stdio.h>
int main(void) {
  char line[256];
  long kilobytes;
  FILE *file = fopen("/proc/self/smaps_rollup", "r");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "Private_Dirty: %ld", &kilobytes) == 1) {
      printf("%ld\n", kilobytes);
      return 0;
    }
  return 1;
}
"#;

fn bind(context: &Context) -> Result<Outcome> {
    let whole = std::fs::read(package(context, JOLT)?)?;
    let image = context.scratch_path("jolt.hbi");
    std::fs::write(&image, without_constructors(&whole)?)?;
    let _needed = needed(&whole)?.iter().map(|path| SharedLibrary::open(path)).collect::<Result<Vec<_>>>()?;
    let path = LibraryPath::new(&image)?;
    let loader = loader(Address::Recorded);
    Turns::QUICK.compare(
        Unit::Microseconds,
        || {
            let (time, mapped) = timed(|| Ok(loader.load_image("jolt", ImageSource::File(&image))?))?;
            drop(mapped);
            Ok(time)
        },
        || {
            let (time, library) = timed(|| SharedLibrary::open(&path))?;
            drop(library);
            // Were it still open, the next turn would measure nothing.
            if path.is_open() { Err("dlclose leaves the image open".into()) } else { Ok(time) }
        },
    )
}

/// A copy of an image whose table of constructors is empty.
fn without_constructors(image: &[u8]) -> Result<Vec<u8>> {
    let place = Elf::new(image)?.place_of_tag(DT_INIT_ARRAYSZ.0)?;
    let mut copy = image.to_vec();
    copy[place..place + 8].fill(0);
    seal(&mut copy)?;
    Ok(copy)
}

/// The libraries that an image needs.
fn needed(image: &[u8]) -> Result<Vec<LibraryPath>> {
    let elf = Elf::new(image)?;
    let strings = elf.tag(DT_STRTAB.0).ok_or("the image has no names")?;
    let names = elf.tags(DT_NEEDED.0).map(|name| elf.text(strings + name));
    names.map(|name| LibraryPath::new(Path::new(std::str::from_utf8(name?)?))).collect()
}

fn private_memory(context: &Context) -> Result<Outcome> {
    let source = context.write("memory.c", OWN_MEMORY)?;
    let program = context.scratch_path("memory.hbi");
    output_of(context.hotbed(&["image", "build", "-O2", "-o"]).arg(&program).arg(source))?;
    let mut images: Vec<PathBuf> = Vec::new();
    for name in LIBRARIES.into_iter().chain([JOLT]) {
        images.push(package(context, name)?);
    }
    let sizes = images.iter().map(|image| Ok(image.metadata()?.len())).collect::<Result<Vec<_>>>()?;
    let size: u64 = sizes.iter().sum();
    if size < LEAST {
        return Err(format!("the images have {size} bytes together and shall have {LEAST}").into());
    }
    let run = || -> Result<f64> {
        let output = output_of(context.hotbed_run("store").arg(&program).args(&images))?.output;
        let kilobytes: f64 = String::from_utf8(output)?.trim().parse()?;
        Ok(kilobytes / 1024.0)
    };
    // The first copies the images into the store.
    run()?;
    let figures = (0..RUNS).map(|_| run()).collect::<Result<Vec<_>>>()?;
    Ok(Outcome { n: figures.len(), ours: median(figures), peer: Peer::None })
}
