//! `[queue]`

use std::path::PathBuf;

use super::{DAY, GIB, HOUR, KIB, MIB, MILLISECOND, MINUTE, SECOND, TIB};
use crate::config::files::Around;
use crate::config::problem::{Place, Report};
use crate::config::raw::quoted;
use crate::config::section::{Given, Section, Taken};
use crate::config::settings::{Queue, WhenFull};
use crate::config::units::show_size;

/// The queue needs room for the active segment, the one kept before it, a new one and the dead letters.
const SEGMENTS: u64 = 4;

/// A segment must hold several of the largest readings, or every reading rolls it.
const READINGS: u64 = 4;

/// Messages that a broker may have on its way. Mosquitto 2.0 exceeds its own limit: with every reconnect in which no
/// acknowledgement gets through it sends more, thousands at last.
const REDELIVERY_WINDOW: i64 = 10_000;

/// Each segment begins with the window; a quarter of the segment is for it. Bytes of a message in it, at most.
const MARK: u64 = 64;

/// Kafka's default for `message.max.bytes` of a broker, less what surrounds a value.
const COMMON_LIMIT: u64 = 1_000_000;

/// The words of `queue.when_full`.
pub const WHEN_FULL: &[(&str, WhenFull)] =
    &[("block", WhenFull::Block), ("drop-oldest", WhenFull::DropOldest), ("thin", WhenFull::Thin)];

pub fn check(mut section: Section, around: Around<'_>, report: &mut Report) -> Queue {
    let path = path(&mut section, around, report);
    let max_size = section.size(report, "max_size", 4 * MIB..=16 * TIB, 2 * GIB);
    let min_free = section.size(report, "min_free", 0..=16 * TIB, 512 * MIB).or(512 * MIB);
    let when_full = when_full(&mut section, report);
    let segment_size = section.size(report, "segment_size", MIB..=256 * MIB, 16 * MIB);
    let commit_delay = section.duration(report, "commit_delay", MILLISECOND..=MINUTE, 5 * SECOND).or(5 * SECOND);
    let redelivery_window = section.count(report, "redelivery_window", 20..=65_535);
    let max_reading_size = section.size(report, "max_reading_size", KIB..=16 * MIB, 256 * KIB);
    let max_dead_letters = section.size(report, "max_dead_letters", MIB..=16 * GIB, 64 * MIB).or(64 * MIB);

    let dead_letters_max_age = section.duration(report, "dead_letters_max_age", HOUR..=3_650 * DAY, 365 * DAY);

    let card_endurance = section.size(report, "card_endurance", GIB..=16_384 * TIB, 10 * TIB);

    let at = |taken: &Taken<u64>| match taken {
        Taken::Value(given) => Some(given.place),
        Taken::Absent | Taken::Wrong => None,
    };
    let (max_at, segment_at, reading_at) = (at(&max_size), at(&segment_size), at(&max_reading_size));
    let window_at = match &redelivery_window {
        Taken::Value(given) => Some(given.place),
        Taken::Absent | Taken::Wrong => None,
    };
    let max_size = max_size.or(2 * GIB);
    let segment_size = segment_size.or(16 * MIB);
    let max_reading_size = max_reading_size.or(256 * KIB);
    if let (true, Some(place)) = (max_size < SEGMENTS * segment_size, max_at.or(segment_at)) {
        report.error(
            place,
            format!(
                "queue.max_size is {}: must be at least {SEGMENTS} times queue.segment_size, {}",
                quoted(&show_size(max_size)),
                show_size(SEGMENTS * segment_size)
            ),
            "the active segment, the one before it, a new one and the dead letters need room",
        );
    }
    if let (true, Some(place)) = (max_reading_size > segment_size / READINGS, reading_at.or(segment_at)) {
        report.error(
            place,
            format!(
                "queue.max_reading_size is {}: must be at most a quarter of queue.segment_size, {}",
                quoted(&show_size(max_reading_size)),
                show_size(segment_size / READINGS)
            ),
            "raise segment_size, or lower max_reading_size",
        );
    }
    let widest = i64::try_from(segment_size / READINGS / MARK).unwrap_or(i64::MAX);
    let redelivery_window = redelivery_window.or(REDELIVERY_WINDOW.min(widest));
    if let (true, Some(place)) = (redelivery_window > widest, window_at.or(segment_at)) {
        report.error(
            place,
            format!(
                "queue.redelivery_window is {redelivery_window}: must be at most {widest} with a queue.segment_size of {}",
                show_size(segment_size)
            ),
            "each segment begins with the window; raise segment_size, or lower redelivery_window",
        );
    }
    if let (true, Some(place)) = (max_reading_size > COMMON_LIMIT, reading_at) {
        report.warning(
            place,
            format!(
                "queue.max_reading_size is {}: Kafka refuses records above 1 MB by default",
                quoted(&show_size(max_reading_size))
            ),
            "raise max.message.bytes of the topic too; what Kafka refuses becomes a dead letter",
        );
    }
    section.finish(report, |_| None);
    Queue {
        path,
        max_size,
        min_free,
        when_full,
        segment_size,
        commit_delay,
        redelivery_window: usize::try_from(redelivery_window).unwrap_or(usize::MAX),
        max_reading_size: usize::try_from(max_reading_size).unwrap_or(256 << 10),
        max_dead_letters,
        dead_letters_max_age: dead_letters_max_age.given().map(|given| given.value),
        card_endurance: card_endurance.given().map(|given| given.value),
    }
}

fn when_full(section: &mut Section, report: &mut Report) -> WhenFull {
    section.choice(report, "when_full", WHEN_FULL).or(WhenFull::Block)
}

/// A relative path begins in the state folder.
fn path(section: &mut Section, around: Around<'_>, report: &mut Report) -> PathBuf {
    let given = match section.text(report, "path") {
        Taken::Value(given) => given,
        Taken::Absent => Given { place: Place { file: 0, line: 0 }, value: "queue".to_owned() },
        Taken::Wrong => return PathBuf::new(),
    };
    let Given { place, value } = given;
    if value.is_empty() || value.contains('\0') {
        report.error(
            place,
            format!("queue.path is {}: must name a folder", quoted(&value)),
            "leave it out for the default",
        );
        return PathBuf::new();
    }
    let path = PathBuf::from(&value);
    let path = if path.is_absolute() {
        path
    } else if let Some(state) = around.environment.state() {
        state.join(path)
    } else {
        report.error(
            place,
            format!("queue.path is {}: there is no state folder that it could be in", quoted(&value)),
            "write an absolute path, or set STATE_DIRECTORY, XDG_STATE_HOME or HOME",
        );
        return PathBuf::new();
    };
    if path.exists() && !path.is_dir() {
        report.error(
            place,
            format!("queue.path is {}: {} is no folder", quoted(&value), path.display()),
            "name a folder: it is made where it is not there",
        );
    }
    path
}
