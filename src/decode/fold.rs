//! The hour that comes twice when clocks are put back.

use std::collections::HashMap;

use super::Decoded;

/// Devices whose last time is remembered.
const MOST: usize = 1_000;

/// Chooses between the two instants of an ambiguous local time, so that no device's time runs backwards.
///
/// That of the device's last reading decides: the first instant that is not before it. Of a device that was not heard of
/// yet, the instant closer to the time of receipt is taken.
#[derive(Debug, Default)]
pub struct Folds {
    last: HashMap<String, i64>,
}

impl Folds {
    /// Settles the time of `decoded`, received at `received_ms`.
    pub fn settle(&mut self, decoded: &mut Decoded, received_ms: i64) {
        let Some(first) = decoded.measured_ms else { return };
        let last = self.last.get(&decoded.device).copied();
        let chosen = match (decoded.again_ms.take(), last) {
            (None, _) => first,
            (Some(again), Some(last)) if last.abs_diff(first) < DAY_MS => {
                if first >= last {
                    first
                } else {
                    again
                }
            }
            (Some(again), _) => {
                if received_ms.abs_diff(again) < received_ms.abs_diff(first) {
                    again
                } else {
                    first
                }
            }
        };
        decoded.measured_ms = Some(chosen);
        match self.last.get_mut(&decoded.device) {
            Some(last) => *last = chosen,
            None => {
                if self.last.len() == MOST {
                    self.last.clear();
                }
                self.last.insert(decoded.device.clone(), chosen);
            }
        }
    }
}

/// A last time further away than this says nothing about which of two hours it is.
const DAY_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn settled(folds: &mut Folds, first: i64, again: Option<i64>, received: i64) -> Option<i64> {
        let mut decoded = Decoded { measured_ms: Some(first), again_ms: again, ..crate::decode::nothing("meter") };
        folds.settle(&mut decoded, received);
        assert_eq!(decoded.again_ms, None);
        decoded.measured_ms
    }

    /// Promise 4: through the hour that comes twice, every time is later than the one before, also when all of it arrives
    /// hours late.
    #[test]
    fn time_does_not_run_backwards() {
        for late in [0, 7 * HOUR] {
            let mut folds = Folds::default();
            let mut last = 0;
            for minute in 0..240 {
                let now = 100 * HOUR + minute * 60_000;
                // The second and third hours have the same local times.
                let (first, again) = match minute / 60 {
                    1 => (now, Some(now + HOUR)),
                    2 => (now - HOUR, Some(now)),
                    _ => (now, None),
                };
                assert_eq!(settled(&mut folds, first, again, now + late), Some(now), "minute {minute}");
                assert!(now > last);
                last = now;
            }
        }
    }

    /// After a start within that hour, what is closer to the receipt is right.
    #[test]
    fn without_a_last_time_the_receipt_decides() {
        for now in [100 * HOUR, 101 * HOUR] {
            assert_eq!(settled(&mut Folds::default(), 100 * HOUR, Some(101 * HOUR), now + 2_000), Some(now));
        }
        let mut folds = Folds::default();
        assert_eq!(settled(&mut folds, HOUR, None, 0), Some(HOUR));
        assert_eq!(
            settled(&mut folds, 1_000 * HOUR, Some(1_001 * HOUR), 1_001 * HOUR),
            Some(1_001 * HOUR),
            "a year later"
        );
    }

    /// Promise 6: names without end take no memory without end.
    #[test]
    fn names_without_end() {
        let mut folds = Folds::default();
        for index in 0..3 * MOST {
            let mut decoded = Decoded { measured_ms: Some(1), ..crate::decode::nothing(&index.to_string()) };
            folds.settle(&mut decoded, 1);
            assert!(folds.last.len() <= MOST);
        }
    }
}
