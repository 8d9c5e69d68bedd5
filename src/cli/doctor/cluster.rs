//! The cluster's addresses: those in the configuration, and those that its brokers advertise. Pure but for [`reach`].

use super::certificate::{self, Judgement, NoHandshake};
use super::check::{Check, Command};
use super::reach::{self, Unreached};
use crate::config::settings::{Kafka, Tls};
use crate::config::{is_loopback, show_address};
use crate::forwarder::kafka::probe::Node;

/// What was seen at one address.
#[derive(Debug, Clone)]
pub struct Address {
    pub host: String,
    pub port: u16,
    /// With TLS, what its certificate comes to.
    pub seen: Result<Option<Result<Judgement, NoHandshake>>, Unreached>,
}

impl Address {
    /// Whether the Kafka client may get through there.
    pub fn is_good(&self) -> bool {
        match &self.seen {
            Err(_) | Ok(Some(Err(_))) => false,
            Ok(Some(Ok(judgement))) => judgement.fault.is_none(),
            Ok(None) => true,
        }
    }

    pub fn shown(&self) -> String {
        show_address(&self.host, self.port)
    }
}

/// Connects, and shakes hands where TLS is configured.
pub async fn reach(host: String, port: u16, tls: Option<Tls>, now_s: i64) -> Address {
    let seen = match reach::connect(&host, port).await {
        Err(unreached) => Err(unreached),
        Ok(stream) => Ok(match &tls {
            None => None,
            Some(tls) => Some(certificate::look(stream, &host, tls, now_s).await),
        }),
    };
    Address { host, port, seen }
}

/// The bootstrap servers: one that is reached is enough to begin with.
pub fn servers(addresses: &[Address], now_s: i64) -> Vec<Check> {
    let any = addresses.iter().any(Address::is_good);
    let mut checks = Vec::new();
    for address in addresses {
        let shown = address.shown();
        match &address.seen {
            Err(unreached) => {
                let message = format!("{shown}: {}", unreached.words());
                let cure = unreached.cure("Kafka");
                checks.push(match any {
                    true => Check::warning("server", format!("{message}; another one is reached"), cure),
                    false => Check::wrong("server", message, cure),
                });
            }
            Ok(tls) => {
                checks.push(Check::ok("server", format!("{shown} is reached")));
                checks.extend(tls.iter().map(|tls| encrypted(&shown, &address.host, tls, now_s)));
            }
        }
    }
    checks
}

fn encrypted(shown: &str, host: &str, tls: &Result<Judgement, NoHandshake>, now_s: i64) -> Check {
    match tls {
        Ok(judgement) => certificate::verdict(shown, host, "kafka.tls", judgement, now_s),
        Err(error) => certificate::no_handshake(shown, "kafka.tls", error),
    }
}

/// The addresses under which the brokers say that they are to be reached: whoever has found the cluster uses only these.
pub fn advertised(settings: &Kafka, nodes: &[(Node, Address)], servers: &[Address], now_s: i64) -> Vec<Check> {
    let from_afar = !servers.iter().any(|server| is_loopback(&server.host));
    let mut checks = Vec::new();
    for (node, address) in nodes {
        let shown = address.shown();
        let name = format!("broker {}", node.id);
        let here = is_loopback(&node.host);
        let message = match &address.seen {
            _ if here && from_afar => format!("it advertises {shown}, which is this machine, not the broker"),
            Err(unreached) => format!("it advertises {shown}: {}", unreached.words()),
            Ok(tls) => {
                checks.push(Check::ok(name, format!("it advertises {shown}, which is reached")));
                let known = servers.iter().any(|server| server.shown() == shown);
                // A certificate that is the same as that of a server above says nothing new.
                checks.extend(tls.iter().filter(|_| !known).map(|tls| encrypted(&shown, &address.host, tls, now_s)));
                continue;
            }
        };
        let hint = "every client is sent to what the broker advertises: set it on the broker to an address that reaches \
                    it from here, and restart it";
        checks.push(Check::wrong(name, message, hint).with(vec![listeners(settings, servers, node)]));
    }
    checks
}

fn listeners(settings: &Kafka, servers: &[Address], node: &Node) -> Command {
    let protocol = match (&settings.tls, &settings.sasl) {
        (None, None) => "PLAINTEXT",
        (Some(_), None) => "SSL",
        (None, Some(_)) => "SASL_PLAINTEXT",
        (Some(_), Some(_)) => "SASL_SSL",
    };
    // With one server its address is the one that was reached; of several nobody knows which is whose.
    let address = match servers {
        [only] => only.shown(),
        _ => show_address("HOST", node.port),
    };
    Command { tool: "server.properties", text: format!("advertised.listeners={protocol}://{address}") }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Fault;
    use super::super::print::shown;
    use super::*;
    use crate::config::{Environment, defaults};

    const NOW: i64 = 1_800_000_000;

    fn address(host: &str, seen: Result<Option<Fault>, Unreached>) -> Address {
        let judged = |fault| Some(Ok(Judgement { fault: Some(fault), ends: Some(NOW + 9_000_000) }));
        Address { host: host.into(), port: 9092, seen: seen.map(|fault| fault.and_then(judged)) }
    }

    fn silent() -> Unreached {
        Unreached::Silent { address: "10.0.0.9:9092".parse().expect("an address") }
    }

    fn node(id: i32, address: Address) -> (Node, Address) {
        (Node { id, host: address.host.clone(), port: address.port }, address)
    }

    /// Promise 9: one server of several is enough; none is what is wrong.
    #[test]
    fn bootstrap_servers() {
        let name = || Unreached::Name("name or service not known".into());
        let mut checks = servers(&[address("k1", Ok(None)), address("k2", Err(silent()))], NOW);
        checks.extend(servers(&[address("k1", Err(name())), address("k2", Err(silent()))], NOW));
        checks.extend(servers(&[address("k1", Ok(Some(Fault::Authority)))], NOW));
        insta::assert_snapshot!(shown(checks));
    }

    /// Promise 9: an address that only the broker itself can use is named, with what to write there.
    #[test]
    fn advertised_addresses() {
        let kafka = defaults(&Environment::of("/etc/meterferry", [("STATE_DIRECTORY", "/var/lib/meterferry")])).kafka;
        let one = [address("kafka.example.org", Ok(None))];
        let local = [address("localhost", Ok(None))];
        let of = |servers: &[Address], nodes: Vec<(Node, Address)>| advertised(&kafka, &nodes, servers, NOW);
        let mut checks = of(&one, vec![node(1, address("kafka.example.org", Ok(None)))]);
        checks.extend(of(&one, vec![node(1, address("localhost", Ok(None)))]));
        checks.extend(of(&one, vec![node(1, address("10.0.0.9", Err(silent()))), node(2, address("k2", Ok(None)))]));
        checks.extend(of(&local, vec![node(1, address("localhost", Ok(None)))]));
        let several = [address("k1", Ok(None)), address("k2", Ok(None))];
        checks.extend(of(&several, vec![node(3, address("k3", Err(silent())))]));
        checks.extend(of(&several, vec![node(3, address("k3", Ok(Some(Fault::Name(Vec::new())))))]));
        insta::assert_snapshot!(shown(checks));
    }
}
