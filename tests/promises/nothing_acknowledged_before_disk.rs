//! Promise 1: nothing is acknowledged before it is on disk. Mosquitto's log says what was acknowledged, the queue's
//! folder what is on disk.

use rand::RngExt;

use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::on_disk;
use crate::harness::process;
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{self, SOON};

/// A line whose Kafka cannot be reached, so that everything stays in the queue.
fn offline(name: &str) -> Line<'static> {
    Line::with(Kafka::shared(), name, &Options::default(), |config, _| {
        config.kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", process::free_port()))
    })
}

/// Connects the line to Kafka again and ends it with an audit.
fn deliver(mut line: Line<'_>) {
    let text = |queue: &std::path::Path| line.config(queue);
    line.agent.reconfigure(text);
    line.agent.start();
    line.finish().assert_exact();
}

/// Promise 1: killed before the commit, nothing was acknowledged; after the restart everything comes again.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_before_the_commit() {
    for nth in [1, 7, 23] {
        let mut line = offline("ack-received");
        line.agent.failpoint(Some(&format!("received:{nth}")));
        line.start();
        line.publish_until_failpoint();
        let (acknowledged, stored) =
            (line.mosquitto.acknowledgements(&line.client_id()), on_disk::entries(&line.agent).len());
        assert!(acknowledged <= stored, "{acknowledged} acknowledged, {stored} on disk");
        assert!(stored < nth, "the {nth}th message was not to be written");
        line.agent.failpoint(None);
        deliver(line);
    }
}

/// Promise 1: killed between the commit and the acknowledgement; what is sent again is not stored again.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_between_commit_and_acknowledgement() {
    let mut line = offline("ack-committed");
    for nth in 1..=3 {
        line.agent.failpoint(Some(&format!("committed:{nth}")));
        line.start();
        line.publish_until_failpoint();
        let (acknowledged, stored) =
            (line.mosquitto.acknowledgements(&line.client_id()), on_disk::entries(&line.agent).len());
        assert!(acknowledged < stored, "{acknowledged} acknowledged, {stored} on disk, and killed in between");
    }
    line.agent.failpoint(None);
    line.agent.start();
    wait::until_true("everything to be acknowledged", SOON, || {
        line.mosquitto.acknowledgements(&line.client_id()) >= line.publisher.published().len()
    });
    line.agent.stop();
    assert_eq!(
        on_disk::entries(&line.agent).len(),
        line.publisher.published().len(),
        "a redelivery was stored as a new reading"
    );
    deliver(line);
}

/// Promise 1: killed at any moment, there is never more acknowledged than on disk.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_at_any_moment() {
    let mut line = offline("ack-any");
    line.start();
    let mut choices = choices("acknowledged");
    for round in 0..scale(5, 200) {
        let messages = line.next(&["a", "b"], 100);
        messages.iter().for_each(|message| line.publisher.publish(message));
        let wanted = line.mosquitto.acknowledgements(&line.client_id()) + choices.random_range(1..80);
        wait::until_true("some acknowledgements", SOON, || {
            line.mosquitto.acknowledgements(&line.client_id()) >= wanted
        });
        line.agent.kill();
        let (acknowledged, stored) =
            (line.mosquitto.acknowledgements(&line.client_id()), on_disk::entries(&line.agent).len());
        assert!(acknowledged <= stored, "round {round}: {acknowledged} acknowledged, {stored} on disk");
        line.agent.start();
    }
    line.publisher.wait_acknowledged();
    line.agent.stop();
    deliver(line);
}
