//! What a table makes of one message.

use std::borrow::Cow;

use super::path::shown;
use super::time::TimeRead;
use super::topic::Captures;
use super::walk::walk;
use super::{Field, Mapping, Name, Shape, Table};
use crate::decode::decimal::Decimal;
use crate::decode::json::Piece;
use crate::decode::{Code, Flag, Measurement, Reason, Value};
use crate::obis::{Kind, Meaning, Obis};

/// Values of a message that no table takes, of which the names are kept for a person to see.
const LEFT_OVER: usize = 1_000;

/// What was found in a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The device's name; none where the table finds none.
    pub device: Option<String>,
    pub time: Option<TimeRead>,
    /// Where there is none: a time that the table's formats do not read, or that no clock shows, and its place.
    pub unread_time: Option<(String, String)>,
    /// In the message's order, then the constants.
    pub rows: Vec<Row>,
    /// Values that the table neither takes nor ignores, with their places; only where they were asked for.
    pub left_over: Vec<(String, String)>,
    /// How many they are.
    pub unmapped: usize,
    /// Whether it is a message that holds no measurement and is no mistake: by its topic, or another device's.
    pub ignored: bool,
    /// Whether the message is a JSON document.
    pub json: bool,
}

/// A measurement, and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Empty for a constant, and where it was not asked for.
    pub path: String,
    pub measurement: Measurement,
}

/// Reads `bytes`, received on `topic`, by a table. `explain`: also say where everything stood, and what was left.
///
/// # Errors
///
/// The reason for which it is not what the table describes.
pub fn read(mapping: &Mapping, topic: &str, bytes: &[u8], explain: bool) -> Result<Found, Reason> {
    let table = &*mapping.table;
    let mut reader = Reader::new(mapping, topic, explain);
    if table.ignore_topics.iter().any(|pattern| pattern.captures(topic).is_some()) {
        let json = walk(bytes, |_, _| {}).is_ok();
        return Ok(Found { ignored: true, json, ..reader.found });
    }
    if table.shape == Shape::Topics && reader.fields.is_empty() {
        return Err(Reason::TopicNotMapped { mapping: mapping.name.to_string(), topic: topic.to_owned() });
    }
    match walk(bytes, |keys, piece| reader.take(keys, piece)) {
        Ok(()) => reader.found.json = true,
        Err(reason @ Reason::NotJson { .. }) if table.shape == Shape::Topics => {
            reader.restart();
            let text = std::str::from_utf8(bytes).unwrap_or_default().trim_ascii();
            // Half a document is no value.
            if text.starts_with(['{', '[']) {
                return Err(reason);
            }
            if !text.is_empty() {
                reader.take(&[], Piece::Text(Cow::Borrowed(text)));
            }
        }
        Err(reason) => return Err(reason),
    }
    reader.finish()
}

/// The values of a document, with their places, that are not `taken` by the keys that lead to them.
pub fn leaves(bytes: &[u8], taken: impl Fn(&[Cow<'_, str>]) -> bool) -> Vec<(String, String)> {
    let mut leaves = Vec::new();
    let kept = walk(bytes, |keys, piece| {
        if leaves.len() < LEFT_OVER && !taken(keys) {
            let described = piece.described().to_owned();
            leaves.push((shown(keys), piece.value().map_or(described, |value| value.to_string())));
        }
    });
    if kept.is_ok() { leaves } else { Vec::new() }
}

struct Reader<'m> {
    mapping: &'m Mapping,
    table: &'m Table,
    /// Those for this topic, with what they took out of it.
    fields: Vec<(&'m Field, Captures<'m>)>,
    explain: bool,
    found: Found,
    /// Which of the table's paths gave the device's name and the time: the first is the best.
    device_rank: usize,
    time_rank: usize,
    /// Times of single values: the keys above them, and seconds.
    times: Vec<(String, i64)>,
    values: usize,
}

impl<'m> Reader<'m> {
    fn new(mapping: &'m Mapping, topic: &'m str, explain: bool) -> Self {
        let table = &*mapping.table;
        let here = |field: &'m Field| match &field.topic {
            None => Some((field, Captures::default())),
            Some(pattern) => Some((field, pattern.captures(topic)?)),
        };
        let fields: Vec<_> = table.fields.iter().filter_map(here).collect();
        let named = table.device.topics.iter().find_map(|pattern| pattern.captures(topic)?.device);
        let device = named.or_else(|| fields.iter().find_map(|(_, captures)| captures.device));
        let found = Found {
            device: device.filter(|name| !name.trim().is_empty()).map(str::to_owned),
            time: None,
            unread_time: None,
            rows: Vec::new(),
            left_over: Vec::new(),
            unmapped: 0,
            ignored: false,
            json: false,
        };
        let device_rank = if found.device.is_some() { 0 } else { usize::MAX };
        Self {
            mapping,
            table,
            fields,
            explain,
            found,
            device_rank,
            time_rank: usize::MAX,
            times: Vec::new(),
            values: 0,
        }
    }

    /// Forgets what was read before it turned out to be no JSON.
    fn restart(&mut self) {
        self.found.rows.clear();
        self.found.left_over.clear();
        self.found.unmapped = 0;
        (self.found.time, self.time_rank, self.values) = (None, usize::MAX, 0);
        self.found.unread_time = None;
    }

    /// One value of the document.
    fn take(&mut self, keys: &[Cow<'_, str>], piece: Piece<'_>) {
        self.values += 1;
        let text = match &piece {
            Piece::Text(text) => Some(text.as_ref()),
            Piece::Number(number) => Some(*number),
            _ => None,
        };
        let named = text.is_some_and(|text| self.device(keys, text));
        let timed = text.is_some_and(|text| self.time(keys, text));
        if self.table.ignore.iter().any(|path| path.begins(keys)) || matches!(piece, Piece::Null) {
            return;
        }
        let (is_text, described) = (matches!(piece, Piece::Text(_)), piece.described());
        let left = match piece.value() {
            Some(value) => self.measured(keys, value, is_text).map(|value| value.to_string()),
            None => Some(described.to_owned()),
        };
        if let (Some(left), false) = (left, named || timed) {
            self.leave(keys, left);
        }
    }

    /// Whether it is the device's name.
    fn device(&mut self, keys: &[Cow<'_, str>], text: &str) -> bool {
        let Some(rank) = self.table.device.paths.iter().position(|path| path.fits(keys)) else { return false };
        if !text.trim().is_empty() && rank < self.device_rank {
            (self.found.device, self.device_rank) = (Some(text.to_owned()), rank);
        }
        true
    }

    /// Whether it is the time of the message, or of one of its values.
    fn time(&mut self, keys: &[Cow<'_, str>], text: &str) -> bool {
        let formats = &self.table.time.formats;
        let read = || formats.iter().find_map(|format| format.read(text, &self.mapping.zone));
        if let Some(rank) = self.table.time.paths.iter().position(|path| path.fits(keys)) {
            if rank < self.time_rank {
                match read() {
                    Some(time) => (self.found.time, self.time_rank) = (Some(time), rank),
                    None if is_no_time(text) => {}
                    None => self.unread_time(keys, text),
                }
            }
            return true;
        }
        let own = self.table.shape == Shape::ObisObjects && keys.last().is_some_and(|key| key == "time");
        if own && self.coded(&keys[..keys.len() - 1]).is_some() {
            match text.parse::<Decimal>().ok().and_then(|seconds| seconds.trunc()) {
                Some(seconds) => self.times.push((shown(&keys[..keys.len() - 1]), seconds)),
                None if is_no_time(text) => {}
                None => self.unread_time(keys, text),
            }
            return true;
        }
        false
    }

    /// Keeps the first one.
    fn unread_time(&mut self, keys: &[Cow<'_, str>], text: &str) {
        let place = if self.explain { shown(keys) } else { String::new() };
        self.found.unread_time.get_or_insert_with(|| (place, text.to_owned()));
    }

    /// Keeps it as a measurement, or gives it back.
    fn measured(&mut self, keys: &[Cow<'_, str>], value: Value, is_text: bool) -> Option<Value> {
        let field = self.fields.iter().find(|(field, _)| field.paths.iter().any(|path| path.fits(keys)));
        let (code, unit, factor) = match field {
            Some((field, captures)) => {
                let code = match &field.name {
                    Name::Fixed(code) => code.clone(),
                    Name::InTopic => Code::Other(captures.name.unwrap_or_default().to_owned()),
                    Name::CodeInTopic => match captures.code.unwrap_or_default().parse::<Obis>() {
                        Ok(code) => Code::Obis(self.table.in_full(code)),
                        Err(_) => Code::Other(captures.code.unwrap_or_default().to_owned()),
                    },
                };
                let usual = field.unit.is_none() && matches!(field.name, Name::CodeInTopic);
                let factor = if usual { self.table.usual_factor(meaning(&code)) } else { field.factor };
                (code, field.unit.and_then(|unit| unit.base), factor)
            }
            None => {
                let above = match self.table.shape {
                    Shape::ObisValues => keys,
                    Shape::ObisObjects if keys.last().is_some_and(|key| key == "value") => &keys[..keys.len() - 1],
                    _ => return Some(value),
                };
                let Some(code) = self.coded(above) else { return Some(value) };
                let factor = self.table.usual_factor(code.meaning());
                (Code::Obis(code), None, factor)
            }
        };
        let meaning = meaning(&code);
        let (value, flag) = in_base_unit(value, is_text, meaning, field.map(|(field, _)| *field), &factor);
        // What the table calls alike in one message is still kept, under its own name.
        let taken = self.found.rows.iter().any(|row| row.measurement.code == code);
        let code = if taken { Code::Other(shown(keys)) } else { code };
        let unit = meaning.map_or(unit, |meaning| meaning.unit());
        let own_unit = unit.filter(|_| self::meaning(&code).is_none());
        let mut measurement = Measurement { flag, own_unit, ..Measurement::new(code, value) };
        measurement.flag = measurement.judged();
        let path = if self.explain || self.table.shape == Shape::ObisObjects { shown(keys) } else { String::new() };
        self.found.rows.push(Row { path, measurement });
        None
    }

    /// The code that these keys are, where the table has codes as keys.
    fn coded(&self, keys: &[Cow<'_, str>]) -> Option<Obis> {
        let (key, above) = keys.split_last()?;
        if !self.table.under.iter().any(|path| path.fits(above)) {
            return None;
        }
        key.parse::<Obis>().ok().map(|code| self.table.in_full(code))
    }

    fn leave(&mut self, keys: &[Cow<'_, str>], value: String) {
        self.found.unmapped += 1;
        if self.explain && self.found.left_over.len() < LEFT_OVER {
            self.found.left_over.push((shown(keys), value));
        }
    }

    fn finish(mut self) -> Result<Found, Reason> {
        if self.found.rows.is_empty() && self.table.other_devices && self.found.json {
            return Ok(Found { ignored: true, left_over: Vec::new(), unmapped: 0, unread_time: None, ..self.found });
        }
        if self.found.rows.is_empty() {
            return Err(Reason::NothingMapped { mapping: self.mapping.name.to_string(), values: self.values });
        }
        for (above, seconds) in &self.times {
            let own = |row: &&mut Row| row.path.strip_suffix("/value") == Some(above);
            if let Some(row) = self.found.rows.iter_mut().find(own) {
                row.measurement.time = Some(*seconds);
            }
        }
        // Of many messages one reading is made: each value keeps the time of its own.
        if let (Shape::Topics, Some(time)) = (self.table.shape, self.found.time) {
            self.found.rows.iter_mut().for_each(|row| row.measurement.time = Some(time.ms.div_euclid(1000)));
        }
        if self.found.time.is_some() || self.found.rows.iter().any(|row| row.measurement.time.is_some()) {
            self.found.unread_time = None;
        }
        self.found.rows.extend(self.table.constants.iter().map(|constant| Row {
            path: String::new(),
            measurement: Measurement::new(constant.code.clone(), constant.value.clone()),
        }));
        Ok(self.found)
    }
}

/// How devices write that they have no time.
fn is_no_time(text: &str) -> bool {
    text.trim_ascii().bytes().all(|byte| byte == b'0')
}

fn meaning(code: &Code) -> Option<Meaning> {
    match code {
        Code::Obis(code) => code.meaning(),
        Code::Other(_) => None,
    }
}

/// The number in its base unit; a text where a text is meant. What should be a number and is none is kept and flagged.
fn in_base_unit(
    value: Value,
    is_text: bool,
    meaning: Option<Meaning>,
    field: Option<&Field>,
    factor: &Decimal,
) -> (Value, Option<Flag>) {
    let state = meaning.is_some_and(|meaning| meaning.kind == Kind::State);
    let free = meaning.is_none() && field.is_none_or(|field| field.unit.is_none());
    if is_text && state {
        return (value, None);
    }
    match value.decimal() {
        Some(number) => match number.times(factor) {
            Some(number) => (Value::Number(number), None),
            None => (value, Some(Flag::Absurd)),
        },
        None if state || free => (value, None),
        None => (value, Some(Flag::Absurd)),
    }
}
