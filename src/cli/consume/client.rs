//! What every client has in common that reads committed records: how it is configured, and what a person is told when
//! the cluster cannot be reached.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::super::cluster::Address;
use super::record::Record;

/// Properties of a client that reads committed records of `address`. What the command line says stands over our
/// preferences.
pub(in crate::cli) fn config(address: &Address, client_id: &str, preferences: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", client_id).set("reconnect.backoff.max.ms", "5000");
    for (key, value) in preferences {
        config.set(*key, *value);
    }
    config.set("bootstrap.servers", &address.brokers);
    for (key, value) in &address.properties {
        config.set(key, value);
    }
    // These make what is shown true, and are not for sale.
    config
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    config
}

/// What went wrong, told once until things go well again.
#[derive(Debug, Default)]
pub(in crate::cli) struct Troubles {
    /// The reason of the last failed connection, from the library's log.
    failure: Option<String>,
    told: Option<Trouble>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    Unreachable,
    Other(RDKafkaErrorCode),
}

impl Trouble {
    /// Whether `next` is news no more: the same, or what a broker that cannot be used looks like in the end.
    fn explains(&self, next: &Self) -> bool {
        let refused = matches!(self, Self::Other(RDKafkaErrorCode::SSL | RDKafkaErrorCode::Authentication));
        self == next || (refused && *next == Self::Unreachable)
    }
}

impl Troubles {
    /// A line of the library's log.
    pub(in crate::cli) fn log(&mut self, facility: &str, message: &str) {
        if facility == "FAIL" || facility == "ERROR" {
            self.failure = Some(plain(message));
        }
    }

    /// An error that the library reports. The log has told the cause; this may only say that all brokers are down.
    pub(in crate::cli) fn error(&mut self, reason: &str) {
        self.failure.get_or_insert_with(|| plain(reason));
    }

    /// The reason of the last failed connection, as far as there is one.
    pub(in crate::cli) fn cause(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Things go well.
    pub(in crate::cli) fn over(&mut self) {
        self.told = None;
    }

    /// What a person should know of `error`, unless it was told already.
    pub(in crate::cli) fn tell(&mut self, error: &KafkaError, brokers: &str) -> Option<String> {
        use RDKafkaErrorCode as Code;
        let Some(code) = error.rdkafka_error_code() else { return Some(error.to_string()) };
        let trouble = match code {
            Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve => Trouble::Unreachable,
            code => Trouble::Other(code),
        };
        if self.told.as_ref().is_some_and(|told| told.explains(&trouble)) {
            return None;
        }
        self.told = Some(trouble);
        Some(match code {
            Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve => {
                let why = self.failure.take().unwrap_or_else(|| code.to_string());
                format!("cannot reach Kafka at {brokers}: {why}; trying again")
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic => {
                "the topic is not there yet; waiting for it".to_owned()
            }
            Code::SSL | Code::Authentication => {
                let what = if code == Code::SSL { "no TLS with" } else { "no login at" };
                let why = self.failure.take().unwrap_or_else(|| code.to_string());
                format!("{what} Kafka at {brokers}: {why}; trying again")
            }
            Code::TopicAuthorizationFailed => format!("{code}; it needs READ on the topic; trying again"),
            Code::GroupAuthorizationFailed => format!("{code}; it needs READ on the group; trying again"),
            code => {
                let why = self.failure.take().map(|why| format!(": {why}")).unwrap_or_default();
                format!("{code}{why}; trying again")
            }
        })
    }
}

/// Without the thread, the role and the broker in front, which the library repeats.
fn plain(message: &str) -> String {
    let mut message = message.split_once("]: ").map_or(message, |(_, rest)| rest);
    while let Some((_, rest)) = message.split_once(": ").filter(|(label, _)| !label.contains(' ')) {
        message = rest;
    }
    message.to_owned()
}

/// The record that the library lends.
pub(in crate::cli) fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        let owned =
            |header: rdkafka::message::Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        headers.iter().map(owned).collect()
    });
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What keeps a client out is told once, although the library calls its brokers unreachable between two attempts.
    #[test]
    fn a_refusal_is_told_once() {
        let (tls, login) = (Trouble::Other(RDKafkaErrorCode::SSL), Trouble::Other(RDKafkaErrorCode::Authentication));
        assert!(tls.explains(&tls) && tls.explains(&Trouble::Unreachable) && login.explains(&Trouble::Unreachable));
        assert!(!tls.explains(&login) && !Trouble::Unreachable.explains(&tls));
    }

    /// A person is told the cause, without the library's labels.
    #[test]
    fn causes_are_plain() {
        for (message, cause) in [
            (
                "[thrd:a:1/bootstrap]: a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: no",
                "Connect to ipv4#127.0.0.1:1 failed: no",
            ),
            ("GroupCoordinator: a:1: Connect failed", "Connect failed"),
            ("Failed to resolve 'a:1': unknown", "Failed to resolve 'a:1': unknown"),
            ("", ""),
        ] {
            assert_eq!(plain(message), cause);
        }
    }
}
