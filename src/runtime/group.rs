//! Images on their way into a namespace, together: mapped, bound to each other and to whoever is there, started. What nobody
//! has is looked for in what is pending and in libraries on demand, as often as that helps.

mod pull;

pub(super) use pull::{Failed, Search};

use super::Runtime;
use crate::error::Error;
use crate::namespace::Namespace;
use crate::pending::{Claim, Exports};
use crate::report::Report;
use crate::unit::Making;
use hotbed_loader::boundary::Request;
use hotbed_loader::image::ImageSource;
use hotbed_loader::store::Key;
use hotbed_loader::sys::files;
use hotbed_loader::sys::sync::ReentrantGuard;
use hotbed_loader::{Image, Layer, Library, LoadError, Unresolved, near_misses};
use pull::Pulled;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// An image that waits to be mapped.
pub(super) struct Piece {
    pub(super) name: String,
    pub(super) source: Source,
    /// What it was made of, if it is a lazy image.
    pub(super) request: Option<Arc<Request>>,
}

/// Where its contents are.
pub(super) enum Source {
    /// A file that nobody changes, of the store or in memory, which goes by the name `path`.
    Copy { file: OwnedFd, path: PathBuf },
    /// Memory.
    Bytes(Vec<u8>),
}

/// Images that are loaded together.
pub(super) struct Group<'a> {
    runtime: &'a Runtime,
    namespace: &'a Namespace,
    pieces: Vec<Piece>,
    /// What was pending in this namespace.
    pulled: Vec<Pulled>,
    /// What was pending and cannot be made.
    failed: Vec<Failed>,
    /// Held until the images are bound and hold what they are bound to.
    opened: Vec<Arc<Library>>,
    /// The right to load what is pending, once there was need for it.
    right: Option<ReentrantGuard<'a>>,
    /// Pieces that were made once more, by their names.
    remade: Vec<(String, Report)>,
}

/// A group that is loaded.
pub(super) struct Loaded<'a> {
    /// The images in the order of the pieces.
    pub(super) images: Vec<Arc<Image>>,
    pulled: Vec<(Claim, Arc<Image>, Making)>,
    /// Until it is known what is loaded of what was pending.
    right: Option<ReentrantGuard<'a>>,
    /// What was made once more, and what that came to.
    pub(super) remade: Vec<(String, Report)>,
}

impl Loaded<'_> {
    /// Makes what was pending and came with it a part of its units.
    pub(super) fn keep(self) -> Vec<Arc<Image>> {
        self.pulled.into_iter().for_each(|(claim, image, making)| claim.keep(image, making));
        drop(self.right);
        self.images
    }

    /// Unloads everything again.
    pub(super) fn undo(self) {
        let Self { mut images, pulled, right, remade: _ } = self;
        let (claims, members): (Vec<_>, Vec<_>) =
            pulled.into_iter().map(|(claim, image, _)| (claim, image)).unzip();
        images.extend(members);
        // What another thread has been bound to in the meantime stays as long as that.
        // Whoever is bound to one keeps it; it ends with him.
        let _ = Image::retire_together(&images);
        images.into_iter().rev().for_each(drop);
        drop(claims);
        drop(right);
    }
}

impl Piece {
    fn source(&self) -> ImageSource<'_> {
        match &self.source {
            Source::Copy { file, path } => ImageSource::Descriptor { file: file.as_fd(), path },
            Source::Bytes(bytes) => ImageSource::Bytes(bytes),
        }
    }

    /// Brings it into memory.
    fn move_to_memory(&mut self) -> Result<(), Error> {
        if let Source::Copy { file, path } = &mut self.source {
            *file = files::contents(file.as_fd())
                .and_then(|bytes| files::memory_copy(&self.name, &bytes))
                .map_err(|e| Error::read(&self.name, path, &e))?;
        }
        Ok(())
    }

    /// The names that it exports; none where it is damaged, which mapping it will find out.
    fn exports(&self) -> Vec<String> {
        let exports = match &self.source {
            Source::Bytes(bytes) => Exports::of(bytes),
            Source::Copy { file, .. } => Exports::of(&files::contents(file.as_fd()).unwrap_or_default()),
        };
        exports.names().map(str::to_owned).collect()
    }
}

impl<'a> Group<'a> {
    pub(super) fn new(runtime: &'a Runtime, namespace: &'a Namespace) -> Self {
        let (pieces, pulled, failed, opened) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { runtime, namespace, pieces, pulled, failed, opened, right: None, remade: Vec::new() }
    }

    pub(super) fn add(&mut self, piece: Piece) {
        self.pieces.push(piece);
    }

    /// Loads it.
    ///
    /// # Errors
    /// What is wrong with an image, or what nobody has; nothing is loaded then.
    pub(super) fn load(mut self) -> Result<Loaded<'a>, Error> {
        if self.pieces.is_empty() && self.pulled.is_empty() {
            return Ok(Loaded {
                images: Vec::new(),
                pulled: Vec::new(),
                right: self.right,
                remade: self.remade,
            });
        }
        let _span = tracing::debug_span!("map").entered();
        let (mut in_memory, mut waited) = (false, false);
        let mut images = loop {
            let pieces = self.pieces.iter().chain(self.pulled.iter().map(|pulled| &pulled.piece));
            let sources: Vec<_> = pieces.map(|piece| (&*piece.name, piece.source())).collect();
            let error = match self.runtime.loader().load_images(Some(self.namespace.loader()), &sources) {
                Ok(images) => break images,
                Err(error) => error,
            };
            match error {
                // The store may be on a file system that nothing can be executed from.
                error if is_refused(&error) && !in_memory => {
                    in_memory = true;
                    self.all_pieces().try_for_each(Piece::move_to_memory)?;
                }
                LoadError::CalledEarly { .. } if self.all_pieces().any(|piece| piece.request.is_some()) => {
                    self.make_whole()?;
                }
                LoadError::Unresolved { unit, mut symbols, asked } => {
                    let waits = !waited && self.right.is_none();
                    if self.find(&unit, &symbols)? {
                        continue;
                    }
                    // Whoever had the right to load members may have loaded these.
                    if waits && self.right.is_some() {
                        waited = true;
                        continue;
                    }
                    let names = symbols.iter().map(|symbol| &*symbol.name);
                    if let Some(error) = self.failure(&unit, names) {
                        return Err(error);
                    }
                    self.add_near_misses(&mut symbols);
                    let asked = self.asked(&asked);
                    return Err(bind_error(&self.pieces, LoadError::Unresolved { unit, symbols, asked }));
                }
                error => return Err(bind_error(&self.pieces, error)),
            }
        };
        let members = images.split_off(self.pieces.len());
        images.iter().chain(&members).for_each(|image| self.runtime.warn_of_allocator(image));
        self.tell_failures();
        let pulled = self.pulled.into_iter().zip(members).map(|(pulled, image)| {
            let Pulled { claim, mut report, provenance, .. } = pulled;
            report.times = image.times();
            (claim, image, Making::new(report, provenance))
        });
        Ok(Loaded { images, pulled: pulled.collect(), right: self.right, remade: self.remade })
    }

    fn all_pieces(&mut self) -> impl Iterator<Item = &mut Piece> {
        self.pieces.iter_mut().chain(self.pulled.iter_mut().map(|pulled| &mut pulled.piece))
    }

    /// Has all that is lazy compiled whole.
    fn make_whole(&mut self) -> Result<(), Error> {
        for piece in &mut self.pieces {
            if let Some(report) = self.runtime.make_piece_whole(piece)? {
                self.remade.push((piece.name.clone(), report));
            }
        }
        for pulled in &mut self.pulled {
            if let Some(report) = self.runtime.make_piece_whole(&mut pulled.piece)? {
                pulled.report.add(report);
            }
        }
        Ok(())
    }

    /// Looks for what `unit` needs and nobody has. Whether trying again may help.
    fn find(&mut self, unit: &str, symbols: &[Unresolved]) -> Result<bool, Error> {
        for layer in self.namespace.order() {
            let found = match layer {
                Layer::Archives => {
                    let names: Vec<&str> = symbols.iter().map(|symbol| &*symbol.name).collect();
                    self.find_pending(&names)?
                }
                Layer::OnDemand => self.find_on_demand(unit, symbols),
                _ => false,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn find_on_demand(&mut self, unit: &str, symbols: &[Unresolved]) -> bool {
        let inner = &*self.runtime.inner;
        let Some(autoload) = &inner.autoload else { return false };
        let mut new = autoload.open(unit, symbols, &inner.loader, &inner.cache, &*inner.observer);
        new.retain(|library| !self.opened.iter().any(|known| Arc::ptr_eq(known, library)));
        let any = !new.is_empty();
        self.opened.append(&mut new);
        any
    }

    /// Adds names like those of `symbols` that what is pending has.
    fn add_near_misses(&self, symbols: &mut [Unresolved]) {
        let pending: Vec<_> =
            self.namespace.scope().iter().flat_map(|namespace| namespace.pending()).collect();
        let names: Vec<String> = pending.iter().flat_map(|one| one.names()).collect();
        for symbol in symbols {
            for name in near_misses(&symbol.name, names.iter().map(String::as_str)) {
                if !symbol.near.contains(&name) {
                    symbol.near.push(name);
                }
            }
        }
    }

    /// Who was asked, when the loader has asked `asked`.
    fn asked(&self, asked: &[Layer]) -> Vec<Layer> {
        let pending = self.namespace.scope().iter().any(|namespace| !namespace.pending().is_empty());
        let was_asked = |layer: &Layer| match layer {
            Layer::Archives => pending,
            Layer::OnDemand => self.runtime.inner.autoload.is_some(),
            other => asked.contains(other),
        };
        self.namespace.order().iter().copied().filter(was_asked).collect()
    }
}

impl Runtime {
    /// Has a piece compiled whole, if it is lazy.
    fn make_piece_whole(&self, piece: &mut Piece) -> Result<Option<Report>, Error> {
        let Some(request) = piece.request.take() else { return Ok(None) };
        let observer = &*self.inner.observer;
        observer.note(&format!("{}: compiled whole, for a library that it needs calls it first", piece.name));
        let request = Arc::new(Request { lazy: false, ..(*request).clone() });
        let made = self.make(&request, &Key::of(&request))?;
        let path = made.path.unwrap_or_else(|| PathBuf::from(&piece.name));
        piece.source = Source::Copy { file: made.image, path };
        Ok(Some(made.report))
    }

    fn warn_of_allocator(&self, image: &Image) {
        let replaced = image.replaced_allocator();
        if !replaced.is_empty() {
            self.inner.observer.warning(&format!(
                "{} replaces {}: too late for the C library and all others that are loaded",
                image.name(),
                replaced.join(", ")
            ));
        }
    }
}

/// What the loader says about one of `pieces`.
fn bind_error(pieces: &[Piece], error: LoadError) -> Error {
    let unit = match &error {
        LoadError::Map { unit, .. }
        | LoadError::Image { unit, .. }
        | LoadError::Unresolved { unit, .. }
        | LoadError::NoDependency { unit, .. }
        | LoadError::Interface { unit, .. }
        | LoadError::CalledEarly { unit }
        | LoadError::Uninitialised { unit } => unit.clone(),
        LoadError::Library { needed_by: Some(unit), .. } => unit.clone(),
        _ => pieces.first().map(|piece| piece.name.clone()).unwrap_or_default(),
    };
    Error::Bind { unit, source: Box::new(error) }
}

/// Whether the system refuses to map a file for execution, wherever its contents come from.
pub(super) fn is_refused(error: &LoadError) -> bool {
    matches!(error, LoadError::Map { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
}
