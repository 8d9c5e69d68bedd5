//! What was seen of one queue, and what follows from it. Pure.
//!
//! Kafka orders a partition and nothing beyond, so order is judged within each; sequences of one queue come interleaved
//! from all partitions of all topics, so what is missing is judged over all of them.
//!
//! In one partition the sequences of one queue rise. Kafka's dates do not rise with them: an agent that was started anew
//! does not remember its last one, clocks differ, and a reading that is sent again keeps its time. What lies in front of
//! the records that were read is therefore known by sequences.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::civil::Date;

use super::super::consume::record::{Content, Gap};
use super::intervals::Intervals;
use crate::daily::{DailyReceipt, Stretch};

/// Different reasons that are counted one by one; what comes beyond is counted as one more.
const REASONS: usize = 20;
/// The first sequence of a queue that was not forked.
const FIRST: u64 = 1;
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
    /// Of these: by what counts.
    told: u64,
    /// Sequences of the gap records themselves.
    gap_records: Intervals,
    /// Of these: what counts.
    gaps: u64,
    /// The lowest and the highest sequence of what counts.
    span: Option<(u64, u64)>,
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
    /// What the partition has in front of what was read is below it.
    lowest: u64,
    /// What was deleted from the partition is below it, going by what is in the others.
    since: u64,
    highest: u64,
    /// By key.
    devices: HashMap<Box<[u8]>, Device>,
}

#[derive(Debug)]
struct Device {
    highest: u64,
    /// Of the newest measurement that counts, milliseconds since 1970.
    time_ms: Option<i64>,
    /// Whether one of its readings counts.
    counts: bool,
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

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) place: usize,
    pub(super) sequence: u64,
    /// Whether it is of the time that is audited. What is not serves only to judge the others: it is in no figure.
    pub(super) counts: bool,
}

/// One reading, as far as an account goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) at: At,
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
        let At { sequence, counts, .. } = seen.at;
        if self.seen.insert(sequence..=sequence) == 0 {
            self.repeats += 1;
            return false;
        }
        self.follow(seen.at);
        if counts {
            self.readings += 1;
            let moment = Moment { sequence, time_ms: seen.time_ms };
            if self.first.is_none_or(|first| sequence < first.sequence) {
                self.first = Some(moment);
            }
            if self.last.is_none_or(|last| sequence > last.sequence) {
                self.last = Some(moment);
            }
        }
        let time_ms = seen.time_ms.filter(|_| counts);
        let Some(place) = self.places.get_mut(&seen.at.place) else { return false };
        let Some(device) = place.devices.get_mut(seen.key) else {
            place.devices.insert(seen.key.into(), Device { highest: sequence, time_ms, counts });
            return true;
        };
        device.counts |= counts;
        if sequence < device.highest {
            self.out_of_order.of_a_device += 1;
            return false;
        }
        if let (Some(before), Some(until_ms)) = (device.time_ms, time_ms) {
            let length_ms = until_ms.saturating_sub(before);
            if length_ms > self.pause.as_ref().map_or(0, |pause| pause.length_ms) {
                self.pause =
                    Some(Pause { length_ms, until_ms, device: String::from_utf8_lossy(seen.key).into_owned() });
            }
        }
        device.highest = sequence;
        device.time_ms = time_ms.or(device.time_ms);
        false
    }

    /// Takes a gap record.
    pub(super) fn gap(&mut self, at: At, gap: &Gap) {
        if self.gap_records.insert(at.sequence..=at.sequence) == 0 {
            self.repeats += 1;
            return;
        }
        self.follow(at);
        self.gaps += u64::from(at.counts);
        self.explain(gap.first, gap.last, at.counts.then_some(&gap.reason));
        // Its own sequence stands for what it explains, whether it says so or not.
        let new = self.explained.insert(at.sequence..=at.sequence);
        self.told += if at.counts { new } else { 0 };
    }

    /// Takes a daily receipt.
    pub(super) fn receipt(&mut self, at: At, receipt: &DailyReceipt) {
        if self.seen.insert(at.sequence..=at.sequence) == 0 {
            self.repeats += 1;
            return;
        }
        self.follow(at);
        for gap in receipt.gaps.iter().filter(|gap| is_exact(gap)) {
            self.explain(gap.first, gap.last, at.counts.then_some(&gap.reason));
        }
        if at.counts {
            let DailyReceipt { day, first, last, count, .. } = *receipt;
            self.receipts.push(Claim { day, first, last, count });
        }
    }

    /// Takes a record of ours of another kind, or one that cannot be read.
    pub(super) fn other(&mut self, at: At, readable: bool) {
        self.unreadable += u64::from(!readable);
        if self.seen.insert(at.sequence..=at.sequence) == 0 {
            self.repeats += 1;
            return;
        }
        self.follow(at);
    }

    /// The reason is counted where there is one.
    fn explain(&mut self, first: u64, last: u64, reason: Option<&String>) {
        let new = self.explained.insert(first..=last);
        let Some(reason) = reason.filter(|_| new > 0) else { return };
        self.told += new;
        let known = self.reasons.len() < REASONS || self.reasons.contains_key(reason);
        *self.reasons.entry(if known { reason } else { "other reasons" }.to_owned()).or_default() += new;
    }

    fn follow(&mut self, at: At) {
        let At { place, sequence, counts } = at;
        let place = self.places.entry(place).or_default();
        place.lowest = place.lowest.min(sequence);
        self.out_of_order.of_the_queue += u64::from(sequence < place.highest);
        place.highest = place.highest.max(sequence);
        if counts {
            let (lowest, highest) = self.span.unwrap_or((sequence, sequence));
            self.span = Some((lowest.min(sequence), highest.max(sequence)));
        }
    }

    /// A record of this queue was sent after all that was deleted from `place`; so was what has a higher sequence.
    pub(super) fn is_since(&mut self, place: usize, sequence: u64) {
        let place = self.places.entry(place).or_default();
        place.since = place.since.min(sequence);
    }

    /// Below it, records may have been in one of these partitions and are not there any more.
    fn floor(&self, cut: impl Iterator<Item = usize>) -> u64 {
        cut.map(|place| self.places.get(&place).map_or(u64::MAX, |place| place.lowest.min(place.since)))
            .max()
            .unwrap_or(0)
    }

    /// Sequences that are judged, both inclusive; `partial`: beginning with what counts, else with all that is known of.
    fn judged(&self, partial: bool) -> Option<(u64, u64)> {
        let begin = if partial {
            self.span.map(|(lowest, _)| lowest)
        } else {
            let claimed = self.receipts.iter().map(|claim| claim.first).min();
            [self.seen.first(), self.explained.first(), claimed].into_iter().flatten().min()
        };
        // An account that was only begun behind the horizon is not judged.
        begin.map(|begin| (begin, self.horizon.unwrap_or(0)))
    }

    /// What is neither there nor explained, within a range.
    fn holes(&self, (first, last): (u64, u64)) -> impl Iterator<Item = (u64, u64)> {
        self.seen.holes(first..=last).flat_map(|(first, last)| self.explained.holes(first..=last))
    }

    /// The first sequence that may lie in front of what was read, and how many there are.
    pub(super) fn sought(&self) -> Option<(u64, u64)> {
        let mut holes = self.holes(self.judged(true)?);
        let (first, last) = holes.next()?;
        Some((first, holes.fold(last - first + 1, |sum, (first, last)| sum.saturating_add(last - first + 1))))
    }

    /// Whether `place` has nothing from `sequence` on in front of what was read.
    pub(super) fn is_settled(&self, place: usize, sequence: u64) -> bool {
        self.places.get(&place).is_some_and(|place| place.lowest <= sequence)
    }

    /// A record that stands in front of what was read counts for nothing, but what it is or explains is not missing.
    pub(super) fn found(&mut self, place: usize, sequence: u64, content: &Content) {
        let place = self.places.entry(place).or_default();
        place.lowest = place.lowest.min(sequence);
        let Some((begin, horizon)) = self.judged(true) else { return };
        let is_sought = self.holes((sequence.max(begin), sequence.min(horizon))).next().is_some();
        let mut explain = |first: u64, last: u64, reason: &String| {
            let holes: Vec<_> = self.holes((first.max(begin), last.min(horizon))).collect();
            for (first, last) in holes {
                self.explain(first, last, Some(reason));
            }
        };
        match content {
            Content::Gap(gap) => explain(gap.first, gap.last, &gap.reason),
            Content::Receipt(receipt) => {
                let exact = receipt.gaps.iter().filter(|gap| is_exact(gap));
                exact.for_each(|gap| explain(gap.first, gap.last, &gap.reason));
            }
            Content::Reading(_) | Content::Other => {}
        }
        if is_sought {
            let sequences = if matches!(content, Content::Gap(_)) { &mut self.explained } else { &mut self.seen };
            sequences.insert(sequence..=sequence);
        }
    }

    /// What is there up to here is complete as far as it is; what comes later may come in any order over the partitions.
    pub(super) fn set_horizon(&mut self) {
        self.horizon = self.seen.last().max(self.explained.last());
    }

    /// What follows; none where nothing counts. `cut` names the partitions whose beginning was deleted; `partial`: what
    /// does not count was left out.
    pub(super) fn finding(mut self, queue: String, cut: &[usize], partial: bool) -> Option<Finding> {
        let floor = self.floor(cut.iter().copied());
        let contradictory = self.seen.in_common(&self.explained);
        let (begin, horizon) = self.judged(partial)?;
        let (_, highest) = self.span?;
        let end = if partial { highest } else { self.seen.last().max(self.explained.last()).unwrap_or(begin) };
        let (mut missing, mut not_kept) = (Missing::default(), 0);
        for (first, last) in self.holes((begin, horizon)) {
            if first < floor {
                not_kept += last.min(floor - 1) - first + 1;
            }
            if last >= floor {
                missing.add(first.max(floor), last);
            }
        }
        let devices = self.places.values().flat_map(|place| &place.devices);
        let devices = devices.filter(|(_, device)| device.counts).map(|(key, _)| key).collect::<HashSet<_>>().len();
        let beginning = match begin {
            0..=FIRST => Beginning::New,
            _ if partial || !cut.is_empty() => Beginning::LeftOut,
            _ => Beginning::Unknown,
        };
        Some(Finding {
            queue,
            first: self.first,
            last: self.last,
            beginning,
            begin,
            end,
            readings: self.readings,
            devices,
            gap_records: self.gaps,
            explained: self.told,
            contradictory,
            missing,
            not_kept,
            repeats: self.repeats,
            out_of_order: self.out_of_order,
            unreadable: self.unreadable,
            receipts: self.judge_receipts(floor.max(begin), horizon),
            agent: std::mem::take(&mut self.agent),
            reasons: std::mem::take(&mut self.reasons),
            pause: self.pause.take(),
        })
    }

    fn judge_receipts(&self, floor: u64, horizon: u64) -> Receipts {
        let mut receipts = Receipts { count: self.receipts.len() as u64, ..Receipts::default() };
        for claim in &self.receipts {
            receipts.newest = receipts.newest.max(Some(claim.day));
            if claim.first > claim.last {
                receipts.agree += 1;
                continue;
            }
            if claim.last > horizon {
                // Some of it may be on its way.
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

impl Default for Place {
    fn default() -> Self {
        Self { lowest: u64::MAX, since: u64::MAX, highest: 0, devices: HashMap::new() }
    }
}

/// Where gaps are drawn together it is not said which sequences are missing.
fn is_exact(gap: &Stretch) -> bool {
    gap.last.checked_sub(gap.first).and_then(|length| length.checked_add(1)) == Some(gap.count)
}

/// How a queue's sequences begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beginning {
    /// With the first one there is.
    New,
    /// With the first one there is, although the agent had this queue before: its folder was deleted or replaced.
    Anew(String),
    /// Behind the last one of this queue of the same agent: a fork.
    Fork(String),
    /// Later, because what was before was deleted by Kafka or not asked for.
    LeftOut,
    /// Later: a fork goes on counting, so nothing says whether there was anything before.
    Unknown,
}

/// What the audit says of one queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) agent: String,
    pub(super) queue: String,
    /// The readings with the lowest and the highest sequence.
    pub(super) first: Option<Moment>,
    pub(super) last: Option<Moment>,
    pub(super) beginning: Beginning,
    /// The lowest and the highest sequence.
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
    /// Sequences that are not there and may have been in what was deleted.
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
    /// About sequences that are not kept any more, or that do not count.
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
