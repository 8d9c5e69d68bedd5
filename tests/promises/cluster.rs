//! Promise 3 on a cluster of three brokers, of which some are gone at times.

use std::time::Duration;

use rand::RngExt;

use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{self, PATIENT};

const BROKERS: usize = 3;

/// Promise 3: each broker in turn is killed and comes back, so that the coordinators of the group and of the transaction and
/// the partitions' leaders move; then they are stopped in order, one after the other; then two are gone, with which nothing can be
/// committed. Readings come all the time.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn brokers_of_three_come_and_go() {
    let kafka = Kafka::with(BROKERS, &[]);
    kafka.make_topic("three", 3, &[]);
    let mut line = Line::with(&kafka, "three", &Options::default(), |config, _| {
        let servers: Vec<_> = kafka.all_plain().iter().map(|server| format!("{server:?}")).collect();
        // What the death of a coordinator may cost.
        let config = config.kafka("topic = \"three\"").kafka("transaction_timeout = \"5s\"");
        config.kafka(&format!("bootstrap_servers = [{}]", servers.join(", ")))
    });
    let client = line.client_id();
    line.topic = "three".to_owned();
    line.agent.start();
    line.mosquitto.wait_subscribed(&client);
    line.publish(20);
    line.audit().assert_exact();

    for round in 0..scale(1, 30) {
        killed_in_turn(&kafka, &mut line);
        stopped_in_turn(&kafka, &mut line);
        most_are_gone(&kafka, &mut line);
        println!("round {round} done");
    }
    line.finish().assert_exact();
}

fn burst(line: &mut Line<'_>) {
    let messages = line.next(&["alpha", "beta", "gamma", "delta"], 50);
    messages.iter().for_each(|message| line.publisher.publish(message));
}

fn killed_in_turn(kafka: &Kafka, line: &mut Line<'_>) {
    let mut choices = choices("killed_in_turn");
    for node in 0..BROKERS {
        burst(line);
        std::thread::sleep(Duration::from_millis(choices.random_range(0..400)));
        kafka.kill_node(node);
        burst(line);
        line.publisher.wait_acknowledged();
        // With one of three gone everything goes on.
        line.audit().assert_exact();
        kafka.restart_node(node);
        wait_replicated(kafka);
    }
}

fn stopped_in_turn(kafka: &Kafka, line: &mut Line<'_>) {
    for node in 0..usize::try_from(scale(1, 3)).expect("a few") {
        burst(line);
        kafka.stop_node(node);
        kafka.restart_node(node);
        wait_replicated(kafka);
    }
    line.publisher.wait_acknowledged();
    line.audit().assert_exact();
}

fn most_are_gone(kafka: &Kafka, line: &mut Line<'_>) {
    burst(line);
    kafka.kill_node(0);
    kafka.kill_node(2);
    burst(line);
    line.publisher.wait_acknowledged();
    line.agent.kill();
    line.agent.start();
    burst(line);
    kafka.restart();
    line.publisher.wait_acknowledged();
    line.audit().assert_exact();
}

/// Waits until every partition of every topic has all its replicas again: only then another broker may go.
fn wait_replicated(kafka: &Kafka) {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer = kafka.client().create().expect("a client");
    wait::until_true("all replicas to be in sync", PATIENT, || {
        consumer.fetch_metadata(None, Duration::from_secs(5)).is_ok_and(|all| {
            all.brokers().len() == BROKERS
                && all.topics().iter().flat_map(|topic| topic.partitions()).all(|p| p.isr().len() == p.replicas().len())
        })
    });
}
