//! What is said about Kafka in the log: once when it changes, never once a retry.

use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use crate::forwarder::cluster::Failure;
use crate::forwarder::outcome::{Class, Code, Outcome};

/// A matter that somebody must see to is brought up again after this.
const REMINDER: Duration = Duration::from_secs(3600);

/// The kind of trouble, for telling whether it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Away,
    Doubt,
    Person(Code, Option<std::sync::Arc<str>>),
}

/// What was said last.
#[derive(Debug, Default)]
pub struct Trouble {
    since: Option<Instant>,
    said: Option<(Kind, Instant)>,
}

impl Trouble {
    /// After a failure: says it where it is news.
    pub fn failed(&mut self, failure: &Failure, outcome: Outcome, hint: Option<&str>, delay: Duration) {
        if matches!(outcome, Outcome::Halve | Outcome::DeadLetter) {
            // Kafka is there; what comes of the search is said where it ends.
            debug!(%failure, "Kafka refused a record, looking for it in smaller batches");
            return;
        }
        let now = Instant::now();
        self.since.get_or_insert(now);
        let kind = match outcome {
            Outcome::PersonMustAct(_) => Kind::Person(failure.code, failure.topic.clone()),
            Outcome::Rebuild if failure.code.class() == Class::Fenced => Kind::Doubt,
            _ => Kind::Away,
        };
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let due = self.said.as_ref().is_none_or(|(said, at)| {
            *said != kind || (matches!(kind, Kind::Person(..)) && now.duration_since(*at) >= REMINDER)
        });
        if !due {
            debug!(%failure, delay_ms, "Kafka failed again");
            return;
        }
        match outcome {
            Outcome::PersonMustAct(_) => {
                error!(%failure, hint, "Kafka cannot be used until this is cured; readings are kept meanwhile");
            }
            Outcome::Rebuild => {
                warn!(%failure, delay_ms, hint, "the outcome of a transaction is unknown, asking Kafka for the resume point");
            }
            Outcome::Retry | Outcome::Halve | Outcome::DeadLetter => {
                warn!(%failure, delay_ms, hint, "Kafka cannot be reached, will retry; readings are kept meanwhile");
            }
        }
        self.said = Some((kind, now));
    }

    /// Whether something was wrong since the last batch.
    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// After a batch was committed, or a connection made with nothing to send.
    pub fn over(&mut self) {
        let Some(since) = self.since.take() else { return };
        self.said = None;
        info!(seconds = since.elapsed().as_secs(), "Kafka takes readings again");
    }
}
