//! The names of all tables and keys, in the order in which they are explained and dumped.

pub const ROOT: &[&str] = &["agent", "queue", "kafka", "privacy", "source"];

const AGENT: &[&str] = &["id", "summary_interval", "stop_timeout", "clock_wait"];

const QUEUE: &[&str] = &[
    "path",
    "max_size",
    "min_free",
    "when_full",
    "segment_size",
    "commit_delay",
    "redelivery_window",
    "max_reading_size",
    "max_dead_letters",
    "dead_letters_max_age",
    "card_endurance",
];

const KAFKA: &[&str] = &[
    "bootstrap_servers",
    "topic",
    "resume_topic",
    "delivery",
    "format",
    "compression",
    "linger",
    "batch_count",
    "batch_size",
    "retry_max_delay",
    "request_timeout",
    "transaction_timeout",
    "idempotence",
    "create_topics",
    "partitions",
    "replication",
    "retention",
    "timestamp_before_max",
    "tls",
    "sasl",
    "properties",
];

const PRIVACY: &[&str] = &["codes", "thin", "pseudonym_key_file"];

const KAFKA_TLS: &[&str] = &["ca_file", "certificate_file", "key_file", "verify_hostname"];

const KAFKA_SASL: &[&str] = &["mechanism", "username", "password_file"];

/// Keys of `[[source]]` with `type = "mqtt"`.
pub const MQTT: &[&str] = &[
    "name",
    "type",
    "topics",
    "payload",
    "mapping_file",
    "timezone",
    "kafka_topic",
    "host",
    "port",
    "client_id",
    "username",
    "password_file",
    "keep_alive",
    "connect_timeout",
    "reconnect_max_delay",
    "max_unacknowledged",
    "max_packet_size",
    "retained",
    "tls",
];

/// Keys of `[[source]]` with `type = "mqtt-listener"`.
pub const MQTT_LISTENER: &[&str] = &[
    "name",
    "type",
    "topics",
    "payload",
    "mapping_file",
    "timezone",
    "kafka_topic",
    "listen",
    "username",
    "password_file",
    "users",
    "allow_anonymous",
    "max_clients",
    "max_packet_size",
    "max_unacknowledged",
    "idle_timeout",
    "commit_delay",
    "tls",
];

/// Keys of `[[source]]` with `type = "rest"`.
pub const REST: &[&str] = &[
    "name",
    "type",
    "payload",
    "kafka_topic",
    "url",
    "token_file",
    "path",
    "status_path",
    "interval",
    "status_interval",
    "timeout",
    "max_body_size",
    "retry_max_delay",
    "store_unchanged",
    "tls",
];

/// Keys of `[source.tls]` with `type = "rest"`.
pub const REST_TLS: &[&str] = &["ca_file", "fingerprint", "trust_on_first_use"];

/// Keys of `[[source]]` with `type = "modbus"`.
pub const MODBUS: &[&str] = &[
    "name",
    "type",
    "payload",
    "kafka_topic",
    "host",
    "port",
    "unit",
    "interval",
    "timeout",
    "reconnect_max_delay",
    "device",
    "base",
    "registers",
];

/// The types of `[[source]]`, each with its keys.
pub const SOURCES: [(&str, &[&str]); 4] =
    [("mqtt", MQTT), ("mqtt-listener", MQTT_LISTENER), ("rest", REST), ("modbus", MODBUS)];

/// Keys of `[source.tls]` with `type = "mqtt"`.
pub const MQTT_TLS: &[&str] = &["ca_file", "certificate_file", "key_file"];

/// Keys of `[source.tls]` with `type = "mqtt-listener"`.
pub const MQTT_LISTENER_TLS: &[&str] = &["certificate_file", "key_file"];

/// Keys of a mapping's file.
const MAPPING: &[&str] = &[
    "about",
    "topics",
    "shape",
    "window",
    "prefix",
    "register_unit",
    "power_unit",
    "under",
    "ignore",
    "ignore_topics",
    "other_devices",
    "device",
    "time",
    "field",
    "constant",
];

const DEVICE: &[&str] = &["topics", "paths"];

const TIME: &[&str] = &["paths", "formats"];

const FIELD: &[&str] = &["topic", "path", "code", "name", "unit", "factor"];

const CONSTANT: &[&str] = &["code", "name", "value"];

const USERS: &[&str] = &["username", "password_file"];

const REGISTERS: &[&str] = &["address", "function", "type", "word_order", "factor", "code"];

/// The keys of a table. `[kafka.properties]` has none of ours; those of `[[source]]` follow from its type.
pub fn keys(path: &str) -> &'static [&'static str] {
    match path {
        "" => ROOT,
        "agent" => AGENT,
        "queue" => QUEUE,
        "kafka" => KAFKA,
        "privacy" => PRIVACY,
        "kafka.tls" => KAFKA_TLS,
        "kafka.sasl" => KAFKA_SASL,
        "source.users" => USERS,
        "mapping" => MAPPING,
        "device" => DEVICE,
        "time" => TIME,
        "field" => FIELD,
        "constant" => CONSTANT,
        "source.registers" => REGISTERS,
        _ => &[],
    }
}

/// The one table that a key belongs to; none where several know it.
pub fn owner(key: &str) -> Option<&'static str> {
    let tables = ["agent", "queue", "kafka", "privacy", "kafka.tls", "kafka.sasl"];
    let mut owners: Vec<_> = tables.into_iter().filter(|path| keys(path).contains(&key)).collect();
    if SOURCES.iter().any(|(_, keys)| keys.contains(&key)) {
        owners.push("source");
    }
    match owners[..] {
        [one] => Some(one),
        _ => None,
    }
}
