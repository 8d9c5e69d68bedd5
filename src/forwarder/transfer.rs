//! The loop: connect, settle where to go on, then one transaction after the other.
//!
//! Each [`Transfer::round`] does one thing and says what to wait for, so that it can be driven without a clock. A session
//! whose call failed is dropped, whatever the call was: the next one asks Kafka what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use crate::backoff::Backoff;
use crate::forwarder::advice::Names;
use crate::forwarder::batch::{Allowance, Load, Pace, STREAM_LIMIT};
use crate::forwarder::cluster::{Cluster, Failure, Session};
use crate::forwarder::outcome::{self, Class, Held, Outcome};
use crate::forwarder::record::Recorder;
use crate::forwarder::resume::{self, Decision, ResumePoint};
use crate::forwarder::supply::{Chunk, Supply};
use crate::forwarder::timestamp::{Stamps, TopicLimits};
use crate::forwarder::trouble::Trouble;
use crate::forwarder::{Backlog, BacklogError};
use crate::metrics::Metrics;
use crate::reading::Received;
use crate::shutdown::Shutdown;

/// The first retry is within this; each further one within twice as much, up to the configured cap.
const RETRY_BASE: Duration = Duration::from_millis(500);

/// How often the topics' limits are asked for (milliseconds).
const REFRESH_MS: u64 = 10 * 60 * 1000;

/// What the loop is made with.
pub struct Parts {
    pub agent_id: String,
    pub topics: BTreeMap<Arc<str>, String>,
    pub names: Names,
    /// Where a topic's configuration may not be read.
    pub assumed: TopicLimits,
    /// What one transaction carries at most.
    pub most: Allowance,
    pub linger: Duration,
    pub retry_max_delay: Duration,
    pub clock_wait: Duration,
    pub backlog: Box<dyn Backlog>,
    pub cluster: Box<dyn Cluster>,
    pub metrics: Arc<Metrics>,
    pub shutdown: Shutdown,
    pub heartbeat: Arc<dyn Fn() + Send + Sync>,
    pub now: Box<dyn Fn() -> Received + Send>,
    /// Uniform in 0..1.
    pub random: Box<dyn FnMut() -> f64 + Send>,
}

/// What to do before the next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Again,
    /// Let this pass.
    Pause(Duration),
    /// Wait until `Backlog::end` is above `sequence`, at most so long.
    Await { sequence: u64, limit: Duration },
}

/// Why a step ended.
#[derive(Debug)]
enum Stop {
    Kafka(Failure),
    Queue(BacklogError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Kafka(failure)
    }
}

impl From<BacklogError> for Stop {
    fn from(error: BacklogError) -> Self {
        Self::Queue(error)
    }
}

/// What happened in an open transaction so far.
#[derive(Debug, Default)]
struct Tally {
    load: Load,
    /// Records handed to Kafka: gap records before an entry count too.
    handed: u64,
    /// Of these: those that only explain.
    gaps: u64,
    late: u64,
    /// The daily receipt that was handed over last: its sequence, and the day. Nothing follows it.
    receipt: Option<(u64, i32)>,
    /// More was waiting than it took.
    left_behind: bool,
}

impl Tally {
    fn held(&self) -> Held {
        match self.load.records {
            1 if self.gaps == self.handed => Held::Explanation,
            1 => Held::Reading,
            _ => Held::Several,
        }
    }
}

/// One queue's way to Kafka.
pub struct Transfer {
    parts: Parts,
    session: Option<Box<dyn Session>>,
    recorder: Recorder,
    supply: Supply,
    pace: Pace,
    backoff: Backoff,
    trouble: Trouble,
    /// Timestamps of what Kafka is known to have.
    stamps: Stamps,
    /// Those of a transaction whose outcome is unknown, which ends at this sequence.
    doubtful: Option<(u64, Stamps)>,
    limits: BTreeMap<Arc<str>, TopicLimits>,
    /// By the boot clock.
    limits_due_ms: u64,
    filling_since: Option<Instant>,
    /// The last transaction was full, or ended for another reason, before it had all that waited: the rest does not wait for
    /// more.
    left_behind: bool,
    /// Since when the clock is known to be wrong, by the boot clock.
    doubted_since_ms: Option<u64>,
    /// It was waited for long enough.
    believed_all_the_same: bool,
    said_late: bool,
    forked_for_move: bool,
}

impl Transfer {
    pub fn new(parts: Parts) -> Self {
        let recorder = recorder(&parts);
        let supply = Supply::new(parts.backlog.ledger());
        let backoff = Backoff::new(RETRY_BASE, parts.retry_max_delay);
        // At a start a clock is waited for without a word, as is usual on a Pi.
        let doubted_since_ms = Some((parts.now)().boot_ms);
        let pace = Pace::new(parts.most);
        Self {
            parts,
            session: None,
            recorder,
            supply,
            pace,
            backoff,
            trouble: Trouble::default(),
            stamps: Stamps::default(),
            doubtful: None,
            limits: BTreeMap::new(),
            limits_due_ms: 0,
            filling_since: None,
            left_behind: false,
            doubted_since_ms,
            believed_all_the_same: false,
            said_late: false,
            forked_for_move: false,
        }
    }

    /// Does one thing: connects, or carries one transaction, or finds that there is nothing to do.
    pub fn round(&mut self) -> Result<Next, BacklogError> {
        (self.parts.heartbeat)();
        let done = match self.session.take() {
            None => self.connect().map(|()| Next::Again),
            Some(session) => self.advance(session),
        };
        match done {
            Ok(next) => Ok(next),
            Err(Stop::Queue(error)) => Err(error),
            Err(Stop::Kafka(failure)) => Ok(self.failed(&failure, Held::Several)),
        }
    }

    /// Makes a session and settles where to go on.
    fn connect(&mut self) -> Result<(), Stop> {
        let queue_id = self.parts.backlog.queue_id();
        let group = crate::forwarder::group(&self.parts.agent_id, queue_id);
        let mut session = self.parts.cluster.connect(&group)?;
        // On another machine the queue may be a copy whose original still runs: look, but fence nobody.
        let moved = self.parts.backlog.moved() && !self.forked_for_move;
        if !moved {
            session.init()?;
        }
        let committed = session.resume_point()?;
        let local = self.parts.backlog.release_point();
        let here = match committed.as_ref().and_then(|committed| committed.of_queue(queue_id)) {
            Some(point) => self.parts.backlog.fingerprint(point.next - 1)?,
            None => None,
        };
        let decision = resume::decide(queue_id, local, committed.as_ref(), here);
        debug!(?decision, local, ?committed, "where to go on");
        let mut fork = None;
        match decision {
            Decision::Resume => {}
            Decision::ResumeBehind { kafka } => {
                warn!(kafka, local, "Kafka's resume point is behind the queue's: were the group's offsets reset?");
            }
            Decision::Release { next } => {
                let (backlog, heartbeat) = (self.parts.backlog.as_mut(), self.parts.heartbeat.as_ref());
                self.supply.catch_up(backlog, local, next, heartbeat)?;
                self.parts.metrics.forwarder.sent.add(next - local);
                self.parts.metrics.forwarder.known.add(next - local);
                self.release(next)?;
            }
            Decision::Fork { why } => fork = Some(why),
        }
        if let Some((next, stamps)) = self.doubtful.take()
            && self.parts.backlog.release_point() >= next
        {
            self.stamps = stamps;
        }
        if moved {
            fork = fork.or(Some("the queue was written on another machine"));
            self.forked_for_move = true;
        }
        if let Some(why) = fork {
            return Ok(self.fork(why)?);
        }
        self.connected(session);
        Ok(())
    }

    fn fork(&mut self, why: &str) -> Result<(), BacklogError> {
        let old = self.parts.backlog.queue_id();
        let new = self.parts.backlog.fork(why)?;
        self.recorder = recorder(&self.parts);
        self.supply.forked(self.parts.backlog.release_point());
        self.parts.metrics.forwarder.forks.one();
        warn!(why, %old, %new, "the queue takes a new id; everything unreleased is sent, some of it perhaps a second time");
        Ok(())
    }

    fn connected(&mut self, session: Box<dyn Session>) {
        let metrics = &self.parts.metrics.forwarder;
        metrics.connects.one();
        metrics.connected.set(true);
        self.pace.connected();
        self.session = Some(session);
        let (from, end) = (self.parts.backlog.release_point(), self.parts.backlog.end());
        let (server, waiting) = (&self.parts.names.server, end.saturating_sub(from));
        if self.trouble.connected() || metrics.connects.get() == 1 {
            info!(%server, from, waiting, "connected to Kafka");
        } else {
            debug!(%server, from, waiting, "connected to Kafka again");
        }
        if end <= from {
            self.trouble.over();
        }
    }

    /// Carries what waits, if it is time to.
    fn advance(&mut self, mut session: Box<dyn Session>) -> Result<Next, Stop> {
        let from = self.parts.backlog.release_point();
        let waiting = self.parts.backlog.end().saturating_sub(from);
        if let Some(next) = self.not_yet(from, waiting) {
            session.idle()?;
            self.session = Some(session);
            return Ok(next);
        }
        self.refresh(session.as_mut());
        let Some(chunk) = self.supply.read(self.parts.backlog.as_mut(), from, self.pace.allowance())? else {
            self.session = Some(session);
            return Ok(Next::Pause(RETRY_BASE));
        };
        let strange = self.recorder.strange_topics(chunk.entries.iter());
        if !strange.is_empty() {
            // The next connection sees to it that they are there, and asks for their limits.
            info!(topics = ?strange, "devices with topics of their own");
            self.parts.cluster.learn(&strange);
            self.recorder.know(&strange);
            self.limits_due_ms = 0;
            return Ok(Next::Again);
        }
        let now = (self.parts.now)();
        self.supply.put_away(self.parts.backlog.as_mut(), &chunk, &now, self.parts.heartbeat.as_ref())?;
        let (mut tally, opened) = (Tally::default(), Instant::now());
        match self.transaction(session.as_mut(), chunk, &mut tally) {
            Ok(()) => {
                self.session = Some(session);
                Ok(Next::Again)
            }
            Err(Stop::Queue(error)) => Err(error.into()),
            Err(Stop::Kafka(failure)) => {
                let open = opened.elapsed();
                drop(session);
                Ok(self.refused(&failure, from, &tally, open)?)
            }
        }
    }

    /// What to wait for instead of sending: readings, a batch that fills, or a clock that is right.
    fn not_yet(&mut self, from: u64, waiting: u64) -> Option<Next> {
        if waiting == 0 {
            self.filling_since = None;
            return Some(Next::Await { sequence: from, limit: RETRY_BASE });
        }
        let full = u64::try_from(self.pace.allowance().records).unwrap_or(u64::MAX);
        if waiting < full && !self.left_behind {
            let since = *self.filling_since.get_or_insert_with(Instant::now);
            let left = self.parts.linger.saturating_sub(since.elapsed());
            if !left.is_zero() && !self.parts.shutdown.is_asked() {
                return Some(Next::Await { sequence: from + full - 1, limit: left.min(RETRY_BASE) });
            }
        }
        (!self.clock_is_believed()).then_some(Next::Pause(RETRY_BASE))
    }

    /// A clock that is known to be wrong is waited for, each time it becomes so: Kafka deletes what is stamped too early.
    fn clock_is_believed(&mut self) -> bool {
        let now = (self.parts.now)();
        let doubt = if !now.synchronised {
            "it is not synchronised"
        } else if self.stamps.are_ahead_of(now.wall_ms) {
            "it was set back behind what Kafka has already taken"
        } else {
            self.doubted_since_ms = None;
            self.believed_all_the_same = false;
            return true;
        };
        if self.believed_all_the_same {
            return true;
        }
        let since = match self.doubted_since_ms {
            Some(since) => since,
            None => {
                let (limit_seconds, wall_ms) = (self.parts.clock_wait.as_secs(), now.wall_ms);
                warn!(doubt, wall_ms, limit_seconds, "the clock is wrong: readings are kept until it is right");
                *self.doubted_since_ms.insert(now.boot_ms)
            }
        };
        let waited = Duration::from_millis(now.boot_ms.saturating_sub(since));
        if waited >= self.parts.clock_wait {
            self.believed_all_the_same = true;
            warn!(
                doubt,
                waited_seconds = waited.as_secs(),
                wall_ms = now.wall_ms,
                "the clock is still wrong: it is believed as it is, timestamps in Kafka may be wrong"
            );
        }
        self.believed_all_the_same
    }

    /// The time by which records may be stamped; none where the clock has become wrong since it was believed, whatever
    /// moment that is.
    fn stamping_time(&self, stamps: &Stamps) -> Option<Received> {
        let now = (self.parts.now)();
        let right = now.synchronised && !stamps.are_ahead_of(now.wall_ms);
        (right || self.believed_all_the_same).then_some(now)
    }

    /// Asks for the topics' limits where it is time to.
    fn refresh(&mut self, session: &mut dyn Session) {
        let now_ms = (self.parts.now)().boot_ms;
        if now_ms < self.limits_due_ms {
            return;
        }
        self.limits_due_ms = now_ms + REFRESH_MS;
        for (topic, limits) in session.limits() {
            match limits {
                Ok(limits) => {
                    let before = self.limits.insert(Arc::clone(&topic), limits);
                    if limits.compact && before.is_none_or(|before| !before.compact) {
                        warn!(%topic, "the topic has cleanup.policy=compact: it will keep only the newest reading of each device");
                    }
                }
                Err(failure) => {
                    debug!(%failure, %topic, "the topic's configuration cannot be read, kafka.retention is assumed");
                }
            }
        }
    }

    /// One transaction: the chunk, and what else waits as long as there is time.
    fn transaction(&mut self, session: &mut dyn Session, chunk: Chunk, tally: &mut Tally) -> Result<(), Stop> {
        let (opened, allowance) = (Instant::now(), self.pace.allowance());
        let mut stamps = self.stamps.clone();
        let mut end = chunk.end();
        let Some(now) = self.stamping_time(&stamps) else { return Ok(()) };
        session.begin()?;
        self.hand_over(session, chunk, &now, &mut stamps, tally)?;
        loop {
            let mut left = allowance;
            left.records = left.records.saturating_sub(tally.load.records);
            left.bytes = left.bytes.saturating_sub(tally.load.bytes);
            let over = left.records == 0 || left.bytes == 0 || opened.elapsed() >= STREAM_LIMIT;
            if over || tally.receipt.is_some() || self.parts.shutdown.is_asked() || self.parts.backlog.end() <= end {
                break;
            }
            match (self.supply.read(self.parts.backlog.as_mut(), end, left)?, self.stamping_time(&stamps)) {
                (Some(chunk), Some(now)) if !self.supply.wants_disk(&chunk) && !self.has_strange_topics(&chunk) => {
                    end = chunk.end();
                    self.hand_over(session, chunk, &now, &mut stamps, tally)?;
                }
                _ => break,
            }
        }
        tally.left_behind = self.parts.backlog.end() > end;
        session.settle()?;
        self.doubtful = Some((end, stamps));
        let Some(fingerprint) = self.parts.backlog.fingerprint(end - 1)? else {
            return Err(BacklogError(format!("record {} was read and is gone", end - 1)).into());
        };
        session.commit(&ResumePoint { queue_id: self.parts.backlog.queue_id(), next: end, fingerprint })?;
        self.committed(end, tally, opened.elapsed())?;
        Ok(())
    }

    fn has_strange_topics(&self, chunk: &Chunk) -> bool {
        !self.recorder.strange_topics(chunk.entries.iter()).is_empty()
    }

    fn hand_over(
        &mut self,
        session: &mut dyn Session,
        chunk: Chunk,
        now: &Received,
        stamps: &mut Stamps,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        (self.parts.heartbeat)();
        tally.load.bytes += chunk.bytes();
        tally.load.records += chunk.entries.len();
        tally.load.next = chunk.end();
        tally.receipt = chunk.receipt();
        let mut expected = chunk.from;
        for entry in chunk.entries {
            let after = entry.sequence + 1;
            self.supply.records(&self.recorder, expected, entry, now, |record, gap| {
                let limits = self.limits.get(&record.topic).unwrap_or(&self.parts.assumed);
                let stamp = stamps.next(&record.topic, record.timestamp_ms, limits, now.wall_ms);
                tally.handed += 1;
                tally.gaps += u64::from(gap);
                tally.late += u64::from(stamp.late);
                session.produce(&record, stamp.ms)
            })?;
            expected = after;
        }
        Ok(())
    }

    fn committed(&mut self, end: u64, tally: &Tally, open: Duration) -> Result<(), BacklogError> {
        debug!(end, records = tally.load.records, bytes = tally.load.bytes, ?open, "committed");
        if let Some((sequence, day)) = tally.receipt {
            self.supply.receipt_sent(self.parts.backlog.as_mut(), sequence, day)?;
        }
        self.release(end)?;
        if let Some((_, stamps)) = self.doubtful.take() {
            self.stamps = stamps;
        }
        self.pace.committed(tally.load, open);
        self.backoff.reset();
        self.trouble.over();
        self.filling_since = None;
        self.left_behind = tally.left_behind;
        let metrics = &self.parts.metrics.forwarder;
        metrics.sent.add(tally.handed);
        metrics.batches.one();
        metrics.gap_records.add(tally.gaps);
        metrics.late.add(tally.late);
        if tally.late > 0 && !self.said_late {
            self.said_late = true;
            info!(
                records = tally.late,
                "readings older than half of the topic's retention: their timestamps in Kafka are raised so that they are \
                 not deleted on arrival; ce_time says when they were measured"
            );
        }
        Ok(())
    }

    fn release(&mut self, next: u64) -> Result<(), BacklogError> {
        self.parts.backlog.release(next)?;
        self.supply.released(next);
        Ok(())
    }

    /// A transaction failed: halves, condemns, or leaves it to the next connection.
    fn refused(&mut self, failure: &Failure, from: u64, tally: &Tally, open: Duration) -> Result<Next, BacklogError> {
        let held = tally.held();
        match outcome::decide(failure.code, failure.call, held) {
            Outcome::Halve => self.pace.refused(tally.load),
            Outcome::DeadLetter => {
                self.pace.refused(tally.load);
                self.pace.condemned();
                self.condemn(failure, from)?;
            }
            Outcome::PersonMustAct(Class::Timestamp) => self.limits_due_ms = 0,
            Outcome::Retry | Outcome::Rebuild => self.pace.failed(tally.load, open),
            Outcome::PersonMustAct(_) => {}
        }
        Ok(self.failed(failure, held))
    }

    fn condemn(&mut self, failure: &Failure, from: u64) -> Result<(), BacklogError> {
        let backlog = self.parts.backlog.as_mut();
        let Some(chunk) = self.supply.read(backlog, from, crate::forwarder::batch::ONE)? else { return Ok(()) };
        let reason = format!("Kafka refused it: {}", failure.detail);
        if let Some(sequence) = self.supply.condemn(backlog, &chunk, &reason, &(self.parts.now)())? {
            error!(sequence, %failure, "Kafka refuses this reading for good: it is in the dead letters, a gap record is sent in its stead");
        }
        Ok(())
    }

    /// Says what failed, and how long to wait.
    fn failed(&mut self, failure: &Failure, held: Held) -> Next {
        let outcome = outcome::decide(failure.code, failure.call, held);
        let metrics = &self.parts.metrics.forwarder;
        metrics.connected.set(false);
        metrics.retries.one();
        if failure.call.leaves_doubt() {
            metrics.rebuilds.one();
        }
        self.said_late = false;
        let delay = match outcome {
            Outcome::Halve | Outcome::DeadLetter => Duration::ZERO,
            // Most often one transaction was cut off and the next connection stands: ask at once, once.
            Outcome::Rebuild if self.backoff.attempts() == 0 => {
                self.backoff.next(0.0);
                Duration::ZERO
            }
            Outcome::Rebuild | Outcome::Retry | Outcome::PersonMustAct(_) => self.backoff.next((self.parts.random)()),
        };
        if !self.parts.shutdown.is_asked() {
            let cure = self.parts.names.cure(failure);
            self.trouble.failed(failure, outcome, cure.as_deref(), delay);
        }
        if delay.is_zero() { Next::Again } else { Next::Pause(delay) }
    }

    /// Rounds until a stop is asked for.
    pub fn run(mut self) -> Result<(), BacklogError> {
        let shutdown = self.parts.shutdown.clone();
        while !shutdown.is_asked() {
            match self.round()? {
                Next::Again => {}
                Next::Pause(delay) => pause(delay, &shutdown, self.parts.heartbeat.as_ref()),
                Next::Await { sequence, limit } => {
                    self.parts.backlog.wait(sequence, limit);
                }
            }
        }
        self.parts.metrics.forwarder.connected.set(false);
        Ok(())
    }

    #[cfg(test)]
    pub fn set_clock(&mut self, wait: Duration, now: impl Fn() -> Received + Send + 'static) {
        self.doubted_since_ms = Some(now().boot_ms);
        self.parts.clock_wait = wait;
        self.parts.now = Box::new(now);
    }

    #[cfg(test)]
    pub fn set_linger(&mut self, linger: Duration) {
        self.parts.linger = linger;
    }

    #[cfg(test)]
    pub fn backlog(&mut self) -> &mut dyn Backlog {
        self.parts.backlog.as_mut()
    }
}

fn recorder(parts: &Parts) -> Recorder {
    let topics = (parts.names.topic.as_str(), parts.names.resume_topic.as_str());
    Recorder::new(parts.backlog.queue_id(), &parts.agent_id, topics, &parts.topics)
}

/// Lets `delay` pass, or less where a stop is asked for.
pub fn pause(delay: Duration, shutdown: &Shutdown, heartbeat: &dyn Fn()) {
    const SLICE: Duration = Duration::from_millis(200);
    let until = Instant::now() + delay;
    while !shutdown.is_asked() {
        heartbeat();
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(SLICE));
    }
}
