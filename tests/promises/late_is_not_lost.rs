//! Promise 8: what arrives weeks late is not deleted by Kafka on arrival.

use meterferry::clock::Clock;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::on_disk;
use crate::harness::wait::{self, PATIENT};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Waits until the broker has looked for expired records: a topic of the same retention loses what was written into it
/// with old timestamps.
fn wait_retention_check(kafka: &Kafka) {
    let topic = kafka.topic("expiring", 1);
    let producer: ThreadedProducer<DefaultProducerContext> = kafka.client().create().expect("a producer");
    for _ in 0..10 {
        let old = Clock::new().now().wall_ms - 21 * DAY_MS;
        let record = BaseRecord::to(&topic).key("old").payload("an old reading").timestamp(old);
        producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
    }
    producer.flush(PATIENT).expect("Kafka takes it");
    let auditor = Auditor::new(kafka, &topic);
    wait::until_true("Kafka to delete what is 21 days old", PATIENT, || auditor.records().is_empty());
}

/// Promise 8: readings of 21 days ago are still there after Kafka's retention check, and tell when they were measured.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn three_weeks_late() {
    let kafka = Kafka::shared();
    let mosquitto = Mosquitto::start();
    let topic = kafka.topic("late", 1);
    kafka.make_topic("late-week", 1, &[("retention.ms", &(7 * DAY_MS).to_string())]);
    let mut agent = Agent::new(|queue| {
        Config::new(&topic, queue, &kafka.plain(), "late-week")
            .kafka(&format!("resume_topic = \"{topic}-resume\""))
            .mqtt(mosquitto.port())
    });
    let messages = document::readings(&["90296857"], 0, 50);
    on_disk::write(&agent, &topic, &messages, 21 * DAY_MS);
    let before = Clock::new().now().wall_ms;
    agent.start();
    let auditor = Auditor::new(kafka, "late-week");
    let audit = auditor.wait_for(&messages, PATIENT);
    audit.assert_exact();
    wait_retention_check(kafka);
    // Twice: the first may have been on its way when the readings came.
    wait_retention_check(kafka);
    auditor.audit(&messages).assert_exact();

    let stamps: Vec<_> = audit.records.iter().map(|record| record.timestamp_ms).collect();
    assert!(stamps.is_sorted(), "timestamps rise: {stamps:?}");
    assert!(stamps.iter().all(|stamp| *stamp >= before - 4 * DAY_MS), "half of the retention is left: {stamps:?}");
    for record in &audit.records {
        let time: jiff::Timestamp = record.header("ce_time").parse().expect("a time");
        let age = before - time.as_millisecond();
        assert!((20 * DAY_MS..22 * DAY_MS).contains(&age), "ce_time is when it was measured: {time}");
    }
    agent.stop();
}
