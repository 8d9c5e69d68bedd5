//! A life of the agent on a logged disk, and what was true at which block.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;

use super::image::{self, AWAY};
use super::life::{busy, connected, outage, second_outage};
use super::resume::{ResumePoint, Taken, group, resume_point};
use crate::harness::block_log::BlockLog;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::logged_disk::LoggedDisk;
use crate::harness::wait::SetAtEnd;

/// The file system's size: with the ext4 journal, room for the whole backlog.
const MIB: u64 = 64;
/// What was certain when the log had so many entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Moment {
    entries: usize,
    /// Messages that Mosquitto had an acknowledgement of.
    acknowledged: usize,
    /// The first sequence of the oldest segment: everything below is released, durably.
    oldest: u64,
}

/// A life, and the log of its disk.
pub struct Recording {
    pub log: BlockLog,
    pub agent_id: String,
    pub queue_id: String,
    /// The consumer group that holds the resume point.
    pub group: String,
    /// Every reading that the queue has ever held, by sequence.
    pub readings: BTreeMap<u64, Vec<u8>>,
    /// The sequences of what was published, in that order.
    sequences: Vec<u64>,
    moments: Vec<Moment>,
    taken: Vec<Taken>,
    /// Kafka's resume point since its last sample.
    last: ResumePoint,
}

impl Recording {
    /// First start, outage with two kills, a time with Kafka, and another outage.
    pub fn make(kafka: &Kafka, choices: &mut StdRng) -> Self {
        let disk = LoggedDisk::new(MIB);
        let mut line = Line::new(kafka, "power-cut");
        line.agent = disk.disk().agent(|queue| busy(line.config(queue)).kafka(AWAY));
        let enough = AtomicBool::new(false);
        let (log_file, client) = (line.mosquitto.log_path(), line.client_id());
        let (moments, taken) = thread::scope(|scope| {
            let moments = scope.spawn(|| watch(&disk, Acknowledgements::of(&log_file, &client), &enough));
            let _end = SetAtEnd(&enough);
            outage(&mut line, choices);
            let taken = connected(&mut line, &disk, choices);
            second_outage(&mut line, &disk, choices);
            enough.store(true, Ordering::SeqCst);
            (moments.join().expect("the watcher ends"), taken)
        });
        Self::of(&mut line, disk, moments, taken)
    }

    /// What is true in the end.
    fn of(line: &mut Line<'_>, disk: LoggedDisk, moments: Vec<Moment>, taken: Vec<Taken>) -> Self {
        let queue_id = image::status(&line.agent)["queue_id"].as_str().expect("an id").to_owned();
        let mut readings: BTreeMap<_, _> = image::export(&line.agent, &queue_id);
        for record in line.auditor().records().into_iter().filter(|record| record.gap().is_none()) {
            readings.insert(record.id().1, record.value);
        }
        let by_payload: HashMap<_, _> = readings.iter().map(|(sequence, payload)| (&payload[..], *sequence)).collect();
        let published = line.publisher.published();
        let sequences: Vec<_> = published.iter().map(|message| by_payload[&message.payload[..]]).collect();
        assert!(sequences.is_sorted(), "one publisher, one order");
        let group = group(line);
        let last = resume_point(line.kafka, &group, &line.topic).expect("Kafka was there");
        let agent_id = line.topic.clone();
        Self { log: disk.into_log(), agent_id, queue_id, group, readings, sequences, moments, taken, last }
    }

    /// The entries of the log when the first message was acknowledged.
    pub fn first_acknowledgement(&self) -> usize {
        let first = self.moments.iter().find(|moment| moment.acknowledged > 0);
        first.expect("something was acknowledged").entries
    }

    /// The sequences of the messages that were acknowledged before the log had so many entries.
    pub fn acknowledged(&self, entries: usize) -> &[u64] {
        &self.sequences[..self.at(entries).acknowledged]
    }

    /// Everything below was released, durably, before the log had so many entries.
    pub fn released(&self, entries: usize) -> u64 {
        self.at(entries).oldest
    }

    fn at(&self, entries: usize) -> Moment {
        let count = self.moments.partition_point(|moment| moment.entries <= entries);
        self.moments[..count].last().copied().unwrap_or_default()
    }

    /// A resume point that Kafka had when the log had so many entries, or little before.
    pub fn taken(&self, entries: usize) -> Option<&ResumePoint> {
        let count = self.taken.partition_point(|taken| taken.after <= entries);
        self.taken[..count].last().and_then(|taken| taken.point.as_ref())
    }

    /// Kafka's resume point was this at most when the log had so many entries.
    pub fn taken_at_most(&self, entries: usize) -> u64 {
        let later = self.taken.iter().find(|taken| taken.before >= entries);
        later.map_or(self.last.next, |taken| taken.point.as_ref().map_or(1, |point| point.next))
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segments = self.moments.iter().map(|moment| moment.oldest).collect::<std::collections::BTreeSet<_>>().len();
        write!(
            f,
            "{} blocks logged, {} until the first acknowledgement; {} readings, released up to {}, {} unlinks seen, {} \
             moments, {} resume points",
            self.log.len(),
            self.first_acknowledgement(),
            self.readings.len(),
            self.last.next,
            segments.saturating_sub(2),
            self.moments.len(),
            self.taken.len()
        )
    }
}

/// Counts in Mosquitto's log, which grows.
struct Acknowledgements {
    log: BufReader<File>,
    line: String,
    wanted: String,
    count: usize,
}

impl Acknowledgements {
    fn of(log: &Path, client: &str) -> Self {
        let log = BufReader::new(File::open(log).expect("Mosquitto's log"));
        Self { log, line: String::new(), wanted: format!("Received PUBACK from {client} "), count: 0 }
    }

    fn count(&mut self) -> usize {
        while self.log.read_line(&mut self.line).expect("a log") > 0 {
            // The last line may still be in the making.
            if self.line.ends_with('\n') {
                self.count += usize::from(self.line.contains(&self.wanted));
                self.line.clear();
            }
        }
        self.count
    }
}

/// Looks again and again until `enough`. The log's length is asked last: what was seen is as old, or older.
fn watch(disk: &LoggedDisk, mut acknowledgements: Acknowledgements, enough: &AtomicBool) -> Vec<Moment> {
    let mut moments: Vec<Moment> = Vec::new();
    while !enough.load(Ordering::SeqCst) {
        let (acknowledged, oldest) = (acknowledgements.count(), oldest(&disk.disk().seen("queue")));
        let before = moments.last().copied().unwrap_or_default();
        if (acknowledged, oldest) != (before.acknowledged, before.oldest) {
            moments.push(Moment { entries: disk.logged(), acknowledged, oldest: oldest.max(before.oldest) });
        }
        thread::sleep(Duration::from_micros(500));
    }
    moments
}

/// The first sequence of the oldest segment; 0 where there is none.
fn oldest(queue: &Path) -> u64 {
    let names = fs::read_dir(queue).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let firsts = names.filter_map(|name| name.to_str()?.strip_suffix(".redb")?.parse().ok());
    firsts.min().unwrap_or(0)
}
