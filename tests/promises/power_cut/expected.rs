//! What has to be true of what a power cut has left.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::recording::Recording;
use super::resume::ResumePoint;

/// Readings by sequence.
pub type Readings = BTreeMap<u64, Vec<u8>>;

/// What was true before the cut, as far as it is certain.
#[derive(Debug, Clone)]
pub struct Expected {
    /// None: the queue may not have been there yet.
    pub queue_id: Option<String>,
    /// Sequences that may not be missing, in order.
    pub stored: Vec<u64>,
    /// All that may be there.
    pub possible: Readings,
    /// Where the release point may be.
    pub released: RangeInclusive<u64>,
    /// What Kafka knew.
    pub taken: Option<ResumePoint>,
}

/// What the queue held when the agent had opened it.
#[derive(Debug, Clone)]
pub struct Before {
    pub queue_id: String,
    pub release_point: u64,
    pub end: u64,
    pub readings: Readings,
}

impl Expected {
    /// When so many writes of the recording had reached the disk.
    pub fn of(recording: &Recording, at: usize) -> Self {
        let acknowledged = recording.acknowledged(at);
        Self {
            queue_id: (!acknowledged.is_empty()).then(|| recording.queue_id.clone()),
            stored: acknowledged.to_vec(),
            possible: recording.readings.clone(),
            released: recording.released(at)..=recording.taken_at_most(at),
            taken: recording.taken(at).cloned(),
        }
    }

    /// When the agent had opened what a first cut left (`before`), and had then acknowledged the first `acknowledged` of
    /// `new`.
    pub fn then(&self, before: &Before, new: &Readings, acknowledged: usize) -> Self {
        let mut possible = before.readings.clone();
        possible.extend(new.clone());
        // What it has shown once, it may already have sent.
        let kept = before.readings.keys().filter(|sequence| **sequence >= before.release_point);
        let stored: Vec<_> = kept.chain(new.keys().take(acknowledged)).copied().collect();
        // A queue that has never held anything may be made anew.
        let named = self.queue_id.is_some() || !stored.is_empty();
        Self {
            queue_id: named.then(|| before.queue_id.clone()),
            stored,
            possible,
            released: before.release_point..=*self.released.end(),
            taken: self.taken.clone(),
        }
    }

    /// Promises 1, 2: holds it against what is there.
    #[track_caller]
    pub fn compare(&self, found: &Before) {
        let id = self.queue_id.as_ref();
        assert!(id.is_none_or(|id| *id == found.queue_id), "queue {}, was {id:?}", found.queue_id);
        let unreleased = self.stored.iter().filter(|sequence| **sequence >= found.release_point);
        let missing: Vec<_> = unreleased.filter(|sequence| !found.readings.contains_key(sequence)).collect();
        assert!(missing.is_empty(), "acknowledged and gone: {missing:?}");
        let same = |sequence: &u64| self.possible.get(sequence) == found.readings.get(sequence);
        let foreign: Vec<_> = found.readings.keys().filter(|sequence| !same(sequence)).collect();
        assert!(foreign.is_empty(), "never stored under these numbers: {foreign:?}");
        let next = self.stored.last().map_or(1, |last| last + 1);
        assert!(found.end >= next, "the next sequence is {}, was {next}", found.end);
        let point = found.release_point;
        assert!(self.released.contains(&point), "released up to {point}, it was within {:?}", self.released);
    }
}
