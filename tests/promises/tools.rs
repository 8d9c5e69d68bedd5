//! Promises 5, 7 and 9: the tools for a person, on real queues, beside the agent and without it.

use std::process::Output;

use rumqttc::QoS;

use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::on_disk;
use crate::harness::process;
use crate::harness::wait::{self, SOON};

/// By hand: fills METERFERRY_FILL, a folder to be made, with METERFERRY_FILL_COUNT readings (a million), to try the tools on.
#[test]
#[ignore = "by hand: METERFERRY_FILL=FOLDER cargo test --test promises fill_a_folder -- --include-ignored"]
fn fill_a_folder() {
    let Some(folder) = std::env::var_os("METERFERRY_FILL") else { return };
    let count = std::env::var("METERFERRY_FILL_COUNT").map_or(1_000_000, |text| text.parse().expect("a number"));
    let messages = document::readings(&["90296857"], 0, count);
    println!("queue id {}", on_disk::fill(folder.as_ref(), "pi-1", &messages));
}

fn run(line: &Line<'_>, arguments: &[&str]) -> Output {
    line.agent.command(arguments).output().expect("the program runs")
}

fn json(line: &Line<'_>, arguments: &[&str]) -> Vec<serde_json::Value> {
    let text = process::run(&mut line.agent.command(arguments));
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

/// Promise 9: status, peek, export and verify beside a running agent whose Kafka is away, and after a kill; they agree with
/// what was published, and change nothing.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn looking_beside_the_agent() {
    let mut line = Line::with(Kafka::shared(), "look", &Options::default(), |config, _| {
        config.kafka("bootstrap_servers = [\"127.0.0.1:9\"]")
    });
    line.start();
    line.publish(50);
    wait::until_true("the agent to store them", SOON, || line.mosquitto.acknowledgements(&line.client_id()) >= 50);
    for alive in [true, false] {
        if !alive {
            line.agent.kill();
        }
        let status = &json(&line, &["queue", "status", "--json"])[0];
        assert_eq!((&status["waiting"], &status["running"]), (&50.into(), &alive.into()), "{status}");
        assert_eq!(status["kafka"]["state"], "not reached", "{status}");
        let exported = json(&line, &["queue", "export"]);
        let payloads: Vec<_> = exported.iter().map(|line| line["payload"].as_str().expect("text")).collect();
        let published = line.publisher.published();
        let expected: Vec<_> =
            published.iter().map(|message| std::str::from_utf8(&message.payload).expect("text")).collect();
        assert_eq!(payloads, expected);
        let some = json(&line, &["queue", "export", "--from", "11", "--to", "20", "--limit", "5"]);
        assert_eq!(
            some.iter().map(|line| line["sequence"].as_u64()).collect::<Vec<_>>(),
            (11..16).map(Some).collect::<Vec<_>>()
        );
        assert_eq!(json(&line, &["queue", "peek", "--json", "-n", "3", "--newest"])[2]["sequence"], 50);
        assert_eq!(json(&line, &["queue", "verify", "--json"])[0]["sound"], true);
    }
    // A second look at the killed queue finds it as the kill left it.
    assert_eq!(json(&line, &["queue", "status", "--json"])[0]["not_closed"], true);
    let repaired = run(&line, &["queue", "repair"]);
    assert!(String::from_utf8_lossy(&repaired.stdout).contains("was closed"), "{repaired:?}");
    let repaired = run(&line, &["queue", "repair"]);
    assert!(String::from_utf8_lossy(&repaired.stdout).contains("nothing to repair"), "{repaired:?}");
    line.agent.reconfigure(|queue| line.config(queue));
    line.agent.start();
    line.audit().assert_exact();
    let status = || json(&line, &["queue", "status", "--json"]).remove(0);
    wait::until_true("status to show Kafka's resume point", SOON, || status()["kafka"]["resume_point"] == 51);
    assert_eq!(status()["waiting"], 0);
    let repair = run(&line, &["queue", "repair"]);
    assert!(!repair.status.success() && String::from_utf8_lossy(&repair.stderr).contains("by itself"), "{repair:?}");
    line.agent.stop();
}

/// Promise 5: a dead letter is shown, and put back once its source is configured right: durably before it is deleted, once
/// although the replay is killed in between, and with a reference to the sequence it had.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn dead_letters_are_replayed() {
    let mut line = Line::new(Kafka::shared(), "replay");
    line.start();
    line.publish(3);
    for text in ["first", "second\u{1b}[2J", "third"] {
        line.publisher.publish_raw("sma", QoS::AtLeastOnce, false, text.as_bytes());
    }
    line.publish(3);
    line.audit();
    wait::until_true("the dead letters", SOON, || json(&line, &["dead-letters", "list", "--json"]).len() == 3);
    let letters = json(&line, &["dead-letters", "export"]);
    let sequences: Vec<_> = letters.iter().map(|letter| letter["sequence"].to_string()).collect();
    let shown = run(&line, &["dead-letters", "show", &sequences[1]]);
    assert!(!shown.stdout.contains(&0x1b) && String::from_utf8_lossy(&shown.stdout).contains("second"), "{shown:?}");
    for command in ["replay", "delete"] {
        let refused = run(&line, &["dead-letters", command, "--all"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("systemctl stop meterferry"), "{said}");
    }
    line.agent.stop();

    // As it is configured they still cannot be decoded.
    let refused = run(&line, &["dead-letters", "replay", "--all"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let text = std::fs::read_to_string(line.agent.config()).expect("the configuration");
    std::fs::write(line.agent.config(), text.replace("payload = \"sma\"", "payload = \"any\"")).expect("written");
    assert!(run(&line, &["dead-letters", "delete", &sequences[0]]).status.success());
    let mut killed = line.agent.command(&["dead-letters", "replay", "--all"]);
    let killed = killed.env("METERFERRY_FAILPOINT", "replayed").output().expect("the program runs");
    assert!(!killed.status.success());
    assert_eq!(json(&line, &["dead-letters", "list", "--json"]).len(), 2, "not deleted before they are on disk");
    let replayed = json(&line, &["dead-letters", "replay", "--all", "--json"]);
    assert!(replayed.iter().all(|line| line["outcome"] == "was queued"), "{replayed:?}");
    assert!(json(&line, &["dead-letters", "list", "--json"]).is_empty());

    line.agent.start();
    line.auditor().wait_count(6 + 3 + 2, SOON);
    let records = line.auditor().records();
    for (text, letter) in [("second\u{1b}[2J", &letters[1]), ("third", &letters[2])] {
        let found: Vec<_> = records.iter().filter(|record| record.value == text.as_bytes()).collect();
        assert_eq!(found.len(), 1, "{text:?} is there once");
        assert_eq!(Some(found[0].header("ce_replayof")), letter["ce_id"].as_str());
    }
    line.agent.stop();
}
