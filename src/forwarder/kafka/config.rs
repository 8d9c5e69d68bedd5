//! The client library's properties, from our settings.

use std::path::Path;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DefaultProducerContext};

use crate::config::settings::{Compression, Delivery, Kafka, Sasl, SaslMechanism, Tls};

/// Messages the library holds at most, delivered ones included until they are reported: the queue is ours, not its.
const BUFFERED_MESSAGES: usize = 3_000;

/// Whether there is such a property, and it takes the value; otherwise what librdkafka says about it.
///
/// # Errors
///
/// The library's own words.
pub fn takes_property(name: &str, value: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Err(KafkaError::ClientConfig(_, why, ..)) => Err(why.trim().to_owned()),
        Err(other) => Err(other.to_string()),
        Ok(_) => Ok(()),
    }
}

/// Whether the library can use the files of `tls`, of which there may be any; otherwise what it says about them. Makes a
/// client that connects to nothing.
///
/// # Errors
///
/// The library's own words.
pub fn takes_tls(tls: &Tls) -> Result<(), String> {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Emerg);
    for (key, value) in security(Some(tls), None) {
        // Where its own file is not named, the system's roots are not what is asked about.
        if key != "ssl.ca.location" || tls.ca_file.is_some() {
            config.set(key, value);
        }
    }
    let made: Result<BaseProducer<DefaultProducerContext>, KafkaError> = config.create();
    match made {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientCreation(why)) => Err(why.trim().to_owned()),
        Err(other) => Err(other.to_string()),
    }
}

/// What both kinds of client share. The user's properties stand over our preferences and under what the protocol needs.
pub fn common(settings: &Kafka, agent_id: &str) -> ClientConfig {
    over(ClientConfig::new(), settings, agent_id)
}

fn over(mut config: ClientConfig, settings: &Kafka, agent_id: &str) -> ClientConfig {
    config.set_log_level(RDKafkaLogLevel::Notice);
    config.set("client.id", format!("meterferry-{agent_id}"));
    config.set("socket.keepalive.enable", "true");
    config.set("reconnect.backoff.ms", "250");
    config.set("reconnect.backoff.max.ms", millis(settings.retry_max_delay.max(Duration::from_secs(1))));
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    config.set("bootstrap.servers", settings.bootstrap_servers.join(","));
    for (key, value) in security(settings.tls.as_ref(), settings.sasl.as_ref()) {
        config.set(key, value);
    }
    config
}

/// How long a call of the transaction's protocol may take, and a request to a broker: a transaction that takes longer is
/// ended by the broker anyway.
pub fn call_limit(settings: &Kafka) -> Duration {
    match settings.delivery {
        Delivery::ExactlyOnce => settings.request_timeout.min(settings.transaction_timeout),
        Delivery::AtLeastOnce => settings.request_timeout,
    }
}

/// Of the producer; `group` is its transactional id.
pub fn producer(settings: &Kafka, agent_id: &str, group: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("queue.buffering.max.messages", BUFFERED_MESSAGES.to_string());
    // What is in flight is limited by `producer.rs`, which lets a single large record through.
    config.set("queue.buffering.max.kbytes", "1048576");
    config.set("message.max.bytes", "67108864");
    // A quarter of what is in flight: full batches leave at once, and the next is filled meanwhile. The wait of a batch that
    // is not full saves more requests than it costs time.
    config.set("batch.size", "262144");
    config.set("linger.ms", "5");
    let mut config = over(config, settings, agent_id);
    config.set("acks", "all");
    config.set("partitioner", "murmur2_random");
    config.set("compression.codec", compression(settings.compression));
    config.set("message.timeout.ms", millis(call_limit(settings)));
    config.set("socket.timeout.ms", millis(call_limit(settings)));
    // The library tries again as long as the message's time allows.
    config.set("message.send.max.retries", i32::MAX.to_string());
    match settings.delivery {
        Delivery::ExactlyOnce => {
            config.set("transactional.id", group);
            config.set("transaction.timeout.ms", millis(settings.transaction_timeout));
        }
        Delivery::AtLeastOnce if settings.idempotence => {
            config.set("enable.idempotence", "true");
            // A batch that fails must not let a later one overtake it.
            config.set("enable.gapless.guarantee", "true");
        }
        Delivery::AtLeastOnce => {
            config.set("enable.idempotence", "false");
            config.set("max.in.flight.requests.per.connection", "1");
        }
    }
    config
}

/// Of the client that asks for topics and reads the resume point.
pub fn reader(settings: &Kafka, agent_id: &str, group: &str) -> ClientConfig {
    let mut config = common(settings, agent_id);
    config.set("group.id", group);
    config.set("enable.auto.commit", "false");
    config.set("allow.auto.create.topics", "false");
    // With read_uncommitted a pending commit shows the old offset.
    config.set("isolation.level", "read_committed");
    config.set("socket.timeout.ms", millis(call_limit(settings)));
    config
}

/// The way to the cluster as librdkafka's properties, for another client of the same configuration: the user's own, TLS
/// and login. They hold the password: rdkafka's own view of a configuration has a placeholder there.
pub fn connection(settings: &Kafka) -> Vec<(String, String)> {
    let own = settings.properties.iter().cloned();
    let security = security(settings.tls.as_ref(), settings.sasl.as_ref());
    own.chain(security.into_iter().map(|(key, value)| (key.to_owned(), value))).collect()
}

fn security(tls: Option<&Tls>, sasl: Option<&Sasl>) -> Vec<(&'static str, String)> {
    let path = |file: &Path| file.to_string_lossy().into_owned();
    let mut properties = Vec::new();
    match (tls, sasl) {
        (None, None) => {}
        (Some(_), None) => properties.push(("security.protocol", "ssl".to_owned())),
        (None, Some(_)) => properties.push(("security.protocol", "sasl_plaintext".to_owned())),
        (Some(_), Some(_)) => properties.push(("security.protocol", "sasl_ssl".to_owned())),
    }
    if let Some(tls) = tls {
        // The OpenSSL inside the library was built elsewhere: "probe" looks where distributions keep their roots.
        let roots = tls.ca_file.as_ref().map_or_else(|| "probe".to_owned(), |file| path(file));
        properties.push(("ssl.ca.location", roots));
        properties.extend(tls.certificate_file.iter().map(|file| ("ssl.certificate.location", path(file))));
        properties.extend(tls.key_file.iter().map(|file| ("ssl.key.location", path(file))));
        let identification = if tls.verify_hostname { "https" } else { "none" };
        properties.push(("ssl.endpoint.identification.algorithm", identification.to_owned()));
    }
    if let Some(sasl) = sasl {
        properties.push(("sasl.mechanism", mechanism(sasl.mechanism).to_owned()));
        properties.push(("sasl.username", sasl.username.clone()));
        properties.push(("sasl.password", sasl.password.0.clone()));
    }
    properties
}

fn mechanism(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

fn compression(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().min(i32::MAX as u128).max(1).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load};

    /// `consume` reaches the cluster as the agent does: with the password, not with a placeholder.
    #[test]
    fn another_client_gets_the_whole_connection() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("meterferry.toml");
        std::fs::write(folder.path().join("password"), "secret\n").expect("write");
        let text = "[kafka]\nbootstrap_servers = [\"k:9093\"]\n[kafka.tls]\n[kafka.sasl]\n\
            mechanism = \"SCRAM-SHA-512\"\nusername = \"u\"\npassword_file = \"password\"\n\
            [kafka.properties]\n\"broker.address.family\" = \"v4\"\n";
        std::fs::write(&file, text).expect("write");
        let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", folder.path())]);
        let kafka = load(Some(&file), &environment).unwrap_or_else(|problems| panic!("{problems}")).settings.kafka;
        let properties: Vec<_> = connection(&kafka);
        let wanted = [
            ("broker.address.family", "v4"),
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "probe"),
            ("ssl.endpoint.identification.algorithm", "https"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "u"),
            ("sasl.password", "secret"),
        ];
        assert_eq!(properties, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
