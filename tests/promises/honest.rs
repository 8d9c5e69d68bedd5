//! Promise 9: it says what is, and does not start where it cannot work.

use std::fs;
use std::process::{Command, Stdio};

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::harness::agent::Agent;
use crate::harness::config::Config;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::process::{self, Running};
use crate::harness::wait::{self, PATIENT, SOON};

/// Promise 3: a second agent on the same folder is refused with a clear error, and the first does not notice.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn second_agent_is_refused() {
    let mut line = Line::new(Kafka::shared(), "second");
    line.start();
    line.publish(5);
    let output = line.agent.command(&["run"]).stdin(Stdio::null()).output().expect("the agent's program");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains(line.agent.queue().to_str().expect("a plain path")), "which folder: {text}");
    assert!(text.contains("another") || text.contains("already"), "what is wrong: {text}");
    line.publish(5);
    line.finish().assert_exact();
}

/// Promise 9: ten mistakes in a configuration are reported in one go, with their lines, and nothing starts.
#[test]
fn all_mistakes_at_once() {
    let agent = Agent::new(|queue| {
        Config::new("pi.1", queue, "no-port", "bad topic")
            .queue("max_size = \"1 KiB\"")
            .queue("commit_delai = \"1s\"")
            .kafka("delivery = \"twice\"")
            .kafka("compression = 7")
            .source("name = \"a\"\ntype = \"mqtt\"\ntopics = [\"sma/#/x\"]\nport = 70000")
            .source("name = \"a\"\ntype = \"modbas\"")
    });
    for command in [&["run"][..], &["check"]] {
        let output = agent.command(command).stdin(Stdio::null()).output().expect("the agent's program");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(78), "{command:?}:\n{text}");
        for problem in [
            "pi.1",
            "no-port",
            "bad topic",
            "1 KiB",
            "commit_delai",
            "twice",
            "compression",
            "sma/#/x",
            "70000",
            "modbas",
        ] {
            assert!(text.contains(problem), "{command:?} does not mention {problem:?}:\n{text}");
        }
        assert!(text.contains("commit_delay"), "the nearest right key is named:\n{text}");
        let with_line = text.lines().filter(|line| line.contains("meterferry.toml:")).count();
        assert!(with_line >= 10, "{with_line} of ten with file and line:\n{text}");
    }
    assert!(!agent.queue().exists(), "nothing was started");
}

/// Promise 9: SIGTERM and SIGINT end it in order.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn signals() {
    use nix::sys::signal::Signal;
    let mut line = Line::new(Kafka::shared(), "signals");
    line.start();
    line.publish(10);
    line.audit().assert_exact();
    line.agent.signal(Signal::SIGINT);
    let status = line.agent.wait(SOON);
    assert!(status.success(), "{status}");
    line.agent.start();
    line.publish(10);
    line.finish().assert_exact();
}

/// Promise 9: where all is well, there is no error line, and no line a reading.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn no_line_a_reading() {
    let mut line = Line::new(Kafka::shared(), "quiet");
    line.start();
    line.publish(10);
    line.audit();
    let before = line.agent.log().lines().count();
    line.publish(500);
    line.audit();
    let after = line.agent.log().lines().count();
    assert!(after - before <= 5, "{} lines for 500 readings:\n{}", after - before, line.agent.log());
    line.agent.stop();
    let log = fs::read_to_string(line.agent.config().with_file_name("agent.log")).expect("a log");
    assert!(!log.contains("ERROR"), "{log}");
}

/// Promise 9: the demo through a real broker into a real cluster, exactly once: its audit is clean, its topics are gone.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn demo_with_real_servers() {
    let kafka = Kafka::shared();
    let mosquitto = Mosquitto::start();
    let folder = process::scratch("demo");
    let mut command = Command::new(env!("CARGO_BIN_EXE_meterferry"));
    command.args(["demo", "--plain", "--color", "never", "--seconds", "10", "--kafka", &kafka.plain()]);
    command.args(["--broker", &format!("127.0.0.1:{}", mosquitto.port())]).env("TMPDIR", folder.path());
    let mut demo = Running::start("the demo", &mut command, &folder.path().join("demo.log"));
    let status = demo.wait(PATIENT);
    let log = demo.log();
    assert!(status.success(), "{status}\n{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("audit: ") && last.ends_with(" 0 lost, 0 repeated, 0 out of order"), "{log}");
    assert!(log.contains("Exactly once"), "{log}");
    let client: BaseConsumer = kafka.client().create().expect("a client");
    wait::until_true("the demo's topics to be gone", SOON, || {
        let all = client.fetch_metadata(None, SOON).expect("Kafka answers");
        !all.topics().iter().any(|topic| topic.name().starts_with("meterferry-demo"))
    });
}
