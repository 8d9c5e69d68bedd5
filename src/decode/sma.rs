//! The document of the Austrian smart meter adapter ("Smart-Meter-Adapter" of Oesterreichs Energie).
//!
//! An object whose members are measurements (objects with `value`, some with `time`) called by their OBIS codes, and
//! metadata: `api_version`, `name`, `sma_time`. A measurement may carry a `flag` ([`super::Flag`]) and, where its code does
//! not say it, a `unit`. Documents may be partial; unknown codes and metadata occur.

use std::borrow::Cow;

use super::decimal::Decimal;
use super::json::{Json, Keys, Piece};
use super::mapping::Unit;
use super::write::Object;
use super::{Code, Decoded, Flag, Measurement, Reason, Value};

/// Seconds from 1970 to the year 10000: no clock says what is later.
const END_OF_TIME: i64 = 253_402_300_800;

pub(super) fn decode(source: &str, bytes: &[u8]) -> Result<Decoded, Reason> {
    let document = Document::read(bytes)?;
    if document.measurements.is_empty() {
        return Err(Reason::NoMeasurement { members: document.members });
    }
    Ok(Decoded {
        device: document.device(source),
        measured_ms: document.measured().map(|seconds| seconds * 1000),
        again_ms: None,
        left_over: 0,
        time_unread: document.time_unread && document.measured().is_none(),
        partial: None,
        self_identified: document.uptime,
        json: true,
        measurements: document.measurements,
    })
}

/// A document like the adapter's, of what was not one: it decodes to `decoded` again.
pub fn document(decoded: &Decoded) -> Vec<u8> {
    let mut document = Object::new();
    for measurement in &decoded.measurements {
        let mut member = Object::new();
        match &measurement.value {
            Value::Number(number) => member.raw("value", number),
            Value::Text(text) => member.text("value", text),
        }
        measurement.time.into_iter().for_each(|time| member.raw("time", time));
        measurement.own_unit.into_iter().for_each(|unit| member.text("unit", unit));
        measurement.flag.into_iter().for_each(|flag| member.text("flag", flag.name()));
        match &measurement.code {
            Code::Obis(code) => document.raw(&code.to_string(), member.end()),
            Code::Other(code) => document.raw(code, member.end()),
        }
    }
    document.text("name", &decoded.device);
    document.end().into_bytes()
}

/// What is kept of a document.
#[derive(Default)]
struct Document {
    members: usize,
    name: Option<String>,
    /// Has a numeric `sma_time`: the adapter's uptime, which no two documents of one device share.
    uptime: bool,
    /// Some `time` is neither a number nor null.
    time_unread: bool,
    measurements: Vec<Measurement>,
}

impl Document {
    fn read(bytes: &[u8]) -> Result<Self, Reason> {
        let mut json = Json::new(bytes)?;
        match json.piece()? {
            Piece::Object => {}
            other => return Err(Reason::NotAnObject { found: other.described() }),
        }
        let (mut document, mut keys, mut odd) = (Self::default(), Keys::default(), Vec::new());
        while let Some(key) = json.key(&mut keys)? {
            document.members += 1;
            match json.piece()? {
                Piece::Object => match measurement(&mut json, key, &mut document.time_unread)? {
                    Member::Measurement(measurement) => document.measurements.push(measurement),
                    Member::Odd(measurement) => odd.push(measurement),
                    Member::Metadata => {}
                },
                Piece::Number(_) if key == "sma_time" => document.uptime = true,
                piece if key == "name" => {
                    json.pass_over(&piece)?;
                    document.name = piece.value().map(|name| name.to_string());
                }
                piece => json.pass_over(&piece)?,
            }
        }
        json.end()?;
        // Alone they are no reading.
        if !document.measurements.is_empty() {
            document.measurements.append(&mut odd);
        }
        Ok(document)
    }

    /// The name set in the adapter's web page, which may be empty or missing; else the meter's number; else the source.
    fn device(&self, source: &str) -> String {
        if let Some(name) = self.name.as_ref().filter(|name| !name.trim().is_empty()) {
            return name.clone();
        }
        let number = self.measurements.iter().find(|measurement| is_meter_number(&measurement.code));
        let number = number.map(|measurement| measurement.value.to_string());
        number.filter(|number| !number.trim().is_empty()).unwrap_or_else(|| source.to_owned())
    }

    /// The meter's clock (`0-0:1.0.0` carries it in `time`), else the newest time of any measurement. 0 is no time; one
    /// that no clock says, such as milliseconds, is given only where there is no other, and is not believed later.
    fn measured(&self) -> Option<i64> {
        let plausible = |measurement: &Measurement| measurement.time.filter(|time| (1..END_OF_TIME).contains(time));
        let clock = self.measurements.iter().find(|measurement| is(&measurement.code, 1, 0, 0)).and_then(plausible);
        let newest = || self.measurements.iter().filter_map(plausible).max();
        let times = || self.measurements.iter().filter_map(|measurement| measurement.time.filter(|time| *time != 0));
        clock.or_else(newest).or_else(|| times().max().map(|time| time.clamp(-END_OF_TIME, END_OF_TIME)))
    }
}

fn is_meter_number(code: &Code) -> bool {
    is(code, 96, 1, 0)
}

fn is(code: &Code, c: u8, d: u8, e: u8) -> bool {
    matches!(code, Code::Obis(code) if matches!(code.a(), None | Some(0)) && code.is(c, d, e))
}

fn code(key: Cow<'_, str>) -> Code {
    match key.parse() {
        Ok(code) => Code::Obis(code),
        Err(_) => Code::Other(key.into_owned()),
    }
}

/// What a member of the document is that is an object.
enum Member {
    /// Its `value` is a number or a text.
    Measurement(Measurement),
    /// It is called by an OBIS code, and its `value` is true or false, an array or an object: kept as it is written.
    Odd(Measurement),
    Metadata,
}

fn measurement<'de>(json: &mut Json<'de>, key: Cow<'de, str>, time_unread: &mut bool) -> Result<Member, Reason> {
    let mut keys = Keys::default();
    let (mut value, mut time, mut own_unit, mut flag, mut odd) = (None, None, None, None, None);
    while let Some(member) = json.key(&mut keys)? {
        let begin = json.begin();
        let piece = json.piece()?;
        json.pass_over(&piece)?;
        match member.as_ref() {
            "value" if matches!(piece, Piece::Flag | Piece::Array | Piece::Object) => {
                odd = Some(Value::Text(json.since(begin).to_owned()));
            }
            "value" => value = piece.value(),
            "time" => {
                time = seconds(&piece);
                *time_unread |= time.is_none() && !matches!(piece, Piece::Null);
            }
            "unit" => own_unit = piece.text().and_then(|name| Unit::base_named(name)),
            "flag" => flag = piece.text().and_then(|name| name.parse().ok()),
            _ => {}
        }
    }
    Ok(match (value, odd, code(key)) {
        (Some(value), _, code) => {
            Member::Measurement(Measurement { time, flag, own_unit, ..Measurement::new(code, value) })
        }
        (None, Some(value), code @ Code::Obis(_)) => {
            Member::Odd(Measurement { time, flag: Some(Flag::Absurd), own_unit, ..Measurement::new(code, value) })
        }
        (None, ..) => Member::Metadata,
    })
}

/// Whole seconds, also where they are written as a fraction or a text.
fn seconds(piece: &Piece<'_>) -> Option<i64> {
    match piece {
        Piece::Number(text) => text.parse().ok().or_else(|| text.parse::<Decimal>().ok()?.trunc()),
        Piece::Text(text) => text.trim_ascii().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
