//! Mapping tables: a person's own file, or one that is shipped. Problems are those of a configuration file.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::names;
use super::problem::{Place, Report};
use super::raw::{Table as RawTable, Value, quoted};
use super::schema;
use super::section::{Given, Section, Taken, either, nearest_word};
use crate::decode::decimal::Decimal;
use crate::decode::mapping::{Constant, Device, Field, Name, Path, Shape, Table, Time, TimeFormat, TopicPattern};
use crate::decode::mapping::{UNITS, Unit, WINDOW};
use crate::decode::{self, Code};
use crate::obis::Obis;

/// Entries of any list in a table.
const MOST: usize = 1_000;

const SHAPES: &[(&str, Shape)] = &[
    ("obis-objects", Shape::ObisObjects),
    ("obis-values", Shape::ObisValues),
    ("fields", Shape::Fields),
    ("topics", Shape::Topics),
];

/// The longest window.
const MINUTE: Duration = Duration::from_secs(60);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Checks a table. It means something only where `report` has no error afterwards.
pub fn check(root: RawTable, place: Place, report: &mut Report) -> Table {
    let mut section = Section::new("mapping", root, schema::keys("mapping"));
    let about = section.text(report, "about").or(String::new());
    let topics = filters(&mut section, report);
    let shape = section.choice(report, "shape", SHAPES);
    if shape.is_absent() {
        let hint = format!("shape = {}", either(SHAPES.iter().map(|(word, _)| *word)));
        report.error(place, "mapping.shape is missing: a mapping needs it", hint);
    }
    let shape = shape.or(Shape::Fields);
    let window = section.duration(report, "window", 100 * MILLISECOND..=MINUTE, WINDOW).or(WINDOW);
    let prefix = prefix(&mut section, report);
    let register_factor = unit(&mut section, report, "register_unit").map_or(Decimal::ONE, |unit| unit.factor());
    let power_factor = unit(&mut section, report, "power_unit").map_or(Decimal::ONE, |unit| unit.factor());
    let mut under = list(&mut section, report, "under", PATHS);
    if under.is_empty() {
        under.extend("".parse::<Path>());
    }
    let ignore = list(&mut section, report, "ignore", PATHS);
    let ignore_topics = list(&mut section, report, "ignore_topics", TOPICS);
    let other_devices = section.flag(report, "other_devices").or(false);
    let device = device(&mut section, report);
    let time = time(&mut section, report);
    let fields: Vec<_> = section
        .tables(report, "field", "field")
        .into_iter()
        .take(MOST)
        .filter_map(|table| field(table, shape, report))
        .collect();
    let constants = section
        .tables(report, "constant", "constant")
        .into_iter()
        .take(MOST)
        .filter_map(|table| constant(table, report));
    let constants = constants.collect();
    section.finish(report, |_| None);
    if fields.is_empty() && matches!(shape, Shape::Fields | Shape::Topics) && !report.has_errors() {
        report.error(place, "no [[field]] is in it: a mapping of this shape needs one", "[[field]] with path and code");
    }
    Table {
        about,
        topics,
        shape,
        prefix,
        under,
        register_factor,
        power_factor,
        window,
        device,
        fields,
        constants,
        time,
        ignore,
        ignore_topics,
        other_devices,
    }
}

/// What a path looks like, for hints.
const PATHS: &str = "keys with / between them, such as \"SML/Total_in\", and * for any one";

/// What a pattern of topics looks like.
const TOPICS: &str =
    "levels such as \"tele/{device}/SENSOR\"; holes are {device}, {device=NAME*}, {device#}, {code} and {name}";

/// One text, or a list of them, each read.
fn list<T>(section: &mut Section, report: &mut Report, key: &str, hint: &str) -> Vec<T>
where
    T: FromStr<Err: Display>,
{
    let path = section.path_of(key);
    let mut wrong = Vec::new();
    let taken = section.read(report, key, |value| {
        let must = || ("must be a string or a list of strings".to_owned(), String::new());
        let items = match value {
            Value::Array(items) if items.len() <= MOST => {
                items.iter().map(|item| (Some(item.place), &item.value)).collect()
            }
            Value::Array(_) => return Err((format!("must have at most {MOST} entries"), String::new())),
            text @ Value::Text(_) => vec![(None, text)],
            _ => return Err(must()),
        };
        let mut read = Vec::new();
        for (place, value) in items {
            match value {
                Value::Text(text) => match text.parse::<T>() {
                    Ok(one) => read.push(one),
                    Err(error) => wrong.push((place, quoted(text), error.to_string())),
                },
                Value::Broken => {}
                other => wrong.push((place, other.shown(), "must be a string".to_owned())),
            }
        }
        Ok(read)
    });
    let Taken::Value(Given { place, value }) = taken else { return Vec::new() };
    for (own, shown, what) in wrong {
        report.error(own.unwrap_or(place), format!("{path} is {shown}: {what}"), hint);
    }
    value
}

/// One text, read.
fn one<T>(section: &mut Section, report: &mut Report, key: &str, hint: &str) -> Taken<T>
where
    T: FromStr<Err: Display>,
{
    section.read(report, key, |value| match value {
        Value::Text(text) => text.parse().map_err(|error: T::Err| (error.to_string(), hint.to_owned())),
        _ => Err(("must be a string".to_owned(), hint.to_owned())),
    })
}

fn filters(section: &mut Section, report: &mut Report) -> Vec<String> {
    let Taken::Value(given) = section.texts(report, "topics", MOST) else { return Vec::new() };
    let mut filters = Vec::new();
    for Given { place, value } in given.value {
        match names::topic_filter(&value) {
            Ok(()) => filters.push(value),
            Err(what) => {
                let message = format!("mapping.topics holds {}: the filter {what}", quoted(&value));
                report.error(place, message, "filters look like \"tele/+/SENSOR\"");
            }
        }
    }
    filters
}

/// `1-0`
fn prefix(section: &mut Section, report: &mut Report) -> Option<(u8, u8)> {
    let taken = section.read(report, "prefix", |value| {
        let wrong = || {
            ("must be medium and channel".to_owned(), "prefix = \"1-0\" is electricity, the only channel".to_owned())
        };
        let Value::Text(text) = value else { return Err(wrong()) };
        let code = format!("{text}:1.8.0").parse::<Obis>().map_err(|_| wrong())?;
        code.a().zip(code.b()).ok_or_else(wrong)
    });
    taken.given().map(|given| given.value)
}

fn unit(section: &mut Section, report: &mut Report, key: &str) -> Option<Unit> {
    let taken = section.read(report, key, |value| {
        let known = || format!("must be one of {}", UNITS.iter().map(|unit| unit.name).collect::<Vec<_>>().join(", "));
        let Value::Text(text) = value else { return Err((known(), String::new())) };
        let near = || nearest_word(text, UNITS.iter().map(|unit| unit.name));
        Unit::named(text).ok_or_else(|| (known(), near()))
    });
    taken.given().map(|given| given.value)
}

fn device(section: &mut Section, report: &mut Report) -> Device {
    let Taken::Value(given) = section.table(report, "device", "device") else { return Device::default() };
    let mut table = given.value;
    let device =
        Device { topics: list(&mut table, report, "topics", TOPICS), paths: list(&mut table, report, "paths", PATHS) };
    table.finish(report, |_| None);
    device
}

fn time(section: &mut Section, report: &mut Report) -> Time {
    let Taken::Value(given) = section.table(report, "time", "time") else { return Time::default() };
    let mut table = given.value;
    let paths: Vec<Path> = list(&mut table, report, "paths", PATHS);
    let place = table.place();
    let mut formats = Vec::new();
    for Given { place, value } in table.texts(report, "formats", MOST).or(Vec::new()) {
        match TimeFormat::ALL.iter().find(|(word, _)| *word == value) {
            Some((_, format)) => formats.push(*format),
            None => {
                let words = || TimeFormat::ALL.iter().map(|(word, _)| *word);
                let message = format!("time.formats holds {}: must be {}", quoted(&value), either(words()));
                report.error(place, message, nearest_word(&value, words()));
            }
        }
    }
    if paths.is_empty() != formats.is_empty() && !report.has_errors() {
        let message = "[time] has only one of paths and formats: where the time stands, and how it is written";
        report.error(place, message, "paths = [\"Time\"] and formats = [\"local\"]");
    }
    table.finish(report, |_| None);
    Time { paths, formats }
}

fn field(mut table: Section, shape: Shape, report: &mut Report) -> Option<Field> {
    let place = table.place();
    let topic = one::<TopicPattern>(&mut table, report, "topic", TOPICS);
    let bad_topic = matches!(topic, Taken::Wrong);
    let topic = topic.given().map(|given| given.value);
    let given_path = table.has("path");
    let mut paths: Vec<Path> = list(&mut table, report, "path", PATHS);
    let (name, bad_name) = name(&mut table, topic.as_ref(), report);
    let unit = checked_unit(&mut table, name.as_ref(), report);
    let factor = factor(&mut table, report);
    table.finish(report, |_| None);
    if shape == Shape::Topics {
        if topic.is_none() && !bad_topic {
            report.error(place, "field.topic is missing: every [[field]] of this shape needs it", TOPICS);
        }
        if !given_path {
            paths.extend(["", "value"].iter().filter_map(|path| path.parse().ok()));
        }
    } else if !given_path {
        report.error(place, "field.path is missing: every [[field]] of this shape needs it", PATHS);
    }
    if name.is_none() && !bad_name && !bad_topic {
        let hint = "code = \"1-0:1.8.0\", or name = \"...\" for what has no code, or {code} or {name} in topic";
        report.error(place, "field.code is missing: every [[field]] needs it", hint);
    }
    let factor = unit.map_or(Decimal::ONE, |unit| unit.factor()).times(&factor)?;
    Some(Field { topic, paths, name: name?, unit, factor })
}

/// What the field's measurement is called, and whether that was said, but wrongly.
fn name(table: &mut Section, topic: Option<&TopicPattern>, report: &mut Report) -> (Option<Name>, bool) {
    let place = table.place();
    let code = one::<Obis>(table, report, "code", "codes look like \"1-0:1.8.0\"; what has none is given a name");
    let own = table.text(report, "name");
    let wrong = matches!(code, Taken::Wrong) || matches!(own, Taken::Wrong);
    let mut names = Vec::new();
    names.extend(code.given().map(|given| Name::Fixed(Code::Obis(given.value))));
    names.extend(own.given().map(|given| Name::Fixed(Code::Other(given.value))));
    names.extend(topic.filter(|topic| topic.has_code()).map(|_| Name::CodeInTopic));
    names.extend(topic.filter(|topic| topic.has_name()).map(|_| Name::InTopic));
    if names.len() > 1 {
        let hint = "keep one of code, name, and {code} or {name} in topic";
        report.error(place, "this [[field]] says more than once what it is called", hint);
    }
    (names.into_iter().next(), wrong)
}

/// A unit that fits the code.
fn checked_unit(table: &mut Section, name: Option<&Name>, report: &mut Report) -> Option<Unit> {
    let place = table.place();
    let unit = unit(table, report, "unit")?;
    if let Some(Name::Fixed(Code::Obis(code))) = name
        && let Some(meaning) = code.meaning()
        && meaning.unit() != unit.base
    {
        let is = meaning.unit().unwrap_or("a plain number");
        let hint = "a code of powers has D = 7, one of registers D = 8: 1-0:1.7.0 is W, 1-0:1.8.0 is Wh";
        report.error(place, format!("field.unit is \"{}\": {code} is {meaning}, {is}", unit.name), hint);
    }
    Some(unit)
}

fn factor(table: &mut Section, report: &mut Report) -> Decimal {
    let taken = table.read(report, "factor", |value| {
        let text = match value {
            Value::Integer(text, _) | Value::Float(text) | Value::Text(text) => text,
            _ => return Err(("must be a number".to_owned(), "factor = 0.001".to_owned())),
        };
        let number = text.parse::<Decimal>().map_err(|error| (error.to_string(), "factor = 0.001".to_owned()))?;
        let sensible = number.magnitude().is_some_and(|places| (-20..=20).contains(&places));
        if sensible {
            Ok(number)
        } else {
            Err(("must be neither 0 nor beyond 20 places".to_owned(), "factor = 0.001".to_owned()))
        }
    });
    taken.or(Decimal::ONE)
}

fn constant(mut table: Section, report: &mut Report) -> Option<Constant> {
    let place = table.place();
    let (name, bad_name) = name(&mut table, None, report);
    let value = table.read(report, "value", |value| match value {
        Value::Text(text) => Ok(decode::Value::Text(text.clone())),
        Value::Integer(text, _) | Value::Float(text) => match text.parse() {
            Ok(number) => Ok(decode::Value::Number(number)),
            Err(_) => Err(("must be a decimal number or a string".to_owned(), String::new())),
        },
        _ => Err(("must be a number or a string".to_owned(), String::new())),
    });
    if value.is_absent() {
        report.error(place, "constant.value is missing: every [[constant]] needs it", "value = 1");
    }
    if name.is_none() && !bad_name {
        report.error(place, "constant.code is missing: every [[constant]] needs it", "code = \"1-0:1.8.0\", or name");
    }
    table.finish(report, |_| None);
    match name? {
        Name::Fixed(code) => Some(Constant { code, value: value.given()?.value }),
        Name::CodeInTopic | Name::InTopic => None,
    }
}
