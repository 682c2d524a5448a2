//! A typed symbol of a unit.

use crate::unit::Hold;
use std::fmt;
use std::ops::Deref;

/// A function or variable of a unit, with the type it was asked for. The unit cannot be unloaded while it lives,
/// but by force ([`Unload::forced`](crate::Unload::forced)): then it leads to where it did before, and nothing else will ever be
/// found there, so that using it faults ([`Symbol::is_valid`]).
///
/// Copying the value out of it (a function pointer is `Copy`) gives up that guarantee.
pub struct Symbol<T> {
    value: T,
    hold: Hold,
}

impl<T> Symbol<T> {
    pub(crate) fn new(value: T, hold: Hold) -> Self {
        Self { value, hold }
    }

    /// Name of the unit it belongs to.
    pub fn unit(&self) -> &str {
        self.hold.unit()
    }

    /// Whether the unit is still loaded: always, unless it was unloaded by force.
    pub fn is_valid(&self) -> bool {
        self.hold.is_loaded()
    }
}

impl<T> Deref for Symbol<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> Clone for Symbol<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), hold: self.hold.clone() }
    }
}

impl<T: fmt::Debug> fmt::Debug for Symbol<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbol").field("value", &self.value).field("unit", &self.unit()).finish()
    }
}
