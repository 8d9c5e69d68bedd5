//! One record as JSON, and as a line for a person.

use serde_json::{Map, Value, json};

use crate::cli::base64;
use crate::cli::terminal::printable;
use crate::cli::units::{bytes, rfc3339};
use crate::daily::date_of;
use crate::queue::walk::Find;
use crate::reading::{Body, Entry, QueueId};

/// What stands under one sequence. `ce_id` is what it is, or will be, called in Kafka.
pub fn find_json(find: &Find, queue_id: QueueId) -> Value {
    let range = |kind: &str, first: u64, last: u64, reason: &str| {
        json!({
            "kind": kind, "first": first, "last": last, "count": last.saturating_sub(first).saturating_add(1),
            "reason": reason,
        })
    };
    match find {
        Find::Record(entry) => entry_json(entry, queue_id),
        Find::Missing { first, last, reason } => range("missing", *first, *last, reason),
        Find::Damaged { first, last, reason } => range("damaged", *first, *last, reason),
    }
}

fn entry_json(entry: &Entry, queue_id: QueueId) -> Value {
    let mut object = Map::new();
    object.insert("sequence".into(), entry.sequence.into());
    object.insert("ce_id".into(), format!("{queue_id}-{}", entry.sequence).into());
    insert_body(&mut object, &entry.body);
    Value::Object(object)
}

/// Adds what a record says.
pub fn insert_body(object: &mut Map<String, Value>, body: &Body) {
    let mut put = |key: &str, value: Value| drop(object.insert(key.into(), value));
    match body {
        Body::Reading(reading) => {
            put("kind", "reading".into());
            put("source", (*reading.source).into());
            put("device", reading.device.as_str().into());
            put("topic", reading.topic.as_str().into());
            put("packet_id", reading.packet_id.into());
            put("received", rfc3339(reading.received.wall_ms).into());
            put("clock_synchronised", reading.received.synchronised.into());
            put("measured", reading.measured_ms.map(rfc3339).into());
            put("replay_of", reading.replay_of().into());
            insert_payload(object, &reading.payload);
        }
        Body::Dead(dead) => {
            put("kind", "dead".into());
            put("source", (*dead.source).into());
            put("topic", dead.topic.as_str().into());
            put("packet_id", dead.packet_id.into());
            put("received", rfc3339(dead.received.wall_ms).into());
            put("clock_synchronised", dead.received.synchronised.into());
            put("reason", dead.reason.as_str().into());
            insert_payload(object, &dead.payload);
        }
        Body::Gap(gap) => {
            put("kind", "gap".into());
            put("first", gap.first.into());
            put("last", gap.last.into());
            put("reason", gap.reason.as_str().into());
        }
        Body::Daily(daily) => {
            put("kind", "receipt".into());
            put("day", date_of(daily.day).to_string().into());
            put("noticed", rfc3339(daily.noticed.wall_ms).into());
        }
    }
}

/// As text, or as base64 where it is not UTF-8.
fn insert_payload(object: &mut Map<String, Value>, payload: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok(text) => object.insert("payload".into(), text.into()),
        Err(_) => object.insert("payload_base64".into(), base64::encode(payload).into()),
    };
}

/// The beginning of a payload in at most `width` characters, on one line.
pub fn preview(payload: &[u8], width: usize) -> String {
    let start = &payload[..payload.len().min(4 * width)];
    let text = printable(&String::from_utf8_lossy(start), usize::MAX);
    if text.chars().count() <= width && start.len() == payload.len() {
        return text;
    }
    let size = format!("… ({})", bytes(payload.len() as u64));
    let kept = width.saturating_sub(size.chars().count());
    format!("{}{size}", text.chars().take(kept).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Promise 5: no payload steers the terminal, or takes more room than there is.
        #[test]
        fn preview_is_plain_and_fits(payload in proptest::collection::vec(any::<u8>(), 0..400), width in 20usize..100) {
            let shown = preview(&payload, width);
            prop_assert!(shown.chars().count() <= width);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
