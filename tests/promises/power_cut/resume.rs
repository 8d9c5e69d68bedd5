//! The resume point, as Kafka keeps it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::image;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::logged_disk::LoggedDisk;
use crate::harness::wait::PATIENT;

/// Kafka's resume point, as it was while the log grew from one number of entries to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub before: usize,
    pub point: Option<ResumePoint>,
    pub after: usize,
}

/// The group's offset and its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumePoint {
    pub next: u64,
    pub metadata: String,
}

/// The group that holds the resume point; the queue must be there.
pub fn group(line: &Line<'_>) -> String {
    let status = image::status(&line.agent);
    format!("meterferry.{}.{}", line.topic, status["queue_id"].as_str().expect("an id"))
}

/// Asks Kafka again and again until `enough`.
pub fn sample(kafka: &Kafka, group: &str, topic: &str, disk: &LoggedDisk, enough: &AtomicBool) -> Vec<Taken> {
    let consumer = reader(kafka, group);
    let mut taken = Vec::new();
    while !enough.load(Ordering::SeqCst) {
        let before = disk.logged();
        let point = committed(&consumer, topic);
        taken.push(Taken { before, point, after: disk.logged() });
        thread::sleep(Duration::from_millis(5));
    }
    taken
}

/// The resume point that Kafka keeps in this group for a queue that sends to `topic`.
pub fn resume_point(kafka: &Kafka, group: &str, topic: &str) -> Option<ResumePoint> {
    committed(&reader(kafka, group), topic)
}

/// Tells Kafka this resume point for a queue that sends to `topic`.
pub fn tell_resume_point(kafka: &Kafka, group: &str, topic: &str, point: &ResumePoint) {
    let mut list = TopicPartitionList::new();
    let offset = Offset::Offset(i64::try_from(point.next).expect("small"));
    list.add_partition_offset(&format!("{topic}-resume"), 0, offset).expect("an offset");
    for mut element in list.elements() {
        element.set_metadata(&point.metadata);
    }
    reader(kafka, group).commit(&list, CommitMode::Sync).expect("Kafka takes it");
}

fn reader(kafka: &Kafka, group: &str) -> BaseConsumer {
    let mut config = kafka.client();
    config.set("group.id", group).set("isolation.level", "read_committed").create().expect("a client")
}

fn committed(consumer: &BaseConsumer, topic: &str) -> Option<ResumePoint> {
    let mut list = TopicPartitionList::new();
    list.add_partition(&format!("{topic}-resume"), 0);
    let committed = consumer.committed_offsets(list, PATIENT).expect("Kafka answers");
    let element = committed.elements().into_iter().next().expect("what was asked for");
    element.error().expect("no error of its own");
    let next = u64::try_from(element.offset().to_raw()?).ok()?;
    Some(ResumePoint { next, metadata: element.metadata().to_owned() })
}
