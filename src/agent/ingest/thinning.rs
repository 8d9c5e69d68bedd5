//! `privacy.thin`: of a device's readings one an interval. Registers have their last value, what is measured of the moment
//! its mean. Pure.
//!
//! What is folded into an interval is acknowledged: it is what must not be stored. A power cut takes the means of the
//! interval that is under way; no register loses by it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decode::decimal::Decimal;
use crate::decode::{Code, Decoded, Measurement, Value};
use crate::normalize::Thinned;
use crate::obis::Kind;

/// Devices with an interval under way; beyond it the earliest interval ends early.
const DEVICES: usize = 256;
/// Codes of one device; further ones are left out of the interval.
const CODES: usize = 256;

/// The intervals that are under way.
#[derive(Debug)]
pub struct Thinning<T> {
    interval_ms: i64,
    /// The interval that was under way at the last look.
    under_way: i64,
    open: BTreeMap<String, Interval<T>>,
}

/// One device's readings in one interval.
#[derive(Debug)]
struct Interval<T> {
    number: i64,
    count: u64,
    /// The last one, and what came with it.
    last: Decoded,
    came_with: T,
    cells: Vec<Cell>,
}

/// One code's values.
#[derive(Debug)]
struct Cell {
    last: Measurement,
    /// Of what is measured of the moment: sum and count.
    sum: Option<(Decimal, u64)>,
}

/// What is left of an interval.
#[derive(Debug)]
pub struct Summary<T> {
    pub decoded: Decoded,
    pub thinned: Thinned,
    /// With the last reading of the interval.
    pub came_with: T,
}

impl<T> Thinning<T> {
    pub fn new(interval: Duration) -> Self {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        Self { interval_ms, under_way: i64::MIN, open: BTreeMap::new() }
    }

    /// Takes a reading of `now_ms` (milliseconds since 1970: intervals begin with the full minute). Intervals that it ends
    /// are returned. A reading that comes just behind the end of its interval, since it was still being gathered, counts
    /// for the next one: alone it would be what must not be told.
    pub fn fold(&mut self, decoded: Decoded, came_with: T, now_ms: i64) -> Vec<Summary<T>> {
        let number = now_ms.div_euclid(self.interval_ms);
        let number = if number.saturating_add(1) == self.under_way { self.under_way } else { number };
        let mut over = Vec::new();
        let device = decoded.device.clone();
        // Also where the clock was set back.
        if self.open.get(&device).is_some_and(|interval| interval.number != number) {
            over.extend(self.open.remove(&device));
        }
        match self.open.get_mut(&device) {
            Some(interval) => interval.join(decoded, came_with),
            None => {
                if self.open.len() >= DEVICES {
                    let first =
                        self.open.iter().min_by_key(|(_, interval)| interval.number).map(|(name, _)| name.clone());
                    over.extend(first.and_then(|first| self.open.remove(&first)));
                }
                self.open.insert(device, Interval::new(number, decoded, came_with));
            }
        }
        over.into_iter().map(|interval| interval.summary(self.interval_ms)).collect()
    }

    /// When the next interval ends.
    pub fn due_ms(&self) -> Option<i64> {
        self.open.values().map(|interval| (interval.number + 1).saturating_mul(self.interval_ms)).min()
    }

    /// All intervals that have ended at `now_ms`.
    pub fn over(&mut self, now_ms: i64) -> Vec<Summary<T>> {
        let number = now_ms.div_euclid(self.interval_ms);
        self.under_way = number;
        let ended = |interval: &Interval<T>| interval.number < number;
        let devices: Vec<String> =
            self.open.iter().filter(|(_, interval)| ended(interval)).map(|(device, _)| device.clone()).collect();
        let over = devices.iter().filter_map(|device| self.open.remove(device));
        over.map(|interval| interval.summary(self.interval_ms)).collect()
    }
}

impl<T> Interval<T> {
    fn new(number: i64, first: Decoded, came_with: T) -> Self {
        let cells = first.measurements.iter().take(CODES).cloned().map(Cell::new).collect();
        Self { number, count: 1, last: first, came_with, cells }
    }

    fn join(&mut self, decoded: Decoded, came_with: T) {
        self.count += 1;
        for measurement in &decoded.measurements {
            match self.cells.iter_mut().find(|cell| cell.last.code == measurement.code) {
                Some(cell) => cell.join(measurement.clone()),
                None => self.cells.push(Cell::new(measurement.clone())),
            }
        }
        self.cells.truncate(CODES);
        self.last = decoded;
        self.came_with = came_with;
    }

    fn summary(self, interval_ms: i64) -> Summary<T> {
        let thinned = Thinned { interval_s: interval_ms.unsigned_abs() / 1000, count: self.count };
        let measurements = self.cells.into_iter().map(Cell::end).collect();
        Summary { decoded: Decoded { measurements, ..self.last }, thinned, came_with: self.came_with }
    }
}

impl Cell {
    fn new(first: Measurement) -> Self {
        let sum = is_of_the_moment(&first).then(|| first.value.decimal()).flatten().map(|value| (value, 1));
        Self { last: first, sum }
    }

    fn join(&mut self, next: Measurement) {
        // What is odd about one value is odd about the mean.
        let flag = self.last.judged().or(next.flag);
        self.sum = match (self.sum, next.value.decimal()) {
            (Some((sum, count)), Some(value)) => sum.plus(&value).map(|sum| (sum, count + 1)),
            _ => None,
        };
        self.last = Measurement { flag, ..next };
    }

    fn end(self) -> Measurement {
        match self.sum {
            Some((sum, count)) => Measurement { value: Value::Number(sum.over(count)), time: None, ..self.last },
            None => self.last,
        }
    }
}

fn is_of_the_moment(measurement: &Measurement) -> bool {
    let Code::Obis(code) = &measurement.code else { return false };
    code.meaning().is_some_and(|meaning| meaning.kind == Kind::Now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(device: &str, power: &str, energy: u64) -> Decoded {
        let measurement = |code: &str, value: &str| {
            let value = Value::Number(value.parse().expect("a number"));
            Measurement::new(Code::Obis(code.parse().expect("a code")), value)
        };
        Decoded {
            device: device.to_owned(),
            measured_ms: None,
            self_identified: false,
            json: true,
            again_ms: None,
            time_unread: false,
            left_over: 0,
            partial: None,
            measurements: vec![measurement("1-0:1.7.0", power), measurement("1-0:1.8.0", &energy.to_string())],
        }
    }

    /// `privacy.thin`: no reading of a moment comes out alone because it was still being gathered when its interval ended.
    #[test]
    fn a_late_value_counts_for_the_next_interval() {
        let mut thinning = Thinning::new(Duration::from_secs(60));
        for second in 0..58 {
            assert!(thinning.fold(reading("d", "10", second), second, second as i64 * 1000).is_empty());
        }
        assert_eq!(thinning.over(60_001).len(), 1);
        // Measured at 59 s, and gathered until 61 s.
        assert!(thinning.fold(reading("d", "1000", 59), 59, 59_000).is_empty());
        assert!(thinning.over(61_000).is_empty(), "not alone");
        assert!(thinning.fold(reading("d", "20", 62), 62, 62_000).is_empty());
        let over = thinning.over(120_001);
        assert_eq!((over.len(), over[0].thinned.count), (1, 2));
        // A clock that was set back by more begins another interval.
        assert!(thinning.fold(reading("d", "20", 63), 63, 30_000_000).is_empty());
        assert_eq!(thinning.fold(reading("d", "20", 64), 64, 0).len(), 1);
    }

    fn values(summary: &Summary<u64>) -> Vec<String> {
        summary.decoded.measurements.iter().map(|measurement| measurement.value.to_string()).collect()
    }

    /// Promise 9: an interval says how many readings it stands for; its mean is exact where it has an end.
    #[test]
    fn registers_have_their_last_value_and_powers_their_mean() {
        let mut thinning = Thinning::new(Duration::from_secs(60));
        for (second, power, energy) in [(0, "100", 5), (20, "101", 6), (59, "100", 8)] {
            assert!(thinning.fold(reading("a", power, energy), second, 600_000 + second as i64 * 1000).is_empty());
        }
        assert_eq!(thinning.due_ms(), Some(660_000));
        assert!(thinning.over(659_999).is_empty());
        let over = thinning.fold(reading("a", "7.5", 9), 60, 660_000);
        assert_eq!((values(&over[0]), over[0].came_with), (vec!["100.333".to_owned(), "8".to_owned()], 59));
        assert_eq!(over[0].thinned, Thinned { interval_s: 60, count: 3 });
        let over = thinning.over(720_000);
        assert_eq!(values(&over[0]), ["7.5", "9"], "one reading is as it was");
        assert_eq!(thinning.due_ms(), None);
    }

    proptest! {
        /// Promises 3 and 6: every reading counts in exactly one interval of its device, whatever the clock does; there are
        /// never more intervals under way than are allowed.
        #[test]
        fn every_reading_counts_once(steps in proptest::collection::vec((0..400u16, -90_000i64..90_000), 1..600)) {
            let (mut thinning, mut now, mut counted) = (Thinning::new(Duration::from_secs(60)), 1_000_000, 0);
            for (number, (device, step)) in steps.iter().enumerate() {
                now += step;
                let over = thinning.fold(reading(&device.to_string(), "1", 1), number as u64, now);
                counted += over.iter().map(|summary| summary.thinned.count).sum::<u64>();
                prop_assert!(thinning.open.len() <= DEVICES);
            }
            counted += thinning.over(i64::MAX).iter().map(|summary| summary.thinned.count).sum::<u64>();
            prop_assert_eq!(counted, steps.len() as u64);
        }
    }
}
