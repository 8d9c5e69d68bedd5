//! A dead letter as JSON, as a few lines in a list, and as a page of its own.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::cli::queue::record::{insert_body, preview};
use crate::cli::terminal::printable;
use crate::cli::units::{bytes, local_time, rfc3339};
use crate::queue::inspect::received;
use crate::reading::{Body, DeadLetter};

/// Where a dead letter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    SetAside,
    /// It waits in the queue: the forwarder has not come to it.
    Queue,
}

/// All of it. `ce_id` is what its sequence is called in Kafka, where a gap record explains it.
pub fn json(letter: &DeadLetter, place: Place) -> Value {
    let mut object = Map::new();
    object.insert("sequence".into(), letter.sequence.into());
    object.insert("ce_id".into(), ce_id(letter).into());
    object.insert("set_aside".into(), set_aside(letter, place).map(rfc3339).into());
    insert_body(&mut object, &letter.body);
    // That of the record, where it has one, is the same.
    object.insert("reason".into(), letter.reason.as_str().into());
    Value::Object(object)
}

/// Milliseconds since 1970.
fn set_aside(letter: &DeadLetter, place: Place) -> Option<i64> {
    (place == Place::SetAside).then_some(letter.set_aside.wall_ms)
}

pub fn ce_id(letter: &DeadLetter) -> String {
    format!("{}-{}", letter.queue_id, letter.sequence)
}

fn parts(body: &Body) -> (&str, &str, &[u8]) {
    match body {
        Body::Reading(reading) => (&reading.source, &reading.topic, &reading.payload),
        Body::Dead(dead) => (&dead.source, &dead.topic, &dead.payload),
        Body::Gap(_) | Body::Daily(_) => ("", "", &[]),
    }
}

/// Above the list.
pub fn header() -> String {
    format!("{:>10}  {:<19}  {:<12}  {:<16}  {:>10}\n", "sequence", "received", "source", "topic", "size")
}

/// In the list, above those that wait in the queue.
pub const WAITING: &str = "In the queue, to be set aside once Kafka is reached:\n";

/// In the list: the columns, then the reason and the payload's beginning, each on a line that fits a terminal of 80.
pub fn lines(letter: &DeadLetter) -> String {
    const WIDTH: usize = 67;
    let (source, topic, payload) = parts(&letter.body);
    format!(
        "{:>10}  {:<19}  {:<12}  {:<16}  {:>10}\n{:12}{}\n{:12}{}\n",
        letter.sequence,
        local_time(received(&letter.body).wall_ms),
        printable(source, 12),
        printable(topic, 16),
        bytes(payload.len() as u64),
        "",
        printable(&letter.reason, WIDTH),
        "",
        preview(payload, WIDTH)
    )
}

/// A page of its own.
pub fn page(letter: &DeadLetter, place: Place) -> String {
    let (source, topic, payload) = parts(&letter.body);
    let (kind, device) = match &letter.body {
        Body::Reading(reading) => ("a reading that Kafka refused", reading.device.as_str()),
        Body::Dead(_) => ("a message that could not be decoded", "-"),
        Body::Gap(_) => ("a gap record", "-"),
        Body::Daily(_) => ("a daily receipt", "-"),
    };
    let all = |text: &str| printable(text, usize::MAX);
    let rows = [
        ("what", kind.to_owned()),
        ("reason", all(&letter.reason)),
        ("id in Kafka", ce_id(letter)),
        ("source", all(source)),
        ("topic", all(topic)),
        ("device", all(device)),
        ("received", local_time(received(&letter.body).wall_ms)),
        (
            "set aside",
            set_aside(letter, place).map_or_else(|| "once Kafka is reached: it waits in the queue".into(), local_time),
        ),
        ("payload", bytes(payload.len() as u64)),
    ];
    let mut text: String = rows.iter().map(|(name, value)| format!("{name:<12}  {value}\n")).collect();
    text.push('\n');
    text.push_str(&safe(payload));
    text
}

/// A payload that steers no terminal: text with its lines, control characters spelt out; anything else in hexadecimal.
fn safe(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) => text.lines().map(|line| format!("{}\n", printable(line, usize::MAX))).collect(),
        Err(_) => hexadecimal(payload),
    }
}

/// Offset, sixteen bytes, and what of them is ASCII.
fn hexadecimal(payload: &[u8]) -> String {
    let mut text = String::with_capacity(payload.len() * 5);
    for (number, line) in payload.chunks(16).enumerate() {
        let _ = write!(text, "{:08x} ", number * 16);
        for at in 0..16 {
            let _ = match line.get(at) {
                Some(byte) => write!(text, " {byte:02x}"),
                None => write!(text, "   "),
            };
        }
        let plain = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let _ = writeln!(text, "  {}", line.iter().map(plain).collect::<String>());
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reading::{Dead, QueueId, Received};

    const NOW: Received = Received { wall_ms: 1_800_000_000_000, boot_ms: 5, boot_id: 9, synchronised: true };

    fn letter(payload: &[u8]) -> DeadLetter {
        DeadLetter {
            queue_id: QueueId(0xab),
            sequence: 31_245,
            reason: "not JSON: expected value at line 1, column 1".into(),
            set_aside: NOW,
            body: Body::Dead(Dead {
                source: "meter".into(),
                topic: "sma".into(),
                sender: String::new(),
                packet_id: Some(4),
                received: NOW,
                reason: "not JSON: expected value at line 1, column 1".into(),
                marks: Vec::new(),
                payload: payload.to_vec().into(),
            }),
        }
    }

    /// Times are local: the test does not know where.
    fn timeless(text: &str) -> String {
        text.replace(&local_time(NOW.wall_ms), "2027-01-15 09:00:00")
    }

    /// Promise 5: what a person sees of a dead letter.
    #[test]
    fn letter_in_words() {
        let text = letter(b"hello\n\x1b[2J\x07 world\n");
        insta::assert_snapshot!("list", timeless(&format!("{}{}", header(), lines(&text))));
        insta::assert_snapshot!("page", timeless(&page(&text, Place::SetAside)));
        insta::assert_snapshot!("waiting", timeless(&page(&text, Place::Queue)));
        insta::assert_snapshot!("bytes", timeless(&page(&letter(b"\xff\xfe\x1b[2Jabcdefghijklmnop"), Place::SetAside)));
        insta::assert_snapshot!(
            "json",
            serde_json::to_string_pretty(&json(&letter(b"\xff"), Place::SetAside)).expect("JSON")
        );
        assert_eq!(json(&letter(b"x"), Place::Queue)["set_aside"], Value::Null);
    }

    proptest! {
        /// Promise 5: no payload steers the terminal.
        #[test]
        fn no_payload_steers_the_terminal(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let letter = letter(&payload);
            for text in [page(&letter, Place::SetAside), lines(&letter)] {
                prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
            }
        }
    }
}
