//! A record as it came from Kafka, and what it says.

use jiff::Timestamp;
use serde::Deserialize;

use crate::config::settings::Payload;
use crate::decode::{Decoded, decode};
use crate::reading::{CE_TYPE_GAP, QueueId};

/// A record of Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Which record of which queue it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) queue: QueueId,
    pub(super) sequence: u64,
}

/// What a record is about.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Reading(Decoded),
    Gap(Gap),
    /// Not the adapter's document.
    Other,
}

/// The value of a gap record.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Gap {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: u64,
    pub(super) reason: String,
}

impl Record {
    /// The header's value, where it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// What `ce_id` names: `<queue id>-<sequence>`.
    pub(super) fn event(&self) -> Option<Event> {
        let (queue, sequence) = self.header("ce_id")?.rsplit_once('-')?;
        Some(Event { queue: queue.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// When it was measured, as far as it says; else Kafka's timestamp.
    pub(super) fn time(&self) -> Option<Timestamp> {
        let measured = self.header("ce_time").and_then(|time| time.parse().ok());
        measured.or_else(|| Timestamp::from_millisecond(self.timestamp_ms?).ok())
    }

    pub(super) fn content(&self) -> Content {
        let value = self.value.as_deref().unwrap_or_default();
        if self.header("ce_type") == Some(CE_TYPE_GAP) {
            return serde_json::from_slice(value).map_or(Content::Other, Content::Gap);
        }
        decode(Payload::Sma, "", "", value).map_or(Content::Other, Content::Reading)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record with meterferry's headers.
    pub(in super::super) fn record(key: &str, value: &str, headers: &[(&str, &str)]) -> Record {
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

    /// When it was measured comes before when Kafka got it.
    #[test]
    fn the_time_is_the_measurements() {
        let time = |headers: &[_]| record("k", "v", headers).time().expect("a time").to_string();
        assert_eq!(time(&[("ce_time", "2023-10-18T09:56:55Z")]), "2023-10-18T09:56:55Z");
        assert_eq!(time(&[("ce_time", "once")]), "2023-10-18T09:57:00Z");
        assert_eq!(time(&[]), "2023-10-18T09:57:00Z");
    }
}
