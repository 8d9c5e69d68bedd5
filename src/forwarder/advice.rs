//! What a person is told to do about a failure: the cure, as a command where there is one. Pure.

use crate::forwarder::cluster::Failure;
use crate::forwarder::grant::{Grant, Resource};
use crate::forwarder::outcome::{Call, Class, Code};

/// The names that stand in the advice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// First of the bootstrap servers.
    pub server: String,
    /// The SASL user; none: the principal is whatever the broker makes of the connection.
    pub user: Option<String>,
    pub agent_id: String,
    pub topic: String,
    pub resume_topic: String,
    pub transactional: bool,
    pub partitions: i32,
    pub replication: i32,
}

impl Names {
    /// What to do about `failure`; none where time alone may cure it.
    pub fn cure(&self, failure: &Failure) -> Option<String> {
        match failure.code.class() {
            Class::Topic => Some(self.topic(failure)),
            Class::Right => Some(self.right(failure)),
            Class::Login => Some(login(failure.code).to_owned()),
            Class::Unsupported => Some(self.unsupported(failure)),
            Class::Timestamp => Some(self.timestamp(failure)),
            Class::Setting | Class::Record => Some(setting(failure)),
            Class::Transient if failure.call == Call::Init && failure.code == Code::OperationTimedOut => Some(
                "the broker answers but not its transaction coordinator: on a cluster of fewer than three brokers set \
                 transaction.state.log.replication.factor and transaction.state.log.min.isr to 1 before its first start"
                    .to_owned(),
            ),
            Class::Transient | Class::Fenced | Class::Unexpected => None,
        }
    }

    fn subject<'a>(&'a self, failure: &'a Failure) -> &'a str {
        match (&failure.topic, failure.call) {
            (Some(topic), _) => topic,
            (None, Call::WriteResumePoint | Call::ReadResumePoint) => &self.resume_topic,
            (None, _) => &self.topic,
        }
    }

    fn topic(&self, failure: &Failure) -> String {
        let topic = self.subject(failure);
        if failure.code == Code::InvalidTopic {
            return format!(
                "Kafka takes no topic of the name {topic:?}: letters, digits, '.', '_' and '-' only, at most 249, and no name \
                 that differs from another topic's only in '.' and '_'"
            );
        }
        let partitions = if topic == self.resume_topic { 1 } else { self.partitions };
        let replication =
            if self.replication > 0 { format!(" --replication-factor {}", self.replication) } else { String::new() };
        format!(
            "make the topic, or set kafka.create_topics = true: kafka-topics.sh --bootstrap-server {} --create --topic {topic} \
             --partitions {partitions}{replication}",
            self.server
        )
    }

    fn right(&self, failure: &Failure) -> String {
        let user = self.user();
        format!("grant the right: {}", self.grant(failure).kafka_acls(&self.server, user))
    }

    /// Whom rights are granted to.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or("NAME")
    }

    /// The right that is missing where a failure is of [`Class::Right`].
    pub fn grant(&self, failure: &Failure) -> Grant {
        let prefix = format!("meterferry.{}.", self.agent_id);
        match failure.code {
            Code::TopicAuthorizationFailed => {
                let topic = self.subject(failure);
                let operation = match failure.call {
                    Call::CreateTopic => "Create",
                    _ if topic == self.resume_topic => "Read",
                    _ => "Write",
                };
                Grant { operation, resource: Resource::Topic(topic.to_owned()) }
            }
            Code::GroupAuthorizationFailed => Grant { operation: "Read", resource: Resource::Groups(prefix) },
            Code::TransactionalIdAuthorizationFailed => {
                Grant { operation: "Write", resource: Resource::TransactionalIds(prefix) }
            }
            _ if failure.call == Call::CreateTopic => Grant { operation: "Create", resource: Resource::Cluster },
            _ => Grant { operation: "IdempotentWrite", resource: Resource::Cluster },
        }
    }

    fn timestamp(&self, failure: &Failure) -> String {
        format!(
            "nothing is discarded. Is this machine's clock right, and the broker's? If the topic has \
             message.timestamp.before.max.ms, set kafka.timestamp_before_max to it, or let the agent read it: kafka-acls.sh \
             --bootstrap-server {} --add --allow-principal User:{} --operation DescribeConfigs --topic {}",
            self.server,
            self.user.as_deref().unwrap_or("NAME"),
            self.subject(failure)
        )
    }

    fn unsupported(&self, failure: &Failure) -> String {
        match failure.code {
            Code::UnsupportedCompressionType | Code::BadCompression => {
                "the broker does not know this compression: set kafka.compression to another one".to_owned()
            }
            _ if self.transactional => "this Kafka service offers no transactions: use one that does, or set kafka.delivery = \
                 \"at-least-once\" and let consumers drop repeats by ce_id"
                .to_owned(),
            _ => "this Kafka service does not offer what kafka.delivery = \"at-least-once\" needs: try kafka.idempotence = false"
                .to_owned(),
        }
    }
}

fn login(code: Code) -> &'static str {
    match code {
        Code::SSL => {
            "look at [kafka.tls]: does ca_file hold the authority that signed the broker's certificate, and is the server's name in it?"
        }
        Code::UnsupportedSASLMechanism => "look at kafka.sasl.mechanism: the broker offers others",
        _ => "look at [kafka.sasl] and [kafka.tls]: the broker refuses the login",
    }
}

fn setting(failure: &Failure) -> String {
    match (failure.code, failure.call) {
        (Code::InvalidTransactionTimeout, _) => {
            "kafka.transaction_timeout is above the broker's transaction.max.timeout.ms".to_owned()
        }
        (code, Call::Produce) if code.class() == Class::Record => format!(
            "not even the record that says why a sequence is missing is taken, which has about a kilobyte: look at \
             max.message.bytes of topic {}, and whether the broker takes only records of a schema there",
            failure.topic.as_deref().unwrap_or("kafka.topic")
        ),
        (_, Call::Configure) => "look at [kafka.properties] and [kafka.tls]; readings are kept meanwhile".to_owned(),
        (Code::InvalidReplicationFactor, _) => {
            "kafka.replication is more than there are brokers: lower it, or make the topic by hand".to_owned()
        }
        (Code::PolicyViolation, Call::CreateTopic) => {
            "a policy of the cluster forbids the topic as it is configured: change kafka.partitions or kafka.replication, or \
             make it by hand"
                .to_owned()
        }
        _ => "look at [kafka] and at the broker's configuration".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            server: "kafka:9092".into(),
            user: Some("house-7".into()),
            agent_id: "pi-1".into(),
            topic: "sma-kafka".into(),
            resume_topic: "meterferry-resume".into(),
            transactional: true,
            partitions: 3,
            replication: -1,
        }
    }

    fn cure(call: Call, code: Code, topic: Option<&str>) -> String {
        let failure = Failure { call, code, topic: topic.map(Into::into), detail: String::new() };
        names().cure(&failure).unwrap_or_default()
    }

    /// Promise 5: each missing right is named by the command that grants it.
    #[test]
    fn missing_rights_by_name() {
        let acl = "grant the right: kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal User:house-7 ";
        let cases = [
            (Call::Topics, Code::TopicAuthorizationFailed, Some("meters"), "--operation Write --topic meters"),
            (
                Call::Topics,
                Code::TopicAuthorizationFailed,
                Some("meterferry-resume"),
                "--operation Read --topic meterferry-resume",
            ),
            (
                Call::WriteResumePoint,
                Code::TopicAuthorizationFailed,
                None,
                "--operation Read --topic meterferry-resume",
            ),
            (
                Call::ReadResumePoint,
                Code::GroupAuthorizationFailed,
                None,
                "--operation Read --group meterferry.pi-1. --resource-pattern-type prefixed",
            ),
            (
                Call::Init,
                Code::TransactionalIdAuthorizationFailed,
                None,
                "--operation Write --transactional-id meterferry.pi-1. --resource-pattern-type prefixed",
            ),
            (Call::Produce, Code::ClusterAuthorizationFailed, None, "--operation IdempotentWrite --cluster"),
        ];
        for (call, code, topic, grant) in cases {
            assert_eq!(cure(call, code, topic), format!("{acl}{grant}"));
        }
    }

    /// Promise 5: a missing topic is named by the command that makes it; a service without transactions by the cure.
    #[test]
    fn missing_topics_and_transactions() {
        assert_eq!(
            cure(Call::Topics, Code::UnknownTopicOrPartition, Some("meters")),
            "make the topic, or set kafka.create_topics = true: kafka-topics.sh --bootstrap-server kafka:9092 --create --topic \
             meters --partitions 3"
        );
        assert!(cure(Call::Init, Code::UnsupportedFeature, None).contains("kafka.delivery = \"at-least-once\""));
        assert!(cure(Call::Init, Code::OperationTimedOut, None).contains("transaction.state.log.replication.factor"));
        assert_eq!(cure(Call::Commit, Code::NetworkException, None), "");
    }
}
