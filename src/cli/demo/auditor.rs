//! The consumer on the other side: reads every record of the demo's topic, and tells the audit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::audit::Audit;
use super::board::Board;
use crate::reading::{CE_TYPE_GAP, CE_TYPE_OURS, CE_TYPE_READING};
use crate::shutdown::Shutdown;

/// How long one wait for a record or for metadata takes at most, and so how soon a stop is seen.
const POLL: Duration = Duration::from_millis(200);

/// The audit, which meters and auditor both write to.
pub type SharedAudit = Arc<Mutex<Audit>>;

/// The audit, also after somebody panicked over it.
pub fn lock(audit: &SharedAudit) -> MutexGuard<'_, Audit> {
    audit.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A consumer on a thread of its own. Stops when dropped.
pub struct Auditor {
    stop: Shutdown,
    thread: Option<JoinHandle<()>>,
    trouble: Arc<Mutex<Option<String>>>,
}

/// The auditor cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AuditorError {
    #[error("the auditor's consumer cannot be made")]
    Consumer(#[from] KafkaError),
    #[error("the auditor's thread cannot be started")]
    Thread(#[from] std::io::Error),
}

impl Auditor {
    /// Reads `topic` from its beginning; it need not be there yet.
    pub fn start(servers: &str, topic: &str, audit: SharedAudit, board: Arc<Board>) -> Result<Self, AuditorError> {
        let trouble = Arc::new(Mutex::new(None));
        let consumer: BaseConsumer<Ears> = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("client.id", "meterferry-demo-auditor")
            // Demanded by the library; partitions are assigned here and nothing is committed.
            .set("group.id", "meterferry-demo-auditor")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "500")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100")
            .create_with_context(Ears { trouble: Arc::clone(&trouble) })?;
        let stop = Shutdown::new();
        let reading =
            Reading { consumer, topic: topic.to_owned(), audit, board, stop: stop.clone(), next: HashMap::new() };
        let thread = thread::Builder::new().name("auditor".to_owned()).spawn(move || reading.run())?;
        Ok(Self { stop, thread: Some(thread), trouble })
    }

    /// The last trouble with the cluster, for a story that failed.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keeps what the library says to itself: an unreachable cluster is part of the story.
struct Ears {
    trouble: Arc<Mutex<Option<String>>>,
}

impl ClientContext for Ears {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, _error: KafkaError, reason: &str) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ConsumerContext for Ears {}

struct Reading {
    consumer: BaseConsumer<Ears>,
    topic: String,
    audit: SharedAudit,
    board: Arc<Board>,
    stop: Shutdown,
    /// The next offset of each partition: nothing may be counted twice because it was read twice.
    next: HashMap<i32, i64>,
}

impl Reading {
    fn run(mut self) {
        while !self.stop.is_asked() && !self.assign() {
            thread::sleep(POLL / 4);
        }
        while !self.stop.is_asked() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => Self::take(&mut self.next, &self.audit, &self.board, &message),
                Some(Err(error)) => self.consumer.context().error(error.clone(), &error.to_string()),
                None => {}
            }
        }
    }

    /// Takes all partitions of the topic, without a group: none is to be shared, and a group takes seconds to gather.
    fn assign(&self) -> bool {
        drop(self.consumer.poll(Duration::ZERO));
        let Ok(metadata) = self.consumer.fetch_metadata(Some(&self.topic), POLL) else { return false };
        let Some(topic) = metadata.topics().first().filter(|topic| topic.error().is_none()) else { return false };
        let mut partitions = TopicPartitionList::new();
        for partition in topic.partitions() {
            let added = partitions.add_partition_offset(&self.topic, partition.id(), Offset::Beginning);
            if added.is_err() {
                return false;
            }
        }
        partitions.count() > 0 && self.consumer.assign(&partitions).is_ok()
    }

    fn take(next: &mut HashMap<i32, i64>, audit: &SharedAudit, board: &Board, message: &BorrowedMessage<'_>) {
        let expected = next.entry(message.partition()).or_insert(0);
        if message.offset() < *expected {
            return;
        }
        *expected = message.offset() + 1;
        let mut audit = lock(audit);
        match header(message, "ce_type") {
            Some(kind) if kind == CE_TYPE_GAP.as_bytes() => return audit.gap(),
            // A daily receipt, when midnight comes during the demo.
            Some(kind) if kind != CE_TYPE_READING.as_bytes() && kind.starts_with(CE_TYPE_OURS.as_bytes()) => return,
            _ => {}
        }
        let (key, document) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
        audit.delivered(key, document, header(message, "ce_id"));
        let seen = audit.seen();
        drop(audit);
        board.change(|figures| figures.delivered = seen);
    }
}

fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m [u8]> {
    let headers = message.headers()?;
    headers.iter().find(|header| header.key == name).and_then(|header| header.value)
}
