//! Promise 8: what arrives weeks late is not deleted by Kafka on arrival.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meterferry::clock::Clock;
use meterferry::queue;
use meterferry::reading::{Body, Mark, Reading, Received};
use meterferry::receipt::Receipt;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document::{self, Message};
use crate::harness::kafka::Kafka;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::on_disk;
use crate::harness::wait::{self, PATIENT};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Writes readings into the agent's queue as if they had been received so long ago.
fn write_queue(agent: &Agent, id: &str, messages: &[Message], age_ms: i64) {
    let source: Arc<str> = "meter".into();
    let queue::Queue { intake, outlet, writer, .. } = on_disk::open(&agent.queue(), Some(id));
    let now = Clock::new().now();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for (number, message) in (0..).zip(messages) {
            // Of an earlier boot, a minute apart.
            let wall_ms = now.wall_ms - age_ms + number * 60_000;
            let received = Received { wall_ms, boot_ms: 1, boot_id: 1, synchronised: true };
            let reading = Reading {
                source: Arc::clone(&source),
                device: message.device.clone(),
                topic: message.topic.clone(),
                sender: String::new(),
                packet_id: Some(1),
                received,
                measured_ms: Some(wall_ms - 500),
                self_identified: true,
                json: true,
                payload: Bytes::copy_from_slice(&message.payload),
            };
            let mark = Mark::of("", Some(1), &message.topic, &message.payload, true);
            let delay = Duration::from_millis(1);
            intake.append(Body::Reading(reading), mark, Receipt::unneeded(), delay).await.expect("room");
        }
    });
    drop((intake, outlet));
    writer.join().expect("an orderly end");
}

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
    write_queue(&agent, &topic, &messages, 21 * DAY_MS);
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
