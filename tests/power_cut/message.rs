//! Numbered messages: all of a message follows from its number, so that what comes back can be compared whole.

use bytes::Bytes;
use meterferry::reading::{Body, Dead, Kind, Mark, Reading, Received};

pub const SOURCE: &str = "meter";

/// From one message to the next.
const INTERVAL_MS: u64 = 1_000;

pub fn body(number: u64) -> Body {
    let (packet_id, received) = (Some((number % 60_000) as u16 + 1), received(number));
    let payload = payload(number);
    if number % 31 == 30 {
        return Body::Dead(Dead {
            source: SOURCE.into(),
            topic: "sma".into(),
            sender: String::new(),
            packet_id,
            received,
            reason: "not JSON".into(),
            marks: Vec::new(),
            payload,
        });
    }
    Body::Reading(Reading {
        source: SOURCE.into(),
        device: "90296857".into(),
        topic: "sma".into(),
        sender: String::new(),
        packet_id,
        received,
        measured_ms: None,
        self_identified: false,
        json: false,
        kind: Kind::default(),
        marks: Vec::new(),
        payload,
    })
}

pub fn mark(number: u64) -> Mark {
    Mark::of("", Some((number % 60_000) as u16 + 1), "sma", &payload(number), false)
}

pub fn received(number: u64) -> Received {
    let since_ms = number * INTERVAL_MS;
    Received { wall_ms: 1_800_000_000_000 + since_ms as i64, boot_ms: since_ms, boot_id: 7, synchronised: true }
}

/// Mostly short; some fill more than a page of the database.
pub fn payload(number: u64) -> Bytes {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let length = if scattered.is_multiple_of(97) { 9_000 } else { 20 + scattered as usize % 430 };
    let text = format!("<{number}>");
    Bytes::from(text.repeat(length / text.len() + 1))
}
