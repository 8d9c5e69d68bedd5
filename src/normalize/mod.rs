//! `format = "normalized"`: one documented JSON for the readings of every device
//! (edge-config/schema/reading-1.schema.json). Pure.
//!
//! A document is made in two steps. [`document`] writes what the device said, before the queue: what must not leave never
//! lands on disk. [`sent`] puts in front of it what is known only when it is sent: its `ce_id`, and when it was measured and
//! received by a clock that may have been set right since. Both write the same bytes for the same reading, always.

use std::collections::HashSet;
use std::fmt::Write;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use crate::decode::decimal::Decimal;
use crate::decode::mapping::Unit;
use crate::decode::write::Object;
use crate::decode::{Code, Decoded, Flag, Measurement, Value};
use crate::obis::{Kind, Obis};

/// Characters of a foreign code's name, before its digest.
const FOREIGN: usize = 40;

/// Places before the point beyond which many readers of JSON refuse a number, or take it for infinite.
const LARGEST: i32 = 300;

/// A reading that is to be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content<'a> {
    pub device: &'a str,
    pub source: &'a str,
    /// By the device's own clock, milliseconds since 1970; not checked for sense.
    pub measured_ms: Option<i64>,
    pub measurements: &'a [Measurement],
    /// None: a document of one message.
    pub thinned: Option<Thinned>,
}

/// What a document stands for that is one of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thinned {
    /// Seconds of the interval.
    pub interval_s: u64,
    /// Messages of the interval.
    pub count: u64,
}

/// The document as it is queued: an object without `ce_id`, `measured` and `received`.
pub fn document(content: &Content<'_>) -> Bytes {
    let mut document = Object::new();
    document.text("device", content.device);
    document.text("source", content.source);
    if let Some(thinned) = content.thinned {
        let mut inner = Object::new();
        inner.raw("interval_s", thinned.interval_s);
        inner.raw("count", thinned.count);
        document.raw("thinned", inner.end());
    }
    let mut measurements = Object::new();
    let mut names = HashSet::new();
    for measurement in content.measurements {
        let name = free(name(&measurement.code), &names);
        measurements.raw(&name, entry(measurement, content.measured_ms));
        names.insert(name);
    }
    if let Some(net) = net_power(content.measurements) {
        let name = name(&net.code);
        if names.insert(name.clone()) {
            measurements.raw(&name, entry(&net, content.measured_ms));
        }
    }
    document.raw("measurements", measurements.end());
    document.end().into()
}

/// What is known when a document is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent<'a> {
    pub ce_id: &'a str,
    /// `ce_time`
    pub measured: &'a str,
    /// Milliseconds since 1970, by the clock as it is known now.
    pub received_ms: i64,
    /// By the device's own clock, where that is not believed.
    pub disbelieved_ms: Option<i64>,
}

/// The value of the record: `document` as [`document`] wrote it, with what is known now in front.
pub fn sent(document: &[u8], sent: &Sent<'_>) -> Bytes {
    let mut head = Object::new();
    head.raw("schema", 1);
    head.text("ce_id", sent.ce_id);
    head.text("measured", sent.measured);
    head.text("received", &time(sent.received_ms));
    if let Some(device) = sent.disbelieved_ms {
        head.raw("device_clock_off", true);
        if Timestamp::from_millisecond(device).is_ok() {
            head.text("device_clock", &time(device));
        }
    }
    let mut bytes = head.open().into_bytes();
    match document.strip_prefix(b"{") {
        Some(rest) if rest != b"}" => {
            bytes.push(b',');
            bytes.extend_from_slice(rest);
        }
        _ => bytes.push(b'}'),
    }
    bytes.into()
}

/// RFC 3339, UTC; the epoch where the year is beyond 9999.
fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// One measurement: its code, value, unit and meaning, and what is odd about it.
fn entry(measurement: &Measurement, measured_ms: Option<i64>) -> String {
    let mut entry = Object::new();
    let meaning = match &measurement.code {
        Code::Obis(code) => {
            entry.text("obis", &code.canonical().to_string());
            code.meaning()
        }
        Code::Other(code) => {
            entry.text("code", code);
            None
        }
    };
    let unit = measurement.unit();
    // A meter's number is a name, also where it has only digits.
    let measures = unit.is_some() || meaning.is_some_and(|meaning| meaning.kind != Kind::State);
    let is_number = measures || matches!(measurement.value, Value::Number(_));
    match measurement.value.decimal().filter(|number| is_number && number.magnitude() <= Some(LARGEST)) {
        Some(number) => {
            entry.raw("value", number);
            unit.into_iter().for_each(|unit| entry.text("unit", unit));
        }
        // In whatever unit it is.
        None => entry.text("text", &measurement.value.to_string()),
    }
    meaning.into_iter().for_each(|meaning| entry.text("meaning", &meaning.to_string()));
    let document = measured_ms.map(|ms| ms.div_euclid(1000));
    let own = measurement.time.filter(|time| *time > 0 && Some(*time) != document);
    if let Some(seconds) = own
        && let Ok(own) = Timestamp::from_second(seconds)
    {
        entry.text("device_clock", &own.to_string());
    }
    measurement.judged().map(Flag::name).into_iter().for_each(|flag| entry.text("flag", flag));
    if measurement.derived {
        entry.raw("derived", true);
    }
    entry.end()
}

/// Import less export, where the device says both and not their difference.
pub fn net_power(measurements: &[Measurement]) -> Option<Measurement> {
    let find =
        |c| measurements.iter().find(|measurement| matches!(measurement.code, Code::Obis(code) if code.is(c, 7, 0)));
    let (import, export) = (find(1)?, find(2)?);
    if find(16).is_some() || import.judged().is_some() || export.judged().is_some() {
        return None;
    }
    let (import_value, export_value): (Decimal, Decimal) = (import.value.decimal()?, export.value.decimal()?);
    let code = Code::Obis(Obis::new([1, 0, 16, 7, 0, 255]).ok()?);
    Some(Measurement {
        time: import.time.filter(|time| Some(*time) == export.time),
        derived: true,
        ..Measurement::new(code, Value::Number(import_value.minus(&export_value)?))
    })
}

/// A name that is stable, that no other code of a document has, and that every database takes as a column.
pub fn name(code: &Code) -> String {
    match code {
        Code::Obis(code) => code.name(),
        Code::Other(code) => foreign(code),
    }
}

/// `name`, with a number behind it where the document has it: a device may spell a code in two ways.
fn free(name: String, names: &HashSet<String>) -> String {
    if !names.contains(&name) {
        return name;
    }
    let numbered = (2_u64..).map(|number| format!("{name}_{number}"));
    numbered.into_iter().find(|name| !names.contains(name)).unwrap_or(name)
}

/// `x_` and the device's own name, with a digest of it where it had to be changed.
fn foreign(code: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let kept: String =
        code.to_ascii_lowercase().chars().map(|c| if plain(c) { c } else { '_' }).take(FOREIGN).collect();
    let mut name = format!("x_{kept}");
    if kept != code {
        name.push('_');
        // Writing to a String does not fail.
        Sha256::digest(code.as_bytes()).iter().take(4).for_each(|byte| {
            let _ = write!(name, "{byte:02x}");
        });
    }
    name
}

/// Reads what [`document`] or [`sent`] wrote, for who shows it; none where it is something else.
pub fn read(bytes: &[u8]) -> Option<Decoded> {
    let document: Map<String, Json> = serde_json::from_slice(bytes).ok()?;
    let entries = document.get("measurements")?.as_object()?;
    Some(Decoded {
        device: document.get("device")?.as_str()?.to_owned(),
        measured_ms: None,
        self_identified: false,
        json: true,
        again_ms: None,
        time_unread: false,
        left_over: 0,
        partial: None,
        measurements: entries.values().filter_map(measurement).collect(),
    })
}

fn measurement(entry: &Json) -> Option<Measurement> {
    let code = match (entry.get("obis"), entry.get("code")) {
        (Some(code), _) => Code::Obis(code.as_str()?.parse().ok()?),
        (None, code) => Code::Other(code?.as_str()?.to_owned()),
    };
    let value = match (entry.get("value"), entry.get("text")) {
        (Some(Json::Number(number)), _) => Value::Number(number.to_string().parse().ok()?),
        (_, Some(Json::String(text))) => Value::Text(text.clone()),
        _ => return None,
    };
    let flag = entry.get("flag").and_then(|flag| flag.as_str()?.parse().ok());
    let own_unit = entry.get("unit").and_then(|unit| Unit::base_named(unit.as_str()?));
    Some(Measurement { flag, own_unit, ..Measurement::new(code, value) })
}

#[cfg(test)]
mod tests;
