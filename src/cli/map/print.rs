//! What a person sees of a mapping.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::attempt::Attempt;
use crate::cli::terminal::{DIM, HEADER, WARNING, printable};
use crate::config::PRESETS;
use crate::decode::Code;
use crate::decode::mapping::{Found, Row};

/// Mappings that are named as also possible.
const OTHERS: usize = 3;

/// Characters of the widest line, where the output is no terminal.
const WIDE: usize = 120;

/// Characters of a value that nothing is cut from: a meter's number.
const VALUE: usize = 20;

/// Values left over that are shown.
const LEFT_OVER: usize = 40;

/// All payloads, one a line.
pub(super) fn list() -> String {
    let mut text = format!("{HEADER}{:<18}{HEADER:#}  {HEADER}reader{HEADER:#}\n", "payload");
    let _ = writeln!(text, "{:<18}  Austrian smart meter adapter (the default)", super::SMA);
    for preset in PRESETS {
        let about = preset.table().map(|table| table.about).unwrap_or_default();
        let _ = writeln!(text, "{:<18}  {about}", preset.name);
    }
    let _ = writeln!(text, "{:<18}  any bytes are a reading, and nothing is known of them", "any");
    text
}

/// The first of `attempts` in full, and which others fit.
pub(super) fn shown(attempts: &[Attempt], topic: &str, columns: Option<usize>) -> String {
    let Some(best) = attempts.first() else { return String::new() };
    let columns = columns.unwrap_or(WIDE).max(60);
    let mut text = String::new();
    match &best.result {
        Ok(found) => {
            found_by(&mut text, best, found, columns);
            suggestion(&mut text, attempts, columns);
        }
        Err(_) if attempts.len() > 1 => unknown(&mut text, attempts, topic, columns),
        Err(reason) => {
            let _ = writeln!(text, "{WARNING}{}: no reading{WARNING:#}: {reason}", best.name);
            if topic.is_empty() && best.by_topics() {
                let _ = writeln!(text, "  hint: it has a topic a value: name the message's with --topic");
            }
        }
    }
    text
}

fn unknown(text: &mut String, attempts: &[Attempt], topic: &str, columns: usize) {
    let _ = writeln!(text, "{WARNING}no payload fits{WARNING:#}");
    for attempt in attempts {
        if let Err(reason) = &attempt.result {
            let reason = printable(&reason.to_string(), columns - 20);
            let _ = writeln!(text, "  {:<18}{DIM}{reason}{DIM:#}", attempt.name);
        }
    }
    let hint = match topic {
        "" => "some readers are known by their topics: name the message's with --topic",
        _ => "copy the table that is nearest: meterferry map --show PRESET > mine.toml",
    };
    let _ = writeln!(text, "  hint: {hint}");
}

fn found_by(text: &mut String, attempt: &Attempt, found: &Found, columns: usize) {
    let _ = writeln!(
        text,
        "{HEADER}{}{HEADER:#}  {}",
        attempt.name,
        printable(&attempt.about, columns - attempt.name.len().min(columns / 2) - 2)
    );
    let device = found.device.as_deref().map_or("the source's name".to_owned(), |name| printable(name, columns - 10));
    let _ = writeln!(text, "device    {device}");
    let shown = |ms| Timestamp::from_millisecond(ms).map_or_else(|_| "?".to_owned(), |time| time.to_string());
    let time = match found.time {
        None => match &found.unread_time {
            None => "the time of receipt".to_owned(),
            Some((place, text)) => printable(
                &format!("the time of receipt; {place} = {text} is no time in the formats of the mapping"),
                columns - 10,
            )
            .to_string(),
        },
        Some(time) => match time.again_ms {
            None => shown(time.ms),
            Some(again) => format!("{} or {}: the clocks were put back", shown(time.ms), shown(again)),
        },
    };
    let _ = writeln!(text, "measured  {time}");
    if found.ignored {
        let _ = writeln!(text, "\na message that holds no measurement, and is no mistake");
        return;
    }
    text.push('\n');
    table(text, &found.rows, columns);
    if !found.left_over.is_empty() {
        let _ = writeln!(text, "\n{WARNING}left over{WARNING:#}");
        for (path, value) in found.left_over.iter().take(LEFT_OVER) {
            let line = printable(&format!("{path} = {value}"), columns - 2);
            let _ = writeln!(text, "  {line}");
        }
        let more = found.left_over.len().saturating_sub(LEFT_OVER);
        if more > 0 {
            let _ = writeln!(text, "  and {more} more");
        }
    }
}

fn table(text: &mut String, rows: &[Row], columns: usize) {
    let cells: Vec<_> = rows.iter().map(cells).collect();
    let width = |column: usize| cells.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let [path, code, _, value, unit] = [0, 1, 2, 3, 4].map(width);
    let (code, value, unit) = (code.clamp(4, 20), value.clamp(5, VALUE.max(columns / 5)), unit.max(4));
    let rest = columns.saturating_sub(code + value + unit + 8);
    let path = path.clamp(4, (rest / 2).max(4));
    let meaning = rest.saturating_sub(path).max(7);
    let meaning = meaning.min(width(2).max(7));
    let _ = writeln!(
        text,
        "{HEADER}{:<path$}  {:<code$}  {:<meaning$}  {:>value$}  {:<unit$}{HEADER:#}",
        "path", "code", "meaning", "value", "unit"
    );
    for (row, [a, b, c, d, e]) in rows.iter().zip(&cells) {
        let [a, b, c, d] = [(a, path), (b, code), (c, meaning), (d, value)].map(|(cell, width)| printable(cell, width));
        let line = format!("{a:<path$}  {b:<code$}  {c:<meaning$}  {d:>value$}  {e}");
        let _ = writeln!(text, "{}", line.trim_end());
        if let Some(flag) = row.measurement.flag {
            let _ = writeln!(text, "  {WARNING}{flag}{WARNING:#}: kept, and marked so");
        }
    }
}

/// Path, code, meaning, value and unit.
fn cells(row: &Row) -> [String; 5] {
    let (code, meaning) = match &row.measurement.code {
        Code::Obis(code) => {
            let meaning = code.meaning().map_or_else(|| "unknown".to_owned(), |meaning| meaning.to_string());
            (code.to_string(), meaning)
        }
        Code::Other(name) => ("-".to_owned(), name.clone()),
    };
    let path = if row.path.is_empty() { "-".to_owned() } else { row.path.clone() };
    [path, code, meaning, row.measurement.value.to_string(), row.measurement.unit().unwrap_or_default().to_owned()]
}

fn suggestion(text: &mut String, attempts: &[Attempt], columns: usize) {
    let Some(best) = attempts.first() else { return };
    let key = if best.own { "mapping_file" } else { "payload" };
    let _ = writeln!(text, "\nin the configuration: {key} = \"{}\"", best.name);
    let others: Vec<_> = attempts[1..].iter().filter(|attempt| attempt.fits()).take(OTHERS).collect();
    if !others.is_empty() {
        let names: Vec<_> = others.iter().map(|attempt| attempt.name.as_str()).collect();
        let _ = writeln!(text, "{DIM}{}{DIM:#}", printable(&format!("fits less: {}", names.join(", ")), columns));
    }
}
