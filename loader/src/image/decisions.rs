//! Which of an image's shared definitions count, and what is used instead of those that do not.

use crate::layers::Value;
use parking_lot::Mutex;

/// What was decided about every shared definition that somebody has asked for.
#[derive(Debug)]
pub(crate) struct Decisions(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Those that count, a bit each.
    own: Vec<u64>,
    /// Those that do not, and what the image uses instead, if it uses any; sorted by the index of the symbol.
    elsewhere: Vec<(u32, Option<Value>)>,
}

/// Sets a bit.
pub(super) fn set(bits: &mut Vec<u64>, index: u32) {
    let at = index as usize / 64;
    if at >= bits.len() {
        bits.resize(at + 1, 0);
    }
    bits[at] |= 1 << (index % 64);
}

fn has(bits: &[u64], index: u32) -> bool {
    bits.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
}

impl Decisions {
    /// What binding has decided.
    pub(super) fn new(own: Vec<u64>, elsewhere: Vec<(u32, Value)>) -> Self {
        let elsewhere = elsewhere.into_iter().map(|(index, value)| (index, Some(value))).collect();
        Self(Mutex::new(State { own, elsewhere }))
    }

    /// Whether the image's own definition counts; where that is open, `own` decides it for good.
    pub(crate) fn decide(&self, index: u32, own: impl FnOnce() -> bool) -> bool {
        let mut state = self.0.lock();
        if has(&state.own, index) {
            return true;
        }
        match state.elsewhere.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(_) => false,
            Err(_) if own() => {
                set(&mut state.own, index);
                true
            }
            Err(at) => {
                state.elsewhere.insert(at, (index, None));
                false
            }
        }
    }

    /// What the image itself uses instead of its own definition.
    pub(super) fn instead(&self, index: u32) -> Option<Value> {
        let state = self.0.lock();
        let at = state.elsewhere.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        state.elsewhere[at].1
    }
}
