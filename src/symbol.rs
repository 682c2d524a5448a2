//! A typed symbol of a unit.

use crate::unit::Hold;
use std::fmt;
use std::ops::Deref;

/// A function or variable of a unit, with the type it was asked for. The unit cannot be unloaded while it lives.
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
