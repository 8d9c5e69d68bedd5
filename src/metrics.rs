//! What the agent counts. Counters only rise; gauges are set by the stage that owns them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// A counter or gauge; relaxed, since nothing is ordered by it.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A flag that one stage sets and others read.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// Returns what it was.
    pub fn set(&self, value: bool) -> bool {
        self.0.swap(value, Ordering::Relaxed)
    }

    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One source's counters.
#[derive(Debug, Default)]
pub struct SourceMetrics {
    /// Messages received, all of them.
    pub received: Count,
    /// Acknowledgements sent.
    pub acknowledged: Count,
    /// Redeliveries recognised: acknowledged and not stored again.
    pub redelivered: Count,
    /// Retained messages ignored.
    pub retained: Count,
    /// QoS 0 messages: nobody sends them again.
    pub qos0: Count,
    /// Messages that became dead letters.
    pub undecodable: Count,
    /// Documents of a device that is asked that say the same as the last one stored: not stored again.
    pub unchanged: Count,
    /// Messages dropped by rule: a topic that matches no filter of a listener, no measurement by the mapping, nothing that
    /// may be stored.
    pub ignored: Count,
    /// Connections made.
    pub connects: Count,
    /// Connections lost or refused.
    pub disconnects: Count,
    /// Messages that the broker says it dropped for all its clients, as far as it tells.
    pub broker_dropped: Count,
    /// Polls of a device that gave no reading.
    pub failed_polls: Count,
    /// Polls that were due while another one was not over, or could not be made.
    pub skipped: Count,
    /// Counters of a device that turned over or went back.
    pub fallen: Count,
    /// Values of a device that no meter can have measured, left out or kept with a flag.
    pub absurd: Count,
    /// Readings whose time by the device's clock was a day or more away, or no time.
    pub clock_off: Count,
    pub connected: Flag,
}

/// The queue's counters and gauges.
#[derive(Debug, Default)]
pub struct QueueMetrics {
    /// Records committed.
    pub stored: Count,
    pub commits: Count,
    /// Bytes of records committed, before the database's own overhead.
    pub stored_bytes: Count,
    /// Records committed a second over the last minute, in thousandths.
    pub stored_rate: Count,
    /// The next sequence.
    pub next_sequence: Count,
    /// First sequence of the oldest segment.
    pub first_sequence: Count,
    /// The next sequence that is not yet safely in Kafka.
    pub release_point: Count,
    /// Sequences from there on that are known to hold nothing: lost, or given up.
    pub missing: Count,
    pub dead_letters: Count,
    /// Dead letters deleted for lack of room or for their age.
    pub dead_letters_deleted: Count,
    /// Bytes the folder takes.
    pub disk_bytes: Count,
    pub segments: Count,
    /// Sequences lost to damage.
    pub lost: Count,
    /// Records given up for want of room.
    pub dropped: Count,
    /// Segments packed.
    pub packed: Count,
    /// Bytes of their files, after it.
    pub packed_bytes: Count,
    /// Wall clock of receipt of the oldest unreleased record, milliseconds since 1970; 0: none.
    pub oldest_ms: AtomicI64,
    /// The disk or `max_size` holds the queue up.
    pub blocked: Flag,
}

impl QueueMetrics {
    /// Records that are not yet safely in Kafka.
    pub fn waiting(&self) -> u64 {
        self.next_sequence.get().saturating_sub(self.release_point.get()).saturating_sub(self.missing.get())
    }
}

/// The forwarder's counters and gauges.
#[derive(Debug, Default)]
pub struct ForwarderMetrics {
    /// Records that Kafka has.
    pub sent: Count,
    /// Those of them that Kafka turned out to have at a connect.
    pub known: Count,
    /// Records sent a second over the last minute, in thousandths.
    pub sent_rate: Count,
    /// Transactions committed, or batches delivered.
    pub batches: Count,
    pub retries: Count,
    /// Producers made anew after an unknown outcome.
    pub rebuilds: Count,
    pub connects: Count,
    /// Records whose timestamp was raised, because Kafka would have deleted them on arrival.
    pub late: Count,
    pub gap_records: Count,
    pub forks: Count,
    pub connected: Flag,
    /// Where Kafka is, is not configured: readings are kept and not sent.
    pub unconfigured: Flag,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Metrics {
    pub sources: BTreeMap<Arc<str>, Arc<SourceMetrics>>,
    pub queue: QueueMetrics,
    pub forwarder: ForwarderMetrics,
}

impl Metrics {
    /// With one set of counters for each of `sources`.
    pub fn new<'a>(sources: impl Iterator<Item = &'a Arc<str>>) -> Arc<Self> {
        Arc::new(Self { sources: sources.map(|name| (Arc::clone(name), Arc::default())).collect(), ..Self::default() })
    }
}
