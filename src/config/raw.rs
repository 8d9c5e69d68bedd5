//! From bytes to tables that remember their lines. A file is read to its end whatever is wrong in it: a syntax error
//! costs the value it stands in, not the rest of the file.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Report};

/// Rounds of repair; what is broken in more places is reported as far as it was understood.
const REPAIRS: usize = 100;

/// Dots in one line: the parser goes one call deeper for each part of a key.
const DOTS: usize = 128;

/// Tables within tables; nothing in the configuration is deeper than four.
const DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Item {
    pub place: Place,
    pub value: Value,
}

/// A TOML value before anything is known of what it should be.
#[derive(Debug, Clone)]
pub enum Value {
    Text(String),
    /// As written, and its value where that fits.
    Integer(String, Option<i64>),
    Float(String),
    Flag(bool),
    Date(String),
    Array(Vec<Item>),
    Table(Table),
    /// Its line has a syntax error, which is reported already.
    Broken,
}

/// A table in the file's order.
#[derive(Debug, Clone)]
pub struct Table {
    pub place: Place,
    pub entries: Vec<Entry>,
}

/// One key of a table.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    pub place: Place,
    pub item: Item,
}

impl Value {
    /// What it is, for "must be … and is …".
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(..) => "an integer",
            Self::Float(_) => "a float",
            Self::Flag(_) => "a boolean",
            Self::Date(_) => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Broken => "broken",
        }
    }

    /// As a message shows it: short, and without a password in a URL.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Integer(text, _) | Self::Float(text) | Self::Date(text) => text.clone(),
            Self::Flag(flag) => flag.to_string(),
            Self::Array(items) if items.is_empty() => "an empty list".to_owned(),
            Self::Array(items) => format!("a list of {}", items.len()),
            other => other.kind().to_owned(),
        }
    }
}

/// `text` in quotes, shortened, without a password in a URL.
pub fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown = match (text.find("://"), text.rfind('@')) {
        (Some(start), Some(end)) if start + 3 < end => format!("{}***{}", &text[..start + 3], &text[end..]),
        _ => text.to_owned(),
    };
    if shown.chars().count() > LONGEST {
        shown = shown.chars().take(LONGEST).chain("…".chars()).collect();
    }
    format!("{shown:?}")
}

/// Reads one file's text. Syntax errors go to `report`.
pub fn parse(bytes: &[u8], file: usize, report: &mut Report) -> Table {
    let mut lines = lines(bytes, file, report);
    let mut broken = BTreeSet::new();
    let mut rounds = 0;
    loop {
        let text = lines.join("\n");
        let (table, errors) = DeTable::parse_recoverable(&text);
        let index = LineIndex::new(&text);
        let found: Vec<_> = errors
            .iter()
            .map(|error| (index.line(error.span().map_or(0, |span| span.start)), error.message()))
            .collect();
        let repair = found.iter().find_map(|(line, message)| Some((*line, *message, repair(&lines, *line, message)?)));
        match repair {
            Some((line, message, repair)) if rounds < REPAIRS => {
                match repair.instead {
                    None => syntax_error(file, line, message, &lines, &mut broken, report),
                    Some((message, hint)) => report.error(Place { file, line: repair.line + 1 }, message, hint),
                }
                lines[repair.line] = repair.text;
                rounds += 1;
            }
            _ => {
                for (line, message) in found {
                    syntax_error(file, line, message, &lines, &mut broken, report);
                }
                let converter = Converter { index: &index, file, broken: &broken };
                return converter.table(table.get_ref(), Place { file, line: 0 }, 0);
            }
        }
    }
}

/// The file's lines; bytes that are no UTF-8 are reported and replaced.
fn lines(bytes: &[u8], file: usize, report: &mut Report) -> Vec<String> {
    if let Err(error) = std::str::from_utf8(bytes) {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        report.error(
            Place { file, line },
            format!("byte 0x{:02x} is not UTF-8", bytes[error.valid_up_to()]),
            "save the file as UTF-8",
        );
    }
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<_> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
    for (index, line) in lines.iter_mut().enumerate() {
        if !line.trim_start().starts_with('#') && line.matches('.').count() > DOTS {
            line.clear();
            report.error(
                Place { file, line: index + 1 },
                format!("more than {DOTS} dots in one line"),
                "split the line",
            );
        }
    }
    lines
}

/// Whether a name or line speaks of a secret.
pub fn is_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["pass", "secret", "token"].iter().any(|word| text.contains(word))
}

fn syntax_error(
    file: usize,
    line: usize,
    message: &str,
    lines: &[String],
    broken: &mut BTreeSet<usize>,
    report: &mut Report,
) {
    if !broken.insert(line) {
        return;
    }
    let text = lines.get(line - 1).map_or("", |text| text.trim());
    let (key, value) = text.split_once('=').map_or(("", ""), |(key, value)| (key.trim(), value.trim()));
    // What is shown of the line must be plain, and no part of a secret.
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || " ._-:/".contains(c));
    let shown = plain(key) && !is_secret(text);
    let message = message.trim_end_matches(", expected literal string");
    let hint = match message {
        "string values must be quoted" if shown && value.is_empty() => {
            format!("give {key} a value, or put a # before it for its default")
        }
        "string values must be quoted" if shown && yes_or_no(value).is_some() => {
            format!("write {key} = {}", yes_or_no(value).unwrap_or_default())
        }
        "string values must be quoted" if shown && plain(value) => format!("write {key} = \"{value}\""),
        message if message.starts_with("duplicate key") && plain(text.trim_matches(['[', ']'])) => {
            format!("put the keys of both {text} under one of them")
        }
        message if message.starts_with("duplicate key") && shown => {
            format!("keep one of the lines that set {key}")
        }
        message if message.starts_with("duplicate key") => "keep one of them".to_owned(),
        message if message.starts_with("unclosed table") => {
            "a table's name stands alone in its line: [NAME], or [[source]] for each source".to_owned()
        }
        message if message.starts_with("key with no value") => "write KEY = VALUE, or put a # before it".to_owned(),
        _ => "write KEY = VALUE, texts in quotes, lists in [ ]".to_owned(),
    };
    report.error(Place { file, line }, format!("not TOML: {message}"), hint);
}

/// Other languages' booleans.
fn yes_or_no(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => Some(true),
        "no" | "off" | "false" => Some(false),
        _ => None,
    }
}

/// How to read on behind an error at which the parser would lose the rest of the file.
struct Repair {
    /// Counted from 0.
    line: usize,
    text: String,
    /// What to say of that line, and a hint, where the parser's words and place mislead.
    instead: Option<(String, String)>,
}

fn repair(lines: &[String], line: usize, message: &str) -> Option<Repair> {
    let text = lines.get(line - 1)?;
    let trimmed = text.trim();
    if message.starts_with("key with no value") {
        return Some(Repair { line: line - 1, text: String::new(), instead: None });
    }
    if message.starts_with("unclosed table") {
        let brackets = if trimmed.starts_with("[[") { "]]" } else { "]" };
        let head = trimmed.split('#').next().unwrap_or_default();
        let closed = format!("{}{brackets}", head.trim().trim_end_matches(']'));
        return (closed != *text).then_some(Repair { line: line - 1, text: closed, instead: None });
    }
    if message.starts_with("duplicate key") {
        return single_among_many(lines, line);
    }
    // An array that runs into the next key or table was meant to end before it.
    if message.contains("array") && starts_something(trimmed) {
        let before = lines[..line - 1].iter().rposition(|text| !text.trim().is_empty())?;
        let text = lines[before].trim_end();
        let instead = ("not TOML: unclosed array, expected `]`".to_owned(), format!("close it before line {line}"));
        let closed = Repair { line: before, text: format!("{text}]"), instead: Some(instead) };
        return (!text.contains('#') && text.len() < 10_000).then_some(closed);
    }
    None
}

/// A `[source]` among `[[source]]`, before this line or at it, was meant to be one of them.
fn single_among_many(lines: &[String], line: usize) -> Option<Repair> {
    const SINGLE: &str = "[source]";
    const MANY: &str = "[[source]]";
    let is = |text: &String, wanted: &str| text.split('#').next().unwrap_or_default().trim() == wanted;
    let found = lines.get(line - 1)?;
    let line = if is(found, MANY) {
        lines[..line - 1].iter().rposition(|text| is(text, SINGLE))?
    } else if is(found, SINGLE) && lines.iter().any(|text| is(text, MANY)) {
        line - 1
    } else {
        return None;
    };
    let instead = ("source is a table: must be an array of tables".to_owned(), format!("write {MANY}"));
    Some(Repair { line, text: MANY.to_owned(), instead: Some(instead) })
}

/// Whether a line begins a key with its value, or a table.
fn starts_something(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or_default().trim();
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let header = line.starts_with('[') && line.ends_with(']') && !line.contains(['"', '\'', ',']);
    header || (line.contains('=') && !key.is_empty() && key.chars().all(bare))
}

/// Lines by offset.
struct LineIndex(Vec<usize>);

impl LineIndex {
    fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(offset, _)| offset).collect())
    }

    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

struct Converter<'c> {
    index: &'c LineIndex,
    file: usize,
    broken: &'c BTreeSet<usize>,
}

impl Converter<'_> {
    fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place { file: self.file, line: self.index.line(span.start) }
    }

    fn table(&self, table: &DeTable<'_>, place: Place, depth: usize) -> Table {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table.iter() {
            let place = self.place(key.span());
            entries.push(Entry { key: key.get_ref().to_string(), place, item: self.item(value, place, depth + 1) });
        }
        Table { place, entries }
    }

    /// `key`: where the key stands, for values that the parser made up.
    fn item(&self, value: &Spanned<DeValue<'_>>, key: Place, depth: usize) -> Item {
        let span = value.span();
        let place = if span.is_empty() { key } else { self.place(span) };
        let broken = self.broken.contains(&place.line) || self.broken.contains(&key.line);
        let value = match value.get_ref() {
            _ if depth > DEPTH => Value::Broken,
            DeValue::Table(table) => Value::Table(self.table(table, place, depth)),
            DeValue::Array(array) => Value::Array(array.iter().map(|item| self.item(item, place, depth + 1)).collect()),
            _ if broken => Value::Broken,
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) if !matches!(number.radix(), 2 | 8 | 10 | 16) => Value::Broken,
            DeValue::Integer(number) => {
                let value = i64::from_str_radix(number.as_str(), number.radix()).ok();
                Value::Integer(number.to_string(), value)
            }
            DeValue::Float(number) => Value::Float(number.to_string()),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
        };
        Item { place, value }
    }
}

impl Table {
    /// Lays `later` over this table, key by key: the later value wins, tables are merged, arrays of tables (`[[source]]`)
    /// are joined.
    pub fn overlay(&mut self, later: Table) {
        for entry in later.entries {
            let Some(own) = self.entries.iter_mut().find(|own| own.key == entry.key) else {
                self.entries.push(entry);
                continue;
            };
            match (&mut own.item.value, entry.item.value) {
                (Value::Table(own), Value::Table(later)) => own.overlay(later),
                (Value::Array(own), Value::Array(later)) if tables(own) && tables(&later) => own.extend(later),
                (_, value) => {
                    own.item = Item { place: entry.item.place, value };
                    own.place = entry.place;
                }
            }
        }
    }
}

fn tables(items: &[Item]) -> bool {
    !items.is_empty() && items.iter().all(|item| matches!(item.value, Value::Table(_)))
}
