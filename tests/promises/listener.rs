//! The adapter speaks to the agent itself: the acknowledgement is the agent's own.

use std::time::Duration;

use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::process;
use crate::harness::publisher::Publisher;
use crate::harness::wait::PATIENT;

fn agent(kafka: &Kafka, topic: &str, port: u16) -> Agent {
    Agent::new(|queue| {
        Config::new(topic, queue, &kafka.plain(), topic).source(&format!(
            "name = \"adapter\"\ntype = \"mqtt-listener\"\nlisten = \"127.0.0.1:{port}\"\ntopics = [\"sma\"]\n\
             payload = \"sma\"\ncommit_delay = \"50ms\""
        ))
    })
}

/// Promises 1 and 3: the agent is killed before and after its commits; what it has not acknowledged comes again and is
/// stored once.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_at_any_point() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("listener", 1);
    let port = process::free_port();
    let mut agent = agent(kafka, &topic, port);
    agent.start();
    agent.wait_log("listening", PATIENT);
    let publisher = Publisher::connect(port);
    let mut serial = 0;
    for point in ["received:3", "committed", "committed:2", "in-transaction", "kafka-committed"] {
        publisher.publish_all(&document::readings(&["alpha", "beta"], serial, 10));
        agent.stop();
        agent.failpoint(Some(point));
        agent.start();
        // One after the other, so that the same point is passed more than once.
        for message in document::readings(&["alpha", "beta"], serial + 10, 20) {
            publisher.publish(&message);
            std::thread::sleep(Duration::from_millis(5));
        }
        agent.wait_failpoint();
        serial += 30;
        agent.failpoint(None);
        agent.start();
        publisher.wait_acknowledged();
    }
    let auditor = Auditor::new(kafka, &topic);
    auditor.wait_for(&publisher.published(), PATIENT).assert_exact();
    agent.stop();
    auditor.audit(&publisher.published()).assert_exact();
}
