//! What an explanation consists of, and its text.
//!
//! There are no addresses in it, and files have their canonical names, so that it is the same from run to run.

use crate::error::demangle;
use crate::image::SymbolKind;
use crate::layers::Layer;
use crate::loader::Sameness;
use std::fmt;

/// Who was asked for a symbol, in which order, what each said, who won and why.
///
/// Its text is a table with a line for each answer, and a last line with the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Name of the symbol.
    pub symbol: String,
    /// The name as C++ or Rust source has it, if it is mangled.
    pub demangled: Option<String>,
    /// The version that who asks wants.
    pub version: Option<String>,
    /// The unit that refers to it, if one does.
    pub needed_by: Option<String>,
    /// The layers, in the order in which they are asked.
    pub asked: Vec<Asked>,
    /// When nobody has it: names like it that somebody has, nearest first.
    pub near: Vec<String>,
}

/// A layer and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub layer: Layer,
    /// Every definition of that name in it, in the order of search.
    pub answers: Vec<Answer>,
    /// What else there is to say.
    pub remark: Option<String>,
}

/// A definition that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Name of the unit, canonical path of the library, `host` or `the program`.
    pub unit: String,
    /// What it is.
    pub kind: SymbolKind,
    /// Whether it is weak or otherwise shared with other units.
    pub weak: bool,
    /// Its version.
    pub version: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// Of a shared definition that is not used where another unit's is: how it compares with that one.
    pub sameness: Option<Sameness>,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what the reference gets.
    Used,
    /// It would do, and another one comes before it.
    Shadowed,
    /// It would not do.
    NotCounted(Reason),
}

/// Why a definition is not taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It has another version than the one that is asked for.
    OtherVersion,
    /// Only who asks for its version gets it.
    HiddenVersion,
    /// It is weak, and all units use another copy.
    Replaced,
    /// It does not replace a unit's own weak definition, as its name is not mangled as C++ does.
    NotShared,
    /// Hotbed has a function that stands in for it.
    StandIn,
    /// It is a variable of the program, whose guard cannot be seen: it may not be initialised.
    Guard,
}

impl Explanation {
    /// The layer and the definition that a reference gets; `None` when nobody has one.
    pub fn winner(&self) -> Option<(&Asked, &Answer)> {
        self.asked.iter().find_map(|asked| {
            let used = asked.answers.iter().find(|answer| answer.verdict == Verdict::Used)?;
            Some((asked, used))
        })
    }

    /// Why the winner has won.
    pub fn why(&self) -> Option<&'static str> {
        let (asked, answer) = self.winner()?;
        Some(match asked.layer {
            Layer::Runtime => "it stands in for what knows nothing of images",
            Layer::Unit if !answer.weak => "the unit's own strong definition",
            Layer::Unit | Layer::Images if answer.weak => "weak: the first loaded copy counts",
            _ => "first in the order that has it",
        })
    }

    pub(super) fn new(symbol: &str) -> Self {
        Self {
            demangled: demangle(symbol),
            symbol: symbol.to_owned(),
            version: None,
            needed_by: None,
            asked: Vec::new(),
            near: Vec::new(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Used => f.write_str("used"),
            Self::Shadowed => f.write_str("shadowed"),
            Self::NotCounted(reason) => write!(f, "not counted: {reason}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherVersion => "another version",
            Self::HiddenVersion => "a version that must be asked for",
            Self::Replaced => "another weak copy is used by all",
            Self::NotShared => "a plain name does not replace a unit's own",
            Self::StandIn => "Hotbed stands in for it",
            Self::Guard => "its guard cannot be seen",
        })
    }
}

/// What it is, in a word.
fn kind(kind: SymbolKind) -> &'static str {
    match kind {
        SymbolKind::Function => "function",
        SymbolKind::Data => "variable",
        SymbolKind::Tls => "thread-local variable",
        SymbolKind::IndirectFunction => "indirect function",
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weak = if self.weak { "weak " } else { "" };
        write!(f, "{}: {weak}{}", self.unit, kind(self.kind))?;
        if let Some(version) = &self.version {
            write!(f, ", {version}")?;
        }
        write!(f, ": {}", self.verdict)?;
        match self.sameness {
            Some(Sameness::Equal) => f.write_str("; it is the same"),
            Some(Sameness::Differs) => f.write_str("; it is not the same"),
            Some(Sameness::Unknown) | None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.demangled.as_ref().unwrap_or(&self.symbol);
        f.write_str(name)?;
        if self.demangled.is_some() {
            write!(f, " ({})", self.symbol)?;
        }
        if let Some(version) = &self.version {
            write!(f, " of version {version}")?;
        }
        match &self.needed_by {
            Some(unit) => writeln!(f, ", needed by {unit}")?,
            None => writeln!(f)?,
        }
        for Asked { layer, answers, remark } in &self.asked {
            let layer = layer.to_string();
            for (at, answer) in answers.iter().enumerate() {
                writeln!(f, "  {:<26} {answer}", if at == 0 { &*layer } else { "" })?;
            }
            match remark {
                Some(remark) => {
                    writeln!(f, "  {:<26} ({remark})", if answers.is_empty() { &*layer } else { "" })?
                }
                None if answers.is_empty() => writeln!(f, "  {layer:<26} -")?,
                None => {}
            }
        }
        match (self.winner(), self.why()) {
            (Some((asked, answer)), Some(why)) if answer.unit == asked.layer.to_string() => {
                write!(f, "{name} is from {}: {why}", asked.layer)
            }
            (Some((asked, answer)), Some(why)) => {
                write!(f, "{name} is from {}, {}: {why}", answer.unit, asked.layer)
            }
            _ if self.near.is_empty() => write!(f, "nobody has {name}"),
            _ => write!(f, "nobody has {name}; did you mean {}?", self.near.join(", ")),
        }
    }
}
