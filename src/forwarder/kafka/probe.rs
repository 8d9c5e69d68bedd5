//! A visit to the cluster by a tool: what is there, what it is configured to, and which rights we have. The rights are tried
//! with a transactional id and a group of the doctor's own, so that no agent is fenced; each transaction is aborted, so that no
//! `read_committed` consumer ever sees the record in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::ResourceSpecifier;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::settings::{Delivery, Kafka};
use crate::forwarder::cluster::Failure;
use crate::forwarder::kafka::ears::Ears;
use crate::forwarder::kafka::errand::Errands;
use crate::forwarder::kafka::topics::{self, Administrator};
use crate::forwarder::kafka::{code, config, failure, serve, slice};
use crate::forwarder::outcome::{Call, Code};

/// One slice of a call that can be repeated while it runs.
const SLICE: Duration = Duration::from_millis(250);

/// Between two attempts at a call.
const PAUSE: Duration = Duration::from_millis(50);

/// How long after its time a message may be reported as not delivered.
const REPORT: Duration = Duration::from_secs(2);

/// The type of the record that is never committed.
const CE_TYPE: &str = "io.meterferry.doctor";

/// A broker, as the cluster advertises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: i32,
    pub host: String,
    pub port: u16,
}

/// A topic that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicShape {
    pub partitions: usize,
    /// Of the partition that has the fewest.
    pub replicas: usize,
    /// Partitions that nobody leads at the moment.
    pub leaderless: usize,
}

/// What the cluster answers.
#[derive(Debug, Clone)]
pub struct ClusterShape {
    pub nodes: Vec<Node>,
    pub topics: BTreeMap<Arc<str>, Result<TopicShape, Failure>>,
    /// Why the other topics are not among them: after the first answer only the addresses are used that the brokers
    /// advertise, which may be wrong.
    pub unanswered: Option<Failure>,
}

/// What was tried in transactions that were aborted.
#[derive(Debug, Clone)]
pub struct Tried {
    pub init: Result<(), Failure>,
    /// Of each topic that was tried: whether a record was taken.
    pub produced: Vec<(Arc<str>, Result<(), Failure>)>,
    /// Whether the resume point could be written; none where it was not tried.
    pub resume_point: Option<Result<(), Failure>>,
}

/// A client for one visit.
pub struct Probe {
    settings: Kafka,
    agent_id: String,
    group: String,
    reader: BaseConsumer<Ears>,
    limit: Duration,
}

impl Probe {
    /// Each question waits for `limit` at most.
    pub fn new(settings: &Kafka, agent_id: &str, limit: Duration) -> Result<Self, Failure> {
        let settings = Kafka { request_timeout: limit, ..settings.clone() };
        let group = format!("meterferry.{agent_id}.doctor");
        let mut reader = config::reader(&settings, agent_id, &group);
        // They name the brokers also where the library leaves the server that told them before it answers our question.
        reader.set("statistics.interval.ms", "200");
        let reader = BaseConsumer::from_config_and_context(&reader, Ears::default())
            .map_err(|error| failure(Call::Configure, &error))?;
        Ok(Self { settings, agent_id: agent_id.to_owned(), group, reader, limit })
    }

    /// The group and transactional id of the visit.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The brokers, and `topics` as far as they are there for us.
    pub fn cluster(&self, topics: &[Arc<str>]) -> Result<ClusterShape, Failure> {
        let mut shape = ClusterShape { nodes: Vec::new(), topics: BTreeMap::new(), unanswered: None };
        for topic in topics {
            let metadata = match self.metadata(topic) {
                Ok(metadata) => metadata,
                Err(failure) => {
                    if shape.nodes.is_empty() {
                        shape.nodes = self.named();
                    }
                    if shape.nodes.is_empty() {
                        return Err(failure);
                    }
                    shape.unanswered = Some(failure);
                    break;
                }
            };
            shape.nodes = nodes(&metadata);
            let found = topics::look(&metadata, topic).map(|()| topic_shape(&metadata, topic));
            shape.topics.insert(Arc::clone(topic), found);
        }
        Ok(shape)
    }

    /// The brokers as the library knows them.
    fn named(&self) -> Vec<Node> {
        serve(&self.reader);
        let nodes = self.reader.context().nodes();
        let node = |(id, address): (i32, String)| {
            let (host, port) = address.rsplit_once(':')?;
            Some(Node { id, host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
        };
        nodes.into_iter().filter_map(node).collect()
    }

    fn metadata(&self, topic: &Arc<str>) -> Result<Metadata, Failure> {
        let begun = Instant::now();
        loop {
            let error = match self.reader.fetch_metadata(Some(topic), slice(begun)) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            self.wait_or(Call::Topics, begun, &error)?;
        }
    }

    /// Hears why there is no answer; an error where there will be none.
    fn wait_or(&self, call: Call, begun: Instant, error: &KafkaError) -> Result<(), Failure> {
        serve(&self.reader);
        let ears = self.reader.context();
        ears.cut_off(call).map_or(Ok(()), Err)?;
        if begun.elapsed() < self.limit {
            return Ok(());
        }
        let failed = failure(call, error);
        Err(match ears.cause() {
            Some(detail) => Failure { detail, ..failed },
            None => Failure { detail: format!("no answer within {} s", self.limit.as_secs()), ..failed },
        })
    }

    /// A topic's configuration.
    pub fn topic_config(&self, topic: &str) -> Result<BTreeMap<String, String>, Failure> {
        let failed = |failure: Failure| Failure { topic: Some(topic.into()), ..failure };
        self.describe(&ResourceSpecifier::Topic(topic)).map_err(failed)
    }

    /// A broker's configuration.
    pub fn broker_config(&self, id: i32) -> Result<BTreeMap<String, String>, Failure> {
        self.describe(&ResourceSpecifier::Broker(id))
    }

    fn describe(&self, what: &ResourceSpecifier<'_>) -> Result<BTreeMap<String, String>, Failure> {
        let config = config::common(&self.settings, &self.agent_id);
        let answer = Administrator::new(&config, self.limit, Call::Topics)?.describe(what);
        let resource = answer.map_err(|error| failure(Call::Topics, &error))?;
        let entries = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
        Ok(entries.collect())
    }

    /// Whether the doctor's own group may be read.
    pub fn read_group(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let mut question = TopicPartitionList::new();
            question.add_partition(&self.settings.resume_topic, 0);
            let error = match self.reader.committed_offsets(question, slice(begun)) {
                Ok(answer) => match answer.elements().first().map(|element| element.error()) {
                    None | Some(Ok(())) => return Ok(()),
                    Some(Err(error)) => error,
                },
                Err(error) => error,
            };
            let code = code::of(&error);
            if code != Code::OperationTimedOut && !code.asks_for_time() {
                return Err(failure(Call::ReadResumePoint, &error));
            }
            self.wait_or(Call::ReadResumePoint, begun, &error)?;
        }
    }

    /// Tries what the agent does: a record into each of `topics`, and the resume point where `resume_point`; each in a
    /// transaction that is aborted. Only for `exactly-once`.
    pub fn transactions(&self, topics: &[Arc<str>], resume_point: bool) -> Tried {
        debug_assert_eq!(self.settings.delivery, Delivery::ExactlyOnce);
        let mut tried = Tried { init: Ok(()), produced: Vec::new(), resume_point: None };
        let trial = match self.producer() {
            Ok(trial) => trial,
            Err(failed) => return Tried { init: Err(failed), ..tried },
        };
        for topic in topics {
            let outcome = trial.produce(topic).map_err(|failed| Failure { topic: Some(Arc::clone(topic)), ..failed });
            tried.produced.push((Arc::clone(topic), outcome));
            if trial.abort().is_err() {
                return tried;
            }
        }
        if resume_point {
            tried.resume_point = Some(trial.resume_point(&self.reader, &self.settings.resume_topic));
            // What is left open ends after kafka.transaction_timeout; nothing is in it that anybody waits for.
            let _ = trial.abort();
        }
        tried
    }

    fn producer(&self) -> Result<Trial, Failure> {
        let producer = config::producer(&self.settings, &self.agent_id, &self.group)
            .create_with_context(Ears::default())
            .map_err(|error| failure(Call::Configure, &error))?;
        let trial = Trial { producer: Arc::new(producer), limit: self.limit };
        trial.sliced(Call::Init, |slice| trial.producer.init_transactions(slice))?;
        Ok(trial)
    }
}

fn nodes(metadata: &Metadata) -> Vec<Node> {
    let node = |broker: &rdkafka::metadata::MetadataBroker| Node {
        id: broker.id(),
        host: broker.host().to_owned(),
        port: u16::try_from(broker.port()).unwrap_or(0),
    };
    let mut nodes: Vec<_> = metadata.brokers().iter().map(node).collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

fn topic_shape(metadata: &Metadata, topic: &str) -> TopicShape {
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions = found.map_or(&[][..], |found| found.partitions());
    TopicShape {
        partitions: partitions.len(),
        replicas: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
        leaderless: partitions.iter().filter(|partition| partition.leader() < 0).count(),
    }
}

/// A producer that commits nothing.
struct Trial {
    producer: Arc<BaseProducer<Ears>>,
    limit: Duration,
}

impl Trial {
    fn sliced(&self, call: Call, act: impl Fn(Duration) -> KafkaResult<()>) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let error = match act(SLICE) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // A cluster that has just started, or was never asked for a transaction before, wants a moment.
            let again = matches!(&error, KafkaError::Transaction(error)
                if error.is_retriable()
                    && (error.code() == RDKafkaErrorCode::OperationTimedOut || code::translate(error.code()).asks_for_time()));
            self.producer.poll(PAUSE);
            if !again {
                return Err(self.explain(call, &error));
            }
            self.producer.context().cut_off(call).map_or(Ok(()), Err)?;
            if begun.elapsed() >= self.limit {
                return Err(self.explain(call, &error));
            }
        }
    }

    /// The error behind "fatal", an aborted transaction or a timeout.
    fn explain(&self, call: Call, error: &KafkaError) -> Failure {
        let mut failed = failure(call, error);
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            failed.code = code::translate(code);
            failed.detail = reason;
        } else if let (Code::OperationTimedOut, Some(cause)) = (failed.code, self.producer.context().cause()) {
            failed.detail = cause;
        }
        failed
    }

    fn begin(&self) -> Result<(), Failure> {
        self.producer.begin_transaction().map_err(|error| self.explain(Call::Begin, &error))
    }

    fn produce(&self, topic: &str) -> Result<(), Failure> {
        self.begin()?;
        let headers = OwnedHeaders::new().insert(Header { key: "ce_type", value: Some(CE_TYPE) });
        let record = BaseRecord::to(topic).key("meterferry doctor").payload("").headers(headers);
        self.producer.send(record).map_err(|(error, _)| self.explain(Call::Produce, &error))?;
        self.producer.context().handed_over(0);
        let until = Instant::now() + self.limit + REPORT;
        while self.producer.in_flight_count() > 0 && Instant::now() < until {
            self.producer.poll(Duration::from_millis(20));
        }
        match self.producer.context().take_undelivered() {
            // Purged because the transaction failed: the next call says why.
            Some(failed) if matches!(failed.code, Code::PurgeQueue | Code::PurgeInflight) => {
                let reason = self.producer.begin_transaction().err();
                Err(reason.map_or(failed, |error| self.explain(Call::Produce, &error)))
            }
            Some(failed) => Err(failed),
            None if self.producer.in_flight_count() > 0 => Err(Failure {
                call: Call::Produce,
                code: Code::OperationTimedOut,
                topic: None,
                detail: format!("no answer within {} s", self.limit.as_secs()),
            }),
            None => Ok(()),
        }
    }

    fn resume_point(&self, reader: &BaseConsumer<Ears>, resume_topic: &str) -> Result<(), Failure> {
        self.begin()?;
        let mut offsets = TopicPartitionList::new();
        let placed = offsets.add_partition(resume_topic, 0).set_offset(Offset::Offset(0));
        placed.map_err(|error| self.explain(Call::WriteResumePoint, &error))?;
        let (producer, membership) = (Arc::clone(&self.producer), reader.group_metadata());
        let Some(membership) = membership else {
            return Err(Failure {
                call: Call::WriteResumePoint,
                code: Code::State,
                topic: None,
                detail: "the client has no group".to_owned(),
            });
        };
        let (limit, until) = (self.limit, Instant::now() + self.limit + REPORT);
        let written = Errands::default().run(
            Call::WriteResumePoint,
            move || producer.send_offsets_to_transaction(&offsets, &membership, limit),
            || {
                if Instant::now() < until {
                    return Ok(());
                }
                let detail = format!("no answer within {} s", limit.as_secs());
                Err(Failure { call: Call::WriteResumePoint, code: Code::OperationTimedOut, topic: None, detail })
            },
        )?;
        written.map_err(|error| self.explain(Call::WriteResumePoint, &error))
    }

    fn abort(&self) -> Result<(), Failure> {
        self.sliced(Call::Commit, |slice| self.producer.abort_transaction(slice))
    }
}
