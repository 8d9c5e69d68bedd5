//! The queue's outlet as the forwarder sees it.

use std::time::Duration;

use crate::daily::Ledger;
use crate::forwarder::{Backlog, BacklogError};
use crate::queue::{Outlet, QueueError};
use crate::reading::{DeadLetter, Entry, Fingerprint, QueueId};
use crate::shutdown::Shutdown;

/// How long a full disk is given before a dead letter is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// The outlet, and what ends a wait for room on a full disk.
pub struct QueueBacklog {
    pub outlet: Outlet,
    pub shutdown: Shutdown,
}

impl Backlog for QueueBacklog {
    fn queue_id(&self) -> QueueId {
        self.outlet.queue_id()
    }

    fn release_point(&self) -> u64 {
        self.outlet.release_point()
    }

    fn end(&self) -> u64 {
        self.outlet.end()
    }

    fn read(&mut self, from: u64, count: usize, bytes: usize) -> Result<Vec<Entry>, BacklogError> {
        self.outlet.read(from, count, bytes).map_err(unusable)
    }

    fn fingerprint(&mut self, sequence: u64) -> Result<Option<Fingerprint>, BacklogError> {
        self.outlet.fingerprint(sequence).map_err(unusable)
    }

    fn wait(&self, sequence: u64, limit: Duration) -> bool {
        self.outlet.wait(sequence, limit)
    }

    fn release(&mut self, next: u64) -> Result<(), BacklogError> {
        self.outlet.release(next).map_err(unusable)
    }

    /// On a full disk it waits for room: a letter's only copy is the record that must not be released before.
    fn set_aside(&mut self, letters: Vec<DeadLetter>) -> Result<(), BacklogError> {
        loop {
            match self.outlet.set_aside(letters.clone()) {
                Err(error) if error.is_full() && !self.shutdown.is_asked() => {
                    tracing::warn!(%error, "no room for dead letters, will retry");
                    std::thread::sleep(FULL_RETRY);
                }
                result => return result.map_err(unusable),
            }
        }
    }

    fn ledger(&self) -> Ledger {
        self.outlet.ledger()
    }

    fn keep(&mut self, ledger: &Ledger) -> Result<(), BacklogError> {
        match self.outlet.keep(ledger) {
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "no room to keep what the daily receipt says; after a crash it may count too many readings");
                Ok(())
            }
            result => result.map_err(unusable),
        }
    }

    fn fork(&mut self, why: &str) -> Result<QueueId, BacklogError> {
        self.outlet.fork(why).map_err(unusable)
    }

    fn moved(&self) -> bool {
        self.outlet.moved()
    }
}

/// With its causes: the forwarder's error ends the agent, and is printed once.
fn unusable(error: QueueError) -> BacklogError {
    BacklogError(crate::cli::chain(&error))
}
