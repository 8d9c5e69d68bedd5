//! `server.properties` of one broker.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{Certificates, Node, Ports, Proxied, SUPER_CERTIFICATE, USERS, front};

/// The file for `node`, one of `nodes`; `further` stands over everything else.
pub(super) fn server_properties(
    folder: &Path,
    certificates: &Certificates,
    node: &Node,
    nodes: &[Node],
    proxies: &[Proxied],
    further: &[(&str, &str)],
) -> String {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |key: &str, value: &str| all.insert(key.to_owned(), value.to_owned());
    let voters: Vec<_> = nodes.iter().map(|node| format!("{}@127.0.0.1:{}", node.id, node.ports.controller)).collect();
    let replicas = nodes.len().to_string();
    // A majority: with one of three gone everything goes on.
    let in_sync = nodes.len().div_ceil(2).to_string();
    set("process.roles", "broker,controller");
    set("node.id", &node.id.to_string());
    set("controller.quorum.voters", &voters.join(","));
    set("log.dirs", &folder.join(format!("data-{}", node.id)).display().to_string());
    set("auto.create.topics.enable", "false");
    set("num.partitions", "1");
    set("min.insync.replicas", &in_sync);
    for topic in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"] {
        set(&format!("{topic}.replication.factor"), &replicas);
        set(&format!("{topic}.num.partitions"), "1");
    }
    set("transaction.state.log.min.isr", &in_sync);
    set("share.coordinator.state.topic.min.isr", &in_sync);
    set("group.initial.rebalance.delay.ms", "0");
    set("log.initial.task.delay.ms", "1000");
    set("log.retention.check.interval.ms", "5000");
    // Less than the agent's configuration allows, so that it can be asked for too much.
    set("transaction.max.timeout.ms", "600000");
    // How soon a transaction whose producer has gone silent is ended after its time.
    set("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500");
    // Brokers that come and go should be noticed within seconds.
    set("broker.session.timeout.ms", "3000");
    set("broker.heartbeat.interval.ms", "500");
    set("message.max.bytes", "16777216");
    set("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
    set("super.users", &format!("User:ANONYMOUS;User:CN={SUPER_CERTIFICATE}"));
    listeners(&node.ports, proxies, &mut set);
    security(certificates, &mut set);
    for (key, value) in further {
        set(key, value);
    }
    all.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

fn listeners<R>(ports: &Ports, proxies: &[Proxied], set: &mut impl FnMut(&str, &str) -> R) {
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
    set("listeners", &format!("{listeners},CONTROLLER://127.0.0.1:{controller}"));
    set("advertised.listeners", &advertised);
    set("listener.security.protocol.map", &protocols);
    set("inter.broker.listener.name", "PLAIN");
    set("controller.listener.names", "CONTROLLER");
}

fn security<R>(certificates: &Certificates, set: &mut impl FnMut(&str, &str) -> R) {
    let server = certificates.bundle(&certificates.server());
    let users: String = USERS.iter().map(|(name, password)| format!(" user_{name}=\"{password}\"")).collect();
    let plain = format!("org.apache.kafka.common.security.plain.PlainLoginModule required{users};");
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    set("ssl.keystore.type", "PEM");
    set("ssl.keystore.location", &server.display().to_string());
    set("ssl.truststore.type", "PEM");
    set("ssl.truststore.location", &certificates.ca().display().to_string());
    set("listener.name.mutual.ssl.client.auth", "required");
    set("listener.name.users.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512");
    set("listener.name.users.plain.sasl.jaas.config", &plain);
    set("listener.name.users.scram-sha-256.sasl.jaas.config", scram);
    set("listener.name.users.scram-sha-512.sasl.jaas.config", scram);
}
