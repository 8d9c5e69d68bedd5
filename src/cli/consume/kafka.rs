//! The consumer: reads committed records only, and commits what was printed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::super::cluster::{Address, subscribed};
use super::client::{self, Troubles};
use super::from::From;
use super::record::Record;

/// How long finding offsets by time may take.
const LOOKUP: Duration = Duration::from_secs(10);

pub(super) fn library_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// What is read, from where on, and as which group.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: Address,
    pub(super) group: String,
    pub(super) from: Option<From>,
}

/// What the cluster had to say.
pub(super) enum Heard {
    Record(Record),
    /// Something a person should know; it goes on by itself.
    News(String),
    Fatal(String),
    Nothing,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ReaderError {
    #[error("the consumer cannot be made: {0}")]
    Make(String),
    #[error("cannot subscribe to {topics}: {why}")]
    Subscribe { topics: String, why: String },
}

pub(super) struct Reader {
    consumer: BaseConsumer<Group>,
    brokers: String,
}

/// What the library's callbacks need.
struct Group {
    from: Option<From>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The next offset of each partition, of what was written to an output that still buffers it.
    written: HashMap<(String, i32), i64>,
    /// The next offset of each partition, of what was shown.
    positions: HashMap<(String, i32), i64>,
    /// Whether `positions` holds more than was committed.
    dirty: bool,
    /// News that callbacks have.
    news: VecDeque<String>,
    troubles: Troubles,
}

impl Group {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `--from` in place of the group's own offsets, for partitions that were not read yet.
    fn place(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) -> KafkaResult<()> {
        let Some(from) = self.from else { return Ok(()) };
        let read = self.state().positions.clone();
        let mut fresh = TopicPartitionList::new();
        let assigned: Vec<(String, i32)> =
            partitions.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        for key in assigned {
            let offset = match (read.get(&key), from) {
                (Some(next), _) => Offset::Offset(*next),
                (None, From::Beginning) => Offset::Beginning,
                (None, From::End) => Offset::End,
                (None, From::Offset(offset)) => {
                    let (low, high) = consumer.fetch_watermarks(&key.0, key.1, LOOKUP)?;
                    let there = offset.clamp(low, high.max(low));
                    if there != offset {
                        let (topic, partition) = &key;
                        let news = format!("{topic}/{partition} has offsets {low} to {high}: reading from {there}");
                        self.state().news.push_back(news);
                    }
                    Offset::Offset(there)
                }
                (None, From::Time(time)) => {
                    fresh.add_partition_offset(&key.0, key.1, Offset::Offset(time.as_millisecond()))?;
                    continue;
                }
            };
            partitions.set_partition_offset(&key.0, key.1, offset)?;
        }
        if fresh.count() > 0 {
            for element in consumer.offsets_for_times(fresh, LOOKUP)?.elements() {
                element.error()?;
                partitions.set_partition_offset(element.topic(), element.partition(), element.offset())?;
            }
        }
        Ok(())
    }
}

impl ClientContext for Group {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.state().troubles.log(facility, message);
    }

    fn error(&self, _error: KafkaError, reason: &str) {
        self.state().troubles.error(reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let done = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let placed = self.place(consumer, partitions);
            let mut state = self.state();
            state.troubles.over();
            state.news.push_back(match (partitions.count(), placed) {
                (_, Err(error)) => {
                    format!("cannot find where to begin: {error}; reading from where the group left off")
                }
                (0, Ok(())) => "connected; other members of the group read all partitions".to_owned(),
                (1, Ok(())) => "connected: 1 partition".to_owned(),
                (count, Ok(())) => format!("connected: {count} partitions"),
            });
            drop(state);
            consumer.assign(partitions)
        } else {
            self.commit(consumer, CommitMode::Sync);
            consumer.unassign()
        };
        if let Err(error) = done {
            self.state().news.push_back(format!("cannot take part in the group: {error}"));
        }
    }
}

impl Group {
    /// Commits what was shown. A failure is no harm: the next commit takes it with it, or it is shown again.
    fn commit(&self, consumer: &BaseConsumer<Self>, mode: CommitMode) {
        let mut state = self.state();
        if !std::mem::take(&mut state.dirty) {
            return;
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), next) in &state.positions {
            let _ = offsets.add_partition_offset(topic, *partition, Offset::Offset(*next));
        }
        drop(state);
        if consumer.commit(&offsets, mode).is_err() {
            self.state().dirty = true;
        }
    }
}

impl Reader {
    /// Joins the group; the cluster need not be there yet.
    pub(super) fn new(connection: &Connection) -> Result<Self, ReaderError> {
        let offset_reset = if connection.from == Some(From::End) { "latest" } else { "earliest" };
        let preferences = [
            // A topic that comes later is noticed within seconds, not within five minutes.
            ("topic.metadata.refresh.interval.ms", "5000"),
            // A consumer that was killed does not hold up the next one for the default of 45 s.
            ("session.timeout.ms", "10000"),
            ("auto.offset.reset", offset_reset),
        ];
        let mut config = client::config(&connection.address, "meterferry-consume", &preferences);
        config.set("group.id", &connection.group);
        let group = Group { from: connection.from, state: Mutex::default() };
        let consumer: BaseConsumer<Group> =
            config.create_with_context(group).map_err(|error| ReaderError::Make(error.to_string()))?;
        let topics: Vec<String> = connection.address.topics.iter().map(|topic| subscribed(topic)).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|error| ReaderError::Subscribe {
            topics: connection.address.topics.join(", "),
            why: error.to_string(),
        })?;
        Ok(Self { consumer, brokers: connection.address.brokers.clone() })
    }

    /// What comes within `limit`.
    pub(super) fn hear(&self, limit: Duration) -> Heard {
        let news = self.consumer.context().state().news.pop_front();
        if let Some(news) = news {
            return Heard::News(news);
        }
        let heard = self.consumer.poll(limit);
        let mut state = self.consumer.context().state();
        match heard {
            None => Heard::Nothing,
            Some(Ok(message)) => {
                state.troubles.over();
                Heard::Record(client::record(&message))
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => Heard::Fatal(format!("Kafka: {code}")),
            Some(Err(error)) => state.troubles.tell(&error, &self.brokers).map_or(Heard::Nothing, Heard::News),
        }
    }

    /// `record` was written; it counts as shown with the next [`Reader::flushed`].
    pub(super) fn written(&self, record: &Record) {
        let mut state = self.consumer.context().state();
        state.written.insert((record.topic.clone(), record.partition), record.offset + 1);
    }

    /// All that was written was shown, and may be committed.
    pub(super) fn flushed(&self) {
        let mut state = self.consumer.context().state();
        let State { written, positions, dirty, .. } = &mut *state;
        *dirty |= !written.is_empty();
        positions.extend(written.drain());
    }

    /// Commits what was shown, in the background.
    pub(super) fn commit(&self) {
        self.consumer.context().commit(&self.consumer, CommitMode::Async);
    }

    /// Commits what was shown, waits for it, and leaves the group.
    pub(super) fn leave(self) {
        self.consumer.context().commit(&self.consumer, CommitMode::Sync);
        drop(self.consumer);
    }
}
