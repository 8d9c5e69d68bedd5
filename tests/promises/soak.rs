//! Promise 6 in the long run: outages and restarts come and go, and nothing grows.
//!
//! 200 readings a second; at random the line to Kafka or to the broker is cut, black, slow or refused for a while, the agent
//! is told to reload, and killed. What it holds is looked at when all is well again: memory, file descriptors, threads, the
//! queue's folder. The long form takes 30 minutes.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::harness::agent::Agent;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::proxy::Proxy;
use crate::harness::publisher::Publisher;
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{self, PATIENT, SetAtEnd};

/// Readings a second.
const RATE: u64 = 200;
/// Looks in one life of the agent, from one restart to the next: in the long form enough to tell growth from warming up.
fn looks_in_a_life() -> u64 {
    scale(6, 150)
}

/// What the agent holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    memory_kib: u64,
    descriptors: u64,
    threads: u64,
    folder_kib: u64,
}

impl Held {
    fn by(agent: &Agent) -> Self {
        let process = format!("/proc/{}", agent.pid());
        let status = fs::read_to_string(format!("{process}/status")).expect("the agent runs");
        let figure = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel tells it");
            line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
        };
        let bytes: u64 = fs::read_dir(agent.queue())
            .expect("the queue")
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|metadata| metadata.len())
            .sum();
        Self {
            memory_kib: figure("VmRSS:"),
            descriptors: fs::read_dir(format!("{process}/fd")).expect("the agent runs").count() as u64,
            threads: figure("Threads:"),
            folder_kib: bytes >> 10,
        }
    }
}

/// Promise 6: after every outage memory, descriptors, threads and the folder are what they were, and nothing is lost.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn nothing_grows() {
    let kafka = Kafka::shared();
    let to_kafka = kafka.proxy();
    let mut line = Line::with(kafka, "soak", &Options::default(), |config, _| config);
    let to_broker = Proxy::start(line.mosquitto.port());
    let config = |queue: &std::path::Path| -> Config {
        let brokers = format!("127.0.0.1:{}", to_kafka.port());
        Config::new(&line.topic, queue, &brokers, &line.topic)
            .queue("commit_delay = \"1s\"")
            .queue("segment_size = \"1 MiB\"")
            .mqtt(to_broker.port())
    };
    line.agent.reconfigure(config);
    // As the unit sets it.
    line.agent.variable("MALLOC_ARENA_MAX", "2");
    line.start();
    let mut random = choices("soak");
    let mut lives = Vec::new();
    let enough = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(scale(60, 30 * 60));
    let Line { agent, publisher, .. } = &mut line;
    thread::scope(|scope| {
        scope.spawn(|| publish(publisher, &enough));
        let _end = SetAtEnd(&enough);
        while Instant::now() < until {
            let mut looks = Vec::new();
            for _ in 0..looks_in_a_life() {
                outage(&to_kafka, &to_broker, &mut random);
                all_is_well(agent);
                let held = Held::by(agent);
                println!("{held:?}");
                looks.push(held);
            }
            lives.push(looks);
            if random.random_bool(0.5) {
                agent.kill();
                agent.start();
            } else {
                agent.signal(Signal::SIGHUP);
                wait::until_true("another run", PATIENT, || agent.log().matches(" starts ").count() > 1);
            }
            all_is_well(agent);
        }
    });
    line.publisher.wait_acknowledged();
    let log = line.agent.full_log();
    line.finish().assert_exact();
    println!("{} lives, {} lines in the log", lives.len(), log.lines().count());
    assert!(!log.contains(" ERROR "), "{log}");
    assert_flat(&lives);
}

fn publish(publisher: &Publisher, enough: &AtomicBool) {
    let begin = Instant::now();
    let mut serial = 0;
    while !enough.load(std::sync::atomic::Ordering::SeqCst) {
        let due = begin.elapsed().as_millis() as u64 * RATE / 1000;
        publisher.publish_all(&document::readings(&["meter"], serial, due - serial));
        serial = due;
        thread::sleep(Duration::from_millis(20));
    }
}

/// One thing goes wrong for one to four seconds.
fn outage(to_kafka: &Proxy, to_broker: &Proxy, random: &mut StdRng) {
    let proxy = if random.random_bool(0.6) { to_kafka } else { to_broker };
    let long = Duration::from_millis(random.random_range(1_000..4_000));
    match random.random_range(0..4) {
        0 => {
            proxy.refuse(true);
            proxy.cut();
            thread::sleep(long);
            proxy.refuse(false);
        }
        1 => {
            proxy.black_hole(true);
            thread::sleep(long);
            proxy.black_hole(false);
        }
        2 => {
            proxy.delay(long / 10);
            thread::sleep(long);
            proxy.delay(Duration::ZERO);
        }
        _ => proxy.cut(),
    }
}

/// Everything received is sent, and the folder is down to two segments.
fn all_is_well(agent: &mut Agent) {
    agent.wait_figures("the queue to drain", PATIENT, |figures| {
        figures.kafka_connected
            && figures.sources.iter().all(|source| source.connected && source.received > 0)
            && figures.end - figures.release_point <= 4 * RATE
    });
}

/// The least that is held in the second half of each life is no more than in the first, but for what warming up takes. The
/// least, since a moment may hold two clients of Kafka, the old one and the new; but not without limit.
fn assert_flat(lives: &[Vec<Held>]) {
    for looks in lives {
        let (early, late) = looks.split_at(looks.len() / 2);
        let least = |of: fn(&Held) -> u64, looks: &[Held]| looks.iter().map(of).min().unwrap_or(0);
        for (what, of, slack, limit) in [
            ("memory in KiB", (|held| held.memory_kib) as fn(&Held) -> u64, 10 << 10, 48 << 10),
            ("file descriptors", |held| held.descriptors, 12, 100),
            ("threads", |held| held.threads, 8, 50),
            ("KiB of the folder", |held| held.folder_kib, 3 << 10, 8 << 10),
        ] {
            let (then, now) = (least(of, early), least(of, late));
            assert!(now <= then + slack, "{what} rose from {then} to {now}: {looks:?}");
            let most = looks.iter().map(of).max().unwrap_or(0);
            assert!(most <= limit, "{what}: {most}, more than {limit}: {looks:?}");
        }
    }
}
