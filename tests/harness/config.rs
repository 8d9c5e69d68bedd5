//! The agent's configuration file, from its parts.

use std::fmt::Write as _;
use std::path::Path;

/// A configuration file in the making. Lines are TOML, as they stand in the file.
#[derive(Debug, Clone)]
pub struct Config {
    agent: Vec<String>,
    queue: Vec<String>,
    kafka: Vec<String>,
    /// Tables after `[kafka]`, with their headers.
    tables: Vec<String>,
    sources: Vec<String>,
}

impl Config {
    /// An agent `id` that keeps its queue at `queue` and sends to `topic` at `brokers`; commits and sends soon, so that
    /// tests need not wait for the defaults.
    pub fn new(id: &str, queue: &Path, brokers: &str, topic: &str) -> Self {
        Self {
            agent: vec![format!("id = {id:?}")],
            queue: vec![
                format!("path = {queue:?}"),
                "commit_delay = \"100ms\"".to_owned(),
                "min_free = \"16 MiB\"".to_owned(),
            ],
            kafka: vec![
                format!("bootstrap_servers = [{brokers:?}]"),
                format!("topic = {topic:?}"),
                format!("resume_topic = \"{topic}-resume\""),
                "linger = \"50ms\"".to_owned(),
                "retry_max_delay = \"1s\"".to_owned(),
            ],
            tables: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Adds a line to `[agent]`.
    pub fn agent(mut self, line: &str) -> Self {
        set(&mut self.agent, line);
        self
    }

    /// Adds a line to `[queue]`, or replaces the one with the same key.
    pub fn queue(mut self, line: &str) -> Self {
        set(&mut self.queue, line);
        self
    }

    /// Adds a line to `[kafka]`, or replaces the one with the same key.
    pub fn kafka(mut self, line: &str) -> Self {
        set(&mut self.kafka, line);
        self
    }

    /// Adds a table with its header, such as `[kafka.tls]`.
    pub fn table(mut self, text: &str) -> Self {
        self.tables.push(text.to_owned());
        self
    }

    /// Adds a source that reads the adapter's documents from topic `sma` of a broker on 127.0.0.1.
    pub fn mqtt(self, port: u16) -> Self {
        self.source(&format!(
            "name = \"meter\"\ntype = \"mqtt\"\nhost = \"127.0.0.1\"\nport = {port}\ntopics = [\"sma\"]\n\
             payload = \"sma\"\nreconnect_max_delay = \"1s\""
        ))
    }

    /// Lets the last source go to another port, such as a proxy's.
    pub fn port(self, port: u16) -> Self {
        self.source_line(&format!("port = {port}"))
    }

    /// Lets the last source go to another host.
    pub fn host(self, host: &str) -> Self {
        self.source_line(&format!("host = {host:?}"))
    }

    /// Adds a line to the last source, or replaces the one with the same key.
    pub fn source_line(mut self, line: &str) -> Self {
        let last = self.sources.last_mut().expect("a source to change");
        let mut lines: Vec<_> = last.lines().map(str::to_owned).collect();
        set(&mut lines, line);
        *last = lines.join("\n");
        self
    }

    /// Adds a source, as it stands below its `[[source]]`.
    pub fn source(mut self, lines: &str) -> Self {
        self.sources.push(lines.to_owned());
        self
    }

    /// Adds lines to the last source; a table of its own (`[source.tls]`) last.
    pub fn source_lines(mut self, lines: &str) -> Self {
        let last = self.sources.last_mut().expect("a source to add to");
        write!(last, "\n{lines}").expect("a string takes it");
        self
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (header, lines) in [("[agent]", &self.agent), ("[queue]", &self.queue), ("[kafka]", &self.kafka)] {
            writeln!(text, "{header}\n{}\n", lines.join("\n")).expect("a string takes it");
        }
        for table in &self.tables {
            writeln!(text, "{table}\n").expect("a string takes it");
        }
        for source in &self.sources {
            writeln!(text, "[[source]]\n{source}\n").expect("a string takes it");
        }
        text
    }
}

/// Replaces the line with the same key, or adds it.
fn set(lines: &mut Vec<String>, line: &str) {
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    lines.retain(|old| key(old) != key(line));
    lines.push(line.to_owned());
}
