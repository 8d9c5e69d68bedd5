//! The document of the Austrian smart meter adapter ("Smart-Meter-Adapter" of Oesterreichs Energie).
//!
//! An object whose members are measurements (objects with `value`, some with `time`) called by their OBIS codes, and
//! metadata: `api_version`, `name`, `sma_time`. Documents may be partial; unknown codes and metadata occur.

use std::borrow::Cow;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess};

use super::json::{Keys, Plain, Read, Rules, Scalar, Scalars, Shape};
use super::{Code, Decoded, Measurement, Reason, Value};

/// Seconds from 1970 to the year 10000: what is later is no time at all.
const END_OF_TIME: i64 = 253_402_300_800;

pub(super) fn decode(source: &str, bytes: &[u8]) -> Result<Decoded, Reason> {
    let text = std::str::from_utf8(bytes).map_err(|error| Reason::NotUtf8 { offset: error.valid_up_to() })?;
    let rules = Rules::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let document = Read(Documents(&rules))
        .deserialize(&mut json)
        .and_then(|document| json.end().map(|()| document))
        .map_err(|error| rules.reason(&error))?;
    if document.measurements.is_empty() {
        return Err(Reason::NoMeasurement { members: document.members });
    }
    Ok(Decoded {
        device: document.device(source),
        measured_ms: document.measured().map(|seconds| seconds * 1000),
        self_identified: document.uptime,
        json: true,
        measurements: document.measurements,
    })
}

/// What is kept of a document.
#[derive(Default)]
struct Document {
    members: usize,
    name: Option<String>,
    /// Has a numeric `sma_time`: the adapter's uptime, which no two documents of one device share.
    uptime: bool,
    measurements: Vec<Measurement>,
}

impl Document {
    /// The name set in the adapter's web page, which may be empty or missing; else the meter's number; else the source.
    fn device(&self, source: &str) -> String {
        if let Some(name) = self.name.as_ref().filter(|name| !name.trim().is_empty()) {
            return name.clone();
        }
        let number = self.measurements.iter().find(|measurement| is_meter_number(&measurement.code));
        match number.map(|measurement| &measurement.value) {
            Some(Value::Text(number)) if !number.trim().is_empty() => number.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => source.to_owned(),
        }
    }

    /// The meter's clock (`0-0:1.0.0` carries it in `time`), else the newest time of any measurement. 0 is no time.
    fn measured(&self) -> Option<i64> {
        let plausible = |measurement: &Measurement| measurement.time.filter(|time| (1..END_OF_TIME).contains(time));
        let clock = self.measurements.iter().find(|measurement| is(&measurement.code, 1, 0, 0)).and_then(plausible);
        clock.or_else(|| self.measurements.iter().filter_map(plausible).max())
    }
}

fn is_meter_number(code: &Code) -> bool {
    is(code, 96, 1, 0)
}

fn is(code: &Code, c: u8, d: u8, e: u8) -> bool {
    matches!(code, Code::Obis(code) if matches!(code.a(), None | Some(0)) && code.is(c, d, e))
}

/// The document is an object of members.
struct Documents<'rules>(&'rules Rules);

impl<'de> Shape<'de> for Documents<'_> {
    type Value = Document;

    fn plain<E: de::Error>(self, plain: Plain<'de>) -> Result<Self::Value, E> {
        Err(self.0.shape(match plain {
            Plain::Text(_) => "a text",
            Plain::Number(_) => "a number",
            Plain::Flag => "true or false",
            Plain::Null => "null",
        }))
    }

    fn array<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.0.shape("an array"))
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut document = Document::default();
        let mut keys = Keys::new(self.0);
        while let Some(key) = keys.next(&mut map)? {
            document.members += 1;
            match map.next_value_seed(Read(Members(Scalars { rules: self.0, depth: 1 })))? {
                Member::Measurement { value, time } => {
                    document.measurements.push(Measurement { code: code(key), value, time });
                }
                Member::Scalar(Scalar::Text(text)) if key == "name" => document.name = Some(text.into_owned()),
                Member::Scalar(Scalar::Number(number)) if key == "name" => document.name = Some(number.to_string()),
                Member::Scalar(Scalar::Number(_)) if key == "sma_time" => document.uptime = true,
                Member::Scalar(_) => {}
            }
        }
        Ok(document)
    }
}

fn code(key: Cow<'_, str>) -> Code {
    match key.parse() {
        Ok(code) => Code::Obis(code),
        Err(_) => Code::Other(key.into_owned()),
    }
}

/// One member of the document.
enum Member<'de> {
    Measurement { value: Value, time: Option<i64> },
    Scalar(Scalar<'de>),
}

/// An object with a `value` that is a number or a text is a measurement, everything else metadata.
struct Members<'rules>(Scalars<'rules>);

impl<'de> Shape<'de> for Members<'_> {
    type Value = Member<'de>;

    fn plain<E: de::Error>(self, plain: Plain<'de>) -> Result<Self::Value, E> {
        self.0.plain(plain).map(Member::Scalar)
    }

    fn array<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        self.0.array(seq).map(Member::Scalar)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let inner = self.0.inner()?;
        let mut keys = Keys::new(self.0.rules);
        let (mut value, mut time) = (None, None);
        while let Some(key) = keys.next(&mut map)? {
            match (key.as_ref(), map.next_value_seed(Read(inner))?) {
                ("value", Scalar::Text(text)) => value = Some(Value::Text(text.into_owned())),
                ("value", Scalar::Number(number)) => value = Some(Value::Number(number)),
                ("time", scalar) => time = seconds(&scalar),
                _ => {}
            }
        }
        Ok(value.map_or(Member::Scalar(Scalar::Other), |value| Member::Measurement { value, time }))
    }
}

/// Whole seconds, also where they are written as a fraction or a text.
fn seconds(scalar: &Scalar<'_>) -> Option<i64> {
    match scalar {
        // A float's cast saturates; what is out of range is no plausible time later.
        Scalar::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64)),
        Scalar::Text(text) => text.trim_ascii().parse().ok(),
        Scalar::Other => None,
    }
}

#[cfg(test)]
mod tests;
