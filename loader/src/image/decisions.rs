//! Which of an image's shared definitions count, and what is used instead of those that do not.

use crate::layers::Value;
use crate::sys::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was decided about every shared definition that somebody has asked for. What is known can be read without a
/// lock.
#[derive(Debug)]
pub(crate) struct Decisions {
    /// Those that count, a bit each, as far as the image refers to them itself.
    own: Box<[AtomicU64]>,
    rest: Mutex<Rest>,
}

#[derive(Debug)]
struct Rest {
    /// More of those that count.
    own: Vec<u32>,
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

impl Decisions {
    /// What binding has decided.
    pub(super) fn new(own: Vec<u64>, elsewhere: Vec<(u32, Value)>) -> Self {
        let elsewhere = elsewhere.into_iter().map(|(index, value)| (index, Some(value))).collect();
        let own = own.into_iter().map(AtomicU64::new).collect();
        Self { own, rest: Mutex::new(Rest { own: Vec::new(), elsewhere }) }
    }

    fn bit(&self, index: u32) -> Option<&AtomicU64> {
        self.own.get(index as usize / 64)
    }

    fn is_own(&self, index: u32) -> bool {
        self.bit(index).is_some_and(|word| word.load(Ordering::Acquire) >> (index % 64) & 1 == 1)
    }

    /// Whether the image's own definition counts, where that is known.
    pub(crate) fn counts(&self, index: u32) -> Option<bool> {
        if self.is_own(index) {
            return Some(true);
        }
        let rest = self.rest.lock();
        if rest.own.contains(&index) {
            return Some(true);
        }
        rest.elsewhere.binary_search_by_key(&index, |(index, _)| *index).is_ok().then_some(false)
    }

    /// Whether the image's own definition counts; where that is open, `own` decides it for good.
    pub(crate) fn decide(&self, index: u32, own: impl FnOnce() -> bool) -> bool {
        if let Some(known) = self.counts(index) {
            return known;
        }
        let counts = own();
        let mut rest = self.rest.lock();
        if !counts {
            let at = rest.elsewhere.partition_point(|(other, _)| *other < index);
            rest.elsewhere.insert(at, (index, None));
        } else if let Some(word) = self.bit(index) {
            word.fetch_or(1 << (index % 64), Ordering::AcqRel);
        } else {
            rest.own.push(index);
        }
        counts
    }

    /// Forgets what the image uses instead of its own definitions where that is gone.
    pub(super) fn forget(&self, is_gone: impl Fn(Value) -> bool) {
        for (_, value) in &mut self.rest.lock().elsewhere {
            *value = value.filter(|value| !is_gone(*value));
        }
    }

    /// What the image itself uses instead of its own definition.
    pub(crate) fn instead(&self, index: u32) -> Option<Value> {
        let rest = self.rest.lock();
        let at = rest.elsewhere.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        rest.elsewhere[at].1
    }
}
