//! What the writer tells its readers: where the records are and how far they reach.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::identity::{self, Dropped, Lost};
use crate::reading::QueueId;

/// State that the writer changes and the readers see.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone)]
pub(super) struct State {
    pub queue_id: QueueId,
    /// First sequence of each segment.
    pub segments: BTreeSet<u64>,
    /// One past the newest committed sequence.
    pub end: u64,
    pub release_point: u64,
    pub lost: Vec<Lost>,
    pub dropped: Vec<Dropped>,
    /// One past the newest sequence that was handed to the forwarder: Kafka may know what is below.
    pub handed_out: u64,
    /// The machine is another one than the one that wrote here last.
    pub moved: bool,
    /// The writer has ended.
    pub stopped: bool,
}

impl State {
    /// Why `sequence` is missing, if that is known, and the last sequence that this holds for.
    pub fn missing(&self, sequence: u64) -> (Option<String>, u64) {
        let lost = self.lost.iter().map(|lost| (lost.first, lost.last, lost.reason.clone()));
        let dropped = self.dropped.iter().map(|range| (range.first, range.last, range.reason()));
        let mut until = u64::MAX;
        for (first, last, reason) in lost.chain(dropped) {
            if first <= sequence && sequence <= last {
                return (Some(reason), last.min(until));
            }
            if first > sequence {
                until = until.min(first - 1);
            }
        }
        (None, until)
    }

    /// Unreleased sequences that are known to hold nothing.
    pub fn count_missing(&self) -> u64 {
        identity::missing(&self.lost, &self.dropped, self.release_point..self.end)
    }

    /// The segment that holds `sequence` if any does, and where the next one begins.
    pub fn segment_of(&self, sequence: u64) -> (Option<u64>, u64) {
        let first = self.segments.range(..=sequence).next_back().copied();
        let next = self.segments.range(sequence + 1..).next().copied();
        (first, next.unwrap_or(self.end).min(self.end))
    }
}

impl Shared {
    pub fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes who waits for it.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until there are records beyond `sequence`, the writer has ended, or `limit` has passed. True where there are.
    pub fn wait(&self, sequence: u64, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.state();
        loop {
            if state.end > sequence {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.stopped {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
