//! Promise 5: never stuck, never silent. What cannot be sent is set aside and explained; what cannot be reached is
//! waited for.

use std::time::Duration;

use crate::harness::document::{self, Message};
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::process;
use crate::harness::proxy::Direction;
use crate::harness::wait::{self, PATIENT, SOON};

/// The dead letters, as the command lists them.
fn dead_letters(line: &Line<'_>) -> Vec<serde_json::Value> {
    let text = process::run(&mut line.agent.command(&["dead-letters", "list", "--json"]));
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

/// Promise 5: Kafka is killed, stays away while the agent is killed too, and comes back; then it is stopped and started.
/// Everything published is there once and in order.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn kafka_goes_away_and_comes_back() {
    let kafka = Kafka::start();
    let mut line = Line::new(&kafka, "outage");
    line.start();
    line.publish(30);
    line.audit().assert_exact();

    kafka.kill();
    for _ in 0..5 {
        line.publish(30);
        line.agent.kill();
        line.agent.start();
    }
    line.publish(30);
    kafka.restart();
    line.audit().assert_exact();

    let messages = line.next(&["90296857"], 200);
    messages.iter().for_each(|message| line.publisher.publish(message));
    kafka.stop();
    line.publisher.wait_acknowledged();
    line.publish(30);
    kafka.restart();
    line.finish().assert_exact();
}

/// Promise 5: what cannot be decoded or is too large becomes a dead letter with its reason; its neighbours arrive, and a
/// gap record stands in its place.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn broken_messages_are_set_aside() {
    let mut line = Line::new(Kafka::shared(), "broken");
    line.start();
    let huge = format!(r#"{{"name":"huge","x":"{}"}}"#, "y".repeat(10_000_000));
    let large = format!(r#"{{"name":"large","0-0:96.1.0":{{"value":"{}"}}}}"#, "1".repeat(300_000));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!(r#"{{"name":"deep","x":{}1{}}}"#, r#"{"x":"#.repeat(20_000), "}".repeat(20_000));
    // Each with a word of the reason that a person is given.
    let broken: [(&[u8], &str); 10] = [
        (b"", "not JSON"),
        (b"not JSON", "not JSON"),
        (br#"{"name":"cut","0-0:96.1.0":{"val"#, "not JSON"),
        (br#"{"name":"twice","name":"twice","sma_time":1.0}"#, "twice"),
        (br#"{"name":"nan","1-0:1.7.0":{"value":NaN}}"#, "not JSON"),
        (b"{\"name\":\"\xff\xfe\"}", "UTF-8"),
        (deep.as_bytes(), "array"),
        (deep_object.as_bytes(), "deep"),
        (large.as_bytes(), "max_reading_size"),
        (huge.as_bytes(), "max_reading_size"),
    ];
    for (payload, _) in broken {
        line.publish(2);
        line.publisher.publish_raw("sma", rumqttc::QoS::AtLeastOnce, false, payload);
    }
    line.publish(2);
    let audit = line.finish();
    audit.assert_exact();
    let gaps = audit.gaps();
    assert_eq!(gaps.iter().map(|gap| gap.count).sum::<u64>(), broken.len() as u64, "{gaps:#?}");
    assert!(gaps.iter().all(|gap| !gap.reason.is_empty()), "{gaps:#?}");

    let letters = dead_letters(&line);
    assert_eq!(letters.len(), broken.len());
    for (letter, (_, word)) in letters.iter().zip(broken) {
        let reason = letter["reason"].as_str().expect("a reason");
        assert!(reason.contains(word), "{word:?} is not in {reason:?}");
    }
    let explained: Vec<_> = gaps.iter().flat_map(|gap| gap.first..=gap.last).collect();
    let listed: Vec<_> = letters.iter().map(|letter| letter["sequence"].as_u64().expect("a number")).collect();
    assert_eq!(explained, listed, "each dead letter's sequence is explained in Kafka");
}

/// Promise 5: a reading that Kafka itself refuses is found among its neighbours, set aside, and explained.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn reading_that_kafka_refuses_is_set_aside() {
    let kafka = Kafka::shared();
    kafka.make_topic("narrow", 1, &[("max.message.bytes", "20000")]);
    let mut line = Line::with(kafka, "narrow", &Options::default(), |config, _| {
        config.kafka("topic = \"narrow\"").kafka("linger = \"1s\"").kafka("compression = \"none\"")
    });
    let client = line.client_id();
    line.topic = "narrow".to_owned();
    line.agent.start();
    line.mosquitto.wait_subscribed(&client);
    for n in 0..2 {
        line.publish(10);
        let large = format!(r#"{{"name":"large","1-0:1.7.0":{{"value":{n}}},"x":"{}"}}"#, "y".repeat(30_000));
        line.publisher.publish_raw("sma", rumqttc::QoS::AtLeastOnce, false, large.as_bytes());
    }
    line.publish(10);
    let audit = line.finish();
    audit.assert_exact();
    assert_eq!(audit.gaps().len(), 2, "{audit}");
    let letters = dead_letters(&line);
    assert_eq!(letters.len(), 2);
    for letter in letters {
        let reason = letter["reason"].as_str().expect("a reason");
        assert!(reason.contains("too large"), "{reason}");
    }
}

/// Promise 5: a missing topic is named with its cure and waited for; with `create_topics` it is made.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn missing_topics_are_named_or_made() {
    let kafka = Kafka::shared();
    let mut line = Line::with(kafka, "missing", &Options::default(), |config, _| config.kafka("topic = \"absent\""));
    let client = line.client_id();
    line.topic = "absent".to_owned();
    line.agent.start();
    line.mosquitto.wait_subscribed(&client);
    line.publish(5);
    line.agent.wait_log("--create --topic absent", SOON);
    kafka.make_topic("absent", 3, &[]);
    line.finish().assert_exact();

    let mut line = Line::with(kafka, "made", &Options::default(), |config, _| {
        config
            .kafka("topic = \"made-here\"")
            .kafka("resume_topic = \"made-here-resume\"")
            .kafka("create_topics = true")
            .kafka("partitions = 2")
    });
    let client = line.client_id();
    line.topic = "made-here".to_owned();
    line.agent.start();
    line.mosquitto.wait_subscribed(&client);
    line.publish(5);
    wait::until_true("the agent to make its topics", SOON, || line.agent.log().contains("made the topic"));
    line.finish().assert_exact();
}

/// Promise 3: a retained message is an old value, sent because we subscribed: not a new reading.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn retained_message_is_ignored() {
    let mut line = Line::new(Kafka::shared(), "retained");
    let old = document::reading("old", 1);
    line.publisher.publish_raw("sma", rumqttc::QoS::AtLeastOnce, true, &old.payload);
    wait::until_true("the broker to keep it", SOON, || line.publisher.acknowledged() == 1);
    line.start();
    let new = Message { topic: "sma".to_owned(), ..document::reading("new", 2) };
    line.publisher.publish(&new);
    line.finish().assert_exact();
}

/// Promise 5: QoS 0 readings are stored too, and it is said once that nobody would send them again.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn qos_0_is_stored_and_said() {
    let mut line = Line::new(Kafka::shared(), "qos0");
    line.start();
    let messages = document::readings(&["90296857"], 0, 20);
    for message in &messages {
        line.publisher.publish_raw("sma", rumqttc::QoS::AtMostOnce, false, &message.payload);
    }
    line.auditor().wait_for(&messages, PATIENT).assert_exact();
    assert_eq!(line.agent.log().matches("QoS 0").count(), 1);
    line.agent.stop();
}

/// Promise 5: a stop with Kafka away is orderly and within its limit.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn stops_in_order_while_kafka_is_away() {
    let kafka = Kafka::shared();
    let mut line = Line::with(kafka, "stop", &Options::default(), |config, _| {
        config
            .kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", process::free_port()))
            .agent("stop_timeout = \"10s\"")
    });
    line.start();
    line.publish(20);
    line.agent.wait_log("Kafka", SOON);
    let start = std::time::Instant::now();
    line.agent.stop();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    line.agent.reconfigure(|queue| line.config(queue));
    line.agent.start();
    line.finish().assert_exact();
}

/// Promise 5: a stop that waits for Kafka says for whom, and how long it still may; nothing is lost or repeated.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn a_slow_stop_says_who_still_runs() {
    let kafka = Kafka::shared();
    let proxy = kafka.proxy();
    let mut line = Line::with(kafka, "slow-stop", &Options::default(), |config, _| {
        config
            .kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port()))
            .kafka("request_timeout = \"10s\"")
            .agent("stop_timeout = \"2s\"")
    });
    line.start();
    line.publish(10);
    line.audit();
    proxy.hold(Direction::FromServer, true);
    let before = proxy.passed(Direction::ToServer);
    line.publish(10);
    wait::until_true("a transaction to begin", SOON, || proxy.passed(Direction::ToServer) > before);
    line.agent.stop();
    let log = line.agent.full_log();
    assert!(log.contains("still stopping running=\"the forwarder\" left_s="), "{log}");
    proxy.hold(Direction::FromServer, false);
    line.agent.start();
    line.finish().assert_exact();
}
