//! Which addresses of a stretch are free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The free ranges of a stretch, by place and by length. What fits best is taken, so that large ranges stay whole.
#[derive(Debug, Default)]
pub(super) struct Free {
    ends: BTreeMap<usize, usize>,
    lengths: BTreeSet<(usize, usize)>,
    /// Nothing from here on was ever taken.
    untouched: usize,
}

impl Free {
    /// All of it is.
    pub(super) fn new(stretch: Range<usize>) -> Self {
        let mut free = Self { untouched: stretch.start, ..Self::default() };
        free.insert(stretch);
        free
    }

    /// Takes a range of that length at a multiple of `alignment`, a power of two.
    pub(super) fn take(&mut self, length: usize, alignment: usize) -> Option<Range<usize>> {
        let taken = self.lengths.range((length, 0)..).find_map(|(_, start)| {
            let end = self.ends.get(start)?;
            let aligned = start.checked_next_multiple_of(alignment)?;
            let taken = aligned..aligned.checked_add(length)?;
            (taken.end <= *end).then_some((*start..*end, taken))
        });
        let (whole, taken) = taken?;
        self.remove(&whole);
        self.insert(whole.start..taken.start);
        self.insert(taken.end..whole.end);
        self.untouched = self.untouched.max(taken.end);
        Some(taken)
    }

    /// Gives a range back; the free range that it is in from now on.
    pub(super) fn give_back(&mut self, range: Range<usize>) -> Range<usize> {
        let mut whole = range;
        if let Some((start, end)) = self.ends.range(..whole.start).next_back().map(|(s, e)| (*s, *e))
            && end == whole.start
        {
            self.remove(&(start..end));
            whole.start = start;
        }
        if let Some(end) = self.ends.get(&whole.end).copied() {
            self.remove(&(whole.end..end));
            whole.end = end;
        }
        self.insert(whole.clone());
        whole
    }

    /// Nothing from there on was ever taken.
    pub(super) fn untouched(&self) -> usize {
        self.untouched
    }

    fn insert(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.ends.insert(range.start, range.end);
            self.lengths.insert((range.len(), range.start));
        }
    }

    fn remove(&mut self, range: &Range<usize>) {
        self.ends.remove(&range.start);
        self.lengths.remove(&(range.len(), range.start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_side_by_side_and_joined_again() {
        let mut free = Free::new(100..1000);
        let [a, b, c] =
            [free.take(50, 1), free.take(60, 64), free.take(10, 1)].map(|range| range.expect("room"));
        assert_eq!((a.clone(), b.clone()), (100..150, 192..252));
        assert_eq!(c, 150..160, "the gap that the alignment left fits best");
        assert_eq!(free.untouched(), 252);
        assert_eq!(free.take(800, 1), None);
        assert_eq!(free.give_back(a), 100..150);
        assert_eq!(free.give_back(c), 100..192);
        assert_eq!(free.give_back(b), 100..1000);
        assert_eq!(free.take(900, 1), Some(100..1000));
        assert_eq!(free.take(1, 1), None);
    }

    #[test]
    fn ranges_never_overlap() {
        let mut free = Free::new(4096..1 << 20);
        let mut taken: Vec<Range<usize>> = Vec::new();
        let mut number = 12345usize;
        for _ in 0..20_000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if number >> 63 == 0 && !taken.is_empty() {
                free.give_back(taken.swap_remove((number >> 20) % taken.len()));
            } else if let Some(range) = free.take(1 + (number >> 30) % 5000, 1 << ((number >> 50) % 8)) {
                taken.push(range);
            }
        }
        taken.sort_by_key(|range| range.start);
        assert!(taken.windows(2).all(|pair| pair[0].end <= pair[1].start));
        for range in taken.drain(..) {
            free.give_back(range);
        }
        assert_eq!(free.take((1 << 20) - 4096, 1), Some(4096..1 << 20), "all is one range again");
    }
}
