//! Kafka, from the name in the configuration to the last right: each question only where the one before was answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::certificate;
use super::check::{Check, Command};
use super::cluster::{self, Address};
use super::reach;
use super::rights::{self, Facts};
use super::topic;
use crate::config::host_and_port;
use crate::config::settings::{Delivery, Kafka, Settings};
use crate::forwarder;
use crate::forwarder::advice::Names;
use crate::forwarder::cluster::Failure;
use crate::forwarder::kafka::probe::{ClusterShape, Node, Probe, TopicShape};
use crate::forwarder::outcome::Class;

/// How long the cluster may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the cluster as agent `agent_id` would, under a name of its own.
pub async fn look(settings: &Settings, agent_id: &str, now_s: i64) -> Vec<Check> {
    let kafka = &settings.kafka;
    if kafka.bootstrap_servers.is_empty() {
        // The configuration's own warning, which stands among the first checks, is not given again.
        let check = Check::skipped("cluster", "kafka.bootstrap_servers is not set: readings are kept and not sent");
        let hint = Some("write bootstrap_servers = [\"HOST:9092\"] in [kafka]".to_owned());
        return vec![Check { hint, ..check }];
    }
    let wanted = kafka.bootstrap_servers.iter().filter_map(|server| host_and_port(server).ok()).collect();
    let servers = reach_all(wanted, kafka, now_s).await;
    let mut checks = cluster::servers(&servers, now_s);
    let own = kafka.tls.as_ref().and_then(|tls| tls.certificate_file.as_ref());
    if let Some(file) = own {
        let what = file.display().to_string();
        let cure = "have its authority make a new one";
        checks.push(certificate::lifetime("own certificate", &what, certificate::ends_in_file(file), now_s, cure));
    }
    if !servers.iter().any(Address::is_good) {
        let tls = servers.iter().any(|server| server.seen.is_ok());
        let why = if tls { "TLS failed" } else { "no server is reached" };
        checks.extend(unasked(&["login", "brokers", "topics", "rights"], why));
        return checks;
    }
    checks.extend(inside(settings, agent_id, &servers, now_s).await);
    checks
}

fn unasked(names: &[&str], why: &str) -> Vec<Check> {
    names.iter().map(|name| Check::skipped(*name, why)).collect()
}

/// Every address at once, in the order in which they were given.
async fn reach_all(wanted: Vec<(String, u16)>, kafka: &Kafka, now_s: i64) -> Vec<Address> {
    let mut tasks = JoinSet::new();
    for (number, (host, port)) in wanted.into_iter().enumerate() {
        let tls = kafka.tls.clone();
        tasks.spawn(async move { (number, cluster::reach(host, port, tls, now_s).await) });
    }
    let mut seen: Vec<_> = tasks.join_all().await;
    seen.sort_by_key(|(number, _)| *number);
    seen.into_iter().map(|(_, address)| address).collect()
}

/// What is behind the servers.
async fn inside(settings: &Settings, agent_id: &str, servers: &[Address], now_s: i64) -> Vec<Check> {
    let kafka = &settings.kafka;
    let names = forwarder::names(kafka, agent_id);
    let topics: Vec<Arc<str>> = settings.kafka_topics().into_iter().map(Arc::from).collect();
    let mut asked = topics.clone();
    if kafka.delivery == Delivery::ExactlyOnce {
        asked.push(kafka.resume_topic.as_str().into());
    }
    let (own, id, all) = (kafka.clone(), agent_id.to_owned(), asked.clone());
    // The client library blocks.
    let answer = tokio::task::spawn_blocking(move || {
        let probe = Probe::new(&own, &id, PATIENCE)?;
        let shape = probe.cluster(&all)?;
        Ok::<_, Failure>((probe, shape))
    });
    let (probe, shape) = match answer.await {
        Ok(Ok(answered)) => answered,
        Ok(Err(failure)) => {
            let mut checks = vec![no_answer(kafka, &names, &failure, speaks_tls(kafka, servers).await)];
            checks.extend(unasked(&["brokers", "topics", "rights"], "the cluster does not answer"));
            return checks;
        }
        Err(panicked) => {
            return vec![Check::wrong("cluster", panicked.to_string(), "look at the log with --log debug")];
        }
    };
    let mut checks = vec![login(kafka, &shape)];
    let wanted = shape.nodes.iter().map(|node| (node.host.clone(), node.port)).collect();
    let seen = reach_all(wanted, kafka, now_s).await;
    let nodes: Vec<(Node, Address)> = shape.nodes.iter().cloned().zip(seen).collect();
    checks.extend(cluster::advertised(kafka, &nodes, servers, now_s));
    let found = |topic: &Arc<str>| shape.topics.get(topic);
    let presence = |topic: &Arc<str>| topic::presence(settings, &names, topic, found(topic)?, shape.nodes.len());
    checks.extend(asked.iter().filter_map(presence));
    let templates = settings.topics_of_devices();
    checks.extend(templates.into_iter().map(|template| topic::of_devices(settings, &names, template)));
    if nodes.iter().any(|(_, address)| !address.is_good()) {
        checks.extend(unasked(&["topics' settings", "rights"], "an address that a broker advertises is not reached"));
        return checks;
    }
    if let Some(failure) = &shape.unanswered {
        checks.push(no_answer(kafka, &names, failure, false));
        checks.extend(unasked(&["topics' settings", "rights"], "the cluster does not answer"));
        return checks;
    }
    let there: Vec<_> =
        topics.iter().filter_map(|topic| Some((Arc::clone(topic), found(topic)?.clone().ok()?))).collect();
    checks.extend(further(settings, names, topics, there, probe, shape).await);
    checks
}

/// Settings and rights.
async fn further(
    settings: &Settings,
    names: Names,
    topics: Vec<Arc<str>>,
    there: Vec<(Arc<str>, TopicShape)>,
    probe: Probe,
    shape: ClusterShape,
) -> Vec<Check> {
    let settings = settings.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut checks = Vec::new();
        for (topic, shape) in &there {
            let config = probe.topic_config(topic);
            checks.extend(topic::configuration(&settings, &names, topic, &config, shape.replicas));
        }
        if settings.kafka.delivery == Delivery::ExactlyOnce {
            let first = shape.nodes.first().map(|node| probe.broker_config(node.id));
            checks.extend(first.map(|config: Result<BTreeMap<_, _>, _>| topic::offsets(&config)));
        }
        let there: Vec<_> = there.into_iter().map(|(topic, _)| topic).collect();
        checks.extend(tried(&settings.kafka, &names, topics, &there, &probe, &shape));
        checks
    });
    looked.await.unwrap_or_else(|panicked| {
        vec![Check::wrong("rights", panicked.to_string(), "look at the log with --log debug")]
    })
}

fn tried(
    kafka: &Kafka,
    names: &Names,
    topics: Vec<Arc<str>>,
    there: &[Arc<str>],
    probe: &Probe,
    shape: &ClusterShape,
) -> Vec<Check> {
    let resume = shape.topics.get(kafka.resume_topic.as_str()).is_some_and(Result::is_ok);
    let exactly_once = kafka.delivery == Delivery::ExactlyOnce;
    let group = if exactly_once { probe.read_group() } else { Ok(()) };
    let tried = exactly_once.then(|| probe.transactions(there, resume && group.is_ok()));
    rights::verdicts(&Facts { names, topics, shape, group, tried })
}

fn login(kafka: &Kafka, shape: &ClusterShape) -> Check {
    let brokers = match shape.nodes.len() {
        1 => "1 broker".to_owned(),
        count => format!("{count} brokers"),
    };
    let who = match (&kafka.sasl, &kafka.tls) {
        (Some(sasl), _) => format!("as {}", sasl.username),
        (None, Some(tls)) if tls.certificate_file.is_some() => "with our certificate".to_owned(),
        (None, _) => "without a user".to_owned(),
    };
    Check::ok("login", format!("the cluster lets us in, {who}; {brokers}"))
}

/// Whether a server that was configured without TLS speaks it.
async fn speaks_tls(kafka: &Kafka, servers: &[Address]) -> bool {
    if kafka.tls.is_some() {
        return false;
    }
    let Some(server) = servers.iter().find(|server| server.is_good()) else { return false };
    match reach::connect(&server.host, server.port).await {
        Ok(stream) => certificate::speaks_tls(stream, &server.host).await,
        Err(_) => false,
    }
}

/// The servers are reached, and the cluster does not let us in, or does not answer.
fn no_answer(kafka: &Kafka, names: &Names, failure: &Failure, speaks_tls: bool) -> Check {
    let detail = failure.detail.trim_end_matches('.');
    if speaks_tls {
        let hint = "the server wants TLS there: add [kafka.tls], with ca_file where its authority is your own";
        return Check::wrong("cluster", "no answer without TLS", hint);
    }
    match failure.code.class() {
        Class::Login => {
            let cure = names.cure(failure).unwrap_or_default();
            Check::wrong("login", detail.to_owned(), cure)
        }
        Class::Right => {
            let grant = names.grant(failure);
            let command = Command { tool: "kafka-acls", text: grant.kafka_acls(&names.server, names.user()) };
            Check::wrong("login", detail.to_owned(), "grant the right").with(vec![command])
        }
        _ => {
            let hint = match (&kafka.tls, &kafka.sasl) {
                (None, None) => "is this the port for clients without TLS and login? See [kafka.tls] and [kafka.sasl]",
                (None, Some(_)) => "is this the port for clients that log in without TLS? Most want [kafka.tls] too",
                (Some(_), None) => "does it want a login ([kafka.sasl]), or a certificate of ours (certificate_file)?",
                (Some(_), Some(_)) => "is this the port for clients that log in? Are all brokers up?",
            };
            Check::wrong("cluster", detail.to_owned(), hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;
    use crate::config::{Environment, defaults};
    use crate::forwarder::outcome::{Call, Code};

    /// Promise 9: a cluster that does not let us in says why, with what to look at.
    #[test]
    fn no_answers() {
        let mut kafka =
            defaults(&Environment::of("/etc/meterferry", [("STATE_DIRECTORY", "/var/lib/meterferry")])).kafka;
        kafka.bootstrap_servers = vec!["k:9092".into()];
        let names = forwarder::names(&kafka, "pi-1");
        let of = |code, detail: &str, tls| {
            let failure = Failure { call: Call::Topics, code, topic: None, detail: detail.into() };
            no_answer(&kafka, &names, &failure, tls)
        };
        let checks = vec![
            of(Code::OperationTimedOut, "no answer within 10 s", false),
            of(Code::BrokerTransportFailure, "Disconnected", true),
            of(Code::Authentication, "SASL authentication error: Authentication failed.", false),
            of(Code::SSL, "SSL handshake failed", false),
            of(Code::UnsupportedSASLMechanism, "the broker does not offer PLAIN", false),
            of(Code::ClusterAuthorizationFailed, "Cluster authorization failed", false),
        ];
        insta::assert_snapshot!(shown(checks));
    }

    /// Promise 9: without a cluster nothing of it is tried, and where to name it is said.
    #[tokio::test]
    async fn without_servers() {
        let settings = defaults(&Environment::of("/etc/meterferry", [("STATE_DIRECTORY", "/var/lib/meterferry")]));
        insta::assert_snapshot!(shown(look(&settings, "pi-1", 0).await));
    }
}
