//! Text to tokens.

use crate::source::{Position, Problem, Source};
use std::fmt;

/// A word of the language.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// The end of the text.
    End,
    Number(f64),
    Name(String),
    Keyword(Keyword),
    /// A character of its own: an operator, or one of `(),;`.
    Sign(char),
    /// What is none; the problem was told.
    Bad,
}

/// Words that are no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Def,
    Extern,
    If,
    Then,
    Else,
    For,
    In,
    Binary,
    Unary,
    Var,
}

const KEYWORDS: [(&str, Keyword); 10] = [
    ("def", Keyword::Def),
    ("extern", Keyword::Extern),
    ("if", Keyword::If),
    ("then", Keyword::Then),
    ("else", Keyword::Else),
    ("for", Keyword::For),
    ("in", Keyword::In),
    ("binary", Keyword::Binary),
    ("unary", Keyword::Unary),
    ("var", Keyword::Var),
];

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spelled = KEYWORDS.iter().find(|(_, keyword)| keyword == self);
        f.write_str(spelled.map_or("", |(text, _)| text))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end"),
            Self::Number(number) => write!(f, "the number {number}"),
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Keyword(keyword) => write!(f, "`{keyword}`"),
            Self::Sign(sign) => write!(f, "`{sign}`"),
            Self::Bad => f.write_str("something unknown"),
        }
    }
}

/// Whether a character can be an operator, or stands for itself otherwise.
fn is_sign(c: char) -> bool {
    c.is_ascii_punctuation() && c != '_'
}

/// Reads tokens from a source.
pub(crate) struct Lexer {
    source: Source,
    line: Vec<char>,
    /// Characters of the line that are read.
    read: usize,
}

impl Lexer {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, line: Vec::new(), read: 0 }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Leaves out what is left of the line.
    pub(crate) fn skip_line(&mut self) {
        self.read = self.line.len();
    }

    /// The next token and where it begins; `within` says whether something has begun that is not at its end.
    pub(crate) fn next(&mut self, within: bool) -> Result<(Token, Position), (Problem, Position)> {
        if !self.find(within) {
            return Ok((Token::End, self.position(self.line.len())));
        }
        let start = self.read;
        let at = self.position(start);
        let first = self.line[start];
        let dotted = first == '.' && self.line.get(start + 1).is_some_and(char::is_ascii_digit);
        let token = if first.is_ascii_alphabetic() || first == '_' {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            let keyword = KEYWORDS.iter().find(|(text, _)| *text == word);
            keyword.map_or_else(|| Ok(Token::Name(word.clone())), |(_, keyword)| Ok(Token::Keyword(*keyword)))
        } else if first.is_ascii_digit() || dotted {
            self.number()
        } else {
            self.read += 1;
            if is_sign(first) {
                Ok(Token::Sign(first))
            } else {
                Err(format!("the character `{}` means nothing here", first.escape_debug()))
            }
        };
        token.map(|token| (token, at)).map_err(|message| (Problem::new(at, message), at))
    }

    /// Goes to the next character that is neither space nor comment. False at the end.
    fn find(&mut self, within: bool) -> bool {
        loop {
            match self.line.get(self.read) {
                Some('#') => self.skip_line(),
                Some(c) if c.is_whitespace() => self.read += 1,
                Some(_) => return true,
                None if self.source.read_line(within) => {
                    self.line = self.source.line(self.source.lines()).chars().collect();
                    self.read = 0;
                }
                None => return false,
            }
        }
    }

    /// Where the character of that index in the line is.
    fn position(&self, index: usize) -> Position {
        Position { line: self.source.lines().max(1), column: index + 1 }
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let word: String = self.line[self.read..].iter().copied().take_while(|c| fits(*c)).collect();
        // It is ASCII, as far as anybody asks.
        self.read += word.len();
        word
    }

    /// Digits, a point, an exponent. What hangs on to them belongs to it, so that `1.2.3` and `2x` are mistakes.
    fn number(&mut self) -> Result<Token, String> {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
        let mut text = self.take_while(part);
        let signed = self.line.get(self.read).is_some_and(|c| matches!(c, '+' | '-'));
        let digit = self.line.get(self.read + 1).is_some_and(char::is_ascii_digit);
        if text.ends_with(['e', 'E']) && signed && digit {
            text.push(self.line[self.read]);
            self.read += 1;
            text.push_str(&self.take_while(part));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Token::Number(number)),
            Ok(_) => Err(format!("the number {text} is too large")),
            Err(_) => Err(format!("`{text}` is no number")),
        }
    }
}
