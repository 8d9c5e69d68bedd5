//! `source.payload`, `mapping_file` and `timezone`: what decodes a source's messages.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::config::files::{self, Around};
use crate::config::mapping;
use crate::config::presets::{PRESETS, Preset};
use crate::config::problem::{Place, Report};
use crate::config::raw::{self, Value, quoted};
use crate::config::section::{Given, Section, Taken, either, nearest_word};
use crate::config::settings::Payload;
use crate::decode::mapping::Mapping;

/// What the three keys say.
pub struct Decoding {
    pub payload: Payload,
    pub mapping_file: Option<PathBuf>,
    pub timezone: Option<String>,
}

/// `keys` are those of the source's type: not every one has a mapping.
pub fn check(section: &mut Section, keys: &[&str], around: Around<'_>, report: &mut Report) -> Decoding {
    let word = payload(section, report);
    let mapped = keys.contains(&"mapping_file");
    let (timezone, zone, zone_at) = if mapped { zone_of(section, report) } else { (None, TimeZone::UTC, None) };
    let file = if mapped { files::named(section, report, "mapping_file", around) } else { Taken::Absent };
    if let (Taken::Value(file), false) = (&file, word.is_absent()) {
        report.error(
            file.place,
            "source.mapping_file and source.payload are both set: each says how messages are decoded",
            "keep one of them",
        );
    }
    let wrong = matches!(file, Taken::Wrong) || matches!(word, Taken::Wrong);
    let (payload, mapping_file) = match file {
        Taken::Value(Given { value: (path, content), .. }) => {
            let number = report.file(&path);
            let root = raw::parse(&content, number, report);
            let table = mapping::check(root, Place { file: number, line: 0 }, report);
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            (Payload::Mapped(Arc::new(Mapping { name: name.into(), table: Arc::new(table), zone })), Some(path))
        }
        Taken::Absent | Taken::Wrong => match word.or(Word::Sma) {
            Word::Sma => (Payload::Sma, None),
            Word::Any => (Payload::Any, None),
            Word::Preset(preset) => (Payload::Mapped(Arc::new(preset.mapping(zone))), None),
        },
    };
    if let (Some(place), false, Payload::Sma | Payload::Any) = (zone_at, wrong, &payload) {
        let message = format!("source.timezone is set, and payload = \"{}\" has no local times", payload.name());
        report.error(place, message, "remove it; what needs it is the payload of another reader, or a mapping_file");
    }
    Decoding { payload, mapping_file, timezone }
}

#[derive(Clone, Copy)]
enum Word {
    Sma,
    Any,
    Preset(Preset),
}

fn payload(section: &mut Section, report: &mut Report) -> Taken<Word> {
    section.read(report, "payload", |value| {
        let words = || ["sma", "any"].into_iter().chain(PRESETS.iter().map(|preset| preset.name));
        let must = format!("must be {}", either(words()));
        match value {
            Value::Text(text) => match text.as_str() {
                "sma" => Ok(Word::Sma),
                "any" => Ok(Word::Any),
                other => Preset::named(other).map(Word::Preset).ok_or_else(|| (must, hint(other, words()))),
            },
            _ => Err((must, String::new())),
        }
    })
}

fn hint<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> String {
    match nearest_word(text, words) {
        near if near.is_empty() => "meterferry map FILE tells which fits a message saved to FILE".to_owned(),
        near => near,
    }
}

/// The zone of local times: as it is written, the zone itself, and where it stands.
fn zone_of(section: &mut Section, report: &mut Report) -> (Option<String>, TimeZone, Option<Place>) {
    let taken = section.read(report, "timezone", |value| {
        let must = "must be a time zone of this system".to_owned();
        let Value::Text(text) = value else { return Err((must, EXAMPLE.to_owned())) };
        zone(text).map(|zone| (text.clone(), zone)).map_err(|hint| (must, hint))
    });
    match taken {
        Taken::Value(Given { place, value: (text, zone) }) => (Some(text), zone, Some(place)),
        Taken::Absent | Taken::Wrong => (None, TimeZone::system(), None),
    }
}

const EXAMPLE: &str = "for example timezone = \"Europe/Vienna\"";

/// A zone by its name; else which may have been meant.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    if let Ok(zone) = TimeZone::get(name) {
        return Ok(zone);
    }
    let names: Vec<_> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    if names.is_empty() {
        return Err("this system knows no time zones: install the package tzdata".to_owned());
    }
    // Most remember the city.
    let city = |name: &str| name.rsplit('/').next().unwrap_or_default().to_lowercase();
    let found =
        names.iter().find(|known| city(known) == city(name)).map(|known| format!("did you mean {}?", quoted(known)));
    Err(match found.unwrap_or_else(|| nearest_word(name, names.iter().map(String::as_str))) {
        hint if hint.is_empty() => format!("{EXAMPLE}; timedatectl list-timezones lists all"),
        hint => hint,
    })
}
