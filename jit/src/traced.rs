//! What a trace says of the sources that an image is made of: which of their functions were called, in which order, and which
//! records fit nothing any more.
//!
//! A record names a function by its source, and what several units define the linker takes from one of them: where a
//! definition is strong, else from the first. So a record of any of them is one of that. But what calls a function that several
//! units define may have its own unit's copy inlined, and that refers to its own unit's local functions (those of a header, which each
//! unit has): so a record of a local function is one of those of other units that say the same, too.

use crate::split::{Facts, Kind, Linkage, Number, Symbol};
use hotbed_loader::boundary::{Argument, Diagnostic, Failure, FailureKind, Request, Severity, Trace};
use hotbed_loader::trace::{Call, matters, source_name};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// What is behind local names where contents of functions are hashed: a hash must not tell how many units came before.
pub(crate) const READER_SUFFIX: &str = ".u";

/// So many records that fit nothing are shown one by one.
const SHOWN: usize = 10;

/// The trace of a request.
pub(crate) struct Traced<'a> {
    trace: &'a Trace,
    /// The places of records in it, by their sources.
    by_source: HashMap<&'a str, Vec<u32>>,
    /// The flags of the request that matter for code.
    flags: Vec<&'a str>,
    directory: &'a Path,
    unit: &'a str,
}

/// What a record fits, better ones later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// No source of that name.
    NoSource,
    /// No function of that name.
    NoFunction,
    /// A function that says something else.
    Changed,
    /// A function that says the same, or somebody else's, as far as is known.
    Same,
}

/// A unit, and what the records of its source fit in it.
pub(crate) struct Seen {
    facts: Arc<Facts>,
    /// What is behind its local names.
    suffix: String,
    /// Places of records.
    found: Vec<(u32, Option<Number>, Fit)>,
    /// Places of records of other units' local functions, and which of the unit's say the same.
    alike: Vec<(u32, Number)>,
}

/// The functions that were called, among those of all units.
#[derive(Default)]
pub(crate) struct Order {
    /// By unit and function. The lower the earlier.
    places: HashMap<(usize, Number), u32>,
    /// Which unit has a name that all see, and what has the function that the name means there.
    holders: HashMap<String, (usize, Number)>,
    /// What is to be said of the records that fit nothing.
    pub(crate) messages: Vec<Diagnostic>,
}

impl<'a> Traced<'a> {
    /// That of a request, if it has one.
    pub(crate) fn of(request: &'a Request) -> Option<Self> {
        let trace = request.trace.as_ref()?;
        let mut by_source: HashMap<&str, Vec<u32>> = HashMap::new();
        for (place, call) in (0..).zip(&trace.calls) {
            by_source.entry(&call.record.source).or_default().push(place);
        }
        let flags = request.arguments.iter().filter_map(|argument| match argument {
            Argument::Flag(flag) => Some(flag.as_str()),
            Argument::Input(_) => None,
        });
        let (flags, directory, unit) = (matters(flags), &*request.directory, &*request.unit);
        Some(Self { trace, by_source, flags, directory, unit })
    }

    /// Whether the contents of a source's functions are to be compared.
    pub(crate) fn compares(&self, source: &str) -> bool {
        self.calls_of(source).any(|(_, call)| self.comparable(call).is_some())
    }

    /// Looks for the functions of a unit that was opened with `suffix`. `content` hashes what one says, if it can be read.
    pub(crate) fn look_up(
        &self,
        source: &str,
        facts: &Arc<Facts>,
        suffix: &str,
        mut content: impl FnMut(Number) -> Option<[u8; 32]>,
    ) -> Seen {
        let functions = functions(facts, suffix);
        let find = |(place, call): (u32, &Call)| {
            let name = &*call.record.function;
            let base = of_base(name);
            let of_base = || functions.get(base.as_deref()?);
            let Some(&number) = functions.get(name).or_else(of_base) else {
                let left_out = base.is_some() && call.record.flags != self.flags;
                return (place, None, if left_out { Fit::Same } else { Fit::NoFunction });
            };
            // What is only inlined here, or called, somebody else has.
            let Some(number) = number else { return (place, None, Fit::Same) };
            let recorded = self.comparable(call);
            let now = recorded.and_then(|_| content(number));
            let fit = if now.is_some() && now != recorded { Fit::Changed } else { Fit::Same };
            (place, Some(number), fit)
        };
        let found: Vec<_> = self.calls_of(source).map(find).collect();
        let is_own: HashSet<u32> = found.iter().map(|(place, ..)| *place).collect();
        let others = (0..).zip(&self.trace.calls).filter(|(place, _)| !is_own.contains(place));
        let alike = others.filter_map(|(place, call)| {
            let number = (*functions.get(&*call.record.function)?)?;
            let recorded = self.comparable(call).filter(|_| facts.symbols[number as usize].local)?;
            (content(number) == Some(recorded)).then_some((place, number))
        });
        let alike = alike.collect();
        Seen { facts: Arc::clone(facts), suffix: suffix.to_owned(), found, alike }
    }

    /// Puts the functions of all units into the order of the trace.
    ///
    /// # Errors
    /// When records fit nothing, and that is to be one.
    pub(crate) fn order(&self, units: &[Seen]) -> Result<Order, Failure> {
        let mut order = Order { holders: holders(units), ..Order::default() };
        let mut fits = vec![Fit::NoSource; self.trace.calls.len()];
        for (unit, seen) in units.iter().enumerate() {
            for &(place, function, fit) in &seen.found {
                fits[place as usize] = fits[place as usize].max(fit);
                let Some(function) = function else { continue };
                let symbol = &seen.facts.symbols[function as usize];
                let holder = order.holders.get(symbol.elf_name()).filter(|_| !symbol.local);
                order.add(*holder.unwrap_or(&(unit, function)), place);
            }
            seen.alike.iter().for_each(|&(place, function)| order.add((unit, function), place));
        }
        order.messages = self.messages(&fits);
        if self.trace.strict
            && let Some(first) = order.messages.first()
        {
            let place = format!("{}:{}", first.file, first.line);
            let message = format!("cannot make {} as it was traced: {place}: {}", self.unit, first.message);
            return Err(Failure {
                rendered: render(&order.messages, fits.len()),
                diagnostics: order.messages,
                ..Failure::new(FailureKind::Input, message)
            });
        }
        Ok(order)
    }

    /// The messages as text.
    pub(crate) fn render(&self, messages: &[Diagnostic]) -> String {
        render(messages, self.trace.calls.len())
    }

    fn messages(&self, fits: &[Fit]) -> Vec<Diagnostic> {
        let say = |(call, fit): (&Call, &Fit)| {
            let (source, function) = (&call.record.source, &call.record.function);
            let message = match fit {
                Fit::Same => return None,
                Fit::NoSource => format!("{source}, which has {function}, is no source here"),
                Fit::NoFunction => format!("{source} has no function {function}"),
                Fit::Changed => format!("{function} of {source} is not what it was"),
            };
            let severity = if self.trace.strict { Severity::Error } else { Severity::Warning };
            Some(Diagnostic { severity, file: call.trace.clone(), line: call.line, column: 0, message })
        };
        self.trace.calls.iter().zip(fits).filter_map(say).collect()
    }

    /// The records of a source that the front end knows by that path, and their places.
    fn calls_of(&self, source: &str) -> impl Iterator<Item = (u32, &'a Call)> {
        let places = self.by_source.get(&*source_name(source, self.directory)).map_or(&[][..], |all| all);
        places.iter().map(|&place| (place, &self.trace.calls[place as usize]))
    }

    /// The recorded content, if it says something about a function that is made with the flags of the request.
    fn comparable(&self, call: &Call) -> Option<[u8; 32]> {
        call.record.content.filter(|_| call.record.flags == self.flags)
    }
}

impl Seen {
    /// The unit's names.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Order {
    fn add(&mut self, function: (usize, Number), place: u32) {
        let first = self.places.entry(function).or_insert(place);
        *first = place.min(*first);
    }

    /// The functions of a unit that were called, with their places.
    pub(crate) fn of_unit(&self, unit: usize) -> impl Iterator<Item = (u32, Number)> {
        let all = self.places.iter();
        all.filter(move |((of, _), _)| *of == unit).map(|((_, function), place)| (*place, *function))
    }

    /// Which unit has a name that all see, and which function it means there.
    pub(crate) fn holders(&self) -> &HashMap<String, (usize, Number)> {
        &self.holders
    }

    /// The same for who has a unit whole: the places by names as its object has them, and by whether they are local there.
    pub(crate) fn by_name<'s>(&self, unit: usize, seen: &'s Seen) -> HashMap<(&'s str, bool), u32> {
        let place = |function: Number| {
            let symbol = &seen.facts.symbols[function as usize];
            let name = symbol.source_name(&seen.suffix);
            let holder = self.holders.get(name).filter(|_| !symbol.local);
            Some(((name, symbol.local), *self.places.get(holder.unwrap_or(&(unit, function)))?))
        };
        seen.facts.functions().filter_map(place).collect()
    }
}

/// What is called that in a unit's source: the functions that it has, and nothing where somebody else has one.
fn functions<'a>(facts: &'a Facts, suffix: &str) -> HashMap<&'a str, Option<Number>> {
    let function = |(number, symbol): (Number, &'a Symbol)| {
        let function = match symbol.kind {
            Kind::Function => number,
            Kind::Alias => symbol.base.filter(|&base| facts.symbols[base as usize].kind == Kind::Function)?,
            Kind::Ifunc | Kind::Variable => return None,
        };
        let here = symbol.linkage.is_definition();
        Some((symbol.source_name(suffix), here.then_some(function)))
    };
    (0..).zip(&facts.symbols).filter_map(function).collect()
}

/// The constructor or destructor of bases that belongs to one, of bases or of whole objects. With optimisation clang has but
/// one where two do the same: that of bases, or that of a base.
fn of_base(name: &str) -> Option<String> {
    let base = name.strip_prefix("_Z")?.replace("C1E", "C2E").replace("D1E", "D2E");
    (base.contains("C2E") || base.contains("D2E")).then(|| format!("_Z{base}"))
}

/// Who has the names of functions that all units see: other names of functions among them.
fn holders(units: &[Seen]) -> HashMap<String, (usize, Number)> {
    let mut holders: HashMap<String, (usize, Number)> = HashMap::new();
    for linkage in [Linkage::Strong, Linkage::Weak] {
        for (unit, seen) in units.iter().enumerate() {
            for (number, symbol) in (0..).zip(&seen.facts.symbols) {
                let function = if symbol.kind == Kind::Function { Some(number) } else { symbol.base };
                if let Some(function) = function
                    && symbol.kind != Kind::Variable
                    && symbol.linkage == linkage
                    && !symbol.local
                {
                    holders.entry(symbol.elf_name().to_owned()).or_insert((unit, function));
                }
            }
        }
    }
    holders
}

/// Messages about records, of which there are `all`, as the compiler would print them.
fn render(messages: &[Diagnostic], all: usize) -> String {
    let mut text = String::new();
    let label = |severity| if severity == Severity::Error { "error" } else { "warning" };
    // Writing to a String cannot fail.
    for Diagnostic { severity, file, line, message, .. } in messages.iter().take(SHOWN) {
        let _ = writeln!(text, "{file}:{line}: {}: {message}", label(*severity));
    }
    if let Some(first) = messages.first() {
        let _ = writeln!(
            text,
            "{}: {} of {all} records of calls fit nothing here",
            label(first.severity),
            messages.len()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_have_what_whole_objects_have() {
        for (whole, base) in [
            ("_ZN6SquareC1Ei", Some("_ZN6SquareC2Ei")),
            ("_ZN1n1DD1Ev", Some("_ZN1n1DD2Ev")),
            ("_Z3addv", None),
            ("C1E", None),
        ] {
            assert_eq!(of_base(whole).as_deref(), base);
        }
    }

    #[test]
    fn only_the_first_are_shown() {
        let message = |line| Diagnostic {
            severity: Severity::Warning,
            file: "t".into(),
            line,
            column: 0,
            message: "gone".into(),
        };
        let all: Vec<Diagnostic> = (1..=12).map(message).collect();
        let text = render(&all, 20);
        assert!(text.starts_with("t:1: warning: gone\nt:2: ") && !text.contains("t:11:"), "{text}");
        assert!(text.ends_with("warning: 12 of 20 records of calls fit nothing here\n"), "{text}");
        assert_eq!(render(&[], 20), "");
    }
}
