//! Single functions that need not be compiled again: their code is taken from the object that was made of the same source before.
//!
//! A function is known by a fingerprint of all that code generation can see of it (`shim/fingerprints.h`), taken when the module has gone
//! through LLVM's passes: so a change that is inlined somewhere, or that another function takes advantage of, changes that one's, too.
//! What has the fingerprint it had becomes a declaration, code is generated for the rest, and the old object's functions are put into the
//! new object ([`mod@splice`]), as far as everything in the old one is understood ([`old`]). Whatever is in the way: the source is compiled as a
//! whole. What is kept for that is the *stock* ([`stock`]).

mod elf;
mod frames;
mod old;
mod splice;
mod stock;
#[cfg(test)]
mod tests;

use crate::shim::Offered;
use old::Old;
use splice::{Taken, splice};
use std::collections::HashMap;
use stock::{Fingerprint, StockedSource, decode, encode, hash_of};

/// Sources with fewer functions are compiled sooner than something is looked up for them.
const FEWEST: usize = 32;
/// One in so many functions has to be reused at least, or none is: taking an object apart takes time, too.
const SHARE: usize = 4;

/// What was kept of an earlier compilation.
pub(crate) struct Reuse<'a> {
    sources: Vec<StockedSource<'a>>,
}

impl<'a> Reuse<'a> {
    /// What is in `stock`; nothing if that is no stock.
    pub(crate) fn new(stock: &'a [u8]) -> Self {
        Self { sources: decode(stock) }
    }

    /// What there is of the source at `path`, which is compiled with these arguments of the front end.
    pub(crate) fn of_source(&self, path: &str, arguments: &[String]) -> SourceReuse<'_> {
        let arguments = hash_of(arguments);
        let known = self.sources.iter().find(|source| source.path == path && source.arguments == arguments);
        SourceReuse { known, ..SourceReuse::default() }
    }
}

/// The functions of a source, and what is kept of them.
#[derive(Default)]
pub(crate) struct SourceReuse<'a> {
    known: Option<&'a StockedSource<'a>>,
    old: Option<Old<'a>>,
    functions: Vec<Function>,
}

/// A function of a module.
#[derive(Debug, Clone)]
struct Function {
    name: Vec<u8>,
    fingerprint: Option<Fingerprint>,
    local_alias: bool,
    reused: bool,
}

/// The functions of an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Functions {
    known: Vec<(Vec<u8>, Fingerprint)>,
    /// How many there are.
    pub(crate) all: u32,
    /// Of how many the code was taken from an older object.
    pub(crate) reused: u32,
}

impl SourceReuse<'_> {
    /// Which of the functions of the module need no code.
    pub(crate) fn choose(&mut self, offered: &[Offered<'_>]) -> Vec<bool> {
        let known: HashMap<&[u8], Fingerprint> =
            self.known.iter().flat_map(|known| known.functions.iter().copied()).collect();
        let same =
            |one: &Offered<'_>| one.fingerprint.is_some() && known.get(one.name) == one.fingerprint.as_ref();
        let mut chosen: Vec<bool> = offered.iter().map(same).collect();
        if is_enough(&chosen) {
            self.old = self.known.and_then(|known| Old::read(known.object));
        }
        let old = self.old.as_ref();
        for (chosen, one) in chosen.iter_mut().zip(offered) {
            *chosen &= old.is_some_and(|old| old.functions.contains_key(one.name));
        }
        if !is_enough(&chosen) {
            chosen.fill(false);
            self.old = None;
        }
        let function = |(one, &reused): (&Offered<'_>, &bool)| Function {
            name: one.name.to_vec(),
            fingerprint: one.fingerprint,
            local_alias: one.local_alias,
            reused,
        };
        self.functions = offered.iter().zip(&chosen).map(function).collect();
        chosen
    }

    /// Whether the object lacks functions.
    pub(crate) fn is_used(&self) -> bool {
        self.functions.iter().any(|function| function.reused)
    }

    /// The object that was compiled with what was reused put into it; nothing if that cannot be.
    pub(crate) fn complete(&self, object: &[u8]) -> Option<Vec<u8>> {
        let taken = self.functions.iter().filter(|function| function.reused);
        let taken = taken.map(|function| Taken { name: &function.name, local_alias: function.local_alias });
        splice(self.old.as_ref()?, object, &taken.collect::<Vec<_>>())
    }

    /// What is to be said of the functions.
    pub(crate) fn functions(&self) -> Functions {
        let known = |function: &Function| Some((function.name.clone(), function.fingerprint?));
        let count = |functions: usize| u32::try_from(functions).unwrap_or(u32::MAX);
        Functions {
            known: self.functions.iter().filter_map(known).collect(),
            all: count(self.functions.len()),
            reused: count(self.functions.iter().filter(|function| function.reused).count()),
        }
    }
}

/// Whether it is worth it.
fn is_enough(chosen: &[bool]) -> bool {
    chosen.iter().filter(|&&chosen| chosen).count() * SHARE >= chosen.len().max(1)
}

/// A source as it was compiled.
pub(crate) struct Kept<'a> {
    /// The source, as messages know it.
    pub(crate) path: &'a str,
    /// The front end's arguments.
    pub(crate) arguments: &'a [String],
    pub(crate) functions: &'a Functions,
    pub(crate) object: &'a [u8],
}

/// What is to be kept of these; nothing if it is not worth it.
pub(crate) fn to_stock<'a>(sources: impl Iterator<Item = Kept<'a>>) -> Option<Vec<u8>> {
    let worth = sources.filter(|source| source.functions.known.len() >= FEWEST);
    let kept = worth.map(|Kept { path, arguments, functions, object }| StockedSource {
        path,
        arguments: hash_of(arguments),
        functions: functions.known.iter().map(|(name, fingerprint)| (&**name, *fingerprint)).collect(),
        object,
    });
    let kept: Vec<StockedSource<'_>> = kept.collect();
    (!kept.is_empty()).then(|| encode(&kept))
}

/// Puts every function of `old` that can be taken into `new`, as far as that lacks them; nothing if that cannot be.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn splice_all(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let old = Old::read(old)?;
    let has = elf::Elf::read(new)?;
    let lacks = |name: &[u8]| {
        has.symbols.iter().any(|symbol| *symbol.name == *name && symbol.place == elf::Place::Undefined)
    };
    let mut names: Vec<_> = old.functions.keys().copied().filter(|name| lacks(name)).collect();
    names.sort_unstable();
    let taken: Vec<_> = names.iter().map(|name| Taken { name, local_alias: false }).collect();
    splice(&old, new, &taken)
}
