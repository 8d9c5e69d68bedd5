//! Bytes in, what was measured or a reason out. Pure: no clock, socket, disk or random source.
//!
//! The payload itself is never changed: what is decoded serves to find the device and the time, and to be shown.

use std::fmt;
use std::time::Duration;

use crate::config::settings::Payload;
use crate::obis::Obis;
use decimal::Decimal;

mod any;
pub mod decimal;
mod flag;
mod fold;
mod json;
mod mapped;
pub mod mapping;
mod sma;
pub mod write;

pub use flag::Flag;
pub use fold::Folds;
pub use sma::document as sma_document;

/// The longest device name, in bytes of UTF-8. It becomes the key in Kafka and stands in every listing; a name typed
/// into an adapter's web page and an MQTT topic that a person chose are far below.
pub const MAX_DEVICE: usize = 1024;

/// The deepest nesting of a JSON document. The adapter's is 2 deep; the limit keeps the stack small.
pub const MAX_DEPTH: usize = 64;

/// What a payload says.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The device's name: the key in Kafka. At most [`MAX_DEVICE`] bytes.
    pub device: String,
    /// When it was measured by the device's own clock, milliseconds since 1970; not checked for sense.
    pub measured_ms: Option<i64>,
    /// The same local time once more, an hour after clocks were put back; [`Folds`] chooses.
    pub again_ms: Option<i64>,
    /// Whether there is no time because what the device wrote in its place cannot be read, or is none.
    pub time_unread: bool,
    /// Values that its mapping neither takes nor ignores.
    pub left_over: usize,
    /// Only a part of what the device says at this time: how long the rest is waited for. None: it is all of it.
    pub partial: Option<Duration>,
    /// Whether the payload can be told from every other of its device.
    pub self_identified: bool,
    /// Whether the payload is a JSON document.
    pub json: bool,
    /// In the payload's order.
    pub measurements: Vec<Measurement>,
}

/// One value of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    pub code: Code,
    pub value: Value,
    /// Seconds since 1970 by the device's own clock; 0 where it has none.
    pub time: Option<i64>,
    /// What is odd about it.
    pub flag: Option<Flag>,
    /// What the source measures it in, where its code does not say.
    pub own_unit: Option<&'static str>,
    /// Worked out of others by the agent.
    pub derived: bool,
}

impl Measurement {
    /// Of a value of which nothing else is known.
    pub fn new(code: Code, value: Value) -> Self {
        Self { code, value, time: None, flag: None, own_unit: None, derived: false }
    }

    /// What the value is in: by its code, else as the source says.
    pub fn unit(&self) -> Option<&'static str> {
        match &self.code {
            Code::Obis(code) => code.meaning().map_or(self.own_unit, |meaning| meaning.unit()),
            Code::Other(_) => self.own_unit,
        }
    }
}

/// What a measurement is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    Obis(Obis),
    /// As the device calls it.
    Other(String),
}

/// A measurement's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// With every digit.
    Number(Decimal),
    /// As it stands in the document; also a number of more digits than [`decimal::MAX_DIGITS`].
    Text(String),
}

impl Value {
    /// The number, also where the device wrote it as a text.
    pub fn decimal(&self) -> Option<Decimal> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }

    /// The nearest double to that number.
    pub fn number(&self) -> Option<f64> {
        self.decimal().map(|number| number.to_f64()).filter(|number| number.is_finite())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Decoded {
    /// The value of the main channel's C.D.E, in its base unit.
    pub fn number(&self, c: u8, d: u8, e: u8) -> Option<f64> {
        self.measurements
            .iter()
            .find(|measurement| matches!(measurement.code, Code::Obis(code) if code.is(c, d, e)))
            .and_then(|measurement| measurement.value.number())
    }
}

/// Why a payload cannot be decoded, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("not UTF-8 text: the byte at offset {offset} starts no character")]
    NotUtf8 { offset: usize },
    #[error("not JSON: {what} at line {line}, column {column}")]
    NotJson { what: &'static str, line: usize, column: usize },
    #[error("not a JSON object but {found}")]
    NotAnObject { found: &'static str },
    #[error("the JSON key {key} stands twice in one object, again at line {line}, column {column}")]
    DuplicateKey { key: String, line: usize, column: usize },
    #[error("JSON nested deeper than {MAX_DEPTH} levels at line {line}, column {column}")]
    TooDeep { line: usize, column: usize },
    #[error("no measurement in it: of {members} members none is an object whose \"value\" is a number or a text")]
    NoMeasurement { members: usize },
    #[error("no value that the mapping {mapping} knows, of {values} in it")]
    NothingMapped { mapping: String, values: usize },
    #[error("the mapping {mapping} has no such topic: {topic:?}")]
    TopicNotMapped { mapping: String, topic: String },
    #[error("the device's name has {length} bytes; the limit is {MAX_DEVICE}")]
    DeviceTooLong { length: usize },
}

impl Reason {
    /// In words that hold nothing of the message, nor of its topic.
    pub fn discreet(&self) -> String {
        match self {
            Self::DuplicateKey { line, column, .. } => {
                format!("a JSON key stands twice in one object, again at line {line}, column {column}")
            }
            Self::TopicNotMapped { mapping, .. } => format!("the mapping {mapping} has no such topic"),
            Self::NotUtf8 { .. }
            | Self::NotJson { .. }
            | Self::NotAnObject { .. }
            | Self::TooDeep { .. }
            | Self::NoMeasurement { .. }
            | Self::NothingMapped { .. }
            | Self::DeviceTooLong { .. } => self.to_string(),
        }
    }
}

/// Decodes what the source named `source` received on `topic` (empty where it has none).
///
/// Takes time and memory in proportion to `bytes`, and stack for [`MAX_DEPTH`] levels.
///
/// # Errors
///
/// The reason for which `bytes` is not what `payload` says it is. The bytes then belong to the dead letters.
pub fn decode(payload: &Payload, source: &str, topic: &str, bytes: &[u8]) -> Result<Decoded, Reason> {
    let decoded = match payload {
        Payload::Sma => sma::decode(source, bytes)?,
        Payload::Any => any::decode(source, topic, bytes),
        Payload::Mapped(mapping) => mapped::decode(mapping, source, topic, bytes)?,
    };
    match decoded.device.len() {
        0..=MAX_DEVICE => Ok(decoded),
        length => Err(Reason::DeviceTooLong { length }),
    }
}

/// A reading that says nothing.
#[cfg(test)]
fn nothing(device: &str) -> Decoded {
    any::decode(device, "", b"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Promise 5: a name too long for a key is a dead letter that names the limit, whichever decoder found it.
    #[test]
    fn a_device_name_has_a_limit() {
        let long = "n".repeat(MAX_DEVICE + 1);
        let document = format!(r#"{{"name":"{long}","1-0:1.7.0":{{"value":1}}}}"#);
        let reason = Reason::DeviceTooLong { length: MAX_DEVICE + 1 };
        assert_eq!(decode(&Payload::Sma, "house", "sma", document.as_bytes()), Err(reason.clone()));
        assert_eq!(decode(&Payload::Any, "house", &long, b""), Err(reason.clone()));
        assert_eq!(reason.to_string(), "the device's name has 1025 bytes; the limit is 1024");
        assert!(decode(&Payload::Any, "house", &long[1..], b"").is_ok());
    }

    /// `[privacy]`: a reason that is discreet repeats nothing that a device or its topic says.
    #[test]
    fn discreet_reasons_repeat_nothing() {
        let key = Reason::DuplicateKey { key: "SECRET".into(), line: 1, column: 2 };
        let topic = Reason::TopicNotMapped { mapping: "vzlogger".into(), topic: "SECRET/1".into() };
        for reason in [key, topic] {
            assert!(reason.to_string().contains("SECRET") && !reason.discreet().contains("SECRET"), "{reason}");
        }
    }

    proptest! {
        /// Promise 5: no bytes make a decoder panic.
        #[test]
        fn any_bytes_are_a_reading_or_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..200), topic in ".{0,10}") {
            let _ = decode(&Payload::Sma, "house", &topic, &bytes);
            prop_assert!(decode(&Payload::Any, "house", &topic, &bytes).is_ok());
        }
    }
}
