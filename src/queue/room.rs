//! Making room in a store: packing while the line is down, and what `queue.when_full` says where nothing else helps.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

use super::error::QueueError;
use super::identity::Dropped;
use super::pack::{self, Keep, Rewritten};
use super::record::WINDOW_KEY;
use super::relief::{self, Measure, Need, Sealed};
use super::rewriter::{Job, Outcome};
use super::segment::{self, Reader, SegmentError};
use super::store::Store;
use super::thin::STEPS;
use crate::config::settings::WhenFull;

/// How often it is looked whether there is something to pack.
const LOOK: Duration = Duration::from_secs(10);
/// After a copy found no room, how long none is tried.
const NO_COPY: Duration = Duration::from_secs(60);
/// How often it is said what was given up.
const REPORT: Duration = Duration::from_secs(600);

/// What a store knows about its room.
#[derive(Debug)]
pub(super) struct Room {
    pub when_full: WhenFull,
    /// The line is taken for down when nothing was released for so long.
    pub pack_after: Duration,
    released: Instant,
    next_look: Instant,
    /// No copy of a segment is made before.
    no_copy_until: Instant,
    /// Segments that packing did not make smaller.
    stubborn: BTreeSet<u64>,
    /// Segments that could not be read through.
    unreadable: BTreeSet<u64>,
    /// Records given up since it was last said, and when that was.
    unsaid: u64,
    said: Option<Instant>,
}

impl Room {
    pub fn new(when_full: WhenFull, pack_after: Duration, now: Instant) -> Self {
        Self {
            when_full,
            pack_after,
            released: now,
            next_look: now + LOOK.min(pack_after),
            no_copy_until: now,
            stubborn: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            unsaid: 0,
            said: None,
        }
    }

    /// The line works: nothing is packed until it is down again.
    pub fn released(&mut self, now: Instant) {
        self.released = now;
    }

    fn is_line_down(&self, now: Instant) -> bool {
        now.duration_since(self.released) >= self.pack_after
    }
}

/// What [`Store::relieve`] did or wants done.
pub(super) enum Relief {
    /// There is more room now.
    Made,
    /// There will be when this is done.
    Rewrite(Job),
    /// Only a release makes room.
    None,
}

impl Store {
    /// The segment to be packed now, if the line is down and more than a few wait.
    pub fn packing_due(&mut self, now: Instant) -> Option<Job> {
        if now < self.room.next_look || now < self.room.no_copy_until {
            return None;
        }
        self.room.next_look = now + LOOK.min(self.room.pack_after);
        if !self.room.is_line_down(now) {
            return None;
        }
        let mut waiting = self.sealed();
        waiting.pop();
        waiting.retain(|sealed| sealed.until > self.release_point);
        relief::pack(&waiting)
    }

    /// Makes room, or says how it is made.
    pub fn relieve(&mut self, now: Instant) -> Result<Relief, QueueError> {
        let mut waiting = self.sealed();
        let newest = waiting.pop();
        waiting.retain(|sealed| sealed.until > self.release_point);
        let need = Need {
            when_full: self.room.when_full,
            waiting,
            newest,
            sent: self.shared.state().handed_out.max(self.release_point),
            line_down: self.room.is_line_down(now),
            rewriting: now >= self.room.no_copy_until,
        };
        match relief::relieve(&need) {
            None => Ok(Relief::None),
            Some(Measure::Rewrite(job)) => Ok(Relief::Rewrite(job)),
            Some(Measure::Drop(oldest)) => {
                self.drop_segment(&oldest)?;
                Ok(Relief::Made)
            }
        }
    }

    /// The sealed segments, oldest first.
    fn sealed(&self) -> Vec<Sealed> {
        let state = self.shared.state().clone();
        let segments: Vec<u64> = state.segments.iter().copied().collect();
        let mut all = Vec::new();
        for pair in segments.windows(2) {
            let (first, until) = (pair[0], pair[1]);
            let bytes = self.folder.disk.size(&segment::path(&self.folder, first)).unwrap_or(0);
            let thinned = state.dropped.iter().find(|range| range.first <= first && first <= range.last);
            let step = thinned.and_then(|range| STEPS.iter().position(|step| Some(*step) == range.one_in_s));
            // A packed segment is a fraction of this; a small one has nothing to give.
            let loose = bytes >= self.segment_size / 2 && !self.room.stubborn.contains(&first);
            let readable = !self.room.unreadable.contains(&first);
            all.push(Sealed { first, until, bytes, step: step.map_or(0, |step| step + 1), loose, readable });
        }
        all
    }

    /// A rewriting has ended: its result takes the old segment's place. An error is one that a restart has to cure.
    pub fn rewritten(&mut self, job: Job, outcome: Outcome, now: Instant) -> Result<(), QueueError> {
        self.room.next_look = now;
        let adopted = match outcome {
            // Its thread panicked.
            Ok(None) => {
                self.room.unreadable.insert(job.first);
                return Ok(());
            }
            Err(error) => return self.not_rewritten(job, error, now),
            Ok(Some(rewritten)) => {
                let unfinished = rewritten.unfinished.clone();
                let adopted = self.adopt(job, rewritten);
                // What was adopted has this name no more; what cannot be removed is at the next start.
                let _ = self.folder.remove_if_there(&unfinished);
                adopted
            }
        };
        match adopted {
            Err(error) if error.is_full() => {
                self.no_copy(job, &error, now);
                Ok(())
            }
            result => result,
        }
    }

    /// A segment that cannot be read is no reason to stop taking readings; what cannot be written is.
    fn not_rewritten(&mut self, job: Job, error: SegmentError, now: Instant) -> Result<(), QueueError> {
        let is_source = match &error {
            SegmentError::Damaged { path, .. }
            | SegmentError::Io { path, .. }
            | SegmentError::NotClosed { path }
            | SegmentError::Busy { path } => *path == segment::path(&self.folder, job.first),
        };
        if !self.is_there(job.first) {
            return Ok(());
        }
        match error {
            error if error.is_full() => self.no_copy(job, &error, now),
            error @ SegmentError::Busy { .. } => self.no_copy(job, &error, now),
            error if error.is_damage() && is_source => {
                warn!(%error, "a segment cannot be packed and is salvaged");
                return self.salvage(job.first);
            }
            error if error.is_damage() || is_source => {
                warn!(%error, segment = job.first, "a segment cannot be packed");
                self.room.unreadable.insert(job.first);
            }
            error => return Err(error.into()),
        }
        Ok(())
    }

    fn no_copy(&mut self, job: Job, error: &dyn std::fmt::Display, now: Instant) {
        debug!(%error, segment = job.first, "a segment cannot be packed now");
        self.room.no_copy_until = now + NO_COPY;
    }

    fn is_there(&self, first: u64) -> bool {
        self.shared.state().segments.contains(&first)
    }

    fn adopt(&mut self, job: Job, rewritten: Rewritten) -> Result<(), QueueError> {
        let path = segment::path(&self.folder, job.first);
        if !self.is_there(job.first) {
            return Ok(());
        }
        let before = self.folder.disk.size(&path).map_err(|source| QueueError::Write { path, source })?;
        match job.keep {
            Keep::All if !pack::is_worth_it(before, rewritten.bytes) => {
                self.room.stubborn.insert(job.first);
                return Ok(());
            }
            Keep::All => {}
            // Said first: a power cut after it leaves a whole segment that is taken for a thinned one, which loses nothing.
            Keep::OneIn { seconds } => {
                let range = Dropped { first: job.first, last: job.until - 1, one_in_s: Some(seconds) };
                self.note_dropped(range)?;
            }
        }
        self.ensure_format()?;
        segment::publish(&self.folder, &rewritten.unfinished, job.first)?;
        let queue = &self.metrics.queue;
        queue.packed.one();
        queue.packed_bytes.add(rewritten.bytes);
        self.given_up(rewritten.dropped);
        self.measure();
        debug!(segment = job.first, before, after = rewritten.bytes, keep = ?job.keep, "a segment was packed");
        Ok(())
    }

    /// Unlinks a segment, whether or not its records are in Kafka.
    fn drop_segment(&mut self, oldest: &Sealed) -> Result<(), QueueError> {
        // What Kafka has of it must not be taken for missing after a restart.
        self.write_released()?;
        let count = self.unreleased(oldest);
        if oldest.until > self.release_point {
            let range = Dropped { first: oldest.first, last: oldest.until - 1, one_in_s: None };
            match self.note_dropped(range) {
                // Without room even for that, it is said once there is some.
                Err(error) if error.is_full() => debug!(%error, "no room to say what is dropped"),
                result => result?,
            }
        }
        let path = segment::path(&self.folder, oldest.first);
        self.folder.remove_if_there(&path).map_err(|source| QueueError::Write { path, source })?;
        self.shared.change(|state| {
            state.segments.remove(&oldest.first);
        });
        match self.write_identity() {
            Err(error) if !error.is_full() => return Err(error),
            _ => {}
        }
        self.given_up(count);
        self.measure();
        Ok(())
    }

    /// Records of a segment that Kafka does not have; an estimate where it cannot be read.
    fn unreleased(&self, oldest: &Sealed) -> u64 {
        let from = self.release_point.max(oldest.first);
        let most = oldest.until.saturating_sub(from);
        if oldest.step == 0 || most == 0 {
            return most;
        }
        let mut count = 0;
        let counted = Reader::open(&self.folder, oldest.first, self.identity.origin).and_then(|reader| {
            reader.scan(from.max(WINDOW_KEY + 1), oldest.until, |_, _| {
                count += 1;
                ControlFlow::Continue(())
            })
        });
        if counted.is_ok() { count } else { most }
    }

    /// Readers know from now on why these records are missing; durable when it returns.
    fn note_dropped(&mut self, range: Dropped) -> Result<(), QueueError> {
        range.note(&mut self.identity.dropped);
        let dropped = self.identity.dropped.clone();
        self.shared.change(|state| state.dropped = dropped);
        self.tell_missing();
        self.write_identity()
    }

    fn given_up(&mut self, count: u64) {
        self.metrics.queue.dropped.add(count);
        self.room.unsaid += count;
    }

    /// Says what was given up, at most once an interval.
    pub fn say_dropped(&mut self, now: Instant) {
        let soon = self.room.said.is_some_and(|said| now.duration_since(said) < REPORT);
        if self.room.unsaid == 0 || soon {
            return;
        }
        let count = std::mem::take(&mut self.room.unsaid);
        self.room.said = Some(now);
        let total = self.metrics.queue.dropped.get();
        error!(count, total, policy = ?self.room.when_full, "the queue was full: records were given up, gap records say which");
    }
}
