//! How a command that reads from Kafka reaches it: its options, then the configuration, then localhost.

use std::process::ExitCode;

use super::{Global, terminal};
use crate::config::settings::{DEVICE, Settings};
use crate::config::{self, Environment};
use crate::forwarder;

/// Options of every command that reads from Kafka.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Cluster {
    /// Kafka's address, several with commas [default: kafka.bootstrap_servers, else localhost:9092]
    #[arg(long, value_name = "HOST:PORT", value_parser = servers)]
    brokers: Option<String>,

    /// Topic, with {device} in it those of devices; may be given several times [default: kafka.topic and those of the
    /// sources, else sma-kafka]
    #[arg(long, value_name = "TOPIC", value_parser = topic)]
    topic: Vec<String>,

    /// Any property of librdkafka, such as security.protocol=ssl; may be given several times
    #[arg(long, short = 'X', value_name = "KEY=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
}

/// Addresses with commas between them.
pub(super) fn servers(text: &str) -> Result<String, String> {
    text.split(',').try_for_each(config::is_server).map(|()| text.to_owned())
}

fn topic(text: &str) -> Result<String, String> {
    config::is_source_topic(text).map(|()| text.to_owned())
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// What is read, and how the cluster is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) brokers: String,
    /// Whether anybody said so, on the command line or in the configuration.
    pub(super) named: bool,
    pub(super) topics: Vec<String>,
    /// Of librdkafka: TLS, login, and whatever else the command line says.
    pub(super) properties: Vec<(String, String)>,
}

/// Those that readings go to, those of devices with `{device}` in them.
fn topics(settings: &Settings) -> Vec<String> {
    settings.kafka_topics().into_iter().chain(settings.topics_of_devices()).map(str::to_owned).collect()
}

/// As the client library subscribes to it: a name, or a pattern for those of devices.
pub(super) fn subscribed(topic: &str) -> String {
    match topic.split_once(DEVICE) {
        None => topic.to_owned(),
        Some((front, back)) => {
            format!("^{}[A-Za-z0-9_-]+{}$", front.replace('.', "\\."), back.replace('.', "\\."))
        }
    }
}

/// Whether `name` is a topic of a device by `template`.
pub(super) fn is_by_template(template: &str, name: &str) -> bool {
    let Some((front, back)) = template.split_once(DEVICE) else { return false };
    let device = name.strip_prefix(front).and_then(|rest| rest.strip_suffix(back));
    device.is_some_and(|device| !device.is_empty() && !device.contains('.'))
}

impl Cluster {
    /// What the options leave open is taken from the configuration where there is one that names a cluster: a machine that
    /// only reads needs none. A file that was named on the command line must be right.
    pub(super) fn address(&self, global: &Global) -> Result<Address, ExitCode> {
        let settings = match &global.config {
            Some(_) => Some(super::load(global)?.settings),
            None => found(&Environment::of_process().beside_service(None)),
        };
        let mut address = match settings.filter(|settings| !settings.kafka.bootstrap_servers.is_empty()) {
            Some(settings) => Address {
                brokers: settings.kafka.bootstrap_servers.join(","),
                named: true,
                topics: topics(&settings),
                properties: forwarder::kafka::connection(&settings.kafka),
            },
            None => Address {
                brokers: "localhost:9092".to_owned(),
                named: false,
                topics: vec!["sma-kafka".to_owned()],
                properties: Vec::new(),
            },
        };
        if let Some(brokers) = &self.brokers {
            address.brokers.clone_from(brokers);
            address.named = true;
        }
        if !self.topic.is_empty() {
            address.topics.clone_from(&self.topic);
            address.topics.sort_unstable();
            address.topics.dedup();
        }
        address.properties.extend(self.property.iter().cloned());
        Ok(address)
    }
}

impl Address {
    /// What to look at where Kafka cannot be reached.
    pub(super) fn cure(&self) -> &'static str {
        if self.named {
            "it must be reachable from here, also at the addresses that its advertised.listeners name; TLS and login come from the configuration (--config), or from --property, such as -X security.protocol=ssl"
        } else {
            "name it with --brokers, or in kafka.bootstrap_servers"
        }
    }
}

/// The configuration where it is looked for; one that is there and cannot be used (a password that only the agent's user
/// may read) is said, since what is read is then another cluster.
fn found(environment: &Environment) -> Option<Settings> {
    match config::load(None, environment) {
        Ok(loaded) => Some(loaded.settings),
        Err(problems) => {
            let first = problems.errors.first().filter(|_| environment.candidates().iter().any(|path| path.exists()));
            if let Some(first) = first {
                terminal::say(format_args!("the configuration is not used: {}; see meterferry check", first.text()));
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: whoever has named the brokers is not told to name them.
    #[test]
    fn the_cure_is_not_what_was_done_already() {
        let address = |named| Address { brokers: "k:9092".into(), named, topics: Vec::new(), properties: Vec::new() };
        assert!(address(false).cure().contains("--brokers"));
        let named = address(true).cure();
        assert!(["advertised.listeners", "--config", "security.protocol"].iter().all(|word| named.contains(word)));
        assert!(!named.contains("--brokers"));
    }
}
