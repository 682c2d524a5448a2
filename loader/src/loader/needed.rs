//! The libraries that images need, and those that the host opens: before one is opened, it is offered what it wants of
//! the units' definitions.
//!
//! A library's constructors run while it is opened, which is before the images that need it are bound; and they may
//! call what they were offered (the C++ library asks for memory). So images whose definitions are offered are relocated
//! before, as far as it can be known then what their symbols stand for, and once more when everything is.

use super::library::search_of;
use super::load::{Prepared, unresolved};
use super::{Library, LibraryRequest, Loader, Member, seen_by};
use crate::error::LoadError;
use crate::facade::offer::{Chosen, Source, all, choose};
use crate::facade::wanted::{LibraryFile, closure};
use crate::facade::{Facade, Offered};
use crate::image::bind::{self, Plan};
use crate::image::map::Mapped;
use crate::image::symbols::Name;
use crate::image::{self, ImageError};
use crate::layers::readers::Section;
use crate::layers::{Held, Layers, Space};
use crate::libraries::{self, SearchPath};
use crate::sys::libraries::is_named;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// What members of a group were opened to, and which of them.
#[derive(Default)]
pub(super) struct Early {
    offered: Option<Arc<Offered>>,
    members: Vec<usize>,
}

impl Loader {
    /// Opens the libraries that the members of a group need and that were not there from the start.
    pub(super) fn open_needed(&self, space: &Space, members: &mut [Member]) -> Result<Early, LoadError> {
        let process = &self.0.common.process;
        let mut missing = Vec::new();
        for (at, member) in members.iter_mut().enumerate() {
            for name in image::needed(&member.mapped) {
                if process.has_from_start(name) || member.needs_image(name) {
                    continue;
                }
                match process.opened(|library| library.is_called(name)) {
                    Some(library) => member.libraries.push(library),
                    None => missing.push((at, String::from_utf8_lossy(name).into_owned())),
                }
            }
        }
        if missing.is_empty() { Ok(Early::default()) } else { self.open_missing(space, members, missing) }
    }

    /// Opens libraries by their names, each for the member at that place.
    #[inline(never)]
    fn open_missing(
        &self,
        space: &Space,
        members: &mut [Member],
        missing: Vec<(usize, String)>,
    ) -> Result<Early, LoadError> {
        let process = &self.0.common.process;
        let early = self.offer_to_needed(space, members, &missing)?;
        for (at, name) in missing {
            let member = &mut members[at];
            // One may have been opened for another member.
            let library = match process.opened(|library| library.is_called(name.as_bytes())) {
                Some(library) => library,
                None => {
                    let global = self.0.options.global_libraries;
                    let library = Library::needed(&name, &member.mapped, global, early.offered.clone())
                        .map_err(|reason| failed(&name, member, reason))?;
                    // One that was offered something holds images.
                    match early.offered {
                        Some(_) => process.add(&library),
                        None => process.add_needed(&library),
                    }
                    library
                }
            };
            member.libraries.push(library);
        }
        Ok(early)
    }

    fn offer_to_needed(
        &self,
        space: &Space,
        members: &mut [Member],
        missing: &[(usize, String)],
    ) -> Result<Early, LoadError> {
        let mut files: Vec<LibraryFile> = Vec::new();
        let mut names = Vec::new();
        for (at, name) in missing {
            // What is open already is bound already, and costs no search.
            if is_named(Path::new(name)) {
                continue;
            }
            let search = search_of(&members[*at].mapped);
            let Some(path) = libraries::find(OsStr::new(name), &search) else { continue };
            let known = |path: &Path| files.iter().any(|file| file.path() == path);
            if !known(&path) {
                let more = closure(&path, &search, |name| self.has_library(name));
                let more: Vec<_> = more.into_iter().filter(|file| !known(file.path())).collect();
                files.extend(more);
                names.push(name.as_str());
            }
        }
        if files.is_empty() {
            return Ok(Early::default());
        }
        let images = seen_by(space);
        let loaded = images.iter().filter(|image| image.wait()).map(Source::Loaded);
        let loading = members.iter().enumerate().map(|(member, Member { mapped, .. })| Source::Loading {
            mapped,
            module: members[member].module(),
            member,
        });
        let sources: Vec<_> = loaded.chain(loading).collect();
        let process = &self.0.common.process;
        let own = |source| self.0.options.global_libraries || matches!(source, Source::Loading { .. });
        let refused = |reason| failed(&names.join(", "), &members[missing[0].0], reason);
        let chosen =
            choose(&files, &sources, own, |name| process.defines_from_start(name)).map_err(refused)?;
        let used = chosen.members.clone();
        let offered = if used.is_empty() {
            Offered::open(chosen, &names.join(", "))
        } else {
            self.relocate_early(space, members, &files)?;
            Offered::open(chosen, &names.join(", "))
        };
        let refused = |reason| failed(&names.join(", "), &members[missing[0].0], reason);
        Ok(Early { offered: offered.map_err(refused)?.map(Arc::new), members: used })
    }

    /// Relocates members that are about to be called before they are bound.
    fn relocate_early(
        &self,
        space: &Space,
        members: &mut [Member],
        files: &[LibraryFile],
    ) -> Result<(), LoadError> {
        if let Some(member) = members.iter().find(|member| member.mapped.lazy.is_some()) {
            return Err(LoadError::CalledEarly { unit: member.name.to_string() });
        }
        let view = self.0.common.process.view();
        let mut early = Vec::with_capacity(members.len());
        // Images must not end while the lock is held.
        let held = Held::default();
        {
            let binding = self.0.common.binding.lock();
            for (position, member) in members.iter().enumerate() {
                let layers = Layers::new(
                    space,
                    &self.0.host,
                    &view,
                    (members, position),
                    &held,
                    Section::under(&binding),
                );
                let damaged = |source: ImageError| LoadError::Image { unit: member.name.to_string(), source };
                let mut plan = Plan::default();
                bind::resolve(&member.mapped, member.module(), &layers, None, &mut plan).map_err(damaged)?;
                // What will be missing is missing now, before anything is bound to the image.
                let nowhere: Vec<u32> = plan
                    .missing
                    .iter()
                    .copied()
                    .filter(|index| !view.may_know_more() && !is_in(files, &member.mapped, *index))
                    .collect();
                if !nowhere.is_empty() {
                    return Err(unresolved(&member.name, &member.mapped, &nowhere, space));
                }
                early.push(plan);
            }
        }
        for (member, plan) in members.iter_mut().zip(&early) {
            let damaged = |source: ImageError| LoadError::Image { unit: member.name.to_string(), source };
            let module = member.module.as_ref().map(image::tls::Module::number);
            // SAFETY: mapped just now, and nobody else has seen it.
            let applied = unsafe { bind::apply(&member.mapped, module, plan, true) }.map_err(damaged)?;
            member.early = Some(applied);
        }
        Ok(())
    }

    /// Opens a shared library with `dlopen`, everything in it bound at once. What it exports is part of the process
    /// layer as long as anybody holds it. It finds what images of the namespace of who asks for none define, if that
    /// is not in the process already; those images stay as long as it is open.
    ///
    /// # Errors
    /// `dlerror`'s words, or that it refers to what only images can reach.
    pub fn open_library(&self, request: LibraryRequest<'_>) -> Result<Arc<Library>, LoadError> {
        let failed = |reason| LoadError::Library { name: request.to_string(), needed_by: None, reason };
        let process = &self.0.common.process;
        let offered = match self.0.space.is_empty() {
            true => None,
            false => match Library::file_of(request) {
                Some(path) => self.offer_to_library(&self.0.space, &path).map_err(failed)?,
                None => None,
            },
        };
        let library = Library::open(request, self.0.options.global_libraries, offered).map_err(failed)?;
        let dynamic = library.dynamic();
        if let Some(known) = process.opened(|known| known.dynamic() == dynamic) {
            return Ok(known);
        }
        let library = Arc::new(library);
        process.add(&library);
        Ok(library)
    }

    /// Offers what units define to the library at `path`, which is about to be opened, if it wants anything of that.
    ///
    /// # Errors
    /// When it refers to what cannot be offered.
    pub(crate) fn offer_to_library(
        &self,
        space: &Space,
        path: &Path,
    ) -> Result<Option<Arc<Offered>>, String> {
        let images = seen_by(space);
        let images: Vec<_> = images.iter().filter(|image| image.wait()).collect();
        if images.is_empty() || is_named(path) {
            return Ok(None);
        }
        let files = closure(path, &SearchPath::of_process(), |name| self.has_library(name));
        let sources: Vec<_> = images.into_iter().map(Source::Loaded).collect();
        let process = &self.0.common.process;
        let own = |_| self.0.options.global_libraries;
        let chosen: Chosen = choose(&files, &sources, own, |name| process.defines_from_start(name))?;
        Offered::open(chosen, &path.to_string_lossy()).map(|offered| offered.map(Arc::new))
    }

    /// Shows what the image exports to every library. The image is complete and has not run.
    ///
    /// # Errors
    /// When the system gives no room for it.
    #[inline(never)]
    pub(super) fn show_exports(&self, image: &Arc<image::Image>) -> Result<(), LoadError> {
        let process = &self.0.common.process;
        let offers = all(image, |name| process.defines_from_start(name));
        if !offers.is_empty() {
            let facade = Facade::open(&offers).map_err(|reason| LoadError::Map {
                unit: image.name().to_owned(),
                source: std::io::Error::other(reason),
            })?;
            image.set_exported(facade);
        }
        Ok(())
    }

    /// Whether a library that others need by this name is loaded.
    fn has_library(&self, name: &[u8]) -> bool {
        let process = &self.0.common.process;
        process.has_from_start(name)
            || process.opened(|library| library.is_called(name)).is_some()
            || is_named(Path::new(OsStr::from_bytes(name)))
    }
}

impl Early {
    /// To be called with the images that the members have become: they stay as long as the libraries are open.
    pub(super) fn done(self, prepared: &[Prepared]) {
        let Some(offered) = self.offered else { return };
        for one in prepared.iter().filter(|one| self.members.contains(&one.at)) {
            offered.keep(Arc::clone(&one.image));
        }
    }
}

/// Whether one of the files defines what the image wants under that symbol.
fn is_in(files: &[LibraryFile], mapped: &Mapped, index: u32) -> bool {
    let name = mapped.symbols.get(index).and_then(|symbol| mapped.symbols.text(symbol.name.into()));
    name.is_none_or(|name| files.iter().any(|file| file.defines(Name::new(name))))
}

fn failed(name: &str, member: &Member, reason: String) -> LoadError {
    LoadError::Library { name: name.to_owned(), needed_by: Some(member.name.to_string()), reason }
}

#[cfg(test)]
mod tests;
