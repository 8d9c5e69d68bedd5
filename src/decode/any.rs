//! Any bytes are a reading.

use serde::de::IgnoredAny;

use super::Decoded;

/// The device is called like the MQTT topic, or like the source where there is none.
pub(super) fn decode(source: &str, topic: &str, bytes: &[u8]) -> Decoded {
    Decoded {
        device: if topic.is_empty() { source } else { topic }.to_owned(),
        measured_ms: None,
        again_ms: None,
        time_unread: false,
        left_over: 0,
        partial: None,
        self_identified: false,
        json: is_json(bytes),
        measurements: Vec::new(),
    }
}

/// Ignoring a document takes serde_json no recursion, however deep it is; it does not look at the encoding.
fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: whatever a sender says is kept, also nothing at all.
    #[test]
    fn any_bytes_are_a_reading_of_their_topic() {
        for (topic, bytes, device, json) in [
            ("vzlogger/power", &b"42.5"[..], "vzlogger/power", true),
            ("tele/plug/SENSOR", br#"{"ENERGY":{"Power":2635}}"#, "tele/plug/SENSOR", true),
            ("", b"ON", "house", false),
            ("t", b"", "t", false),
            ("t", b"\xff\xfe", "t", false),
            ("t", b"\"\xff\"", "t", false),
            ("t", b"{} {}", "t", false),
            ("t", b"NaN", "t", false),
        ] {
            let decoded = decode("house", topic, bytes);
            assert_eq!((decoded.device.as_str(), decoded.json), (device, json), "{bytes:?}");
            assert!(!decoded.self_identified && decoded.measurements.is_empty() && decoded.measured_ms.is_none());
        }
    }

    /// Promise 5: a million levels take no stack.
    #[test]
    fn a_million_levels_are_a_reading() {
        let depth = 1_000_000;
        assert!(decode("house", "t", format!("{}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes()).json);
        assert!(!decode("house", "t", "[".repeat(depth).as_bytes()).json);
    }
}
