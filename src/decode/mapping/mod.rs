//! What other readers of meters say, by tables that a person can write: which field or topic is which code, in which
//! unit, and where the device's name and the time stand.
//!
//! Four shapes cover what is met: OBIS codes as keys of objects with `value` and `time`; OBIS codes as keys of plain
//! values; named fields; one topic a value. The tables are TOML (`edge-config/mappings/`); `config` reads them.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::Code;
use super::decimal::Decimal;
use crate::obis::{Kind, Meaning, Obis};

mod path;
mod read;
mod time;
mod topic;
mod unit;
mod walk;

pub use path::{Path, PathError};
pub use read::{Found, Row, leaves, read};
pub use time::{TimeFormat, TimeRead};
pub use topic::{Captures, TopicPattern, TopicPatternError};
pub use unit::{UNITS, Unit};

/// How long the values of one device are gathered to one reading where each has a topic of its own, by default.
pub const WINDOW: Duration = Duration::from_secs(2);

/// A table, and the zone that its times without one are in.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// The preset's name, or the file's.
    pub name: Arc<str>,
    pub table: Arc<Table>,
    pub zone: TimeZone,
}

/// What a reader's messages look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Which reader it is, in words.
    pub about: String,
    /// Where that reader publishes, unless it was changed: MQTT filters.
    pub topics: Vec<String>,
    pub shape: Shape,
    /// What codes that leave out medium and channel are of.
    pub prefix: Option<(u8, u8)>,
    /// Objects whose keys are codes; for the two shapes with codes as keys.
    pub under: Vec<Path>,
    /// What registers are multiplied by where only their code is known.
    pub register_factor: Decimal,
    /// The same for what is no register.
    pub power_factor: Decimal,
    /// How long values are gathered to one reading; with [`Shape::Topics`].
    pub window: Duration,
    pub device: Device,
    /// In the order in which they are looked for; a field before the codes that are keys.
    pub fields: Vec<Field>,
    pub constants: Vec<Constant>,
    pub time: Time,
    /// What is known to be no measurement.
    pub ignore: Vec<Path>,
    /// Messages without measurements, that are no mistake.
    pub ignore_topics: Vec<TopicPattern>,
    /// Other devices speak on the same topics: a JSON document with none of the fields is one of theirs, without
    /// measurements, and no mistake.
    pub other_devices: bool,
}

/// What the messages of a reader have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"1-0:1.8.0":{"value":1,"time":1}}`
    ObisObjects,
    /// `{"1.8.0":1}`
    ObisValues,
    /// `{"power":1}`
    Fields,
    /// One value a message: `1`, or `{"value":1,"timestamp":1}`.
    Topics,
}

/// Where the device's name is looked for; else the source's name is taken.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Device {
    /// The first that the topic fits.
    pub topics: Vec<TopicPattern>,
    /// Then the first that is there and not empty.
    pub paths: Vec<Path>,
}

/// Where the time of measurement is looked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Time {
    pub paths: Vec<Path>,
    /// Tried in turn.
    pub formats: Vec<TimeFormat>,
}

/// A value in a known place.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// None: on any topic.
    pub topic: Option<TopicPattern>,
    /// Places of it: at most one of them is there.
    pub paths: Vec<Path>,
    pub name: Name,
    /// None: whatever the meter says, for texts and plain numbers.
    pub unit: Option<Unit>,
    /// What its number is multiplied by to be in the base unit, the unit's own factor included.
    pub factor: Decimal,
}

/// What a field's measurement is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    Fixed(Code),
    /// The OBIS code that stands in the topic, `{code}`.
    CodeInTopic,
    /// Whatever stands in the topic, `{name}`.
    InTopic,
}

/// A measurement that every message has.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    pub code: Code,
    pub value: super::Value,
}

impl Table {
    /// The code in full, where the table says of what medium and channel the reader's codes are.
    fn in_full(&self, code: Obis) -> Obis {
        let electricity = matches!(code.c(), 1..=80);
        match (self.prefix, code.a(), code.b(), code.f()) {
            (Some((a, b)), None, None, None) if electricity => {
                Obis::new([a, b, code.c(), code.d(), code.e().unwrap_or(0), 255]).unwrap_or(code)
            }
            _ => code,
        }
    }

    /// What a value is multiplied by of which only the code is known.
    fn usual_factor(&self, meaning: Option<Meaning>) -> Decimal {
        match meaning.map(|meaning| (meaning.kind, meaning.unit())) {
            Some((Kind::Register, Some(_))) => self.register_factor,
            Some((_, Some("W" | "var" | "VA"))) => self.power_factor,
            _ => Decimal::ONE,
        }
    }
}

#[cfg(test)]
mod tests;
