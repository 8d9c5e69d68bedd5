//! `meterferry queue`: a look into the queue, beside the agent or without it.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::units::{bytes, count, duration, local_time, rfc3339};
use super::{Global, fail, out, queue_folder};
use crate::agent::live::{self, Live};
use crate::clock::{self, Clock};
use crate::daily::date_of;
use crate::queue::inspect::{Inspector, Status};
use crate::reading::{Body, Entry, Received};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// What waits, since when, and how much room there is
    #[command(after_help = "Examples:\n  meterferry queue status\n  meterferry queue status --json | jq .waiting")]
    Status(StatusArgs),
    /// Show the records that wait, oldest first
    #[command(
        after_help = "Examples:\n  meterferry queue peek\n  meterferry queue peek --count 3 --json\n  meterferry queue peek --from 31245"
    )]
    Peek(PeekArgs),
}

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    folder: Folder,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct PeekArgs {
    #[command(flatten)]
    folder: Folder,
    /// Records shown
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N")]
    count: usize,
    /// First sequence shown [default: the release point]
    #[arg(long, value_name = "SEQUENCE")]
    from: Option<u64>,
    /// One JSON object a line, with the whole payload
    #[arg(long)]
    json: bool,
}

/// Which queue.
#[derive(Debug, clap::Args)]
pub struct Folder {
    /// The queue's folder [default: queue.path of the configuration]
    #[arg(long, value_name = "FOLDER")]
    pub path: Option<PathBuf>,
}

pub fn run(command: Command, global: &Global) -> ExitCode {
    let folder = match &command {
        Command::Status(args) => &args.folder,
        Command::Peek(args) => &args.folder,
    };
    let path = match queue_folder(folder.path.as_deref(), global) {
        Ok(path) => path,
        Err(code) => return code,
    };
    let inspector = match Inspector::open(&path) {
        Ok(inspector) => inspector,
        Err(error) => return fail(&error),
    };
    match command {
        Command::Status(args) => status(&inspector, live::ask(&path), args.json),
        Command::Peek(args) => peek(&inspector, &args),
    }
}

fn status(inspector: &Inspector, live: Option<Live>, json: bool) -> ExitCode {
    let mut status = match inspector.status() {
        Ok(status) => status,
        Err(error) => return fail(&error),
    };
    if let Some(live) = &live {
        // The agent knows of releases that are not on disk yet.
        status.release_point = status.release_point.max(live.release_point);
    }
    let oldest = inspector
        .peek(Some(status.release_point), 1)
        .ok()
        .and_then(|entries| entries.first().map(|entry| *received(&entry.body)));
    let newest = status.end.checked_sub(1).and_then(|last| inspector.peek(Some(last), 1).ok());
    let newest = newest.and_then(|entries| entries.first().map(|entry| *received(&entry.body)));
    let waiting = status.end.saturating_sub(status.release_point);
    if json {
        return out(&format!("{}\n", status_json(&status, live.as_ref(), waiting, oldest, newest)));
    }
    let now = Clock::new().now();
    let since = |at: Option<Received>| {
        at.map_or_else(
            || "-".to_owned(),
            |at| format!("{} ({} ago)", local_time(at.wall_ms), duration(clock::age(&at, &now))),
        )
    };
    let identity = &status.identity;
    let rows = [
        ("agent", format!("{}{}", identity.agent_id, if status.running { ", running" } else { ", not running" })),
        ("health", health(&status, live.as_ref())),
        ("queue id", identity.queue_id().to_string()),
        ("waiting", format!("{} records", count(waiting))),
        ("oldest waiting", if waiting == 0 { "-".to_owned() } else { since(oldest) }),
        ("newest", since(newest)),
        (
            "release point",
            format!(
                "{} of {}{}",
                status.release_point,
                status.end,
                if live.is_some() { "" } else { " (as far as it is on disk)" }
            ),
        ),
        ("segments", format!("{}, {}", status.segments.len(), bytes(status.disk_bytes))),
        ("free on the disk", bytes(status.free_bytes)),
        ("dead letters", count(status.dead_letters)),
        ("lost to damage", lost(&status)),
    ];
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    out(&rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect::<String>())
}

fn health(status: &Status, live: Option<&Live>) -> String {
    let Some(live) = live else {
        return if status.running { "it does not answer".to_owned() } else { "-".to_owned() };
    };
    let connected = live.sources.iter().filter(|source| source.connected).count();
    let kafka = if live.kafka_connected { "Kafka connected" } else { "Kafka not connected" };
    let room = if live.blocked { ", the queue is full" } else { "" };
    format!("{connected} of {} sources connected, {kafka}{room}", live.sources.len())
}

fn lost(status: &Status) -> String {
    let ranges: Vec<String> = status.identity.lost.iter().map(|lost| format!("{}-{}", lost.first, lost.last)).collect();
    if ranges.is_empty() { "nothing".to_owned() } else { format!("sequences {}", ranges.join(", ")) }
}

fn status_json(
    status: &Status,
    live: Option<&Live>,
    waiting: u64,
    oldest: Option<Received>,
    newest: Option<Received>,
) -> serde_json::Value {
    let time = |at: Option<Received>| at.map(|at| rfc3339(at.wall_ms));
    json!({
        "agent_id": status.identity.agent_id,
        "running": status.running,
        "queue_id": status.identity.queue_id().to_string(),
        "waiting": waiting,
        "oldest_waiting": if waiting == 0 { None } else { time(oldest) },
        "newest": time(newest),
        "release_point": status.release_point,
        "end": status.end,
        "segments": status.segments,
        "disk_bytes": status.disk_bytes,
        "free_bytes": status.free_bytes,
        "dead_letters": status.dead_letters,
        "live": live,
        "lost": status.identity.lost.iter().map(|lost| json!({"first": lost.first, "last": lost.last, "reason": lost.reason})).collect::<Vec<_>>(),
    })
}

fn peek(inspector: &Inspector, args: &PeekArgs) -> ExitCode {
    let entries = match inspector.peek(args.from, args.count) {
        Ok(entries) => entries,
        Err(error) => return fail(&error),
    };
    if args.json {
        return out(&entries.iter().map(|entry| format!("{}\n", entry_json(entry))).collect::<String>());
    }
    if entries.is_empty() {
        return out("Nothing waits.\n");
    }
    let mut text = format!("{:>12}  {:<19}  {:<12}  {:<16}  content\n", "sequence", "received", "source", "device");
    for entry in &entries {
        let (source, device, content) = columns(&entry.body);
        let time = local_time(received(&entry.body).wall_ms);
        text.push_str(&format!("{:>12}  {time:<19}  {source:<12}  {device:<16}  {content}\n", entry.sequence));
    }
    out(&text)
}

fn columns(body: &Body) -> (&str, &str, String) {
    match body {
        Body::Reading(reading) => (&reading.source, &reading.device, preview(&reading.payload)),
        Body::Dead(dead) => (&dead.source, "(dead letter)", format!("{}: {}", dead.reason, preview(&dead.payload))),
        Body::Gap(gap) => ("", "(gap)", format!("{} to {}: {}", gap.first, gap.last, gap.reason)),
        Body::Daily(daily) => ("", "(receipt)", date_of(daily.day).to_string()),
    }
}

/// The beginning of a payload, on one line.
pub(super) fn preview(payload: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text: String = String::from_utf8_lossy(&payload[..payload.len().min(4 * SHOWN)])
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() <= SHOWN && payload.len() <= 4 * SHOWN {
        return text;
    }
    format!("{}… ({})", text.chars().take(SHOWN).collect::<String>(), bytes(payload.len() as u64))
}

fn entry_json(entry: &Entry) -> serde_json::Value {
    let mut value = body_json(&entry.body);
    if let Some(object) = value.as_object_mut() {
        object.insert("sequence".into(), entry.sequence.into());
    }
    value
}

/// A record as one JSON object; a payload that is not UTF-8 is shown as hexadecimal digits.
pub(super) fn body_json(body: &Body) -> serde_json::Value {
    match body {
        Body::Reading(reading) => json!({
            "kind": "reading", "source": &*reading.source, "device": reading.device, "topic": reading.topic,
            "packet_id": reading.packet_id, "received": rfc3339(reading.received.wall_ms),
            "measured": reading.measured_ms.map(rfc3339), "payload": payload_json(&reading.payload),
        }),
        Body::Dead(dead) => json!({
            "kind": "dead", "source": &*dead.source, "topic": dead.topic, "packet_id": dead.packet_id,
            "received": rfc3339(dead.received.wall_ms), "reason": dead.reason, "payload": payload_json(&dead.payload),
        }),
        Body::Gap(gap) => json!({
            "kind": "gap", "first": gap.first, "last": gap.last, "reason": gap.reason,
        }),
        Body::Daily(daily) => json!({
            "kind": "receipt", "day": date_of(daily.day), "noticed": rfc3339(daily.noticed.wall_ms),
        }),
    }
}

fn payload_json(payload: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(payload) {
        Ok(text) => text.into(),
        Err(_) => json!({ "hex": payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

pub(super) fn received(body: &Body) -> &Received {
    match body {
        Body::Reading(reading) => &reading.received,
        Body::Dead(dead) => &dead.received,
        Body::Gap(gap) => &gap.noticed,
        Body::Daily(daily) => &daily.noticed,
    }
}
