//! The adapter speaks to the agent itself: the acknowledgement is the agent's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meterferry::failpoint::POINTS;
use rand::RngExt;

use crate::harness::adapter::Adapter;
use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::process;
use crate::harness::scale::{choices, scale};
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
    let enough = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&enough);
    let adapter = std::thread::spawn(move || {
        let mut adapter = Adapter::new(port);
        for serial in 0.. {
            document::readings(&["alpha", "beta"], serial, 1).iter().for_each(|message| adapter.publish(message));
            if told.load(Ordering::SeqCst) {
                return adapter;
            }
        }
        unreachable!("the numbers do not end")
    });
    let mut choices = choices("listener killed");
    for kill in 0..scale(6, 200) {
        let point = POINTS[usize::try_from(kill).expect("a number of kills") % POINTS.len()];
        agent.failpoint(Some(&format!("{point}:{}", choices.random_range(1..6))));
        agent.start();
        agent.wait_failpoint();
    }
    agent.failpoint(None);
    agent.start();
    enough.store(true, Ordering::SeqCst);
    let adapter = adapter.join().expect("the adapter is heard in the end");
    assert!(adapter.repeats > 0, "nothing was sent again: the test has tested nothing");
    let auditor = Auditor::new(kafka, &topic);
    auditor.wait_for(&adapter.published, PATIENT).assert_exact();
    agent.stop();
    auditor.audit(&adapter.published).assert_exact();
}
