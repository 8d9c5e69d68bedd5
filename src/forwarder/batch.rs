//! How much one transaction may carry. Pure.
//!
//! A hung transaction holds up every reader of its partitions, so none is planned to stay open longer than
//! [`OPEN_LIMIT`] at the throughput measured so far; within that it carries as much as it can, because a transaction costs
//! the same whatever its size. On a connection of unknown speed it starts small.
//!
//! Where even a small one takes long, one with a single record tells a long way from a narrow one: that is what every
//! transaction costs there, and its content may take as long again.

use std::time::Duration;

/// No transaction is planned to stay open longer, where the way to Kafka and back allows it.
pub const OPEN_LIMIT: Duration = Duration::from_secs(2);

/// From here on nothing more is handed to an open transaction: the rest of [`OPEN_LIMIT`] is for what is in flight, and
/// for the commit.
pub const STREAM_LIMIT: Duration = Duration::from_secs(1);

/// Of the first transaction on a new connection: less than 2 s at 64 kbit/s. Where even that took too long, the next
/// connection begins with less.
const FIRST: Allowance = Allowance { records: 100, bytes: 12 * 1024 };

/// How much larger than the last one a transaction may be, however quickly that went.
const GROWTH: usize = 4;

/// How much the next transaction may carry; at least one record in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub records: usize,
    pub bytes: usize,
}

/// A record alone, whatever its size.
pub const ONE: Allowance = Allowance { records: 1, bytes: 1 };

/// What a transaction carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub records: usize,
    pub bytes: usize,
    /// One past the last sequence in it.
    pub next: u64,
}

/// Where records were refused: until the line is past it, transactions stay small.
#[derive(Debug, Clone, Copy)]
struct Suspects {
    end: u64,
    records: usize,
    /// The smallest load in bytes that was refused.
    refused_bytes: usize,
    /// Whether one of them was refused alone.
    condemned: bool,
}

/// The pace of one queue.
#[derive(Debug, Clone)]
pub struct Pace {
    /// `kafka.batch_count` and `kafka.batch_size`: however fast the connection, no transaction carries more.
    most: Allowance,
    allowance: Allowance,
    /// What a new connection begins with, and no transaction is planned to be smaller than; [`FIRST`] at most.
    start: Allowance,
    suspects: Option<Suspects>,
    /// A load above this was refused although none of its records was: the topic takes no larger batch. Believed for so
    /// many transactions more.
    ceiling: Option<(usize, u32)>,
    way: Way,
    /// Transactions since one failed, or `start` was raised.
    sound: u32,
}

/// What is known of how long the way to Kafka and back is.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// The next transaction carries one record, to find out.
    probing: bool,
    /// The shortest transaction since one with a single record was tried; none was, where none is.
    shortest: Option<Duration>,
    /// Transactions since then.
    since: u32,
}

/// After so many transactions that took too long, the way is measured anew: it may have become longer.
const PROBE_TURNS: u32 = 20;

impl Way {
    /// What the content of a transaction took that was open for `open`, and what it may take.
    fn content(&self, open: Duration) -> (Duration, Duration) {
        const TARGET: Duration = OPEN_LIMIT.checked_div(2).expect("two is not zero");
        // Half of the limit, so that a connection which slows down to a half still keeps to it.
        let Some(shortest) = self.shortest else { return (open, TARGET) };
        (open.saturating_sub(shortest), TARGET.saturating_sub(shortest).max(shortest.min(TARGET)))
    }

    /// After a transaction that carried `load`.
    fn went(&mut self, load: Load, open: Duration) {
        if std::mem::take(&mut self.probing) {
            (self.shortest, self.since) = (Some(open), 0);
            return;
        }
        self.shortest = self.shortest.map(|shortest| shortest.min(open));
        self.since = self.since.saturating_add(1);
        let (took, target) = self.content(open);
        let due = match self.shortest {
            None => open > target / 2,
            Some(_) => took > target && self.since >= PROBE_TURNS,
        };
        self.probing = due && load.records > 1;
    }
}

/// How many transactions a ceiling is believed: the topic may be configured anew.
const CEILING_TURNS: u32 = 1_000;

impl Pace {
    /// Of a connection of unknown speed.
    pub fn new(most: Allowance) -> Self {
        Self { most, allowance: FIRST, start: FIRST, suspects: None, ceiling: None, way: Way::default(), sound: 0 }
    }

    /// Of the next transaction.
    pub fn allowance(&self) -> Allowance {
        if self.way.probing {
            return ONE;
        }
        let records = self.suspects.map_or(self.most.records, |suspects| suspects.records.min(self.most.records));
        let bytes = self.ceiling.map_or(self.most.bytes, |(bytes, _)| bytes.min(self.most.bytes));
        Allowance { records: self.allowance.records.min(records), bytes: self.allowance.bytes.min(bytes) }
    }

    /// After a connection was made anew: its speed is unknown.
    pub fn connected(&mut self) {
        self.allowance = self.start;
        self.way = Way::default();
    }

    /// After a transaction that was open for `open` and came to nothing, through no fault of its records: on a slow or throttled
    /// line it was too large, and would be at every attempt.
    pub fn failed(&mut self, load: Load, open: Duration) {
        self.sound = 0;
        if open > OPEN_LIMIT {
            self.start.records = self.start.records.min(load.records / 2).max(1);
            self.start.bytes = self.start.bytes.min(load.bytes / 2).max(1);
        }
    }

    /// After a transaction that took `open` from its first record to its end.
    pub fn committed(&mut self, load: Load, open: Duration) {
        self.ceiling = self.ceiling.and_then(|(bytes, turns)| Some((bytes, turns.checked_sub(1)?)));
        match &mut self.suspects {
            Some(suspects) if load.next >= suspects.end => {
                if !suspects.condemned {
                    self.ceiling = Some(((suspects.refused_bytes / 2).max(1), CEILING_TURNS));
                }
                self.suspects = None;
            }
            // The refused record is behind; there may be others.
            Some(suspects) if suspects.condemned => suspects.records = suspects.records.saturating_mul(2),
            _ => {}
        }
        let probed = self.way.probing;
        self.way.went(load, open);
        if probed {
            return;
        }
        let (took, target) = self.way.content(open);
        let fits = |amount: usize| {
            // One record was in the shortest transaction too.
            let one = if self.way.shortest.is_some() { amount / load.records.max(1) } else { 0 };
            let target = (amount - one) as u128 * target.as_micros() / took.as_micros().max(1);
            usize::try_from(target).unwrap_or(usize::MAX).saturating_add(one)
        };
        let (records, bytes) = (self.allowance.records, self.allowance.bytes);
        self.sound += 1;
        // However long they take: many that got through say that a larger one may.
        if took <= target || self.sound >= PROBE_TURNS {
            self.sound = 0;
            self.start.records = self.start.records.saturating_mul(2).min(FIRST.records);
            self.start.bytes = self.start.bytes.saturating_mul(2).min(FIRST.bytes);
        }
        self.allowance = if took > target {
            // Never below the start.
            Allowance {
                records: records.min(fits(load.records)).max(self.start.records),
                bytes: bytes.min(fits(load.bytes)).max(self.start.bytes),
            }
        } else if load.records.saturating_mul(2) >= records || load.bytes.saturating_mul(2) >= bytes {
            Allowance {
                records: fits(load.records)
                    .min(records.saturating_mul(GROWTH))
                    .max(records.max(self.start.records))
                    .min(self.most.records.max(FIRST.records)),
                bytes: fits(load.bytes)
                    .min(bytes.saturating_mul(GROWTH))
                    .max(bytes.max(self.start.bytes))
                    .min(self.most.bytes.max(FIRST.bytes)),
            }
        } else {
            self.allowance
        };
    }

    /// After a transaction with `load` was refused because of a record or their size: half as many.
    pub fn refused(&mut self, load: Load) {
        let before = self.suspects;
        self.suspects = Some(Suspects {
            end: before.map_or(load.next, |suspects| suspects.end.max(load.next)),
            records: (load.records / 2).max(1),
            refused_bytes: before.map_or(load.bytes, |suspects| suspects.refused_bytes.min(load.bytes)),
            condemned: before.is_some_and(|suspects| suspects.condemned),
        });
    }

    /// After the only record of a transaction was condemned.
    pub fn condemned(&mut self) {
        if let Some(suspects) = &mut self.suspects {
            suspects.condemned = true;
        }
    }
}

#[cfg(test)]
mod tests {
    /// More than any of these connections carries.
    const MOST: Allowance = Allowance { records: 500_000, bytes: 256 << 20 };

    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Promise 6: on a line of any steady speed and length, transactions of a long backlog come to fill the time they may
        /// take and never stay open longer than the limit, or than two of one record, once the speed could be measured.
        #[test]
        fn transactions_keep_to_the_limit(rate in 1_000u64..200_000_000, size in 50usize..2_000, fixed_ms in 1u64..3_000) {
            let content = Duration::from_secs_f64(size as f64 / rate as f64);
            let one = Duration::from_millis(fixed_ms) + content;
            // What one record takes is not known more exactly than that.
            let limit = OPEN_LIMIT.max(2 * one) + content;
            let mut pace = Pace::new(MOST);
            for _ in 0..60 {
                let allowance = pace.allowance();
                let records = allowance.records.min(allowance.bytes / size).max(1);
                let bytes = records * size;
                let open = Duration::from_millis(fixed_ms) + Duration::from_secs_f64(bytes as f64 / rate as f64);
                let least = bytes <= FIRST.bytes + size || records == 1;
                prop_assert!(least || open <= limit + Duration::from_millis(1), "{open:?}");
                pace.committed(Load { records, bytes, next: 0 }, open);
            }
            let allowance = Pace { way: Way::default(), ..pace }.allowance();
            let bytes = allowance.bytes.min(allowance.records * size) as f64;
            let possible = (rate as f64 / 4.0).min(MOST.bytes as f64).min((MOST.records * size) as f64);
            prop_assert!(bytes >= possible.min(FIRST.bytes as f64) && bytes >= possible / 2.0, "{bytes} of {possible}");
        }

        /// Promise 5: on a line so slow, or so throttled, that the first transaction cannot be finished in its time, smaller ones
        /// get through as long as a single record does, and on a line that recovers they grow again.
        #[test]
        fn slow_line_is_not_stuck(rate in 50u64..20_000, size in 50usize..2_000, fixed_ms in 1u64..1_500) {
            const TIMEOUT: Duration = Duration::from_secs(5);
            let took = |bytes: usize, rate: u64| {
                Duration::from_millis(fixed_ms) + Duration::from_secs_f64(bytes as f64 / rate as f64)
            };
            prop_assume!(took(size, rate) < TIMEOUT);
            let (mut pace, mut carried, mut most) = (Pace::new(MOST), 0, 0);
            for round in 0..120 {
                let rate = if round < 40 { rate } else { 10_000_000 };
                let allowance = pace.allowance();
                let records = allowance.records.min(allowance.bytes / size).max(1);
                let (load, open) = (Load { records, bytes: records * size, next: 0 }, took(records * size, rate));
                if open > TIMEOUT {
                    prop_assert!(round < 8 || carried > 0, "nothing carried after {round} rounds");
                    pace.failed(load, TIMEOUT);
                    pace.connected();
                } else {
                    carried += records;
                    if round >= 100 {
                        most = most.max(records);
                    }
                    pace.committed(load, open);
                }
            }
            prop_assert!(carried > 30, "{carried}");
            prop_assert!(most * size >= FIRST.bytes || most >= FIRST.records, "{most}");
        }

        /// Promise 5: halving finds the refused records one by one, condemns none of their neighbours, and comes to an end.
        #[test]
        fn only_a_record_alone_is_condemned(bad in proptest::collection::btree_set(0u64..200, 0..6)) {
            let (mut pace, mut position, mut condemned) = (Pace::new(MOST), 0u64, std::collections::BTreeSet::new());
            for _ in 0..1_000 {
                if position >= 200 { break; }
                let records = (pace.allowance().records as u64).min(200 - position);
                let load = Load { records: records as usize, bytes: records as usize * 100, next: position + records };
                let refused = (position..load.next).any(|n| bad.contains(&n) && !condemned.contains(&n));
                match (refused, records) {
                    (true, 1) => { condemned.insert(position); pace.refused(load); pace.condemned(); }
                    (true, _) => pace.refused(load),
                    (false, _) => { position = load.next; pace.committed(load, Duration::from_millis(20)); }
                }
            }
            prop_assert_eq!(position, 200);
            prop_assert_eq!(condemned, bad);
        }
    }

    /// Promise 5: a topic that takes only small batches is found out once, not at every transaction.
    #[test]
    fn batch_limit_of_a_topic_is_learned() {
        let (mut pace, mut position, mut refusals) = (Pace::new(MOST), 0u64, 0);
        while position < 100_000 {
            let allowance = pace.allowance();
            let records = allowance.records.min(allowance.bytes / 100).max(1);
            let load = Load { records, bytes: records * 100, next: position + records as u64 };
            if load.bytes > 5_000 {
                refusals += 1;
                pace.refused(load);
            } else {
                position = load.next;
                pace.committed(load, Duration::from_millis(20));
            }
        }
        assert!(refusals < 10, "{refusals}");
    }
}
