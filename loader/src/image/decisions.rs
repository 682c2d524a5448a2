//! Which of an image's shared definitions count, and what is used instead of those that do not.

use crate::layers::Value;
use parking_lot::Mutex;

/// For every shared definition that somebody has asked for: `None` if the image's own counts, else what does.
/// Sorted by the index of the symbol.
#[derive(Debug)]
pub(crate) struct Decisions(Mutex<Vec<(u32, Decision)>>);

#[derive(Debug, Clone, Copy)]
enum Decision {
    Own,
    Elsewhere(Option<Value>),
}

impl Decisions {
    /// What binding has decided, sorted by index.
    pub(crate) fn new(bound: Vec<(u32, Option<Value>)>) -> Self {
        let decide = |(index, value): (u32, Option<Value>)| {
            (index, value.map_or(Decision::Own, |value| Decision::Elsewhere(Some(value))))
        };
        Self(Mutex::new(bound.into_iter().map(decide).collect()))
    }

    /// Whether the image's own definition counts; where that is open, `own` decides it for good.
    pub(crate) fn decide(&self, index: u32, own: impl FnOnce() -> bool) -> bool {
        let mut decisions = self.0.lock();
        let decision = match decisions.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(at) => decisions[at].1,
            Err(at) => {
                let decision = if own() { Decision::Own } else { Decision::Elsewhere(None) };
                decisions.insert(at, (index, decision));
                decision
            }
        };
        matches!(decision, Decision::Own)
    }

    /// What the image itself uses instead of its own definition.
    pub(crate) fn instead(&self, index: u32) -> Option<Value> {
        let decisions = self.0.lock();
        let at = decisions.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        match decisions[at].1 {
            Decision::Elsewhere(value) => value,
            Decision::Own => None,
        }
    }
}
