//! One line an interval: what came in, what went out, what waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::info;

use crate::cli::units;
use crate::clock::Clock;
use crate::metrics::{Metrics, SourceMetrics};
use crate::wear;

/// The figures at the last line, from which the next tells the difference.
pub(super) struct Summary {
    last: Figures,
}

#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    received: u64,
    stored: u64,
    sent: u64,
    redelivered: u64,
    undecodable: u64,
    reconnects: u64,
    written: u64,
}

impl Summary {
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        Self { last: Figures::of(metrics) }
    }

    /// Logs the line.
    pub fn say(&mut self, metrics: &Arc<Metrics>) {
        let now = Figures::of(metrics);
        let last = std::mem::replace(&mut self.last, now);
        let waiting = metrics.queue.waiting();
        let stored = now.stored - last.stored;
        let written = now.written.saturating_sub(last.written);
        info!(
            received = now.received - last.received,
            stored,
            sent = now.sent - last.sent,
            waiting,
            oldest = oldest(metrics).map_or_else(|| "-".to_owned(), units::duration),
            redelivered = now.redelivered - last.redelivered,
            dead_letters = metrics.queue.dead_letters.get(),
            undecodable = now.undecodable - last.undecodable,
            reconnects = now.reconnects - last.reconnects,
            queue = units::bytes(metrics.queue.disk_bytes.get()),
            written = units::bytes(written),
            written_per_reading = units::bytes(written.checked_div(stored).unwrap_or(0)),
            "summary"
        );
    }
}

impl Figures {
    fn of(metrics: &Metrics) -> Self {
        let sum = |count: fn(&SourceMetrics) -> u64| metrics.sources.values().map(|source| count(source)).sum();
        // The first connection of each client of a listener is none, nor is an attempt that failed.
        let reconnects = sum(|source| source.connects.get().saturating_sub(1).min(source.disconnects.get()));
        Self {
            received: sum(|source| source.received.get()),
            stored: metrics.queue.stored.get(),
            sent: metrics.forwarder.sent.get(),
            redelivered: sum(|source| source.redelivered.get()),
            undecodable: sum(|source| source.undecodable.get()),
            reconnects: reconnects + metrics.forwarder.connects.get().saturating_sub(1),
            written: wear::bytes_written(),
        }
    }
}

/// One line for `systemctl status`.
pub(super) fn status(metrics: &Metrics) -> String {
    let connected = metrics.sources.values().filter(|source| source.connected.get()).count();
    let kafka = match &metrics.forwarder {
        kafka if kafka.unconfigured.get() => "kafka.bootstrap_servers is not set",
        kafka if kafka.connected.get() => "Kafka connected",
        _ => "Kafka not connected",
    };
    let waiting = metrics.queue.waiting();
    let oldest = oldest(metrics).map_or_else(String::new, |age| format!(", the oldest for {}", units::duration(age)));
    let blocked = if metrics.queue.blocked.get() { "; the queue is full" } else { "" };
    format!(
        "{connected} of {} sources connected, {kafka}, {waiting} readings wait{oldest}{blocked}",
        metrics.sources.len()
    )
}

fn oldest(metrics: &Metrics) -> Option<Duration> {
    let received = metrics.queue.oldest_ms.load(Ordering::Relaxed);
    let age = Clock::new().now().wall_ms.saturating_sub(received);
    (received > 0).then(|| Duration::from_millis(u64::try_from(age).unwrap_or(0)))
}
