//! Images on purpose: units that are linked into one file, which another process, or another program, maps.

use crate::error::Error;
use crate::input::{Compilation, Image, Kind, Load};
use crate::output;
use crate::report::Report;
use crate::runtime::Runtime;
use hotbed_loader::Loader;
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::cpu::CpuLevel;
use hotbed_loader::image::{ImageInterface, ImageSource, join, variants};
use hotbed_loader::store::Key;
use hotbed_loader::sys::files;
use std::borrow::Cow;
use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What goes into an image; from [`Runtime::image`], written by [`ImageBuilder::build`].
#[must_use]
pub struct ImageBuilder<'a> {
    runtime: &'a Runtime,
    path: PathBuf,
    name: Option<String>,
    compilation: Compilation,
    /// A unit that cannot be part of an image.
    unfit: Option<String>,
    dependencies: Vec<Image>,
    /// What it is made for; what the flags say if there is nothing.
    levels: Vec<CpuLevel>,
}

impl Runtime {
    /// An image in the file `path`, to be built.
    ///
    /// ```no_run
    /// use hotbed::{Image, Object, Source};
    ///
    /// # fn main() -> Result<(), hotbed::Error> {
    /// let runtime = hotbed::Runtime::builder().build()?;
    /// runtime.image("core.hbi").unit(Source::file("core.cpp").flags(["-O2"])).build()?;
    /// runtime
    ///     .image("game.hbi")
    ///     .unit(Source::file("game.cpp").flags(["-O2"]))
    ///     .unit(Object::file("old.o"))
    ///     .dependency(Image::file("core.hbi"))
    ///     .build()?;
    /// runtime.load(Image::file("game.hbi"))?;    // loads core.hbi too
    /// # Ok(())
    /// # }
    /// ```
    pub fn image(&self, path: impl AsRef<Path>) -> ImageBuilder<'_> {
        ImageBuilder {
            runtime: self,
            path: path.as_ref().to_owned(),
            name: None,
            compilation: Compilation::default(),
            unfit: None,
            dependencies: Vec::new(),
            levels: Vec::new(),
        }
    }
}

impl ImageBuilder<'_> {
    /// Adds a unit: sources, IR, bitcode, an object, an archive, or a program of several of these. The units become one, with the name of the first; their flags
    /// are taken together, in their order, as on one command line. Of an archive those members are taken that others refer
    /// to, unless it says otherwise or there are nothing but archives.
    pub fn unit(mut self, unit: impl Into<Load>) -> Self {
        let Load { name, kind, .. } = unit.into();
        match kind {
            Kind::Compile(compilation) | Kind::Lazy(compilation, _) => self.compilation.append(compilation),
            Kind::Archive(archive) => self.compilation.append(archive.linked()),
            Kind::Image(_) | Kind::Library(_) => {
                self.unfit.get_or_insert_with(|| name.clone());
            }
        }
        self.name.get_or_insert(name);
        self
    }

    /// Links it against another image, which is not made part of it. It is remembered by its name (its `SONAME`) and by its
    /// interface: what it exports, and the sizes of its variables. Loading this image loads that one too, unless a unit that is
    /// loaded is it; it is looked for beside this image, then where the libraries that this one needs are, and must have the same
    /// interface as now. What it looks like inside may have changed by then.
    pub fn dependency(mut self, image: Image) -> Self {
        self.dependencies.push(image);
        self
    }

    /// A symbol that has to be there even if it must be taken out of an archive.
    pub fn entry(mut self, symbol: impl Into<String>) -> Self {
        self.compilation.set_entry(symbol.into());
        self
    }

    /// Makes it for processors of this level; said several times, for each of these levels. All variants lie in the one file, of which a
    /// load takes the best that its processor can run, that with the widest vectors first; linkers, `dlopen` and tools see the
    /// least demanding one. What others can see of the image is the same in all, but for weak and inline functions, which may
    /// dissolve in some and are then not part of the interface. Levels that come to the same here
    /// ([`CpuLevel::Native`] and another one) are made once.
    ///
    /// ```no_run
    /// use hotbed::{CpuLevel, Source};
    ///
    /// # fn main() -> Result<(), hotbed::Error> {
    /// let runtime = hotbed::Runtime::builder().build()?;
    /// let image = runtime.image("filter.hbi").unit(Source::file("filter.cpp").flags(["-O3"]));
    /// image.cpu(CpuLevel::V1).cpu(CpuLevel::V3).cpu(CpuLevel::Native).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cpu(mut self, level: CpuLevel) -> Self {
        self.levels.push(level);
        self
    }

    /// Compiles and links without loading, and writes the image to its file, whose name becomes its `SONAME`. What is there is
    /// replaced as a whole, after the new image, and each variant of it, was mapped and relocated on trial.
    ///
    /// # Errors
    /// What is wrong with an input; that a unit is no input for a linker, or a dependency no image; that flags choose a processor
    /// and a [level](Self::cpu) does too; that users can see a difference between variants; that the file cannot be written.
    pub fn build(self) -> Result<Report, Error> {
        let Self { runtime, path, name, compilation, unfit, dependencies, levels } = self;
        let name = name.unwrap_or_else(|| path.to_string_lossy().into_owned());
        if let Some(unfit) = unfit {
            let message = format!("cannot make {unfit} part of an image: it is linked already");
            return Err(Error::of_failure(&unfit, Failure::new(FailureKind::Usage, message)));
        }
        let dependencies = dependencies
            .iter()
            .map(|image| Ok((&*image.name, image.contents()?)))
            .collect::<Result<Vec<(&str, Cow<'_, [u8]>)>, Error>>()?;
        let mut images = Vec::with_capacity(dependencies.len());
        for (name, contents) in &dependencies {
            let image = ImageInterface::of_file(contents)
                .map_err(|source| Error::Image { unit: (*name).to_owned(), source })?;
            images.push(image);
        }
        let (mut made, mut report) = (Vec::new(), None);
        for level in different(levels) {
            let mut request = runtime.image_request(compilation.clone(), &name, level)?;
            // What is linked against the image will look for it by the name of its file.
            request.soname = path.file_name().map(|name| name.to_string_lossy().into_owned());
            request.images = images.clone();
            let request = Arc::new(request);
            let one = runtime.make(&request, &Key::of(&request))?;
            made.push(files::contents(one.image.as_fd()).map_err(|error| Error::read(&name, &path, &error))?);
            match &mut report {
                None => report = Some(one.report),
                Some(report) => report.add_variant(one.report),
            }
        }
        let refuse = |kind, what: &dyn fmt::Display| {
            let message = format!("cannot build {}: {what}", path.display());
            Error::of_failure(&name, Failure::new(kind, message))
        };
        let file = join(made).map_err(|error| refuse(FailureKind::Link, &error))?;
        for variant in variants(&file).map_err(|error| refuse(FailureKind::Internal, &error))? {
            let own = (&*name, ImageSource::Bytes(variant.bytes));
            let others = dependencies.iter().map(|(name, contents)| (*name, ImageSource::Bytes(contents)));
            let sources: Vec<_> = std::iter::once(own).chain(others).collect();
            Loader::dry_run(&sources).map_err(|error| {
                let what = format!("what came of it for {} does not load: {error}", variant.requires);
                refuse(FailureKind::Internal, &what)
            })?;
        }
        output::write_image(&file, &path)?;
        Ok(report.unwrap_or_default())
    }
}

/// The levels that are to be compiled for, without those that come to the same as one before; one without a name if none is given.
fn different(levels: Vec<CpuLevel>) -> Vec<Option<CpuLevel>> {
    let mut different: Vec<CpuLevel> = Vec::with_capacity(levels.len());
    for level in levels {
        if different.iter().all(|known| known.features() != level.features()) {
            different.push(level);
        }
    }
    if different.is_empty() { vec![None] } else { different.into_iter().map(Some).collect() }
}
