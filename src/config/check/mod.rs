//! From tables to settings: every key by its own rule, then what must fit together. All that is wrong is reported.

use std::time::Duration;

use super::files::Around;
use super::names;
use super::problem::{Place, Report};
use super::raw::{Table, quoted};
use super::section::{Given, Section, Taken, default_hint};
use super::settings::{Agent, Format, Settings};

pub use kafka::{COMPRESSION, FORMAT, MECHANISMS};
pub use modbus::{FUNCTIONS, ORDERS, TYPES};
pub use payload::zone;
pub use privacy::THIN;
pub use queue::WHEN_FULL;

mod kafka;
mod listener;
mod modbus;
mod mqtt;
mod payload;
mod privacy;
mod properties;
mod queue;
mod rest;
mod source;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Checks everything. The settings mean something only where `report` has no error afterwards.
pub fn check(root: Table, around: Around<'_>, report: &mut Report) -> Settings {
    let mut root = Section::new("", root, super::schema::ROOT);
    let agent = agent(table(&mut root, report, "agent"), report);
    let queue = queue::check(table(&mut root, report, "queue"), around, report);
    let mut kafka = table(&mut root, report, "kafka");
    let format = kafka::format(&mut kafka, report);
    let kafka = kafka::check(kafka, format.unwrap_or(Format::Original), around, report);
    let sources = source::check(&mut root, &kafka, &queue, around, report);
    let privacy = privacy::check(&mut root, format, around, report);
    root.finish(report, |_| None);
    Settings { agent, queue, kafka, privacy, sources }
}

/// A table of the root; where it is missing or wrong, all its keys have their defaults.
fn table(root: &mut Section, report: &mut Report, key: &'static str) -> Section {
    root.table(report, key, key).or(Section::absent(key))
}

fn agent(mut section: Section, report: &mut Report) -> Agent {
    let id = legal(&section.path_of("id"), section.text(report, "id"), report, names::agent_id);
    let summary_interval = section.duration(report, "summary_interval", SECOND..=7 * DAY, HOUR).or(HOUR);
    let stop_timeout = section.duration(report, "stop_timeout", SECOND..=10 * MINUTE, 20 * SECOND).or(20 * SECOND);
    let clock_wait = section.duration(report, "clock_wait", Duration::ZERO..=DAY, 10 * MINUTE).or(10 * MINUTE);
    section.finish(report, |_| None);
    Agent { id, summary_interval, stop_timeout, clock_wait }
}

/// A text that must keep `rule`.
fn legal(
    path: &str,
    taken: Taken<String>,
    report: &mut Report,
    rule: impl Fn(&str) -> Result<(), String>,
) -> Option<String> {
    let Given { place, value } = taken.given()?;
    match rule(&value) {
        Ok(()) => Some(value),
        Err(what) => {
            let hint = default_hint(path.rsplit('.').next().unwrap_or(path));
            report.error(place, format!("{path} is {}: {what}", quoted(&value)), hint);
            None
        }
    }
}

/// The same, where the default is a constant.
fn legal_or(
    section: &mut Section,
    report: &mut Report,
    key: &str,
    rule: impl Fn(&str) -> Result<(), String>,
    default: &str,
) -> (String, Option<Place>) {
    let path = section.path_of(key);
    let taken = section.text(report, key);
    let place = match &taken {
        Taken::Value(given) => Some(given.place),
        Taken::Absent | Taken::Wrong => None,
    };
    (legal(&path, taken, report, rule).unwrap_or_else(|| default.to_owned()), place)
}
