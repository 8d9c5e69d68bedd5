//! What the agent makes of a medium that a power cut has left.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;
use serde_json::Value;
use tempfile::TempDir;

use super::Image;
use super::expected::{Before, Expected, Readings};
use super::life::busy;
use super::recording::Recording;
use super::resume::{ResumePoint, tell_resume_point};
use super::witness::{Witness, chances};
use crate::harness::adapter::Adapter;
use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document::{self, Message};
use crate::harness::kafka::Kafka;
use crate::harness::logged_disk::LoggedDisk;
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
/// Cuts in the recovery from one.
const CUTS: usize = 2;

/// No two readings that come after a cut are equal, or the second would be a redelivery.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// What one image has shown.
#[derive(Debug, Clone)]
pub struct Found {
    /// How long the agent took to open its queue.
    pub opened: Duration,
    /// The file system could only be mounted after a check.
    pub checked: bool,
    /// There was no queue yet: the agent has made it only now.
    pub made: bool,
    /// Something had been acknowledged.
    pub acknowledged: bool,
    /// Something was released durably.
    pub released: bool,
    pub delivered: bool,
    /// It was left by a cut in the recovery from a cut.
    pub again: bool,
}

/// Mounts the image in `folder`, starts the agent on it, and holds what it has against what is expected. With a Kafka, it
/// delivers, too.
pub fn look(recording: &Recording, expected: &Expected, folder: TempDir, kafka: Option<&Kafka>) -> Found {
    let disk = SmallDisk::after_a_cut(folder);
    let (mut revived, mut found) = Revived::start(recording, &disk, expected);
    revived.receive(|| ());
    revived.agent.kill();
    revived.compare();
    if let Some(kafka) = kafka {
        revived.delivers(kafka, &disk, expected.taken.as_ref());
        found.delivered = true;
    }
    found
}

/// The same on a disk that is logged again, and at what cuts in this log leave.
pub fn look_twice(recording: &Recording, image: Image, kafka: Option<&Kafka>, failed: &AtomicBool) -> Vec<Found> {
    let expected = Expected::of(recording, image.cut.at);
    let disk = LoggedDisk::after_a_cut(image.folder);
    let (mut revived, found) = Revived::start(recording, disk.disk(), &expected);
    let moments = revived.receive(|| disk.logged());
    revived.agent.kill();
    let new = revived.compare();
    let before = revived.before;
    let log = disk.into_log();

    let mut choices = chances(!image.seed);
    let mut places: Vec<_> = (0..CUTS).map(|_| choices.random_range(0..=log.len())).collect();
    places.sort_unstable();
    let (mut replay, mut all) = (log.replay(), vec![found]);
    for (number, at) in places.into_iter().enumerate() {
        let seed = choices.random();
        let folder = process::scratch("cut");
        let cut = replay.cut(at, &mut chances(seed), &folder.path().join("image"));
        let _witness = Witness { log: &log, seed, cut, failed };
        let acknowledged = moments.iter().filter(|moment| **moment <= at).count();
        let expected = expected.then(&before, &new, acknowledged);
        let last = number + 1 == CUTS;
        all.push(Found { again: true, ..look(recording, &expected, folder, kafka.filter(|_| last)) });
    }
    all
}

/// The agent after a cut, with nobody there but the adapter.
struct Revived<'r> {
    recording: &'r Recording,
    agent: Agent,
    /// Speaks to the agent's own listener.
    adapter: Adapter,
    port: u16,
    before: Before,
}

impl<'r> Revived<'r> {
    /// Promise 7: it opens its queue by itself, soon, and had nothing to salvage.
    fn start(recording: &'r Recording, disk: &SmallDisk, expected: &Expected) -> (Self, Found) {
        let made = !disk.seen("queue/queue.toml").exists();
        let port = process::free_port();
        let mut agent = disk.agent(|queue| config(recording, queue, port, "nowhere").kafka(AWAY));
        agent.start();
        wait::until_true("the agent to open its queue", SOON, || {
            assert!(agent.ended().is_none(), "refused:\n{}", agent.log());
            agent.log().contains(" starts ")
        });
        let opened = opened(&agent.log());
        assert!(opened < BUDGET, "the queue was open after {opened:?}");
        let before = before(&mut agent);
        expected.compare(&before);
        let found = Found {
            opened,
            checked: disk.was_checked(),
            made,
            acknowledged: !expected.stored.is_empty(),
            released: before.release_point > 1,
            delivered: false,
            again: false,
        };
        (Self { recording, agent, adapter: Adapter::new(port), port, before }, found)
    }

    /// It is at work again; what `moment` says after each acknowledgement.
    fn receive<T>(&mut self, moment: impl Fn() -> T) -> Vec<T> {
        let mut moments = Vec::new();
        for message in document::readings(&["after"], SERIAL.fetch_add(AFTER, Ordering::SeqCst), AFTER) {
            self.adapter.publish(&message);
            moments.push(moment());
        }
        moments
    }

    /// Promises 1, 3: what came after the cut has numbers that nothing before it had; every file is as it was written.
    /// Returns what came.
    fn compare(&self) -> Readings {
        let Before { queue_id, end, release_point: from, readings: before } = &self.before;
        let mut readings = export(&self.agent, queue_id);
        let new = readings.split_off(end);
        // What is released may be unlinked at any time.
        let same = readings.range(from..).eq(before.range(from..));
        assert!(same, "of the readings from {from} on: {:?} and {:?}", readings.keys(), before.keys());
        let published = self.adapter.published.iter().map(|message| &message.payload);
        assert!(new.values().eq(published), "what came after the cut has the numbers {:?}", new.keys());
        process::run(&mut self.agent.command(&["queue", "verify"]));
        new
    }

    /// Promises 2, 3: Kafka gets what it had not got before the cut and what came after it, once, under the same queue id.
    fn delivers(&mut self, kafka: &Kafka, disk: &SmallDisk, taken: Option<&ResumePoint>) {
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
        let from = taken.map_or(1, |point| point.next).max(self.before.release_point);
        // All that the image held is to be expected, acknowledged or not.
        let held = self.before.readings.range(from..).map(|(_, payload)| message(payload));
        let all: Vec<_> = held.chain(self.adapter.published.iter().cloned()).collect();
        let audit = Auditor::new(kafka, &topic).audit(&all);
        audit.assert_exact();
        for record in &audit.records {
            let (queue, sequence) = record.id();
            let fits = queue == self.before.queue_id && sequence >= from;
            assert!(fits, "{queue}-{sequence} after a resume at {from} of {}", self.before.queue_id);
        }
    }
}

/// What a running agent's queue holds. A power cut is no damage, and no error.
fn before(agent: &mut Agent) -> Before {
    let status = status(agent);
    let number = |key: &str| status[key].as_u64().unwrap_or_else(|| panic!("{key} in {status}"));
    let queue_id = status["queue_id"].as_str().unwrap_or_default().to_owned();
    let readings = export(agent, &queue_id);
    let log = agent.log();
    assert!(agent.ended().is_none() && !log.contains(" ERROR "), "{log}");
    let sound = status["damaged_files"] == Value::Array(vec![]) && status["lost"] == Value::Array(vec![]);
    assert!(sound, "{status}\n{log}");
    Before { release_point: number("release_point"), end: number("end"), queue_id, readings }
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
    let document: Value = serde_json::from_slice(payload).expect("a document");
    let device = document["name"].as_str().expect("a name").to_owned();
    Message { device, topic: "sma".to_owned(), payload: payload.to_vec() }
}

/// `queue status`, without asking Kafka.
pub fn status(agent: &Agent) -> Value {
    let text = process::run(&mut agent.command(&["queue", "status", "--no-kafka", "--json"]));
    serde_json::from_str(&text).expect("JSON")
}

/// Every reading that the queue holds, released or not, by sequence.
pub fn export(agent: &Agent, queue_id: &str) -> Readings {
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
