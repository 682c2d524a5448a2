//! How a host follows what a runtime does.

/// Is told what a runtime does while it loads, from the threads that load.
///
/// Every method does nothing unless it is overridden. None of them may load a unit.
pub trait Observer: Send + Sync {
    /// Something will be compiled for `unit`; [`Observer::compiled`] follows, whatever comes of it.
    fn compiling(&self, unit: &str) {
        let _ = unit;
    }

    /// What [`Observer::compiling`] announced is over.
    fn compiled(&self) {}

    /// A line about what is done: the linker's line, the reason why the store did not serve.
    fn note(&self, line: &str) {
        let _ = line;
    }

    /// A line about something that is wrong but does not stop anything, such as a store that cannot be used. Said once.
    fn warning(&self, line: &str) {
        let _ = line;
    }
}

/// The observer of a runtime that has none.
pub(crate) struct Silent;

impl Observer for Silent {}
