//! A source of type `mqtt`: is the broker there, does it let us in, does anything come, and can it be read.

use std::time::Duration;

use super::certificate::{self, Judgement, NoHandshake};
use super::check::Check;
use super::clock;
use super::reach::{self, Unreached};
use crate::cli::terminal::printable;
use crate::cli::units::counted;
use crate::config::settings::{Mqtt, Payload, Source};
use crate::config::{show_address, show_duration};
use crate::decode::decode;
use crate::source::mqtt_probe::{self, Heard, Unwelcome};

/// What was seen of a broker, as far as one got.
struct Seen {
    reached: Option<Unreached>,
    tls: Option<Result<Judgement, NoHandshake>>,
    heard: Option<Result<Vec<Heard>, Unwelcome>>,
}

/// Visits the broker of a source; listens for `wait` at most.
pub async fn look(source: &Source, mqtt: &Mqtt, wait: Duration, now_s: i64) -> Vec<Check> {
    let mut seen = Seen { reached: None, tls: None, heard: None };
    match reach::connect(&mqtt.host, mqtt.port).await {
        Err(unreached) => seen.reached = Some(unreached),
        Ok(stream) => {
            if let Some(tls) = &mqtt.tls {
                seen.tls = Some(certificate::look(stream, &mqtt.host, tls, now_s).await);
            }
            if seen.tls.as_ref().is_none_or(is_good) {
                seen.heard = Some(mqtt_probe::visit(mqtt, wait).await);
            }
        }
    }
    let mut checks = verdicts(source, mqtt, wait, &seen, now_s);
    let own = mqtt.tls.as_ref().and_then(|tls| tls.certificate_file.as_ref());
    if let Some(file) = own {
        let what = format!("{}", file.display());
        let cure = "have its authority make a new one";
        checks.push(certificate::lifetime("own certificate", &what, certificate::ends_in_file(file), now_s, cure));
    }
    checks
}

fn is_good(tls: &Result<Judgement, NoHandshake>) -> bool {
    tls.as_ref().is_ok_and(|judgement| judgement.fault.is_none())
}

fn verdicts(source: &Source, mqtt: &Mqtt, wait: Duration, seen: &Seen, now_s: i64) -> Vec<Check> {
    let address = show_address(&mqtt.host, mqtt.port);
    let topics = || mqtt.topics.iter().map(|topic| format!("topic {topic}"));
    let skip = |first: &str, why: &str| -> Vec<Check> {
        std::iter::once(first.to_owned()).chain(topics()).map(|name| Check::skipped(name, why)).collect()
    };
    if let Some(unreached) = &seen.reached {
        let message = format!("{address}: {}", unreached.words());
        let mut checks = vec![Check::wrong("broker", message, unreached.cure("the MQTT broker"))];
        checks.extend(skip("login", "the broker is not reached"));
        return checks;
    }
    let mut checks = vec![Check::ok("broker", format!("{address} is reached"))];
    if let Some(tls) = &seen.tls {
        checks.push(match tls {
            Ok(judgement) => certificate::verdict(&address, &mqtt.host, "source.tls", judgement, now_s),
            Err(error) => certificate::no_handshake(&address, "source.tls", error),
        });
    }
    match &seen.heard {
        None => checks.extend(skip("login", "TLS failed")),
        Some(Err(unwelcome)) => {
            checks.push(refused(mqtt, unwelcome));
            checks.extend(topics().map(|name| Check::skipped(name, "the broker does not let us in")));
        }
        Some(Ok(heard)) => {
            let who = mqtt.login.as_ref().map_or("without a user".to_owned(), |login| format!("as {}", login.username));
            checks.push(Check::ok("login", format!("the broker lets us in, {who}")));
            checks.extend(heard.iter().map(|heard| topic(source, mqtt, wait, heard, now_s)));
        }
    }
    checks
}

fn refused(mqtt: &Mqtt, unwelcome: &Unwelcome) -> Check {
    // The source's words are what happened, then what helps.
    let cut = unwelcome.words.find("; ");
    let (what, cure) = cut.map_or((&*unwelcome.words, ""), |at| (&unwelcome.words[..at], &unwelcome.words[at + 2..]));
    let keys =
        if mqtt.login.is_some() { "source.username and source.password_file" } else { "there is no source.username" };
    let hint = if cure.is_empty() { keys.to_owned() } else { format!("{cure} ({keys})") };
    let error = if unwelcome.error.is_empty() { String::new() } else { format!(" ({})", unwelcome.error) };
    Check::wrong("login", format!("{what}{error}"), hint)
}

fn topic(source: &Source, mqtt: &Mqtt, wait: Duration, heard: &Heard, now_s: i64) -> Check {
    let name = format!("topic {}", heard.filter);
    let wait = show_duration(wait);
    match heard.granted {
        None => {
            let hint = "let this user read it at the broker (Mosquitto: acl_file), or take it out of source.topics";
            return Check::wrong(name, "the broker refuses the subscription", hint);
        }
        Some(0) => {
            let hint = "let the broker grant QoS 1 (Mosquitto: max_qos)";
            return Check::warning(
                name,
                "the broker grants QoS 0 only: readings can get lost on the way from it",
                hint,
            );
        }
        Some(_) => {}
    }
    let Some(sample) = &heard.first else {
        let old = if heard.retained > 0 && !mqtt.retained {
            "; only an old value came, which the broker keeps (retained) and the agent ignores"
        } else {
            ""
        };
        let hint = "does the adapter publish to this broker, and with this topic to the letter? If it sends more seldom: --wait 10min";
        return Check::wrong(name, format!("no message within {wait}{old}"), hint);
    };
    let came = counted(heard.messages, "message");
    match decode(&source.payload, &source.name, &sample.topic, &sample.payload) {
        Err(reason) => {
            let hint = match &source.payload {
                Payload::Sma => {
                    "is it the adapter's topic? meterferry map tells which payload fits, payload = \"any\" takes whatever \
                     comes"
                }
                Payload::Mapped(_) => {
                    "is it that reader? save a message to a file: meterferry map FILE tells what fits"
                }
                Payload::Any => "readings of this kind become dead letters: meterferry dead-letters list",
            };
            let message = format!("{came}, and the first on {} is no reading: {reason}", printable(&sample.topic, 40));
            Check::wrong(name, message, hint)
        }
        Ok(decoded) => {
            let from = printable(&decoded.device, 40);
            if heard.qos0 > 0 {
                let message =
                    format!("{came} of {from} with QoS 0: one that is lost on the way is sent by nobody again");
                return Check::warning(name, message, "set QoS 1 in the adapter");
            }
            let of = if heard.messages == 1 { "of" } else { "the first of" };
            let message = format!("{came} with QoS 1, {of} {from}");
            match clock::of_device(&decoded, now_s) {
                Some((what, hint)) => Check::warning(name, format!("{message}; {what}"), hint),
                None => Check::ok(name, message),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Fault;
    use super::super::print::shown;
    use super::*;
    use crate::config::settings::Interface;
    use crate::config::{Environment, load};
    use crate::source::mqtt_probe::Sample;

    const READING: &[u8] = br#"{"name":"90296857","1-0:1.8.0":{"value":83403,"time":1697623015}}"#;

    fn source(lines: &str) -> (Source, Mqtt) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("meterferry.toml");
        std::fs::write(folder.path().join("password"), "secret\n").expect("write");
        std::fs::write(&file, format!("[[source]]\nname = \"sma\"\ntype = \"mqtt\"\n{lines}\n")).expect("write");
        let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", folder.path())]);
        let settings = load(Some(&file), &environment).unwrap_or_else(|problems| panic!("{problems}")).settings;
        let source = settings.sources.into_iter().next().expect("a source");
        let Interface::Mqtt(mqtt) = source.interface.clone() else { panic!("a broker") };
        (source, mqtt)
    }

    fn heard(change: impl FnOnce(&mut Heard)) -> Seen {
        let first = Some(Sample { topic: "sma".into(), payload: READING.into() });
        let mut heard = Heard { filter: "sma".into(), granted: Some(1), messages: 1, qos0: 0, retained: 0, first };
        change(&mut heard);
        Seen { reached: None, tls: None, heard: Some(Ok(vec![heard])) }
    }

    fn said(lines: &str, seen: Seen) -> String {
        let (source, mqtt) = source(lines);
        shown(verdicts(&source, &mqtt, Duration::from_secs(60), &seen, 1_697_623_020))
    }

    fn unwelcome(words: &str, error: &str) -> Seen {
        let unwelcome = Unwelcome { words: words.into(), error: error.into() };
        Seen { reached: None, tls: None, heard: Some(Err(unwelcome)) }
    }

    /// Promise 9: each stage on the way to a reading has its own words, and what lies behind a failed one is not tried.
    #[test]
    fn on_the_way_to_a_reading() {
        let login = "username = \"meter\"\npassword_file = \"password\"";
        let refused = Unreached::Refused {
            address: "127.0.0.1:1883".parse().expect("an address"),
            error: "connection refused".into(),
        };
        let silent = Unreached::Silent { address: "10.0.0.9:1883".parse().expect("an address") };
        let name = Unreached::Name("name or service not known".into());
        let unreached = |reached| Seen { reached: Some(reached), tls: None, heard: None };
        let ended = Judgement { fault: Some(Fault::Ended), ends: Some(1_790_000_000) };
        let cases = [
            said("", heard(|_| {})),
            said(login, heard(|heard| heard.messages = 1_234)),
            said("host = \"broker\"", unreached(name)),
            said("", unreached(refused)),
            said("host = \"10.0.0.9\"", unreached(silent)),
            said("tls = {}", Seen { reached: None, tls: Some(Ok(ended)), heard: None }),
            said("tls = {}", Seen { reached: None, tls: Some(Err(NoHandshake::Silent)), heard: None }),
            said(
                login,
                unwelcome(
                    "the MQTT broker refuses user and password; correct them",
                    "Connection refused: BadUserNamePassword",
                ),
            ),
            said(
                "",
                unwelcome(
                    "the MQTT broker does not authorize this client; set user and password, or allow it there",
                    "Connection refused: NotAuthorized",
                ),
            ),
            said("", unwelcome("the MQTT broker does not answer in time", "")),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }

    /// Promise 9: what comes, how it comes, and that nothing comes.
    #[test]
    fn what_comes() {
        let nothing = |heard: &mut Heard| (heard.messages, heard.first) = (0, None);
        let text = |payload: &'static [u8]| {
            move |heard: &mut Heard| heard.first = Some(Sample { topic: "sma".into(), payload: payload.into() })
        };
        let cases = [
            said("", heard(nothing)),
            said(
                "",
                heard(|heard| {
                    nothing(heard);
                    heard.retained = 1;
                }),
            ),
            said("", heard(|heard| heard.qos0 = 1)),
            said("", heard(|heard| heard.granted = None)),
            said("", heard(|heard| heard.granted = Some(0))),
            said("", heard(text(b"12.5"))),
            said("", heard(text(b"{\"a\":1}"))),
            said("", heard(text(b"{\"1-0:1.8.0\":{\"value\":1,\"time\":1104537600}}"))),
            said("payload = \"any\"", heard(text(b"12.5"))),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }
}
