//! `queue.toml`: whose queue this is, and what has to outlive a restart besides the records.
//!
//! The first line is a comment with the CRC-32 (8 hexadecimal digits) of all that follows: one changed digit would make it
//! another queue. Format 1 has no such line.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::error::OpenError;
use super::folder::{Folder, is_medium};
use crate::daily::Ledger;
use crate::reading::QueueId;

pub(super) const FILE: &str = "queue.toml";
/// The folder's format that this release writes; older ones are read. 1: every record alone under its sequence; 2: records
/// in blocks; 3: readings made of several messages, or in our own form.
pub const FORMAT: u32 = 3;

/// Before the checksum in the first line.
const CHECKSUM: &str = "# crc32 ";

/// The content of `queue.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    /// Part of every checksum: the queue id that the folder was made with. A fork leaves it as it is.
    #[serde(with = "hex")]
    pub origin: u128,
    /// Names the sequence numbers; a fork replaces it.
    #[serde(with = "hex")]
    pub queue_id: u128,
    pub agent_id: String,
    /// Of the machine that wrote here last; none where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware_serial: Option<String>,
    /// First sequence of the newest segment: without it, nobody would miss that file.
    #[serde(default)]
    pub newest: u64,
    /// MQTT filters subscribed so far, of each source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filters: BTreeMap<String, Vec<String>>,
    /// Sequences that damage took and that are not released yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// Sequences given up for want of room that are not released yet, rising, none overlapping.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
    /// What the daily receipts need to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<Daily>,
}

/// What the daily receipts need to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daily {
    /// The day (UTC) whose receipt comes next, counted from 1970-01-01; none: not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_day: Option<i32>,
    /// What it will say.
    pub ledger: Ledger,
}

/// A range of sequences that cannot be read, both ends inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub first: u64,
    pub last: u64,
    pub reason: String,
}

/// A range of sequences, both ends inclusive, of which records were given up because the queue was full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub first: u64,
    pub last: u64,
    /// The last reading of each interval of so many seconds was kept; none: nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_in_s: Option<u64>,
}

impl Dropped {
    /// What the gap records say.
    pub fn reason(&self) -> String {
        match self.one_in_s {
            None => "the queue was full: the oldest records were dropped".to_owned(),
            Some(seconds) => format!("the queue was full: thinned to one reading in {seconds} s"),
        }
    }

    /// Adds to `ranges`, in the stead of what they said about the same sequences.
    pub(super) fn note(self, ranges: &mut Vec<Self>) {
        let mut all = Vec::with_capacity(ranges.len() + 2);
        for old in ranges.drain(..) {
            if old.first < self.first {
                all.push(Self { last: old.last.min(self.first - 1), ..old.clone() });
            }
            if old.last > self.last {
                all.push(Self { first: old.first.max(self.last + 1), ..old });
            }
        }
        all.push(self);
        all.sort_by_key(|range| range.first);
        for range in all {
            match ranges.last_mut() {
                Some(before)
                    if before.last.checked_add(1) == Some(range.first) && before.one_in_s == range.one_in_s =>
                {
                    before.last = range.last;
                }
                _ => ranges.push(range),
            }
        }
    }
}

impl Identity {
    /// A new queue's.
    pub fn new(agent_id: &str, hardware_serial: Option<String>) -> Self {
        let queue_id = rand::random();
        Self {
            format: FORMAT,
            origin: queue_id,
            queue_id,
            agent_id: agent_id.to_owned(),
            hardware_serial,
            newest: 0,
            filters: BTreeMap::new(),
            lost: Vec::new(),
            dropped: Vec::new(),
            daily: None,
        }
    }

    pub fn queue_id(&self) -> QueueId {
        QueueId(self.queue_id)
    }

    /// Reads the folder's identity; none where there is none. A file that makes no sense is `Err(Ok(reason))`.
    pub(super) fn read(folder: &Folder) -> Result<Option<Self>, Unreadable> {
        let path = folder.file(FILE);
        let bytes = match folder.read(FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) if is_medium(&source) => return Err(Unreadable::Damaged(source.to_string())),
            Err(source) => return Err(Unreadable::Refused(OpenError::Folder { path, source })),
        };
        if let Some(found) = newer(&bytes) {
            return Err(Unreadable::Refused(OpenError::Newer { path, found, known: FORMAT }));
        }
        parse(&bytes).map(Some).map_err(Unreadable::Damaged)
    }

    pub(super) fn write(&self, folder: &Folder) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let checksum = crc32fast::hash(text.as_bytes());
        folder.replace(FILE, format!("{CHECKSUM}{checksum:08x}\n{text}").as_bytes())
    }

    /// Sequences of a range that are known to hold nothing.
    pub fn missing(&self, within: Range<u64>) -> u64 {
        missing(&self.lost, &self.dropped, within)
    }

    /// Whether everything that is missing between `first` and `last` (inclusive) is explained: lost, or given up.
    pub(super) fn explains(&self, first: u64, last: u64) -> bool {
        let lost = self.lost.iter().map(|lost| (lost.first, lost.last));
        let mut known: Vec<_> = lost.chain(self.dropped.iter().map(|range| (range.first, range.last))).collect();
        known.sort_unstable();
        let explained = known.into_iter().fold(
            first,
            |next, (from, to)| {
                if from <= next { next.max(to.saturating_add(1)) } else { next }
            },
        );
        explained > last
    }

    /// Whether all of a range is known to be lost.
    pub(super) fn knows_lost(&self, range: &Lost) -> bool {
        self.lost.iter().any(|known| known.first <= range.first && range.last <= known.last)
    }
}

/// Sequences of a range that are known to hold nothing: they are lost, or were given up without one being kept.
pub(super) fn missing(lost: &[Lost], dropped: &[Dropped], within: Range<u64>) -> u64 {
    let lost = lost.iter().map(|range| (range.first, range.last));
    let dropped = dropped.iter().filter(|range| range.one_in_s.is_none()).map(|range| (range.first, range.last));
    let mut ranges: Vec<(u64, u64)> = lost.chain(dropped).collect();
    ranges.sort_unstable();
    let (mut count, mut from) = (0, within.start);
    for (first, last) in ranges {
        let (first, next) = (first.max(from), last.saturating_add(1).min(within.end));
        count += next.saturating_sub(first);
        from = from.max(next);
    }
    count
}

/// The format of a sound file that is newer than this release's. Nothing else of it may be as it is known here.
fn newer(bytes: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Claim {
        format: u32,
    }
    let (content, true) = content(bytes).ok()? else { return None };
    let claim: Claim = toml::from_str(content).ok()?;
    Some(claim.format).filter(|format| *format > FORMAT)
}

fn parse(bytes: &[u8]) -> Result<Identity, String> {
    let (content, checked) = content(bytes)?;
    let identity: Identity = toml::from_str(content).map_err(|error| error.message().to_owned())?;
    if !checked && identity.format > 1 {
        return Err("the checksum is missing".to_owned());
    }
    Ok(identity)
}

/// All but the checksum, and whether there is one.
fn content(bytes: &[u8]) -> Result<(&str, bool), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    match text.strip_prefix(CHECKSUM).and_then(|rest| rest.split_once('\n')) {
        None => Ok((text, false)),
        Some((checksum, content)) if checksum == format!("{:08x}", crc32fast::hash(content.as_bytes())) => {
            Ok((content, true))
        }
        Some(_) => Err("the checksum does not fit".to_owned()),
    }
}

/// Why [`Identity::read`] gave none.
pub(super) enum Unreadable {
    Refused(OpenError),
    Damaged(String),
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Promise 7: what a later release wrote is refused as newer, whatever else stands in it; a damaged file is not.
    #[test]
    fn a_newer_format_is_told_from_damage() {
        let file = |content: &str| format!("{CHECKSUM}{:08x}\n{content}", crc32fast::hash(content.as_bytes()));
        let strange = format!("format = {}\nqueue = [\"as nobody knows it yet\"]\n", FORMAT + 1);
        assert_eq!(newer(file(&strange).as_bytes()), Some(FORMAT + 1));
        assert_eq!(newer(file(&strange).replace("nobody", "nob0dy").as_bytes()), None);
        assert_eq!(newer(strange.as_bytes()), None);
        assert_eq!(newer(file(&format!("format = {FORMAT}\n")).as_bytes()), None);
    }

    proptest! {
        /// Each missing sequence is counted once, however many ranges tell of it.
        #[test]
        fn missing_sequences_are_counted_once(
            ranges in proptest::collection::vec((1u64..60, 0u64..20, 0u8..3), 0..8),
            start in 1u64..60,
            length in 0u64..60,
        ) {
            let (mut lost, mut dropped) = (Vec::new(), Vec::new());
            let mut model = std::collections::BTreeSet::new();
            for (first, more, kind) in ranges {
                let last = first + more;
                match kind {
                    0 => lost.push(Lost { first, last, reason: String::new() }),
                    1 => dropped.push(Dropped { first, last, one_in_s: None }),
                    // Some of these are there.
                    _ => dropped.push(Dropped { first, last, one_in_s: Some(10) }),
                }
                if kind < 2 {
                    model.extend(first..=last);
                }
            }
            let within = start..start + length;
            prop_assert_eq!(missing(&lost, &dropped, within.clone()), model.range(within).count() as u64);
        }

        /// Promise 5: what was last said about a sequence is what explains it, and the ranges stay few and in order.
        #[test]
        fn the_newest_word_about_a_sequence_counts(
            words in proptest::collection::vec((1u64..60, 0u64..20, proptest::option::of(1u64..3)), 0..20),
        ) {
            let (mut ranges, mut model) = (Vec::new(), BTreeMap::new());
            for (first, more, one_in_s) in words {
                Dropped { first, last: first + more, one_in_s }.note(&mut ranges);
                (first..=first + more).for_each(|sequence| {
                    model.insert(sequence, one_in_s);
                });
            }
            let mut told = BTreeMap::new();
            for range in &ranges {
                prop_assert!(range.first <= range.last);
                for sequence in range.first..=range.last {
                    prop_assert!(told.insert(sequence, range.one_in_s).is_none());
                }
            }
            prop_assert_eq!(told, model);
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].last < pair[1].first);
                prop_assert!(pair[0].last + 1 < pair[1].first || pair[0].one_in_s != pair[1].one_in_s);
            }
        }
    }
}
