//! Promise 4: per device, Kafka's order is the order of arrival.

use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::{Mosquitto, Options};
use crate::harness::publisher::Publisher;
use crate::harness::wait::PATIENT;

/// Promise 4: many devices, several partitions, two brokers, and the agent killed meanwhile. The auditor looks at the
/// order, and that each device stays in the partition that Kafka's own clients would choose.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn many_devices_and_partitions() {
    let kafka = Kafka::shared();
    kafka.make_topic("ordered", 5, &[]);
    let other = Mosquitto::start();
    let mut line = Line::with(kafka, "order", &Options::default(), |config, port| {
        config.kafka("topic = \"ordered\"").kafka("batch_count = 7").source(&format!(
            "name = \"second\"\ntype = \"mqtt\"\nhost = \"127.0.0.1\"\nport = {}\ntopics = [\"sma\"]\n\
             payload = \"sma\"\nclient_id = \"second-{port}\"\nreconnect_max_delay = \"1s\"",
            other.port()
        ))
    });
    let topic = std::mem::replace(&mut line.topic, "ordered".to_owned());
    line.agent.start();
    line.mosquitto.wait_subscribed(&format!("meterferry-{topic}-meter"));
    other.wait_subscribed(&format!("second-{}", line.mosquitto.port()));
    let second = Publisher::connect(other.port());
    let (here, there): (Vec<_>, Vec<_>) = (0..6).map(|n| (format!("here-{n}"), format!("there-{n}"))).unzip();
    let (here, there): (Vec<&str>, Vec<&str>) =
        (here.iter().map(String::as_str).collect(), there.iter().map(String::as_str).collect());
    for _ in 0..3 {
        let messages = line.next(&here, 20);
        messages.iter().for_each(|message| line.publisher.publish(message));
        line.next(&there, 20).iter().for_each(|message| second.publish(message));
        line.agent.kill();
        line.agent.start();
    }
    line.publisher.wait_acknowledged();
    second.wait_acknowledged();
    let all = [line.publisher.published(), second.published()].concat();
    line.auditor().wait_for(&all, PATIENT).assert_exact();
    line.agent.stop();
    line.auditor().audit(&all).assert_exact();
}

/// Promise 4: a source with a topic of its own keeps to it.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn source_with_its_own_topic() {
    let kafka = Kafka::shared();
    let own = kafka.topic("own", 2);
    let mosquitto = Mosquitto::start();
    let topic = kafka.topic("default", 1);
    let mut agent = crate::harness::agent::Agent::new(|queue| {
        Config::new(&topic, queue, &kafka.plain(), &topic)
            .mqtt(mosquitto.port())
            .source_lines(&format!("kafka_topic = \"{own}\""))
    });
    agent.start();
    mosquitto.wait_subscribed(&format!("meterferry-{topic}-meter"));
    let publisher = Publisher::connect(mosquitto.port());
    publisher.publish_all(&crate::harness::document::readings(&["a", "b", "c"], 0, 10));
    crate::harness::auditor::Auditor::new(kafka, &own).wait_for(&publisher.published(), PATIENT).assert_exact();
    assert!(crate::harness::auditor::Auditor::new(kafka, &topic).records().is_empty());
    agent.stop();
}

/// Promises 3 and 4: each device has a topic of its own, which is made when the device is first seen, also after a kill;
/// what the topic's name cannot hold of the device's is replaced.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn devices_with_topics_of_their_own() {
    let kafka = Kafka::shared();
    let mut line = Line::with(kafka, "by-device", &Options::default(), |config, _| {
        config
            .kafka("create_topics = true")
            .source_line(&format!("kafka_topic = \"by.{{source}}.{}.{{device}}\"", std::process::id()))
    });
    line.start();
    let devices = [("a", "a"), ("Zähler 5", "Z_hler_5"), ("b.c", "b_c")];
    let mut published = Vec::new();
    for (round, there) in [&devices[..1], &devices[..], &devices[1..]].into_iter().enumerate() {
        let names: Vec<&str> = there.iter().map(|(name, _)| *name).collect();
        let messages = line.next(&names, 30);
        line.publisher.publish_all(&messages);
        published.extend(messages);
        if round == 1 {
            line.publisher.wait_acknowledged();
            line.agent.kill();
            line.agent.start();
        }
    }
    line.publisher.wait_acknowledged();
    line.agent.wait_figures("everything is sent", PATIENT, |live| live.end == 181 && live.release_point == live.end);
    for (device, topic) in devices {
        let own: Vec<_> =
            published.iter().filter(|message| message.device == device).map(|one| one.payload.clone()).collect();
        let topic = format!("by.meter.{}.{topic}", std::process::id());
        let there: Vec<_> = Auditor::new(kafka, &topic).records().into_iter().map(|record| record.value).collect();
        assert!(there == own, "{device}: {} of {} readings, or another order", there.len(), own.len());
    }
    assert!(line.auditor().records().is_empty(), "nothing in the usual topic");
    line.agent.stop();
}
