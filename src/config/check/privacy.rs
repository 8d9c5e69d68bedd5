//! `[privacy]`

use std::time::Duration;

use super::MINUTE;
use crate::config::files::{self, Around};
use crate::config::problem::Report;
use crate::config::raw::quoted;
use crate::config::section::{Given, Section, Taken};
use crate::config::settings::{Format, Privacy, Secret};
use crate::obis::Obis;

/// Codes in the list.
const CODES: usize = 256;

/// A key that can be guessed hides nothing: meter numbers are few.
const SHORTEST_KEY: usize = 16;

/// `privacy.thin`, as written.
pub const THIN: &[(&str, Duration)] = &[("1min", MINUTE), ("15min", Duration::from_secs(900))];

/// `format`: none where that is wrong.
pub fn check(root: &mut Section, format: Option<Format>, around: Around<'_>, report: &mut Report) -> Privacy {
    let Taken::Value(Given { place, value: mut section }) = root.table(report, "privacy", "privacy") else {
        return Privacy::default();
    };
    let codes = codes(&mut section, report);
    let thin = section.choice(report, "thin", THIN).given().map(|given| given.value);
    let pseudonym_key = key(&mut section, around, report);
    section.finish(report, |_| None);
    let privacy = Privacy { codes, thin, pseudonym_key };
    if privacy.is_set() && format == Some(Format::Original) {
        report.error(
            place,
            "[privacy] cannot hold with kafka.format = \"original\": the bytes go out as they came",
            "set kafka.format = \"normalized\", or remove [privacy]",
        );
    }
    privacy
}

fn codes(section: &mut Section, report: &mut Report) -> Option<Vec<Obis>> {
    let path = section.path_of("codes");
    let listed = section.texts(report, "codes", CODES).given()?;
    let mut codes = Vec::new();
    for given in listed.value {
        match given.value.parse::<Obis>() {
            Ok(code) => codes.push(code),
            Err(error) => {
                let message = format!("{path} holds {}: {error}", quoted(&given.value));
                report.error(given.place, message, "codes look like \"1-0:1.8.0\" or \"1.8.0\"");
            }
        }
    }
    Some(codes)
}

fn key(section: &mut Section, around: Around<'_>, report: &mut Report) -> Option<Secret> {
    let path = section.path_of("pseudonym_key_file");
    let given = files::secret(section, report, "pseudonym_key_file", around).given()?;
    let length = given.value.0.len();
    if length < SHORTEST_KEY {
        report.error(
            given.place,
            format!("{path}: the key has {length} bytes: must have at least {SHORTEST_KEY}"),
            "make one with: openssl rand -hex 32",
        );
    }
    Some(given.value)
}
