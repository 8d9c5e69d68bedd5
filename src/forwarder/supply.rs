//! Short reads from the queue: what is waiting, in chunks, with the dead letters put away, the holes named, and the daily
//! receipts filled in.

use std::collections::BTreeMap;

use crate::daily::{Ledger, date_of};
use crate::forwarder::batch::Allowance;
use crate::forwarder::record::{Missing, Record, Recorder};
use crate::forwarder::{Backlog, BacklogError};
use crate::reading::{Body, Daily, Dead, DeadLetter, Entry, Gap, Reading, Received};

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

    /// The daily receipt that it ends with: its sequence, and the day.
    pub fn receipt(&self) -> Option<(u64, i32)> {
        match self.entries.last() {
            Some(Entry { sequence, body: Body::Daily(daily), .. }) => Some((*sequence, daily.day)),
            _ => None,
        }
    }

    /// Bytes of its records in the queue.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.size).sum()
    }
}

/// What is known of records that cannot be sent as they are; but for the ledger forgotten at a restart, and then found
/// out again.
#[derive(Debug)]
pub struct Supply {
    /// Everything below was looked at for dead letters.
    looked_until: u64,
    /// Readings that Kafka refused, with its reason: set aside, a gap record goes in their stead. Receipts among them are
    /// sent without their list of gaps.
    condemned: BTreeMap<u64, String>,
    /// What the next daily receipt says. On disk before a transaction begins that has what stands in it.
    ledger: Ledger,
}

impl Supply {
    /// `ledger` is what the queue has kept of it.
    pub fn new(ledger: Ledger) -> Self {
        Self { looked_until: 0, condemned: BTreeMap::new(), ledger }
    }

    /// Reads what waits from `from` on, within `allowance`. None where nothing waits. A daily receipt ends a chunk: what it
    /// says is known when all before it was handed out.
    pub fn read(
        &mut self,
        backlog: &mut dyn Backlog,
        from: u64,
        allowance: Allowance,
    ) -> Result<Option<Chunk>, BacklogError> {
        let count = allowance.records.clamp(1, CHUNK.records);
        let bytes = allowance.bytes.clamp(1, CHUNK.bytes);
        let mut entries = backlog.read(from, count, bytes)?;
        if let Some(receipt) = entries.iter().position(|entry| matches!(entry.body, Body::Daily(_))) {
            entries.truncate(receipt + 1);
        }
        Ok((!entries.is_empty()).then_some(Chunk { from, entries }))
    }

    /// Whether `chunk` has something for the disk, dead letters or news for the ledger: that takes its time, and is not done
    /// while a transaction is open.
    pub fn wants_disk(&self, chunk: &Chunk) -> bool {
        let dead = |entry: &Entry| entry.sequence >= self.looked_until && matches!(entry.body, Body::Dead(_));
        let mut expected = chunk.from;
        chunk.entries.iter().any(|entry| {
            let missing = self.missing(expected, entry);
            expected = entry.sequence + 1;
            dead(entry)
                || missing.iter().flatten().any(|missing| !self.ledger.explains(missing.first, missing.last))
                || (missing[1].is_none() && self.ledger.closes(entry.sequence))
        })
    }

    /// Puts the dead letters of `chunk` away and what is missing into the ledger; all is on disk when it returns.
    pub fn put_away(
        &mut self,
        backlog: &mut dyn Backlog,
        chunk: &Chunk,
        now: &Received,
        heartbeat: &dyn Fn(),
    ) -> Result<(), BacklogError> {
        let queue_id = backlog.queue_id();
        let letter = |entry: &Entry| match &entry.body {
            Body::Dead(dead) if entry.sequence >= self.looked_until => Some(DeadLetter {
                queue_id,
                sequence: entry.sequence,
                reason: dead.reason.clone(),
                set_aside: *now,
                body: entry.body.clone(),
            }),
            _ => None,
        };
        // All at once: what a transaction of the dead letters costs does not depend on how many there are in it.
        let letters: Vec<DeadLetter> = chunk.entries.iter().filter_map(letter).collect();
        if !letters.is_empty() {
            backlog.set_aside(letters)?;
            heartbeat();
        }
        self.looked_until = self.looked_until.max(chunk.end());
        let news = self.account(chunk) | self.close_gaps(chunk);
        if news { backlog.keep(&self.ledger) } else { Ok(()) }
    }

    /// Enters what is missing in `chunk` into the ledger. True if that was news.
    fn account(&mut self, chunk: &Chunk) -> bool {
        let (mut news, mut expected) = (false, chunk.from);
        for entry in &chunk.entries {
            let missing = self.missing(expected, entry);
            for Missing { first, last, reason, .. } in missing.iter().flatten() {
                news |= self.ledger.explain(*first, *last, reason);
            }
            expected = entry.sequence + 1;
        }
        news
    }

    /// Takes out of the ledger what was refused once and goes now. True if there was any.
    fn close_gaps(&mut self, chunk: &Chunk) -> bool {
        let goes =
            |entry: &&Entry| matches!(entry.body, Body::Reading(_)) && !self.condemned.contains_key(&entry.sequence);
        let going: Vec<u64> = chunk.entries.iter().filter(goes).map(|entry| entry.sequence).collect();
        going.into_iter().fold(false, |news, sequence| news | self.ledger.present(sequence))
    }

    /// What was sent from `from` up to `next` without this process knowing that Kafka has it goes into the ledger. Readings
    /// that were refused are there already: that was on disk before their gap record was sent.
    pub fn catch_up(
        &mut self,
        backlog: &mut dyn Backlog,
        mut from: u64,
        next: u64,
        heartbeat: &dyn Fn(),
    ) -> Result<(), BacklogError> {
        let mut news = false;
        while let Some(mut chunk) = self.read(backlog, from, CHUNK)? {
            heartbeat();
            chunk.entries.retain(|entry| entry.sequence < next);
            if chunk.entries.is_empty() {
                break;
            }
            from = chunk.end();
            news |= self.account(&chunk);
            if let Some((sequence, day)) = chunk.receipt() {
                news |= self.ledger.sent(date_of(day), sequence);
            }
        }
        if news { backlog.keep(&self.ledger) } else { Ok(()) }
    }

    /// Kafka has the receipt at `sequence`; to be called before its release.
    pub fn receipt_sent(&mut self, backlog: &mut dyn Backlog, sequence: u64, day: i32) -> Result<(), BacklogError> {
        if self.ledger.sent(date_of(day), sequence) { backlog.keep(&self.ledger) } else { Ok(()) }
    }

    /// The queue id is a new one, whose first sequence this is.
    pub fn forked(&mut self, first: u64) {
        self.ledger = Ledger::new(first);
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
        if self.condemned.contains_key(&sequence) {
            return Ok(None);
        }
        match entry.body {
            Body::Reading(_) => {}
            Body::Daily(_) => {
                self.condemned.insert(sequence, reason.to_owned());
                return Ok(None);
            }
            Body::Dead(_) | Body::Gap(_) => return Ok(None),
        }
        backlog.set_aside(vec![DeadLetter {
            queue_id: backlog.queue_id(),
            sequence,
            reason: reason.to_owned(),
            set_aside: *now,
            body: entry.body.clone(),
        }])?;
        self.condemned.insert(sequence, reason.to_owned());
        Ok(Some(sequence))
    }

    /// Everything below `next` is in Kafka.
    pub fn released(&mut self, next: u64) {
        self.condemned = self.condemned.split_off(&next);
    }

    /// Hands the records of one entry to `take`, and whether they only explain: the one that explains missing sequences before it, if there are any, and its own.
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
        let [before, own, _] = self.missing(expected, &entry);
        if let Some(missing) = before {
            take(recorder.gap(expected, &missing, now, now), true)?;
        }
        match (entry.body, own) {
            (Body::Reading(reading), None) => take(recorder.reading(sequence, reading, now), false),
            (Body::Daily(Daily { day, noticed }), _) => {
                let receipt = self.ledger.receipt(date_of(day), sequence);
                let refused = self.condemned.contains_key(&sequence);
                let receipt = if refused { receipt.without_list() } else { receipt };
                take(recorder.receipt(sequence, &receipt, &noticed, now), refused)
            }
            (
                Body::Reading(Reading { received: noticed, .. }) | Body::Dead(Dead { received: noticed, .. }),
                Some(missing),
            )
            | (Body::Gap(Gap { noticed, .. }), Some(missing)) => {
                take(recorder.gap(sequence, &missing, &noticed, now), true)
            }
            (Body::Dead(_) | Body::Gap(_), None) => Ok(()),
        }
    }

    /// The sequences missing before `entry`, where `expected` should have come; those that it explains itself; and its own,
    /// where that is another one.
    fn missing(&self, expected: u64, entry: &Entry) -> [Option<Missing>; 3] {
        let one = |reason: &str| Some(Missing::new(entry.sequence, entry.sequence, reason));
        let own = match &entry.body {
            Body::Reading(_) => self.condemned.get(&entry.sequence).and_then(|reason| one(reason)),
            Body::Dead(dead) => one(&dead.reason),
            Body::Gap(gap) => Some(Missing::new(gap.first, gap.last, &gap.reason)),
            Body::Daily(_) => None,
        };
        let itself = match &entry.body {
            Body::Gap(gap) if !(gap.first..=gap.last).contains(&entry.sequence) => one(&gap.reason),
            _ => None,
        };
        [hole(expected, entry), own, itself]
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
