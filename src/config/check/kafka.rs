//! `[kafka]`, `[kafka.tls]`, `[kafka.sasl]`

use std::time::Duration;

use super::{DAY, HOUR, KIB, MIB, MINUTE, SECOND, legal_or, properties};
use crate::config::files::{self, Around, Side};
use crate::config::names;
use crate::config::problem::{Place, Report};
use crate::config::raw::{Value, quoted};
use crate::config::section::{Section, Taken, either, nearest_word};
use crate::config::settings::{Compression, Delivery, Format, Kafka, Sasl, SaslMechanism, Tls};

/// Brokers in the list; librdkafka finds all others through any one of them.
const SERVERS: usize = 32;

/// `kafka.format`; none where it is wrong, so that nothing is concluded from it.
pub fn format(section: &mut Section, report: &mut Report) -> Option<Format> {
    match section.choice(report, "format", FORMAT) {
        Taken::Wrong => None,
        taken => Some(taken.or(Format::Original)),
    }
}

pub fn check(mut section: Section, format: Format, around: Around<'_>, report: &mut Report) -> Kafka {
    let bootstrap_servers = bootstrap_servers(&mut section, report);
    let (topic, topic_at) = legal_or(&mut section, report, "topic", names::kafka_topic, "sma-kafka");
    let (resume_topic, resume_at) =
        legal_or(&mut section, report, "resume_topic", names::kafka_topic, "meterferry-resume");
    if let (true, Some(place)) = (topic == resume_topic, resume_at.or(topic_at)) {
        report.error(
            place,
            format!("kafka.resume_topic is {}: must not be kafka.topic too", quoted(&resume_topic)),
            "the resume topic stays empty; the agent may read it, and no household may read another's readings",
        );
    }
    let delivery = section.choice(report, "delivery", DELIVERY).or(Delivery::ExactlyOnce);
    let compression = section.choice(report, "compression", COMPRESSION).or(Compression::Zstd);
    let linger = section.duration(report, "linger", Duration::ZERO..=MINUTE, SECOND).or(SECOND);
    let batch_count = section.count(report, "batch_count", 1..=500_000).or(200_000);
    let batch_size = section.size(report, "batch_size", 64 * KIB..=256 * MIB, 16 * MIB).or(64 * MIB);
    let retry_max_delay = section.duration(report, "retry_max_delay", SECOND..=HOUR, 15 * SECOND).or(15 * SECOND);
    let request_timeout = section.duration(report, "request_timeout", SECOND..=5 * MINUTE, 30 * SECOND).or(30 * SECOND);
    // Kafka's brokers allow 15 min (transaction.max.timeout.ms); below 5 s a slow network ends every transaction.
    let transaction_timeout =
        section.duration(report, "transaction_timeout", 5 * SECOND..=15 * MINUTE, 15 * SECOND).or(15 * SECOND);
    let idempotence = idempotence(&mut section, delivery, report);
    let create_topics = section.flag(report, "create_topics").or(false);
    let partitions = section.count(report, "partitions", 1..=10_000).or(1);
    let replication = replication(&mut section, report);
    let retention = section.duration(report, "retention", MINUTE..=36_500 * DAY, 7 * DAY).or(7 * DAY);
    let before_max = section.duration(report, "timestamp_before_max", MINUTE..=36_500 * DAY, 30 * DAY);
    let tls = tls(&mut section, around, report);
    let sasl = sasl(&mut section, tls.is_some(), around, report);
    let properties = properties::check(&mut section, report);
    section.finish(report, |_| None);
    Kafka {
        bootstrap_servers,
        topic,
        resume_topic,
        delivery,
        format,
        compression,
        linger,
        batch_count: usize::try_from(batch_count).unwrap_or(200_000),
        batch_size: usize::try_from(batch_size).unwrap_or(64 << 20),
        retry_max_delay,
        request_timeout,
        transaction_timeout,
        idempotence,
        create_topics,
        partitions: i32::try_from(partitions).unwrap_or(1),
        replication,
        retention,
        timestamp_before_max: before_max.given().map(|given| given.value),
        tls,
        sasl,
        properties,
    }
}

/// `kafka.delivery`, as written.
const DELIVERY: &[(&str, Delivery)] =
    &[(Delivery::ExactlyOnce.word(), Delivery::ExactlyOnce), (Delivery::AtLeastOnce.word(), Delivery::AtLeastOnce)];

/// `kafka.format`, as written.
pub const FORMAT: &[(&str, Format)] = &[("original", Format::Original), ("normalized", Format::Normalized)];

/// `kafka.compression`, as written.
pub const COMPRESSION: &[(&str, Compression)] = &[
    ("zstd", Compression::Zstd),
    ("lz4", Compression::Lz4),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("none", Compression::None),
];

/// `kafka.sasl.mechanism`, as written.
pub const MECHANISMS: &[(&str, SaslMechanism)] = &[
    ("PLAIN", SaslMechanism::Plain),
    ("SCRAM-SHA-256", SaslMechanism::ScramSha256),
    ("SCRAM-SHA-512", SaslMechanism::ScramSha512),
];

/// Mechanisms that Kafka knows and this build does not.
const MISSING: &[&str] = &["GSSAPI", "OAUTHBEARER", "KERBEROS", "AWS_MSK_IAM"];

fn bootstrap_servers(section: &mut Section, report: &mut Report) -> Vec<String> {
    let path = section.path_of("bootstrap_servers");
    let start = section.place();
    let taken = section.texts(report, "bootstrap_servers", SERVERS);
    if taken.is_absent() {
        let hint = "write bootstrap_servers = [\"HOST:9092\"] in [kafka]";
        report.warning(Place { line: 0, ..start }, format!("{path} is not set: readings are kept and not sent"), hint);
    }
    let mut servers = Vec::new();
    for given in taken.given().map(|given| given.value).unwrap_or_default() {
        match names::host_and_port(&given.value) {
            Ok(_) => servers.push(given.value),
            Err(what) => {
                let hint = server_hint(&given.value);
                report.error(given.place, format!("{path} holds {}: {what}", quoted(&given.value)), hint);
            }
        }
    }
    servers
}

fn server_hint(server: &str) -> String {
    if let Some((_, rest)) = server.split_once("://") {
        let host = rest.rsplit('@').next().unwrap_or_default();
        return format!("write {} without the scheme; encryption is switched on by [kafka.tls]", quoted(host));
    }
    if server.contains(',') {
        return "write each server in quotes of its own".to_owned();
    }
    if names::host(server).is_ok() {
        let bracketed = server.contains(':') && !server.starts_with('[');
        let host = if bracketed { format!("[{server}]") } else { server.to_owned() };
        return format!("write \"{host}:9092\"");
    }
    "for example \"kafka.lan:9092\"".to_owned()
}

fn idempotence(section: &mut Section, delivery: Delivery, report: &mut Report) -> bool {
    let taken = section.flag(report, "idempotence");
    if let (Taken::Value(given), Delivery::ExactlyOnce) = (&taken, delivery)
        && !given.value
    {
        report.error(
            given.place,
            "kafka.idempotence is false: must be true with delivery = \"exactly-once\"",
            "leave it out, or set delivery = \"at-least-once\"",
        );
    }
    taken.or(true)
}

fn replication(section: &mut Section, report: &mut Report) -> i32 {
    let taken = section.count(report, "replication", -1..=1_000);
    if let Taken::Value(given) = &taken
        && given.value == 0
    {
        report.error(
            given.place,
            "kafka.replication is 0: must be 1 to 1000, or -1 for the broker's default",
            "write replication = 1 for a single broker, 3 for a cluster",
        );
    }
    i32::try_from(taken.or(1)).unwrap_or(1)
}

fn tls(section: &mut Section, around: Around<'_>, report: &mut Report) -> Option<Tls> {
    let mut table = section.table(report, "tls", "kafka.tls").given()?.value;
    let tls = files::tls(&mut table, report, Side::Kafka, around);
    let verify_hostname = table.flag(report, "verify_hostname").or(true);
    table.finish(report, |_| None);
    Some(Tls { verify_hostname, ..tls })
}

fn sasl(section: &mut Section, encrypted: bool, around: Around<'_>, report: &mut Report) -> Option<Sasl> {
    let given = section.table(report, "sasl", "kafka.sasl").given()?;
    let (place, mut table) = (given.place, given.value);
    let mechanism = mechanism(&mut table, report);
    let username = table.text(report, "username");
    let password = files::secret(&mut table, report, "password_file", around);
    for (key, absent, hint) in [
        ("mechanism", mechanism.is_absent(), "mechanism = \"SCRAM-SHA-512\""),
        ("username", username.is_absent(), "username = \"NAME\""),
        ("password_file", password.is_absent() && !table.has("password"), "password_file = \"FILE\""),
    ] {
        if absent {
            report.error(place, format!("kafka.sasl.{key} is missing: [kafka.sasl] needs it"), hint);
        }
    }
    if let Taken::Value(given) = &username
        && given.value.is_empty()
    {
        report.error(given.place, "kafka.sasl.username is empty", "give the user's name");
    }
    if let Taken::Value(given) = &mechanism
        && given.value == SaslMechanism::Plain
        && !encrypted
    {
        report.warning(
            given.place,
            "kafka.sasl.mechanism is \"PLAIN\" without [kafka.tls]: the password crosses the network unencrypted",
            "add [kafka.tls], or use \"SCRAM-SHA-512\"",
        );
    }
    table.finish(report, |_| None);
    Some(Sasl {
        mechanism: mechanism.given()?.value,
        username: username.given()?.value,
        password: password.given()?.value,
    })
}

fn mechanism(table: &mut Section, report: &mut Report) -> Taken<SaslMechanism> {
    let list = either(MECHANISMS.iter().map(|(word, _)| *word));
    table.read(report, "mechanism", |value| {
        let Value::Text(text) = value else { return Err((format!("must be {list}"), String::new())) };
        if let Some((_, mechanism)) = MECHANISMS.iter().find(|(word, _)| word == text) {
            return Ok(*mechanism);
        }
        if MISSING.contains(&text.to_ascii_uppercase().as_str()) {
            return Err(("this build of librdkafka does not have it".to_owned(), format!("it has {list}")));
        }
        let words = MECHANISMS.iter().map(|(word, _)| *word);
        Err((format!("must be {list}"), nearest_word(text, words)))
    })
}
