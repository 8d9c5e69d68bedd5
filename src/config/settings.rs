//! The checked, typed configuration. Everything in it is within its limits.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::names::show_address;
use crate::decode::mapping::Mapping;
use crate::obis::Obis;
use crate::source::scaled::Scaled;

/// All that the agent is configured with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub agent: Agent,
    pub queue: Queue,
    pub kafka: Kafka,
    pub privacy: Privacy,
    pub sources: Vec<Source>,
}

impl Settings {
    /// Every topic that readings go to, as far as it does not depend on the device: the usual one first.
    pub fn kafka_topics(&self) -> Vec<&str> {
        let mut topics: Vec<&str> = Vec::new();
        if self.sources.is_empty()
            || self.sources.iter().any(|source| source.kafka_topic.as_deref().is_none_or(is_of_device))
        {
            topics.push(&self.kafka.topic);
        }
        for own in
            self.sources.iter().filter_map(|source| source.kafka_topic.as_deref()).filter(|topic| !is_of_device(topic))
        {
            if !topics.contains(&own) {
                topics.push(own);
            }
        }
        topics
    }

    /// The names of topics that depend on the device, with `{device}` in them.
    pub fn topics_of_devices(&self) -> BTreeSet<&str> {
        self.sources
            .iter()
            .filter_map(|source| source.kafka_topic.as_deref())
            .filter(|topic| is_of_device(topic))
            .collect()
    }
}

/// Whether a topic's name depends on the device.
pub fn is_of_device(topic: &str) -> bool {
    topic.contains(DEVICE)
}

/// `[agent]`
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// None: the id kept in `queue.toml`, else the host name and six hexadecimal digits of the machine's id.
    /// 1 to 63 letters, digits, `-` and `_`; no dot.
    pub id: Option<String>,
    /// How often a summary line is logged; at least 1 s. Default 1 h.
    pub summary_interval: Duration,
    /// How long an orderly stop may take. Default 20 s.
    pub stop_timeout: Duration,
    /// How long forwarding waits for a synchronised clock before it believes the clock as it is. Default 10 min.
    pub clock_wait: Duration,
}

/// `[queue]`
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// The queue's folder. Default `$STATE_DIRECTORY/queue`, else `queue` in the XDG state folder of meterferry.
    pub path: PathBuf,
    /// Bytes the folder may take. Default 2 GiB.
    pub max_size: u64,
    /// Bytes that stay free on the file system. Default 512 MiB.
    pub min_free: u64,
    /// What happens when there is no room for new readings. Default `block`.
    pub when_full: WhenFull,
    /// Bytes of records after which a new segment begins. Default 16 MiB.
    pub segment_size: u64,
    /// The longest a reading waits for its commit. Default 5 s.
    pub commit_delay: Duration,
    /// Messages that a source remembers to recognise a redelivery. Default 10,000, fewer with small segments.
    pub redelivery_window: usize,
    /// Bytes of one reading; a larger one becomes a dead letter. Default 256 KiB.
    pub max_reading_size: usize,
    /// Bytes of dead letters; above it the oldest are deleted. Their file takes up to three times as much. Default 64 MiB.
    pub max_dead_letters: u64,
    /// Dead letters older than this are deleted. None: never for their age.
    pub dead_letters_max_age: Option<Duration>,
    /// Bytes that the card may have written to it in its life. None: 300 times its size.
    pub card_endurance: Option<u64>,
}

/// `queue.when_full`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Stop acknowledging until there is room.
    Block,
    /// Give up the oldest readings.
    DropOldest,
    /// Of the oldest readings, keep one in 10 s, then in a minute, then in 15 minutes.
    Thin,
}

/// `[kafka]`
#[derive(Debug, Clone, PartialEq)]
pub struct Kafka {
    /// `host:port`, at least one; empty only where the file does not set it: then readings are kept and not sent.
    pub bootstrap_servers: Vec<String>,
    /// Default `sma-kafka`.
    pub topic: String,
    /// Default `meterferry-resume`.
    pub resume_topic: String,
    pub delivery: Delivery,
    pub format: Format,
    pub compression: Compression,
    /// How long the forwarder waits for a batch to fill. Default 1 s.
    pub linger: Duration,
    /// Records in one batch, which is one transaction. Default 200,000.
    pub batch_count: usize,
    /// Bytes of records in one batch; they are streamed, memory holds a part. Default 64 MiB.
    pub batch_size: usize,
    /// Cap of the retry delay. Default 15 s.
    pub retry_max_delay: Duration,
    /// How long one request may wait for an answer. Default 30 s.
    pub request_timeout: Duration,
    /// `transaction.timeout.ms`. Default 15 s.
    pub transaction_timeout: Duration,
    /// In `at-least-once`: `enable.idempotence`. Default true.
    pub idempotence: bool,
    /// Make missing topics. Default false.
    pub create_topics: bool,
    /// Of topics made here. Default 1 each; replication -1 = the broker's default.
    pub partitions: i32,
    pub replication: i32,
    /// What is assumed where the topic's configuration may not be read. Default 7 days.
    pub retention: Duration,
    /// Like `retention`, for `message.timestamp.before.max.ms`; none: no limit. Default none.
    pub timestamp_before_max: Option<Duration>,
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    /// Any other librdkafka property, in the file's order.
    pub properties: Vec<(String, String)>,
}

/// `[privacy]`: what leaves the house, and what of it is stored at all. Nothing by default, and only with
/// [`Format::Normalized`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Privacy {
    /// Only these codes. None: all of them.
    pub codes: Option<Vec<Obis>>,
    /// One reading a device in so long, 1 min or 15 min. None: all of them.
    pub thin: Option<Duration>,
    /// Devices are called by a keyed hash of their names.
    pub pseudonym_key: Option<Secret>,
}

impl Privacy {
    /// Whether anything is kept back.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

/// `kafka.delivery`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

impl Delivery {
    /// As the configuration writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }
}

/// `kafka.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The payload's bytes, unchanged.
    Original,
    /// One documented JSON for every device (edge-config/schema/reading-1.schema.json).
    Normalized,
}

/// `kafka.compression`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// A TLS client: `[kafka.tls]`, `[source.tls]`. Files are readable PEM.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tls {
    /// None: the system's roots.
    pub ca_file: Option<PathBuf>,
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Whether the server's name must stand in its certificate. Default true. Only Kafka can switch it off.
    pub verify_hostname: bool,
}

/// `[kafka.sasl]`
#[derive(Clone, PartialEq)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: Secret,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// `kafka.sasl.mechanism`: those that this build of librdkafka has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// A password: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// User and password of an MQTT client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: Secret,
}

/// Stands for the device's name in a source's `kafka_topic`.
pub const DEVICE: &str = "{device}";

/// `[[source]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Unique; letters, digits, `-`, `_` and `.`.
    pub name: Arc<str>,
    pub payload: Payload,
    /// The user's table, where it is not a preset's.
    pub mapping_file: Option<PathBuf>,
    /// The zone of local times as it is written; none: the system's.
    pub timezone: Option<String>,
    /// None: `kafka.topic`. May hold [`DEVICE`].
    pub kafka_topic: Option<String>,
    pub interface: Interface,
}

/// `source.payload`: what decodes this source's messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// The document of the Austrian smart meter adapter.
    Sma,
    /// Any bytes are a reading.
    Any,
    /// What another reader says, by a preset or a table of the user's.
    Mapped(Arc<Mapping>),
}

impl Payload {
    /// As messages call it: `sma`, `any`, a preset's name or a file's.
    pub fn name(&self) -> &str {
        match self {
            Self::Sma => "sma",
            Self::Any => "any",
            Self::Mapped(mapping) => &mapping.name,
        }
    }
}

/// `source.type` with its keys.
/// In a line: its name, its kind, where it listens or connects to, and for what.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Interface::Mqtt(mqtt) => {
                let address = show_address(&mqtt.host, mqtt.port);
                write!(f, "{} (mqtt {address} {})", self.name, mqtt.topics.join(" "))
            }
            Interface::MqttListener(listener) => {
                write!(f, "{} (mqtt-listener {} {})", self.name, listener.listen, listener.topics.join(" "))
            }
            Interface::Rest(rest) => {
                let every = super::show_duration(rest.interval);
                write!(f, "{} (rest {} every {every})", self.name, rest.url())
            }
            Interface::Modbus(modbus) => {
                let address = show_address(&modbus.host, modbus.port);
                let what = match modbus.registers.len() {
                    0 => "SunSpec".to_owned(),
                    1 => "1 register".to_owned(),
                    count => format!("{count} registers"),
                };
                write!(f, "{} (modbus {address} unit {} {what})", self.name, modbus.unit)
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Interface {
    Mqtt(Mqtt),
    MqttListener(MqttListener),
    Rest(Rest),
    Modbus(Modbus),
}

/// `type = "mqtt"`
#[derive(Debug, Clone, PartialEq)]
pub struct Mqtt {
    /// Name or address, IPv6 without brackets. Default `localhost`.
    pub host: String,
    /// Default 1883, with TLS 8883.
    pub port: u16,
    /// Filters, at least one; none overlaps another of the same broker and client id.
    pub topics: Vec<String>,
    /// None: `meterferry-<agent id>-<source name>`.
    pub client_id: Option<String>,
    pub login: Option<Login>,
    pub tls: Option<Tls>,
    /// Default 30 s; 5 s to 18 h.
    pub keep_alive: Duration,
    /// Default 10 s.
    pub connect_timeout: Duration,
    /// Cap of the reconnect delay. Default 1 min.
    pub reconnect_max_delay: Duration,
    /// Messages taken and not yet acknowledged, above which a blocked source disconnects. Default 1,000.
    pub max_unacknowledged: usize,
    /// Bytes of one MQTT packet, above which the connection ends. Default 16 MiB.
    pub max_packet_size: usize,
    /// Store retained messages as readings. Default false.
    pub retained: bool,
}

/// `type = "mqtt-listener"`
#[derive(Debug, Clone, PartialEq)]
pub struct MqttListener {
    /// Default `127.0.0.1:1883`. Port 0: any free one.
    pub listen: std::net::SocketAddr,
    /// Filters a PUBLISH must match; what does not match is acknowledged, counted and dropped. Default `["sma"]`.
    pub topics: Vec<String>,
    pub logins: Vec<Login>,
    /// Allow clients without user and password. Default: true on loopback without `logins`, else false.
    pub allow_anonymous: bool,
    /// None: plain TCP. `ca_file` is unused.
    pub tls: Option<Tls>,
    /// Default 20.
    pub max_clients: usize,
    /// Default 1 MiB.
    pub max_packet_size: usize,
    /// Of one client. Default 100.
    pub max_unacknowledged: usize,
    /// A client that sends nothing this long, and has no keep alive of its own, is disconnected. Default 2 min.
    pub idle_timeout: Duration,
    /// The longest a reading of this source waits for its commit; at most 250 ms. Default 250 ms.
    pub commit_delay: Duration,
}

/// `type = "rest"`
#[derive(Debug, Clone, PartialEq)]
pub struct Rest {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Default 443 with TLS, else 80.
    pub port: u16,
    /// None: plain HTTP.
    pub trust: Option<Trust>,
    pub token: Option<Secret>,
    /// Where the measurement is. None: where the adapter's firmwares have it. Begins with `/`.
    pub path: Option<String>,
    /// Where the status is. None: where the adapter's firmwares have it; nowhere where `path` is set.
    pub status_path: Option<String>,
    /// From one measurement to the next; 1 s to 1 day. Default 5 s.
    pub interval: Duration,
    /// From one status to the next. None: it is not asked for. Default 10 min.
    pub status_interval: Option<Duration>,
    /// Of one request, connecting included. Default 10 s.
    pub timeout: Duration,
    /// Bytes of one answer's body. Default 64 KiB.
    pub max_body_size: usize,
    /// Cap of the delay after a failure. Default 1 min.
    pub retry_max_delay: Duration,
    /// Store a document that says the same as the last one. Default false.
    pub store_unchanged: bool,
}

impl Rest {
    /// As the configuration writes it.
    pub fn url(&self) -> String {
        let (scheme, usual) = if self.trust.is_some() { ("https", 443) } else { ("http", 80) };
        match self.port == usual {
            true if self.host.contains(':') => format!("{scheme}://[{}]", self.host),
            true => format!("{scheme}://{}", self.host),
            false => format!("{scheme}://{}", show_address(&self.host, self.port)),
        }
    }
}

/// Which certificate of a device is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// One for its name, signed by an authority in this PEM file; none: by one of the system's.
    Authorities(Option<PathBuf>),
    /// The one with this SHA-256, whatever it says and whoever signed it.
    Fingerprint([u8; 32]),
    /// The one it shows first; it is remembered.
    FirstUse,
}

/// `type = "modbus"`
#[derive(Debug, Clone, PartialEq)]
pub struct Modbus {
    /// Name or address, IPv6 without brackets. Default `localhost`.
    pub host: String,
    /// Default 502.
    pub port: u16,
    /// Default 1; 0 to 255.
    pub unit: u8,
    /// From poll to poll. Default 5 s; 1 s to 1 day.
    pub interval: Duration,
    /// Of a connection, and of each answer. Default 3 s.
    pub timeout: Duration,
    /// Cap of the delay before a failed poll is tried again. Default 1 min.
    pub reconnect_max_delay: Duration,
    /// The key in Kafka. None: the meter's serial number, else the source's name.
    pub device: Option<String>,
    /// The register of the SunSpec marker. None: it is looked for.
    pub base: Option<u16>,
    /// What is read of a device without SunSpec; empty: SunSpec.
    pub registers: Vec<Register>,
}

/// `[[source.registers]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Of the first word, counted from 0.
    pub address: u16,
    pub function: Function,
    pub kind: RegisterType,
    pub order: WordOrder,
    pub factor: Scaled,
    /// No two of one source are equal.
    pub code: Obis,
}

/// `source.registers.function`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// Function code 3.
    Holding,
    /// Function code 4.
    Input,
}

/// `source.registers.type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterType {
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

/// `source.registers.word_order`: of values of several registers. The bytes of each are high first, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordOrder {
    HighFirst,
    LowFirst,
}
