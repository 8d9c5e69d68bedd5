//! Kafka through librdkafka: the only place that knows it.
//!
//! librdkafka's calls block in C, so everything here blocks too, and belongs on the forwarder's own thread. Waits that can
//! be cut into slices are: between slices the watchdog is fed and a stop is looked for.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use crate::config::settings::{DEVICE, Delivery, Kafka};
use crate::forwarder::cluster::{Cluster, Failure, Session};
use crate::forwarder::outcome::{Call, Class, Code};
use crate::shutdown::Shutdown;

mod code;
mod config;
mod ears;
mod errand;
pub mod look;
pub mod probe;
mod producer;
mod topics;

pub use config::connection;
pub use config::{takes_property, takes_tls};
use ears::Ears;
use errand::Errands;
use producer::Link;
pub use topics::Administrator;

/// The first slice of a long wait for an answer.
const SLICE: Duration = Duration::from_millis(500);

/// The longest: a stop has to wait for it.
const LONGEST_SLICE: Duration = Duration::from_secs(4);

/// The next slice of a wait that began at `begun`. An answer that comes after its slice is lost, and asked for again: where
/// the way to Kafka and back is longer than the first slice, only a longer one hears it.
fn slice(begun: Instant) -> Duration {
    begun.elapsed().clamp(SLICE, LONGEST_SLICE)
}

/// How long a wait in an open transaction goes on after a stop was asked for.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How a wait ends before its time.
#[derive(Clone)]
struct Patience {
    shutdown: Shutdown,
    heartbeat: Arc<dyn Fn() + Send + Sync>,
}

impl Patience {
    /// Called between slices: an error where `until` has passed or a stop was asked for.
    fn check(&self, call: Call, until: Instant, ears: &Ears) -> Result<(), Failure> {
        (self.heartbeat)();
        if Instant::now() >= until {
            let silence = match call {
                Call::ReadResumePoint => {
                    "no answer within kafka.request_timeout; where it stays so, Kafka may have left a transaction of this group \
                     open: kafka-transactions.sh find-hanging shows it"
                }
                _ => "no answer within kafka.request_timeout",
            };
            let detail = ears.cause().unwrap_or_else(|| silence.to_owned());
            return Err(Failure { call, code: Code::OperationTimedOut, topic: None, detail });
        }
        if self.shutdown.is_asked() {
            return Err(Failure {
                call,
                code: Code::Interrupted,
                topic: None,
                detail: "a stop was asked for".to_owned(),
            });
        }
        Ok(())
    }

    /// As `check`, but finishes what it can for a while after a stop was asked for. `stopping` keeps since when.
    fn check_open(
        &self,
        call: Call,
        until: Instant,
        stopping: &mut Option<Instant>,
        ears: &Ears,
    ) -> Result<(), Failure> {
        match self.check(call, until, ears) {
            Err(failure) if failure.code == Code::Interrupted => {
                let since = *stopping.get_or_insert_with(Instant::now);
                if since.elapsed() < STOP_GRACE { Ok(()) } else { Err(failure) }
            }
            other => other,
        }
    }
}

/// The cluster as it is configured.
pub struct Broker {
    settings: Arc<Kafka>,
    agent_id: Arc<str>,
    /// Topics that readings and gap records go to.
    topics: Vec<Arc<str>>,
    patience: Patience,
    errands: Errands,
}

impl Broker {
    /// `topics` are those of the sources; the default topic is always one of them, since gap records go there.
    pub fn new<'a>(
        settings: Kafka,
        agent_id: &str,
        topics: impl Iterator<Item = &'a str>,
        shutdown: Shutdown,
        heartbeat: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        // Those of devices are learnt of when they come.
        let mut all: Vec<Arc<str>> = topics.filter(|topic| !topic.contains(DEVICE)).map(Arc::from).collect();
        all.push(settings.topic.as_str().into());
        all.sort();
        all.dedup();
        Self {
            settings: Arc::new(settings),
            agent_id: agent_id.into(),
            topics: all,
            patience: Patience { shutdown, heartbeat },
            errands: Errands::default(),
        }
    }

    /// Waits until `topic` is there; makes it where that is wanted.
    fn see_to(&self, reader: &BaseConsumer<Ears>, topic: &Arc<str>, partitions: i32) -> Result<(), Failure> {
        let begun = Instant::now();
        let until = begun + self.settings.request_timeout;
        let mut asked = false;
        loop {
            let ears = reader.context();
            let error = match reader.fetch_metadata(Some(topic), slice(begun)) {
                Ok(metadata) => match topics::look(&metadata, topic) {
                    Ok(()) => return Ok(()),
                    Err(missing) => missing,
                },
                Err(error) => failure(Call::Topics, &error),
            };
            serve(reader);
            if let Some(cut_off) = ears.cut_off(Call::Topics) {
                return Err(cut_off);
            }
            match error.code.class() {
                Class::Topic if self.settings.create_topics && error.code != Code::InvalidTopic => {
                    if !asked {
                        let config = config::common(&self.settings, &self.agent_id);
                        topics::Administrator::new(&config, self.settings.request_timeout, Call::CreateTopic)?.create(
                            topic,
                            partitions,
                            self.settings.replication,
                        )?;
                        tracing::info!(%topic, partitions, "made the topic");
                    }
                    asked = true;
                }
                Class::Transient => {}
                _ => return Err(error),
            }
            self.patience.check(Call::Topics, until, ears)?;
            if asked || error.code != Code::OperationTimedOut {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

impl Cluster for Broker {
    fn learn(&mut self, topics: &BTreeSet<Arc<str>>) {
        self.topics.extend(topics.iter().cloned());
        self.topics.sort();
        self.topics.dedup();
    }

    fn connect(&mut self, group: &str) -> Result<Box<dyn Session>, Failure> {
        let reader: BaseConsumer<Ears> = config::reader(&self.settings, &self.agent_id, group)
            .create_with_context(Ears::default())
            .map_err(|error| failure(Call::Configure, &error))?;
        let resume: Option<Arc<str>> =
            (self.settings.delivery == Delivery::ExactlyOnce).then(|| self.settings.resume_topic.as_str().into());
        let topics = self.topics.iter().map(|topic| (topic, self.settings.partitions));
        let mut missing: Option<Failure> = None;
        for (topic, partitions) in topics.chain(resume.as_ref().map(|topic| (topic, 1))) {
            match (self.see_to(&reader, topic, partitions), &mut missing) {
                (Ok(()), _) => {}
                // All that somebody has to make are named together.
                (Err(failure), None) if failure.code == Code::UnknownTopicOrPartition => missing = Some(failure),
                (Err(failure), Some(first)) if failure.code == Code::UnknownTopicOrPartition => {
                    let _ = write!(first.detail, "; nor does {topic}");
                }
                (Err(failure), None) => return Err(failure),
                (Err(_), Some(_)) => break,
            }
        }
        if let Some(missing) = missing {
            return Err(missing);
        }
        Ok(Box::new(Link::new(
            Arc::clone(&self.settings),
            Arc::clone(&self.agent_id),
            group,
            self.topics.clone(),
            reader,
            self.patience.clone(),
            self.errands.clone(),
        )))
    }
}

/// Hears what the library has to say on a client that reads nothing; bounded, since it may go on saying it.
fn serve(reader: &BaseConsumer<Ears>) {
    for _ in 0..100 {
        drop(reader.poll(Duration::ZERO));
    }
}

/// The library's error as ours.
fn failure(call: Call, error: &KafkaError) -> Failure {
    let detail = match error {
        // The value may be a secret.
        KafkaError::ClientConfig(_, reason, key, _) => format!("{key}: {reason}"),
        KafkaError::ClientCreation(reason) => reason.clone(),
        other => other.to_string(),
    };
    Failure { call, code: code::of(error), topic: None, detail }
}
