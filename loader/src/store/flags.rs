//! What clang's flags decide of an image, and by which rule an image made with other flags may serve.
//!
//! The one table of flags, [`FLAGS`], leads from each to an [`Aspect`]; [`Aspect::rule`] says for each aspect how two
//! requests may differ in it. What the table does not know is [`Aspect::Other`], which must match exactly.

use super::level::Level;
use crate::boundary::{Argument, Request, takes_value};

/// What a flag decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Aspect {
    /// The machine that code is for.
    Target,
    /// The processor that code is for.
    Processor,
    /// What debuggers are told.
    DebugInfo,
    /// What is checked while the program runs.
    BoundsChecks,
    /// What may be inlined.
    Inlining,
    /// What may be done to floating-point arithmetic.
    FloatingPoint,
    /// How much is optimised.
    Level,
    /// Anything else.
    Other,
}

/// When an image made with one value serves who asks for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Never.
    Exact,
    /// When it is at least as high, and the sources cannot tell ([`super::level`]).
    Ranked,
}

/// Beginnings of flags, in order; of several that fit the longest counts.
const FLAGS: &[(&str, Aspect)] = &[
    ("--debug", Aspect::DebugInfo),
    ("--optimize", Aspect::Level),
    ("--target", Aspect::Target),
    ("-O", Aspect::Level),
    ("-fapprox-func", Aspect::FloatingPoint),
    ("-fassociative-math", Aspect::FloatingPoint),
    ("-fbounds-safety", Aspect::BoundsChecks),
    ("-fdebug-", Aspect::DebugInfo),
    ("-fdenormal-fp-math", Aspect::FloatingPoint),
    ("-feliminate-unused-debug-", Aspect::DebugInfo),
    ("-fexcess-precision", Aspect::FloatingPoint),
    ("-ffast-math", Aspect::FloatingPoint),
    ("-ffinite-math-only", Aspect::FloatingPoint),
    ("-ffp-", Aspect::FloatingPoint),
    ("-fhonor-", Aspect::FloatingPoint),
    ("-finline", Aspect::Inlining),
    ("-flimit-debug-info", Aspect::DebugInfo),
    ("-fmath-errno", Aspect::FloatingPoint),
    ("-fno-approx-func", Aspect::FloatingPoint),
    ("-fno-associative-math", Aspect::FloatingPoint),
    ("-fno-bounds-safety", Aspect::BoundsChecks),
    ("-fno-debug-", Aspect::DebugInfo),
    ("-fno-eliminate-unused-debug-", Aspect::DebugInfo),
    ("-fno-fast-math", Aspect::FloatingPoint),
    ("-fno-finite-math-only", Aspect::FloatingPoint),
    ("-fno-honor-", Aspect::FloatingPoint),
    ("-fno-inline", Aspect::Inlining),
    ("-fno-limit-debug-info", Aspect::DebugInfo),
    ("-fno-math-errno", Aspect::FloatingPoint),
    ("-fno-reciprocal-math", Aspect::FloatingPoint),
    ("-fno-rounding-math", Aspect::FloatingPoint),
    ("-fno-sanitize", Aspect::BoundsChecks),
    ("-fno-signed-zeros", Aspect::FloatingPoint),
    ("-fno-standalone-debug", Aspect::DebugInfo),
    ("-fno-trapping-math", Aspect::FloatingPoint),
    ("-fno-unsafe-math-optimizations", Aspect::FloatingPoint),
    ("-freciprocal-math", Aspect::FloatingPoint),
    ("-frounding-math", Aspect::FloatingPoint),
    ("-fsanitize", Aspect::BoundsChecks),
    ("-fsigned-zeros", Aspect::FloatingPoint),
    ("-fstandalone-debug", Aspect::DebugInfo),
    ("-ftrapping-math", Aspect::FloatingPoint),
    ("-ftrapv", Aspect::BoundsChecks),
    ("-funsafe-math-optimizations", Aspect::FloatingPoint),
    ("-g", Aspect::DebugInfo),
    ("-gen-cdb-fragment-path", Aspect::Other),
    ("-m32", Aspect::Target),
    ("-m64", Aspect::Target),
    ("-march", Aspect::Processor),
    ("-mavx", Aspect::Processor),
    ("-mcpu", Aspect::Processor),
    ("-mno-avx", Aspect::Processor),
    ("-mno-sse", Aspect::Processor),
    ("-msse", Aspect::Processor),
    ("-mtune", Aspect::Processor),
    ("-target", Aspect::Target),
];

impl Aspect {
    /// All, what is most fundamental first.
    pub(super) const ALL: [Self; 8] = [
        Self::Target,
        Self::Processor,
        Self::DebugInfo,
        Self::BoundsChecks,
        Self::Inlining,
        Self::FloatingPoint,
        Self::Level,
        Self::Other,
    ];

    /// What `flag` decides.
    pub(super) fn of(flag: &str) -> Self {
        // Beginnings of one flag stand in the order of their lengths, and all before the flag itself.
        let before = &FLAGS[..FLAGS.partition_point(|(beginning, _)| *beginning <= flag)];
        let near = |beginning: &str| beginning.as_bytes().get(1) == flag.as_bytes().get(1);
        let mut near = before.iter().rev().take_while(|(beginning, _)| near(beginning));
        near.find(|(beginning, _)| flag.starts_with(beginning)).map_or(Self::Other, |(_, aspect)| *aspect)
    }

    /// How requests may differ in it.
    pub(super) fn rule(self) -> Rule {
        match self {
            Self::Level => Rule::Ranked,
            Self::Target
            | Self::Processor
            | Self::DebugInfo
            | Self::BoundsChecks
            | Self::Inlining
            | Self::FloatingPoint
            | Self::Other => Rule::Exact,
        }
    }
}

/// Tells flags from their values, when it is shown the arguments of a line one after the other.
#[derive(Debug, Default)]
pub(super) struct Grammar {
    value_comes: bool,
}

impl Grammar {
    /// The argument, if it is a flag of its own.
    pub(super) fn flag<'a>(&mut self, argument: &'a Argument) -> Option<&'a str> {
        let is_value = std::mem::take(&mut self.value_comes);
        match argument {
            Argument::Flag(flag) if !is_value => {
                self.value_comes = takes_value(flag);
                Some(flag)
            }
            _ => None,
        }
    }
}

/// The level that `request` asks for; nothing where levels have no rank, so that flags about them must match like any others.
///
/// That is so where one of them is not on the scale of [`Level`] (what `-Ofast` means depends on its place among the others), and
/// where clang may take flags about levels that are not seen here: from another variable, or on the way to one of its parts.
pub(super) fn level(request: &Request) -> Option<Level> {
    let flags = || {
        let mut grammar = Grammar::default();
        request.arguments.iter().filter_map(move |argument| grammar.flag(argument))
    };
    let compiles = request.inputs().any(|input| input.lang.is_compiled());
    if !compiles && !flags().any(|flag| flag.starts_with("-flto")) {
        // Linked as it is.
        return Some(Level::Unsaid);
    }
    if request.environment.iter().any(|(name, _)| name == "CCC_OVERRIDE_OPTIONS") {
        return None;
    }
    let mut level = Level::Unsaid;
    for flag in flags() {
        if flag.starts_with("-X") {
            return None;
        }
        if Aspect::of(flag) == Aspect::Level {
            level = Level::of_flag(flag)?;
        }
    }
    Some(level)
}

/// `request`, in which levels have a rank, with another one.
pub(super) fn with_level(request: &Request, level: Level) -> Request {
    let mut grammar = Grammar::default();
    let mut arguments = request.arguments.clone();
    let ranked = |flag: &str| Aspect::of(flag).rule() == Rule::Ranked;
    arguments.retain(|argument| !grammar.flag(argument).is_some_and(ranked));
    if !level.flag().is_empty() {
        arguments.insert(0, Argument::Flag(level.flag().into()));
    }
    Request { arguments, ..request.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_the_longest_beginning_counts() {
        assert!(FLAGS.is_sorted_by_key(|(beginning, _)| beginning));
        for (flag, aspect) in [
            ("-O2", Aspect::Level),
            ("-Ofast", Aspect::Level),
            ("-g", Aspect::DebugInfo),
            ("-ggdb3", Aspect::DebugInfo),
            ("-gen-cdb-fragment-path", Aspect::Other),
            ("-fsanitize=bounds", Aspect::BoundsChecks),
            ("-fno-sanitize-trap=all", Aspect::BoundsChecks),
            ("-fno-inline", Aspect::Inlining),
            ("-finline-functions", Aspect::Inlining),
            ("-ffast-math", Aspect::FloatingPoint),
            ("-ffp-contract=off", Aspect::FloatingPoint),
            ("-march=native", Aspect::Processor),
            ("--target=x86_64-linux-gnu", Aspect::Target),
            ("-fPIC", Aspect::Other),
            ("-std=c++20", Aspect::Other),
            ("-fnew-flag-of-tomorrow", Aspect::Other),
        ] {
            assert_eq!(Aspect::of(flag), aspect, "{flag}");
        }
        assert!(Aspect::ALL.is_sorted());
    }
}
