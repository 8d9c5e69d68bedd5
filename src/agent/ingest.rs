//! Between a source and the queue: size, decoding, redelivery.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::config::settings::Payload;
use crate::decode;
use crate::metrics::SourceMetrics;
use crate::queue::{Intake, QueueError};
use crate::reading::{Body, Dead, Mark, Reading};
use crate::source::Raw;
use crate::source::redelivery::{Verdict, Window};

/// What becomes of one source's raws.
#[derive(Debug)]
pub struct Ingest {
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
    pub complaint: Complaint,
    pub folds: decode::Folds,
}

/// What is said about the messages of one source that become dead letters: the first at once, then how many there were,
/// at most once in [`REMINDER`].
#[derive(Debug, Default)]
pub struct Complaint {
    said: Option<Instant>,
    unsaid: u64,
}

/// A source that speaks another language than `payload` says must not fill the log.
const REMINDER: Duration = Duration::from_secs(3600);

impl Complaint {
    fn of(&mut self, dead: &Dead, now: Instant) {
        let Dead { source, topic, reason, .. } = dead;
        if self.is_due(now) {
            let others = std::mem::take(&mut self.unsaid);
            error!(
                %source, topic, reason, others,
                "this message is no reading: it is kept as a dead letter, see meterferry dead-letters list; others are \
                 counted for an hour"
            );
        } else {
            self.unsaid += 1;
            debug!(%source, topic, reason, "another message becomes a dead letter");
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.said.is_none_or(|said| now.duration_since(said) >= REMINDER);
        if due {
            self.said = Some(now);
        }
        due
    }
}

impl Ingest {
    /// Runs until the source has gone. An error means that the queue has.
    pub async fn run(mut self, mut raws: mpsc::Receiver<Raw>) -> Result<(), QueueError> {
        while let Some(raw) = raws.recv().await {
            self.take(raw).await?;
        }
        Ok(())
    }

    /// Hands one message to the queue, or, where it was handed in before, only its receipt. Waits while the queue is busy.
    pub async fn take(&mut self, raw: Raw) -> Result<(), QueueError> {
        let (body, mark) = self.body(&raw);
        match self.window.judge(&raw.delivery, mark) {
            Verdict::Redelivery => {
                self.metrics.redelivered.one();
                self.intake.acknowledge(raw.receipt).await
            }
            Verdict::New => {
                if let Body::Dead(dead) = &body {
                    self.metrics.undecodable.one();
                    self.complaint.of(dead, Instant::now());
                }
                self.intake.append(body, mark, raw.receipt, self.commit_delay).await
            }
        }
    }

    fn body(&mut self, raw: &Raw) -> (Body, Mark) {
        match self.decode(raw) {
            Ok(mut decoded) => {
                self.folds.settle(&mut decoded, raw.received.wall_ms);
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
        decode::decode(&self.payload, &raw.source, &raw.topic, &raw.payload).map_err(|reason| reason.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5, never silent: the first dead letter is said at once, a flood of them once an hour.
    #[test]
    fn dead_letters_are_said_and_do_not_flood() {
        let (mut complaint, start) = (Complaint::default(), Instant::now());
        let said = (0..7_200).filter(|second| complaint.is_due(start + Duration::from_secs(*second))).count();
        assert_eq!(said, 2);
    }
}
