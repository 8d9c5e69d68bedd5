//! Dead letters that are records of the queue still: the forwarder sets them aside when it comes to them, and as long as
//! Kafka is away it does not. Changes nothing.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::error::QueueError;
use super::inspect::Inspector;
use super::letters::LetterId;
use super::walk::{Find, Walk};
use crate::reading::{Body, DeadLetter, Entry, QueueId};

/// Records read at a time: bounds what is held in memory.
const CHUNK: (usize, usize) = (512, 1 << 20);

/// A search for them, from the oldest record to the newest.
pub struct Waiting {
    walk: Walk,
    queue_id: QueueId,
    passed_over: u64,
}

/// How many were found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Without those that are set aside, although their records are not released yet.
    pub letters: u64,
    /// Sequences that were looked at, and older ones that were not.
    pub looked_at: u64,
    pub passed_over: u64,
}

impl Inspector {
    /// Searches the newest `most` records that wait. They wait from the release point on, or from `released`: an agent knows
    /// of releases that are not on disk yet.
    pub fn waiting_letters(&self, released: u64, most: u64) -> Result<Waiting, QueueError> {
        let mut walk = self.walk(None, None)?;
        let oldest = walk.next().max(released).min(walk.end());
        walk.seek(oldest.max(walk.end().saturating_sub(most)));
        let passed_over = walk.next().saturating_sub(oldest);
        Ok(Waiting { walk, queue_id: self.identity().queue_id(), passed_over })
    }

    /// The one that waits at `sequence`.
    pub fn waiting_letter(&self, released: u64, sequence: u64) -> Result<Option<DeadLetter>, QueueError> {
        let mut walk = self.walk(None, None)?;
        if sequence < walk.next().max(released) {
            return Ok(None);
        }
        let entry = walk.record_at(sequence)?.filter(|entry| entry.sequence == sequence);
        Ok(entry.and_then(|entry| letter(self.identity().queue_id(), entry)))
    }

    /// Counts what [`Inspector::waiting_letters`] finds.
    pub fn count_waiting_letters(&self, released: u64, most: u64) -> Result<Found, QueueError> {
        let mut waiting = self.waiting_letters(released, most)?;
        let (looked_at, mut ids) = (waiting.left(), BTreeSet::new());
        waiting.visit(
            |_| {},
            |letter| {
                ids.insert((letter.queue_id, letter.sequence));
                ControlFlow::Continue(())
            },
        )?;
        let asked: Vec<LetterId> = ids.iter().copied().collect();
        // Where the file cannot be read nobody knows what is set aside, and that is said elsewhere.
        let _ = self.visit_letters(&asked, |letter| {
            ids.remove(&(letter.queue_id, letter.sequence));
            ControlFlow::Continue(())
        });
        Ok(Found { letters: ids.len() as u64, looked_at, passed_over: waiting.passed_over })
    }
}

impl Waiting {
    /// Older records that wait and are not looked at.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// Sequences that are still to be looked at.
    pub fn left(&self) -> u64 {
        self.walk.left()
    }

    /// Shows `visit` each letter, until it breaks; `progress` hears how many sequences are left.
    pub fn visit(
        &mut self,
        mut progress: impl FnMut(u64),
        mut visit: impl FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<(), QueueError> {
        loop {
            let finds = self.walk.read(CHUNK.0, CHUNK.1)?;
            if finds.is_empty() {
                return Ok(());
            }
            for find in finds {
                let Find::Record(entry) = find else { continue };
                if let Some(letter) = letter(self.queue_id, entry)
                    && visit(letter).is_break()
                {
                    return Ok(());
                }
            }
            progress(self.left());
        }
    }
}

/// The record as the letter that it becomes; it is not set aside before the forwarder says when.
fn letter(queue_id: QueueId, entry: Entry) -> Option<DeadLetter> {
    let Body::Dead(dead) = &entry.body else { return None };
    let (reason, set_aside) = (dead.reason.clone(), dead.received);
    Some(DeadLetter { queue_id, sequence: entry.sequence, reason, set_aside, body: entry.body })
}
