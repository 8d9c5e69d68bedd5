//! `meterferry status`: the running agent at a glance.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Zoned;
use serde_json::{Value, json};

use super::queue::forecast::Growth;
use super::terminal::{self, printable};
use super::units::{count, duration, local_time};
use super::{Global, lasting, load, out, queue};
use crate::agent::live::{self, Live, LiveSource};
use crate::config::Environment;
use crate::recent::Words;

/// Where systemd puts the agent's socket.
const RUNTIME: &str = "/run/meterferry";
/// Characters of an error or a warning that are shown.
const WIDTH: usize = 200;

const EXAMPLES: &str = "\
Examples:
  meterferry status                    the agent of this machine
  meterferry status --json | jq .wear  for programs
  meterferry status --config FILE      the agent of this configuration

The agent is asked over /run/meterferry/agent.sock ($RUNTIME_DIRECTORY), which answers the members of the
group meterferry; one that systemd did not start is found by the queue's folder, as its own user or root. What
is said about the card is an estimate; queue.card_endurance makes it a better one.

Exit codes:
  0   the agent runs
  1   no agent runs, or it may not be asked; what the queue's folder tells is shown
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> ExitCode {
    match find(global) {
        Ok(Some(live)) if args.json => out(&format!("{}\n", json(&live))),
        Ok(Some(live)) => out(&text(&live, &Zoned::now())),
        Ok(None) => {
            terminal::say("no agent runs; this is what its queue tells");
            // Its own word counts more: here nothing is all right.
            queue::status::of_the_agent(args.json, global).map_or_else(|code| code, |_| ExitCode::FAILURE)
        }
        Err(code) => code,
    }
}

/// The agent of the configuration that was named, else the one of this machine.
fn find(global: &Global) -> Result<Option<Live>, ExitCode> {
    let named = match &global.config {
        Some(_) => Some(load(global)?.settings.queue.path),
        None => None,
    };
    let runtime = Environment::of_process().runtime().unwrap_or_else(|| PathBuf::from(RUNTIME));
    match live::ask_in(&runtime) {
        Ok(Some(live)) if named.as_ref().is_none_or(|queue| *queue == live.queue) => return Ok(Some(live)),
        Ok(_) => {}
        Err(_) if named.is_some() => {}
        Err(error) => {
            terminal::fail(format_args!(
                "the agent may not be asked over {}: {error}\n  hint: as root, or as a member of its group: usermod -aG \
                 meterferry USER, and log in again",
                runtime.join(live::SOCKET).display()
            ));
            return Err(ExitCode::FAILURE);
        }
    }
    let queue = match named {
        Some(queue) => queue,
        None => load(global)?.settings.queue.path,
    };
    Ok(live::ask(&queue))
}

fn json(live: &Live) -> Value {
    let mut value = json!(live);
    value["running"] = true.into();
    value["full_in_seconds"] = growth(live).full_in().map(|time| time.as_secs()).into();
    value
}

fn growth(live: &Live) -> Growth {
    Growth {
        inflow: live.stored_per_second,
        outflow: live.sent_per_second,
        record: live.bytes_per_record,
        room: live.room_bytes,
    }
}

fn text(live: &Live, now: &Zoned) -> String {
    let now_ms = now.timestamp().as_millisecond();
    let up = duration(Duration::from_secs(live.uptime_s));
    let mut rows =
        vec![("agent", format!("{}, process {}, meterferry {}, up {up}", live.agent_id, live.process, live.version))];
    let files: Vec<String> = live.configuration.iter().map(|file| file.display().to_string()).collect();
    rows.push(("configuration", files.join(", ")));
    for source in &live.sources {
        rows.push(("source", source_words(source)));
    }
    rows.extend(queue_rows(live, now, now_ms));
    rows.extend(kafka_rows(live));
    rows.extend(lasting::rows(live, now_ms));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("{}\n\n", live.status);
    text.extend(rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")));
    text.push('\n');
    if live.words.is_empty() {
        text.push_str("No warning and no error since the start.\n");
        return text;
    }
    text.push_str("Last warnings and errors\n");
    text.extend(live.words.iter().map(|words| format!("  {}\n", said(words))));
    text
}

fn queue_rows(live: &Live, now: &Zoned, now_ms: i64) -> Vec<(&'static str, String)> {
    let oldest = live.oldest_ms.filter(|_| live.waiting > 0).map_or_else(String::new, |oldest| {
        let age = Duration::from_millis(u64::try_from(now_ms.saturating_sub(oldest)).unwrap_or(0));
        format!(", the oldest of {} ({} ago)", local_time(oldest), duration(age))
    });
    let full = if live.blocked { "now".to_owned() } else { growth(live).words(now) };
    let rate = format!("{:.2} a second come in", live.stored_per_second);
    let mut rows = vec![("queue", format!("{} wait{oldest}; {rate}", count(live.waiting))), ("full", full)];
    if live.dead_letters + live.letters_deleted > 0 {
        let deleted = match live.letters_deleted {
            0 => String::new(),
            deleted => format!(", {} deleted for their age or number", count(deleted)),
        };
        rows.push(("dead letters", format!("{}{deleted}: meterferry dead-letters list", count(live.dead_letters))));
    }
    if live.lost > 0 {
        rows.push(("lost", format!("{} to damage, since the start", count(live.lost))));
    }
    rows
}

fn kafka_rows(live: &Live) -> Vec<(&'static str, String)> {
    if !live.kafka_configured {
        let file = live.configuration.first().map_or("meterferry.toml".into(), |file| file.to_string_lossy());
        let what = format!("kafka.bootstrap_servers is not set: readings are kept and not sent; set it in {file}");
        return vec![("Kafka", what)];
    }
    let connected = match (live.kafka_connected, live.kafka_connected_s) {
        (true, Some(time)) => format!("connected for {}", duration(Duration::from_secs(time))),
        (true, None) => "connected".to_owned(),
        (false, _) => "not connected".to_owned(),
    };
    let sent = format!("{} sent since the start, {:.2} a second", count(live.sent), live.sent_per_second);
    let mut rows = vec![("Kafka", format!("{connected}; {sent}; resume point {}", count(live.release_point)))];
    rows.extend(live.kafka_words.as_ref().map(|words| ("last trouble", said(words))));
    rows
}

fn source_words(source: &LiveSource) -> String {
    let connected = match (source.connected, source.connected_s) {
        (true, Some(time)) => format!("connected for {}", duration(Duration::from_secs(time))),
        (true, None) => "connected".to_owned(),
        (false, _) => "not connected".to_owned(),
    };
    let last = match source.silent_s {
        None => "no message since the start".to_owned(),
        Some(time) => format!("last message {} ago", duration(Duration::from_secs(time))),
    };
    let mut words = format!("{}: {connected}, {last}, {:.2} a second", source.name, source.per_second);
    for (number, one, many) in [
        (source.undecodable, "no reading", "no readings"),
        (source.ignored, "message without what is wanted of it", "messages without what is wanted of them"),
        (source.qos0, "with QoS 0", "with QoS 0"),
        (
            source.broker_dropped,
            "dropped by the broker for one of its clients",
            "dropped by the broker for its clients",
        ),
        (source.unchanged, "said the same as the last", "said the same as the last"),
        (source.failed_polls, "poll without a reading", "polls without a reading"),
        (source.skipped, "poll skipped", "polls skipped"),
        (source.fallen, "counter turned over or gone back", "counters turned over or gone back"),
        (source.absurd, "value that cannot be right", "values that cannot be right"),
        (source.clock_off, "reading whose time is off", "readings whose time is off"),
    ] {
        if number > 0 {
            words.push_str(&format!(", {} {}", count(number), if number == 1 { one } else { many }));
        }
    }
    words
}

fn said(words: &Words) -> String {
    let level = if words.is_error { "ERROR" } else { "WARN" };
    format!("{} {level} {}", local_time(words.at_ms), printable(&words.text, WIDTH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::start::Start;

    fn live() -> Live {
        Live {
            process: 123,
            version: "0.1.0".into(),
            agent_id: "pi-1".into(),
            configuration: vec!["/etc/meterferry/meterferry.toml".into()],
            uptime_s: 300_000,
            status: "1 of 1 sources connected, Kafka connected, 0 readings wait".into(),
            release_point: 300_001,
            end: 300_001,
            room_bytes: 2 << 30,
            bytes_per_record: 700.0,
            kafka_configured: true,
            kafka_connected: true,
            kafka_connected_s: Some(7_260),
            sent: 300_000,
            stored_per_second: 1.0,
            sent_per_second: 1.0,
            sources: vec![LiveSource {
                name: "sma".into(),
                connected: true,
                connected_s: Some(300_000),
                silent_s: Some(1),
                per_second: 1.0,
                ..LiveSource::default()
            }],
            start: Start { took_ms: 340, ..Start::default() },
            ..Live::default()
        }
    }

    fn shown(live: &Live) -> String {
        let now: Zoned = "2027-01-15T09:00:00+01:00[Europe/Vienna]".parse().expect("a time");
        text(live, &now)
    }

    /// Promise 9: what a person sees when all is well, and what when Kafka is not configured and a message was no reading.
    #[test]
    fn status_in_words() {
        let mut live = live();
        insta::assert_snapshot!("well", shown(&live));
        live.kafka_configured = false;
        live.sources[0] = LiveSource { name: "sma".into(), undecodable: 2, qos0: 5, ..LiveSource::default() };
        (live.waiting, live.dead_letters, live.letters_deleted, live.lost, live.blocked) = (12_345, 2, 3, 7, true);
        insta::assert_snapshot!("unwell", shown(&live));
        assert_eq!(json(&live)["running"], true);
    }

    /// Promise 5: nobody's text writes over the screen.
    #[test]
    fn words_are_printable() {
        let words = Words { at_ms: 0, is_error: true, target: String::new(), text: "a\u{1b}[2Jb".into() };
        assert!(said(&words).ends_with("ERROR a\\u{1b}[2Jb"), "{}", said(&words));
    }
}
