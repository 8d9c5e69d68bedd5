//! Which readings of a stretch are kept where there is no room for all: pure.
//!
//! Of every device, the last reading of each interval. A meter's registers only rise, so the last one holds what the
//! others counted. Documents of different shapes (partial ones) are thinned each by themselves, so that no register
//! disappears because another document came later. Intervals are measured by the boot clock: it is right where the wall
//! clock is not.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::reading::{Body, Reading};

/// Seconds of the intervals, one step after the other.
pub(super) const STEPS: [u64; 3] = [10, 60, 900];
/// Shapes that one device's documents may have before they are no longer told apart.
const SHAPES: usize = 16;

/// Looks at a stretch record by record and says which stay.
pub(super) struct Thinning {
    interval_ms: u64,
    newest: HashMap<Series, (Interval, u64)>,
    shapes: HashMap<Device, usize>,
    kept: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Device {
    source: Arc<str>,
    device: String,
    topic: String,
}

#[derive(PartialEq, Eq, Hash)]
struct Series {
    device: Device,
    shape: u64,
}

/// Boot, and number of the interval in it.
type Interval = (u128, u64);

impl Thinning {
    pub fn new(every_s: u64) -> Self {
        Self { interval_ms: every_s * 1000, newest: HashMap::new(), shapes: HashMap::new(), kept: Vec::new() }
    }

    /// The records come in order. Only readings are thinned.
    pub fn see(&mut self, sequence: u64, body: &Body) {
        let Body::Reading(reading) = body else {
            self.kept.push(sequence);
            return;
        };
        let interval = (reading.received.boot_id, reading.received.boot_ms / self.interval_ms.max(1));
        let series = self.series(reading);
        match self.newest.insert(series, (interval, sequence)) {
            Some((earlier, last)) if earlier != interval => self.kept.push(last),
            _ => {}
        }
    }

    /// The sequences that stay, rising.
    pub fn finish(mut self) -> Vec<u64> {
        self.kept.extend(self.newest.into_values().map(|(_, sequence)| sequence));
        self.kept.sort_unstable();
        self.kept
    }

    fn series(&mut self, reading: &Reading) -> Series {
        let device = Device {
            source: Arc::clone(&reading.source),
            device: reading.device.clone(),
            topic: reading.topic.clone(),
        };
        let series = Series { shape: shape(&reading.payload), device };
        if self.newest.contains_key(&series) {
            return series;
        }
        let shapes = self.shapes.entry(series.device.clone()).or_default();
        *shapes += 1;
        if *shapes > SHAPES { Series { shape: 0, ..series } } else { series }
    }
}

/// Of a document: its keys, and everything else but figures.
fn shape(payload: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    let mut parts = payload.split(|byte| *byte == b'"').peekable();
    let mut quoted = false;
    while let Some(part) = parts.next() {
        let is_key = quoted && parts.peek().is_some_and(|next| next.trim_ascii_start().starts_with(b":"));
        if is_key {
            part.hash(&mut hash);
        } else {
            let figure = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+');
            part.split(figure).filter(|text| !text.is_empty()).for_each(|text| text.hash(&mut hash));
        }
        quoted = !quoted;
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::reading::{Gap, Kind, Received};

    fn reading(device: u8, second: u64, payload: String) -> Body {
        Body::Reading(Reading {
            source: "sma".into(),
            device: format!("meter {device}"),
            topic: "sma".into(),
            sender: String::new(),
            packet_id: None,
            received: Received { wall_ms: 0, boot_ms: second * 1000 + 137, boot_id: 1, synchronised: false },
            measured_ms: None,
            self_identified: true,
            json: true,
            kind: Kind::default(),
            marks: Vec::new(),
            payload: Bytes::from(payload),
        })
    }

    /// Promise 6: a reading a second becomes one an interval, the last, for each of several devices alike.
    #[test]
    fn every_device_keeps_the_last_of_each_interval() {
        let mut thinning = Thinning::new(10);
        for second in 0..100 {
            for device in 0..3 {
                let body = reading(device, second, format!("{{\"1.8.0\":{}}}", 1000 + second));
                thinning.see(second * 3 + u64::from(device), &body);
            }
        }
        let expected: Vec<u64> =
            (0..10).flat_map(|tens| (0..3).map(move |device| (tens * 10 + 9) * 3 + device)).collect();
        assert_eq!(thinning.finish(), expected);
    }

    /// Promise 6: a document that holds other registers than its neighbours is not thinned away by them.
    #[test]
    fn partial_documents_keep_their_registers() {
        let mut thinning = Thinning::new(60);
        for second in 0..60 {
            let register = if second == 7 { "2.8.0" } else { "1.8.0" };
            thinning.see(second, &reading(0, second, format!("{{\"1-0:{register}\":{{\"value\":{second}}}}}")));
        }
        assert_eq!(thinning.finish(), [7, 59]);
    }

    proptest! {
        /// Promise 6: whatever comes, each device's newest reading stays, no interval with a reading becomes empty, and
        /// what is no reading stays.
        #[test]
        fn no_interval_becomes_empty(
            records in proptest::collection::vec((0u8..4, 0u64..5, 0u8..6), 1..300), step in 0usize..STEPS.len(),
        ) {
            let every_s = STEPS[step];
            let mut thinning = Thinning::new(every_s);
            let (mut second, mut last) = (0, BTreeMap::new());
            for (sequence, (device, later, kind)) in records.iter().enumerate() {
                second += later * every_s / 7;
                let noticed = Received { wall_ms: 0, boot_ms: 0, boot_id: 0, synchronised: false };
                let body = match kind {
                    0 => Body::Gap(Gap { first: 1, last: 1, reason: String::new(), noticed }),
                    _ => reading(*device, second, format!("{{\"v\":{second}}}")),
                };
                thinning.see(sequence as u64, &body);
                let key = if *kind == 0 { (u8::MAX, sequence as u64) } else { (*device, (second * 1000 + 137) / (every_s * 1000)) };
                last.insert(key, sequence as u64);
            }
            let mut expected: Vec<u64> = last.into_values().collect();
            expected.sort_unstable();
            prop_assert_eq!(thinning.finish(), expected);
        }
    }
}
