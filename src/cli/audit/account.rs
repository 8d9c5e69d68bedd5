//! What was seen of one queue, and what follows from it. Pure.
//!
//! Kafka orders a partition and nothing beyond, so order is judged within each; sequences of one queue come interleaved
//! from all partitions of all topics, so what is missing is judged over all of them.

use std::collections::{BTreeMap, HashMap};

use jiff::civil::Date;

use super::intervals::Intervals;
use crate::daily::DailyReceipt;

/// Different reasons that are counted one by one; what comes beyond is counted as one more.
const REASONS: usize = 20;
/// Ranges of missing sequences that are listed.
const LISTED: usize = 100;

/// One queue, as its records tell.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// As the newest record names it.
    pub(super) agent: String,
    /// Sequences of readings and receipts.
    seen: Intervals,
    /// Sequences that gap records and receipts explain.
    explained: Intervals,
    /// Sequences of the gap records themselves.
    gap_records: Intervals,
    places: BTreeMap<usize, Place>,
    readings: u64,
    repeats: u64,
    /// Records that say to be ours and cannot be read.
    unreadable: u64,
    out_of_order: Disorder,
    reasons: BTreeMap<String, u64>,
    first: Option<Moment>,
    last: Option<Moment>,
    pause: Option<Pause>,
    receipts: Vec<Claim>,
    /// Above it, what is missing may be on its way.
    horizon: Option<u64>,
}

/// One partition's share of a queue.
#[derive(Debug)]
struct Place {
    lowest: u64,
    highest: u64,
    /// By key. Where none is here, the queue's records since the partition's first one begin with `lowest`, in other
    /// partitions.
    devices: HashMap<Box<[u8]>, Device>,
    is_here: bool,
}

#[derive(Debug)]
struct Device {
    highest: u64,
    /// Of the newest measurement, milliseconds since 1970.
    time_ms: Option<i64>,
}

/// A sequence and when it was measured (milliseconds since 1970).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) sequence: u64,
    pub(super) time_ms: Option<i64>,
}

/// Records behind a later one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Disorder {
    /// Of the same device in the same partition: what DESIGN's promise 4 excludes.
    pub(super) of_a_device: u64,
    /// Of the same queue in the same partition.
    pub(super) of_the_queue: u64,
}

/// A time without measurements of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) length_ms: i64,
    pub(super) until_ms: i64,
    pub(super) device: String,
}

/// What a daily receipt says.
#[derive(Debug)]
struct Claim {
    day: Date,
    first: u64,
    last: u64,
    count: u64,
}

/// One reading, as far as an account goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) place: usize,
    pub(super) sequence: u64,
    pub(super) key: &'a [u8],
    pub(super) time_ms: Option<i64>,
}

impl Account {
    /// Ranges that are kept in memory.
    pub(super) fn ranges(&self) -> usize {
        self.seen.ranges() + self.explained.ranges() + self.gap_records.ranges()
    }

    /// Takes a reading. True if its device is a new one in this partition.
    pub(super) fn reading(&mut self, seen: Seen<'_>) -> bool {
        if self.seen.insert(seen.sequence..=seen.sequence) == 0 {
            self.repeats += 1;
            return false;
        }
        self.readings += 1;
        let moment = Moment { sequence: seen.sequence, time_ms: seen.time_ms };
        if self.first.is_none_or(|first| moment.sequence < first.sequence) {
            self.first = Some(moment);
        }
        if self.last.is_none_or(|last| moment.sequence > last.sequence) {
            self.last = Some(moment);
        }
        self.follow(seen.place, seen.sequence);
        let Some(place) = self.places.get_mut(&seen.place) else { return false };
        let Some(device) = place.devices.get_mut(seen.key) else {
            place.devices.insert(seen.key.into(), Device { highest: seen.sequence, time_ms: seen.time_ms });
            return true;
        };
        if seen.sequence < device.highest {
            self.out_of_order.of_a_device += 1;
            return false;
        }
        if let (Some(before), Some(until_ms)) = (device.time_ms, seen.time_ms) {
            let length_ms = until_ms.saturating_sub(before);
            if length_ms > self.pause.as_ref().map_or(0, |pause| pause.length_ms) {
                self.pause =
                    Some(Pause { length_ms, until_ms, device: String::from_utf8_lossy(seen.key).into_owned() });
            }
        }
        device.highest = seen.sequence;
        device.time_ms = seen.time_ms.or(device.time_ms);
        false
    }

    /// Takes a gap record.
    pub(super) fn gap(&mut self, place: usize, sequence: u64, first: u64, last: u64, reason: &str) {
        if self.gap_records.insert(sequence..=sequence) == 0 {
            self.repeats += 1;
            return;
        }
        self.follow(place, sequence);
        self.explain(first, last, reason);
        // Its own sequence stands for what it explains, whether it says so or not.
        self.explained.insert(sequence..=sequence);
    }

    /// Takes a daily receipt.
    pub(super) fn receipt(&mut self, place: usize, sequence: u64, receipt: &DailyReceipt) {
        if self.seen.insert(sequence..=sequence) == 0 {
            self.repeats += 1;
            return;
        }
        self.follow(place, sequence);
        for gap in &receipt.gaps {
            // Where gaps are drawn together it is not said which sequences are missing.
            if gap.last.checked_sub(gap.first).and_then(|length| length.checked_add(1)) == Some(gap.count) {
                self.explain(gap.first, gap.last, &gap.reason);
            }
        }
        let DailyReceipt { day, first, last, count, .. } = *receipt;
        self.receipts.push(Claim { day, first, last, count });
    }

    /// Takes a record of ours of another kind, or one that cannot be read.
    pub(super) fn other(&mut self, place: usize, sequence: u64, readable: bool) {
        self.unreadable += u64::from(!readable);
        if self.seen.insert(sequence..=sequence) == 0 {
            self.repeats += 1;
            return;
        }
        self.follow(place, sequence);
    }

    fn explain(&mut self, first: u64, last: u64, reason: &str) {
        let new = self.explained.insert(first..=last);
        if new == 0 {
            return;
        }
        let known = self.reasons.len() < REASONS || self.reasons.contains_key(reason);
        *self.reasons.entry(if known { reason } else { "other reasons" }.to_owned()).or_default() += new;
    }

    fn follow(&mut self, place: usize, sequence: u64) {
        let place = self.places.entry(place).or_insert_with(|| Place::new(sequence));
        if !place.is_here {
            *place = Place { is_here: true, ..Place::new(sequence) };
        }
        place.lowest = place.lowest.min(sequence);
        self.out_of_order.of_the_queue += u64::from(sequence < place.highest);
        place.highest = place.highest.max(sequence);
    }

    /// A record of this queue is no older than the oldest that `place` still has.
    pub(super) fn is_since(&mut self, place: usize, sequence: u64) {
        let place = self.places.entry(place).or_insert_with(|| Place::new(sequence));
        if !place.is_here {
            place.lowest = place.lowest.min(sequence);
        }
    }

    /// Below it, records may have been in one of these partitions and are not there any more, or were not read.
    fn floor(&self, cut: impl Iterator<Item = usize>) -> u64 {
        cut.map(|place| self.places.get(&place).map_or(u64::MAX, |place| place.lowest)).max().unwrap_or(0)
    }

    /// What is there up to here is complete as far as it is; what comes later may come in any order over the partitions.
    pub(super) fn set_horizon(&mut self) {
        self.horizon = self.seen.last().max(self.explained.last());
    }

    /// What follows. `cut` names the partitions whose beginning was deleted or not read.
    pub(super) fn finding(mut self, queue: String, cut: impl Iterator<Item = usize>) -> Finding {
        let floor = self.floor(cut);
        let contradictory = self.seen.in_common(&self.explained);
        let claimed = self.receipts.iter().map(|claim| claim.first).min();
        let begin = [self.seen.first(), self.explained.first(), claimed].into_iter().flatten().min().unwrap_or(0);
        let receipts = self.judge_receipts(floor);
        let mut finding = Finding {
            agent: std::mem::take(&mut self.agent),
            queue,
            first: self.first,
            last: self.last,
            begin,
            end: self.seen.last().max(self.explained.last()).unwrap_or(begin),
            readings: self.readings,
            devices: self
                .places
                .values()
                .flat_map(|place| place.devices.keys())
                .collect::<std::collections::HashSet<_>>()
                .len(),
            gap_records: self.gap_records.count_within(0..=u64::MAX),
            explained: self.explained.count_within(0..=u64::MAX),
            contradictory,
            reasons: std::mem::take(&mut self.reasons),
            missing: Missing::default(),
            not_kept: 0,
            repeats: self.repeats,
            out_of_order: self.out_of_order,
            unreadable: self.unreadable,
            pause: self.pause.take(),
            receipts,
        };
        let Some(horizon) = self.horizon else { return finding };
        self.seen.extend(&self.explained);
        for (first, last) in self.seen.holes(begin..=horizon) {
            if first < floor {
                finding.not_kept += last.min(floor - 1) - first + 1;
            }
            if last >= floor {
                finding.missing.add(first.max(floor), last);
            }
        }
        finding
    }

    fn judge_receipts(&self, floor: u64) -> Receipts {
        let mut receipts = Receipts { count: self.receipts.len() as u64, ..Receipts::default() };
        for claim in &self.receipts {
            receipts.newest = receipts.newest.max(Some(claim.day));
            if claim.first > claim.last {
                receipts.agree += 1;
                continue;
            }
            if claim.first < floor {
                receipts.reach_back += 1;
                continue;
            }
            let seen = self.seen.count_within(claim.first..=claim.last);
            if seen == claim.count {
                receipts.agree += 1;
            } else if receipts.disagree.len() < LISTED {
                let Claim { day, first, last, count } = *claim;
                receipts.disagree.push(Disagreement { day, first, last, says: count, seen });
            }
        }
        receipts.disagree.sort_by_key(|wrong| wrong.first);
        receipts
    }
}

impl Place {
    fn new(sequence: u64) -> Self {
        Self { lowest: sequence, highest: sequence, devices: HashMap::new(), is_here: false }
    }
}

/// What the audit says of one queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) agent: String,
    pub(super) queue: String,
    /// The readings with the lowest and the highest sequence.
    pub(super) first: Option<Moment>,
    pub(super) last: Option<Moment>,
    /// Sequences that were judged, both inclusive.
    pub(super) begin: u64,
    pub(super) end: u64,
    /// Different readings.
    pub(super) readings: u64,
    pub(super) devices: usize,
    pub(super) gap_records: u64,
    /// Sequences that gap records or receipts explain.
    pub(super) explained: u64,
    /// Of these: there nevertheless.
    pub(super) contradictory: u64,
    /// Sequences explained with each reason.
    pub(super) reasons: BTreeMap<String, u64>,
    pub(super) missing: Missing,
    /// Sequences below what the partitions still have, or what was read of them.
    pub(super) not_kept: u64,
    pub(super) repeats: u64,
    pub(super) out_of_order: Disorder,
    pub(super) unreadable: u64,
    pub(super) pause: Option<Pause>,
    pub(super) receipts: Receipts,
}

impl Finding {
    /// Whether everything is there or explained, as far as Kafka still has it.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.count == 0 && !self.receipts.disagree.iter().any(|wrong| wrong.seen < wrong.says)
    }
}

/// Sequences that are neither there nor explained.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) count: u64,
    pub(super) ranges: u64,
    /// The first [`LISTED`] of them.
    pub(super) listed: Vec<(u64, u64)>,
}

impl Missing {
    fn add(&mut self, first: u64, last: u64) {
        self.count = self.count.saturating_add((last - first).saturating_add(1));
        self.ranges += 1;
        if self.listed.len() < LISTED {
            self.listed.push((first, last));
        }
    }
}

/// The daily receipts against what was seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Receipts {
    pub(super) count: u64,
    pub(super) newest: Option<Date>,
    pub(super) agree: u64,
    /// About sequences that are not kept any more, or were not read.
    pub(super) reach_back: u64,
    pub(super) disagree: Vec<Disagreement>,
}

/// A receipt that says something else than what was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disagreement {
    pub(super) day: Date,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) says: u64,
    pub(super) seen: u64,
}
