//! Promise 3: the queue of a dying card, read in another machine and sent on, is there once: whatever was sent before, run
//! twice, killed in between, and when the card's own agent comes back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::auditor::Auditor;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::on_disk;
use crate::harness::process;
use crate::harness::wait::{self, SOON};

/// Another machine: a place for the copy, and the card's folder.
struct Rescue<'k> {
    kafka: &'k Kafka,
    topic: String,
    card: PathBuf,
    home: TempDir,
}

impl<'k> Rescue<'k> {
    fn of(line: &Line<'k>) -> Self {
        Self::new(line.kafka, &line.topic, &line.agent.queue())
    }

    fn new(kafka: &'k Kafka, topic: &str, card: &Path) -> Self {
        Self { kafka, topic: topic.to_owned(), card: card.to_owned(), home: process::scratch("rescue") }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meterferry"));
        command.arg("rescue").arg(&self.card).args(["--json", "--color", "never", "--brokers", &self.kafka.plain()]);
        command.args(["--topic", &self.topic, "--resume-topic", &format!("{}-resume", self.topic)]);
        command.env("XDG_STATE_HOME", self.home.path()).env("XDG_CONFIG_HOME", self.home.path());
        command.env_remove("STATE_DIRECTORY").env_remove("METERFERRY_FAILPOINT");
        command
    }

    /// Runs it to its end; the card must be as it was. Returns what it says, and its exit code.
    #[track_caller]
    fn run(&self) -> (serde_json::Value, i32) {
        let before = content(&self.card);
        let output = self.command().output().expect("the program runs");
        assert_eq!(content(&self.card), before, "the card is not written to");
        let said = String::from_utf8_lossy(&output.stdout);
        let code = output.status.code().expect("an exit code");
        let value = serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("exit code {code}: {said}{}", String::from_utf8_lossy(&output.stderr)));
        (value, code)
    }
}

fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

/// An agent whose Kafka is away has stored `count` readings, and was killed.
fn backlog(line: &mut Line<'_>, count: u64) {
    line.agent.reconfigure(|queue| line.config(queue).kafka("bootstrap_servers = [\"127.0.0.1:9\"]"));
    line.start();
    let before = line.mosquitto.acknowledgements(&line.client_id());
    line.publish(count);
    wait::until_true("the agent to store them", SOON, || {
        line.mosquitto.acknowledgements(&line.client_id()) - before >= count as usize
    });
    line.agent.kill();
}

/// Promise 3: once; a second run sends nothing again; and the original goes on behind it.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn rescued_once_and_twice() {
    let mut line = Line::new(Kafka::shared(), "rescue");
    backlog(&mut line, 60);
    // The agent would append a receipt, the rescue must not.
    line.agent.set_open_day(3);
    let rescue = Rescue::of(&line);
    let (said, code) = rescue.run();
    assert_eq!((code, &said["sent"], &said["whole"]), (0, &60.into(), &true.into()), "{said}");
    line.audit().assert_exact();
    let (said, code) = rescue.run();
    assert_eq!((code, &said["sent"]), (0, &0.into()), "{said}");
    // From a fresh copy too, as on a third machine.
    let (said, code) = Rescue::of(&line).run();
    assert_eq!((code, &said["sent"], &said["known_in_kafka"]), (0, &0.into(), &60.into()), "{said}");
    line.audit().assert_exact();

    line.agent.reconfigure(|queue| line.config(queue));
    line.agent.start();
    line.publish(20);
    line.finish().assert_exact();
    assert!(!line.agent.full_log().contains("forked"), "the original goes on under its own queue id");
}

/// Promise 3: a part was sent already by the card's agent; the card lives on afterwards and dies again.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn rescued_after_a_part_was_sent() {
    let mut line = Line::new(Kafka::shared(), "rescue-part");
    line.start();
    line.publish(40);
    line.audit();
    line.agent.stop();
    backlog(&mut line, 30);
    let rescue = Rescue::of(&line);
    let (said, _) = rescue.run();
    assert_eq!(said["sent"], 30, "{said}");
    line.audit().assert_exact();

    backlog(&mut line, 25);
    let (said, code) = rescue.run();
    assert_eq!((code, &said["sent"]), (0, &25.into()), "a card that has lived on is copied anew: {said}");
    line.audit().assert_exact();
}

/// Promise 3: the agent, and then the rescue itself, is killed at every point of a transaction.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn rescued_with_an_unknown_outcome() {
    for point in ["in-transaction", "offsets-sent", "kafka-committed"] {
        let mut line = Line::new(Kafka::shared(), &format!("rescue-{point}"));
        line.agent.failpoint(Some(&format!("{point}:2")));
        line.start();
        line.publish_until_failpoint();
        line.agent.failpoint(None);
        backlog(&mut line, 20);
        let rescue = Rescue::of(&line);
        let killed = rescue.command().env("METERFERRY_FAILPOINT", point).output().expect("the program runs");
        assert!(!killed.status.success(), "{point}: the failpoint was not passed");
        let (said, code) = rescue.run();
        assert_eq!((code, &said["left"], &said["forked"]), (0, &0.into(), &false.into()), "{point}: {said}");
        line.audit().assert_exact();
    }
}

/// Promise 5: what can be read of a damaged card is sent, the rest is explained, and the exit code says so; twice is once.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn rescued_with_damage() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("rescue-damage", 1);
    let card = process::scratch("card");
    let messages = document::readings(&["90296857"], 0, 90_000);
    on_disk::fill(card.path(), &topic, &messages);
    let mut files: Vec<_> = content(card.path()).into_keys().filter(|path| path.extension().is_some()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "redb"));
    assert!(files.len() > 2, "{files:?}");
    // One in the middle loses some readings wherever they stand in it, the newest is cut short.
    let mut bytes = fs::read(&files[1]).expect("readable");
    let first: u64 = files[1].file_stem().and_then(|name| name.to_str()?.parse().ok()).expect("a sequence");
    // Sequences begin with 1, the test's readings with 0.
    let hit = [100, 101, 2_000].map(|n| usize::try_from(first + n).expect("small") - 1);
    for serial in hit {
        let document = &messages[serial].payload;
        let places: Vec<_> =
            bytes.windows(document.len()).enumerate().filter(|(_, window)| window == document).collect();
        let places: Vec<_> = places.into_iter().map(|(at, _)| at).collect();
        assert!(!places.is_empty(), "reading {serial} stands in {:?}", files[1]);
        places.into_iter().for_each(|at| bytes[at + 30] ^= 1);
    }
    fs::write(&files[1], bytes).expect("written");
    let newest = files.last().expect("a file");
    let bytes = fs::read(newest).expect("readable");
    fs::write(newest, &bytes[..bytes.len() / 2]).expect("written");

    let rescue = Rescue::new(kafka, &topic, card.path());
    let (said, code) = rescue.run();
    assert_eq!((code, &said["whole"], &said["open_end"]), (3, &false.into(), &true.into()), "{said}");
    let sent = said["sent"].as_u64().expect("a number");
    assert!(sent > 30_000, "{said}");
    let audit = Auditor::new(kafka, &topic).audit(&messages);
    assert_eq!((audit.repeated, audit.foreign, audit.out_of_order), (0, 0, 0), "{audit}");
    assert!(audit.wrong.is_empty(), "what is missing in between is explained: {audit}");
    let explained: u64 = audit.gaps().iter().map(|gap| gap.count).sum();
    let readings = audit.records.len() - audit.gaps().len();
    assert!(explained >= 3 && explained <= audit.lost.len() as u64, "{explained} are explained: {audit}");
    for serial in hit {
        assert!(audit.lost.contains(&messages[serial]), "what is damaged is not served as good");
    }
    assert_eq!(readings + audit.lost.len(), messages.len());

    let (said, code) = rescue.run();
    assert_eq!((code, &said["sent"]), (3, &0.into()), "{said}");
    let (said, _) = Rescue::new(kafka, &topic, card.path()).run();
    assert_eq!((&said["sent"], &said["forked"]), (&0.into(), &false.into()), "from a fresh copy: {said}");
}
