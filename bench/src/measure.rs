//! Taking turns: our side and the peer's are measured alternately, so that whatever slows the machine down for a while
//! slows both, and the median of each side is what counts.
//!
//! A side is a closure that does the work once and gives the time of the part that counts; what it prepares and clears
//! away around that part is not in the time. Warm-up turns are thrown away. The order within a turn changes from turn
//! to turn, for the side that comes second finds warmer caches.

use crate::Result;
use crate::row::{Outcome, Peer, Unit};
use std::time::{Duration, Instant};

/// How many turns are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turns {
    /// Turns that are thrown away at the start.
    pub(crate) warm_up: usize,
    /// Turns that are wanted; fewer when the time is over.
    pub(crate) wanted: usize,
    /// How long the turns may go on once [`Turns::LEAST`] are done.
    pub(crate) time: Duration,
}

impl Turns {
    /// For work that takes milliseconds.
    pub(crate) const QUICK: Self = Self { warm_up: 3, wanted: 60, time: Duration::from_secs(10) };
    /// For work that takes less than a millisecond. All of it in a moment would show one mood of the machine, which has some
    /// that last for seconds.
    pub(crate) const TINY: Self = Self { warm_up: 20, wanted: 30_000, time: Duration::from_secs(4) };
    /// For work that needs a process of its own for each measurement.
    pub(crate) const PROCESSES: Self = Self { warm_up: 1, wanted: 15, time: Duration::from_secs(10) };
    /// For work that takes a second or two: of fewer turns the median is the machine's mood.
    pub(crate) const SECONDS: Self = Self { warm_up: 1, wanted: 15, time: Duration::from_secs(45) };
    /// For work that takes many seconds, of which a first time is no different from others.
    pub(crate) const LONGEST: Self = Self { warm_up: 0, wanted: 3, time: Duration::ZERO };

    /// Fewest turns.
    const LEAST: usize = 7;
    /// Fewest turns where one side takes over [`Turns::LONG`].
    const LEAST_LONG: usize = 3;
    /// What is long for one side of a turn.
    const LONG: Duration = Duration::from_secs(2);

    /// Measures both sides in turn.
    ///
    /// # Errors
    /// The first error of either side.
    pub(crate) fn compare(
        self,
        unit: Unit,
        mut ours: impl FnMut() -> Result<Duration>,
        mut peer: impl FnMut() -> Result<Duration>,
    ) -> Result<Outcome> {
        let figure = |time: Duration| (time, time.as_secs_f64() * unit.per_second());
        self.alternate(|| Ok(figure(ours()?)), || Ok(figure(peer()?)))
    }

    /// Measures both sides in turn, where each gives a figure in the row's unit: because it is no time, or because
    /// somebody else held the clock. What a turn takes is the time that a side's closure runs.
    ///
    /// # Errors
    /// The first error of either side.
    pub(crate) fn compare_figures(
        self,
        mut ours: impl FnMut() -> Result<f64>,
        mut peer: impl FnMut() -> Result<f64>,
    ) -> Result<Outcome> {
        self.alternate(|| timed(&mut ours), || timed(&mut peer))
    }

    /// Repeats a measurement that gives both figures, ours first, in the row's unit.
    ///
    /// # Errors
    /// The first error.
    pub(crate) fn repeat(self, mut both: impl FnMut() -> Result<(f64, f64)>) -> Result<Outcome> {
        let (mut our_figures, mut peer_figures) = (Vec::new(), Vec::new());
        self.take(|turn| {
            let (time, (ours, peer)) = timed(&mut both)?;
            if turn >= self.warm_up {
                our_figures.push(ours);
                peer_figures.push(peer);
            }
            Ok(time)
        })?;
        Ok(Outcome {
            n: our_figures.len(),
            ours: median(our_figures),
            peer: Peer::Measured(median(peer_figures)),
        })
    }

    /// Takes both sides in changing order; each gives the time it took and its figure.
    fn alternate(
        self,
        mut ours: impl FnMut() -> Result<(Duration, f64)>,
        mut peer: impl FnMut() -> Result<(Duration, f64)>,
    ) -> Result<Outcome> {
        let (mut our_figures, mut peer_figures) = (Vec::new(), Vec::new());
        self.take(|turn| {
            let (our, other);
            if turn.is_multiple_of(2) {
                our = ours()?;
                other = peer()?;
            } else {
                other = peer()?;
                our = ours()?;
            }
            if turn >= self.warm_up {
                our_figures.push(our.1);
                peer_figures.push(other.1);
            }
            Ok(our.0.max(other.0))
        })?;
        Ok(Outcome {
            n: our_figures.len(),
            ours: median(our_figures),
            peer: Peer::Measured(median(peer_figures)),
        })
    }

    /// Measures our side when the peer is `missing`, which says why.
    ///
    /// # Errors
    /// The first error.
    pub(crate) fn alone(
        self,
        unit: Unit,
        mut ours: impl FnMut() -> Result<Duration>,
        missing: String,
    ) -> Result<Outcome> {
        let mut figures = Vec::new();
        self.take(|turn| {
            let time = ours()?;
            if turn >= self.warm_up {
                figures.push(time.as_secs_f64() * unit.per_second());
            }
            Ok(time)
        })?;
        Ok(Outcome { n: figures.len(), ours: median(figures), peer: Peer::Missing(missing) })
    }

    /// Calls `turn` with the number of each turn; it gives the time of its slower side.
    fn take(self, mut turn: impl FnMut(usize) -> Result<Duration>) -> Result<()> {
        for number in 0..self.warm_up {
            turn(number)?;
        }
        let start = Instant::now();
        let mut least = Self::LEAST;
        for done in 1..=self.wanted {
            if turn(self.warm_up + done - 1)? > Self::LONG {
                least = Self::LEAST_LONG;
            }
            if done >= least && start.elapsed() > self.time {
                break;
            }
        }
        Ok(())
    }
}

/// The median; not a number when there is none.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
    if figures.len() % 2 == 1 { at(middle) } else { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 }
}

/// The geometric mean: that of ratios is the ratio of those of both sides.
pub(crate) fn geometric_mean(figures: &[f64]) -> f64 {
    let logarithms: f64 = figures.iter().map(|figure| figure.ln()).sum();
    (logarithms / figures.len() as f64).exp()
}

/// How long `work` takes, and what it gives.
///
/// # Errors
/// Those of `work`.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let start = Instant::now();
    let value = work()?;
    Ok((start.elapsed(), value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn the_mean_of_ratios_is_the_ratio_of_means() {
        let (ours, peers) = ([2.0, 30.0, 0.5], [1.0, 60.0, 0.25]);
        let ratio = geometric_mean(&ours) / geometric_mean(&peers);
        assert!((ratio - geometric_mean(&[2.0, 0.5, 2.0])).abs() < 1e-12);
    }

    #[test]
    fn both_sides_take_turns_and_the_warm_up_does_not_count() {
        let order = RefCell::new(String::new());
        let side = |letter, ms: [u64; 2]| {
            let order = &order;
            let mut calls = 0;
            move || {
                order.borrow_mut().push(letter);
                calls += 1;
                Ok(Duration::from_millis(if calls <= 2 { ms[0] } else { ms[1] }))
            }
        };
        let turns = Turns { warm_up: 2, wanted: 3, time: Duration::from_secs(60) };
        let outcome = turns.compare(Unit::Milliseconds, side('o', [900, 2]), side('p', [700, 4])).unwrap();
        assert_eq!(outcome, Outcome { ours: 2.0, peer: Peer::Measured(4.0), n: 3 });
        assert_eq!(*order.borrow(), "oppooppoop");
    }

    #[test]
    fn a_measurement_of_both_gives_both_medians() {
        let mut turn = 0.0;
        let turns = Turns { warm_up: 1, wanted: 3, time: Duration::from_secs(60) };
        let outcome = turns.repeat(|| {
            turn += 1.0;
            Ok((turn, turn * 10.0))
        });
        assert_eq!(outcome.unwrap(), Outcome { ours: 3.0, peer: Peer::Measured(30.0), n: 3 });
        let outcome = turns.compare_figures(|| Ok(2.5), || Ok(5.0)).unwrap();
        assert_eq!(outcome, Outcome { ours: 2.5, peer: Peer::Measured(5.0), n: 3 });
    }

    #[test]
    fn a_slow_side_needs_three_turns_and_others_seven() {
        let count = |ms| {
            let turns = Turns { warm_up: 0, wanted: 100, time: Duration::ZERO };
            let side = || Ok(Duration::from_millis(ms));
            turns.alone(Unit::Milliseconds, side, "none".into()).unwrap().n
        };
        assert_eq!(count(2500), 3);
        assert_eq!(count(100), 7);
    }
}
