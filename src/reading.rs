//! The words that the stages share: what travels from the source through the queue to Kafka.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// What every `ce_type` of ours begins with.
pub const CE_TYPE_OURS: &str = "io.meterferry.";

/// `ce_type` of a reading in Kafka.
pub const CE_TYPE_READING: &str = "io.meterferry.reading";

/// `ce_type` of a device's own state in Kafka: a reading of its own kind.
pub const CE_TYPE_STATUS: &str = "io.meterferry.status";

/// `ce_type` of a gap record in Kafka.
pub const CE_TYPE_GAP: &str = "io.meterferry.gap";

/// `ce_type` of a daily receipt in Kafka ([`crate::daily::DailyReceipt`]).
pub const CE_TYPE_RECEIPT: &str = "io.meterferry.receipt";

/// When something was received, by every clock that may later be needed to correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Wall clock, milliseconds since 1970-01-01T00:00:00Z.
    pub wall_ms: i64,
    /// Milliseconds since boot, time asleep included (`CLOCK_BOOTTIME`).
    pub boot_ms: u64,
    /// The kernel's `boot_id`: `boot_ms` of different boots do not compare.
    pub boot_id: u128,
    /// Whether the wall clock was known to be right.
    pub synchronised: bool,
}

/// 128 bits of SHA-256: tells whether two pieces of content are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of `parts`, each with its length, so that no two lists of parts run together.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        Self(short)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(u128::from_str_radix(text, 16)?.to_be_bytes()))
    }
}

/// Names the sequence numbers of one queue: 128 random bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueId(pub u128);

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for QueueId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// A decoded raw: what the forwarder needs to make a Kafka record of it, and the original bytes, unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Name of the source in the configuration.
    #[serde(deserialize_with = "shared_name")]
    pub source: Arc<str>,
    /// The device's name: the key in Kafka.
    pub device: String,
    /// MQTT topic; empty where the source has none.
    pub topic: String,
    /// Whose packet identifier it is: the client id with `mqtt-listener`, empty with a broker.
    pub sender: String,
    /// MQTT packet identifier; none with QoS 0 and for other sources.
    pub packet_id: Option<u16>,
    pub received: Received,
    /// The measurement's time as the device's own clock tells it, milliseconds since 1970; not checked for sense.
    pub measured_ms: Option<i64>,
    /// Whether the document can be told from every other of its device (the adapter's `sma_time`).
    pub self_identified: bool,
    /// Whether `payload` is a JSON document.
    pub json: bool,
    #[serde(skip)]
    pub kind: Kind,
    /// Of the messages that it was made of, where their bytes are not its payload; empty where they are.
    #[serde(skip)]
    pub marks: Vec<Mark>,
    pub payload: Bytes,
}

/// What a reading says, and in which form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Measurements, as the device wrote them.
    #[default]
    Measured,
    /// The device's own state, as it wrote it.
    Status,
    /// Measurements as one of our documents, without what is known only when it is sent ([`crate::normalize`]).
    Normalized,
}

/// The same name again and again, in each of millions of records: one copy of it.
fn shared_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    struct Name;

    impl Visitor<'_> for Name {
        type Value = Arc<str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name")
        }

        fn visit_str<E>(self, name: &str) -> Result<Arc<str>, E> {
            thread_local!(static LAST: RefCell<Arc<str>> = RefCell::new("".into()));
            LAST.with_borrow_mut(|last| {
                if **last != *name {
                    *last = name.into();
                }
                Ok(Arc::clone(last))
            })
        }
    }

    deserializer.deserialize_str(Name)
}

/// A reading that came back from the dead letters names this as its sender, and then the dead letter's `ce_id`. A NUL
/// stands in no MQTT client id (MQTT 3.1.1, 1.5.3).
const REPLAY: &str = "\0replay of ";

impl Reading {
    /// The sender of a reading that comes back from the dead letter `ce_id`.
    pub fn replay_sender(ce_id: &str) -> String {
        format!("{REPLAY}{ce_id}")
    }

    /// The `ce_id` of the dead letter that it was; none for all others.
    pub fn replay_of(&self) -> Option<&str> {
        self.sender.strip_prefix(REPLAY)
    }
}

/// A raw that could not be decoded. It keeps its place in the sequence; the forwarder moves it to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    pub source: Arc<str>,
    pub topic: String,
    pub sender: String,
    pub packet_id: Option<u16>,
    pub received: Received,
    /// Why, in words for a person.
    pub reason: String,
    /// Of the message, where its bytes are not kept; empty where they are.
    #[serde(skip)]
    pub marks: Vec<Mark>,
    pub payload: Bytes,
}

/// Explains sequences that will never be seen in Kafka: `first` to `last`, both inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub first: u64,
    pub last: u64,
    pub reason: String,
    pub noticed: Received,
}

/// A day is over: here its receipt is sent, which is filled in then ([`crate::daily`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daily {
    /// UTC, counted from 1970-01-01.
    pub day: i32,
    /// When it was found to be over.
    pub noticed: Received,
}

/// What stands under one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Reading(Reading),
    Dead(Dead),
    Gap(Gap),
    Daily(Daily),
}

/// A body as it is stored. The order of variants is the format: older releases know the first four.
#[derive(Deserialize)]
enum Stored {
    Reading(Reading),
    Dead(Dead),
    Gap(Gap),
    Daily(Daily),
    /// A reading that is more than one message with measurements.
    Made(Reading, Kind, Vec<Mark>),
    /// A raw whose bytes are not kept.
    Withheld(Dead, Vec<Mark>),
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const NAME: &str = "Body";
        match self {
            Self::Reading(reading) if reading.kind == Kind::Measured && reading.marks.is_empty() => {
                serializer.serialize_newtype_variant(NAME, 0, "Reading", reading)
            }
            Self::Dead(dead) if !dead.marks.is_empty() => {
                serializer.serialize_newtype_variant(NAME, 5, "Withheld", &(dead, &dead.marks))
            }
            Self::Dead(dead) => serializer.serialize_newtype_variant(NAME, 1, "Dead", dead),
            Self::Gap(gap) => serializer.serialize_newtype_variant(NAME, 2, "Gap", gap),
            Self::Daily(daily) => serializer.serialize_newtype_variant(NAME, 3, "Daily", daily),
            Self::Reading(reading) => {
                serializer.serialize_newtype_variant(NAME, 4, "Made", &(reading, reading.kind, &reading.marks))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Reading(reading) => Self::Reading(reading),
            Stored::Dead(dead) => Self::Dead(dead),
            Stored::Gap(gap) => Self::Gap(gap),
            Stored::Daily(daily) => Self::Daily(daily),
            Stored::Withheld(dead, marks) => Self::Dead(Dead { marks, ..dead }),
            Stored::Made(reading, kind, marks) => Self::Reading(Reading { kind, marks, ..reading }),
        })
    }
}

impl Body {
    /// What a redelivery of its messages is recognised by, and of which source they are.
    pub fn marks(&self) -> (Option<&Arc<str>>, Cow<'_, [Mark]>) {
        match self {
            Self::Reading(reading) if reading.marks.is_empty() => {
                let Reading { sender, packet_id, topic, payload, self_identified, .. } = reading;
                let mark = Mark::of(sender, *packet_id, topic, payload, *self_identified);
                (Some(&reading.source), vec![mark].into())
            }
            Self::Reading(reading) => (Some(&reading.source), reading.marks.as_slice().into()),
            Self::Dead(dead) if !dead.marks.is_empty() => (Some(&dead.source), dead.marks.as_slice().into()),
            Self::Dead(dead) => {
                let mark = Mark::of(&dead.sender, dead.packet_id, &dead.topic, &dead.payload, false);
                (Some(&dead.source), vec![mark].into())
            }
            Self::Gap(_) | Self::Daily(_) => (None, Cow::default()),
        }
    }
}

/// One record of the queue as its readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub sequence: u64,
    /// Bytes of the record on disk.
    pub size: usize,
    pub body: Body,
}

/// A raw or reading set aside with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub queue_id: QueueId,
    pub sequence: u64,
    pub reason: String,
    /// When it was set aside.
    pub set_aside: Received,
    pub body: Body,
}

/// What the redelivery window remembers of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Of the sender's name: packet identifiers of different senders do not compare.
    pub sender: Fingerprint,
    /// None: sent with QoS 0.
    pub packet_id: Option<u16>,
    /// Of topic and payload ([`Mark::content`]).
    pub content: Fingerprint,
    /// Whether equal content alone shows a redelivery.
    pub self_identified: bool,
}

impl Mark {
    /// The mark of one message.
    pub fn of(sender: &str, packet_id: Option<u16>, topic: &str, payload: &[u8], self_identified: bool) -> Self {
        Self {
            sender: Fingerprint::of(&[sender.as_bytes()]),
            packet_id,
            content: Self::content(topic, payload),
            self_identified,
        }
    }

    /// The fingerprint by which a redelivery is recognised.
    pub fn content(topic: &str, payload: &[u8]) -> Fingerprint {
        Fingerprint::of(&[topic.as_bytes(), payload])
    }
}
