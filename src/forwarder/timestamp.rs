//! The record's timestamp in Kafka: when it was measured, but never so old that Kafka deletes it on arrival, never later
//! than now, and rising. Pure.
//!
//! Kafka deletes by record timestamp: a backlog older than the topic's `retention.ms` is gone at the next retention
//! check. It refuses what is older than `message.timestamp.before.max.ms`, and, since version 4, what is an hour ahead.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A device's clock is believed where it is within this of the time of receipt (milliseconds).
pub const BELIEVABLE_MS: i64 = 5 * 60 * 1000;

/// What a topic does with old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicLimits {
    /// `retention.ms`; none: unlimited.
    pub retention_ms: Option<i64>,
    /// `message.timestamp.before.max.ms`; none: unlimited.
    pub before_max_ms: Option<i64>,
    /// `cleanup.policy` has `compact`: only the newest record of a key is kept.
    pub compact: bool,
}

impl TopicLimits {
    /// The oldest timestamp that survives: half of the retention is left to read it, and a tenth of the other limit, at
    /// most five minutes, for the way there.
    pub fn floor(&self, now_ms: i64) -> i64 {
        let kept = self.retention_ms.map_or(i64::MIN, |limit| now_ms.saturating_sub(limit / 2));
        let taken = self
            .before_max_ms
            .map_or(i64::MIN, |limit| now_ms.saturating_sub(limit.saturating_sub((limit / 10).min(BELIEVABLE_MS))));
        kept.max(taken)
    }
}

/// When it was measured, as far as can be believed: the device's time where it is close to `received_ms`, else that.
pub fn measured(measured_ms: Option<i64>, received_ms: i64) -> i64 {
    measured_ms.filter(|ms| ms.abs_diff(received_ms) <= BELIEVABLE_MS.unsigned_abs()).unwrap_or(received_ms)
}

/// When it was measured, where the time of receipt is not known: what the device says, unless that cannot be either.
pub fn measured_only(measured_ms: Option<i64>, received_ms: i64, possible: RangeInclusive<i64>) -> i64 {
    measured_ms.filter(|ms| possible.contains(ms)).unwrap_or(received_ms)
}

/// A timestamp for Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970, above 0.
    pub ms: i64,
    /// Whether it was raised, because Kafka would have deleted or refused the record.
    pub late: bool,
}

/// The highest timestamp of each topic so far.
#[derive(Debug, Clone, Default)]
pub struct Stamps(BTreeMap<Arc<str>, i64>);

/// Kafka refuses what is further ahead of its own clock (`message.timestamp.after.max.ms`, by default).
const AHEAD_MS: i64 = 60 * 60 * 1000;

impl Stamps {
    /// Whether Kafka has taken a timestamp that it could not have taken if it were `now_ms`: our clock was set back.
    pub fn are_ahead_of(&self, now_ms: i64) -> bool {
        self.0.values().any(|taken| taken.saturating_sub(AHEAD_MS) > now_ms)
    }

    /// The timestamp of the next record of `topic`, measured at `natural_ms`.
    pub fn next(&mut self, topic: &Arc<str>, natural_ms: i64, limits: &TopicLimits, now_ms: i64) -> Stamp {
        let floor = limits.floor(now_ms);
        let late = natural_ms < floor;
        // Zero and below mean "no timestamp" to the client library.
        let mut ms = natural_ms.max(floor).min(now_ms).max(1);
        match self.0.get_mut(topic) {
            // A clock that was set back: never later than now comes before rising.
            Some(last) => {
                ms = ms.max((*last).min(now_ms)).max(1);
                *last = ms;
            }
            None => drop(self.0.insert(Arc::clone(topic), ms)),
        }
        Stamp { ms, late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000;
    const NOW: i64 = 1_800_000_000_000;

    fn limits(retention_ms: Option<i64>, before_max_ms: Option<i64>) -> TopicLimits {
        TopicLimits { retention_ms, before_max_ms, compact: false }
    }

    /// Promise 8: a reading 21 days old arrives with 3.5 of 7 days left; `retention.ms = -1` changes nothing.
    #[test]
    fn late_reading_is_raised_above_retention() {
        let topic: Arc<str> = "t".into();
        let stamp = Stamps::default().next(&topic, NOW - 21 * DAY, &limits(Some(7 * DAY), None), NOW);
        assert_eq!(stamp, Stamp { ms: NOW - 7 * DAY / 2, late: true });
        let stamp = Stamps::default().next(&topic, NOW - 21 * DAY, &limits(None, None), NOW);
        assert_eq!(stamp, Stamp { ms: NOW - 21 * DAY, late: false });
        let stamp = Stamps::default().next(&topic, NOW - 21 * DAY, &limits(None, Some(DAY)), NOW);
        assert!(stamp.late && stamp.ms > NOW - DAY && stamp.ms < NOW - 23 * DAY / 24);
        assert_eq!(Stamps::default().next(&topic, 0, &limits(None, None), NOW).ms, 1, "0 would mean now");
    }

    /// Promise 8: a meter whose clock is wrong by years says nothing about time.
    #[test]
    fn wrong_meter_clock_is_not_believed() {
        assert_eq!(measured(Some(1_104_537_600_000), NOW), NOW);
        assert_eq!(measured(Some(0), NOW), NOW);
        assert_eq!(measured(Some(i64::MIN), NOW), NOW);
        assert_eq!(measured(Some(NOW - 1500), NOW), NOW - 1500);
        assert_eq!(measured(None, NOW), NOW);
        assert_eq!(measured_only(Some(NOW - DAY), 60_000, NOW - 30 * DAY..=NOW), NOW - DAY, "better than 1970");
        assert_eq!(measured_only(Some(NOW + 1), 60_000, NOW - 30 * DAY..=NOW), 60_000);
        assert_eq!(measured_only(None, 60_000, NOW - 30 * DAY..=NOW), 60_000);
    }

    proptest! {
        /// Promises 4 and 8: never later than now, never below what Kafka keeps, rising while the clock does.
        #[test]
        fn within_limits_and_rising(
            steps in proptest::collection::vec((-30 * DAY..2 * DAY, 0i64..DAY), 1..60),
            retention in proptest::option::of(1i64..30 * DAY), before in proptest::option::of(1i64..30 * DAY),
        ) {
            let (topic, limits) = (Arc::<str>::from("t"), limits(retention, before));
            let (mut stamps, mut now, mut last) = (Stamps::default(), NOW, 0);
            for (age, pause) in steps {
                now += pause;
                let stamp = stamps.next(&topic, now + age, &limits, now);
                prop_assert!(stamp.ms <= now);
                prop_assert!(stamp.ms >= limits.floor(now).min(now));
                prop_assert!(stamp.ms >= last);
                last = stamp.ms;
            }
        }
    }
}
