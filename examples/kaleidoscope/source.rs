//! The text of a program, read a line at a time, and what is wrong with it, shown where it stands.

use std::fmt;
use std::io::{self, BufRead, Write};

/// A place in a source. Lines and columns (in characters) count from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) at: Position,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(at: Position, message: impl fmt::Display) -> Self {
        Self { at, message: message.to_string() }
    }
}

/// A file or standard input. Lines are read when they are wanted, so that somebody who types sees what each line does.
pub(crate) struct Source {
    name: String,
    reader: Box<dyn BufRead>,
    interactive: bool,
    /// All that was read, for problems to be shown.
    lines: Vec<String>,
    failure: Option<io::Error>,
}

impl Source {
    pub(crate) fn new(name: impl Into<String>, reader: Box<dyn BufRead>, interactive: bool) -> Self {
        Self { name: name.into(), reader, interactive, lines: Vec::new(), failure: None }
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether somebody types it.
    pub(crate) fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Reads one more line; `within` says whether it continues what began before. False at the end.
    pub(crate) fn read_line(&mut self, within: bool) -> bool {
        if self.interactive {
            // A prompt is not what a program writes.
            let prompt = if within { "...> " } else { "ks> " };
            let mut output = io::stderr();
            let _ = output.write_all(prompt.as_bytes()).and_then(|()| output.flush());
        }
        let mut bytes = Vec::new();
        match self.reader.read_until(b'\n', &mut bytes) {
            Ok(0) => false,
            Ok(_) => {
                let text = String::from_utf8_lossy(&bytes);
                self.lines.push(text.trim_end_matches(['\n', '\r']).to_owned());
                true
            }
            Err(error) => {
                self.failure = Some(error);
                false
            }
        }
    }

    /// How many lines were read.
    pub(crate) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// A line without its end; empty where there is none.
    pub(crate) fn line(&self, line: usize) -> &str {
        line.checked_sub(1).and_then(|at| self.lines.get(at)).map_or("", |text| text.as_str())
    }

    /// Why reading has ended early, if it has.
    pub(crate) fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    /// The problem, the line it is in, and a caret under the place.
    pub(crate) fn show(&self, problem: &Problem) -> String {
        let Problem { at: Position { line, column }, message } = problem;
        // What a terminal would take for an order is not shown to it.
        let shown = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let text: String = self.line(*line).chars().map(shown).collect();
        // A tab stays one, so that the caret comes under its place however wide tabs are.
        let before = text.chars().chain(std::iter::repeat(' ')).take(column.saturating_sub(1));
        let space: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
        format!("{}:{line}:{column}: error: {message}\n{text}\n{space}^\n", self.name)
    }
}
