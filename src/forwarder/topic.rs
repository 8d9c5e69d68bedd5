//! Which topic a reading goes to: that of its source, which may depend on the device. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use crate::config::settings::{DEVICE, is_of_device};

/// Bytes of a topic's name (Kafka's own limit).
const LONGEST: usize = 249;

/// Topics that devices have made so far, at most: a device's name may come from anybody. Further devices go to
/// `kafka.topic`.
pub const MOST: usize = 1_000;

/// Where the readings of one source go.
#[derive(Debug, Clone)]
pub enum Destination {
    Topic(Arc<str>),
    /// A name with `{device}` in it.
    ByDevice(Box<str>),
}

impl Destination {
    /// As the configuration writes it.
    pub fn of(text: &str) -> Self {
        if is_of_device(text) { Self::ByDevice(text.into()) } else { Self::Topic(text.into()) }
    }

    /// The topic of `device`.
    pub fn topic(&self, device: &str) -> Arc<str> {
        match self {
            Self::Topic(topic) => Arc::clone(topic),
            Self::ByDevice(template) => {
                let mut topic = template.replace(DEVICE, &safe(device));
                topic.truncate(LONGEST);
                topic.into()
            }
        }
    }
}

/// Letters, digits and `-` stay, everything else becomes `_`: a dot too, since Kafka's metrics do not tell the two apart.
fn safe(device: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if device.chars().all(plain) && !device.is_empty() {
        return device.into();
    }
    let safe: String = device.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if safe.is_empty() { "_".into() } else { safe.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::is_kafka_topic;

    proptest! {
        /// Promise 5: whatever a device is called, its topic is one that Kafka takes.
        #[test]
        fn every_device_has_a_legal_topic(device in "\\PC{0,300}", prefix in "[a-z.]{0,20}") {
            let topic = Destination::of(&format!("m{prefix}{DEVICE}")).topic(&device);
            prop_assert!(is_kafka_topic(&topic).is_ok(), "{topic}");
        }
    }

    /// Names that need nothing are left alone.
    #[test]
    fn topics_of_devices() {
        let destination = Destination::of("meters.{device}.raw");
        for (device, topic) in [
            ("90296857", "meters.90296857.raw"),
            ("Zähler 5", "meters.Z_hler_5.raw"),
            ("a.b", "meters.a_b.raw"),
            ("", "meters._.raw"),
        ] {
            assert_eq!(&*destination.topic(device), topic);
        }
        assert_eq!(&*Destination::of("sma").topic("x"), "sma");
    }
}
