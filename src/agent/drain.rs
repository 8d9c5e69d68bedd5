//! A queue that no source feeds any more, carried to Kafka to its end: what waits in the copy of a dying card.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::AgentError;
use crate::agent::backlog::QueueBacklog;
use crate::clock::Clock;
use crate::config::settings;
use crate::forwarder::Forwarder;
use crate::metrics::Metrics;
use crate::queue::{self, Queue};
use crate::shutdown::Shutdown;

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// What became of a queue's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// Sequences that Kafka turned out to have already.
    pub known: u64,
    /// Records sent, gap records among them.
    pub sent: u64,
    pub gap_records: u64,
    /// Sequences that are still not in Kafka.
    pub left: u64,
    /// The numbers did not mean here what Kafka knows by them: what was unreleased was sent under a new queue id.
    pub forked: bool,
}

/// Sends what waits in the queue that `options` opens, under its own ids and from Kafka's resume point on, until nothing
/// is left or `shutdown` is asked for. `topics` names the topic of each source. `progress` is told the sequences done, or
/// nothing while Kafka is waited for, and how many there were, ten times a second.
pub fn drain(
    kafka: settings::Kafka,
    topics: BTreeMap<Arc<str>, String>,
    options: &queue::Options,
    shutdown: &Shutdown,
    mut progress: impl FnMut(Option<u64>, u64),
) -> Result<Drained, AgentError> {
    let (metrics, clock) = (Arc::new(Metrics::default()), Clock::new());
    let Queue { intake, outlet, writer, recovered } =
        queue::open(options, Arc::clone(&metrics), clock, Arc::new(|| {}))?;
    // Nothing is appended: the writer ends with the outlet.
    drop(intake);
    let (start, end) = (recovered.release_point, recovered.end);
    let forwarder = Forwarder {
        settings: settings::Kafka { linger: Duration::ZERO, ..kafka },
        agent_id: recovered.agent_id,
        topics,
        backlog: Box::new(QueueBacklog { outlet, shutdown: shutdown.clone() }),
        metrics: Arc::clone(&metrics),
        clock,
        clock_wait: Duration::ZERO,
        shutdown: shutdown.clone(),
        heartbeat: Arc::new(|| {}),
    };
    let thread = std::thread::Builder::new().name("forwarder".into()).spawn(move || forwarder.run());
    let forwarder = thread.map_err(AgentError::Thread)?;
    let released = || metrics.queue.release_point.get();
    while released() < end && !forwarder.is_finished() && !shutdown.is_asked() {
        let done = released().saturating_sub(start);
        progress(metrics.forwarder.connected.get().then_some(done), end - start);
        std::thread::sleep(LOOK);
    }
    shutdown.ask();
    let forwarded = super::join(forwarder);
    let written = writer.join();
    progress(Some(released().saturating_sub(start)), end - start);
    written?;
    forwarded?;
    let forwarder = &metrics.forwarder;
    Ok(Drained {
        known: forwarder.known.get(),
        sent: forwarder.sent.get().saturating_sub(forwarder.known.get()),
        gap_records: forwarder.gap_records.get(),
        left: end.saturating_sub(released()),
        forked: forwarder.forks.get() > 0,
    })
}
