//! The forwarder's end of the queue. Every call may block on the disk: it belongs on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::cursor::{Cursor, Stopped};
use super::error::QueueError;
use super::folder::{Folder, TRIES, is_medium};
use super::letters::LetterId;
use super::segment::SegmentError;
use super::shared::Shared;
use super::writer::Command;
use crate::clock::Clock;
use crate::daily::Ledger;
use crate::metrics::Metrics;
use crate::reading::{Body, DeadLetter, Entry, Fingerprint, QueueId};

/// How long another process may hold a segment, in steps.
const BUSY: (u32, Duration) = (100, Duration::from_millis(100));

/// Reads what is committed, and releases what is in Kafka.
pub struct Outlet {
    cursor: Cursor,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// As it was at the start.
    pub(super) ledger: Ledger,
}

impl Outlet {
    pub(super) fn new(
        folder: &Folder,
        origin: u128,
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self { cursor: Cursor::new(folder, origin), shared, commands, metrics, clock, ledger: Ledger::default() }
    }

    pub fn queue_id(&self) -> QueueId {
        self.shared.state().queue_id
    }

    /// The next sequence that is not yet safely in Kafka.
    pub fn release_point(&self) -> u64 {
        self.shared.state().release_point
    }

    /// One past the newest committed sequence.
    pub fn end(&self) -> u64 {
        self.shared.state().end
    }

    /// Whether the machine that wrote the queue so far is another one than this.
    pub fn moved(&self) -> bool {
        self.shared.state().moved
    }

    /// Waits until `end()` is above `sequence`, the writer has ended, or `limit` has passed. True where it is above.
    pub fn wait(&self, sequence: u64, limit: Duration) -> bool {
        self.shared.wait(sequence, limit)
    }

    /// Committed records from `from` on, in order: at most `count`, at most `bytes` (but at least one where there is
    /// any). Sequences that are not there any more come out as [`Body::Gap`].
    pub fn read(&mut self, from: u64, count: usize, bytes: usize) -> Result<Vec<Entry>, QueueError> {
        let now = self.clock.now();
        let entries = self.retried(|cursor, shared| {
            let state = shared.state().clone();
            cursor.read(&state, from, count, bytes, now)
        })?;
        if let Some(last) = entries.last().map(|entry| entry.sequence) {
            let mut state = self.shared.state();
            state.handed_out = state.handed_out.max(last + 1);
        }
        if from <= self.release_point() {
            let oldest = entries.first().map_or(0, |entry| received_ms(&entry.body));
            self.metrics.queue.oldest_ms.store(oldest, Ordering::Relaxed);
        }
        Ok(entries)
    }

    /// Shows in the metrics since when the oldest unreleased record waits; reading keeps that up to date.
    pub fn show_oldest(&mut self) {
        let state = self.shared.state().clone();
        let oldest = self.cursor.read(&state, state.release_point, 1, 1, self.clock.now());
        // Damage is dealt with when the record is sent.
        if let Some(entry) = oldest.ok().as_deref().and_then(<[Entry]>::first) {
            self.metrics.queue.oldest_ms.store(received_ms(&entry.body), Ordering::Relaxed);
        }
    }

    /// What the record at `sequence` is compared by; none where it is not, or no longer, here.
    pub fn fingerprint(&mut self, sequence: u64) -> Result<Option<Fingerprint>, QueueError> {
        self.retried(|cursor, shared| {
            let state = shared.state().clone();
            cursor.fingerprint(&state, sequence)
        })
    }

    /// Everything below `next` is safely in Kafka.
    pub fn release(&mut self, next: u64) -> Result<(), QueueError> {
        if next >= self.end() {
            self.metrics.queue.oldest_ms.store(0, Ordering::Relaxed);
        }
        // Seen at once by whoever asks; the writer unlinks, and makes it durable, in its own time.
        self.shared.change(|state| state.release_point = state.release_point.max(next.min(state.end)));
        self.commands.blocking_send(Command::Release(next)).map_err(|_| QueueError::Stopped)
    }

    /// Puts dead letters away, in one transaction; durable when it returns. A full disk is an error to try again after
    /// ([`QueueError::is_full`]).
    pub fn set_aside(&mut self, letters: Vec<DeadLetter>) -> Result<(), QueueError> {
        self.ask(|reply| Command::SetAside(letters, reply))
    }

    /// Deletes dead letters that were put back into the queue; durable when it returns.
    pub fn delete_letters(&mut self, ids: Vec<LetterId>) -> Result<(), QueueError> {
        self.ask(|reply| Command::DeleteLetters(ids, reply))
    }

    /// What the next daily receipt says, as it was kept before the start.
    pub fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Keeps what the next daily receipt says; durable when it returns.
    pub fn keep(&mut self, ledger: &Ledger) -> Result<(), QueueError> {
        self.ask(|reply| Command::Keep(Box::new(ledger.clone()), reply))
    }

    /// Gives the queue a new id, durably. Its daily receipts begin with the release point.
    pub fn fork(&mut self, why: &str) -> Result<QueueId, QueueError> {
        self.ask(|reply| Command::Fork(why.to_owned(), reply))
    }

    fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, QueueError>>) -> Command) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        self.commands.blocking_send(command(reply)).map_err(|_| QueueError::Stopped)?;
        answer.blocking_recv().unwrap_or(Err(QueueError::Stopped))
    }

    /// Reads; waits for a segment that another process holds; has a damaged one salvaged, once each.
    fn retried<T>(
        &mut self,
        mut read: impl FnMut(&mut Cursor, &Shared) -> Result<T, Stopped>,
    ) -> Result<T, QueueError> {
        let mut salvaged = None;
        let (mut busy, mut refused) = (0, 0);
        loop {
            let stopped = match read(&mut self.cursor, &self.shared) {
                Ok(value) => return Ok(value),
                Err(stopped) => stopped,
            };
            self.cursor.close();
            let (segment, error) = match stopped {
                Stopped::Fault { segment, error } => (segment, error),
                Stopped::Missing { segment, first, last } => {
                    self.ask(|reply| Command::Missing { segment, first, last, reply })?;
                    continue;
                }
            };
            match error {
                SegmentError::Busy { .. } if busy < BUSY.0 => {
                    busy += 1;
                    std::thread::sleep(BUSY.1);
                }
                ref error if salvaged != Some(segment) && self.cursor.is_wreck(error) => {
                    warn!(%error, "a segment cannot be read");
                    salvaged = Some(segment);
                    self.ask(|reply| Command::Damaged(segment, reply))?;
                }
                // The medium has thought better of it.
                SegmentError::Io { ref source, .. } if is_medium(source) && refused < TRIES.0 => refused += 1,
                // Unlinked between looking it up and opening it: the next look finds it gone.
                SegmentError::Io { ref source, .. }
                    if source.kind() == std::io::ErrorKind::NotFound && busy < BUSY.0 =>
                {
                    busy += 1;
                    let gone = !self.shared.state().segments.contains(&segment);
                    if !gone {
                        return Err(error.into());
                    }
                }
                error => return Err(error.into()),
            }
        }
    }
}

fn received_ms(body: &Body) -> i64 {
    match body {
        Body::Reading(reading) => reading.received.wall_ms,
        Body::Dead(dead) => dead.received.wall_ms,
        Body::Gap(gap) => gap.noticed.wall_ms,
        Body::Daily(daily) => daily.noticed.wall_ms,
    }
}
