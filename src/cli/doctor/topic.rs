//! A topic: is it there, and does it keep what will be sent. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{Check, Command};
use super::rights;
use crate::cli::units::{self, bytes, counted};
use crate::config::settings::{DEVICE, Settings};
use crate::forwarder::advice::Names;
use crate::forwarder::cluster::Failure;
use crate::forwarder::grant::{Grant, Resource};
use crate::forwarder::kafka::probe::TopicShape;
use crate::forwarder::outcome::{Class, Code};

/// Bytes of a record besides its reading: key, headers and the batch around it.
const OVERHEAD: u64 = 2 * 1024;

/// Below this a consumer that is away over a weekend misses something.
const SHORT_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Kafka's own default for offsets of a group that is idle.
const OFFSETS_RETENTION: u64 = 7 * 24 * 60;

/// 7 days as "7 d", not as "7 d 0 h".
fn duration(time: Duration) -> String {
    let shown = units::duration(time);
    [" 0 h", " 0 min", " 0 s"].iter().find_map(|zero| shown.strip_suffix(zero)).unwrap_or(&shown).to_owned()
}

/// Whether a topic is there; none where that cannot be known for want of a right, which is said with the rights.
pub fn presence(
    settings: &Settings,
    names: &Names,
    topic: &str,
    found: &Result<TopicShape, Failure>,
    nodes: usize,
) -> Option<Check> {
    let name = format!("topic {topic}");
    let shape = match found {
        Ok(shape) => shape,
        Err(failure) if failure.code.class() == Class::Right => return None,
        Err(failure) if failure.code.class() == Class::Topic && settings.kafka.create_topics => {
            return Some(Check::ok(name, "it does not exist; the agent makes it (kafka.create_topics)"));
        }
        Err(failure) => {
            let cure = names.cure(failure).unwrap_or_else(|| "look at the brokers' log".to_owned());
            let missing = [Code::UnknownTopicOrPartition, Code::UnknownTopic].contains(&failure.code);
            let message = if missing { "it does not exist".to_owned() } else { failure.detail.clone() };
            return Some(with_command(Check::wrong(name, message, ""), &cure));
        }
    };
    let (partitions, replicas) = (counted(shape.partitions as u64, "partition"), shape.replicas);
    if shape.leaderless > 0 {
        let message = format!("{} of {partitions} have no leader: nothing is taken there", shape.leaderless);
        return Some(Check::wrong(name, message, "are all brokers up? Readings are kept meanwhile"));
    }
    if replicas < 2 && nodes > 1 {
        let message =
            format!("{partitions} with one replica, though there are {nodes} brokers: one dead disk loses it");
        return Some(Check::warning(name, message, "give it more replicas: kafka-reassign-partitions.sh"));
    }
    let replicas = counted(replicas as u64, "replica");
    Some(Check::ok(name, format!("{partitions}, {replicas}")))
}

/// Topics that are known when a device sends: what lets the agent write to all of them.
pub fn of_devices(settings: &Settings, names: &Names, template: &str) -> Check {
    let made = if settings.kafka.create_topics {
        "each is made when its device sends first (kafka.create_topics)"
    } else {
        "each has to be there when its device sends first (kafka.create_topics is false); until then its readings wait"
    };
    let check = Check::skipped(format!("topics {template}"), format!("one a device; {made}"));
    let prefix = template.split(DEVICE).next().unwrap_or_default();
    if prefix.is_empty() {
        let hint = "without letters before {device} no right covers them all: begin the name with some".to_owned();
        return Check { hint: Some(hint), ..check };
    }
    let grant = Grant { operation: "Write", resource: Resource::Topics(prefix.to_owned()) };
    let (server, user) = (&names.server, names.user());
    let mut commands = rights::commands(&grant, server, user);
    if settings.kafka.create_topics {
        let create = Grant { operation: "Create", ..grant };
        commands.push(Command { tool: "kafka-acls, to make them", text: create.kafka_acls(server, user) });
    }
    let hint = "where the cluster asks for rights, one covers them all:".to_owned();
    Check { hint: Some(hint), ..check }.with(commands)
}

/// A cure that ends in a command has it on a line of its own.
pub fn with_command(check: Check, cure: &str) -> Check {
    let tools = ["kafka-topics.sh ", "kafka-acls.sh "];
    match tools.iter().find_map(|tool| cure.split_once(&format!(": {tool}")).map(|(text, rest)| (text, tool, rest))) {
        None => Check { hint: Some(cure.to_owned()), ..check },
        Some((text, tool, rest)) => {
            let command = Command { tool: tool.trim_end().trim_end_matches(".sh"), text: format!("{tool}{rest}") };
            Check { hint: Some(text.to_owned()), ..check }.with(vec![command])
        }
    }
}

/// What a data topic is configured to, against what will be sent.
pub fn configuration(
    settings: &Settings,
    names: &Names,
    topic: &str,
    config: &Result<BTreeMap<String, String>, Failure>,
    replicas: usize,
) -> Vec<Check> {
    let config = match config {
        Ok(config) => config,
        Err(failure) => {
            let name = format!("settings of {topic}");
            let believed = duration(settings.kafka.retention);
            if failure.code.class() == Class::Right {
                let grant = Grant { operation: "DescribeConfigs", resource: Resource::Topic(topic.to_owned()) };
                let message = format!("they may not be read; kafka.retention ({believed}) is believed");
                let check = Check::skipped(name, message);
                let hint = Some("to have them checked, and followed by the agent, grant the right".to_owned());
                let text = grant.kafka_acls(&names.server, names.user());
                return vec![Check { hint, ..check }.with(vec![Command { tool: "kafka-acls", text }])];
            }
            return vec![Check::skipped(name, format!("no answer: {}", failure.detail))];
        }
    };
    let text = |key: &str| config.get(key).map(String::as_str);
    let number = |key: &str| text(key).and_then(|value| value.parse::<i64>().ok());
    let set = |key: &str, value: &str| {
        let text = format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {topic} --add-config {key}={value}",
            names.server
        );
        vec![Command { tool: "kafka-configs", text }]
    };
    let mut checks = vec![
        retention(topic, number("retention.ms")).with_if(|| set("retention.ms", "604800000")),
        size(settings, topic, number("max.message.bytes")).with_if(|| {
            set("max.message.bytes", &(settings.queue.max_reading_size as u64 + OVERHEAD).max(1_048_588).to_string())
        }),
        cleanup(topic, text("cleanup.policy")).with_if(|| set("cleanup.policy", "delete")),
        timestamps(topic, text("message.timestamp.type"), number("message.timestamp.before.max.ms"))
            .with_if(|| set("message.timestamp.type", "CreateTime")),
    ];
    checks.push(in_sync(topic, number("min.insync.replicas"), replicas));
    checks
}

impl Check {
    /// With commands where it is not well.
    fn with_if(self, commands: impl FnOnce() -> Vec<Command>) -> Self {
        if self.hint.is_some() { self.with(commands()) } else { self }
    }
}

fn retention(topic: &str, ms: Option<i64>) -> Check {
    let name = format!("retention of {topic}");
    let Some(ms) = ms else { return Check::skipped(name, "retention.ms was not told") };
    let Ok(ms) = u64::try_from(ms) else { return Check::ok(name, "without end") };
    let kept = Duration::from_millis(ms);
    let late = format!(
        "what waited longer than {} gets a later timestamp, so that it is not deleted on arrival",
        duration(kept / 2)
    );
    if kept < SHORT_RETENTION {
        let message = format!("{}: a consumer that is away for longer misses readings; {late}", duration(kept));
        return Check::warning(name, message, "keep them longer");
    }
    Check::ok(name, format!("{}; {late}", duration(kept)))
}

fn size(settings: &Settings, topic: &str, most: Option<i64>) -> Check {
    let name = format!("largest record of {topic}");
    let Some(most) = most.and_then(|most| u64::try_from(most).ok()) else {
        return Check::skipped(name, "max.message.bytes was not told");
    };
    let reading = settings.queue.max_reading_size as u64;
    if most < reading + OVERHEAD {
        let message = format!(
            "{}, and a reading may have {} (queue.max_reading_size): larger ones become dead letters",
            bytes(most),
            bytes(reading)
        );
        return Check::warning(name, message, "raise max.message.bytes, or lower queue.max_reading_size");
    }
    Check::ok(name, format!("{}; a reading has {} at most", bytes(most), bytes(reading)))
}

fn cleanup(topic: &str, policy: Option<&str>) -> Check {
    let name = format!("cleanup of {topic}");
    match policy {
        None => Check::skipped(name, "cleanup.policy was not told"),
        Some(policy) if policy.contains("compact") => Check::warning(
            name,
            format!("cleanup.policy={policy} keeps only the last reading of each device"),
            "let it delete by age instead",
        ),
        Some(policy) => Check::ok(name, policy),
    }
}

fn timestamps(topic: &str, kind: Option<&str>, before_ms: Option<i64>) -> Check {
    let name = format!("timestamps of {topic}");
    match kind {
        None => Check::skipped(name, "message.timestamp.type was not told"),
        Some("LogAppendTime") => Check::warning(
            name,
            "LogAppendTime: records bear the time of their arrival; only the header ce_time says when it was measured",
            "let the agent's timestamps stand",
        ),
        Some(kind) => {
            let limit = before_ms.filter(|ms| *ms < i64::MAX).and_then(|ms| u64::try_from(ms).ok());
            let limit = limit.map_or(String::new(), |ms| {
                format!(
                    "; records older than {} would be refused, so they get a later one",
                    duration(Duration::from_millis(ms))
                )
            });
            Check::ok(name, format!("{kind}{limit}"))
        }
    }
}

fn in_sync(topic: &str, least: Option<i64>, replicas: usize) -> Check {
    let name = format!("replicas of {topic}");
    let Some(least) = least.and_then(|least| usize::try_from(least).ok()) else {
        return Check::skipped(name, "min.insync.replicas was not told");
    };
    let what = format!("min.insync.replicas={least} with {}", counted(replicas as u64, "replica"));
    if least > replicas {
        return Check::wrong(
            name,
            format!("{what}: nothing can be written"),
            "lower min.insync.replicas, or add replicas",
        );
    }
    if replicas > 1 && least == replicas {
        return Check::warning(
            name,
            format!("{what}: one broker that is down stops everything"),
            "one less, or one replica more; three replicas and 2 are usual",
        );
    }
    if replicas > 1 && least < 2 {
        let message = format!("{what}: what Kafka has taken may be on one broker alone, and die with it");
        return Check::warning(name, message, "set min.insync.replicas=2");
    }
    Check::ok(name, what)
}

/// How long the cluster remembers the resume point of an agent that is silent.
pub fn offsets(config: &Result<BTreeMap<String, String>, Failure>) -> Check {
    const NAME: &str = "resume point kept";
    let key = "offsets.retention.minutes";
    let config = match config {
        Ok(config) => config,
        Err(failure) if failure.code.class() == Class::Right => {
            return Check::skipped(NAME, format!("the broker's {key} may not be read; Kafka's default is 7 days"));
        }
        Err(failure) => return Check::skipped(NAME, format!("no answer: {}", failure.detail)),
    };
    let Some(minutes) = config.get(key).and_then(|text| text.parse::<u64>().ok()) else {
        return Check::skipped(NAME, format!("{key} was not told"));
    };
    let kept = duration(Duration::from_secs(minutes.saturating_mul(60)));
    let message = format!("{kept} after the last reading ({key}={minutes})");
    if minutes < OFFSETS_RETENTION {
        let hint = format!("after a longer silence a batch may be repeated: set {key}=10080 or more on the brokers");
        return Check::warning(NAME, message, hint);
    }
    Check::ok(NAME, message)
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;
    use crate::config::{Environment, defaults};
    use crate::forwarder;
    use crate::forwarder::outcome::Call;

    fn settings() -> Settings {
        defaults(&Environment::of("/etc/meterferry", [("STATE_DIRECTORY", "/var/lib/meterferry")]))
    }

    fn names(settings: &Settings) -> Names {
        let mut kafka = settings.kafka.clone();
        kafka.bootstrap_servers = vec!["k:9092".into()];
        forwarder::names(&kafka, "pi-1")
    }

    fn failure(code: Code) -> Failure {
        Failure { call: Call::Topics, code, topic: Some("sma-kafka".into()), detail: format!("{code:?}") }
    }

    const WELL: [(&str, &str); 6] = [
        ("retention.ms", "604800000"),
        ("max.message.bytes", "1048588"),
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "CreateTime"),
        ("message.timestamp.before.max.ms", "9223372036854775807"),
        ("min.insync.replicas", "2"),
    ];

    fn configured(changes: &[(&str, &str)], replicas: usize) -> String {
        let settings = settings();
        let all = WELL.iter().chain(changes).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        shown(configuration(&settings, &names(&settings), "sma-kafka", &Ok(all.collect()), replicas))
    }

    /// Promise 9: a topic that is there, one that is not, one that nobody leads.
    #[test]
    fn is_it_there() {
        let settings = settings();
        let names = names(&settings);
        let shape = |partitions, replicas, leaderless| Ok(TopicShape { partitions, replicas, leaderless });
        let of = |settings: &Settings, found, nodes| presence(settings, &names, "sma-kafka", &found, nodes);
        let mut making = settings.clone();
        making.kafka.create_topics = true;
        let missing = || Err(failure(Code::UnknownTopicOrPartition));
        let checks = [
            of(&settings, shape(6, 3, 0), 3),
            of(&settings, shape(1, 1, 0), 1),
            of(&settings, shape(1, 1, 0), 3),
            of(&settings, shape(6, 3, 2), 3),
            of(&settings, missing(), 3),
            of(&making, missing(), 3),
            of(&settings, Err(failure(Code::TopicAuthorizationFailed)), 3),
            of(&settings, Err(failure(Code::LeaderNotAvailable)), 3),
        ];
        insta::assert_snapshot!(shown(checks.into_iter().flatten().collect()));
    }

    /// Promise 9: a topic a device is looked at when it is used; the right to all of them can be given before.
    #[test]
    fn topics_of_devices() {
        let settings = settings();
        let names = names(&settings);
        let mut making = settings.clone();
        making.kafka.create_topics = true;
        let checks = [
            of_devices(&settings, &names, "meters.sma.{device}"),
            of_devices(&making, &names, "meters.sma.{device}"),
            of_devices(&settings, &names, "{device}"),
        ];
        insta::assert_snapshot!(shown(checks.into()));
    }

    /// Promise 8: what the topic would do with what is sent, before it does it.
    #[test]
    fn what_it_keeps() {
        let settings = settings();
        let refused = Err(failure(Code::TopicAuthorizationFailed));
        let cases = [
            configured(&[], 3),
            configured(&[("retention.ms", "3600000")], 3),
            configured(&[("retention.ms", "-1"), ("message.timestamp.before.max.ms", "86400000")], 3),
            configured(&[("max.message.bytes", "1000")], 3),
            configured(&[("cleanup.policy", "compact,delete")], 3),
            configured(&[("message.timestamp.type", "LogAppendTime")], 3),
            configured(&[], 1),
            configured(&[], 2),
            configured(&[("min.insync.replicas", "1")], 3),
            shown(configuration(&settings, &names(&settings), "sma-kafka", &refused, 1)),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }

    /// Promise 3: how long an unknown outcome can be cleared up.
    #[test]
    fn how_long_the_resume_point_is_kept() {
        let of = |minutes: &str| offsets(&Ok([("offsets.retention.minutes".to_owned(), minutes.to_owned())].into()));
        let checks = vec![
            of("10080"),
            of("1440"),
            offsets(&Err(failure(Code::TopicAuthorizationFailed))),
            offsets(&Err(failure(Code::OperationTimedOut))),
        ];
        insta::assert_snapshot!(shown(checks));
    }
}
