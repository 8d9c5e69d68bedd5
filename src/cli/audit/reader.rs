//! Reads all partitions of some topics from a place on to where they end now, in the order of their timestamps as far as
//! each partition's own order allows. Joins no group and commits nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::cluster::{Address, is_by_template};
use super::super::consume;
use super::super::consume::client::Troubles;
use super::super::consume::record::Record;
use super::tally::Kept;
use crate::config::settings::is_of_device;
use crate::forwarder::kafka::Administrator;
use crate::forwarder::outcome::Call;
use crate::reading::CE_TYPE_OURS;
use crate::shutdown::Shutdown;

/// How long Kafka may be out of reach, or a partition silent, before the audit gives up.
const SILENCE: Duration = Duration::from_secs(60);
/// One wait for an answer; what a signal waits for at most.
const SLICE: Duration = Duration::from_secs(1);
/// One question to a broker.
const QUESTION: Duration = Duration::from_secs(10);
/// Between two looks whether a transaction has ended.
const LOOK: Duration = Duration::from_millis(200);
/// Kilobytes of records that wait in the client library, over all partitions, before its own overhead: as much again.
const WAITING_KB: usize = 8 * 1024;
/// Records that wait there, over all partitions: enough to hide the way to the broker.
const WAITING: usize = 10_000;
/// The least of both for one partition.
const LEAST: usize = 64;
/// Records of somebody else in front of an agent's first one.
const LOOKED_AT: usize = 1_000;
/// How far ahead of Kafka's clock an agent's may be: Kafka takes no more (`message.timestamp.after.max.ms`, by default).
const AHEAD_MS: i64 = 60 * 60 * 1000;
/// What Kafka keeps by default (`log.retention.hours`), where a topic's configuration may not be read.
const RETENTION_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ReadError {
    #[error("the client cannot be made: {0}")]
    Make(String),
    #[error("cannot reach Kafka at {brokers}: {why}\n  hint: {cure}")]
    Unreachable { brokers: String, why: String, cure: &'static str },
    #[error(
        "topic {topic}: {why}\n  hint: name the agents' topics with --topic; reading them needs READ and DESCRIBE on each"
    )]
    Topic { topic: String, why: String },
    #[error("{topic}/{partition}: {why}")]
    Partition { topic: String, partition: i32, why: String },
    #[error(
        "{topic}/{partition}: a transaction has been open for {seconds} s and hides what follows it\n  hint: look at it with kafka-transactions.sh, or try again when it has timed out"
    )]
    Open { topic: String, partition: i32, seconds: u64 },
    #[error("stopped before the end")]
    Stopped,
}

/// One partition on its way through.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) id: i32,
    /// The first offset that Kafka still has.
    pub(super) low: i64,
    /// Where reading began.
    pub(super) start: i64,
    /// In front of that: what was looked at begins here.
    back: i64,
    /// The next offset to read, and where to stop.
    next: i64,
    until: i64,
}

pub(in crate::cli) struct Reader {
    consumer: Arc<BaseConsumer<Ears>>,
    /// Sees the ends of partitions behind open transactions too.
    uncommitted: BaseConsumer<Ears>,
    config: ClientConfig,
    address: Address,
    shutdown: Shutdown,
    pub(super) partitions: Vec<Partition>,
}

/// Keeps what the library says, to tell it where it matters.
#[derive(Default)]
struct Ears(Mutex<Troubles>);

impl Ears {
    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Ears {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.troubles().log(facility, message);
    }

    fn error(&self, _error: KafkaError, reason: &str) {
        self.troubles().error(reason);
    }
}

impl ConsumerContext for Ears {}

impl Reader {
    /// Finds out which partitions there are, where they begin (`from`: at that time), and where they end now.
    pub(in crate::cli) fn open(
        address: &Address,
        from: Option<Timestamp>,
        shutdown: &Shutdown,
    ) -> Result<Self, ReadError> {
        let mut reader = Self {
            consumer: Arc::new(client(&config(address, "read_committed", 1))?),
            uncommitted: client(&config(address, "read_uncommitted", 1))?,
            config: config(address, "read_committed", 1),
            address: address.clone(),
            shutdown: shutdown.clone(),
            partitions: Vec::new(),
        };
        let (templates, mut topics): (Vec<_>, Vec<_>) =
            address.topics.iter().cloned().partition(|topic| is_of_device(topic));
        if !templates.is_empty() {
            let answer = reader.uncommitted.fetch_metadata(None, QUESTION);
            let answer =
                answer.map_err(|error| ReadError::Topic { topic: templates.join(", "), why: error.to_string() })?;
            let names = answer.topics().iter().map(|topic| topic.name());
            let of_device = |name: &&str| templates.iter().any(|template| is_by_template(template, name));
            topics.extend(names.filter(of_device).map(str::to_owned));
        }
        topics.sort();
        topics.dedup();
        for topic in &topics {
            reader.find(topic)?;
        }
        reader.config = config(address, "read_committed", reader.partitions.len());
        reader.consumer = Arc::new(client(&reader.config)?);
        if let Some(from) = from {
            reader.begin_at(from)?;
        }
        reader.extend()?;
        Ok(reader)
    }

    /// Offsets that are still to be read: about as many records, since the marks of transactions count too.
    pub(in crate::cli) fn left(&self) -> u64 {
        self.partitions.iter().map(|partition| (partition.until - partition.next).max(0).unsigned_abs()).sum()
    }

    /// What is kept of each partition, by its place in `partitions`.
    pub(super) fn kept(&mut self) -> Result<Vec<Kept>, ReadError> {
        let now_ms = Timestamp::now().as_millisecond();
        let mut kept = vec![Kept::All; self.partitions.len()];
        let mut limits: HashMap<String, Option<i64>> = HashMap::new();
        for (at, oldest) in self.oldest()? {
            let topic = self.partitions[at].topic.clone();
            let retention_ms = match limits.get(&topic) {
                Some(known) => *known,
                None => *limits.entry(topic.clone()).or_insert(self.retention(&topic)),
            };
            kept[at] = Kept::Since(match retention_ms {
                Some(retention_ms) => since(oldest, retention_ms, now_ms),
                // Deleted by size or by hand, and a reading may be as old as it likes.
                None => i64::MAX,
            });
        }
        Ok(kept)
    }

    /// Of each partition whose beginning was deleted, what is left there.
    fn oldest(&mut self) -> Result<Vec<(usize, Oldest)>, ReadError> {
        let begin: Vec<i64> = self.partitions.iter().map(|partition| partition.next).collect();
        for partition in &mut self.partitions {
            partition.next = if partition.low > 0 { partition.low } else { partition.until };
        }
        let cut: Vec<usize> = (0..begin.len()).filter(|at| self.partitions[*at].low > 0).collect();
        let queues = self.assign()?;
        let mut oldest = Vec::new();
        for at in cut {
            let mut found = Oldest::Nothing;
            let mut looked_at = 0;
            while let Some(queue) = queues[at].as_ref().filter(|_| looked_at < LOOKED_AT) {
                let Some(record) = self.next(queue, at)? else { break };
                looked_at += 1;
                let ours = record.header("ce_type").is_some_and(|kind| kind.starts_with(CE_TYPE_OURS));
                found = match record.timestamp_ms {
                    Some(timestamp_ms) if ours => Oldest::Ours(timestamp_ms),
                    _ => Oldest::Foreign,
                };
                if ours {
                    break;
                }
            }
            oldest.push((at, found));
        }
        for (partition, next) in self.partitions.iter_mut().zip(begin) {
            partition.next = next;
        }
        self.renew()?;
        Ok(oldest)
    }

    /// Goes `width` offsets back in every partition whose beginning was left out, but where `is_settled` says that nothing
    /// is to be found: what [`Reader::read`] hands out then. False if there is nothing.
    pub(super) fn step_back(&mut self, width: i64, is_settled: impl Fn(usize) -> bool) -> Result<bool, ReadError> {
        for (at, partition) in self.partitions.iter_mut().enumerate() {
            partition.until = partition.back;
            if !is_settled(at) {
                partition.back = partition.back.saturating_sub(width).max(partition.low);
            }
            partition.next = partition.back;
        }
        self.renew()?;
        Ok(self.left() > 0)
    }

    /// Nothing that the client has fetched ahead is of use in another place.
    fn renew(&mut self) -> Result<(), ReadError> {
        self.consumer = Arc::new(client(&self.config)?);
        Ok(())
    }

    /// How long the topic keeps records (milliseconds); none: without limit.
    fn retention(&self, topic: &str) -> Option<i64> {
        let asked = Administrator::new(&self.config, QUESTION, Call::Topics);
        let answer = asked.ok().and_then(|administrator| administrator.limits(&[topic.into()]).into_values().next());
        match answer {
            Some(Ok(limits)) => limits.retention_ms,
            Some(Err(_)) | None => Some(RETENTION_MS),
        }
    }

    /// From now on partitions end where they end now. Waits for the transactions that are open there.
    pub(super) fn extend(&mut self) -> Result<(), ReadError> {
        for at in 0..self.partitions.len() {
            let (_, high) = self.watermarks(&self.uncommitted, at)?;
            self.partitions[at].until = high;
        }
        let begin = Instant::now();
        for at in (0..self.partitions.len()).filter(|at| self.partitions[*at].next < self.partitions[*at].until) {
            while self.watermarks(&self.consumer, at)?.1 < self.partitions[at].until {
                let Partition { topic, id, .. } = &self.partitions[at];
                if begin.elapsed() >= SILENCE {
                    let (topic, partition) = (topic.clone(), *id);
                    return Err(ReadError::Open { topic, partition, seconds: SILENCE.as_secs() });
                }
                self.check_stop()?;
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    /// Hands out every committed record up to where partitions ended at the last [`Reader::extend`].
    pub(in crate::cli) fn read<E: From<ReadError>>(
        &mut self,
        mut take: impl FnMut(&Record, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let queues = self.assign().map_err(E::from)?;
        let mut heads = BinaryHeap::new();
        let mut records: Vec<Option<Record>> = self.partitions.iter().map(|_| None).collect();
        let mut due: Vec<usize> = (0..self.partitions.len()).collect();
        loop {
            for at in due.drain(..) {
                let Some(queue) = &queues[at] else { continue };
                if let Some(record) = self.next(queue, at).map_err(E::from)? {
                    heads.push(Reverse((record.timestamp_ms.unwrap_or(i64::MIN), at)));
                    records[at] = Some(record);
                }
            }
            let Some(Reverse((_, at))) = heads.pop() else { return Ok(()) };
            if let Some(record) = records[at].take() {
                take(&record, at)?;
            }
            due.push(at);
        }
    }

    fn assign(&self) -> Result<Vec<Option<PartitionQueue<Ears>>>, ReadError> {
        let make = |error: KafkaError| ReadError::Make(error.to_string());
        let mut list = TopicPartitionList::new();
        let left = |partition: &&Partition| partition.next < partition.until;
        for Partition { topic, id, next, .. } in self.partitions.iter().filter(left) {
            list.add_partition_offset(topic, *id, Offset::Offset(*next)).map_err(make)?;
        }
        self.consumer.assign(&list).map_err(make)?;
        let split = |partition: &Partition| {
            left(&partition).then(|| self.consumer.split_partition_queue(&partition.topic, partition.id)).flatten()
        };
        Ok(self.partitions.iter().map(split).collect())
    }

    /// The partition's next record; none at its end.
    fn next(&mut self, queue: &PartitionQueue<Ears>, at: usize) -> Result<Option<Record>, ReadError> {
        let partition = &mut self.partitions[at];
        let mut silent = None;
        while partition.next < partition.until {
            match queue.poll(if silent.is_none() { Duration::ZERO } else { LOOK }) {
                Some(Ok(message)) => {
                    partition.next = message.offset() + 1;
                    if message.offset() < partition.until {
                        return Ok(Some(consume::client::record(&message)));
                    }
                }
                // Behind `until`, which no open transaction hides any more.
                Some(Err(KafkaError::PartitionEOF(_))) => partition.next = partition.until,
                heard => {
                    let error = heard.and_then(Result::err).or_else(|| self.consumer.poll(Duration::ZERO)?.err());
                    let fail = |why: String| {
                        let Partition { topic, id, .. } = &*partition;
                        ReadError::Partition { topic: topic.clone(), partition: *id, why }
                    };
                    if let Some(why) = error.as_ref().and_then(fatal) {
                        return Err(fail(why));
                    }
                    let since = *silent.get_or_insert_with(Instant::now);
                    if since.elapsed() >= SILENCE {
                        let why = self.consumer.context().troubles().cause().map(str::to_owned);
                        return Err(fail(why.unwrap_or_else(|| format!("no records for {} s", SILENCE.as_secs()))));
                    }
                    if self.shutdown.is_asked() {
                        return Err(ReadError::Stopped);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Adds the partitions of `topic`.
    fn find(&mut self, topic: &str) -> Result<(), ReadError> {
        let begin = Instant::now();
        let fail = |why: String| ReadError::Topic { topic: topic.to_owned(), why };
        let ids = loop {
            let why = match self.uncommitted.fetch_metadata(Some(topic), begin.elapsed().clamp(SLICE, QUESTION)) {
                Ok(metadata) => match metadata.topics().first() {
                    Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
                        break found.partitions().iter().map(|partition| partition.id()).collect::<Vec<_>>();
                    }
                    Some(found) => match found.error().map(RDKafkaErrorCode::from) {
                        Some(RDKafkaErrorCode::LeaderNotAvailable) | None => "it has no leader".to_owned(),
                        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                            return Err(fail("there is no such topic".to_owned()));
                        }
                        Some(code) => return Err(fail(code.to_string())),
                    },
                    None => "Kafka does not know it".to_owned(),
                },
                Err(error) => {
                    drop(self.uncommitted.poll(Duration::ZERO));
                    let heard = self.uncommitted.context().troubles().cause().map(str::to_owned);
                    heard.unwrap_or_else(|| error.to_string())
                }
            };
            self.check_stop()?;
            // A cluster that is there answers at once.
            if begin.elapsed() >= SILENCE / 4 {
                return Err(self.unreachable(why));
            }
        };
        for id in ids {
            self.partitions.push(Partition {
                topic: topic.to_owned(),
                id,
                low: 0,
                start: 0,
                back: 0,
                next: 0,
                until: 0,
            });
            let at = self.partitions.len() - 1;
            let (low, _) = self.watermarks(&self.uncommitted, at)?;
            let partition = &mut self.partitions[at];
            (partition.low, partition.start, partition.back, partition.next) = (low, low, low, low);
        }
        Ok(())
    }

    fn begin_at(&mut self, from: Timestamp) -> Result<(), ReadError> {
        let make = |error: KafkaError| ReadError::Make(error.to_string());
        let mut question = TopicPartitionList::new();
        for Partition { topic, id, .. } in &self.partitions {
            question.add_partition_offset(topic, *id, Offset::Offset(from.as_millisecond())).map_err(make)?;
        }
        let answer =
            self.consumer.offsets_for_times(question, QUESTION).map_err(|error| self.unreachable(error.to_string()))?;
        for at in 0..self.partitions.len() {
            let Partition { topic, id, low, .. } = &self.partitions[at];
            let offset = match answer.find_partition(topic, *id).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset.max(*low),
                // Nothing has come since.
                _ => self.watermarks(&self.uncommitted, at)?.1,
            };
            let partition = &mut self.partitions[at];
            (partition.start, partition.back, partition.next) = (offset, offset, offset);
        }
        Ok(())
    }

    /// The first offset there is, and the one behind the last that `client` may see.
    fn watermarks(&self, client: &BaseConsumer<Ears>, at: usize) -> Result<(i64, i64), ReadError> {
        let Partition { topic, id, .. } = &self.partitions[at];
        let begin = Instant::now();
        loop {
            match client.fetch_watermarks(topic, *id, QUESTION) {
                Ok(watermarks) => return Ok(watermarks),
                Err(error) if begin.elapsed() >= SILENCE || fatal(&error).is_some() => {
                    return Err(ReadError::Partition { topic: topic.clone(), partition: *id, why: error.to_string() });
                }
                Err(_) => self.check_stop()?,
            }
            std::thread::sleep(LOOK);
        }
    }

    fn unreachable(&self, why: String) -> ReadError {
        ReadError::Unreachable { brokers: self.address.brokers.clone(), why, cure: self.address.cure() }
    }

    fn check_stop(&self) -> Result<(), ReadError> {
        if self.shutdown.is_asked() { Err(ReadError::Stopped) } else { Ok(()) }
    }
}

/// What the first records are that a partition still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oldest {
    /// The first one of an agent is dated so (milliseconds since 1970).
    Ours(i64),
    Foreign,
    Nothing,
}

/// What an agent dates since then was sent after all that was deleted, milliseconds since 1970. It was in front of the
/// oldest record there is, or older than the retention; an agent dates what it sends half of the retention back at most.
fn since(oldest: Oldest, retention_ms: i64, now_ms: i64) -> i64 {
    let dated = match oldest {
        Oldest::Ours(dated) => dated,
        Oldest::Foreign => return i64::MAX,
        Oldest::Nothing => now_ms.saturating_sub(retention_ms),
    };
    dated.saturating_add(retention_ms / 2).saturating_add(AHEAD_MS)
}

fn config(address: &Address, isolation: &str, partitions: usize) -> ClientConfig {
    let share = |all: usize| (all / partitions.max(1)).max(LEAST).to_string();
    let (kilobytes, records) = (share(WAITING_KB), share(WAITING));
    let preferences = [
        ("queued.max.messages.kbytes", &*kilobytes),
        ("queued.min.messages", &*records),
        // A record larger than this is read all the same, alone.
        ("fetch.message.max.bytes", "262144"),
        ("fetch.max.bytes", "2097152"),
        ("fetch.wait.max.ms", "100"),
        // A partition whose share is full is asked again soon, not after a second.
        ("fetch.queue.backoff.ms", "5"),
    ];
    let mut config = consume::client::config(address, "meterferry-audit", &preferences);
    config
        // Demanded by the library; partitions are assigned here and nothing is committed.
        .set("group.id", "meterferry-audit")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        // What is deleted while it is read is no loss, and cannot be told from one.
        .set("auto.offset.reset", "error");
    config
}

fn client(config: &ClientConfig) -> Result<BaseConsumer<Ears>, ReadError> {
    config.create_with_context(Ears::default()).map_err(|error| ReadError::Make(error.to_string()))
}

/// What trying again does not cure.
fn fatal(error: &KafkaError) -> Option<String> {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code()? {
        Code::AutoOffsetReset | Code::OffsetOutOfRange => {
            Some("its beginning was deleted while it was read; try again, or begin later (--from)".to_owned())
        }
        code @ (Code::TopicAuthorizationFailed | Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
            Some(code.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::timestamp::{Stamps, TopicLimits};

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    /// Promise 9: however far back an agent dates a reading, one that was sent before the oldest record there is, is dated
    /// earlier than what counts as sent after it.
    #[test]
    fn nothing_that_was_deleted_is_dated_since() {
        let limits = TopicLimits { retention_ms: Some(7 * DAY_MS), before_max_ms: None, compact: false };
        let sent_ms = 100 * DAY_MS;
        let oldest = Stamps::default().next(&"t".into(), 0, &limits, sent_ms).ms;
        assert!(oldest < sent_ms);
        assert!(since(Oldest::Ours(oldest), 7 * DAY_MS, sent_ms) > sent_ms);
        // An empty partition: Kafka deletes what is dated more than seven days ago.
        let deleted = 100 * DAY_MS - 7 * DAY_MS;
        assert!(since(Oldest::Nothing, 7 * DAY_MS, 100 * DAY_MS) > deleted + 7 * DAY_MS / 2);
        assert_eq!(since(Oldest::Foreign, 7 * DAY_MS, sent_ms), i64::MAX);
    }
}
