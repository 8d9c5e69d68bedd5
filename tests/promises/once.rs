//! Promise 3: every reading exactly once, whatever is killed, restarted or cut.

use rdkafka::producer::{BaseProducer, Producer};

use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::proxy::{Direction, Proxy};
use crate::harness::wait::{self, PATIENT, SOON};

/// Promise 3: the agent is killed between the commit and the acknowledgement when Kafka already has the readings: the
/// broker sends them again, and they are recognised although the queue has released them.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn redelivered_after_kafka_has_it() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "redelivered");
    let proxy = Proxy::start(line.mosquitto.port());
    line.agent.reconfigure(|queue| line.config(queue).port(proxy.port()));
    line.start();
    line.publish(20);
    line.audit().assert_exact();

    // From here on the broker hears no acknowledgement.
    let client = line.client_id();
    let acknowledged = || line.mosquitto.acknowledgements(&client);
    wait::until_true("the broker to hear the first twenty", SOON, || acknowledged() == 20);
    proxy.hold(Direction::ToServer, true);
    let messages = document::readings(&["90296857"], 1_000, 20);
    line.publisher.publish_all(&messages);
    line.audit().assert_exact();
    assert_eq!(acknowledged(), 20);
    line.agent.kill();
    proxy.cut();
    proxy.hold(Direction::ToServer, false);

    line.agent.start();
    wait::until_true("the redelivered ones to be acknowledged", SOON, || acknowledged() >= 40);
    line.publish(5);
    line.finish().assert_exact();
}

/// Promise 3: another producer with the agent's own transactional id fences it off, as its own transaction that timed out
/// would; it asks Kafka what is true and goes on.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn fenced_by_another_producer() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "fenced");
    line.start();
    line.publish(10);
    line.audit();
    let [id] = &kafka.groups(&format!("meterferry.{}.", line.topic))[..] else { panic!("one group") };
    for _ in 0..3 {
        let other: BaseProducer = kafka.client().set("transactional.id", id).create().expect("a producer");
        other.init_transactions(PATIENT).expect("Kafka answers");
        line.publish(10);
        line.audit().assert_exact();
    }
    line.finish().assert_exact();
}
