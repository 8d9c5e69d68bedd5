//! Against a real Kafka, named by METERFERRY_TEST_KAFKA=host:port. It must not make topics by itself.

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

fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// Not a promise but the figures in the README: what a transaction costs.
#[test]
#[ignore = "needs a real Kafka: tests/run"]
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
        let count = 1_000_000;
        for n in 0..count {
            let text = format!("{{\"n\":{n},\"random\":{:0>270}}}", n * 7_919);
            backlog.reading("d", text, now());
        }
        let end = backlog.disk().next;
        let running = Running::start(Kafka { compression, ..settings(&topic) }, &backlog);
        let before = running.metrics.forwarder.batches.get();
        let start = Instant::now();
        while backlog.disk().released < end - u64::from(count as u32) + 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("{compression:?}: first of a backlog released after {:?}", start.elapsed());
        let start = Instant::now();
        await_release(&backlog, end);
        let took = start.elapsed();
        println!(
            "{compression:?}: {count} readings of 300 bytes in {took:?} ({:.0}/s), {} transactions",
            f64::from(count) / took.as_secs_f64(),
            running.metrics.forwarder.batches.get() - before
        );
        running.stop();
    }
}
