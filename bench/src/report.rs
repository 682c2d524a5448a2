//! What a run of the bench shows: a table or JSON while it goes on, Markdown and a plot at its end.

mod json;
mod markdown;
mod plot;
mod table;

use crate::Result;
use crate::row::{Bar, Outcome, Row};
use std::path::Path;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One object a line.
    Json,
}

/// The rows of a run so far.
pub(crate) struct Report {
    format: Format,
    entries: Vec<Entry>,
}

/// A row and what came of it.
struct Entry {
    row: &'static Row,
    bar: Bar,
    /// What was measured, or why nothing was.
    outcome: std::result::Result<Outcome, String>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(format: Format) -> Self {
        if format == Format::Table {
            table::head();
        }
        Self { format, entries: Vec::new() }
    }

    /// Adds a row and shows it.
    pub(crate) fn add(&mut self, row: &'static Row, outcome: Result<Outcome>) {
        // A row without a bar is a row that cannot hold.
        let (bar, outcome) = match row.bar() {
            Ok(bar) => (bar, outcome),
            Err(error) => (Bar::Ratio(0.0), Err(error)),
        };
        let entry =
            Entry { row, bar, outcome: outcome.map_err(|error| error.to_string().replace('\n', " ")) };
        match self.format {
            Format::Table => table::line(&entry),
            Format::Json => println!("{}", json::line(&entry)),
        }
        self.entries.push(entry);
    }

    /// Shows what belongs under the rows.
    pub(crate) fn close(&self) {
        if self.format == Format::Table {
            table::foot(&self.entries);
        }
    }

    /// Writes `bench/RESULTS.md` and `bench/results.svg`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        for (name, text) in
            [("RESULTS.md", markdown::page(&self.entries)?), ("results.svg", plot::drawing(&self.entries)?)]
        {
            let path = root.join("bench").join(name);
            std::fs::write(&path, text)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// Whether every row was measured.
    pub(crate) fn is_complete(&self) -> bool {
        self.entries.iter().all(|entry| entry.outcome.is_ok())
    }
}

/// Shows the rows without measuring them.
pub(crate) fn list(rows: &[Row]) {
    for row in rows {
        let bar = match row.bar() {
            Ok(Bar::Ratio(bar)) => format!("{bar}x"),
            Ok(Bar::Absolute(bar)) => format!("{bar} {}", row.unit.name()),
            Err(_) => "none".to_owned(),
        };
        println!("{:<24} bar {bar:<8} {}", row.id, row.what);
        if !row.peer.is_empty() {
            println!("{:<24} {:<12} against {}", "", "", row.peer);
        }
    }
}

impl Entry {
    /// Whether the row was measured and is within its bar.
    fn holds(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|outcome| self.bar.holds(outcome))
    }

    /// Ours, if it was measured.
    fn ours(&self) -> Option<f64> {
        self.outcome.as_ref().ok().map(|outcome| outcome.ours)
    }

    /// The peer's figure, if there is one.
    fn peer(&self) -> Option<f64> {
        match self.outcome.as_ref().ok()?.peer {
            crate::row::Peer::Measured(peer) => Some(peer),
            _ => None,
        }
    }

    /// Ours divided by the peer's.
    fn ratio(&self) -> Option<f64> {
        self.outcome.as_ref().ok().and_then(Outcome::ratio)
    }

    /// How often each side was measured.
    fn n(&self) -> usize {
        self.outcome.as_ref().map_or(0, |outcome| outcome.n)
    }

    /// Why there is no figure of ours or of the peer's.
    fn note(&self) -> Option<String> {
        match &self.outcome {
            Err(why) => Some(format!("not measured: {why}")),
            Ok(Outcome { peer: crate::row::Peer::Missing(why), .. }) => Some(format!("no peer: {why}")),
            Ok(_) => None,
        }
    }

    /// One word on the row.
    fn verdict(&self) -> &'static str {
        match (&self.outcome, self.holds()) {
            (Err(_), _) => "FAILED",
            (Ok(Outcome { peer: crate::row::Peer::Missing(_), .. }), _) => "NO PEER",
            (Ok(_), true) => "holds",
            (Ok(_), false) => "SHORT",
        }
    }
}

/// A figure with the digits that mean something.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}
