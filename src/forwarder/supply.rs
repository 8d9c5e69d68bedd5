//! Short reads from the queue: what is waiting, in chunks, with the dead letters put away and the holes named.

use std::collections::BTreeMap;

use crate::forwarder::batch::Allowance;
use crate::forwarder::record::{Missing, Record, Recorder};
use crate::forwarder::{Backlog, BacklogError};
use crate::reading::{Body, DeadLetter, Entry, Received};

/// Of one read: bounds what is held in memory besides the client library's own buffers, and fits into a small core's cache.
const CHUNK: Allowance = Allowance { records: 256, bytes: 64 * 1024 };

/// What was read at once: at least one entry.
#[derive(Debug)]
pub struct Chunk {
    /// Where it was to begin; sequences between here and the first entry are missing.
    pub from: u64,
    pub entries: Vec<Entry>,
}

impl Chunk {
    /// One past its last sequence.
    pub fn end(&self) -> u64 {
        self.entries.last().expect("a chunk has an entry").sequence + 1
    }

    /// Bytes of its records in the queue.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.size).sum()
    }
}

/// What is known of records that cannot be sent as they are; forgotten at a restart, and then found out again.
#[derive(Debug, Default)]
pub struct Supply {
    /// Everything below was looked at for dead letters.
    looked_until: u64,
    /// Readings that Kafka refused, with its reason: set aside, a gap record goes in their stead.
    condemned: BTreeMap<u64, String>,
}

impl Supply {
    /// Reads what waits from `from` on, within `allowance`. None where nothing waits.
    pub fn read(
        &mut self,
        backlog: &mut dyn Backlog,
        from: u64,
        allowance: Allowance,
    ) -> Result<Option<Chunk>, BacklogError> {
        let count = allowance.records.clamp(1, CHUNK.records);
        let bytes = allowance.bytes.clamp(1, CHUNK.bytes);
        let entries = backlog.read(from, count, bytes)?;
        Ok((!entries.is_empty()).then_some(Chunk { from, entries }))
    }

    /// Whether `chunk` has dead letters that were not put away yet: that takes the disk's time, and is not done while a
    /// transaction is open.
    pub fn has_dead(&self, chunk: &Chunk) -> bool {
        chunk.entries.iter().any(|entry| entry.sequence >= self.looked_until && matches!(entry.body, Body::Dead(_)))
    }

    /// Puts the dead letters of `chunk` away; they are on disk when it returns.
    pub fn put_away(
        &mut self,
        backlog: &mut dyn Backlog,
        chunk: &Chunk,
        now: &Received,
        heartbeat: &dyn Fn(),
    ) -> Result<(), BacklogError> {
        for entry in &chunk.entries {
            if entry.sequence < self.looked_until {
                continue;
            }
            if let Body::Dead(dead) = &entry.body {
                backlog.set_aside(DeadLetter {
                    queue_id: backlog.queue_id(),
                    sequence: entry.sequence,
                    reason: dead.reason.clone(),
                    set_aside: *now,
                    body: entry.body.clone(),
                })?;
                heartbeat();
            }
            self.looked_until = entry.sequence + 1;
        }
        Ok(())
    }

    /// The reading that was alone in a transaction was refused for good: it goes to the dead letters, and from now on a gap
    /// record in its stead. Returns its sequence; none where `chunk` begins with no reading, or one that is there already.
    pub fn condemn(
        &mut self,
        backlog: &mut dyn Backlog,
        chunk: &Chunk,
        reason: &str,
        now: &Received,
    ) -> Result<Option<u64>, BacklogError> {
        let entry = chunk.entries.first().expect("a chunk has an entry");
        let sequence = entry.sequence;
        if !matches!(entry.body, Body::Reading(_)) || self.condemned.contains_key(&sequence) {
            return Ok(None);
        }
        backlog.set_aside(DeadLetter {
            queue_id: backlog.queue_id(),
            sequence,
            reason: reason.to_owned(),
            set_aside: *now,
            body: entry.body.clone(),
        })?;
        self.condemned.insert(sequence, reason.to_owned());
        Ok(Some(sequence))
    }

    /// Everything below `next` is in Kafka.
    pub fn released(&mut self, next: u64) {
        self.condemned = self.condemned.split_off(&next);
    }

    /// Hands the records of one entry to `take`: the one that explains missing sequences before it, if there are any, and its own.
    /// `expected` is the sequence that should have come.
    pub fn records<E>(
        &self,
        recorder: &Recorder,
        expected: u64,
        entry: Entry,
        now: &Received,
        mut take: impl FnMut(Record, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let sequence = entry.sequence;
        if let Some(missing) = hole(expected, &entry) {
            take(recorder.gap(expected, &missing, now, now), true)?;
        }
        let one = |reason: &str| Missing::new(sequence, sequence, reason);
        match entry.body {
            Body::Reading(reading) => match self.condemned.get(&sequence) {
                None => take(recorder.reading(sequence, reading, now), false),
                Some(reason) => take(recorder.gap(sequence, &one(reason), &reading.received, now), true),
            },
            Body::Dead(dead) => take(recorder.gap(sequence, &one(&dead.reason), &dead.received, now), true),
            Body::Gap(gap) => {
                let missing = Missing::new(gap.first, gap.last, &gap.reason);
                take(recorder.gap(sequence, &missing, &gap.noticed, now), true)
            }
        }
    }
}

/// The sequences missing before `entry`, where `expected` should have come; none where the entry itself explains them.
fn hole(expected: u64, entry: &Entry) -> Option<Missing> {
    if entry.sequence <= expected {
        return None;
    }
    let last = entry.sequence - 1;
    if let Body::Gap(gap) = &entry.body
        && gap.first <= expected
        && gap.last >= last
    {
        return None;
    }
    Some(Missing::new(expected, last, "not in the queue any more: damaged or removed"))
}
