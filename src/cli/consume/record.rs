//! A record as it came from Kafka, and what it says.

use jiff::Timestamp;
use serde::Deserialize;

use crate::config::settings::Payload;
use crate::daily::DailyReceipt;
use crate::decode::{Decoded, decode};
use crate::normalize;
use crate::reading::{CE_TYPE_GAP, CE_TYPE_OURS, CE_TYPE_READING, CE_TYPE_RECEIPT, CE_TYPE_STATUS, QueueId};

/// A record of Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Record {
    pub(in crate::cli) topic: String,
    pub(in crate::cli) partition: i32,
    pub(in crate::cli) offset: i64,
    pub(in crate::cli) timestamp_ms: Option<i64>,
    pub(in crate::cli) key: Option<Vec<u8>>,
    pub(in crate::cli) value: Option<Vec<u8>>,
    pub(in crate::cli) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Which record of which queue it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Event {
    pub(in crate::cli) queue: QueueId,
    pub(in crate::cli) sequence: u64,
}

/// What a record is about.
#[derive(Debug, PartialEq)]
pub(in crate::cli) enum Content {
    /// Without measurements where its payload is not the adapter's document (`payload = "any"`).
    Reading(Decoded),
    Gap(Gap),
    Receipt(DailyReceipt),
    /// Neither says to be a reading nor is the adapter's document.
    Other,
}

/// The value of a gap record.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct Gap {
    pub(in crate::cli) first: u64,
    pub(in crate::cli) last: u64,
    pub(in crate::cli) count: u64,
    pub(in crate::cli) reason: String,
}

impl Record {
    /// The header's value, where it is text.
    pub(in crate::cli) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// What `ce_id` names: `<queue id>-<sequence>`.
    pub(in crate::cli) fn event(&self) -> Option<Event> {
        let (queue, sequence) = self.header("ce_id")?.rsplit_once('-')?;
        Some(Event { queue: queue.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// When it was measured, as far as it says; else Kafka's timestamp.
    pub(in crate::cli) fn time(&self) -> Option<Timestamp> {
        let measured = self.header("ce_time").and_then(|time| time.parse().ok());
        measured.or_else(|| Timestamp::from_millisecond(self.timestamp_ms?).ok())
    }

    pub(in crate::cli) fn content(&self) -> Content {
        let value = self.value.as_deref().unwrap_or_default();
        let reading = |payload| decode(&payload, "", "", value);
        match self.header("ce_type") {
            Some(CE_TYPE_GAP) => serde_json::from_slice(value).map_or(Content::Other, Content::Gap),
            Some(CE_TYPE_RECEIPT) => serde_json::from_slice(value).map_or(Content::Other, Content::Receipt),
            Some(CE_TYPE_READING) => {
                if let Some(document) = normalize::read(value) {
                    return Content::Reading(document);
                }
                reading(Payload::Sma).or_else(|_| reading(Payload::Any)).map_or(Content::Other, Content::Reading)
            }
            Some(CE_TYPE_STATUS) => reading(Payload::Any).map_or(Content::Other, Content::Reading),
            // Of a later release: whatever it is, it is not a reading.
            Some(kind) if kind.starts_with(CE_TYPE_OURS) => Content::Other,
            _ => reading(Payload::Sma).map_or(Content::Other, Content::Reading),
        }
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use super::*;

    /// A record with meterferry's headers.
    pub(in crate::cli) fn record(key: &str, value: &str, headers: &[(&str, &str)]) -> Record {
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), Some(value.as_bytes().to_vec()));
        Record {
            topic: "sma-kafka".to_owned(),
            partition: 0,
            offset: 7,
            timestamp_ms: Some(1_697_623_020_000),
            key: Some(key.as_bytes().to_vec()),
            value: Some(value.as_bytes().to_vec()),
            headers: headers.iter().map(header).collect(),
        }
    }

    /// Promise 3: the id by which repeats are dropped is read from the header, and nothing else is taken for one.
    #[test]
    fn an_event_is_a_queue_and_a_sequence() {
        let event = |id| record("k", "v", &[("ce_id", id)]).event();
        let id = "0000000000000000000000000000002a-18446744073709551615";
        assert_eq!(event(id), Some(Event { queue: QueueId(42), sequence: u64::MAX }));
        for id in ["", "-", "x-1", "2a", "2a-", "2a-x", "2a--1"] {
            assert_eq!(event(id), None, "{id}");
        }
        assert_eq!(record("k", "v", &[]).event(), None);
    }

    /// Each kind of record is told by its `ce_type`; one that is not known here is never taken for a reading.
    #[test]
    fn kinds_are_told_apart() {
        let document = r#"{"16.7.0":{"value":"-894.4"}}"#;
        let gap = r#"{"first":7,"last":9,"count":3,"reason":"damage"}"#;
        let receipt = r#"{"day":"2026-06-21","first":1,"last":9,"count":6,"gaps":[]}"#;
        let kind = |kind: &str, value: &str| match record("k", value, &[("ce_type", kind)]).content() {
            Content::Reading(_) => "reading",
            Content::Gap(_) => "gap",
            Content::Receipt(_) => "receipt",
            Content::Other => "other",
        };
        assert_eq!(kind(CE_TYPE_READING, document), "reading");
        assert_eq!(kind(CE_TYPE_READING, "21.5 °C"), "reading", "payload = \"any\"");
        assert_eq!(kind("com.example.meter", document), "reading", "somebody else's");
        assert_eq!(kind("com.example.meter", "21.5 °C"), "other");
        assert_eq!(kind(CE_TYPE_GAP, gap), "gap");
        assert_eq!(kind(CE_TYPE_RECEIPT, receipt), "receipt");
        assert_eq!([kind(CE_TYPE_GAP, document), kind(CE_TYPE_RECEIPT, document)], ["other"; 2]);
        assert_eq!(kind("io.meterferry.later", document), "other");
    }

    /// When it was measured comes before when Kafka got it.
    #[test]
    fn the_time_is_the_measurements() {
        let time = |headers: &[_]| record("k", "v", headers).time().expect("a time").to_string();
        assert_eq!(time(&[("ce_time", "2023-10-18T09:56:55Z")]), "2023-10-18T09:56:55Z");
        assert_eq!(time(&[("ce_time", "once")]), "2023-10-18T09:57:00Z");
        assert_eq!(time(&[]), "2023-10-18T09:57:00Z");
    }
}
