//! The one thread that writes: takes messages and commands, closes batches, commits, and redeems receipts.

use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use super::block::Batch;
use super::commit::Rule;
use super::error::QueueError;
use super::letters::LetterId;
use super::lock::Lock;
use super::rewriter::{Job, Outcome, Rewriter};
use super::room::Relief;
use super::shared::Shared;
use super::store::Store;
use crate::backoff::Backoff;
use crate::daily::Ledger;
use crate::reading::{Body, DeadLetter, Mark, QueueId};
use crate::receipt::Receipt;

/// Messages in one commit.
const MESSAGES: usize = 4096;
/// Bytes in one commit, and no more than this part of `max_size`, so that a batch always fits an emptied queue; a larger
/// message makes one of its own.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_PART: u64 = 16;
/// Readings pause when none has come for so long: then the release point is put on disk by itself.
const PAUSE: Duration = Duration::from_secs(10);
/// The longest that a day's receipt waits for a reading to share its commit.
const RECEIPT_DELAY: Duration = Duration::from_secs(5);
/// When old dead letters are looked for: not while the agent starts, then once in so long.
const FIRST_EXPIRY: Duration = Duration::from_secs(60);
const EXPIRY: Duration = Duration::from_secs(3600);
/// First and longest delay before a full disk is tried again.
const FULL_RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// One message on its way to the disk.
#[derive(Debug)]
pub(super) struct Append {
    /// None: nothing to store, only a receipt that must not overtake the earlier ones. The mark is that of a body that
    /// brings none of its own.
    pub message: Option<(Body, Mark)>,
    pub receipt: Receipt,
    /// The longest it may wait for its commit.
    pub delay: Duration,
}

/// What readers and the forwarder ask of the writer.
#[derive(Debug)]
pub(super) enum Command {
    Release(u64),
    SetAside(Vec<DeadLetter>, oneshot::Sender<Result<(), QueueError>>),
    DeleteLetters(Vec<LetterId>, oneshot::Sender<Result<(), QueueError>>),
    Fork(String, oneshot::Sender<Result<QueueId, QueueError>>),
    /// What the next daily receipt says.
    Keep(Box<Ledger>, oneshot::Sender<Result<(), QueueError>>),
    Filters(String, Vec<String>),
    /// A stop is near: from now on nothing waits for more to join its commit.
    Hurry,
    /// The segment with this first sequence holds a record that cannot be read.
    Damaged(u64, oneshot::Sender<Result<(), QueueError>>),
    /// Sequences, both inclusive, that were not found in this segment, where they should be.
    Missing {
        segment: Option<u64>,
        first: u64,
        last: u64,
        reply: oneshot::Sender<Result<(), QueueError>>,
    },
}

pub(super) struct Writer {
    store: Store,
    /// Held until the store is closed.
    _lock: Lock,
    appends: mpsc::Receiver<Append>,
    commands: mpsc::Receiver<Command>,
    rule: Rule,
    batch: Batch,
    receipts: Vec<Receipt>,
    most_bytes: usize,
    last_append: Instant,
    blocked: Option<Blocked>,
    rewriter: Rewriter,
    hurry: bool,
    next_expiry: Instant,
    progress: Arc<dyn Fn() + Send + Sync>,
}

struct Blocked {
    since: Instant,
    /// Somebody was told: it is not about to be over.
    told: bool,
    retry: Instant,
    backoff: Backoff,
}

enum Event {
    Append(Option<Box<Append>>),
    Command(Option<Command>),
    Rewritten(Job, Outcome),
    Due,
}

impl Writer {
    pub fn new(
        store: Store,
        lock: Lock,
        appends: mpsc::Receiver<Append>,
        commands: mpsc::Receiver<Command>,
        progress: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let most_bytes = (store.limit.max_size / BATCH_PART).min(BATCH_BYTES);
        Self {
            store,
            _lock: lock,
            appends,
            commands,
            rule: Rule::default(),
            batch: Batch::default(),
            receipts: Vec::new(),
            most_bytes: usize::try_from(most_bytes).unwrap_or(usize::MAX),
            last_append: Instant::now(),
            blocked: None,
            rewriter: Rewriter::default(),
            hurry: false,
            next_expiry: Instant::now() + FIRST_EXPIRY,
            progress,
        }
    }

    /// Runs until both channels are closed, then closes the queue. An error is one that a restart has to cure.
    pub fn run(mut self, runtime: &tokio::runtime::Runtime) -> Result<(), QueueError> {
        let shared = Arc::clone(&self.store.shared);
        let _told = TellStopped(shared);
        let (mut appends_open, mut commands_open) = (true, true);
        while appends_open || commands_open {
            match runtime.block_on(self.event(appends_open, commands_open)) {
                Event::Append(Some(append)) => self.take(*append)?,
                Event::Append(None) => appends_open = false,
                Event::Command(Some(command)) => self.obey(command)?,
                Event::Command(None) => commands_open = false,
                Event::Rewritten(job, outcome) => self.rewritten(job, outcome)?,
                Event::Due => {}
            }
            if self.blocked.is_some() && self.appends.is_closed() {
                // There is no room, and nobody waits any more: what was not acknowledged is sent again.
                appends_open = false;
            }
            self.take_waiting()?;
            self.end_day()?;
            let last_call = !appends_open && !commands_open;
            self.commit_if_due(!appends_open, last_call)?;
            self.keep_release_point()?;
            self.expire_letters();
            self.pack_if_due();
            self.store.say_dropped(Instant::now());
            (self.progress)();
        }
        self.rewriter.stop(&self.store.folder);
        self.store.close()
    }

    async fn event(&mut self, appends_open: bool, commands_open: bool) -> Event {
        let due = self.due();
        let takes = appends_open && self.has_place();
        tokio::select! {
            biased;
            command = self.commands.recv(), if commands_open => Event::Command(command),
            (job, outcome) = self.rewriter.finished() => Event::Rewritten(job, outcome),
            append = self.appends.recv(), if takes => Event::Append(append.map(Box::new)),
            () = tokio::time::sleep_until(due.into()) => Event::Due,
        }
    }

    /// The longest the thread may sleep.
    fn due(&self) -> Instant {
        let idle = Instant::now() + Duration::from_secs(1);
        let wanted = match &self.blocked {
            Some(blocked) => Some(blocked.retry),
            None => self.rule.deadline(),
        };
        wanted.map_or(idle, |wanted| wanted.min(idle))
    }

    fn has_place(&self) -> bool {
        self.blocked.is_none() && self.has_place_but_for_block()
    }

    fn take(&mut self, append: Append) -> Result<(), QueueError> {
        let now = Instant::now();
        if let Some((body, mark)) = append.message {
            let (source, marks) = match &body {
                Body::Reading(reading) => (Arc::clone(&reading.source), reading.marks.clone()),
                Body::Dead(dead) => (Arc::clone(&dead.source), dead.marks.clone()),
                Body::Gap(_) | Body::Daily(_) => ("".into(), Vec::new()),
            };
            let marks = if marks.is_empty() { slice::from_ref(&mark) } else { &marks };
            self.store.prepare(&mut self.batch, body, &source, marks)?;
            self.last_append = now;
            self.rule.joined(now, append.receipt.is_awaited(), append.delay);
        }
        self.receipts.push(append.receipt);
        crate::failpoint::hit("received");
        Ok(())
    }

    /// Group commit: everything that waits goes into the same transaction.
    fn take_waiting(&mut self) -> Result<(), QueueError> {
        while self.has_place() {
            let Ok(append) = self.appends.try_recv() else { break };
            self.take(append)?;
        }
        Ok(())
    }

    /// A day that is over gets the place for its receipt.
    fn end_day(&mut self) -> Result<(), QueueError> {
        // Where nobody appends any more the queue may be a copy: a number given out here would be another's there.
        if !self.has_place() || self.appends.is_closed() {
            return Ok(());
        }
        if let Some(body) = self.store.day_over() {
            self.store.prepare_own(&mut self.batch, body)?;
            self.rule.joined(Instant::now(), false, RECEIPT_DELAY);
        }
        Ok(())
    }

    fn commit_if_due(&mut self, no_more: bool, last_call: bool) -> Result<(), QueueError> {
        let now = Instant::now();
        if self.batch.is_empty() {
            // Receipts of redeliveries only: what they stand for is on disk already.
            self.redeem();
            return Ok(());
        }
        let closed = self.hurry || self.rule.is_closed(now) || !self.has_place_but_for_block() || no_more;
        let held_up = self.blocked.as_ref().is_some_and(|blocked| blocked.retry > now);
        if !closed || (held_up && !last_call) {
            return Ok(());
        }
        self.commit(now)
    }

    fn has_place_but_for_block(&self) -> bool {
        self.batch.len() < MESSAGES && self.batch.size() < self.most_bytes
    }

    fn commit(&mut self, now: Instant) -> Result<(), QueueError> {
        while let Err(reason) = self.store.has_room(self.batch.size() as u64)? {
            match self.store.give_way() {
                Err(error) if error.is_full() => debug!(%error, "no room to begin another segment"),
                result => result?,
            }
            if !self.make_room(now)? {
                self.block(now, &reason);
                return Ok(());
            }
        }
        match self.store.commit(&self.batch) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                let soon = self.make_room(now)?;
                self.block(now, &format_args!("the disk is full: {error}"));
                if let Some(blocked) = self.blocked.as_mut().filter(|_| soon) {
                    blocked.retry = now;
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        crate::failpoint::hit("committed");
        let awaited = self.receipts.iter().any(Receipt::is_awaited);
        self.batch.clear();
        self.redeem();
        self.rule.committed(Instant::now(), awaited);
        self.unblock();
        self.store.keep_wear(now);
        // Before the roll: a start looks for the newest receipt in the newest segment.
        for result in [self.store.keep_open_day(), self.store.roll_if_due()] {
            match result {
                Err(error) if error.is_full() => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn redeem(&mut self) {
        for receipt in self.receipts.drain(..) {
            receipt.redeem();
        }
    }

    /// True if there is more room now. While a segment is rewritten, there will be.
    fn make_room(&mut self, now: Instant) -> Result<bool, QueueError> {
        if self.rewriter.is_busy() {
            return Ok(false);
        }
        match self.store.relieve(now) {
            Ok(Relief::Made) => return Ok(true),
            Ok(Relief::Rewrite(job)) => self.rewrite(job),
            Ok(Relief::None) => {}
            Err(error) if error.is_full() => warn!(%error, "no room to make room, will retry"),
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// What is packed makes room, and while the line is down nothing else does.
    fn pack_if_due(&mut self) {
        if !self.rewriter.is_busy()
            && !self.hurry
            && let Some(job) = self.store.packing_due(Instant::now())
        {
            self.rewrite(job);
        }
    }

    fn rewrite(&mut self, job: Job) {
        if let Err(error) = self.rewriter.start(&self.store.folder, self.store.identity.origin, job) {
            warn!(%error, "no thread to pack a segment with, will retry");
        }
    }

    fn rewritten(&mut self, job: Job, outcome: Outcome) -> Result<(), QueueError> {
        let now = Instant::now();
        self.store.rewritten(job, outcome, now)?;
        if let Some(blocked) = &mut self.blocked {
            blocked.retry = now;
        }
        Ok(())
    }

    fn block(&mut self, now: Instant, reason: &dyn std::fmt::Display) {
        let blocked = self.blocked.get_or_insert_with(|| Blocked {
            since: now,
            told: false,
            retry: now,
            backoff: Backoff::new(FULL_RETRY.0, FULL_RETRY.1),
        });
        blocked.retry = now + blocked.backoff.next(1.0);
        if !blocked.told && !self.rewriter.is_busy() {
            blocked.told = true;
            self.store.metrics.queue.blocked.set(true);
            error!(%reason, "the queue has no room: nothing is acknowledged until there is some; sending goes on");
        }
    }

    fn unblock(&mut self) {
        if let Some(blocked) = self.blocked.take().filter(|blocked| blocked.told) {
            self.store.metrics.queue.blocked.set(false);
            info!(blocked_s = blocked.since.elapsed().as_secs(), "the queue has room again");
            self.store.keep_reserve();
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), QueueError> {
        match command {
            Command::Release(next) => {
                let made_room = match self.store.release(next) {
                    // What could not be unlinked is, with a later release.
                    Err(error) if error.is_full() => false,
                    result => result?,
                };
                crate::failpoint::hit("released");
                if let Some(blocked) = self.blocked.as_mut().filter(|_| made_room) {
                    blocked.retry = Instant::now();
                }
            }
            Command::SetAside(letters, reply) => answer(reply, self.store.set_aside(&letters))?,
            Command::DeleteLetters(ids, reply) => answer(reply, self.store.delete_letters(&ids))?,
            Command::Fork(why, reply) => answer(reply, self.store.fork(&why))?,
            Command::Keep(ledger, reply) => answer(reply, self.store.keep_ledger(*ledger))?,
            Command::Hurry => self.hurry = true,
            Command::Filters(source, filters) => match self.store.remember_filters(&source, filters) {
                Err(error) if error.is_full() => warn!(source, "no room to remember the filters of a source"),
                result => result?,
            },
            Command::Missing { segment, first, last, reply } => {
                self.rewriter.stop(&self.store.folder);
                answer(reply, self.store.miss(segment, first, last))?;
            }
            Command::Damaged(first, reply) => {
                warn!(segment = first, "a segment cannot be read and is salvaged");
                self.rewriter.stop(&self.store.folder);
                let result = if first == self.store.newest {
                    Err(QueueError::Unsalvageable { first })
                } else {
                    self.store.salvage(first)
                };
                answer(reply, result)?;
            }
        }
        Ok(())
    }

    fn expire_letters(&mut self) {
        let now = Instant::now();
        if now >= self.next_expiry {
            self.next_expiry = now + EXPIRY;
            self.store.expire_letters();
        }
    }

    /// When readings pause, no record carries the release point: it is put on disk by itself.
    fn keep_release_point(&mut self) -> Result<(), QueueError> {
        if self.batch.is_empty() && self.last_append.elapsed() >= PAUSE {
            return match self.store.write_released() {
                Err(error) if error.is_full() => Ok(()),
                result => result,
            };
        }
        Ok(())
    }
}

/// Tells the asker. What only lacks room is the asker's to try again; anything else ends the writer as well.
fn answer<T>(reply: oneshot::Sender<Result<T, QueueError>>, result: Result<T, QueueError>) -> Result<(), QueueError> {
    match result {
        Err(error) if !error.is_full() => {
            let _ = reply.send(Err(QueueError::Stopped));
            Err(error)
        }
        result => {
            let _ = reply.send(result);
            Ok(())
        }
    }
}

/// Wakes everybody who waits for records, however the writer ends.
struct TellStopped(Arc<Shared>);

impl Drop for TellStopped {
    fn drop(&mut self) {
        self.0.change(|state| state.stopped = true);
    }
}
