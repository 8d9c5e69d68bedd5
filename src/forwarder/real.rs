//! By hand, against a real Kafka, named by METERFERRY_TEST_KAFKA=host:port. It must not make topics by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::config::settings::{Compression, Delivery, Format, Kafka};
use crate::forwarder::fake::FakeBacklog;
use crate::forwarder::{BacklogError, Forwarder};
use crate::metrics::Metrics;
use crate::reading::Received;
use crate::shutdown::Shutdown;

const WAIT: Duration = Duration::from_secs(60);

fn settings(topic: &str) -> Kafka {
    let server = std::env::var("METERFERRY_TEST_KAFKA").expect("METERFERRY_TEST_KAFKA=host:port");
    Kafka {
        bootstrap_servers: vec![server],
        topic: topic.into(),
        resume_topic: "meterferry-resume".into(),
        delivery: Delivery::ExactlyOnce,
        format: Format::Original,
        compression: Compression::Zstd,
        linger: Duration::ZERO,
        batch_count: 10_000,
        batch_size: 2 << 20,
        retry_max_delay: Duration::from_secs(2),
        request_timeout: Duration::from_secs(10),
        transaction_timeout: Duration::from_secs(15),
        idempotence: true,
        create_topics: true,
        partitions: 1,
        replication: 1,
        retention: Duration::from_secs(7 * 86_400),
        timestamp_before_max: None,
        tls: None,
        sasl: None,
        properties: vec![],
    }
}

struct Running {
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
    thread: JoinHandle<Result<(), BacklogError>>,
}

impl Running {
    fn start(settings: Kafka, backlog: &FakeBacklog) -> Self {
        let (shutdown, metrics) = (Shutdown::new(), Arc::new(Metrics::default()));
        let topics: BTreeMap<Arc<str>, String> = [("meter".into(), settings.topic.clone())].into();
        let forwarder = Forwarder {
            settings,
            agent_id: "test".into(),
            topics,
            backlog: Box::new(backlog.clone()),
            metrics: Arc::clone(&metrics),
            clock: Clock::new(),
            clock_wait: Duration::ZERO,
            shutdown: shutdown.clone(),
            heartbeat: Arc::new(|| {}),
        };
        Self { shutdown, metrics, thread: std::thread::spawn(move || forwarder.run()) }
    }

    fn stop(self) {
        self.shutdown.ask();
        self.thread.join().unwrap().unwrap();
    }
}

fn await_release(backlog: &FakeBacklog, next: u64) {
    let until = Instant::now() + WAIT;
    while backlog.disk().released < next {
        assert!(Instant::now() < until, "released {} of {next}", backlog.disk().released);
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn now() -> Received {
    Clock::new().now()
}

fn unique(name: &str) -> (String, u128) {
    let id = rand::random::<u128>();
    (format!("{name}-{:08x}", id as u32), id)
}

/// `VmRSS` of this process, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// Not a promise but the figures in the README: what a transaction costs.
#[test]
#[ignore = "by hand, against the Kafka that METERFERRY_TEST_KAFKA names; tests/run has the promises"]
fn cost_of_transactions() {
    log();
    for compression in [Compression::None, Compression::Zstd] {
        let (topic, id) = unique("cost");
        let backlog = FakeBacklog::new(id);
        let running = Running::start(Kafka { compression, ..settings(&topic) }, &backlog);
        backlog.reading("d", vec![b'x'; 300], now());
        await_release(&backlog, 2);
        let start = Instant::now();
        for n in 0..200 {
            let sequence = backlog.reading("d", vec![n as u8; 300], now());
            await_release(&backlog, sequence + 1);
        }
        println!("{compression:?}: one reading: {:?} a transaction", start.elapsed() / 200);
        running.stop();
        let count = 1_000_000u32;
        for n in 0..count {
            let text = format!("{{\"n\":{n},\"random\":{:0>270}}}", u64::from(n) * 7_919);
            backlog.reading("d", text, now());
        }
        let (end, before_kib) = (backlog.disk().next, resident());
        let running = Running::start(Kafka { compression, ..settings(&topic) }, &backlog);
        let before = running.metrics.forwarder.batches.get();
        let start = Instant::now();
        while backlog.disk().released < end - u64::from(count) + 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("{compression:?}: first of a backlog released after {:?}", start.elapsed());
        let (start, mut peak) = (Instant::now(), 0);
        while backlog.disk().released < end {
            peak = peak.max(resident());
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = start.elapsed();
        println!("{compression:?}: at most {} KiB more memory", peak.saturating_sub(before_kib));
        println!(
            "{compression:?}: {count} readings of 300 bytes in {took:?} ({:.0}/s), {} transactions",
            f64::from(count) / took.as_secs_f64(),
            running.metrics.forwarder.batches.get() - before
        );
        running.stop();
    }
}

/// Every value that a read_committed consumer sees in partition 0 of `topic`.
fn consumed(topic: &str) -> Vec<String> {
    let server = std::env::var("METERFERRY_TEST_KAFKA").expect("METERFERRY_TEST_KAFKA=host:port");
    let output = std::process::Command::new("kcat")
        .args(["-C", "-b", &server, "-t", topic, "-e", "-q", "-X", "isolation.level=read_committed", "-f", "%s\n"])
        .output()
        .expect("kcat");
    String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
}

/// Promise 3: a second agent with the same queue fences the first; what both saw is there once.
#[test]
#[ignore = "by hand, against the Kafka that METERFERRY_TEST_KAFKA names; tests/run has the promises"]
fn fenced_producer_reads_what_kafka_knows() {
    log();
    let (topic, id) = unique("fence");
    let backlog = FakeBacklog::new(id);
    let first = Running::start(settings(&topic), &backlog);
    let mut given = vec![];
    let mut give = |n: u32| {
        given.push(format!("r{n}"));
        backlog.reading("d", format!("r{n}"), now()) + 1
    };
    await_release(&backlog, give(0));
    // A second handle of the same queue, which a lock forbids in the agent: both fence each other in turn.
    let second = Running::start(settings(&topic), &backlog.image());
    let until = Instant::now() + WAIT;
    while second.metrics.forwarder.connects.get() == 0 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    for n in 1..20 {
        await_release(&backlog, give(n));
    }
    assert!(first.metrics.forwarder.rebuilds.get() >= 1, "it was fenced");
    first.stop();
    second.stop();
    assert_eq!(consumed(&topic), given);
    assert_eq!(backlog.disk().forks, 0);
}

/// Promise 5: a reading that the topic is too small for becomes a dead letter; its neighbours arrive.
#[test]
#[ignore = "by hand, against the Kafka that METERFERRY_TEST_KAFKA names; tests/run has the promises"]
fn too_large_reading_is_condemned_alone() {
    log();
    let (topic, id) = unique("large");
    let backlog = FakeBacklog::new(id);
    let mut given = vec![];
    for n in 0..500 {
        if n == 123 {
            let noise: Vec<u8> = (0..2_000_000).map(|_| rand::random::<u8>()).collect();
            backlog.reading("d", noise, now());
        } else {
            given.push(format!("r{n}"));
            backlog.reading("d", format!("r{n}"), now());
        }
    }
    let running = Running::start(settings(&topic), &backlog);
    let start = Instant::now();
    let end = backlog.disk().next;
    await_release(&backlog, end);
    println!("found after {:?}, {} retries", start.elapsed(), running.metrics.forwarder.retries.get());
    running.stop();
    let mut seen = consumed(&topic);
    let gap = seen.iter().position(|value| value.starts_with('{')).expect("a gap record");
    println!("{}", seen.remove(gap));
    assert_eq!(seen, given);
    assert_eq!(backlog.disk().letters.keys().map(|(_, sequence)| *sequence).collect::<Vec<_>>(), [124]);
}

/// Promise 8: readings 21 days old, with the meter's time, are taken and not deleted.
#[test]
#[ignore = "by hand, against the Kafka that METERFERRY_TEST_KAFKA names; tests/run has the promises"]
fn late_backlog_is_kept() {
    log();
    let (topic, id) = unique("late");
    let backlog = FakeBacklog::new(id);
    let old = Received { wall_ms: now().wall_ms - 21 * 86_400_000, ..now() };
    for n in 0..10 {
        backlog.reading("d", format!("r{n}"), old);
    }
    let running = Running::start(settings(&topic), &backlog);
    await_release(&backlog, 11);
    assert_eq!(running.metrics.forwarder.late.get(), 10);
    running.stop();
    assert_eq!(consumed(&topic).len(), 10);
}

/// Promise 3, without transactions: everything arrives in order.
#[test]
#[ignore = "by hand, against the Kafka that METERFERRY_TEST_KAFKA names; tests/run has the promises"]
fn at_least_once_delivers_in_order() {
    log();
    for idempotence in [true, false] {
        let (topic, id) = unique("alo");
        let backlog = FakeBacklog::new(id);
        let given: Vec<_> = (0..20_000).map(|n| format!("r{n}")).collect();
        for value in &given {
            backlog.reading("d", value.clone(), now());
        }
        let settings = Kafka { delivery: Delivery::AtLeastOnce, idempotence, ..settings(&topic) };
        let running = Running::start(settings, &backlog);
        await_release(&backlog, 20_001);
        running.stop();
        assert_eq!(consumed(&topic), given);
    }
}

/// Promises 2 to 4, for a broker that is stopped and started meanwhile by whoever runs this: readings for half a minute.
#[test]
#[ignore = "by hand: kill -9 the broker meanwhile"]
fn broker_may_be_killed_meanwhile() {
    log();
    let (topic, id) = unique("killed");
    let backlog = FakeBacklog::new(id);
    let running = Running::start(settings(&topic), &backlog);
    let start = Instant::now();
    let mut given = vec![];
    while start.elapsed() < Duration::from_secs(40) {
        for _ in 0..50 {
            given.push(format!("r{}", given.len()));
            backlog.reading("d", given.last().unwrap().clone(), now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let end = backlog.disk().next;
    await_release(&backlog, end);
    println!("{} readings, {} rebuilds", given.len(), running.metrics.forwarder.rebuilds.get());
    running.stop();
    assert!(consumed(&topic) == given);
}

/// Promises 5 and 6: whatever is wrong with the configuration or the cluster, it waits, says what to do, and stops at once
/// when it is asked to.
#[test]
#[ignore = "by hand, against the Kafka that METERFERRY_TEST_KAFKA names; tests/run has the promises"]
fn what_is_missing_is_waited_for() {
    log();
    let (topic, id) = unique("missing");
    let cases = [
        Kafka { create_topics: false, ..settings(&topic) },
        Kafka { properties: vec![("no.such.property".into(), "1".into())], ..settings(&topic) },
        Kafka { bootstrap_servers: vec!["127.0.0.1:1".into()], ..settings(&topic) },
        Kafka { bootstrap_servers: vec!["no-such-host.invalid:9092".into()], ..settings(&topic) },
        Kafka { bootstrap_servers: vec![], ..settings(&topic) },
        Kafka {
            tls: Some(crate::config::settings::Tls { verify_hostname: true, ..Default::default() }),
            ..settings(&topic)
        },
        Kafka { transaction_timeout: Duration::from_secs(3_600), ..settings(&topic) },
        Kafka { replication: 3, ..settings(&unique("replicated").0) },
    ];
    for settings in cases {
        let backlog = FakeBacklog::new(id);
        backlog.reading("d", "r", now());
        let servers = !settings.bootstrap_servers.is_empty();
        let running = Running::start(settings, &backlog);
        let until = Instant::now() + WAIT;
        while servers && running.metrics.forwarder.retries.get() < 2 {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(5));
        }
        let asked = Instant::now();
        running.stop();
        println!("stopped after {:?}", asked.elapsed());
        assert!(asked.elapsed() < Duration::from_secs(6));
        assert_eq!(backlog.disk().released, 1);
    }
}
