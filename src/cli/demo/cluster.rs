//! The Kafka cluster of the demo: the client library's stand-in inside this process, or a real one.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// Partitions of the stand-in's topic: the order is kept for each device, not over all.
const PARTITIONS: i32 = 3;

/// All brokers, to the stand-in.
const ALL: i32 = -1;

/// Nobody's Kafka: the discard port, where a connection is refused at once.
const NOWHERE: &str = "127.0.0.1:9";

/// How long a real cluster may take to answer at the beginning.
const LOOK: Duration = Duration::from_secs(10);

/// Any topic does for the question; this one need not be there.
const RESERVED: &str = "meterferry-demo";

/// How long deleting the topics may take.
const DELETE: Duration = Duration::from_secs(10);

/// Where the readings go.
pub enum Cluster {
    StandIn(MockCluster<'static, DefaultProducerContext>),
    Real { servers: String },
}

/// What cuts the cluster off, or brings it back.
#[derive(Debug, PartialEq, Eq)]
pub enum Switched {
    /// The brokers themselves; the agent notices or it does not.
    Brokers,
    /// Nobody can switch off a real cluster from here: the agent has to be restarted with these servers.
    Address(String),
}

/// The cluster cannot do what the story wants.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("the stand-in for Kafka failed: {0}")]
    StandIn(String),
    #[error(
        "Kafka at {servers} cannot be reached: {why}\n  \
         hint: does it listen there, without TLS and login? The demo uses neither"
    )]
    Unreachable { servers: String, why: String },
}

impl Cluster {
    /// One broker with a port of its own on 127.0.0.1, in this process.
    pub fn stand_in(topic: &str) -> Result<Self, ClusterError> {
        let failed = |error: rdkafka::error::KafkaError| ClusterError::StandIn(error.to_string());
        let cluster = MockCluster::new(1).map_err(failed)?;
        cluster.create_topic(topic, PARTITIONS, 1).map_err(failed)?;
        Ok(Self::StandIn(cluster))
    }

    /// A real one, after a look whether it is there. Blocks for [`LOOK`] at most.
    pub fn real(servers: &str) -> Result<Self, ClusterError> {
        let unreachable = |error: rdkafka::error::KafkaError| ClusterError::Unreachable {
            servers: servers.to_owned(),
            why: error.to_string(),
        };
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", servers).create().map_err(unreachable)?;
        consumer.fetch_metadata(Some(RESERVED), LOOK).map_err(unreachable)?;
        Ok(Self::Real { servers: servers.to_owned() })
    }

    pub fn servers(&self) -> String {
        match self {
            Self::StandIn(cluster) => cluster.bootstrap_servers(),
            Self::Real { servers } => servers.clone(),
        }
    }

    /// The stand-in knows neither isolation nor fencing: exactly-once can only be shown with a real cluster.
    pub fn is_real(&self) -> bool {
        matches!(self, Self::Real { .. })
    }

    /// The cluster becomes unreachable.
    pub fn cut(&self) -> Result<Switched, ClusterError> {
        match self {
            Self::StandIn(cluster) => {
                cluster.broker_down(ALL).map_err(|error| ClusterError::StandIn(error.to_string()))?;
                Ok(Switched::Brokers)
            }
            Self::Real { .. } => Ok(Switched::Address(NOWHERE.to_owned())),
        }
    }

    /// The cluster can be reached again.
    pub fn restore(&self) -> Result<Switched, ClusterError> {
        match self {
            Self::StandIn(cluster) => {
                cluster.broker_up(ALL).map_err(|error| ClusterError::StandIn(error.to_string()))?;
                Ok(Switched::Brokers)
            }
            Self::Real { servers } => Ok(Switched::Address(servers.clone())),
        }
    }

    /// Deletes the demo's topics from a real cluster.
    ///
    /// # Errors
    ///
    /// Why they are still there.
    pub async fn tidy(&self, topics: &[&str]) -> Result<(), String> {
        let Self::Real { servers } = self else { return Ok(()) };
        let client: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", servers).create().map_err(|error| error.to_string())?;
        let options = AdminOptions::new().request_timeout(Some(DELETE)).operation_timeout(Some(DELETE));
        let results = client.delete_topics(topics, &options).await.map_err(|error| error.to_string())?;
        match results.into_iter().find_map(Result::err) {
            Some((topic, code)) => Err(format!("{topic}: {code}")),
            None => Ok(()),
        }
    }
}
