//! `[[source]]` with `type = "rest"`

use std::time::Duration;

use super::{DAY, HOUR, KIB, MIB, MINUTE, SECOND};
use crate::config::files::{self, Around};
use crate::config::names;
use crate::config::problem::{Place, Report};
use crate::config::raw::quoted;
use crate::config::schema;
use crate::config::section::{Given, Section, Taken};
use crate::config::settings::{Payload, Rest, Secret, Trust};

/// What a source without an address is taken to be, so that the rest of it can be checked.
const NOWHERE: &str = "http://adapter.lan";

pub fn check(section: &mut Section, payload: &Payload, around: Around<'_>, report: &mut Report) -> Rest {
    let place = section.place();
    let given = section.text(report, "url");
    if given.is_absent() {
        let hint = "url = \"https://192.168.1.50\", the adapter's address as its web page shows it";
        report.error(place, "source.url is missing: a source of type = \"rest\" needs it", hint);
    }
    let url = url(given, report);
    let token = token(section, around, report);
    let path = path(section, "path", report);
    if *payload != Payload::Sma && path.is_none() && !section.has("path") {
        report.error(
            place,
            "source.path is missing: only the adapter's own payload (\"sma\") stands where its firmwares have it",
            "path = \"/PATH\", where the device has its document",
        );
    }
    let status_path = self::path(section, "status_path", report);
    let trust = trust(section, &url, around, report);
    let seconds = |seconds| Duration::from_secs(seconds);
    Rest {
        host: url.host,
        port: url.port,
        trust,
        token,
        path,
        status_path,
        interval: section.duration(report, "interval", SECOND..=DAY, 5 * SECOND).or(5 * SECOND),
        status_interval: Some(
            section.duration(report, "status_interval", Duration::ZERO..=DAY, 10 * MINUTE).or(10 * MINUTE),
        )
        .filter(|interval| !interval.is_zero()),
        timeout: section.duration(report, "timeout", SECOND..=5 * MINUTE, seconds(10)).or(seconds(10)),
        max_body_size: usize::try_from(section.size(report, "max_body_size", KIB..=16 * MIB, 64 * KIB).or(64 * KIB))
            .unwrap_or(usize::MAX),
        retry_max_delay: section.duration(report, "retry_max_delay", SECOND..=HOUR, MINUTE).or(MINUTE),
        store_unchanged: section.flag(report, "store_unchanged").or(false),
    }
}

/// `http[s]://host[:port]`
struct Url {
    is_secure: bool,
    host: String,
    port: u16,
    place: Option<Place>,
}

fn url(taken: Taken<String>, report: &mut Report) -> Url {
    let (place, text) = match taken {
        Taken::Value(Given { place, value }) => (Some(place), value),
        Taken::Absent | Taken::Wrong => (None, NOWHERE.to_owned()),
    };
    let (is_secure, host, port) = match split(&text) {
        Ok(parts) => parts,
        Err((what, hint)) => {
            if let Some(place) = place {
                report.error(place, format!("source.url is {}: {what}", quoted(&text)), hint);
            }
            (false, "adapter.lan".to_owned(), 80)
        }
    };
    Url { is_secure, host, port, place }
}

/// The parts of an address, or what is wrong with it and a hint.
fn split(text: &str) -> Result<(bool, String, u16), (String, String)> {
    let must =
        |hint: String| ("must be http://HOST or https://HOST, and :PORT where it is not the usual".to_owned(), hint);
    let example = || "for example url = \"https://192.168.1.50\"".to_owned();
    let (is_secure, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some(_) => return Err(must(example())),
        None if names::host(text).is_ok() || names::host_and_port(text).is_ok() => {
            return Err(must(format!("write url = {}", quoted(&format!("https://{text}")))));
        }
        None => return Err(must(example())),
    };
    if rest.contains('@') {
        let hint = "put the key into a file, and name it in source.token_file".to_owned();
        return Err(("must hold no user and no password".to_owned(), hint));
    }
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !path.is_empty() {
        let scheme = if is_secure { "https" } else { "http" };
        let hint = format!(
            "write url = {} and path = {}",
            quoted(&format!("{scheme}://{address}")),
            quoted(&format!("/{path}"))
        );
        return Err(("must hold no path".to_owned(), hint));
    }
    let usual = if is_secure { 443 } else { 80 };
    if let Ok(host) = names::host(address) {
        return Ok((is_secure, host, usual));
    }
    names::host_and_port(address).map(|(host, port)| (is_secure, host, port)).map_err(|_| must(example()))
}

/// A key that can stand in a header.
fn token(section: &mut Section, around: Around<'_>, report: &mut Report) -> Option<Secret> {
    let Given { place, value } = files::secret(section, report, "token_file", around).given()?;
    if value.0.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Some(value);
    }
    let hint = "copy the key as the device's web page shows it: letters and digits";
    report.error(place, "source.token_file: the key holds a character that cannot stand in a header", hint);
    None
}

fn path(section: &mut Section, key: &str, report: &mut Report) -> Option<String> {
    const LONGEST: usize = 1024;
    let label = section.path_of(key);
    super::legal(&label, section.text(report, key), report, |path| {
        let legal = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
        let fits = path.starts_with('/') && path.len() <= LONGEST && path.bytes().all(legal);
        if fits { Ok(()) } else { Err(format!("must begin with / and be at most {LONGEST} characters of an address")) }
    })
}

/// `[source.tls]`
fn trust(section: &mut Section, url: &Url, around: Around<'_>, report: &mut Report) -> Option<Trust> {
    let table = section.table(report, "tls", "source.tls").given();
    let Some(Given { place, value: table }) = table else {
        return url.is_secure.then_some(Trust::Authorities(None));
    };
    let mut table = table.with_keys(schema::REST_TLS);
    let ca_file = files::authorities(&mut table, report, around);
    let fingerprint = fingerprint(&mut table, report);
    let first_use = table.flag(report, "trust_on_first_use");
    table.finish(report, |key| {
        schema::MQTT_TLS.contains(&key).then(|| {
            let what = "belongs to type = \"mqtt\": a device asks for no client certificate";
            (what.to_owned(), "remove it".to_owned())
        })
    });
    if !url.is_secure {
        if url.place.is_some() {
            let hint = "write https:// in source.url, or remove the table";
            report.error(
                place,
                "[source.tls] is set and source.url begins with http://: nothing would be secured",
                hint,
            );
        }
        return None;
    }
    if let (Taken::Value(Given { place, value: true }), false) = (&first_use, fingerprint.is_absent()) {
        let message = "source.tls.trust_on_first_use is true and source.tls.fingerprint is set: one of them decides";
        report.error(*place, message, "keep the fingerprint");
    }
    match (fingerprint, first_use.or(false), ca_file) {
        (Taken::Value(fingerprint), _, ca_file) => {
            unused(ca_file, "source.tls.fingerprint says which certificate is the right one", report);
            Some(Trust::Fingerprint(fingerprint.value))
        }
        (_, true, ca_file) => {
            unused(ca_file, "the certificate that is shown first is the right one", report);
            Some(Trust::FirstUse)
        }
        (_, false, ca_file) => Some(Trust::Authorities(ca_file.given().map(|given| given.value))),
    }
}

fn unused<T>(ca_file: Taken<T>, why: &str, report: &mut Report) {
    if let Taken::Value(given) = ca_file {
        report.warning(given.place, format!("source.tls.ca_file is not looked at: {why}"), "remove one of them");
    }
}

fn fingerprint(table: &mut Section, report: &mut Report) -> Taken<[u8; 32]> {
    let Given { place, value } = match table.text(report, "fingerprint") {
        Taken::Value(given) => given,
        Taken::Absent => return Taken::Absent,
        Taken::Wrong => return Taken::Wrong,
    };
    match names::fingerprint(&value) {
        Ok(value) => Taken::Value(Given { place, value }),
        Err(what) => {
            let message = format!("source.tls.fingerprint is {}: {what}", quoted(&value));
            report.error(place, message, "meterferry doctor shows the one of the device's certificate");
            Taken::Wrong
        }
    }
}
