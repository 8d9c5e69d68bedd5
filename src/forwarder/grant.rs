//! A right in Kafka, and the words that grant it in the tools people have. Pure.

use std::fmt::Write as _;

/// One right on one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// As Kafka writes it: `Read`, `Write`, `Create`, `DescribeConfigs`, `IdempotentWrite`.
    pub operation: &'static str,
    pub resource: Resource,
}

/// What a right is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Topic(String),
    /// Every topic whose name begins so.
    Topics(String),
    /// Every group whose name begins so.
    Groups(String),
    /// Every transactional id that begins so.
    TransactionalIds(String),
    Cluster,
}

impl Resource {
    /// As `kafka-acls.sh` and `rpk` both take it.
    fn options(&self) -> String {
        match self {
            Self::Topic(topic) => format!("--topic {topic}"),
            Self::Topics(prefix) => format!("--topic {prefix} --resource-pattern-type prefixed"),
            Self::Groups(prefix) => format!("--group {prefix} --resource-pattern-type prefixed"),
            Self::TransactionalIds(prefix) => format!("--transactional-id {prefix} --resource-pattern-type prefixed"),
            Self::Cluster => "--cluster".to_owned(),
        }
    }
}

impl Grant {
    /// What is granted, in words.
    pub fn words(&self) -> String {
        let operation = self.operation.to_uppercase();
        match &self.resource {
            Resource::Topic(topic) => format!("{operation} on topic {topic}"),
            Resource::Topics(prefix) => format!("{operation} on topics with the prefix {prefix}"),
            Resource::Groups(prefix) => format!("{operation} on groups with the prefix {prefix}"),
            Resource::TransactionalIds(prefix) => format!("{operation} on transactional ids with the prefix {prefix}"),
            Resource::Cluster => format!("{operation} on the cluster"),
        }
    }

    /// For Kafka's own `kafka-acls.sh`.
    pub fn kafka_acls(&self, server: &str, user: &str) -> String {
        let resource = self.resource.options();
        let operation = self.operation;
        format!(
            "kafka-acls.sh --bootstrap-server {server} --add --allow-principal User:{user} --operation {operation} {resource}"
        )
    }

    /// For Redpanda's `rpk`.
    pub fn rpk(&self, server: &str, user: &str) -> String {
        let resource = self.resource.options();
        let operation = underscored(self.operation);
        format!(
            "rpk security acl create -X brokers={server} --allow-principal User:{user} --operation {operation} {resource}"
        )
    }

    /// For Terraform's provider Mongey/kafka.
    pub fn terraform(&self, user: &str) -> String {
        let (kind, name, pattern) = match &self.resource {
            Resource::Topic(topic) => ("Topic", topic.as_str(), "Literal"),
            Resource::Topics(prefix) => ("Topic", prefix.as_str(), "Prefixed"),
            Resource::Groups(prefix) => ("Group", prefix.as_str(), "Prefixed"),
            Resource::TransactionalIds(prefix) => ("TransactionalID", prefix.as_str(), "Prefixed"),
            Resource::Cluster => ("Cluster", "kafka-cluster", "Literal"),
        };
        let label = format!("meterferry_{}_{}", underscored(self.operation), kind.to_lowercase());
        let mut text = format!("resource \"kafka_acl\" \"{label}\" {{\n");
        for (key, value) in [
            ("resource_type", kind),
            ("resource_name", name),
            ("resource_pattern_type_filter", pattern),
            ("acl_principal", &format!("User:{user}")),
            ("acl_host", "*"),
            ("acl_operation", self.operation),
            ("acl_permission_type", "Allow"),
        ] {
            let _ = writeln!(text, "  {key:<28} = \"{value}\"");
        }
        text + "}"
    }
}

/// `DescribeConfigs` → `describe_configs`.
fn underscored(operation: &str) -> String {
    let mut text = String::new();
    for (at, letter) in operation.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: each right in the words of each tool.
    #[test]
    fn in_each_tools_words() {
        let prefix = "meterferry.pi-1.".to_owned();
        let grants = [
            ("Write", Resource::Topic("sma-kafka".into())),
            ("Write", Resource::Topics("meters.".into())),
            ("Read", Resource::Groups(prefix.clone())),
            ("Write", Resource::TransactionalIds(prefix)),
            ("DescribeConfigs", Resource::Cluster),
        ];
        let mut text = String::new();
        for (operation, resource) in grants {
            let grant = Grant { operation, resource };
            let _ = writeln!(text, "{}", grant.words());
            let _ = writeln!(text, "{}\n{}", grant.kafka_acls("k:9092", "house-7"), grant.rpk("k:9092", "house-7"));
            let _ = writeln!(text, "{}\n", grant.terraform("house-7"));
        }
        insta::assert_snapshot!(text);
    }
}
