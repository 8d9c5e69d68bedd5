//! What a program reads of a mapping: an array of attempts, what fits best comes first.

use jiff::Timestamp;

use super::attempt::Attempt;
use crate::decode::mapping::{Found, Row};
use crate::decode::write::Object;
use crate::decode::{Code, Value};

pub(super) fn written(attempts: &[Attempt]) -> String {
    format!("{}\n", array(attempts.iter().map(attempt)))
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn attempt(attempt: &Attempt) -> String {
    let mut object = Object::new();
    object.text("mapping", &attempt.name);
    match &attempt.result {
        Err(reason) => object.text("reason", &reason.to_string()),
        Ok(Found { device, time, unread_time, rows, left_over, .. }) => {
            if let Some(device) = device {
                object.text("device", device);
            }
            if let Some(time) = time.and_then(|time| Timestamp::from_millisecond(time.ms).ok()) {
                object.text("measured", &time.to_string());
            }
            if let Some((path, value)) = unread_time {
                let mut unread = Object::new();
                unread.text("path", path);
                unread.text("value", value);
                object.raw("unread_time", unread.end());
            }
            object.raw("measurements", array(rows.iter().map(measurement)));
            let left_over = left_over.iter().map(|(path, value)| {
                let mut object = Object::new();
                object.text("path", path);
                object.text("value", value);
                object.end()
            });
            object.raw("left_over", array(left_over));
        }
    }
    object.end()
}

fn measurement(row: &Row) -> String {
    let mut object = Object::new();
    object.text("path", &row.path);
    match &row.measurement.code {
        Code::Obis(code) => {
            object.text("code", &code.to_string());
            if let Some(meaning) = code.meaning() {
                object.text("meaning", &meaning.to_string());
            }
        }
        Code::Other(name) => object.text("name", name),
    }
    match &row.measurement.value {
        Value::Number(number) => object.raw("value", number),
        Value::Text(text) => object.text("value", text),
    }
    if let Some(unit) = row.measurement.unit() {
        object.text("unit", unit);
    }
    if let Some(flag) = row.measurement.flag {
        object.text("flag", flag.name());
    }
    object.end()
}
