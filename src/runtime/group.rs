//! Images on their way into a namespace, together: mapped, bound to each other and to whoever is there, started. What nobody
//! has is looked for in archives and in libraries on demand, as often as that helps.

use super::Runtime;
use crate::archive::{Claim, Registered, select};
use crate::error::Error;
use crate::namespace::Namespace;
use crate::report::Report;
use hotbed_loader::boundary::Request;
use hotbed_loader::image::ImageSource;
use hotbed_loader::store::Key;
use hotbed_loader::sys::files;
use hotbed_loader::sys::sync::ReentrantGuard;
use hotbed_loader::{Image, Layer, Library, LoadError, Unresolved};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, Sym};
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
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
    /// Members of archives of this namespace, each with what was made of it.
    pulled: Vec<(Claim, Piece)>,
    /// Held until the images are bound and hold what they are bound to.
    opened: Vec<Arc<Library>>,
    /// The right to load members of archives, once there was need for it.
    right: Option<ReentrantGuard<'a>>,
    /// Pieces that were made once more, by their names.
    remade: Vec<(String, Report)>,
}

/// A group that is loaded.
pub(super) struct Loaded<'a> {
    /// The images in the order of the pieces.
    pub(super) images: Vec<Arc<Image>>,
    pulled: Vec<(Claim, Arc<Image>)>,
    /// Until the archives know what is loaded of them.
    right: Option<ReentrantGuard<'a>>,
    /// What was made once more, and what that came to.
    pub(super) remade: Vec<(String, Report)>,
}

impl Loaded<'_> {
    /// Makes the members of archives that came with it members of their units.
    pub(super) fn keep(self) -> Vec<Arc<Image>> {
        self.pulled.into_iter().for_each(|(claim, image)| claim.keep(image));
        drop(self.right);
        self.images
    }

    /// Unloads everything again.
    pub(super) fn undo(self) {
        let Self { mut images, pulled, right, remade: _ } = self;
        let (claims, members): (Vec<_>, Vec<_>) = pulled.into_iter().unzip();
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
        let read;
        let bytes = match &self.source {
            Source::Bytes(bytes) => &bytes[..],
            Source::Copy { file, .. } => {
                read = files::contents(file.as_fd()).unwrap_or_default();
                &read[..]
            }
        };
        exports(bytes).unwrap_or_default()
    }
}

fn exports(bytes: &[u8]) -> object::Result<Vec<String>> {
    let sections = FileHeader64::<LE>::parse(bytes)?.sections(LE, bytes)?;
    let symbols = sections.symbols(LE, bytes, elf::SHT_DYNSYM)?;
    let defined = symbols.iter().filter(|symbol| !symbol.is_undefined(LE));
    let names = defined.filter_map(|symbol| symbols.symbol_name(LE, symbol).ok());
    Ok(names.filter_map(|name| Some(std::str::from_utf8(name).ok()?.to_owned())).collect())
}

impl<'a> Group<'a> {
    pub(super) fn new(runtime: &'a Runtime, namespace: &'a Namespace) -> Self {
        let (pieces, pulled, opened) = (Vec::new(), Vec::new(), Vec::new());
        Self { runtime, namespace, pieces, pulled, opened, right: None, remade: Vec::new() }
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
            let pieces = self.pieces.iter().chain(self.pulled.iter().map(|(_, piece)| piece));
            let sources: Vec<_> = pieces.map(|piece| (&*piece.name, piece.source())).collect();
            let error = match self.runtime.loader().load_images(Some(self.namespace.loader()), &sources) {
                Ok(images) => break images,
                Err(error) => error,
            };
            match error {
                // The store may be on a file system that nothing can be executed from.
                error if is_refused(&error) && !in_memory => {
                    in_memory = true;
                    let pulled = self.pulled.iter_mut().map(|(_, piece)| piece);
                    self.pieces.iter_mut().chain(pulled).try_for_each(Piece::move_to_memory)?;
                }
                LoadError::CalledEarly { .. } if self.pieces.iter().any(|piece| piece.request.is_some()) => {
                    self.make_whole()?;
                }
                LoadError::Unresolved { unit, symbols, asked } => {
                    let waits = !waited && self.right.is_none();
                    if self.find(&unit, &symbols)? {
                        continue;
                    }
                    // Whoever had the right to load members may have loaded these.
                    if waits && self.right.is_some() {
                        waited = true;
                        continue;
                    }
                    let asked = self.asked(&asked);
                    return Err(bind_error(&self.pieces, LoadError::Unresolved { unit, symbols, asked }));
                }
                error => return Err(bind_error(&self.pieces, error)),
            }
        };
        let members = images.split_off(self.pieces.len());
        images.iter().chain(&members).for_each(|image| self.runtime.warn_of_allocator(image));
        let claims = self.pulled.into_iter().map(|(claim, _)| claim);
        Ok(Loaded { images, pulled: claims.zip(members).collect(), right: self.right, remade: self.remade })
    }

    /// Has all that is lazy compiled whole.
    fn make_whole(&mut self) -> Result<(), Error> {
        for piece in &mut self.pieces {
            let Some(request) = piece.request.take() else { continue };
            self.runtime
                .inner
                .observer
                .note(&format!("{}: compiled whole, for a library that it needs calls it first", piece.name));
            let request = Arc::new(Request { lazy: false, ..(*request).clone() });
            let made = self.runtime.make(&request, &Key::of(&request))?;
            let path = made.path.unwrap_or_else(|| PathBuf::from(&piece.name));
            piece.source = Source::Copy { file: made.image, path };
            self.remade.push((piece.name.clone(), made.report));
        }
        Ok(())
    }

    /// Adds members of `archives` that define `symbols`, with what these need.
    pub(super) fn pull<'n>(
        &mut self,
        archives: &[Arc<Registered>],
        symbols: impl IntoIterator<Item = &'n str>,
    ) -> Result<bool, Error> {
        let runtime = self.runtime;
        self.right.get_or_insert_with(|| runtime.right_to_pull());
        let own: HashSet<String> = self.pieces.iter().flat_map(Piece::exports).collect();
        let namespace = self.namespace.loader();
        let has =
            |name: &str| own.contains(name) || runtime.loader().resolve_in(Some(namespace), name).is_some();
        let names: Vec<&str> = symbols.into_iter().collect();
        let claims = select(archives, names, has);
        let any = !claims.is_empty();
        for claim in claims {
            let piece = runtime.make_members(&claim)?;
            self.pulled.push((claim, piece));
        }
        Ok(any)
    }

    /// Looks for what `unit` needs and nobody has. Whether trying again may help.
    fn find(&mut self, unit: &str, symbols: &[Unresolved]) -> Result<bool, Error> {
        for layer in self.namespace.order() {
            let found = match layer {
                Layer::Archives => self.find_in_archives(symbols)?,
                Layer::OnDemand => self.find_on_demand(unit, symbols),
                _ => false,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn find_in_archives(&mut self, symbols: &[Unresolved]) -> Result<bool, Error> {
        let names = || symbols.iter().map(|symbol| &*symbol.name);
        for namespace in self.namespace.scope() {
            let archives = namespace.archives();
            if archives.is_empty() {
                continue;
            }
            if namespace == *self.namespace {
                if self.pull(&archives, names())? {
                    return Ok(true);
                }
                continue;
            }
            // They belong to the other one, where they see what it sees.
            let mut others = Group::new(self.runtime, &namespace);
            if others.pull(&archives, names())? {
                others.load()?.keep();
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

    /// Who was asked, when the loader has asked `asked`.
    fn asked(&self, asked: &[Layer]) -> Vec<Layer> {
        let archives = self.namespace.scope().iter().any(|namespace| !namespace.archives().is_empty());
        let was_asked = |layer: &Layer| match layer {
            Layer::Archives => archives,
            Layer::OnDemand => self.runtime.inner.autoload.is_some(),
            other => asked.contains(other),
        };
        self.namespace.order().iter().copied().filter(was_asked).collect()
    }
}

impl Runtime {
    /// Loads the member of `archive` that defines `symbol`, with what it needs. Whether there is one.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) fn pull(&self, archive: &Arc<Registered>, symbol: &str) -> Result<bool, Error> {
        if !archive.defines(symbol) {
            return Ok(false);
        }
        let namespace = archive.namespace();
        let mut archives = namespace.archives();
        if !archives.iter().any(|other| Arc::ptr_eq(other, archive)) {
            return Ok(false);
        }
        archives.sort_by_key(|other| !Arc::ptr_eq(other, archive));
        let mut group = Group::new(self, namespace);
        if group.pull(&archives, [symbol])? {
            group.load()?.keep();
        }
        Ok(true)
    }

    /// The right to load members of archives and to unload them.
    pub(crate) fn right_to_pull(&self) -> ReentrantGuard<'_> {
        self.inner.pulling.lock()
    }

    /// Makes an image of members of an archive.
    fn make_members(&self, claim: &Claim) -> Result<Piece, Error> {
        let (name, archive) = (claim.name(), claim.archive());
        self.inner.observer.note(&format!(
            "{}: loading members {}",
            archive.name(),
            claim.names().join(", ")
        ));
        let request = Arc::new(claim.compilation().request(&name, self.inner.color)?);
        let made = self.make(&request, &Key::of(&request))?;
        let path = made.path.unwrap_or_else(|| Path::new(&name).to_owned());
        Ok(Piece { name, source: Source::Copy { file: made.image, path }, request: None })
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
