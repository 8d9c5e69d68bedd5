//! Promise 3: every reading exactly once, whatever is killed, restarted or cut.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};

use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::proxy::{Direction, Proxy};
use crate::harness::wait::{self, PATIENT, SOON};

/// Readings come while the agent is killed at `point`, at its first, second and fourth passing; each time it comes back.
fn killed_at(point: &str) {
    let mut line = Line::new(Kafka::shared(), point);
    for nth in [1, 2, 4] {
        line.agent.failpoint(Some(&format!("{point}:{nth}")));
        line.start();
        line.publish_until_failpoint();
        line.publish(5);
    }
    line.agent.failpoint(None);
    line.agent.start();
    line.publish(20);
    line.finish().assert_exact();
}

/// Promise 3: killed with messages taken and not written.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_when_received() {
    killed_at("received");
}

/// Promise 3: killed after the commit, before the acknowledgement.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_when_committed() {
    killed_at("committed");
}

/// Promise 3: killed with records in an open transaction.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_in_a_transaction() {
    killed_at("in-transaction");
}

/// Promise 3: killed when the resume point is in the transaction and it is not committed.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_when_offsets_are_sent() {
    killed_at("offsets-sent");
}

/// Promise 3: killed when Kafka has committed and the queue does not know.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_when_kafka_has_committed() {
    killed_at("kafka-committed");
}

/// Promise 3: killed when the release is recorded and nothing is unlinked.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_when_released() {
    killed_at("released");
}

/// Promise 3: killed at any moment, again and again, while readings come in.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_at_any_moment_under_load() {
    let mut line = Line::new(Kafka::shared(), "load");
    line.start();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let messages = line.next(&["alpha", "beta", "gamma"], 100);
        messages.iter().for_each(|message| line.publisher.publish(message));
        let pause = rand::random_range(20..900);
        pauses.push(pause);
        std::thread::sleep(Duration::from_millis(pause));
        line.agent.kill();
        line.agent.start();
    }
    println!("killed after {pauses:?} ms");
    line.publisher.wait_acknowledged();
    line.finish().assert_exact();
}

/// Promise 3: in `at-least-once` nothing is lost, and `ce_id` is what repeats can be dropped by.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn at_least_once_can_be_made_once_by_id() {
    let mut line = Line::with(Kafka::shared(), "at-least", &Options::default(), |config, _| {
        config.kafka("delivery = \"at-least-once\"")
    });
    line.start();
    for _ in 0..6 {
        let messages = line.next(&["alpha", "beta"], 50);
        messages.iter().for_each(|message| line.publisher.publish(message));
        std::thread::sleep(Duration::from_millis(rand::random_range(50..500)));
        line.agent.kill();
        line.agent.start();
    }
    line.publisher.wait_acknowledged();
    line.finish().assert_exact_by_id();
}

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

/// Promise 3: Mosquitto is stopped, and killed, and comes back; with DUP 0 too.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn mosquitto_restarts() {
    let options = Options { persistence: true, ..Options::default() };
    let mut line = Line::with(Kafka::shared(), "mosquitto", &options, |config, _| config);
    line.start();
    line.publish(30);
    line.mosquitto.stop();
    line.mosquitto.restart();
    line.publish(30);
    line.audit().assert_exact();

    // Its store has messages as unacknowledged that the agent acknowledges before it is killed.
    line.agent.hold(true);
    line.publish(30);
    line.mosquitto.save();
    let acknowledged = line.mosquitto.acknowledgements(&line.client_id());
    line.agent.hold(false);
    wait::until_true("all acknowledgements", SOON, || {
        line.mosquitto.acknowledgements(&line.client_id()) >= acknowledged + 30
    });
    line.mosquitto.kill();
    line.mosquitto.restart();
    line.publish(30);
    line.finish().assert_exact();
}

/// Promise 3: the connection to the broker is cut at random bytes, either way.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn network_to_the_broker_is_cut_at_any_byte() {
    let mut line = Line::new(Kafka::shared(), "mqtt-cut");
    let proxy = Proxy::start(line.mosquitto.port());
    line.agent.reconfigure(|queue| line.config(queue).port(proxy.port()));
    line.start();
    let mut cuts = Vec::new();
    for round in 0..12 {
        let (direction, most) =
            if round % 2 == 0 { (Direction::ToServer, 200) } else { (Direction::FromServer, 12_000) };
        let bytes = rand::random_range(1..most);
        cuts.push((direction, bytes));
        let connections = proxy.accepted();
        proxy.cut_after(direction, bytes);
        // Until the byte is reached and the agent is back.
        wait::until_true("the agent to connect again", PATIENT, || {
            line.publish(10);
            proxy.accepted() > connections
        });
    }
    println!("cut at {cuts:?}");
    line.finish().assert_exact();
}

/// Promise 3: the connection to Kafka is cut at random bytes, either way, in every phase of a transaction.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn network_to_kafka_is_cut_at_any_byte() {
    let kafka = Kafka::shared();
    let proxy = kafka.proxy();
    let mut line = Line::with(kafka, "kafka-cut", &Options::default(), |config, _| {
        config.kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port()))
    });
    line.start();
    line.publish(10);
    line.audit();
    let mut cuts = Vec::new();
    for round in 0..16 {
        let (direction, most) =
            if round % 2 == 0 { (Direction::ToServer, 6_000) } else { (Direction::FromServer, 800) };
        let bytes = rand::random_range(1..most);
        cuts.push((direction, bytes));
        let connections = proxy.accepted();
        proxy.cut_after(direction, bytes);
        wait::until_true("the agent to connect again", PATIENT, || {
            line.publish(10);
            proxy.accepted() > connections
        });
    }
    println!("cut at {cuts:?}");
    line.finish().assert_exact();
}

/// Promise 3: a network that swallows everything and then comes back.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn network_to_kafka_swallows_everything() {
    let kafka = Kafka::shared();
    let proxy = kafka.proxy();
    let mut line = Line::with(kafka, "black-hole", &Options::default(), |config, _| {
        config
            .kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port()))
            .kafka("request_timeout = \"3s\"")
            .kafka("transaction_timeout = \"5s\"")
    });
    line.start();
    line.publish(10);
    line.audit();
    for _ in 0..2 {
        proxy.black_hole(true);
        line.publish(20);
        line.agent.wait_log("WARN", SOON);
        line.publish(20);
        proxy.black_hole(false);
        line.audit();
    }
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
