//! The rights that the agent needs, as they were tried. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::{Check, Command};
use super::topic::with_command;
use crate::forwarder::advice::Names;
use crate::forwarder::cluster::Failure;
use crate::forwarder::grant::{Grant, Resource};
use crate::forwarder::kafka::probe::{ClusterShape, Tried};
use crate::forwarder::outcome::{Class, Code};

/// What was tried.
#[derive(Debug)]
pub struct Facts<'a> {
    pub names: &'a Names,
    /// Topics that readings go to.
    pub topics: Vec<Arc<str>>,
    pub shape: &'a ClusterShape,
    /// Whether the doctor's group could be read.
    pub group: Result<(), Failure>,
    /// None: not in `exactly-once`.
    pub tried: Option<Tried>,
}

/// Each right with what became of it.
pub fn verdicts(facts: &Facts<'_>) -> Vec<Check> {
    let Some(tried) = &facts.tried else { return without_transactions(facts) };
    let mut checks = vec![transactional_id(facts, tried)];
    let produced: BTreeMap<_, _> = tried.produced.iter().map(|(topic, outcome)| (Arc::clone(topic), outcome)).collect();
    for topic in &facts.topics {
        checks.push(write(facts, tried, topic, produced.get(topic).copied()));
    }
    checks.push(group(facts, tried));
    checks.push(resume_topic(facts, tried));
    checks
}

/// Without transactions what is sent stays: nothing is tried, and only a topic that is hidden shows a missing right.
fn without_transactions(facts: &Facts<'_>) -> Vec<Check> {
    let one = |topic: &Arc<str>| match facts.shape.topics.get(topic) {
        Some(Err(failure)) if failure.code.class() == Class::Right => missing(facts, &failure.clone()),
        _ => {
            let grant = Grant { operation: "Write", resource: Resource::Topic(topic.to_string()) };
            let why = "not tried: without transactions (kafka.delivery) a record that was sent would stay";
            Check::skipped(name(&grant), why)
        }
    };
    facts.topics.iter().map(one).collect()
}

fn name(grant: &Grant) -> String {
    format!("right to {}", grant.words())
}

fn missing(facts: &Facts<'_>, failure: &Failure) -> Check {
    let grant = facts.names.grant(failure);
    let (server, user) = (&facts.names.server, facts.names.user());
    let who = facts.names.user.as_ref().map_or("this client".to_owned(), |user| format!("User:{user}"));
    let hint = match &facts.names.user {
        Some(_) => "an administrator grants it, with one of these:",
        None => "an administrator grants it, with one of these; NAME is what the broker makes of this client:",
    };
    Check::wrong(name(&grant), format!("{who} does not have it"), hint).with(commands(&grant, server, user))
}

/// What gives the right, in the words of each tool.
pub fn commands(grant: &Grant, server: &str, user: &str) -> Vec<Command> {
    vec![
        Command { tool: "kafka-acls", text: grant.kafka_acls(server, user) },
        Command { tool: "rpk", text: grant.rpk(server, user) },
        Command { tool: "Terraform (Mongey/kafka)", text: grant.terraform(user) },
    ]
}

/// A call that failed for another reason than a right.
fn failed(facts: &Facts<'_>, name: String, failure: &Failure) -> Check {
    let text = failure.to_string();
    match facts.names.cure(failure) {
        Some(cure) => with_command(Check::wrong(name, text, ""), &cure),
        None => Check::wrong(name, text, "try again; if it stays so, look at the brokers' log"),
    }
}

fn is_right(failure: &Failure) -> bool {
    failure.code.class() == Class::Right
}

fn transactional_id(facts: &Facts<'_>, tried: &Tried) -> Check {
    let prefix = format!("meterferry.{}.", facts.names.agent_id);
    let name = name(&Grant { operation: "Write", resource: Resource::TransactionalIds(prefix.clone()) });
    match &tried.init {
        Ok(()) => Check::ok(name, format!("transactions were initialised as {prefix}doctor")),
        Err(failure) if is_right(failure) => missing(facts, failure),
        Err(failure) => failed(facts, "transactions".to_owned(), failure),
    }
}

fn write(facts: &Facts<'_>, tried: &Tried, topic: &Arc<str>, produced: Option<&Result<(), Failure>>) -> Check {
    let name = name(&Grant { operation: "Write", resource: Resource::Topic(topic.to_string()) });
    match (facts.shape.topics.get(topic), produced) {
        (Some(Err(failure)), _) if is_right(failure) => missing(facts, failure),
        (Some(Err(_)) | None, _) => Check::skipped(name, "the topic is not there"),
        (Some(Ok(_)), Some(Ok(()))) => Check::ok(name, "a record was taken, and its transaction aborted"),
        (Some(Ok(_)), Some(Err(failure))) if is_right(failure) => missing(facts, failure),
        (Some(Ok(_)), Some(Err(failure))) => failed(facts, name, failure),
        (Some(Ok(_)), None) if tried.init.is_err() => Check::skipped(name, "no transaction could be begun"),
        (Some(Ok(_)), None) => Check::skipped(name, "an earlier transaction could not be aborted"),
    }
}

fn group(facts: &Facts<'_>, tried: &Tried) -> Check {
    let prefix = format!("meterferry.{}.", facts.names.agent_id);
    let name = name(&Grant { operation: "Read", resource: Resource::Groups(prefix.clone()) });
    match (&facts.group, &tried.resume_point) {
        (Err(failure), _) if failure.code == Code::GroupAuthorizationFailed => missing(facts, failure),
        (_, Some(Err(failure))) if failure.code == Code::GroupAuthorizationFailed => missing(facts, failure),
        // The topic of the offsets, which has a line of its own.
        (Err(failure), _) if is_right(failure) => Check::skipped(name, "the resume topic is hidden"),
        (Err(failure), _) => failed(facts, name, failure),
        (Ok(()), Some(Ok(()))) => {
            Check::ok(name, format!("the resume point of {prefix}doctor was written, and aborted"))
        }
        (Ok(()), _) => Check::skipped(name, format!("{prefix}doctor may be read; to write it was not tried")),
    }
}

fn resume_topic(facts: &Facts<'_>, tried: &Tried) -> Check {
    let topic = facts.names.resume_topic.as_str();
    let name = name(&Grant { operation: "Read", resource: Resource::Topic(topic.to_owned()) });
    match (facts.shape.topics.get(topic), &tried.resume_point) {
        (Some(Err(failure)), _) if is_right(failure) => missing(facts, failure),
        (Some(Err(_)) | None, _) => Check::skipped(name, "the topic is not there"),
        (Some(Ok(_)), Some(Ok(()))) => Check::ok(name, "the resume point was written, and aborted"),
        (Some(Ok(_)), Some(Err(failure))) if failure.code == Code::TopicAuthorizationFailed => missing(facts, failure),
        (Some(Ok(_)), Some(Err(failure))) if is_right(failure) => {
            Check::skipped(name, "the right on the group is missing")
        }
        (Some(Ok(_)), Some(Err(failure))) => failed(facts, name, failure),
        (Some(Ok(_)), None) if tried.init.is_err() => Check::skipped(name, "no transaction could be begun"),
        (Some(Ok(_)), None) if facts.group.is_err() => Check::skipped(name, "the right on the group is missing"),
        (Some(Ok(_)), None) => Check::skipped(name, "an earlier transaction could not be aborted"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;
    use crate::forwarder::kafka::probe::TopicShape;
    use crate::forwarder::outcome::Call;

    fn names() -> Names {
        Names {
            server: "k:9092".into(),
            user: Some("house-7".into()),
            agent_id: "pi-1".into(),
            topic: "sma-kafka".into(),
            resume_topic: "meterferry-resume".into(),
            transactional: true,
            partitions: 1,
            replication: -1,
        }
    }

    fn failure(call: Call, code: Code, topic: Option<&str>) -> Failure {
        Failure { call, code, topic: topic.map(Into::into), detail: "Broker: refused".into() }
    }

    /// What is said where everything goes well but for what `change` breaks.
    fn said(change: impl FnOnce(&mut ClusterShape, &mut Result<(), Failure>, &mut Option<Tried>)) -> String {
        let there = || Ok(TopicShape { partitions: 1, replicas: 1, leaderless: 0 });
        let topics = [("sma-kafka".into(), there()), ("meterferry-resume".into(), there())].into();
        let mut shape = ClusterShape { nodes: Vec::new(), topics, unanswered: None };
        let mut group = Ok(());
        let produced = vec![("sma-kafka".into(), Ok(()))];
        let mut tried = Some(Tried { init: Ok(()), produced, resume_point: Some(Ok(())) });
        change(&mut shape, &mut group, &mut tried);
        let topics = vec!["sma-kafka".into()];
        shown(verdicts(&Facts { names: &names(), topics, shape: &shape, group, tried }))
    }

    /// Promise 5: each right that is missing is named, it alone, with the words that grant it.
    #[test]
    fn each_missing_right_alone() {
        let data = || failure(Call::Produce, Code::TopicAuthorizationFailed, Some("sma-kafka"));
        let resume = || failure(Call::WriteResumePoint, Code::TopicAuthorizationFailed, None);
        let cases = [
            said(|_, _, _| {}),
            said(|_, _, tried| tried.as_mut().expect("tried").produced[0].1 = Err(data())),
            said(|shape, _, tried| {
                shape.topics.insert(
                    "sma-kafka".into(),
                    Err(failure(Call::Topics, Code::TopicAuthorizationFailed, Some("sma-kafka"))),
                );
                tried.as_mut().expect("tried").produced.clear();
            }),
            said(|_, _, tried| tried.as_mut().expect("tried").resume_point = Some(Err(resume()))),
            said(|_, group, tried| {
                *group = Err(failure(Call::ReadResumePoint, Code::GroupAuthorizationFailed, None));
                tried.as_mut().expect("tried").resume_point = None;
            }),
            said(|_, _, tried| {
                let init = Err(failure(Call::Init, Code::TransactionalIdAuthorizationFailed, None));
                *tried = Some(Tried { init, produced: Vec::new(), resume_point: None });
            }),
        ];
        for (case, text) in cases.iter().enumerate() {
            assert_eq!(text.matches("  wrong   right").count(), usize::from(case > 0), "{text}");
        }
        insta::assert_snapshot!(cases.join("\n"));
    }

    /// Promise 5: what is no matter of rights has its own cure, and what was not tried is not called good.
    #[test]
    fn other_failures() {
        let cases = [
            said(|_, _, tried| *tried = None),
            said(|_, _, tried| {
                let init = Err(failure(Call::Init, Code::UnsupportedFeature, None));
                *tried = Some(Tried { init, produced: Vec::new(), resume_point: None });
            }),
            said(|_, _, tried| {
                let init = Err(failure(Call::Init, Code::InvalidTransactionTimeout, None));
                *tried = Some(Tried { init, produced: Vec::new(), resume_point: None });
            }),
            said(|_, _, tried| {
                let tried = tried.as_mut().expect("tried");
                tried.produced[0].1 = Err(failure(Call::Produce, Code::NotEnoughReplicas, Some("sma-kafka")));
                tried.resume_point = None;
            }),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }
}
