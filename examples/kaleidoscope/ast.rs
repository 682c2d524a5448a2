//! What a program is made of.

use crate::source::Position;

/// One thing at the top level of a program.
#[derive(Debug)]
pub(crate) enum Item {
    /// `def name(parameters) body`
    Definition(Function),
    /// `extern name(parameters)`
    Extern(Prototype),
    /// What is computed at once.
    Expression(Expr),
}

/// The head of a function.
#[derive(Debug)]
pub(crate) struct Prototype {
    /// Operators are called [`binary_name`] and [`unary_name`].
    pub(crate) name: String,
    /// Where the name is.
    pub(crate) at: Position,
    pub(crate) parameters: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) prototype: Prototype,
    pub(crate) body: Expr,
}

/// The name of the function that is a binary operator; no name that a program can give to another one.
pub(crate) fn binary_name(operator: char) -> String {
    format!("binary{operator}")
}

/// The same of a unary operator.
pub(crate) fn unary_name(operator: char) -> String {
    format!("unary{operator}")
}

/// Something that has a value.
#[derive(Debug)]
pub(crate) struct Expr {
    /// Where it begins; for a binary operator, where that is.
    pub(crate) at: Position,
    pub(crate) kind: Kind,
    /// Levels of it, one for itself: whoever walks over it calls himself as often.
    pub(crate) height: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Number(f64),
    Variable(String),
    /// `name = value`
    Assign(String, Box<Expr>),
    Call(String, Vec<Expr>),
    Unary(char, Box<Expr>),
    Binary(char, Box<[Expr; 2]>),
    /// Condition, `then`, `else`.
    If(Box<[Expr; 3]>),
    For(Box<For>),
    /// `var name = value, … in body`; 0 where no value is given.
    Var(Vec<(String, Option<Expr>)>, Box<Expr>),
}

/// `for variable = start, condition, step in body`
#[derive(Debug)]
pub(crate) struct For {
    pub(crate) variable: String,
    pub(crate) start: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Option<Expr>,
    pub(crate) body: Expr,
}

impl Expr {
    pub(crate) fn new(at: Position, kind: Kind) -> Self {
        let height = 1 + kind.parts().into_iter().map(|part| part.height).max().unwrap_or(0);
        Self { at, kind, height }
    }
}

impl Kind {
    /// The expressions in it.
    fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::Number(_) | Self::Variable(_) => Vec::new(),
            Self::Assign(_, value) | Self::Unary(_, value) => vec![value],
            Self::Call(_, arguments) => arguments.iter().collect(),
            Self::Binary(_, sides) => sides.iter().collect(),
            Self::If(parts) => parts.iter().collect(),
            Self::For(round) => {
                [&round.start, &round.condition, &round.body].into_iter().chain(&round.step).collect()
            }
            Self::Var(variables, body) => {
                variables.iter().filter_map(|(_, value)| value.as_ref()).chain([&**body]).collect()
            }
        }
    }
}
