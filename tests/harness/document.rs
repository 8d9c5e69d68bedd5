//! The adapter's document, numbered: no two are equal, and each tells which it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// The document that ADAPTERS.md shows.
pub const SEEN: &str = concat!(
    r#"{"0-0:96.1.0":{"value":"90296857"},"0-0:1.0.0":{"value":0,"time":1697623015},"#,
    r#""1-0:1.8.0":{"value":83403,"time":1697623015},"1-0:2.8.0":{"value":16564,"time":1697623015},"#,
    r#""1-0:1.7.0":{"value":40,"time":1697623015},"1-0:2.7.0":{"value":0,"time":1697623015},"#,
    r#""0-0:2.0.0":{"value":481,"time":0},"api_version":"v1","name":"90296857","sma_time":2435.7}"#
);

/// What the test has sent: the auditor looks for exactly this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The key it must have in Kafka.
    pub device: String,
    /// The MQTT topic.
    pub topic: String,
    pub payload: Vec<u8>,
}

/// The `serial`-th reading of a device, measured now.
pub fn reading(device: &str, serial: u64) -> Message {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    let payload = format!(
        concat!(
            r#"{{"0-0:96.1.0":{{"value":"{device}"}},"0-0:1.0.0":{{"value":0,"time":{now}}},"#,
            r#""1-0:1.8.0":{{"value":{serial},"time":{now}}},"1-0:2.8.0":{{"value":16564,"time":{now}}},"#,
            r#""1-0:1.7.0":{{"value":{power},"time":{now}}},"1-0:2.7.0":{{"value":0,"time":{now}}},"#,
            r#""0-0:2.0.0":{{"value":481,"time":0}},"api_version":"v1","name":"{device}","sma_time":{seconds}.{tenth}}}"#
        ),
        device = device,
        now = now,
        serial = serial,
        power = serial % 4_000,
        seconds = 1_000 + serial / 10,
        tenth = serial % 10,
    );
    Message { device: device.to_owned(), topic: "sma".to_owned(), payload: payload.into_bytes() }
}

/// Readings `first..first + count` of each of `devices`, as they come: one of each in turn.
pub fn readings(devices: &[&str], first: u64, count: u64) -> Vec<Message> {
    (first..first + count).flat_map(|serial| devices.iter().map(move |device| reading(device, serial))).collect()
}
