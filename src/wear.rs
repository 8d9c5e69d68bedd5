//! How much the card is written to: bytes as the kernel counts them, flushes as the queue's disk does, kept over restarts.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Nothing is said about a year before so much of it was seen: the first minutes are no example.
const ENOUGH: Duration = Duration::from_secs(600);
/// 365.25 days.
const YEAR_S: f64 = 31_557_600.0;
const DAY_S: f64 = 86_400.0;

/// Flushes that this process has asked for.
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// A flush of a file, or of a folder's names, was asked for.
pub fn flushed() {
    FLUSHES.fetch_add(1, Ordering::Relaxed);
}

/// Bytes that this process has had written to the disk, by the kernel's count (proc(5), `write_bytes` in `/proc/pid/io`);
/// 0 where it does not say.
pub fn bytes_written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|figure| figure.parse().ok()).unwrap_or(0)
}

/// What was written over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wear {
    /// When the time began, milliseconds since 1970.
    pub since_ms: i64,
    /// Seconds of it in which the agent ran.
    pub seconds: u64,
    pub bytes: u64,
    pub flushes: u64,
    /// Records stored meanwhile.
    pub readings: u64,
}

impl Wear {
    /// Bytes a reading; none before the first.
    pub fn bytes_per_reading(&self) -> Option<u64> {
        self.bytes.checked_div(self.readings)
    }

    /// Flushes a reading; none before the first.
    pub fn flushes_per_reading(&self) -> Option<f64> {
        (self.readings > 0).then(|| self.flushes as f64 / self.readings as f64)
    }

    /// Bytes and flushes a day in which the agent runs; none while too little was seen.
    pub fn per_day(&self) -> Option<(u64, u64)> {
        Some((self.over(self.bytes, DAY_S)?, self.over(self.flushes, DAY_S)?))
    }

    /// Bytes a year; none while too little was seen.
    pub fn bytes_per_year(&self) -> Option<u64> {
        self.over(self.bytes, YEAR_S)
    }

    fn over(&self, figure: u64, seconds: f64) -> Option<u64> {
        (self.seconds >= ENOUGH.as_secs()).then(|| (figure as f64 / self.seconds as f64 * seconds) as u64)
    }
}

/// Bytes a year at so many in `time`.
pub fn in_a_year(bytes: u64, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(1.0) * YEAR_S) as u64
}

/// So many bytes last so long at so many a year.
pub fn lasts(bytes: u64, per_year: u64) -> Duration {
    Duration::try_from_secs_f64(bytes as f64 / per_year.max(1) as f64 * YEAR_S).unwrap_or(Duration::MAX)
}

/// Adds this run to what was kept of those before.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    before: Wear,
    began: Instant,
    bytes: u64,
    flushes: u64,
}

impl Meter {
    /// Begins this run.
    pub fn begin(before: Wear) -> Self {
        let flushes = FLUSHES.load(Ordering::Relaxed);
        Self { before, began: Instant::now(), bytes: bytes_written(), flushes }
    }

    /// All runs up to now (milliseconds since 1970, none where the clock is not right), `stored` records in this one.
    pub fn read(&self, stored: u64, now_ms: Option<i64>) -> Wear {
        let before = self.before;
        let seconds = before.seconds + self.began.elapsed().as_secs();
        let since_ms = match (before.since_ms, now_ms) {
            (0, Some(now_ms)) => now_ms.saturating_sub_unsigned(seconds * 1000),
            (known, _) => known,
        };
        Wear {
            since_ms,
            seconds,
            bytes: before.bytes + bytes_written().saturating_sub(self.bytes),
            flushes: before.flushes + FLUSHES.load(Ordering::Relaxed).saturating_sub(self.flushes),
            readings: before.readings + stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: a year is told from what was seen, and not from the first minutes.
    #[test]
    fn a_year_is_told_from_enough() {
        let wear = Wear { since_ms: 1, seconds: 86_400, bytes: 600 << 20, flushes: 34_560, readings: 86_400 };
        assert_eq!(wear.per_day(), Some((600 << 20, 34_560)));
        assert_eq!(wear.bytes_per_year().map(|bytes| bytes >> 20), Some(600 * 1461 / 4));
        assert_eq!((wear.bytes_per_reading(), wear.flushes_per_reading()), (Some(7_281), Some(0.4)));
        assert_eq!(Wear { seconds: 599, ..wear }.bytes_per_year(), None);
        assert_eq!(Wear::default().bytes_per_reading(), None);
        assert_eq!(lasts(300, 100).as_secs(), 3 * YEAR_S as u64);
    }

    /// Promise 9: figures go on where the last run ended, and a beginning without a clock is dated later.
    #[test]
    fn runs_add_up() {
        let before = Wear { since_ms: 0, seconds: 1_000, bytes: 5, flushes: 7, readings: 3 };
        let meter = Meter::begin(before);
        flushed();
        let now = meter.read(2, Some(1_800_000_000_000));
        assert!(now.flushes >= 8 && now.bytes >= 5);
        assert_eq!((now.readings, now.since_ms), (5, 1_799_999_000_000));
        assert_eq!(meter.read(0, None).since_ms, 0);
    }
}
