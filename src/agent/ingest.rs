//! Between a source and the queue: size, decoding, redelivery.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::settings::Payload;
use crate::decode;
use crate::metrics::SourceMetrics;
use crate::queue::{Intake, QueueError};
use crate::reading::{Body, Dead, Mark, Reading};
use crate::source::Raw;
use crate::source::redelivery::{Verdict, Window};

/// What becomes of one source's raws.
pub(super) struct Ingest {
    pub payload: Payload,
    /// Bytes of one reading.
    pub max_reading_size: usize,
    /// Bytes of a dead letter's payload that are kept.
    pub max_dead_size: usize,
    /// The longest a message waits for its commit.
    pub commit_delay: Duration,
    pub window: Window,
    pub intake: Intake,
    pub metrics: Arc<SourceMetrics>,
}

impl Ingest {
    /// Runs until the source has gone. An error means that the queue has.
    pub async fn run(mut self, mut raws: mpsc::Receiver<Raw>) -> Result<(), QueueError> {
        while let Some(raw) = raws.recv().await {
            let (body, mark) = self.body(&raw);
            match self.window.judge(&raw.delivery, mark) {
                Verdict::Redelivery => {
                    self.metrics.redelivered.one();
                    self.intake.acknowledge(raw.receipt).await?;
                }
                Verdict::New => {
                    if matches!(body, Body::Dead(_)) {
                        self.metrics.undecodable.one();
                    }
                    self.intake.append(body, mark, raw.receipt, self.commit_delay).await?;
                }
            }
        }
        Ok(())
    }

    fn body(&self, raw: &Raw) -> (Body, Mark) {
        match self.decode(raw) {
            Ok(decoded) => {
                let mark = mark(raw, decoded.self_identified);
                let reading = Reading {
                    source: Arc::clone(&raw.source),
                    device: decoded.device,
                    topic: raw.topic.clone(),
                    sender: raw.delivery.sender.to_string(),
                    packet_id: raw.delivery.packet_id,
                    received: raw.received,
                    measured_ms: decoded.measured_ms,
                    self_identified: decoded.self_identified,
                    json: decoded.json,
                    payload: raw.payload.clone(),
                };
                (Body::Reading(reading), mark)
            }
            Err(mut reason) => {
                let payload = raw.payload.slice(..raw.payload.len().min(self.max_dead_size));
                if payload.len() < raw.payload.len() {
                    reason = format!("{reason}; the first {} of {} {KEPT}", payload.len(), raw.payload.len());
                }
                tracing::debug!(source = %raw.source, topic = raw.topic, reason, "a message becomes a dead letter");
                let dead = Dead {
                    source: Arc::clone(&raw.source),
                    topic: raw.topic.clone(),
                    sender: raw.delivery.sender.to_string(),
                    packet_id: raw.delivery.packet_id,
                    received: raw.received,
                    reason,
                    payload,
                };
                (Body::Dead(dead), mark(raw, false))
            }
        }
    }

    fn decode(&self, raw: &Raw) -> Result<decode::Decoded, String> {
        let size = raw.payload.len();
        if size > self.max_reading_size {
            return Err(format!("it has {size} bytes, queue.max_reading_size is {}", self.max_reading_size));
        }
        decode::decode(self.payload, &raw.source, &raw.topic, &raw.payload).map_err(|reason| reason.to_string())
    }
}

/// How the reason of a dead letter ends whose payload was cut short.
const KEPT: &str = "bytes are kept";

/// Whether only the beginning of a dead letter's payload is there.
pub(super) fn is_cut_short(reason: &str) -> bool {
    reason.ends_with(KEPT)
}

fn mark(raw: &Raw, self_identified: bool) -> Mark {
    Mark::of(&raw.delivery.sender, raw.delivery.packet_id, &raw.topic, &raw.payload, self_identified)
}
