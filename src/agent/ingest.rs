//! Between a source and the queue: size, decoding, redelivery.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use crate::clock::{self, Clock};
use crate::config::settings::{Format, Payload, Privacy};
use crate::decode::{self, Decoded, Folds};
use crate::flapping::Reminder;
use crate::metrics::SourceMetrics;
use crate::normalize;
use crate::queue::{Intake, QueueError};
use crate::reading::{Body, Dead, Kind, Mark, Reading, Received};
use crate::receipt::Receipt;
use crate::source::Raw;
use crate::source::redelivery::{Verdict, Window};

mod assembly;
mod registers;
mod thinning;
mod withheld;

use assembly::{Assembly, Group};
use registers::Registers;
use thinning::{Summary, Thinning};
use withheld::KEPT;
pub use withheld::Withheld;

/// What an ingest is made with.
#[derive(Debug)]
pub struct Parts {
    /// Name of the source in the configuration.
    pub source: Arc<str>,
    pub payload: Payload,
    pub format: Format,
    pub privacy: Privacy,
    /// Bytes of one reading.
    pub max_reading_size: usize,
    /// Bytes of a dead letter's payload that are kept.
    pub max_dead_size: usize,
    /// The longest a message waits for its commit.
    pub commit_delay: Duration,
    pub window: Window,
    pub intake: Intake,
    pub metrics: Arc<SourceMetrics>,
    pub clock: Clock,
}

/// What becomes of one source's raws.
#[derive(Debug)]
pub struct Ingest {
    parts: Parts,
    complaint: Complaint,
    /// Of devices' clocks.
    clocks: Reminder,
    /// That a mapping leaves values over was said.
    left_over_said: bool,
    folds: Folds,
    withheld: Withheld,
    /// Values that wait for others of their reading.
    assembly: Assembly<Part>,
    /// What the registers of normalized readings showed last.
    registers: Registers,
    thinning: Option<Thinning<Part>>,
    /// The device of the last measurement, as it may be known: whose state a status is.
    device: Option<String>,
}

/// A device's clock that is further away is off; one that is closer may have waited at the broker.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What is said about the messages of one source that become dead letters: a source that speaks another language than
/// `payload` says must not fill the log.
#[derive(Debug, Default)]
struct Complaint(Reminder);

impl Complaint {
    fn of(&mut self, dead: &Dead, now: Instant) {
        let Dead { source, topic, reason, .. } = dead;
        if let Some(others) = self.0.note(1, now) {
            error!(
                %source, topic, reason, others,
                "this message is no reading: it is kept as a dead letter, see meterferry dead-letters list; others are \
                 counted for an hour"
            );
        } else {
            debug!(%source, topic, reason, "another message becomes a dead letter");
        }
    }
}

/// What a message brings along until it is on disk.
#[derive(Debug)]
struct Part {
    topic: String,
    sender: String,
    packet_id: Option<u16>,
    received: Received,
    kind: Kind,
    payload: Bytes,
    mark: Mark,
    receipt: Receipt,
}

impl Ingest {
    pub fn new(parts: Parts) -> Self {
        Self {
            complaint: Complaint::default(),
            clocks: Reminder::default(),
            left_over_said: false,
            folds: Folds::default(),
            withheld: Withheld::new(&parts.privacy),
            assembly: Assembly::default(),
            thinning: parts.privacy.thin.map(Thinning::new),
            registers: Registers::default(),
            device: None,
            parts,
        }
    }

    /// Runs until the source has gone. An error means that the queue has.
    pub async fn run(mut self, mut raws: mpsc::Receiver<Raw>) -> Result<(), QueueError> {
        loop {
            let due = self.due();
            tokio::select! {
                raw = raws.recv() => match raw {
                    Some(raw) => self.take(raw).await?,
                    None => break,
                },
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => self.finish(false).await?,
            }
        }
        self.finish(true).await
    }

    /// Hands one message to the queue, or, where it was handed in before, only its receipt. Waits while the queue is busy.
    pub async fn take(&mut self, raw: Raw) -> Result<(), QueueError> {
        let (source, kind) = (Arc::clone(&raw.source), raw.kind);
        let decoded = self.decode(&raw);
        let mark = mark(&raw, decoded.as_ref().is_ok_and(|decoded| decoded.self_identified));
        let verdict = self.parts.window.judge(&raw.delivery, mark);
        let part = Part {
            topic: raw.topic,
            sender: raw.delivery.sender.to_string(),
            packet_id: raw.delivery.packet_id,
            received: raw.received,
            kind,
            payload: raw.payload,
            mark,
            receipt: raw.receipt,
        };
        match (verdict, decoded) {
            (Verdict::Redelivery, decoded) => {
                self.parts.metrics.redelivered.one();
                self.again(decoded.ok(), part).await
            }
            (Verdict::New, Ok(decoded)) => self.reading(&source, decoded, part).await,
            (Verdict::New, Err(reason)) => self.dead(source, reason, part).await,
        }
    }

    fn decode(&self, raw: &Raw) -> Result<Decoded, String> {
        let size = raw.payload.len();
        if size > self.parts.max_reading_size {
            return Err(format!("it has {size} bytes, queue.max_reading_size is {}", self.parts.max_reading_size));
        }
        let payload = if raw.kind == Kind::Status { &Payload::Any } else { &self.parts.payload };
        let mut decoded = decode::decode(payload, &raw.source, &raw.topic, &raw.payload)
            .map_err(|reason| if self.withheld.is_set() { reason.discreet() } else { reason.to_string() })?;
        decoded.device = match (raw.kind, &self.device) {
            (Kind::Status, Some(device)) => device.clone(),
            (Kind::Status, None) => self.withheld.device(raw.source.to_string()),
            (Kind::Measured | Kind::Normalized, _) => self.withheld.device(decoded.device),
        };
        Ok(decoded)
    }

    /// A message that was sent again is acknowledged once its record is on disk: one that is being gathered is not yet.
    async fn again(&mut self, decoded: Option<Decoded>, part: Part) -> Result<(), QueueError> {
        let part = match decoded {
            Some(decoded) if decoded.partial.is_some() => self.assembly.again(&decoded.device, part),
            _ => Err(part),
        };
        match part {
            Ok(()) => Ok(()),
            Err(part) => self.parts.intake.acknowledge(part.receipt).await,
        }
    }

    async fn dead(&mut self, source: Arc<str>, mut reason: String, part: Part) -> Result<(), QueueError> {
        let Part { mut topic, mut sender, packet_id, received, mut payload, mark, receipt, .. } = part;
        let mut marks = Vec::new();
        if self.withheld.is_set() {
            reason = self.withheld.instead_of(&payload, &reason);
            (topic, sender, payload, marks) = (String::new(), String::new(), Bytes::new(), vec![mark]);
        } else if payload.len() > self.parts.max_dead_size {
            reason = format!("{reason}; the first {} of {} {KEPT}", self.parts.max_dead_size, payload.len());
            payload.truncate(self.parts.max_dead_size);
        }
        let dead = Dead { source, topic, sender, packet_id, received, reason, marks, payload };
        self.parts.metrics.undecodable.one();
        self.complaint.of(&dead, Instant::now());
        self.parts.intake.append(Body::Dead(dead), mark, receipt, self.parts.commit_delay).await
    }

    async fn reading(&mut self, source: &Arc<str>, mut decoded: Decoded, part: Part) -> Result<(), QueueError> {
        if part.kind == Kind::Status {
            return match self.withheld.is_set() {
                // Of the device's state nobody has said what may leave.
                true => self.keep_back(part.receipt).await,
                false => self.original(source, decoded, part).await,
            };
        }
        // What a mapping knows to hold no measurement is no reading.
        if decoded.measurements.is_empty() && matches!(self.parts.payload, Payload::Mapped(_)) {
            return self.keep_back(part.receipt).await;
        }
        self.look_at_left_over(source, &decoded);
        self.folds.settle(&mut decoded, part.received.wall_ms);
        self.look_at_the_clock(source, &decoded, &part.received);
        if self.device.as_ref() != Some(&decoded.device) {
            self.device = Some(decoded.device.clone());
        }
        match decoded.partial {
            Some(window) => {
                let (now_ms, window_ms) = (part.received.boot_ms, window.as_millis() as u64);
                match self.assembly.add(decoded, part, now_ms, window_ms) {
                    Some(group) => self.gathered(source, group).await,
                    None => Ok(()),
                }
            }
            None if self.parts.format == Format::Original => self.original(source, decoded, part).await,
            None => self.normalized(source, decoded, vec![part]).await,
        }
    }

    /// Says once that a normalized reading has less than the message.
    fn look_at_left_over(&mut self, source: &Arc<str>, decoded: &Decoded) {
        let values = decoded.left_over;
        if values > 0 && self.parts.format == Format::Normalized && !std::mem::replace(&mut self.left_over_said, true) {
            info!(
                %source, device = decoded.device, values,
                "the mapping takes not all values of a message: meterferry map shows which it leaves over"
            );
        }
    }

    /// Says that a device's clock is off, at most once an hour: its readings have the time of receipt.
    fn look_at_the_clock(&mut self, source: &Arc<str>, decoded: &Decoded, received: &Received) {
        let away = |ms: &i64| received.synchronised && ms.abs_diff(received.wall_ms) >= DAY_MS;
        let off = decoded.measured_ms.filter(away);
        if off.is_none() && !decoded.time_unread {
            return;
        }
        self.parts.metrics.clock_off.one();
        let Some(others) = self.clocks.note(1, Instant::now()) else { return };
        let device = &decoded.device;
        match off {
            Some(ms) => {
                let clock = Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string());
                warn!(
                    %source, device, clock, others,
                    "the device's time is a day or more off, so its readings have the time of receipt: set its clock (NTP), \
                     unless they have waited at the broker; others are counted for an hour"
                );
            }
            None => warn!(
                %source, device, others,
                "the device's time cannot be read, so its readings have the time of receipt: meterferry map shows it; \
                 others are counted for an hour"
            ),
        }
    }

    /// The message as it came.
    async fn original(&mut self, source: &Arc<str>, decoded: Decoded, part: Part) -> Result<(), QueueError> {
        let Part { topic, sender, packet_id, received, kind, payload, mark, receipt } = part;
        let reading = Reading {
            source: Arc::clone(source),
            device: decoded.device,
            topic,
            sender,
            packet_id,
            received,
            measured_ms: decoded.measured_ms,
            self_identified: decoded.self_identified,
            json: decoded.json,
            kind,
            marks: Vec::new(),
            payload,
        };
        self.parts.intake.append(Body::Reading(reading), mark, receipt, self.parts.commit_delay).await
    }

    /// Values that became one reading: in the form of the adapter's document, where there is no original.
    async fn gathered(&mut self, source: &Arc<str>, group: Group<Part>) -> Result<(), QueueError> {
        match self.parts.format {
            Format::Normalized => self.normalized(source, group.decoded, group.parts).await,
            Format::Original => {
                let payload = decode::sma_document(&group.decoded).into();
                self.made(source, group.decoded, Kind::Measured, payload, group.parts).await
            }
        }
    }

    /// What may leave, as our own document; with `privacy.thin` once an interval.
    async fn normalized(
        &mut self,
        source: &Arc<str>,
        mut decoded: Decoded,
        parts: Vec<Part>,
    ) -> Result<(), QueueError> {
        self.registers.judge(&mut decoded);
        if self.withheld.chooses() {
            // Before what it is worked out of is taken away.
            decoded.measurements.extend(normalize::net_power(&decoded.measurements));
        }
        let Some(decoded) = self.withheld.filter(decoded) else {
            for part in parts {
                self.keep_back(part.receipt).await?;
            }
            return Ok(());
        };
        let Some(thinning) = &mut self.thinning else {
            let payload = document(source, &decoded, None);
            return self.made(source, decoded, Kind::Normalized, payload, parts).await;
        };
        let mut parts = parts;
        let Some(last) = parts.pop() else { return Ok(()) };
        let now_ms = clock::corrected_ms(&last.received, &self.parts.clock.now());
        let kept = Part { receipt: Receipt::unneeded(), payload: Bytes::new(), ..last };
        let over = thinning.fold(decoded, kept, now_ms);
        for summary in over {
            self.thinned(source, summary).await?;
        }
        for receipt in parts.into_iter().map(|part| part.receipt).chain([last.receipt]) {
            self.parts.intake.acknowledge(receipt).await?;
        }
        Ok(())
    }

    async fn thinned(&mut self, source: &Arc<str>, summary: Summary<Part>) -> Result<(), QueueError> {
        let payload = document(source, &summary.decoded, Some(summary.thinned));
        self.made(source, summary.decoded, Kind::Normalized, payload, vec![summary.came_with]).await
    }

    /// Stores what was made of `parts`, which are acknowledged by it. The last of them says when it was received.
    async fn made(
        &mut self,
        source: &Arc<str>,
        decoded: Decoded,
        kind: Kind,
        payload: Bytes,
        parts: Vec<Part>,
    ) -> Result<(), QueueError> {
        let marks: Vec<Mark> = parts.iter().map(|part| part.mark).collect();
        let Some((mark, received)) = parts.last().map(|part| (part.mark, part.received)) else { return Ok(()) };
        let receipt = parts.into_iter().fold(Receipt::unneeded(), |receipt, part| receipt.and(part.receipt));
        let reading = Reading {
            source: Arc::clone(source),
            device: decoded.device,
            topic: String::new(),
            sender: String::new(),
            packet_id: None,
            received,
            measured_ms: decoded.measured_ms,
            self_identified: decoded.self_identified,
            json: true,
            kind,
            marks,
            payload,
        };
        self.parts.intake.append(Body::Reading(reading), mark, receipt, self.parts.commit_delay).await
    }

    /// A message of which nothing may be stored.
    async fn keep_back(&mut self, receipt: Receipt) -> Result<(), QueueError> {
        self.parts.metrics.ignored.one();
        self.parts.intake.acknowledge(receipt).await
    }

    /// How long it is until something that was begun is complete.
    fn due(&self) -> Option<Duration> {
        let now = self.parts.clock.now();
        let gathered = self.assembly.due_ms().map(|due| due.saturating_sub(now.boot_ms));
        let thinned = self.thinning.as_ref().and_then(Thinning::due_ms);
        let thinned = thinned.map(|due| u64::try_from(due.saturating_sub(now.wall_ms)).unwrap_or_default());
        // The clock may be set meanwhile.
        gathered.into_iter().chain(thinned).min().map(|ms| Duration::from_millis(ms.saturating_add(1)).min(LOOK))
    }

    /// Stores what is complete; at the end, all that was begun.
    async fn finish(&mut self, end: bool) -> Result<(), QueueError> {
        let now = self.parts.clock.now();
        let (boot_ms, wall_ms) = if end { (u64::MAX, i64::MAX) } else { (now.boot_ms, now.wall_ms) };
        let source = Arc::clone(&self.parts.source);
        for group in self.assembly.complete(boot_ms) {
            self.gathered(&source, group).await?;
        }
        let over = self.thinning.as_mut().map(|thinning| thinning.over(wall_ms)).unwrap_or_default();
        for summary in over {
            self.thinned(&source, summary).await?;
        }
        Ok(())
    }
}

/// What is begun is looked at this often at least.
const LOOK: Duration = Duration::from_secs(60);

fn document(source: &str, decoded: &Decoded, thinned: Option<normalize::Thinned>) -> Bytes {
    normalize::document(&normalize::Content {
        device: &decoded.device,
        source,
        measured_ms: decoded.measured_ms,
        measurements: &decoded.measurements,
        thinned,
    })
}

/// Whether only the beginning of a dead letter's payload is there, or nothing of it.
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
        let said =
            (0..7_200).filter(|second| complaint.0.note(1, start + Duration::from_secs(*second)).is_some()).count();
        assert_eq!(said, 2);
    }
}
