//! When a device is asked: at whole multiples of the interval since the start, so that polls neither drift nor come in
//! bursts. Pure: the caller brings the time.

use std::time::Duration;

/// The polls of one source.
#[derive(Debug, Clone)]
pub struct Grid {
    interval: Duration,
    /// The number of the next poll.
    next: u64,
}

/// A poll that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Since the start.
    pub at: Duration,
    /// Polls that were due since the last one, and are not made up for.
    pub skipped: u64,
}

impl Grid {
    /// One whose first poll is due at the start. `interval` is not zero.
    pub fn new(interval: Duration) -> Self {
        Self { interval: interval.max(Duration::from_millis(1)), next: 0 }
    }

    /// The first poll that is not yet past `now` after the start.
    pub fn next(&mut self, now: Duration) -> Slot {
        let due = u64::try_from(now.as_nanos().div_ceil(self.interval.as_nanos())).unwrap_or(u64::MAX);
        let number = due.max(self.next);
        let skipped = number - self.next;
        self.next = number.saturating_add(1);
        Slot { at: self.at(number), skipped }
    }

    /// When the poll after the last one is due.
    pub fn following(&self) -> Duration {
        self.at(self.next)
    }

    fn at(&self, number: u64) -> Duration {
        let nanos = self.interval.as_nanos().saturating_mul(number.into());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Promise 6: whatever a poll takes, polls stay on the grid, no two come sooner than the interval allows, and those
        /// that were due and not made are counted, each once.
        #[test]
        fn no_drift_no_burst_nothing_uncounted(interval in 1_000_u64..100_000, took in proptest::collection::vec(0_u64..400_000, 1..50)) {
            let interval = Duration::from_millis(interval);
            let (mut grid, mut now, mut counted) = (Grid::new(interval), Duration::ZERO, 0);
            let mut last = None;
            for took in took {
                let slot = grid.next(now);
                prop_assert_eq!(slot.at.as_nanos() % interval.as_nanos(), 0);
                prop_assert!(slot.at >= now);
                prop_assert!(slot.at < now + interval, "it waits no longer than it must");
                prop_assert!(last.is_none_or(|last| slot.at >= last + interval));
                counted += slot.skipped + 1;
                prop_assert_eq!(u128::from(counted - 1) * interval.as_nanos(), slot.at.as_nanos());
                prop_assert_eq!(grid.following(), slot.at + interval);
                last = Some(slot.at);
                now = slot.at + Duration::from_millis(took).max(Duration::from_nanos(1));
            }
        }
    }
}
