//! An Apache Kafka of the test's own: one node or three, KRaft, with every kind of listener.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use super::certificates::Certificates;
use super::process::{self, Running};
use super::proxy::Proxy;
use super::wait::{self, PATIENT};

mod properties;

/// Listeners whose advertised address is a proxy's: as many tests may put a proxy before the shared broker.
const PROXIED: usize = 32;

/// So many of them, after the first, speak TLS.
const PROXIED_TLS: usize = 4;

/// The host that the first of them is advertised under: nobody knows it but who is told.
pub const NAME: &str = "kafka.meterferry.test";

/// User and password on the listeners with SASL; what a user may do is up to the ACLs of the test.
pub const USERS: [(&str, &str); 4] =
    [("household", "secret-1"), ("stranger", "secret-2"), ("narrow", "secret-3"), ("reader", "secret-4")];

/// A user whose certificate's subject may do everything: [`Kafka::certificates`] signs it.
pub const SUPER_CERTIFICATE: &str = "trusted";

/// The number of a proxied listener; the socket that the proxy is put on, and the broker's own port.
type Proxied = (usize, (TcpListener, u16));

/// Kafka's class that writes the markers at a transaction's end.
const MARKERS: &str = "kafka.coordinator.transaction.TransactionMarkerChannelManager";

/// A broker, or a cluster of them. Whoever comes without TLS and SASL may do everything; users only what ACLs allow.
pub struct Kafka {
    // Before their folder, so that what they printed last can still be shown.
    nodes: Vec<Node>,
    folder: TempDir,
    certificates: Certificates,
    proxies: Mutex<Vec<Proxied>>,
}

/// One broker, which is a controller too.
struct Node {
    running: Mutex<Option<Running>>,
    id: usize,
    ports: Ports,
}

struct Ports {
    plain: u16,
    controller: u16,
    tls: u16,
    mutual_tls: u16,
    sasl: u16,
}

impl Kafka {
    /// The broker that tests share which do not stop it; ended by the guard.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A broker of one's own, to be stopped and killed.
    pub fn start() -> Self {
        Self::with(1, &[])
    }

    /// A cluster of so many brokers, with further properties.
    pub fn with(brokers: usize, properties: &[(&str, &str)]) -> Self {
        let folder = process::scratch("kafka");
        let certificates = Certificates::new();
        let nodes: Vec<_> = (1..=brokers).map(Node::new).collect();
        // Only a broker alone is put behind proxies.
        let proxied = if brokers == 1 { PROXIED } else { 0 };
        let proxies: Vec<_> = (0..proxied)
            .map(|number| (number, (TcpListener::bind("127.0.0.1:0").expect("a free port"), process::free_port())))
            .collect();
        for node in &nodes {
            let text = properties::server_properties(folder.path(), &certificates, node, &nodes, &proxies, properties);
            fs::write(folder.path().join(node.file("properties")), text).expect("write");
        }
        let this = Self { nodes, folder, certificates, proxies: Mutex::new(proxies) };
        (0..brokers).for_each(|node| this.format(node));
        (0..brokers).for_each(|node| this.spawn(node));
        (0..brokers).for_each(|node| this.wait_node(node));
        this
    }

    /// Without TLS or SASL.
    pub fn plain(&self) -> String {
        format!("127.0.0.1:{}", self.nodes[0].ports.plain)
    }

    /// Every broker's address, without TLS or SASL.
    pub fn all_plain(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports.plain)).collect()
    }

    /// TLS, the server's certificate only.
    pub fn tls(&self) -> String {
        format!("127.0.0.1:{}", self.nodes[0].ports.tls)
    }

    /// TLS, the client shows a certificate too.
    pub fn mutual_tls(&self) -> String {
        format!("127.0.0.1:{}", self.nodes[0].ports.mutual_tls)
    }

    /// SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512) over TLS, for [`USERS`].
    pub fn sasl(&self) -> String {
        format!("127.0.0.1:{}", self.nodes[0].ports.sasl)
    }

    /// The authority of its certificates and of its clients'.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// A proxy whose port is what the broker itself names to those who come through it.
    pub fn proxy(&self) -> Proxy {
        let (listener, port) = self.proxied_plain();
        Proxy::on(listener, port)
    }

    /// The same before a listener with TLS.
    pub fn tls_proxy(&self) -> Proxy {
        let (listener, port) = self.proxied("127.0.0.1", "SSL");
        Proxy::on(listener, port)
    }

    /// What [`Kafka::proxy`] is made of, for a broker that names itself [`NAME`].
    pub fn named(&self) -> (TcpListener, u16) {
        self.proxied(NAME, "PLAINTEXT")
    }

    /// What [`Kafka::proxy`] is made of.
    pub fn proxied_plain(&self) -> (TcpListener, u16) {
        self.proxied("127.0.0.1", "PLAINTEXT")
    }

    fn proxied(&self, host: &str, protocol: &str) -> (TcpListener, u16) {
        let mut proxies = lock(&self.proxies);
        let place = proxies.iter().position(|(number, _)| front(*number) == (host, protocol));
        proxies.remove(place.expect("a proxied listener is left; raise PROXIED")).1
    }

    /// SIGKILL to every broker.
    pub fn kill(&self) {
        (0..self.nodes.len()).for_each(|node| self.kill_node(node));
    }

    /// SIGTERM to every broker.
    pub fn stop(&self) {
        (0..self.nodes.len()).for_each(|node| self.stop_node(node));
    }

    /// Starts what does not run again, on the same ports and data; returns when all answer.
    pub fn restart(&self) {
        let stopped: Vec<_> = (0..self.nodes.len()).filter(|node| lock(&self.nodes[*node].running).is_none()).collect();
        stopped.iter().for_each(|node| self.spawn(*node));
        stopped.iter().for_each(|node| self.wait_node(*node));
    }

    /// SIGKILL to one broker, counted from 0.
    pub fn kill_node(&self, node: usize) {
        if let Some(mut running) = lock(&self.nodes[node].running).take() {
            running.kill();
        }
    }

    /// SIGTERM to one broker.
    pub fn stop_node(&self, node: usize) {
        if let Some(mut running) = lock(&self.nodes[node].running).take() {
            running.terminate(PATIENT);
        }
    }

    /// Starts one broker again; returns when it answers.
    pub fn restart_node(&self, node: usize) {
        self.spawn(node);
        self.wait_node(node);
    }

    /// Whether a broker that was started again left a committed transaction without its markers, so that nobody can read
    /// on behind it, nor the group's offsets.
    ///
    /// A defect of Kafka (seen in 4.3.0): a broker alone, killed while it ends a transaction, loads the coordinator's
    /// state as it starts, before the controller has noticed its end. When that happens meanwhile, no partition has a
    /// leader; the markers' sender takes the partitions for deleted topics, and the transaction for ended.
    pub fn lost_markers(&self) -> bool {
        self.nodes.iter().any(|node| {
            let running = lock(&node.running);
            running
                .as_ref()
                .is_some_and(|running| running.log().contains("likely deleted already and hence can be skipped"))
        })
    }

    fn spawn(&self, node: usize) {
        let node = &self.nodes[node];
        // Three brokers beside each other are given less.
        let memory = if self.nodes.len() == 1 { "-Xmx512m" } else { "-Xmx300m" };
        let mut command = java();
        let log = |key: &str, value: &str| format!("-Dorg.slf4j.simpleLogger.{key}={value}");
        command.args([log("defaultLogLevel", "error"), log("showDateTime", "true"), log("showShortLogName", "true")]);
        command.args([log("dateTimeFormat", "HH:mm:ss.SSS"), log(&format!("log.{MARKERS}"), "info")]);
        command.arg(memory).args(["-cp", &jars(), "kafka.Kafka"]);
        command.arg(self.folder.path().join(node.file("properties")));
        let running = Running::start("Kafka", &mut command, &self.folder.path().join(node.file("log")));
        *lock(&node.running) = Some(running);
    }

    /// Waits until a broker answers, and names itself as one of the cluster.
    fn wait_node(&self, node: usize) {
        let node = &self.nodes[node];
        let mut config = self.client();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", node.ports.plain));
        let consumer: BaseConsumer = config.create().expect("a client");
        let id = i32::try_from(node.id).expect("a small number");
        wait::until_true("Kafka to answer", PATIENT, || {
            if let Some(running) = lock(&node.running).as_mut()
                && let Some(status) = running.ended()
            {
                panic!("Kafka ended with {status}:\n{}", running.tail(40));
            }
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(1));
            metadata.is_ok_and(|all| all.brokers().iter().any(|broker| broker.id() == id))
        });
    }

    /// A topic of one's own with this many partitions; returns its name.
    pub fn topic(&self, stem: &str, partitions: i32) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{stem}-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        self.make_topic(&name, partitions, &[]);
        self.make_topic(&format!("{name}-resume"), 1, &[]);
        name
    }

    /// Makes a topic.
    pub fn make_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(self.replication()));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let made = block_on(self.admin().create_topics([&topic], &patient())).expect("Kafka answers");
        if let [Err((name, code))] = &made[..] {
            panic!("cannot make topic {name}: {code}");
        }
        self.wait_topic(name, true);
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) {
        let deleted = block_on(self.admin().delete_topics(&[name], &patient())).expect("Kafka answers");
        if let [Err((name, code))] = &deleted[..] {
            panic!("cannot delete topic {name}: {code}");
        }
        self.wait_topic(name, false);
    }

    /// The consumer groups whose name begins like this.
    pub fn groups(&self, prefix: &str) -> Vec<String> {
        let consumer: BaseConsumer = self.client().create().expect("a client");
        let groups = consumer.fetch_group_list(None, Duration::from_secs(10)).expect("Kafka answers");
        let names = groups.groups().iter().map(|group| group.name());
        names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
    }

    /// Forgets the offsets of a consumer group.
    pub fn delete_group(&self, name: &str) {
        let deleted = block_on(self.admin().delete_groups(&[name], &patient())).expect("Kafka answers");
        if let [Err((name, code))] = &deleted[..] {
            panic!("cannot delete group {name}: {code}");
        }
    }

    /// Allows `user` an operation on a resource, such as `["--topic", "sma-kafka"]`.
    pub fn allow(&self, user: &str, operations: &[&str], resource: &[&str]) {
        let principal = format!("User:{user}");
        let mut arguments = vec!["--add", "--allow-principal", &principal];
        operations.iter().for_each(|operation| arguments.extend(["--operation", operation]));
        arguments.extend(resource);
        self.tool("org.apache.kafka.tools.AclCommand", &arguments);
    }

    /// Takes back what [`Kafka::allow`] gave.
    pub fn forbid(&self, user: &str, operations: &[&str], resource: &[&str]) {
        let principal = format!("User:{user}");
        let mut arguments = vec!["--remove", "--force", "--allow-principal", &principal];
        operations.iter().for_each(|operation| arguments.extend(["--operation", operation]));
        arguments.extend(resource);
        self.tool("org.apache.kafka.tools.AclCommand", &arguments);
    }

    /// Sets a topic's configuration, and what is not named here to its default.
    pub fn configure_topic(&self, name: &str, settings: &[(&str, &str)]) {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in settings {
            change = change.set(key, value);
        }
        let changed = block_on(self.admin().alter_configs([&change], &patient())).expect("Kafka answers");
        if let [Err((resource, code))] = &changed[..] {
            panic!("cannot configure {resource:?}: {code}");
        }
    }

    /// The compression codecs (0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd) of the batches in a topic's partition 0, as they
    /// stand in the broker's file (record batch, version 2); markers of transactions are left out.
    pub fn codecs(&self, topic: &str) -> BTreeSet<u8> {
        let file = self.folder.path().join(format!("data-1/{topic}-0/00000000000000000000.log"));
        let bytes = fs::read(&file).expect("the partition's first file");
        let mut rest = &bytes[..];
        let mut codecs = BTreeSet::new();
        while let Some((head, _)) = rest.split_first_chunk::<23>() {
            // Base offset (8), length of what follows (4), leader epoch (4), magic (1), checksum (4), attributes (2).
            let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
            let control = head[22] & 0x20 != 0;
            if !control {
                codecs.insert(head[22] & 0x07);
            }
            rest = rest.get(12 + length..).unwrap_or_default();
        }
        codecs
    }

    /// Runs one of Kafka's own tools against it.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let mut command = java();
        command.args(["-Xmx128m", "-cp", &jars(), class, "--bootstrap-server", &self.plain()]).args(arguments);
        process::run(&mut command)
    }

    /// A client's configuration, with all rights.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Its own attempts to connect are of no interest while the broker is down.
        config.set("bootstrap.servers", self.all_plain().join(",")).set("group.id", "test-bed").set("log_level", "2");
        config.set("reconnect.backoff.max.ms", "500");
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
        config
    }

    fn replication(&self) -> i32 {
        i32::try_from(self.nodes.len()).expect("a few brokers")
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("a client")
    }

    fn wait_topic(&self, name: &str, there: bool) {
        let consumer: BaseConsumer = self.client().create().expect("a client");
        wait::until_true(&format!("topic {name} to be there: {there}"), PATIENT, || {
            consumer.fetch_metadata(None, Duration::from_secs(5)).is_ok_and(|all| {
                let found = all.topics().iter().find(|topic| topic.name() == name);
                let led = |t: &&rdkafka::metadata::MetadataTopic| {
                    !t.partitions().is_empty() && t.partitions().iter().all(|p| p.leader() >= 0)
                };
                if there { found.is_some_and(|topic| led(&topic)) } else { found.is_none() }
            })
        });
    }

    fn format(&self, node: usize) {
        let mut command = java();
        command.args(["-Xmx128m", "-cp", &jars(), "kafka.tools.StorageTool", "format", "-t", "bWV0ZXJmZXJyeS10ZXN0cw"]);
        command.arg("-c").arg(self.folder.path().join(self.nodes[node].file("properties")));
        for (name, password) in USERS {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                command.args(["--add-scram", &format!("{mechanism}=[name={name},password={password}]")]);
            }
        }
        process::run(&mut command);
    }
}

/// Host and protocol of a proxied listener.
fn front(number: usize) -> (&'static str, &'static str) {
    match number {
        0 => (NAME, "PLAINTEXT"),
        1..=PROXIED_TLS => ("127.0.0.1", "SSL"),
        _ => ("127.0.0.1", "PLAINTEXT"),
    }
}

impl Node {
    fn new(id: usize) -> Self {
        let ports = Ports {
            plain: process::free_port(),
            controller: process::free_port(),
            tls: process::free_port(),
            mutual_tls: process::free_port(),
            sasl: process::free_port(),
        };
        Self { running: Mutex::new(None), id, ports }
    }

    fn file(&self, suffix: &str) -> String {
        format!("kafka-{}.{suffix}", self.id)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn patient() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(Duration::from_secs(30))).operation_timeout(Some(Duration::from_secs(30)))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A quick start matters more here than speed later.
fn java() -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"]);
    command
}

/// Kafka's jars as a class path.
fn jars() -> String {
    let folder = std::env::var_os("METERFERRY_KAFKA_JARS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kafka/jars"), PathBuf::from);
    assert!(folder.is_dir(), "no Kafka in {}: tests/run fetches it", folder.display());
    folder.join("*").display().to_string()
}
