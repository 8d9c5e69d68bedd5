//! Promise 4: per device, Kafka's order is the order of arrival.

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
