//! Promise 3 over a reload: a new configuration costs no reading, and a wrong one changes nothing.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::agent::Agent;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{self, PATIENT, SOON};

fn runs(agent: &Agent) -> u64 {
    agent.log().lines().filter(|line| line.contains(" starts ")).count() as u64
}

/// Promise 3: the configuration is changed again and again under load, in the same process; nothing is lost, repeated or
/// reordered.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn reloads_under_load() {
    let mut line = Line::new(Kafka::shared(), "reload");
    let base = line.config(&line.agent.queue());
    line.start();
    let pid = line.agent.pid();
    let enough = AtomicBool::new(false);
    let Line { agent, publisher, .. } = &mut line;
    thread::scope(|scope| {
        let load = choices("reload, the load");
        scope.spawn(|| {
            publisher.publish_on(load, &enough, |first, count| document::readings(&["a", "b"], first, count))
        });
        for round in 1..=scale(8, 200) {
            let before = agent.figures().map_or(0, |figures| figures.end);
            agent.reconfigure(|_| base.clone().queue(&format!("commit_delay = \"{}ms\"", 20 + round)));
            agent.signal(Signal::SIGHUP);
            // Two at once are one reload or two, and none is an end.
            if round % 3 == 0 {
                agent.signal(Signal::SIGHUP);
            }
            wait::until_true("another run", PATIENT, || runs(agent) > round);
            agent.wait_figures("readings after the reload", PATIENT, |figures| figures.end > before);
        }
        enough.store(true, Ordering::Relaxed);
    });
    assert_eq!(line.agent.pid(), pid, "it is the same process");
    assert!(line.agent.ended().is_none());
    line.publisher.wait_acknowledged();
    let log = line.agent.log();
    line.finish().assert_exact();
    assert!(!log.contains(" ERROR "), "{log}");
}

/// Promise 9: a wrong file is refused with all that is wrong with it, and the agent goes on as it was; the corrected file is
/// in force at once.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn a_wrong_file_is_refused() {
    let mut line = Line::new(Kafka::shared(), "refused");
    line.start();
    line.publish(10);
    let right = fs::read_to_string(line.agent.config()).expect("a configuration");
    fs::write(line.agent.config(), right.replace("commit_delay = ", "comit_delay = ") + "host = 7\n").expect("write");
    line.agent.signal(Signal::SIGHUP);
    line.agent.wait_log("the one in force stays", SOON);
    let log = line.agent.log();
    for word in ["comit_delay", "hint", "host", "2 problems in 1 file"] {
        assert!(log.contains(word), "{word:?} is not in the log:\n{log}");
    }
    line.publish(10);
    line.audit().assert_exact();
    assert_eq!(runs(&line.agent), 1);
    fs::write(line.agent.config(), right.replace("name = \"meter\"", "name = \"meter\"\nredelivery = 1"))
        .expect("write");
    line.agent.signal(Signal::SIGHUP);
    wait::until_true("the second refusal", SOON, || line.agent.log().matches("the one in force stays").count() == 2);
    fs::write(line.agent.config(), right.replace("[agent]", "[agent]\nsummary_interval = \"1s\"")).expect("write");
    line.agent.signal(Signal::SIGHUP);
    line.agent.wait_log("summary", PATIENT);
    line.publish(10);
    line.finish().assert_exact();
}
