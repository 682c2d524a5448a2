//! Tokens to what a program is made of: recursive descent, with precedences for operators.
//!
//! Operators are what a program makes them, so a parser is told which there are ([`Operators`]), and a definition's own is one
//! from its head on. Nothing is read behind a `;` before the next item is wanted: who types sees an item done first.

use crate::ast::{Expr, For, Function, Item, Kind, Prototype, binary_name, unary_name};
use crate::lexer::{Keyword, Lexer, Token};
use crate::source::{Position, Problem, Source};
use std::collections::{HashMap, HashSet};

/// Levels that an expression may have. The parser, and what walks over its result, call themselves for each.
const DEEPEST: usize = 500;

/// The precedence of an operator that is defined without one.
const USUAL_PRECEDENCE: u32 = 30;

/// The operators that there are.
#[derive(Debug, Clone)]
pub(crate) struct Operators {
    /// With their precedences, from 1 to 100; what is higher binds tighter.
    binary: HashMap<char, u32>,
    unary: HashSet<char>,
}

impl Default for Operators {
    fn default() -> Self {
        let binary = [('=', 2), ('<', 10), ('>', 10), ('+', 20), ('-', 20), ('*', 40), ('/', 40)];
        Self { binary: binary.into(), unary: ['-'].into() }
    }
}

/// Whether a program may define it. Assigning is no function.
fn is_definable(sign: char) -> bool {
    !matches!(sign, '(' | ')' | ',' | ';' | '.' | '=' | '#')
}

pub(crate) struct Parser {
    lexer: Lexer,
    token: Token,
    /// Where the token begins.
    at: Position,
    /// Expressions that have begun and are not at their end.
    depth: usize,
}

type Parsed<T> = Result<T, Problem>;

impl Parser {
    /// A parser that has read nothing.
    pub(crate) fn new(source: Source) -> Self {
        let at = Position { line: 1, column: 1 };
        Self { lexer: Lexer::new(source), token: Token::Sign(';'), at, depth: 0 }
    }

    pub(crate) fn source(&self) -> &Source {
        self.lexer.source()
    }

    /// The next item; nothing at the end. An operator that it declares is among the operators from there on, even if it
    /// turns out to be a mistake later.
    pub(crate) fn item(&mut self, operators: &mut Operators) -> Parsed<Option<Item>> {
        self.depth = 0;
        while self.token == Token::Sign(';') {
            self.read(false)?;
        }
        Ok(Some(match self.token {
            Token::End => return Ok(None),
            Token::Keyword(Keyword::Def) => {
                self.advance()?;
                let prototype = self.prototype(operators)?;
                Item::Definition(Function { prototype, body: self.expression(operators)? })
            }
            Token::Keyword(Keyword::Extern) => {
                self.advance()?;
                Item::Extern(self.prototype(operators)?)
            }
            _ => Item::Expression(self.expression(operators)?),
        }))
    }

    /// After a problem: goes to where the next item can begin, behind a `;` or at a keyword that begins one. Who types
    /// begins again with the next line.
    pub(crate) fn recover(&mut self) {
        if self.source().is_interactive() {
            self.lexer.skip_line();
            self.token = Token::Sign(';');
            return;
        }
        let begins =
            [Token::End, Token::Sign(';'), Token::Keyword(Keyword::Def), Token::Keyword(Keyword::Extern)];
        while !begins.contains(&self.token) {
            // One problem was told; what comes of it is none.
            let _ = self.advance();
        }
    }

    /// Reads the next token, in the middle of an item.
    fn advance(&mut self) -> Parsed<()> {
        self.read(true)
    }

    fn read(&mut self, within: bool) -> Parsed<()> {
        match self.lexer.next(within) {
            Ok((token, at)) => {
                (self.token, self.at) = (token, at);
                Ok(())
            }
            Err((problem, at)) => {
                (self.token, self.at) = (Token::Bad, at);
                Err(problem)
            }
        }
    }

    fn expected<T>(&self, what: &str) -> Parsed<T> {
        Err(Problem::new(self.at, format!("expected {what}, found {}", self.token)))
    }

    /// Takes the token if it is that one.
    fn take(&mut self, token: &Token) -> Parsed<bool> {
        let taken = self.token == *token;
        if taken {
            self.advance()?;
        }
        Ok(taken)
    }

    fn sign(&mut self, sign: char, why: &str) -> Parsed<()> {
        if self.take(&Token::Sign(sign))? { Ok(()) } else { self.expected(&format!("`{sign}` {why}")) }
    }

    fn keyword(&mut self, keyword: Keyword, why: &str) -> Parsed<()> {
        if self.take(&Token::Keyword(keyword))? {
            Ok(())
        } else {
            self.expected(&format!("`{keyword}` {why}"))
        }
    }

    fn name(&mut self, what: &str) -> Parsed<String> {
        let Token::Name(name) = &self.token else { return self.expected(what) };
        let name = name.clone();
        self.advance()?;
        Ok(name)
    }

    /// `name(parameters)`, `unary sign(parameter)` or `binary sign precedence (parameters)`. Parameters may have commas
    /// between them.
    fn prototype(&mut self, operators: &mut Operators) -> Parsed<Prototype> {
        let at = self.at;
        let (name, wanted) = if self.take(&Token::Keyword(Keyword::Unary))? {
            let sign = self.operator()?;
            operators.unary.insert(sign);
            (unary_name(sign), Some(1))
        } else if self.take(&Token::Keyword(Keyword::Binary))? {
            let sign = self.operator()?;
            operators.binary.insert(sign, self.precedence()?);
            (binary_name(sign), Some(2))
        } else {
            (self.name("the name of a function")?, None)
        };
        self.sign('(', "before the parameters")?;
        let mut parameters = Vec::new();
        while let Token::Name(parameter) = &self.token {
            if parameters.contains(parameter) {
                return Err(Problem::new(self.at, format!("two parameters are called `{parameter}`")));
            }
            parameters.push(parameter.clone());
            self.advance()?;
            if self.take(&Token::Sign(','))? && !matches!(self.token, Token::Name(_)) {
                return self.expected("a parameter");
            }
        }
        let end = self.at;
        self.sign(')', "after the parameters")?;
        match wanted {
            Some(wanted) if wanted != parameters.len() => {
                let message = format!("`{name}` has to have {}", parameters_of(wanted));
                Err(Problem::new(end, message))
            }
            _ => Ok(Prototype { name, at, parameters }),
        }
    }

    fn operator(&mut self) -> Parsed<char> {
        match self.token {
            Token::Sign(sign) if is_definable(sign) => {
                self.advance()?;
                Ok(sign)
            }
            Token::Sign(sign) => Err(Problem::new(self.at, format!("`{sign}` cannot be defined"))),
            _ => self.expected("an operator"),
        }
    }

    fn precedence(&mut self) -> Parsed<u32> {
        let Token::Number(number) = self.token else { return Ok(USUAL_PRECEDENCE) };
        let precedence = (1..=100).find(|whole| f64::from(*whole) == number);
        let Some(precedence) = precedence else {
            return Err(Problem::new(self.at, "a precedence is a whole number from 1 to 100"));
        };
        self.advance()?;
        Ok(precedence)
    }

    fn expression(&mut self, operators: &Operators) -> Parsed<Expr> {
        let left = self.unary(operators)?;
        self.binary(operators, 1, left)
    }

    /// What follows an expression, as far as its operators bind at least as tight as `least`.
    fn binary(&mut self, operators: &Operators, least: u32, mut left: Expr) -> Parsed<Expr> {
        loop {
            let at = self.at;
            let Some((sign, precedence)) = self.binary_here(operators)? else { return Ok(left) };
            if precedence < least {
                return Ok(left);
            }
            self.advance()?;
            let mut right = self.unary(operators)?;
            // Assignments go from the right to the left, everything else the other way.
            let next = if sign == '=' { precedence } else { precedence + 1 };
            right = self.deeper(|parser| parser.binary(operators, next, right))?;
            left = match (sign, left.kind) {
                ('=', Kind::Variable(name)) => self.node(left.at, Kind::Assign(name, Box::new(right)))?,
                ('=', _) => return Err(Problem::new(at, "only a variable can be assigned to")),
                (_, kind) => {
                    let left = Expr { kind, ..left };
                    self.node(at, Kind::Binary(sign, Box::new([left, right])))?
                }
            };
        }
    }

    /// The binary operator that comes now, if there is one.
    fn binary_here(&self, operators: &Operators) -> Parsed<Option<(char, u32)>> {
        let Token::Sign(sign) = self.token else { return Ok(None) };
        match operators.binary.get(&sign) {
            Some(precedence) => Ok(Some((sign, *precedence))),
            // The next item begins, or something ends.
            None if operators.unary.contains(&sign) || matches!(sign, '(' | ')' | ',' | ';') => Ok(None),
            None => Err(Problem::new(self.at, format!("there is no operator `{sign}`"))),
        }
    }

    fn unary(&mut self, operators: &Operators) -> Parsed<Expr> {
        let at = self.at;
        match self.token {
            Token::Sign(sign) if sign != '(' && operators.unary.contains(&sign) => {
                self.advance()?;
                let operand = self.deeper(|parser| parser.unary(operators))?;
                self.node(at, Kind::Unary(sign, Box::new(operand)))
            }
            Token::Sign(sign) if is_definable(sign) && !operators.binary.contains_key(&sign) => {
                Err(Problem::new(at, format!("there is no operator `{sign}`")))
            }
            _ => self.deeper(|parser| parser.primary(operators)),
        }
    }

    fn primary(&mut self, operators: &Operators) -> Parsed<Expr> {
        let at = self.at;
        match &self.token {
            Token::Number(number) => {
                let number = *number;
                self.advance()?;
                self.node(at, Kind::Number(number))
            }
            Token::Name(name) => {
                let name = name.clone();
                self.advance()?;
                self.variable_or_call(operators, at, name)
            }
            Token::Sign('(') => {
                self.advance()?;
                let inner = self.expression(operators)?;
                self.sign(')', "after the expression")?;
                Ok(inner)
            }
            Token::Keyword(Keyword::If) => self.condition(operators),
            Token::Keyword(Keyword::For) => self.round(operators),
            Token::Keyword(Keyword::Var) => self.variables(operators),
            _ => self.expected("an expression"),
        }
    }

    fn variable_or_call(&mut self, operators: &Operators, at: Position, name: String) -> Parsed<Expr> {
        if !self.take(&Token::Sign('('))? {
            return self.node(at, Kind::Variable(name));
        }
        let mut arguments = Vec::new();
        while self.token != Token::Sign(')') {
            arguments.push(self.expression(operators)?);
            if self.token == Token::Sign(')') {
                break;
            }
            self.sign(',', "or `)` after an argument")?;
            if self.token == Token::Sign(')') {
                return self.expected("an argument");
            }
        }
        self.advance()?;
        self.node(at, Kind::Call(name, arguments))
    }

    fn condition(&mut self, operators: &Operators) -> Parsed<Expr> {
        let at = self.at;
        self.advance()?;
        let condition = self.expression(operators)?;
        self.keyword(Keyword::Then, "after the condition")?;
        let then = self.expression(operators)?;
        self.keyword(Keyword::Else, "after what `then` gives")?;
        let otherwise = self.expression(operators)?;
        self.node(at, Kind::If(Box::new([condition, then, otherwise])))
    }

    fn round(&mut self, operators: &Operators) -> Parsed<Expr> {
        let at = self.at;
        self.advance()?;
        let variable = self.name("the name of a variable")?;
        self.sign('=', "after the variable")?;
        let start = self.expression(operators)?;
        self.sign(',', "after the start")?;
        let condition = self.expression(operators)?;
        let step = if self.take(&Token::Sign(','))? { Some(self.expression(operators)?) } else { None };
        self.keyword(Keyword::In, "before the body")?;
        let body = self.expression(operators)?;
        self.node(at, Kind::For(Box::new(For { variable, start, condition, step, body })))
    }

    fn variables(&mut self, operators: &Operators) -> Parsed<Expr> {
        let at = self.at;
        self.advance()?;
        let mut variables = Vec::new();
        loop {
            let name = self.name("the name of a variable")?;
            let value = if self.take(&Token::Sign('='))? { Some(self.expression(operators)?) } else { None };
            variables.push((name, value));
            if !self.take(&Token::Sign(','))? {
                break;
            }
        }
        self.keyword(Keyword::In, "before the body")?;
        let body = self.expression(operators)?;
        self.node(at, Kind::Var(variables, Box::new(body)))
    }

    /// An expression, unless it is too deep for those who walk over it. A long sum is as deep as brackets are.
    fn node(&self, at: Position, kind: Kind) -> Parsed<Expr> {
        let expression = Expr::new(at, kind);
        if expression.height > DEEPEST { self.too_deep(at) } else { Ok(expression) }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEEPEST {
            return self.too_deep(self.at);
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn too_deep<T>(&self, at: Position) -> Parsed<T> {
        Err(Problem::new(at, format!("the expression has more than {DEEPEST} levels")))
    }
}

/// How many parameters, in words.
pub(crate) fn parameters_of(count: usize) -> String {
    match count {
        0 => "no parameters".to_owned(),
        1 => "one parameter".to_owned(),
        count => format!("{count} parameters"),
    }
}
