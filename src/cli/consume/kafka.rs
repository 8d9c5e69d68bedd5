//! The consumer: reads committed records only, and commits what was printed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::from::From;
use super::record::Record;

/// How long finding offsets by time may take.
const LOOKUP: Duration = Duration::from_secs(10);

pub(super) fn library_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// What is read, and how the cluster is reached.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) brokers: String,
    pub(super) topics: Vec<String>,
    pub(super) group: String,
    pub(super) from: Option<From>,
    pub(super) properties: Vec<(String, String)>,
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
    /// The reason of the last failed connection, from the library's log.
    failure: Option<String>,
    /// News that callbacks have.
    news: VecDeque<String>,
    /// The trouble last told, so that it is told once.
    told: Option<Trouble>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    Unreachable,
    Other(RDKafkaErrorCode),
}

impl Trouble {
    /// Whether `next` is news no more: the same, or what a broker that cannot be used looks like in the end.
    fn explains(&self, next: &Self) -> bool {
        let refused = matches!(self, Self::Other(RDKafkaErrorCode::SSL | RDKafkaErrorCode::Authentication));
        self == next || (refused && *next == Self::Unreachable)
    }
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
                (None, From::Offset(offset)) => Offset::Offset(offset),
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
        if facility == "FAIL" || facility == "ERROR" {
            self.state().failure = Some(plain(message));
        }
    }

    fn error(&self, _error: KafkaError, reason: &str) {
        // The log has told the cause; this may only say that all brokers are down.
        self.state().failure.get_or_insert_with(|| plain(reason));
    }
}

/// Without the thread, the role and the broker in front, which the library repeats.
fn plain(message: &str) -> String {
    let mut message = message.split_once("]: ").map_or(message, |(_, rest)| rest);
    while let Some((_, rest)) = message.split_once(": ").filter(|(label, _)| !label.contains(' ')) {
        message = rest;
    }
    message.to_owned()
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let done = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let placed = self.place(consumer, partitions);
            let mut state = self.state();
            state.told = None;
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
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &connection.brokers)
            .set("client.id", "meterferry-consume")
            // A topic that comes later is noticed within seconds, not within five minutes.
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("reconnect.backoff.max.ms", "5000")
            // A consumer that was killed does not hold up the next one for the default of 45 s.
            .set("session.timeout.ms", "10000")
            .set("auto.offset.reset", if connection.from == Some(From::End) { "latest" } else { "earliest" });
        for (key, value) in &connection.properties {
            config.set(key, value);
        }
        // These make what is shown true, and are not for sale.
        config
            .set("group.id", &connection.group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        let group = Group { from: connection.from, state: Mutex::default() };
        let consumer: BaseConsumer<Group> =
            config.create_with_context(group).map_err(|error| ReaderError::Make(error.to_string()))?;
        let topics: Vec<&str> = connection.topics.iter().map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| ReaderError::Subscribe { topics: connection.topics.join(", "), why: error.to_string() })?;
        Ok(Self { consumer, brokers: connection.brokers.clone() })
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
                state.told = None;
                Heard::Record(record(&message))
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => Heard::Fatal(format!("Kafka: {code}")),
            Some(Err(error)) => self.trouble(&mut state, &error),
        }
    }

    /// Each trouble is told once until things go well again.
    fn trouble(&self, state: &mut State, error: &KafkaError) -> Heard {
        use RDKafkaErrorCode as Code;
        let Some(code) = error.rdkafka_error_code() else { return Heard::News(error.to_string()) };
        let trouble = match code {
            Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve => Trouble::Unreachable,
            code => Trouble::Other(code),
        };
        if state.told.as_ref().is_some_and(|told| told.explains(&trouble)) {
            return Heard::Nothing;
        }
        state.told = Some(trouble);
        Heard::News(match code {
            Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve => {
                let why = state.failure.take().unwrap_or_else(|| code.to_string());
                format!("cannot reach Kafka at {}: {why}; trying again", self.brokers)
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic => {
                "the topic is not there yet; waiting for it".to_owned()
            }
            Code::SSL | Code::Authentication => {
                let what = if code == Code::SSL { "no TLS with" } else { "no login at" };
                let why = state.failure.take().unwrap_or_else(|| code.to_string());
                format!("{what} Kafka at {}: {why}; trying again", self.brokers)
            }
            Code::TopicAuthorizationFailed => format!("{code}; it needs READ on the topic; trying again"),
            Code::GroupAuthorizationFailed => format!("{code}; it needs READ on the group; trying again"),
            code => {
                let why = state.failure.take().map(|why| format!(": {why}")).unwrap_or_default();
                format!("{code}{why}; trying again")
            }
        })
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

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        let owned =
            |header: rdkafka::message::Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        headers.iter().map(owned).collect()
    });
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What keeps a client out is told once, although the library calls its brokers unreachable between two attempts.
    #[test]
    fn a_refusal_is_told_once() {
        let (tls, login) = (Trouble::Other(RDKafkaErrorCode::SSL), Trouble::Other(RDKafkaErrorCode::Authentication));
        assert!(tls.explains(&tls) && tls.explains(&Trouble::Unreachable) && login.explains(&Trouble::Unreachable));
        assert!(!tls.explains(&login) && !Trouble::Unreachable.explains(&tls));
    }

    /// A person is told the cause, without the library's labels.
    #[test]
    fn causes_are_plain() {
        for (message, cause) in [
            (
                "[thrd:a:1/bootstrap]: a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: no",
                "Connect to ipv4#127.0.0.1:1 failed: no",
            ),
            ("GroupCoordinator: a:1: Connect failed", "Connect failed"),
            ("Failed to resolve 'a:1': unknown", "Failed to resolve 'a:1': unknown"),
            ("", ""),
        ] {
            assert_eq!(plain(message), cause);
        }
    }
}
