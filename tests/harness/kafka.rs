//! An Apache Kafka of the test's own: one node, KRaft, with every kind of listener.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use super::certificates::Certificates;
use super::process::{self, Running};
use super::proxy::Proxy;
use super::wait::{self, PATIENT};

/// Listeners whose advertised address is a proxy's: as many tests may put a proxy before the shared broker.
const PROXIED: usize = 16;

/// So many of them, after the first, speak TLS.
const PROXIED_TLS: usize = 4;

/// The host that the first of them is advertised under: nobody knows it but who is told.
pub const NAME: &str = "kafka.meterferry.test";

/// User and password on the listeners with SASL; what a user may do is up to the ACLs of the test.
pub const USERS: [(&str, &str); 4] =
    [("household", "secret-1"), ("stranger", "secret-2"), ("narrow", "secret-3"), ("reader", "secret-4")];

/// A user whose certificate's subject may do everything: [`Kafka::certificates`] signs it.
pub const SUPER_CERTIFICATE: &str = "trusted";

/// A broker. Whoever comes without TLS and SASL may do everything; users only what ACLs allow.
pub struct Kafka {
    // Before its folder, so that what it printed last can still be shown.
    running: Mutex<Option<Running>>,
    folder: TempDir,
    certificates: Certificates,
    ports: Ports,
    proxies: Mutex<Vec<(usize, (TcpListener, u16))>>,
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
        let folder = process::scratch("kafka");
        let certificates = Certificates::new();
        let ports = Ports {
            plain: process::free_port(),
            controller: process::free_port(),
            tls: process::free_port(),
            mutual_tls: process::free_port(),
            sasl: process::free_port(),
        };
        let proxies: Vec<_> = (0..PROXIED)
            .map(|number| (number, (TcpListener::bind("127.0.0.1:0").expect("a free port"), process::free_port())))
            .collect();
        let properties = properties(folder.path(), &certificates, &ports, &proxies);
        fs::write(folder.path().join("server.properties"), properties).expect("write");
        let this = Self { folder, certificates, ports, proxies: Mutex::new(proxies), running: Mutex::new(None) };
        this.format();
        this.restart();
        this
    }

    /// Without TLS or SASL.
    pub fn plain(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// TLS, the server's certificate only.
    pub fn tls(&self) -> String {
        format!("127.0.0.1:{}", self.ports.tls)
    }

    /// TLS, the client shows a certificate too.
    pub fn mutual_tls(&self) -> String {
        format!("127.0.0.1:{}", self.ports.mutual_tls)
    }

    /// SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512) over TLS, for [`USERS`].
    pub fn sasl(&self) -> String {
        format!("127.0.0.1:{}", self.ports.sasl)
    }

    /// The authority of its certificates and of its clients'.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// A proxy whose port is what the broker itself names to those who come through it.
    pub fn proxy(&self) -> Proxy {
        let (listener, port) = self.proxied("127.0.0.1", "PLAINTEXT");
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

    fn proxied(&self, host: &str, protocol: &str) -> (TcpListener, u16) {
        let mut proxies = lock(&self.proxies);
        let place = proxies.iter().position(|(number, _)| front(*number) == (host, protocol));
        proxies.remove(place.expect("a proxied listener is left; raise PROXIED")).1
    }

    /// SIGKILL.
    pub fn kill(&self) {
        if let Some(mut running) = lock(&self.running).take() {
            running.kill();
        }
    }

    /// SIGTERM.
    pub fn stop(&self) {
        if let Some(mut running) = lock(&self.running).take() {
            running.terminate(PATIENT);
        }
    }

    /// Starts it again, on the same ports and data; returns when it answers.
    pub fn restart(&self) {
        let mut command = java();
        command.arg("-Xmx512m").args(["-cp", &jars(), "kafka.Kafka"]);
        command.arg(self.folder.path().join("server.properties"));
        let mut running = Running::start("Kafka", &mut command, &self.folder.path().join("kafka.log"));
        let consumer: BaseConsumer = self.client().create().expect("a client");
        wait::until_true("Kafka to answer", PATIENT, || {
            if let Some(status) = running.ended() {
                panic!("Kafka ended with {status}:\n{}", running.tail(40));
            }
            consumer.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|all| !all.brokers().is_empty())
        });
        *lock(&self.running) = Some(running);
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
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
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
        config.set("bootstrap.servers", self.plain()).set("group.id", "test-bed").set("log_level", "2");
        config.set("reconnect.backoff.max.ms", "500");
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
        config
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

    fn format(&self) {
        let mut command = java();
        command.args(["-Xmx128m", "-cp", &jars(), "kafka.tools.StorageTool", "format", "-t", "bWV0ZXJmZXJyeS10ZXN0cw"]);
        command.arg("-c").arg(self.folder.path().join("server.properties"));
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

fn properties(
    folder: &Path,
    certificates: &Certificates,
    ports: &Ports,
    proxies: &[(usize, (TcpListener, u16))],
) -> String {
    let Ports { plain, controller, tls, mutual_tls, sasl } = ports;
    let mut listeners = format!(
        "PLAIN://127.0.0.1:{plain},TLS://127.0.0.1:{tls},MUTUAL://127.0.0.1:{mutual_tls},USERS://127.0.0.1:{sasl}"
    );
    let mut advertised = listeners.clone();
    let mut protocols = "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,MUTUAL:SSL,USERS:SASL_SSL".to_owned();
    for (number, (listener, port)) in proxies {
        let (host, protocol) = front(*number);
        let front = listener.local_addr().expect("an address").port();
        write!(listeners, ",PROXIED{number}://127.0.0.1:{port}").expect("a string takes it");
        write!(advertised, ",PROXIED{number}://{host}:{front}").expect("a string takes it");
        write!(protocols, ",PROXIED{number}:{protocol}").expect("a string takes it");
    }
    let server = certificates.bundle(&certificates.server());
    let users: String = USERS.iter().map(|(name, password)| format!(" user_{name}=\"{password}\"")).collect();
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners={listeners},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners={advertised}\n\
         listener.security.protocol.map={protocols}\n\
         inter.broker.listener.name=PLAIN\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={data}\n\
         auto.create.topics.enable=false\n\
         num.partitions=1\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         share.coordinator.state.topic.num.partitions=1\n\
         group.initial.rebalance.delay.ms=0\n\
         log.initial.task.delay.ms=1000\n\
         log.retention.check.interval.ms=5000\n\
         message.max.bytes=16777216\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS;User:CN={SUPER_CERTIFICATE}\n\
         ssl.keystore.type=PEM\n\
         ssl.keystore.location={server}\n\
         ssl.truststore.type=PEM\n\
         ssl.truststore.location={ca}\n\
         listener.name.mutual.ssl.client.auth=required\n\
         listener.name.users.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.users.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required{users};\n\
         listener.name.users.scram-sha-256.sasl.jaas.config={scram}\n\
         listener.name.users.scram-sha-512.sasl.jaas.config={scram}\n",
        data = folder.join("data").display(),
        server = server.display(),
        ca = certificates.ca().display(),
    )
}
