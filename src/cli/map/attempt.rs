//! One mapping, tried on a message.

use std::borrow::Cow;

use crate::config::settings::Payload;
use crate::decode::mapping::{self, Found, Mapping, Row, Shape, TimeRead};
use crate::decode::{Code, Decoded, Reason, decode};

/// What a mapping made of the message.
#[derive(Debug)]
pub(super) struct Attempt {
    /// As `payload` calls it, or the file's name.
    pub(super) name: String,
    /// Which reader it is for.
    pub(super) about: String,
    /// Whether it is a person's own, and no payload's.
    pub(super) own: bool,
    pub(super) result: Result<Found, Reason>,
    /// Whether the reader's usual topics have this message's.
    on_its_topic: bool,
    /// Each value comes as a message of its own.
    by_topics: bool,
}

impl Attempt {
    pub(super) fn of(mapping: &Mapping, topic: &str, message: &[u8]) -> Self {
        let table = &mapping.table;
        let filters =
            table.topics.iter().filter_map(|filter| crate::source::filter::matches(filter, topic).then_some(()));
        Self {
            name: mapping.name.to_string(),
            about: table.about.clone(),
            own: crate::config::Preset::named(&mapping.name).is_none(),
            result: mapping::read(mapping, topic, message, true),
            on_its_topic: !topic.is_empty() && filters.count() > 0,
            by_topics: table.shape == Shape::Topics,
        }
    }

    /// The Austrian adapter's document, which needs no table.
    pub(super) fn of_adapter(topic: &str, message: &[u8]) -> Self {
        let decoded = decode(&Payload::Sma, "", topic, message);
        let left_over = decoded.as_ref().map(|decoded| sma_left_over(decoded, message)).unwrap_or_default();
        let found = decoded.map(|decoded| Found {
            device: Some(decoded.device).filter(|device| !device.is_empty()),
            time: decoded.measured_ms.map(|ms| TimeRead { ms, again_ms: None }),
            unread_time: None,
            rows: decoded
                .measurements
                .into_iter()
                .map(|measurement| {
                    let path = match &measurement.code {
                        Code::Obis(code) => code.to_string(),
                        Code::Other(name) => name.clone(),
                    };
                    Row { path, measurement }
                })
                .collect(),
            unmapped: left_over.len(),
            left_over,
            ignored: false,
            json: decoded.json,
        });
        Self {
            name: super::SMA.to_owned(),
            about: "the Austrian smart meter adapter".to_owned(),
            own: false,
            result: found,
            on_its_topic: topic == "sma",
            by_topics: false,
        }
    }

    /// The higher, the better it fits: values that are understood count for it, what is left over against it.
    pub(super) fn score(&self) -> i64 {
        let Ok(found) = &self.result else { return i64::MIN };
        if found.rows.is_empty() && !self.on_its_topic {
            return i64::MIN;
        }
        let known = found.rows.iter().filter(|row| row.measurement.flag.is_none() && is_known(row)).count();
        let named = found.rows.len() - known;
        let topic = if self.on_its_topic { 10 } else { 0 };
        4 * known as i64 + named as i64 - found.left_over.len() as i64 + topic
    }

    /// Whether it says anything that a person would choose it for.
    pub(super) fn fits(&self) -> bool {
        self.result.as_ref().is_ok_and(|found| !found.rows.is_empty())
    }

    pub(super) fn by_topics(&self) -> bool {
        self.by_topics
    }
}

/// What the adapter's document holds beside measurements and what is known of its metadata.
fn sma_left_over(decoded: &Decoded, message: &[u8]) -> Vec<(String, String)> {
    let is_taken = |keys: &[Cow<'_, str>]| match keys {
        [key] => matches!(key.as_ref(), "api_version" | "name" | "sma_time"),
        [code, member, ..] => decoded.measurements.iter().any(|measurement| {
            let own = match &measurement.code {
                Code::Obis(own) => code.parse() == Ok(*own),
                Code::Other(own) => *own == **code,
            };
            own && match member.as_ref() {
                "time" => measurement.time.is_some(),
                member => matches!(member, "value" | "flag" | "unit"),
            }
        }),
        [] => false,
    };
    mapping::leaves(message, is_taken)
}

fn is_known(row: &Row) -> bool {
    matches!(&row.measurement.code, Code::Obis(code) if code.meaning().is_some())
}
