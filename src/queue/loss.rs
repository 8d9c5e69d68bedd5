//! What is lost: damaged segments are salvaged, missing ones noticed, and every lost sequence is written down, counted and
//! logged before anything else changes, so that a power cut cannot make it forgotten.

use jiff::Timestamp;
use tracing::error;

use super::error::QueueError;
use super::identity::Lost;
use super::salvage::{self, Wreck};
use super::store::Store;

/// Further than any segment can hold: where sequences go on when it is not known how far a lost segment reached.
pub(super) const JUMP: u64 = 1 << 32;
const DAMAGED: &str = "damaged on the disk";
pub(super) const MISSING: &str = "these records are missing from the queue's files";

impl Store {
    /// Replaces a damaged segment by what can be read of it. The newest segment only while nothing waits for its commit:
    /// sequences jump behind it.
    pub fn salvage(&mut self, first: u64) -> Result<(), QueueError> {
        let state = self.shared.state().clone();
        let is_newest = first == self.newest;
        let until = if is_newest { u64::MAX } else { state.segment_of(first).1.max(first + 1) };
        if is_newest {
            self.abandon();
        }
        let wreck = Wreck::look_through(&self.folder, first, self.next_of_ours(first), self.identity.origin)?;
        let kept = wreck.sequences(until);
        // Where a foreign file stands behind it, its name says nothing about where this one ends.
        let is_empty = wreck.sequences(u64::MAX).is_empty();
        let known_end = if is_newest {
            kept.last().map_or(first, |last| last + 1).max(state.end).max(self.next).max(self.identity.newest)
        } else {
            until
        };
        let resume = if is_newest { known_end + JUMP } else { until };
        let thinned = state.dropped.iter().any(|range| range.first <= first && first <= range.last);
        let lost = if thinned {
            // What was thinned before cannot be told from what is lost now.
            vec![Lost { first, last: resume - 1, reason: "thinned, and damaged on the disk since".to_owned() }]
        } else if is_empty {
            holes(first, resume, &self.found_before(first, resume))
        } else {
            holes(first, resume, &kept)
        };
        self.lose(lost, known_end)?;
        let set_aside = if is_empty {
            // It may not even be ours, and then its name says nothing about where the one before it ends.
            self.shared.change(|state| {
                state.segments.remove(&first);
            });
            wreck.set_aside(Timestamp::now())?
        } else {
            wreck.replace(Timestamp::now())?
        };
        error!(segment = first, kept = kept.len(), set_aside = %set_aside.display(), "a damaged segment was salvaged");
        if is_newest {
            self.recover_marks();
            self.resume_at(resume)?;
        }
        self.measure();
        Ok(())
    }

    /// Where the next segment after `first` begins that says itself that it is ours.
    fn next_of_ours(&self, first: u64) -> u64 {
        let after: Vec<u64> = self.shared.state().segments.range(first + 1..).copied().collect();
        let is_ours = |first: &u64| salvage::claimed_origin(&self.folder, *first) == Some(self.identity.origin);
        after.into_iter().find(is_ours).unwrap_or(u64::MAX)
    }

    /// Sequences from `first` on and below `end` that stand in the segment before: the name of the one after it may mean
    /// nothing.
    fn found_before(&self, first: u64, end: u64) -> Vec<u64> {
        let before = self.shared.state().segments.range(..first).next_back().copied();
        let wreck = before.and_then(|before| Wreck::look_through(&self.folder, before, end, self.identity.origin).ok());
        let mut found = wreck.map_or_else(Vec::new, |wreck| wreck.sequences(end));
        found.retain(|sequence| *sequence >= first);
        found
    }

    /// A reader has not found the sequences from `first` to `last`, both inclusive, in `segment`, where they should be.
    pub fn miss(&mut self, segment: Option<u64>, first: u64, last: u64) -> Result<(), QueueError> {
        if let Some(segment) = segment.filter(|segment| *segment != self.newest) {
            // They may be in its file, out of the database's reach; or the file is not ours, and they are elsewhere.
            let until = self.shared.state().segment_of(segment).1;
            let wreck = Wreck::look_through(&self.folder, segment, until, self.identity.origin)?;
            let found = wreck.sequences(until);
            if found.is_empty() || found.iter().any(|sequence| (first..=last).contains(sequence)) {
                return self.salvage(segment);
            }
        }
        self.lose(vec![Lost { first, last, reason: MISSING.to_owned() }], last.saturating_add(1))
    }

    /// The newest segment's file is gone: nobody knows how far it reached.
    pub(super) fn miss_newest(&mut self) -> Result<(), QueueError> {
        let (missing, end) = (self.identity.newest, self.shared.state().end.max(self.release_point));
        let resume = missing.max(end) + JUMP;
        error!(segment = missing, "the newest segment is missing");
        self.lose(vec![Lost { first: end, last: resume - 1, reason: MISSING.to_owned() }], missing)?;
        self.resume_at(resume)
    }

    /// No sequence below `resume` is given out again.
    pub(super) fn resume_at(&mut self, resume: u64) -> Result<(), QueueError> {
        if let Some(active) = self.active.take() {
            active.seal()?;
        }
        self.next = self.next.max(resume);
        self.shared.change(|state| state.end = state.end.max(resume));
        match self.begin_segment() {
            // The next commit finds out whether there is room, and begins it.
            Err(error) if error.is_full() => Ok(()),
            result => result,
        }
    }

    /// Writes lost sequences down. Those beyond `known_end` may never have been used, and are not counted.
    fn lose(&mut self, ranges: Vec<Lost>, known_end: u64) -> Result<(), QueueError> {
        let news: Vec<Lost> = ranges.into_iter().filter(|range| !self.identity.knows_lost(range)).collect();
        if news.is_empty() {
            return Ok(());
        }
        let count: u64 = news
            .iter()
            .map(|range| range.last.min(known_end.saturating_sub(1)).saturating_add(1).saturating_sub(range.first))
            .sum();
        self.change_identity(|identity| identity.lost.extend(news.iter().cloned()))?;
        self.metrics.queue.lost.add(count);
        let all = self.identity.lost.clone();
        self.shared.change(|state| state.lost = all);
        self.tell_missing();
        let shown = news.iter().map(|range| format!("{}-{}", range.first, range.last)).collect::<Vec<_>>().join(", ");
        error!(count, lost = %shown, reason = %news[0].reason, "sequences are lost; they are reported to Kafka as gaps");
        Ok(())
    }
}

/// The ranges within `first..end` that `present` (rising) does not cover.
pub(super) fn holes(first: u64, end: u64, present: &[u64]) -> Vec<Lost> {
    let mut holes = Vec::new();
    let mut next = first;
    for sequence in present.iter().copied().chain(std::iter::once(end)) {
        if sequence > next {
            holes.push(Lost { first: next, last: sequence - 1, reason: DAMAGED.to_owned() });
        }
        next = sequence + 1;
    }
    holes
}
