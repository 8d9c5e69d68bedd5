//! One table of the configuration, read key by key: each reader reports what is wrong with its key and goes on with
//! the default, so that one wrong value hides no other.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Place, Report};
use super::raw::{Item, Table, Value, quoted};
use super::schema;
use super::units;

/// A value that was given, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Given<T> {
    pub place: Place,
    pub value: T,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken<T> {
    Absent,
    /// There, but wrong; already reported.
    Wrong,
    Value(Given<T>),
}

impl<T> Taken<T> {
    pub fn given(self) -> Option<Given<T>> {
        match self {
            Self::Value(given) => Some(given),
            Self::Absent | Self::Wrong => None,
        }
    }

    pub fn or(self, default: T) -> T {
        self.given().map_or(default, |given| given.value)
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// Times that a key may have, both ends included.
type Times = RangeInclusive<Duration>;

/// A table that is being read.
#[derive(Debug)]
pub struct Section {
    /// `kafka.tls`; empty for the root.
    path: &'static str,
    table: Table,
    keys: &'static [&'static str],
}

impl Section {
    /// `keys`: all that may stand in it.
    pub fn new(path: &'static str, table: Table, keys: &'static [&'static str]) -> Self {
        Self { path, table, keys }
    }

    /// One that stands nowhere: everything has its default.
    pub fn absent(path: &'static str) -> Self {
        Self::new(path, Table { place: Place { file: 0, line: 0 }, entries: Vec::new() }, schema::keys(path))
    }

    /// Where the table begins.
    pub fn place(&self) -> Place {
        self.table.place
    }

    /// Another list of keys, once the type is known.
    pub fn with_keys(self, keys: &'static [&'static str]) -> Self {
        Self { keys, ..self }
    }

    /// `kafka.topic`
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where the key stands, if it does.
    pub fn place_of(&self, key: &str) -> Option<Place> {
        self.table.entries.iter().find(|entry| entry.key == key).map(|entry| entry.item.place)
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.entries.iter().any(|entry| entry.key == key)
    }

    /// Takes a key out; what is left at the end is unknown.
    pub fn take(&mut self, key: &str) -> Option<Item> {
        let index = self.table.entries.iter().position(|entry| entry.key == key)?;
        Some(self.table.entries.remove(index).item)
    }

    /// Reads a key by `read`, which gets the value and says what is wrong with it: what it must be, and a hint.
    pub fn read<T>(
        &mut self,
        report: &mut Report,
        key: &str,
        read: impl FnOnce(&Value) -> Result<T, (String, String)>,
    ) -> Taken<T> {
        let Some(item) = self.take(key) else { return Taken::Absent };
        if matches!(item.value, Value::Broken) {
            return Taken::Wrong;
        }
        match read(&item.value) {
            Ok(value) => Taken::Value(Given { place: item.place, value }),
            Err((what, hint)) => {
                let hint = match hint.is_empty() {
                    true if self.path == "source.registers" && key == "type" => "for example type = \"u32\"".to_owned(),
                    true => default_hint(key),
                    false => hint,
                };
                report.error(item.place, format!("{} is {}: {what}", self.path_of(key), item.value.shown()), hint);
                Taken::Wrong
            }
        }
    }

    /// A string.
    pub fn text(&mut self, report: &mut Report, key: &str) -> Taken<String> {
        self.read(report, key, |value| match value {
            Value::Text(text) => Ok(text.clone()),
            other => Err(("must be a string".to_owned(), quote_hint(key, other))),
        })
    }

    pub fn flag(&mut self, report: &mut Report, key: &str) -> Taken<bool> {
        self.read(report, key, |value| match value {
            Value::Flag(flag) => Ok(*flag),
            Value::Text(text) if text == "true" || text == "false" => {
                Err(("must be true or false".to_owned(), format!("write {key} = {text}, without quotes")))
            }
            _ => Err(("must be true or false".to_owned(), String::new())),
        })
    }

    /// A whole number within `range`, both ends included.
    pub fn count(&mut self, report: &mut Report, key: &str, range: RangeInclusive<i64>) -> Taken<i64> {
        let limits = format!("must be a whole number from {} to {}", range.start(), range.end());
        self.read(report, key, |value| match value {
            Value::Integer(_, Some(number)) if range.contains(number) => Ok(*number),
            Value::Text(text) if text.trim().parse::<i64>().is_ok_and(|number| range.contains(&number)) => {
                Err((limits, format!("write {key} = {}, without quotes", text.trim())))
            }
            Value::Integer(_, Some(number)) => {
                Err((limits, format!("for example {key} = {}", (*number).clamp(*range.start(), *range.end()))))
            }
            _ => Err((limits, format!("for example {key} = {}", range.start()))),
        })
    }

    /// Bytes with a unit, within `range`; `example` is what the hint shows.
    pub fn size(&mut self, report: &mut Report, key: &str, range: RangeInclusive<u64>, example: u64) -> Taken<u64> {
        let show = |value: &u64| units::show_size(*value);
        let limits = format!("must be a size from {} to {}", show(range.start()), show(range.end()));
        let example = units::show_size(example);
        self.measure(report, key, range, limits, &example, units::parse_size, units::nearest_size)
    }

    /// A time with a unit, within `range`; `example` is what the hint shows.
    pub fn duration(&mut self, report: &mut Report, key: &str, range: Times, example: Duration) -> Taken<Duration> {
        self.time(report, key, range, example, "a time", units::parse_duration)
    }

    /// Like [`Section::duration`], for what is counted in whole seconds.
    pub fn seconds(&mut self, report: &mut Report, key: &str, range: Times, example: Duration) -> Taken<Duration> {
        let whole = |text: &str| units::parse_duration(text).filter(|time| time.subsec_nanos() == 0);
        self.time(report, key, range, example, "whole seconds", whole)
    }

    fn time(
        &mut self,
        report: &mut Report,
        key: &str,
        range: Times,
        example: Duration,
        what: &str,
        parse: impl Fn(&str) -> Option<Duration>,
    ) -> Taken<Duration> {
        let show = |value: &Duration| units::show_duration(*value);
        let limits = format!("must be {what} from {} to {}", show(range.start()), show(range.end()));
        self.measure(report, key, range, limits, &show(&example), parse, units::nearest_duration)
    }

    #[allow(clippy::too_many_arguments, reason = "the two kinds of measure differ in all of these")]
    fn measure<T: PartialOrd>(
        &mut self,
        report: &mut Report,
        key: &str,
        range: RangeInclusive<T>,
        limits: String,
        example: &str,
        parse: impl Fn(&str) -> Option<T>,
        nearest: impl Fn(&str) -> Option<String>,
    ) -> Taken<T> {
        self.read(report, key, |value| {
            let unit = || format!("write a number and its unit in quotes, for example {key} = \"{example}\"");
            match value {
                Value::Text(text) => match parse(text) {
                    Some(value) if range.contains(&value) => Ok(value),
                    Some(_) => Err((limits, format!("for example {key} = \"{example}\""))),
                    None => Err((limits, nearest(text).map_or_else(unit, |near| format!("did you mean \"{near}\"?")))),
                },
                _ => Err((limits, unit())),
            }
        })
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, report: &mut Report, key: &str, words: &[(&str, T)]) -> Taken<T> {
        let list = either(words.iter().map(|(word, _)| *word));
        self.read(report, key, |value| {
            let Value::Text(text) = value else { return Err((format!("must be {list}"), String::new())) };
            match words.iter().find(|(word, _)| word == text) {
                Some((_, value)) => Ok(*value),
                None => Err((format!("must be {list}"), nearest_word(text, words.iter().map(|(word, _)| *word)))),
            }
        })
    }

    /// A list of strings, each with its place.
    pub fn texts(&mut self, report: &mut Report, key: &str, limit: usize) -> Taken<Vec<Given<String>>> {
        let path = self.path_of(key);
        let mut wrong = Vec::new();
        let taken = self.read(report, key, |value| match value {
            Value::Array(items) if items.is_empty() || items.len() > limit => {
                let what = format!("must have 1 to {limit} entries and has {}", items.len());
                Err((what, "put at least one into the list, or leave the key out".to_owned()))
            }
            Value::Array(items) => {
                let mut texts = Vec::new();
                for item in items {
                    match &item.value {
                        Value::Text(text) => texts.push(Given { place: item.place, value: text.clone() }),
                        Value::Broken => {}
                        other => wrong.push((item.place, other.shown())),
                    }
                }
                Ok(texts)
            }
            Value::Text(text) => {
                let list: Vec<_> = text.split(',').map(|part| quoted(part.trim())).collect();
                Err(("must be a list of strings".to_owned(), format!("write {key} = [{}]", list.join(", "))))
            }
            _ => Err(("must be a list of strings".to_owned(), String::new())),
        });
        for (place, shown) in wrong {
            report.error(place, format!("{path} holds {shown}: each entry must be a string"), "put it in quotes");
        }
        taken
    }

    /// A table within this one.
    pub fn table(&mut self, report: &mut Report, key: &'static str, path: &'static str) -> Taken<Section> {
        self.read(report, key, |value| match value {
            Value::Table(table) => Ok(Section::new(path, table.clone(), schema::keys(path))),
            _ => {
                Err(("must be a table".to_owned(), format!("write [{path}] on a line of its own, and its keys below")))
            }
        })
    }

    /// An array of tables; a single table stands for an array of one, but is reported.
    pub fn tables(&mut self, report: &mut Report, key: &str, path: &'static str) -> Vec<Section> {
        let Some(item) = self.take(key) else { return Vec::new() };
        let hint = format!("write [[{path}]] on a line of its own before each one");
        let section = |table: Table| Section::new(path, table, schema::keys(path));
        match item.value {
            Value::Broken => Vec::new(),
            Value::Table(table) => {
                report.error(
                    item.place,
                    format!("{path} is a table: must be an array of tables"),
                    format!("write [[{path}]]"),
                );
                vec![section(table)]
            }
            Value::Array(items) => {
                let mut sections = Vec::new();
                for item in items {
                    match item.value {
                        Value::Table(table) => sections.push(section(table)),
                        Value::Broken => {}
                        other => report.error(
                            item.place,
                            format!("{path} holds {}: must be an array of tables", other.shown()),
                            hint.clone(),
                        ),
                    }
                }
                sections
            }
            other => {
                report.error(item.place, format!("{path} is {}: must be an array of tables", other.shown()), hint);
                Vec::new()
            }
        }
    }

    /// What is left, in the file's order: for tables whose keys are not ours.
    pub fn rest(self) -> impl Iterator<Item = (String, Place, Item)> {
        self.table.entries.into_iter().map(|entry| (entry.key, entry.place, entry.item))
    }

    /// Reports what was not taken as unknown, unless `explain` knows better (what it is, and a hint).
    pub fn finish(self, report: &mut Report, explain: impl Fn(&str) -> Option<(String, String)>) {
        let Self { path, keys, table } = self;
        for entry in table.entries {
            let name = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            let (what, hint) = explain(&entry.key)
                .or_else(|| literal_secret(&entry.key, path, keys))
                .unwrap_or_else(|| unknown(&entry.key, path, keys));
            report.error(entry.place, format!("{} {what}", plain(&name)), hint);
        }
    }
}

/// A name as it may stand in a message: escaped and shortened where it is no bare key.
fn plain(name: &str) -> String {
    let bare = name.len() <= 80 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if bare { name.to_owned() } else { quoted(name) }
}

fn literal_secret(key: &str, path: &str, keys: &[&str]) -> Option<(String, String)> {
    let instead = format!("{key}_file");
    let meant = match key {
        "password" | "pass" | "passwd" | "secret" => "password_file",
        _ => &instead,
    };
    keys.contains(&meant).then(|| {
        let hint = format!(
            "put it into a file that only meterferry may read, and write {meant} = \"FILE\" in {}",
            header(path)
        );
        ("would be a secret in the configuration itself: refused".to_owned(), hint)
    })
}

fn unknown(key: &str, path: &str, keys: &[&str]) -> (String, String) {
    let what = if path.is_empty() {
        "is no table of the configuration".to_owned()
    } else {
        format!("is no key of {}", header(path))
    };
    if let Some(owner) = schema::owner(key).filter(|owner| *owner != path && !keys.contains(&key)) {
        return (what, format!("{key} belongs in {}", header(owner)));
    }
    let show = |word: &str| if path.is_empty() { header(word) } else { word.to_owned() };
    let hint = match nearest(key, keys.iter().copied()) {
        Some(word) => format!("did you mean {}?", show(word)),
        None => format!("known: {}", keys.iter().map(|word| show(word)).collect::<Vec<_>>().join(", ")),
    };
    (what, hint)
}

/// A table's header as the file writes it.
fn header(path: &str) -> String {
    match path {
        "source" | "source.users" | "source.registers" | "field" | "constant" => format!("[[{path}]]"),
        "mapping" => "a mapping".to_owned(),
        _ => format!("[{path}]"),
    }
}

/// A hint with the word that may have been meant; none where nothing is near.
pub fn nearest_word<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> String {
    nearest(text, words).map_or_else(String::new, |word| format!("did you mean \"{word}\"?"))
}

fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    const NEAR: f64 = 0.8;
    let short: String = text.chars().take(64).collect::<String>().to_lowercase();
    words
        .map(|word| (strsim::jaro_winkler(&short, &word.to_lowercase()), word))
        .filter(|(score, _)| *score >= NEAR)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, word)| word)
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`
pub fn either<T: Display>(words: impl Iterator<Item = T>) -> String {
    let words: Vec<_> = words.map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.join(""),
    }
}

fn quote_hint(key: &str, value: &Value) -> String {
    match value {
        Value::Integer(..) | Value::Float(_) | Value::Flag(_) | Value::Date(_) => {
            format!("write {key} = \"{}\"", value.shown())
        }
        Value::Array(items) if items.len() == 1 => {
            format!("write {key} = {}, without brackets", items[0].value.shown())
        }
        _ => String::new(),
    }
}
/// The cure where nothing better is known.
pub fn default_hint(key: &str) -> String {
    match key {
        "name" => "for example name = \"sma\"".to_owned(),
        "type" => "for example type = \"mqtt\"".to_owned(),
        _ => "correct it, or remove the line: then the default holds".to_owned(),
    }
}
