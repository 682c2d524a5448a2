//! What a row of the bench is: its name, what it compares, its bar, and what came out of it.
//!
//! The bars are data (`bench/bars.tsv`), so that nobody moves one by accident while editing a row. A row of kind
//! *ratio* holds when ours divided by the peer's is at most the bar; one of kind *abs* when ours itself is.

use crate::Result;
use crate::context::Context;

/// Something that is measured.
pub(crate) struct Row {
    /// Topic and name, `first.hello-exe`.
    pub(crate) id: &'static str,
    /// What is done on our side.
    pub(crate) what: &'static str,
    /// What it is compared with; empty for a row of kind abs.
    pub(crate) peer: &'static str,
    /// Unit of both figures.
    pub(crate) unit: Unit,
    /// Takes the measurement. It has a process of its own, in which no other row has run.
    pub(crate) run: fn(&Context) -> Result<Outcome>,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Kilobytes of 1024 bytes, as `/proc` counts memory.
    Kilobytes,
    /// A million bytes or so: 1024 kilobytes.
    Megabytes,
    /// Things.
    Count,
}

/// What a row measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// Our median, in the row's unit.
    pub(crate) ours: f64,
    /// The other side.
    pub(crate) peer: Peer,
    /// How often each side was measured.
    pub(crate) n: usize,
}

/// The other side of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Peer {
    /// Its median, in the row's unit.
    Measured(f64),
    /// It is not on this machine; why.
    Missing(String),
    /// The row has none.
    None,
}

/// How large the figure of a row may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    /// Ours divided by the peer's.
    Ratio(f64),
    /// Ours.
    Absolute(f64),
}

/// Copy of the bars that the project has set itself.
const BARS: &str = include_str!("../bars.tsv");

impl Row {
    /// The row's bar.
    ///
    /// # Errors
    /// When `bench/bars.tsv` has none for it, or one that cannot be read.
    pub(crate) fn bar(&self) -> Result<Bar> {
        bars()
            .find(|line| line.0 == self.id)
            .ok_or_else(|| format!("bench/bars.tsv has no bar for {}", self.id))?
            .1
            .ok_or_else(|| format!("bench/bars.tsv: the bar of {} cannot be read", self.id).into())
    }
}

/// The lines of the file of bars: a row's id and its bar, if it can be read.
fn bars() -> impl Iterator<Item = (&'static str, Option<Bar>)> {
    BARS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let mut fields = line.split('\t');
        let id = fields.next().unwrap_or_default();
        let kind = fields.next();
        let bar = fields.next().and_then(|bar| bar.trim().parse().ok());
        let bar = match (kind, bar) {
            (Some("ratio"), Some(bar)) => Some(Bar::Ratio(bar)),
            (Some("abs"), Some(bar)) => Some(Bar::Absolute(bar)),
            _ => None,
        };
        (id, bar)
    })
}

impl Bar {
    /// The number alone.
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::Ratio(bar) | Self::Absolute(bar) => bar,
        }
    }

    /// Whether `outcome` is within the bar; a ratio without a peer is not.
    pub(crate) fn holds(self, outcome: &Outcome) -> bool {
        match self {
            Self::Ratio(bar) => outcome.ratio().is_some_and(|ratio| ratio <= bar),
            Self::Absolute(bar) => outcome.ours <= bar,
        }
    }

    /// How far from the bar the outcome is: 1 lies on it, 0.5 is twice as good. `None` without a peer, and where the
    /// bar is nought.
    pub(crate) fn distance(self, outcome: &Outcome) -> Option<f64> {
        match self {
            Self::Ratio(bar) => outcome.ratio().map(|ratio| ratio / bar),
            Self::Absolute(bar) => (bar > 0.0).then(|| outcome.ours / bar),
        }
    }
}

impl Outcome {
    /// Ours divided by the peer's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        match self.peer {
            Peer::Measured(peer) if peer > 0.0 => Some(self.ours / peer),
            _ => None,
        }
    }

    /// One line for the process that asked for the row.
    pub(crate) fn to_line(&self) -> String {
        let peer = match &self.peer {
            Peer::Measured(peer) => format!("measured\t{peer}"),
            Peer::Missing(why) => format!("missing\t{}", why.replace(['\t', '\n'], " ")),
            Peer::None => "none\t".to_owned(),
        };
        format!("{}\t{}\t{peer}", self.ours, self.n)
    }

    /// Reads what [`Outcome::to_line`] wrote.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.splitn(4, '\t');
        let ours = fields.next()?.parse().ok()?;
        let n = fields.next()?.parse().ok()?;
        let peer = match (fields.next()?, fields.next()?) {
            ("measured", peer) => Peer::Measured(peer.parse().ok()?),
            ("missing", why) => Peer::Missing(why.to_owned()),
            ("none", _) => Peer::None,
            _ => return None,
        };
        Some(Self { ours, peer, n })
    }
}

impl Unit {
    /// How many of it a second has; 1 for what is no time.
    pub(crate) fn per_second(self) -> f64 {
        match self {
            Self::Milliseconds => 1e3,
            Self::Microseconds => 1e6,
            Self::Kilobytes | Self::Megabytes | Self::Count => 1.0,
        }
    }

    /// Its usual abbreviation.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Kilobytes => "kB",
            Self::Megabytes => "MB",
            Self::Count => "count",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_row_has_a_bar_and_every_bar_a_row() {
        for row in crate::rows::ALL {
            let bar = row.bar().unwrap();
            assert_eq!(row.peer.is_empty(), matches!(bar, Bar::Absolute(_)), "{}", row.id);
        }
        for (id, _) in bars() {
            assert!(crate::rows::ALL.iter().any(|row| row.id == id), "no row {id}");
        }
        let ids: HashSet<_> = crate::rows::ALL.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), crate::rows::ALL.len());
    }

    #[test]
    fn a_row_holds_at_its_bar_and_not_without_a_peer() {
        let outcome = |peer| Outcome { ours: 2.0, peer, n: 7 };
        assert!(Bar::Ratio(0.5).holds(&outcome(Peer::Measured(4.0))));
        assert!(!Bar::Ratio(0.5).holds(&outcome(Peer::Measured(3.9))));
        assert!(!Bar::Ratio(0.5).holds(&outcome(Peer::Missing("not installed".into()))));
        assert!(Bar::Absolute(2.0).holds(&outcome(Peer::None)));
        assert!(!Bar::Absolute(0.0).holds(&outcome(Peer::None)));
        assert_eq!(Bar::Ratio(0.25).distance(&outcome(Peer::Measured(4.0))), Some(2.0));
        assert_eq!(Bar::Absolute(0.0).distance(&outcome(Peer::None)), None);
    }

    #[test]
    fn an_outcome_survives_its_line() {
        for peer in [Peer::Measured(0.125), Peer::Missing("no tcc".into()), Peer::None] {
            let outcome = Outcome { ours: 1.5, peer, n: 60 };
            assert_eq!(Outcome::from_line(&outcome.to_line()), Some(outcome));
        }
        assert_eq!(Outcome::from_line("1.5\t60\tmeasured"), None);
    }
}
