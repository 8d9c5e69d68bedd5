//! The queue's folder, opened with the queue's own code while no agent runs.

use std::borrow::Borrow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meterferry::clock::Clock;
use meterferry::config::settings::WhenFull;
use meterferry::metrics::Metrics;
use meterferry::queue::{self, Queue};
use meterferry::reading::{Body, Entry, Kind, Mark, Reading, Received};
use meterferry::receipt::Receipt;

use super::agent::Agent;
use super::document::Message;

/// Opens the queue in `path`, or makes one there, for an agent of this id.
pub fn open(path: &Path, agent_id: Option<&str>) -> Queue {
    let options = queue::Options {
        path: path.to_owned(),
        max_size: 16 << 30,
        min_free: 0,
        when_full: WhenFull::Block,
        segment_size: 16 << 20,
        pack_after: queue::PACK_AFTER,
        redelivery_window: 1_000,
        windows: std::collections::BTreeMap::new(),
        max_dead_letters: 1 << 20,
        dead_letters_max_age: None,
        keeps_wear: false,
        agent_id: agent_id.map(str::to_owned),
        default_agent_id: "test-bed".to_owned(),
        hardware_serial: None,
    };
    let metrics = Metrics::new([&"meter".into()].into_iter());
    queue::open(&options, metrics, Clock::new(), Arc::new(|| ())).expect("the queue opens")
}

/// Puts `messages` into the queue in `path`, as an agent of this id stores them; returns the queue's id.
pub fn fill(path: &Path, agent_id: &str, messages: impl IntoIterator<Item = impl Borrow<Message>>) -> String {
    let Queue { intake, outlet, writer, .. } = open(path, Some(agent_id));
    let queue_id = outlet.queue_id().to_string();
    let received = Clock::new().now();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for message in messages {
            let message = message.borrow();
            let mark = Mark::of("", Some(1), &message.topic, &message.payload, true);
            let reading = Reading {
                source: "meter".into(),
                device: message.device.clone(),
                topic: message.topic.clone(),
                sender: String::new(),
                packet_id: Some(1),
                received,
                measured_ms: Some(received.wall_ms),
                self_identified: true,
                json: true,
                kind: Kind::default(),
                marks: Vec::new(),
                payload: message.payload.clone().into(),
            };
            let delay = std::time::Duration::from_millis(50);
            intake.append(Body::Reading(reading), mark, Receipt::unneeded(), delay).await.expect("room");
        }
    });
    drop((intake, outlet));
    writer.join().expect("an orderly end");
    queue_id
}

/// What a restart would find unreleased: read from a copy, so that the original stays as the kill has left it.
pub fn entries(agent: &Agent) -> Vec<Entry> {
    let copy = agent.copy_queue();
    let Queue { intake, mut outlet, writer, recovered } = open(copy.path(), None);
    let mut entries = Vec::new();
    let mut from = recovered.release_point;
    while from < recovered.end {
        let some = outlet.read(from, 10_000, 64 << 20).expect("readable");
        from = some.last().map_or(recovered.end, |last| last.sequence + 1);
        entries.extend(some);
    }
    drop((intake, outlet));
    writer.join().expect("an orderly end");
    entries
}

/// Writes readings into the agent's queue as if source `meter` had received them so long ago.
pub fn write(agent: &Agent, id: &str, messages: &[Message], age_ms: i64) {
    let source: Arc<str> = "meter".into();
    let Queue { intake, outlet, writer, .. } = open(&agent.queue(), Some(id));
    let now = Clock::new().now();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for (number, message) in (0..).zip(messages) {
            // Of an earlier boot, a minute apart.
            let wall_ms = now.wall_ms - age_ms + number * 60_000;
            let received = Received { wall_ms, boot_ms: 1, boot_id: 1, synchronised: true };
            let reading = Reading {
                source: Arc::clone(&source),
                device: message.device.clone(),
                topic: message.topic.clone(),
                sender: String::new(),
                packet_id: Some(1),
                received,
                measured_ms: Some(wall_ms - 500),
                self_identified: true,
                json: true,
                kind: Kind::default(),
                marks: Vec::new(),
                payload: Bytes::copy_from_slice(&message.payload),
            };
            let mark = Mark::of("", Some(1), &message.topic, &message.payload, true);
            let delay = Duration::from_millis(1);
            intake.append(Body::Reading(reading), mark, Receipt::unneeded(), delay).await.expect("room");
        }
    });
    drop((intake, outlet));
    writer.join().expect("an orderly end");
}
