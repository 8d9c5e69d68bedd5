//! The topics: are they there, make them, what do they do with old records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use tokio::runtime::Runtime;

use crate::forwarder::cluster::Failure;
use crate::forwarder::kafka::{code, failure};
use crate::forwarder::outcome::{Call, Code};
use crate::forwarder::timestamp::TopicLimits;

/// Whether `topic` is there and can be written to.
pub fn look(metadata: &Metadata, topic: &Arc<str>) -> Result<(), Failure> {
    let fail =
        |code: Code, detail: String| Failure { call: Call::Topics, code, topic: Some(Arc::clone(topic)), detail };
    let Some(found) = metadata.topics().iter().find(|found| found.name() == &**topic) else {
        return Err(fail(Code::UnknownTopicOrPartition, "the topic does not exist".to_owned()));
    };
    if let Some(error) = found.error() {
        let code = RDKafkaErrorCode::from(error);
        return Err(fail(code::translate(code), code.to_string()));
    }
    if found.partitions().is_empty() {
        return Err(fail(Code::LeaderNotAvailable, "the topic has no partitions yet".to_owned()));
    }
    Ok(())
}

/// Asks the cluster to do something; one connection for one question, since there are few.
pub struct Administrator {
    client: AdminClient<DefaultClientContext>,
    runtime: Runtime,
    options: AdminOptions,
}

impl Administrator {
    pub fn new(config: &ClientConfig, limit: Duration, call: Call) -> Result<Self, Failure> {
        let client = AdminClient::from_config(config).map_err(|error| failure(call, &error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| Failure {
            call,
            code: Code::CriticalSystemResource,
            topic: None,
            detail: error.to_string(),
        })?;
        let options = AdminOptions::new().request_timeout(Some(limit)).operation_timeout(Some(limit));
        Ok(Self { client, runtime, options })
    }

    /// Makes `topic`; somebody else having made it meanwhile is as good.
    pub fn create(&self, topic: &Arc<str>, partitions: i32, replication: i32) -> Result<(), Failure> {
        let fail = |error: &KafkaError| Failure { topic: Some(Arc::clone(topic)), ..failure(Call::CreateTopic, error) };
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
        let results = self.runtime.block_on(self.client.create_topics([&new], &self.options)).map_err(|e| fail(&e))?;
        match results.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
                Err(fail(&KafkaError::AdminOp(code)))
            }
            _ => Ok(()),
        }
    }

    /// Each topic's limits.
    pub fn limits(&self, topics: &[Arc<str>]) -> BTreeMap<Arc<str>, Result<TopicLimits, Failure>> {
        topics.iter().map(|topic| (Arc::clone(topic), self.limits_of(topic))).collect()
    }

    fn limits_of(&self, topic: &Arc<str>) -> Result<TopicLimits, Failure> {
        let fail = |error: &KafkaError| Failure { topic: Some(Arc::clone(topic)), ..failure(Call::Topics, error) };
        self.describe(&ResourceSpecifier::Topic(topic)).map(|resource| limits(&resource)).map_err(|error| fail(&error))
    }

    /// A topic's or a broker's configuration.
    pub fn describe(&self, what: &ResourceSpecifier<'_>) -> Result<ConfigResource, KafkaError> {
        let results = self.runtime.block_on(self.client.describe_configs([what], &self.options))?;
        match results.into_iter().next() {
            // rdkafka 0.39 does not look at the error that Kafka gives for the topic: a refusal is an answer without entries, and
            // taken for an answer it would say "no limits".
            Some(Ok(resource)) if resource.entries.is_empty() => {
                Err(KafkaError::AdminOp(RDKafkaErrorCode::TopicAuthorizationFailed))
            }
            Some(Ok(resource)) => Ok(resource),
            Some(Err(code)) => Err(KafkaError::AdminOp(code)),
            None => Err(KafkaError::AdminOp(RDKafkaErrorCode::NoEnt)),
        }
    }
}

fn limits(resource: &ConfigResource) -> TopicLimits {
    let text = |name| resource.get(name).and_then(|entry| entry.value.as_deref());
    let number = |name| text(name).and_then(|value| value.parse::<i64>().ok());
    TopicLimits {
        retention_ms: number("retention.ms").filter(|&ms| ms >= 0),
        before_max_ms: number("message.timestamp.before.max.ms").filter(|ms| (0..i64::MAX).contains(ms)),
        compact: text("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
    }
}
