//! What is known of a unit: its names when it is opened, a body's contents when it is read.

use crate::shim::split::{RawStart, RawSymbol};
use std::collections::HashMap;

/// A symbol's place in [`Facts::symbols`].
pub type Number = u32;

/// Stands for no symbol in the shim's lists.
const NOTHING: u32 = u32::MAX;

/// The names of a unit.
#[derive(Debug)]
pub struct Facts {
    /// All that it defines and mentions, in the order of the module: variables and functions, aliases, ifuncs.
    pub symbols: Vec<Symbol>,
    /// What runs before and after everything else, in the order of the module.
    pub starts: Vec<Start>,
}

/// A name.
#[derive(Debug, Clone)]
pub struct Symbol {
    /// As pieces know it; a local one has the unit's suffix, unless assembly may know it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Who defines it.
    pub linkage: Linkage,
    /// Who may see it; local ones are hidden.
    pub visibility: Visibility,
    /// It was local to the unit.
    pub local: bool,
    /// Data, aliases or ifuncs of the unit have its address. Bodies may, too ([`Body::mentions`]).
    pub address_in_data: bool,
    /// Assembly may refer to it, or somebody else nobody knows of: it is kept, under its own name.
    pub used: bool,
    /// A variable with the addresses of labels.
    pub labels: bool,
    /// Each thread has its own.
    pub thread_local: bool,
    /// A variable that is never written.
    pub constant: bool,
    /// A function that is inlined wherever it is called.
    pub always_inline: bool,
    /// Bytes of memory of a variable; of a function, bytes of its bitcode, which is about as large as its code.
    pub size: u32,
    /// The symbol in whose piece it is: of aliases and ifuncs, and of a function's tables of labels.
    pub base: Option<Number>,
}

/// What a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A function.
    Function,
    /// A variable or constant.
    Variable,
    /// Another name of something.
    Alias,
    /// A function that is chosen by another one.
    Ifunc,
}

/// Who defines a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linkage {
    /// The unit.
    Strong,
    /// The unit, if nobody did before; C++'s inline functions and variables among others.
    Weak,
    /// The unit, together with others that have it; C's tentative definitions.
    Common,
    /// Somebody else; the body is known for inlining.
    InlineOnly,
    /// Somebody else.
    Declared,
    /// Somebody else or nobody.
    DeclaredWeak,
}

/// Who may see a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody, and it may be replaced.
    Default,
    /// The unit.
    Hidden,
    /// Everybody.
    Protected,
}

/// A constructor or destructor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The function.
    pub function: Number,
    /// Lower ones run first, of destructors last.
    pub priority: u32,
    /// A destructor.
    pub destructor: bool,
}

/// What the body of a function says.
#[derive(Debug, Clone)]
pub struct Body {
    /// The functions that it calls by name, each once, in order.
    pub calls: Vec<Number>,
    /// What else it mentions: variables, and functions whose address it takes.
    pub mentions: Vec<Number>,
    /// Instructions of LLVM.
    pub instructions: u32,
    /// It has inline assembly, which may refer to more.
    pub assembly: bool,
    /// It has labels whose address is taken.
    pub labels: bool,
}

impl Linkage {
    /// Whether one of the unit's pieces defines the symbol.
    pub fn is_definition(self) -> bool {
        matches!(self, Self::Strong | Self::Weak | Self::Common)
    }
}

impl Facts {
    pub(super) fn new(symbols: &[RawSymbol<'_>], starts: &[RawStart]) -> Self {
        Self {
            symbols: symbols.iter().map(Symbol::new).collect(),
            starts: starts
                .iter()
                .map(|start| Start {
                    function: start.function,
                    priority: start.priority,
                    destructor: start.destructor,
                })
                .collect(),
        }
    }

    /// The functions that pieces define, in the order of the module.
    pub fn functions(&self) -> impl Iterator<Item = Number> {
        let defined = |symbol: &Symbol| symbol.kind == Kind::Function && symbol.linkage.is_definition();
        (0..).zip(&self.symbols).filter(move |(_, symbol)| defined(symbol)).map(|(number, _)| number)
    }

    /// A symbol, if there is one of that number.
    pub fn get(&self, number: Number) -> Option<&Symbol> {
        self.symbols.get(number as usize)
    }

    /// Numbers by name.
    pub fn by_name(&self) -> HashMap<&str, Number> {
        self.symbols.iter().map(|symbol| symbol.name.as_str()).zip(0..).collect()
    }
}

impl Symbol {
    /// Its name in an ELF file: a byte in front tells LLVM to take it as it is.
    pub fn elf_name(&self) -> &str {
        self.name.strip_prefix('\u{1}').unwrap_or(&self.name)
    }

    /// Its name as the source has it, of a unit that was opened with that suffix.
    pub fn source_name(&self, suffix: &str) -> &str {
        let name = self.elf_name();
        if self.local { name.strip_suffix(suffix).unwrap_or(name) } else { name }
    }

    fn new(raw: &RawSymbol<'_>) -> Self {
        let has = |flag: u8| raw.flags & flag != 0;
        Self {
            name: raw.name.text(),
            kind: match raw.kind {
                0 => Kind::Function,
                1 => Kind::Variable,
                2 => Kind::Alias,
                _ => Kind::Ifunc,
            },
            linkage: match raw.linkage {
                0 => Linkage::Strong,
                1 => Linkage::Weak,
                2 => Linkage::Common,
                3 => Linkage::InlineOnly,
                4 => Linkage::Declared,
                _ => Linkage::DeclaredWeak,
            },
            visibility: match raw.visibility {
                0 => Visibility::Default,
                1 => Visibility::Hidden,
                _ => Visibility::Protected,
            },
            local: has(1),
            address_in_data: has(2),
            used: has(4),
            labels: has(8),
            thread_local: has(16),
            constant: has(32),
            always_inline: has(64),
            size: raw.size,
            base: (raw.base != NOTHING).then_some(raw.base),
        }
    }
}
