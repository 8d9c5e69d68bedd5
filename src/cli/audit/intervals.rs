//! A set of sequences as ranges: a million sequences in a row take the room of one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Disjoint ranges that do not touch, by their first sequence. About 40 bytes a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Intervals(BTreeMap<u64, u64>);

impl Intervals {
    /// Adds a range; returns how many of its sequences are new.
    pub(super) fn insert(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        if first > last {
            return 0;
        }
        let (mut from, mut to, mut known) = (first, last, 0);
        // Ranges that overlap or touch are drawn into one.
        while let Some((&start, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            known += length(first.max(start), last.min(end));
            self.0.remove(&start);
            (from, to) = (from.min(start), to.max(end));
        }
        self.0.insert(from, to);
        length(first, last) - known
    }

    /// How many ranges there are.
    pub(super) fn ranges(&self) -> usize {
        self.0.len()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.0.first_key_value().map(|(first, _)| *first)
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, last)| *last)
    }

    /// How many sequences of `range` are in the set.
    pub(super) fn count_within(&self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        self.parts(first, last).map(|(from, to)| length(from, to)).sum()
    }

    /// The ranges of `range` that are not in the set.
    pub(super) fn holes(&self, range: RangeInclusive<u64>) -> impl Iterator<Item = (u64, u64)> {
        let (first, last) = range.into_inner();
        // Where the next hole would begin; none behind the end.
        let mut next = (first <= last).then_some(first);
        let ends = self.parts(first, last).map(Some).chain([None]);
        ends.filter_map(move |part| {
            let start = next?;
            next = part.and_then(|(_, to)| to.checked_add(1)).filter(|next| *next <= last);
            let end = match part {
                Some((from, _)) => from.checked_sub(1)?,
                None => last,
            };
            (start <= end).then_some((start, end))
        })
    }

    /// The set's ranges cut to `first..=last`.
    fn parts(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
        let before = self.0.range(..first).next_back().filter(|(_, to)| **to >= first);
        // A range that ends before it begins would panic in the map.
        let within = (first <= last).then(|| self.0.range(first..=last)).into_iter().flatten();
        before
            .into_iter()
            .chain(within)
            .map(move |(from, to)| ((*from).max(first), (*to).min(last)))
            .filter(|(from, to)| from <= to)
    }

    /// How many sequences both sets have.
    pub(super) fn in_common(&self, other: &Self) -> u64 {
        other.0.iter().map(|(first, last)| self.count_within(*first..=*last)).sum()
    }
}

/// Sequences from `first` to `last`; none where it ends before it begins.
fn length(first: u64, last: u64) -> u64 {
    if first > last { 0 } else { (last - first).saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Promise 9: the ranges say what a set of all sequences would say, in whatever order they come.
        #[test]
        fn as_a_set_would_be(ranges in proptest::collection::vec((0u64..200, 0u64..30), 0..60), ask in (0u64..220, 0u64..220)) {
            let (mut intervals, mut set) = (Intervals::default(), BTreeSet::new());
            for (first, length) in ranges {
                let new = (first..=first + length).filter(|sequence| set.insert(*sequence)).count() as u64;
                prop_assert_eq!(intervals.insert(first..=first + length), new);
            }
            prop_assert_eq!(intervals.first(), set.first().copied());
            prop_assert_eq!(intervals.last(), set.last().copied());
            let runs = set.iter().filter(|sequence| !set.contains(&(**sequence + 1))).count();
            prop_assert_eq!(intervals.ranges(), runs);
            let (first, last) = ask;
            let within = if first <= last { set.range(first..=last).count() as u64 } else { 0 };
            prop_assert_eq!(intervals.count_within(first..=last), within);
            let holes: Vec<u64> = intervals.holes(first..=last).flat_map(|(from, to)| from..=to).collect();
            let absent: Vec<u64> = (first..=last).filter(|sequence| !set.contains(sequence)).collect();
            prop_assert_eq!(holes, absent);
        }
    }

    /// Promise 5: numbers that no agent gives out are no reason to panic.
    #[test]
    fn the_ends_of_the_numbers() {
        let mut intervals = Intervals::default();
        assert_eq!(intervals.insert(u64::MAX..=u64::MAX), 1);
        assert_eq!(intervals.insert(0..=0), 1);
        assert_eq!(intervals.holes(0..=u64::MAX).collect::<Vec<_>>(), [(1, u64::MAX - 1)]);
        intervals.insert(0..=u64::MAX);
        assert_eq!((intervals.ranges(), intervals.insert(5..=u64::MAX)), (1, 0));
        assert_eq!(intervals.holes(0..=u64::MAX).count(), 0);
        let mut other = Intervals::default();
        other.insert(3..=9);
        assert_eq!(intervals.in_common(&other), 7);
    }
}
