//! What the recorded agent goes through: a first start in an outage, two kills, a time with Kafka, and another outage.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::image::AWAY;
use super::resume::{Taken, group, sample};
use crate::harness::config::Config;
use crate::harness::document::Message;
use crate::harness::line::Line;
use crate::harness::logged_disk::LoggedDisk;
use crate::harness::wait::{self, PATIENT, SetAtEnd};

/// Spaces behind each document, so that a segment is full soon.
const PADDING: usize = 2_500;

/// Commits, sends and rolls often, so that every kind of write comes by soon.
pub fn busy(config: Config) -> Config {
    let config = config.queue("commit_delay = \"20ms\"").queue("segment_size = \"1 MiB\"").queue("min_free = \"0 B\"");
    config.kafka("linger = \"20ms\"")
}

/// The first start, with Kafka away: readings come in bursts and alone, twice the agent is killed over them.
pub fn outage(line: &mut Line<'_>, choices: &mut StdRng) {
    line.start();
    load(line, 250, choices);
    for _ in 0..2 {
        let messages = padded(line, 200);
        messages.iter().for_each(|message| line.publisher.publish(message));
        let wanted = acknowledged(line) + choices.random_range(1..150);
        wait::until_true("some acknowledgements", PATIENT, || acknowledged(line) >= wanted);
        line.agent.kill();
        line.agent.start();
    }
    load(line, 150, choices);
}

/// Kafka is there: the backlog goes to it, segments are unlinked, and readings still come.
pub fn connected(line: &mut Line<'_>, disk: &LoggedDisk, choices: &mut StdRng) -> Vec<Taken> {
    line.agent.stop();
    let entries = disk.logged();
    let (group, topic, kafka) = (group(line), line.topic.clone(), line.kafka);
    let mut taken = vec![Taken { before: entries, point: None, after: entries }];
    let config = busy(line.config(&disk.disk().queue()));
    line.agent.reconfigure(|_| config);
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(kafka, &group, &topic, disk, &enough));
        let _end = SetAtEnd(&enough);
        line.agent.start();
        load(line, 300, choices);
        line.audit();
        load(line, 300, choices);
        let messages = padded(line, 100);
        line.publisher.publish_all(&messages);
        line.agent.kill();
        line.agent.start();
        line.audit();
        line.agent.stop();
        enough.store(true, Ordering::SeqCst);
        taken.extend(sampler.join().expect("the sampler ends"));
    });
    taken
}

/// Kafka is away again: what a cut leaves of this time has nothing to do with what Kafka knows by then.
pub fn second_outage(line: &mut Line<'_>, disk: &LoggedDisk, choices: &mut StdRng) {
    let config = busy(line.config(&disk.disk().queue())).kafka(AWAY);
    line.agent.reconfigure(|_| config);
    line.agent.start();
    load(line, 300, choices);
    let count = line.publisher.published().len();
    wait::until_true("the agent to store everything", PATIENT, || acknowledged(line) >= count);
    line.agent.kill();
}

/// Publishes so many readings, in bursts and one by one, with pauses between them.
fn load(line: &mut Line<'_>, count: u64, choices: &mut StdRng) {
    let mut left = count;
    while left > 0 {
        let burst = if choices.random() { choices.random_range(1..=40) } else { 1 };
        let messages = padded(line, burst.min(left));
        line.publisher.publish_all(&messages);
        left -= burst.min(left);
        thread::sleep(Duration::from_millis(choices.random_range(0..60)));
    }
}

fn padded(line: &mut Line<'_>, count: u64) -> Vec<Message> {
    let mut messages = line.next(&["90296857"], count);
    messages.iter_mut().for_each(|message| message.payload.extend([b' '; PADDING]));
    messages
}

fn acknowledged(line: &Line<'_>) -> usize {
    line.mosquitto.acknowledgements(&line.client_id())
}
