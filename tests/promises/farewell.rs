//! Promise 6: an agent that is given up leaves nothing behind that grows: its session at the broker ends.

use std::process::{Command, Output};

use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::{self, Options};
use crate::harness::process;

/// Whether the broker had kept a message for the client; takes its place.
fn kept(line: &Line<'_>) -> bool {
    let port = line.mosquitto.port();
    mosquitto::mosquitto_pub(port, "sma", b"for the agent");
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-i", &line.client_id()]);
    let output = command.args(["-c", "-q", "1", "-t", "nothing", "-W", "2"]).output().expect("mosquitto_sub runs");
    String::from_utf8_lossy(&output.stdout).contains("for the agent")
}

fn end_session(line: &Line<'_>) -> Output {
    line.agent.command(&["end-session"]).output().expect("the program runs")
}

/// Promise 6: the broker forgets the session and what it keeps for it; beside a running agent nothing happens.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn the_broker_forgets_us() {
    let mut line = Line::with(Kafka::shared(), "farewell", &Options::default(), |config, _| config);
    line.start();
    line.publish(3);
    line.audit().assert_exact();
    let refused = end_session(&line);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("systemctl stop meterferry"), "{refused:?}");
    line.publish(3);
    line.audit().assert_exact();
    line.agent.stop();
    assert!(kept(&line), "without the command the broker keeps what comes");

    let said = process::run(&mut line.agent.command(&["end-session"]));
    assert!(said.contains(&line.client_id()) && said.contains("has ended"), "{said}");
    assert!(!kept(&line), "{}", line.mosquitto.log());

    line.mosquitto.stop();
    let failed = end_session(&line);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(said.contains("warning: source") && said.contains("hint: "), "{said}");
}
