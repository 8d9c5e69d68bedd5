//! What arrives in Kafka is what was published: the bytes, the key, the headers.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document::{self, Message};
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::{Mosquitto, Options, mosquitto_pub};
use crate::harness::wait::PATIENT;

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(now.as_millis()).expect("a sane clock")
}

/// Promise 3: the adapter's own document, published with Mosquitto's own tool to the adapter's own topic, is in the
/// default topic with the meter's number as its key, byte by byte, with a time that is not the document's wrong one.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn the_adapters_document_arrives_as_it_is() {
    let kafka = Kafka::shared();
    for topic in ["sma-kafka", "meterferry-resume"] {
        kafka.make_topic(topic, 1, &[]);
    }
    let mosquitto = Mosquitto::start();
    let mut agent = Agent::new(|queue| {
        Config::new("house-1", queue, &kafka.plain(), "sma-kafka")
            .kafka("resume_topic = \"meterferry-resume\"")
            .mqtt(mosquitto.port())
    });
    agent.start();
    mosquitto.wait_subscribed("meterferry-house-1-meter");
    let before = now_ms();
    mosquitto_pub(mosquitto.port(), "sma", document::SEEN.as_bytes());

    let published =
        Message { device: "90296857".to_owned(), topic: "sma".to_owned(), payload: document::SEEN.as_bytes().to_vec() };
    let audit = Auditor::new(kafka, "sma-kafka").wait_for(&[published], PATIENT);
    audit.assert_exact();
    let [record] = &audit.records[..] else { panic!("{audit}") };
    assert_eq!(record.value, document::SEEN.as_bytes());
    assert_eq!(record.key, "90296857");
    assert_eq!(record.header("ce_source"), "/house-1/meter");
    assert_eq!(record.header("content-type"), "application/json");
    let time: jiff::Timestamp = record.header("ce_time").parse().expect("a time");
    assert!((before - 1_000..=now_ms()).contains(&record.timestamp_ms), "{}", record.timestamp_ms);
    assert_eq!(time.as_millisecond(), record.timestamp_ms, "the meter's clock of 2023 is not believed");
    agent.stop();
}

/// Promise 3: the key is the name, else the meter's number, else the source's name; the document is not touched.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn key_comes_from_the_document() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "key");
    line.start();
    let cases = [
        ("garage", r#"{"0-0:96.1.0":{"value":"1"},"name":"garage","sma_time":1.0}"#),
        ("17", r#"{"0-0:96.1.0":{"value":"17"},"name":"","sma_time":2.0}"#),
        ("18", " {\n \"0-0:96.1.0\" : { \"value\" : \"18\" } , \"sma_time\" : 3.0 }\r\n"),
        ("meter", r#"{"1-0:1.7.0":{"value":12.50,"time":1},"sma_time":4.0}"#),
        ("Zähler 5", r#"{"name":"Zähler 5","1-0:1.7.0":{"value":1},"new":[1,{"x":null}],"sma_time":5.0}"#),
    ];
    for (device, text) in cases {
        line.publisher.publish(&Message {
            device: device.to_owned(),
            topic: "sma".to_owned(),
            payload: text.as_bytes().to_vec(),
        });
    }
    line.finish().assert_exact();
}

/// Promise 3: with `payload = "any"` every byte there is comes through, several topics with wildcards at once.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn any_bytes_arrive_as_they_are() {
    let kafka = Kafka::shared();
    let mut line = Line::with(kafka, "any", &Options::default(), |config, port| {
        config.source(&format!(
            "name = \"other\"\ntype = \"mqtt\"\nhost = \"127.0.0.1\"\nport = {port}\npayload = \"any\"\n\
             topics = [\"tele/+/SENSOR\", \"raw/#\"]"
        ))
    });
    line.start();
    line.mosquitto.wait_subscribed(&format!("meterferry-{}-other", line.topic));
    let all: Vec<u8> = (0..=255).collect();
    for (topic, payload) in [
        ("tele/plug/SENSOR", &br#"{"ENERGY":{"Power":2635}}"#[..]),
        ("raw/a/b", &all),
        ("raw/a", b"12.5"),
        ("raw", b"{not json"),
    ] {
        line.publisher.publish(&Message {
            device: topic.to_owned(),
            topic: topic.to_owned(),
            payload: payload.to_vec(),
        });
    }
    line.publish(3);
    line.finish().assert_exact();
}
