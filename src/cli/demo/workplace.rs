//! The demo's folder: the agent's configuration, its queue and its log.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::meters::POLL;
use crate::config::show_fingerprint;

/// Bytes of the log's end that are looked at.
const TAIL: u64 = 16 * 1024;

/// A folder of its own below the system's temporary folder; gone with it, unless kept.
#[derive(Debug)]
pub struct Workplace {
    folder: TempDir,
}

/// What the agent is configured with.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub agent_id: String,
    pub servers: String,
    pub topic: String,
    pub resume_topic: String,
    pub exactly_once: bool,
    /// Where adapters publish.
    pub source: Source,
    pub polled: Vec<Polled>,
}

/// A meter that is asked.
#[derive(Debug, Clone)]
pub enum Polled {
    Rest { name: String, url: String, fingerprint: [u8; 32] },
    Modbus { name: String, port: u16, unit: u8 },
}

/// Where the readings come from that adapters publish.
#[derive(Debug, Clone)]
pub enum Source {
    /// The agent's own listener on this port of 127.0.0.1.
    Listener {
        port: u16,
        topic: String,
    },
    Broker {
        host: String,
        port: u16,
        topic: String,
        client_id: String,
    },
}

impl Workplace {
    pub fn new() -> io::Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix("meterferry-demo-").tempdir()? })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn queue(&self) -> PathBuf {
        self.folder().join("queue")
    }

    pub fn configuration(&self) -> PathBuf {
        self.folder().join("meterferry.toml")
    }

    pub fn log(&self) -> PathBuf {
        self.folder().join("agent.log")
    }

    /// Writes the agent's configuration file.
    pub fn configure(&self, configuration: &Configuration) -> io::Result<()> {
        fs::write(self.configuration(), configuration.text(&self.queue()))
    }

    /// The last `count` lines of the agent's log.
    pub fn log_tail(&self, count: usize) -> io::Result<Vec<String>> {
        let mut file = fs::File::open(self.log())?;
        let start = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        Ok(lines[lines.len().saturating_sub(count)..].to_vec())
    }

    /// Leaves the folder where it is.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

impl Configuration {
    fn text(&self, queue: &Path) -> String {
        let servers: Vec<_> = self.servers.split(',').map(|server| quoted(server.trim())).collect();
        let delivery = if self.exactly_once { "exactly-once" } else { "at-least-once" };
        // The stand-in gives no answer to a question for a topic's retention, and that is waited for at each start.
        let request_timeout = if self.exactly_once { "10s" } else { "1s" };
        let mut text = format!(
            "# Written by `meterferry demo`.\n\n\
             [agent]\n\
             id = {id}\n\
             stop_timeout = \"10s\"\n\
             # The readings are a minute old at most: the clock is good enough as it is.\n\
             clock_wait = \"0s\"\n\
             summary_interval = \"10s\"\n\n\
             [queue]\n\
             path = {queue}\n\
             min_free = \"16 MiB\"\n\
             commit_delay = \"250ms\"\n\n\
             [kafka]\n\
             bootstrap_servers = [{servers}]\n\
             topic = {topic}\n\
             resume_topic = {resume}\n\
             delivery = \"{delivery}\"\n\
             linger = \"200ms\"\n\
             retry_max_delay = \"1s\"\n\
             request_timeout = \"{request_timeout}\"\n\
             create_topics = true\n",
            id = quoted(&self.agent_id),
            queue = quoted(&queue.to_string_lossy()),
            servers = servers.join(", "),
            topic = quoted(&self.topic),
            resume = quoted(&self.resume_topic),
        );
        self.source.write(&mut text);
        self.polled.iter().for_each(|polled| polled.write(&mut text));
        text
    }
}

impl Source {
    /// The MQTT topic that the adapters publish to.
    pub fn topic(&self) -> &str {
        match self {
            Self::Listener { topic, .. } | Self::Broker { topic, .. } => topic,
        }
    }

    /// Where the adapters connect to.
    pub fn address(&self) -> (&str, u16) {
        match self {
            Self::Listener { port, .. } => ("127.0.0.1", *port),
            Self::Broker { host, port, .. } => (host, *port),
        }
    }

    fn write(&self, text: &mut String) {
        let _ = write!(text, "\n[[source]]\nname = \"house\"\n");
        let _ = match self {
            Self::Listener { port, topic } => write!(
                text,
                "type = \"mqtt-listener\"\nlisten = \"127.0.0.1:{port}\"\ntopics = [{}]\nmax_clients = 100\n",
                quoted(topic)
            ),
            Self::Broker { host, port, topic, client_id } => write!(
                text,
                "type = \"mqtt\"\nhost = {}\nport = {port}\nclient_id = {}\ntopics = [{}]\nreconnect_max_delay = \"1s\"\n",
                quoted(host),
                quoted(client_id),
                quoted(topic)
            ),
        };
    }
}

impl Polled {
    fn write(&self, text: &mut String) {
        let interval = POLL.as_secs();
        let _ = match self {
            // Whoever asks each second gets some measurements twice; the audit wants to see each answer.
            Self::Rest { name, url, fingerprint } => write!(
                text,
                "\n[[source]]\nname = {}\ntype = \"rest\"\nurl = {}\ninterval = \"{interval}s\"\nstatus_interval = \"0s\"\n\
                 retry_max_delay = \"1s\"\nstore_unchanged = true\n[source.tls]\nfingerprint = {}\n",
                quoted(name),
                quoted(url),
                quoted(&show_fingerprint(fingerprint))
            ),
            Self::Modbus { name, port, unit } => write!(
                text,
                "\n[[source]]\nname = {}\ntype = \"modbus\"\nhost = \"127.0.0.1\"\nport = {port}\nunit = {unit}\n\
                 interval = \"{interval}s\"\nreconnect_max_delay = \"1s\"\n",
                quoted(name)
            ),
        };
    }
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::config::settings::{Delivery, Interface};

    fn configuration(source: Source) -> Configuration {
        Configuration {
            agent_id: "demo-1".into(),
            servers: "one:9092, two:9093".into(),
            topic: "readings".into(),
            resume_topic: "readings-resume".into(),
            exactly_once: true,
            source,
            polled: vec![
                Polled::Rest { name: "rest-1".into(), url: "https://127.0.0.1:4443".into(), fingerprint: [7; 32] },
                Polled::Modbus { name: "modbus-1".into(), port: 1502, unit: 3 },
            ],
        }
    }

    /// The demo's agent is configured like any other: its file passes the same check.
    #[test]
    fn the_agent_understands_its_configuration() {
        let workplace = Workplace::new().expect("a folder");
        let load = |source| {
            workplace.configure(&configuration(source)).expect("written");
            crate::config::load(Some(&workplace.configuration()), &Environment::of_process())
                .unwrap_or_else(|problems| panic!("{problems}"))
                .settings
        };
        let settings = load(Source::Listener { port: 18_831, topic: "sma".into() });
        assert_eq!(settings.queue.path, workplace.queue());
        assert_eq!(settings.kafka.bootstrap_servers, ["one:9092", "two:9093"]);
        assert_eq!((settings.kafka.topic.as_str(), settings.kafka.delivery), ("readings", Delivery::ExactlyOnce));
        assert!(matches!(&settings.sources[0].interface, Interface::MqttListener(one) if one.listen.port() == 18_831));
        assert!(matches!(&settings.sources[1].interface, Interface::Rest(one) if one.store_unchanged));
        assert!(matches!(&settings.sources[2].interface, Interface::Modbus(one) if (one.port, one.unit) == (1502, 3)));
        let settings = load(Source::Broker {
            host: "::1".into(),
            port: 1884,
            topic: "demo/1".into(),
            client_id: "meterferry-demo-1".into(),
        });
        assert!(
            matches!(&settings.sources[0].interface, Interface::Mqtt(one) if one.host == "::1" && one.port == 1884)
        );
    }

    /// "Leaves no folder": unless it is kept.
    #[test]
    fn the_folder_goes_with_its_owner() {
        let workplace = Workplace::new().expect("a folder");
        let folder = workplace.folder().to_owned();
        fs::write(workplace.log(), "one\ntwo\nthree\n").expect("written");
        assert_eq!(workplace.log_tail(2).expect("read"), ["two", "three"]);
        drop(workplace);
        assert!(!folder.exists());
        let kept = Workplace::new().expect("a folder").keep();
        assert!(kept.exists());
        fs::remove_dir_all(kept).expect("removed");
    }
}
