//! What the client library tells between calls: delivery reports, errors, log lines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use rdkafka::statistics::Statistics;
use tracing::debug;

use crate::forwarder::cluster::Failure;
use crate::forwarder::kafka::code;
use crate::forwarder::outcome::{Call, Class, Code};

/// What a message weighs in flight besides its value: the library's own structures, key and headers, roughly.
const MESSAGE: usize = 256;

/// Hears what one client tells.
#[derive(Debug, Default)]
pub struct Ears {
    /// Bytes handed over and not yet reported; 0 only where every message was reported.
    in_flight: AtomicUsize,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The most telling delivery report that was an error.
    undelivered: Option<Failure>,
    /// The most telling error of a connection.
    cause: Option<(Code, String)>,
    all_down: bool,
    /// Address of each broker that the cluster named; only where statistics were asked for.
    nodes: BTreeMap<i32, String>,
}

impl Ears {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library has taken a message with a value of so many bytes.
    pub fn handed_over(&self, value: usize) {
        self.in_flight.fetch_add(value + MESSAGE, Ordering::Relaxed);
    }

    /// Bytes handed over and not yet reported.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The delivery that failed, if one did.
    pub fn undelivered(&self) -> Option<Failure> {
        self.heard().undelivered.clone()
    }

    /// The delivery that failed since this was last asked.
    pub fn take_undelivered(&self) -> Option<Failure> {
        self.heard().undelivered.take()
    }

    /// Why there will be no answer, if that is certain: every broker is down, the login was refused, or a right is missing.
    pub fn cut_off(&self, call: Call) -> Option<Failure> {
        let heard = self.heard();
        let refused = |(code, _): &(Code, String)| matches!(code.class(), Class::Login | Class::Right);
        let certain = heard.all_down || heard.cause.as_ref().is_some_and(refused);
        if !certain {
            return None;
        }
        let (code, detail) =
            heard.cause.clone().unwrap_or_else(|| (Code::AllBrokersDown, "all brokers are down".to_owned()));
        Some(Failure { call, code, topic: None, detail })
    }

    /// The brokers that the cluster named, by their ids.
    pub fn nodes(&self) -> BTreeMap<i32, String> {
        self.heard().nodes.clone()
    }

    /// What was heard last, to explain a call that timed out.
    pub fn cause(&self) -> Option<String> {
        self.heard().cause.as_ref().map(|(_, detail)| detail.clone())
    }
}

/// Which of two errors tells more: one that names the record or the login over one that names the network, and that over
/// one that only follows from another.
fn weight(code: Code) -> u8 {
    match (code, code.class()) {
        (Code::PurgeQueue | Code::PurgeInflight | Code::AllBrokersDown | Code::Fatal, _) => 0,
        (Code::InvalidDifferentRecord, _) => 3,
        (_, Class::Transient | Class::Unexpected) => 1,
        (_, Class::Fenced) => 2,
        (_, Class::Record) => 4,
        _ => 5,
    }
}

impl ClientContext for Ears {
    /// The library repeats itself at every attempt; what it says reaches the log as the cause of a failed call.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, message, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        // Those of the configuration have no id.
        let named = statistics.brokers.into_values().filter(|broker| broker.nodeid >= 0);
        self.heard().nodes.extend(named.map(|broker| (broker.nodeid, broker.nodename)));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = code::of(&error);
        debug!(?code, reason, "librdkafka error");
        let mut heard = self.heard();
        if code == Code::AllBrokersDown {
            heard.all_down = true;
        } else if heard.cause.as_ref().is_none_or(|(known, _)| weight(code) >= weight(*known)) {
            heard.cause = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Ears {}

impl ProducerContext for Ears {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let message = match result {
            Ok(message) => message,
            Err((_, message)) => message,
        };
        self.in_flight.fetch_sub(message.payload_len() + MESSAGE, Ordering::Relaxed);
        if let Err((error, message)) = result {
            self.failed(error, message.topic());
        }
    }
}

impl Ears {
    fn failed(&self, error: &KafkaError, topic: &str) {
        let code = code::of(error);
        let mut heard = self.heard();
        if heard.undelivered.as_ref().is_none_or(|known| weight(code) > weight(known.code)) {
            let topic = Some(topic.into());
            heard.undelivered = Some(Failure { call: Call::Produce, code, topic, detail: error.to_string() });
        }
    }
}
