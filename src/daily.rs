//! The daily receipt: by it any consumer can prove that it has everything, without reaching the Pi. Pure.
//!
//! When a day (UTC) is over the agent appends a record to its queue, which travels to Kafka in its place among the
//! readings and as exactly once as they do. It is filled in when it is sent, because only then is it certain what became of
//! the records before it. Its `ce_type` is [`CE_TYPE_RECEIPT`](crate::reading::CE_TYPE_RECEIPT), its key the agent's id, its topic the default one
//! (`kafka.topic`); its value is a [`DailyReceipt`] in JSON:
//!
//! ```json
//! {"day":"2026-06-21","first":86402,"last":172801,"count":86397,
//!  "gaps":[{"first":90000,"last":90002,"count":3,"reason":"not JSON"}]}
//! ```
//!
//! A receipt begins behind the one before it and ends before itself, so every sequence is covered by one receipt or is one.
//! A consumer has everything of that stretch when it has `count` records of the queue id (`ce_id` without its sequence)
//! with sequences from `first` to `last`, in whatever topics and partitions, gap records not counted.

use jiff::Span;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// Gaps that one receipt lists: 40 KB at most.
pub const MOST_GAPS: usize = 100;
/// Characters of a gap's reason in a receipt; its gap record has more.
const REASON: usize = 80;
/// Stands for the reasons of gaps that are not listed one by one.
const MANY: &str = "many gaps: each has its gap record";

/// The value of a daily receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DailyReceipt {
    /// The day (UTC) that was over; after days in which the agent did not run, the day it ran last.
    pub day: Date,
    /// The first sequence that it covers: one behind the receipt before, or where the queue id begins.
    pub first: u64,
    /// The last sequence that it covers: the one before its own. `first - 1` where nothing was stored.
    pub last: u64,
    /// Readings among them that are in Kafka.
    pub count: u64,
    /// The sequences that are not, rising; their counts and `count` make up all from `first` to `last`.
    pub gaps: Vec<Stretch>,
}

/// Sequences that will not be seen in Kafka, both ends inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    pub first: u64,
    pub last: u64,
    /// All from `first` to `last`; fewer where a day has more than [`MOST_GAPS`] gaps and the last ones are drawn together.
    pub count: u64,
    pub reason: String,
}

impl DailyReceipt {
    /// The same with all its gaps drawn together, for a topic that finds the list too large.
    pub fn without_list(mut self) -> Self {
        if let (Some(first), Some(last)) = (self.gaps.first(), self.gaps.last()) {
            let count = self.gaps.iter().map(|gap| gap.count).sum();
            self.gaps = vec![Stretch { first: first.first, last: last.last, count, reason: MANY.to_owned() }];
        }
        self
    }
}

/// What the next receipt will say, as far as it is known by what was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The first sequence that the next receipt covers.
    first: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<Stretch>,
    /// The newest receipt that was sent, and its sequence: should it be sent again, it says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent: Option<Sent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    sequence: u64,
    receipt: DailyReceipt,
}

impl Ledger {
    /// Of a queue id that begins with this sequence, or of which nothing is known before.
    pub fn new(first: u64) -> Self {
        Self { first, gaps: Vec::new(), sent: None }
    }

    /// Sequences for which a gap record is sent. True if that was not known.
    pub fn explain(&mut self, first: u64, last: u64, reason: &str) -> bool {
        let first = first.max(self.first);
        if first > last || self.explains(first, last) {
            return false;
        }
        self.cut_out(first, last);
        let new = Stretch { first, last, count: last - first + 1, reason: shortened(reason) };
        let at = self.gaps.partition_point(|gap| gap.first < first);
        match at.checked_sub(1).map(|before| &mut self.gaps[before]) {
            Some(before) if before.last + 1 == first && before.reason == new.reason => {
                before.last = last;
                before.count += new.count;
            }
            _ => self.gaps.insert(at, new),
        }
        self.draw_together();
        true
    }

    /// A reading is sent after all. True if a gap was known there.
    pub fn present(&mut self, sequence: u64) -> bool {
        self.closes(sequence) && self.cut_out(sequence, sequence)
    }

    /// Whether all of these are known as a gap, or lie before what the next receipt covers.
    pub fn explains(&self, first: u64, last: u64) -> bool {
        let at = self.gaps.partition_point(|gap| gap.first <= first);
        let holding = at.checked_sub(1).map(|before| &self.gaps[before]);
        last < self.first || holding.is_some_and(|gap| last <= gap.last)
    }

    /// Whether a reading at `sequence` would close a gap.
    pub fn closes(&self, sequence: u64) -> bool {
        let at = self.gaps.partition_point(|gap| gap.last < sequence);
        self.gaps.get(at).is_some_and(|gap| gap.first <= sequence && !gap.is_drawn_together())
    }

    /// What the receipt at `sequence` says.
    pub fn receipt(&self, day: Date, sequence: u64) -> DailyReceipt {
        if let Some(sent) = self.sent.as_ref().filter(|sent| sent.sequence == sequence) {
            return sent.receipt.clone();
        }
        let first = self.first.min(sequence);
        let last = sequence.saturating_sub(1);
        let gaps: Vec<Stretch> = self.gaps.iter().filter(|gap| gap.last <= last).cloned().collect();
        let missing: u64 = gaps.iter().map(|gap| gap.count).sum();
        DailyReceipt { day, first, last, count: sequence.saturating_sub(first).saturating_sub(missing), gaps }
    }

    /// Kafka has the receipt at `sequence`: the next one begins behind it. True if that was not known.
    pub fn sent(&mut self, day: Date, sequence: u64) -> bool {
        if sequence < self.first {
            return false;
        }
        let receipt = self.receipt(day, sequence);
        self.gaps.retain(|gap| gap.first > sequence);
        self.first = sequence + 1;
        self.sent = Some(Sent { sequence, receipt });
        true
    }

    /// Takes the sequences out of the gaps; those drawn together stay as they are, because none of them can be told.
    fn cut_out(&mut self, first: u64, last: u64) -> bool {
        let mut kept = Vec::with_capacity(self.gaps.len() + 1);
        let mut changed = false;
        for gap in self.gaps.drain(..) {
            if gap.last < first || last < gap.first || gap.is_drawn_together() {
                kept.push(gap);
                continue;
            }
            changed = true;
            for (from, to) in [(gap.first, first.saturating_sub(1)), (last.saturating_add(1), gap.last)] {
                if from <= to {
                    kept.push(Stretch { first: from, last: to, count: to - from + 1, reason: gap.reason.clone() });
                }
            }
        }
        self.gaps = kept;
        changed
    }

    fn draw_together(&mut self) {
        while self.gaps.len() > MOST_GAPS {
            let Some(newest) = self.gaps.pop() else { return };
            let Some(last) = self.gaps.last_mut() else { return };
            last.count += newest.count;
            last.last = newest.last;
            MANY.clone_into(&mut last.reason);
        }
    }
}

impl Stretch {
    fn is_drawn_together(&self) -> bool {
        self.count < self.last - self.first + 1
    }
}

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON) {
        None => reason.to_owned(),
        Some((at, _)) => format!("{}…", &reason[..at]),
    }
}

/// The day (UTC) of a time in milliseconds since 1970, counted from 1970-01-01.
pub fn day_of(wall_ms: i64) -> i32 {
    i32::try_from(wall_ms.div_euclid(24 * 60 * 60 * 1000)).unwrap_or(i32::MAX)
}

/// The date of a day counted from 1970-01-01; the nearest there is for one beyond the calendar.
pub fn date_of(day: i32) -> Date {
    let nearest = if day < 0 { Date::MIN } else { Date::MAX };
    let days = Span::new().try_days(day);
    days.and_then(|days| Date::constant(1970, 1, 1).checked_add(days)).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gap(first: u64, last: u64, reason: &str) -> Stretch {
        Stretch { first, last, count: last - first + 1, reason: reason.into() }
    }

    /// The format is a promise to consumers.
    #[test]
    fn a_receipt_is_as_documented() {
        let mut ledger = Ledger::new(86_402);
        assert!(ledger.explain(90_000, 90_001, "not JSON"));
        assert!(ledger.explain(90_002, 90_002, "not JSON"));
        assert!(!ledger.explain(90_001, 90_002, "not JSON"), "known");
        let receipt = ledger.receipt(date_of(20_625), 172_802);
        assert_eq!(
            serde_json::to_string(&receipt).expect("JSON"),
            concat!(
                r#"{"day":"2026-06-21","first":86402,"last":172801,"count":86397,"#,
                r#""gaps":[{"first":90000,"last":90002,"count":3,"reason":"not JSON"}]}"#
            )
        );
        assert_eq!([day_of(-1), day_of(0), day_of(1_782_000_000_000)], [-1, 0, 20_625]);
        assert_eq!(date_of(i32::MAX), Date::MAX);
    }

    /// Promise 5: receipts cover each sequence once, also after nothing was stored, and a repeated one says the same.
    #[test]
    fn receipts_follow_each_other() {
        let mut ledger = Ledger::new(1);
        let day = date_of(20_000);
        ledger.explain(3, 5, "damage");
        let first = ledger.receipt(day, 10);
        assert_eq!((first.first, first.last, first.count, &first.gaps), (1, 9, 6, &vec![gap(3, 5, "damage")]));
        assert!(ledger.sent(day, 10));
        assert!(!ledger.sent(day, 10), "known");
        assert_eq!(ledger.receipt(day, 10), first, "sent again, as at-least-once may");
        assert!(!ledger.explain(3, 5, "damage"), "told already");
        let empty = ledger.receipt(day, 11);
        assert_eq!((empty.first, empty.last, empty.count, empty.gaps.len()), (11, 10, 0, 0));
    }

    /// Promise 5: a reading that goes after all, as after a restart with a larger limit, is no gap any more.
    #[test]
    fn a_gap_that_closes_is_forgotten() {
        let mut ledger = Ledger::new(1);
        ledger.explain(3, 7, "too large");
        assert!(ledger.present(5) && !ledger.present(5) && !ledger.present(8));
        assert_eq!(ledger.receipt(date_of(1), 10).gaps, [gap(3, 4, "too large"), gap(6, 7, "too large")]);
        ledger.explain(4, 6, "damage");
        assert_eq!(
            ledger.receipt(date_of(1), 10).gaps,
            [gap(3, 3, "too large"), gap(4, 6, "damage"), gap(7, 7, "too large")]
        );
    }

    proptest! {
        /// Promises 5 and 6: whatever is missing, the counts fit, and the list stays short.
        #[test]
        fn counts_fit_and_the_list_is_bounded(missing in proptest::collection::btree_set(1u64..5_000, 0..2_000), again: bool) {
            let mut ledger = Ledger::new(1);
            for round in 0..=u8::from(again) {
                for sequence in &missing {
                    let changed = ledger.explain(*sequence, *sequence, if sequence % 3 == 0 { "a" } else { "b" });
                    prop_assert!(changed == (round == 0));
                }
            }
            let receipt = ledger.receipt(date_of(20_000), 5_000);
            prop_assert_eq!(receipt.count, 4_999 - missing.len() as u64);
            prop_assert!(receipt.gaps.len() <= MOST_GAPS);
            prop_assert!(receipt.gaps.is_sorted_by(|a, b| a.last < b.first));
            prop_assert_eq!(receipt.gaps.iter().map(|gap| gap.count).sum::<u64>(), missing.len() as u64);
        }
    }
}
