//! The folder's one owner: appends, seals, unlinks, forks. Synchronous; the writer thread holds it and brings the time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::block::Batch;
use super::day::{self, Turn};
use super::dead_letter::{DeadLetters, Put};
use super::diary;
use super::error::QueueError;
use super::folder::Folder;
use super::identity::{self, FORMAT, Identity};
use super::letters::LetterId;
use super::limit::{Limit, NoRoom};
use super::record::{self, Content, Stored, WINDOW_KEY, Window};
use super::release;
use super::reserve;
use super::room::Room;
use super::salvage::{self, Wreck};
use super::segment::{self, Active, Reader, SegmentError};
use super::shared::Shared;
use crate::clock::Clock;
use crate::daily::Ledger;
use crate::metrics::Metrics;
use crate::reading::{Body, Daily, DeadLetter, Mark, QueueId, Received};

pub(super) struct Store {
    pub(super) folder: Folder,
    pub(super) identity: Identity,
    pub(super) hardware_serial: Option<String>,
    /// None while the newest segment cannot be opened for writing (a full disk).
    pub(super) active: Option<Active>,
    /// Of the newest segment, open or not.
    pub(super) newest: u64,
    /// Whether the names of the segments are certainly on the medium.
    pub(super) named: bool,
    /// Of a segment whose creation failed, and of which a file may be left.
    pub(super) stray: Option<u64>,
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
    pub(super) room: Room,
    /// What this run and those before have written.
    pub(super) wear: diary::Diary,
    /// The run before did not end in order.
    pub(super) cut_short: bool,
    /// When the newest record was received.
    pub(super) newest_received: Option<Received>,
    /// The day whose receipt comes next. On disk with the commit that has the receipt before it.
    pub(super) open_day: Option<i32>,
}

impl Store {
    /// Gives `body` its sequence and adds it to `batch`; not on disk yet. Its marks join the window of its source when it
    /// is: a mark without its record would have a redelivery taken for stored.
    pub fn prepare(
        &mut self,
        batch: &mut Batch,
        body: Body,
        source: &Arc<str>,
        marks: &[Mark],
    ) -> Result<(), QueueError> {
        self.prepare_own(batch, body)?;
        marks.iter().for_each(|mark| batch.remember(Arc::clone(source), *mark));
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

    /// Keeps the figures of the wear now and then, when the card is written to anyway.
    pub fn keep_wear(&mut self, now: Instant) {
        if self.wear.is_due(now) {
            self.wear.keep(&self.folder, self.metrics.queue.stored.get(), &self.clock.now());
        }
    }

    /// Why `bytes` more have no room, if so.
    pub fn has_room(&self, bytes: u64) -> Result<Result<(), NoRoom>, QueueError> {
        let free =
            self.folder.free().map_err(|source| QueueError::Write { path: self.folder.path().to_owned(), source })?;
        let active = self.active.as_ref().map_or(Ok(0), Active::size)?;
        let used = self.at_rest + active;
        self.metrics.queue.disk_bytes.set(used);
        Ok(self.limit.allows(used, active, free, bytes))
    }

    /// Appends in one transaction; when this returns, the records are on disk and readers see them.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), QueueError> {
        let Some(last) = batch.last() else { return Ok(()) };
        self.ensure_named()?;
        self.ensure_format()?;
        self.ensure_active()?;
        let Some(active) = &self.active else { return Err(QueueError::Stopped) };
        let appended = active.append(batch.blocks());
        if let Err(error) = appended {
            // After a failed write redb refuses everything: it is opened anew at the next attempt.
            self.abandon();
            return Err(error.into());
        }
        for (source, mark) in batch.marks() {
            remember(&mut self.marks, source, mark, &self.window);
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

    /// Lets go of the active segment, whatever state it is in: over damaged pages, closing it can fail in any way.
    pub(super) fn abandon(&mut self) {
        if let Some(active) = self.active.take() {
            let _ = active.seal();
        }
    }

    /// Begins a new segment if the active one has reached its size. The records before it are safe whatever happens.
    /// One that holds nothing yet stays: a batch may be waiting whose first sequence is its name.
    pub fn roll_if_due(&mut self) -> Result<(), QueueError> {
        let holds_some = self.newest < self.shared.state().end;
        match &self.active {
            Some(active) if holds_some && active.size()? >= self.segment_size => self.roll(),
            _ => Ok(()),
        }
    }

    /// Seals the active segment and begins a new one.
    pub(super) fn roll(&mut self) -> Result<(), QueueError> {
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
        self.stray = Some(first);
        self.active = Some(Active::create(&self.folder, first, std::iter::once((WINDOW_KEY, bytes)))?);
        self.stray = None;
        self.newest = first;
        self.shared.change(|state| {
            state.segments.insert(first);
            state.end = state.end.max(first);
        });
        self.next = self.next.max(first);
        self.measure();
        match self.change_identity(|identity| identity.newest = first) {
            Err(error) if error.is_full() => {
                warn!(%error, "the newest segment is not noted: if its file went missing, nobody would know");
                Ok(())
            }
            result => result,
        }
    }

    /// An older release must not take what is written from now on for damage.
    pub(super) fn ensure_format(&mut self) -> Result<(), QueueError> {
        if self.identity.format < FORMAT {
            let before = self.identity.format;
            self.change_identity(|identity| identity.format = FORMAT)?;
            info!(before, now = FORMAT, "the queue's format was raised: an older meterferry refuses it from now on");
        }
        Ok(())
    }

    /// What is appended to a file is not durable before its name is.
    fn ensure_named(&mut self) -> Result<(), QueueError> {
        if !self.named {
            let synchronised = self.folder.create().and_then(|()| self.folder.sync());
            synchronised.map_err(|source| QueueError::Write { path: self.folder.path().to_owned(), source })?;
            self.named = true;
        }
        Ok(())
    }

    fn ensure_active(&mut self) -> Result<(), QueueError> {
        if self.active.is_some() {
            return Ok(());
        }
        self.remove_stray()?;
        // Damage of the newest segment ends the agent here: the next start salvages it before any sequence is given out.
        self.active = Some(Active::open(&self.folder, self.newest)?);
        self.measure();
        self.roll_if_due()
    }

    /// A start would take what is left of a failed creation for the newest segment, and so not find what is appended to
    /// the one before it.
    fn remove_stray(&mut self) -> Result<(), QueueError> {
        let Some(path) = self.stray.map(|stray| segment::path(&self.folder, stray)) else { return Ok(()) };
        let removed = self.folder.remove_if_there(&path).and_then(|()| self.folder.sync());
        removed.map_err(|source| QueueError::Write { path, source })?;
        self.stray = None;
        Ok(())
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
            state.dropped.retain(|range| range.last >= release_point);
        });
        self.room.released(Instant::now());
        self.metrics.queue.release_point.set(release_point);
        self.tell_missing();
        let before = self.at_rest;
        self.unlink_released()?;
        Ok(self.at_rest < before)
    }

    /// Makes room: unlinks what is released, and where only the active segment is left to give, seals it, so that it can
    /// be unlinked next.
    pub fn give_way(&mut self) -> Result<(), QueueError> {
        self.unlink_released()?;
        let state = self.shared.state().clone();
        let emptied = state.release_point >= state.end && self.newest < state.end;
        let active = self.active.as_ref().map_or(Ok(0), Active::size)?;
        if emptied && active > self.segment_size / 4 {
            self.roll()?;
        }
        Ok(())
    }

    /// Unlinks the segments that hold nothing but released records. The one before the active stays until the next
    /// roll: its last record is what Kafka's resume point is compared with.
    pub(super) fn unlink_released(&mut self) -> Result<(), QueueError> {
        let segments: Vec<u64> = self.shared.state().segments.iter().copied().collect();
        let mut gone = Vec::new();
        for pair in segments.windows(3) {
            if pair[1] > self.release_point || self.holds_more(pair[0]) {
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

    /// Whether a segment reaches beyond the release point, although the name of the next one says otherwise: that may be a
    /// file of another queue.
    fn holds_more(&self, first: u64) -> bool {
        let origin = self.identity.origin;
        let last = match Reader::open(&self.folder, first, origin).and_then(|reader| reader.last()) {
            Err(error) if salvage::is_wreck(&self.folder, &error) => {
                Wreck::look_through(&self.folder, first, u64::MAX, origin)
                    .map_or(None, |wreck| wreck.sequences(u64::MAX).last().copied())
            }
            last => last.unwrap_or(None),
        };
        last.is_some_and(|last| last >= self.release_point)
    }

    /// Keeps the release point for when no record carries it. Durable when it returns.
    pub fn write_released(&mut self) -> Result<(), QueueError> {
        if self.released_on_disk == self.release_point {
            return Ok(());
        }
        release::write(&self.folder, self.identity.origin, self.release_point)
            .map_err(|source| QueueError::Write { path: self.folder.file(release::FILE), source })?;
        self.released_on_disk = self.release_point;
        let release_point = self.release_point;
        let past = self.identity.lost.iter().map(|lost| lost.last);
        if past.chain(self.identity.dropped.iter().map(|range| range.last)).any(|last| last < release_point) {
            // Only for tidiness: a range below the release point is never asked for.
            match self.change_identity(|identity| {
                identity.lost.retain(|lost| lost.last >= release_point);
                identity.dropped.retain(|range| range.last >= release_point);
            }) {
                Err(error) if !error.is_full() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts dead letters away, durably. Where that fails, some of them may be away.
    pub fn set_aside(&mut self, letters: &[DeadLetter]) -> Result<(), QueueError> {
        let Put { deleted, count } = self.put_away(letters)?;
        if deleted > 0 {
            self.metrics.queue.dead_letters_deleted.add(deleted);
            error!(deleted, "the dead letters have reached their limit, the oldest were deleted");
        }
        self.metrics.queue.dead_letters.set(count);
        self.measure();
        Ok(())
    }

    fn put_away(&self, letters: &[DeadLetter]) -> Result<Put, QueueError> {
        let put = || self.with_letters(|kept| kept.put(letters));
        let done = match put() {
            Err(error) if error.is_full() && self.give_reserve()? => put(),
            done => done,
        };
        match done {
            // What does not fit all at once may fit one after the other.
            Err(error) if error.is_full() && letters.len() > 1 => {
                letters.chunks(1).try_fold(Put::default(), |before, letter| {
                    let now = self.put_away(letter)?;
                    Ok(Put { deleted: before.deleted + now.deleted, ..now })
                })
            }
            done => Ok(done?),
        }
    }

    /// Does something with the dead letters. Where their file turns out to be damaged, it is set aside first, and what can be
    /// read of it goes on.
    fn with_letters<T>(&self, act: impl Fn(&DeadLetters) -> Result<T, SegmentError>) -> Result<T, SegmentError> {
        match act(&self.dead_letters) {
            Err(error) if salvage::is_wreck(&self.folder, &error) => {
                self.dead_letters.salvage(&error)?;
                act(&self.dead_letters)
            }
            result => result,
        }
    }

    /// Deletes dead letters that were put back into the queue.
    pub fn delete_letters(&mut self, ids: &[LetterId]) -> Result<(), QueueError> {
        self.with_letters(|kept| kept.remove(ids))?;
        self.metrics.queue.dead_letters.set(self.dead_letters.count().unwrap_or_default());
        Ok(())
    }

    /// Deletes the dead letters that are older than they may get. Not while the clock may be wrong: it would delete all.
    pub fn expire_letters(&mut self) {
        let now = self.clock.now();
        let Some(limit) = self.dead_letters_max_age.filter(|_| now.synchronised) else { return };
        let cut_ms = now.wall_ms.saturating_sub(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        let removed = self.with_letters(|kept| kept.remove(&kept.older_than(cut_ms)?));
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
        // What Kafka knows stands under the old id: after a crash nothing else would say what is released.
        self.write_released()?;
        let old = self.identity.queue_id();
        let (serial, from) = (self.hardware_serial.clone(), self.shared.state().release_point.max(1));
        self.change_identity(|identity| {
            identity.queue_id = rand::random();
            identity.hardware_serial = serial;
            identity.daily.get_or_insert_default().ledger = Ledger::new(from);
        })?;
        let queue_id = self.identity.queue_id();
        warn!(%old, new = %queue_id, why, "the queue was forked: it goes on under a new queue id");
        self.shared.change(|state| {
            state.queue_id = queue_id;
            state.moved = false;
        });
        Ok(queue_id)
    }

    /// Remembers which filters a source is subscribed to; a source without any is forgotten.
    pub fn remember_filters(&mut self, source: &str, filters: Vec<String>) -> Result<(), QueueError> {
        if self.identity.filters.get(source).map_or(&[][..], Vec::as_slice) != filters {
            self.change_identity(|identity| {
                if filters.is_empty() {
                    identity.filters.remove(source);
                } else {
                    identity.filters.insert(source.to_owned(), filters);
                }
            })?;
        }
        Ok(())
    }

    /// The orderly end: the release point on disk, the active segment closed.
    pub fn close(mut self) -> Result<(), QueueError> {
        self.write_released()?;
        if let Some(active) = self.active.take() {
            active.seal()?;
        }
        self.wear.keep(&self.folder, self.metrics.queue.stored.get(), &self.clock.now());
        info!(next_sequence = self.next, release_point = self.release_point, "queue closed");
        Ok(())
    }

    fn encode(&self, sequence: u64, stored: &Stored) -> Result<Vec<u8>, QueueError> {
        record::encode(self.identity.origin, sequence, stored).map_err(|error| self.unencoded(&error))
    }

    fn unencoded(&self, error: &postcard::Error) -> QueueError {
        QueueError::Write { path: self.folder.path().to_owned(), source: std::io::Error::other(error.to_string()) }
    }

    /// Changes what `queue.toml` says, durably. Where that fails, nothing is changed.
    pub(super) fn change_identity(&mut self, change: impl FnOnce(&mut Identity)) -> Result<(), QueueError> {
        let mut changed = self.identity.clone();
        change(&mut changed);
        let before = std::mem::replace(&mut self.identity, changed);
        self.write_identity().inspect_err(|_| self.identity = before)
    }

    /// On a full disk the reserve makes room: under its old id a forked queue could not be drained.
    pub(super) fn write_identity(&self) -> Result<(), QueueError> {
        let write = || {
            let written = self.identity.write(&self.folder);
            written.map_err(|source| QueueError::Write { path: self.folder.file(super::identity::FILE), source })
        };
        match write() {
            Err(error) if error.is_full() && self.give_reserve()? => write(),
            result => result,
        }
    }

    fn give_reserve(&self) -> Result<bool, QueueError> {
        reserve::give(&self.folder)
            .map_err(|source| QueueError::Write { path: self.folder.file(reserve::FILE), source })
    }

    /// Keeps room back for what a full disk must still take, if there is any.
    pub fn keep_reserve(&mut self) {
        match reserve::keep(&self.folder, self.limit.max_size) {
            Ok(()) => self.measure(),
            Err(error) => debug!(%error, "no room can be kept back now"),
        }
    }

    /// As after the release point or what is known to be missing has changed.
    pub(super) fn tell_missing(&self) {
        self.metrics.queue.missing.set(self.shared.state().count_missing());
    }

    /// Counts the folder's bytes and segments anew, as after files came or went.
    pub(super) fn measure(&mut self) {
        let used = self.folder.used().unwrap_or(self.at_rest);
        let active = self.folder.disk.size(&segment::path(&self.folder, self.newest)).unwrap_or(0);
        self.at_rest = used.saturating_sub(if self.active.is_some() { active } else { 0 });
        self.metrics.queue.disk_bytes.set(used);
        let state = self.shared.state();
        self.metrics.queue.segments.set(state.segments.len() as u64);
        self.metrics.queue.first_sequence.set(state.segments.first().copied().unwrap_or(state.end));
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
