//! What Kafka knows of one queue, asked by a tool: fences nobody, makes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::config::settings::Kafka;
use crate::forwarder::cluster::{Failure, Session};
use crate::forwarder::kafka::ears::Ears;
use crate::forwarder::kafka::errand::Errands;
use crate::forwarder::kafka::producer::Link;
use crate::forwarder::kafka::{Patience, config, failure, serve, slice};
use crate::forwarder::outcome::Call;
use crate::forwarder::resume::Committed;
use crate::reading::QueueId;
use crate::shutdown::Shutdown;

/// The resume point of this agent's queue; none where Kafka knows none. Takes `limit` at most.
pub fn resume_point(
    settings: &Kafka,
    agent_id: &str,
    queue_id: QueueId,
    limit: Duration,
) -> Result<Option<Committed>, Failure> {
    let settings = Arc::new(Kafka { request_timeout: limit, ..settings.clone() });
    let group = crate::forwarder::group(agent_id, queue_id);
    let reader: BaseConsumer<Ears> =
        BaseConsumer::from_config_and_context(&config::reader(&settings, agent_id, &group), Ears::default())
            .map_err(|error| failure(Call::Configure, &error))?;
    let patience = Patience { shutdown: Shutdown::new(), heartbeat: Arc::new(|| {}) };
    // First whether anybody is there: that is known at once, and the next call would wait for its whole time.
    let begun = Instant::now();
    let until = begun + limit;
    while let Err(error) = reader.fetch_metadata(Some(&settings.resume_topic), slice(begun)) {
        serve(&reader);
        if let Some(cut_off) = reader.context().cut_off(Call::Topics) {
            return Err(cut_off);
        }
        if Instant::now() >= until {
            return Err(failure(Call::Topics, &error));
        }
    }
    Link::new(settings, agent_id.into(), &group, Vec::new(), reader, patience, Errands::default()).resume_point()
}
