//! `meterferry simulate --reader`

use std::io::{self, Write};

use jiff::tz::TimeZone;

use crate::config::PRESETS;
use crate::simulate::adapter::Moment;
use crate::simulate::reader::Reader;

/// The reader of that name.
pub(super) fn named(name: &str) -> Result<Reader, String> {
    Reader::named(name).ok_or_else(|| {
        let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// What it would publish, a line each: the topic, then the payload.
pub(super) fn print(out: &mut impl Write, reader: Reader, moment: &Moment) -> io::Result<()> {
    for message in reader.messages(moment, &TimeZone::system()) {
        writeln!(out, "{} {}", message.topic, message.payload)?;
    }
    Ok(())
}
