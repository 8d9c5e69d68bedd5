//! Promise 6: disk and memory have a limit with a name; offline time has none.

use std::fs;

use crate::harness::agent::Agent;
use crate::harness::config::Config;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::process;
use crate::harness::wait::{self, PATIENT, SOON};

/// Bytes that the queue's folder takes.
fn queue_size(agent: &Agent) -> u64 {
    fs::read_dir(agent.queue())
        .expect("the queue's folder")
        // A segment may be unlinked meanwhile.
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Peak memory of the running agent in KiB.
fn peak_memory(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("the agent runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel tells it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB")
}

/// Promise 6: a full queue stops acknowledging, says so, keeps within its size, and goes on when there is room; nothing is
/// lost, because the broker keeps what was not acknowledged.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn full_queue_blocks_and_recovers() {
    const MAX: u64 = 4 << 20;
    let small = "segment_size = \"1 MiB\"";
    let limit = "max_size = \"4 MiB\"";
    let mut line = Line::with(Kafka::shared(), "full", &Options::default(), |config, _| {
        config.queue(small).queue(limit).kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", process::free_port()))
    });
    line.start();
    let mut size = 0;
    while !line.agent.log().contains("no room") {
        let messages = line.next(&["alpha", "beta"], 1_000);
        line.publisher.publish_all(&messages);
        size = size.max(queue_size(&line.agent));
        assert!(messages[0].device == "alpha" && line.publisher.acknowledged() < 60_000, "the queue never fills");
    }
    assert!(size <= MAX, "queue.max_size is {MAX} bytes, the folder takes {size}");
    line.agent.reconfigure(|queue| line.config(queue).queue(small).queue(limit));
    line.agent.stop();
    line.agent.start();
    line.finish().assert_exact();
    assert!(queue_size(&line.agent) < MAX, "segments that Kafka has are unlinked");
}

/// Promise 6: a backlog of tens of thousands of readings is drained with little memory.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn draining_takes_little_memory() {
    let kafka = Kafka::shared();
    let mut line = Line::with(kafka, "drain", &Options::default(), |config, _| {
        config.kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", process::free_port()))
    });
    line.start();
    let messages = line.next(&["alpha", "beta"], 20_000);
    line.publisher.publish_all(&messages);
    wait::until_true("the agent to acknowledge all", PATIENT, || {
        line.mosquitto.acknowledgements(&line.client_id()) >= messages.len()
    });
    line.agent.stop();
    line.agent.reconfigure(|queue| line.config(queue));
    line.agent.start();
    line.audit().assert_exact();
    let peak = peak_memory(&line.agent);
    println!("{peak} KiB at most while draining {} readings", messages.len());
    assert!(peak < 64 << 10, "{peak} KiB");
    line.agent.stop();
}

/// Promise 6: a broker that stays away is tried again and again, with pauses, and found when it is back.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn broker_away_is_not_hammered() {
    let mut line = Line::new(Kafka::shared(), "away");
    line.start();
    line.publish(5);
    line.mosquitto.stop();
    line.agent.wait_log("WARN", SOON);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let lines = line.agent.log().lines().count();
    assert!(lines < 40, "{lines} lines of log for one outage");
    let before = line.mosquitto.log().matches("\tsma (QoS 1)\n").count();
    line.mosquitto.restart();
    wait::until_true("the agent to subscribe again", SOON, || {
        line.mosquitto.log().matches("\tsma (QoS 1)\n").count() > before
    });
    line.publish(5);
    line.finish().assert_exact();
}

/// Promises 5 and 6: with "drop-oldest" a full queue goes on acknowledging within its size; what it gave up is explained in
/// Kafka by gap records, sequence by sequence, and everything else is there once and in order.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn dropped_readings_are_explained() {
    const MAX: u64 = 4 << 20;
    let keys = ["segment_size = \"1 MiB\"", "max_size = \"4 MiB\"", "when_full = \"drop-oldest\""];
    let limited = |config: Config| keys.iter().fold(config, |config, key| config.queue(key));
    let mut line = Line::with(Kafka::shared(), "dropped", &Options::default(), |config, _| {
        limited(config).kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", process::free_port()))
    });
    line.start();
    let mut published = 0;
    while !line.agent.log().contains("records were given up") {
        let messages = line.next(&["alpha"], 2_000);
        published += messages.len();
        line.publisher.publish_all(&messages);
        assert!(published < 200_000, "the queue never fills");
        wait::until_true("the agent to acknowledge all", PATIENT, || {
            line.mosquitto.acknowledgements(&line.client_id()) >= published
        });
        let size = queue_size(&line.agent);
        assert!(
            size <= MAX + (1 << 20),
            "queue.max_size is {MAX} bytes, the folder takes {size} with a copy being made"
        );
    }
    assert!(!line.agent.log().contains("no room"));
    line.agent.reconfigure(|queue| limited(line.config(queue)));
    line.agent.stop();
    line.agent.start();
    line.agent.wait_log("connected to Kafka", SOON);
    let auditor = line.auditor();
    let mut records = Vec::new();
    wait::until_true("everything to be in Kafka or explained", PATIENT, || {
        records = auditor.records();
        records.last().is_some_and(|record| record.id().1 >= published as u64)
    });
    let mut next = 1;
    for record in &records {
        let sequence = record.id().1;
        match record.gap() {
            Some(gap) => {
                assert_eq!((gap.first, gap.last), (next, sequence), "{gap:?}");
                assert!(gap.reason.starts_with("the queue was full"), "{gap:?}");
            }
            None => assert_eq!(sequence, next, "missing without a word"),
        }
        next = sequence + 1;
    }
    assert_eq!(next, published as u64 + 1);
    assert!(records.iter().any(|record| record.gap().is_some()));
    line.agent.stop();
}
