//! A source of type `rest`: is the device there, is its certificate the right one, does it take the key, which way does it
//! understand, and can its measurement be read.

use std::path::Path;

use super::certificate::{self, Fault};
use super::check::Check;
use super::clock;
use super::reach;
use crate::cli::terminal::printable;
use crate::cli::units::chain;
use crate::config::settings::{Payload, Rest, Source, Tls, Trust};
use crate::config::{show_address, show_fingerprint};
use crate::decode::decode;
use crate::source::rest_answer::Wanted;
use crate::source::rest_probe::{self, Found};
use crate::source::rest_trouble::{CertificateHash, Trouble};

/// What is looked at behind the certificate.
const BEHIND: [&str; 2] = ["key", "measurement"];

/// Asks the device of a source once. `folder` is the queue's.
pub async fn look(source: &Source, rest: &Rest, folder: &Path, now_s: i64) -> Vec<Check> {
    let address = show_address(&rest.host, rest.port);
    let skip = |why: &'static str| BEHIND.into_iter().map(move |name| Check::skipped(name, why));
    let stream = match reach::connect(&rest.host, rest.port).await {
        Ok(stream) => stream,
        Err(unreached) => {
            let message = format!("{address}: {}", unreached.words());
            let mut checks = vec![Check::wrong("device", message, unreached.cure("the device"))];
            checks.extend(skip("the device is not reached"));
            return checks;
        }
    };
    let mut checks = vec![Check::ok("device", format!("{address} is reached"))];
    let mut known = None;
    match &rest.trust {
        None => drop(stream),
        Some(trust) => {
            let remembered = rest_probe::trusted(rest, folder, &source.name).await;
            let shown = rest_probe::shown(rest, stream).await;
            known = shown.as_ref().ok().copied();
            let judged = match (trust, known) {
                (Trust::Authorities(ca_file), Some(_)) => Some(authorities(rest, ca_file.as_deref(), now_s).await),
                _ => None,
            };
            let check = judge(&address, trust, &shown, remembered, judged);
            let is_wrong = check.verdict == super::check::Verdict::Wrong;
            checks.push(check);
            if is_wrong {
                checks.extend(skip("the certificate is not the right one"));
                return checks;
            }
        }
    }
    match rest_probe::visit(rest, Wanted::of(&source.payload), known).await {
        Err(error) => {
            checks.push(Check::wrong("TLS", chain(&error), "correct the files of [source.tls]"));
            checks.extend(skip("TLS failed"));
        }
        Ok(found) => checks.extend(verdicts(source, rest, &found, now_s)),
    }
    checks
}

/// What its authority makes of the certificate; none where all is well.
async fn authorities(rest: &Rest, ca_file: Option<&Path>, now_s: i64) -> Judged {
    let tls = Tls { ca_file: ca_file.map(Path::to_owned), verify_hostname: true, ..Tls::default() };
    let address = show_address(&rest.host, rest.port);
    let stream = match reach::connect(&rest.host, rest.port).await {
        Ok(stream) => stream,
        Err(unreached) => {
            return Judged { check: Check::wrong("TLS", unreached.words(), "try again"), by_itself: false };
        }
    };
    match certificate::look(stream, &rest.host, &tls, now_s).await {
        Ok(judgement) => Judged {
            by_itself: judgement.fault == Some(Fault::Authority),
            check: certificate::verdict(&address, &rest.host, "source.tls", &judgement, now_s),
        },
        Err(error) => Judged { check: certificate::no_handshake(&address, "source.tls", &error), by_itself: false },
    }
}

/// A certificate that authorities were asked about.
struct Judged {
    check: Check,
    /// No authority that is trusted has signed it: most likely the device itself has.
    by_itself: bool,
}

fn judge(
    address: &str,
    trust: &Trust,
    shown: &Result<CertificateHash, Trouble>,
    remembered: Option<CertificateHash>,
    judged: Option<Judged>,
) -> Check {
    let name = format!("TLS {address}");
    let shown = match shown {
        Ok(shown) => shown,
        Err(trouble) => return Check::wrong(name, trouble.what(), trouble.cure()),
    };
    let text = show_fingerprint(shown);
    let other = |whose: &str, expected: &CertificateHash| {
        let message = format!("the certificate is {text}, not the one {whose}, {}", show_fingerprint(expected));
        let hint = format!(
            "if you know why (a new device, a reset): fingerprint = \"{text}\" in [source.tls]; if not, somebody is in between"
        );
        Check::wrong(name.clone(), message, hint)
    };
    match (trust, remembered, judged) {
        (Trust::Fingerprint(expected), ..) if expected != shown => other("that source.tls.fingerprint says", expected),
        (Trust::Fingerprint(_), ..) => Check::ok(name, format!("the certificate is {text}, as configured")),
        (Trust::FirstUse, Some(expected), _) if expected != *shown => other("of the first use", &expected),
        (Trust::FirstUse, Some(_), _) => Check::ok(name, format!("the certificate is {text}, as at first use")),
        (Trust::FirstUse, None, _) => {
            Check::ok(name, format!("the certificate is {text}; the agent will trust it from its first use on"))
        }
        (Trust::Authorities(_), _, Some(judged)) if judged.by_itself => {
            let message = format!("no authority that is trusted here has signed the certificate {text}");
            let hint = format!(
                "most devices sign their own: compare it with the device's web page, and write fingerprint = \"{text}\" in \
                 [source.tls]"
            );
            Check::wrong(name, message, hint)
        }
        (Trust::Authorities(_), _, Some(judged)) => {
            let mut check = judged.check;
            check.message = format!("{}; its fingerprint is {text}", check.message);
            check
        }
        (Trust::Authorities(_), _, None) => Check::ok(name, format!("the certificate is {text}")),
    }
}

fn verdicts(source: &Source, rest: &Rest, found: &Result<Found, Trouble>, now_s: i64) -> Vec<Check> {
    let found = match found {
        Ok(found) => found,
        Err(trouble @ Trouble::Key { .. }) => {
            return vec![
                Check::wrong("key", trouble.what(), trouble.cure()),
                Check::skipped("measurement", "the device does not let us in"),
            ];
        }
        Err(trouble) => {
            return vec![
                Check::skipped("key", "there is no answer that tells"),
                Check::wrong("measurement", trouble.what(), trouble.cure()),
            ];
        }
    };
    let key = match rest.token {
        Some(_) => "the device answers with the key",
        None => "the device answers without a key",
    };
    let mut checks = vec![Check::ok("key", key), measurement(source, found, now_s)];
    match &found.status {
        None => {}
        Some(Ok(_)) => checks.push(Check::ok("status", "a JSON object")),
        Some(Err(trouble)) => {
            let hint = "measurements go on without it; status_interval = \"0s\" does not ask for it";
            checks.push(Check::warning("status", trouble.what(), hint));
        }
    }
    checks
}

fn measurement(source: &Source, found: &Found, now_s: i64) -> Check {
    const NAME: &str = "measurement";
    match decode(&source.payload, &source.name, NAME, &found.measurement) {
        Ok(decoded) => {
            let device = printable(&decoded.device, 40);
            let count = decoded.measurements.len();
            let values = if count == 0 { String::new() } else { format!(", {count} values") };
            let message = format!("of {device}{values}, from {}", found.way);
            match clock::of_device(&decoded, now_s) {
                Some((what, hint)) => Check::warning(NAME, format!("{message}; {what}"), hint),
                None => Check::ok(NAME, message),
            }
        }
        Err(reason) => {
            let hint = match source.payload {
                Payload::Sma => "is source.path the measurement's?",
                _ => "does source.payload say what the device sends?",
            };
            Check::wrong(NAME, format!("{} gives no reading: {reason}", found.way), hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;
    use crate::config::settings::Interface;
    use crate::config::{Environment, load};

    fn source() -> (Source, Rest) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("meterferry.toml");
        std::fs::write(folder.path().join("token"), "abcdefghijklmnopqrstuvwxyz012345\n").expect("write");
        let text =
            "[[source]]\nname = \"meter\"\ntype = \"rest\"\nurl = \"https://meter.lan\"\ntoken_file = \"token\"\n";
        std::fs::write(&file, text).expect("write");
        let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", folder.path())]);
        let settings = load(Some(&file), &environment).unwrap_or_else(|problems| panic!("{problems}")).settings;
        let source = settings.sources.into_iter().next().expect("a source");
        let Interface::Rest(rest) = source.interface.clone() else { panic!("a device") };
        (source, rest)
    }

    /// Promise 9: the fingerprint is shown whatever is trusted, and each way not to trust it has its cure.
    #[test]
    fn certificates() {
        let (right, other) = ([0xab; 32], [1; 32]);
        let of = |trust: Trust, remembered, judged| judge("meter.lan:443", &trust, &Ok(right), remembered, judged);
        let judged =
            |by_itself| Some(Judged { by_itself, check: Check::ok("TLS meter.lan:443", "the certificate is valid") });
        let checks = vec![
            of(Trust::Fingerprint(right), None, None),
            of(Trust::Fingerprint(other), None, None),
            of(Trust::FirstUse, None, None),
            of(Trust::FirstUse, Some(right), None),
            of(Trust::FirstUse, Some(other), None),
            of(Trust::Authorities(None), None, judged(true)),
            of(Trust::Authorities(None), None, judged(false)),
            judge("meter.lan:443", &Trust::FirstUse, &Err(Trouble::NotTls), None, None),
        ];
        insta::assert_snapshot!(shown(checks));
    }

    /// Promise 9: each stage on the way to a reading has its own words, and what lies behind a failed one is not tried.
    #[test]
    fn on_the_way_to_a_reading() {
        let (source, rest) = source();
        let way = "/api/v1/measurement with Authorization: TOKEN".to_owned();
        let document: &[u8] = br#"{"name":"90296857","1-0:1.8.0":{"value":83403,"time":1697623015}}"#;
        let found = |measurement: &'static [u8], status| {
            Ok(Found { way: way.clone(), measurement: measurement.into(), status })
        };
        let cases = [
            found(document, Some(Ok("{}".into()))),
            found(document, Some(Err(Trouble::Paths))),
            found(br#"{"a":{"value":1},"a":{"value":2}}"#, None),
            Err(Trouble::Key { status: 401, has_key: true }),
            Err(Trouble::Html),
        ];
        let said: Vec<_> = cases.iter().map(|found| shown(verdicts(&source, &rest, found, 1_697_623_020))).collect();
        insta::assert_snapshot!(said.join("\n"));
    }
}
