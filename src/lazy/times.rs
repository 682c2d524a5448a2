//! What compiling functions at their first calls has come to, in one process.

use std::time::Duration;

/// So many of the dearest are remembered.
const MOST: usize = 10;

/// What functions that are compiled when they are first called have taken; from [`Runtime::function_times`](crate::Runtime::function_times).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FunctionTimes {
    /// How many were compiled.
    pub compiled: u32,
    /// Time in the back end. Threads that compile at once count each.
    pub compiling: Duration,
    /// Time from first calls to answers, in which the callers waited.
    pub waited: Duration,
    /// Those that took longest, the longest first; ten at most.
    pub slowest: Vec<FunctionTime>,
}

/// A function that was compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionTime {
    /// The unit that was loaded.
    pub unit: String,
    /// The source that has it, as it was given.
    pub source: String,
    /// Its name as linkers see it.
    pub function: String,
    /// What compiling and linking it took; of what several functions took together, a share by their size.
    pub time: Duration,
}

impl FunctionTimes {
    /// Counts a function; who it is is asked only if it is among the slowest.
    pub(super) fn add(&mut self, time: Duration, describe: impl FnOnce() -> FunctionTime) {
        self.compiled += 1;
        self.compiling += time;
        if self.slowest.len() < MOST || self.slowest.last().is_some_and(|last| last.time < time) {
            let at = self.slowest.partition_point(|other| other.time >= time);
            self.slowest.insert(at, describe());
            self.slowest.truncate(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_are_remembered_in_order() {
        let mut times = FunctionTimes::default();
        let mut described = 0;
        for ms in [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 1] {
            let time = Duration::from_millis(ms);
            times.add(time, || {
                described += 1;
                FunctionTime { unit: "u".into(), source: "u.c".into(), function: ms.to_string(), time }
            });
        }
        assert_eq!((times.compiled, times.compiling), (15, Duration::from_millis(69)));
        let slowest: Vec<&str> = times.slowest.iter().map(|one| one.function.as_str()).collect();
        assert_eq!(slowest, ["9", "9", "8", "7", "6", "5", "5", "5", "4", "3"]);
        assert_eq!(described, 14, "the last was not asked for");
    }
}
