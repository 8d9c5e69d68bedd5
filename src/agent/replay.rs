//! Dead letters back into the queue, without the agent: decode → queue, and only then the letter is deleted.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::agent::ingest::is_cut_short;
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::decode;
use crate::metrics::Metrics;
use crate::queue::inspect::Inspector;
use crate::queue::letters::LetterId;
use crate::queue::{self, OpenError, Outlet, Queue, QueueError, Recovered};
use crate::reading::{Body, DeadLetter, Kind, Mark, Reading};
use crate::receipt::{Receipt, Ticket};

/// Letters between two deletions. The redelivery window remembers so many in any configuration: a replay that was killed
/// between commit and deletion is recognised by it.
const BATCH: usize = 10;
/// How long the disk is given for a commit.
const COMMIT: Duration = Duration::from_secs(60);

/// What became of one letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It waits in the queue under this sequence.
    Queued(u64),
    /// An earlier replay had put it there.
    WasQueued,
    /// It stays a dead letter, and why.
    Refused(String),
}

/// Why a replay ended early. What had been put into the queue stays there.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(
        "the queue has no room for them\n  hint: free the disk or raise queue.max_size, or let the agent send what waits first"
    )]
    NoRoom,
    #[error("the runtime cannot be started")]
    Runtime(#[source] std::io::Error),
}

/// Decodes the letters of `ids` as their sources are configured now, and appends them to the queue that `options` opens.
/// `tell` hears of each in order.
///
/// # Errors
///
/// [`OpenError::Locked`] where an agent has the queue.
pub fn replay(
    settings: &Settings,
    options: &queue::Options,
    ids: &[LetterId],
    tell: impl FnMut(LetterId, Outcome),
) -> Result<(), ReplayError> {
    let inspector = Inspector::open(&options.path)?;
    let metrics = Metrics::new(settings.sources.iter().map(|source| &source.name));
    let Queue { intake, mut outlet, writer, recovered } = queue::open(options, metrics, Clock::new(), Arc::new(|| {}))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(ReplayError::Runtime)?;
    let mut replay = Replay { settings, inspector, recovered, tell };
    let mut result = Ok(());
    for batch in ids.chunks(BATCH) {
        result = replay.batch(batch, &intake, &mut outlet, &runtime);
        if result.is_err() {
            break;
        }
    }
    drop((intake, outlet));
    let closed = writer.join();
    result.and(closed.map_err(ReplayError::from))
}

struct Replay<'s, T> {
    settings: &'s Settings,
    inspector: Inspector,
    recovered: Recovered,
    tell: T,
}

impl<T: FnMut(LetterId, Outcome)> Replay<'_, T> {
    fn batch(
        &mut self,
        ids: &[LetterId],
        intake: &queue::Intake,
        outlet: &mut Outlet,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<(), ReplayError> {
        let mut letters = Vec::new();
        self.inspector.visit_letters(ids, |letter| {
            letters.push(letter);
            ControlFlow::Continue(())
        })?;
        let (mut done, mut outcomes, mut sequence) = (Vec::new(), Vec::new(), outlet.end());
        let (counter, mut committed) = mpsc::channel(BATCH);
        for letter in letters {
            let id = (letter.queue_id, letter.sequence);
            let outcome = match self.decoded(letter) {
                Err(reason) => Outcome::Refused(reason),
                Ok((reading, mark)) if self.is_known(&reading, &mark) => {
                    done.push(id);
                    Outcome::WasQueued
                }
                Ok((reading, mark)) => {
                    let receipt = Receipt::new(counter.clone(), Ticket { connection: 1, ordinal: sequence });
                    runtime.block_on(intake.append(Body::Reading(reading), mark, receipt, Duration::ZERO))?;
                    done.push(id);
                    sequence += 1;
                    Outcome::Queued(sequence - 1)
                }
            };
            outcomes.push((id, outcome));
        }
        drop(counter);
        let appended = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Queued(_))).count();
        let all = async {
            for _ in 0..appended {
                committed.recv().await.ok_or(QueueError::Stopped)?;
            }
            Ok::<_, QueueError>(())
        };
        match runtime.block_on(async { tokio::time::timeout(COMMIT, all).await }) {
            Ok(result) => result?,
            Err(_) => return Err(ReplayError::NoRoom),
        }
        crate::failpoint::hit("replayed");
        outlet.delete_letters(done)?;
        for (id, outcome) in outcomes {
            (self.tell)(id, outcome);
        }
        Ok(())
    }

    /// Whether a replay that was killed had appended it already.
    fn is_known(&self, reading: &Reading, mark: &Mark) -> bool {
        let marks = self.recovered.marks.get(&*reading.source);
        marks
            .is_some_and(|marks| marks.iter().any(|known| known.sender == mark.sender && known.content == mark.content))
    }

    /// The letter as a reading, by today's configuration, or why it still is none.
    fn decoded(&self, letter: DeadLetter) -> Result<(Reading, Mark), String> {
        let sender = Reading::replay_sender(&format!("{}-{}", letter.queue_id, letter.sequence));
        let (source, topic, received, payload) = match letter.body {
            // A reading that is not as its device wrote it was decoded once and for all.
            Body::Reading(reading) if reading.kind != Kind::Measured || !reading.marks.is_empty() => {
                let mark = Mark::of(&sender, None, &reading.topic, &reading.payload, false);
                return Ok((Reading { sender, packet_id: None, marks: vec![mark], ..reading }, mark));
            }
            Body::Reading(reading) => (reading.source, reading.topic, reading.received, reading.payload),
            Body::Dead(dead) if is_cut_short(&dead.reason) => {
                return Err("only the beginning of its payload was kept".to_owned());
            }
            Body::Dead(dead) => (dead.source, dead.topic, dead.received, dead.payload),
            Body::Gap(_) | Body::Daily(_) => return Err("it is no reading".to_owned()),
        };
        let Some(configured) = self.settings.sources.iter().find(|known| known.name == source) else {
            return Err(format!("source {source} is not configured: how it is decoded is not known"));
        };
        let (size, limit) = (payload.len(), self.settings.queue.max_reading_size);
        if size > limit {
            return Err(format!("it has {size} bytes, queue.max_reading_size is {limit}"));
        }
        let decoded = decode::decode(&configured.payload, &source, &topic, &payload).map_err(|why| why.to_string())?;
        let mark = Mark::of(&sender, None, &topic, &payload, decoded.self_identified);
        let reading = Reading {
            source,
            device: decoded.device,
            topic,
            sender,
            packet_id: None,
            received,
            measured_ms: decoded.measured_ms,
            self_identified: decoded.self_identified,
            json: decoded.json,
            kind: Kind::Measured,
            marks: Vec::new(),
            payload,
        };
        Ok((reading, mark))
    }
}
