//! Promise 9: the running agent tells what it does, since when, and what happened before it came up.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rumqttc::QoS;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::namespace;
use crate::harness::process;
use crate::harness::wait::{self, SOON};

/// What stands before the command of an agent that systemd has given this folder.
fn with_runtime(folder: &Path) -> Vec<String> {
    ["env".to_owned(), format!("RUNTIME_DIRECTORY={}", folder.display())].to_vec()
}

/// The same, on a machine that was switched on anew: another boot id.
fn booted_anew(runtime: &Path, folder: &TempDir, number: u8) -> Vec<String> {
    let id = folder.path().join(format!("boot-{number}"));
    fs::write(&id, format!("{number:08x}-0000-4000-8000-000000000000\n")).expect("write");
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let mut words = ["unshare", "--mount", "sh", "-c", script].map(str::to_owned).to_vec();
    words.push(id.display().to_string());
    words.extend(with_runtime(runtime));
    words
}

/// What `meterferry status` says, and its exit code.
fn status(line: &Line<'_>, json: bool) -> (Option<i32>, String) {
    let arguments: &[&str] = if json { &["status", "--json"] } else { &["status"] };
    let output = line.agent.command(arguments).output().expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), format!("{}{errors}", String::from_utf8_lossy(&output.stdout)))
}

fn figures(line: &Line<'_>) -> Value {
    let (code, text) = status(line, true);
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str(text.lines().next().unwrap_or_default()).expect("JSON")
}

/// Promise 9: the agent at a glance over its socket, which is for its group, is replaced after a kill and gone after a stop;
/// without an agent its queue is looked at.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn at_a_glance() {
    let runtime = process::scratch("runtime");
    let socket = runtime.path().join("agent.sock");
    let mut line = Line::new(Kafka::shared(), "glance");
    line.agent.inside(with_runtime(runtime.path()));
    line.start();
    line.publish(20);
    line.publisher.publish_raw("sma", QoS::AtLeastOnce, false, b"no reading");
    line.audit();
    wait::until_true("the agent to have looked at itself", SOON, || {
        let live = figures(&line);
        live["sources"][0]["silent_s"].is_u64() && live["kafka_connected_s"].is_u64() && live["dead_letters"] == 1
    });
    assert_eq!(fs::metadata(&socket).expect("a socket").mode() & 0o777, 0o660);
    let live = figures(&line);
    assert_eq!((&live["running"], &live["end"]), (&true.into(), &22.into()), "{live}");
    assert_eq!(live["configuration"][0].as_str().map(Path::new), Some(&*line.agent.config()));
    assert_eq!(live["wear"]["readings"], 21);
    assert!(live["wear"]["bytes"].as_u64() > Some(0) && live["wear"]["flushes"].as_u64() > Some(0), "{live}");
    assert!(live["words"][0]["text"].as_str().is_some_and(|text| text.contains("no reading")), "{live}");
    let (_, text) = status(&line, false);
    assert!(text.lines().next().is_some_and(|line| line.starts_with("1 of 1 sources connected, Kafka ")), "{text}");
    for word in ["source ", "connected for", "resume point 22", "ERROR this message is no reading", "flushes a reading"]
    {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }

    line.agent.kill();
    let (code, text) = status(&line, false);
    assert!(code == Some(1) && text.contains("no agent runs") && text.contains("waiting"), "{code:?} {text}");
    assert!(socket.exists(), "left by the kill");
    line.start();
    wait::until_true("the agent to tell of the kill", SOON, || {
        status(&line, false).1.contains("the last run was killed after ")
    });
    line.publish(5);
    line.audit();
    line.agent.stop();
    assert!(!socket.exists());
    let (code, text) = status(&line, true);
    assert!(code == Some(1) && text.contains("\"running\":false"), "{code:?} {text}");
    // The figures of the wear go on, but for those of the run that was killed.
    line.start();
    wait::until_true("the agent to answer", SOON, || status(&line, true).0 == Some(0));
    assert_eq!(figures(&line)["wear"]["readings"], 5);
    assert!(!status(&line, false).1.contains("last start"), "an orderly stop");
    line.agent.stop();
}

/// Promise 9: where Kafka is not configured, that is what is said, and where to set it.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn without_kafka() {
    let mut line = Line::new(Kafka::shared(), "no-kafka");
    let text = fs::read_to_string(line.agent.config()).expect("the configuration");
    let lines = text.lines().filter(|line| !line.starts_with("bootstrap_servers"));
    fs::write(line.agent.config(), lines.collect::<Vec<_>>().join("\n")).expect("written");
    line.start();
    line.publish(3);
    line.agent.wait_figures("them to be stored", SOON, |live| live.end == 4);
    let (code, text) = status(&line, false);
    let path = line.agent.config().display().to_string();
    assert!(code == Some(0) && text.contains(&format!("set it in {path}")), "{text}");
    assert!(text.lines().next().is_some_and(|line| line.contains("kafka.bootstrap_servers is not set")), "{text}");
    line.agent.stop();
}

/// Promise 9: after a pulled plug the agent says between which times the power was lost, and what it cost: nothing.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn after_a_pulled_plug() {
    if !namespace::available("after_a_pulled_plug") {
        return;
    }
    let runtime = process::scratch("runtime");
    let mut line = Line::new(Kafka::shared(), "plug");
    line.agent.inside(booted_anew(runtime.path(), &runtime, 1));
    line.start();
    line.publish(10);
    line.audit();
    line.agent.kill();
    line.agent.inside(booted_anew(runtime.path(), &runtime, 2));
    line.start();
    line.agent.wait_log("the machine went down without an orderly stop of the agent", SOON);
    wait::until_true("the agent to answer", SOON, || status(&line, false).1.contains("the power was lost"));
    let live = figures(&line);
    assert_eq!((&live["start"]["power_lost"], &live["lost"]), (&true.into(), &0.into()), "{live}");
    let (_, text) = status(&line, false);
    assert!(text.contains("the power was lost between ") && text.contains("; 0 lost, "), "{text}");
    line.publish(5);
    line.finish().assert_exact();
}
