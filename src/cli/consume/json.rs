//! One JSON object a line, for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::record::Record;

/// Key, value and headers are texts exactly as they are in Kafka; what is not UTF-8 is null, and its bytes stand in
/// hexadecimal in a member of its own.
#[derive(Serialize)]
struct Line<'a> {
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    headers: Map<String, Value>,
    topic: &'a str,
    partition: i32,
    offset: i64,
    /// Milliseconds since 1970, as Kafka has it.
    timestamp: Option<i64>,
}

pub(super) fn write(out: &mut impl Write, record: &Record) -> io::Result<()> {
    let (key, key_hex) = text(record.key.as_deref());
    let (value, value_hex) = text(record.value.as_deref());
    let header = |(name, value): &(String, Option<Vec<u8>>)| {
        let value = value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned());
        (name.clone(), value.map_or(Value::Null, Value::from))
    };
    let line = Line {
        key,
        key_hex,
        value,
        value_hex,
        headers: record.headers.iter().map(header).collect(),
        topic: &record.topic,
        partition: record.partition,
        offset: record.offset,
        timestamp: record.timestamp_ms,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn text(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => (None, None),
        Some((Ok(text), _)) => (Some(text), None),
        Some((Err(_), bytes)) => (None, Some(hex(bytes))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    fn line(record: &Record) -> String {
        let mut out = Vec::new();
        write(&mut out, record).expect("written");
        String::from_utf8(out).expect("UTF-8")
    }

    /// A program gets the payload's exact text back.
    #[test]
    fn a_line_holds_all_of_a_record() {
        let reading = record("90296857", "{\"a\": 1.0}", &[("ce_id", "2a-1")]);
        assert_eq!(
            line(&reading),
            concat!(
                r#"{"key":"90296857","value":"{\"a\": 1.0}","headers":{"ce_id":"2a-1"},"topic":"sma-kafka","#,
                r#""partition":0,"offset":7,"timestamp":1697623020000}"#,
                "\n"
            )
        );
        let bytes =
            Record { key: None, value: Some(vec![0xff, 0]), headers: Vec::new(), timestamp_ms: None, ..reading };
        assert_eq!(
            line(&bytes),
            concat!(
                r#"{"key":null,"value":null,"value_hex":"ff00","headers":{},"topic":"sma-kafka","partition":0,"#,
                r#""offset":7,"timestamp":null}"#,
                "\n"
            )
        );
    }
}
