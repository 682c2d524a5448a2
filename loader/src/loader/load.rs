//! How images get in: mapped, then the libraries they need opened, then bound, then started. Several that need each
//! other go this way together, so that each can be bound to the others.

use super::circles::circles;
use super::dependencies::Server;
use super::{Library, Loader, LoaderOptions, Namespace};
use crate::cpu::CpuFeatures;
use crate::error::{LoadError, Unresolved};
use crate::image::bind::{self, Applied, Plan};
use crate::image::map::{MapError, Mapped, map};
use crate::image::{Cycle, Image, ImageDependency, ImageError, ImageSource, Parts, StartError, choose, tls};
use crate::layers::readers::Section;
use crate::layers::{Held, Layers, ProcessView, Space};
use crate::sys::arguments::ProgramArguments;
use smallvec::{SmallVec, smallvec};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Something for each image of a group, which mostly is one.
type Group<T> = SmallVec<[T; 1]>;

/// An image that is mapped and not bound.
pub(crate) struct Member {
    pub(super) name: Box<str>,
    /// Its memory.
    pub(crate) mapped: Box<Mapped>,
    pub(super) module: Option<tls::Module>,
    /// The libraries that it needs, but for those that were there from the start.
    pub(super) libraries: Vec<Arc<Library>>,
    /// What it remembers of images that it was linked against, and who of those that are there they are, if that was found
    /// out.
    pub(super) dependencies: Vec<ImageDependency>,
    pub(super) servers: Vec<Server>,
    /// What relocating it before it is bound has left behind, if that was done.
    pub(super) early: Option<Applied>,
    began: Instant,
    mapped_at: Instant,
}

/// An image that is bound and not started.
pub(crate) struct Prepared {
    pub(crate) image: Arc<Image>,
    applied: Applied,
    began: Instant,
    mapped_at: Instant,
}

impl Member {
    /// Number of its thread-local module.
    pub(crate) fn module(&self) -> Option<usize> {
        self.module.as_ref().map(tls::Module::number)
    }

    /// Whether a name of what it needs is that of an image.
    pub(super) fn needs_image(&self, name: &[u8]) -> bool {
        self.dependencies.iter().any(|dependency| dependency.name.as_bytes() == name)
    }
}

impl Loader {
    /// Maps images, opens the libraries they need, binds everything they import and runs their constructors, in the
    /// calling thread. They may need each other, in any order: whatever one needs is started before it, as far as
    /// they do not need each other in a circle. Images that do are one as far as their end is concerned.
    ///
    /// The contents are trusted as far as code is concerned: whether the checksum holds is for the caller to see to
    /// ([`crate::image::note::verify`]). Headers and tables are checked here, whatever the checksum says.
    ///
    /// # Errors
    /// When a source cannot be read, is no image, or needs what nobody has. Nothing of any of them has run then.
    pub fn load_images(
        &self,
        namespace: Option<&Namespace>,
        sources: &[(&str, ImageSource<'_>)],
    ) -> Result<Vec<Arc<Image>>, LoadError> {
        let (mut prepared, order) = self.prepare(namespace, sources, true)?;
        let arguments = self.0.options.program.unwrap_or_else(ProgramArguments::of_process);
        let mut ready: Group<_> = SmallVec::new();
        for at in &order {
            let Prepared { image, applied, .. } = &mut prepared[*at];
            match image.finish(applied) {
                Ok(one) => ready.push(one),
                Err(error) => {
                    let unit = image.name().to_owned();
                    prepared.iter().for_each(|one| one.image.give_up());
                    return Err(not_started(unit, error));
                }
            }
        }
        let shown: Group<_> =
            prepared.iter().zip(sources).map(|(one, (_, source))| (&*one.image, *source)).collect();
        self.0.tools.announce(&shown);
        drop(shown);
        for Prepared { image, .. } in &prepared {
            if let Err(error) = self.show_exports(image) {
                prepared.iter().for_each(|one| one.image.give_up());
                return Err(error);
            }
        }
        let bound = Instant::now();
        let mut now = bound;
        for (at, ready) in order.into_iter().zip(ready) {
            let Prepared { image, began, mapped_at, .. } = &prepared[at];
            let times = (*mapped_at - *began, bound - *mapped_at);
            match ready.start(&arguments, times, now) {
                Ok(done) => now = done,
                Err(error) => {
                    prepared.iter().for_each(|one| one.image.give_up_unless_started());
                    return Err(not_started(image.name().to_owned(), error));
                }
            }
        }
        Ok(prepared.into_iter().map(|one| one.image).collect())
    }

    /// Everything up to the point where code of the images would run, and the order in which it shall. Where symbols are
    /// missing, names like them are looked for if `near` says so.
    pub(crate) fn prepare(
        &self,
        namespace: Option<&Namespace>,
        sources: &[(&str, ImageSource<'_>)],
        near: bool,
    ) -> Result<(Group<Prepared>, Group<usize>), LoadError> {
        let space = self.space(namespace);
        let mut members: Group<Member> = SmallVec::new();
        for (name, source) in sources {
            let member = self.map(name, *source)?;
            let LoaderOptions { materializer, uncompiled_functions, .. } = &self.0.options;
            if member.mapped.lazy.is_some() && materializer.is_none() && !uncompiled_functions {
                return Err(LoadError::Image { unit: (*name).to_owned(), source: ImageError::NoBackEnd });
            }
            members.push(member);
        }
        self.find_dependencies(space, &mut members)?;
        let mut result = self.open_needed(space, &mut members).and_then(|early| {
            let (prepared, order) = self.bind(space, &mut members)?;
            early.done(|member| prepared.get(member).map(|one| &one.image));
            Ok((prepared, order))
        });
        if near && let Err(LoadError::Unresolved { symbols, .. }) = &mut result {
            self.add_near_misses(space, &members, symbols);
        }
        // A library that is never unloaded may be bound to what was offered of these.
        for mut member in members.into_iter().filter(|member| member.early.is_some()) {
            member.libraries.clear();
            std::mem::forget(member);
        }
        result
    }

    pub(super) fn map(&self, name: &str, source: ImageSource<'_>) -> Result<Member, LoadError> {
        let began = Instant::now();
        let unit = || name.to_owned();
        let mapped = map(name, source, &self.0.options).map_err(|error| match error {
            MapError::Read(error) => LoadError::Read {
                path: source.path().map_or_else(|| name.into(), Path::to_owned),
                source: error,
            },
            MapError::Map(source) => LoadError::Map { unit: unit(), source },
            MapError::Image(source) => LoadError::Image { unit: unit(), source },
        })?;
        let damaged = |source: ImageError| LoadError::Image { unit: unit(), source };
        // What every processor has is not looked for.
        let requires = mapped.layout.requires;
        if !requires.is_empty() {
            choose(&[requires], self.0.options.cpu.unwrap_or_else(CpuFeatures::host)).map_err(damaged)?;
        }
        let module = match &mapped.headers.tls {
            // SAFETY: `map` has checked that the initial contents are there, and the image keeps module and memory
            // together.
            Some(segment) => Some(
                unsafe { tls::Module::new(segment, mapped.place.at(segment.address)) }
                    .ok_or_else(|| damaged(ImageError::Damaged("the size of its thread-local segment")))?,
            ),
            None => None,
        };
        let dependencies = mapped.dependencies().map_err(damaged)?;
        let mapped_at = Instant::now();
        Ok(Member {
            name: name.into(),
            mapped,
            module,
            libraries: Vec::new(),
            dependencies,
            servers: Vec::new(),
            early: None,
            began,
            mapped_at,
        })
    }

    /// Resolves and relocates, and makes images of the members that are visible to others. They are left as they are
    /// when that fails.
    fn bind(
        &self,
        space: &Arc<Space>,
        members: &mut Group<Member>,
    ) -> Result<(Group<Prepared>, Group<usize>), LoadError> {
        let common = &self.0.common;
        let mut view = common.process.view();
        let mut asked = false;
        loop {
            // Images must not end while the lock is held, so they are dropped after it is.
            let held = Held::default();
            let binding = common.binding.lock();
            let mut plans: Group<Plan> = SmallVec::new();
            for (position, member) in members.iter().enumerate() {
                let layers = Layers::new(
                    space,
                    &self.0.host,
                    &view,
                    (members, position),
                    &held,
                    Section::under(&binding),
                );
                // What is relocated already has no slots as they are in the file.
                let lazy = self.0.options.lazy_imports && member.early.is_none();
                let held_open = lazy.then_some(&*member.libraries);
                let mut plan = bind::resolve(&member.mapped, member.module(), &layers, held_open)
                    .map_err(|source| LoadError::Image { unit: member.name.to_string(), source })?;
                for server in &member.servers {
                    match server {
                        Server::Member(at) => plan.use_member(*at),
                        Server::Loaded(image) => {
                            let at = held.hold(image);
                            let ended = || LoadError::Uninitialised { unit: member.name.to_string() };
                            plan.use_image(at.ok_or_else(ended)?);
                        }
                    }
                }
                plans.push(plan);
            }
            if !asked {
                asked = true;
                let unknown = members.iter().zip(&plans).flat_map(|(member, plan)| {
                    let unknown = plan.missing.iter().chain(&plan.absent);
                    unknown.filter_map(|index| wanted(&member.mapped, *index))
                });
                let names: Vec<_> = unknown.collect();
                if !names.is_empty() && view.may_know_more() {
                    // `dlsym` must not be called under a lock, so everything is resolved once more.
                    drop(binding);
                    view.ask(names);
                    continue;
                }
            }
            if let Some((member, plan)) =
                members.iter().zip(&plans).find(|(_, plan)| !plan.missing.is_empty())
            {
                drop(binding);
                return Err(unresolved(&member.name, &member.mapped, &plan.missing, space));
            }
            let mut applied: Group<Applied> = SmallVec::new();
            for (member, plan) in members.iter().zip(&plans) {
                // SAFETY: mapped just now, nobody else has seen it, and this is done once: every way on from here
                // leaves the loop.
                let one =
                    unsafe { bind::apply(&member.mapped, member.module(), plan, member.early.is_none()) };
                applied
                    .push(one.map_err(|source| LoadError::Image { unit: member.name.to_string(), source })?);
            }
            let groups: Group<Group<usize>> = if plans.len() == 1 {
                smallvec![smallvec![0]]
            } else {
                let needs: Vec<_> = plans.iter().map(|plan| &*plan.members).collect();
                circles(&needs).into_iter().map(SmallVec::from_vec).collect()
            };
            let mut order: Group<usize> = SmallVec::new();
            groups.iter().for_each(|group| order.extend_from_slice(group));
            let parts = std::mem::take(members).into_iter().zip(applied).map(Some).collect();
            let prepared = assemble(self, space, parts, &mut plans, groups, &view, &held);
            for one in &prepared {
                space.add(&one.image);
            }
            drop(binding);
            return Ok((prepared, order));
        }
    }
}

fn not_started(unit: String, error: StartError) -> LoadError {
    match error {
        StartError::Image(source) => LoadError::Image { unit, source },
        StartError::System(source) => LoadError::Map { unit, source },
        StartError::Other => LoadError::Uninitialised { unit },
    }
}

/// Makes images of what is bound: those that others need first.
fn assemble(
    loader: &Loader,
    space: &Arc<Space>,
    mut parts: Group<Option<(Member, Applied)>>,
    plans: &mut [Plan],
    groups: Group<Group<usize>>,
    view: &ProcessView,
    held: &Held,
) -> Group<Prepared> {
    let (mut places, mut done): (Group<u64>, Group<Option<Prepared>>) = (SmallVec::new(), SmallVec::new());
    places.resize_with(parts.len(), || space.next_place());
    done.resize_with(parts.len(), || None);
    for group in groups {
        let cycle = (group.len() > 1).then(Cycle::new);
        for at in group {
            let Some((member, mut applied)) = parts[at].take() else { continue };
            let plan = &mut plans[at];
            let Member { name, mapped, module, mut libraries, early, began, mapped_at, .. } = member;
            // Whoever was there early may still look at these.
            applied.references.extend(early.into_iter().flat_map(|early| early.references));
            for at in &plan.libraries {
                if let Some(library) = view.owner(*at)
                    && !libraries.iter().any(|known| Arc::ptr_eq(known, library))
                {
                    libraries.push(Arc::clone(library));
                }
            }
            // Members of the same circle are not there yet, or hold on to each other by it.
            let in_group = plan.members.iter().filter_map(|at| {
                let other = done[*at].as_ref().map(|prepared| Arc::clone(&prepared.image))?;
                (cycle.is_none() || !other.is_in(cycle.as_ref())).then_some(other)
            });
            let images = plan.images.iter().filter_map(|at| held.get(*at)).chain(in_group).collect();
            let parts = Parts {
                name,
                mapped,
                module,
                images,
                libraries,
                space: Arc::clone(space),
                loader: loader.clone(),
                sequence: places[at],
                cycle: cycle.clone(),
            };
            let image = Image::new(parts, plan, &mut applied);
            done[at] = Some(Prepared { image, applied, began, mapped_at });
        }
    }
    let mut prepared: Group<Prepared> = SmallVec::new();
    done.into_iter().flatten().for_each(|one| prepared.push(one));
    prepared
}

pub(super) fn unresolved(unit: &str, mapped: &Mapped, missing: &[u32], space: &Space) -> LoadError {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let symbols = missing.iter().filter_map(|index| {
        let symbol = mapped.symbols.get(*index)?;
        let name = text(mapped.symbols.text(symbol.name.into())?);
        let version = mapped.symbols.needed_version(*index).map(|version| text(version.name));
        Some(Unresolved::new(&name, version.as_deref()))
    });
    LoadError::Unresolved {
        unit: unit.to_owned(),
        symbols: symbols.collect(),
        asked: space.order.iter().copied().filter(|layer| layer.is_searched()).collect(),
    }
}

/// Name and version of a symbol that was not found, unless it is one that the compiler's own start-up files refer to
/// on the chance that somebody has it: of these, nobody has any who is not in the tables.
fn wanted(mapped: &Mapped, index: u32) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    const START_UP: [&[u8]; 3] =
        [b"__gmon_start__", b"_ITM_deregisterTMCloneTable", b"_ITM_registerTMCloneTable"];
    let name = mapped.symbols.text(mapped.symbols.get(index)?.name.into())?;
    if START_UP.contains(&name) {
        return None;
    }
    let version = mapped.symbols.needed_version(index).map(|version| version.name.to_vec());
    Some((name.to_vec(), version))
}
