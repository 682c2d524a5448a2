//! The functions of a lazy image that are compiled when it is made, because a trace says that they are called, and which names
//! the image shows then.
//!
//! What has no code must not be called by anybody who cannot compile it: its name is for the image alone. So what others call
//! without being told has to have code, traced or not: constructors and destructors, and what chooses ifuncs when the image is
//! loaded. Libraries call a program's own allocator instead of theirs, all of it or nothing, and do so before the image is bound:
//! a program that has one is compiled whole.

use super::body_suffix;
use super::link::Fresh;
use crate::link::with_order;
use crate::parallel::in_parallel;
use crate::split::{Facts, Kind, Number};
use crate::traced::{Order, Seen};
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::sys::threads::processors;
use std::collections::{HashMap, HashSet};

/// So many functions are worth another thread, which opens the unit anew.
const WORTH_OPENING: usize = 32;

/// The place of what was not called, behind everything that was.
const BEHIND: u32 = u32::MAX;

/// See the module's description.
pub(super) struct Chosen {
    /// Of each unit, with their places in the order of all.
    places: Vec<Vec<(u32, Number)>>,
    /// The same without.
    functions: Vec<HashSet<Number>>,
    /// The names that the image shows.
    exports: HashSet<String>,
}

/// What they are compiled to.
pub(super) struct ChosenBodies {
    /// The objects of each unit. Linked, functions have the order of the trace.
    pub(super) objects: Vec<Vec<Vec<u8>>>,
    /// How many functions.
    pub(super) count: u32,
    /// Whether one depends on files that the assembler reads.
    pub(super) read_files: bool,
}

impl Chosen {
    /// What was called, and what others call anyway, the `entry` among that.
    ///
    /// # Errors
    /// When the units have an allocator.
    pub(super) fn of(order: &Order, units: &[Seen], entry: Option<&str>) -> Result<Self, Failure> {
        if let Some(allocator) = order.holders().keys().find(|name| allocates(name)) {
            let message = format!("cannot leave functions as bitcode: libraries call {allocator}");
            return Err(Failure::new(FailureKind::Internal, message));
        }
        let entry = entry.and_then(|entry| order.holders().get(entry));
        let of_unit = |(unit, seen): (usize, &Seen)| {
            let called = order.of_unit(unit);
            let entry = entry.filter(|(of, _)| *of == unit).map(|(_, function)| *function);
            let mut places: HashMap<Number, u32> = called.map(|(place, number)| (number, place)).collect();
            for function in called_by_others(seen.facts()).chain(entry) {
                places.entry(function).or_insert(BEHIND);
            }
            let mut places: Vec<_> = places.into_iter().map(|(function, place)| (place, function)).collect();
            places.sort_unstable();
            places
        };
        let places: Vec<Vec<(u32, Number)>> = units.iter().enumerate().map(of_unit).collect();
        let functions: Vec<HashSet<Number>> =
            places.iter().map(|places| places.iter().map(|(_, function)| *function).collect()).collect();
        let has_body =
            |(_, (unit, function)): &(&String, &(usize, Number))| functions[*unit].contains(function);
        let exports = order.holders().iter().filter(has_body).map(|(name, _)| name.clone()).collect();
        Ok(Self { places, functions, exports })
    }

    /// Those of a unit.
    pub(super) fn of_unit(&self, number: usize) -> &HashSet<Number> {
        &self.functions[number]
    }

    /// The names that the image shows.
    pub(super) fn exports(&self) -> &HashSet<String> {
        &self.exports
    }

    /// Compiles them, each for itself.
    ///
    /// # Errors
    /// When one does not compile.
    pub(super) fn compile(&self, units: &[Fresh<'_>]) -> Result<ChosenBodies, Failure> {
        let mut parts: Vec<(usize, &[(u32, Number)])> = Vec::new();
        for (unit, places) in self.places.iter().enumerate() {
            let each = places.len().div_ceil(processors()).max(WORTH_OPENING);
            parts.extend(places.chunks(each).map(|part| (unit, part)));
        }
        let compiled = in_parallel(parts.len(), false, |number| {
            let (unit, part) = parts[number];
            compile(&units[unit], part)
        });
        let count = self.places.iter().map(|places| places.len() as u32).sum();
        let mut bodies = ChosenBodies { objects: vec![Vec::new(); units.len()], count, read_files: false };
        for ((unit, _), (objects, read_files)) in parts.iter().zip(compiled.map_err(|(_, failure)| failure)?)
        {
            bodies.objects[*unit].extend(objects);
            bodies.read_files |= read_files;
        }
        Ok(bodies)
    }
}

/// The objects of some functions of a unit, and whether one depends on files that the assembler reads.
fn compile(unit: &Fresh<'_>, places: &[(u32, Number)]) -> Result<(Vec<Vec<u8>>, bool), Failure> {
    let suffix = body_suffix(unit.number);
    let mut own = unit.open_again()?;
    let mut objects = Vec::with_capacity(places.len());
    for &(place, function) in places {
        let object = own.code_of(&[function], &suffix)?.compile()?;
        let name = unit.facts.get(function).map(|symbol| format!("{}{suffix}", symbol.elf_name()));
        let ordered = with_order(&object, |other, _| (name.as_deref() == Some(other)).then_some(place));
        objects.push(ordered.unwrap_or(object));
    }
    Ok((objects, own.reads_files()))
}

/// The functions of a unit that are called whether the unit calls them or not.
fn called_by_others(facts: &Facts) -> impl Iterator<Item = Number> {
    let starts = facts.starts.iter().map(|start| start.function);
    let resolvers = facts.symbols.iter().filter(|symbol| symbol.kind == Kind::Ifunc);
    let resolvers = resolvers.filter_map(|ifunc| ifunc.base);
    let all = starts.chain(resolvers);
    let defined = |number: &Number| {
        facts
            .get(*number)
            .is_some_and(|symbol| symbol.kind == Kind::Function && symbol.linkage.is_definition())
    };
    all.filter(defined)
}

/// Whether that is one of the functions by which memory is had and given back.
fn allocates(name: &str) -> bool {
    const OPERATORS: [&str; 4] = ["_Znw", "_Zna", "_Zdl", "_Zda"];
    const FUNCTIONS: [&str; 10] = [
        "aligned_alloc",
        "calloc",
        "free",
        "malloc",
        "malloc_usable_size",
        "memalign",
        "posix_memalign",
        "pvalloc",
        "realloc",
        "valloc",
    ];
    FUNCTIONS.contains(&name) || OPERATORS.iter().any(|operator| name.starts_with(operator))
}
