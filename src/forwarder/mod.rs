//! From the queue to Kafka, on a thread of its own: batches, one transaction each, with the resume point in it.
//!
//! The forwarder sees the queue as a [`Backlog`] and Kafka as whatever `kafka.rs` makes of it; `batch`, `resume` and
//! `outcome` decide and hold no clock, socket or random source.

use std::time::Duration;

use crate::reading::{DeadLetter, Entry, Fingerprint, QueueId};

/// The queue as the forwarder sees it. Every method may block on the disk.
pub trait Backlog: Send {
    fn queue_id(&self) -> QueueId;

    /// The next sequence that is not yet safely in Kafka.
    fn release_point(&self) -> u64;

    /// One past the newest committed sequence.
    fn end(&self) -> u64;

    /// Committed records from `from` on, in order of sequence: at most `count`, at most `bytes` of them (but at least one
    /// where there is any). Sequences may be missing only where damage or a jump left a hole.
    fn read(&mut self, from: u64, count: usize, bytes: usize) -> Result<Vec<Entry>, BacklogError>;

    /// The fingerprint of the record at `sequence`; none where it is not (or no longer) here.
    fn fingerprint(&mut self, sequence: u64) -> Result<Option<Fingerprint>, BacklogError>;

    /// Waits until `end()` is above `sequence`, or `limit` has passed. True where it is.
    fn wait(&self, sequence: u64, limit: Duration) -> bool;

    /// Everything below `next` is safely in Kafka. Cheap; durable soon, and before anything is deleted by it.
    fn release(&mut self, next: u64) -> Result<(), BacklogError>;

    /// Puts a dead letter away; returns when it is on disk.
    fn set_aside(&mut self, letter: DeadLetter) -> Result<(), BacklogError>;

    /// Gives the queue a new id, durably; returns it.
    fn fork(&mut self, why: &str) -> Result<QueueId, BacklogError>;

    /// Whether the machine that wrote the queue so far is another one than this (a moved or cloned card).
    fn moved(&self) -> bool;
}

/// The queue has stopped or cannot be read; the agent is about to end.
#[derive(Debug, thiserror::Error)]
#[error("the queue cannot be used: {0}")]
pub struct BacklogError(pub String);
