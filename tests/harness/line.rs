//! The whole line as most tests want it: publisher → Mosquitto → agent → Kafka ← auditor.

use std::path::Path;
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::auditor::{Audit, Auditor};
use super::config::Config;
use super::document::{self, Message};
use super::kafka::Kafka;
use super::mosquitto::{Mosquitto, Options};
use super::publisher::Publisher;
use super::wait::PATIENT;

/// One agent between a broker of its own and a topic of its own.
pub struct Line<'k> {
    pub kafka: &'k Kafka,
    // Dropped in this order: the agent first, then what it talks to.
    pub agent: Agent,
    pub publisher: Publisher,
    pub mosquitto: Mosquitto,
    pub topic: String,
    serial: u64,
}

impl<'k> Line<'k> {
    /// The agent is not started yet.
    pub fn new(kafka: &'k Kafka, name: &str) -> Self {
        Self::with(kafka, name, &Options::default(), |config, _| config)
    }

    /// With options for the broker and changes to the agent's configuration, which are told the broker's port.
    pub fn with(
        kafka: &'k Kafka,
        name: &str,
        options: &Options<'_>,
        change: impl FnOnce(Config, u16) -> Config,
    ) -> Self {
        let mosquitto = Mosquitto::with(options);
        let topic = kafka.topic(name, 1);
        let port = mosquitto.port();
        let agent = Agent::new(|queue| change(Config::new(&topic, queue, &kafka.plain(), &topic).mqtt(port), port));
        let publisher = Publisher::connect(port);
        Self { kafka, agent, publisher, mosquitto, topic, serial: 0 }
    }

    /// The configuration that [`Line::new`] writes, to be changed with [`Agent::reconfigure`].
    pub fn config(&self, queue: &Path) -> Config {
        Config::new(&self.topic, queue, &self.kafka.plain(), &self.topic).mqtt(self.mosquitto.port())
    }

    /// The id under which the agent connects to the broker.
    pub fn client_id(&self) -> String {
        format!("meterferry-{}-meter", self.topic)
    }

    /// Starts the agent, and waits until the broker keeps messages for it.
    #[track_caller]
    pub fn start(&mut self) {
        self.agent.start();
        self.mosquitto.wait_subscribed(&self.client_id());
    }

    /// Publishes the next `count` readings of one device, and waits until the broker has them.
    #[track_caller]
    pub fn publish(&mut self, count: u64) {
        let messages = self.next(&["90296857"], count);
        self.publisher.publish_all(&messages);
    }

    /// Publishes until the agent has killed itself at its failpoint, so that the point is passed often enough.
    #[track_caller]
    pub fn publish_until_failpoint(&mut self) {
        let mut ended = false;
        while !ended {
            self.publish(15);
            let start = Instant::now();
            while !ended && start.elapsed() < Duration::from_millis(400) {
                std::thread::sleep(Duration::from_millis(10));
                ended = self.agent.ended().is_some();
            }
        }
        self.agent.wait_failpoint();
    }

    /// The next `count` readings of each of `devices`.
    pub fn next(&mut self, devices: &[&str], count: u64) -> Vec<Message> {
        let messages = document::readings(devices, self.serial, count);
        self.serial += count;
        messages
    }

    pub fn auditor(&self) -> Auditor {
        Auditor::new(self.kafka, &self.topic)
    }

    /// Waits until everything published is in Kafka, and audits it.
    #[track_caller]
    pub fn audit(&self) -> Audit {
        self.audit_within(PATIENT)
    }

    /// [`Line::audit`] with another limit.
    #[track_caller]
    pub fn audit_within(&self, limit: Duration) -> Audit {
        self.auditor().wait_for(&self.publisher.published(), limit)
    }

    /// Waits until everything published is in Kafka, stops the agent in order, and audits what there is in the end.
    #[track_caller]
    pub fn finish(&mut self) -> Audit {
        self.audit();
        self.agent.stop();
        self.auditor().audit(&self.publisher.published())
    }
}
