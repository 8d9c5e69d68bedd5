//! What the agent makes of a medium that a power cut has left.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Image;
use super::recording::{Recording, busy, tell_resume_point};
use crate::harness::adapter::Adapter;
use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document::{self, Message};
use crate::harness::kafka::Kafka;
use crate::harness::process;
use crate::harness::small_disk::SmallDisk;
use crate::harness::wait::{self, PATIENT, SOON};

/// A line of `[kafka]`: nobody listens there.
pub const AWAY: &str = "bootstrap_servers = [\"127.0.0.1:9\"]";
/// Nobody listens there either.
const NOBODY: u16 = 9;
/// Promise 7: "up after a power cut in a second", of a program that is not optimised and shares two cores with JVMs.
const BUDGET: Duration = Duration::from_secs(5);
/// Readings that come after the cut.
const AFTER: u64 = 3;

/// What one image has shown.
#[derive(Debug, Clone)]
pub struct Found {
    /// How long the agent took to open its queue.
    pub opened: Duration,
    /// The file system could only be mounted after a check.
    pub checked: bool,
    /// The agent had not made its queue yet.
    pub new: bool,
    pub acknowledged: usize,
    /// Something was released durably.
    pub released: bool,
    pub delivered: bool,
}

/// Mounts the image, starts the agent on it, and holds what it has against what was true before the cut. With a Kafka, it
/// delivers, too.
pub fn look(recording: &Recording, image: Image, kafka: Option<&Kafka>) -> Found {
    let at = image.cut.at;
    let disk = SmallDisk::after_a_cut(image.folder);
    let new = !disk.seen("queue/queue.toml").exists();
    let mut revived = Revived::start(recording, &disk);
    let opened = opened(&revived.agent.log());
    assert!(opened < BUDGET, "the queue was open after {opened:?}");
    let before = revived.compare(at);
    revived.receive();
    revived.agent.kill();
    revived.compare_after(&before);
    if let Some(kafka) = kafka {
        revived.delivers(kafka, &disk, at, &before);
    }
    Found {
        opened,
        checked: disk.was_checked(),
        new,
        acknowledged: recording.acknowledged(at).len(),
        released: before.release_point > 1,
        delivered: kafka.is_some(),
    }
}

/// What the queue held when the agent had opened it.
struct Before {
    queue_id: String,
    release_point: u64,
    end: u64,
    readings: BTreeMap<u64, Vec<u8>>,
}

/// The agent after the cut.
struct Revived<'r> {
    recording: &'r Recording,
    agent: Agent,
    /// Speaks to the agent's own listener.
    adapter: Adapter,
    port: u16,
}

impl<'r> Revived<'r> {
    /// Nobody is there but the adapter.
    fn start(recording: &'r Recording, disk: &SmallDisk) -> Self {
        let port = process::free_port();
        let agent = disk.agent(|queue| config(recording, queue, port, "nowhere").kafka(AWAY));
        let mut this = Self { recording, agent, adapter: Adapter::new(port), port };
        this.agent.start();
        wait::until_true("the agent to open its queue", SOON, || {
            assert!(this.agent.ended().is_none(), "refused:\n{}", this.agent.log());
            this.agent.log().contains(" starts ")
        });
        this
    }

    /// Promises 1, 2, 7: all that was acknowledged is there or released, nothing else is, and nothing had to be salvaged.
    fn compare(&mut self, at: usize) -> Before {
        let recording = self.recording;
        let status = status(&self.agent);
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| status[key].as_u64().unwrap_or_else(|| panic!("{key} in {status}"));
        let queue_id = text("queue_id");
        let readings = export(&self.agent, &queue_id);
        let before = Before { release_point: number("release_point"), end: number("end"), queue_id, readings };
        assert!(self.agent.ended().is_none(), "the agent ended:\n{}", self.agent.log());
        let log = self.agent.log();
        assert!(!log.contains(" ERROR "), "nothing is an error that a power cut may leave:\n{log}");
        let sound = status["damaged_files"] == Value::Array(vec![]) && status["lost"] == Value::Array(vec![]);
        assert!(sound, "a power cut is no damage: {status}\n{log}");

        let acknowledged = recording.acknowledged(at);
        assert!(acknowledged.is_empty() || before.queue_id == recording.queue_id, "another queue: {status}\n{log}");
        let missing: Vec<_> = acknowledged
            .iter()
            .filter(|sequence| **sequence >= before.release_point && !before.readings.contains_key(sequence))
            .collect();
        assert!(missing.is_empty(), "acknowledged and gone: {missing:?}, of {status}\n{log}");
        let stored = |sequence: &u64| recording.readings.get(sequence) == before.readings.get(sequence);
        let foreign: Vec<_> = before.readings.keys().filter(|sequence| !stored(sequence)).collect();
        assert!(foreign.is_empty(), "never stored under these numbers: {foreign:?}, of {status}");
        let next = acknowledged.last().map_or(1, |last| last + 1);
        assert!(before.end >= next, "the next sequence is {}, was {next}", before.end);
        let released = recording.released(at)..=recording.taken_at_most(at);
        let point = before.release_point;
        let known = acknowledged.is_empty() || released.contains(&point);
        assert!(known, "released up to {point}, Kafka's word was {released:?}");
        before
    }

    /// It is at work again.
    fn receive(&mut self) {
        for message in document::readings(&["after"], 0, AFTER) {
            self.adapter.publish(&message);
        }
    }

    /// Promises 1, 3: what came after the cut has numbers that nothing before it had; every file is as it was written.
    fn compare_after(&self, before: &Before) {
        let mut readings = export(&self.agent, &before.queue_id);
        let new = readings.split_off(&before.end);
        // What is released may be unlinked at any time.
        let from = before.release_point;
        let same = readings.range(from..).eq(before.readings.range(from..));
        assert!(same, "of the readings from {from} on: {:?} and {:?}", readings.keys(), before.readings.keys());
        let published = self.adapter.published.iter().map(|message| &message.payload);
        assert!(new.values().eq(published), "what came after the cut has the numbers {:?}", new.keys());
        process::run(&mut self.agent.command(&["queue", "verify"]));
    }

    /// Promises 2, 3: Kafka gets what it had not got before the cut and what came after it, once, under the same queue id.
    fn delivers(&mut self, kafka: &Kafka, disk: &SmallDisk, at: usize, before: &Before) {
        let taken = self.recording.taken(at);
        let from = taken.map_or(1, |point| point.next).max(before.release_point);
        // A topic of its own: what Kafka had got is told by the resume point alone.
        let topic = kafka.topic("power-cut-after", 1);
        if let Some(point) = taken {
            tell_resume_point(kafka, &self.recording.group, &topic, point);
        }
        let config = config(self.recording, &disk.queue(), self.port, &topic);
        self.agent.reconfigure(|_| config.kafka(&format!("bootstrap_servers = [{:?}]", kafka.plain())));
        self.agent.start();
        self.agent.wait_figures("everything to be in Kafka", PATIENT, |live| live.release_point == live.end);
        self.agent.kill();
        // All that the image held is to be expected, acknowledged or not.
        let held = before.readings.range(from..).map(|(_, payload)| message(payload));
        let all: Vec<_> = held.chain(self.adapter.published.iter().cloned()).collect();
        let audit = Auditor::new(kafka, &topic).audit(&all);
        audit.assert_exact();
        for record in &audit.records {
            let (queue, sequence) = record.id();
            let fits = queue == before.queue_id && sequence >= from;
            assert!(fits, "{queue}-{sequence} after a resume at {from} of {}", before.queue_id);
            let new = record.key == "after";
            assert_eq!(new, sequence >= before.end, "{sequence} of {}, the queue's end was {}", record.key, before.end);
        }
    }
}

/// As the recorded agent's, with a listener beside the broker.
fn config(recording: &Recording, queue: &Path, port: u16, topic: &str) -> Config {
    let config = Config::new(&recording.agent_id, queue, "", topic).mqtt(NOBODY);
    busy(config).source(&format!(
        "name = \"adapter\"\ntype = \"mqtt-listener\"\nlisten = \"127.0.0.1:{port}\"\ntopics = [\"sma\"]\n\
         payload = \"sma\"\ncommit_delay = \"1ms\""
    ))
}

/// `opened_ms` of the agent's start line.
fn opened(log: &str) -> Duration {
    let (_, rest) = log.split_once("opened_ms=").unwrap_or_else(|| panic!("no start line in {log}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Duration::from_millis(digits.parse().expect("milliseconds"))
}

fn message(payload: &[u8]) -> Message {
    Message { device: "90296857".to_owned(), topic: "sma".to_owned(), payload: payload.to_vec() }
}

/// `queue status`, without asking Kafka.
pub fn status(agent: &Agent) -> Value {
    let text = process::run(&mut agent.command(&["queue", "status", "--no-kafka", "--json"]));
    serde_json::from_str(&text).expect("JSON")
}

/// Every reading that the queue holds, released or not, by sequence.
pub fn export(agent: &Agent, queue_id: &str) -> BTreeMap<u64, Vec<u8>> {
    let text = process::run(&mut agent.command(&["queue", "export", "--released"]));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let reading = |line: Value| {
        let kind = line["kind"].as_str().unwrap_or_default();
        assert!(kind == "reading" || kind == "receipt", "{line}");
        let sequence = line["sequence"].as_u64().expect("a sequence");
        assert_eq!(line["ce_id"].as_str(), Some(&*format!("{queue_id}-{sequence}")), "{line}");
        (kind == "reading").then(|| (sequence, line["payload"].as_str().expect("text").as_bytes().to_vec()))
    };
    lines.filter_map(reading).collect()
}
