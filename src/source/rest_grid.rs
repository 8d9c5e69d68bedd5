//! When a device is asked: at every multiple of the interval, counted from the start. Pure: the caller brings the time.
//!
//! The grid neither drifts, because each time is a multiple and not the one before plus something, nor bursts: times that
//! passed while somebody waited are left out and counted.

use std::time::Duration;

/// The times at which something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    interval: Duration,
    /// Number of the last time that was taken.
    last: u64,
}

/// The next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// After the start.
    pub at: Duration,
    /// Times that passed unused before it.
    pub skipped: u64,
}

impl Grid {
    /// Times 0, `interval`, 2 × `interval` and so on after the start; the first is taken. At least 1 ms.
    pub fn new(interval: Duration) -> Self {
        Self { interval: interval.max(Duration::from_millis(1)), last: 0 }
    }

    /// Takes the first time that is neither taken nor past; `now` is the time since the start.
    pub fn next(&mut self, now: Duration) -> Due {
        let ceiling = now.as_nanos().div_ceil(self.interval.as_nanos());
        let number = u64::try_from(ceiling).unwrap_or(u64::MAX).max(self.last.saturating_add(1));
        let skipped = number - self.last - 1;
        self.last = number;
        let nanos = self.interval.as_nanos().saturating_mul(number.into());
        let at = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Due { at, skipped }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Promise 6: a device that was waited for is asked at the next time of the grid, and what passed is counted.
    #[test]
    fn a_pause_is_no_reason_for_a_burst() {
        let ms = Duration::from_millis;
        let mut grid = Grid::new(ms(1_000));
        assert_eq!(grid.next(ms(3)), Due { at: ms(1_000), skipped: 0 });
        assert_eq!(grid.next(ms(1_000)), Due { at: ms(2_000), skipped: 0 });
        assert_eq!(grid.next(ms(7_300)), Due { at: ms(8_000), skipped: 5 });
        assert_eq!(grid.next(ms(8_001)), Due { at: ms(9_000), skipped: 0 });
    }

    proptest! {
        /// Promise 6: whatever the pauses, every time is a multiple of the interval, later than the one before, never past,
        /// never more than an interval ahead of now or of the one before, and each multiple is taken or counted.
        #[test]
        fn every_time_is_on_the_grid(interval_ms in 1u64..100_000, pauses in proptest::collection::vec(0u64..1_000_000, 1..50)) {
            let interval = Duration::from_millis(interval_ms);
            let mut grid = Grid::new(interval);
            let (mut now, mut last, mut counted) = (Duration::ZERO, Duration::ZERO, 0);
            for pause in pauses {
                now += Duration::from_millis(pause);
                let due = grid.next(now);
                prop_assert_eq!(due.at.as_nanos() % interval.as_nanos(), 0);
                prop_assert!(due.at > last && due.at >= now);
                prop_assert!(due.at <= now.max(last) + interval);
                counted += due.skipped + 1;
                prop_assert_eq!(u128::from(counted), due.at.as_nanos() / interval.as_nanos());
                (now, last) = (due.at, due.at);
            }
        }
    }
}
