//! A topic a value: the values of one device are gathered into one reading. Pure.
//!
//! A reading is complete when its window is over, or when a code comes that it has already: then the device has begun to
//! tell the next one.

use std::collections::BTreeMap;

use crate::decode::Decoded;

/// Values of one reading. A device with more is told in several.
const VALUES: usize = 256;

/// Readings that are being gathered; beyond it the one that was begun first is taken as complete.
const DEVICES: usize = 256;

/// The values of one device so far, and what came with each.
#[derive(Debug)]
pub struct Group<T> {
    /// The values of all of them.
    pub decoded: Decoded,
    /// In order of arrival; at least one.
    pub parts: Vec<T>,
    /// When it is complete, by the clock that `now` was of.
    due_ms: u64,
}

/// What is being gathered.
#[derive(Debug)]
pub struct Assembly<T> {
    open: BTreeMap<String, Group<T>>,
}

impl<T> Default for Assembly<T> {
    fn default() -> Self {
        Self { open: BTreeMap::new() }
    }
}

impl<T> Assembly<T> {
    /// Takes a value that came at `now_ms` and may wait `window_ms` for others. What is complete by it, is returned.
    pub fn add(&mut self, decoded: Decoded, part: T, now_ms: u64, window_ms: u64) -> Option<Group<T>> {
        let device = decoded.device.clone();
        if let Some(group) = self.open.get_mut(&device)
            && group.takes(&decoded)
        {
            group.join(decoded, part);
            return None;
        }
        let mut complete = self.open.remove(&device);
        if self.open.len() >= DEVICES {
            complete = self.first();
        }
        self.open.insert(device, Group { decoded, parts: vec![part], due_ms: now_ms.saturating_add(window_ms) });
        complete
    }

    /// What came with a value that was sent again joins the reading that is still being gathered; given back where there is
    /// none.
    pub fn again(&mut self, device: &str, part: T) -> Result<(), T> {
        match self.open.get_mut(device) {
            Some(group) => {
                group.parts.push(part);
                Ok(())
            }
            None => Err(part),
        }
    }

    /// When the next one is complete.
    pub fn due_ms(&self) -> Option<u64> {
        self.open.values().map(|group| group.due_ms).min()
    }

    /// All that is complete at `now_ms`, the earliest first.
    pub fn complete(&mut self, now_ms: u64) -> Vec<Group<T>> {
        let due = |group: &Group<T>| group.due_ms <= now_ms;
        let devices: Vec<String> =
            self.open.iter().filter(|(_, group)| due(group)).map(|(device, _)| device.clone()).collect();
        let mut complete: Vec<_> = devices.iter().filter_map(|device| self.open.remove(device)).collect();
        complete.sort_by_key(|group| group.due_ms);
        complete
    }

    fn first(&mut self) -> Option<Group<T>> {
        let device = self.open.iter().min_by_key(|(_, group)| group.due_ms)?.0.clone();
        self.open.remove(&device)
    }
}

impl<T> Group<T> {
    fn takes(&self, decoded: &Decoded) -> bool {
        let there = |code| self.decoded.measurements.iter().any(|measurement| measurement.code == code);
        self.decoded.measurements.len() + decoded.measurements.len() <= VALUES
            && !decoded.measurements.iter().any(|measurement| there(measurement.code.clone()))
    }

    fn join(&mut self, decoded: Decoded, part: T) {
        self.decoded.measured_ms = self.decoded.measured_ms.max(decoded.measured_ms);
        self.decoded.measurements.extend(decoded.measurements);
        self.parts.push(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::{Code, Measurement, Value};

    fn value(device: &str, code: &str, value: u64) -> Decoded {
        Decoded {
            device: device.to_owned(),
            measured_ms: Some(value as i64),
            self_identified: false,
            json: false,
            again_ms: None,
            time_unread: false,
            left_over: 0,
            partial: None,
            measurements: vec![Measurement::new(Code::Other(code.to_owned()), Value::Text(value.to_string()))],
        }
    }

    proptest! {
        /// Promises 1, 3 and 4: each value is in exactly one reading, with what acknowledges it, in the order of its device;
        /// no reading has a code twice, and none waits longer than its window.
        #[test]
        fn every_value_is_in_one_reading(
            values in proptest::collection::vec((0..4u8, 0..5u8, 0..700u64), 1..200),
            window_ms in 1..2_000u64,
        ) {
            let (mut assembly, mut now, mut done) = (Assembly::default(), 0, Vec::new());
            for (number, (device, code, step)) in values.iter().enumerate() {
                now += step;
                let complete = assembly.complete(now);
                prop_assert!(assembly.due_ms().is_none_or(|due| due > now && due <= now + window_ms));
                done.extend(complete);
                let decoded = value(&device.to_string(), &code.to_string(), number as u64);
                done.extend(assembly.add(decoded, number, now, window_ms));
            }
            done.extend(assembly.complete(u64::MAX));
            prop_assert!(assembly.due_ms().is_none());
            let mut numbers: Vec<usize> = Vec::new();
            for device in 0..4u8 {
                let of = done.iter().filter(|group| group.decoded.device == device.to_string());
                let parts: Vec<usize> = of.flat_map(|group| group.parts.clone()).collect();
                prop_assert!(parts.is_sorted(), "{parts:?}");
                numbers.extend(parts);
            }
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..values.len()).collect::<Vec<_>>());
            for group in &done {
                let codes: Vec<String> = group.decoded.measurements.iter().map(|one| format!("{:?}", one.code)).collect();
                prop_assert_eq!(codes.iter().collect::<std::collections::BTreeSet<_>>().len(), codes.len());
            }
        }
    }

    /// Promise 6: devices without end take no memory without end; what is pushed out is told, not lost.
    #[test]
    fn devices_are_limited() {
        let mut assembly = Assembly::default();
        let mut told = 0;
        for number in 0..3 * DEVICES {
            told +=
                assembly.add(value(&number.to_string(), "p", 1), number, number as u64, 1_000_000).is_some() as usize;
        }
        assert_eq!((assembly.open.len(), told), (DEVICES, 2 * DEVICES));
    }
}
