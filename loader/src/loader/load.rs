//! How images get in: mapped, then the libraries they need opened, then bound, then started. Several that need each
//! other go this way together, so that each can be bound to the others.

use super::circles::circles;
use super::dependencies::Server;
use super::{Library, Loader, LoaderOptions, Namespace};
use crate::cpu::CpuFeatures;
use crate::error::{LoadError, Unresolved};
use crate::image::bind::{self, Applied, Plan};
use crate::image::map::{MapError, Mapped, map};
use crate::image::{
    Beginning, Cycle, Image, ImageDependency, ImageError, ImageSource, Parts, StartError, Steps, choose, tls,
};
use crate::layers::readers::Section;
use crate::layers::{Held, Layers, ProcessView, Space};
use crate::sys::arguments::ProgramArguments;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// An image on its way in: mapped, and not bound.
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
    /// Its place in the group.
    pub(super) at: usize,
    applied: Applied,
    beginning: Beginning,
    began: Instant,
    mapped_at: Instant,
}

impl Member {
    /// Number of its thread-local module.
    pub(crate) fn module(&self) -> Option<usize> {
        self.module.as_ref().map(tls::Module::number)
    }

    /// Adds those that it was linked against to what it needs.
    #[inline(never)]
    fn add_servers(&self, plan: &mut Plan, held: &Held) -> Result<(), LoadError> {
        for server in &self.servers {
            match server {
                Server::Member(at) => plan.use_member(*at),
                Server::Loaded(image) => {
                    let at = held.hold(image);
                    let ended = || LoadError::Uninitialised { unit: self.name.to_string() };
                    plan.use_image(at.ok_or_else(ended)?);
                }
            }
        }
        Ok(())
    }

    /// That it is damaged.
    #[cold]
    pub(super) fn damaged(&self, source: ImageError) -> LoadError {
        LoadError::Image { unit: self.name.to_string(), source }
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
        let mut started = self.load(namespace, sources)?;
        if started.len() > 1 {
            started.sort_unstable_by_key(|one| one.at);
        }
        Ok(started.into_iter().map(|one| one.image).collect())
    }

    /// The same, in the order in which they were started.
    pub(super) fn load(
        &self,
        namespace: Option<&Namespace>,
        sources: &[(&str, ImageSource<'_>)],
    ) -> Result<Vec<Prepared>, LoadError> {
        let mut prepared = self.prepare(namespace, sources, true)?;
        let done = self.complete(&mut prepared, sources);
        if let Err(error) = done {
            // Those that were started have told so already.
            prepared.iter().for_each(|one| one.image.give_up_unless_started());
            return Err(error);
        }
        Ok(prepared)
    }

    /// Completes, shows and starts what is bound.
    fn complete(
        &self,
        prepared: &mut [Prepared],
        sources: &[(&str, ImageSource<'_>)],
    ) -> Result<(), LoadError> {
        let arguments = self.0.options.program.unwrap_or_else(ProgramArguments::of_process);
        for Prepared { image, applied, beginning, .. } in &mut *prepared {
            *beginning = image.finish(applied).map_err(|error| not_started(image, error))?;
        }
        self.0.tools.announce(prepared.iter().map(|one| (&*one.image, sources[one.at].1)));
        for Prepared { image, .. } in &*prepared {
            if image.exports_everything() {
                self.show_exports(image)?;
            }
        }
        let bound = Instant::now();
        let mut now = bound;
        for Prepared { image, beginning, began, mapped_at, .. } in prepared {
            let steps = Steps { began: *began, mapped: *mapped_at, bound, begun: now };
            let beginning = std::mem::take(beginning);
            now = image.start(beginning, &arguments, steps).map_err(|error| not_started(image, error))?;
        }
        Ok(())
    }

    /// Everything up to the point where code of the images would run; gives them in the order in which it shall. Where
    /// symbols are missing, names like them are looked for if `near` says so.
    pub(crate) fn prepare(
        &self,
        namespace: Option<&Namespace>,
        sources: &[(&str, ImageSource<'_>)],
        near: bool,
    ) -> Result<Vec<Prepared>, LoadError> {
        let space = self.space(namespace);
        let mut members: Vec<Member> = Vec::with_capacity(sources.len());
        for (name, source) in sources {
            let member = self.map(name, *source)?;
            let LoaderOptions { materializer, uncompiled_functions, .. } = &self.0.options;
            if member.mapped.lazy.is_some() && materializer.is_none() && !uncompiled_functions {
                return Err(LoadError::Image { unit: (*name).to_owned(), source: ImageError::NoBackEnd });
            }
            members.push(member);
        }
        if members.iter().any(|member| !member.dependencies.is_empty()) {
            self.find_dependencies(space, &mut members)?;
        }
        let result = self.open_needed(space, &mut members).and_then(|early| {
            let prepared = self.bind(space, &mut members)?;
            early.done(&prepared);
            Ok(prepared)
        });
        result.map_err(|error| self.not_bound(space, members, error, near))
    }

    /// Lets go of what could not be bound.
    #[cold]
    fn not_bound(&self, space: &Space, members: Vec<Member>, mut error: LoadError, near: bool) -> LoadError {
        if near && let LoadError::Unresolved { symbols, .. } = &mut error {
            self.add_near_misses(space, &members, symbols);
        }
        // A library that is never unloaded may be bound to what was offered of these.
        for mut member in members.into_iter().filter(|member| member.early.is_some()) {
            member.libraries.clear();
            std::mem::forget(member);
        }
        error
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

    /// Resolves and relocates, and makes images of the members that are visible to others, in the order in which they are to
    /// be started. They are left as they are when that fails.
    fn bind(&self, space: &Arc<Space>, members: &mut Vec<Member>) -> Result<Vec<Prepared>, LoadError> {
        let common = &self.0.common;
        let mut view = common.process.view();
        let mut asked = false;
        loop {
            // Images must not end while the lock is held, so they are dropped after it is.
            let held = Held::default();
            let binding = common.binding.lock();
            let mut plans = self.plans(space, &view, members, &held, Section::under(&binding))?;
            if plans.iter().any(|plan| !plan.missing.is_empty() || !plan.absent.is_empty()) {
                let names = if asked { Vec::new() } else { unknown(members, &plans) };
                asked = true;
                if !names.is_empty() && view.may_know_more() {
                    // `dlsym` must not be called under a lock, so everything is resolved once more.
                    drop(binding);
                    view.ask(names);
                    continue;
                }
                let mut all = members.iter().zip(&plans);
                if let Some((member, plan)) = all.find(|(_, plan)| !plan.missing.is_empty()) {
                    drop(binding);
                    return Err(unresolved(&member.name, &member.mapped, &plan.missing, space));
                }
            }
            for (member, plan) in members.iter().zip(&mut plans) {
                // SAFETY: mapped just now, nobody else has seen it, and this is done once: every way on from here
                // leaves the loop.
                let applied =
                    unsafe { bind::apply(&member.mapped, member.module(), plan, member.early.is_none()) };
                plan.applied = applied.map_err(|source| member.damaged(source))?;
            }
            let order = Order::of(members, &mut plans);
            let prepared = self.assemble(space, std::mem::take(members), &mut plans, &order, &view, &held);
            for at in 0..prepared.len() {
                space.add(&prepared[order.turn_of(at)].image);
            }
            drop(binding);
            return Ok(prepared);
        }
    }

    /// What the symbols of each member are, as far as anybody knows.
    fn plans(
        &self,
        space: &Arc<Space>,
        view: &ProcessView,
        members: &[Member],
        held: &Held,
        section: Section,
    ) -> Result<Vec<Plan>, LoadError> {
        let mut layers = Layers::new(space, &self.0.host, view, (members, 0), held, section);
        let mut plans = Vec::with_capacity(members.len());
        for (position, member) in members.iter().enumerate() {
            layers.position = position;
            // What is relocated already has no slots as they are in the file.
            let lazy = self.0.options.lazy_imports && member.early.is_none();
            let held_open = lazy.then_some(&*member.libraries);
            let plan = plans.push_mut(Plan::default());
            bind::resolve(&member.mapped, member.module(), &layers, held_open, plan)
                .map_err(|source| member.damaged(source))?;
            if !member.servers.is_empty() {
                member.add_servers(plan, held)?;
            }
        }
        Ok(plans)
    }

    /// Makes images of members that are bound and in order.
    fn assemble(
        &self,
        space: &Arc<Space>,
        members: Vec<Member>,
        plans: &mut [Plan],
        order: &Order,
        view: &ProcessView,
        held: &Held,
    ) -> Vec<Prepared> {
        let first = space.next_places(members.len());
        let mut done: Vec<Prepared> = Vec::with_capacity(members.len());
        for ((member, plan), turn) in members.into_iter().zip(plans).zip(0..) {
            let Member { name, mapped, module, mut libraries, early, began, mapped_at, .. } = member;
            // Whoever was there early may still look at these.
            if let Some(early) = early {
                plan.applied.references.extend(early.references);
            }
            for at in &plan.libraries {
                if let Some(library) = view.owner(*at)
                    && !libraries.iter().any(|known| Arc::ptr_eq(known, library))
                {
                    libraries.push(Arc::clone(library));
                }
            }
            let cycle = order.circle(turn);
            // Members of the same circle are not there yet, or hold on to each other by it.
            let in_group = |at: &usize| {
                let other = &done.get(order.turn_of(*at))?.image;
                (cycle.is_none() || !other.is_in(cycle)).then(|| Arc::clone(other))
            };
            let mut images = Vec::new();
            plan.images.iter().for_each(|at| images.extend(held.get(*at)));
            plan.members.iter().for_each(|at| images.extend(in_group(at)));
            let at = order.place_of(turn);
            let parts = Parts {
                name,
                mapped,
                module,
                images,
                libraries,
                space: Arc::clone(space),
                loader: self.clone(),
                sequence: first + at as u64,
                cycle: cycle.cloned(),
            };
            let image = Image::new(parts, plan);
            let (applied, beginning) = (std::mem::take(&mut plan.applied), Beginning::default());
            done.push(Prepared { image, at, applied, beginning, began, mapped_at });
        }
        done
    }
}

/// The order in which members of a group are made images and started: whoever others need comes first. One that is by itself
/// needs none.
#[derive(Default)]
struct Order {
    /// Place in the group of who has each turn, and the circle that it is in.
    turns: Vec<(usize, Option<Arc<Cycle>>)>,
    /// Turn of who has each place.
    by_place: Vec<usize>,
}

impl Order {
    /// Puts members and what they need in order.
    fn of(members: &mut Vec<Member>, plans: &mut Vec<Plan>) -> Self {
        if plans.len() <= 1 { Self::default() } else { Self::of_several(members, plans) }
    }

    #[inline(never)]
    fn of_several(members: &mut Vec<Member>, plans: &mut Vec<Plan>) -> Self {
        let needs: Vec<_> = plans.iter().map(|plan| &*plan.members).collect();
        let mut turns = Vec::with_capacity(plans.len());
        for circle in circles(&needs) {
            let cycle = (circle.len() > 1).then(Cycle::new);
            turns.extend(circle.into_iter().map(|at| (at, cycle.clone())));
        }
        let mut by_place = vec![0; turns.len()];
        turns.iter().enumerate().for_each(|(turn, (at, _))| by_place[*at] = turn);
        let mut both: Vec<_> = members.drain(..).zip(plans.drain(..)).zip(&by_place).collect();
        both.sort_unstable_by_key(|(_, turn)| **turn);
        (*members, *plans) = both.into_iter().map(|(both, _)| both).unzip();
        Self { turns, by_place }
    }

    fn turn_of(&self, at: usize) -> usize {
        self.by_place.get(at).copied().unwrap_or(at)
    }

    fn place_of(&self, turn: usize) -> usize {
        self.turns.get(turn).map_or(turn, |(at, _)| *at)
    }

    fn circle(&self, turn: usize) -> Option<&Arc<Cycle>> {
        self.turns.get(turn)?.1.as_ref()
    }
}

#[cold]
fn not_started(image: &Image, error: StartError) -> LoadError {
    let unit = image.name().to_owned();
    match error {
        StartError::Image(source) => LoadError::Image { unit, source },
        StartError::System(source) => LoadError::Map { unit, source },
        StartError::Other => LoadError::Uninitialised { unit },
    }
}

/// Names and versions of what nobody has, but for those of [`wanted`].
#[cold]
fn unknown(members: &[Member], plans: &[Plan]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let unknown = members.iter().zip(plans).flat_map(|(member, plan)| {
        let unknown = plan.missing.iter().chain(&plan.absent);
        unknown.filter_map(|index| wanted(&member.mapped, *index))
    });
    unknown.collect()
}

#[cold]
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
