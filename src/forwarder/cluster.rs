//! Kafka as the forwarder's loop sees it: the steps of the protocol, each of which may fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::forwarder::outcome::{Call, Code};
use crate::forwarder::record::Record;
use crate::forwarder::resume::{Committed, ResumePoint};
use crate::forwarder::timestamp::TopicLimits;

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub call: Call,
    pub code: Code,
    /// The topic it is about, where it is about one.
    pub topic: Option<Arc<str>>,
    /// What Kafka or its client library says.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        // Some of the library's messages name the code themselves.
        let code = format!("{:?}", self.code);
        if !self.detail.contains(&code) {
            write!(f, " ({code})")?;
        }
        write!(f, " while {}", self.call)?;
        self.topic.as_ref().map_or(Ok(()), |topic| write!(f, ", topic {topic}"))
    }
}

/// A cluster that can be connected to.
pub trait Cluster: Send {
    /// Connects as `group`, which is also the transactional id, and sees to it that every topic is there. Opens no
    /// transaction and fences nobody.
    fn connect(&mut self, group: &str) -> Result<Box<dyn Session>, Failure>;

    /// From the next connection on there are these topics too.
    fn learn(&mut self, topics: &BTreeSet<Arc<str>>);
}

/// One producer's life. After a failed call it is only dropped.
///
/// Without transactions there is no resume point, and `begin` and `commit` do nothing.
pub trait Session {
    /// Makes the producer; fences another one of the same id and ends what it left open.
    fn init(&mut self) -> Result<(), Failure>;

    /// The resume point; none only where Kafka said that there is none. May be called without `init`, but not after `begin`.
    fn resume_point(&mut self) -> Result<Option<Committed>, Failure>;

    /// What each topic does with old records.
    fn limits(&mut self) -> BTreeMap<Arc<str>, Result<TopicLimits, Failure>>;

    /// Opens a transaction.
    fn begin(&mut self) -> Result<(), Failure>;

    /// Hands a record over; waits while too much is in flight.
    fn produce(&mut self, record: &Record, timestamp_ms: i64) -> Result<(), Failure>;

    /// Waits until Kafka has every record handed over so far.
    fn settle(&mut self) -> Result<(), Failure>;

    /// Puts `point` into the transaction, and commits.
    fn commit(&mut self, point: &ResumePoint) -> Result<(), Failure>;

    /// Serves the connection while there is nothing to send.
    fn idle(&mut self) -> Result<(), Failure>;
}
