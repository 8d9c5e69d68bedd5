//! From the queue to Kafka, on a thread of its own: batches, one transaction each, with the resume point in it.
//!
//! The forwarder sees the queue as a [`Backlog`] and Kafka as a [`cluster::Cluster`], which `kafka/` makes of the client
//! library. In the order of a reading's way:
//!
//! - [`supply`]: short reads from the queue; dead letters put away, holes named.
//! - [`record`], [`topic`], [`timestamp`]: what a record says, where and when. Pure.
//! - [`batch`]: how much one transaction may carry. Pure.
//! - [`transfer`]: the loop. It connects, settles where to go on ([`resume`], pure), and carries one transaction after the
//!   other; a failed call ends the session, and [`outcome`] (pure) says what is done about it.
//! - [`advice`], [`grant`] (pure), [`trouble`]: what a person is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::settings;
use crate::daily::Ledger;
use crate::metrics::Metrics;
use crate::reading::{DeadLetter, Entry, Fingerprint, QueueId};
use crate::shutdown::Shutdown;

pub use kafka::{takes_property, takes_tls};

pub mod advice;
pub mod batch;
pub mod cluster;
pub mod grant;
pub mod kafka;
pub mod outcome;
pub mod record;
pub mod resume;
pub mod supply;
pub mod timestamp;
pub mod topic;
pub mod transfer;
pub mod trouble;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

/// Carries the queue to Kafka.
pub struct Forwarder {
    pub settings: settings::Kafka,
    pub agent_id: String,
    /// Kafka topic of each source.
    pub topics: BTreeMap<Arc<str>, String>,
    pub backlog: Box<dyn Backlog>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// How long to wait for a synchronised clock before it is believed as it is.
    pub clock_wait: Duration,
    pub shutdown: Shutdown,
    /// Called whenever the loop or a wait within it has come a step further; feeds the watchdog. At least every 5 s, but
    /// for a call of the client library that takes up to `settings.request_timeout`.
    pub heartbeat: Arc<dyn Fn() + Send + Sync>,
}

impl Forwarder {
    /// Runs until a stop is asked for; blocks, so it wants a thread of its own. A transaction that is open then is finished
    /// if that takes a few seconds, else left to the next start, which ends it.
    ///
    /// # Errors
    ///
    /// Only where the queue cannot be used: nothing that Kafka does ends it.
    pub fn run(self) -> Result<(), BacklogError> {
        if self.settings.bootstrap_servers.is_empty() {
            self.metrics.forwarder.unconfigured.set(true);
            // Readings are kept and not sent; the warning, with the file's name, came when that was read.
            while !self.shutdown.is_asked() {
                transfer::pause(Duration::from_secs(1), &self.shutdown, self.heartbeat.as_ref());
            }
            return Ok(());
        }
        let settings = self.settings;
        let cluster = kafka::Broker::new(
            settings.clone(),
            &self.agent_id,
            self.topics.values().map(String::as_str),
            self.shutdown.clone(),
            Arc::clone(&self.heartbeat),
        );
        let clock = self.clock;
        let parts = transfer::Parts {
            names: names(&settings, &self.agent_id),
            agent_id: self.agent_id,
            topics: self.topics,
            assumed: assumed(&settings),
            most: batch::Allowance { records: settings.batch_count, bytes: settings.batch_size },
            linger: settings.linger,
            retry_max_delay: settings.retry_max_delay,
            clock_wait: self.clock_wait,
            backlog: self.backlog,
            cluster: Box::new(cluster),
            metrics: self.metrics,
            shutdown: self.shutdown,
            heartbeat: self.heartbeat,
            now: Box::new(move || clock.now()),
            random: Box::new(rand::random::<f64>),
        };
        transfer::Transfer::new(parts).run()
    }
}

/// The consumer group, and transactional id, of one queue.
pub fn group(agent_id: &str, queue_id: QueueId) -> String {
    format!("meterferry.{agent_id}.{queue_id}")
}

/// What stands in the advice to a person.
pub fn names(settings: &settings::Kafka, agent_id: &str) -> advice::Names {
    advice::Names {
        server: settings.bootstrap_servers.first().cloned().unwrap_or_default(),
        user: settings.sasl.as_ref().map(|sasl| sasl.username.clone()),
        agent_id: agent_id.to_owned(),
        topic: settings.topic.clone(),
        resume_topic: settings.resume_topic.clone(),
        transactional: settings.delivery == settings::Delivery::ExactlyOnce,
        partitions: settings.partitions,
        replication: settings.replication,
    }
}

fn assumed(settings: &settings::Kafka) -> timestamp::TopicLimits {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    timestamp::TopicLimits {
        retention_ms: Some(ms(settings.retention)),
        before_max_ms: settings.timestamp_before_max.map(ms),
        compact: false,
    }
}

/// The queue as the forwarder sees it. Every method may block on the disk.
pub trait Backlog: Send {
    fn queue_id(&self) -> QueueId;

    /// The next sequence that is not yet safely in Kafka.
    fn release_point(&self) -> u64;

    /// One past the newest committed sequence.
    fn end(&self) -> u64;

    /// Committed records from `from` on, in order of sequence: at most `count`, at most `bytes` of them (but at least one
    /// where there is any). Sequences may be missing only where damage or a jump left a hole.
    fn read(&mut self, from: u64, count: usize, bytes: usize) -> Result<Vec<Entry>, BacklogError>;

    /// The fingerprint of the record at `sequence`; none where it is not (or no longer) here.
    fn fingerprint(&mut self, sequence: u64) -> Result<Option<Fingerprint>, BacklogError>;

    /// Waits until `end()` is above `sequence`, or `limit` has passed. True where it is.
    fn wait(&self, sequence: u64, limit: Duration) -> bool;

    /// Everything below `next` is safely in Kafka. Cheap; `release_point()` shows it at once, it is durable soon, and before
    /// anything is deleted by it.
    fn release(&mut self, next: u64) -> Result<(), BacklogError>;

    /// Puts dead letters away, all at once; returns when they are on disk.
    fn set_aside(&mut self, letters: Vec<DeadLetter>) -> Result<(), BacklogError>;

    /// What the next daily receipt says, as it was kept last.
    fn ledger(&self) -> Ledger;

    /// Keeps it, durably where there is room: on a full disk sending goes on, since that is what makes room.
    fn keep(&mut self, ledger: &Ledger) -> Result<(), BacklogError>;

    /// Gives the queue a new id, durably; returns it. Its receipts begin with the release point.
    fn fork(&mut self, why: &str) -> Result<QueueId, BacklogError>;

    /// Whether the machine that wrote the queue so far is another one than this (a moved or cloned card).
    fn moved(&self) -> bool;
}

/// The queue has stopped or cannot be read; the agent is about to end.
#[derive(Debug, thiserror::Error)]
#[error("the queue cannot be used: {0}")]
pub struct BacklogError(pub String);
