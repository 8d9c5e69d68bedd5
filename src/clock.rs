//! The system's clocks, read in one place. Order never depends on any of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::reading::Received;

/// Before this the wall clock is certainly wrong: no release of meterferry is older (2026-01-01T00:00:00Z).
pub const FLOOR_MS: i64 = 1_767_225_600_000;

/// Reads the clocks of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot_id: u128,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Reads the kernel's boot id; 0 where there is none.
    pub fn new() -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok())
            .unwrap_or_default();
        Self { boot_id }
    }

    /// All clocks at once.
    pub fn now(&self) -> Received {
        let wall_ms = milliseconds(ClockId::CLOCK_REALTIME);
        Received {
            wall_ms,
            boot_ms: milliseconds(ClockId::CLOCK_BOOTTIME).unsigned_abs(),
            boot_id: self.boot_id,
            synchronised: synchronised(wall_ms, Path::new("/run/systemd/timesync")),
        }
    }
}

/// Clocks that differ by less, in one boot, differ by their drift; by more, because one was set.
const DRIFT_MS: u64 = 60_000;

/// The time of receipt by a clock that is right now: what `then` recorded, corrected by the boot clock if the machine has
/// not been restarted in between and the wall clock was not right then, or was set since.
pub fn corrected_ms(then: &Received, now: &Received) -> i64 {
    if !comparable(then, now) {
        return then.wall_ms;
    }
    let by_boot_clock = now.wall_ms.saturating_sub_unsigned(now.boot_ms - then.boot_ms);
    let set_since = by_boot_clock.abs_diff(then.wall_ms) >= DRIFT_MS;
    if then.synchronised && !set_since { then.wall_ms } else { by_boot_clock }
}

/// Whether [`corrected_ms`] can be believed: the clock was right then, or the boot clock tells what it should have been.
pub fn is_known(then: &Received, now: &Received) -> bool {
    then.synchronised || comparable(then, now)
}

fn comparable(then: &Received, now: &Received) -> bool {
    now.synchronised && then.boot_id == now.boot_id && now.boot_ms >= then.boot_ms
}

/// How far the wall clock was set between two looks at the clocks of one boot, in milliseconds; negative: back. What it
/// drifts meanwhile is in it.
pub fn set_by_ms(before: &Received, now: &Received) -> i64 {
    let (wall, boot) = (now.wall_ms.saturating_sub(before.wall_ms), now.boot_ms.saturating_sub(before.boot_ms));
    wall.saturating_sub_unsigned(boot)
}

/// How long ago `then` was, by the boot clock within one boot and by the wall clock otherwise; never negative.
pub fn age(then: &Received, now: &Received) -> Duration {
    let millis = if then.boot_id == now.boot_id {
        now.boot_ms.saturating_sub(then.boot_ms)
    } else {
        u64::try_from(now.wall_ms.saturating_sub(then.wall_ms)).unwrap_or(0)
    };
    Duration::from_millis(millis)
}

fn milliseconds(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| {
        #[allow(clippy::useless_conversion, reason = "time_t has 32 bits on armhf")]
        let seconds = i64::from(time.tv_sec());
        #[allow(clippy::useless_conversion, reason = "c_long has 32 bits on armhf")]
        let nanos = i64::from(time.tv_nsec());
        seconds * 1000 + nanos / 1_000_000
    })
}

/// systemd-timesyncd makes the file `synchronized` in its folder once the clock is right. Where another service keeps
/// the clock there is no such folder, and the clock is believed if it is later than this program.
fn synchronised(wall_ms: i64, timesync: &Path) -> bool {
    if wall_ms < FLOOR_MS {
        return false;
    }
    !timesync.is_dir() || timesync.join("synchronized").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: i64, boot_ms: u64, boot_id: u128, synchronised: bool) -> Received {
        Received { wall_ms, boot_ms, boot_id, synchronised }
    }

    /// Promise 8: a reading taken before the clock was right gets its true time of receipt.
    #[test]
    fn boot_clock_corrects_an_unsynchronised_receipt() {
        let then = at(0, 1_000, 7, false);
        assert_eq!(corrected_ms(&then, &at(1_800_000_060_000, 61_000, 7, true)), 1_800_000_000_000);
        assert_eq!(corrected_ms(&then, &at(1_800_000_060_000, 61_000, 8, true)), 0, "another boot tells nothing");
        assert_eq!(corrected_ms(&then, &at(60_000, 61_000, 7, false)), 0, "not synchronised yet");
        assert_eq!(corrected_ms(&at(5, 1_000, 7, true), &at(99, 2_000, 7, true)), 5, "was right already");
        assert!(is_known(&then, &at(1_800_000_060_000, 61_000, 7, true)));
        assert!(!is_known(&then, &at(1_800_000_060_000, 61_000, 8, true)));
    }

    /// Promise 8: a clock that was believed and years ahead, or behind, when a reading came is corrected as well.
    #[test]
    fn boot_clock_corrects_a_clock_that_was_set() {
        let now = at(1_800_000_060_000, 61_000, 7, true);
        for wrong in [1_900_000_000_000, 1_790_000_000_000] {
            let then = at(wrong, 1_000, 7, true);
            assert_eq!(corrected_ms(&then, &now), 1_800_000_000_000);
            assert_eq!(set_by_ms(&then, &now), 1_800_000_000_000 - wrong);
        }
    }

    /// Promise 8: a clock that starts in 1970 is not taken for a right one.
    #[test]
    fn synchronised_needs_a_sane_year_and_timesyncd_where_it_runs() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(!synchronised(0, Path::new("/nonexistent")));
        assert!(synchronised(FLOOR_MS, Path::new("/nonexistent")));
        assert!(!synchronised(FLOOR_MS, folder.path()));
        fs::write(folder.path().join("synchronized"), "").expect("write");
        assert!(synchronised(FLOOR_MS, folder.path()));
    }
}
