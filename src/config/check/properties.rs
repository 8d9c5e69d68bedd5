//! `[kafka.properties]`: any librdkafka property but those that the agent owns. Whether a property exists, and takes the
//! value, is known only to librdkafka, which is asked.

use crate::config::problem::{Place, Report};
use crate::config::raw::{Item, Value, is_secret, quoted};
use crate::config::section::Section;
use crate::forwarder;

/// Properties that may be given; more is a mistake.
const MOST: usize = 200;

const ONCE: &str = "exactly-once delivery depends on it";
const QUEUE: &str = "the queue on disk keeps what waits, and retries without end";

/// What the agent owns: the property (a trailing `*` stands for any ending), why, and what to use in its stead.
const OWNED: &[(&str, &str, &str)] = &[
    ("bootstrap.servers", "it has a key of its own", "use kafka.bootstrap_servers"),
    ("metadata.broker.list", "it has a key of its own", "use kafka.bootstrap_servers"),
    ("transactional.id", ONCE, "it is meterferry.<agent id>.<queue id>; set agent.id"),
    ("transaction.timeout.ms", "it has a key of its own", "use kafka.transaction_timeout"),
    ("enable.idempotence", ONCE, "use kafka.idempotence with delivery = \"at-least-once\""),
    ("enable.gapless.guarantee", ONCE, "remove it"),
    ("isolation.level", "a pending commit must not show an old resume point", "remove it"),
    ("group.*", "the consumer group holds the resume point", "it is meterferry.<agent id>.<queue id>; set agent.id"),
    ("enable.auto.commit", "the resume point is committed with the records", "remove it"),
    ("enable.auto.offset.store", "the resume point is committed with the records", "remove it"),
    ("auto.commit.*", "the resume point is committed with the records", "remove it"),
    ("auto.offset.reset", "the resume point alone says where to go on", "remove it"),
    (
        "acks",
        "a reading leaves the queue only when all replicas have it",
        "remove it; set min.insync.replicas on the topic",
    ),
    ("request.required.acks", "a reading leaves the queue only when all replicas have it", "remove it"),
    ("max.in.flight*", "the order of a device's readings depends on it", "remove it"),
    ("message.timeout.ms", QUEUE, "remove it"),
    ("delivery.timeout.ms", QUEUE, "remove it"),
    ("retries", QUEUE, "use kafka.retry_max_delay for the longest pause"),
    ("message.send.max.retries", QUEUE, "use kafka.retry_max_delay for the longest pause"),
    ("request.timeout.ms", "it has a key of its own", "use kafka.request_timeout"),
    ("socket.timeout.ms", "librdkafka ties it to the transaction's timeout", "use kafka.request_timeout"),
    ("message.max.bytes", "it follows from the largest reading", "use queue.max_reading_size"),
    ("security.protocol", "it follows from [kafka.tls] and [kafka.sasl]", "add or remove these tables"),
    ("ssl.endpoint.identification.algorithm", "it has a key of its own", "use kafka.tls.verify_hostname"),
    ("enable.ssl.certificate.verification", "an unverified server may be anybody", "name its CA in kafka.tls.ca_file"),
    ("ssl_*", "TLS has a table of its own", "use [kafka.tls]: ca_file, certificate_file, key_file"),
    ("plugin.library.paths", "it would load other programs into the agent", "remove it"),
    ("test.mock.*", "readings would go nowhere", "remove it"),
    ("ssl.*", "TLS has a table of its own", "use [kafka.tls]: ca_file, certificate_file, key_file"),
    ("sasl.*", "SASL has a table of its own", "use [kafka.sasl]: mechanism, username, password_file"),
    ("compression.*", "it has a key of its own", "use kafka.compression"),
    ("linger.ms", "the forwarder closes the batches", "use kafka.linger"),
    ("queue.buffering.max.ms", "the forwarder closes the batches", "use kafka.linger"),
    ("queue.buffering.*", "the agent's memory is bounded by its batches", "use kafka.batch_size and kafka.batch_count"),
    ("batch.*", "the forwarder closes the batches", "use kafka.batch_size and kafka.batch_count"),
    ("partitioner*", "a device must stay in its partition, as Kafka's Java client chooses it", "remove it"),
    ("allow.auto.create.topics", "topics are made with the partitions that you want", "use kafka.create_topics"),
    ("delivery.report.only.error", "every record's delivery is looked at", "remove it"),
    ("dr_*", "the agent listens to it itself", "remove it"),
];

/// The properties in the file's order, as librdkafka takes them.
pub fn check(kafka: &mut Section, report: &mut Report) -> Vec<(String, String)> {
    let Some(given) = kafka.table(report, "properties", "kafka.properties").given() else { return Vec::new() };
    let mut given_properties = Vec::new();
    for (key, place, item) in given.value.rest() {
        flatten(key, place, item, &mut given_properties);
    }
    let mut properties: Vec<(String, String)> = Vec::new();
    for (key, place, item) in given_properties {
        let Some(value) = property(&key, place, item, report) else { continue };
        if let Some(earlier) = properties.iter_mut().find(|(name, _)| *name == key) {
            earlier.1 = value;
        } else if properties.len() < MOST {
            properties.push((key, value));
        } else {
            let message = format!("kafka.properties.{} is one too many: at most {MOST} properties", quoted(&key));
            report.error(place, message, "remove those that you do not need");
        }
    }
    properties
}

/// `socket.keepalive.enable = true` without quotes is a table in a table to TOML; here it is what it looks like.
fn flatten(key: String, place: Place, item: Item, properties: &mut Vec<(String, Place, Item)>) {
    match item.value {
        Value::Table(table) if !table.entries.is_empty() => {
            for entry in table.entries {
                flatten(format!("{key}.{}", entry.key), entry.place, entry.item, properties);
            }
        }
        _ => properties.push((key, place, item)),
    }
}

/// The value of a property that may be set.
fn property(key: &str, place: Place, item: Item, report: &mut Report) -> Option<String> {
    let shown = format!("kafka.properties.{}", quoted(key));
    if let Some((_, why, instead)) = OWNED.iter().find(|(name, ..)| owns(name, key)) {
        report.error(place, format!("{shown} belongs to the agent: {why}"), *instead);
        return None;
    }
    if is_secret(key) {
        let hint = "passwords stand in files: password_file in [kafka.sasl]";
        report.error(place, format!("{shown} would be a secret in the configuration itself: refused"), hint);
        return None;
    }
    let legal = (1..=100).contains(&key.len()) && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !legal {
        report.error(place, format!("{shown} is no name of a property"), "names look like \"socket.keepalive.enable\"");
        return None;
    }
    let value = match item.value {
        Value::Broken => return None,
        Value::Text(text) if !text.contains('\0') => text,
        Value::Integer(_, Some(number)) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        other => {
            let what = "must be a string, a whole number, true or false";
            report.error(item.place, format!("{shown} is {}: {what}", other.shown()), "put the value in quotes");
            return None;
        }
    };
    if let Err(why) = forwarder::takes_property(key, &value) {
        let hint = "librdkafka's CONFIGURATION.md lists the properties and their values";
        report.error(place, format!("{shown} = {} is refused by librdkafka: {why}", quoted(&value)), hint);
        return None;
    }
    Some(value)
}

fn owns(name: &str, key: &str) -> bool {
    match name.strip_suffix('*') {
        Some(start) => key.starts_with(start),
        None => key == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 3: every property that exactly-once rests on is the agent's.
    #[test]
    fn owned_properties() {
        let is_owned = |key: &str| OWNED.iter().any(|(name, ..)| owns(name, key));
        for key in [
            "transactional.id",
            "acks",
            "group.id",
            "isolation.level",
            "sasl.password",
            "ssl.key.pem",
            "partitioner",
            "linger.ms",
        ] {
            assert!(is_owned(key), "{key}");
        }
        for key in [
            "socket.keepalive.enable",
            "client.id",
            "retry.backoff.ms",
            "statistics.interval.ms",
            "debug",
            "client.rack",
        ] {
            assert!(!is_owned(key), "{key}");
        }
    }
}
