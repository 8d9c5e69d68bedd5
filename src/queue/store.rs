//! The folder's one owner: appends, seals, unlinks, forks. Synchronous; the writer thread holds it and brings the time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{error, info, warn};

use super::block::Batch;
use super::day::{self, Turn};
use super::dead_letter::DeadLetters;
use super::error::QueueError;
use super::folder::Folder;
use super::identity::{self, FORMAT, Identity, Lost};
use super::letters::LetterId;
use super::limit::{Limit, NoRoom};
use super::record::{self, Content, Stored, WINDOW_KEY, Window};
use super::release;
use super::salvage;
use super::segment::{self, Active};
use super::shared::Shared;
use crate::clock::Clock;
use crate::daily::Ledger;
use crate::metrics::Metrics;
use crate::reading::{Body, Daily, DeadLetter, Mark, QueueId};

/// Further than any segment can hold: where sequences go on when it is not known how far a damaged segment reached.
pub(super) const JUMP: u64 = 1 << 32;

pub(super) struct Store {
    pub(super) folder: Folder,
    pub(super) identity: Identity,
    pub(super) hardware_serial: Option<String>,
    /// None while the newest segment cannot be opened for writing (a full disk).
    pub(super) active: Option<Active>,
    /// Of the newest segment, open or not.
    pub(super) newest: u64,
    /// The next sequence that will be given out.
    pub(super) next: u64,
    pub(super) release_point: u64,
    pub(super) released_on_disk: u64,
    pub(super) marks: BTreeMap<String, VecDeque<Mark>>,
    pub(super) window: Capacity,
    pub(super) segment_size: u64,
    pub(super) limit: Limit,
    /// Bytes of everything in the folder but the active segment.
    pub(super) at_rest: u64,
    pub(super) dead_letters: DeadLetters,
    pub(super) dead_letters_max_age: Option<Duration>,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// The day whose receipt comes next. On disk with the commit that has the receipt before it.
    pub(super) open_day: Option<i32>,
}

impl Store {
    /// Gives `body` its sequence and adds it to `batch`; not on disk yet. The mark joins the window of its source.
    pub fn prepare(&mut self, batch: &mut Batch, body: Body, source: &str, mark: Mark) -> Result<(), QueueError> {
        self.prepare_own(batch, body)?;
        remember(&mut self.marks, source, mark, &self.window);
        Ok(())
    }

    /// [`Store::prepare`] for what comes from no source.
    pub fn prepare_own(&mut self, batch: &mut Batch, body: Body) -> Result<(), QueueError> {
        let stored = Stored { release_point: self.release_point, content: Content::Record(body) };
        batch.push(self.identity.origin, self.next, &stored).map_err(|error| self.unencoded(&error))?;
        self.next += 1;
        Ok(())
    }

    /// The place for a day's receipt, if the day is over: to be committed with what waits, and only once.
    pub fn day_over(&mut self) -> Option<Body> {
        let noticed = self.clock.now();
        match day::turn(self.open_day, &noticed) {
            Turn::Stay => None,
            Turn::Open(open) => {
                self.open_day = Some(open);
                None
            }
            Turn::Over { day, open } => {
                self.open_day = Some(open);
                Some(Body::Daily(Daily { day, noticed }))
            }
        }
    }

    /// Puts the open day on disk, after a commit: all receipts before it are there. A start that does not find it here finds
    /// the receipt in the newest segment.
    pub fn keep_open_day(&mut self) -> Result<(), QueueError> {
        let daily = self.identity.daily.get_or_insert_default();
        if daily.open_day == self.open_day {
            return Ok(());
        }
        daily.open_day = self.open_day;
        self.write_identity()
    }

    /// A receipt of `day` is in the queue: should the day still be open, a crash came in between.
    pub(super) fn know_receipt(&mut self, day: Option<i32>) {
        if day.is_some() && self.open_day <= day {
            self.open_day = None;
        }
    }

    /// What the next receipt says.
    pub fn ledger(&self) -> Ledger {
        let kept = self.identity.daily.as_ref().map(|daily| daily.ledger.clone());
        kept.unwrap_or_else(|| Ledger::new(self.release_point))
    }

    /// A queue that has kept no ledger yet begins it now.
    pub(super) fn begin_ledger(&mut self) {
        if self.identity.daily.is_some() {
            return;
        }
        self.identity.daily = Some(identity::Daily { open_day: self.open_day, ledger: self.ledger() });
        if let Err(error) = self.write_identity() {
            warn!(%error, "what the daily receipt says cannot be put on disk, will retry");
        }
    }

    /// Keeps what the next receipt says. Durable when it returns.
    pub fn keep_ledger(&mut self, ledger: Ledger) -> Result<(), QueueError> {
        self.identity.daily.get_or_insert_default().ledger = ledger;
        self.write_identity()
    }

    /// Why `bytes` more have no room, if so.
    pub fn room(&self, bytes: u64) -> Result<Result<(), NoRoom>, QueueError> {
        let free =
            self.folder.free().map_err(|source| QueueError::Write { path: self.folder.path().to_owned(), source })?;
        let active = self.active.as_ref().map_or(0, Active::size);
        let used = self.at_rest + active;
        self.metrics.queue.disk_bytes.set(used);
        Ok(self.limit.allows(used, active, free, bytes))
    }

    /// Appends in one transaction; when this returns, the records are on disk and readers see them.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), QueueError> {
        let Some(last) = batch.last() else { return Ok(()) };
        self.ensure_format()?;
        self.ensure_active()?;
        let Some(active) = &self.active else { return Err(QueueError::Stopped) };
        let appended = active.append(batch.blocks());
        if let Err(error) = appended {
            // After a failed write redb refuses everything: it is opened anew at the next attempt.
            self.active = None;
            return Err(error.into());
        }
        let end = last + 1;
        self.shared.change(|state| state.end = end);
        let queue = &self.metrics.queue;
        queue.commits.one();
        queue.stored.add(batch.len() as u64);
        queue.stored_bytes.add(batch.size() as u64);
        queue.next_sequence.set(end);
        Ok(())
    }

    /// Begins a new segment if the active one has reached its size. The records before it are safe whatever happens.
    pub fn roll_if_due(&mut self) -> Result<(), QueueError> {
        match &self.active {
            Some(active) if active.size() >= self.segment_size => self.roll(),
            _ => Ok(()),
        }
    }

    /// Seals the active segment and begins a new one.
    fn roll(&mut self) -> Result<(), QueueError> {
        if let Some(active) = self.active.take() {
            active.seal()?;
        }
        self.begin_segment()?;
        self.unlink_released()
    }

    pub(super) fn begin_segment(&mut self) -> Result<(), QueueError> {
        // A batch may be waiting: its sequences are given out, and the first of them goes into the new segment.
        let first = self.shared.state().end.max(self.newest + 1);
        let window = Window {
            origin: self.identity.origin,
            made: self.clock.now(),
            marks: self.marks.iter().map(|(source, marks)| (source.clone(), marks.iter().copied().collect())).collect(),
        };
        let stored = Stored { release_point: self.release_point, content: Content::Window(window) };
        let bytes = self.encode(WINDOW_KEY, &stored)?;
        self.active = Some(Active::create(&self.folder, first, std::iter::once((WINDOW_KEY, bytes)))?);
        self.newest = first;
        self.shared.change(|state| {
            state.segments.insert(first);
            state.end = state.end.max(first);
        });
        self.next = self.next.max(first);
        self.measure();
        Ok(())
    }

    /// An older release must not take what is written from now on for damage.
    fn ensure_format(&mut self) -> Result<(), QueueError> {
        if self.identity.format < FORMAT {
            let before = std::mem::replace(&mut self.identity.format, FORMAT);
            self.write_identity().inspect_err(|_| self.identity.format = before)?;
            info!(before, now = FORMAT, "the queue's format was raised: an older meterferry refuses it from now on");
        }
        Ok(())
    }

    fn ensure_active(&mut self) -> Result<(), QueueError> {
        if self.active.is_some() {
            return Ok(());
        }
        // Damage of the newest segment ends the agent here: the next start salvages it before any sequence is given out.
        self.active = Some(Active::open(&self.folder, self.newest)?);
        self.measure();
        self.roll_if_due()
    }

    /// Everything below `next` is in Kafka. True if that made room.
    pub fn release(&mut self, next: u64) -> Result<bool, QueueError> {
        if next <= self.release_point {
            return Ok(false);
        }
        self.release_point = next.min(self.shared.state().end);
        let release_point = self.release_point;
        self.shared.change(|state| {
            state.release_point = state.release_point.max(release_point);
            state.lost.retain(|lost| lost.last >= release_point);
        });
        self.metrics.queue.release_point.set(release_point);
        let before = self.at_rest;
        self.unlink_released()?;
        Ok(self.at_rest < before)
    }

    /// Makes room where only the active segment is left to give: seals it, so that it can be unlinked next.
    pub fn give_way(&mut self) -> Result<(), QueueError> {
        let state = self.shared.state().clone();
        let emptied = state.release_point >= state.end && self.newest < state.end;
        if emptied && self.active.as_ref().is_some_and(|active| active.size() > self.segment_size / 4) {
            self.roll()?;
        }
        Ok(())
    }

    /// Unlinks the segments that hold nothing but released records. The one before the active stays until the next
    /// roll: its last record is what Kafka's resume point is compared with.
    fn unlink_released(&mut self) -> Result<(), QueueError> {
        let segments: Vec<u64> = self.shared.state().segments.iter().copied().collect();
        let mut gone = Vec::new();
        for pair in segments.windows(3) {
            if pair[1] > self.release_point {
                break;
            }
            gone.push(pair[0]);
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.write_released()?;
        for first in gone {
            let path = segment::path(&self.folder, first);
            self.folder.remove_if_there(&path).map_err(|source| QueueError::Write { path, source })?;
            self.shared.change(|state| {
                state.segments.remove(&first);
            });
        }
        self.measure();
        Ok(())
    }

    /// Keeps the release point for when no record carries it. Durable when it returns.
    pub fn write_released(&mut self) -> Result<(), QueueError> {
        if self.released_on_disk == self.release_point {
            return Ok(());
        }
        release::write(&self.folder, self.identity.origin, self.release_point)
            .map_err(|source| QueueError::Write { path: self.folder.file(release::FILE), source })?;
        self.released_on_disk = self.release_point;
        if self.identity.lost.iter().any(|lost| lost.last < self.release_point) {
            let release_point = self.release_point;
            self.identity.lost.retain(|lost| lost.last >= release_point);
            // Only for tidiness: a range below the release point is never asked for.
            match self.write_identity() {
                Err(error) if !error.is_full() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts a dead letter away, durably.
    pub fn set_aside(&mut self, letter: &DeadLetter) -> Result<(), QueueError> {
        let deleted = self.dead_letters.put(letter)?;
        if deleted > 0 {
            self.metrics.queue.dead_letters_deleted.add(deleted);
            error!(deleted, "the dead letters have reached their limit, the oldest were deleted");
        }
        self.metrics.queue.dead_letters.set(self.dead_letters.count().unwrap_or_default());
        self.measure();
        Ok(())
    }

    /// Deletes dead letters that were put back into the queue.
    pub fn delete_letters(&mut self, ids: &[LetterId]) -> Result<(), QueueError> {
        self.dead_letters.remove(ids)?;
        self.metrics.queue.dead_letters.set(self.dead_letters.count().unwrap_or_default());
        Ok(())
    }

    /// Deletes the dead letters that are older than they may get. Not while the clock may be wrong: it would delete all.
    pub fn expire_letters(&mut self) {
        let now = self.clock.now();
        let Some(limit) = self.dead_letters_max_age.filter(|_| now.synchronised) else { return };
        let cut_ms = now.wall_ms.saturating_sub(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        let removed = self.dead_letters.older_than(cut_ms).and_then(|ids| self.dead_letters.remove(&ids));
        match removed {
            Ok(0) => {}
            Ok(deleted) => {
                self.metrics.queue.dead_letters_deleted.add(deleted);
                self.metrics.queue.dead_letters.set(self.dead_letters.count().unwrap_or_default());
                info!(deleted, "dead letters older than queue.dead_letters_max_age were deleted");
            }
            // Nothing hangs on it: the next time may do better.
            Err(error) => warn!(%error, "old dead letters cannot be deleted, will retry"),
        }
    }

    /// Gives the queue a new id; sequences go on.
    pub fn fork(&mut self, why: &str) -> Result<QueueId, QueueError> {
        let old = self.identity.queue_id();
        self.identity.queue_id = rand::random();
        self.identity.hardware_serial.clone_from(&self.hardware_serial);
        self.identity.daily.get_or_insert_default().ledger = Ledger::new(self.shared.state().release_point.max(1));
        self.write_identity()?;
        let queue_id = self.identity.queue_id();
        warn!(%old, new = %queue_id, why, "the queue was forked: it goes on under a new queue id");
        self.shared.change(|state| {
            state.queue_id = queue_id;
            state.moved = false;
        });
        Ok(queue_id)
    }

    /// Remembers which filters a source is subscribed to.
    pub fn remember_filters(&mut self, source: &str, filters: Vec<String>) -> Result<(), QueueError> {
        if self.identity.filters.get(source) != Some(&filters) {
            self.identity.filters.insert(source.to_owned(), filters);
            self.write_identity()?;
        }
        Ok(())
    }

    /// Replaces a damaged segment by what can be read of it, and says what is lost. The newest segment only while
    /// nothing waits for its commit: sequences jump behind it.
    pub fn salvage(&mut self, first: u64) -> Result<(), QueueError> {
        let state = self.shared.state().clone();
        let is_newest = first == self.newest;
        let until = if is_newest { u64::MAX } else { state.segment_of(first).1.max(first + 1) };
        if is_newest {
            self.active = None;
        }
        let salvaged = salvage::salvage(&self.folder, first, until, self.identity.origin, Timestamp::now())?;
        let known_end = if is_newest {
            let last = salvaged.sequences.last().map_or(first, |last| last + 1);
            last.max(state.end).max(self.next)
        } else {
            until
        };
        let resume = if is_newest { known_end + JUMP } else { until };
        let lost = holes(first, resume, &salvaged.sequences);
        self.report_loss(&lost, known_end, salvaged.sequences.len(), &salvaged.set_aside);
        self.identity.lost.extend(lost);
        self.write_identity()?;
        let all_lost = self.identity.lost.clone();
        self.shared.change(|state| state.lost = all_lost);
        if is_newest {
            self.next = resume;
            self.shared.change(|state| state.end = resume);
            self.begin_segment()?;
        }
        self.measure();
        Ok(())
    }

    fn report_loss(&self, lost: &[Lost], known_end: u64, kept: usize, set_aside: &std::path::Path) {
        let count: u64 = lost.iter().map(|range| range.last.min(known_end - 1).saturating_sub(range.first) + 1).sum();
        self.metrics.queue.lost.add(count);
        let ranges = lost.iter().map(|range| format!("{}-{}", range.first, range.last)).collect::<Vec<_>>().join(", ");
        error!(kept, set_aside = %set_aside.display(), lost = %ranges, "a damaged segment was salvaged; the lost sequences are reported to Kafka as gaps");
    }

    /// The orderly end: the release point on disk, the active segment closed.
    pub fn close(mut self) -> Result<(), QueueError> {
        self.write_released()?;
        if let Some(active) = self.active.take() {
            active.seal()?;
        }
        info!(next_sequence = self.next, release_point = self.release_point, "queue closed");
        Ok(())
    }

    fn encode(&self, sequence: u64, stored: &Stored) -> Result<Vec<u8>, QueueError> {
        record::encode(self.identity.origin, sequence, stored).map_err(|error| self.unencoded(&error))
    }

    fn unencoded(&self, error: &postcard::Error) -> QueueError {
        QueueError::Write { path: self.folder.path().to_owned(), source: std::io::Error::other(error.to_string()) }
    }

    pub(super) fn write_identity(&self) -> Result<(), QueueError> {
        self.identity
            .write(&self.folder)
            .map_err(|source| QueueError::Write { path: self.folder.file(super::identity::FILE), source })
    }

    /// Counts the folder's bytes and segments anew, as after files came or went.
    pub(super) fn measure(&mut self) {
        let used = self.folder.used().unwrap_or(self.at_rest);
        let active = self.folder.disk.size(&segment::path(&self.folder, self.newest)).unwrap_or(0);
        self.at_rest = used.saturating_sub(if self.active.is_some() { active } else { 0 });
        self.metrics.queue.disk_bytes.set(used);
        self.metrics.queue.segments.set(self.shared.state().segments.len() as u64);
    }
}

/// How many marks are kept of each source.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    pub of: BTreeMap<String, usize>,
    pub otherwise: usize,
}

/// Adds to a source's window, which keeps the newest.
pub(super) fn remember(marks: &mut BTreeMap<String, VecDeque<Mark>>, source: &str, mark: Mark, capacity: &Capacity) {
    let capacity = capacity.of.get(source).copied().unwrap_or(capacity.otherwise);
    if !marks.contains_key(source) {
        marks.insert(source.to_owned(), VecDeque::new());
    }
    if let Some(window) = marks.get_mut(source) {
        window.push_back(mark);
        while window.len() > capacity {
            window.pop_front();
        }
    }
}

/// The ranges within `first..end` that `present` (rising) does not cover.
pub(super) fn holes(first: u64, end: u64, present: &[u64]) -> Vec<Lost> {
    let mut holes = Vec::new();
    let mut next = first;
    for sequence in present.iter().copied().chain(std::iter::once(end)) {
        if sequence > next {
            holes.push(Lost { first: next, last: sequence - 1, reason: "damaged on the disk".to_owned() });
        }
        next = sequence + 1;
    }
    holes
}
