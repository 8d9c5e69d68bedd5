//! What is said about Kafka in the log: once when it changes, never once a retry.

use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use crate::flapping::{Flapping, Word};
use crate::forwarder::cluster::Failure;
use crate::forwarder::outcome::{Class, Code, Outcome};

/// A matter that somebody must see to is brought up again after this.
const REMINDER: Duration = Duration::from_secs(3600);

/// Kinds of trouble remembered at a time; more than these codes meet in one outage.
const KINDS: usize = 16;

/// The kind of trouble, for telling whether it is news.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Away,
    /// It answers, and asks for time.
    Busy,
    Doubt,
    Person(Code, Option<std::sync::Arc<str>>),
}

/// What was said since it began.
#[derive(Debug, Default)]
pub struct Trouble {
    since: Option<Instant>,
    /// Each kind, and when it was said last: retries may meet several in turn.
    said: Vec<(Kind, Instant)>,
    /// Whether something was said since a connection was.
    connection_is_news: bool,
    flapping: Flapping,
    /// This outage is one of too many to be told.
    counted: bool,
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
        if self.since.is_none() {
            self.since = Some(now);
            let word = self.flapping.outage(now);
            self.counted = word == Word::Counted;
            if word == Word::Last {
                warn!("the line to Kafka comes and goes: for the rest of the hour its outages are only counted");
            }
        }
        let kind = match outcome {
            Outcome::PersonMustAct(_) => Kind::Person(failure.code, failure.topic.clone()),
            Outcome::Rebuild if failure.code.class() == Class::Fenced => Kind::Doubt,
            _ if failure.code.asks_for_time() => Kind::Busy,
            _ => Kind::Away,
        };
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        if !self.is_due(&kind, now) {
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
            Outcome::Retry if kind == Kind::Busy => {
                warn!(%failure, delay_ms, hint, "Kafka is not ready, will retry; readings are kept meanwhile");
            }
            Outcome::Retry | Outcome::Halve | Outcome::DeadLetter => {
                warn!(%failure, delay_ms, hint, "Kafka cannot be reached, will retry; readings are kept meanwhile");
            }
        }
        self.said.retain(|(said, _)| *said != kind);
        if self.said.len() < KINDS {
            self.said.push((kind, now));
        }
        self.connection_is_news = true;
    }

    fn is_due(&self, kind: &Kind, now: Instant) -> bool {
        if self.counted && !matches!(kind, Kind::Person(..)) {
            return false;
        }
        match self.said.iter().find(|(said, _)| said == kind) {
            None => self.said.len() < KINDS,
            Some((_, at)) => matches!(kind, Kind::Person(..)) && now.duration_since(*at) >= REMINDER,
        }
    }

    /// After a connection was made: whether that is worth a line.
    pub fn connected(&mut self) -> bool {
        std::mem::take(&mut self.connection_is_news)
    }

    /// After a batch was committed, or a connection made with nothing to send.
    pub fn over(&mut self) {
        let Some(since) = self.since.take() else { return };
        self.said.clear();
        self.connection_is_news = false;
        let seconds = since.elapsed().as_secs();
        if std::mem::take(&mut self.counted) {
            debug!(seconds, "Kafka takes readings again");
        } else {
            info!(seconds, "Kafka takes readings again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::outcome::{Call, Held, decide};

    fn fail(trouble: &mut Trouble, call: Call, code: Code) {
        let failure = Failure { call, code, topic: None, detail: String::new() };
        trouble.failed(&failure, decide(code, call, Held::Several), None, Duration::ZERO);
    }

    /// Promise 5: never silent, and never a line a retry: retries that fail in two ways in turn are said once each, and so is a
    /// connection in between; after it is over everything is news again.
    #[test]
    fn each_kind_is_said_once() {
        let mut trouble = Trouble::default();
        for round in 0..5 {
            fail(&mut trouble, Call::Produce, Code::InvalidTimestamp);
            fail(&mut trouble, Call::Init, Code::ConcurrentTransactions);
            assert_eq!(trouble.said.len(), 2);
            assert_eq!(trouble.connected(), round == 0);
        }
        trouble.over();
        assert!(trouble.said.is_empty() && !trouble.connected());
        fail(&mut trouble, Call::Init, Code::ConcurrentTransactions);
        assert!(trouble.connected());
    }

    /// Promise 5: a line that comes and goes does not fill the log, but a matter for a person is said all the same.
    #[test]
    fn a_flapping_line_is_counted() {
        let mut trouble = Trouble::default();
        let mut said = 0;
        for _ in 0..100 {
            fail(&mut trouble, Call::Init, Code::ConcurrentTransactions);
            said += u32::from(trouble.connected());
            trouble.over();
        }
        assert_eq!(said, 6);
        fail(&mut trouble, Call::Init, Code::TransactionalIdAuthorizationFailed);
        assert!(trouble.connected());
    }
}
