//! A queue in memory, for the forwarder's tests. It outlives the forwarder, as the disk does.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

use crate::daily::Ledger;
use crate::forwarder::{Backlog, BacklogError};
use crate::reading::{Body, Daily, Dead, DeadLetter, Entry, Fingerprint, Gap, Kind, QueueId, Reading, Received};

/// What stands on the fake disk.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub queue_id: u128,
    pub entries: BTreeMap<u64, Entry>,
    pub next: u64,
    pub released: u64,
    pub letters: BTreeMap<(QueueId, u64), DeadLetter>,
    /// How often letters were put away, however many at once.
    pub set_asides: u64,
    pub forks: u32,
    pub moved: bool,
    pub ledger: Ledger,
}

/// A handle of it.
#[derive(Clone)]
pub struct FakeBacklog(Arc<(Mutex<Disk>, Condvar)>);

impl FakeBacklog {
    pub fn new(queue_id: u128) -> Self {
        let disk = Disk { queue_id, next: 1, released: 1, ledger: Ledger::new(1), ..Disk::default() };
        Self(Arc::new((Mutex::new(disk), Condvar::new())))
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.0.lock().unwrap()
    }

    /// Another disk with the same content: a clone, or an image to restore.
    pub fn image(&self) -> Self {
        Self(Arc::new((Mutex::new(self.disk().clone()), Condvar::new())))
    }

    pub fn append(&self, body: Body) -> u64 {
        let mut disk = self.disk();
        let (sequence, size) = (disk.next, size(&body));
        disk.entries.insert(sequence, Entry { sequence, size, body });
        disk.next += 1;
        self.0.1.notify_all();
        sequence
    }

    pub fn reading(&self, device: &str, payload: impl Into<Bytes>, received: Received) -> u64 {
        self.append(Body::Reading(Reading {
            source: "meter".into(),
            device: device.into(),
            topic: "sma".into(),
            sender: String::new(),
            packet_id: None,
            received,
            measured_ms: None,
            self_identified: false,
            json: true,
            kind: Kind::default(),
            marks: Vec::new(),
            payload: payload.into(),
        }))
    }

    pub fn dead(&self, payload: impl Into<Bytes>, received: Received) -> u64 {
        self.append(Body::Dead(Dead {
            source: "meter".into(),
            topic: "sma".into(),
            sender: String::new(),
            packet_id: None,
            received,
            reason: "not a document".into(),
            marks: Vec::new(),
            payload: payload.into(),
        }))
    }

    /// `lost` sequences are jumped over and explained by a gap record of the queue's own.
    pub fn gap(&self, lost: u64, received: Received) -> u64 {
        let first = self.disk().next;
        self.disk().next += lost;
        self.append(Body::Gap(Gap { first, last: first + lost - 1, reason: "damage".into(), noticed: received }))
    }

    /// The place of a daily receipt.
    pub fn day_over(&self, day: i32, noticed: Received) -> u64 {
        self.append(Body::Daily(Daily { day, noticed }))
    }
}

fn size(body: &Body) -> usize {
    match body {
        Body::Reading(reading) => reading.payload.len() + 100,
        Body::Dead(dead) => dead.payload.len() + 100,
        Body::Gap(_) | Body::Daily(_) => 100,
    }
}

impl Backlog for FakeBacklog {
    fn queue_id(&self) -> QueueId {
        QueueId(self.disk().queue_id)
    }

    fn release_point(&self) -> u64 {
        self.disk().released
    }

    fn end(&self) -> u64 {
        self.disk().entries.last_key_value().map_or(1, |(sequence, _)| sequence + 1)
    }

    fn read(&mut self, from: u64, count: usize, bytes: usize) -> Result<Vec<Entry>, BacklogError> {
        let mut left = bytes;
        let disk = self.disk();
        let fits = |entry: &&Entry| {
            let fits = left == bytes || entry.size <= left;
            left = left.saturating_sub(entry.size);
            fits
        };
        Ok(disk.entries.range(from..).map(|(_, entry)| entry).take(count).take_while(fits).cloned().collect())
    }

    fn fingerprint(&mut self, sequence: u64) -> Result<Option<Fingerprint>, BacklogError> {
        let print = |entry: &Entry| Fingerprint::of(&[&sequence.to_le_bytes(), format!("{:?}", entry.body).as_bytes()]);
        Ok(self.disk().entries.get(&sequence).map(print))
    }

    fn wait(&self, sequence: u64, limit: Duration) -> bool {
        let end = |disk: &Disk| disk.entries.last_key_value().map_or(1, |(last, _)| last + 1);
        let waited = self.0.1.wait_timeout_while(self.disk(), limit, |disk| end(disk) <= sequence).unwrap();
        end(&waited.0) > sequence
    }

    fn release(&mut self, next: u64) -> Result<(), BacklogError> {
        let mut disk = self.disk();
        assert!(next >= disk.released, "the release point went back");
        disk.released = next;
        Ok(())
    }

    fn set_aside(&mut self, letters: Vec<DeadLetter>) -> Result<(), BacklogError> {
        let mut disk = self.disk();
        disk.set_asides += 1;
        for letter in letters {
            assert!(letter.sequence >= disk.released, "set aside after its release");
            disk.letters.insert((letter.queue_id, letter.sequence), letter);
        }
        Ok(())
    }

    fn ledger(&self) -> Ledger {
        self.disk().ledger.clone()
    }

    fn keep(&mut self, ledger: &Ledger) -> Result<(), BacklogError> {
        self.disk().ledger = ledger.clone();
        Ok(())
    }

    fn fork(&mut self, _why: &str) -> Result<QueueId, BacklogError> {
        let mut disk = self.disk();
        disk.forks += 1;
        disk.queue_id =
            disk.queue_id.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u128::from(disk.forks) + disk.next as u128);
        disk.moved = false;
        disk.ledger = Ledger::new(disk.released);
        Ok(QueueId(disk.queue_id))
    }

    fn moved(&self) -> bool {
        self.disk().moved
    }
}
