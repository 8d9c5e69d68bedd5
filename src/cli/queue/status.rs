//! `meterferry queue status`

use std::process::ExitCode;
use std::time::Duration;

use jiff::Zoned;
use serde_json::{Value, json};

use super::Folder;
use super::forecast::Growth;
use crate::agent::live::{self, Live};
use crate::cli::units::{bytes, count, duration, local_time, rfc3339};
use crate::cli::{Global, fail, lasting, out};
use crate::clock::{self, Clock};
use crate::config::settings::{Delivery, Settings, WhenFull};
use crate::forwarder::kafka::look;
use crate::queue::inspect::{Inflow, Inspector, Status, received};
use crate::queue::waiting::Found;
use crate::reading::Received;

/// How long Kafka is given to answer.
const KAFKA: Duration = Duration::from_secs(3);
/// What the rate of what comes in is taken over.
const SPAN: Duration = Duration::from_secs(3600);
/// Records that are looked through for dead letters: a moment, however many wait.
const NEWEST: u64 = 10_000;

const EXAMPLES: &str = "\
Examples:
  meterferry queue status                       the agent's queue, beside the agent or without it
  meterferry queue status --json | jq .waiting  for programs
  meterferry queue status --no-kafka            do not ask Kafka
  meterferry queue status --path /mnt/card/var/lib/meterferry/queue

Looks at 10,000 records at most, so that a year's backlog takes no longer than a day's. Kafka is asked for
its resume point and given 3 seconds; that it cannot be reached is said and is no error.

Exit codes:
  0   done
  1   the queue cannot be read
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// Do not ask Kafka for its resume point
    #[arg(long)]
    no_kafka: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, settings) = args.folder.inspect(global)?;
    let looked = Looked::at(&inspector, settings.as_ref(), !args.no_kafka).map_err(|error| fail(&error))?;
    Ok(out(&if args.json { format!("{}\n", looked.json()) } else { looked.table(&Zoned::now()) }))
}

/// The configured queue, for a person who looks for its agent.
pub fn of_the_agent(json: bool, global: &Global) -> Result<ExitCode, ExitCode> {
    run(&Args { folder: Folder { path: None }, no_kafka: true, json }, global)
}

/// What Kafka says about the resume point.
#[derive(Debug, Clone, PartialEq)]
enum InKafka {
    /// Why it was not asked.
    NotAsked(&'static str),
    NotReached(String),
    None,
    Point(u64),
    /// The offset was not written by this queue.
    Foreign(u64),
}

/// Everything that is shown.
struct Looked {
    status: Status,
    /// Dead letters that wait in the queue.
    letters: Found,
    live: Option<Live>,
    kafka: InKafka,
    oldest: Option<Received>,
    newest: Option<Received>,
    inflow: Option<Inflow>,
    max_size: Option<u64>,
    min_free: u64,
    when_full: WhenFull,
    now: Received,
}

impl Looked {
    fn at(inspector: &Inspector, settings: Option<&Settings>, ask: bool) -> Result<Self, crate::queue::QueueError> {
        let (now, live) = (Clock::new().now(), live::ask(inspector.folder()));
        let mut status = inspector.status()?;
        if let Some(live) = &live {
            // The agent knows of releases that are not on disk yet.
            status.release_point = status.release_point.max(live.release_point).min(status.end);
        }
        let letters = inspector.count_waiting_letters(status.release_point, NEWEST)?;
        let mut walk = inspector.walk(Some(status.release_point), None)?;
        let mut at = |sequence| -> Result<Option<Received>, crate::queue::QueueError> {
            Ok(walk.record_at(sequence)?.map(|entry| *received(&entry.body)))
        };
        let oldest = if status.release_point < status.end { at(status.release_point)? } else { None };
        let newest = at(status.end.saturating_sub(1))?;
        // Of an agent that was stopped a while ago: as it was then.
        let until = if status.running { Some(now) } else { newest };
        let inflow = until.map(|until| inspector.inflow(SPAN, &until)).transpose()?.flatten();
        let kafka = match settings {
            None => InKafka::NotAsked("no configuration"),
            Some(_) if !ask => InKafka::NotAsked("as was asked for"),
            Some(settings) => in_kafka(settings, &status),
        };
        let (max_size, min_free) = settings.map_or((None, 0), |it| (Some(it.queue.max_size), it.queue.min_free));
        let when_full = settings.map_or(WhenFull::Block, |settings| settings.queue.when_full);
        Ok(Self { status, letters, live, kafka, oldest, newest, inflow, max_size, min_free, when_full, now })
    }

    fn waiting(&self) -> u64 {
        let all = self.status.release_point..self.status.end;
        let missing = self.status.identity.missing(all.clone());
        all.end.saturating_sub(all.start).saturating_sub(missing)
    }

    fn room(&self) -> u64 {
        let free = self.status.free_bytes.saturating_sub(self.min_free);
        self.max_size.map_or(free, |most| free.min(most.saturating_sub(self.status.disk_bytes)))
    }

    fn growth(&self) -> Growth {
        let held = self.status.segments.first().map_or(0, |first| {
            let missing = self.status.identity.missing(*first..self.status.end);
            self.status.end.saturating_sub(*first).saturating_sub(missing)
        });
        Growth {
            inflow: self.inflow.map_or(0.0, |inflow| inflow.rate()),
            outflow: self.live.as_ref().map_or(0.0, |live| live.sent_per_second),
            record: self.status.segment_bytes as f64 / held.max(1) as f64,
            room: self.room(),
        }
    }

    /// What somebody should know; empty where all is well.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match (&self.live, self.status.running) {
            (None, true) => problems.push("the agent does not answer".to_owned()),
            (None, false) => problems.push("the agent does not run".to_owned()),
            (Some(live), _) => {
                let silent = live.sources.iter().filter(|source| !source.connected);
                problems.extend(silent.map(|source| format!("source {} is not connected", source.name)));
                if !live.kafka_connected {
                    problems.push("Kafka is not connected".to_owned());
                }
                if live.blocked {
                    problems.push("the queue is full".to_owned());
                }
            }
        }
        if let Some(reason) = &self.status.unreadable {
            problems.push(format!("the newest segment cannot be read: {reason}"));
        }
        if !self.status.identity.lost.is_empty() {
            problems.push("records were lost to damage".to_owned());
        }
        if self.status.dead_letters.is_none() {
            problems.push("the dead letters cannot be read".to_owned());
        }
        problems
    }

    fn table(&self, now: &Zoned) -> String {
        let status = &self.status;
        let identity = &status.identity;
        let process = match (&self.live, status.running) {
            (Some(live), _) => format!(", running (process {})", live.process),
            (None, true) => ", running".to_owned(),
            (None, false) if status.not_closed => ", not running; it was killed".to_owned(),
            (None, false) => ", not running".to_owned(),
        };
        let problems = self.problems();
        let mut rows = vec![
            ("agent", format!("{}{process}", identity.agent_id)),
            ("health", if problems.is_empty() { "all is well".to_owned() } else { problems.join("; ") }),
            ("queue id", identity.queue_id().to_string()),
            ("waiting", format!("{} records", count(self.waiting()))),
            ("oldest waiting", self.since(self.oldest)),
            ("newest", self.since(self.newest)),
            ("coming in", self.coming_in()),
        ];
        if let Some(live) = &self.live {
            rows.push(("going out", format!("{} a second over the last minute", rate(live.sent_per_second))));
        }
        let doubt = if self.live.is_some() { "" } else { ", as far as it is on disk" };
        rows.push(("release point", format!("{} of {}{doubt}", count(status.release_point), count(status.end))));
        rows.push(("in Kafka", self.kafka_words()));
        let most = self.max_size.map_or_else(String::new, |most| format!(" of {}", bytes(most)));
        rows.push(("segments", format!("{}, {}{most}", status.segments.len(), bytes(status.disk_bytes))));
        let kept = if self.min_free > 0 { format!("; {} stay free", bytes(self.min_free)) } else { String::new() };
        rows.push(("free on the disk", format!("{}{kept}", bytes(status.free_bytes))));
        let runs = self.live.is_some() || status.running;
        let full = match &self.live {
            Some(live) if live.blocked => "now".to_owned(),
            _ if runs => self.growth().words(now),
            _ => "not while the agent does not run".to_owned(),
        };
        rows.push(("full", full));
        match self.when_full {
            WhenFull::Block => {}
            WhenFull::DropOldest => rows.push(("when full", "the oldest readings are given up".to_owned())),
            WhenFull::Thin => rows.push(("when full", "the oldest readings are thinned out".to_owned())),
        }
        rows.push(("dead letters", self.letters_words()));
        rows.push(("lost to damage", lost(status)));
        if let Some(live) = &self.live {
            rows.extend(lasting::rows(live, self.now.wall_ms));
        }
        if !status.set_aside.is_empty() {
            rows.push(("damaged files", status.set_aside.join(", ")));
        }
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
    }

    fn since(&self, at: Option<Received>) -> String {
        at.map_or_else(
            || "-".to_owned(),
            |at| format!("{} ({} ago)", local_time(at.wall_ms), duration(clock::age(&at, &self.now))),
        )
    }

    fn letters_words(&self) -> String {
        let set_aside = self.status.dead_letters.map_or_else(|| "cannot be read".to_owned(), count);
        let Found { letters, looked_at, passed_over } = self.letters;
        match (letters, passed_over) {
            (0, _) => set_aside,
            (1, 0) => format!("{set_aside}; 1 more waits in the queue"),
            (more, 0) => format!("{set_aside}; {} more wait in the queue", count(more)),
            (more, _) => {
                format!("{set_aside}; {} more among the newest {} that wait", count(more), count(looked_at))
            }
        }
    }

    fn coming_in(&self) -> String {
        let Some(inflow) = self.inflow else { return "nothing in the last hour".to_owned() };
        let over = match inflow.over.max(Duration::from_secs(1)) {
            over if over + Duration::from_secs(60) > SPAN => "hour".to_owned(),
            over => duration(over),
        };
        format!("{} a second over the last {over}", rate(inflow.rate()))
    }

    fn kafka_words(&self) -> String {
        let here = self.status.release_point;
        match &self.kafka {
            InKafka::NotAsked(why) => format!("not asked: {why}"),
            InKafka::NotReached(why) => format!("not reached: {}", brief(why)),
            InKafka::None => "it knows no resume point of this queue".to_owned(),
            InKafka::Point(point) if *point == here => format!("{}, the same", count(*point)),
            InKafka::Point(point) if *point > here => {
                format!("{}: {} more than is released here", count(*point), count(point - here))
            }
            InKafka::Point(point) => format!("{}: behind; were the group's offsets reset?", count(*point)),
            InKafka::Foreign(offset) => {
                format!("offset {offset} is not this queue's: it will go on under a new id")
            }
        }
    }

    fn kafka_json(&self) -> Value {
        match &self.kafka {
            InKafka::NotAsked(why) => json!({"state": "not asked", "reason": why}),
            InKafka::NotReached(why) => json!({"state": "not reached", "reason": why}),
            InKafka::None => json!({"state": "none"}),
            InKafka::Point(point) => json!({"state": "known", "resume_point": point}),
            InKafka::Foreign(offset) => json!({"state": "foreign", "offset": offset}),
        }
    }

    fn json(&self) -> Value {
        let (status, growth) = (&self.status, self.growth());
        let time = |at: Option<Received>| at.map(|at| rfc3339(at.wall_ms));
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        let runs = self.live.is_some() || status.running;
        json!({
            "agent_id": status.identity.agent_id,
            "running": status.running,
            "problems": self.problems(),
            "queue_id": status.identity.queue_id().to_string(),
            "waiting": self.waiting(),
            "oldest_waiting": time(self.oldest),
            "newest": time(self.newest),
            "in_per_second": growth.inflow,
            "out_per_second": self.live.as_ref().map(|live| live.sent_per_second),
            "release_point": status.release_point,
            "end": status.end,
            "kafka": self.kafka_json(),
            "segments": status.segments,
            "disk_bytes": status.disk_bytes,
            "free_bytes": status.free_bytes,
            "room_bytes": growth.room,
            "bytes_per_record": growth.record.round(),
            "full_in_seconds": seconds(growth.full_in().filter(|_| runs)),
            "room_without_kafka_seconds": seconds(growth.room_for().filter(|_| runs)),
            "dead_letters": status.dead_letters,
            "dead_letters_waiting": self.letters.letters,
            "dead_letters_waiting_looked_at": self.letters.looked_at,
            "lost": status.identity.lost.iter().map(|lost| json!({"first": lost.first, "last": lost.last, "reason": lost.reason})).collect::<Vec<_>>(),
            "damaged_files": status.set_aside,
            "not_closed": status.not_closed,
            "unreadable": status.unreadable,
            "live": self.live,
        })
    }
}

fn in_kafka(settings: &Settings, status: &Status) -> InKafka {
    if settings.kafka.bootstrap_servers.is_empty() {
        return InKafka::NotAsked("kafka.bootstrap_servers is not set");
    }
    if settings.kafka.delivery == Delivery::AtLeastOnce {
        return InKafka::NotAsked("with at-least-once it keeps none");
    }
    let (agent_id, queue_id) = (&status.identity.agent_id, status.identity.queue_id());
    match look::resume_point(&settings.kafka, agent_id, queue_id, KAFKA) {
        Err(failure) => InKafka::NotReached(failure.detail),
        Ok(None) => InKafka::None,
        Ok(Some(committed)) => match committed.of_queue(queue_id) {
            Some(point) => InKafka::Point(point.next),
            None => InKafka::Foreign(committed.offset),
        },
    }
}

/// The library's words without what it says about itself.
fn brief(why: &str) -> &str {
    let why = why.split(" (after ").next().unwrap_or(why);
    let why = why.split_once("/bootstrap: ").map_or(why, |(_, what)| what);
    why.strip_prefix("Connect to ").unwrap_or(why)
}

/// As many digits as are worth reading.
fn rate(rate: f64) -> String {
    if rate >= 100.0 { count(rate.round() as u64) } else { format!("{rate:.1}") }
}

/// The first few ranges.
fn lost(status: &Status) -> String {
    const SHOWN: usize = 3;
    let lost = &status.identity.lost;
    if lost.is_empty() {
        return "nothing that waits".to_owned();
    }
    let ranges: Vec<_> = lost.iter().take(SHOWN).map(|lost| format!("{} to {}", lost.first, lost.last)).collect();
    let more = if lost.len() > SHOWN { format!(" and {} more", lost.len() - SHOWN) } else { String::new() };
    format!("sequences {}{more}", ranges.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Identity, Lost};

    fn looked() -> Looked {
        let now = Received { wall_ms: 1_800_000_000_000, boot_ms: 50_000_000, boot_id: 7, synchronised: true };
        let before = |seconds: u64| Received {
            wall_ms: now.wall_ms - 1000 * i64::try_from(seconds).expect("small"),
            boot_ms: now.boot_ms - 1000 * seconds,
            ..now
        };
        let identity = Identity { queue_id: 0xab, origin: 0xab, ..Identity::new("pi-1", None) };
        let status = Status {
            identity,
            running: true,
            segments: vec![1, 500_001],
            disk_bytes: 700 << 20,
            segment_bytes: 699 << 20,
            free_bytes: 20 << 30,
            release_point: 1_001,
            end: 1_000_001,
            dead_letters: Some(3),
            set_aside: Vec::new(),
            not_closed: false,
            unreadable: None,
        };
        let live = Live { process: 123, kafka_connected: false, ..Live::default() };
        Looked {
            status,
            letters: Found::default(),
            live: Some(live),
            kafka: InKafka::NotReached("no answer".into()),
            oldest: Some(before(40_000)),
            newest: Some(before(2)),
            inflow: Some(Inflow { records: 3_600, over: SPAN }),
            max_size: Some(2 << 30),
            min_free: 512 << 20,
            when_full: WhenFull::Block,
            now,
        }
    }

    fn shown(looked: &Looked) -> String {
        let zoned: Zoned = "2027-01-15T09:00:00+01:00[Europe/Vienna]".parse().expect("a time");
        // The time zone is the machine's.
        let text = looked.table(&zoned);
        let mut lines = Vec::new();
        for line in text.lines() {
            match (line.starts_with("oldest") || line.starts_with("newest"), line.split_once('(')) {
                (true, Some((_, ago))) => {
                    lines.push(format!("{:<16}  TIME ({ago}", line.split("  ").next().unwrap_or("")))
                }
                _ => lines.push(line.to_owned()),
            }
        }
        assert!(lines.iter().all(|line| line.chars().count() < 80), "{text}");
        lines.join("\n")
    }

    /// Promise 9: what a person sees while Kafka is away, and when all is well.
    #[test]
    fn status_in_words() {
        let mut looked = looked();
        insta::assert_snapshot!("away", shown(&looked));
        looked.letters = Found { letters: 6, looked_at: 10_000, passed_over: 989_000 };
        assert_eq!(looked.letters_words(), "3; 6 more among the newest 10,000 that wait");
        shown(&looked);
        looked.letters.passed_over = 0;
        assert_eq!(looked.letters_words(), "3; 6 more wait in the queue");
        looked.letters.letters = 0;
        looked.kafka = InKafka::Point(1_001);
        if let Some(live) = &mut looked.live {
            live.kafka_connected = true;
            live.sent_per_second = 12_345.6;
        }
        insta::assert_snapshot!("well", shown(&looked));
    }

    /// Promise 7: damage, and an agent that was killed, are told.
    #[test]
    fn damage_in_words() {
        let mut looked = looked();
        looked.live = None;
        looked.status.running = false;
        looked.status.not_closed = true;
        looked.kafka = InKafka::Foreign(7);
        looked.inflow = None;
        looked.max_size = None;
        let lost = |first| Lost { first, last: first + 9, reason: "damaged on the disk".into() };
        looked.status.identity.lost = (1..6).map(|n| lost(n * 100)).collect();
        looked.status.set_aside = vec!["00000000000000000001.redb.damaged-20270115T080000Z".into()];
        insta::assert_snapshot!("damaged", shown(&looked));
    }
}
