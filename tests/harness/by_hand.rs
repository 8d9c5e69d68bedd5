//! What an agent would send, made by hand: for what no agent does.

use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::kafka::Kafka;
use super::wait::PATIENT;

/// 2026-06-21T00:00:00Z: when sequence 0 was measured; each further one a second later.
pub const START_MS: i64 = 1_782_000_000_000;

/// One record to be.
#[derive(Debug, Clone, Copy)]
pub struct ByHand<'a> {
    pub queue: u128,
    pub agent: &'a str,
    pub kind: &'a str,
    pub sequence: u64,
    pub key: &'a str,
    pub value: &'a [u8],
    /// Milliseconds since 1970 in Kafka; none: when it is sent.
    pub timestamp_ms: Option<i64>,
}

impl<'a> ByHand<'a> {
    /// A reading of queue 7 of the agent `bed`.
    pub fn reading(sequence: u64, key: &'a str, value: &'a [u8]) -> Self {
        Self { queue: 7, agent: "bed", kind: "io.meterferry.reading", sequence, key, value, timestamp_ms: None }
    }

    pub fn of(self, queue: u128, agent: &'a str) -> Self {
        Self { queue, agent, ..self }
    }

    pub fn kind(self, kind: &'a str) -> Self {
        Self { kind, ..self }
    }
}

/// A producer that sends such records.
pub struct Hand(ThreadedProducer<DefaultProducerContext>);

impl Hand {
    /// Sends at once, outside transactions.
    pub fn new(kafka: &Kafka) -> Self {
        Self(kafka.client().set("partitioner", "murmur2_random").create().expect("a producer"))
    }

    /// Sends in transactions: [`Hand::begin`], then [`Hand::commit`] or [`Hand::abort`].
    pub fn transactional(kafka: &Kafka, id: &str) -> Self {
        let mut config = kafka.client();
        config.set("partitioner", "murmur2_random").set("transactional.id", format!("by-hand-{id}"));
        let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
        producer.init_transactions(PATIENT).expect("Kafka answers");
        Self(producer)
    }

    pub fn begin(&self) {
        self.0.begin_transaction().expect("no transaction is open");
    }

    pub fn commit(&self) {
        self.0.commit_transaction(PATIENT).expect("Kafka commits");
    }

    pub fn abort(&self) {
        self.0.abort_transaction(PATIENT).expect("Kafka aborts");
    }

    /// Waits until Kafka has everything.
    pub fn flush(&self) {
        self.0.flush(PATIENT).expect("Kafka takes it");
    }

    pub fn send(&self, topic: &str, record: &ByHand<'_>) {
        let ByHand { queue, agent, kind, sequence, key, value, timestamp_ms } = record;
        let time = jiff::Timestamp::from_millisecond(START_MS + i64::try_from(*sequence).expect("small") * 1000);
        let (time, id) = (time.expect("a time").to_string(), format!("{queue:032x}-{sequence}"));
        let (source, padded) = (format!("/{agent}/meter"), format!("{sequence:020}"));
        let mut headers = OwnedHeaders::new();
        for (key, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", &*id),
            ("ce_source", &source),
            ("ce_type", kind),
            ("ce_time", &time),
            ("ce_sequence", &padded),
            ("content-type", "application/json"),
        ] {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record = BaseRecord::to(topic).key(*key).payload(*value).headers(headers);
        record.timestamp = *timestamp_ms;
        loop {
            match self.0.send(record) {
                Ok(()) => return,
                Err((error, again)) => {
                    let full = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull);
                    assert!(full, "{error}");
                    record = again;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
}
