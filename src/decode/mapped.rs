//! Messages of other readers, by their mapping tables.

use super::mapping::{self, Mapping, Shape};
use super::{Decoded, Reason};

/// The device is called as the table finds it, else like the source.
pub(super) fn decode(mapping: &Mapping, source: &str, topic: &str, bytes: &[u8]) -> Result<Decoded, Reason> {
    let found = mapping::read(mapping, topic, bytes, false)?;
    let newest = found.rows.iter().filter_map(|row| row.measurement.time).filter(|time| *time > 0).max();
    let of_values = newest.and_then(|seconds| seconds.checked_mul(1000));
    let partial = mapping.table.shape == Shape::Topics && !found.ignored;
    Ok(Decoded {
        device: found.device.unwrap_or_else(|| source.to_owned()),
        measured_ms: found.time.map(|time| time.ms).or(of_values),
        again_ms: found.time.and_then(|time| time.again_ms),
        time_unread: found.unread_time.is_some(),
        left_over: found.unmapped,
        partial: partial.then_some(mapping.table.window),
        self_identified: false,
        json: found.json,
        measurements: found.rows.into_iter().map(|row| row.measurement).collect(),
    })
}
