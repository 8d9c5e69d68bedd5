//! A record for Kafka: CloudEvents 1.0 over the Kafka protocol binding, binary mode. Pure.
//!
//! The value is the payload, unchanged, or a small JSON document that explains missing sequences; what else there is to
//! say stands in the headers. <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use arrayvec::ArrayString;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::clock;
use crate::daily::DailyReceipt;
use crate::forwarder::timestamp;
use crate::forwarder::topic::{self, Destination};
use crate::normalize;
use crate::reading::{
    Body, CE_TYPE_GAP, CE_TYPE_READING, CE_TYPE_RECEIPT, CE_TYPE_STATUS, Entry, Kind, QueueId, Reading, Received,
};

/// What stays as it is in a path segment of a URI reference (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Digits of the largest sequence.
const DIGITS: usize = 20;

/// A queue id, a hyphen, a sequence.
const ID: usize = 32 + 1 + DIGITS;

/// Room for a time in milliseconds, of any year that there is.
const RFC_3339: usize = 32;

/// Writes `ce_time`.
const PRINTER: DateTimePrinter = DateTimePrinter::new();

/// What is handed to Kafka, but for its timestamp in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub topic: Arc<str>,
    pub key: String,
    pub value: Bytes,
    pub headers: Headers,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
}

impl Record {
    /// Bytes of it that count in a batch; the headers roughly.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.len() + self.headers.source.len() + 200
    }
}

/// The headers of a record. What is different in each one has its place here: a backlog is millions of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// `ce_id`: what a consumer drops repeats by.
    pub id: ArrayString<ID>,
    /// `ce_source`
    pub source: Arc<str>,
    /// `ce_type`
    pub kind: &'static str,
    /// `ce_time`: when it was measured, whatever the record's timestamp had to become.
    pub time: ArrayString<RFC_3339>,
    /// `ce_sequence`: sorts as text.
    pub sequence: ArrayString<DIGITS>,
    /// `content-type`
    pub content_type: &'static str,
    /// `ce_replayof`: the `ce_id` of the dead letter that the reading was.
    pub replay_of: Option<String>,
}

impl Headers {
    /// In the order in which they are written.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let always = [
            ("ce_specversion", "1.0"),
            ("ce_id", self.id.as_str()),
            ("ce_source", &self.source),
            ("ce_type", self.kind),
            ("ce_time", &self.time),
            ("ce_sequence", &self.sequence),
            ("content-type", self.content_type),
        ];
        always.into_iter().chain(self.replay_of.as_deref().map(|id| ("ce_replayof", id)))
    }
}

/// Characters of a gap record's reason. A gap record is smaller than the smallest document of a meter, so that no topic
/// that takes readings finds it too large.
const REASON: usize = 160;

/// Why sequences are missing: the value of a gap record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub first: u64,
    pub last: u64,
    pub count: u64,
    pub reason: String,
}

impl Missing {
    /// `reason` is cut short where it is long: the dead letter has the whole of it.
    pub fn new(first: u64, last: u64, reason: &str) -> Self {
        // A character that JSON spells out takes six bytes.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let mut short: String = reason.chars().take(REASON).map(plain).collect();
        if reason.chars().nth(REASON).is_some() {
            short.push('…');
        }
        Self { first, last, count: last.saturating_sub(first).saturating_add(1), reason: short }
    }
}

/// Makes records of what one queue holds.
#[derive(Debug)]
pub struct Recorder {
    /// Of every `ce_id`: the queue id and a hyphen.
    id_prefix: String,
    agent_id: String,
    agent_source: Arc<str>,
    default_topic: Arc<str>,
    /// No reading's topic, whatever a device is called.
    resume_topic: Arc<str>,
    /// Topic and `ce_source` of each source.
    sources: BTreeMap<Arc<str>, (Destination, Arc<str>)>,
    /// Topics of devices that are known to be there.
    known: BTreeSet<Arc<str>>,
}

impl Recorder {
    /// `topics` names the topic of each source; a source that is no longer configured goes to `default_topic`.
    pub fn new(
        queue_id: QueueId,
        agent_id: &str,
        (default_topic, resume_topic): (&str, &str),
        topics: &BTreeMap<Arc<str>, String>,
    ) -> Self {
        let mut recorder = Self {
            id_prefix: format!("{queue_id}-"),
            agent_id: agent_id.to_owned(),
            agent_source: format!("/{}", segment(agent_id)).into(),
            default_topic: default_topic.into(),
            resume_topic: resume_topic.into(),
            sources: BTreeMap::new(),
            known: BTreeSet::new(),
        };
        for (source, topic) in topics {
            let path = recorder.path(source);
            recorder.sources.insert(Arc::clone(source), (Destination::of(topic), path));
        }
        recorder
    }

    /// The topics of devices among `entries` that are not known yet; none beyond the [`topic::MOST`] that there may be.
    pub fn strange_topics<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> BTreeSet<Arc<str>> {
        if self.sources.values().all(|(destination, _)| matches!(destination, Destination::Topic(_))) {
            return BTreeSet::new();
        }
        let of_device = |entry: &'e Entry| match &entry.body {
            Body::Reading(reading) => match self.sources.get(&reading.source) {
                Some((destination @ Destination::ByDevice(_), _)) => Some(destination.topic(&reading.device)),
                _ => None,
            },
            _ => None,
        };
        let room = topic::MOST.saturating_sub(self.known.len());
        let is_strange = |topic: &Arc<str>| !self.known.contains(topic) && *topic != self.resume_topic;
        let strange: BTreeSet<_> = entries.filter_map(of_device).filter(is_strange).collect();
        strange.into_iter().take(room).collect()
    }

    /// From now on these topics are there.
    pub fn know(&mut self, topics: &BTreeSet<Arc<str>>) {
        self.known.extend(topics.iter().cloned());
    }

    fn path(&self, source: &str) -> Arc<str> {
        format!("{}/{}", self.agent_source, segment(source)).into()
    }

    /// Of the reading at `sequence`; its timestamp is when it was measured, as far as can be believed.
    pub fn reading(&self, sequence: u64, reading: Reading, now: &Received) -> Record {
        let (topic, source) = match self.sources.get(&reading.source) {
            Some((Destination::Topic(topic), source)) => (Arc::clone(topic), Arc::clone(source)),
            Some((destination, source)) => {
                let topic = self.known.get(&destination.topic(&reading.device)).unwrap_or(&self.default_topic);
                (Arc::clone(topic), Arc::clone(source))
            }
            None => (Arc::clone(&self.default_topic), self.path(&reading.source)),
        };
        let received_ms = clock::corrected_ms(&reading.received, now);
        let time = if clock::is_known(&reading.received, now) {
            timestamp::measured(reading.measured_ms, received_ms)
        } else {
            timestamp::measured_only(reading.measured_ms, received_ms, clock::FLOOR_MS..=now.wall_ms)
        };
        let kind = if reading.kind == Kind::Status { CE_TYPE_STATUS } else { CE_TYPE_READING };
        let content_type = if reading.json { "application/json" } else { "application/octet-stream" };
        let replay_of = reading.replay_of().map(str::to_owned);
        let headers = Headers { replay_of, ..self.headers(sequence, source, kind, time, content_type) };
        let value = match reading.kind {
            Kind::Measured | Kind::Status => reading.payload,
            Kind::Normalized => {
                let disbelieved_ms = reading.measured_ms.filter(|measured| *measured != time);
                let known =
                    normalize::Sent { ce_id: &headers.id, measured: &headers.time, received_ms, disbelieved_ms };
                normalize::sent(&reading.payload, &known)
            }
        };
        Record { topic, key: reading.device, value, headers, timestamp_ms: time }
    }

    /// Under `sequence`, that `missing` will not be seen.
    pub fn gap(&self, sequence: u64, missing: &Missing, noticed: &Received, now: &Received) -> Record {
        self.of_the_agent(sequence, CE_TYPE_GAP, missing, clock::corrected_ms(noticed, now))
    }

    /// Under `sequence`, what the day was that was noticed to be over.
    pub fn receipt(&self, sequence: u64, receipt: &DailyReceipt, noticed: &Received, now: &Received) -> Record {
        self.of_the_agent(sequence, CE_TYPE_RECEIPT, receipt, clock::corrected_ms(noticed, now))
    }

    /// What the agent itself has to say: under its own id, in the default topic.
    fn of_the_agent(&self, sequence: u64, kind: &'static str, value: &impl Serialize, time: i64) -> Record {
        let value = serde_json::to_vec(value).expect("numbers and text are always JSON");
        Record {
            topic: Arc::clone(&self.default_topic),
            key: self.agent_id.clone(),
            value: value.into(),
            headers: self.headers(sequence, Arc::clone(&self.agent_source), kind, time, "application/json"),
            timestamp_ms: time,
        }
    }

    fn headers(
        &self,
        sequence: u64,
        source: Arc<str>,
        kind: &'static str,
        time_ms: i64,
        content_type: &'static str,
    ) -> Headers {
        let (mut id, mut text, mut time) = (ArrayString::new(), ArrayString::new(), ArrayString::new());
        write!(id, "{}{sequence}", self.id_prefix).expect("there is room");
        write!(text, "{sequence:0DIGITS$}").expect("there is room");
        let moment = Timestamp::from_millisecond(time_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        PRINTER.print_timestamp(&moment, StdFmtWrite(&mut time)).expect("there is room");
        Headers { id, source, kind, time, sequence: text, content_type, replay_of: None }
    }
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Received = Received { wall_ms: 1_697_623_020_500, boot_ms: 9_000, boot_id: 1, synchronised: true };

    fn reading(source: &str, measured_ms: Option<i64>) -> Reading {
        Reading {
            source: source.into(),
            device: "90296857".into(),
            topic: "sma".into(),
            sender: String::new(),
            packet_id: Some(1),
            received: Received { wall_ms: 1_697_623_016_250, ..NOW },
            measured_ms,
            self_identified: true,
            json: true,
            kind: Kind::default(),
            marks: Vec::new(),
            payload: Bytes::from_static(b"{\"name\": 1}"),
        }
    }

    fn recorder() -> Recorder {
        let topics = [("house meter".into(), "meters".to_owned())].into();
        Recorder::new(QueueId(0xab), "pi-1", ("sma-kafka", "meterferry-resume"), &topics)
    }

    /// Promise 5: no device's name makes a reading part of the resume topic.
    #[test]
    fn no_device_is_called_like_the_resume_topic() {
        let topics = [("house".into(), "meterferry-{device}".to_owned())].into();
        let mut recorder = Recorder::new(QueueId(0xab), "pi-1", ("sma-kafka", "meterferry-resume"), &topics);
        let named = |device: &str| Reading { device: device.into(), ..reading("house", None) };
        let entry = |device| Entry { sequence: 1, size: 0, body: Body::Reading(named(device)) };
        let strange = recorder.strange_topics([entry("resume"), entry("garage")].iter());
        assert_eq!(strange, ["meterferry-garage".into()].into());
        recorder.know(&strange);
        let topic = |device| recorder.reading(1, named(device), &NOW).topic;
        assert_eq!([&*topic("resume"), &*topic("garage")], ["sma-kafka", "meterferry-garage"]);
    }

    /// Promise 3: the headers by which a consumer drops repeats and an audit finds gaps.
    #[test]
    fn reading_as_cloud_event() {
        let record = recorder().reading(42, reading("house meter", Some(1_697_623_015_000)), &NOW);
        assert_eq!((&*record.topic, &*record.key, &*record.value), ("meters", "90296857", &b"{\"name\": 1}"[..]));
        assert_eq!(record.timestamp_ms, 1_697_623_015_000);
        assert_eq!(
            record.headers.list().collect::<Vec<_>>(),
            [
                ("ce_specversion", "1.0"),
                ("ce_id", "000000000000000000000000000000ab-42"),
                ("ce_source", "/pi-1/house%20meter"),
                ("ce_type", "io.meterferry.reading"),
                ("ce_time", "2023-10-18T09:56:55Z"),
                ("ce_sequence", "00000000000000000042"),
                ("content-type", "application/json"),
            ]
        );
        let again = Reading { sender: Reading::replay_sender("ab-7"), ..reading("house meter", None) };
        let again = recorder().reading(44, again, &NOW);
        assert_eq!(again.headers.list().last(), Some(("ce_replayof", "ab-7")));
        let gone = recorder().reading(43, reading("gone", None), &NOW);
        assert_eq!((&*gone.topic, &*gone.headers.source), ("sma-kafka", "/pi-1/gone"));
        assert_eq!(&*gone.headers.time, "2023-10-18T09:56:56.25Z", "received, where the meter tells no time");
    }

    /// Promise 5: what a gap record says.
    #[test]
    fn gap_as_cloud_event() {
        let record = recorder().gap(7, &Missing::new(7, 9, "a damaged segment"), &NOW, &NOW);
        assert_eq!(record.value, r#"{"first":7,"last":9,"count":3,"reason":"a damaged segment"}"#);
        assert_eq!((&*record.topic, &*record.key, record.headers.kind), ("sma-kafka", "pi-1", "io.meterferry.gap"));
    }

    proptest! {
        /// Promise 5: whatever the reason holds, the record that explains a missing sequence is small.
        #[test]
        fn gap_is_never_too_large(reason in proptest::collection::vec(any::<char>(), 0..1_000), sequence: u64) {
            let reason: String = reason.into_iter().collect();
            let record = recorder().gap(sequence, &Missing::new(sequence, sequence, &reason), &NOW, &NOW);
            prop_assert!(record.size() < 1_200, "{} bytes", record.size());
        }
    }
}
